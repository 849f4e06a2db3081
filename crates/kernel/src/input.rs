//! What a replica asks of a message before it looks at the meaning. Anything may arrive: from an older incarnation,
//! from a replica that was removed, from another protocol, or bytes that happened to decode.

use base::{Ballot, Index};

use crate::entry::Entry;
use crate::message::{Body, Message};
use crate::replica::Replica;

/// Rounds, indexes and confirmation numbers beyond this cannot have been reached by counting. Refusing them keeps one
/// broken message from pushing a counter to its end (and every sum below it from overflowing).
const COUNTER_MAX: u64 = 1 << 62;

impl Replica {
    /// Whether the message is for this replica and consistent in itself.
    pub(crate) fn is_plausible(&self, message: &Message) -> bool {
        message.group == self.config.group
            && message.protocol == self.config.protocol
            && message.to == self.id()
            && message.from != self.id()
            && countable(message.ballot)
            && body_is_plausible(message.ballot, &message.body)
    }
}

fn countable(ballot: Ballot) -> bool {
    ballot.round < COUNTER_MAX
}

fn reachable(index: Index) -> bool {
    index.0 < COUNTER_MAX
}

fn body_is_plausible(ballot: Ballot, body: &Body) -> bool {
    match body {
        Body::PreVote { last, commit, membership, .. } | Body::Elect { last, commit, membership, .. } => {
            last.stamp < ballot && reachable(last.index) && reachable(*commit) && reachable(*membership)
        }
        Body::PreVoteReply { promised, .. } => countable(*promised),
        Body::ElectReply { promised, last, suffix, .. } => {
            countable(*promised)
                && reachable(last.index)
                && reachable(suffix.from)
                && are_consecutive(ballot, suffix.from, &suffix.entries)
        }
        Body::FetchLog { from } => reachable(*from),
        Body::FetchLogReply { from, entries } => reachable(*from) && are_consecutive(ballot, *from, entries),
        Body::Append { prev, entries, commit, sync_index, confirm_seq, .. } => {
            prev.stamp <= ballot
                && reachable(prev.index)
                && reachable(*commit)
                && reachable(*sync_index)
                && *confirm_seq < COUNTER_MAX
                && are_consecutive(ballot, prev.index.next(), entries)
        }
        Body::AppendReply { matched, hint, promised, confirm_seq, .. } => {
            reachable(*matched) && reachable(hint.index) && countable(*promised) && *confirm_seq < COUNTER_MAX
        }
        Body::ReadIndex { .. } => true,
        Body::ReadIndexReply { at, .. } => at.is_ok_and(reachable) || at.is_err(),
        Body::TimeoutNow { last } => reachable(last.index),
        Body::SnapshotInstalled { position } => reachable(position.index),
        Body::Removed { index } => reachable(*index),
    }
}

/// Entries follow each other from `first` on without a gap, and none is younger than the leader that sends it.
fn are_consecutive(ballot: Ballot, first: Index, entries: &[Entry]) -> bool {
    let mut next = first;
    entries.iter().all(|entry| {
        let follows = entry.index == next;
        next = next.next();
        follows && entry.origin <= entry.stamp && entry.stamp <= ballot && reachable(entry.index)
    })
}
