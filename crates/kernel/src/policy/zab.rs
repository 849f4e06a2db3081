//! Zab, ZooKeeper's atomic broadcast (Junqueira, Reed, Serafini, "Zab: high-performance broadcast for primary-backup
//! systems", 2011), in the shape of a log.
//!
//! Its phases, in our words. *Discovery*: a prospective leader asks a quorum for the highest epoch each has promised
//! and takes the next one. The question is the pre-vote, whose answers carry promises; who is asked to lead is asked
//! by a replica that had a quorum's promises itself. Then `Elect` is NEWEPOCH and a vote is the acknowledgement with
//! the voter's history, told by its end. *Synchronization*: the leader makes the best history of a quorum its own
//! ([`build_log`]) and brings a quorum to it; its marker is NEWLEADER, and acknowledging the marker acknowledges the
//! history. *Broadcast*: only when the marker is committed are proposals taken ([`accepts_proposals`]).
//!
//! The best history is that of the greatest (last stamp, last index). If it is another voter's, that voter is asked to
//! lead, at once; if that comes to nothing, because it cannot reach a quorum or its disk hangs, the candidate fetches
//! the history from it and leads itself. The source cannot change meanwhile: it has promised the candidate's ballot.
//!
//! Why nothing committed is lost: stamps are origins, and an entry is committed only when a quorum holds an entry of
//! the same epoch. Every later quorum of votes has a member with it, and a history that ends no lower than that
//! member's contains it, by induction over epochs: it is Raft's argument with the comparison made by the candidate
//! instead of by the voters.
//!
//! The paper keeps two numbers, the promised epoch and the current epoch, and real bugs came from writing the current
//! epoch down before the history it stands for (ZOOKEEPER-3911, 4643, 4646, 4685). Here the current epoch is the marker
//! in the log and the log has one order on disk, so that mistake cannot be written down without a number of its own;
//! with `Defect::EpochApart` planted it gets one. Epoch and counter are 64 bits each and are not packed
//! (ZOOKEEPER-1277).
//!
//! Left out: ZooKeeper's separate election protocol (pre-vote and hand-over do its work), its DIFF, TRUNC and SNAP
//! messages (the shared append and snapshot paths do), and observers (learners).
//!
//! The price is the slowest failover: perhaps a hand-over, and no write before a quorum is synchronized.

use std::collections::BTreeMap;

use base::planted::{Defect, planted};
use base::{Ballot, Index, ReplicaId};

use super::{LeaderPhase, LogPlan, LogView, Vote};
use crate::entry::Position;

/// The best history of the quorum: the own one, one that was fetched, or one whose owner should lead.
pub(super) fn build_log(me: &LogView<'_>, votes: &BTreeMap<ReplicaId, &Vote>) -> LogPlan {
    let own =
        LogPlan { keep_to: me.log.last(), adopt: Vec::new(), restamp_from: None, accepted: None, fetch_from: None };
    let mine = rank(me.log.last_position(), me.accepted);
    let best = votes.iter().max_by_key(|(_, vote)| rank(vote.last, vote.accepted));
    let Some((voter, vote)) = best.filter(|(_, vote)| rank(vote.last, vote.accepted) > mine) else { return own };
    let first = me.commit.next();
    if vote.suffix_from > first {
        return LogPlan { fetch_from: Some((*voter, vote.last)), ..own };
    }
    // Equal stamps mean equal histories up to there, and everything committed is in the better one.
    let same =
        |index: &Index| me.log.stamp(*index).is_some_and(|stamp| vote.at(*index).map(|e| e.stamp) == Some(stamp));
    let common = (first.0..).map(Index).take_while(same).last().unwrap_or(me.commit);
    let adopt = vote.suffix.iter().filter(|entry| entry.index > common).cloned().collect();
    LogPlan { keep_to: common, adopt, ..own }
}

/// What histories are compared by: an epoch's first entry is its marker, so the last stamp is the current epoch.
fn rank(last: Position, accepted: Ballot) -> (Ballot, Index) {
    if planted(Defect::EpochApart) { (accepted, last.index) } else { (last.stamp, last.index) }
}

/// Broadcast begins when a quorum is synchronized.
pub(super) fn accepts_proposals(phase: LeaderPhase) -> bool {
    match phase {
        LeaderPhase::Syncing => planted(Defect::NoSyncBarrier),
        LeaderPhase::Active => true,
    }
}

/// Only entries of the own epoch are counted; the marker brings the history along.
pub(super) fn may_commit(stamp: Ballot, ballot: Ballot) -> bool {
    stamp == ballot || planted(Defect::NoSyncBarrier)
}
