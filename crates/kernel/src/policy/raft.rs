//! Raft's answers (Ongaro and Ousterhout 2014; thesis chapter 3), with (round, node) pairs as terms.
//!
//! Invariant: two logs that agree on the stamp of an index agree on everything up to it (Log Matching). It rests on
//! stamps being origins, on [`accept`] comparing the stamp before it writes, and on cutting at the first conflict.

use std::collections::BTreeMap;

use base::planted::{Defect, planted};
use base::{Ballot, Index, ReplicaId};

use super::{AcceptPlan, AppendView, Claim, Grant, LogPlan, LogView, Vote};
use crate::entry::Position;
use crate::log::Log;

/// Thesis 3.6.1: the stamp decides, the length only among equal stamps. The other way round a long log of a deposed
/// leader would win over a short one that holds committed entries.
pub(super) fn grant(me: &LogView<'_>, claim: &Claim) -> Grant {
    let mine = me.log.last_position();
    let longer = planted(Defect::LengthBeforeStamp) && claim.last.index > mine.index;
    if longer || (claim.last.stamp, claim.last.index) >= (mine.stamp, mine.index) {
        Grant::Give { suffix_from: None }
    } else {
        Grant::Refuse
    }
}

/// The winner's own log already holds every committed entry (Leader Completeness, thesis 3.6.3).
pub(super) fn build_log(me: &LogView<'_>, _votes: &BTreeMap<ReplicaId, &Vote>, _ballot: Ballot) -> LogPlan {
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

/// Where the leader should try next (thesis 3.5, end): the last entry up to `prev` whose stamp is not above the
/// leader's there. What is skipped carries stamps the leader cannot have at that place; the leader in turn skips what
/// carries stamps above the one named, so each side passes over whole ballots.
fn hint(log: &Log, commit: Index, prev: Position) -> Position {
    let mut index = prev.index.min(log.last());
    while index > commit && log.stamp(index).is_some_and(|stamp| stamp > prev.stamp) {
        index = log.before_ballot_of(index);
    }
    log.position(index.max(commit)).expect("commit index and log end bound the search")
}

#[cfg(test)]
mod tests {
    use base::NodeId;
    use bytes::Bytes;

    use super::*;
    use crate::entry::{Entry, EntryKind};

    fn ballot(round: u64) -> Ballot {
        Ballot::new(round, NodeId(1))
    }

    fn entry(index: u64, round: u64) -> Entry {
        let stamp = ballot(round);
        Entry { index: Index(index), stamp, origin: stamp, kind: EntryKind::Command, payload: Bytes::new() }
    }

    fn log(rounds: &[u64]) -> Log {
        let mut log = Log::new(Position::default());
        (1..).zip(rounds).for_each(|(index, round)| log.push(entry(index, *round)));
        log
    }

    fn position(index: u64, round: u64) -> Position {
        if index == 0 { Position::default() } else { Position { index: Index(index), stamp: ballot(round) } }
    }

    #[test]
    fn the_stamp_of_the_last_entry_decides_before_its_index() {
        for (mine, theirs, granted) in [
            (&[1, 1][..], (2, 1), true),
            (&[1, 1], (1, 1), false),
            (&[1, 1, 1, 1], (2, 2), true),
            (&[1, 2], (9, 1), false),
            (&[], (0, 0), true),
            (&[1], (0, 0), false),
        ] {
            let log = log(mine);
            let view = LogView { log: &log, accepted: Ballot::ZERO, commit: Index(0) };
            let claim = Claim { last: position(theirs.0, theirs.1), accepted: Ballot::ZERO, commit: Index(0) };
            assert_eq!(grant(&view, &claim) != Grant::Refuse, granted, "{mine:?} against {theirs:?}");
        }
    }

    /// Figure 7 of the Raft paper: followers (a) to (f) of a leader with 1 1 1 4 4 5 5 6 6 6, and what an append after
    /// its last entry gets for an answer.
    #[test]
    fn the_followers_of_figure_7_say_where_to_try_next() {
        for (name, follower, expected) in [
            ("a", &[1, 1, 1, 4, 4, 5, 5, 6, 6][..], Err(position(9, 6))),
            ("b", &[1, 1, 1, 4], Err(position(4, 4))),
            ("c", &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6], Ok(Some(11))),
            ("d", &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7], Ok(Some(11))),
            ("e", &[1, 1, 1, 4, 4, 4, 4], Err(position(7, 4))),
            ("f", &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3], Err(position(10, 3))),
        ] {
            let log = log(follower);
            let view = LogView { log: &log, accepted: Ballot::ZERO, commit: Index(1) };
            let entries = [entry(11, 8)];
            let append =
                AppendView { ballot: ballot(8), prev: position(10, 6), entries: &entries, sync_index: Index(11) };
            match (accept(&view, &append), expected) {
                (AcceptPlan::Reject { hint }, Err(expected)) => assert_eq!(hint, expected, "{name}"),
                (AcceptPlan::Write { truncate_from, skip: 0, matched: Index(11), .. }, Ok(expected)) => {
                    assert_eq!(truncate_from.map(|index| index.0), expected, "{name}");
                }
                (plan, _) => panic!("{name}: {plan:?}"),
            }
        }
    }

    #[test]
    fn only_a_conflict_cuts_and_never_below_the_commit_index() {
        let log = log(&[1, 1, 2, 2]);
        let plan = |commit, prev: (u64, u64), entries: &[(u64, u64)]| {
            let entries: Vec<Entry> = entries.iter().map(|(index, round)| entry(*index, *round)).collect();
            let view = LogView { log: &log, accepted: Ballot::ZERO, commit: Index(commit) };
            let append = AppendView {
                ballot: ballot(9),
                prev: position(prev.0, prev.1),
                entries: &entries,
                sync_index: Index(0),
            };
            match accept(&view, &append) {
                AcceptPlan::Write { truncate_from, skip, matched, .. } => {
                    Some((truncate_from.map(|index| index.0), skip, matched.0))
                }
                AcceptPlan::Reject { .. } | AcceptPlan::Stage => None,
                AcceptPlan::Contradiction => Some((None, 99, 0)),
            }
        };
        assert_eq!(plan(0, (1, 1), &[(2, 1)]), Some((None, 1, 2)), "an overtaken append cuts nothing");
        assert_eq!(plan(0, (1, 1), &[]), Some((None, 0, 1)));
        assert_eq!(plan(0, (2, 1), &[(3, 2), (4, 3), (5, 3)]), Some((Some(4), 1, 5)));
        assert_eq!(plan(0, (4, 2), &[(5, 3)]), Some((None, 0, 5)));
        assert_eq!(plan(0, (4, 1), &[(5, 3)]), None);
        assert_eq!(plan(3, (2, 1), &[(3, 3)]), Some((None, 99, 0)), "a decided entry is never replaced");
        assert_eq!(plan(3, (3, 1), &[]), Some((None, 99, 0)), "nor contradicted");
    }
}
