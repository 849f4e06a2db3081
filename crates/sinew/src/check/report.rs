//! The verdict, for a person or as JSON.
//!
//! Invariant: what was not checked is named as such; "possible" overall means that every checked property is possible
//! and something was tested.

use std::fmt::Write as _;
use std::time::Duration;

use ::check::{Outcome, Property, Verdict};
use serde_json::{Value, json};

use super::Judged;
use super::recorder::Counts;

/// What a run against a cluster was like.
pub(super) struct Run {
    pub(super) clients: u64,
    pub(super) endpoints: usize,
    pub(super) lasted: Duration,
    pub(super) counts: Counts,
    pub(super) leader_changes: u64,
    /// How often the nemesis broke something, if there was one.
    pub(super) faults: Option<u64>,
    /// Whether the cluster answered at the end.
    pub(super) came_back: bool,
    /// Prefix of the keys that could not be deleted.
    pub(super) left_behind: Option<String>,
    /// Where the history is.
    pub(super) history: Option<String>,
}

/// Everything there is to say.
pub(super) struct Report {
    pub(super) judged: Judged,
    pub(super) run: Option<Run>,
}

/// The worst of all verdicts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Overall {
    Possible,
    Undecided,
    Impossible,
}

impl Overall {
    const fn name(self) -> &'static str {
        match self {
            Self::Possible => "possible",
            Self::Undecided => "undecided",
            Self::Impossible => "impossible",
        }
    }
}

impl From<&Verdict> for Overall {
    fn from(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Possible { .. } => Self::Possible,
            Verdict::Impossible(_) => Self::Impossible,
            Verdict::Undecided { .. } => Self::Undecided,
        }
    }
}

impl Report {
    /// Whether all is well.
    pub(super) fn is_possible(&self) -> bool {
        self.overall() == Overall::Possible
    }

    fn overall(&self) -> Overall {
        if !self.is_tested() {
            return Overall::Undecided;
        }
        let verdicts = self.judged.verdicts.iter().filter_map(|(_, verdict)| verdict.as_ref());
        verdicts.map(Overall::from).max().unwrap_or(Overall::Undecided)
    }

    /// Whether any property had something to say.
    fn is_tested(&self) -> bool {
        let mut verdicts = self.judged.verdicts.iter().filter_map(|(_, verdict)| verdict.as_ref());
        verdicts.any(|verdict| !matches!(verdict, Verdict::Possible { judged: 0 }))
    }

    /// Operations by outcome: done, failed, unknown.
    fn outcomes(&self) -> [usize; 3] {
        let mut outcomes = [0; 3];
        for operation in &self.judged.history.operations {
            let at = match operation.outcome {
                Outcome::Done { .. } => 0,
                Outcome::Failed { .. } => 1,
                Outcome::Unknown => 2,
            };
            outcomes[at] += 1;
        }
        outcomes
    }

    /// For a person.
    pub(super) fn text(&self) -> String {
        let [done, failed, unknown] = self.outcomes();
        let total = self.judged.history.operations.len();
        // Writing to a string cannot fail, here and below.
        let mut text = String::new();
        let _ = writeln!(text, "{total} operations: {done} done, {failed} failed, {unknown} of unknown outcome");
        if let Some(run) = &self.run {
            run.describe(&mut text);
        }
        text.push('\n');
        let mut reasons = String::new();
        for (property, verdict) in &self.judged.verdicts {
            let word = match verdict {
                None => "not checked yet".to_owned(),
                Some(Verdict::Possible { judged: 0 }) => "nothing to judge".to_owned(),
                Some(Verdict::Possible { judged }) => format!("possible    {judged} judged"),
                Some(Verdict::Undecided { .. }) => "UNDECIDED".to_owned(),
                Some(Verdict::Impossible(_)) => "IMPOSSIBLE".to_owned(),
            };
            let _ = writeln!(text, "  {:16} {word:24} {}", property.name(), property.promise());
            match verdict {
                Some(Verdict::Undecided { why }) => {
                    let _ = writeln!(reasons, "\n{property}: {why}");
                }
                Some(Verdict::Impossible(impossible)) => {
                    let _ = writeln!(reasons, "\n{property}: {}", impossible.explain(&self.judged.history));
                }
                Some(Verdict::Possible { .. }) | None => {}
            }
        }
        text.push_str(&reasons);
        let meaning = match self.overall() {
            Overall::Possible => "a correct store could have given all these answers",
            Overall::Undecided if self.is_tested() => {
                "nobody knows, which is not good enough; raise --search-steps, or record less"
            }
            Overall::Undecided => "the history holds nothing that any property speaks of",
            Overall::Impossible => "no correct store can have given all these answers",
        };
        let _ = writeln!(text, "\nVerdict: {}. {meaning}.", self.overall().name());
        text
    }

