//! Property 8: reads of the past are exact, and refused only with reason.
//!
//! Two answers about the same keys at one revision are equal (what they must be is the replay's business); no answer is
//! about a revision that its own header has not reached; after a compaction was acknowledged, strict reads below it
//! fail and it is not done again; "compacted" needs a compaction that could have been, "future" a revision that nobody
//! knew. O(n log n).

use std::collections::BTreeMap;

use crate::history::{History, Level, Operation, Outcome, Range, Request, Response, Revision};
use crate::time::floors;
use crate::verdict::{Impossible, Verdict};

/// Judges `history`.
#[must_use]
pub fn check(history: &History) -> Verdict {
    let rules = [same_answers, reached, after_compaction, refusals];
    let mut judged = 0;
    for rule in rules {
        match rule(history) {
            Ok(count) => judged = judged.max(count),
            Err(impossible) => return impossible.into(),
        }
    }
    Verdict::Possible { judged }
}

/// Reads of the past that stand on their own.
fn past_reads(history: &History) -> impl Iterator<Item = (&Operation, &Range)> {
    history.operations.iter().filter_map(|operation| match &operation.request {
        Request::Range(range) if range.revision > 0 => Some((operation, range)),
        _ => None,
    })
}

fn same_answers(history: &History) -> Result<usize, Impossible> {
    let mut known: BTreeMap<_, (&Response, u64)> = BTreeMap::new();
    let mut judged = 0;
    for (operation, range) in past_reads(history) {
        let Some(response) = operation.response() else { continue };
        judged += 1;
        // Answers to the same question only; the freshness asked for makes no difference.
        let question = Range { level: Level::Strict, ..range.clone() };
        let question = format!("{question:?}");
        let (first, by) = known.entry(question).or_insert((response, operation.id));
        if *first != response {
            let reason = format!("two answers about revision {} differ", range.revision);
            return Err(Impossible::new(reason, [operation.id, *by]));
        }
    }
    Ok(judged)
}

fn reached(history: &History) -> Result<usize, Impossible> {
    let mut judged = 0;
    for (operation, range) in past_reads(history) {
        let Some(revision) = operation.revision() else { continue };
        judged += 1;
        if range.revision > revision {
            let reason =
                format!("an answer about revision {} comes from a node at revision {revision}", range.revision);
            return Err(Impossible::new(reason, [operation.id]));
        }
    }
    for operation in &history.operations {
        if let (Request::Compact(compact), Some(revision)) = (&operation.request, operation.revision()) {
            judged += 1;
            if compact.revision > revision {
                let reason = format!("compacted to revision {}, which was not reached ({revision})", compact.revision);
                return Err(Impossible::new(reason, [operation.id]));
            }
        }
    }
    Ok(judged)
}

/// The greatest acknowledged compaction before each operation.
fn after_compaction(history: &History) -> Result<usize, Impossible> {
    let compactions = history.operations.iter().filter_map(|operation| match &operation.request {
        Request::Compact(compact) if operation.response().is_some() => Some((operation, compact.revision)),
        _ => None,
    });
    let mut compactions: Vec<(&Operation, Revision)> = compactions.collect();
    compactions.sort_by_key(|(operation, _)| operation.returned);
    let mut by_invocation: Vec<&Operation> = history.operations.iter().collect();
    by_invocation.sort_by_key(|operation| operation.invoked);
    let mut compactions = compactions.into_iter().peekable();
    let mut floor: Option<(&Operation, Revision)> = None;
    let mut judged = 0;
    for operation in by_invocation {
        while let Some(next) = compactions.next_if(|(other, _)| other.returned < Some(operation.invoked)) {
            if floor.is_none_or(|(_, floor)| next.1 > floor) {
                floor = Some(next);
            }
        }
        let (Some((other, floor)), Some(_)) = (floor, operation.response()) else { continue };
        match &operation.request {
            Request::Range(range) if range.revision > 0 && range.level == Level::Strict => {
                judged += 1;
                if range.revision < floor {
                    let reason = format!("revision {} was read after compaction to {floor}", range.revision);
                    return Err(Impossible::new(reason, [operation.id, other.id]));
                }
            }
            Request::Compact(compact) => {
                judged += 1;
                if compact.revision <= floor {
                    let reason = format!("compacted to {} after compaction to {floor}", compact.revision);
                    return Err(Impossible::new(reason, [operation.id, other.id]));
                }
            }
            _ => {}
        }
    }
    Ok(judged)
}

fn refusals(history: &History) -> Result<usize, Impossible> {
    let floors = floors(&history.operations);
    let mut judged = 0;
    for (operation, known) in history.operations.iter().zip(&floors) {
        let (Request::Range(range), Outcome::Failed { reason }) = (&operation.request, &operation.outcome) else {
            continue;
        };
        if range.revision <= 0 {
            continue;
        }
        if reason.contains("future revision") && range.level == Level::Strict {
            judged += 1;
            if let Some(known) = known.filter(|known| known.revision >= range.revision) {
                let reason = format!(
                    "revision {} was refused as not reached, but revision {} was known before",
                    range.revision, known.revision
                );
                return Err(Impossible::new(reason, [operation.id, history.operations[known.at].id]));
            }
        }
        if reason.contains("compacted") && history.header.numbering == crate::history::Numbering::Dense {
            judged += 1;
            if !history.operations.iter().any(|other| could_compact(other, operation, range.revision)) {
                let reason = format!("revision {} was refused as compacted, but nobody compacted", range.revision);
                return Err(Impossible::new(reason, [operation.id]));
            }
        }
    }
    Ok(judged)
}

/// Whether `other` could have put the floor above `revision` before `operation` was answered.
fn could_compact(other: &Operation, operation: &Operation, revision: Revision) -> bool {
    let Request::Compact(compact) = &other.request else { return false };
    let is_done = !matches!(other.outcome, Outcome::Failed { .. });
    is_done && compact.revision > revision && operation.returned.is_none_or(|returned| other.invoked <= returned)
}
