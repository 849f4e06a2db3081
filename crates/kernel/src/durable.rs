//! What waits for the disk.
//!
//! Every promise a replica makes rests on records it has written. A promise made in a turn is held here under the
//! number of the last batch that held records of this replica, and only the proof that this batch is on stable storage
//! lets it go. There is no other way out. Completions are matched by batch number and never by (index, ballot), which
//! has an ABA race: the same index and ballot can be written, cut and written again.

use std::collections::VecDeque;

use base::{Ballot, Index, Instant, Lsn};

use crate::log::Log;
use crate::message::{Body, Message};

/// A batch with records of this replica that is not known to be durable.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Outstanding {
    lsn: Lsn,
    promised: Ballot,
    /// The log is durable up to here once the batch is: taken back when the log is cut or rewritten below.
    last: Index,
    issued: Instant,
    /// So many of the messages held rest on this batch and on none after it.
    held: usize,
}

/// Batches under way, and what rests on them.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Durability {
    promised: Ballot,
    outstanding: VecDeque<Outstanding>,
    held: Vec<Message>,
    /// So many of them, the last, came in this turn: they rest on what will be under way at its end.
    unbound: usize,
    highest: Lsn,
}

impl Durability {
    /// Everything up to now is durable.
    pub(crate) fn new(promised: Ballot) -> Self {
        Self { promised, outstanding: VecDeque::new(), held: Vec::new(), unbound: 0, highest: Lsn(0) }
    }

    /// The highest promise that is durable.
    pub(crate) const fn promised(&self) -> Ballot {
        self.promised
    }

    /// When the oldest batch not yet durable was handed out.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.outstanding.front().map(|batch| batch.issued)
    }

    /// Notes that batch `lsn` holds records of this replica.
    pub(crate) fn issue(&mut self, lsn: Lsn, promised: Ballot, last: Index, issued: Instant) {
        assert!(lsn > self.highest, "batch {lsn} handed out after {}", self.highest);
        self.highest = lsn;
        self.outstanding.push_back(Outstanding { lsn, promised, last, issued, held: 0 });
    }

    /// Holds `message` for everything recorded up to the end of the turn.
    pub(crate) fn hold(&mut self, message: Message) {
        self.held.push(message);
        self.unbound += 1;
    }

    /// Whether messages wait for the end of the turn.
    pub(crate) const fn has_unbound(&self) -> bool {
        self.unbound > 0
    }

    /// Ends the turn: what was held in it waits for everything issued so far, or leaves if nothing is under way.
    pub(crate) fn bind(&mut self, messages: &mut Vec<Message>) {
        let unbound = std::mem::take(&mut self.unbound);
        if unbound == 0 {
            return;
        }
        match self.outstanding.back_mut() {
            Some(batch) => batch.held += unbound,
            None => messages.append(&mut self.held),
        }
    }

    /// Notes that the log was cut or rewritten from `from` on: no batch under way makes the new content durable.
    pub(crate) fn rewritten(&mut self, from: Index) {
        for batch in &mut self.outstanding {
            batch.last = batch.last.min(from.prev());
        }
    }

    /// Notes that the log now starts over at `index`, which is durable by other means.
    pub(crate) fn restarted(&mut self, index: Index) {
        for batch in &mut self.outstanding {
            batch.last = index;
        }
    }

    /// Takes the proof that everything up to `lsn` is durable: moves `log`'s position and releases into `messages`.
    pub(crate) fn complete(&mut self, lsn: Lsn, log: &mut Log, messages: &mut Vec<Message>) {
        let mut released = 0;
        while let Some(batch) = self.outstanding.pop_front_if(|batch| batch.lsn <= lsn) {
            self.promised = batch.promised;
            log.persist_to(batch.last.max(log.persisted()));
            released += batch.held;
        }
        assert!(released <= self.held.len(), "{released} messages released, {} held", self.held.len());
        if released == 1 && self.held.len() == 1 && messages.is_empty() {
            // Mostly one acknowledgement waits: it leaves without being moved.
            return std::mem::swap(messages, &mut self.held);
        }
        for message in self.held.drain(..released) {
            match messages.last_mut() {
                Some(last) if replaces(&message, last) => *last = message,
                _ => messages.push(message),
            }
        }
    }

    /// For a model without time and without a past: every batch under way was handed out `now`, and batches are
    /// numbered from one.
    pub(crate) fn assume_just_issued(&mut self, now: Instant) {
        // Numbers of batches without records of this replica may lie between, so they are counted anew.
        for (batch, number) in self.outstanding.iter_mut().zip(1..) {
            (batch.lsn, batch.issued) = (Lsn(number), now);
        }
        self.highest = Lsn(self.outstanding.len() as u64);
    }

    /// Held messages wait for batches that are under way, in order.
    pub(crate) fn check(&self, promised: Ballot) {
        assert!(self.promised <= promised, "durable promise {} above {promised}", self.promised);
        let waiting = self.unbound + self.outstanding.iter().map(|batch| batch.held).sum::<usize>();
        assert!(waiting == self.held.len(), "{} messages held, {waiting} for batches under way", self.held.len());
    }
}

/// Whether sending `message` makes sending `earlier` pointless: one acknowledgement covers those before it.
fn replaces(message: &Message, earlier: &Message) -> bool {
    match (&message.body, &earlier.body) {
        (
            Body::AppendReply { ok: true, matched, confirm_seq, .. },
            Body::AppendReply { ok: true, matched: earlier_matched, confirm_seq: earlier_seq, .. },
        ) => {
            (message.to, message.ballot) == (earlier.to, earlier.ballot)
                && matched >= earlier_matched
                && confirm_seq >= earlier_seq
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use base::NodeId;
    use bytes::Bytes;

    use super::*;
    use crate::entry::{Entry, EntryKind, Position};

    fn entry(index: u64, round: u64) -> Entry {
        let ballot = Ballot::new(round, NodeId(1));
        Entry { index: Index(index), stamp: ballot, origin: ballot, kind: EntryKind::Command, payload: Bytes::new() }
    }

    /// Known bug 21 (`testscripts/README.md`): entry 2 of ballot 1 is written, replaced by one of ballot 2, and comes
    /// back
    /// under a third leader. The completion of the first write must not count for the third.
    #[test]
    fn a_completion_does_not_count_for_what_was_rewritten_since() {
        let mut log = Log::new(Position::default());
        let mut durable = Durability::new(Ballot::ZERO);
        let mut messages = Vec::new();
        let mut lsn = Lsn(0);
        for (round, content) in [(1, 1), (2, 2), (3, 1)] {
            if log.last() == Index(2) {
                log.truncate(Index(2));
                durable.rewritten(Index(2));
            }
            while log.last() < Index(2) {
                let next = entry(log.last().0 + 1, if log.last() == Index(0) { 1 } else { content });
                log.append(std::iter::once(next).collect());
            }
            lsn = lsn.next();
            durable.issue(lsn, Ballot::new(round, NodeId(1)), log.last(), Instant(0));
        }
        durable.complete(Lsn(1), &mut log, &mut messages);
        assert_eq!(log.persisted(), Index(1), "entry 2 was rewritten twice since");
        durable.complete(Lsn(2), &mut log, &mut messages);
        assert_eq!(log.persisted(), Index(1));
        durable.complete(Lsn(3), &mut log, &mut messages);
        assert_eq!(log.persisted(), Index(2));
    }
}
