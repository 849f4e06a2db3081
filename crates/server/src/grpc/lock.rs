//! `v3lockpb.Lock`.

use std::sync::Arc;

use api::v3lockpb as pb;
use bytes::Bytes;
use mvcc::{Command, DeleteRange};
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};

use super::{header, queue};
use crate::gateway::Gateway;

/// Metadata of an answer that names a holder: the token to guard writes with, see `fence`.
pub(crate) const TOKEN: &str = "sinew-fence-token";

#[derive(Clone)]
pub(crate) struct LockService {
    pub(crate) gateway: Arc<Gateway>,
}

#[tonic::async_trait]
impl pb::lock_server::Lock for LockService {
    async fn lock(&self, request: Request<pb::LockRequest>) -> Result<Response<pb::LockResponse>, Status> {
        let pb::LockRequest { name, lease } = request.into_inner();
        let lease = queue::lease_for(&self.gateway, lease).await?;
        let acquired = queue::acquire(&self.gateway, &name, lease, Bytes::new()).await?;
        // etcd's text and, by accident, its code.
        let (place, revision) = acquired.ok_or_else(|| Status::unknown("mutex: session is expired"))?;
        let header = header(&self.gateway.context, revision);
        let mut response = Response::new(pb::LockResponse { header, key: place.key });
        response.metadata_mut().insert(TOKEN, MetadataValue::from(place.created.0));
        Ok(response)
    }

    async fn unlock(&self, request: Request<pb::UnlockRequest>) -> Result<Response<pb::UnlockResponse>, Status> {
        let delete = DeleteRange { key: request.into_inner().key, ..DeleteRange::default() };
        let (revision, _) = self.gateway.propose(&Command::DeleteRange(delete)).await?;
        Ok(Response::new(pb::UnlockResponse { header: header(&self.gateway.context, revision) }))
    }
}
