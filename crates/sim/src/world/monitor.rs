//! Watches for progress: while faults are such that they must be tolerated, and after everything has healed.

use std::collections::BTreeMap;

use base::{NodeId, ReplicaId};
use mvcc::Engine;

use super::{START_US, World};
use crate::counters::Counter;
use crate::machine::{GROUP, Machine, Standing};
use crate::members::is_quorum;
use crate::report::FailureKind;

/// With a quorum that works and is connected, so long without an acknowledged write is too long.
const STANDSTILL_US: u64 = 10_000_000;
/// A node counts as working after it has done so for so long.
const SETTLED_US: u64 = 2_000_000;
/// After the healing, and the last request, everything is over within this time.
const CONVERGENCE_US: u64 = 30_000_000;
/// Clients go on for so long after the healing.
pub(super) const TAIL_US: u64 = 4_000_000;

/// What is remembered between two looks.
#[derive(Default)]
pub(crate) struct Monitor {
    /// Since when which quorum has been working and connected.
    quorums: BTreeMap<u64, u64>,
    /// When a write was last acknowledged.
    wrote_at: u64,
    /// Writes asked for, by node: the times of the last few.
    attempts: BTreeMap<NodeId, Vec<u64>>,
    /// Looks at a healthy cluster; ten are a second.
    healthy_looks: u64,
    /// How long each node has been well.
    well_since: BTreeMap<NodeId, u64>,
}

impl Monitor {
    pub(crate) fn attempted(&mut self, node: NodeId, now: u64) {
        let attempts = self.attempts.entry(node).or_default();
        attempts.push(now);
        if attempts.len() > 64 {
            attempts.drain(..32);
        }
    }

    pub(crate) fn wrote(&mut self, now: u64) {
        self.wrote_at = now;
    }
}

