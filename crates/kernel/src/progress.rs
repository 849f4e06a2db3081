//! What a leader knows about one other replica, and how much it may send there. Knows nothing of roles.
//!
//! ```text
//!   Probe ──ok──▶ Replicate ──rejected──▶ Probe        at most one append under way / a window of them
//!     └──log too short──▶ Snapshot ──installed──▶ Replicate      nothing but heartbeats meanwhile
//! ```
//! Invariant: `matched < next`. Everything up to `matched` is durable at the follower; it goes back only where a
//! follower has to be told again.

use std::collections::VecDeque;

use base::limits::{INFLIGHT_BYTES_MAX, INFLIGHT_MESSAGES_MAX};
use base::{Index, Instant};

use crate::entry::Entry;

/// How the leader feeds a follower.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Mode {
    /// Where the logs meet is not known. `waiting`: an append is under way; the next goes out with the heartbeat.
    Probe {
        /// An append is under way.
        waiting: bool,
    },
    /// The logs met; appends follow each other without waiting.
    Replicate,
    /// The host streams a snapshot.
    Snapshot,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Progress {
    /// Everything up to here is durable there and equal to the leader's log.
    pub(crate) matched: Index,
    /// The next entry to send.
    pub(crate) next: Index,
    /// How it is fed.
    pub(crate) mode: Mode,
    /// When it last answered in this ballot; at first the time of the election.
    pub(crate) heard: Instant,
    /// Its leader priority.
    pub(crate) priority: u8,
    /// Highest confirmation number it echoed.
    pub(crate) confirmed: u64,
    /// Highest commit index told.
    pub(crate) commit_sent: Index,
    /// An append must go out this turn, be it empty: heartbeat due.
    pub(crate) heartbeat_due: bool,
    /// An empty append must go out this turn for a read confirmation.
    pub(crate) confirm_due: bool,
    /// Number of the append that probes.
    pub(crate) probe_seq: u64,
    /// A load from the node's log is under way, from this index.
    pub(crate) loading: Option<Index>,
    /// Entries the load brought, starting at `next`.
    pub(crate) loaded: VecDeque<Entry>,
    inflight: VecDeque<(Index, usize)>,
    inflight_bytes: usize,
}

impl Progress {
    /// Of a replica nothing is known about.
    pub(crate) fn new(next: Index, now: Instant) -> Self {
        Self {
            matched: Index(0),
            next,
            mode: Mode::Probe { waiting: false },
            heard: now,
            priority: 0,
            confirmed: 0,
            commit_sent: Index(0),
            heartbeat_due: false,
            confirm_due: false,
            probe_seq: 0,
            loading: None,
            loaded: VecDeque::new(),
            inflight: VecDeque::new(),
            inflight_bytes: 0,
        }
    }

    /// Payload bytes that may be sent now; nothing while the window is full.
    pub(crate) fn window(&self) -> usize {
        if self.inflight.len() >= INFLIGHT_MESSAGES_MAX {
            return 0;
        }
        INFLIGHT_BYTES_MAX.saturating_sub(self.inflight_bytes)
    }

    /// Whether entries may be sent at all.
    pub(crate) fn is_open(&self) -> bool {
        match self.mode {
            Mode::Probe { waiting } => !waiting,
            Mode::Replicate => self.window() > 0,
            Mode::Snapshot => false,
        }
    }

    /// Append `confirm_seq` with entries up to `last` and `bytes` of payload was sent.
    pub(crate) fn sent(&mut self, last: Index, bytes: usize, confirm_seq: u64) {
        match self.mode {
            Mode::Probe { .. } => {
                self.mode = Mode::Probe { waiting: true };
                self.probe_seq = confirm_seq;
            }
            Mode::Replicate => {
                self.inflight.push_back((last, bytes));
                self.inflight_bytes += bytes;
                // Optimistic: the follower's answer corrects it.
                self.next = last.next();
            }
            Mode::Snapshot => {}
        }
    }

    /// The follower holds everything up to `matched`, which `log_base` still allows to be followed up; true if that
    /// is news. It has received what follows up to `received`, which counts for nothing but need not be sent again.
    pub(crate) fn acknowledged(&mut self, matched: Index, received: Index, log_base: Index) -> bool {
        let news = matched > self.matched;
        self.matched = self.matched.max(matched);
        let received = self.matched.max(received);
        while let Some((_, bytes)) = self.inflight.pop_front_if(|(last, _)| *last <= received) {
            self.inflight_bytes -= bytes;
        }
        if self.mode != Mode::Replicate && (self.mode != Mode::Snapshot || self.matched >= log_base) {
            self.restart(Mode::Replicate, received.next());
        }
        self.seek(self.next.max(received.next()));
        news
    }

    /// The follower refused append `confirm_seq`; `hint` is the last index where the logs may meet. A refusal from
    /// before the probe under way says nothing about that. Where decided entries have several stamps (`forgets`), a
    /// follower that restarted and knows less of what is decided no longer recognizes all that it acknowledged.
    pub(crate) fn rejected(&mut self, hint: Index, confirm_seq: u64, forgets: bool) {
        let outdated = self.mode == (Mode::Probe { waiting: true }) && confirm_seq < self.probe_seq;
        if self.mode == Mode::Snapshot || outdated {
            return;
        }
        if forgets {
            self.matched = self.matched.min(hint);
        }
        let next = self.next.min(hint.next()).max(self.matched.next());
        self.restart(Mode::Probe { waiting: false }, next);
    }

    /// The log no longer reaches back to `next`: a snapshot has to.
    pub(crate) fn become_snapshot(&mut self) {
        self.restart(Mode::Snapshot, self.next);
    }

    /// Starts over in `mode` at `next`, with nothing under way.
    pub(crate) fn restart(&mut self, mode: Mode, next: Index) {
        self.mode = mode;
        self.inflight.clear();
        self.inflight_bytes = 0;
        self.seek(next);
    }

    /// Moves `next`; entries loaded for another place are dropped.
    fn seek(&mut self, next: Index) {
        self.next = next;
        if self.loaded.front().is_some_and(|entry| entry.index != next) {
            self.loaded.clear();
        }
    }

    /// Bounds and order.
    pub(crate) fn check(&self) {
        assert!(self.matched < self.next, "matched {} not below next {}", self.matched, self.next);
        assert!(self.inflight.len() <= INFLIGHT_MESSAGES_MAX, "{} appends under way", self.inflight.len());
        assert!(self.inflight_bytes == self.inflight.iter().map(|(_, bytes)| bytes).sum(), "window miscounted");
    }
}
