//! What can be asked of a history, and what the answer can be.
//!
//! Invariant: "impossible" is a proof, "possible" says that this property holds, and everything else is "undecided",
//! which whoever runs a check must treat as a failure.

use std::fmt;

use crate::history::{History, Numbering};

/// A property a history must have. Each has a file of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Property {
    /// Replayed in the order of its revisions, every answer comes out as it was given.
    RevisionOrder,
    /// Key by key there is an order that respects time, whatever the revisions say.
    Linearizable,
    /// Transactions on lists have no cycle of dependencies and time.
    ListAppend,
    /// The sum of all accounts never changes.
    Bank,
    /// Of each pair at most one key exists.
    WriteSkew,
    /// All reads agree on the order in which keys appeared.
    LongFork,
    /// Within a connection answers never go back, and a session's least revision is kept.
    Session,
    /// Reads of the past are exact, and refused only with reason.
    Snapshot,
    /// Watches deliver everything once, in order.
    Watch,
    /// Leases end neither early nor in parts.
    Lease,
    /// A lock has one holder, who keeps it as long as it may; tokens rise, and nothing is done under one that is over.
    Lock,
    /// Transactions over several partitions happen at one revision. Not yet.
    CrossPartition,
}

impl Property {
    /// All of them, in the order in which they are checked.
    pub const ALL: [Self; 12] = [
        Self::RevisionOrder,
        Self::Linearizable,
        Self::ListAppend,
        Self::Bank,
        Self::WriteSkew,
        Self::LongFork,
        Self::Session,
        Self::Snapshot,
        Self::Watch,
        Self::Lease,
        Self::Lock,
        Self::CrossPartition,
    ];

    /// Whether there is a checker. The others have a name so that nobody takes their absence for a verdict.
    #[must_use]
    pub const fn is_checked(self) -> bool {
        match self {
            Self::RevisionOrder
            | Self::Linearizable
            | Self::ListAppend
            | Self::Bank
            | Self::WriteSkew
            | Self::LongFork
            | Self::Session
            | Self::Snapshot
            | Self::Watch
            | Self::Lease
            | Self::Lock => true,
            Self::CrossPartition => false,
        }
    }

    /// Its name in words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RevisionOrder => "revision-order",
            Self::Linearizable => "linearizable",
            Self::ListAppend => "list-append",
            Self::Bank => "bank",
            Self::WriteSkew => "write-skew",
            Self::LongFork => "long-fork",
            Self::Session => "session",
            Self::Snapshot => "snapshot",
            Self::Watch => "watch",
            Self::Lease => "lease",
            Self::Lock => "lock",
            Self::CrossPartition => "cross-partition",
        }
    }

    /// What it promises, in a sentence.
    #[must_use]
    pub const fn promise(self) -> &'static str {
        match self {
            Self::RevisionOrder => "replayed in revision order, every answer comes out as it was given",
            Self::Linearizable => "key by key there is an order that respects time, whatever the revisions say",
            Self::ListAppend => "transactions on lists have no cycle of dependencies and time",
            Self::Bank => "the sum of all accounts never changes",
            Self::WriteSkew => "of each pair at most one key exists",
            Self::LongFork => "all reads agree on the order in which keys appeared",
            Self::Session => "answers never go back within a connection, and a least revision is kept",
            Self::Snapshot => "reads of the past are exact, and refused only with reason",
            Self::Watch => "watches deliver everything once, in order",
            Self::Lease => "leases end neither early nor in parts",
            Self::Lock => "a lock has one holder, who keeps it; tokens rise; old ones do nothing",
            Self::CrossPartition => "transactions over several partitions happen at one revision",
        }
    }
}

impl fmt::Display for Property {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Whether a history can have come from a correct store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It can, as far as the property goes.
    Possible {
        /// Operations the property had something to say about; 0 means that nothing was tested.
        judged: usize,
    },
    /// It cannot.
    Impossible(Impossible),
    /// Nobody knows: the search was too long, or the history holds what is not understood.
    Undecided {
        /// Why.
        why: String,
    },
}

/// Why a history cannot be true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Impossible {
    /// In a sentence.
    pub reason: String,
    /// Ids of the operations that contradict each other, the main one first.
    pub operations: Vec<u64>,
}

impl Impossible {
    pub(crate) fn new(reason: impl Into<String>, operations: impl IntoIterator<Item = u64>) -> Self {
        Self { reason: reason.into(), operations: operations.into_iter().collect() }
    }

    /// The reason, and below it the operations, each in a line.
    #[must_use]
    pub fn explain(&self, history: &History) -> String {
        let mut text = self.reason.clone();
        for id in &self.operations {
            if let Some(operation) = history.operations.iter().find(|operation| operation.id == *id) {
                text.push_str(&format!("\n  {operation}"));
            }
        }
        text
    }
}

impl From<Impossible> for Verdict {
    fn from(impossible: Impossible) -> Self {
        Self::Impossible(impossible)
    }
}

impl Verdict {
    /// Whether the history passed.
    #[must_use]
    pub const fn is_possible(&self) -> bool {
        matches!(self, Self::Possible { .. })
    }

    /// Whether the history was refuted.
    #[must_use]
    pub const fn is_impossible(&self) -> bool {
        matches!(self, Self::Impossible(_))
    }
}

/// How to check. The default fits histories of a million operations on a laptop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Numbering to check for, if not the header's.
    pub numbering: Option<Numbering>,
    /// Steps a search may take before it is undecided.
    pub search_steps_max: u64,
    /// Configurations a search may remember before it is undecided; bounds memory.
    pub search_memory_max: usize,
    /// Histories of at most this many operations are searched whole, not key by key.
    pub whole_operations_max: usize,
    /// By how much a node's clock may run fast against the one of the history, in percent: so much earlier a lease may
    /// end. By default a node may be one percent fast and the recorder one percent slow.
    pub clock_error_percent: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            numbering: None,
            search_steps_max: 5_000_000,
            search_memory_max: 1_000_000,
            whole_operations_max: 64,
            clock_error_percent: 2,
        }
    }
}
