//! Where the simulator looks for planted defects.
//!
//! Invariant: a hunt finds its defect within its seeds, whichever they are; the rates stand in `docs/testing.md`.

use std::time::Duration;

use base::{Defect, NodeId};
use kernel::Protocol;

use crate::config::{Config, Profile};
use crate::fault::{Fault, Weather};
use crate::plan::{Plan, PlannedFault, WARM_UP_US, plan};

/// What goes wrong in a hunt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Aim {
    /// What the profile draws.
    Profile(Profile),
    /// Old parts of one node's log rot, and then the node has to start from them.
    RottenStart,
    /// All disks stand still at once: nobody can follow the leader, who has to notice by itself.
    StalledDisks,
    /// All disks are full now and then, after another few pages each time.
    FullDisks,
    /// A node comes back with an empty disk after everybody has met it.
    EmptyReturn,
    /// Every message takes about as long as an election timeout, and many are lost.
    LongWays,
}

/// Where the simulator looks for a defect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hunt {
    /// The defect.
    pub defect: Defect,
    /// The protocol that has it.
    pub protocol: Protocol,
    /// What brings it to light.
    pub aim: Aim,
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
        let Self { defect, protocol, aim, .. } = *self;
        let usual = Config::new(seed);
        // Half of the members can be taken for a quorum only if their number is even.
        let nodes = if defect == Defect::HalfQuorum { 4 } else { usual.nodes };
        let config = Config { duration, protocol, nodes, defect: Some(defect), ..usual };
        match aim {
            Aim::Profile(profile) => config.with_profile(profile),
            _ => {
                // The machines and the load are those of a calm run.
                let config = config.with_profile(Profile::Calm);
                let plan = aim.sharpen(&config, plan(&config));
                Config { plan: Some(plan), ..config }
            }
        }
    }
}

impl Aim {
    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Profile(profile) => profile.name(),
            Self::RottenStart => "rotten start",
            Self::StalledDisks => "stalled disks",
            Self::FullDisks => "full disks",
            Self::EmptyReturn => "empty return",
            Self::LongWays => "long ways",
        }
    }

    /// The plan with nothing but this in it.
    fn sharpen(self, config: &Config, mut plan: Plan) -> Plan {
        let node = NodeId(1 + config.seed % config.nodes);
        let nodes = || (1..=config.nodes).map(NodeId);
        let end = config.duration.as_micros() as u64;
        let mut faults = Vec::new();
        let mut push = |at: u64, fault: Fault| faults.push(PlannedFault { at: WARM_UP_US + at, fault });
        match self {
            Self::Profile(_) => return plan,
            Self::RottenStart => {
                // Nothing of the log is given up, so what rots is read; and it is in the last segment, since a hole
                // before that is noticed a second way, by the segment that is missing.
                plan.shape.log_retained_bytes = u64::MAX;
                plan.shape.segment_bytes = 16 << 20;
                let at = 3_000_000 + config.seed % 7 * 1_000_000;
                push(at, Fault::Rot { node, seed: config.seed });
                push(at + 1_000, Fault::Crash { node, power: false, down_us: 100_000 });
            }
            Self::StalledDisks => {
                for node in nodes() {
                    push(3_000_000 + config.seed % 1_000_000, Fault::Stall { node, for_us: 8_000_000 });
                }
            }
            Self::FullDisks => {
                for (round, at) in (0..end - WARM_UP_US).step_by(2_000_000).enumerate() {
                    let node = NodeId(1 + (config.seed + round as u64) % config.nodes);
                    let spare_bytes = (config.seed / 3 + round as u64) % 8 * 4096;
                    push(at, Fault::Full { node, spare_bytes, for_us: 1_500_000 });
                }
            }
            Self::EmptyReturn => push(3_000_000, Fault::Wipe { node, down_us: 200_000 }),
            Self::LongWays => {
                let links = nodes().flat_map(|from| nodes().map(move |to| (from, to)));
                let links = links.filter(|(from, to)| from != to).collect();
                let (delay_us, jitter_us) = (50_000, 1_000_000);
                let weather = Weather { delay_us, jitter_us, drop: 100, duplicate: 100, reorder: 500 };
                push(0, Fault::Weather { links, weather, for_us: end });
            }
        }
        Plan { faults, ..plan }
    }
}

