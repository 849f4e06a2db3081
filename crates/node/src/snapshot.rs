//! Snapshots on their way between nodes: chunk by chunk, each acknowledged, resumed after a lost connection.
//!
//! The sender pins a view, keeps at most `WINDOW` unacknowledged chunks, repeats them when nothing is heard, and reads
//! no faster than its allowance; the receiver stores chunks strictly in order and asks for the one it wants. Nothing
//! here touches rows: chunks are opaque.

use std::collections::VecDeque;
use std::time::Duration;

use base::{Ballot, Instant, NodeId, ReplicaId, limits};
use bytes::Bytes;
use kernel::Mark;

use crate::event::SnapshotId;

/// Chunks sent and not acknowledged.
const WINDOW: usize = 4;
/// Most bytes that may be sent in one go: a fifth of a second's worth.
const ALLOWANCE_MAX: i64 = limits::SNAPSHOT_BYTES_PER_SECOND as i64 / 5;
/// Silence after which unacknowledged chunks are sent again.
const REPEAT_AFTER: Duration = Duration::from_secs(2);
/// Silence after which the sender gives up; the leader then starts a new snapshot if it is still needed.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);

/// A snapshot this node sends.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) id: SnapshotId,
    pub(crate) to: ReplicaId,
    pub(crate) node: NodeId,
    /// Known once the view is pinned.
    pub(crate) mark: Option<Mark>,
    unacked: VecDeque<(u64, Bytes, bool)>,
    next_sequence: u64,
    reading: bool,
    read_all: bool,
    heard: Instant,
    sent: Instant,
    /// Bytes that may be read now; what is spent too much is missing from the next turn.
    allowance: i64,
    /// When the allowance was last raised.
    raised: Instant,
}

/// What the sender should do next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Nothing,
    /// Read one more chunk.
    Read,
    /// Send these chunks (again).
    Send(Vec<(u64, Bytes, bool)>),
    /// Everything is with the receiver: the view may go. What becomes of the snapshot is still to be heard.
    Close,
    /// The receiver is silent for too long.
    GiveUp,
}

impl Outgoing {
    pub(crate) fn new(id: SnapshotId, to: ReplicaId, node: NodeId, now: Instant) -> Self {
        Self {
            id,
            to,
            node,
            mark: None,
            unacked: VecDeque::new(),
            next_sequence: 0,
            reading: false,
            read_all: false,
            heard: now,
            sent: now,
            allowance: ALLOWANCE_MAX,
            raised: now,
        }
    }

    pub(crate) fn opened(&mut self, mark: Mark) -> Step {
        self.mark = Some(mark);
        self.want_more()
    }

    fn want_more(&mut self) -> Step {
        if self.mark.is_none() || self.reading || self.read_all || self.unacked.len() >= WINDOW || self.allowance <= 0 {
            return Step::Nothing;
        }
        self.reading = true;
        Step::Read
    }

    /// A chunk was read: what to send, and whether to read on.
    pub(crate) fn chunk(&mut self, chunk: Bytes, last: bool, now: Instant) -> (u64, Step) {
        assert!(self.reading, "a chunk nobody asked for");
        self.reading = false;
        self.read_all = last;
        self.allowance -= i64::try_from(chunk.len()).unwrap_or(i64::MAX);
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.unacked.push_back((sequence, chunk, last));
        self.sent = now;
        (sequence, self.want_more())
    }

    /// The receiver has everything below `next`.
    pub(crate) fn acked(&mut self, next: u64, now: Instant) -> Step {
        if next > self.next_sequence {
            return Step::GiveUp; // It answers to something we never sent.
        }
        self.heard = now;
        let before = self.unacked.len();
        while self.unacked.front().is_some_and(|(sequence, ..)| *sequence < next) {
            self.unacked.pop_front();
        }
        if self.read_all && before > 0 && self.unacked.is_empty() {
            return Step::Close;
        }
        self.want_more()
    }

    pub(crate) fn tick(&mut self, now: Instant) -> Step {
        if now.since(self.heard) >= GIVE_UP_AFTER {
            return Step::GiveUp;
        }
        let earned = now.since(self.raised).as_micros() * u128::from(limits::SNAPSHOT_BYTES_PER_SECOND) / 1_000_000;
        self.allowance = self.allowance.saturating_add(i64::try_from(earned).unwrap_or(i64::MAX)).min(ALLOWANCE_MAX);
        self.raised = now;
        if !self.unacked.is_empty() && now.since(self.sent) >= REPEAT_AFTER {
            self.sent = now;
            return Step::Send(self.unacked.iter().cloned().collect());
        }
        self.want_more()
    }
}

