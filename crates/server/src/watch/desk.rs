//! The watches of one client thread: its hub, and whom to wake.
//!
//! Invariant: a stream that was told to wait has left its waker under the same lock, so no change can come in between.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;
use std::time::Duration;

use base::{Fault, Revision, limits};
use mvcc::{Engine, EventBudget, EventPage, State};
use node::watch::{Config, Counts, Create, Hub, Next, Refused, StreamId, WatcherId};
use tokio::sync::watch;

use super::feed::{Mail, Quota, Step};
use crate::clock;
use crate::standing::StandingCell;

/// Changes taken in at once; between two pieces the thread's other work has its turn.
const CHANGES_AT_ONCE: usize = 64;
/// Looks for a leader, one election timeout apart, that find none before streams that need one are ended; as in etcd.
const LEADERLESS_LOOKS: u32 = 3;

/// One client thread's watches.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(super) mail: Mail,
    inner: Mutex<Inner>,
    watches: Arc<Quota>,
    streams: Arc<Quota>,
}

#[derive(Debug)]
struct Inner {
    hub: Hub,
    wakers: BTreeMap<StreamId, Waker>,
    next_stream: u64,
    leaderless: bool,
    stopping: bool,
}

/// Why a stream must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Stopping,
    Leaderless,
}

impl Desk {
    pub(crate) fn new(progress_interval: Duration, seed: u64, watches: Arc<Quota>, streams: Arc<Quota>) -> Arc<Self> {
        let hub = Hub::new(Config {
            progress_interval,
            watchers_per_stream_max: limits::WATCHES_PER_STREAM_MAX,
            recent_bytes_max: limits::WATCH_RECENT_BYTES_MAX,
            pending_max: limits::WATCH_PENDING_MAX,
            budget: EventBudget { events_max: limits::WATCH_EVENTS_MAX, bytes_max: limits::WATCH_RESPONSE_BYTES },
            seed,
        });
        let inner = Inner { hub, wakers: BTreeMap::new(), next_stream: 0, leaderless: false, stopping: false };
        Arc::new(Self { mail: Mail::default(), inner: Mutex::new(inner), watches, streams })
    }

    /// Keeps the hub up to date until `stop` changes; then ends all streams.
    pub(crate) async fn run(
        self: Arc<Self>,
        standing: Arc<StandingCell>,
        election_timeout: Duration,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut looks = tokio::time::interval(election_timeout);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut leaderless = 0;
        loop {
            let due = self.next_deadline();
            tokio::select! {
                () = self.mail.arrived.notified() => {
                    while let Some(step) = self.mail.take() {
                        self.take_in(&step).await;
                    }
                }
                () = tokio::time::sleep(due.unwrap_or(Duration::MAX)), if due.is_some() => {
                    self.change(|inner| inner.hub.tick(clock::now()));
                }
                _ = looks.tick() => {
                    leaderless = if standing.look(|status| status.leader.is_some()) { 0 } else { leaderless + 1 };
                    self.set_leaderless(leaderless >= LEADERLESS_LOOKS);
                }
                _ = stop.changed() => {
                    let mut inner = self.lock();
                    inner.stopping = true;
                    return wake(std::mem::take(&mut inner.wakers));
                }
            }
        }
    }

    /// Time until the hub wants a tick.
    fn next_deadline(&self) -> Option<Duration> {
        Some(self.lock().hub.next_deadline()?.since(clock::now()))
    }

    async fn take_in(&self, step: &Step) {
        let mut before = step.before;
        for piece in step.changes.iter().flat_map(|changes| changes.chunks(CHANGES_AT_ONCE)) {
            let after = piece.last().map_or(before, |change| change.revision);
            self.change(|inner| inner.hub.applied(before, after, Some(piece)));
            before = after;
            tokio::task::yield_now().await;
        }
        let rest = step.changes.as_ref().map(|_| &[][..]);
        self.change(|inner| inner.hub.applied(before, step.after, rest));
    }

