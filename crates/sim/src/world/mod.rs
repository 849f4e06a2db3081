//! The world: all machines, the network between them, the clients, and one queue of everything that happens.
//!
//! Invariant: what happens is a function of the configuration. The world draws from seeded streams only, iterates over
//! ordered collections only, and never asks what time it is outside.

pub(crate) mod clients;
mod describe;
mod expiry;
mod faults;
mod host;
mod io;
mod links;
mod locks;
mod monitor;
mod operator;
mod traffic;
pub(crate) mod watches;

use std::collections::BTreeMap;

use base::{Fault, Index, NodeId, Prng};
use bytes::Bytes;

use crate::clock::Clock;
use crate::config::{Config, Profile};
use crate::counters::{Counter, Counters};
use crate::fault::{FaultKind, Link};
use crate::history::{Asked, Told};
use crate::machine::{Machine, Standing};
use crate::network::Network;
use crate::oracle::Oracle;
use crate::plan::Plan;
use crate::random::{between, stream};
use crate::report::{Failure, FailureKind, Report, Verdict};
use crate::schedule::Schedule;
use crate::settled::Settled;
use crate::timeline::Timeline;
use crate::trace::Trace;
use crate::watches::WatchClients;
use clients::Clients;
use locks::LockStep;
use monitor::Monitor;
use operator::Operator;
use watches::WatchStep;

/// World time at the start: zero would hide errors.
pub(crate) const START_US: u64 = 1_000_000;
/// How often the monitor looks.
const LOOK_US: u64 = 100_000;

/// Something that happens. `machine` is a place in the list, `life` the life it is meant for.
pub(crate) enum Happening {
    Fault(usize),
    FaultEnds(usize),
    Turn { machine: usize, life: u64 },
    Wake { machine: usize, life: u64, at: u64 },
    Frame { link: Link, epoch: Option<u64>, frame: Bytes },
    Connect { link: Link, lives: (u64, u64) },
    Disconnect { link: Link, epoch: u64 },
    LogDone { machine: usize, life: u64 },
    LogUpkeep { machine: usize, life: u64 },
    ApplyDone { machine: usize, life: u64 },
    IoDone { machine: usize, life: u64 },
    Checkpoint { machine: usize, life: u64 },
    Restart { machine: usize, life: u64 },
    StandDown { machine: usize, life: u64 },
    Client(u64),
    Arrive { ticket: u64, node: NodeId, client: u64, asked: Box<Asked> },
    Answer { client: u64, ticket: u64, told: Box<Told> },
    Patience { client: u64, ticket: u64 },
    Watch(WatchStep),
    Lock { machine: usize, life: u64, step: LockStep },
    Heal,
    Look,
}

/// Streams of chance, one for each purpose.
pub(crate) struct Chance {
    pub(crate) network: Prng,
    pub(crate) host: Prng,
    pub(crate) crash: Prng,
}

/// See the module.
pub(crate) struct World<'a> {
    pub(crate) config: &'a Config,
    pub(crate) plan: &'a Plan,
    pub(crate) schedule: Schedule<Happening>,
    pub(crate) machines: Vec<Machine>,
    pub(crate) network: Network,
    pub(crate) clients: Clients,
    pub(crate) watches: WatchClients,
    pub(crate) operator: Operator,
    pub(crate) oracle: Oracle,
    pub(crate) settled: Settled,
    pub(crate) chance: Chance,
    pub(crate) counters: Counters,
    /// Faults planned and faults that had an effect, by kind.
    pub(crate) effects: BTreeMap<FaultKind, (u64, u64)>,
    pub(crate) trace: Trace,
    pub(crate) timeline: Timeline,
    pub(crate) monitor: Monitor,
    pub(crate) failure: Option<Failure>,
    next_ticket: u64,
    /// By machine: what waits for the end of a pause or a stall.
    pub(crate) waiting: Vec<Vec<Happening>>,
    /// Links into leaders that hear nothing, by fault.
    pub(crate) deaf: BTreeMap<usize, Vec<Link>>,
    /// Whose data each node (first) met behind each name (second).
    pub(crate) met: BTreeMap<Link, u64>,
    pub(crate) healed: bool,
    done: bool,
}

