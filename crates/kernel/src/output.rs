//! The end of a turn: everything the replica wants, in one [`Ready`]; and the two answers from below, "durable" and
//! "applied".

use std::sync::Arc;

use base::limits::APPEND_BYTES_MAX;
use base::{Ballot, Index, Instant, Lsn, ReplicaId, Synced};

use crate::entries::Entries;
use crate::entry::EntryKind;
use crate::membership::{Membership, Timeline};
use crate::message::Message;
use crate::ready::{Committed, LoadRequest, ReadDone, Ready, Record, Role};
use crate::replica::{Replica, RoleState};

/// Payload bytes of decided entries in one hand-out.
const APPLY_BYTES_MAX: usize = 4 * APPEND_BYTES_MAX;
/// Payload bytes handed out and not yet applied, above which nothing more is handed out.
const APPLYING_BYTES_MAX: usize = 4 * APPLY_BYTES_MAX;
/// The same, in hand-outs.
const APPLYING_BATCHES_MAX: usize = 4096;
/// Entries in one hand-out.
const APPLY_ENTRIES_MAX: usize = 16_384;

/// Moves `collected` out, and leaves the other's emptied place for the next turn. Mostly both are empty.
#[inline]
fn exchange<T>(handed_out: &mut Vec<T>, collected: &mut Vec<T>) {
    if !handed_out.is_empty() {
        handed_out.clear();
    }
    if !collected.is_empty() {
        std::mem::swap(handed_out, collected);
    }
}

/// What has come together in the turn so far.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) records: Vec<Record>,
    /// Free to leave.
    pub(crate) messages: Vec<Message>,
    pub(crate) reads: Vec<ReadDone>,
    pub(crate) loads: Vec<LoadRequest>,
    pub(crate) snapshots_to_send: Vec<ReplicaId>,
    told: Option<Announcement>,
}

/// What the host hears of when it changes. The ballot names the leader, if there is one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Announcement {
    ballot: Ballot,
    role: Role,
    is_led: bool,
    is_removed: bool,
}

impl Replica {
    /// Ends the turn. `lsn` is the number of the node's log batch that will hold the records; it must be higher than
    /// any before if there are records.
    pub fn ready(&mut self, lsn: Lsn) -> Ready {
        let mut ready = Ready::default();
        self.ready_into(lsn, &mut ready);
        ready
    }

    /// The same, in the place of what `ready` holds. Its vectors are used again: a host that drains them, turn after
    /// turn, pays for none.
    pub fn ready_into(&mut self, lsn: Lsn, ready: &mut Ready) {
        self.start_reads();
        self.seal();
        self.flush_appends();
        self.maybe_depart();
        self.hand_out(ready);
        let out = &mut self.out;
        exchange(&mut ready.records, &mut out.records);
        if !ready.records.is_empty() {
            self.durable.issue(lsn, self.promised, self.log.last(), self.now);
        }
        self.durable.bind(&mut out.messages);
        exchange(&mut ready.messages, &mut out.messages);
        exchange(&mut ready.reads, &mut out.reads);
        exchange(&mut ready.loads, &mut out.loads);
        exchange(&mut ready.snapshots_to_send, &mut out.snapshots_to_send);
        let current = Some(self.announcement());
        ready.status_changed = self.out.told != current;
        self.out.told = current;
    }

