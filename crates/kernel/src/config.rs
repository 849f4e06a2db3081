//! What a replica is told when it is made.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use base::{GroupId, NodeId, ReplicaId};

/// The consensus protocol of a group, fixed when the group is created and stored with it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Protocol {
    /// Raft (Ongaro 2014), with (round, node) terms.
    Raft = 1,
    /// Multi-Paxos (Lamport 1998) over one log.
    MultiPaxos = 2,
    /// Zab (Junqueira et al. 2011).
    Zab = 3,
    /// Raft's log with Paxos's freedom to choose a leader, in the manner of Raft* (Wang et al. 2019).
    PaxosRaft = 4,
}

impl Protocol {
    /// Every protocol, by number.
    pub const ALL: &[Self] = &[Self::Raft, Self::MultiPaxos, Self::Zab, Self::PaxosRaft];

    /// The name on command lines and in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raft => "raft",
            Self::MultiPaxos => "multi-paxos",
            Self::Zab => "zab",
            Self::PaxosRaft => "paxos-raft",
        }
    }

    /// The number that stands for the protocol in logs and frames.
    #[must_use]
    pub const fn id(self) -> u8 {
        self as u8
    }

    /// The protocol with number `id`.
    #[must_use]
    pub fn from_id(id: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|protocol| protocol.id() == id)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// A name that no protocol has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownProtocol(String);

impl fmt::Display for UnknownProtocol {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = Protocol::ALL.iter().map(|protocol| protocol.name()).collect();
        write!(out, "no consensus protocol is called {:?}: choose one of {}", self.0, names.join(", "))
    }
}

impl std::error::Error for UnknownProtocol {}

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(name: &str) -> Result<Self, UnknownProtocol> {
        let found = Self::ALL.iter().copied().find(|protocol| protocol.name() == name);
        found.ok_or_else(|| UnknownProtocol(name.to_owned()))
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
    /// Who should lead if there is a choice: the highest. 0 is no preference. A hint, never a condition.
    pub leader_priority: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_lead_back() {
        for protocol in Protocol::ALL {
            assert_eq!(Protocol::from_id(protocol.id()), Some(*protocol));
            assert_eq!(protocol.to_string().parse(), Ok(*protocol));
        }
        assert_eq!((Protocol::from_id(0), Protocol::from_id(9)), (None, None));
        assert!("paxos".parse::<Protocol>().is_err_and(|error| error.to_string().contains("multi-paxos")));
    }

    #[test]
    fn numbers_are_part_of_the_formats() {
        let ids: Vec<(u8, &str)> = Protocol::ALL.iter().map(|protocol| (protocol.id(), protocol.name())).collect();
        assert_eq!(ids, [(1, "raft"), (2, "multi-paxos"), (3, "zab"), (4, "paxos-raft")]);
    }
}
