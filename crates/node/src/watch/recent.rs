//! The last changes, in order, for all watchers of a hub.
//!
//! Invariant: it holds every change from `first` to `current`, without a gap, and nothing else. What is older was
//! dropped for its bytes, and is read from history.

use std::collections::VecDeque;
use std::sync::Arc;

use base::Revision;
use mvcc::Change;

/// Recent changes, shared by reference.
#[derive(Debug)]
pub(super) struct Recent {
    changes: VecDeque<Arc<Change>>,
    bytes: usize,
    bytes_max: usize,
    first: Revision,
    current: Revision,
}

/// Memory of a change besides its keys and values, per event, roughly.
const EVENT_OVERHEAD_BYTES: usize = 256;

impl Recent {
    /// Holds nothing; the next change is the one after `current`.
    pub(super) fn new(current: Revision, bytes_max: usize) -> Self {
        Self { changes: VecDeque::new(), bytes: 0, bytes_max, first: Revision(current.0 + 1), current }
    }

    /// Forgets everything and goes on behind `current`.
    pub(super) fn restart(&mut self, current: Revision) {
        *self = Self::new(current, self.bytes_max);
    }

    /// The first revision that is here, and whatever followed it.
    pub(super) fn first(&self) -> Revision {
        self.first
    }

    /// Everything up to here has been taken in.
    pub(super) fn current(&self) -> Revision {
        self.current
    }

    /// Takes in the next change, and lets go of the oldest ones that have no room any more.
    pub(super) fn push(&mut self, change: Arc<Change>) {
        let revision = change.revision;
        assert!(revision > self.current, "change {revision} after {}", self.current);
        self.bytes += bytes(&change);
        self.current = revision;
        self.changes.push_back(change);
        // A change that alone is too large stays until the next one: somebody is waiting for it.
        while self.bytes > self.bytes_max && self.changes.len() > 1 {
            let Some(oldest) = self.changes.pop_front() else { break };
            self.bytes -= bytes(&oldest);
            self.first = Revision(oldest.revision.0 + 1);
        }
    }

    /// Nothing changed up to here.
    pub(super) fn advance(&mut self, revision: Revision) {
        self.current = self.current.max(revision);
    }

    /// The change of exactly this revision.
    pub(super) fn get(&self, revision: Revision) -> Option<&Arc<Change>> {
        let at = self.changes.binary_search_by_key(&revision, |change| change.revision).ok()?;
        self.changes.get(at)
    }

    /// The changes from `revision` on.
    pub(super) fn from(&self, revision: Revision) -> impl Iterator<Item = &Arc<Change>> {
        assert!(revision >= self.first, "{revision} is not here any more: the first is {}", self.first);
        let at = self.changes.partition_point(|change| change.revision < revision);
        self.changes.range(at..)
    }
}

fn bytes(change: &Change) -> usize {
    let pair = |kv: &mvcc::KeyValue| kv.key.len() + kv.value.len();
    let event = |event: &mvcc::Event| EVENT_OVERHEAD_BYTES + pair(&event.kv) + event.prev_kv.as_ref().map_or(0, pair);
    change.events.iter().map(event).sum()
}

#[cfg(test)]
mod tests {
    use mvcc::{Event, EventKind, KeyValue};

    use super::*;

    fn change(revision: i64, value_bytes: usize) -> Arc<Change> {
        let kv = KeyValue { key: "k".into(), value: vec![0; value_bytes].into(), ..KeyValue::default() };
        let event = Event { kind: EventKind::Put, kv, prev_kv: None };
        Arc::new(Change { revision: Revision(revision), events: vec![event] })
    }

    fn revisions(recent: &Recent, from: i64) -> Vec<i64> {
        recent.from(Revision(from)).map(|change| change.revision.0).collect()
    }

    #[test]
    fn the_oldest_changes_leave_when_there_is_no_room() {
        let mut recent = Recent::new(Revision(4), 3000);
        for revision in 5..=8 {
            recent.push(change(revision, 700));
        }
        assert_eq!((recent.first(), recent.current()), (Revision(6), Revision(8)));
        assert_eq!(revisions(&recent, 7), [7, 8]);
        assert!(recent.get(Revision(5)).is_none());
        assert_eq!(recent.get(Revision(6)).map(|change| change.revision), Some(Revision(6)));
    }

    #[test]
    fn a_change_that_is_too_large_stays_until_the_next() {
        let mut recent = Recent::new(Revision(1), 1000);
        recent.push(change(2, 10_000));
        assert_eq!(revisions(&recent, 2), [2]);
        recent.push(change(3, 1));
        assert_eq!((recent.first(), revisions(&recent, 3)), (Revision(3), vec![3]));
    }
}