    /// Whether `ready` would return anything.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        let out = &self.out;
        // The usual reasons first.
        !out.records.is_empty()
            || self.log.has_open()
            || !out.messages.is_empty()
            || self.may_hand_out()
            || self.durable.has_unbound()
            || !out.reads.is_empty()
            || !out.loads.is_empty()
            || !out.snapshots_to_send.is_empty()
            || self.forwards.is_collecting()
            || self.has_appends()
            || self.has_startable_reads()
            || out.told != Some(self.announcement())
    }

    fn announcement(&self) -> Announcement {
        let (is_led, is_removed) = (self.leader.is_some(), self.removed.is_some());
        Announcement { ballot: self.promised, role: self.role(), is_led, is_removed }
    }

    fn may_hand_out(&self) -> bool {
        self.commit > self.timeline.mark().position.index
            && !self.installing
            && self.applying_bytes < APPLYING_BYTES_MAX
            && self.applying.len() < APPLYING_BATCHES_MAX
    }

    /// Hands out decided entries, each once, and the mark after them.
    fn hand_out(&mut self, ready: &mut Ready) {
        ready.committed.clear();
        if !self.may_hand_out() {
            return;
        }
        let handed = self.timeline.mark().position.index;
        let decided = usize::try_from(self.commit.0 - handed.0).unwrap_or(usize::MAX);
        let mut hand_out = HandOut {
            timeline: &mut self.timeline,
            committed: &mut ready.committed,
            room: decided.min(APPLY_ENTRIES_MAX),
            bytes: 0,
            before: None,
        };
        while hand_out.room > 0 {
            let (piece, at) = self.log.piece_with(hand_out.timeline.mark().position.index.next());
            hand_out.take(piece, at);
        }
        let HandOut { bytes, before, .. } = hand_out;
        self.applying.push_back((self.timeline.mark().position.index, bytes));
        self.applying_bytes += bytes;
        if let Some(before) = before {
            self.notice_removal(&before);
            self.sync_peers();
        }
    }

    /// The node's log is durable up to the batch inside the proof: promises that rested on it are free, and the own
    /// vote and the own copy of entries count.
    pub fn persisted(&mut self, now: Instant, lsn: Synced<Lsn>) {
        self.advance(now);
        self.durable.complete(lsn.into_inner(), &mut self.log, &mut self.out.messages);
        match &self.role {
            RoleState::Follower | RoleState::PreCandidate(_) => {}
            RoleState::Candidate(_) => self.maybe_win(),
            RoleState::Leader(_) => {
                self.advance_commit();
                self.maybe_leave_joint();
            }
        }
    }

    /// The state machine has applied everything up to `index`.
    pub fn applied(&mut self, index: Index) {
        let handed = self.timeline.mark().position.index;
        assert!(index <= handed, "applied {index} was not handed out: {handed}");
        self.log.apply_to(index);
        while let Some((_, bytes)) = self.applying.pop_front_if(|(last, _)| *last <= index) {
            self.applying_bytes -= bytes;
        }
        self.maybe_leave_joint();
    }
}

/// One turn's hand-out.
struct HandOut<'a> {
    timeline: &'a mut Timeline,
    committed: &'a mut Vec<Committed>,
    /// So many entries may still go.
    room: usize,
    /// Payload bytes that go.
    bytes: usize,
    /// The membership before the first config entry that goes.
    before: Option<Arc<Membership>>,
}

impl HandOut<'_> {
    /// Hands out `piece` from the place `from` on, as far as there is room: whole, or in stretches that are effective
    /// or not. What does not fit is left to another turn.
    fn take(&mut self, piece: &Entries, from: usize) {
        let (mut start, mut end, mut effective) = (from, from, true);
        for entry in piece[from..].iter().take(self.room) {
            let bytes = self.bytes + entry.payload.len();
            if bytes > APPLY_BYTES_MAX && self.bytes > 0 {
                self.room = end - from;
                break;
            }
            self.bytes = bytes;
            if entry.kind == EntryKind::Config && self.before.is_none() {
                self.before = Some(self.timeline.mark().membership.clone());
            }
            let before = std::mem::replace(&mut effective, self.timeline.hand_out(entry));
            if effective != before && end > start {
                self.committed.push(Committed { entries: piece.part(start..end), effective: before });
                start = end;
            }
            end += 1;
        }
        self.room -= end - from;
        if end > start {
            self.committed.push(Committed { entries: piece.part(start..end), effective });
        }
    }
}
