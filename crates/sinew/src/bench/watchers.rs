//! Watchers of every key of a run, and how long each event takes to reach each of them.
//!
//! A delivery counts from the moment its put was sent, or was due. Writer and watchers are one process, so there is one
//! clock; the value of an event says which put it is ([`super::template::stamp`]).
//!
//! Invariant: every put that succeeded is waited for at every watcher, and what does not come in time is a failure.
//! Used by [`super::side`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::etcdserverpb::{WatchCreateRequest, WatchRequest, watch_request};
use hdrhistogram::Histogram;
use prost::Message;
use tokio::task::JoinSet;

use super::client::{Call, CallError, Caller, Channel, Messages};
use super::load::{Outcome, latency_histogram, nanoseconds};
use super::template;
use crate::ctl::kv::end_of_prefix;

/// How often the end looks whether everything has arrived.
const TICK: Duration = Duration::from_millis(5);

/// Puts under way to the watchers.
#[derive(Clone)]
pub(super) struct Deliveries(Arc<Mutex<Inner>>);

struct Inner {
    watchers: u64,
    /// By stamp: since when it counts, and at how many watchers it has not arrived.
    open: HashMap<u64, (Instant, u64)>,
    latency_ns: Histogram<u64>,
    /// A watcher that ended, which none should.
    lost: Option<CallError>,
}

impl Deliveries {
    fn new(watchers: usize) -> Self {
        let watchers = watchers as u64;
        let inner = Inner { watchers, open: HashMap::new(), latency_ns: latency_histogram(), lost: None };
        Self(Arc::new(Mutex::new(inner)))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Poisoned only if a watcher's task panicked, which shows as deliveries that do not come.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A put is being sent that counts from `since`.
    pub(super) fn sent(&self, stamp: u64, since: Instant) {
        let mut inner = self.lock();
        let watchers = inner.watchers;
        inner.open.insert(stamp, (since, watchers));
    }

    /// The put did not succeed: nobody can say whether it will be seen.
    pub(super) fn forget(&self, stamp: u64) {
        self.lock().open.remove(&stamp);
    }

    fn arrived(&self, stamp: u64, now: Instant) {
        let mut inner = self.lock();
        let Some((since, missing)) = inner.open.get_mut(&stamp) else { return };
        let waited = now.saturating_duration_since(*since);
        *missing -= 1;
        if *missing == 0 {
            inner.open.remove(&stamp);
        }
        inner.latency_ns.saturating_record(nanoseconds(waited));
    }

    /// Waits for what is under way, and turns an outcome that counts puts into one that counts deliveries.
    pub(super) async fn settle(&self, puts: Outcome, timeout: Duration) -> Outcome {
        let until = Instant::now() + timeout;
        while Instant::now() < until && !self.lock().open.is_empty() {
            tokio::time::sleep(TICK).await;
        }
        let mut inner = self.lock();
        let missing = inner.open.drain().map(|(_, (_, watchers))| watchers).sum::<u64>();
        let latency_ns = std::mem::replace(&mut inner.latency_ns, latency_histogram());
        let arrived = latency_ns.len();
        let mut outcome = Outcome { latency_ns, completed: arrived, succeeded: arrived, ..puts };
        outcome.failed += missing;
        if missing > 0 {
            let reason =
                inner.lost.as_ref().map_or("not delivered in time".to_owned(), |error| format!("watch: {error}"));
            *outcome.errors.entry(reason).or_insert(0) += missing;
        }
        outcome
    }
}

/// Watches that are open; dropped, they end.
pub(super) struct Watchers {
    pub(super) deliveries: Deliveries,
    _tasks: JoinSet<()>,
}

impl Watchers {
    /// Opens `count` watches of everything that begins with `prefix`, each on a stream of its own, spread over the
    /// channels.
    ///
    /// # Errors
    /// If a watch is refused.
    pub(super) async fn open(channels: &[Arc<Channel>], count: usize, prefix: &str) -> Result<Self, CallError> {
        let deliveries = Deliveries::new(count);
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let mut caller = Caller::new(&channels[number % channels.len()]);
            let mut messages = caller.open(Call::Watch, template::framed(&create_request(prefix))).await?;
            let created = Notice::decode(messages.next().await?);
            if !created.is_ok_and(|notice| notice.created && !notice.canceled) {
                return Err(CallError::Protocol("a watch was not created".to_owned()));
            }
            tasks.spawn(follow(messages, deliveries.clone()));
        }
        Ok(Self { deliveries, _tasks: tasks })
    }
}

