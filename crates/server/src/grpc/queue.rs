//! The recipe on a running node, and what happens when a client goes away while it waits.

use std::sync::Arc;

use base::{LeaseId, Revision};
use bytes::Bytes;
use mvcc::{Txn, TxnResult};
use tonic::Status;

use super::lease;
use crate::gateway::Gateway;
use crate::recipe::{self, Place, Store};
use crate::waits::On;

/// Time to live of a lease for a client that did not bring one (etcd's number); nobody renews it.
const OWN_LEASE_TTL_S: i64 = 60;

impl Store for Gateway {
    async fn txn(&self, txn: Txn) -> Result<(Revision, TxnResult), Status> {
        Gateway::txn(self, txn).await
    }

    async fn gone(&self, key: &Bytes, created: Revision) -> Result<(), Status> {
        let wait = self.context.key_waits.register(On::Key(key.clone()))?;
        loop {
            let gone = recipe::is_gone(&*self.context.engine.view(), key, created);
            if gone.map_err(|error| crate::gateway::read_error(&error))? {
                return Ok(());
            }
            wait.changed().await;
        }
    }
}

/// A contender that leaves the queue when it is dropped: its client went away before its turn came.
struct Contender {
    gateway: Arc<Gateway>,
    place: Place,
    stays: bool,
}

impl Drop for Contender {
    fn drop(&mut self) {
        // A place that was there before belongs to another request of that lease.
        if self.stays || !self.place.is_new {
            return;
        }
        // Without a runtime the process is ending, and its lease will end it.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (gateway, place) = (Arc::clone(&self.gateway), self.place.clone());
        runtime.spawn(async move {
            if let Err(status) = gateway.txn(recipe::leave(&place.key, place.created)).await {
                // Its lease will end it.
                tracing::debug!(key = %place.key.escape_ascii(), %status, "a contender could not leave the queue");
            }
        });
    }
}

/// The lease a client brought, or a short one of its own.
pub(crate) async fn lease_for(gateway: &Gateway, lease: i64) -> Result<LeaseId, Status> {
    match lease {
        0 => lease::grant(gateway, LeaseId(0), OWN_LEASE_TTL_S).await.map(|(_, granted)| granted.id),
        id => Ok(LeaseId(id)),
    }
}

/// Waits for the first place; answers with it and the revision at which it was first.
pub(crate) async fn acquire(
    gateway: &Arc<Gateway>,
    name: &[u8],
    lease: LeaseId,
    value: Bytes,
) -> Result<Option<(Place, Revision)>, Status> {
    let place = recipe::join(&**gateway, name, lease, value.clone()).await?;
    let mut contender = Contender { gateway: Arc::clone(gateway), place, stays: false };
    // A candidate that stood there with another value brings a new one.
    let place = &contender.place;
    if place.value.as_ref().is_some_and(|found| *found != value)
        && !proclaim(gateway, &place.key, place.created, lease, value).await?.1
    {
        return Ok(None);
    }
    let first_at = recipe::wait_for_turn(&**gateway, &contender.place).await?;
    contender.stays = first_at.is_some();
    Ok(first_at.map(|revision| (contender.place.clone(), revision)))
}

/// Writes a new value, if the key is still the one that was created then.
pub(crate) async fn proclaim(
    gateway: &Gateway,
    key: &Bytes,
    created: Revision,
    lease: LeaseId,
    value: Bytes,
) -> Result<(Revision, bool), Status> {
    let put = mvcc::Put { key: key.clone(), value, lease, ..mvcc::Put::default() };
    let txn = Txn {
        compares: vec![recipe::is_created_at(key, created)],
        success: vec![mvcc::Op::Put(put)],
        failure: Vec::new(),
    };
    let (revision, result) = gateway.txn(txn).await?;
    Ok((revision, result.succeeded))
}
