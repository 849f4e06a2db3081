//! A gRPC client of a few methods, hand-made on `h2` so that the load generator does not measure itself.
//!
//! Invariant: an answer is handed out only if the whole of it arrived and its trailers say status 0. A [`Channel`] is
//! one TCP connection shared by several [`Caller`]s; whoever finds it broken replaces it, at the next endpoint that
//! accepts. Below [`super::load`].

use std::fmt;
use std::future::poll_fn;
use std::str::FromStr;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, StatusCode, Uri};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

/// Bytes in front of every gRPC message: one for compression, four for the length.
pub(super) const FRAME_HEADER_BYTES: usize = 5;
/// Largest answer accepted, in bytes; above it the call fails.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Flow-control window of one stream, in bytes: most answers arrive without a round trip for more.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Flow-control window of one connection, in bytes.
const CONNECTION_WINDOW_BYTES: u32 = 64 * 1024 * 1024;
/// Largest HTTP/2 frame accepted, in bytes.
const HTTP_FRAME_BYTES_MAX: u32 = 1024 * 1024;
/// Requests up to this many bytes are handed to h2 in one piece; its queue is then bounded by clients times this.
const UNPACED_BYTES_MAX: usize = 16 * 1024;
/// Longest server message kept in an error, in characters.
const MESSAGE_CHARS_MAX: usize = 200;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// What can be called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Call {
    /// `KV/Put`.
    Put,
    /// `KV/Range`.
    Range,
    /// `KV/Txn`.
    Txn,
    /// `Lease/LeaseGrant`.
    LeaseGrant,
    /// `Watch/Watch`, see [`Caller::open`].
    Watch,
}

const PATHS: [&str; 5] = [
    "/etcdserverpb.KV/Put",
    "/etcdserverpb.KV/Range",
    "/etcdserverpb.KV/Txn",
    "/etcdserverpb.Lease/LeaseGrant",
    "/etcdserverpb.Watch/Watch",
];

/// Why a call has no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum CallError {
    /// No connection could be made.
    Connect(String),
    /// The connection broke; whether the server acted is unknown.
    Lost(String),
    /// The server refused: gRPC code and message.
    Status(u32, String),
    /// What came back is not gRPC.
    Protocol(String),
    /// No answer in time; whether the server acted is unknown.
    TimedOut,
}

impl CallError {
    /// True if the next call needs a new connection.
    pub(super) fn is_connection(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Lost(_))
    }

    fn from_h2(error: &h2::Error) -> Self {
        // A reset concerns one stream only; everything else ends the connection.
        if error.is_reset() {
            let reason = error.reason().map_or_else(|| "unknown".to_owned(), |reason| format!("{reason:?}"));
            return Self::Protocol(format!("stream reset: {reason}"));
        }
        Self::Lost(error.to_string())
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(reason) => write!(out, "cannot connect: {reason}"),
            Self::Lost(reason) => write!(out, "connection lost: {reason}"),
            Self::Status(code, message) => write!(out, "{}: {message}", code_name(*code)),
            Self::Protocol(reason) => write!(out, "not a gRPC answer: {reason}"),
            Self::TimedOut => write!(out, "no answer in time"),
        }
    }
}

/// Where a server listens: `host:port`, and the address of each method there.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    authority: Authority,
    uris: [Uri; PATHS.len()],
}

impl Endpoint {
    /// `host:port`, as the operating system's resolver takes it.
    pub(super) fn address(&self) -> &str {
        self.authority.as_str()
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("https://") {
            return Err(format!("'{text}': bench speaks plain text only; give an http:// endpoint"));
        }
        let address = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let authority = Authority::from_str(address).map_err(|error| format!("'{text}' is not host:port: {error}"))?;
        if authority.port_u16().is_none_or(|port| port == 0) || authority.host().is_empty() || address.contains('@') {
            return Err(format!("'{text}' is not host:port, for example 127.0.0.1:2379"));
        }
        let uri = |path: &'static str| {
            let mut parts = http::uri::Parts::default();
            parts.scheme = Some(Scheme::HTTP);
            parts.authority = Some(authority.clone());
            parts.path_and_query = Some(PathAndQuery::from_static(path));
            Uri::from_parts(parts).map_err(|error| format!("'{text}' is not host:port: {error}"))
        };
        let uris = [uri(PATHS[0])?, uri(PATHS[1])?, uri(PATHS[2])?, uri(PATHS[3])?, uri(PATHS[4])?];
        Ok(Self { authority, uris })
    }
}

