//! What is searched: how many hosts, which faults, how many of each.

use kernel::Protocol;

use crate::sight::Sight;

/// How often each thing may happen on a path. Zero: never. Losing messages is not counted, it costs nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bounds {
    /// Highest round of a ballot.
    pub rounds: u64,
    /// Election timeouts.
    pub campaigns: u8,
    /// Leaders that give up because they do not hear a quorum.
    pub step_downs: u8,
    /// Heartbeats.
    pub heartbeats: u8,
    /// Crashes, each followed by a restart.
    pub crashes: u8,
    /// Messages delivered a second time.
    pub duplicates: u8,
    /// Commands proposed.
    pub proposals: u8,
    /// Reads asked for.
    pub reads: u8,
    /// Changes of membership started.
    pub changes: u8,
    /// Handovers started.
    pub transfers: u8,
    /// Logs compacted, with the state machine made durable before.
    pub compactions: u8,
    /// Messages in flight; one more loses any one of them.
    pub in_flight: usize,
}

/// The membership that a change leads to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Target {
    /// Voters, by number.
    pub voters: Vec<u64>,
    /// Learners, by number.
    pub learners: Vec<u64>,
}

/// When to stop without having seen everything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Distinct states.
    pub states: usize,
    /// Transitions from the initial state.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { states: usize::MAX, depth: usize::MAX }
    }
}

/// Bounds make every path end. One that is longer than this never will: replicas that keep each other busy.
const DEPTH_MAX: usize = 500;

/// One search.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Name, for tables.
    pub name: &'static str,
    /// The protocol of the group.
    pub protocol: Protocol,
    /// Voters at the start, by number.
    pub voters: Vec<u64>,
    /// Learners at the start.
    pub learners: Vec<u64>,
    /// Hosts that belong to nothing yet.
    pub strangers: Vec<u64>,
    /// This host was elected, and everyone heard of it, before the search starts. Zero: nothing has happened.
    pub leader: u64,
    /// Who may campaign; nobody named: everyone.
    pub candidates: Vec<u64>,
    /// Pre-votes are messages like all others. Otherwise a campaign starts as if a quorum had been willing.
    pub pre_votes: bool,
    /// Hosts that heard a leader may also insist on it. Otherwise everyone is always ready for an election.
    pub stickiness: bool,
    /// Records become durable some time after they were written. Otherwise before anything else happens.
    pub slow_disks: bool,
    /// Who crashes, and has a slow disk if there are any; nobody named: everyone. To those who never crash a slow disk
    /// is but a slow network.
    pub frail: Vec<u64>,
    /// Commands are so large that each travels alone.
    pub large_commands: bool,
    /// Where a change of membership leads.
    pub target: Target,
    /// What happens how often.
    pub bounds: Bounds,
    /// When to stop.
    pub limits: Limits,
    /// What must have been seen.
    pub goals: Vec<Sight>,
}

impl Config {
    /// Three voters, nothing allowed, not even an election.
    #[must_use]
    pub fn new(name: &'static str, protocol: Protocol) -> Self {
        Self {
            name,
            protocol,
            voters: vec![1, 2, 3],
            learners: Vec::new(),
            strangers: Vec::new(),
            leader: 0,
            candidates: Vec::new(),
            pre_votes: false,
            stickiness: false,
            slow_disks: false,
            frail: Vec::new(),
            large_commands: false,
            target: Target::default(),
            bounds: Bounds { rounds: 2, in_flight: 3, ..Bounds::default() },
            limits: Limits { depth: DEPTH_MAX, ..Limits::default() },
            goals: Vec::new(),
        }
    }

    /// Whether host `number` may crash.
    pub(crate) fn is_frail(&self, number: u64) -> bool {
        self.frail.is_empty() || self.frail.contains(&number)
    }

    /// Everyone, in order.
    pub(crate) fn hosts(&self) -> Vec<u64> {
        let mut hosts: Vec<u64> =
            [&self.voters, &self.learners, &self.strangers].into_iter().flatten().copied().collect();
        hosts.sort_unstable();
        hosts
    }
}
