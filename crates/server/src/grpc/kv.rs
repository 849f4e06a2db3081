//! `etcdserverpb.KV`.

use std::pin::Pin;
use std::sync::Arc;

use api::etcdserverpb as pb;
use base::Revision;
use mvcc::{Command, Op, OpResult, OutcomeResult, TxnResult};
use prost::Message;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::header;
use crate::fence::Fences;
use crate::gateway::Gateway;
use crate::{convert, errors, stream};

#[derive(Clone)]
pub(crate) struct KvService {
    pub(crate) gateway: Arc<Gateway>,
}

/// Chunks of a range stream read ahead of the client.
const STREAM_AHEAD: usize = 2;

fn mismatched() -> Status {
    Status::internal("a request was answered like one of another kind")
}

impl KvService {
    /// Runs a single put or delete behind fences.
    async fn guarded(&self, op: Op, fences: &Fences) -> Result<(Revision, OpResult), Status> {
        let (revision, result) = self.gateway.guarded(op, fences).await?;
        match result {
            OpResult::Txn(TxnResult { mut responses, .. }) if responses.len() == 1 => {
                Ok((revision, responses.remove(0).result))
            }
            _ => Err(mismatched()),
        }
    }

    /// The answer, once there is room for it.
    async fn permitted<M: Message>(&self, message: M) -> Result<Response<M>, Status> {
        let permit = self.gateway.permit(message.encoded_len()).await?;
        let mut response = Response::new(message);
        if let Some(permit) = permit {
            response.extensions_mut().insert(permit);
        }
        Ok(response)
    }
}

#[tonic::async_trait]
impl pb::kv_server::Kv for KvService {
    async fn range(&self, request: Request<pb::RangeRequest>) -> Result<Response<pb::RangeResponse>, Status> {
        let context = &self.gateway.context;
        context.metrics.ranges.add(1);
        let ranged = self.gateway.range(convert::range_request(request.into_inner())).await?;
        let header = header(context, ranged.response.revision);
        let mut response = Response::new(convert::range_response(header, ranged.response.result));
        if let Some(permit) = ranged.permit {
            response.extensions_mut().insert(permit);
        }
        Ok(response)
    }

    type RangeStreamStream = Pin<Box<dyn Stream<Item = Result<pb::RangeStreamResponse, Status>> + Send>>;

    async fn range_stream(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        self.gateway.context.metrics.ranges.add(1);
        let request = convert::range_request(request.into_inner());
        request.validate().map_err(errors::rejected)?;
        let (sender, chunks) = tokio::sync::mpsc::channel(STREAM_AHEAD);
        stream::start(Arc::clone(&self.gateway), request, sender).await?;
        Ok(Response::new(Box::pin(ReceiverStream::new(chunks))))
    }

    async fn put(&self, request: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        let context = &self.gateway.context;
        context.metrics.puts.add(1);
        let fences = Fences::read(request.metadata())?;
        let put = convert::put_request(request.into_inner());
        if !fences.is_empty() {
            return match self.guarded(Op::Put(put), &fences).await? {
                (revision, OpResult::Put(result)) => {
                    Ok(Response::new(convert::put_response(header(context, revision), result)))
                }
                _ => Err(mismatched()),
            };
        }
        let command = Command::Put(put);
        match self.gateway.propose(&command).await? {
            (revision, OutcomeResult::Put(result)) => {
                Ok(Response::new(convert::put_response(header(context, revision), result)))
            }
            _ => Err(mismatched()),
        }
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let context = &self.gateway.context;
        context.metrics.deletes.add(1);
        let fences = Fences::read(request.metadata())?;
        let delete = convert::delete_request(request.into_inner());
        let (revision, result) = if fences.is_empty() {
            match self.gateway.propose(&Command::DeleteRange(delete)).await? {
                (revision, OutcomeResult::DeleteRange(result)) => (revision, result),
                _ => return Err(mismatched()),
            }
        } else {
            match self.guarded(Op::DeleteRange(delete), &fences).await? {
                (revision, OpResult::DeleteRange(result)) => (revision, result),
                _ => return Err(mismatched()),
            }
        };
        let response = convert::delete_response(header(context, revision), result);
        self.permitted(response).await.map_err(|_| errors::answer_dropped(revision))
    }

    async fn txn(&self, request: Request<pb::TxnRequest>) -> Result<Response<pb::TxnResponse>, Status> {
        let context = &self.gateway.context;
        context.metrics.txns.add(1);
        let fences = Fences::read(request.metadata())?;
        let txn = convert::txn_request(request.into_inner()).map_err(|bad| errors::bad_txn(&bad))?;
        let wrote = !txn.is_read_only();
        let (revision, result) = if fences.is_empty() {
            self.gateway.txn(txn).await?
        } else {
            match self.gateway.guarded(Op::Txn(txn), &fences).await? {
                (revision, OpResult::Txn(result)) => (revision, result),
                _ => return Err(mismatched()),
            }
        };
        let response = convert::txn_response(header(context, revision), result);
        // What was written is not undone by an answer that finds no place.
        self.permitted(response).await.map_err(|status| if wrote { errors::answer_dropped(revision) } else { status })
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        let request = request.into_inner();
        let (revision, _) = self.gateway.propose(&convert::compact_request(&request)).await?;
        if request.physical {
            self.gateway.context.upkeep.swept(Revision(request.revision)).await;
        }
        Ok(Response::new(pb::CompactionResponse { header: header(&self.gateway.context, revision) }))
    }
}
