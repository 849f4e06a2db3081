//! What a client was told.
//!
//! Invariant: a response is complete, as the wire has it; a pair is what the store said, not what was expected.

use serde::{Deserialize, Serialize};

use super::{Bytes, Op, Request, Revision, Txn};

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// Answered.
    Done {
        /// The revision in the answer's header.
        revision: Revision,
        /// The answer.
        response: Response,
    },
    /// Surely not done.
    Failed {
        /// The words of the refusal.
        reason: String,
    },
    /// Done at some time after it was invoked, or never.
    Unknown,
}

/// A pair with everything stored about it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value; empty when only keys were asked for.
    #[serde(default)]
    pub value: Bytes,
    /// Revision of the put that created it.
    #[serde(rename = "create")]
    pub create_revision: Revision,
    /// Revision of the last put.
    #[serde(rename = "mod")]
    pub mod_revision: Revision,
    /// Puts since creation.
    pub version: i64,
    /// The lease; 0 is none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub lease: i64,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Response {
    /// To a read.
    Range {
        /// The pairs, in the order of the answer.
        #[serde(default, skip_serializing_if = "is_default")]
        kvs: Vec<KeyValue>,
        /// Whether the limit cut pairs off.
        #[serde(default, skip_serializing_if = "is_default")]
        more: bool,
        /// All keys in the range, whatever limit and filters say.
        #[serde(default)]
        count: i64,
    },
    /// To a put.
    Put {
        /// The pair that was replaced, if asked for and there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        prev_kv: Option<KeyValue>,
    },
    /// To a delete.
    DeleteRange {
        /// Number of keys deleted.
        deleted: i64,
        /// The deleted pairs, if asked for.
        #[serde(default, skip_serializing_if = "is_default")]
        prev_kvs: Vec<KeyValue>,
    },
    /// To a transaction.
    Txn {
        /// Whether all compares held.
        succeeded: bool,
        /// One answer per operation of the chosen list.
        #[serde(default, skip_serializing_if = "is_default")]
        responses: Vec<Response>,
    },
    /// To a compaction.
    Compact {},
    /// What a watch delivered, in order.
    Watch {
        /// The deliveries.
        batches: Vec<WatchBatch>,
    },
    /// To a request about a lease.
    Lease {
        /// Its number.
        id: i64,
        /// Seconds to live; 0 or less when it does not exist.
        ttl: i64,
    },
    /// To a request about a lock.
    Lock {
        /// The holder's key.
        key: Bytes,
        /// The fencing token: the create revision of that key. In the answer to a release 0, if it was gone already.
        token: Revision,
    },
}

/// One delivery of a watch.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WatchBatch {
    /// When it arrived, on the clock of the history.
    pub at: u64,
    /// The revision in the header.
    pub revision: Revision,
    /// Set in the first answer: the watch stands.
    #[serde(skip_serializing_if = "is_default")]
    pub created: bool,
    /// What happened. A batch without events that is neither creation nor end tells progress: everything up to its
    /// revision has been delivered. What was split into fragments is one batch.
    #[serde(skip_serializing_if = "is_default")]
    pub events: Vec<Event>,
    /// Set when the server ended the watch because it needs history below this floor.
    #[serde(skip_serializing_if = "is_default")]
    pub compact_revision: Revision,
    /// Set when the server ended the watch for another reason: its words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<String>,
}

impl WatchBatch {
    /// Whether the server ended the watch with it.
    #[must_use]
    pub fn is_end(&self) -> bool {
        self.compact_revision != 0 || self.cancelled.is_some()
    }
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// Created or overwritten.
    Put {
        /// The new pair.
        kv: KeyValue,
        /// The pair before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        prev_kv: Option<KeyValue>,
    },
    /// Deleted.
    Delete {
        /// The key.
        key: Bytes,
        /// The revision of the delete.
        #[serde(rename = "mod")]
        mod_revision: Revision,
        /// The pair before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        prev_kv: Option<KeyValue>,
    },
}

impl Event {
    /// The key that changed.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put { kv, .. } => &kv.key,
            Self::Delete { key, .. } => key,
        }
    }

    /// The revision that changed it.
    #[must_use]
    pub fn revision(&self) -> Revision {
        match self {
            Self::Put { kv, .. } => kv.mod_revision,
            Self::Delete { mod_revision, .. } => *mod_revision,
        }
    }

    /// The pair before, if it was delivered.
    #[must_use]
    pub fn before(&self) -> Option<&KeyValue> {
        let (Self::Put { prev_kv, .. } | Self::Delete { prev_kv, .. }) = self;
        prev_kv.as_ref()
    }
}

impl Response {
    /// Whether this can be an answer to `request` at all: the same kind, and as many parts.
    ///
    /// # Errors
    /// A sentence.
    pub fn answers(&self, request: &Request) -> Result<(), String> {
        match (request, self) {
            (Request::Range(_), Self::Range { .. })
            | (Request::Put(_), Self::Put { .. })
            | (Request::DeleteRange(_), Self::DeleteRange { .. })
            | (Request::Compact(_), Self::Compact {})
            | (Request::Watch(_), Self::Watch { .. })
            | (Request::Lease(_), Self::Lease { .. })
            | (Request::Lock(_), Self::Lock { .. }) => Ok(()),
            (Request::Txn(txn), Self::Txn { succeeded, responses }) => answers_txn(txn, *succeeded, responses),
            _ => Err("the response is of another kind than the request".to_owned()),
        }
    }
}

fn answers_txn(txn: &Txn, succeeded: bool, responses: &[Response]) -> Result<(), String> {
    let ops = if succeeded { &txn.success } else { &txn.failure };
    if ops.len() != responses.len() {
        return Err(format!("{} responses to {} operations of the transaction", responses.len(), ops.len()));
    }
    for (op, response) in ops.iter().zip(responses) {
        match (op, response) {
            (Op::Range(_), Response::Range { .. })
            | (Op::Put(_), Response::Put { .. })
            | (Op::DeleteRange(_), Response::DeleteRange { .. }) => {}
            (Op::Txn(nested), Response::Txn { succeeded, responses }) => answers_txn(nested, *succeeded, responses)?,
            _ => return Err("a response in the transaction is of another kind than its operation".to_owned()),
        }
    }
    Ok(())
}
