//! One phase of load on one service: many clients, closed or open loop, until time or count is up.
//!
//! Invariant: a phase always ends, at its deadline plus the time one operation may take. Closed loop: every client
//! sends its next operation when the previous one is answered. Open loop: operations are sent at the times of a
//! [`Pacer`](super::pacer), by whichever client is free. All runs on one thread; the one lock is never contended.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use super::client::{CallError, Caller, Channel};
use super::pacer::{Pacer, Schedule};
use super::progress::Progress;
use super::watchers::Deliveries;
use super::workload::{Effect, Generator, Operation};

/// Different error texts kept per phase; further ones are counted together.
const ERROR_TEXTS_MAX: usize = 32;
/// The bucket of errors beyond [`ERROR_TEXTS_MAX`].
const OTHER_ERRORS: &str = "other errors";
/// What a client waits after a connection error before it tries again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
/// How often progress is shown and interruption noticed.
const TICK: Duration = Duration::from_millis(100);
/// Range of latencies told apart, in nanoseconds: one microsecond to one hour, three significant digits.
const LATENCY_NS: (u64, u64) = (1_000, 3_600_000_000_000);

/// How a phase is driven.
#[derive(Clone, Debug)]
pub(super) struct Drive {
    /// Clients, each with one operation in flight.
    pub(super) clients: usize,
    /// When to stop sending.
    pub(super) duration: Duration,
    /// Operations after which to stop, if that comes first.
    pub(super) total: Option<u64>,
    /// Operations per second; none for a closed loop.
    pub(super) rate: Option<f64>,
    /// How long one operation may take.
    pub(super) timeout: Duration,
}

/// What a phase showed.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    /// Latency of successful operations in nanoseconds.
    pub(super) latency_ns: Histogram<u64>,
    /// Successful operations that ended within `elapsed`: what the throughput is made of.
    pub(super) completed: u64,
    /// Successful operations, also those that ended late.
    pub(super) succeeded: u64,
    /// Operations without a good answer.
    pub(super) failed: u64,
    /// Successful operations without effect, see [`Effect::Missed`].
    pub(super) missed: u64,
    /// Operations that were due but found no free client.
    pub(super) unsent: u64,
    /// Failures by text.
    pub(super) errors: BTreeMap<String, u64>,
    /// From the first send until time or operations ran out.
    pub(super) elapsed: Duration,
}

/// An empty histogram for latencies.
pub(super) fn latency_histogram() -> Histogram<u64> {
    let (low, high) = LATENCY_NS;
    Histogram::new_with_bounds(low, high, 3).expect("the bounds are valid")
}

/// A length of time as histograms take it.
pub(super) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Outcome {
    pub(super) fn new() -> Self {
        Self {
            latency_ns: latency_histogram(),
            completed: 0,
            succeeded: 0,
            failed: 0,
            missed: 0,
            unsent: 0,
            errors: BTreeMap::new(),
            elapsed: Duration::ZERO,
        }
    }

    fn count_error(&mut self, error: &CallError) {
        self.failed += 1;
        let text = error.to_string();
        if let Some(count) = self.errors.get_mut(&text) {
            *count += 1;
        } else if self.errors.len() < ERROR_TEXTS_MAX {
            self.errors.insert(text, 1);
        } else {
            *self.errors.entry(OTHER_ERRORS.to_owned()).or_insert(0) += 1;
        }
    }
}

/// The state all clients of a phase share.
struct Phase {
    generator: Generator,
    outcome: Outcome,
    started: Instant,
    deadline: Instant,
    total: Option<u64>,
    issued: u64,
    last_end: Instant,
}

impl Phase {
    /// The next operation and its number, or none if the phase is over.
    fn begin(&mut self, now: Instant) -> Option<(Operation, u64)> {
        if now >= self.deadline || self.is_all_issued() {
            return None;
        }
        let number = self.issued;
        self.issued += 1;
        Some((self.generator.next_operation(), number))
    }

    /// Accounts for an answer to `operation`, which counts from `since`; answers whether it was a good one.
    fn finish(&mut self, operation: &Operation, since: Instant, result: Result<Bytes, CallError>) -> bool {
        let now = Instant::now();
        self.last_end = now;
        match result.and_then(|answer| self.generator.settle(operation, answer)) {
            Ok(effect) => {
                self.outcome.latency_ns.saturating_record(nanoseconds(now.saturating_duration_since(since)));
                self.outcome.succeeded += 1;
                self.outcome.completed += u64::from(now <= self.deadline);
                self.outcome.missed += u64::from(effect == Effect::Missed);
                true
            }
            Err(error) => {
                self.outcome.count_error(&error);
                false
            }
        }
    }

    fn is_all_issued(&self) -> bool {
        self.total.is_some_and(|total| self.issued >= total)
    }

