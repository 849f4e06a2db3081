//! What is going to happen in a run, as plain data: so that a failing run can be made smaller by leaving things out.
//!
//! Invariant: damage that lasts (lost data, lying drives, rot) only ever meets the *victims*, a minority chosen once
//! per run, because more than that cannot be survived; the profile over the limit has no such bound.

use std::collections::BTreeSet;
use std::time::Duration;

use base::{NodeId, Prng};

use crate::config::{Config, Profile};
use crate::fault::{Fault, FaultKind, Link, Weather};
use crate::random::{between, percent, pick, spread, stream};
use crate::workload::{self, PlannedOperation};

/// A fault and when it happens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlannedFault {
    /// World time in microseconds after the start.
    pub at: u64,
    /// What.
    pub fault: Fault,
}

/// What the machines and the cluster are like in a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Heartbeat interval.
    pub heartbeat: Duration,
    /// Election timeout.
    pub election_timeout: Duration,
    /// The weather on all links when nothing is wrong.
    pub fair: Weather,
    /// Time of a sync of the disk, in microseconds: shortest and longest.
    pub sync_us: (u64, u64),
    /// Time to apply a batch.
    pub apply_us: (u64, u64),
    /// Time between two checkpoints of the engine.
    pub checkpoint_us: (u64, u64),
    /// Size of a log segment.
    pub segment_bytes: u64,
    /// Log kept behind the applied index.
    pub log_retained_bytes: u64,
    /// Whether every second node keeps more than that: it can help others where a snapshot was needed before.
    pub uneven_retention: bool,
    /// Bytes in a chunk of a snapshot.
    pub chunk_bytes: usize,
    /// Decided and unapplied entries above which proposals are refused.
    pub apply_backlog_max: u64,
    /// Events looked at by one piece of the sweep.
    pub sweep_events: usize,
    /// Answers to clients that are lost, in a thousand.
    pub answers_lost: u64,
}

/// Everything that is going to happen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// What things are like.
    pub shape: Shape,
    /// What goes wrong, in order of time.
    pub faults: Vec<PlannedFault>,
    /// What clients ask for, in order of time.
    pub operations: Vec<PlannedOperation>,
}

/// Without faults at first, so that there is something to lose.
pub(crate) const WARM_UP_US: u64 = 3_000_000;

/// Machines that become members later, in a run.
const NEWCOMERS_MAX: u64 = 4;

/// The plan that the seed decides on.
#[must_use]
pub fn plan(config: &Config) -> Plan {
    let shape = draw_shape(&mut stream(config.seed, 1));
    let faults = Draw::new(config).faults();
    let operations = workload::operations(config);
    Plan { shape, faults, operations }
}

fn draw_shape(prng: &mut Prng) -> Shape {
    let (heartbeat, election_timeout) = *pick(prng, &[(50, 500), (100, 1000), (100, 500)]);
    let delay_us = spread(prng, 50, 5_000);
    let fast = spread(prng, 100, 3_000);
    Shape {
        heartbeat: Duration::from_millis(heartbeat),
        election_timeout: Duration::from_millis(election_timeout),
        fair: Weather { delay_us, jitter_us: delay_us, drop: 0, duplicate: 0, reorder: 0 },
        sync_us: (fast, fast * between(prng, 1, 6)),
        apply_us: (20, spread(prng, 50, 4_000)),
        checkpoint_us: (50_000, spread(prng, 200_000, 4_000_000)),
        segment_bytes: *pick(prng, &[16 * 1024, 32 * 1024, 64 * 1024, 128 * 1024]),
        log_retained_bytes: *pick(prng, &[0, 2 * 1024, 16 * 1024, 64 * 1024]),
        uneven_retention: percent(prng, 50),
        chunk_bytes: *pick(prng, &[512, 2048, 8192]),
        apply_backlog_max: *pick(prng, &[50, 1000, 20_000]),
        sweep_events: *pick(prng, &[1, 10, 1000]),
        answers_lost: *pick(prng, &[0, 0, 5, 30]),
    }
}

/// The state of drawing faults.
struct Draw<'a> {
    config: &'a Config,
    prng: Prng,
    nodes: Vec<NodeId>,
    /// Who may suffer lasting damage.
    victims: Vec<NodeId>,
    /// New members so far.
    joined: u64,
    end: u64,
}

impl Plan {
    /// Machines there are: the founders, and whoever becomes a member later.
    pub(crate) fn machines(&self, founders: u64) -> u64 {
        let joins = self.faults.iter().filter_map(|planned| match &planned.fault {
            Fault::Join { node } | Fault::Replace { by: node, .. } => Some(node.0),
            _ => None,
        });
        joins.max().unwrap_or(0).max(founders)
    }

