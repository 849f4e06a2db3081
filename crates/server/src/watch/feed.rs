//! From the apply thread to the desks.
//!
//! Invariant: a desk that wants changes is told of every step of the revision from then on, be it only that something
//! was lost. While no desk wants them, nothing is kept and nothing is sent.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base::{Revision, limits};
use mvcc::Change;
use node::watch::Counts;
use tokio::sync::Notify;

use super::Desk;

/// One step of the state machine.
#[derive(Debug)]
pub(crate) struct Step {
    pub(super) before: Revision,
    pub(super) after: Revision,
    /// What happened in between, if it was kept.
    pub(super) changes: Option<Vec<Arc<Change>>>,
    bytes: usize,
}

/// Where steps wait for a desk. When they are too many the oldest are lost: the desk sees the gap.
#[derive(Debug, Default)]
pub(super) struct Mail {
    /// The desk has watches. Set before it looks at the state it starts from, so that no later step can be missed.
    wanted: AtomicBool,
    steps: Mutex<(VecDeque<Arc<Step>>, usize)>,
    pub(super) arrived: Notify,
}

/// All desks of a node, as the apply thread sees them.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    desks: Vec<Arc<Desk>>,
}

impl Step {
    fn new(before: Revision, after: Revision, changes: Option<Vec<Change>>) -> Self {
        let bytes = changes.iter().flatten().map(bytes).sum();
        let changes = changes.map(|changes| changes.into_iter().map(Arc::new).collect());
        Self { before, after, changes, bytes }
    }
}

fn bytes(change: &Change) -> usize {
    let pair = |kv: &mvcc::KeyValue| kv.key.len() + kv.value.len();
    let event = |event: &mvcc::Event| size_of_val(event) + pair(&event.kv) + event.prev_kv.as_ref().map_or(0, pair);
    change.events.iter().map(event).sum()
}

impl Mail {
    /// From now on every step arrives; or none.
    pub(super) fn want(&self, wanted: bool) {
        self.wanted.store(wanted, Ordering::SeqCst);
        if !wanted {
            *self.lock() = Default::default();
        }
    }

    fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::SeqCst)
    }

    fn put(&self, step: &Arc<Step>) {
        let mut mail = self.lock();
        let (steps, bytes) = &mut *mail;
        steps.push_back(Arc::clone(step));
        *bytes += step.bytes;
        while *bytes > limits::WATCH_RECENT_BYTES_MAX && steps.len() > 1 {
            *bytes -= steps.pop_front().map_or(0, |oldest| oldest.bytes);
        }
        drop(mail);
        self.arrived.notify_one();
    }

    pub(super) fn take(&self) -> Option<Arc<Step>> {
        let mut mail = self.lock();
        let step = mail.0.pop_front()?;
        mail.1 -= step.bytes;
        Some(step)
    }

    fn lock(&self) -> MutexGuard<'_, (VecDeque<Arc<Step>>, usize)> {
        // A panic cannot leave the queue and its size apart: nothing between the two can panic.
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Feed {
    pub(crate) fn new(desks: Vec<Arc<Desk>>) -> Arc<Self> {
        Arc::new(Self { desks })
    }

    /// Whether anybody wants to know what the next commands change.
    pub(crate) fn is_wanted(&self) -> bool {
        self.desks.iter().any(|desk| desk.mail.is_wanted())
    }

    /// The state machine went from `before` to `after`, and the engine shows it.
    pub(crate) fn publish(&self, before: Revision, after: Revision, changes: Option<Vec<Change>>) {
        if before == after || !self.is_wanted() {
            return;
        }
        let step = Arc::new(Step::new(before, after, changes));
        for desk in self.desks.iter().filter(|desk| desk.mail.is_wanted()) {
            desk.mail.put(&step);
        }
    }

    /// How much all desks have to do.
    pub(crate) fn counts(&self) -> Counts {
        self.desks.iter().map(|desk| desk.counts()).fold(Counts::default(), |sum, one| Counts {
            streams: sum.streams + one.streams,
            watchers: sum.watchers + one.watchers,
            slow_watchers: sum.slow_watchers + one.slow_watchers,
            pending: sum.pending + one.pending,
            events: sum.events + one.events,
        })
    }
}

/// How many of something a node has, over all its desks.
#[derive(Debug)]
pub(crate) struct Quota {
    taken: AtomicUsize,
    max: usize,
}

impl Quota {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { taken: AtomicUsize::new(0), max })
    }

    /// Takes one more, unless there are as many as there may be.
    pub(super) fn take(&self) -> bool {
        let more = |taken| (taken < self.max).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    pub(super) fn give_back(&self, count: usize) {
        self.taken.fetch_sub(count, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use mvcc::{Event, EventKind, KeyValue};

    use super::*;

    fn step(revision: i64, value_bytes: usize) -> Arc<Step> {
        let kv = KeyValue { value: vec![0; value_bytes].into(), ..KeyValue::default() };
        let events = vec![Event { kind: EventKind::Put, kv, prev_kv: None }];
        let change = Change { revision: Revision(revision), events };
        Arc::new(Step::new(Revision(revision - 1), Revision(revision), Some(vec![change])))
    }

    #[test]
    fn mail_that_nobody_takes_loses_its_oldest_steps() {
        let mail = Mail::default();
        for revision in 2..100 {
            mail.put(&step(revision, 1024 * 1024));
        }
        let kept: Vec<_> = std::iter::from_fn(|| mail.take()).map(|step| step.after.0).collect();
        assert_eq!(kept.last(), Some(&99));
        assert!(kept.len() <= limits::WATCH_RECENT_BYTES_MAX / 1024 / 1024, "{} steps", kept.len());
        assert_eq!(mail.lock().1, 0);
    }

    #[test]
    fn a_quota_ends_and_comes_back() {
        let quota = Quota::new(2);
        assert!(quota.take() && quota.take() && !quota.take());
        quota.give_back(1);
        assert!(quota.take() && !quota.take());
    }
}
