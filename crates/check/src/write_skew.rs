//! Property 5: two transactions that each saw neither key of a pair do not create one each.
//!
//! Every answer that shows both keys of a pair shows at most one that exists. O(size of the answers).

use crate::history::{Bytes, History, Workload};
use crate::shown::{Shown, shown};
use crate::verdict::{Impossible, Verdict};

/// Judges `history`.
#[must_use]
pub fn check(history: &History) -> Verdict {
    let mut judged = 0;
    for workload in &history.header.workloads {
        let Workload::WriteSkew { prefix } = workload else { continue };
        for operation in &history.operations {
            let Some(shown) = shown(operation) else { continue };
            if let Some(pair) = both(&shown, prefix) {
                let reason = format!("both keys of the pair {pair} exist");
                return Impossible::new(reason, [operation.id]).into();
            }
            judged += usize::from(shown.spans.iter().any(|span| is_about(span, prefix)));
        }
    }
    Verdict::Possible { judged }
}

fn is_about(span: &crate::span::Span<'_>, prefix: &Bytes) -> bool {
    match span {
        crate::span::Span::Key(key) => key.starts_with(prefix),
        span => span.contains(prefix),
    }
}

/// A pair of which both keys are there.
fn both(shown: &Shown<'_>, prefix: &Bytes) -> Option<Bytes> {
    shown.pairs.keys().filter(|key| key.starts_with(prefix)).find_map(|key| {
        let stem = key.strip_suffix(b"/a")?;
        let other = [stem, b"/b"].concat();
        shown.pairs.contains_key(&other[..]).then(|| Bytes::from(stem))
    })
}
