//! Property 6: all reads agree on the order in which keys appeared.
//!
//! Keys are created one by one and stay. Of two answers that show all of them, at any level, one contains the other;
//! else one saw x without y, and the other y without x. O(answers * keys).

use std::collections::BTreeSet;

use crate::history::{Bytes, History, Workload};
use crate::shown::shown;
use crate::verdict::{Impossible, Verdict};

/// Judges `history`.
#[must_use]
pub fn check(history: &History) -> Verdict {
    let mut judged = 0;
    for workload in &history.header.workloads {
        let Workload::LongFork { prefix } = workload else { continue };
        let mut reads: Vec<(BTreeSet<&Bytes>, u64)> = Vec::new();
        for operation in &history.operations {
            let Some(shown) = shown(operation).filter(|shown| shown.covers(prefix)) else { continue };
            reads.push((shown.with_prefix(prefix).map(|pair| &pair.key).collect(), operation.id));
        }
        reads.sort_by_key(|(keys, id)| (keys.len(), *id));
        for pair in reads.windows(2) {
            let ((fewer, one), (more, two)) = (&pair[0], &pair[1]);
            if let Some(missing) = fewer.difference(more).next() {
                let extra = more.difference(fewer).next().map_or("nothing else".to_owned(), ToString::to_string);
                let reason = format!("one answer shows {missing} without {extra}, the other {extra} without {missing}");
                return Impossible::new(reason, [*one, *two]).into();
            }
        }
        judged += reads.len();
    }
    Verdict::Possible { judged }
}
