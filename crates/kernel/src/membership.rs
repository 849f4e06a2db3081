//! Who belongs to a group, and which sets of them are quorums.

use std::collections::{BTreeMap, BTreeSet};

use base::{Index, NodeId, ReplicaId};

/// A replica and the node it lives on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Member {
    /// The replica.
    pub replica: ReplicaId,
    /// Its node.
    pub node: NodeId,
}

/// The members of a group. `outgoing` is not empty while a change is under way (joint consensus, Raft thesis 4.3):
/// then a quorum is a majority of `voters` *and* a majority of `outgoing`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Membership {
    /// Voters, or the incoming voters of a change.
    pub voters: BTreeSet<ReplicaId>,
    /// The voters being left behind by a change.
    pub outgoing: BTreeSet<ReplicaId>,
    /// Replicas that receive the log and never count.
    pub learners: BTreeSet<ReplicaId>,
    /// Where each replica of the sets above lives.
    pub nodes: BTreeMap<ReplicaId, NodeId>,
    /// Index of the config entry that set this membership; a change names it as its base.
    pub index: Index,
}

impl Membership {
    /// The membership of a new group.
    #[must_use]
    pub fn initial(members: &[Member]) -> Self {
        Self {
            voters: members.iter().map(|m| m.replica).collect(),
            nodes: members.iter().map(|m| (m.replica, m.node)).collect(),
            ..Self::default()
        }
    }
}
