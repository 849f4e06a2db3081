//! What a client may ask.
//!
//! Invariant: the fields, their names and their meaning are those of the wire protocol. What is left out of JSON is
//! zero, empty or false.

use serde::{Deserialize, Serialize};

use super::{Bytes, Revision};
use crate::span::Span;

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Reads.
    Range(Range),
    /// Writes one key.
    Put(Put),
    /// Deletes the keys of a range.
    DeleteRange(DeleteRange),
    /// Compares, then one of two lists of operations.
    Txn(Txn),
    /// Raises the compaction floor.
    Compact(Compact),
    /// One watch, from its creation to its end; the response has what was delivered.
    Watch(Watch),
    /// A request about a lease.
    Lease(Lease),
    /// A request about a lock. What the recipe behind it asks of the store is recorded by itself.
    Lock(Lock),
}

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As fresh as anything acknowledged before it was invoked (etcd's linearizable).
    #[default]
    Strict,
    /// Whatever the contacted node has.
    Serializable,
    /// Whatever the contacted node has, once it is at this revision.
    Session {
        /// The least revision of the answer.
        min_revision: Revision,
    },
}

impl Level {
    fn fresher(self, other: Self) -> Self {
        match (self, other) {
            (Self::Strict, _) | (_, Self::Strict) => Self::Strict,
            (Self::Session { min_revision: one }, Self::Session { min_revision: two }) => {
                Self::Session { min_revision: one.max(two) }
            }
            (session @ Self::Session { .. }, Self::Serializable)
            | (Self::Serializable, session @ Self::Session { .. }) => session,
            (Self::Serializable, Self::Serializable) => Self::Serializable,
        }
    }
}

/// Reads a range.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Range {
    /// First key.
    pub key: Bytes,
    /// Empty: the key alone; one zero byte: all keys from `key` on; else the key behind the last.
    #[serde(skip_serializing_if = "is_default")]
    pub range_end: Bytes,
    /// Most pairs to return; 0 means all.
    #[serde(skip_serializing_if = "is_default")]
    pub limit: i64,
    /// The state at this revision; 0 means the latest.
    #[serde(skip_serializing_if = "is_default")]
    pub revision: Revision,
    /// How fresh. In a transaction it counts only if all its operations are reads: it is then as fresh as the freshest
    /// of them.
    #[serde(skip_serializing_if = "is_default")]
    pub level: Level,
    /// Direction of the sort.
    #[serde(skip_serializing_if = "is_default")]
    pub sort_order: SortOrder,
    /// Field of the sort.
    #[serde(skip_serializing_if = "is_default")]
    pub sort_target: SortTarget,
    /// Leave out values.
    #[serde(skip_serializing_if = "is_default")]
    pub keys_only: bool,
    /// Only count.
    #[serde(skip_serializing_if = "is_default")]
    pub count_only: bool,
    /// Leave out pairs modified before; 0 is off.
    #[serde(skip_serializing_if = "is_default")]
    pub min_mod_revision: Revision,
    /// Leave out pairs modified after; 0 is off.
    #[serde(skip_serializing_if = "is_default")]
    pub max_mod_revision: Revision,
    /// Leave out pairs created before; 0 is off.
    #[serde(skip_serializing_if = "is_default")]
    pub min_create_revision: Revision,
    /// Leave out pairs created after; 0 is off.
    #[serde(skip_serializing_if = "is_default")]
    pub max_create_revision: Revision,
}

/// Direction of a sort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SortOrder {
    /// Key order; ascending if the target is not the key.
    #[default]
    None,
    /// Smallest first.
    Ascend,
    /// Largest first.
    Descend,
}

/// Field of a sort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SortTarget {
    /// The key.
    #[default]
    Key,
    /// The version.
    Version,
    /// The revision of creation.
    Create,
    /// The revision of the last put.
    Mod,
    /// The value.
    Value,
}

/// Writes one key.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Put {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// The lease; 0 is none.
    #[serde(skip_serializing_if = "is_default")]
    pub lease: i64,
    /// Answer with the pair that was replaced.
    #[serde(skip_serializing_if = "is_default")]
    pub prev_kv: bool,
    /// Keep the value; the key must exist.
    #[serde(skip_serializing_if = "is_default")]
    pub ignore_value: bool,
    /// Keep the lease; the key must exist.
    #[serde(skip_serializing_if = "is_default")]
    pub ignore_lease: bool,
}