async fn follow(mut messages: Messages, deliveries: Deliveries) {
    let error = loop {
        let message = match messages.next().await {
            Ok(message) => message,
            Err(error) => break error,
        };
        let now = Instant::now();
        let notice = match Notice::decode(message) {
            Ok(notice) if notice.canceled => break CallError::Protocol("a watch was cancelled".to_owned()),
            Ok(notice) => notice,
            Err(error) => break CallError::Protocol(format!("malformed message: {error}")),
        };
        let pairs = notice.events.into_iter().filter_map(|event| event.pair);
        for stamp in pairs.filter_map(|pair| template::stamp_of(&pair.value)) {
            deliveries.arrived(stamp, now);
        }
    };
    deliveries.lock().lost.get_or_insert(error);
}

fn create_request(prefix: &str) -> WatchRequest {
    let (key, range_end) = (prefix.as_bytes().to_vec(), end_of_prefix(prefix.as_bytes()));
    let create = WatchCreateRequest { key: key.into(), range_end: range_end.into(), ..Default::default() };
    WatchRequest { request_union: Some(watch_request::RequestUnion::CreateRequest(create)) }
}

// What of a WatchResponse is looked at.

#[derive(Clone, PartialEq, Message)]
struct Notice {
    #[prost(bool, tag = "3")]
    created: bool,
    #[prost(bool, tag = "4")]
    canceled: bool,
    #[prost(message, repeated, tag = "11")]
    events: Vec<Event>,
}

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(message, optional, tag = "2")]
    pair: Option<Pair>,
}

#[derive(Clone, PartialEq, Message)]
struct Pair {
    #[prost(bytes = "bytes", tag = "5")]
    value: bytes::Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_put_counts_once_at_every_watcher() {
        let deliveries = Deliveries::new(2);
        let now = Instant::now();
        deliveries.sent(1, now);
        deliveries.sent(2, now);
        deliveries.sent(3, now);
        deliveries.forget(2);
        for stamp in [1, 1, 1, 2, 3, 7] {
            deliveries.arrived(stamp, now + Duration::from_millis(3));
        }
        let outcome = deliveries.settle(Outcome::new(), Duration::from_millis(1)).await;
        assert_eq!((outcome.succeeded, outcome.failed), (3, 1), "one watcher never saw the third");
        assert!((2_990_000..3_010_000).contains(&outcome.latency_ns.max()), "{}", outcome.latency_ns.max());
        assert_eq!(outcome.errors.get("not delivered in time"), Some(&1));
        deliveries.sent(4, now);
        deliveries.arrived(4, now);
        deliveries.arrived(4, now);
        let outcome = deliveries.settle(Outcome::new(), Duration::from_secs(60)).await;
        assert_eq!((outcome.succeeded, outcome.failed), (2, 0), "each phase begins at nothing");
    }

    #[test]
    fn a_prefix_is_watched_as_a_range() {
        let range_end = |prefix: &str| match create_request(prefix).request_union {
            Some(watch_request::RequestUnion::CreateRequest(create)) => create.range_end.to_vec(),
            other => panic!("{other:?}"),
        };
        assert_eq!(range_end("bench/"), b"bench0");
        assert_eq!(range_end(""), [0]);
    }
}
