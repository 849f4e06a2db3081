//! gRPC calls counted by method and outcome, under the names that etcd's dashboards know (`grpc_server_*`).
//!
//! Invariant: every call that was started is handled exactly once, with the code that the client was told, or as
//! canceled if it left before. Each client thread counts for itself, so that counting is never waited for; only who
//! reads `/metrics` adds them up.

use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};
use tonic::Code;

use crate::body::AnswerBody;
use crate::metrics::{Counter, header};

/// Who sends more than one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unary,
    Server,
    Both,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::Server => "server_stream",
            Self::Both => "bidi_stream",
        }
    }
}

/// All methods that are served, those called most first; a test compares them with the committed descriptors.
const METHODS: [(&str, &str, Kind); 34] = [
    ("etcdserverpb.KV", "Range", Kind::Unary),
    ("etcdserverpb.KV", "Put", Kind::Unary),
    ("etcdserverpb.KV", "Txn", Kind::Unary),
    ("etcdserverpb.KV", "DeleteRange", Kind::Unary),
    ("etcdserverpb.KV", "RangeStream", Kind::Server),
    ("etcdserverpb.KV", "Compact", Kind::Unary),
    ("etcdserverpb.Watch", "Watch", Kind::Both),
    ("etcdserverpb.Lease", "LeaseGrant", Kind::Unary),
    ("etcdserverpb.Lease", "LeaseRevoke", Kind::Unary),
    ("etcdserverpb.Lease", "LeaseKeepAlive", Kind::Both),
    ("etcdserverpb.Lease", "LeaseTimeToLive", Kind::Unary),
    ("etcdserverpb.Lease", "LeaseLeases", Kind::Unary),
    ("etcdserverpb.Maintenance", "Alarm", Kind::Unary),
    ("etcdserverpb.Maintenance", "Status", Kind::Unary),
    ("etcdserverpb.Maintenance", "Defragment", Kind::Unary),
    ("etcdserverpb.Maintenance", "Hash", Kind::Unary),
    ("etcdserverpb.Maintenance", "HashKV", Kind::Unary),
    ("etcdserverpb.Maintenance", "Snapshot", Kind::Server),
    ("etcdserverpb.Maintenance", "MoveLeader", Kind::Unary),
    ("etcdserverpb.Maintenance", "Downgrade", Kind::Unary),
    ("etcdserverpb.Cluster", "MemberAdd", Kind::Unary),
    ("etcdserverpb.Cluster", "MemberRemove", Kind::Unary),
    ("etcdserverpb.Cluster", "MemberUpdate", Kind::Unary),
    ("etcdserverpb.Cluster", "MemberList", Kind::Unary),
    ("etcdserverpb.Cluster", "MemberPromote", Kind::Unary),
    ("v3lockpb.Lock", "Lock", Kind::Unary),
    ("v3lockpb.Lock", "Unlock", Kind::Unary),
    ("v3electionpb.Election", "Campaign", Kind::Unary),
    ("v3electionpb.Election", "Proclaim", Kind::Unary),
    ("v3electionpb.Election", "Leader", Kind::Unary),
    ("v3electionpb.Election", "Observe", Kind::Server),
    ("v3electionpb.Election", "Resign", Kind::Unary),
    ("grpc.health.v1.Health", "Check", Kind::Unary),
    ("grpc.health.v1.Health", "Watch", Kind::Server),
];
/// The codes of gRPC, by number, as the metric names them.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
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
/// Before each message: a flag and its length.
const PREFIX_BYTES: usize = 5;

#[derive(Debug, Default)]
struct MethodCalls {
    started: Counter,
    received: Counter,
    sent: Counter,
    handled: [Counter; CODES.len()],
}

/// The counters of one client thread.
#[derive(Debug)]
pub(crate) struct Calls(Box<[MethodCalls]>);

impl Calls {
    /// Counts a call that begins, if its method is one of ours.
    pub(crate) fn start(self: &Arc<Self>, path: &str) -> Option<Call> {
        let (service, name) = path.strip_prefix('/')?.split_once('/')?;
        let method = METHODS.iter().position(|method| method.1 == name && method.0 == service)?;
        let call = Call { calls: Arc::clone(self), method, code: Code::Cancelled };
        call.counters().started.add(1);
        if call.kind() != Kind::Both {
            call.counters().received.add(1);
        }
        Some(call)
    }
}