/// One live connection as a caller sees it; `generation` tells it from its predecessors.
#[derive(Clone)]
struct Line {
    generation: u64,
    sender: SendRequest<Bytes>,
    endpoint: Arc<Endpoint>,
}

/// One TCP connection to the service, made again when it breaks.
pub(super) struct Channel {
    endpoints: Vec<Arc<Endpoint>>,
    state: Mutex<ChannelState>,
}

struct ChannelState {
    line: Option<Line>,
    generation: u64,
    /// The endpoint to try next: the one the channel started with, until that refuses.
    next: usize,
}

impl Channel {
    /// Connects to the endpoint at `home`.
    ///
    /// # Errors
    /// [`CallError::Connect`] if nothing speaks HTTP/2 there.
    pub(super) async fn connect(endpoints: &[Arc<Endpoint>], home: usize) -> Result<Arc<Self>, CallError> {
        assert!(home < endpoints.len(), "endpoint {home} of {}", endpoints.len());
        let state = ChannelState { line: None, generation: 0, next: home };
        let channel = Arc::new(Self { endpoints: endpoints.to_vec(), state: Mutex::new(state) });
        channel.line_after(0).await?;
        Ok(channel)
    }

    /// A connection newer than `generation`; makes one if nobody has yet.
    async fn line_after(&self, generation: u64) -> Result<Line, CallError> {
        // Held while connecting, so that all callers of a broken connection wait for one replacement.
        let mut state = self.state.lock().await;
        if let Some(line) = state.line.as_ref().filter(|line| line.generation > generation) {
            return Ok(line.clone());
        }
        state.line = None;
        let endpoint = Arc::clone(&self.endpoints[state.next % self.endpoints.len()]);
        match open(endpoint.address()).await {
            Ok(sender) => {
                state.generation = state.generation.max(generation) + 1;
                let line = Line { generation: state.generation, sender, endpoint };
                state.line = Some(line.clone());
                Ok(line)
            }
            Err(reason) => {
                state.next += 1;
                Err(CallError::Connect(format!("{}: {reason}", endpoint.address())))
            }
        }
    }
}

/// One client's view of a [`Channel`]: makes one call at a time.
pub(super) struct Caller {
    channel: Arc<Channel>,
    line: Option<Line>,
    generation: u64,
}

impl Caller {
    /// A caller on `channel`.
    pub(super) fn new(channel: &Arc<Channel>) -> Self {
        Self { channel: Arc::clone(channel), line: None, generation: 0 }
    }

    /// Sends one framed message and returns the message of the answer.
    ///
    /// # Errors
    /// See [`CallError`]; after a connection error the next call uses a new connection.
    pub(super) async fn call(&mut self, call: Call, framed: Bytes) -> Result<Bytes, CallError> {
        let result = self.try_call(call, framed).await;
        if matches!(&result, Err(error) if error.is_connection()) {
            self.line = None;
        }
        result
    }

