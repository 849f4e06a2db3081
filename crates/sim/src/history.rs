//! What clients asked and what they were told.

use base::{LeaseId, NodeId, Revision};
use bytes::Bytes;
use mvcc::{Command, Outcome, RangeRequest, RangeResponse, Reject, Txn};
use node::LeaseTimes;

/// A request as it was sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Asked {
    /// Through the log.
    Write(Command),
    /// A read; the request says of what strictness.
    Read(RangeRequest),
    /// A transaction that reads, as fresh as can be.
    ReadTxn(Txn),
    /// A renewal of a lease.
    KeepAlive(LeaseId),
    /// A lock, for as long as a lease lives.
    Lock {
        /// Its name.
        name: Bytes,
        /// The lease.
        lease: LeaseId,
    },
    /// The end of holding a lock.
    Unlock {
        /// The holder's key.
        key: Bytes,
    },
}

/// A lock that was granted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// A revision at which it was held.
    pub revision: Revision,
    /// The holder's key.
    pub key: Bytes,
    /// Its create revision; 0 in the answer to an unlocking, if the key was gone.
    pub token: Revision,
}

/// What became of it, as far as the client knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told {
    /// The outcome of a command, rejections included.
    Outcome(Outcome),
    /// The answer to a read.
    Range(RangeResponse),
    /// What is left of a lease; nothing if there is none.
    Lease(Option<LeaseTimes>),
    /// A lock that was granted or given back; nothing if the lease was over.
    Lock(Option<Held>),
    /// A read that cannot be served as asked.
    Rejected(Reject),
    /// Surely not done.
    NotDone,
    /// May or may not have been done.
    Unknown,
}

/// One request and its fate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operation {
    /// Who asked.
    pub client: u64,
    /// Who was asked.
    pub node: NodeId,
    /// Number of the connection: the node's life in which the request arrived there.
    pub connection: u64,
    /// When, in world time.
    pub called_at: u64,
    /// When the client knew; none if it never did.
    pub returned_at: Option<u64>,
    /// What was asked.
    pub asked: Asked,
    /// What was told.
    pub told: Told,
}

impl Operation {
    /// Whether the client was told that it is done.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        matches!(self.told, Told::Outcome(_) | Told::Range(_) | Told::Lease(_) | Told::Lock(_) | Told::Rejected(_))
    }
}
