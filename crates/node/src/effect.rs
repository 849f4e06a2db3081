//! Everything a node can ask of its host.
//!
//! The host's duties: effects of one turn are carried out in their order, with two freedoms: `Persist` may still be
//! under way while later effects run (what depends on it is not among them yet), and `Apply` of a group runs in order
//! but beside everything else. A `Fault` from any of them stops the node.

use base::{GroupId, Lsn, NodeId};
use bytes::Bytes;
use kernel::{LoadRequest, Mark, Record, Refusal};

use crate::event::{SnapshotId, Ticket};
use crate::lease_clock::LeaseTimes;
use crate::wire::PeerMessage;

/// Who asked for a command to be proposed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ReplyTo {
    /// A client of this node.
    Local(Ticket),
    /// Another node, which forwarded a client's request under this id.
    Remote(NodeId, u64),
}

/// One committed command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Task {
    /// The encoded command.
    pub payload: Bytes,
    /// The client of this node that waits for the outcome, if one does.
    pub reply: Option<Ticket>,
}

/// Why the outcome of a write is not known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Uncertainty {
    /// It was proposed and not decided in time.
    Timeout,
    /// It was handed to a leader whose connection broke.
    ConnectionLost,
    /// The leader it was handed to could not tell.
    LeaderFailed,
}

/// An answer to a [`crate::Request`]. The outcome of a write is not among them: it comes from apply, on the node that
/// has the client, see [`Task`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Response {
    /// The local state is fresh enough: read it now.
    ReadReady,
    /// Done, nothing to tell.
    Done,
    /// What the leader's clock says about the lease; nothing if there is no such lease.
    Lease(Option<LeaseTimes>),
    /// Surely not done.
    Refused(Refusal),
    /// Surely not done: nobody who could serve it was found in time.
    TimedOut,
    /// Surely not done: the entry lost its slot to another leader's.
    Superseded,
    /// May or may not have been done; never to be retried silently.
    Unknown(Uncertainty),
}

/// Everything a node can ask of its host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Make these records durable as one batch, then say [`crate::Event::Persisted`].
    Persist(Lsn, Vec<(GroupId, Vec<Record>)>),
    /// Send if connected; may be lost.
    Send(NodeId, PeerMessage),
    /// Execute in order, in one atomic batch together with the mark, then say [`crate::Event::Applied`].
    Apply {
        /// The group.
        group: GroupId,
        /// The commands.
        tasks: Vec<Task>,
        /// The log position after the last of them.
        mark: Mark,
    },
    /// Fetch entries from the log for a follower that lags.
    Load(GroupId, LoadRequest),
    /// Answer a client.
    Reply(Ticket, Response),
    /// Pin a consistent view of the group's state.
    SnapshotOpen(GroupId, SnapshotId),
    /// Read the next chunk of a pinned view.
    SnapshotRead(SnapshotId),
    /// The view is not needed any more.
    SnapshotClose(SnapshotId),
    /// Store a chunk of a snapshot that is being received; number 0 starts over.
    SnapshotWrite {
        /// The group.
        group: GroupId,
        /// Which.
        id: SnapshotId,
        /// Number of the chunk, from 0.
        sequence: u64,
        /// Encoded rows.
        chunk: Bytes,
    },
    /// All chunks are here: make it the group's state, atomically and durably.
    SnapshotInstall {
        /// The group.
        group: GroupId,
        /// Which.
        id: SnapshotId,
        /// What it contains.
        mark: Mark,
    },
    /// Forget a partly received snapshot.
    SnapshotDiscard(SnapshotId),
}
