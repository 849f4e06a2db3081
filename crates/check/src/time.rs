//! What was known when: the greatest revision anybody had been told of before an operation was invoked.
//!
//! Invariant: only answers that were there strictly before count; operations that touch in time are concurrent.

use crate::history::{Operation, Response, Revision};

/// The greatest revision of an earlier answer, and whose it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Floor {
    pub(crate) revision: Revision,
    /// Position of the operation in the history.
    pub(crate) at: usize,
}

/// The floor of each operation; none when nothing had been answered. O(n log n).
pub(crate) fn floors(operations: &[Operation]) -> Vec<Option<Floor>> {
    let mut answers: Vec<(u64, Revision, usize)> = operations
        .iter()
        .enumerate()
        .filter_map(|(at, operation)| Some((operation.returned?, operation.revision()?, at)))
        .chain(operations.iter().enumerate().flat_map(|(at, operation)| delivered(at, operation)))
        .collect();
    answers.sort_unstable();
    let mut by_invocation: Vec<usize> = (0..operations.len()).collect();
    by_invocation.sort_by_key(|at| operations[*at].invoked);
    let mut floors = vec![None; operations.len()];
    let mut answers = answers.into_iter().peekable();
    let mut floor: Option<Floor> = None;
    for at in by_invocation {
        while let Some((_, revision, by)) = answers.next_if(|answer| answer.0 < operations[at].invoked) {
            if floor.is_none_or(|floor| revision > floor.revision) {
                floor = Some(Floor { revision, at: by });
            }
        }
        floors[at] = floor;
    }
    floors
}

/// What a watch delivered was known from then on.
fn delivered(at: usize, operation: &Operation) -> impl Iterator<Item = (u64, Revision, usize)> + '_ {
    let batches = match operation.response() {
        Some(Response::Watch { batches }) => &batches[..],
        _ => &[],
    };
    batches.iter().filter_map(move |batch| Some((batch.at, batch.events.last()?.revision(), at)))
}