    fn set_leaderless(&self, leaderless: bool) {
        let mut inner = self.lock();
        if leaderless && !inner.leaderless {
            wake(std::mem::take(&mut inner.wakers));
        }
        inner.leaderless = leaderless;
    }

    /// A new stream; none if the node has as many as it may have.
    pub(super) fn open(&self) -> Option<StreamId> {
        if !self.streams.take() {
            return None;
        }
        let mut inner = self.lock();
        let stream = StreamId(inner.next_stream);
        inner.next_stream += 1;
        inner.hub.open(stream, clock::now());
        // The hub's next deadline may be this stream's.
        self.mail.arrived.notify_one();
        Some(stream)
    }

    pub(super) fn close(&self, stream: StreamId) {
        self.streams.give_back(1);
        if self.inner.is_poisoned() {
            return;
        }
        self.change(|inner| {
            inner.wakers.remove(&stream);
            inner.hub.close(stream);
        });
    }

    pub(super) fn create(&self, stream: StreamId, create: &Create, engine: &dyn Engine) -> Result<(), Fault> {
        let has_place = self.watches.take();
        let mut created = Ok(());
        let grown = self.change(|inner| {
            // Before the look at the state: what is applied after it must arrive.
            self.mail.want(true);
            match mvcc::state(&*engine.view()) {
                Ok(state) if has_place => inner.hub.create(stream, create, &state),
                Ok(state) => inner.hub.refuse(stream, Refused::TooManyOnNode, state.revision),
                Err(fault) => created = Err(fault),
            }
        });
        if has_place && grown == 0 {
            self.watches.give_back(1);
        }
        created
    }

    pub(super) fn cancel(&self, stream: StreamId, id: i64, state: &State) {
        self.change(|inner| inner.hub.cancel(stream, id, state.revision));
    }

    pub(super) fn progress(&self, stream: StreamId, state: &State) {
        self.change(|inner| inner.hub.progress(stream, state.revision));
    }

    pub(super) fn page(&self, stream: StreamId, watcher: WatcherId, page: Result<EventPage, Revision>) {
        self.change(|inner| inner.hub.page(stream, watcher, page));
    }

    pub(super) fn has_room(&self, stream: StreamId) -> bool {
        self.lock().hub.has_room(stream)
    }

    /// What the stream does next. If it is to wait, `waker` is called when that changes.
    pub(super) fn next(&self, stream: StreamId, waker: &Waker) -> Next {
        let mut next = Next::Wait;
        self.change(|inner| {
            next = inner.hub.next(stream);
            if next == Next::Wait {
                inner.wakers.insert(stream, waker.clone());
            }
        });
        next
    }

    /// Whether the stream must end.
    pub(super) fn end(&self, needs_leader: bool) -> Option<End> {
        let inner = self.lock();
        match (inner.stopping, needs_leader && inner.leaderless) {
            (true, _) => Some(End::Stopping),
            (false, true) => Some(End::Leaderless),
            (false, false) => None,
        }
    }

    pub(super) fn counts(&self) -> Counts {
        self.lock().hub.counts()
    }

    /// Changes the hub, then wakes whom that concerns and keeps the books. Returns how many watches were added.
    fn change(&self, change: impl FnOnce(&mut Inner)) -> usize {
        let mut inner = self.lock();
        let before = inner.hub.counts().watchers;
        change(&mut inner);
        let after = inner.hub.counts().watchers;
        if after == 0 {
            self.mail.want(false);
        }
        let woken = inner.hub.take_woken();
        let wakers: Vec<_> = woken.iter().filter_map(|stream| inner.wakers.remove(stream)).collect();
        drop(inner);
        self.watches.give_back(before.saturating_sub(after));
        wakers.into_iter().for_each(Waker::wake);
        after.saturating_sub(before)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("a hub that panicked tells nobody anything more")
    }
}

fn wake(wakers: BTreeMap<StreamId, Waker>) {
    wakers.into_values().for_each(Waker::wake);
}
