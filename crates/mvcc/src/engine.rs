//! What the state machine asks of a storage engine: ordered rows, atomic batches, consistent snapshots; and the
//! engine of tests and simulations, which can forget.
//!
//! Invariant: a [`View`] never changes after it was taken, and contains each batch wholly or not at all.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base::Fault;
use bytes::Bytes;

/// The rows of a scan, in bytewise key order, from either end.
pub type Scan<'a> = Box<dyn DoubleEndedIterator<Item = Result<(Bytes, Bytes), Fault>> + 'a>;

/// Ordered rows with atomic writes and snapshots.
pub trait Engine: Send + Sync {
    /// A consistent snapshot of everything written so far.
    fn view(&self) -> Box<dyn View>;

    /// Writes all rows of `batch` or none; views taken after the return see them.
    fn write(&self, batch: Batch) -> Result<(), Fault>;
}

/// A consistent snapshot.
pub trait View: Send {
    /// The row stored under exactly `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault>;

    /// The rows between the bounds in bytewise key order. Bounds that cross give no rows, not a panic.
    fn scan<'a>(&'a self, from: Bound<Bytes>, to: Bound<Bytes>) -> Scan<'a>;
}

/// Rows to write in one atomic step.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// Row keys, ascending and unique, with the new value; `None` deletes the row.
    pub rows: Vec<(Bytes, Option<Bytes>)>,
}

type Rows = BTreeMap<Bytes, Bytes>;

/// An engine in memory for tests and the simulator. A view is a shared pointer to the map; a write copies the map only
/// while some view of the old one is alive. Writes are volatile until [`MemEngine::checkpoint`].
#[derive(Debug, Default)]
pub struct MemEngine {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default, Clone)]
struct Inner {
    live: Arc<Rows>,
    durable: Arc<Rows>,
}

impl MemEngine {
    /// An empty engine.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes everything written so far survive a [`crash`](Self::crash).
    pub fn checkpoint(&self) {
        let mut inner = self.lock();
        inner.durable = Arc::clone(&inner.live);
    }

    /// Forgets everything written since the last [`checkpoint`](Self::checkpoint).
    pub fn crash(&self) {
        let mut inner = self.lock();
        inner.live = Arc::clone(&inner.durable);
    }

    /// All rows in key order.
    #[must_use]
    pub fn rows(&self) -> Vec<(Bytes, Bytes)> {
        self.lock().live.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic cannot leave the maps half changed: both fields are replaced or extended as a whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Equal when the visible rows are equal; what a crash would bring back does not count.
impl PartialEq for MemEngine {
    fn eq(&self, other: &Self) -> bool {
        if std::ptr::eq(self, other) {
            return true;
        }
        let mine = Arc::clone(&self.lock().live);
        mine == other.lock().live
    }
}

/// An independent engine with the same rows and the same checkpoint.
impl Clone for MemEngine {
    fn clone(&self) -> Self {
        Self { inner: Mutex::new(self.lock().clone()) }
    }
}

impl Engine for MemEngine {
    fn view(&self) -> Box<dyn View> {
        Box::new(MemView(Arc::clone(&self.lock().live)))
    }

    fn write(&self, batch: Batch) -> Result<(), Fault> {
        for pair in batch.rows.windows(2) {
            assert!(pair[0].0 < pair[1].0, "batch rows out of order: {:?} before {:?}", pair[0].0, pair[1].0);
        }
        let mut inner = self.lock();
        let live = Arc::make_mut(&mut inner.live);
        for (key, value) in batch.rows {
            match value {
                Some(value) => drop(live.insert(key, value)),
                None => drop(live.remove(&key)),
            }
        }
        Ok(())
    }
}

struct MemView(Arc<Rows>);

impl View for MemView {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        Ok(self.0.get(key).cloned())
    }

    fn scan<'a>(&'a self, from: Bound<Bytes>, to: Bound<Bytes>) -> Scan<'a> {
        if bounds_cross(&from, &to) {
            return Box::new(std::iter::empty());
        }
        Box::new(self.0.range::<Bytes, _>((from, to)).map(|(key, value)| Ok((key.clone(), value.clone()))))
    }
}

/// True when no key can lie between the bounds; `BTreeMap::range` panics on such bounds.
#[must_use]
pub fn bounds_cross(from: &Bound<Bytes>, to: &Bound<Bytes>) -> bool {
    match (from, to) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => from >= to,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(engine: &MemEngine, key: &'static str, value: &'static str) {
        engine.write(Batch { rows: vec![(key.into(), Some(value.into()))] }).unwrap();
    }

    #[test]
    fn a_view_does_not_see_later_writes() {
        let engine = MemEngine::new();
        put(&engine, "a", "1");
        let view = engine.view();
        put(&engine, "a", "2");
        assert_eq!(view.get(b"a").unwrap(), Some("1".into()));
        assert_eq!(engine.view().get(b"a").unwrap(), Some("2".into()));
    }

    #[test]
    fn a_crash_goes_back_to_the_checkpoint() {
        let engine = MemEngine::new();
        put(&engine, "a", "1");
        engine.checkpoint();
        put(&engine, "b", "2");
        let copy = engine.clone();
        assert!(copy == engine);
        engine.crash();
        assert_eq!(engine.rows(), [(Bytes::from("a"), Bytes::from("1"))]);
        assert!(copy != engine);
    }

    #[test]
    fn crossing_bounds_give_no_rows() {
        let engine = MemEngine::new();
        put(&engine, "b", "1");
        let view = engine.view();
        assert_eq!(view.scan(Bound::Included("c".into()), Bound::Excluded("a".into())).count(), 0);
        assert_eq!(view.scan(Bound::Excluded("b".into()), Bound::Excluded("b".into())).count(), 0);
        assert_eq!(view.scan(Bound::Included("b".into()), Bound::Included("b".into())).count(), 1);
    }
}