/// The counters of all client threads.
#[derive(Debug, Default)]
pub(crate) struct AllCalls(Mutex<Vec<Arc<Calls>>>);

impl AllCalls {
    /// Counters for one more thread.
    pub(crate) fn for_thread(&self) -> Arc<Calls> {
        let calls = Arc::new(Calls(METHODS.iter().map(|_| MethodCalls::default()).collect()));
        self.lock().push(Arc::clone(&calls));
        calls
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Calls>>> {
        // A panic cannot leave the list half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the sums, as etcd does: every method from the start, outcomes once they have occurred.
    pub(crate) fn write(&self, out: &mut String) {
        let threads = self.lock();
        let mut family = |name: &str, help: &str, counter: &dyn Fn(&MethodCalls) -> &Counter| {
            header(out, name, "counter", help);
            for (at, method) in METHODS.iter().enumerate() {
                let sum: u64 = threads.iter().map(|calls| counter(&calls.0[at]).get()).sum();
                let labels = labels(*method);
                writeln!(out, "{name}{{{labels}}} {sum}").expect("a String takes everything");
            }
        };
        family("grpc_server_started_total", "RPCs started on the server.", &|calls| &calls.started);
        family("grpc_server_msg_received_total", "RPC messages received on the server.", &|calls| &calls.received);
        family("grpc_server_msg_sent_total", "gRPC messages sent by the server.", &|calls| &calls.sent);
        let name = "grpc_server_handled_total";
        header(out, name, "counter", "RPCs completed on the server, regardless of success or failure.");
        for (at, method) in METHODS.iter().enumerate() {
            for (code, word) in CODES.iter().enumerate() {
                let sum: u64 = threads.iter().map(|calls| calls.0[at].handled[code].get()).sum();
                if sum > 0 || code == 0 {
                    let labels = labels(*method);
                    writeln!(out, "{name}{{grpc_code=\"{word}\",{labels}}} {sum}").expect("a String takes everything");
                }
            }
        }
    }
}

fn labels((service, name, kind): (&str, &str, Kind)) -> String {
    format!("grpc_method=\"{name}\",grpc_service=\"{service}\",grpc_type=\"{}\"", kind.name())
}

/// One call under way; when it is dropped it is handled.
#[derive(Debug)]
pub(crate) struct Call {
    calls: Arc<Calls>,
    method: usize,
    /// What the client was told, or that it was not told anything.
    code: Code,
}

impl Call {
    fn counters(&self) -> &MethodCalls {
        &self.calls.0[self.method]
    }

    fn kind(&self) -> Kind {
        METHODS[self.method].2
    }

    /// What comes in, with its messages counted where there may be many.
    pub(crate) fn receive<B>(call: Option<&Self>, inner: B) -> Received<B> {
        let counted = call.filter(|call| call.kind() == Kind::Both);
        Received {
            inner,
            messages: Messages::default(),
            calls: counted.map(|call| (Arc::clone(&call.calls), call.method)),
        }
    }

    /// Takes note of the answer; one that goes on is counted until its end.
    pub(crate) fn answer(mut self, response: Response<AnswerBody>) -> Response<AnswerBody> {
        if let Some(code) = code_of(response.headers()) {
            self.code = code;
            return response;
        }
        if self.kind() == Kind::Unary {
            self.code = Code::Ok;
            self.counters().sent.add(1);
            return response;
        }
        response.map(|inner| {
            AnswerBody::Other(tonic::body::Body::new(Sent { inner, messages: Messages::default(), call: self }))
        })
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.counters().handled[self.code as usize].add(1);
    }
}

fn code_of(headers: &HeaderMap) -> Option<Code> {
    headers.get("grpc-status").map(|code| Code::from_bytes(code.as_bytes()))
}

/// Finds where messages begin in a stream of bytes.
#[derive(Debug, Default)]
struct Messages {
    /// Bytes of a prefix that have come, and the length they make.
    prefix: usize,
    length: usize,
    /// Bytes of the message that are still to come.
    left: usize,
}

impl Messages {
    /// How many messages begin in `bytes`.
    fn begun_in(&mut self, mut bytes: &[u8]) -> u64 {
        let mut begun = 0;
        while !bytes.is_empty() {
            let skipped = self.left.min(bytes.len());
            bytes.advance(skipped);
            self.left -= skipped;
            while self.left == 0 && !bytes.is_empty() {
                let byte = usize::from(bytes.get_u8());
                // The first byte is the flag.
                self.length = if self.prefix == 0 { 0 } else { self.length << 8 | byte };
                self.prefix += 1;
                if self.prefix == PREFIX_BYTES {
                    (self.prefix, self.left) = (0, self.length);
                    begun += 1;
                }
            }
        }
        begun
    }
}

/// What a client sends, counted.
pub(crate) struct Received<B> {
    inner: B,
    messages: Messages,
    calls: Option<(Arc<Calls>, usize)>,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Received<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        let this = &mut *self;
        if let (Some((calls, method)), Poll::Ready(Some(Ok(frame)))) = (&this.calls, &polled)
            && let Some(bytes) = frame.data_ref()
        {
            calls.0[*method].received.add(this.messages.begun_in(bytes));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// What a client is sent, counted; with its end the call is handled.
struct Sent {
    inner: AnswerBody,
    messages: Messages,
    call: Call,
}

impl Body for Sent {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            if let Some(bytes) = frame.data_ref() {
                let begun = self.messages.begun_in(bytes);
                self.call.counters().sent.add(begun);
            } else if let Some(code) = frame.trailers_ref().and_then(code_of) {
                self.call.code = code;
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn text(all: &AllCalls) -> String {
        let mut out = String::new();
        all.write(&mut out);
        out
    }

    #[test]
    fn messages_are_counted_however_the_bytes_are_cut() {
        let mut stream = Vec::new();
        for length in [0_u32, 1, 300, 70_000, 0] {
            stream.push(0);
            stream.extend_from_slice(&length.to_be_bytes());
            // Bytes that would be taken for a prefix.
            stream.resize(stream.len() + length as usize, 0);
        }
        for size in [1, 2, 5, 6, 64, 4096, stream.len()] {
            let mut messages = Messages::default();
            let begun: u64 = stream.chunks(size).map(|bytes| messages.begun_in(bytes)).sum();
            assert_eq!(begun, 5, "by {size}");
        }
    }

    #[test]
    fn a_call_is_handled_once_with_what_the_client_was_told() {
        let all = AllCalls::default();
        let (one, two) = (all.for_thread(), all.for_thread());
        let answered = |headers: &[(&'static str, &'static str)]| {
            let mut response = Response::new(AnswerBody::from(tonic::body::Body::empty()));
            for (name, value) in headers {
                response.headers_mut().insert(*name, http::HeaderValue::from_static(value));
            }
            response
        };
        drop(one.start("/etcdserverpb.KV/Range").expect("known").answer(answered(&[])));
        drop(two.start("/etcdserverpb.KV/Range").expect("known").answer(answered(&[("grpc-status", "11")])));
        drop(two.start("/etcdserverpb.KV/Range").expect("known"));
        assert!(one.start("/etcdserverpb.KV/Rage").is_none());
        let text = text(&all);
        let labels = "grpc_method=\"Range\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"";
        for line in [
            format!("grpc_server_started_total{{{labels}}} 3"),
            format!("grpc_server_msg_received_total{{{labels}}} 3"),
            format!("grpc_server_msg_sent_total{{{labels}}} 1"),
            format!("grpc_server_handled_total{{grpc_code=\"OK\",{labels}}} 1"),
            format!("grpc_server_handled_total{{grpc_code=\"OutOfRange\",{labels}}} 1"),
            format!("grpc_server_handled_total{{grpc_code=\"Canceled\",{labels}}} 1"),
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn every_method_that_is_served_is_known() {
        let set = prost_types::FileDescriptorSet::decode(api::FILE_DESCRIPTOR_SET).expect("committed and valid");
        let mut known = 0;
        for file in &set.file {
            for service in &file.service {
                let service_name = format!("{}.{}", file.package(), service.name());
                // Not served yet.
                if service_name == "etcdserverpb.Auth" {
                    continue;
                }
                for method in &service.method {
                    let kind = match (method.client_streaming(), method.server_streaming()) {
                        (false, false) => Kind::Unary,
                        (false, true) => Kind::Server,
                        (true, _) => Kind::Both,
                    };
                    let expected = (service_name.as_str(), method.name(), kind);
                    assert!(METHODS.contains(&expected), "{expected:?}");
                    known += 1;
                }
            }
        }
        // And those of health, which are described elsewhere.
        assert_eq!(METHODS.len(), known + 2);
    }
}