    /// Who suffers damage that lasts.
    pub(crate) fn victims(&self) -> BTreeSet<NodeId> {
        self.faults.iter().filter_map(|planned| planned.fault.victim()).collect()
    }
}

impl Shape {
    /// Log that this node keeps behind the applied index.
    pub(crate) fn retained_bytes(&self, node: NodeId) -> u64 {
        let more = if self.uneven_retention && node.0.is_multiple_of(2) { 64 * 1024 } else { 0 };
        self.log_retained_bytes.max(more)
    }
}

impl<'a> Draw<'a> {
    fn new(config: &'a Config) -> Self {
        let mut prng = stream(config.seed, 2);
        let nodes: Vec<NodeId> = (1..=config.nodes).map(NodeId).collect();
        let mut victims = nodes.clone();
        shuffle(&mut prng, &mut victims);
        if config.profile != Profile::OverTheLimit {
            victims.truncate((nodes.len() - 1) / 2);
        }
        let end = config.duration.as_micros() as u64;
        Self { config, prng, nodes, victims, joined: 0, end }
    }

    fn faults(mut self) -> Vec<PlannedFault> {
        let kinds = self.choose_kinds();
        let mut faults = Vec::new();
        if self.end <= WARM_UP_US {
            return faults;
        }
        for kind in kinds {
            // Lasting faults come once or twice, the others again and again.
            let pause = match kind {
                FaultKind::Lose | FaultKind::Wipe | FaultKind::CrashAll | FaultKind::Storm => (self.end / 2, self.end),
                FaultKind::LostWrite | FaultKind::MisdirectedWrite | FaultKind::Rot => (self.end / 4, self.end),
                FaultKind::Join | FaultKind::Leave | FaultKind::Replace => (self.end / 8, self.end / 2),
                _ => {
                    let mean = spread(&mut self.prng, 1_500_000, 12_000_000);
                    (mean / 4, mean * 2)
                }
            };
            let mut at = WARM_UP_US + self.prng.below(pause.1 / 2 + 1);
            while at < self.end {
                self.add(kind, at, &mut faults);
                at += between(&mut self.prng, pause.0.max(1), pause.1.max(1));
            }
        }
        faults.sort_by_key(|planned| planned.at);
        faults
    }

    fn choose_kinds(&mut self) -> Vec<FaultKind> {
        let all = self.config.profile.kinds();
        let chance = match self.config.profile {
            Profile::Swarm => *pick(&mut self.prng, &[10, 25, 40]),
            Profile::OverTheLimit => 100,
            Profile::Calm
            | Profile::Network
            | Profile::Disk
            | Profile::Crash
            | Profile::Clock
            | Profile::WildClock
            | Profile::Members => 65,
        };
        let mut kinds: Vec<_> = all.iter().copied().filter(|_| percent(&mut self.prng, chance)).collect();
        if kinds.is_empty() && !all.is_empty() {
            kinds.push(*pick(&mut self.prng, all));
        }
        kinds
    }

    fn node(&mut self) -> NodeId {
        *pick(&mut self.prng, &self.nodes)
    }

    fn victim(&mut self) -> Option<NodeId> {
        (!self.victims.is_empty()).then(|| *pick(&mut self.prng, &self.victims))
    }

    /// The next machine that can become a member.
    fn newcomer(&mut self) -> Option<NodeId> {
        self.joined += 1;
        (self.joined <= NEWCOMERS_MAX).then(|| NodeId(self.nodes.len() as u64 + self.joined))
    }

    fn down(&mut self) -> u64 {
        spread(&mut self.prng, 20_000, 10_000_000)
    }

