//! Waiting for something to happen to a key: for locks and elections, whose queues wait for the key before theirs.
//!
//! Invariant: whoever registers *before* looking at the state is woken by every change that look did not show. A
//! wake-up may be for nothing, so waiters look again. One that is dropped, because its client went away, is gone at
//! once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use mvcc::Change;
use tokio::sync::Notify;
use tonic::Status;

/// Waiting requests of one node.
const WAITS_MAX: usize = 65_536;

type Waiters = BTreeMap<u64, Arc<Notify>>;

#[derive(Debug, Default)]
struct Waiting {
    keys: BTreeMap<Bytes, Waiters>,
    prefixes: BTreeMap<Bytes, Waiters>,
}

/// Who waits for which keys.
#[derive(Debug, Default)]
pub(crate) struct KeyWaits {
    count: AtomicUsize,
    next: AtomicU64,
    waiting: Mutex<Waiting>,
}

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum On {
    /// A change of this key.
    Key(Bytes),
    /// A change of any key that begins so.
    Prefix(Bytes),
}

/// A place among those who wait.
#[derive(Debug)]
pub(crate) struct Wait {
    waits: Arc<KeyWaits>,
    on: On,
    number: u64,
    notify: Arc<Notify>,
}

impl Wait {
    /// Returns when something happened since the last call, or since the registration.
    pub(crate) async fn changed(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let mut waiting = self.waits.lock();
        let (map, key) = match &self.on {
            On::Key(key) => (&mut waiting.keys, key),
            On::Prefix(prefix) => (&mut waiting.prefixes, prefix),
        };
        if let Some(waiters) = map.get_mut(key) {
            waiters.remove(&self.number);
            if waiters.is_empty() {
                map.remove(key);
            }
        }
        self.waits.count.fetch_sub(1, Ordering::SeqCst);
    }
}

impl KeyWaits {
    /// Registers; then look at the state, then wait.
    pub(crate) fn register(self: &Arc<Self>, on: On) -> Result<Wait, Status> {
        if self.count.fetch_add(1, Ordering::SeqCst) >= WAITS_MAX {
            self.count.fetch_sub(1, Ordering::SeqCst);
            return Err(crate::errors::overloaded());
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let notify = Arc::new(Notify::new());
        let mut waiting = self.lock();
        let (map, key) = match &on {
            On::Key(key) => (&mut waiting.keys, key),
            On::Prefix(prefix) => (&mut waiting.prefixes, prefix),
        };
        map.entry(key.clone()).or_default().insert(number, Arc::clone(&notify));
        drop(waiting);
        Ok(Wait { waits: Arc::clone(self), on, number, notify })
    }

    /// Whether anybody waits. Asked again after the state was written: who registered in between may have looked
    /// before.
    pub(crate) fn any(&self) -> bool {
        self.count.load(Ordering::SeqCst) > 0
    }

    /// These changes can be seen now.
    pub(crate) fn changed(&self, changes: &[Change]) {
        let waiting = self.lock();
        for event in changes.iter().flat_map(|change| &change.events) {
            wake(waiting.keys.get(&event.kv.key));
            for (prefix, waiters) in &waiting.prefixes {
                if event.kv.key.starts_with(prefix) {
                    wake(Some(waiters));
                }
            }
        }
    }

    /// Anything may have happened.
    pub(crate) fn anything(&self) {
        let waiting = self.lock();
        for waiters in waiting.keys.values().chain(waiting.prefixes.values()) {
            wake(Some(waiters));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // A panic cannot leave the maps half changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(waiters: Option<&Waiters>) {
    for notify in waiters.into_iter().flat_map(BTreeMap::values) {
        // Kept for the next `changed` if nobody is in it now.
        notify.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use base::Revision;
    use mvcc::{Event, EventKind, KeyValue};

    use super::*;

    fn change(key: &'static str) -> Change {
        let kv = KeyValue { key: key.into(), ..Default::default() };
        Change { revision: Revision(2), events: vec![Event { kind: EventKind::Delete, kv, prev_kv: None }] }
    }

    async fn woken(wait: &Wait) -> bool {
        tokio::time::timeout(std::time::Duration::ZERO, wait.changed()).await.is_ok()
    }

    #[tokio::test]
    async fn a_waiter_hears_of_its_key_or_prefix_and_of_nothing_else() {
        let waits = Arc::<KeyWaits>::default();
        let key = waits.register(On::Key("a/1".into())).unwrap();
        let prefix = waits.register(On::Prefix("a/".into())).unwrap();
        waits.changed(&[change("a/2")]);
        assert_eq!((woken(&key).await, woken(&prefix).await), (false, true));
        waits.changed(&[change("a/1")]);
        assert_eq!((woken(&key).await, woken(&prefix).await), (true, true));
        waits.changed(&[change("b")]);
        assert_eq!((woken(&key).await, woken(&prefix).await), (false, false));
        waits.anything();
        assert_eq!((woken(&key).await, woken(&prefix).await), (true, true));
    }

    #[tokio::test]
    async fn a_waiter_that_goes_leaves_nothing_behind() {
        let waits = Arc::<KeyWaits>::default();
        let wait = waits.register(On::Key("a".into())).unwrap();
        assert!(waits.any());
        drop(wait);
        assert!(!waits.any() && waits.lock().keys.is_empty());
    }
}