impl<'a> World<'a> {
    pub(crate) fn new(config: &'a Config, plan: &'a Plan) -> Self {
        let mut chance =
            Chance { network: stream(config.seed, 11), host: stream(config.seed, 12), crash: stream(config.seed, 13) };
        let size = plan.machines(config.nodes);
        let machines = (1..=size)
            .map(|number| {
                let clock = Clock::new(START_US, between(&mut chance.host, 1, 100) * 1_000_000_000);
                Machine::new(NodeId(number), chance.host.next_u64(), clock, config.nodes)
            })
            .collect();
        Self {
            config,
            plan,
            schedule: Schedule::new(START_US),
            machines,
            network: Network::new(size, plan.shape.fair),
            clients: Clients::new(&plan.operations),
            watches: WatchClients::new(config.seed, config.nodes),
            operator: Operator::new(config.nodes, plan.victims()),
            oracle: Oracle::default(),
            settled: Settled::default(),
            chance,
            counters: Counters::default(),
            effects: BTreeMap::new(),
            trace: Trace::new(config.trace),
            timeline: Timeline::default(),
            monitor: Monitor::default(),
            failure: None,
            next_ticket: 1,
            waiting: (0..size).map(|_| Vec::new()).collect(),
            deaf: BTreeMap::new(),
            met: BTreeMap::new(),
            healed: false,
            done: false,
        }
    }

    /// Runs to the end and says how it went.
    pub(crate) fn run(mut self) -> Report {
        self.prepare();
        while self.failure.is_none() && !self.done {
            let Some(happening) = self.schedule.pop() else { break };
            self.counters.count(Counter::Events);
            self.happen(happening);
        }
        self.finish()
    }

