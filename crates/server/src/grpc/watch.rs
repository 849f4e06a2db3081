//! `etcdserverpb.Watch`.

use std::pin::Pin;
use std::sync::Arc;

use api::etcdserverpb as pb;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::gateway::Gateway;
use crate::watch::WatchStream;

/// Metadata by which a client says that it would rather have no stream than one without a leader.
const NEEDS_LEADER: &str = "hasleader";

#[derive(Clone)]
pub(crate) struct WatchService {
    pub(crate) gateway: Arc<Gateway>,
}

#[tonic::async_trait]
impl pb::watch_server::Watch for WatchService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<pb::WatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let needs_leader = request.metadata().get(NEEDS_LEADER).is_some_and(|value| value == "true");
        let stream = WatchStream::open(Arc::clone(&self.gateway), request.into_inner(), needs_leader)?;
        Ok(Response::new(Box::pin(stream)))
    }
}
