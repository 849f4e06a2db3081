//! All watches of some streams: takes in requests and changes, knows which streams have something to send.
//!
//! Invariant: a change costs the watchers it concerns, and nobody else. What a stream sends is in `catch_up`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use base::limits::KEY_BYTES_MAX;
use base::planted::{Defect, planted};
use base::{Instant, Prng, Revision};
use bytes::Bytes;
use mvcc::{Change, Span, State};

use super::index::SpanIndex;
use super::recent::Recent;
use super::stream::Stream;
use super::watcher::{Place, Watcher};
use super::{Config, Create, NO_REVISION, NO_WATCH, Refused, Response, ResponseKind, StreamId, WatcherId};

/// Watches of some streams of one node, over one group.
#[derive(Debug)]
pub struct Hub {
    pub(super) config: Config,
    pub(super) recent: Recent,
    index: SpanIndex,
    pub(super) streams: BTreeMap<StreamId, Stream>,
    pub(super) watchers: BTreeMap<WatcherId, Watcher>,
    next_watcher: u64,
    /// The newest revision that anybody told us of; changes up to here may still be on their way.
    seen: Revision,
    pub(super) woken: BTreeSet<StreamId>,
    /// Streams that wait to be told how far they are.
    pub(super) asking: BTreeSet<StreamId>,
    due: BTreeSet<(Instant, StreamId)>,
    jitter: Prng,
    pub(super) counts: Counts,
    /// Kept for its memory.
    found: Vec<WatcherId>,
}

/// How much a hub has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Streams.
    pub streams: usize,
    /// Watches.
    pub watchers: usize,
    /// Watches that read on from where they are, instead of being matched with each change.
    pub slow_watchers: usize,
    /// Revisions waiting for watches that are matched.
    pub pending: usize,
    /// Events sent since the start.
    pub events: u64,
}