    fn prepare(&mut self) {
        for (number, planned) in self.plan.faults.iter().enumerate() {
            self.schedule.at(START_US + planned.at, Happening::Fault(number));
            self.effects.entry(planned.fault.kind()).or_default().0 += 1;
        }
        for machine in 0..self.config.nodes as usize {
            let delay = between(&mut self.chance.host, 0, 50_000);
            self.schedule.after(delay, Happening::Restart { machine, life: 0 });
        }
        for client in 0..self.clients.count() {
            self.schedule.after(0, Happening::Client(client));
        }
        self.prepare_watches();
        self.schedule.at(START_US + self.config.duration.as_micros() as u64, Happening::Heal);
        self.schedule.after(LOOK_US, Happening::Look);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Fault(number) => self.begin_fault(number),
            Happening::FaultEnds(number) => self.end_fault(number),
            Happening::Turn { machine, life } => {
                if self.is_due(machine, life, 0, || Happening::Turn { machine, life }) {
                    self.turn(machine);
                }
            }
            Happening::Wake { machine, life, at } => {
                if self.is_due(machine, life, 0, || Happening::Wake { machine, life, at }) {
                    self.wake(machine, at);
                }
            }
            Happening::Frame { link, epoch, frame } => self.arrive_frame(link, epoch, frame),
            Happening::Connect { link, lives } => self.connect(link, lives),
            Happening::Disconnect { link, epoch } => self.disconnect(link, epoch),
            Happening::LogDone { machine, life } => {
                let stalled = self.machines[machine].stalled_until;
                if self.is_due(machine, life, stalled, || Happening::LogDone { machine, life }) {
                    self.log_done(machine);
                }
            }
            Happening::LogUpkeep { machine, life } => {
                let stalled = self.machines[machine].stalled_until;
                if self.is_due(machine, life, stalled, || Happening::LogUpkeep { machine, life }) {
                    self.log_upkeep(machine);
                }
            }
            Happening::ApplyDone { machine, life } => {
                if self.is_due(machine, life, 0, || Happening::ApplyDone { machine, life }) {
                    self.apply_done(machine);
                }
            }
            Happening::IoDone { machine, life } => {
                let stalled = self.machines[machine].stalled_until;
                if self.is_due(machine, life, stalled, || Happening::IoDone { machine, life }) {
                    self.io_done(machine);
                }
            }
            Happening::Checkpoint { machine, life } => {
                let stalled = self.machines[machine].stalled_until;
                if self.is_due(machine, life, stalled, || Happening::Checkpoint { machine, life }) {
                    self.checkpoint(machine);
                }
            }
            Happening::Restart { machine, life } => {
                if self.machines[machine].life == life {
                    self.start(machine);
                }
            }
            Happening::StandDown { machine, life } => {
                if self.is_due(machine, life, 0, || Happening::StandDown { machine, life }) {
                    self.stand_down(machine);
                }
            }
            Happening::Client(client) => self.client(client),
            Happening::Arrive { ticket, node, client, asked } => self.arrive(ticket, node, client, *asked),
            Happening::Answer { client, ticket, told } => self.answered(client, ticket, *told),
            Happening::Patience { client, ticket } => self.impatient(client, ticket),
            Happening::Watch(step) => self.watch(step),
            Happening::Lock { machine, life, step } => self.lock_step(machine, life, step),
            Happening::Heal => self.heal(),
            Happening::Look => {
                self.look();
                self.schedule.after(LOOK_US, Happening::Look);
            }
        }
    }

    /// Whether this happens now. What is meant for an earlier life never does; a paused process, or a disk that stands
    /// still until `not_before`, lets it wait.
    fn is_due(&mut self, machine: usize, life: u64, not_before: u64, again: impl FnOnce() -> Happening) -> bool {
        let state = &self.machines[machine];
        if state.life != life || state.process.is_none() {
            return false;
        }
        if state.paused_until.max(not_before) > self.schedule.now() {
            self.waiting[machine].push(again());
            return false;
        }
        true
    }

    /// A pause or a stall may be over: what waited for it happens, in its order.
    pub(crate) fn resume(&mut self, machine: usize) {
        for happening in std::mem::take(&mut self.waiting[machine]) {
            self.schedule.after(0, happening);
        }
    }

    pub(crate) fn now(&self) -> u64 {
        self.schedule.now()
    }

    pub(crate) fn place(&self, node: NodeId) -> usize {
        node.0 as usize - 1
    }

    pub(crate) fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket - 1
    }

    /// A check failed: the run is over.
    pub(crate) fn fail(&mut self, kind: FailureKind, detail: String) {
        let at = self.now();
        self.failure.get_or_insert(Failure { at: Some(at), kind, detail });
    }

    /// Fails the run if a check did.
    pub(crate) fn judge<T>(&mut self, kind: FailureKind, result: Result<T, String>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(detail) => {
                self.fail(kind, detail);
                None
            }
        }
    }

    /// A fault of this kind made a difference.
    pub(crate) fn had_effect(&mut self, kind: FaultKind) {
        self.effects.entry(kind).or_default().1 += 1;
    }

    /// Everything is as it should be at the end: the run is over.
    pub(crate) fn settle(&mut self) {
        self.done = true;
    }

    fn finish(mut self) -> Report {
        let now = self.now();
        self.timeline.close(now);
        self.counters.add(Counter::Decided, self.oracle.decided().0);
        let fast = self.config.profile.clock_error_percent();
        let (recorded, judged) =
            crate::recorded::judge(&self.clients.history, &self.watches.records, &self.settled, fast);
        self.judge(FailureKind::History, judged);
        let verdict = match self.failure.take().or_else(|| self.vacuous()) {
            Some(failure) => Verdict::Failed(failure),
            None => Verdict::Passed,
        };
        let simulated_us = now - START_US;
        self.trace.mix(self.schedule.scheduled());
        Report {
            verdict,
            trace_hash: self.trace.hash(),
            simulated_us,
            counters: self.counters,
            effects: self.effects,
            history: self.clients.history,
            recorded,
            timeline: self.timeline,
            lines: self.trace.into_lines(),
        }
    }

    /// A run in which hardly anything worked proves nothing.
    fn vacuous(&self) -> Option<Failure> {
        // A shrunken plan may have few operations left, and over the limit nothing has to work.
        if self.config.profile == Profile::OverTheLimit || self.config.plan.is_some() {
            return None;
        }
        let counts = [Counter::DoneBefore, Counter::DoneAfter];
        let low = counts.into_iter().find(|counter| self.counters.get(*counter) < 5)?;
        let detail = format!("only {} {}", self.counters.get(low), low.words());
        Some(Failure { at: None, kind: FailureKind::Vacuous, detail })
    }

    /// The fault that ends a process, unless somebody has done something to it.
    pub(crate) fn is_excused(&self, machine: usize, fault: &Fault) -> bool {
        let wounds = self.machines[machine].wounds;
        match fault {
            Fault::Io { .. } => wounds.errors,
            Fault::Corrupt { .. } => wounds.damage || wounds.lies,
            Fault::Refused(_) => wounds.wiped || wounds.removed,
        }
    }

    /// Nodes that run and are not standing still.
    pub(crate) fn running(&self) -> impl Iterator<Item = &Machine> {
        self.machines.iter().filter(|machine| machine.standing == Standing::Running)
    }

    /// The last index applied on a machine's engine, as its node knows it.
    pub(crate) fn applied(machine: &Machine) -> Index {
        let process = machine.process.as_ref();
        process
            .and_then(|process| process.state.mark())
            .map_or(Index(0), |mark| crate::machine::decode_mark(mark).map_or(Index(0), |mark| mark.position.index))
    }
}