    /// For a program.
    pub(super) fn json(&self) -> String {
        let [done, failed, unknown] = self.outcomes();
        let properties: Vec<Value> =
            self.judged.verdicts.iter().map(|(property, verdict)| property_json(*property, verdict.as_ref())).collect();
        let mut value = json!({
            "verdict": self.overall().name(),
            "operations": self.judged.history.operations.len(),
            "done": done,
            "failed": failed,
            "unknown": unknown,
            "properties": properties,
        });
        if let Some(run) = &self.run {
            value["run"] = run.json();
        }
        format!("{value:#}\n")
    }
}

fn property_json(property: Property, verdict: Option<&Verdict>) -> Value {
    let name = property.name();
    match verdict {
        None => json!({ "property": name, "verdict": "not checked yet" }),
        Some(Verdict::Possible { judged }) => json!({ "property": name, "verdict": "possible", "judged": judged }),
        Some(Verdict::Undecided { why }) => json!({ "property": name, "verdict": "undecided", "why": why }),
        Some(Verdict::Impossible(impossible)) => json!({
            "property": name,
            "verdict": "impossible",
            "reason": impossible.reason,
            "operations": impossible.operations,
        }),
    }
}

impl Run {
    fn describe(&self, text: &mut String) {
        let Self { clients, endpoints, lasted, counts, leader_changes, .. } = self;
        let _ = writeln!(
            text,
            "{clients} clients at {endpoints} endpoints for {:.1} s; longest time without a successful write {:.1} s; \
             leader changes seen: {leader_changes}",
            lasted.as_secs_f64(),
            counts.longest_gap.as_secs_f64(),
        );
        let Counts { watches, events, leases, locks, .. } = counts;
        let _ = writeln!(
            text,
            "{watches} watches delivered {events} events; {leases} leases were granted, and locks {locks} times"
        );
        if let Some(faults) = self.faults {
            let _ = writeln!(text, "the nemesis broke something {faults} times");
        }
        if !self.came_back {
            text.push_str("the cluster did not answer at the end, so writes lost after their last read do not show\n");
        }
        if let Some(prefix) = &self.left_behind {
            let _ = writeln!(text, "keys are left behind; delete them with: sinew del --prefix {prefix}");
        }
        if let Some(history) = &self.history {
            let _ = writeln!(text, "the history is in {history}");
        }
    }

    fn json(&self) -> Value {
        json!({
            "clients": self.clients,
            "endpoints": self.endpoints,
            "seconds": self.lasted.as_secs_f64(),
            "writes": self.counts.writes,
            "watches": self.counts.watches,
            "events": self.counts.events,
            "leases": self.counts.leases,
            "locks": self.counts.locks,
            "longest_gap_seconds": self.counts.longest_gap.as_secs_f64(),
            "leader_changes": self.leader_changes,
            "faults": self.faults,
            "came_back": self.came_back,
            "left_behind": self.left_behind,
            "history": self.history,
        })
    }
}
