//! `etcdserverpb.Lease`.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use api::etcdserverpb as pb;
use base::{Fault, LeaseId, Revision};
use mvcc::{Command, LeaseGrant, LeaseRevoke, OutcomeResult, View};
use node::LeaseAsk;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::header;
use crate::errors;
use crate::gateway::Gateway;

#[derive(Clone)]
pub(crate) struct LeaseService {
    pub(crate) gateway: Arc<Gateway>,
}

/// Renewals of one stream under way at a time. They are answered in order.
const RENEWALS_AHEAD: usize = 256;
/// Ids tried for a client that leaves the choice to us.
const IDS_TRIED: usize = 8;

/// Picks ids for leases: positive, and in practice never the same twice in a cluster.
#[derive(Debug)]
pub(crate) struct LeaseIds(AtomicU64);

impl LeaseIds {
    /// `seed` is random.
    pub(crate) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    fn next(&self) -> LeaseId {
        // An odd stride visits every number before any comes again.
        let number = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        LeaseId(i64::try_from(number >> 1).unwrap_or(i64::MAX).max(1))
    }
}

/// The least time to live a cluster can keep: less could run out while it elects a leader (as etcd has it).
pub(crate) fn ttl_min_s(election_timeout: std::time::Duration) -> i64 {
    i64::try_from((election_timeout * 3 / 2).as_micros().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}

/// Makes a lease; id 0 leaves the choice to us.
pub(crate) async fn grant(gateway: &Gateway, id: LeaseId, ttl_s: i64) -> Result<(Revision, LeaseGrant), Status> {
    let ttl_s = ttl_s.max(gateway.context.lease_ttl_min_s);
    for _ in 0..IDS_TRIED {
        let grant = LeaseGrant { id: if id.0 == 0 { gateway.context.lease_ids.next() } else { id }, ttl_s };
        match gateway.propose(&Command::LeaseGrant(grant)).await {
            Ok((revision, OutcomeResult::LeaseGrant(granted))) => {
                gateway.context.metrics.leases_granted.add(1);
                return Ok((revision, LeaseGrant { id: granted.id, ttl_s: granted.ttl_s }));
            }
            Ok(_) => return Err(Status::internal("a grant was answered like something else")),
            Err(taken) if id.0 == 0 && taken.code() == Code::FailedPrecondition => {}
            Err(status) => return Err(status),
        }
    }
    Err(Status::internal("no free lease id was found"))
}

/// The current revision of the local state.
fn revision(gateway: &Gateway) -> Result<Revision, Status> {
    let state = mvcc::state(&*gateway.context.engine.view()).map_err(|fault| errors::fault(&fault))?;
    Ok(state.revision)
}

/// Renews one lease.
async fn keep_alive(gateway: Arc<Gateway>, id: i64) -> Result<pb::LeaseKeepAliveResponse, Status> {
    // Taken before the renewal, so that it is not above the revision of any end of the lease.
    let header = header(&gateway.context, revision(&gateway)?);
    let times = gateway.lease(LeaseId(id), LeaseAsk::KeepAlive).await?;
    gateway.context.metrics.leases_renewed.add(u64::from(times.is_some()));
    // An unknown lease is not an error, it has no time left.
    Ok(pb::LeaseKeepAliveResponse { header, id, ttl: times.map_or(0, |times| times.ttl_s) })
}

/// Starts renewals in the order they come in, until the client stops asking or listening.
async fn take_renewals(
    gateway: Arc<Gateway>,
    mut requests: Streaming<pb::LeaseKeepAliveRequest>,
    started: mpsc::Sender<JoinHandle<Result<pb::LeaseKeepAliveResponse, Status>>>,
) {
    while let Ok(Some(request)) = requests.message().await {
        let Ok(place) = started.reserve().await else { return };
        place.send(tokio::spawn(keep_alive(Arc::clone(&gateway), request.id)));
    }
}

#[tonic::async_trait]
impl pb::lease_server::Lease for LeaseService {
    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let request = request.into_inner();
        let (revision, granted) = grant(&self.gateway, LeaseId(request.id), request.ttl).await?;
        Ok(Response::new(pb::LeaseGrantResponse {
            header: header(&self.gateway.context, revision),
            id: granted.id.0,
            ttl: granted.ttl_s,
            error: String::new(),
        }))
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let revoke = LeaseRevoke { id: LeaseId(request.into_inner().id) };
        let (revision, _) = self.gateway.propose(&Command::LeaseRevoke(revoke)).await?;
        self.gateway.context.metrics.leases_revoked.add(1);
        Ok(Response::new(pb::LeaseRevokeResponse { header: header(&self.gateway.context, revision) }))
    }

    type LeaseKeepAliveStream = Pin<Box<dyn Stream<Item = Result<pb::LeaseKeepAliveResponse, Status>> + Send>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let (started, mut renewals) = mpsc::channel(RENEWALS_AHEAD);
        tokio::spawn(take_renewals(Arc::clone(&self.gateway), request.into_inner(), started));
        let (sender, answers) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Some(renewal) = renewals.recv().await {
                let answer = renewal.await.unwrap_or_else(|_| Err(errors::stopped()));
                let failed = answer.is_err();
                if sender.send(answer).await.is_err() || failed {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let pb::LeaseTimeToLiveRequest { id, keys: want_keys } = request.into_inner();
        let context = &self.gateway.context;
        let unknown = |revision| pb::LeaseTimeToLiveResponse {
            header: header(context, revision),
            id,
            ttl: -1,
            granted_ttl: 0,
            keys: Vec::new(),
        };
        let Some(times) = self.gateway.lease(LeaseId(id), LeaseAsk::TimeToLive).await? else {
            return Ok(Response::new(unknown(revision(&self.gateway)?)));
        };
        let (revision, keys) = if want_keys {
            self.gateway.attached(LeaseId(id)).await?
        } else {
            (revision(&self.gateway)?, Some(vec![]))
        };
        // It ended between the two questions.
        let Some(keys) = keys else { return Ok(Response::new(unknown(revision))) };
        let (ttl, granted_ttl) = (times.remaining_s, times.ttl_s);
        let header = header(context, revision);
        Ok(Response::new(pb::LeaseTimeToLiveResponse { header, id, ttl, granted_ttl, keys }))
    }

    /// As in etcd, the local state answers, without asking a leader.
    async fn lease_leases(
        &self,
        _: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        // There may be millions: it is a large read like any other.
        let read = |view: &dyn View| Ok((mvcc::state(view)?.revision, mvcc::leases(view)?));
        let (revision, leases) = self.gateway.read_apart(read).await?.map_err(|fault: Fault| errors::fault(&fault))?;
        Ok(Response::new(pb::LeaseLeasesResponse {
            header: header(&self.gateway.context, revision),
            leases: leases.into_iter().map(|lease| pb::LeaseStatus { id: lease.id.0 }).collect(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;

    #[test]
    fn ids_are_positive_and_differ() {
        let ids = LeaseIds::new(u64::MAX - 5);
        let seen: BTreeSet<_> = (0..1000).map(|_| ids.next()).collect();
        assert!(seen.len() == 1000 && seen.iter().all(|id| id.0 > 0));
    }

    #[test]
    fn the_least_time_to_live_is_etcds() {
        assert_eq!(ttl_min_s(Duration::from_millis(1000)), 2);
        assert_eq!(ttl_min_s(Duration::from_millis(100)), 1);
        assert_eq!(ttl_min_s(Duration::from_secs(2)), 3);
    }
}