    fn add(&mut self, kind: FaultKind, at: u64, faults: &mut Vec<PlannedFault>) {
        let mut push = |fault| faults.push(PlannedFault { at, fault });
        let node = self.node();
        let down_us = self.down();
        let prng = &mut self.prng;
        match kind {
            FaultKind::Crash => push(Fault::Crash { node, power: percent(prng, 60), down_us }),
            FaultKind::CrashInTurn => push(Fault::CrashInTurn { node, effects: prng.below(12), down_us }),
            FaultKind::CrashOnDisk => push(Fault::CrashOnDisk { node, operations: prng.below(40), down_us }),
            FaultKind::CrashInApply => push(Fault::CrashInApply { node, down_us }),
            FaultKind::CrashAll => push(Fault::CrashAll { power: percent(prng, 70), down_us: down_us.min(4_000_000) }),
            FaultKind::Storm => {
                let mut when = at;
                for _ in 0..between(prng, 3, 8) {
                    let down_us = spread(prng, 1_000, 500_000);
                    let fault = Fault::Crash { node, power: percent(prng, 50), down_us };
                    faults.push(PlannedFault { at: when, fault });
                    when += down_us + spread(prng, 1_000, 700_000);
                }
            }
            FaultKind::Pause => push(Fault::Pause { node, for_us: spread(prng, 10_000, 60_000_000) }),
            FaultKind::ClockRate => {
                let most = self.config.profile.clock_error_percent() * 10_000;
                let ppm = between(prng, 0, 2 * most) as i64 - most as i64;
                push(Fault::ClockRate { node, ppm, for_us: spread(prng, 1_000_000, 60_000_000) });
            }
            FaultKind::ClockJump => {
                let by_us = spread(prng, 1_000, 3_600_000_000) as i64;
                push(Fault::ClockJump { node, by_us: if percent(prng, 50) { by_us } else { -by_us } });
            }
            FaultKind::Cut => {
                let (links, for_us) = (self.links(), spread(&mut self.prng, 50_000, 20_000_000));
                push(Fault::Cut { links, for_us });
            }
            FaultKind::Clog => {
                let (links, for_us) = (self.links(), spread(&mut self.prng, 50_000, 10_000_000));
                push(Fault::Clog { links, for_us });
            }
            FaultKind::Weather => {
                let links = if percent(&mut self.prng, 50) { self.all_links() } else { self.links() };
                let prng = &mut self.prng;
                let weather = Weather {
                    delay_us: spread(prng, 100, 200_000),
                    jitter_us: spread(prng, 100, 500_000),
                    drop: *pick(prng, &[0, 10, 100, 300]),
                    duplicate: *pick(prng, &[0, 10, 100, 500]),
                    reorder: *pick(prng, &[0, 50, 300]),
                };
                push(Fault::Weather { links, weather, for_us: spread(prng, 500_000, 20_000_000) });
            }
            FaultKind::Replay => {
                let links = self.all_links();
                let link = *pick(&mut self.prng, &links);
                push(Fault::Replay { link, count: between(&mut self.prng, 1, 64) });
            }
            FaultKind::SyncError => push(Fault::SyncError { node, nth: prng.below(20) }),
            FaultKind::WriteError => push(Fault::WriteError { node, nth: prng.below(20) }),
            FaultKind::Full => {
                let spare_bytes = prng.below(8) * 4096;
                push(Fault::Full { node, spare_bytes, for_us: spread(prng, 500_000, 20_000_000) });
            }
            FaultKind::Stall => push(Fault::Stall { node, for_us: spread(prng, 50_000, 30_000_000) }),
            FaultKind::Deafen => push(Fault::Deafen { for_us: spread(prng, 50_000, 2_000_000) }),
            FaultKind::Transfer => push(Fault::Transfer { to: percent(prng, 70).then_some(node) }),
            FaultKind::Join => {
                if let Some(node) = self.newcomer() {
                    push(Fault::Join { node });
                }
            }
            FaultKind::Leave => {
                // Mostly another one comes first.
                let newcomer = if percent(&mut self.prng, 70) { self.newcomer() } else { None };
                faults.extend(newcomer.map(|node| PlannedFault { at, fault: Fault::Join { node } }));
                faults.push(PlannedFault { at: at + 2_000_000, fault: Fault::Leave { node } });
            }
            FaultKind::Replace => {
                if let Some((node, by)) = self.victim().and_then(|node| Some((node, self.newcomer()?))) {
                    push(Fault::Replace { node, by, down_us });
                }
            }
            FaultKind::Lose | FaultKind::Wipe | FaultKind::LostWrite | FaultKind::MisdirectedWrite | FaultKind::Rot => {
                if let Some(node) = self.victim() {
                    push(lasting(&mut self.prng, kind, node, down_us));
                }
            }
        }
    }

    fn all_links(&self) -> Vec<Link> {
        let pairs = self.nodes.iter().flat_map(|from| self.nodes.iter().map(move |to| (*from, *to)));
        pairs.filter(|(from, to)| from != to).collect()
    }

