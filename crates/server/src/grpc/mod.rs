//! The gRPC services. They translate and delegate; no rule of the store lives here.

mod cluster;
mod election;
mod kv;
mod lease;
mod lock;
mod maintenance;
mod queue;
mod watch;

use api::etcdserverpb as pb;
use base::Revision;

pub(crate) use cluster::ClusterService;
pub(crate) use election::ElectionService;
pub(crate) use kv::KvService;
pub(crate) use lease::{LeaseIds, LeaseService, ttl_min_s};
pub(crate) use lock::LockService;
pub(crate) use maintenance::MaintenanceService;
pub(crate) use watch::WatchService;

use crate::gateway::Context;

/// The etcd version whose API this release speaks; clients parse it to decide what they may use.
pub(crate) const API_VERSION: &str = "3.7.1";

/// The header of every answer.
pub(crate) fn header(context: &Context, revision: Revision) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader {
        cluster_id: context.directory.cluster().0,
        member_id: context.directory.me().id.0,
        revision: revision.0,
        raft_term: context.standing.look(|status| status.ballot.round),
    })
}
