//! The queue behind locks and elections: what its clients ask the store, and what the answers mean to them. etcd's
//! recipe, on the same keys, so that clients which build it themselves stand in the same queue.
//!
//! ```text
//! NAME/LEASE (hex)      one key for each contender, attached to its lease; the smallest create revision is first
//! ```
//!
//! Invariant: nobody is told to be first unless one read showed, at one revision, that its key is there and none before
//! it. Keys go with their leases, so that read says that the lease lives too. The create revision is the token: it
//! grows from holder to holder for ever, and a write can be made to depend on it. Hosts ask and wait; nothing is
//! decided there.

use base::planted::{Defect, planted};
use base::{LeaseId, Revision};
use bytes::Bytes;
use mvcc::{
    Compare, CompareResult, CompareTarget, DeleteRange, KeyValue, Op, OpResult, Put, RangeRequest, ReadError,
    SortOrder, SortTarget, Txn, TxnResult, View,
};

/// A contender's place in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The keys of the queue begin so.
    pub prefix: Bytes,
    /// Its own.
    pub key: Bytes,
    /// Its create revision: the token.
    pub created: Revision,
    /// Whether this call made the key; it was there already if the lease stood in the queue before.
    pub is_new: bool,
    /// The value found, if the key was there.
    pub value: Option<Bytes>,
    /// First at this revision, when the place was taken.
    pub first_at: Option<Revision>,
}

/// What a look at the queue says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// The place was first at this revision.
    First(Revision),
    /// The key is gone: its lease ended, or somebody deleted it.
    Gone,
    /// This key, created then, is directly before it: look again when it is gone.
    Behind(Bytes, Revision),
}

/// The keys of a queue begin so.
#[must_use]
pub fn prefix_of(name: &[u8]) -> Bytes {
    [name, b"/"].concat().into()
}

/// The end of the range of keys that begin with a prefix that ends in "/".
fn end_of(prefix: &Bytes) -> Bytes {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end.into()
}

fn key_of(prefix: &Bytes, lease: LeaseId) -> Bytes {
    [&prefix[..], format!("{:x}", lease.0).as_bytes()].concat().into()
}

/// Reads the contender that has waited longest.
#[must_use]
pub fn first(prefix: &Bytes) -> RangeRequest {
    RangeRequest {
        key: prefix.clone(),
        range_end: end_of(prefix),
        limit: 1,
        sort_order: SortOrder::Ascend,
        sort_target: SortTarget::Create,
        ..RangeRequest::default()
    }
}

/// Reads the contender directly before the one created at `created`.
fn before(prefix: &Bytes, created: Revision) -> RangeRequest {
    let max_create_revision = Revision(created.0 - 1);
    RangeRequest { sort_order: SortOrder::Descend, max_create_revision, ..first(prefix) }
}

fn get(key: &Bytes) -> RangeRequest {
    RangeRequest { key: key.clone(), ..RangeRequest::default() }
}

/// Holds while the key is the one created at this revision; 0 for "not there".
#[must_use]
pub fn is_created_at(key: &Bytes, created: Revision) -> Compare {
    Compare {
        key: key.clone(),
        range_end: Bytes::new(),
        result: CompareResult::Equal,
        target: CompareTarget::CreateRevision(created),
    }
}

/// The first pair of the answer to one operation.
fn pair(result: &TxnResult, at: usize) -> Option<&KeyValue> {
    match &result.responses.get(at)?.result {
        OpResult::Range(range) => range.kvs.first(),
        OpResult::Put(_) | OpResult::DeleteRange(_) | OpResult::Txn(_) => None,
    }
}

/// Puts a contender at the end of the queue, unless its lease stands in it already.
#[must_use]
pub fn join(name: &[u8], lease: LeaseId, value: Bytes) -> Txn {
    let prefix = prefix_of(name);
    let key = key_of(&prefix, lease);
    let put = Put { key: key.clone(), value, lease, ..Put::default() };
    Txn {
        compares: vec![is_created_at(&key, Revision(0))],
        success: vec![Op::Put(put), Op::Range(first(&prefix))],
        failure: vec![Op::Range(get(&key)), Op::Range(first(&prefix))],
    }
}

/// Deletes a contender's key, if it is still the one that was created then.
#[must_use]
pub fn leave(key: &Bytes, created: Revision) -> Txn {
    let delete = DeleteRange { key: key.clone(), ..DeleteRange::default() };
    Txn { compares: vec![is_created_at(key, created)], success: vec![Op::DeleteRange(delete)], failure: Vec::new() }
}

/// Whether the key that was created at this revision is not there (any more). A node that is behind may not have seen
/// it yet, which is not the same.
pub fn is_gone(view: &dyn View, key: &Bytes, created: Revision) -> Result<bool, ReadError> {
    let found = mvcc::range(view, &get(key))?;
    let is_there = found.result.kvs.first().is_some_and(|kv| kv.create_revision == created);
    Ok(!is_there && found.revision >= created)
}

impl Place {
    /// Reads the answer to [`join`].
    #[must_use]
    pub fn joined(name: &[u8], lease: LeaseId, revision: Revision, result: &TxnResult) -> Self {
        let prefix = prefix_of(name);
        let key = key_of(&prefix, lease);
        let found = if result.succeeded { None } else { pair(result, 0) };
        let created = found.map_or(revision, |kv| kv.create_revision);
        let is_first = pair(result, 1).is_none_or(|kv| kv.create_revision == created);
        let value = found.map(|kv| kv.value.clone());
        let first_at = is_first.then_some(revision);
        Self { prefix, key, created, is_new: result.succeeded, value, first_at }
    }

    /// Reads who is before this place.
    #[must_use]
    pub fn look(&self) -> Txn {
        let ops = vec![Op::Range(get(&self.key)), Op::Range(before(&self.prefix, self.created))];
        Txn { success: ops, ..Txn::default() }
    }

    /// Reads the answer to [`Self::look`]. `waited` says that it is not the first look.
    #[must_use]
    pub fn looked(&self, waited: bool, revision: Revision, result: &TxnResult) -> Look {
        if waited && planted(Defect::LockWithoutRecheck) {
            return Look::First(revision);
        }
        if pair(result, 0).is_none_or(|kv| kv.create_revision != self.created) {
            return Look::Gone;
        }
        match pair(result, 1) {
            Some(before) => Look::Behind(before.key.clone(), before.create_revision),
            None => Look::First(revision),
        }
    }
}
