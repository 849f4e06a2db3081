//! What clients asked and were told.
//!
//! Invariant: an outcome claims no more than the client knows. `Done` and `Failed` are certain; whatever is not is
//! `Unknown`, and an unknown write may take effect at any later time, or never. Keys that a history names do not exist
//! before its first operation, and nobody outside it writes them.

mod bytes;
mod file;
mod request;
mod response;
mod show;

use serde::{Deserialize, Serialize};

pub use bytes::Bytes;
pub use file::{FORMAT, LINE_BYTES_MAX, ReadError, Reader, VERSION, Writer, read};
pub use request::{
    Compact, Compare, CompareResult, CompareTarget, DeleteRange, Lease, Level, Lock, Op, Put, Range, Request,
    SortOrder, SortTarget, Txn, Watch,
};
pub use response::{Event, KeyValue, Outcome, Response, WatchBatch};

/// A revision of the store.
pub type Revision = i64;

/// A recorded history.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// What holds for all of it.
    pub header: Header,
    /// What was asked and answered, in any order.
    pub operations: Vec<Operation>,
}

/// What holds for a whole history. Only what a checker needs and cannot see in the operations.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Header {
    /// Names of the nodes, for messages: the node 0 of an operation is the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// The store's revision before the first operation; 1 for a fresh store, 0 when not known.
    #[serde(default)]
    pub start_revision: Revision,
    /// Whether every revision must be accounted for.
    #[serde(default)]
    pub numbering: Numbering,
    /// Keys whose values mean something to a checker.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workloads: Vec<Workload>,
}

/// How revisions are numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Numbering {
    /// They rise, with gaps: other clients write too, or the store has several partitions.
    #[default]
    Rising,
    /// Each modification takes the next number, and all of them, from `start_revision` on, are in this history.
    Dense,
}

/// A kind of load whose keys have a meaning beyond "some value". Keys belong to it by their prefix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Workload {
    /// Values are lists: decimal numbers between commas, each appended at most once by one transaction, which reads
    /// the list it extends.
    ListAppend {
        /// What its keys begin with.
        prefix: Bytes,
    },
    /// Values are decimal balances; transactions move amounts, and the sum of all accounts never changes once they are
    /// there.
    Bank {
        /// What its keys begin with.
        prefix: Bytes,
        /// Number of accounts.
        accounts: u64,
        /// The sum.
        total: i64,
    },
    /// Keys come in pairs, `…/a` and `…/b`; a transaction that saw neither creates one. There are never both.
    WriteSkew {
        /// What its keys begin with.
        prefix: Bytes,
    },
    /// Keys are created, each on its own, and never changed: all reads must agree on the order.
    LongFork {
        /// What its keys begin with.
        prefix: Bytes,
    },
    /// Keys that only holders of a lock write: values are their fencing tokens, decimal numbers, and never fall.
    Fence {
        /// What its keys begin with.
        prefix: Bytes,
    },
}

/// One request and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// Unique in the history; messages name it.
    pub id: u64,
    /// Who asked.
    pub client: u64,
    /// Which node was asked.
    pub node: u64,
    /// Number of the client's connection to that node. A connection made anew has another number: what a node promises
    /// from one answer to the next (serializable reads never go back) holds within a connection.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub connection: u64,
    /// When the request was about to be sent: nanoseconds of one monotonic clock that all clients share.
    pub invoked: u64,
    /// When the answer was there. `None` when none came; for an unknown outcome it bounds nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returned: Option<u64>,
    /// What was asked.
    pub request: Request,
    /// What became of it.
    pub outcome: Outcome,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde wants")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Operation {
    /// The revision in the answer's header, if there was an answer.
    #[must_use]
    pub fn revision(&self) -> Option<Revision> {
        match &self.outcome {
            Outcome::Done { revision, .. } => Some(*revision),
            Outcome::Failed { .. } | Outcome::Unknown => None,
        }
    }

    /// The answer, if there was one.
    #[must_use]
    pub fn response(&self) -> Option<&Response> {
        match &self.outcome {
            Outcome::Done { response, .. } => Some(response),
            Outcome::Failed { .. } | Outcome::Unknown => None,
        }
    }

    /// Whether nobody knows what became of it.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.outcome == Outcome::Unknown
    }

    /// What is wrong with the record itself, whatever the store did.
    ///
    /// # Errors
    /// A sentence without the place.
    pub fn validate(&self) -> Result<(), String> {
        if let Some(returned) = self.returned
            && returned < self.invoked
        {
            return Err(format!("returned ({returned}) before it was invoked ({})", self.invoked));
        }
        match &self.outcome {
            Outcome::Unknown => Ok(()),
            Outcome::Failed { .. } if self.returned.is_none() => Err("failed, but `returned` is missing".to_owned()),
            Outcome::Failed { .. } => Ok(()),
            Outcome::Done { .. } if self.returned.is_none() => Err("done, but `returned` is missing".to_owned()),
            Outcome::Done { response, .. } => response.answers(&self.request),
        }
    }
}

impl History {
    /// What is wrong with the records themselves, whatever the store did.
    ///
    /// # Errors
    /// A sentence that names the operation.
    pub fn validate(&self) -> Result<(), String> {
        let mut ids = std::collections::BTreeSet::new();
        for operation in &self.operations {
            if !ids.insert(operation.id) {
                return Err(format!("operation {} is there twice", operation.id));
            }
            operation.validate().map_err(|reason| format!("operation {}: {reason}", operation.id))?;
        }
        Ok(())
    }

    /// The name of a node for messages.
    #[must_use]
    pub fn node_name(&self, node: u64) -> String {
        let named = usize::try_from(node).ok().and_then(|at| self.header.nodes.get(at));
        named.cloned().unwrap_or_else(|| format!("node {node}"))
    }
}
