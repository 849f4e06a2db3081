//! `etcdserverpb.Cluster`. Only the leader changes members; another node passes the request on to it, by the way its
//! clients take.

use std::sync::Arc;
use std::time::Duration;

use api::etcdserverpb as pb;
use api::etcdserverpb::cluster_client::ClusterClient;
use base::{NodeId, Revision};
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use super::header;
use crate::gateway::Gateway;
use crate::standing::is_on_its_way;
use crate::{errors, reconfigure};

#[derive(Clone)]
pub(crate) struct ClusterService {
    pub(crate) gateway: Arc<Gateway>,
}

/// Metadata of a request that was passed on once: not again.
const PASSED_ON: &str = "sinew-passed-on";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Whoever leads may just have died: so long a request waits for the next leader.
const LEADER_TIMEOUT: Duration = Duration::from_secs(5);
const LEADER_PAUSE: Duration = Duration::from_millis(100);

impl ClusterService {
    /// The leader's node, if it is another one than this. Nothing was sent yet when this fails.
    async fn leader(&self, metadata: &MetadataMap) -> Result<Option<ClusterClient<Channel>>, Status> {
        let is_passed_on = metadata.contains_key(PASSED_ON);
        let deadline = tokio::time::Instant::now() + LEADER_TIMEOUT;
        loop {
            match self.reach_leader().await {
                Ok(Some(_)) if is_passed_on => return Err(Status::unavailable("etcdserver: leader changed")),
                Err(_) if !is_passed_on && tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(LEADER_PAUSE).await;
                }
                result => return result,
            }
        }
    }

    async fn reach_leader(&self) -> Result<Option<ClusterClient<Channel>>, Status> {
        let context = &self.gateway.context;
        let leader = context.standing.look(|status| status.leader).ok_or_else(errors::no_leader)?;
        if leader == context.directory.me().id {
            return Ok(None);
        }
        let urls = context.directory.client_urls(leader);
        for url in &urls {
            let Ok(endpoint) = Endpoint::from_shared(url.clone()) else { continue };
            let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).timeout(CALL_TIMEOUT);
            if let Ok(channel) = endpoint.connect().await {
                return Ok(Some(ClusterClient::new(channel)));
            }
        }
        Err(Status::unavailable(format!(
            "only the leader, member {:x}, changes members, and it cannot be reached at {}: ask it directly",
            leader.0,
            urls.join(",")
        )))
    }

    fn members(&self) -> Vec<pb::Member> {
        let context = &self.gateway.context;
        let status = context.standing.get();
        let belongs = |id: NodeId| status.membership.nodes.values().any(|node| *node == id);
        let shown = |member: crate::members::Member| pb::Member {
            id: member.id.0,
            name: member.name,
            peer_urls: member.peer_urls,
            client_urls: context.directory.client_urls(member.id),
            is_learner: is_on_its_way(&status, member.id),
        };
        // A node that does not know the group yet shows whom it was told of.
        let all = status.membership.nodes.is_empty();
        context.directory.members().into_iter().filter(|member| all || belongs(member.id)).map(shown).collect()
    }

    /// etcd leaves the revision of cluster answers at zero.
    fn header(&self) -> Option<pb::ResponseHeader> {
        header(&self.gateway.context, Revision(0))
    }
}

fn passed_on<M>(message: M) -> Request<M> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(PASSED_ON, tonic::metadata::MetadataValue::from_static("1"));
    request
}

#[tonic::async_trait]
impl pb::cluster_server::Cluster for ClusterService {
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        if request.into_inner().linearizable {
            self.gateway.read_point().await?;
        }
        Ok(Response::new(pb::MemberListResponse { header: self.header(), members: self.members() }))
    }

    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        if let Some(mut leader) = self.leader(request.metadata()).await? {
            return leader.member_add(passed_on(request.into_inner())).await;
        }
        let request = request.into_inner();
        let id = reconfigure::add(&self.gateway, &request.peer_urls, request.is_learner).await?;
        let members = self.members();
        let member = members.iter().find(|member| member.id == id.0).cloned();
        Ok(Response::new(pb::MemberAddResponse { header: self.header(), member, members }))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        if let Some(mut leader) = self.leader(request.metadata()).await? {
            return leader.member_remove(passed_on(request.into_inner())).await;
        }
        let id = NodeId(request.get_ref().id);
        if id == self.gateway.context.directory.me().id {
            // Somebody else must lead first: whoever leads cannot see its own removal through.
            self.gateway.move_leader(None).await?;
            let mut leader = self.leader(request.metadata()).await?.ok_or_else(errors::no_leader)?;
            return leader.member_remove(passed_on(request.into_inner())).await;
        }
        reconfigure::remove(&self.gateway, id).await?;
        Ok(Response::new(pb::MemberRemoveResponse { header: self.header(), members: self.members() }))
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        let request = request.into_inner();
        reconfigure::update(&self.gateway, NodeId(request.id), &request.peer_urls).await?;
        Ok(Response::new(pb::MemberUpdateResponse { header: self.header(), members: self.members() }))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        if let Some(mut leader) = self.leader(request.metadata()).await? {
            return leader.member_promote(passed_on(request.into_inner())).await;
        }
        reconfigure::promote(&self.gateway, NodeId(request.into_inner().id)).await?;
        Ok(Response::new(pb::MemberPromoteResponse { header: self.header(), members: self.members() }))
    }
}
