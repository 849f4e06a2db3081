//! The same faults under every consensus protocol, and what each does about them.
//!
//! Invariant: up to the fault a run does what it did without it, so the leader of the calm run is the leader that the
//! fault meets. Steady-state speed is no part of the comparison: it is the same by construction.

use std::time::Duration;

use base::NodeId;
use kernel::Protocol;

use crate::config::{Config, Profile};
use crate::fault::{Fault, Link, Weather};
use crate::history::{Asked, Operation, Told};
use crate::plan::{PlannedFault, plan};
use crate::report::{Report, Verdict};
use crate::run::run;
use crate::timeline::SpanKind;
use crate::world::START_US;

/// When the fault begins, after the start.
const FAULT_US: u64 = 12_000_000;
/// How long it lasts.
const LASTS_US: u64 = 8_000_000;
/// How long before the fault a node begins to miss writes.
const BEFORE_US: u64 = 5_000_000;
/// How long before the fault a node that missed writes is heard again.
const SHORTLY_US: u64 = 500_000;
/// How long what it missed is on the way to it: longer than the leader lives.
const SLOW_US: u64 = 300_000;
/// When something is prepared.
const BEFORE: u64 = FAULT_US - BEFORE_US;
const SHORTLY: u64 = FAULT_US - SHORTLY_US;
/// Until everything heals.
const DURATION: Duration = Duration::from_secs(24);

/// Defines the scripts with their names and stories.
macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident = $words:literal, $nodes:literal, $story:literal);+ $(;)?) => {
        /// What goes wrong.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Script {
            $($(#[$doc])* $name),+
        }

        impl Script {
            /// All scripts.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Its name on command lines.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $words),+
                }
            }

            /// How many nodes it is played with.
            #[must_use]
            pub const fn nodes(self) -> u64 {
                match self {
                    $(Self::$name => $nodes),+
                }
            }

            /// What happens, in a sentence.
            #[must_use]
            pub const fn story(self) -> &'static str {
                match self {
                    $(Self::$name => $story),+
                }
            }
        }
    };
}

scripts! {
    /// The leader's machine loses power.
    LeaderCrash = "leader-crash", 3, "the leader's machine loses power";
    /// The leader is cut off from everybody.
    LeaderIsolated = "leader-isolated", 3, "the leader is cut off from everybody";
    /// The leader can send and hears nothing.
    OneWayCut = "one-way-cut", 3, "the leader can send, but hears nothing";
    /// One link of three is gone: a chain (OmniPaxos, EuroSys 2023, section 2: chained).
    PartialPartition = "partial-partition", 3, "the link between the leader and one follower is gone";
    /// Everybody reaches one node only, and that is not the leader (section 2: quorum loss).
    QuorumLoss = "quorum-loss", 5, "everybody reaches one node only, and that is not the leader";
    /// The only node that reaches a quorum has missed the latest writes (section 2: constrained election).
    ConstrainedElection = "constrained-election", 5, "the one node that still reaches a quorum missed the last writes";
    /// A preferred node that has missed writes comes back.
    LaggingPreferredLeader = "lagging-preferred-leader", 3, "the leader dies before a preferred node that is back has caught up";
}

impl Script {
    /// The script of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|script| script.name() == name)
    }

    fn node_ids(self) -> impl Iterator<Item = NodeId> + Clone {
        (1..=self.nodes()).map(NodeId)
    }

    /// Who has the highest leader priority, if that is part of the story.
    fn preferred(self) -> Option<NodeId> {
        (self == Self::LaggingPreferredLeader).then_some(NodeId(self.nodes()))
    }

    /// Who reaches everybody when few do: the node with the highest number that does not lead.
    fn hub(self, leader: NodeId) -> NodeId {
        if leader == NodeId(self.nodes()) { NodeId(self.nodes() - 1) } else { NodeId(self.nodes()) }
    }

    /// What is done at `at` to a cluster that `leader` leads.
    fn strokes(self, at: u64, leader: NodeId) -> Vec<PlannedFault> {
        let hub = self.hub(leader);
        let links = || self.node_ids().flat_map(|a| others(self.node_ids(), a).map(move |b| (a, b)));
        let cut = |links: Vec<Link>, for_us| vec![Fault::Cut { links, for_us }];
        let crash = || vec![Fault::Crash { node: leader, power: true, down_us: LASTS_US }];
        let faults = match (self, at) {
            (Self::ConstrainedElection, BEFORE) => cut(both(leader, hub).to_vec(), BEFORE_US + LASTS_US),
            (Self::LaggingPreferredLeader, BEFORE) => {
                let lags = NodeId(self.nodes());
                cut(links().filter(|(a, b)| *a == lags || *b == lags).collect(), BEFORE_US - SHORTLY_US)
            }
            (Self::LaggingPreferredLeader, SHORTLY) => {
                let weather = Weather { delay_us: SLOW_US, jitter_us: 0, drop: 0, duplicate: 0, reorder: 0 };
                vec![Fault::Weather { links: vec![(leader, NodeId(self.nodes()))], weather, for_us: SHORTLY_US }]
            }
            (_, BEFORE | SHORTLY) => Vec::new(),
            (Self::LeaderCrash, _) => crash(),
            (Self::LaggingPreferredLeader, _) => {
                [crash(), cut(vec![(leader, NodeId(self.nodes()))], LASTS_US)].concat()
            }
            (Self::LeaderIsolated, _) => cut(links().filter(|(a, b)| *a == leader || *b == leader).collect(), LASTS_US),
            (Self::OneWayCut, _) => cut(links().filter(|(_, to)| *to == leader).collect(), LASTS_US),
            (Self::PartialPartition, _) => cut(both(leader, hub).to_vec(), LASTS_US),
            (Self::QuorumLoss, _) => cut(links().filter(|(a, b)| *a != hub && *b != hub).collect(), LASTS_US),
            (Self::ConstrainedElection, _) => {
                let lost = |(a, b): &Link| (*a != hub && *b != hub) || *a == leader || *b == leader;
                cut(links().filter(lost).collect(), LASTS_US)
            }
        };
        faults.into_iter().map(|fault| PlannedFault { at, fault }).collect()
    }
}

