//! Unary gRPC calls: one message in, one message out, and nothing between.
//!
//! Most calls of a busy node are these, and what the general machinery for streams of messages makes of each (boxes,
//! buffers, adapters) costs more than to read and write the one message. What is on the wire is the same.
//!
//! Invariant: a call is answered by its handler, or with a status that says what is wrong with the request; a message
//! is never taken before it is whole, nor gathered beyond the limit.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use prost::Message;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use crate::gateway::AnswerPermit;

/// Before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// Whether the call can be served here: its messages are not compressed.
pub(crate) fn is_plain(headers: &HeaderMap) -> bool {
    headers.get("grpc-encoding").is_none_or(|encoding| encoding == "identity")
}

/// Reads the request's message of at most `bytes_max`, calls the handler, writes its answer.
pub(crate) async fn serve<B, M, R, F>(
    request: http::Request<B>,
    bytes_max: usize,
    handler: impl FnOnce(Request<M>) -> F,
) -> http::Response<UnaryBody>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
    M: Message + Default,
    R: Message,
    F: Future<Output = Result<Response<R>, Status>>,
{
    let (head, body) = request.into_parts();
    let message = match receive(body, bytes_max).await {
        Ok(message) => message,
        Err(status) => return status.into_http(),
    };
    let request = Request::from_parts(MetadataMap::from_headers(head.headers), head.extensions, message);
    match handler(request).await {
        Ok(response) => answer(response),
        Err(status) => status.into_http(),
    }
}

/// The one message of a call.
async fn receive<B, M>(mut body: B, bytes_max: usize) -> Result<M, Status>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
    M: Message + Default,
{
    let mut whole = Bytes::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Status::cancelled(format!("the request ended early: {error}")))?;
        // Clients send no trailers that mean anything.
        let Ok(data) = frame.into_data() else { continue };
        whole = if whole.is_empty() { data } else { joined(whole, &data) };
        check_prefix(&whole, bytes_max)?;
    }
    if whole.is_empty() {
        return Err(Status::internal("a call without a message"));
    }
    if whole.len() < PREFIX_BYTES || whole.len() < PREFIX_BYTES + length(&whole) {
        return Err(Status::internal("the request ended in the middle of its message"));
    }
    whole.advance(PREFIX_BYTES);
    M::decode(whole).map_err(|error| Status::internal(format!("the request's message cannot be read: {error}")))
}

fn joined(first: Bytes, second: &Bytes) -> Bytes {
    let mut joined = BytesMut::from(first);
    joined.extend_from_slice(second);
    joined.freeze()
}

/// The length that the prefix announces.
fn length(whole: &[u8]) -> usize {
    u32::from_be_bytes([whole[1], whole[2], whole[3], whole[4]]) as usize
}

/// Refuses a message as soon as it shows that it is none of ours.
fn check_prefix(whole: &[u8], bytes_max: usize) -> Result<(), Status> {
    if whole.len() < PREFIX_BYTES {
        return Ok(());
    }
    if whole[0] != 0 {
        return Err(Status::internal("a message with the compressed flag, but no grpc-encoding was specified"));
    }
    let length = length(whole);
    if length > bytes_max {
        // In the words of grpc-go, which clients of etcd know.
        return Err(Status::resource_exhausted(format!(
            "grpc: received message larger than max ({length} vs. {bytes_max})"
        )));
    }
    if whole.len() > PREFIX_BYTES + length {
        return Err(Status::internal("a call with more than one message"));
    }
    Ok(())
}

fn answer<R: Message>(response: Response<R>) -> http::Response<UnaryBody> {
    let (metadata, message, mut extensions) = response.into_parts();
    let length = message.encoded_len();
    let Ok(announced) = u32::try_from(length) else {
        return Status::resource_exhausted(format!("an answer of {length} bytes is more than gRPC can carry"))
            .into_http();
    };
    let mut bytes = Vec::with_capacity(PREFIX_BYTES + length);
    bytes.put_u8(0);
    bytes.put_u32(announced);
    message.encode(&mut bytes).expect("there is room for its length");
    let permit = extensions.remove::<AnswerPermit>();
    let mut answer = http::Response::new(UnaryBody { left: Left::Message(bytes.into()), _permit: permit });
    *answer.headers_mut() = metadata.into_headers();
    answer.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    answer
}

/// What is still to be sent.
#[derive(Debug, Default)]
enum Left {
    Message(Bytes),
    Trailers,
    #[default]
    Nothing,
}

