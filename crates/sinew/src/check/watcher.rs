//! One client that watches: one watch after the other, from now on, from the past, or on where the last one ended, at
//! another endpoint after each failure and at times without one.
//!
//! Invariant: every watch that stood is recorded with all that it delivered, once, when it is over. A watch is over
//! after some time or so many events, so memory does not grow with the run.

use std::rc::Rc;
use std::time::Duration;

use ::check::history::{Outcome, Request, Response, Revision, Watch, WatchBatch};
use base::Prng;
use tokio::time::{Instant, sleep, timeout};

use super::connection::{Connection, WatchStream};
use super::convert;
use super::holder;
use super::load::Shared;
use super::recorder::Caller;

/// Pause after an endpoint that could not be reached.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Time between two looks at whether the watch is to end.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How long a watch lasts.
const LIFE_MS: std::ops::Range<u64> = 500..4000;
/// Events after which a watch has enough.
const EVENTS_MAX: usize = 1000;
/// How long to wait for the rest when everything has been written.
const REST_PATIENCE: Duration = Duration::from_secs(3);

/// A client that watches.
pub(super) struct Watcher {
    shared: Rc<Shared>,
    prng: Prng,
    caller: Caller,
    /// Everything before this was delivered, to this watch or an earlier one; 0 at first.
    next: Revision,
}

impl Watcher {
    pub(super) fn new(shared: Rc<Shared>, client: u64, seed: u64) -> Self {
        let node = client % shared.endpoints.len() as u64;
        Self { shared, prng: Prng::new(seed), caller: Caller { client, node, connection: 0 }, next: 0 }
    }

    /// Watches until everything has been written and delivered.
    pub(super) async fn work(mut self) {
        while !self.shared.is_closing() {
            let is_broken = self.one_watch().await;
            if is_broken {
                sleep(RETRY_PAUSE).await;
            }
            if is_broken || self.prng.below(2) == 0 {
                self.caller.node = (self.caller.node + 1) % self.shared.endpoints.len() as u64;
            }
            self.caller.connection += 1;
        }
    }

    /// Watches once; says whether the endpoint failed.
    async fn one_watch(&mut self) -> bool {
        let endpoint = &self.shared.endpoints[self.caller.node as usize];
        let Ok(connection) = Connection::open(&self.shared.settings, endpoint).await else { return true };
        let watch = self.choose();
        let invoked = self.shared.recorder.now();
        let Ok(mut stream) = connection.watch(&watch).await else { return true };
        let mut batches = Vec::new();
        let is_broken = self.follow(&mut stream, &mut batches).await;
        self.learn(&batches);
        // Of a watch that was never said to stand nothing is known.
        if let Some(revision) = batches.iter().map(|batch| batch.revision).max() {
            let outcome = Outcome::Done { revision, response: Response::Watch { batches } };
            self.shared.recorder.add(self.caller, invoked, Request::Watch(watch), outcome);
        }
        is_broken
    }

    /// What to watch, and from where.
    fn choose(&mut self) -> Watch {
        // Each client watches the same keys all the time, so that its watches can go on where another one ended.
        let names = ["", "key/", holder::KEYS];
        let range = self.shared.range(names[(self.caller.client % names.len() as u64) as usize]);
        let first = self.shared.start_revision + 1;
        let start_revision = match self.next {
            0 if self.prng.below(2) == 0 => 0,
            0 => first,
            next if self.prng.below(4) == 0 => {
                let back = self.prng.below((next - first).max(1).unsigned_abs());
                next.saturating_sub_unsigned(back).max(first)
            }
            next => next,
        };
        let prev_kv = self.prng.below(2) == 0;
        Watch { key: range.key, range_end: range.range_end, start_revision, prev_kv, ..Watch::default() }
    }

    /// Takes what comes until the watch has lasted long enough; says whether it broke before.
    async fn follow(&mut self, stream: &mut WatchStream, batches: &mut Vec<WatchBatch>) -> bool {
        let life = LIFE_MS.start + self.prng.below(LIFE_MS.end - LIFE_MS.start);
        let mut until = Instant::now() + Duration::from_millis(life);
        let (mut events, mut is_last) = (0, false);
        while events < EVENTS_MAX && Instant::now() < until {
            if self.shared.is_closing() && !is_last {
                is_last = true;
                until = Instant::now() + REST_PATIENCE;
                stream.ask_progress();
            }
            let response = match timeout(LOOK_INTERVAL, stream.responses.message()).await {
                Err(_) => continue,
                Ok(Ok(Some(response))) => response,
                Ok(Ok(None) | Err(_)) => return true,
            };
            let Some(batch) = convert::batch(self.shared.recorder.now(), response) else { return true };
            let (is_end, is_created, count) = (batch.is_end(), batch.created, batch.events.len());
            batches.push(batch);
            events += count;
            match (is_end, is_created, count) {
                (true, ..) => return true,
                // It has told how far it is, which is all there is to wait for.
                (false, false, 0) if is_last => return false,
                _ if self.prng.below(50) == 0 => stream.ask_progress(),
                _ => {}
            }
        }
        false
    }

    /// Remembers from where to go on.
    fn learn(&mut self, batches: &[WatchBatch]) {
        for batch in batches {
            let told = match (batch.events.last(), batch.compact_revision) {
                (Some(last), _) => last.revision() + 1,
                (None, 0) if batch.cancelled.is_none() && !batch.created => batch.revision + 1,
                (None, floor) => floor,
            };
            self.next = self.next.max(told);
        }
    }
}
