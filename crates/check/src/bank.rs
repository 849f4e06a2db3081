//! Property 4: money moves between accounts and is neither made nor lost.
//!
//! Every answer that shows all accounts, at any level and any revision, is of one moment: the balances add up to the
//! total, or there are no accounts yet. O(size of the answers).

use crate::history::{Bytes, History, Operation, Workload};
use crate::shown::shown;
use crate::verdict::{Impossible, Verdict};

/// Judges `history`.
#[must_use]
pub fn check(history: &History) -> Verdict {
    let mut judged = 0;
    for workload in &history.header.workloads {
        let Workload::Bank { prefix, accounts, total } = workload else { continue };
        for operation in &history.operations {
            match judge(operation, prefix, *accounts, *total) {
                Ok(seen) => judged += usize::from(seen),
                Err(reason) => return Impossible::new(reason, [operation.id]).into(),
            }
        }
    }
    Verdict::Possible { judged }
}

/// Whether the answer shows all accounts.
fn judge(operation: &Operation, prefix: &Bytes, accounts: u64, total: i64) -> Result<bool, String> {
    let Some(shown) = shown(operation) else { return Ok(false) };
    let mut sum = 0i64;
    let mut count = 0;
    for pair in shown.with_prefix(prefix) {
        let balance = std::str::from_utf8(&pair.value).ok().and_then(|text| text.parse::<i64>().ok());
        let balance = balance.ok_or_else(|| format!("{} holds {}, which is no balance", pair.key, pair.value))?;
        sum = sum.saturating_add(balance);
        count += 1;
    }
    if shown.covers(prefix) && count != 0 && count != accounts {
        return Err(format!("{count} of {accounts} accounts exist, which were made by one transaction"));
    }
    if count == accounts && sum != total {
        return Err(format!("the accounts add up to {sum}, not to {total}"));
    }
    Ok(count == accounts)
}
