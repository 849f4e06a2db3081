//! `RangeStream`: the answer of a range read in chunks, all at one revision.

use std::sync::Arc;

use api::etcdserverpb as pb;
use mvcc::{Chunk, RangeRequest, RangeStream, View};
use tokio::sync::mpsc::Sender;
use tonic::Status;

use crate::gateway::{Gateway, read_error};
use crate::{convert, grpc};

/// Pairs in the first chunk, so that the client has something soon.
const FIRST_CHUNK_KEYS: usize = 10;
/// Pairs in later chunks at most.
const CHUNK_KEYS: usize = 16_384;

/// Checks the request and starts sending chunks.
pub(crate) async fn start(
    gateway: Arc<Gateway>,
    request: RangeRequest,
    sender: Sender<Result<pb::RangeStreamResponse, Status>>,
) -> Result<(), Status> {
    if !RangeStream::supports(&request) {
        return Err(Status::unimplemented("range stream does not support sorting by a field or filters by revision"));
    }
    gateway.readable(request.serializable, request.revision).await?;
    let mut stream = RangeStream::open(&*gateway.context.engine.view(), request).map_err(|e| read_error(&e))?;
    tokio::spawn(async move {
        let mut keys = FIRST_CHUNK_KEYS;
        loop {
            match read(&gateway, stream, keys).await {
                Ok((_, None)) => return,
                Ok((rest, Some(chunk))) => {
                    stream = rest;
                    keys = CHUNK_KEYS;
                    // The client's pace: this waits while it has two chunks ahead.
                    if sender.send(Ok(response(&gateway, chunk))).await.is_err() {
                        return;
                    }
                }
                Err(status) => {
                    drop(sender.send(Err(status)).await);
                    return;
                }
            }
        }
    });
    Ok(())
}

/// Reads one chunk on a thread of its own.
async fn read(gateway: &Gateway, stream: RangeStream, keys: usize) -> Result<(RangeStream, Option<Chunk>), Status> {
    let bytes = gateway.context.max_request_bytes;
    let read = move |view: &dyn View| {
        let mut stream = stream;
        stream.chunk(view, keys, bytes).map(|chunk| (stream, chunk))
    };
    gateway.read_apart(read).await?.map_err(|error| read_error(&error))
}

/// Header, `more` and `count` stand in the last chunk only.
fn response(gateway: &Gateway, chunk: Chunk) -> pb::RangeStreamResponse {
    let mut response =
        pb::RangeResponse { kvs: chunk.kvs.into_iter().map(convert::key_value).collect(), ..Default::default() };
    if let Some(end) = chunk.end {
        response.header = grpc::header(&gateway.context, end.revision);
        response.more = end.more;
        response.count = end.count;
    }
    pb::RangeStreamResponse { range_response: Some(response) }
}
