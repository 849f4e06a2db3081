//! Property 1: replayed in the order of its revisions, every answer comes out as it was given.
//!
//! Rules, in this order: no strict answer is older than what anybody knew before it was asked; no two writes share a
//! revision; a write of unknown outcome happened where somebody saw it, or where nothing else explains an answer, at
//! most once and not before it was invoked; every answer is that of a reference store at its revision.
//!
//! Cost: O(n log n) comparisons plus the size of all answers. Only unknown outcomes that several operations could
//! explain cost more; that search is bounded, and undecided beyond.
//!
//! Invariant: "impossible" rests on answers alone. Trusts the revisions in them; `linearizable` does not.

mod blame;
mod explain;
mod gaps;
mod search;
mod slots;
mod timeline;

use crate::history::{History, Level, Numbering, Request, Txn};
use crate::time::{Floor, floors};
use crate::verdict::{Impossible, Options, Verdict};
use search::Search;
use timeline::Timeline;

/// Judges `history`.
#[must_use]
pub fn check(history: &History, options: &Options) -> Verdict {
    if let Some(operation) = history.operations.iter().find(|operation| has_lease(&operation.request)) {
        let why = format!("operation {} is about a lease or lock, which the replay cannot follow yet", operation.id);
        return Verdict::Undecided { why };
    }
    let floors = floors(&history.operations);
    if let Err(impossible) = check_time(history, &floors) {
        return impossible.into();
    }
    let timeline = match Timeline::new(history) {
        Ok(timeline) => timeline,
        Err(impossible) => return impossible.into(),
    };
    let numbering = options.numbering.unwrap_or(history.header.numbering);
    let is_dense = numbering == Numbering::Dense;
    // The quick way almost always finds an explanation; only the thorough one can say that there is none.
    let search = |is_thorough| match Search::new(history, &timeline, &floors, options, is_thorough) {
        Ok(search) => search.run(is_dense),
        Err(impossible) => impossible.into(),
    };
    let verdict = search(false);
    if verdict.is_possible() { verdict } else { search(true) }
}

fn has_lease(request: &Request) -> bool {
    match request {
        Request::Lease(_) | Request::Lock(_) => true,
        Request::Put(put) => put.lease != 0,
        Request::Txn(txn) => txn_has_lease(txn),
        Request::Range(_) | Request::DeleteRange(_) | Request::Compact(_) | Request::Watch(_) => false,
    }
}

fn txn_has_lease(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match op {
        crate::history::Op::Put(put) => put.lease != 0,
        crate::history::Op::Txn(nested) => txn_has_lease(nested),
        crate::history::Op::Range(_) | crate::history::Op::DeleteRange(_) => false,
    })
}

/// A strict answer has a revision at least, and a write a revision above, all that were known before it was asked.
fn check_time(history: &History, floors: &[Option<Floor>]) -> Result<(), Impossible> {
    for (operation, floor) in history.operations.iter().zip(floors) {
        let (Some(revision), Some(floor)) = (operation.revision(), floor) else { continue };
        if operation.request.level() != Level::Strict || matches!(operation.request, Request::Watch(_)) {
            continue;
        }
        let modified = timeline::modifies(operation);
        if revision < floor.revision || (modified && revision == floor.revision) {
            let earlier = history.operations[floor.at].id;
            let what = if modified { "write" } else { "strict answer" };
            let reason = format!(
                "a {what} has revision {revision}, but revision {} was known before it was asked",
                floor.revision
            );
            return Err(Impossible::new(reason, [operation.id, earlier]));
        }
    }
    Ok(())
}