    /// Sends one framed message on a stream that stays open, and hands out what comes back.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(super) async fn open(&mut self, call: Call, framed: Bytes) -> Result<Messages, CallError> {
        let (response, mut stream) = self.begin(call).await?;
        stream.send_data(framed, false).map_err(|error| CallError::from_h2(&error))?;
        let body = answer_of(response).await?;
        Ok(Messages { body, _open: stream, received: BytesMut::new() })
    }

    async fn try_call(&mut self, call: Call, framed: Bytes) -> Result<Bytes, CallError> {
        let (response, stream) = self.begin(call).await?;
        send(stream, framed).await.map_err(|error| CallError::from_h2(&error))?;
        read_message(answer_of(response).await?).await
    }

    async fn begin(&mut self, call: Call) -> Result<(ResponseFuture, SendStream<Bytes>), CallError> {
        let line = match &mut self.line {
            Some(line) => line,
            None => {
                let line = self.channel.line_after(self.generation).await?;
                self.generation = line.generation;
                self.line.insert(line)
            }
        };
        // Waits while the server's limit on concurrent streams is reached.
        poll_fn(|context| line.sender.poll_ready(context)).await.map_err(|error| CallError::from_h2(&error))?;
        let request = request(line.endpoint.uris[call as usize].clone());
        line.sender.send_request(request, false).map_err(|error| CallError::from_h2(&error))
    }
}

/// The messages of a stream. Dropped, it ends the stream.
pub(super) struct Messages {
    body: RecvStream,
    /// A stream whose sending half is closed is over for the server.
    _open: SendStream<Bytes>,
    received: BytesMut,
}

impl Messages {
    /// The next message.
    ///
    /// # Errors
    /// [`CallError`] when the stream is over, for whatever reason.
    pub(super) async fn next(&mut self) -> Result<Bytes, CallError> {
        loop {
            if let Some(message) = first_message(&mut self.received)? {
                return Ok(message);
            }
            let Some(chunk) = self.body.data().await else {
                let trailers = self.body.trailers().await.map_err(|error| CallError::from_h2(&error))?;
                check_status(&trailers.unwrap_or_default())?;
                return Err(CallError::Protocol("the server ended the stream".to_owned()));
            };
            let chunk = chunk.map_err(|error| CallError::from_h2(&error))?;
            self.body.flow_control().release_capacity(chunk.len()).map_err(|error| CallError::from_h2(&error))?;
            self.received.extend_from_slice(&chunk);
        }
    }
}

/// Takes the first message off, without its frame header, if all of it is there.
fn first_message(received: &mut BytesMut) -> Result<Option<Bytes>, CallError> {
    let Some((header, rest)) = received.split_first_chunk::<FRAME_HEADER_BYTES>() else { return Ok(None) };
    let [compressed, length @ ..] = *header;
    let length = u32::from_be_bytes(length) as usize;
    if compressed != 0 || length > ANSWER_BYTES_MAX {
        return Err(CallError::Protocol(format!("a message of {length} bytes, compression {compressed}")));
    }
    if rest.len() < length {
        return Ok(None);
    }
    received.advance(FRAME_HEADER_BYTES);
    Ok(Some(received.split_to(length).freeze()))
}

async fn open(address: &str) -> Result<SendRequest<Bytes>, String> {
    let socket = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    socket.set_nodelay(true).map_err(|error| error.to_string())?;
    let (sender, connection) = h2::client::Builder::new()
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(HTTP_FRAME_BYTES_MAX)
        .enable_push(false)
        .handshake(server::Gathered::new(socket))
        .await
        .map_err(|error| error.to_string())?;
    // The error that ends the connection reaches every open stream, and so every caller; here it would be the second
    // report of the same thing.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

fn request(uri: Uri) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    request
}

/// Sends the body. A large one goes out as the server's window opens; if the server stops reading, the answer says why.
async fn send(mut stream: SendStream<Bytes>, mut framed: Bytes) -> Result<(), h2::Error> {
    if framed.len() <= UNPACED_BYTES_MAX {
        return stream.send_data(framed, true);
    }
    while framed.has_remaining() {
        stream.reserve_capacity(framed.len());
        match poll_fn(|context| stream.poll_capacity(context)).await {
            Some(Ok(0)) => {}
            Some(Ok(granted)) => {
                let piece = framed.split_to(granted.min(framed.len()));
                stream.send_data(piece, framed.is_empty())?;
            }
            Some(Err(error)) if error.is_io() || error.is_go_away() => return Err(error),
            Some(Err(_)) | None => return Ok(()),
        }
    }
    Ok(())
}

