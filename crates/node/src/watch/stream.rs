//! The watches of one client stream, and who of them has something to say.

use std::collections::{BTreeMap, VecDeque};

use base::{Instant, Revision};

use super::{Response, WatcherId};

/// Answers to creations and cancellations that may wait for a client, as in etcd. Whoever has that many does not get
/// more of its requests read.
const CONTROL_MAX: usize = 128;

#[derive(Debug)]
pub(super) struct Stream {
    /// The watches by their number.
    pub(super) watches: BTreeMap<i64, WatcherId>,
    next_id: i64,
    /// Goes out before everything else: answers to requests, and a page of history that was read.
    pub(super) control: VecDeque<Response>,
    /// Watchers that may have events, in the order they will be asked. May name watchers that are gone.
    pub(super) ready: VecDeque<WatcherId>,
    /// Watchers that need a page of history, while one is being read for another.
    pub(super) readers: VecDeque<WatcherId>,
    /// For whom a page is being read.
    pub(super) reading: Option<WatcherId>,
    /// The client asked to be told when everything up to here has been sent.
    pub(super) progress: Option<Revision>,
    /// The newest revision of which any of its watches was sent an event.
    pub(super) sent: Revision,
    /// Watchers to be told how far they are, if nothing is on its way to them.
    pub(super) notices: VecDeque<WatcherId>,
    /// When progress is next due.
    pub(super) due: Instant,
}

impl Stream {
    pub(super) fn new(due: Instant) -> Self {
        Self {
            watches: BTreeMap::new(),
            next_id: 0,
            control: VecDeque::new(),
            ready: VecDeque::new(),
            readers: VecDeque::new(),
            reading: None,
            progress: None,
            sent: Revision(0),
            notices: VecDeque::new(),
            due,
        }
    }

    /// A number no watch has.
    pub(super) fn free_id(&mut self) -> i64 {
        while self.watches.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    /// What the answer about progress will speak of: never less than what the client has seen.
    pub(super) fn progress_due(&self) -> Option<Revision> {
        Some(self.progress?.max(self.sent))
    }

    /// How far its watches may be sent events now. While an answer about progress is due, those that keep up wait for
    /// each other there, or there would always be one that has been sent more than another; nobody waits for one that
    /// reads history.
    pub(super) fn may_send(&self) -> Revision {
        let is_read = self.reading.is_some() || !self.readers.is_empty();
        self.progress_due().filter(|_| !is_read).unwrap_or(Revision(i64::MAX))
    }

    /// Whether another request may be taken from the client.
    pub(super) fn has_room(&self) -> bool {
        self.control.len() < CONTROL_MAX
    }
}