fn others(nodes: impl Iterator<Item = NodeId>, but: NodeId) -> impl Iterator<Item = NodeId> {
    nodes.filter(move |node| *node != but)
}

fn both(a: NodeId, b: NodeId) -> [Link; 2] {
    [(a, b), (b, a)]
}

/// What one run showed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Showing {
    /// Who led when the fault came.
    pub leader: NodeId,
    /// Microseconds from the fault until another node led; none if none did while the fault lasted.
    pub new_leader_us: Option<u64>,
    /// Who that was.
    pub new_leader: Option<NodeId>,
    /// Microseconds from the fault until the preferred node led, if there is one and it did.
    pub preferred_us: Option<u64>,
    /// Leaders that took over while the fault lasted.
    pub leader_changes: u64,
    /// Microseconds from the fault until a write was acknowledged that was asked for after it; none if that took
    /// until the healing.
    pub first_write_us: Option<u64>,
    /// Writes that surely were not done while the fault lasted.
    pub refused: u64,
    /// Writes of unknown outcome while the fault lasted.
    pub unknown: u64,
    /// Writes acknowledged while the fault lasted.
    pub done: u64,
    /// Messages between nodes from the fault until that first write, or the healing.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Entries of earlier ballots that leaders sent while the fault lasted.
    pub sent_again: u64,
}

/// A script played with one seed under one protocol; the runs' checks come with it.
#[derive(Clone, Debug)]
pub struct Play {
    /// What it was played with.
    pub config: Config,
    /// What happened.
    pub report: Report,
    /// The figures, if the run had a leader to begin with.
    pub showing: Option<Showing>,
}

/// Plays a script.
#[must_use]
pub fn play(script: Script, protocol: Protocol, seed: u64) -> Play {
    let mut config = Config {
        nodes: script.nodes(),
        protocol,
        duration: DURATION,
        preferred: script.preferred(),
        ..Config::new(seed).with_profile(Profile::Calm)
    };
    let mut planned = plan(&config);
    // Nobody lags so far that it needs a snapshot: that is another comparison.
    planned.shape.log_retained_bytes = 16 << 20;
    config.plan = Some(planned.clone());
    let mut report = run(&config);
    // Each run tells whom the next stroke meets, and with it goes as before until then.
    for at in [BEFORE, SHORTLY, FAULT_US] {
        let Some(leader) = leader_at(&report, START_US + at) else {
            return Play { config, report, showing: None };
        };
        let strokes = script.strokes(at, leader);
        if !strokes.is_empty() {
            planned.faults.extend(strokes);
            config.plan = Some(planned.clone());
            report = run(&config);
        }
    }
    let leader = leader_at(&report, START_US + FAULT_US);
    let showing = leader.map(|leader| showing(&report, leader, script.preferred()));
    Play { config, report, showing }
}

fn leader_at(report: &Report, at: u64) -> Option<NodeId> {
    let leads = report.timeline.spans.iter().filter(|span| span.kind == SpanKind::Leads);
    leads.filter(|span| span.from <= at && at <= span.until).max_by_key(|span| span.from).map(|span| span.node)
}

fn showing(report: &Report, leader: NodeId, preferred: Option<NodeId>) -> Showing {
    let (from, until) = (START_US + FAULT_US, START_US + FAULT_US + LASTS_US);
    let during = |at: u64| from <= at && at < until;
    let mut takeovers: Vec<_> =
        report.timeline.spans.iter().filter(|span| span.kind == SpanKind::Leads && during(span.from)).collect();
    takeovers.sort_by_key(|span| span.from);
    let first = takeovers.iter().find(|span| span.node != leader);
    let writes = || report.history.iter().filter(|operation| is_write(operation) && during(operation.called_at));
    let count = |told: fn(&Told) -> bool| writes().filter(|operation| told(&operation.told)).count() as u64;
    let acknowledged = writes().filter(|operation| matches!(operation.told, Told::Outcome(_)));
    let first_write = acknowledged.filter_map(|operation| operation.returned_at).filter(|at| during(*at)).min();
    let failover = report.timeline.traffic(from, first_write.unwrap_or(until));
    Showing {
        leader,
        new_leader_us: first.map(|span| span.from - from),
        new_leader: first.map(|span| span.node),
        leader_changes: takeovers.len() as u64,
        preferred_us: preferred.and_then(|node| takeovers.iter().find(|span| span.node == node)).map(|s| s.from - from),
        first_write_us: first_write.map(|at| at - from),
        refused: count(|told| matches!(told, Told::NotDone)),
        unknown: count(|told| matches!(told, Told::Unknown)),
        done: count(|told| matches!(told, Told::Outcome(_))),
        messages: failover.messages,
        bytes: failover.bytes,
        sent_again: report.timeline.traffic(from, until).sent_again,
    }
}

