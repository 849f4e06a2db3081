//! The checks that need no store: everything etcd refuses before it proposes, in etcd's order.
//!
//! Invariant: a command that passes writes every key at most once per executed path, up to the two gaps etcd itself has
//! (see [`written_keys`]). The machine runs the same checks again, without limits on counts, because a log may hold
//! what another release let through.

use std::collections::BTreeSet;

use base::limits::{KEY_BYTES_MAX, LEASE_TTL_S_MAX, TXN_DEPTH_MAX, TXN_OPS_MAX};
use bytes::Bytes;

use crate::command::{Command, DeleteRange, LeaseGrant, Op, Put, RangeRequest, SortOrder, SortTarget, Txn};
use crate::reject::Reject;

/// Operations and compares in one command, all nesting levels together. Keeps the memory of a decoded command in
/// proportion to its bytes.
pub const TXN_OPS_TOTAL_MAX: usize = 16_384;

/// Bounds a node sets for its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Operations per list of a transaction; a nested level gets what the outer one left over.
    pub txn_ops_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { txn_ops_max: TXN_OPS_MAX }
    }
}

impl Limits {
    /// Only the bounds all nodes share: what the machine checks.
    pub(crate) const SHARED: Self = Self { txn_ops_max: usize::MAX };
}

impl Command {
    /// The static checks, in etcd's order.
    pub fn validate(&self, limits: &Limits) -> Result<(), Reject> {
        match self {
            Self::Put(put) => put.validate(),
            Self::DeleteRange(delete) => delete.validate(),
            Self::Txn(txn) => txn.validate(limits),
            Self::LeaseGrant(grant) => grant.validate(),
            Self::Compact(_)
            | Self::LeaseRevoke(_)
            | Self::LeaseExpire(_)
            | Self::LeaseCheckpoint(_)
            | Self::Alarm(_)
            | Self::Member(_) => Ok(()),
        }
    }
}

impl RangeRequest {
    /// The static checks, in etcd's order.
    pub fn validate(&self) -> Result<(), Reject> {
        check_span(&self.key, &self.range_end)?;
        if self.sort_order == SortOrder::Unknown || self.sort_target == SortTarget::Unknown {
            return Err(Reject::InvalidSortOption);
        }
        Ok(())
    }
}

impl Put {
    /// The static checks, in etcd's order.
    pub fn validate(&self) -> Result<(), Reject> {
        check_span(&self.key, &Bytes::new())?;
        if self.ignore_value && !self.value.is_empty() {
            return Err(Reject::ValueProvided);
        }
        if self.ignore_lease && self.lease.0 != 0 {
            return Err(Reject::LeaseProvided);
        }
        Ok(())
    }
}

impl DeleteRange {
    /// The static checks.
    pub fn validate(&self) -> Result<(), Reject> {
        check_span(&self.key, &self.range_end)
    }
}

impl LeaseGrant {
    /// The static checks.
    pub fn validate(&self) -> Result<(), Reject> {
        if self.id.0 == 0 {
            return Err(Reject::LeaseNotFound);
        }
        if self.ttl_s > LEASE_TTL_S_MAX {
            return Err(Reject::LeaseTtlTooLarge);
        }
        Ok(())
    }
}

impl Txn {
    /// The static checks, in etcd's order: counts, keys and options of every level, then duplicate keys.
    pub fn validate(&self, limits: &Limits) -> Result<(), Reject> {
        let mut total = 0;
        validate_level(self, limits.txn_ops_max, 0, &mut total)?;
        written_keys(&self.success)?;
        written_keys(&self.failure)?;
        Ok(())
    }
}

/// Keys are there, and fit the engine.
fn check_span(key: &Bytes, range_end: &Bytes) -> Result<(), Reject> {
    if key.is_empty() {
        return Err(Reject::EmptyKey);
    }
    if key.len().max(range_end.len()) > KEY_BYTES_MAX {
        return Err(Reject::KeyTooLong);
    }
    Ok(())
}

fn validate_level(txn: &Txn, ops_max: usize, depth: usize, total: &mut usize) -> Result<(), Reject> {
    let widest = txn.compares.len().max(txn.success.len()).max(txn.failure.len());
    *total += txn.compares.len() + txn.success.len() + txn.failure.len();
    if widest > ops_max || depth >= TXN_DEPTH_MAX || *total > TXN_OPS_TOTAL_MAX {
        return Err(Reject::TooManyOperations);
    }
    for compare in &txn.compares {
        check_span(&compare.key, &compare.range_end)?;
    }
    for op in txn.success.iter().chain(&txn.failure) {
        match op {
            Op::Range(range) => range.validate()?,
            Op::Put(put) => put.validate()?,
            Op::DeleteRange(delete) => delete.validate()?,
            Op::Txn(nested) => validate_level(nested, ops_max - widest, depth + 1, total)?,
            Op::Empty => return Err(Reject::KeyNotFound),
        }
    }
    Ok(())
}

/// What a list of operations may write.
#[derive(Default)]
struct Writes<'a> {
    puts: BTreeSet<&'a [u8]>,
    /// Raw (key, range_end) pairs.
    deletes: Vec<(&'a Bytes, &'a Bytes)>,
}

impl Writes<'_> {
    /// The raw end is compared, as etcd does: "from key on" (a zero byte) never covers a put.
    fn deletes_cover(&self, key: &[u8]) -> bool {
        self.deletes.iter().any(|&(from, end)| if end.is_empty() { key == from } else { key >= from && key < end })
    }
}

/// Collects what `ops` may write, refusing keys that could be put twice, or put and deleted, on one path.
///
/// Two gaps are etcd's and are kept, since a request it accepts must be accepted here: deletes "from key on" are not
/// seen as covering a put, and a put in an earlier nested transaction is not compared with the deletes of a later one.
/// The row layout allows for a key that is put and deleted at one revision.
fn written_keys(ops: &[Op]) -> Result<Writes<'_>, Reject> {
    let mut writes = Writes::default();
    for op in ops {
        if let Op::DeleteRange(delete) = op {
            writes.deletes.push((&delete.key, &delete.range_end));
        }
    }
    for op in ops {
        let Op::Txn(nested) = op else { continue };
        let then = written_keys(&nested.success)?;
        let otherwise = written_keys(&nested.failure)?;
        if then.puts.iter().any(|key| writes.puts.contains(key) || writes.deletes_cover(key)) {
            return Err(Reject::DuplicateKey);
        }
        // The two branches exclude each other, so `otherwise` is checked against what came before `then`.
        if otherwise.puts.iter().any(|key| writes.puts.contains(key) || writes.deletes_cover(key)) {
            return Err(Reject::DuplicateKey);
        }
        for branch in [then, otherwise] {
            writes.puts.extend(branch.puts);
            writes.deletes.extend(branch.deletes);
        }
    }
    for op in ops {
        let Op::Put(put) = op else { continue };
        if writes.deletes_cover(&put.key) || !writes.puts.insert(&put.key) {
            return Err(Reject::DuplicateKey);
        }
    }
    Ok(writes)
}
