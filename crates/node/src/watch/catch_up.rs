//! What a stream sends next: answers to its requests, what is pending, what was missed, how far it is.
//!
//! Invariant: the events of a watch leave in the order of revisions, a revision in one piece, and nothing that says
//! "everything up to here" leaves before what it speaks of. Work is done for a client that has room, and in pieces.

use base::Revision;
use base::planted::{Defect, planted};
use mvcc::{Event, EventPage, EventQuery};

use super::hub::Hub;
use super::watcher::Place;
use super::{NO_REVISION, NO_WATCH, Next, PageRead, Response, ResponseKind, StreamId, WatcherId};

/// Changes looked at for one call; after that, others get their turn.
const SCANNED_MAX: usize = 4096;

impl Hub {
    /// The next thing to do for a stream whose client has room for one more response.
    pub fn next(&mut self, stream: StreamId) -> Next {
        let mut left = SCANNED_MAX;
        loop {
            let Some(on) = self.streams.get_mut(&stream) else { return Next::Wait };
            if let Some(response) = on.control.pop_front() {
                return Next::Response(response);
            }
            if let Some(response) = self.progress_made(stream) {
                return Next::Response(response);
            }
            let Some(on) = self.streams.get_mut(&stream) else { return Next::Wait };
            let reader = if on.reading.is_none() { on.readers.pop_front() } else { None };
            let Some(watcher) = reader.or_else(|| on.ready.pop_front()) else {
                return self.next_notice(stream).map_or(Next::Wait, Next::Response);
            };
            let Some(state) = self.watchers.get_mut(&watcher) else { continue };
            state.queued = false;
            let next = match &state.place {
                Place::Current(_) => self.send_pending(watcher, &mut left),
                Place::Behind => self.read_on(watcher, &mut left),
                Place::Reading => None,
            };
            match next {
                Some(next) => return next,
                None if left == 0 => return Next::Yield,
                None => {}
            }
        }
    }

    /// A page of history was read for a watcher; or it is gone, below the floor named.
    pub fn page(&mut self, stream: StreamId, watcher: WatcherId, page: Result<EventPage, Revision>) {
        let Some(on) = self.streams.get_mut(&stream) else { return };
        self.woken.insert(stream);
        if on.reading == Some(watcher) {
            on.reading = None;
        }
        let Some(state) = self.watchers.get_mut(&watcher) else { return };
        state.place = Place::Behind;
        let Some(on) = self.streams.get_mut(&stream) else { return };
        match page {
            Ok(page) => {
                state.next = page.next;
                if planted(Defect::WatchHistoryTwice) {
                    state.next = page.next.min(Revision(self.recent.current().0 + 1));
                }
                let wanted = |event: &Event| state.wants(event.kind);
                let events: Vec<_> = page.changes.into_iter().flat_map(|change| change.events).filter(wanted).collect();
                if let Some(last) = events.last() {
                    state.quiet = false;
                    on.sent = on.sent.max(last.kv.mod_revision);
                    self.counts.events += events.len() as u64;
                    let kind = ResponseKind::Events { events, fragment: state.fragment };
                    on.control.push_back(Response { id: state.id, revision: page.current, kind });
                }
                self.queue(watcher);
            }
            Err(compacted) => {
                let (id, kind) = (state.id, ResponseKind::Compacted(compacted));
                on.watches.remove(&id);
                on.control.push_back(Response { id, revision: NO_REVISION, kind });
                self.forget(watcher);
            }
        }
    }

    /// The answer to a request for progress, once everything it speaks of has been sent.
    fn progress_made(&mut self, stream: StreamId) -> Option<Response> {
        let on = self.streams.get_mut(&stream)?;
        let asked = on.progress_due()?;
        let current = self.recent.current();
        // Only these can have something outstanding, unless changes are on their way to all.
        let outstanding = on.ready.iter().chain(&on.readers).chain(&on.reading);
        let mut watchers = outstanding.filter_map(|watcher| self.watchers.get(watcher));
        let is_sent = watchers.all(|watcher| watcher.sent_through(current) >= asked);
        if (is_sent && current >= asked) || planted(Defect::WatchEarlyProgress) {
            on.progress = None;
            self.asking.remove(&stream);
            return Some(Response { id: NO_WATCH, revision: asked, kind: ResponseKind::Progress });
        }
        None
    }