const fn hunt(defect: Defect, protocol: Protocol, profile: Profile, seeds: u64) -> Hunt {
    Hunt { defect, protocol, aim: Aim::Profile(profile), seeds }
}

const fn sharp(defect: Defect, protocol: Protocol, aim: Aim, seeds: u64) -> Hunt {
    Hunt { defect, protocol, aim, seeds }
}

/// All hunts. The defects that are missing here need what a run of the simulator rarely or never meets: a few messages
/// in just one order. The exhaustive search of the crate `explore`, the kernel's scripts and walks, and the log's own
/// tests have those.
pub const HUNTS: &[Hunt] = {
    use {Defect as D, Profile as On, Protocol as By};
    &[
        hunt(D::EarlyVote, By::Raft, On::Calm, 20),
        hunt(D::EarlyAppendAck, By::Raft, On::Calm, 20),
        hunt(D::TruncateMatching, By::Raft, On::Network, 40),
        hunt(D::HalfQuorum, By::Raft, On::Network, 40),
        hunt(D::OverlappingChange, By::Raft, On::Members, 200),
        hunt(D::NewQuorumOnly, By::Raft, On::Members, 40),
        hunt(D::LearnerVotes, By::Raft, On::Members, 40),
        hunt(D::RemovedCounts, By::Raft, On::Members, 200),
        hunt(D::SnapshotWithoutMembership, By::Raft, On::Crash, 40),
        hunt(D::MarkApart, By::Raft, On::Crash, 40),
        hunt(D::ApplyTwice, By::Raft, On::Crash, 40),
        hunt(D::LateConfirmation, By::Raft, On::Network, 40),
        sharp(D::TicksWaitForDisk, By::Raft, Aim::StalledDisks, 20),
        hunt(D::WallClock, By::Raft, On::Clock, 10),
        hunt(D::BallotReused, By::MultiPaxos, On::Crash, 20),
        hunt(D::NoOpFill, By::MultiPaxos, On::Network, 60),
        hunt(D::EpochApart, By::Zab, On::Crash, 120),
        hunt(D::EarlySyncAck, By::Zab, On::Crash, 20),
        sharp(D::DamageTruncated, By::Raft, Aim::RottenStart, 20),
        hunt(D::DirectoryUnsynced, By::Raft, On::Crash, 20),
        hunt(D::SyncRetried, By::Raft, On::Disk, 40),
        sharp(D::HalfBatch, By::Raft, Aim::FullDisks, 40),
        sharp(D::AmnesiacVotes, By::Raft, Aim::EmptyReturn, 20),
        sharp(D::PreVotesCount, By::Raft, Aim::LongWays, 200),
        hunt(D::StaleExpiry, By::Raft, On::Network, 40),
        hunt(D::LockWithoutRecheck, By::Raft, On::Calm, 40),
        hunt(D::LeaseTimeKept, By::Raft, On::Network, 40),
        hunt(D::UnconfirmedExpiry, By::Raft, On::Calm, 40),
        sharp(D::OldConfirmation, By::Raft, Aim::LongWays, 40),
        hunt(D::WatchFloorLost, By::Raft, On::Network, 40),
        hunt(D::WatchHistoryTwice, By::Raft, On::Calm, 60),
        hunt(D::WatchEarlyProgress, By::Raft, On::Calm, 40),
        hunt(D::WatchStarved, By::Raft, On::Calm, 40),
        hunt(D::WatchStartIgnored, By::Raft, On::Calm, 40),
    ]
};
