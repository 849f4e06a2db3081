//! Property 2: there is an order of all strict operations that respects time and explains every answer, whatever the
//! revisions say.
//!
//! The search of Wing and Gong with Lowe's memory of configurations, per group of keys. Keys that one write touches
//! together are one group; a read of several groups is split into one read per group, which is a weaker demand. Small
//! histories are one group. What a group remembers of a key is value and version; compares on revisions, leases and
//! reads of the past are taken as answered. Keys that were ever attached to a lease are left out: they go when nobody
//! asks for it, and the replay by revisions judges that. A write of unknown outcome may take effect at any later time
//! or never.
//!
//! Cost: linear in practice, exponential in how many operations overlap at worst; steps and memory are bounded, and
//! beyond that the verdict is undecided.

mod group;
mod search;
mod state;

use crate::history::History;
use crate::verdict::{Options, Verdict};

/// Judges `history`.
#[must_use]
pub fn check(history: &History, options: &Options) -> Verdict {
    let mut judged = 0;
    let mut undecided = None;
    for group in group::split(history, options.whole_operations_max) {
        match search::search(&group, options) {
            Ok(count) => judged += count,
            Err(verdict @ Verdict::Impossible(_)) => return verdict,
            Err(verdict) => undecided = undecided.or(Some(verdict)),
        }
    }
    undecided.unwrap_or(Verdict::Possible { judged })
}