    /// Periodic progress of a watcher to which nothing is on its way.
    fn next_notice(&mut self, stream: StreamId) -> Option<Response> {
        let on = self.streams.get_mut(&stream)?;
        let revision = self.recent.current();
        while let Some(watcher) = on.notices.pop_front() {
            let Some(state) = self.watchers.get(&watcher) else { continue };
            let is_idle = matches!(&state.place, Place::Current(pending) if pending.is_empty());
            // A page of history may have been ahead of the changes.
            let is_behind = state.next.0 > revision.0 + 1;
            if is_idle && state.quiet && state.start <= revision && !is_behind {
                // The answer that the stream waits for is about this watch too, and must not go back.
                on.progress = on.progress.map(|asked| asked.max(revision));
                return Some(Response { id: state.id, revision, kind: ResponseKind::Progress });
            }
        }
        None
    }

    /// Sends what is pending for a watcher that keeps up, as much as fits.
    fn send_pending(&mut self, watcher: WatcherId, left: &mut usize) -> Option<Next> {
        let state = self.watchers.get_mut(&watcher)?;
        let Place::Current(pending) = &mut state.place else { return None };
        let first = *pending.front()?;
        if first < self.recent.first() {
            // What is pending was dropped for its bytes.
            self.put_behind(watcher, first);
            return None;
        }
        let on = self.streams.get_mut(&state.stream)?;
        let until = on.may_send();
        if first > until {
            *left -= 1;
            self.queue(watcher);
            return None;
        }
        let mut pending = std::mem::take(pending);
        let budget = self.config.budget;
        let (mut events, mut bytes, mut last) = (Vec::new(), 0, first);
        while events.len() < budget.events_max && bytes < budget.bytes_max {
            let Some(revision) = pending.pop_front_if(|revision| *revision <= until) else { break };
            let change = self.recent.get(revision).expect("a pending revision is among the recent ones");
            self.counts.pending -= 1;
            last = revision;
            let before = events.len();
            events.extend(state.select(change));
            bytes += events[before..].iter().map(size).sum::<usize>();
        }
        on.sent = on.sent.max(last);
        state.next = Revision(last.0 + 1);
        state.quiet = false;
        let is_more = !pending.is_empty();
        state.place = Place::Current(pending);
        self.counts.events += events.len() as u64;
        let kind = ResponseKind::Events { events, fragment: state.fragment };
        let response = Response { id: state.id, revision: last, kind };
        if is_more {
            self.queue(watcher);
        }
        Some(Next::Response(response))
    }

    /// Lets a watcher that is behind read on: from recent changes if it can, else from history.
    fn read_on(&mut self, watcher: WatcherId, left: &mut usize) -> Option<Next> {
        let state = self.watchers.get_mut(&watcher)?;
        if state.next < self.recent.first() {
            return self.read_history(watcher);
        }
        let budget = self.config.budget;
        let (mut events, mut bytes, mut reached) = (Vec::new(), 0, self.recent.current());
        for change in self.recent.from(state.next) {
            if *left == 0 || events.len() >= budget.events_max || bytes >= budget.bytes_max {
                reached = Revision(change.revision.0 - 1);
                break;
            }
            *left -= 1;
            let before = events.len();
            events.extend(state.select(change));
            bytes += events[before..].iter().map(size).sum::<usize>();
        }
        state.next = state.next.max(Revision(reached.0 + 1));
        let (stream, id, fragment) = (state.stream, state.id, state.fragment);
        if !events.is_empty() {
            state.quiet = false;
        }
        if state.next > self.recent.current() {
            self.put_current(watcher);
        } else {
            self.queue(watcher);
        }
        let last = events.last()?.kv.mod_revision;
        if let Some(on) = self.streams.get_mut(&stream) {
            on.sent = on.sent.max(last);
        }
        self.counts.events += events.len() as u64;
        let revision = self.recent.current();
        Some(Next::Response(Response { id, revision, kind: ResponseKind::Events { events, fragment } }))
    }

    /// Asks for a page of history, one at a time.
    fn read_history(&mut self, watcher: WatcherId) -> Option<Next> {
        let state = self.watchers.get_mut(&watcher)?;
        let on = self.streams.get_mut(&state.stream)?;
        if on.reading.is_some() {
            on.readers.push_back(watcher);
            return None;
        }
        on.reading = Some(watcher);
        state.place = Place::Reading;
        let query = EventQuery { span: state.span.clone(), from: state.next, prev_kv: state.prev_kv };
        Some(Next::Read(PageRead { watcher, query, budget: self.config.budget }))
    }
}

fn size(event: &Event) -> usize {
    let pair = |kv: &mvcc::KeyValue| kv.key.len() + kv.value.len();
    pair(&event.kv) + event.prev_kv.as_ref().map_or(0, pair)
}
