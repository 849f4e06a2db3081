//! What clients asked and what they were told.

use base::{LeaseId, NodeId};
use mvcc::{Command, Outcome, RangeRequest, RangeResponse, Reject};
use node::LeaseTimes;

/// A request as it was sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Asked {
    /// Through the log.
    Write(Command),
    /// A read; the request says of what strictness.
    Read(RangeRequest),
    /// A renewal of a lease.
    KeepAlive(LeaseId),
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
        matches!(self.told, Told::Outcome(_) | Told::Range(_) | Told::Lease(_) | Told::Rejected(_))
    }
}