/// Deletes the keys of a range.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeleteRange {
    /// First key.
    pub key: Bytes,
    /// See [`Range::range_end`].
    #[serde(skip_serializing_if = "is_default")]
    pub range_end: Bytes,
    /// Answer with the deleted pairs.
    #[serde(skip_serializing_if = "is_default")]
    pub prev_kv: bool,
}

/// Compares, then one of two lists of operations, atomically.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Txn {
    /// All must hold for `success`; judged against the state before the outermost transaction.
    #[serde(skip_serializing_if = "is_default")]
    pub compares: Vec<Compare>,
    /// Runs when every compare holds.
    #[serde(skip_serializing_if = "is_default")]
    pub success: Vec<Op>,
    /// Runs otherwise.
    #[serde(skip_serializing_if = "is_default")]
    pub failure: Vec<Op>,
}

impl Txn {
    /// Adds the keys that it may attach to a lease.
    pub(crate) fn attached<'a>(&'a self, keys: &mut std::collections::BTreeSet<&'a Bytes>) {
        for op in self.success.iter().chain(&self.failure) {
            match op {
                Op::Put(put) if put.lease != 0 => drop(keys.insert(&put.key)),
                Op::Txn(nested) => nested.attached(keys),
                Op::Put(_) | Op::Range(_) | Op::DeleteRange(_) => {}
            }
        }
    }

    /// Whether no list of it can write.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.success.iter().chain(&self.failure).all(|op| match op {
            Op::Range(_) => true,
            Op::Txn(nested) => nested.is_read_only(),
            Op::Put(_) | Op::DeleteRange(_) => false,
        })
    }

    /// The keys it names in compares and operations of any list, nested ones too.
    fn spans<'a>(&'a self, spans: &mut Vec<Span<'a>>) {
        spans.extend(self.compares.iter().map(|compare| Span::new(&compare.key, &compare.range_end)));
        for op in self.success.iter().chain(&self.failure) {
            match op {
                Op::Range(range) => spans.push(Span::new(&range.key, &range.range_end)),
                Op::Put(put) => spans.push(Span::Key(&put.key)),
                Op::DeleteRange(delete) => spans.push(Span::new(&delete.key, &delete.range_end)),
                Op::Txn(nested) => nested.spans(spans),
            }
        }
    }

    fn freshest(&self) -> Option<Level> {
        let levels = self.success.iter().chain(&self.failure).filter_map(|op| match op {
            Op::Range(range) => Some(range.level),
            Op::Txn(nested) => nested.freshest(),
            Op::Put(_) | Op::DeleteRange(_) => Some(Level::Strict),
        });
        levels.reduce(Level::fresher)
    }
}

impl Request {
    /// All keys it names.
    #[must_use]
    pub fn spans(&self) -> Vec<Span<'_>> {
        match self {
            Self::Range(range) => vec![Span::new(&range.key, &range.range_end)],
            Self::Put(put) => vec![Span::Key(&put.key)],
            Self::DeleteRange(delete) => vec![Span::new(&delete.key, &delete.range_end)],
            Self::Txn(txn) => {
                let mut spans = Vec::new();
                txn.spans(&mut spans);
                spans
            }
            Self::Compact(_) | Self::Watch(_) | Self::Lease(_) | Self::Lock(_) => Vec::new(),
        }
    }

    /// The keys that it may attach to a lease.
    pub(crate) fn attached(&self) -> std::collections::BTreeSet<&Bytes> {
        let mut keys = std::collections::BTreeSet::new();
        match self {
            Self::Put(put) if put.lease != 0 => drop(keys.insert(&put.key)),
            Self::Txn(txn) => txn.attached(&mut keys),
            Self::Put(_)
            | Self::Range(_)
            | Self::DeleteRange(_)
            | Self::Compact(_)
            | Self::Watch(_)
            | Self::Lease(_)
            | Self::Lock(_) => {}
        }
        keys
    }

    /// Whether it can change keys.
    #[must_use]
    pub fn may_write(&self) -> bool {
        match self {
            Self::Put(_) | Self::DeleteRange(_) => true,
            Self::Txn(txn) => !txn.is_read_only(),
            Self::Range(_) | Self::Compact(_) | Self::Watch(_) | Self::Lease(_) | Self::Lock(_) => false,
        }
    }

    /// How fresh the answer must be. Whatever may write is strict.
    #[must_use]
    pub fn level(&self) -> Level {
        match self {
            Self::Range(range) => range.level,
            Self::Txn(txn) => txn.freshest().unwrap_or(Level::Strict),
            Self::Put(_)
            | Self::DeleteRange(_)
            | Self::Compact(_)
            | Self::Watch(_)
            | Self::Lease(_)
            | Self::Lock(_) => Level::Strict,
        }
    }
}

