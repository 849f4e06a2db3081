//! What a replica is told when it is made.

use std::time::Duration;

use base::{GroupId, NodeId, ReplicaId};

/// The consensus protocol of a group, fixed when the group is created and stored with it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Protocol {
    /// Raft (Ongaro 2014), with (round, node) terms.
    Raft = 1,
}

impl Protocol {
    /// The number that stands for the protocol in logs and frames.
    #[must_use]
    pub const fn id(self) -> u8 {
        self as u8
    }

    /// The protocol with number `id`.
    #[must_use]
    pub const fn from_id(id: u8) -> Option<Self> {
        match id {
            1 => Some(Self::Raft),
            _ => None,
        }
    }
}

/// Identity and timing of one replica.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Config {
    /// The group.
    pub group: GroupId,
    /// The node this replica lives on.
    pub node: NodeId,
    /// The replica itself.
    pub replica: ReplicaId,
    /// The group's protocol.
    pub protocol: Protocol,
    /// Interval between a leader's heartbeats.
    pub heartbeat_interval: Duration,
    /// Minimum time without a leader before campaigning; the actual time is drawn from [T, 2T).
    pub election_timeout: Duration,
    /// Seed of the election jitter.
    pub seed: u64,
}
