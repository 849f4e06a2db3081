//! The end of a turn: everything the replica wants, in one [`Ready`]; and the two answers from below, "durable" and
//! "applied".

use base::limits::APPEND_BYTES_MAX;
use base::{Index, Instant, Lsn, Synced};

use crate::entries::Entries;
use crate::entry::{Entry, EntryKind};
use crate::membership::Timeline;
use crate::message::Message;
use crate::ready::{Committed, LoadRequest, ReadDone, Ready, Record, Role};
use crate::replica::{Replica, RoleState};
use base::{Ballot, NodeId, ReplicaId};

/// Payload bytes of decided entries in one hand-out.
const APPLY_BYTES_MAX: usize = 4 * APPEND_BYTES_MAX;
/// Payload bytes handed out and not yet applied, above which nothing more is handed out.
const APPLYING_BYTES_MAX: usize = 4 * APPLY_BYTES_MAX;
/// The same, in hand-outs.
const APPLYING_BATCHES_MAX: usize = 4096;
/// Entries in one hand-out.
const APPLY_ENTRIES_MAX: usize = 16_384;

/// Moves `collected` out, and leaves the other's emptied place for the next turn.
fn exchange<T>(handed_out: &mut Vec<T>, collected: &mut Vec<T>) {
    handed_out.clear();
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
    told: Option<(Role, Ballot, Option<NodeId>, bool)>,
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
        let current = self.announcement();
        ready.status_changed = self.out.told != current;
        self.out.told = current;
    }

    /// Whether `ready` would return anything.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        let out = &self.out;
        let startable = match &self.role {
            RoleState::Leader(leadership) => leadership.reads.is_startable(),
            RoleState::Follower | RoleState::PreCandidate(_) | RoleState::Candidate(_) => false,
        };
        !out.records.is_empty()
            || self.log.has_open()
            || !out.messages.is_empty()
            || self.durable.has_unbound()
            || !out.reads.is_empty()
            || !out.loads.is_empty()
            || !out.snapshots_to_send.is_empty()
            || startable
            || self.forwards.is_collecting()
            || self.has_appends()
            || self.may_hand_out()
            || out.told != self.announcement()
    }

    fn announcement(&self) -> Option<(Role, Ballot, Option<NodeId>, bool)> {
        Some((self.role(), self.promised, self.leader(), self.removed.is_some()))
    }

    fn may_hand_out(&self) -> bool {
        let room = self.applying_bytes < APPLYING_BYTES_MAX && self.applying.len() < APPLYING_BATCHES_MAX;
        let room = room && !self.installing;
        self.commit > self.timeline.mark().position.index && room
    }

    /// Hands out decided entries, each once, and the mark after them.
    fn hand_out(&mut self, ready: &mut Ready) {
        ready.committed.clear();
        if !self.may_hand_out() {
            return;
        }
        let first = self.timeline.mark().position.index.next();
        let (mut bytes, mut count) = (0, 0);
        let mut before = None;
        let mut fits = |entry: &Entry| {
            let length = bytes + entry.payload.len();
            let fits = entry.index <= self.commit && count < APPLY_ENTRIES_MAX;
            let fits = fits && (length <= APPLY_BYTES_MAX || entry.index == first);
            if fits {
                (bytes, count) = (length, count + 1);
            }
            fits
        };
        for mut piece in self.log.pieces_from(first) {
            let whole = piece.len();
            piece.truncate(piece.iter().take_while(|entry| fits(entry)).count());
            let ends_here = piece.len() < whole;
            if before.is_none() && piece.iter().any(|entry| entry.kind == EntryKind::Config) {
                before = Some(self.timeline.mark().membership.clone());
            }
            hand_out_piece(&mut self.timeline, piece, &mut ready.committed);
            if ends_here {
                break;
            }
        }
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

/// Hands out a piece of the log: whole, or in stretches that are effective or not.
fn hand_out_piece(timeline: &mut Timeline, piece: Entries, committed: &mut Vec<Committed>) {
    let (mut start, mut effective) = (0, true);
    for (at, entry) in piece.iter().enumerate() {
        let before = std::mem::replace(&mut effective, timeline.hand_out(entry));
        if effective != before && at > start {
            committed.push(Committed { entries: piece.part(start..at), effective: before });
            start = at;
        }
    }
    let mut entries = piece;
    entries.skip_front(start);
    if !entries.is_empty() {
        committed.push(Committed { entries, effective });
    }
}
