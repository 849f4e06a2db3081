//! What a run is: everything that, with the code, decides what happens in it.

use std::fmt;
use std::time::Duration;

use base::{Defect, NodeId};
use kernel::Protocol;

use crate::fault::FaultKind;
use crate::plan::Plan;

/// Which faults a run may meet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Profile {
    /// None at all.
    Calm,
    /// Cuts, clogs, loss, repetition, delay.
    Network,
    /// Errors, stalls, damage, a full disk; power loss to make them felt.
    Disk,
    /// Processes and machines that die at any point, some for ever, some with their data.
    Crash,
    /// Clocks at different rates, processes that stand still.
    Clock,
    /// Clocks that run half as fast again, or half as fast, and are set at any time. More than leases are promised to
    /// bear; everything else does not look at the time.
    WildClock,
    /// Members that come, go and are replaced, while nodes die and links are cut.
    Members,
    /// A random choice of everything that must be survived.
    Swarm,
    /// Damage to more copies than can be survived: the one legal end is to refuse service.
    OverTheLimit,
}

impl Profile {
    /// All profiles.
    pub const ALL: &[Self] = &[
        Self::Calm,
        Self::Network,
        Self::Disk,
        Self::Crash,
        Self::Clock,
        Self::WildClock,
        Self::Members,
        Self::Swarm,
        Self::OverTheLimit,
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Network => "network",
            Self::Disk => "disk",
            Self::Crash => "crash",
            Self::Clock => "clock",
            Self::WildClock => "wild-clock",
            Self::Members => "members",
            Self::Swarm => "swarm",
            Self::OverTheLimit => "over-the-limit",
        }
    }

    /// By how much clocks run wrong at most, in percent.
    pub(crate) const fn clock_error_percent(self) -> u64 {
        match self {
            Self::WildClock => 50,
            _ => 5,
        }
    }

    /// The profile of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|profile| profile.name() == name)
    }

    /// The kinds of faults a run of this profile chooses from.
    #[must_use]
    pub const fn kinds(self) -> &'static [FaultKind] {
        use FaultKind as K;
        match self {
            Self::Calm => &[],
            Self::Network => &[K::Cut, K::Clog, K::Weather, K::Replay, K::Deafen, K::Transfer],
            Self::Disk => &[
                K::SyncError,
                K::WriteError,
                K::LostWrite,
                K::MisdirectedWrite,
                K::Rot,
                K::Full,
                K::Stall,
                K::CrashOnDisk,
                K::Crash,
                K::Cut,
                K::Transfer,
            ],
            Self::Crash => &[
                K::Crash,
                K::CrashInTurn,
                K::CrashOnDisk,
                K::CrashInApply,
                K::CrashAll,
                K::Storm,
                K::Lose,
                K::Wipe,
                K::Transfer,
            ],
            Self::Clock => &[K::ClockRate, K::ClockJump, K::Pause, K::Weather, K::Transfer],
            Self::WildClock => &[K::ClockRate, K::ClockJump, K::Transfer, K::Crash],
            Self::Members => &[
                K::Join,
                K::Leave,
                K::Replace,
                K::Crash,
                K::CrashInTurn,
                K::CrashOnDisk,
                K::CrashAll,
                K::Pause,
                K::Cut,
                K::Weather,
                K::Stall,
                K::Transfer,
            ],
            Self::Swarm => FaultKind::ALL,
            Self::OverTheLimit => &[K::Rot, K::Lose, K::Crash],
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A run.
#[derive(Clone, Debug)]
pub struct Config {
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// Nodes of the cluster.
    pub nodes: u64,
    /// The consensus protocol.
    pub protocol: Protocol,
    /// Which faults to choose from.
    pub profile: Profile,
    /// Simulated time until everything heals.
    pub duration: Duration,
    /// Concurrent clients.
    pub clients: u64,
    /// Operations per second that all clients together attempt.
    pub operations_per_second: u64,
    /// A defect to plant in the code under test; needs the build feature `planted` of the crate `base`.
    pub defect: Option<Defect>,
    /// Whether to keep a line for each event.
    pub trace: bool,
    /// Who should lead if there is a choice.
    pub preferred: Option<NodeId>,
    /// What is to happen, in place of what the seed would decide.
    pub plan: Option<Plan>,
}

impl Config {
    /// The usual run with this seed: three or five nodes, every fault that must be survived.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            nodes: if seed % 4 == 3 { 5 } else { 3 },
            protocol: Protocol::Raft,
            profile: Profile::Swarm,
            duration: Duration::from_secs(30),
            clients: 6,
            operations_per_second: 60,
            defect: None,
            trace: false,
            preferred: None,
            plan: None,
        }
    }

    /// The same with another profile.
    #[must_use]
    pub fn with_profile(self, profile: Profile) -> Self {
        Self { profile, ..self }
    }
}
