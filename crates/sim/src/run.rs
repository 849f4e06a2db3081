//! One run from its configuration to its report.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::config::Config;
use crate::counters::Counters;
use crate::plan::plan;
use crate::report::{Failure, FailureKind, Report, Verdict};
use crate::timeline::Timeline;
use crate::world::World;

/// Runs it. An assertion of the code under test is a failure like any other; it takes the rest of the report with it.
#[must_use]
pub fn run(config: &Config) -> Report {
    let plan = config.plan.clone().unwrap_or_else(|| plan(config));
    let planted = Planted::new(config);
    let result = catch_unwind(AssertUnwindSafe(|| World::new(config, &plan).run()));
    drop(planted);
    result.unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned()));
        let detail = words.unwrap_or_else(|| "a panic without words".to_owned());
        Report {
            verdict: Verdict::Failed(Failure { at: None, kind: FailureKind::Panic, detail }),
            trace_hash: 0,
            simulated_us: 0,
            counters: Counters::default(),
            effects: std::collections::BTreeMap::new(),
            history: Vec::new(),
            recorded: check::History::default(),
            timeline: Timeline::default(),
            lines: Vec::new(),
        }
    })
}

/// Plants the configured defect for as long as it lives.
struct Planted;

impl Planted {
    fn new(config: &Config) -> Self {
        base::planted::plant(config.defect);
        Self
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        base::planted::plant(None);
    }
}
