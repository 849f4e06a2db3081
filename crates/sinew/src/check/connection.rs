//! One connection of one client to one endpoint, and what an answer on it means.
//!
//! Invariant: a write counts as not done only if the server says so in its own words, before which it proposed nothing;
//! anything else (a timeout, a broken connection, "leader changed") leaves it unknown. A connection that failed is not
//! used again, nor made anew behind our back: a node that restarted may tell an older state on another connection.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use ::check::history::{
    Bytes, CompareTarget, Lease, Lock, Op, Outcome, Range, Request, Response, Revision, Txn, Watch,
};
use api::etcdserverpb::kv_client::KvClient;
use api::etcdserverpb::lease_client::LeaseClient;
use api::etcdserverpb::watch_client::WatchClient;
use api::etcdserverpb::watch_request::RequestUnion;
use api::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest, ResponseHeader,
    WatchProgressRequest, WatchRequest, WatchResponse,
};
use api::v3lockpb::lock_client::LockClient;
use api::v3lockpb::{LockRequest, UnlockRequest};
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::Service;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::convert;
use crate::ctl::Settings;
use crate::ctl::client::Client;

/// Metadata of a granted lock: its token. A server that tells it understands fences too.
const TOKEN: &str = "sinew-fence-token";
/// Metadata of a write under a token.
const FENCE: &str = "sinew-fence-bin";
/// What a server says that does nothing because a fence does not hold.
const FENCE_LOST: &str = "sinew: fence does not hold, nothing was done";

/// A connection.
pub(super) struct Connection {
    channel: Channel,
    /// Whether the server has told a token.
    tells_tokens: Cell<bool>,
    token: Option<String>,
    timeout: Duration,
    receive_bytes_max: usize,
}

/// One watch on a stream of its own.
pub(super) struct WatchStream {
    requests: mpsc::Sender<WatchRequest>,
    pub(super) responses: Streaming<WatchResponse>,
}

impl WatchStream {
    /// Asks how far the watch is. Says nothing if the stream is at its end: whoever reads it will notice.
    pub(super) fn ask_progress(&self) {
        let request_union = Some(RequestUnion::ProgressRequest(WatchProgressRequest {}));
        let _ = self.requests.try_send(WatchRequest { request_union });
    }
}

/// The header and the answer; none that no server sends.
type Told = (Option<ResponseHeader>, Option<Response>);

/// What came of a request.
pub(super) struct Answer {
    pub(super) outcome: Outcome,
    /// Whether the connection is of no use any more.
    pub(super) is_broken: bool,
}

impl Connection {
    /// Connects and shows who asks.
    pub(super) async fn open(settings: &Settings, endpoint: &str) -> Result<Self, String> {
        let client = Client::new(settings).only(endpoint);
        let open = async {
            let target = client.target(endpoint)?;
            let channel = target.connect_with_connector(Once::default()).await.map_err(|error| error.to_string())?;
            let token = client.token(channel.clone()).await.map_err(|status| status.message().to_owned())?;
            Ok((channel, token))
        };
        let opened = tokio::time::timeout(settings.command_timeout, open).await;
        let (channel, token) = opened.unwrap_or_else(|_| Err("context deadline exceeded".to_owned()))?;
        let (timeout, receive_bytes_max) = (settings.command_timeout, settings.receive_bytes_max);
        Ok(Self { channel, tells_tokens: Cell::default(), token, timeout, receive_bytes_max })
    }

    /// Sends `request` once.
    pub(super) async fn call(&self, request: &Request) -> Answer {
        self.answer(request, self.send(request)).await
    }

    /// Sends a write under one token as a put with a fence; to a server that does not know fences, as the transaction
    /// that it is.
    pub(super) async fn call_fenced(&self, request: &Request, txn: &Txn) -> Answer {
        match self.tells_tokens.get() {
            true => self.answer(request, self.send_fenced(txn)).await,
            false => self.call(request).await,
        }
    }

    /// What came of sending `request`.
    async fn answer(&self, request: &Request, sending: impl Future<Output = Result<Told, Status>>) -> Answer {
        let result = match tokio::time::timeout(self.timeout, sending).await {
            Ok(result) => result,
            Err(_) => Err(Status::deadline_exceeded("context deadline exceeded")),
        };
        match result {
            Ok((header, Some(response))) => {
                let revision = header.map_or(0, |header| header.revision);
                Answer { outcome: Outcome::Done { revision, response }, is_broken: false }
            }
            Ok((_, None)) => Answer { outcome: Outcome::Unknown, is_broken: true },
            Err(status) => {
                let is_refusal = is_refusal(&status);
                let is_safe = is_refusal || !may_change(request);
                let reason = status.message().to_owned();
                let outcome = if is_safe { Outcome::Failed { reason } } else { Outcome::Unknown };
                Answer { outcome, is_broken: !is_refusal }
            }
        }
    }

