//! Everything that can happen to a node.

use base::{GroupId, Index, LeaseId, Lsn, NodeId, ReplicaId, Synced};
use bytes::Bytes;
use kernel::{Entry, Mark};
use mvcc::{Lease, LeaseChange};

use crate::reconfigure::Reconfiguration;
use crate::wire::PeerMessage;

/// A client request under way on this node; chosen by the host, answered exactly once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

/// A snapshot on its way from one node to another, unique per sending node's lifetime.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SnapshotId(pub u64);

/// What a client wants from a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// Replicate and apply this command.
    Propose {
        /// The group.
        group: GroupId,
        /// The encoded command.
        payload: Bytes,
    },
    /// Tell when the local state contains everything acknowledged before now.
    Read {
        /// The group.
        group: GroupId,
    },
    /// Hand leadership to the given node, or to the best follower.
    TransferLeadership {
        /// The group.
        group: GroupId,
        /// Who is to lead.
        to: Option<NodeId>,
    },
    /// Change who belongs to a group; only its leader can. Answered as soon as the change has begun.
    Reconfigure {
        /// The group.
        group: GroupId,
        /// What changes.
        change: Reconfiguration,
    },
    /// Ask the leader's clock about a lease. Answered with [`crate::Response::Lease`].
    Lease {
        /// The group.
        group: GroupId,
        /// The lease.
        lease: LeaseId,
        /// What is wanted.
        ask: LeaseAsk,
    },
}

/// What is wanted of a lease's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeaseAsk {
    /// Give it all its time again.
    KeepAlive,
    /// Tell how much it has left.
    TimeToLive,
}

/// Everything that can happen to a node.
#[derive(Debug)]
pub enum Event {
    /// Time passed; due at [`crate::Node::next_deadline`] or earlier.
    Tick,
    /// A connection to this peer stands: what is sent has a chance to arrive.
    PeerConnected(NodeId),
    /// No connection to this peer any more: what was under way may be lost.
    PeerLost(NodeId),
    /// A peer says something. `from` is authenticated by the connection.
    Peer(NodeId, PeerMessage),
    /// A client wants something.
    Request(Ticket, Request),
    /// Every [`crate::Effect::Persist`] up to this number is on stable storage.
    Persisted(Synced<Lsn>),
    /// Every [`crate::Effect::Apply`] up to this index is done.
    Applied {
        /// The group.
        group: GroupId,
        /// Last index applied.
        index: Index,
    },
    /// The group's leases as its state machine has them. Due at start before anything else, and after a snapshot was
    /// installed, before [`Event::SnapshotInstalled`].
    LeasesLoaded {
        /// The group.
        group: GroupId,
        /// All leases.
        leases: Vec<Lease>,
    },
    /// What an [`crate::Effect::Apply`] did to leases, in order. Due before the [`Event::Applied`] that covers it.
    LeasesChanged {
        /// The group.
        group: GroupId,
        /// The changes.
        changes: Vec<LeaseChange>,
    },
    /// Answer to [`crate::Effect::Load`].
    Loaded {
        /// The group.
        group: GroupId,
        /// For which follower.
        to: ReplicaId,
        /// Consecutive entries; empty if they are gone.
        entries: Vec<Entry>,
    },
    /// The engine's state up to this index survives a crash without the log.
    Checkpointed {
        /// The group.
        group: GroupId,
        /// The index.
        index: Index,
    },
    /// Answer to [`crate::Effect::SnapshotOpen`]: a consistent view is pinned.
    SnapshotOpened {
        /// Which.
        id: SnapshotId,
        /// What the view contains.
        mark: Mark,
    },
    /// Answer to [`crate::Effect::SnapshotRead`].
    SnapshotChunk {
        /// Which.
        id: SnapshotId,
        /// Encoded rows.
        chunk: Bytes,
        /// Nothing comes after this chunk.
        last: bool,
    },
    /// Answer to [`crate::Effect::SnapshotWrite`].
    SnapshotWritten {
        /// Which.
        id: SnapshotId,
        /// Number of the chunk, from 0.
        sequence: u64,
    },
    /// Answer to [`crate::Effect::SnapshotInstall`]: the engine now serves the snapshot's state, durably.
    SnapshotInstalled {
        /// Which.
        id: SnapshotId,
    },
    /// The host gave up on a snapshot, sent or received (a damaged chunk, say). The node starts over.
    SnapshotFailed {
        /// Which.
        id: SnapshotId,
    },
}
