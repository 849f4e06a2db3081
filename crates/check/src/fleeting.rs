//! Keys that come or go without an operation of the history: those on leases, which end unseen, and those of contenders
//! for locks, which a lock service makes and deletes by itself.
//!
//! Invariant: what is not among these keys changes by operations of the history alone.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Bytes, History, Lock, Request};
use crate::span::Span;

/// All of them.
pub(crate) struct Fleeting<'a> {
    /// Keys that were ever attached to a lease.
    leased: BTreeSet<&'a Bytes>,
    /// By the name of a lock: the leases that asked for it, and when.
    queues: BTreeMap<&'a [u8], Vec<(i64, u64)>>,
}

/// The lock a key belongs to, if it is a contender's: these are `NAME/…`.
pub(crate) fn name_of(key: &Bytes) -> Option<&[u8]> {
    key.iter().rposition(|byte| *byte == b'/').map(|at| &key[..at])
}

impl<'a> Fleeting<'a> {
    pub(crate) fn of(history: &'a History) -> Self {
        let leased = history.operations.iter().flat_map(|operation| operation.request.attached()).collect();
        let mut queues: BTreeMap<&[u8], Vec<(i64, u64)>> = BTreeMap::new();
        for operation in &history.operations {
            if let Request::Lock(Lock::Acquire { name, lease }) = &operation.request {
                queues.entry(&name[..]).or_default().push((*lease, operation.invoked));
            }
        }
        Self { leased, queues }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.leased.is_empty() && self.queues.is_empty()
    }

    pub(crate) fn contains(&self, key: &Bytes) -> bool {
        self.leased.contains(key) || name_of(key).is_some_and(|name| self.queues.contains_key(name))
    }

    /// Whether any of them could be in `span`.
    pub(crate) fn meets(&self, span: &Span<'_>) -> bool {
        if let Span::Key(key) = span {
            return self.contains(key);
        }
        let is_in = |name: &[u8]| {
            let [prefix, end] = [b"/", b"0"].map(|last| Bytes::from([name, &last[..]].concat()));
            Span::new(&prefix, &end).overlaps(*span)
        };
        self.leased.iter().any(|key| span.contains(key)) || self.queues.keys().any(|name| is_in(name))
    }

    /// Whether a lock service may have put this key on a lease by then, because somebody had asked for the lock.
    pub(crate) fn may_join(&self, key: &Bytes, lease: i64, at: u64) -> bool {
        let asked = name_of(key).and_then(|name| self.queues.get(name));
        asked.is_some_and(|asked| asked.iter().any(|(by, invoked)| *by == lease && *invoked <= at))
    }
}
