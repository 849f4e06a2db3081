//! Property 1: replayed in the order of its revisions, every answer comes out as it was given.
//!
//! Rules, in this order: no strict answer is older than what anybody knew before it was asked; no two writes share a
//! revision; a write of unknown outcome happened where somebody saw it, or where nothing else explains an answer, at
//! most once and not before it was invoked; every answer is that of a reference store at its revision. Unless the
//! numbering is dense, nobody has recorded when leases ended: then keys that were ever on one are left out.
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
pub(crate) mod timeline;
mod unseen;

use std::borrow::Cow;

use crate::history::{History, Lease, Level, Numbering, Operation, Request};
use crate::time::{Floor, floors};
use crate::verdict::{Impossible, Options, Verdict};
use search::Search;
use timeline::Timeline;

/// Judges `history`.
#[must_use]
pub fn check(history: &History, options: &Options) -> Verdict {
    let numbering = options.numbering.unwrap_or(history.header.numbering);
    let is_dense = numbering == Numbering::Dense;
    if let Err(impossible) = check_time(history, &floors(&history.operations)) {
        return impossible.into();
    }
    let followed = if is_dense { dense(history) } else { unseen::followed(history) };
    let history = match &followed {
        Ok(history) => &**history,
        Err(id) => {
            let why = format!("operation {id} is about a lease that may end unseen, which cannot be followed");
            return Verdict::Undecided { why };
        }
    };
    let floors = floors(&history.operations);
    let timeline = match Timeline::new(history) {
        Ok(timeline) => timeline,
        Err(impossible) => return impossible.into(),
    };
    // The quick way almost always finds an explanation; only the thorough one can say that there is none.
    let search = |is_thorough| match Search::new(history, &timeline, &floors, options, is_thorough) {
        Ok(search) => search.run(is_dense),
        Err(impossible) => impossible.into(),
    };
    let verdict = search(false);
    if verdict.is_possible() { verdict } else { search(true) }
}

/// A lease ends when its time is up. Whoever numbers densely has recorded that; only of what nobody was told about it
/// is unknown whether it ended.
fn dense(history: &History) -> Result<Cow<'_, History>, u64> {
    let is_open = |operation: &&Operation| {
        operation.is_unknown() && matches!(&operation.request, Request::Lease(lease) if !lease.ended().is_empty())
    };
    match history.operations.iter().find(is_open) {
        Some(operation) => Err(operation.id),
        None => Ok(Cow::Borrowed(history)),
    }
}

/// A strict answer has a revision at least, and a write a revision above, all that were known before it was asked.
fn check_time(history: &History, floors: &[Option<Floor>]) -> Result<(), Impossible> {
    for (operation, floor) in history.operations.iter().zip(floors) {
        let (Some(revision), Some(floor)) = (operation.revision(), floor) else { continue };
        if operation.request.level() != Level::Strict || !is_one_moment(&operation.request) {
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

/// Whether the revision of an answer is that of one moment between the request and the answer. A watch answers all its
/// life long, a lease's clock is asked whatever the state is, a lock is several requests.
fn is_one_moment(request: &Request) -> bool {
    match request {
        Request::Watch(_) | Request::Lock(_) => false,
        Request::Lease(lease) => matches!(lease, Lease::Grant { .. } | Lease::Revoke { .. }),
        Request::Range(_) | Request::Put(_) | Request::DeleteRange(_) | Request::Txn(_) | Request::Compact(_) => true,
    }
}
