//! The host of the lock service of one node: who waits there for what.
//!
//! Invariant: as in the server. What is asked of the store, and what the answers mean, is the recipe's; a contender
//! whose client went away leaves the queue, one whose node died is taken out by its lease.

use std::collections::BTreeMap;

use base::{LeaseId, Revision};
use bytes::Bytes;
use node::recipe::Place;

/// Nodes that ask their own store are numbered from here on, as clients of it.
pub(crate) const DESKS: u64 = 200;

/// What a node asks of the store in the name of a request about a lock. The number is that request's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Errand {
    Join(u64),
    Look(u64),
    Unlock(u64),
    /// Nobody waits for it.
    Leave,
}

/// How far a contender has come.
pub(crate) enum Standing {
    Joining,
    Looking {
        waited: bool,
    },
    /// Until this key, created then, is gone.
    Waiting {
        key: Bytes,
        created: Revision,
    },
}

/// A request for a lock.
pub(crate) struct Contender {
    pub(crate) name: Bytes,
    pub(crate) lease: LeaseId,
    /// Its place in the queue, once it has one.
    pub(crate) place: Option<Place>,
    pub(crate) standing: Standing,
}

/// See the module. By the number of the request.
#[derive(Default)]
pub(crate) struct LockDesk {
    pub(crate) contenders: BTreeMap<u64, Contender>,
    /// Keys that are given back, by the number of the request.
    pub(crate) unlocking: BTreeMap<u64, Bytes>,
    /// Those who wait will look at the engine.
    pub(crate) wakes: bool,
}

impl LockDesk {
    /// Whether somebody waits for a key to go.
    pub(crate) fn is_wanted(&self) -> bool {
        self.contenders.values().any(|contender| matches!(contender.standing, Standing::Waiting { .. }))
    }
}
