//! What a leader sends at the end of a turn: at most the window of entries to each follower, so that everything
//! proposed in a turn travels in one message, and an empty append only where something must be said and no entries go.

use base::limits::{APPEND_BYTES_MAX, APPEND_ENTRIES_MAX};
use base::{Ballot, Index, ReplicaId};

use crate::config::Config;
use crate::entries::Entries;
use crate::entry::{Entry, Position};
use crate::leader::Leadership;
use crate::log::Log;
use crate::message::{Body, Message, UNANSWERED};
use crate::progress::{Mode, Progress};
use crate::ready::LoadRequest;
use crate::replica::{Replica, RoleState};

/// Payload bytes asked of the node's log at a time.
const LOAD_BYTES_MAX: usize = 4 * APPEND_BYTES_MAX;

impl Replica {
    /// Sends what is due to every follower.
    pub(crate) fn flush_appends(&mut self) {
        let RoleState::Leader(leadership) = &mut self.role else { return };
        let Leadership { peers, confirm_seq, marker, preferred, .. } = leadership.as_mut();
        let mut turn = Turn {
            log: &self.log,
            commit: self.commit,
            sync_index: *marker,
            preferred: *preferred,
            confirm_seq,
            config: &self.config,
            ballot: self.promised,
            messages: &mut self.out.messages,
            loads: &mut self.out.loads,
            snapshots: &mut self.out.snapshots_to_send,
            slice: None,
        };
        for (id, peer) in peers.iter_mut() {
            turn.serve(id, peer);
        }
    }

    /// Whether the next turn has something for a follower.
    pub(crate) fn has_appends(&self) -> bool {
        let RoleState::Leader(leadership) = &self.role else { return false };
        leadership.peers.iter().any(|(_, peer)| {
            let behind = peer.next <= self.log.last() && (peer.loading.is_none() || !peer.loaded.is_empty());
            peer.heartbeat_due || peer.confirm_due || (behind && peer.is_open()) || tells_commit(peer, self.commit)
        })
    }

    /// The host read entries from the node's log for follower `to`: consecutive, from the index asked for, at least
    /// one. An empty answer means that they could not be read; they are asked for again with the next heartbeat.
    pub fn loaded(&mut self, now: base::Instant, to: ReplicaId, entries: Vec<Entry>) {
        self.advance(now);
        let RoleState::Leader(leadership) = &mut self.role else { return };
        let Some(peer) = leadership.peers.get_mut(to) else { return };
        let asked = peer.loading.take();
        let log = &self.log;
        let fits = |(index, entry): (u64, &Entry)| {
            entry.index == Index(index)
                && log.stamp(entry.index) == Some(entry.stamp)
                && log.origin(entry.index) == Some(entry.origin)
        };
        // The log may have moved on meanwhile; what does not fit any more is asked for anew.
        if asked == Some(peer.next) && (peer.next.0..).zip(&entries).all(fits) {
            peer.loaded = entries.into();
        }
    }

    /// The snapshot for `to` could not be delivered.
    pub fn snapshot_failed(&mut self, to: ReplicaId) {
        let RoleState::Leader(leadership) = &mut self.role else { return };
        let Some(peer) = leadership.peers.get_mut(to) else { return };
        if peer.mode == Mode::Snapshot {
            let next = peer.matched.next();
            // Wait for a heartbeat: a follower that cannot take a snapshot now should not be offered one at once.
            peer.restart(Mode::Probe { waiting: true }, next);
        }
    }

    /// A follower installed a snapshot that this leader, or one before it, sent.
    pub(crate) fn on_snapshot_installed(&mut self, from: ReplicaId, ballot: Ballot, position: Position) {
        let (last, base) = (self.log.last(), self.log.base().index);
        if ballot != self.promised || position.index > last {
            return;
        }
        let RoleState::Leader(leadership) = &mut self.role else { return };
        let Some(peer) = leadership.peers.get_mut(from) else { return };
        peer.heard = self.now;
        if peer.acknowledged(position.index, Index(0), base) {
            if peer.mode == Mode::Snapshot {
                // The log was compacted past the snapshot while it was on its way: this takes another one.
                let next = peer.matched.next();
                peer.restart(Mode::Probe { waiting: false }, next);
            }
            self.advance_commit();
            self.maybe_hand_over();
        }
    }
}

/// Whether the follower should hear of the commit index now. While probing or behind a snapshot it could not use it.
fn tells_commit(peer: &Progress, commit: Index) -> bool {
    peer.mode == Mode::Replicate && peer.commit_sent < commit
}

/// One turn's sending.
struct Turn<'a> {
    log: &'a Log,
    commit: Index,
    sync_index: Index,
    preferred: u8,
    confirm_seq: &'a mut u64,
    config: &'a Config,
    ballot: Ballot,
    messages: &'a mut Vec<Message>,
    loads: &'a mut Vec<LoadRequest>,
    snapshots: &'a mut Vec<ReplicaId>,
    slice: Option<Slice>,
}