/// A snapshot this node receives.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) id: SnapshotId,
    pub(crate) from: NodeId,
    pub(crate) ballot: Ballot,
    pub(crate) mark: Mark,
    /// Chunks below this are handed to the host.
    handed: u64,
    /// Chunks below this are stored.
    stored: u64,
    last: Option<u64>,
    pub(crate) installing: bool,
    heard: Instant,
}

impl Incoming {
    pub(crate) fn new(id: SnapshotId, from: NodeId, ballot: Ballot, mark: Mark, now: Instant) -> Self {
        Self { id, from, ballot, mark, handed: 0, stored: 0, last: None, installing: false, heard: now }
    }

    /// Whether the chunk is the one to store now; a repeated or early one is not.
    pub(crate) fn accept(&mut self, sequence: u64, last: bool, now: Instant) -> bool {
        self.heard = now;
        if sequence != self.handed || self.last.is_some() {
            return false;
        }
        self.handed += 1;
        if last {
            self.last = Some(sequence);
        }
        true
    }

    /// A chunk is stored; true when it was the last one.
    pub(crate) fn stored(&mut self, sequence: u64) -> bool {
        if sequence != self.stored {
            return false; // Of an earlier try of the same snapshot.
        }
        self.stored += 1;
        self.last == Some(sequence)
    }

    /// The chunk wanted next, for the acknowledgement.
    pub(crate) fn next(&self) -> u64 {
        self.stored
    }

    /// The sender went silent before the end.
    pub(crate) fn abandoned(&self, now: Instant) -> bool {
        !self.installing && now.since(self.heard) >= GIVE_UP_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: Bytes = Bytes::from_static(b"rows");

    fn outgoing() -> Outgoing {
        let mut outgoing = Outgoing::new(SnapshotId(1), ReplicaId(2), NodeId(2), Instant(0));
        assert_eq!(outgoing.opened(Mark::default()), Step::Read);
        outgoing
    }

    #[test]
    fn the_window_holds_the_sender_until_the_receiver_acknowledges() {
        let mut outgoing = outgoing();
        for sequence in 0..WINDOW as u64 {
            let (number, step) = outgoing.chunk(CHUNK, false, Instant(0));
            assert_eq!(number, sequence);
            assert_eq!(step, if sequence + 1 < WINDOW as u64 { Step::Read } else { Step::Nothing });
        }
        assert_eq!(outgoing.acked(1, Instant(1)), Step::Read);
        assert_eq!(outgoing.acked(99, Instant(1)), Step::GiveUp);
    }

    #[test]
    fn the_rate_is_limited() {
        let mut outgoing = outgoing();
        let chunk = Bytes::from(vec![0; ALLOWANCE_MAX as usize / 2 + 1]);
        assert_eq!(outgoing.chunk(chunk.clone(), false, Instant(0)).1, Step::Read);
        assert_eq!(outgoing.chunk(chunk, false, Instant(0)).1, Step::Nothing, "the allowance is spent");
        assert_eq!(outgoing.acked(2, Instant(0)), Step::Nothing);
        assert_eq!(outgoing.tick(Instant(0) + Duration::from_millis(100)), Step::Read);
    }

    #[test]
    fn the_view_goes_once_everything_is_acknowledged() {
        let mut outgoing = outgoing();
        outgoing.chunk(CHUNK, true, Instant(0));
        assert_eq!(outgoing.acked(1, Instant(1)), Step::Close);
        assert_eq!(outgoing.acked(1, Instant(2)), Step::Nothing);
    }

    #[test]
    fn silence_repeats_and_then_gives_up() {
        let mut outgoing = outgoing();
        outgoing.chunk(CHUNK, true, Instant(0));
        assert_eq!(outgoing.tick(Instant(0) + REPEAT_AFTER), Step::Send(vec![(0, CHUNK, true)]));
        assert_eq!(outgoing.tick(Instant(1) + REPEAT_AFTER), Step::Nothing, "read to the end and sent again just now");
        assert_eq!(outgoing.tick(Instant(0) + GIVE_UP_AFTER), Step::GiveUp);
    }

    #[test]
    fn the_receiver_stores_each_chunk_once_and_in_order() {
        let mut incoming = Incoming::new(SnapshotId(1), NodeId(1), Ballot::ZERO, Mark::default(), Instant(0));
        assert!(!incoming.accept(1, false, Instant(0)), "early");
        assert!(incoming.accept(0, false, Instant(0)));
        assert!(!incoming.accept(0, false, Instant(0)), "repeated");
        assert!(incoming.accept(1, true, Instant(0)));
        assert!(!incoming.accept(2, true, Instant(0)), "after the end");
        assert!(!incoming.stored(0));
        assert_eq!(incoming.next(), 1);
        assert!(incoming.stored(1));
    }
}
