//! Where the simulator looks for planted defects.
//!
//! Invariant: a hunt finds its defect within its seeds, whichever they are; the rates stand in `docs/testing.md`.

use std::time::Duration;

use base::Defect;
use kernel::Protocol;

use crate::config::{Config, Profile};

/// Where the simulator looks for a defect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hunt {
    /// The defect.
    pub defect: Defect,
    /// The protocol that has it.
    pub protocol: Protocol,
    /// The profile that brings it to light.
    pub profile: Profile,
    /// In so many seeds it must show at least once.
    pub seeds: u64,
}

impl Hunt {
    /// Simulated time of a run.
    const SECONDS: u64 = 20;

    /// The run with this seed.
    #[must_use]
    pub fn config(&self, seed: u64) -> Config {
        let duration = Duration::from_secs(Self::SECONDS);
        let Self { defect, protocol, profile, .. } = *self;
        let usual = Config::new(seed);
        // Half of the members can be taken for a quorum only if their number is even.
        let nodes = if defect == Defect::HalfQuorum { 4 } else { usual.nodes };
        Config { duration, protocol, nodes, defect: Some(defect), ..usual }.with_profile(profile)
    }
}

const fn hunt(defect: Defect, protocol: Protocol, profile: Profile, seeds: u64) -> Hunt {
    Hunt { defect, protocol, profile, seeds }
}

/// All hunts. The defects that are missing here need what a run of the simulator rarely or never meets: changes of
/// membership, or a few messages in just one order. The exhaustive search of the crate `explore`, the kernel's scripts
/// and walks, and the log's own tests have those.
pub const HUNTS: &[Hunt] = {
    use {Defect as D, Profile as On, Protocol as By};
    &[
        hunt(D::EarlyVote, By::Raft, On::Calm, 20),
        hunt(D::EarlyAppendAck, By::Raft, On::Calm, 20),
        hunt(D::TruncateMatching, By::Raft, On::Network, 40),
        hunt(D::HalfQuorum, By::Raft, On::Network, 40),
        hunt(D::SnapshotWithoutMembership, By::Raft, On::Crash, 40),
        hunt(D::MarkApart, By::Raft, On::Crash, 40),
        hunt(D::ApplyTwice, By::Raft, On::Crash, 40),
        hunt(D::LateConfirmation, By::Raft, On::Network, 40),
        hunt(D::TicksWaitForDisk, By::Raft, On::Disk, 200),
        hunt(D::BallotReused, By::MultiPaxos, On::Crash, 20),
        hunt(D::NoOpFill, By::MultiPaxos, On::Network, 60),
        hunt(D::EpochApart, By::Zab, On::Crash, 120),
        hunt(D::EarlySyncAck, By::Zab, On::Crash, 20),
        hunt(D::DamageTruncated, By::Raft, On::Disk, 200),
        hunt(D::DirectoryUnsynced, By::Raft, On::Crash, 20),
        hunt(D::SyncRetried, By::Raft, On::Disk, 40),
        hunt(D::HalfBatch, By::Raft, On::Disk, 100),
        hunt(D::AmnesiacVotes, By::Raft, On::Crash, 200),
        hunt(D::StaleExpiry, By::Raft, On::Network, 40),
        hunt(D::WatchFloorLost, By::Raft, On::Network, 40),
        hunt(D::WatchHistoryTwice, By::Raft, On::Calm, 60),
        hunt(D::WatchEarlyProgress, By::Raft, On::Calm, 40),
        hunt(D::WatchStarved, By::Raft, On::Calm, 40),
        hunt(D::WatchStartIgnored, By::Raft, On::Calm, 40),
    ]
};
