//! Identifiers and positions, one newtype each, so that an index can never be passed where a revision is meant.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $inner:ty, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id!(
    /// A process in the cluster (etcd: member id). Zero is never a node.
    NodeId, u64, "n"
);
id!(
    /// The cluster a data directory belongs to; frames and files of another cluster are refused.
    ClusterId, u64, "c"
);
id!(
    /// One replicated log and its replicas. Group 0 exists in every cluster.
    GroupId, u64, "g"
);
id!(
    /// A group's copy on a node, unique for all time per (group, placement): a wiped disk gets a new one.
    ReplicaId, u64, "r"
);
id!(
    /// Position in a group's log. The first entry has index 1; 0 means "before the log".
    Index, u64, ""
);
id!(
    /// The store's logical clock: one number per committed write. A fresh store is at 1.
    Revision, i64, ""
);
id!(
    /// A time-to-live that keys can be attached to; 0 means "no lease".
    LeaseId, i64, "l"
);
id!(
    /// Position in the node's own write-ahead log, counted in batches. Acknowledgements of persistence carry this
    /// number and never (index, ballot), which has an ABA race.
    Lsn, u64, "lsn"
);

impl Index {
    /// The index after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The index before this one; 0 stays 0.
    #[must_use]
    pub const fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl Lsn {
    /// The sequence number after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Orders leaders: Raft's term, Paxos's ballot, Zab's epoch. Lexicographic on (round, node), hence unique per
/// candidacy: no two nodes can ever lead the same ballot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ballot {
    /// The round, raised by one for each candidacy.
    pub round: u64,
    /// The candidate.
    pub node: NodeId,
}

impl Ballot {
    /// Lower than every ballot of a candidate.
    pub const ZERO: Self = Self { round: 0, node: NodeId(0) };

    /// The ballot (round, node).
    #[must_use]
    pub const fn new(round: u64, node: NodeId) -> Self {
        Self { round, node }
    }
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.round, self.node)
    }
}

impl fmt::Debug for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
