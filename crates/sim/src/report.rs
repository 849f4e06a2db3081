//! How a run went.

use std::collections::BTreeMap;
use std::fmt;

use crate::counters::Counters;
use crate::fault::FaultKind;
use crate::history::Operation;
use crate::timeline::Timeline;
use crate::trace::Line;

/// Which check failed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FailureKind {
    /// A promise left a node before what it rests on was synced.
    Durability,
    /// Replicas disagree: two leaders of a ballot, two values of a slot, two states at an index.
    Agreement,
    /// A node came back without what it had promised, or reads something else than it wrote.
    Recovery,
    /// A request was answered twice, or by the wrong node.
    Answers,
    /// A message cannot be read.
    Wire,
    /// A node stopped and nothing had been done to it.
    Stopped,
    /// No progress although a quorum is well.
    Availability,
    /// Not everything is finished long after the healing.
    Liveness,
    /// The answers to the clients cannot all be true.
    History,
    /// An assertion of the code under test.
    Panic,
    /// Hardly anything worked, so nothing was tested.
    Vacuous,
}

/// A check that failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// World time in microseconds, if it belongs to a moment.
    pub at: Option<u64>,
    /// Which check.
    pub kind: FailureKind,
    /// What does not hold.
    pub detail: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)?;
        if let Some(at) = self.at {
            write!(f, " at {}.{:06}", at / 1_000_000, at % 1_000_000)?;
        }
        write!(f, ": {}", self.detail)
    }
}

/// The judgement of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Every check held.
    Passed,
    /// The first that did not.
    Failed(Failure),
}

impl Verdict {
    /// The failure, if there is one.
    #[must_use]
    pub const fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Passed => None,
            Self::Failed(failure) => Some(failure),
        }
    }
}

/// Everything known about a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// The judgement.
    pub verdict: Verdict,
    /// Equal if two runs did the same.
    pub trace_hash: u64,
    /// Simulated time in microseconds.
    pub simulated_us: u64,
    /// What was seen how often.
    pub counters: Counters,
    /// Faults planned and their effects, by kind.
    pub effects: BTreeMap<FaultKind, (u64, u64)>,
    /// What clients asked and were told.
    pub history: Vec<Operation>,
    /// The same as the crate `check` reads it. Where a client was told nothing, the log says what became of it.
    pub recorded: check::History,
    /// Who led, was down, stood still.
    pub timeline: Timeline,
    /// A line for each event, if asked for.
    pub lines: Vec<Line>,
}