    /// A set of links that break together: one, an island, a ring, a chain, one direction only.
    fn links(&mut self) -> Vec<Link> {
        let all = self.all_links();
        let mut order = self.nodes.clone();
        shuffle(&mut self.prng, &mut order);
        let place = |node: &NodeId| order.iter().position(|other| other == node).unwrap_or(0);
        let len = order.len();
        let lone = order[0];
        let split = between(&mut self.prng, 1, len as u64 - 1) as usize;
        let side = |node: &NodeId| place(node) < split;
        let kept = |link: &Link, ring: bool| {
            let (a, b) = (place(&link.0), place(&link.1));
            a.abs_diff(b) == 1 || (ring && a.abs_diff(b) == len - 1)
        };
        let touches = |link: &Link| link.0 == lone || link.1 == lone;
        match self.prng.below(7) {
            0 => vec![*pick(&mut self.prng, &all)],
            1 => all.into_iter().filter(touches).collect(),
            2 => all.into_iter().filter(|link| link.0 == lone).collect(),
            3 => all.into_iter().filter(|link| link.1 == lone).collect(),
            4 => all.into_iter().filter(|link| side(&link.0) != side(&link.1)).collect(),
            5 => {
                let broken: Vec<Link> = all.iter().copied().filter(|link| !kept(link, len > 3)).collect();
                if broken.is_empty() { vec![*pick(&mut self.prng, &all)] } else { broken }
            }
            _ => {
                // A chain: everybody reaches the neighbours only.
                all.into_iter().filter(|link| !kept(link, false)).collect()
            }
        }
    }
}

fn lasting(prng: &mut Prng, kind: FaultKind, node: NodeId, down_us: u64) -> Fault {
    match kind {
        FaultKind::Lose => Fault::Lose { node },
        FaultKind::Wipe => Fault::Wipe { node, down_us },
        FaultKind::LostWrite => Fault::LostWrite { node, nth: prng.below(20) },
        FaultKind::MisdirectedWrite => Fault::MisdirectedWrite { node, nth: prng.below(20), block: prng.below(12) },
        _ => Fault::Rot { node, seed: prng.next_u64() },
    }
}

fn shuffle<T>(prng: &mut Prng, items: &mut [T]) {
    for place in (1..items.len()).rev() {
        items.swap(place, prng.below(place as u64 + 1) as usize);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn lasting_damage_meets_a_minority() {
        for seed in 0..200 {
            let config = Config { nodes: 5, ..Config::new(seed) };
            let damaged: BTreeSet<NodeId> =
                plan(&config).faults.iter().filter_map(|planned| planned.fault.victim()).collect();
            assert!(damaged.len() <= 2, "seed {seed} damages {damaged:?}");
        }
    }

    /// How the links that a cut leaves lie, of five nodes.
    fn shape(cut: &[Link]) -> &'static str {
        let nodes = || (1..=5).map(NodeId);
        let is_open = |a: NodeId, b: NodeId| a != b && !cut.contains(&(a, b));
        let reached = |a: NodeId| nodes().filter(|b| is_open(a, *b) && is_open(*b, a)).count();
        let ends: Vec<NodeId> = nodes().filter(|a| reached(*a) == 1).collect();
        let is_one_way = cut.iter().any(|(a, b)| is_open(*b, *a));
        let mut degrees: Vec<usize> = nodes().map(reached).collect();
        degrees.sort_unstable();
        match degrees[..] {
            _ if is_one_way => "one way",
            [0, ..] => "alone",
            [2, 2, 2, 2, 2] => "ring",
            // A pair and three of a kind have as many links as a chain.
            [1, 1, 2, 2, 2] if !is_open(ends[0], ends[1]) => "chain",
            _ => "halves",
        }
    }

    #[test]
    fn cuts_are_whole_one_way_rings_and_chains() {
        let mut seen = BTreeSet::new();
        for seed in 0..40 {
            let config = Config { nodes: 5, ..Config::new(seed).with_profile(Profile::Network) };
            seen.extend(plan(&config).faults.iter().filter_map(|planned| match &planned.fault {
                Fault::Cut { links, .. } => Some(shape(links)),
                _ => None,
            }));
        }
        assert_eq!(seen, BTreeSet::from(["alone", "chain", "halves", "one way", "ring"]));
    }

    #[test]
    fn every_kind_of_fault_is_drawn_and_no_run_has_all() {
        let mut seen = BTreeSet::new();
        for seed in 0..200 {
            let kinds: BTreeSet<_> = plan(&Config::new(seed)).faults.iter().map(|f| f.fault.kind()).collect();
            assert!(kinds.len() < FaultKind::ALL.len(), "seed {seed} has every fault: no swarm");
            seen.extend(kinds);
        }
        // A storm is made of crashes.
        assert_eq!(seen.len(), FaultKind::ALL.len() - 1);
    }

    #[test]
    fn a_plan_is_a_function_of_its_configuration() {
        assert_eq!(plan(&Config::new(7)), plan(&Config::new(7)));
        assert_ne!(plan(&Config::new(7)).faults, plan(&Config::new(8)).faults);
    }
}