    async fn send(&self, request: &Request) -> Result<Told, Status> {
        let mut client = KvClient::new(self.channel.clone()).max_decoding_message_size(self.receive_bytes_max);
        Ok(match request {
            Request::Range(range) => {
                let answer = client.range(self.framed(convert::range(range))?).await?.into_inner();
                (answer.header, Some(convert::range_answer(answer)))
            }
            Request::Put(put) => {
                let answer = client.put(self.framed(convert::put(put))?).await?.into_inner();
                (answer.header, Some(convert::put_answer(answer)))
            }
            Request::DeleteRange(delete) => {
                let answer = client.delete_range(self.framed(convert::delete(delete))?).await?.into_inner();
                (answer.header, Some(convert::delete_answer(answer)))
            }
            Request::Txn(txn) => {
                let answer = client.txn(self.framed(convert::txn(txn))?).await?.into_inner();
                (answer.header, convert::txn_answer(answer))
            }
            Request::Lease(lease) => self.send_lease(lease).await?,
            Request::Lock(lock) => self.send_lock(lock).await?,
            Request::Compact(_) | Request::Watch(_) => {
                return Err(Status::unimplemented("the load does not send this"));
            }
        })
    }

    async fn send_fenced(&self, txn: &Txn) -> Result<Told, Status> {
        let ([compare], [Op::Put(put)], []) = (&txn.compares[..], &txn.success[..], &txn.failure[..]) else {
            return Err(Status::unimplemented("a fence guards one put"));
        };
        let CompareTarget::Create(token) = compare.target else {
            return Err(Status::unimplemented("a fence is about a create revision"));
        };
        let mut request = self.framed(convert::put(put))?;
        let fence = [&compare.key[..], b"=", token.to_string().as_bytes()].concat();
        request.metadata_mut().append_bin(FENCE, MetadataValue::from_bytes(&fence));
        let mut client = KvClient::new(self.channel.clone());
        let mut answer = client.put(request).await?.into_inner();
        let header = answer.header.take();
        Ok((header, Some(Response::Txn { succeeded: true, responses: vec![convert::put_answer(answer)] })))
    }

    async fn send_lock(&self, lock: &Lock) -> Result<Told, Status> {
        let mut client = LockClient::new(self.channel.clone());
        Ok(match lock {
            Lock::Acquire { name, lease } => {
                let request = LockRequest { name: bytes::Bytes::copy_from_slice(name), lease: *lease };
                let answer = client.lock(self.framed(request)?).await?;
                let told = answer.metadata().get(TOKEN).and_then(|token| token.to_str().ok()?.parse().ok());
                self.tells_tokens.set(told.is_some());
                let answer = answer.into_inner();
                let key = Bytes::from(&answer.key[..]);
                let token = match told {
                    Some(token) => token,
                    None => self.read_token(&key).await?,
                };
                (answer.header, Some(Response::Lock { key, token }))
            }
            Lock::Release { key } => {
                let request = UnlockRequest { key: bytes::Bytes::copy_from_slice(key) };
                let answer = client.unlock(self.framed(request)?).await?.into_inner();
                (answer.header, Some(Response::Lock { key: key.clone(), token: 0 }))
            }
        })
    }

    /// The create revision of a holder's key, which etcd does not tell with the lock.
    async fn read_token(&self, key: &Bytes) -> Result<Revision, Status> {
        let range = convert::range(&Range { key: key.clone(), ..Range::default() });
        let found = KvClient::new(self.channel.clone()).range(self.framed(range)?).await?.into_inner();
        let pair = found.kvs.first().ok_or_else(|| Status::aborted("the lock was lost before its token was known"))?;
        Ok(pair.create_revision)
    }

