//! The queue behind locks and elections: etcd's recipe, on the same keys, so that clients which build it themselves
//! stand in the same queue.
//!
//! ```text
//! NAME/LEASE (hex)      one key for each contender, attached to its lease; the smallest create revision is first
//! ```
//!
//! Invariant: nobody is told to be first unless one read showed, at one revision, that its key is there and none before
//! it. Keys go with their leases, so that read says that the lease lives too. The create revision is the token: it
//! grows from holder to holder for ever, and a write can be made to depend on it (see `fence`).

use std::future::Future;

use base::planted::{Defect, planted};
use base::{LeaseId, Revision};
use bytes::Bytes;
use mvcc::{
    Compare, CompareResult, CompareTarget, DeleteRange, KeyValue, Op, OpResult, Put, RangeRequest, SortOrder,
    SortTarget, Txn, TxnResult,
};
use tonic::Status;

/// What the recipe needs of the store.
pub(crate) trait Store: Send + Sync {
    /// Runs a transaction, linearizably.
    fn txn(&self, txn: Txn) -> impl Future<Output = Result<(Revision, TxnResult), Status>> + Send;

    /// Returns when the key that was created at this revision is not there (any more).
    fn gone(&self, key: &Bytes, created: Revision) -> impl Future<Output = Result<(), Status>> + Send;
}

/// A contender's place in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) prefix: Bytes,
    pub(crate) key: Bytes,
    /// Its create revision: the token.
    pub(crate) created: Revision,
    /// Whether this call made the key; it was there already if the lease stood in the queue before.
    pub(crate) is_new: bool,
    /// The value found, if the key was there.
    pub(crate) value: Option<Bytes>,
    /// First at this revision, when the place was taken.
    pub(crate) first_at: Option<Revision>,
}

/// The keys of a queue begin so.
pub(crate) fn prefix_of(name: &[u8]) -> Bytes {
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

/// Reads the contender that has waited longest.
pub(crate) fn first(prefix: &Bytes) -> RangeRequest {
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
pub(crate) fn is_created_at(key: &Bytes, created: Revision) -> Compare {
    Compare {
        key: key.clone(),
        range_end: Bytes::new(),
        result: CompareResult::Equal,
        target: CompareTarget::CreateRevision(created),
    }
}

/// The first pair of the answer to one operation.
pub(crate) fn pair(result: &TxnResult, at: usize) -> Option<&KeyValue> {
    match &result.responses.get(at)?.result {
        OpResult::Range(range) => range.kvs.first(),
        OpResult::Put(_) | OpResult::DeleteRange(_) | OpResult::Txn(_) => None,
    }
}

/// Puts a contender at the end of the queue, unless its lease stands in it already.
pub(crate) async fn join(store: &impl Store, name: &[u8], lease: LeaseId, value: Bytes) -> Result<Place, Status> {
    let prefix = prefix_of(name);
    let key = Bytes::from([&prefix[..], format!("{:x}", lease.0).as_bytes()].concat());
    let put = Put { key: key.clone(), value, lease, ..Put::default() };
    let txn = Txn {
        compares: vec![is_created_at(&key, Revision(0))],
        success: vec![Op::Put(put), Op::Range(first(&prefix))],
        failure: vec![Op::Range(get(&key)), Op::Range(first(&prefix))],
    };
    let (revision, result) = store.txn(txn).await?;
    let found = if result.succeeded { None } else { pair(&result, 0) };
    let created = found.map_or(revision, |kv| kv.create_revision);
    let is_first = pair(&result, 1).is_none_or(|kv| kv.create_revision == created);
    let value = found.map(|kv| kv.value.clone());
    let first_at = is_first.then_some(revision);
    Ok(Place { prefix, key, created, is_new: result.succeeded, value, first_at })
}

/// Waits until the place is first; answers with the revision at which it was. Nothing if the key is gone: its lease
/// ended, or somebody deleted it.
pub(crate) async fn wait_for_turn(store: &impl Store, place: &Place) -> Result<Option<Revision>, Status> {
    if let Some(revision) = place.first_at {
        return Ok(Some(revision));
    }
    let mut waited = false;
    loop {
        let ops = vec![Op::Range(get(&place.key)), Op::Range(before(&place.prefix, place.created))];
        let (revision, result) = store.txn(Txn { success: ops, ..Txn::default() }).await?;
        if waited && planted(Defect::LockWithoutRecheck) {
            return Ok(Some(revision));
        }
        if pair(&result, 0).is_none_or(|kv| kv.create_revision != place.created) {
            return Ok(None);
        }
        let Some(before) = pair(&result, 1) else { return Ok(Some(revision)) };
        store.gone(&before.key, before.create_revision).await?;
        waited = true;
    }
}

/// Deletes a contender's key, if it is still the one that was created then.
pub(crate) fn leave(key: &Bytes, created: Revision) -> Txn {
    let delete = DeleteRange { key: key.clone(), ..DeleteRange::default() };
    Txn { compares: vec![is_created_at(key, created)], success: vec![Op::DeleteRange(delete)], failure: Vec::new() }
}

#[cfg(test)]
#[path = "recipe_tests.rs"]
mod tests;
