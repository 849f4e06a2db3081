//! `etcdserverpb.Maintenance`: how a member stands, what it holds, and what an operator may do about it.

use std::pin::Pin;
use std::sync::Arc;

use api::etcdserverpb as pb;
use api::etcdserverpb::AlarmType;
use base::{NodeId, Revision, limits};
use mvcc::{Alarm, AlarmChange, AlarmKind, Command, OutcomeResult};
use storage::{SnapshotFrames, SnapshotReader};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{API_VERSION, header};
use crate::errors;
use crate::gateway::{Gateway, place_of};

#[derive(Clone)]
pub(crate) struct MaintenanceService {
    pub(crate) gateway: Arc<Gateway>,
}

/// The storage version of the etcd whose API is served.
const STORAGE_VERSION: &str = "3.7.0";
/// Pieces of a snapshot read ahead of the client.
const SNAPSHOT_AHEAD: usize = 2;

const fn wire(kind: AlarmKind) -> AlarmType {
    match kind {
        AlarmKind::NoSpace => AlarmType::Nospace,
        AlarmKind::Corrupt => AlarmType::Corrupt,
    }
}

fn alarm_member(alarm: Alarm) -> pb::AlarmMember {
    pb::AlarmMember { member_id: alarm.member.0, alarm: wire(alarm.kind) as i32 }
}

/// Whether etcd would take this for a version: `3.6` or `3.6.0`.
fn is_version(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|digit| digit.is_ascii_digit());
    matches!(parts.len(), 2 | 3) && parts.iter().all(is_number)
}

/// The text of an alarm in the status of a member, as etcd prints it.
fn alarm_text(alarm: Alarm) -> String {
    format!("memberID:{} alarm:{} ", alarm.member.0, wire(alarm.kind).as_str_name())
}

/// The quota as `Status` tells it; etcd passes on what switches it off.
fn quota_of(quota_bytes: Option<u64>) -> i64 {
    quota_bytes.map_or(-1, |quota| i64::try_from(quota).unwrap_or(i64::MAX))
}

impl MaintenanceService {
    /// Raises or clears an alarm through the log; answers with it, unless it was not up and is not.
    async fn change_alarm(&self, request: &pb::AlarmRequest, raise: bool) -> Result<Vec<Alarm>, Status> {
        let kind = match request.alarm() {
            AlarmType::Nospace => AlarmKind::NoSpace,
            AlarmType::None => return Ok(Vec::new()),
            AlarmType::Corrupt => AlarmKind::Corrupt,
        };
        let alarm = Alarm { member: NodeId(request.member_id), kind };
        match self.gateway.propose(&Command::Alarm(AlarmChange { alarm, raise })).await? {
            (_, OutcomeResult::Alarm(changed)) if changed || raise => Ok(vec![alarm]),
            (_, OutcomeResult::Alarm(_)) => Ok(Vec::new()),
            _ => Err(Status::internal("an alarm was answered like something else")),
        }
    }
}

