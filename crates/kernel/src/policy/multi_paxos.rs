//! Multi-Paxos in the shape of a log (Lamport, "The part-time parliament", 1998, and "Paxos made simple", 2001; for the
//! shape Howard and Mortier, "Paxos vs Raft", 2020).
//!
//! Every slot of the log is one instance of Paxos. A promise covers all slots at once, so prepare is `Elect` and a
//! promise is a vote that carries what the voter accepted: its entries after the candidate's commit index. For each
//! slot the candidate takes the entry with the highest stamp, stamps it with its own ballot and proposes it again. An
//! append means "accept these in my ballot", whatever stamps its entries carry.
//!
//! Why nothing chosen is lost: if a value is chosen in slot i, every later quorum of votes contains a replica that
//! accepted it there, or something of a higher ballot, and by induction over ballots that is the same value. It rests
//! on three things that Raft does differently, and that must not be mixed with Raft's ways:
//! - *Slots are overwritten one by one and the suffix stays* ([`accept`]). Cutting at the first conflict takes back
//!   acceptances: F holds x and y, y is chosen by F and G; a leader whose first append holds only x makes F forget y.
//! - *Logs are merged by slot*, never adopted whole: after stamping anew, "best last stamp" does not mean "has all".
//! - *Stamps at or below the commit index are never compared*: they differ between replicas that agree.
//!
//! In-order acceptance is kept nevertheless: a follower acknowledges index i only if every slot from its commit index
//! up to i carries the leader's ballot, and a log has no holes. So a vote is one stretch of entries.
//!
//! Unlike the textbook: one ballot for all slots, no holes and so no no-op fillers, an own marker at the start of every
//! ballot, and no separate learners: the commit index tells. Left out: a record that changes stamps without their
//! payloads. What a new leader stamps anew is written again whole; that is at most what was undecided.
//!
//! The price: votes carry entries, so a candidate that lags costs time, and undecided entries of a dead leader come
//! back to life more often than in Raft. The gain: any replica that reaches a quorum can lead, however far it lags,
//! unless what it lacks is no longer in the voters' memory; then it gets no vote and waits for a leader's snapshot.

use std::collections::BTreeMap;

use base::planted::{Defect, planted};
use base::{Ballot, Index, ReplicaId};
use bytes::Bytes;

use super::{AcceptPlan, AppendView, Claim, Grant, LogPlan, LogView, Vote, suffix_after};
use crate::entry::{Entry, Position};

/// Anyone above the promise, if what it lacks can be sent along.
pub(super) fn grant(me: &LogView<'_>, claim: &Claim) -> Grant {
    suffix_after(me.log, claim.commit)
}

/// Phase 1b to 2a: for each undecided slot the entry of the highest stamp, proposed again under `ballot`. Own entries
/// count like a vote. Logs have no holes, so the first slot that nobody knows ends the log.
pub(super) fn build_log(me: &LogView<'_>, votes: &BTreeMap<ReplicaId, &Vote>, ballot: Ballot) -> LogPlan {
    if planted(Defect::PaxosWholeLog) {
        return whole_log(me, votes);
    }
    let first = me.commit.next();
    let mut own = me.log.iter_from(first);
    let mut adopt = Vec::new();
    for index in (first.0..).map(Index) {
        let mine = own.next();
        let known = mine.into_iter().chain(votes.values().filter_map(|vote| vote.at(index)));
        // Equal stamps mean equal entries: which of them is taken does not matter.
        let highest = known.max_by_key(|entry| match planted(Defect::IgnoreHighestStamp) {
            false => entry.stamp,
            true => Ballot::new(u64::MAX - entry.stamp.round, entry.stamp.node),
        });
        let Some(mut highest) = highest.cloned() else { break };
        if planted(Defect::NoOpFill) && mine.is_none() {
            (highest.origin, highest.payload) = (ballot, Bytes::new());
        }
        adopt.push(highest);
    }
    LogPlan { keep_to: me.log.last(), adopt, restamp_from: Some(first), accepted: None, fetch_from: None }
}

/// Phase 2b. The slots from the commit index up to the verified point carry the leader's ballot: they are its. An
/// append must connect there; it overwrites slot by slot.
pub(super) fn accept(me: &LogView<'_>, append: &AppendView<'_>) -> AcceptPlan {
    let verified = me.log.stamped_until(me.commit.next(), append.ballot);
    let prev = append.prev.index;
    if prev > verified {
        // The stamp says that there is nothing to compare: here the logs meet.
        return AcceptPlan::Reject { hint: Position { index: verified, stamp: append.ballot } };
    }
    let end = Index(prev.0 + append.entries.len() as u64);
    let skip = usize::try_from(verified.min(end).0 - prev.0).expect("no more than there are entries");
    let matched = end.max(verified);
    // Past the log that the leader was elected with, older acceptances mean nothing: none of its voters had one there,
    // so nothing was chosen. They go, so that the log ends where the leader's does.
    let is_stale_tail = matched >= append.sync_index && me.log.last() > matched;
    let mut truncate_from = is_stale_tail.then(|| matched.next());
    if planted(Defect::PaxosTruncates) && verified < end.min(me.log.last()) {
        truncate_from = Some(verified.max(prev).next());
    }
    AcceptPlan::Write { truncate_from, skip, restamp: Some(append.ballot), accepted: None, matched }
}

/// The plan of [`Defect::PaxosWholeLog`]: the one log whose last entry has the highest stamp, and all of it.
fn whole_log(me: &LogView<'_>, votes: &BTreeMap<ReplicaId, &Vote>) -> LogPlan {
    let first = me.commit.next();
    let own: Vec<Entry> = me.log.iter_from(first).cloned().collect();
    let part = |vote: &&Vote| vote.suffix.iter().filter(|entry| entry.index >= first).cloned().collect();
    let logs = std::iter::once(own).chain(votes.values().map(part));
    let best = logs.max_by_key(|log: &Vec<Entry>| log.last().map(|entry| (entry.stamp, entry.index.0)));
    let adopt = best.unwrap_or_default();
    LogPlan { keep_to: me.commit, adopt, restamp_from: Some(first), accepted: None, fetch_from: None }
}
