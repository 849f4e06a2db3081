//! `etcdserverpb.Cluster`: so far `MemberList`.

use std::sync::Arc;

use api::etcdserverpb as pb;
use base::Revision;
use tonic::{Request, Response, Status};

use super::{header, not_offered};
use crate::gateway::Gateway;

#[derive(Clone)]
pub(crate) struct ClusterService {
    pub(crate) gateway: Arc<Gateway>,
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
        let context = &self.gateway.context;
        let members = context
            .directory
            .members()
            .into_iter()
            .map(|member| pb::Member {
                id: member.id.0,
                name: member.name.clone(),
                peer_urls: member.peer_urls.clone(),
                client_urls: context.directory.client_urls(member.id),
                is_learner: false,
            })
            .collect();
        // etcd leaves the revision of cluster answers at zero.
        Ok(Response::new(pb::MemberListResponse { header: header(context, Revision(0)), members }))
    }

    async fn member_add(&self, _: Request<pb::MemberAddRequest>) -> Result<Response<pb::MemberAddResponse>, Status> {
        Err(not_offered("MemberAdd"))
    }

    async fn member_remove(
        &self,
        _: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        Err(not_offered("MemberRemove"))
    }

    async fn member_update(
        &self,
        _: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        Err(not_offered("MemberUpdate"))
    }

    async fn member_promote(
        &self,
        _: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        Err(not_offered("MemberPromote"))
    }
}
