//! Raft's answers (Ongaro and Ousterhout 2014; thesis chapter 3), with (round, node) pairs as terms.
//!
//! Invariant: two logs that agree on the stamp of an index agree on everything up to it (Log Matching). It rests on
//! stamps being origins, on [`accept`] comparing the stamp before it writes, and on cutting at the first conflict.

use std::collections::BTreeMap;

use base::{Ballot, Index, NodeId, ReplicaId};

use super::{AcceptPlan, AppendView, Claim, Grant, LogPlan, LogView, Vote};
use crate::entry::Position;
use crate::log::Log;

/// One round above everything heard of; the node makes it unique.
pub(super) fn choose_ballot(promised: Ballot, learnt: Ballot, node: NodeId) -> Ballot {
    Ballot::new(promised.max(learnt).round + 1, node)
}

/// Thesis 3.6.1: the stamp decides, the length only among equal stamps. The other way round a long log of a deposed
/// leader would win over a short one that holds committed entries.
pub(super) fn grant(me: &LogView<'_>, claim: &Claim) -> Grant {
    let mine = me.log.last_position();
    if (claim.last.stamp, claim.last.index) >= (mine.stamp, mine.index) {
        Grant::Give { suffix_from: None }
    } else {
        Grant::Refuse
    }
}

/// The winner's own log already holds every committed entry (Leader Completeness, thesis 3.6.3).
pub(super) fn build_log(me: &LogView<'_>, _votes: &BTreeMap<ReplicaId, Vote>, _ballot: Ballot) -> LogPlan {
    LogPlan { keep_to: me.log.last(), adopt: Vec::new(), restamp_from: None, accepted: None, fetch_from: None }
}

/// Thesis 3.5, with two refinements. Entries up to the commit index agree with every leader's by Leader Completeness,
/// so `prev` may lie below a compacted prefix whose stamps are gone. And only a *conflict* cuts the log: a message that
/// was overtaken by a later one must not take back what that one wrote.
pub(super) fn accept(me: &LogView<'_>, append: &AppendView<'_>) -> AcceptPlan {
    let prev = append.prev;
    match me.log.stamp(prev.index) {
        Some(stamp) if stamp == prev.stamp => {}
        Some(_) if prev.index <= me.commit => return AcceptPlan::Contradiction,
        None if prev.index <= me.commit => {}
        Some(_) | None => return AcceptPlan::Reject { hint: hint(me.log, me.commit, prev) },
    }
    let mut skip = 0;
    let mut truncate_from = None;
    for entry in append.entries {
        match me.log.stamp(entry.index) {
            Some(stamp) if stamp == entry.stamp => skip += 1,
            None if entry.index <= me.commit => skip += 1,
            None => break,
            Some(_) if entry.index <= me.commit => return AcceptPlan::Contradiction,
            Some(_) => {
                truncate_from = Some(entry.index);
                break;
            }
        }
    }
    let matched = Index(prev.index.0 + append.entries.len() as u64);
    AcceptPlan::Write { truncate_from, skip, restamp: None, accepted: None, matched }
}

/// Where the leader should try next (thesis 3.5, end): the last entry before `prev` whose stamp is not above the
/// leader's there. Everything skipped carries a stamp the leader cannot have at that place.
fn hint(log: &Log, commit: Index, prev: Position) -> Position {
    let mut index = if prev.index > log.last() { log.last() } else { log.before_ballot_of(prev.index) };
    while index > commit && log.stamp(index).is_some_and(|stamp| stamp > prev.stamp) {
        index = log.before_ballot_of(index);
    }
    log.position(index.max(commit)).expect("commit index and log end bound the search")
}