#[tonic::async_trait]
impl pb::maintenance_server::Maintenance for MaintenanceService {
    async fn status(&self, _: Request<pb::StatusRequest>) -> Result<Response<pb::StatusResponse>, Status> {
        let context = &self.gateway.context;
        let state = mvcc::state(&*context.engine.view()).map_err(|fault| errors::fault(&fault))?;
        let size = context.upkeep.sizes.on_disk();
        let leaderless = context.standing.look(|status| status.leader.is_none());
        let no_leader = leaderless.then(|| String::from("etcdserver: no leader"));
        let alarms = context.space.alarms().into_iter().map(alarm_text);
        let errors = no_leader.into_iter().chain(alarms).collect();
        let is_learner = context.standing.is_learner();
        let header = header(context, state.revision);
        Ok(Response::new(context.standing.look(|status| pb::StatusResponse {
            header,
            version: API_VERSION.into(),
            db_size: i64::try_from(size).unwrap_or(i64::MAX),
            db_size_in_use: i64::try_from(size).unwrap_or(i64::MAX),
            db_size_quota: quota_of(context.space.quota_bytes()),
            leader: status.leader.unwrap_or_default().0,
            raft_index: status.commit.0,
            raft_term: status.ballot.round,
            raft_applied_index: status.applied.0,
            is_learner,
            storage_version: STORAGE_VERSION.into(),
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
            self.gateway.move_leader(Some(target)).await?;
        }
        // etcd sends this answer without a header.
        Ok(Response::new(pb::MoveLeaderResponse { header: None }))
    }

    async fn alarm(&self, request: Request<pb::AlarmRequest>) -> Result<Response<pb::AlarmResponse>, Status> {
        let request = request.into_inner();
        let alarms = match request.action() {
            pb::alarm_request::AlarmAction::Get => {
                self.gateway.read_point().await?;
                let alarms = self.gateway.context.space.alarms();
                let asked_for =
                    |alarm: &Alarm| request.alarm() == AlarmType::None || request.alarm() == wire(alarm.kind);
                alarms.into_iter().filter(asked_for).collect()
            }
            pb::alarm_request::AlarmAction::Activate => self.change_alarm(&request, true).await?,
            pb::alarm_request::AlarmAction::Deactivate => self.change_alarm(&request, false).await?,
        };
        let alarms = alarms.into_iter().map(alarm_member).collect();
        let state = mvcc::state(&*self.gateway.context.engine.view()).map_err(|fault| errors::fault(&fault))?;
        Ok(Response::new(pb::AlarmResponse { header: header(&self.gateway.context, state.revision), alarms }))
    }

    /// There is nothing to do that is not done all the time; a client that asks gets the room back now.
    async fn defragment(&self, _: Request<pb::DefragmentRequest>) -> Result<Response<pb::DefragmentResponse>, Status> {
        let upkeep = &self.gateway.context.upkeep;
        upkeep.made_room(upkeep.make_room()).await;
        // etcd sends this answer without a header.
        Ok(Response::new(pb::DefragmentResponse { header: None }))
    }

    /// A fingerprint of the latest state. etcd hashes the bytes of its file; that is of no use for comparing members,
    /// and nobody can depend on its value.
    async fn hash(&self, _: Request<pb::HashRequest>) -> Result<Response<pb::HashResponse>, Status> {
        let hash = self.gateway.hash(Revision(0)).await?;
        Ok(Response::new(pb::HashResponse { header: header(&self.gateway.context, hash.current), hash: hash.hash }))
    }

    async fn hash_kv(&self, request: Request<pb::HashKvRequest>) -> Result<Response<pb::HashKvResponse>, Status> {
        let hash = self.gateway.hash(Revision(request.into_inner().revision)).await?;
        Ok(Response::new(pb::HashKvResponse {
            header: header(&self.gateway.context, hash.current),
            hash: hash.hash,
            compact_revision: hash.compacted.0,
            hash_revision: hash.revision.0,
        }))
    }

    type SnapshotStream = Pin<Box<dyn Stream<Item = Result<pb::SnapshotResponse, Status>> + Send>>;

    /// The member's own state, in the format of `sinew snapshot save`.
    async fn snapshot(&self, _: Request<pb::SnapshotRequest>) -> Result<Response<Self::SnapshotStream>, Status> {
        let context = Arc::clone(&self.gateway.context);
        let place = place_of(&context.large_reads, 1).await?;
        let (sender, pieces) = mpsc::channel(SNAPSHOT_AHEAD);
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || {
            let mut reader = SnapshotReader::new(context.engine.view());
            let mut frames = SnapshotFrames::default();
            let mut left = context.upkeep.sizes.taken();
            loop {
                let piece = match reader.next_chunk() {
                    Ok(None) => break,
                    Ok(Some(chunk)) => {
                        let blob = frames.frame(&chunk);
                        left = left.saturating_sub(blob.len() as u64).max(1);
                        // An estimate; only its end is certain.
                        let remaining_bytes = if chunk.last { 0 } else { left };
                        let version = if chunk.sequence == 0 { STORAGE_VERSION.into() } else { String::new() };
                        Ok(pb::SnapshotResponse { header: None, remaining_bytes, blob, version })
                    }
                    Err(fault) => Err(errors::fault(&fault)),
                };
                let failed = piece.is_err();
                // At the client's pace, as long as it has one. Who stands still gives the place back to others.
                match runtime.block_on(sender.send_timeout(piece, limits::SNAPSHOT_STALL_MAX)) {
                    Ok(()) if !failed => {}
                    Ok(()) | Err(SendTimeoutError::Closed(_)) => break,
                    Err(SendTimeoutError::Timeout(_)) => {
                        // Waits for the client, holding nothing.
                        runtime.spawn(async move { drop(sender.send(Err(errors::snapshot_stalled())).await) });
                        break;
                    }
                }
            }
            drop(place);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(pieces))))
    }

    /// In etcd's words, and never with success: there is no older version that could read what is stored here.
    async fn downgrade(
        &self,
        request: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        let request = request.into_inner();
        match request.action() {
            pb::downgrade_request::DowngradeAction::Cancel => Err(errors::no_downgrade()),
            pb::downgrade_request::DowngradeAction::Validate | pb::downgrade_request::DowngradeAction::Enable => {
                Err(if is_version(&request.version) { errors::no_such_target() } else { errors::not_a_version() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_version;

    #[test]
    fn versions_are_those_of_etcd() {
        assert!(["3.6", "3.6.0", "10.0.12"].iter().all(|text| is_version(text)));
        assert!(["", "3", "3.", "3.x", "v3.6", "3.6.0.1", "3.-6", "latest"].iter().all(|text| !is_version(text)));
    }
}