fn is_write(operation: &Operation) -> bool {
    matches!(operation.asked, Asked::Write(_))
}

/// The middle of what several seeds showed.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    /// Which script.
    pub script: Script,
    /// Under which protocol.
    pub protocol: Protocol,
    /// Runs that had a leader when the fault came.
    pub runs: u64,
    /// Runs in which another node led while the fault lasted.
    pub took_over: u64,
    /// Runs in which a write was acknowledged while the fault lasted.
    pub available: u64,
    /// Median of [`Showing::new_leader_us`] over the runs that have one.
    pub new_leader_us: Option<u64>,
    /// Median of [`Showing::preferred_us`] over the runs that have one.
    pub preferred_us: Option<u64>,
    /// Median of [`Showing::first_write_us`] over the runs that have one.
    pub first_write_us: Option<u64>,
    /// Mean over the runs.
    pub leader_changes: f64,
    /// Mean over the runs.
    pub refused: f64,
    /// Mean over the runs.
    pub unknown: f64,
    /// Mean over the runs.
    pub messages: f64,
    /// Mean over the runs.
    pub bytes: f64,
    /// Mean over the runs.
    pub sent_again: f64,
    /// Runs in which a check failed, by seed.
    pub failures: Vec<(u64, String)>,
}

impl Row {
    /// Plays `script` under `protocol` with each seed, and hands each play to `see`.
    pub fn play(script: Script, protocol: Protocol, seeds: &[u64], mut see: impl FnMut(&Play)) -> Self {
        let mut showings = Vec::new();
        let mut failures = Vec::new();
        for seed in seeds {
            let play = play(script, protocol, *seed);
            if let Verdict::Failed(failure) = &play.report.verdict {
                failures.push((*seed, failure.to_string()));
            }
            see(&play);
            showings.extend(play.showing);
        }
        let mean =
            |of: fn(&Showing) -> u64| showings.iter().map(of).sum::<u64>() as f64 / (showings.len().max(1) as f64);
        Self {
            script,
            protocol,
            runs: showings.len() as u64,
            took_over: showings.iter().filter(|showing| showing.new_leader_us.is_some()).count() as u64,
            available: showings.iter().filter(|showing| showing.first_write_us.is_some()).count() as u64,
            new_leader_us: median(showings.iter().filter_map(|showing| showing.new_leader_us).collect()),
            preferred_us: median(showings.iter().filter_map(|showing| showing.preferred_us).collect()),
            first_write_us: median(showings.iter().filter_map(|showing| showing.first_write_us).collect()),
            leader_changes: mean(|showing| showing.leader_changes),
            refused: mean(|showing| showing.refused),
            unknown: mean(|showing| showing.unknown),
            messages: mean(|showing| showing.messages),
            bytes: mean(|showing| showing.bytes),
            sent_again: mean(|showing| showing.sent_again),
            failures,
        }
    }
}

fn median(mut values: Vec<u64>) -> Option<u64> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_meets_the_leader_of_the_rehearsal() {
        let play = play(Script::LeaderCrash, Protocol::Raft, 1);
        assert_eq!(play.report.verdict, Verdict::Passed);
        let showing = play.showing.expect("a leader");
        assert_ne!(showing.new_leader, Some(showing.leader));
        let (elected, wrote) = (showing.new_leader_us.expect("elected"), showing.first_write_us.expect("wrote"));
        assert!(elected > 100_000, "an election needs a timeout: {elected} us");
        assert!(wrote < LASTS_US, "the other two go on: {wrote} us");
        assert!(showing.messages > 0 && showing.bytes > 0);
    }

    #[test]
    fn only_raft_waits_when_the_one_who_reaches_a_quorum_lags() {
        for protocol in Protocol::ALL {
            let play = play(Script::ConstrainedElection, *protocol, 1);
            assert_eq!(play.report.verdict, Verdict::Passed, "{protocol}");
            let showing = play.showing.expect("a leader");
            assert_eq!(showing.new_leader_us.is_some(), *protocol != Protocol::Raft, "{protocol}: {showing:?}");
            assert_eq!(showing.first_write_us.is_some(), *protocol != Protocol::Raft, "{protocol}: {showing:?}");
        }
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![9, 1, 5]), Some(5));
    }
}