/// The body of an answer that did not fail from the start.
async fn answer_of(response: ResponseFuture) -> Result<RecvStream, CallError> {
    let response = response.await.map_err(|error| CallError::from_h2(&error))?;
    let (head, body) = response.into_parts();
    if head.status != StatusCode::OK {
        return Err(CallError::Protocol(format!("HTTP status {}", head.status)));
    }
    // An early refusal comes as headers alone ("Trailers-Only" in the gRPC over HTTP/2 specification).
    if head.headers.contains_key(GRPC_STATUS) {
        check_status(&head.headers)?;
    }
    Ok(body)
}

async fn read_message(mut body: RecvStream) -> Result<Bytes, CallError> {
    let mut assembler = Assembler::default();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(|error| CallError::from_h2(&error))?;
        body.flow_control().release_capacity(chunk.len()).map_err(|error| CallError::from_h2(&error))?;
        assembler.push(chunk)?;
    }
    let trailers = body.trailers().await.map_err(|error| CallError::from_h2(&error))?;
    check_status(&trailers.ok_or_else(|| CallError::Protocol("no trailers".to_owned()))?)?;
    assembler.finish()
}

/// Puts the frames of one answer together; copies only if there is more than one.
#[derive(Default)]
struct Assembler {
    first: Bytes,
    all: BytesMut,
}

impl Assembler {
    fn push(&mut self, chunk: Bytes) -> Result<(), CallError> {
        if self.first.len() + self.all.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(CallError::Protocol(format!("an answer of more than {ANSWER_BYTES_MAX} bytes")));
        }
        if self.first.is_empty() && self.all.is_empty() {
            self.first = chunk;
            return Ok(());
        }
        self.all.extend_from_slice(&std::mem::take(&mut self.first));
        self.all.extend_from_slice(&chunk);
        Ok(())
    }

    /// The message without its frame header.
    fn finish(self) -> Result<Bytes, CallError> {
        let mut framed = if self.all.is_empty() { self.first } else { self.all.freeze() };
        if framed.len() < FRAME_HEADER_BYTES {
            return Err(CallError::Protocol(format!("{} bytes where a message was due", framed.len())));
        }
        let (compressed, length) = (framed.get_u8(), framed.get_u32());
        if compressed != 0 {
            return Err(CallError::Protocol("a compressed message nobody asked for".to_owned()));
        }
        if usize::try_from(length).ok() != Some(framed.len()) {
            return Err(CallError::Protocol(format!("a message of {length} bytes in a body of {}", framed.len())));
        }
        Ok(framed)
    }
}

/// Ok if the gRPC status is 0.
fn check_status(trailers: &HeaderMap) -> Result<(), CallError> {
    let code = trailers.get(GRPC_STATUS).ok_or_else(|| CallError::Protocol("no grpc-status".to_owned()))?;
    if code == "0" {
        return Ok(());
    }
    let code = code.to_str().ok().and_then(|text| text.parse().ok());
    let code = code.ok_or_else(|| CallError::Protocol("grpc-status is not a number".to_owned()))?;
    let message = trailers.get(GRPC_MESSAGE).map_or_else(String::new, |text| percent_decoded(text.as_bytes()));
    Err(CallError::Status(code, message.chars().take(MESSAGE_CHARS_MAX).collect()))
}

/// Undoes the `%XX` of a grpc-message; what is not such an escape stays as it is.
fn percent_decoded(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        let escaped = tail.get(..2).filter(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        let escaped = escaped.and_then(|hex| std::str::from_utf8(hex).ok());
        match escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(decoded) if byte == b'%' => {
                bytes.push(decoded);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The name of a gRPC status code.
fn code_name(code: u32) -> String {
    const NAMES: [&str; 17] = [
        "OK",
        "Cancelled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    let name = usize::try_from(code).ok().and_then(|code| NAMES.get(code));
    name.map_or_else(|| format!("Code{code}"), |name| (*name).to_owned())
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
