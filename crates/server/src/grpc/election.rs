//! `v3electionpb.Election`.

use std::pin::Pin;
use std::sync::Arc;

use api::v3electionpb as pb;
use base::limits::ANSWER_BYTES_MAX;
use base::{LeaseId, Revision};
use bytes::Bytes;
use mvcc::{EventBudget, EventKind, EventQuery, KeyValue, ReadError, Reject, Span};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};

use super::lock::TOKEN;
use super::{header, queue};
use crate::convert;
use crate::gateway::{Gateway, read_error};
use crate::recipe;
use crate::waits::On;

#[derive(Clone)]
pub(crate) struct ElectionService {
    pub(crate) gateway: Arc<Gateway>,
}

/// Answers an observer may have ahead.
const OBSERVED_AHEAD: usize = 4;
/// How much history an observer reads at once.
const PAGE: EventBudget = EventBudget { events_max: 1000, bytes_max: ANSWER_BYTES_MAX / 64 };

// Texts are etcd's; the codes are too, by accident: what its server does not know is Unknown.

fn no_leader() -> Status {
    Status::unknown("election: no leader")
}

fn not_leader() -> Status {
    Status::unknown("election: not leader")
}

fn leader_missing() -> Status {
    Status::unknown("\"leader\" field must be provided")
}

#[tonic::async_trait]
impl pb::election_server::Election for ElectionService {
    async fn campaign(&self, request: Request<pb::CampaignRequest>) -> Result<Response<pb::CampaignResponse>, Status> {
        let pb::CampaignRequest { name, lease, value } = request.into_inner();
        let lease = queue::lease_for(&self.gateway, lease).await?;
        let acquired = queue::acquire(&self.gateway, &name, lease, value).await?;
        let (place, revision) = acquired.ok_or_else(not_leader)?;
        let leader = pb::LeaderKey { name, key: place.key, rev: place.created.0, lease: lease.0 };
        let header = header(&self.gateway.context, revision);
        let mut response = Response::new(pb::CampaignResponse { header, leader: Some(leader) });
        response.metadata_mut().insert(TOKEN, MetadataValue::from(place.created.0));
        Ok(response)
    }

    async fn proclaim(&self, request: Request<pb::ProclaimRequest>) -> Result<Response<pb::ProclaimResponse>, Status> {
        let pb::ProclaimRequest { leader, value } = request.into_inner();
        let pb::LeaderKey { key, rev, lease, .. } = leader.ok_or_else(leader_missing)?;
        let done = queue::proclaim(&self.gateway, &key, Revision(rev), LeaseId(lease), value).await?;
        match done {
            (revision, true) => {
                Ok(Response::new(pb::ProclaimResponse { header: header(&self.gateway.context, revision) }))
            }
            (_, false) => Err(not_leader()),
        }
    }

    async fn leader(&self, request: Request<pb::LeaderRequest>) -> Result<Response<pb::LeaderResponse>, Status> {
        let prefix = recipe::prefix_of(&request.into_inner().name);
        let response = self.gateway.range(recipe::first(&prefix)).await?.response;
        let kv = response.result.kvs.into_iter().next().ok_or_else(no_leader)?;
        let header = header(&self.gateway.context, response.revision);
        Ok(Response::new(pb::LeaderResponse { header, kv: Some(convert::key_value(kv)) }))
    }

    type ObserveStream = Pin<Box<dyn Stream<Item = Result<pb::LeaderResponse, Status>> + Send>>;

    async fn observe(&self, request: Request<pb::LeaderRequest>) -> Result<Response<Self::ObserveStream>, Status> {
        let prefix = recipe::prefix_of(&request.into_inner().name);
        let (sender, answers) = mpsc::channel(OBSERVED_AHEAD);
        let observer = Observer { gateway: Arc::clone(&self.gateway), prefix, sender };
        tokio::spawn(async move {
            let sender = observer.sender.clone();
            tokio::select! {
                // The client went away: what is waited for is of no interest any more.
                () = sender.closed() => {}
                Err(status) = observer.run() => drop(sender.send(Err(status)).await),
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn resign(&self, request: Request<pb::ResignRequest>) -> Result<Response<pb::ResignResponse>, Status> {
        let leader = request.into_inner().leader.ok_or_else(leader_missing)?;
        let (revision, _) = self.gateway.txn(recipe::leave(&leader.key, Revision(leader.rev))).await?;
        Ok(Response::new(pb::ResignResponse { header: header(&self.gateway.context, revision) }))
    }
}

/// Follows the leader of one election: its value, each new one, the next leader.
struct Observer {
    gateway: Arc<Gateway>,
    prefix: Bytes,
    sender: mpsc::Sender<Result<pb::LeaderResponse, Status>>,
}

impl Observer {
    /// Ends with an error; a client that goes away drops it.
    async fn run(&self) -> Result<(), Status> {
        let mut told = None;
        loop {
            let leader = self.find_leader().await?;
            let found = (leader.create_revision, leader.mod_revision);
            let key = leader.key.clone();
            // After history was compacted away the same one may still lead, with a value that was told.
            if told != Some(found) {
                self.tell(leader).await?;
            }
            told = Some((found.0, self.follow(&key, found.1).await?));
        }
    }

    async fn find_leader(&self) -> Result<KeyValue, Status> {
        let wait = self.gateway.context.key_waits.register(On::Prefix(self.prefix.clone()))?;
        loop {
            let response = self.gateway.range(recipe::first(&self.prefix)).await?.response;
            if let Some(kv) = response.result.kvs.into_iter().next() {
                return Ok(kv);
            }
            wait.changed().await;
        }
    }

    /// Tells every value put after `told`, until the key is deleted; answers with the revision of the last one told.
    async fn follow(&self, key: &Bytes, mut told: Revision) -> Result<Revision, Status> {
        let wait = self.gateway.context.key_waits.register(On::Key(key.clone()))?;
        let mut query = EventQuery { span: Span::Key(key.clone()), from: Revision(told.0 + 1), prev_kv: false };
        loop {
            let page = match mvcc::events(&*self.gateway.context.engine.view(), &query, PAGE) {
                Ok(page) => page,
                Err(ReadError::Reject(Reject::Compacted)) => return Ok(told),
                Err(error) => return Err(read_error(&error)),
            };
            query.from = page.next;
            for event in page.changes.into_iter().flat_map(|change| change.events) {
                match event.kind {
                    EventKind::Put => {
                        told = event.kv.mod_revision;
                        self.tell(event.kv).await?;
                    }
                    EventKind::Delete => return Ok(told),
                }
            }
            if page.next > page.current {
                wait.changed().await;
            }
        }
    }

    async fn tell(&self, kv: KeyValue) -> Result<(), Status> {
        let header = header(&self.gateway.context, kv.mod_revision);
        let answer = pb::LeaderResponse { header, kv: Some(convert::key_value(kv)) };
        self.sender.send(Ok(answer)).await.map_err(|_| Status::cancelled("the observer went away"))
    }
}
