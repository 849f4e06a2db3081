//! Paxos-Raft: Raft's log and elections with the freedom of Multi-Paxos to choose a leader that lags, in the manner of
//! Raft* (Wang, Mu, Cui, Yi, Chen, Li, "On the parallels between Paxos and Raft, and how to port optimizations", 2019).
//! It is specified here by itself; it is not claimed to be the paper's algorithm line by line.
//!
//! One more durable ballot per replica, *accepted*: the leader of which the whole undecided log is a prefix. It takes
//! the place of stamps wherever logs are compared:
//! - *A vote* asks only that the candidate's accepted ballot is not below the voter's. A shorter log may win; voters
//!   return what the candidate lacks, and for each such slot it takes the entry of the voter that accepted last.
//!   Those entries, and no others, are stamped with the new ballot: stamps stay monotone along the log, so that, as in
//!   Raft, equal stamps at an index mean equal logs up to there.
//! - *An append covers* ([`accept`]): it is taken only if it reaches the end of the follower's log, or of the log its
//!   leader was elected with. Then the follower's log is a prefix of the leader's, and the accepted ballot moves with
//!   it in one atomic batch. Otherwise the follower would forget what it accepted earlier and still count as current.
//!   What does not fit one message is staged in memory until it covers.
//! - *Entries of any stamp commit by counting*: whoever counts has accepted the whole log in this ballot, and nobody
//!   with a lower accepted ballot gets that replica's vote. Under Raft's vote this would be figure 8 again.
//!
//! Why nothing chosen is lost: read `accepted` as the ballot in which every slot of the log was accepted, and it is
//! Multi-Paxos. A candidate's slots are of the highest ballot among its voters, since it has the highest accepted
//! ballot and equal ballots mean equal prefixes; for slots beyond its log it takes the highest. Coverage means that
//! nothing up to the leader's synchronization index is un-accepted, and beyond that index nothing older can be chosen.
//!
//! A log that is only part of what a snapshot replaced keeps its suffix and its accepted ballot, whatever the stamps
//! say: either the slots agree, or the suffix contradicts what is decided and its owner cannot win before it is
//! replaced.
//!
//! Left out: the optimizations that the paper ports. The price: the coverage rule, and least experience of all four.

use std::collections::BTreeMap;

use base::planted::{Defect, planted};
use base::{Ballot, Index, ReplicaId};

use super::{AcceptPlan, AppendView, Claim, Grant, LogPlan, LogView, Vote, suffix_after};
use crate::entry::Position;

/// Whoever accepted no earlier than the voter. The vote carries what the candidate lacks.
pub(super) fn grant(me: &LogView<'_>, claim: &Claim) -> Grant {
    let mine = me.log.last_position();
    let is_current = if planted(Defect::RaftVoteRule) {
        (claim.last.stamp, claim.last.index) >= (mine.stamp, mine.index)
    } else {
        claim.accepted >= me.accepted || planted(Defect::AcceptedIgnored)
    };
    if is_current { suffix_after(me.log, claim.last.index) } else { Grant::Refuse }
}

/// The own log, and behind it slot by slot the entry of the voter that accepted last.
pub(super) fn build_log(me: &LogView<'_>, votes: &BTreeMap<ReplicaId, &Vote>, ballot: Ballot) -> LogPlan {
    let first = me.log.last().next();
    let newest = |index: Index| {
        let known = votes.values().filter_map(|vote| Some((vote.accepted, vote.at(index)?)));
        known.max_by_key(|(accepted, _)| *accepted).map(|(_, entry)| entry.clone())
    };
    let adopt = (first.0..).map_while(|index| newest(Index(index))).collect();
    LogPlan { keep_to: me.log.last(), adopt, restamp_from: Some(first), accepted: Some(ballot), fetch_from: None }
}

/// Raft's check of `prev`, then coverage. Entries up to the commit index are decided and stay as they are, whatever
/// stamps they carry.
pub(super) fn accept(me: &LogView<'_>, append: &AppendView<'_>) -> AcceptPlan {
    let prev = append.prev;
    let last = me.log.last();
    let is_prefix = me.accepted == append.ballot;
    // What this leader sent needs no comparison. Nor could it bear one after a restart: decided entries keep the stamps
    // they had, and how far the log is decided may be forgotten.
    let is_known = prev.index <= me.commit || (is_prefix && prev.index <= last);
    if !is_known && me.log.stamp(prev.index) != Some(prev.stamp) {
        return AcceptPlan::Reject { hint: hint(me, append) };
    }
    let end = Index(prev.index.0 + append.entries.len() as u64);
    if is_prefix && end <= last {
        // The log is this leader's already, and a late append must not shorten it.
        let skip = append.entries.len();
        return AcceptPlan::Write { truncate_from: None, skip, restamp: None, accepted: None, matched: end };
    }
    if end < last.min(append.sync_index) && !planted(Defect::NoCoverage) {
        return AcceptPlan::Stage;
    }
    let same = |(index, stamp)| index <= me.commit || me.log.stamp(index) == Some(stamp);
    let skip = append.entries.iter().take_while(|entry| same((entry.index, entry.stamp))).count();
    // What differs goes, and so does what is left past the append: it lies past the log that the leader was elected
    // with, where nothing older can be chosen.
    let kept_to = Index(prev.index.0 + skip as u64).max(me.commit);
    let truncate_from = (kept_to < last).then(|| kept_to.next());
    AcceptPlan::Write { truncate_from, skip, restamp: None, accepted: Some(append.ballot), matched: end }
}

/// As in Raft: the last entry up to `prev` whose stamp is not above the leader's there. At the commit index nothing
/// needs to be compared, which the leader's own ballot as stamp says.
fn hint(me: &LogView<'_>, append: &AppendView<'_>) -> Position {
    let mut index = append.prev.index.min(me.log.last());
    while index > me.commit && me.log.stamp(index).is_some_and(|stamp| stamp > append.prev.stamp) {
        index = me.log.before_ballot_of(index);
    }
    match me.log.position(index) {
        Some(position) if index > me.commit => position,
        _ => Position { index: me.commit, stamp: append.ballot },
    }
}
