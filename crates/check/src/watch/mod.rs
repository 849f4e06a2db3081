//! Property 9: watches deliver everything once, in order, and nothing else.
//!
//! The predicates are those of etcd's robustness tests, by their names there: *filter* (keys and kinds that were asked
//! for), *ordered* (by revision), *unique* (no event twice), *atomic* (a revision in one batch), *bookmarkable* (after
//! progress nothing older), *resumable* (nothing is missing at the start), *reliable* (nor later), *is-create* and
//! *prev-kv* (what an event says of before); and *start* (nothing below the start), *true* (what was written, by whom,
//! not before it was asked for), *cancel* (ended with a reason that is one).
//!
//! Invariant: "missing" and "untrue" rest on acknowledged writes and on what other watches delivered. Cost: for each
//! watch the events of the revisions it covers.

mod claims;
mod course;

use crate::changes::Changes;
use crate::history::{History, Operation, Request, Response, Watch, WatchBatch};
use crate::verdict::{Impossible, Verdict};
use claims::Claims;
use course::Course;

/// Judges `history`.
#[must_use]
pub fn check(history: &History) -> Verdict {
    let changes = Changes::new(history);
    match judge(history, &changes) {
        Ok(judged) => Verdict::Possible { judged },
        Err(impossible) => impossible.into(),
    }
}

fn judge(history: &History, changes: &Changes<'_>) -> Result<usize, Impossible> {
    let mut courses = Vec::new();
    let mut claims = Claims::new(history, changes);
    for (operation, watch, batches) in watches(history) {
        let course = Course::follow(history, operation, watch, batches)?;
        claims.take_in(&course)?;
        courses.push(course);
    }
    courses.iter().try_for_each(|course| claims.nothing_is_missing(course))?;
    Ok(courses.iter().map(Course::events).sum())
}

fn watches(history: &History) -> impl Iterator<Item = (&Operation, &Watch, &[WatchBatch])> {
    history.operations.iter().filter_map(|operation| match (&operation.request, operation.response()) {
        (Request::Watch(watch), Some(Response::Watch { batches })) => Some((operation, watch, &batches[..])),
        _ => None,
    })
}
