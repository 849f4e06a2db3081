//! What clients asked and what they were told.

use std::collections::BTreeMap;

use base::{NodeId, Revision};
use bytes::Bytes;
use mvcc::{Command, KeyValue, Outcome, OutcomeResult, RangeRequest, RangeResponse, Reject};

/// A request as it was sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Asked {
    /// Through the log.
    Write(Command),
    /// A read; the request says of what strictness.
    Read(RangeRequest),
}

/// What became of it, as far as the client knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told {
    /// The outcome of a command, rejections included.
    Outcome(Outcome),
    /// The answer to a read.
    Range(RangeResponse),
    /// A read that cannot be served as asked.
    Rejected(Reject),
    /// Surely not done.
    NotDone,
    /// May or may not have been done.
    Unknown,
}

/// One request and its fate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operation {
    /// Who asked.
    pub client: u64,
    /// Who was asked.
    pub node: NodeId,
    /// When, in world time.
    pub called_at: u64,
    /// When the client knew; none if it never did.
    pub returned_at: Option<u64>,
    /// What was asked.
    pub asked: Asked,
    /// What was told.
    pub told: Told,
}

impl Operation {
    /// Whether the client was told that it is done.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        matches!(self.told, Told::Outcome(_) | Told::Range(_) | Told::Rejected(_))
    }
}

/// The rules that can be told at a glance; a search for an order of all operations is the checkers' business.
/// - No strict answer is older than what anybody had been told before it was asked for; a write is newer.
/// - No two writes have one revision, and whoever sees a revision sees the same value at it.
pub(crate) fn check(history: &[Operation]) -> Result<(), String> {
    check_real_time(history)?;
    check_values(history)
}

/// The revision an answer is of, and whether it is a write that changed something.
fn revision(operation: &Operation) -> Option<(Revision, bool)> {
    match (&operation.told, &operation.asked) {
        (Told::Outcome(outcome), _) => Some((outcome.revision, changes(&outcome.result))),
        (Told::Range(_), Asked::Read(request)) if request.serializable => None,
        (Told::Range(answer), _) => Some((answer.revision, false)),
        (Told::Rejected(_) | Told::NotDone | Told::Unknown, _) => None,
    }
}

fn changes(result: &OutcomeResult) -> bool {
    match result {
        OutcomeResult::Put(_) => true,
        OutcomeResult::DeleteRange(deleted) => deleted.deleted > 0,
        OutcomeResult::Txn(txn) => txn.succeeded,
        // Compactions and leases have no revision of their own; of what was too large to tell nothing is known.
        _ => false,
    }
}

fn check_real_time(history: &[Operation]) -> Result<(), String> {
    let strict = || history.iter().filter_map(|operation| Some((operation, revision(operation)?)));
    let mut returns: Vec<(u64, Revision)> =
        strict().filter_map(|(operation, (revision, _))| Some((operation.returned_at?, revision))).collect();
    returns.sort_unstable();
    // From now on the highest revision anybody had been told by that time.
    let mut highest = Revision(0);
    for (_, revision) in &mut returns {
        highest = highest.max(*revision);
        *revision = highest;
    }
    let mut writers: BTreeMap<Revision, &Operation> = BTreeMap::new();
    for (operation, (revision, writes)) in strict() {
        let before = returns.partition_point(|(returned_at, _)| *returned_at < operation.called_at);
        let known = before.checked_sub(1).map_or(Revision(0), |last| returns[last].1);
        if revision < known || (writes && revision == known) {
            return Err(format!("revision {known} had been told before {operation:?} was asked"));
        }
        if writes && let Some(other) = writers.insert(revision, operation) {
            return Err(format!("revision {revision} was given twice: {other:?} and {operation:?}"));
        }
    }
    Ok(())
}

fn check_values(history: &[Operation]) -> Result<(), String> {
    let mut values: BTreeMap<(Bytes, Revision), (&Bytes, Revision, i64)> = BTreeMap::new();
    for operation in history {
        let Told::Range(answer) = &operation.told else { continue };
        for KeyValue { key, value, mod_revision, create_revision, version, .. } in &answer.result.kvs {
            let seen = (value, *create_revision, *version);
            let known = *values.entry((key.clone(), *mod_revision)).or_insert(seen);
            if known != seen {
                return Err(format!("{key:?} at {mod_revision} is {known:?} and {seen:?} in {operation:?}"));
            }
            if mod_revision > &answer.revision {
                return Err(format!("{key:?} at {mod_revision} is newer than the answer: {operation:?}"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use mvcc::{PutResult, RangeResult};

    use super::*;

    fn operation(called_at: u64, returned_at: u64, asked: Asked, told: Told) -> Operation {
        Operation { client: 1, node: NodeId(1), called_at, returned_at: Some(returned_at), asked, told }
    }

    fn put(called_at: u64, returned_at: u64, revision: i64) -> Operation {
        let result = OutcomeResult::Put(PutResult::default());
        let told = Told::Outcome(Outcome { revision: Revision(revision), result });
        operation(called_at, returned_at, Asked::Write(Command::Put(mvcc::Put::default())), told)
    }

    fn get(called_at: u64, revision: i64, value: &'static str, serializable: bool) -> Operation {
        let kv = KeyValue { value: value.into(), mod_revision: Revision(2), ..KeyValue::default() };
        let result = RangeResult { kvs: vec![kv], more: false, count: 1 };
        let told = Told::Range(RangeResponse { revision: Revision(revision), result });
        let request = RangeRequest { serializable, ..RangeRequest::default() };
        operation(called_at, called_at + 1, Asked::Read(request), told)
    }

    #[test]
    fn a_stale_read_is_found_unless_it_may_be_stale() {
        assert_eq!(check(&[put(1, 5, 2), put(6, 9, 3), get(10, 3, "a", false)]), Ok(()));
        assert!(check(&[put(1, 5, 2), put(6, 9, 3), get(10, 2, "a", false)]).is_err());
        assert_eq!(check(&[put(1, 5, 2), put(6, 9, 3), get(10, 2, "a", true)]), Ok(()));
        assert_eq!(check(&[put(1, 5, 2), put(6, 12, 3), get(10, 2, "a", false)]), Ok(()), "concurrent");
    }

    #[test]
    fn a_revision_given_twice_or_with_two_values_is_found() {
        assert!(check(&[put(1, 5, 2), put(2, 6, 2)]).is_err());
        assert!(check(&[put(1, 5, 3), put(6, 9, 3)]).is_err());
        assert!(check(&[get(1, 2, "a", true), get(1, 3, "b", true)]).is_err());
    }
}
