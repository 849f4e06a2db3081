//! Clients that want locks: they believe that they hold one until a guarded write is refused.
//!
//! Invariant: nobody writes below a fence but under the token it was told; what it still holds is for the store to say.

use base::Revision;
use bytes::Bytes;
use mvcc::{Command, Op, Outcome, OutcomeResult, Txn};
use node::recipe;

use super::{Clients, Then, put, read};
use crate::history::{Asked, Told};
use crate::workload::{fence_bytes, lock_name};

/// A lock that a client was told it holds.
#[derive(Clone)]
pub(super) struct Holding {
    lock: u64,
    key: Bytes,
    token: Revision,
}

impl Clients {
    /// Waits for a lock; first for a lease, if there is none.
    pub(super) fn lock(&mut self, client: u64, lock: u64, ttl_s: i64) -> Asked {
        if let Some(write) = self.write_guarded(client) {
            return write;
        }
        let state = &mut self.clients[client as usize];
        match state.lease {
            Some(lease) => {
                state.wants = lock;
                Asked::Lock { name: lock_name(lock).into(), lease }
            }
            None => {
                state.then = Then::Lock(lock);
                self.grant(client, ttl_s)
            }
        }
    }

    /// A write that is done only while the client holds the lock.
    pub(super) fn write_guarded(&mut self, client: u64) -> Option<Asked> {
        let Holding { lock, key, token } = self.clients[client as usize].holds.clone()?;
        let look = || Op::Range(read(fence_bytes(lock), None, false));
        let write = Op::Put(put(fence_bytes(lock), token.0.to_string()));
        let compares = vec![recipe::is_created_at(&key, token)];
        Some(Asked::Write(Command::Txn(Txn { compares, success: vec![look(), write], failure: vec![look()] })))
    }

    pub(super) fn unlock(&mut self, client: u64) -> Option<Asked> {
        let Holding { key, .. } = self.clients[client as usize].holds.take()?;
        Some(Asked::Unlock { key })
    }

    /// What an answer says about the lock that the client wants or holds.
    pub(super) fn learn_of_lock(&mut self, client: u64, operation: usize, told: &Told) {
        let is_refused = self.guarded(client, told) == Some(false);
        let state = &mut self.clients[client as usize];
        match (&self.history[operation].asked, told) {
            _ if is_refused => state.holds = None,
            (Asked::Lock { .. }, Told::Lock(Some(held))) => {
                state.holds = Some(Holding { lock: state.wants, key: held.key.clone(), token: held.token });
            }
            // The lease is gone.
            (Asked::Lock { .. }, Told::Lock(None)) => state.lease = None,
            _ => {}
        }
    }

    /// Whether a guarded write was done, if that is what the client is told about.
    pub(crate) fn guarded(&self, client: u64, told: &Told) -> Option<bool> {
        let state = &self.clients[client as usize];
        match told {
            Told::Outcome(Outcome { result: OutcomeResult::Txn(txn), .. }) if state.holds.is_some() => {
                Some(txn.succeeded)
            }
            _ => None,
        }
    }
}

/// What the holders of a lock wrote.
pub(super) fn look_at_fence(lock: u64) -> Asked {
    Asked::Read(read(fence_bytes(lock), None, false))
}
