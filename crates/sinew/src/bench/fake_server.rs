//! A server for the tests of the client: real HTTP/2 on loopback, scripted answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Response};
use tokio::net::{TcpListener, TcpStream};

use super::client::Endpoint;

/// What the server does with one request.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// A body in these pieces, then trailers with this status and message.
    Pieces(Vec<Bytes>, &'static str, &'static str),
    /// A framed message with status 0.
    Message(Vec<u8>),
    /// The request's own message, with status 0.
    Echo,
    /// Only headers, with this status and message.
    HeadersOnly(&'static str, &'static str),
    /// HTTP status without gRPC.
    Http(u16),
    /// A body, but no trailers.
    NoTrailers(Bytes),
    /// Resets the stream.
    Reset,
    /// Closes the connection.
    HangUp,
    /// Never answers.
    Silence,
    /// Answers like [`Reply::Message`], but after a while.
    Late(Duration, Vec<u8>),
}

/// A message behind its frame header.
pub(super) fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap());
    framed.put_slice(message);
    framed.freeze()
}

/// Starts a server on this runtime; `script` maps the number of the request (from 0, over all connections) to the
/// reply.
pub(super) async fn start(script: impl Fn(usize, &str) -> Reply + Send + Sync + 'static) -> Arc<Endpoint> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let script = Arc::new(script);
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(socket, Arc::clone(&script), Arc::clone(&count)));
        }
    });
    Arc::new(address.parse().unwrap())
}

async fn serve(
    socket: TcpStream,
    script: Arc<impl Fn(usize, &str) -> Reply + Send + Sync + 'static>,
    count: Arc<std::sync::atomic::AtomicUsize>,
) {
    // Small windows, so that a large request needs the flow control.
    let mut server = h2::server::Builder::new().initial_window_size(1_000).handshake::<_, Bytes>(socket).await.unwrap();
    while let Some(Ok((request, respond))) = server.accept().await {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let reply = script(number, request.uri().path());
        if matches!(reply, Reply::HangUp) {
            return;
        }
        tokio::spawn(async move {
            let stays_open = request.uri().path().ends_with("/Watch");
            let mut body = request.into_body();
            let mut received = BytesMut::new();
            while !stays_open && let Some(chunk) = body.data().await {
                let Ok(chunk) = chunk else { return };
                body.flow_control().release_capacity(chunk.len()).unwrap();
                received.extend_from_slice(&chunk);
            }
            answer(respond, reply, received.freeze()).await;
        });
    }
}

async fn answer(mut respond: SendResponse<Bytes>, reply: Reply, received: Bytes) {
    let head =
        |status: u16| Response::builder().status(status).header("content-type", "application/grpc").body(()).unwrap();
    let (pieces, status, message) = match reply {
        Reply::Pieces(pieces, status, message) => (pieces, status, message),
        Reply::Message(message) => (vec![frame(&message)], "0", ""),
        Reply::Late(pause, message) => {
            tokio::time::sleep(pause).await;
            (vec![frame(&message)], "0", "")
        }
        Reply::Echo => (vec![received], "0", ""),
        Reply::HeadersOnly(status, message) => {
            let mut head = head(200);
            head.headers_mut().extend(trailers(status, message));
            respond.send_response(head, true).unwrap();
            return;
        }
        Reply::Http(status) => {
            respond.send_response(head(status), true).unwrap();
            return;
        }
        Reply::NoTrailers(body) => {
            respond.send_response(head(200), false).unwrap().send_data(body, true).unwrap();
            return;
        }
        Reply::Reset => return respond.send_reset(h2::Reason::REFUSED_STREAM),
        Reply::Silence => return std::future::pending().await,
        Reply::HangUp => unreachable!("handled by the connection"),
    };
    let mut stream = respond.send_response(head(200), false).unwrap();
    for piece in pieces {
        stream.send_data(piece, false).unwrap();
        // Lets the connection write each piece as a frame of its own.
        tokio::task::yield_now().await;
    }
    stream.send_trailers(trailers(status, message)).unwrap();
}

fn trailers(status: &'static str, message: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    if !message.is_empty() {
        trailers.insert("grpc-message", HeaderValue::from_static(message));
    }
    trailers
}