/// One operation of a transaction. Each sees those before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// A read.
    Range(Range),
    /// A write.
    Put(Put),
    /// A delete.
    DeleteRange(DeleteRange),
    /// A nested transaction.
    Txn(Txn),
}

/// A condition on one key, or on every key of a range; an empty range is judged like a missing key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compare {
    /// First key.
    pub key: Bytes,
    /// See [`Range::range_end`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub range_end: Bytes,
    /// "Stored field *result* operand".
    pub result: CompareResult,
    /// The field, with the operand.
    pub target: CompareTarget,
}

/// A relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompareResult {
    /// Equal.
    Equal,
    /// Stored is greater.
    Greater,
    /// Stored is less.
    Less,
    /// Different.
    NotEqual,
}

/// A field of a key, with the operand. A missing key has all numbers zero.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompareTarget {
    /// Number of puts since creation.
    Version(i64),
    /// Revision of creation.
    Create(Revision),
    /// Revision of the last put.
    Mod(Revision),
    /// The value; a missing key never passes, whatever the relation.
    Value(Bytes),
    /// The lease.
    Lease(i64),
}

/// Raises the compaction floor.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compact {
    /// The new floor.
    pub revision: Revision,
}

/// One watch.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Watch {
    /// First key.
    pub key: Bytes,
    /// See [`Range::range_end`].
    #[serde(skip_serializing_if = "is_default")]
    pub range_end: Bytes,
    /// First revision to deliver; 0 means from now on.
    #[serde(skip_serializing_if = "is_default")]
    pub start_revision: Revision,
    /// Deliver the pair before each event.
    #[serde(skip_serializing_if = "is_default")]
    pub prev_kv: bool,
    /// Leave out puts.
    #[serde(skip_serializing_if = "is_default")]
    pub no_put: bool,
    /// Leave out deletes.
    #[serde(skip_serializing_if = "is_default")]
    pub no_delete: bool,
}

/// A request about a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lease {
    /// Make one.
    Grant {
        /// Its number; 0 lets the server choose.
        id: i64,
        /// Seconds to live without renewal.
        ttl: i64,
    },
    /// End it, and delete its keys.
    Revoke {
        /// Its number.
        id: i64,
    },
    /// Renew it.
    KeepAlive {
        /// Its number.
        id: i64,
    },
    /// Ask how much it has left.
    TimeToLive {
        /// Its number.
        id: i64,
    },
    /// The store ended these by itself, at one revision, because their time was up. Nobody asks for it: it is recorded
    /// by whoever can see inside, and there is a record of every such end if there is one of any.
    Expire {
        /// Their numbers.
        ids: Vec<i64>,
    },
}

impl Lease {
    /// The leases that it ends, and their keys with them.
    #[must_use]
    pub fn ended(&self) -> &[i64] {
        match self {
            Self::Revoke { id } => std::slice::from_ref(id),
            Self::Expire { ids } => ids,
            Self::Grant { .. } | Self::KeepAlive { .. } | Self::TimeToLive { .. } => &[],
        }
    }
}

/// A request about a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lock {
    /// Wait until it is ours.
    Acquire {
        /// Name of the lock.
        name: Bytes,
        /// Lease it ends with.
        lease: i64,
    },
    /// Give it back.
    Release {
        /// The holder's key.
        key: Bytes,
    },
}