impl Hub {
    /// A hub without watches.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            recent: Recent::new(Revision(0), config.recent_bytes_max),
            index: SpanIndex::new(),
            streams: BTreeMap::new(),
            watchers: BTreeMap::new(),
            next_watcher: 0,
            seen: Revision(0),
            woken: BTreeSet::new(),
            asking: BTreeSet::new(),
            due: BTreeSet::new(),
            jitter: Prng::new(config.seed),
            counts: Counts::default(),
            found: Vec::new(),
        }
    }

    /// How much there is to do.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts { streams: self.streams.len(), watchers: self.watchers.len(), ..self.counts }
    }

    /// A client opens a stream.
    pub fn open(&mut self, stream: StreamId, now: Instant) {
        let due = self.next_due(now);
        let before = self.streams.insert(stream, Stream::new(due));
        assert!(before.is_none(), "stream {stream:?} is opened twice");
        self.due.insert((due, stream));
    }

    /// The client is gone, and everything it had here goes with it.
    pub fn close(&mut self, stream: StreamId) {
        let Some(closed) = self.streams.remove(&stream) else { return };
        self.due.remove(&(closed.due, stream));
        self.woken.remove(&stream);
        self.asking.remove(&stream);
        for watcher in closed.watches.into_values() {
            self.forget(watcher);
        }
    }

    /// Whether another request may be taken from the client; if not, it must first take answers.
    #[must_use]
    pub fn has_room(&self, stream: StreamId) -> bool {
        self.streams.get(&stream).is_some_and(Stream::has_room)
    }

    /// The client asks for a watch. `state` is the store's as it is now; a caller without watches must have begun to
    /// pass on changes before it looked at it.
    pub fn create(&mut self, stream: StreamId, create: &Create, state: &State) {
        if self.watchers.is_empty() {
            // Nobody needed what came in the meantime, so perhaps nobody told.
            self.recent.restart(state.revision);
        }
        self.seen = self.seen.max(state.revision);
        let span = match self.check(stream, create) {
            Ok(span) => span,
            Err(refused) => return self.refuse(stream, refused, state.revision),
        };
        let Some(on) = self.streams.get_mut(&stream) else { return };
        let id = if create.id == 0 { on.free_id() } else { create.id };
        on.control.push_back(Response { id, revision: state.revision, kind: ResponseKind::Created });
        let mut start = if create.start.0 == 0 { Revision(state.revision.0 + 1) } else { create.start };
        if start < state.compacted {
            let kind = ResponseKind::Compacted(state.compacted);
            return on.control.push_back(Response { id, revision: NO_REVISION, kind });
        }
        if planted(Defect::WatchFloorLost) && start == state.compacted {
            start = Revision(start.0 + 1);
        }
        let watcher = WatcherId(self.next_watcher);
        self.next_watcher += 1;
        on.watches.insert(id, watcher);
        self.watchers.insert(watcher, Watcher::new(stream, id, span.clone(), create, start));
        if on.progress.is_some() {
            // The answer is about the new watch as well.
            self.progress(stream, state.revision);
        }
        if start > self.recent.current() {
            self.index.insert(&span, watcher);
        } else {
            self.put_behind(watcher, start);
        }
    }

    /// Tells the client that it does not get a watch.
    pub fn refuse(&mut self, stream: StreamId, refused: Refused, revision: Revision) {
        let kind = ResponseKind::Refused(refused);
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.control.push_back(Response { id: NO_WATCH, revision, kind });
        }
    }

    /// What the client wants to watch, if that makes sense.
    fn check(&self, stream: StreamId, create: &Create) -> Result<Span, Refused> {
        if create.start.0 < 0 {
            return Err(Refused::NegativeStart);
        }
        if create.key.len().max(create.range_end.len()) > KEY_BYTES_MAX {
            return Err(Refused::KeyTooLong);
        }
        let key = if create.key.is_empty() { Bytes::from_static(&[0]) } else { create.key.clone() };
        let span = Span::new(&key, &create.range_end);
        if matches!(&span, Span::Range(from, end) if from >= end) {
            return Err(Refused::EmptyRange);
        }
        let watches = self.streams.get(&stream).map(|stream| &stream.watches);
        if create.id != 0 && watches.is_some_and(|watches| watches.contains_key(&create.id)) {
            return Err(Refused::DuplicateId);
        }
        if watches.is_some_and(|watches| watches.len() >= self.config.watchers_per_stream_max) {
            return Err(Refused::TooManyOnStream);
        }
        Ok(span)
    }

    /// The client ends a watch. A number that no watch has is no answer, as in etcd.
    pub fn cancel(&mut self, stream: StreamId, id: i64, revision: Revision) {
        let Some(on) = self.streams.get_mut(&stream) else { return };
        let Some(watcher) = on.watches.remove(&id) else { return };
        on.control.push_back(Response { id, revision, kind: ResponseKind::Cancelled });
        self.forget(watcher);
    }

    /// The client asks how far its stream is. It is told once everything up to now has been sent; not at all if a watch
    /// waits for the future, as in etcd.
    pub fn progress(&mut self, stream: StreamId, revision: Revision) {
        self.seen = self.seen.max(revision);
        let Some(on) = self.streams.get_mut(&stream) else { return };
        let mut watchers = on.watches.values().filter_map(|watcher| self.watchers.get(watcher));
        if !on.watches.is_empty() && watchers.all(|watcher| watcher.start <= self.seen) {
            on.progress = Some(self.seen);
            self.asking.insert(stream);
        } else {
            on.progress = None;
            self.asking.remove(&stream);
        }
    }

    /// The state machine went from revision `before` to `after`. Without `changes` nobody knows how, and it is history
    /// that will tell.
    pub fn applied(&mut self, before: Revision, after: Revision, changes: Option<&[Arc<Change>]>) {
        self.seen = self.seen.max(after);
        if self.watchers.is_empty() || after <= self.recent.current() {
            return;
        }
        let gap_to = if changes.is_some() { before } else { after };
        if gap_to > self.recent.current() {
            self.skip_to(gap_to);
        }
        for change in changes.unwrap_or_default() {
            if change.revision > self.recent.current() {
                self.take_in(change);
            }
        }
        self.recent.advance(after);
        self.woken.extend(&self.asking);
    }

    /// The streams for which there may be something new since the last call.
    pub fn take_woken(&mut self) -> BTreeSet<StreamId> {
        std::mem::take(&mut self.woken)
    }

    /// When [`tick`](Self::tick) is next wanted.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Time passes.
    pub fn tick(&mut self, now: Instant) {
        while let Some((due, stream)) = self.due.first().copied().filter(|(due, _)| *due <= now) {
            self.due.remove(&(due, stream));
            let next = self.next_due(now);
            let Some(on) = self.streams.get_mut(&stream) else { continue };
            on.due = next;
            on.notices.clear();
            self.due.insert((next, stream));
            for watcher in on.watches.values() {
                let Some(state) = self.watchers.get_mut(watcher).filter(|watcher| watcher.progress_notify) else {
                    continue;
                };
                if std::mem::replace(&mut state.quiet, true) {
                    on.notices.push_back(*watcher);
                    self.woken.insert(stream);
                }
            }
        }
    }

    /// etcd's period: the interval and up to a tenth of it, so that not everybody is told at once.
    fn next_due(&mut self, now: Instant) -> Instant {
        let interval = self.config.progress_interval;
        let tenth = u64::try_from(interval.as_micros() / 10).unwrap_or(u64::MAX).max(1);
        now + interval + std::time::Duration::from_micros(self.jitter.below(tenth))
    }

    /// One more change.
    fn take_in(&mut self, change: &Arc<Change>) {
        self.recent.push(Arc::clone(change));
        let mut found = std::mem::take(&mut self.found);
        for event in &change.events {
            found.clear();
            self.index.matching(&event.kv.key, &mut found);
            for watcher in &found {
                let Some(state) = self.watchers.get_mut(watcher) else { continue };
                let is_early = change.revision < state.next && !planted(Defect::WatchStartIgnored);
                if is_early || !state.wants(event.kind) {
                    continue;
                }
                let Place::Current(pending) = &mut state.place else { continue };
                if pending.back() == Some(&change.revision) {
                    continue;
                }
                if pending.len() < self.config.pending_max {
                    pending.push_back(change.revision);
                    self.counts.pending += 1;
                    self.queue(*watcher);
                } else {
                    let first = pending.front().copied().unwrap_or(change.revision);
                    self.put_behind(*watcher, first);
                }
            }
        }
        self.found = found;
    }

    /// Changes up to `revision` will not come; whoever wants them reads history.
    fn skip_to(&mut self, revision: Revision) {
        let known = self.recent.current();
        self.recent.restart(revision);
        let concerned: Vec<_> = self
            .watchers
            .iter()
            .filter(|(_, watcher)| matches!(watcher.place, Place::Current(_)))
            .map(|(id, watcher)| (*id, Revision(watcher.sent_through(known).0 + 1)))
            .filter(|(_, next)| *next <= revision)
            .collect();
        for (watcher, next) in concerned {
            self.put_behind(watcher, next);
        }
    }

    /// From now on the watcher reads on from `next`, when its client has room.
    pub(super) fn put_behind(&mut self, watcher: WatcherId, next: Revision) {
        let Some(state) = self.watchers.get_mut(&watcher) else { return };
        if let Place::Current(pending) = &state.place {
            self.counts.pending -= pending.len();
            self.counts.slow_watchers += 1;
            self.index.remove(&state.span, watcher);
        }
        state.next = if planted(Defect::WatchStarved) { Revision(self.recent.current().0 + 1) } else { next };
        state.place = Place::Behind;
        self.queue(watcher);
    }

    /// The watcher has read everything there is: from now on each change is matched with it.
    pub(super) fn put_current(&mut self, watcher: WatcherId) {
        let Some(state) = self.watchers.get_mut(&watcher) else { return };
        assert!(state.next > self.recent.current(), "caught up at {} of {}", state.next, self.recent.current());
        state.place = Place::Current(VecDeque::new());
        self.counts.slow_watchers -= 1;
        self.index.insert(&state.span, watcher);
    }

    /// The watcher may have something to send.
    pub(super) fn queue(&mut self, watcher: WatcherId) {
        let Some(state) = self.watchers.get_mut(&watcher) else { return };
        if std::mem::replace(&mut state.queued, true) {
            return;
        }
        if let Some(stream) = self.streams.get_mut(&state.stream) {
            stream.ready.push_back(watcher);
        }
        self.woken.insert(state.stream);
    }

    /// Removes a watcher that its stream no longer knows.
    pub(super) fn forget(&mut self, watcher: WatcherId) {
        let Some(state) = self.watchers.remove(&watcher) else { return };
        match &state.place {
            Place::Current(pending) => {
                self.counts.pending -= pending.len();
                self.index.remove(&state.span, watcher);
            }
            Place::Behind | Place::Reading => self.counts.slow_watchers -= 1,
        }
        if self.watchers.is_empty() {
            // Memory for nobody.
            self.recent.restart(self.recent.current());
        }
    }
}
