//! `etcdserverpb.Maintenance`: so far `Status`, `MoveLeader` and an empty list of alarms.

use std::pin::Pin;
use std::sync::Arc;

use api::etcdserverpb as pb;
use base::NodeId;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::{API_VERSION, header, not_offered};
use crate::errors;
use crate::gateway::Gateway;

#[derive(Clone)]
pub(crate) struct MaintenanceService {
    pub(crate) gateway: Arc<Gateway>,
}

#[tonic::async_trait]
impl pb::maintenance_server::Maintenance for MaintenanceService {
    async fn status(&self, _: Request<pb::StatusRequest>) -> Result<Response<pb::StatusResponse>, Status> {
        let context = &self.gateway.context;
        let state = mvcc::state(&*context.engine.view()).map_err(|fault| errors::fault(&fault))?;
        let size = context.upkeep.sizes.on_disk();
        let errors = if context.standing.look(|status| status.leader.is_some()) {
            Vec::new()
        } else {
            vec![String::from("etcdserver: no leader")]
        };
        let header = header(context, state.revision);
        Ok(Response::new(context.standing.look(|status| pb::StatusResponse {
            header,
            version: API_VERSION.into(),
            db_size: i64::try_from(size).unwrap_or(i64::MAX),
            db_size_in_use: i64::try_from(size).unwrap_or(i64::MAX),
            db_size_quota: i64::try_from(context.quota_bytes).unwrap_or(i64::MAX),
            leader: status.leader.unwrap_or_default().0,
            raft_index: status.commit.0,
            raft_term: status.ballot.round,
            raft_applied_index: status.applied.0,
            is_learner: false,
            storage_version: "3.7.0".into(),
            errors,
            downgrade_info: Some(pb::DowngradeInfo::default()),
        })))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        let me = self.gateway.context.directory.me().id;
        if self.gateway.context.standing.look(|status| status.leader) != Some(me) {
            return Err(Status::failed_precondition("etcdserver: not leader"));
        }
        let target = NodeId(request.into_inner().target_id);
        if target != me {
            self.gateway.move_leader(target).await?;
        }
        // etcd sends this answer without a header.
        Ok(Response::new(pb::MoveLeaderResponse { header: None }))
    }

    /// This version raises no alarms: a node whose disk is full or damaged stops. So the list is empty, and there is
    /// nothing to switch off; switching one on is refused.
    async fn alarm(&self, request: Request<pb::AlarmRequest>) -> Result<Response<pb::AlarmResponse>, Status> {
        if request.into_inner().action() == pb::alarm_request::AlarmAction::Activate {
            return Err(not_offered("activating an alarm"));
        }
        let context = &self.gateway.context;
        let state = mvcc::state(&*context.engine.view()).map_err(|fault| errors::fault(&fault))?;
        Ok(Response::new(pb::AlarmResponse { header: header(context, state.revision), alarms: Vec::new() }))
    }

    async fn defragment(&self, _: Request<pb::DefragmentRequest>) -> Result<Response<pb::DefragmentResponse>, Status> {
        Err(not_offered("Defragment"))
    }

    async fn hash(&self, _: Request<pb::HashRequest>) -> Result<Response<pb::HashResponse>, Status> {
        Err(not_offered("Hash"))
    }

    async fn hash_kv(&self, _: Request<pb::HashKvRequest>) -> Result<Response<pb::HashKvResponse>, Status> {
        Err(not_offered("HashKV"))
    }

    type SnapshotStream = Pin<Box<dyn Stream<Item = Result<pb::SnapshotResponse, Status>> + Send>>;

    async fn snapshot(&self, _: Request<pb::SnapshotRequest>) -> Result<Response<Self::SnapshotStream>, Status> {
        Err(not_offered("Snapshot"))
    }

    async fn downgrade(&self, _: Request<pb::DowngradeRequest>) -> Result<Response<pb::DowngradeResponse>, Status> {
        Err(not_offered("Downgrade"))
    }
}
