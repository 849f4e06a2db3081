//! One connection of one client to one endpoint, and what an answer on it means.
//!
//! Invariant: a write counts as not done only if the server says so in its own words, before which it proposed nothing;
//! anything else (a timeout, a broken connection, "leader changed") leaves it unknown. A connection that failed is not
//! used again, nor made anew behind our back: a node that restarted may tell an older state on another connection.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use ::check::history::{Lease, Outcome, Request, Response, Watch};
use api::etcdserverpb::kv_client::KvClient;
use api::etcdserverpb::lease_client::LeaseClient;
use api::etcdserverpb::watch_client::WatchClient;
use api::etcdserverpb::watch_request::RequestUnion;
use api::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest, ResponseHeader,
    WatchProgressRequest, WatchRequest, WatchResponse,
};
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

/// A connection.
pub(super) struct Connection {
    channel: Channel,
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
        Ok(Self { channel, token, timeout, receive_bytes_max })
    }

    /// Sends `request` once.
    pub(super) async fn call(&self, request: &Request) -> Answer {
        let result = match tokio::time::timeout(self.timeout, self.send(request)).await {
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

    async fn send(&self, request: &Request) -> Result<(Option<ResponseHeader>, Option<Response>), Status> {
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
            Request::Compact(_) | Request::Watch(_) | Request::Lock(_) => {
                return Err(Status::unimplemented("the load does not send this"));
            }
        })
    }

    async fn send_lease(&self, lease: &Lease) -> Result<(Option<ResponseHeader>, Option<Response>), Status> {
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
    is_code && status.message().starts_with("etcdserver: ")
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
        assert!(!is_refusal(&Status::out_of_range("message length too large")));
        assert!(!is_refusal(&Status::unavailable("etcdserver: leader changed")));
        assert!(!is_refusal(&Status::deadline_exceeded("etcdserver: request timed out")));
        assert!(!is_refusal(&Status::unknown("h2 protocol error")));
    }
}
