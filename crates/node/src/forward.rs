//! Commands of local clients that were handed to another node, the leader.

use std::collections::BTreeMap;

use base::{GroupId, Instant, NodeId};
use bytes::Bytes;

use crate::event::Ticket;

/// A command under way to, or at, the leader's node.
#[derive(Debug)]
pub(crate) struct Forwarded {
    pub(crate) ticket: Ticket,
    pub(crate) group: GroupId,
    pub(crate) node: NodeId,
    /// Kept so that it can be sent again after a refusal, which is proof that nothing was done.
    pub(crate) payload: Bytes,
    pub(crate) deadline: Instant,
}

/// All forwarded commands of this node by forward id.
#[derive(Debug)]
pub(crate) struct Forwards {
    next_id: u64,
    open: BTreeMap<u64, Forwarded>,
    bytes: usize,
}

impl Forwards {
    /// `seed` is random, so that an answer meant for an earlier life of this node names no command of this one.
    pub(crate) fn new(seed: u64) -> Self {
        Self { next_id: seed >> 1, open: BTreeMap::new(), bytes: 0 }
    }

    pub(crate) fn add(&mut self, forwarded: Forwarded) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.bytes += forwarded.payload.len();
        self.open.insert(id, forwarded);
        id
    }

    /// The command an answer from `node` belongs to; nothing if it is not (or no more) waited for.
    pub(crate) fn take(&mut self, id: u64, node: NodeId) -> Option<Forwarded> {
        if self.open.get(&id)?.node != node {
            return None;
        }
        let taken = self.open.remove(&id);
        self.release(taken.as_slice());
        taken
    }

    /// Payload bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn release(&mut self, gone: &[Forwarded]) {
        self.bytes -= gone.iter().map(|forwarded| forwarded.payload.len()).sum::<usize>();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Commands that were with `node` when its connection broke.
    pub(crate) fn lost(&mut self, node: NodeId) -> Vec<Forwarded> {
        self.take_where(|forwarded| forwarded.node == node)
    }

    /// Commands that waited too long for an answer.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Forwarded> {
        self.take_where(|forwarded| forwarded.deadline <= now)
    }

    fn take_where(&mut self, matches: impl Fn(&Forwarded) -> bool) -> Vec<Forwarded> {
        let gone: Vec<_> =
            self.open.extract_if(.., |_, forwarded| matches(forwarded)).map(|(_, forwarded)| forwarded).collect();
        self.release(&gone);
        gone
    }
}
