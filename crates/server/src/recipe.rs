//! The queue behind locks and elections, on a store that can be asked and waited for. What is asked, and what the
//! answers mean, stands in [`node::recipe`]; the simulator runs the same.

use std::future::Future;

use base::{LeaseId, Revision};
use bytes::Bytes;
use mvcc::{Txn, TxnResult};
use node::recipe::Look;
use tonic::Status;

pub(crate) use node::recipe::{Place, first, is_created_at, is_gone, leave, prefix_of};

/// What the recipe needs of the store.
pub(crate) trait Store: Send + Sync {
    /// Runs a transaction, linearizably.
    fn txn(&self, txn: Txn) -> impl Future<Output = Result<(Revision, TxnResult), Status>> + Send;

    /// Returns when the key that was created at this revision is not there (any more).
    fn gone(&self, key: &Bytes, created: Revision) -> impl Future<Output = Result<(), Status>> + Send;
}

/// Puts a contender at the end of the queue, unless its lease stands in it already.
pub(crate) async fn join(store: &impl Store, name: &[u8], lease: LeaseId, value: Bytes) -> Result<Place, Status> {
    let (revision, result) = store.txn(node::recipe::join(name, lease, value)).await?;
    Ok(Place::joined(name, lease, revision, &result))
}

/// Waits until the place is first; answers with the revision at which it was. Nothing if the key is gone: its lease
/// ended, or somebody deleted it.
pub(crate) async fn wait_for_turn(store: &impl Store, place: &Place) -> Result<Option<Revision>, Status> {
    if let Some(revision) = place.first_at {
        return Ok(Some(revision));
    }
    let mut waited = false;
    loop {
        let (revision, result) = store.txn(place.look()).await?;
        match place.looked(waited, revision, &result) {
            Look::First(revision) => return Ok(Some(revision)),
            Look::Gone => return Ok(None),
            Look::Behind(key, created) => store.gone(&key, created).await?,
        }
        waited = true;
    }
}

#[cfg(test)]
#[path = "recipe_tests.rs"]
mod tests;