impl World<'_> {
    /// Looks at the whole, ten times a second.
    pub(super) fn look(&mut self) {
        self.operate();
        self.look_for_stuck_leaders();
        self.look_for_standstill();
        if self.healed {
            self.redial_dead_links();
            self.look_for_the_end();
        }
    }

    /// A leader whose own disk has stood still for several election timeouts must have noticed.
    fn look_for_stuck_leaders(&mut self) {
        let now = self.now();
        let limit = 4 * self.plan.shape.election_timeout.as_micros() as u64 + 500_000;
        let stuck = |machine: &&Machine| {
            let Some(process) = &machine.process else { return false };
            let stuck = process.log.taking > 0 && now.saturating_sub(process.log.writing_since) > limit;
            let awake = now.saturating_sub(machine.paused_until) > limit;
            let leads = process.node.replica(GROUP).is_some_and(kernel::Replica::is_leader);
            stuck && awake && leads
        };
        if let Some(machine) = self.machines.iter().find(stuck) {
            let detail = format!("{} leads on although its disk stands still", machine.id);
            self.fail(FailureKind::Availability, detail);
        }
    }

    fn is_well(&self, machine: &Machine) -> bool {
        let now = self.now();
        let Some(process) = &machine.process else { return false };
        machine.standing == Standing::Running
            && now - process.started_at > SETTLED_US
            && machine.paused_until + SETTLED_US < now
            && machine.stalled_until + SETTLED_US < now
    }

    /// While some quorum works and is connected, whatever the others do, writes must succeed.
    fn look_for_standstill(&mut self) {
        let now = self.now();
        for place in 0..self.machines.len() {
            let (node, well) = (self.machines[place].id, self.is_well(&self.machines[place]));
            if well {
                self.monitor.well_since.entry(node).or_insert(now);
            } else {
                self.monitor.well_since.remove(&node);
            }
        }
        let well: Vec<NodeId> = self.monitor.well_since.keys().copied().collect();
        let mut quorums = BTreeMap::new();
        for set in 1u64..1 << well.len() {
            let chosen: Vec<NodeId> =
                well.iter().enumerate().filter(|(place, _)| set >> place & 1 == 1).map(|(_, node)| *node).collect();
            if self.is_least_quorum(&chosen) && self.are_connected(&chosen) {
                let name = chosen.iter().fold(0, |name, node| name | 1 << node.0);
                quorums.insert(name, self.monitor.quorums.get(&name).copied().unwrap_or(now));
            }
        }
        self.monitor.quorums = quorums;
        let Some((name, since)) = self.monitor.quorums.iter().min_by_key(|(_, since)| **since) else { return };
        self.monitor.healthy_looks += 1;
        if self.monitor.healthy_looks.is_multiple_of(10) {
            self.counters.count(Counter::WatchedSeconds);
        }
        let from = (*since).max(self.monitor.wrote_at);
        if now - from < STANDSTILL_US {
            return;
        }
        // Somebody must have asked, early enough to have been answered by now.
        let asked = self.monitor.attempts.iter().filter(|(node, _)| name >> node.0 & 1 == 1);
        let asked = asked.flat_map(|(_, times)| times).filter(|at| **at > from && **at + STANDSTILL_US / 2 < now);
        if asked.count() >= 3 {
            let detail = format!("no write succeeds for {} s although a quorum is well", (now - from) / 1_000_000);
            self.fail(FailureKind::Availability, detail);
        }
    }

    /// Whether these nodes decide in every membership that may count now, and no fewer of them would.
    fn is_least_quorum(&self, nodes: &[NodeId]) -> bool {
        let decide = |without: Option<&NodeId>| {
            let holds = |replica: ReplicaId| nodes.iter().any(|node| node.0 == replica.0 && Some(node) != without);
            self.oracle.memberships.current().all(|membership| is_quorum(membership, holds))
        };
        decide(None) && !nodes.iter().any(|node| decide(Some(node)))
    }

    /// All requests answered, all nodes in the same state.
    fn look_for_the_end(&mut self) {
        let over_the_limit = self.config.profile == crate::config::Profile::OverTheLimit;
        let end = START_US + self.config.duration.as_micros() as u64 + TAIL_US;
        let now = self.now();
        if now < end {
            return;
        }
        match self.unfinished() {
            None => self.settle(),
            // Nothing has to work any more; what was answered before is judged all the same.
            Some(_) if over_the_limit && now >= end + 10_000_000 => self.settle(),
            Some(what) if now >= end + CONVERGENCE_US => {
                self.fail(FailureKind::Liveness, format!("long after everything healed, {what}"));
            }
            Some(_) => {}
        }
    }

    /// What is still to be done, in words.
    fn unfinished(&self) -> Option<String> {
        if let Some(machine) = self.machines.iter().find(|machine| machine.standing == Standing::Down) {
            return Some(format!("{} is down", machine.id));
        }
        if !self.clients.are_idle() {
            return Some("clients wait".to_owned());
        }
        if let Some((ticket, call)) = self.clients.calls.iter().next() {
            return Some(format!("n{} owes an answer to request {ticket}", call.machine + 1));
        }
        let decided = self.oracle.decided();
        if let Some(wrong) = self.wrong_members() {
            return Some(wrong);
        }
        let is_behind = |machine: &&Machine| Self::applied(machine) != decided && !self.is_astray(machine);
        if let Some(behind) = self.running().find(is_behind) {
            return Some(format!("{} is at {} of {decided}", behind.id, Self::applied(behind)));
        }
        let leases = |machine: &&Machine| mvcc::leases(&*machine.engine.view()).is_ok_and(|leases| !leases.is_empty());
        if let Some(machine) = self.running().filter(|machine| !self.is_astray(machine)).find(leases) {
            return Some(format!("{} has leases that nobody renews", machine.id));
        }
        let last = self.last_revision()?;
        let client = self.watches.behind(last)?;
        Some(format!("watching client {client} was not told that it has everything up to revision {last}"))
    }
}
