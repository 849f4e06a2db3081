//! Makes a failing run smaller: a shorter time, fewer faults, fewer clients, fewer operations, as long as the same
//! check fails.
//!
//! Invariant: what comes out fails in the same way as what went in, and is a configuration like any other, with its
//! plan written down.

use std::fmt::Write as _;
use std::time::Duration;

use crate::config::Config;
use crate::plan::{Plan, plan};
use crate::report::{FailureKind, Report};
use crate::run::run;

/// A failing run without what it does not need.
pub struct Shrunk {
    /// The smallest configuration found.
    pub config: Config,
    /// How it went.
    pub report: Report,
    /// Runs tried.
    pub runs: u32,
}

/// The state of a search.
struct Search {
    best: Config,
    report: Report,
    kind: FailureKind,
    runs: u32,
    runs_max: u32,
}

/// Shrinks a run that fails, with at most `runs_max` runs; none if it does not fail.
#[must_use]
pub fn shrink(config: &Config, runs_max: u32) -> Option<Shrunk> {
    let plan = config.plan.clone().unwrap_or_else(|| plan(config));
    let best = Config { plan: Some(plan), ..config.clone() };
    let report = run(&best);
    let kind = report.verdict.failure()?.kind;
    let mut search = Search { best, report, kind, runs: 1, runs_max };
    search.end_early();
    // What was needed only together with something that is gone may go in a second round.
    for _ in 0..2 {
        search.drop_kinds();
        search.drop_faults();
        search.drop_clients();
        search.drop_operations();
    }
    Some(Shrunk { config: search.best, report: search.report, runs: search.runs })
}

impl Search {
    fn plan(&self) -> Plan {
        self.best.plan.clone().unwrap_or_else(|| plan(&self.best))
    }

    /// Keeps the candidate if it fails in the same way.
    fn attempt(&mut self, candidate: Config) -> bool {
        if self.runs >= self.runs_max {
            return false;
        }
        self.runs += 1;
        let report = run(&candidate);
        let same = report.verdict.failure().is_some_and(|failure| failure.kind == self.kind);
        if same {
            (self.best, self.report) = (candidate, report);
        }
        same
    }

    fn attempt_plan(&mut self, plan: Plan) -> bool {
        self.attempt(Config { plan: Some(plan), ..self.best.clone() })
    }

    /// Everything heals sooner, and what was to come later does not come.
    fn end_early(&mut self) {
        loop {
            let half = self.best.duration / 2;
            let end = half.as_micros() as u64;
            let mut plan = self.plan();
            plan.faults.retain(|planned| planned.at < end);
            plan.operations.retain(|operation| operation.at < end + 4_000_000);
            let shorter = Config { duration: half, plan: Some(plan), ..self.best.clone() };
            if half < Duration::from_secs(1) || !self.attempt(shorter) {
                return;
            }
        }
    }

    fn drop_kinds(&mut self) {
        let mut kinds: Vec<_> = self.plan().faults.iter().map(|planned| planned.fault.kind()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        for kind in kinds {
            let mut plan = self.plan();
            plan.faults.retain(|planned| planned.fault.kind() != kind);
            self.attempt_plan(plan);
        }
    }

    fn drop_clients(&mut self) {
        let clients = self.plan().operations.iter().map(|operation| operation.client + 1).max().unwrap_or(0);
        for client in 0..clients {
            let mut plan = self.plan();
            plan.operations.retain(|operation| operation.client != client);
            if !plan.operations.is_empty() {
                self.attempt_plan(plan);
            }
        }
    }

    fn drop_faults(&mut self) {
        self.bisect(|plan| plan.faults.len(), |plan, from, until| drop(plan.faults.drain(from..until)));
    }

    fn drop_operations(&mut self) {
        self.bisect(|plan| plan.operations.len(), |plan, from, until| drop(plan.operations.drain(from..until)));
    }

    /// Leaves out ever smaller stretches of a list (Zeller's ddmin, complements only).
    fn bisect(&mut self, len: impl Fn(&Plan) -> usize, remove: impl Fn(&mut Plan, usize, usize)) {
        let mut stretch = len(&self.plan()).div_ceil(2);
        while stretch > 0 && self.runs < self.runs_max {
            let mut from = 0;
            while from < len(&self.plan()) {
                let mut plan = self.plan();
                let until = (from + stretch).min(len(&plan));
                remove(&mut plan, from, until);
                if !self.attempt_plan(plan) {
                    from = until;
                }
            }
            stretch = if stretch == 1 { 0 } else { stretch.div_ceil(2) };
        }
    }
}

impl Shrunk {
    /// What is left, one line for each thing that happens.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = String::new();
        let config = &self.config;
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "seed {} of {}, {} nodes, {:?}, {:?}, {} runs tried",
            config.seed, config.profile, config.nodes, config.protocol, config.duration, self.runs
        );
        if let Some(failure) = self.report.verdict.failure() {
            let _ = writeln!(text, "{failure}");
        }
        let Some(plan) = &config.plan else { return text };
        let _ = writeln!(text, "{:?}", plan.shape);
        for planned in &plan.faults {
            let _ = writeln!(text, "{:>12} us  {}", planned.at, planned.fault);
        }
        for operation in &plan.operations {
            let (at, client, node) = (operation.at, operation.client, operation.node);
            let _ = writeln!(text, "{at:>12} us  client {client} at {node}: {:?}", operation.intent);
        }
        text
    }
}
