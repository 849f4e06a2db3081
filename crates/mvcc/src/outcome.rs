//! What applying a command produced: the answer for the client and the changes for watches.
//!
//! Invariant: an outcome is a function of the log prefix, so any member's is the right one. The bytes (outcomes travel
//! from the applying node to the one that holds the client) are in `outcome_codec`.

use base::{LeaseId, Revision};
use bytes::Bytes;

use crate::reject::Reject;

/// A key with everything stored about it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// Revision of the put that created it.
    pub create_revision: Revision,
    /// Revision of the last put.
    pub mod_revision: Revision,
    /// Puts since creation: 1 when just created.
    pub version: i64,
    /// The lease it is attached to; 0 is none.
    pub lease: LeaseId,
    /// The value.
    pub value: Bytes,
}

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// Created or overwritten.
    Put,
    /// Deleted.
    Delete,
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The pair as put; of a delete the key and `mod_revision` alone.
    pub kv: KeyValue,
    /// The pair before this revision; none for a key that was just created, or when it has been compacted.
    pub prev_kv: Option<KeyValue>,
}

/// Everything that happened at one revision, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The revision.
    pub revision: Revision,
    /// The events; never empty.
    pub events: Vec<Event>,
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Revision for the answer's header: that of the command if it changed anything, the current one otherwise.
    pub revision: Revision,
    /// The answer proper.
    pub result: OutcomeResult,
}

/// The answer to a command, by kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutcomeResult {
    /// Done, but the answer would be too large. What was to be written is written: a retry would do it again.
    AnswerTooLarge,
    /// To a put.
    Put(PutResult),
    /// To a delete.
    DeleteRange(DeleteResult),
    /// To a transaction.
    Txn(TxnResult),
    /// To a compaction.
    Compact(CompactResult),
    /// To a grant of a lease.
    LeaseGrant(LeaseGrantResult),
    /// To the end of a lease.
    LeaseRevoke,
    /// To leases running out: how many there were of them.
    LeaseExpire(u64),
    /// To leases' time written down: how many there were of them.
    LeaseCheckpoint(u64),
    /// To an alarm: whether it was not as asked before.
    Alarm(bool),
    /// To a change of what is written down about a member.
    Member,
    /// Refused; nothing was changed.
    Rejected(Reject),
}

/// The answer to a put.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PutResult {
    /// The pair that was replaced, if asked for.
    pub prev_kv: Option<KeyValue>,
}

/// The answer to a delete.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeleteResult {
    /// Number of keys deleted.
    pub deleted: i64,
    /// The deleted pairs in key order, if asked for.
    pub prev_kvs: Vec<KeyValue>,
}

/// The answer to a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TxnResult {
    /// Whether all compares held.
    pub succeeded: bool,
    /// One answer per operation of the chosen list.
    pub responses: Vec<OpOutcome>,
}

/// The answer to one operation of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpOutcome {
    /// Revision for the operation's own header. A nested transaction has 0 there: etcd leaves that header empty.
    pub revision: Revision,
    /// The answer proper.
    pub result: OpResult,
}

/// The answer to one operation of a transaction, by kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpResult {
    /// To a read.
    Range(RangeResult),
    /// To a put.
    Put(PutResult),
    /// To a delete.
    DeleteRange(DeleteResult),
    /// To a nested transaction.
    Txn(TxnResult),
}

/// The answer to a read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RangeResult {
    /// The pairs, sorted as asked.
    pub kvs: Vec<KeyValue>,
    /// Whether the limit cut pairs off.
    pub more: bool,
    /// All keys in the range at that revision, whatever limit and filters say.
    pub count: i64,
}

/// The answer to a compaction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CompactResult {
    /// The floor that now holds.
    pub compacted: Revision,
}

/// The answer to a grant of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeaseGrantResult {
    /// The lease.
    pub id: LeaseId,
    /// Seconds it lives without a renewal.
    pub ttl_s: i64,
}