/// What was cut out of the log last: entries from `from` on, as many as `bytes_max` allow. They are sent at once.
struct Slice {
    from: Index,
    bytes_max: usize,
    bytes: usize,
    /// The place of the message that holds them.
    message: usize,
}

impl Turn<'_> {
    fn serve(&mut self, id: ReplicaId, peer: &mut Progress) {
        if peer.heartbeat_due && peer.mode == (Mode::Probe { waiting: true }) {
            peer.mode = Mode::Probe { waiting: false };
        }
        if peer.heartbeat_due && peer.loaded.is_empty() {
            // A load may have come to nothing.
            peer.loading = None;
        }
        let asks = peer.heartbeat_due || peer.confirm_due;
        let mut said = false;
        while peer.next <= self.log.last() && peer.is_open() {
            if peer.next <= self.log.base().index {
                peer.become_snapshot();
                self.snapshots.push(id);
                break;
            }
            let (entries, bytes) = self.next_entries(id, peer);
            if entries.is_empty() {
                break;
            }
            said = true;
            let number = self.next_number();
            self.append(id, peer, entries, bytes, number);
        }
        // Entries wait for the follower's disk before they are acknowledged, an empty append does not: a read must not.
        if peer.confirm_due || (!said && (peer.heartbeat_due || tells_commit(peer, self.commit))) {
            let number = if asks { self.next_number() } else { UNANSWERED };
            self.append(id, peer, Entries::default(), 0, number);
        }
        peer.heartbeat_due = false;
        peer.confirm_due = false;
    }

    /// The next entries for `peer` and their payload bytes, from memory or from a finished load; else they are asked of
    /// the host.
    fn next_entries(&mut self, id: ReplicaId, peer: &mut Progress) -> (Entries, usize) {
        let bytes_max = peer.window().min(APPEND_BYTES_MAX);
        if peer.next >= self.log.cached_from() {
            return self.cached_entries(peer.next, bytes_max);
        }
        if !peer.loaded.is_empty() {
            return sized(take_loaded(peer, bytes_max).into());
        }
        if peer.loading.is_none() {
            peer.loading = Some(peer.next);
            let until = self.log.cached_from();
            self.loads.push(LoadRequest { to: id, from: peer.next, until, bytes_max: LOAD_BYTES_MAX });
        }
        (Entries::default(), 0)
    }

    /// Entries in memory from `from` on. Followers that keep up get the same: it is looked for once.
    fn cached_entries(&mut self, from: Index, bytes_max: usize) -> (Entries, usize) {
        if let Some(slice) = &self.slice
            && (slice.from, slice.bytes_max) == (from, bytes_max)
            && let Some(Body::Append { entries, .. }) = self.messages.get(slice.message).map(|message| &message.body)
        {
            return (entries.clone(), slice.bytes);
        }
        let (entries, bytes) = sized(self.log.slice(from, bytes_max, APPEND_ENTRIES_MAX));
        assert!(!entries.is_empty(), "the log holds {from}, but nothing of it can be sent");
        self.slice = Some(Slice { from, bytes_max, bytes, message: self.messages.len() });
        (entries, bytes)
    }

    fn next_number(&mut self) -> u64 {
        *self.confirm_seq += 1;
        *self.confirm_seq
    }

    fn append(&mut self, id: ReplicaId, peer: &mut Progress, entries: Entries, bytes: usize, confirm_seq: u64) {
        // Behind a snapshot nothing can be compared but the base, which tells when the follower has caught up.
        let meets = if peer.mode == Mode::Snapshot { self.log.base().index } else { peer.next.prev() };
        let prev = self.log.position(meets).unwrap_or(self.log.base());
        let count = entries.len() as u64;
        let body = Body::Append {
            prev,
            entries,
            commit: self.commit,
            sync_index: self.sync_index,
            confirm_seq,
            preferred: self.preferred,
        };
        let &Config { group, protocol, replica: from, .. } = self.config;
        self.messages.push(Message { group, protocol, from, to: id, ballot: self.ballot, body });
        peer.commit_sent = self.commit;
        if count > 0 {
            peer.sent(Index(meets.0 + count), bytes, confirm_seq);
        }
    }
}

/// `entries` with their payload bytes.
fn sized(entries: Entries) -> (Entries, usize) {
    let bytes = entries.iter().map(|entry| entry.payload.len()).sum();
    (entries, bytes)
}

/// Takes entries off a finished load.
fn take_loaded(peer: &mut Progress, bytes_max: usize) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut bytes = 0;
    while let Some(entry) = peer.loaded.front() {
        bytes += entry.payload.len();
        if entries.len() >= APPEND_ENTRIES_MAX || (bytes > bytes_max && !entries.is_empty()) {
            break;
        }
        entries.extend(peer.loaded.pop_front());
    }
    entries
}