    async fn send_lease(&self, lease: &Lease) -> Result<Told, Status> {
        let mut client = LeaseClient::new(self.channel.clone());
        let told = |id, ttl| Some(Response::Lease { id, ttl });
        Ok(match *lease {
            Lease::Grant { id, ttl } => {
                let answer = client.lease_grant(self.framed(LeaseGrantRequest { id, ttl })?).await?.into_inner();
                (answer.header, told(answer.id, answer.ttl))
            }
            Lease::Revoke { id } => {
                let answer = client.lease_revoke(self.framed(LeaseRevokeRequest { id })?).await?.into_inner();
                (answer.header, told(id, 0))
            }
            Lease::KeepAlive { id } => {
                let once = tokio_stream::once(LeaseKeepAliveRequest { id });
                let mut answers = client.lease_keep_alive(self.framed(once)?).await?.into_inner();
                match answers.message().await? {
                    Some(answer) => (answer.header, told(answer.id, answer.ttl)),
                    None => (None, None),
                }
            }
            Lease::TimeToLive { id } => {
                let request = self.framed(LeaseTimeToLiveRequest { id, keys: false })?;
                let answer = client.lease_time_to_live(request).await?.into_inner();
                (answer.header, told(answer.id, answer.ttl))
            }
            Lease::Expire { .. } => return Err(Status::unimplemented("nobody can ask for this")),
        })
    }

    /// Starts a watch that is told now and then how far it is. A member without a leader ends it.
    pub(super) async fn watch(&self, watch: &Watch) -> Result<WatchStream, Status> {
        let (requests, outgoing) = mpsc::channel(4);
        let create = RequestUnion::CreateRequest(convert::watch(watch));
        let first = requests.try_send(WatchRequest { request_union: Some(create) });
        first.map_err(|_| Status::internal("no room for the first request"))?;
        let mut request = self.unbounded(ReceiverStream::new(outgoing))?;
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        let mut client = WatchClient::new(self.channel.clone()).max_decoding_message_size(self.receive_bytes_max);
        let opened = tokio::time::timeout(self.timeout, client.watch(request)).await;
        let opened = opened.map_err(|_| Status::deadline_exceeded("context deadline exceeded"))??;
        Ok(WatchStream { requests, responses: opened.into_inner() })
    }

    fn framed<M>(&self, message: M) -> Result<tonic::Request<M>, Status> {
        let mut request = self.unbounded(message)?;
        // The server gives up when we do.
        request.set_timeout(self.timeout);
        Ok(request)
    }

    /// A request that may take as long as it likes.
    fn unbounded<M>(&self, message: M) -> Result<tonic::Request<M>, Status> {
        let mut request = tonic::Request::new(message);
        if let Some(token) = &self.token {
            let token = MetadataValue::try_from(token.as_str())
                .map_err(|_| Status::unauthenticated("the token is not printable text"))?;
            request.metadata_mut().insert("token", token);
        }
        Ok(request)
    }
}

/// Whether a request can change anything, so that one that was not answered may have.
fn may_change(request: &Request) -> bool {
    match request {
        Request::Lease(lease) => !matches!(lease, Lease::TimeToLive { .. }),
        Request::Lock(_) => true,
        other => other.may_write(),
    }
}

/// Makes one connection; the client library would make another one, unseen, when that breaks.
#[derive(Default)]
struct Once {
    is_used: bool,
}

impl Service<Uri> for Once {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let is_first = !std::mem::replace(&mut self.is_used, true);
        Box::pin(async move {
            let authority = uri.authority().filter(|_| is_first);
            let authority = authority.ok_or_else(|| io::Error::other("the connection is gone"))?;
            let stream = TcpStream::connect(authority.as_str()).await?;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(stream))
        })
    }
}

/// Whether the server refused the request for what it is. Codes alone do not tell: the client library uses some of them
/// for answers that it could not read.
fn is_refusal(status: &Status) -> bool {
    let is_code = matches!(
        status.code(),
        Code::InvalidArgument
            | Code::OutOfRange
            | Code::NotFound
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::ResourceExhausted
    );
    is_code && (status.message().starts_with("etcdserver: ") || status.message().starts_with(FENCE_LOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_not_made_anew_unseen() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let uri: Uri = format!("http://{}", listener.local_addr().expect("bound")).parse().expect("an address");
        let mut once = Once::default();
        once.call(uri.clone()).await.expect("somebody listens");
        once.call(uri).await.expect_err("a second connection");
    }

    #[test]
    fn only_the_servers_own_refusals_are_certain() {
        assert!(is_refusal(&Status::out_of_range("etcdserver: mvcc: required revision has been compacted")));
        assert!(is_refusal(&Status::resource_exhausted("etcdserver: too many requests")));
        assert!(is_refusal(&Status::failed_precondition("sinew: fence does not hold, nothing was done: k=1")));
        assert!(!is_refusal(&Status::out_of_range("message length too large")));
        assert!(!is_refusal(&Status::unavailable("etcdserver: leader changed")));
        assert!(!is_refusal(&Status::deadline_exceeded("etcdserver: request timed out")));
        assert!(!is_refusal(&Status::unknown("h2 protocol error")));
    }
}