/// The answer to a unary call; without a message it is a status, which is in the headers.
#[derive(Default)]
pub(crate) struct UnaryBody {
    left: Left,
    /// A large answer keeps its place until the last byte is taken by the client.
    _permit: Option<AnswerPermit>,
}

impl Body for UnaryBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(match std::mem::take(&mut self.left) {
            Left::Message(message) => {
                self.left = Left::Trailers;
                Some(Ok(Frame::data(message)))
            }
            Left::Trailers => {
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                Some(Ok(Frame::trailers(trailers)))
            }
            Left::Nothing => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.left, Left::Nothing)
    }

    fn size_hint(&self) -> SizeHint {
        // None: with an exact one a content-length would be sent.
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use api::etcdserverpb::PutRequest;
    use http_body_util::StreamBody;
    use tonic::Code;

    use super::*;

    const BYTES_MAX: usize = 100;

    fn put(bytes: usize) -> PutRequest {
        PutRequest { key: Bytes::from_static(b"k"), value: vec![7; bytes].into(), ..PutRequest::default() }
    }

    fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
        [&[flag], &u32::try_from(message.len()).expect("small").to_be_bytes()[..], message].concat()
    }

    /// What a handler that answers with the request makes of a body that comes in such pieces.
    async fn echoed(pieces: Vec<&[u8]>) -> http::Response<UnaryBody> {
        let frames = pieces.into_iter().map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(piece))));
        let body = StreamBody::new(tokio_stream::iter(frames.collect::<Vec<_>>()));
        let mut request = http::Request::new(body);
        request.headers_mut().insert("fence", HeaderValue::from_static("5"));
        serve(request, BYTES_MAX, |request: Request<PutRequest>| async move {
            assert_eq!(request.metadata().get("fence").expect("headers are metadata"), "5");
            let mut response = Response::new(request.into_inner());
            response.metadata_mut().insert("told", "yes".parse().expect("ascii"));
            Ok(response)
        })
        .await
    }

    async fn refusal(pieces: Vec<&[u8]>) -> (Code, String) {
        let response = echoed(pieces).await;
        assert!(response.body().is_end_stream(), "the status is in the headers");
        let status = Status::from_header_map(response.headers()).expect("a status");
        (status.code(), status.message().to_owned())
    }

    #[tokio::test]
    async fn a_message_is_taken_however_it_is_cut() {
        let wanted = put(40);
        let whole = framed(0, &wanted.encode_to_vec());
        for cut in 0..=whole.len() {
            for second in [cut, whole.len().min(cut + 3)] {
                let response = echoed(vec![&whole[..cut], &whole[cut..second], &whole[second..]]).await;
                assert_eq!(response.headers()["content-type"], "application/grpc");
                assert_eq!(response.headers()["told"], "yes");
                assert!(!response.headers().contains_key("grpc-status"));
                let answer = response.into_body().collect().await.expect("nothing fails");
                assert_eq!(answer.trailers().expect("trailers")["grpc-status"], "0");
                assert_eq!(answer.to_bytes(), whole, "cut at {cut} and {second}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_not_one_message_is_refused_in_words() {
        let good = framed(0, &put(10).encode_to_vec());
        let large = framed(0, &put(BYTES_MAX).encode_to_vec());
        let words = |of: (Code, String), code, part: &str| assert!(of.0 == code && of.1.contains(part), "{of:?}");
        words(refusal(vec![]).await, Code::Internal, "without a message");
        words(refusal(vec![b""]).await, Code::Internal, "without a message");
        words(refusal(vec![&good[..3]]).await, Code::Internal, "in the middle");
        words(refusal(vec![&good[..good.len() - 1]]).await, Code::Internal, "in the middle");
        words(refusal(vec![&good, &good]).await, Code::Internal, "more than one");
        words(refusal(vec![&good, b"\0"]).await, Code::Internal, "more than one");
        words(refusal(vec![&framed(1, b"zip")]).await, Code::Internal, "compressed");
        words(refusal(vec![&framed(0, b"\xff\xff\xff")]).await, Code::Internal, "cannot be read");
        // The rest of a message that is too large is not waited for.
        let said = format!("({} vs. {BYTES_MAX})", large.len() - PREFIX_BYTES);
        words(refusal(vec![&large[..5]]).await, Code::ResourceExhausted, &said);
    }

    #[test]
    fn compressed_calls_are_left_to_others() {
        let with = |encoding| HeaderMap::from_iter([(http::HeaderName::from_static("grpc-encoding"), encoding)]);
        assert!(is_plain(&HeaderMap::new()) && is_plain(&with(HeaderValue::from_static("identity"))));
        assert!(!is_plain(&with(HeaderValue::from_static("gzip"))));
    }
}