    /// The figures, when all clients are done.
    fn end(mut self, schedule: Option<&Schedule>) -> (Outcome, Generator) {
        let finished = if self.is_all_issued() { self.last_end.min(self.deadline) } else { self.deadline };
        self.outcome.elapsed = finished.saturating_duration_since(self.started);
        self.outcome.unsent = schedule.map_or(0, |schedule| schedule.due(self.deadline).saturating_sub(self.issued));
        let outcome = self.outcome;
        assert_eq!(outcome.succeeded + outcome.failed, self.issued, "every operation ended one way or the other");
        (outcome, self.generator)
    }
}

/// What every task of a phase holds.
struct Shared {
    phase: Mutex<Phase>,
    pacer: Option<Pacer>,
    timeout: Duration,
    /// Where puts are announced that watchers will see.
    deliveries: Option<Deliveries>,
}

impl Shared {
    fn phase(&self) -> MutexGuard<'_, Phase> {
        // Poisoned only if a client panicked, which ends the phase anyway when that client is joined.
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs one phase and gives the generator back.
///
/// # Errors
/// If the operating system has no timer for the open loop.
pub(super) async fn run(
    drive: &Drive,
    channels: &[Arc<Channel>],
    generator: Generator,
    deliveries: Option<&Deliveries>,
    progress: &Progress,
    interrupted: &AtomicBool,
) -> std::io::Result<(Outcome, Generator)> {
    assert!(drive.clients > 0 && !channels.is_empty(), "{} clients on {} connections", drive.clients, channels.len());
    let started = Instant::now();
    let pacer = drive.rate.map(|rate| Pacer::new(Schedule::new(started, rate, drive.duration, drive.total)));
    let deadline = started + drive.duration;
    let (total, outcome) = (drive.total, Outcome::new());
    let deliveries = deliveries.cloned();
    let phase = Phase { generator, outcome, started, deadline, total, issued: 0, last_end: started };
    let shared = Arc::new(Shared { phase: Mutex::new(phase), pacer, timeout: drive.timeout, deliveries });

    let mut clients = JoinSet::new();
    for number in 0..drive.clients {
        clients.spawn(client(Arc::clone(&shared), Caller::new(&channels[number % channels.len()])));
    }
    let paced = async {
        match &shared.pacer {
            Some(pacer) => pacer.run(deadline).await.inspect_err(|_| pacer.close()),
            None => Ok(()),
        }
    };
    let joined = async { while clients.join_next().await.transpose().expect("a client does not panic").is_some() {} };
    let work = async { tokio::join!(paced, joined).0 };
    tokio::select! {
        result = work => result?,
        never = supervise(&shared, drive, progress, interrupted) => match never {},
    }
    let shared = Arc::into_inner(shared).expect("all clients are joined");
    let schedule = shared.pacer.as_ref().map(|pacer| *pacer.schedule());
    Ok(shared.phase.into_inner().unwrap_or_else(PoisonError::into_inner).end(schedule.as_ref()))
}

/// One client: one operation after the other.
async fn client(shared: Arc<Shared>, mut caller: Caller) {
    loop {
        if let Some(pacer) = &shared.pacer
            && !pacer.turn().await
        {
            break;
        }
        let now = Instant::now();
        let Some((operation, number)) = shared.phase().begin(now) else { break };
        let since = shared.pacer.as_ref().map_or(now, |pacer| pacer.schedule().due_at(number));
        if let Some(deliveries) = &shared.deliveries {
            deliveries.sent(operation.stamp, since);
        }
        let calls = perform(&mut caller, &operation);
        let result = tokio::time::timeout(shared.timeout, calls).await.unwrap_or(Err(CallError::TimedOut));
        let is_disconnected = matches!(&result, Err(error) if error.is_connection());
        let succeeded = shared.phase().finish(&operation, since, result);
        if let Some(deliveries) = shared.deliveries.as_ref().filter(|_| !succeeded) {
            deliveries.forget(operation.stamp);
        }
        if is_disconnected {
            tokio::time::sleep(RECONNECT_PAUSE).await;
        }
    }
    // Over for one is over for all; the others may wait for a turn that does not come.
    if let Some(pacer) = &shared.pacer {
        pacer.close();
    }
}

/// The calls of one operation; answers with the last answer.
async fn perform(caller: &mut Caller, operation: &Operation) -> Result<Bytes, CallError> {
    if let Some((call, framed)) = &operation.before {
        caller.call(*call, framed.clone()).await?;
    }
    caller.call(operation.call, operation.framed.clone()).await
}

/// Shows progress, and ends the phase at its deadline or when the user asks; the clients then end by themselves.
async fn supervise(
    shared: &Shared,
    drive: &Drive,
    progress: &Progress,
    interrupted: &AtomicBool,
) -> std::convert::Infallible {
    loop {
        tokio::time::sleep(TICK).await;
        let (started, is_over, done) = {
            let mut phase = shared.phase();
            if interrupted.load(Ordering::Relaxed) {
                phase.deadline = phase.deadline.min(Instant::now());
            }
            let is_over = phase.deadline <= Instant::now() || phase.is_all_issued();
            (phase.started, is_over, phase.outcome.succeeded)
        };
        if is_over && let Some(pacer) = &shared.pacer {
            pacer.close();
        }
        progress.show(started.elapsed(), drive, done);
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
