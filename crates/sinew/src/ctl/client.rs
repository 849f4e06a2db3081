//! Asks the cluster: connects to the first endpoint that answers, sends one request, waits for one answer.
//!
//! Invariant: a write goes out at most once. Only connecting is repeated for it; a read may also move on to the next
//! endpoint when one says that it cannot serve now (gRPC `Unavailable`).

use std::time::Duration;

use api::etcdserverpb::auth_client::AuthClient;
use api::etcdserverpb::cluster_client::ClusterClient;
use api::etcdserverpb::kv_client::KvClient;
use api::etcdserverpb::lease_client::LeaseClient;
use api::etcdserverpb::maintenance_client::MaintenanceClient;
use api::etcdserverpb::watch_client::WatchClient;
use api::etcdserverpb::{
    AlarmRequest, AlarmResponse, AuthenticateRequest, CompactionRequest, CompactionResponse, DefragmentRequest,
    DeleteRangeRequest, DeleteRangeResponse, DowngradeRequest, DowngradeResponse, HashKvRequest, HashKvResponse,
    LeaseGrantRequest, LeaseGrantResponse, LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest,
    LeaseRevokeResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, MemberAddRequest, MemberAddResponse,
    MemberListRequest, MemberListResponse, MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest,
    MemberRemoveResponse, MemberUpdateRequest, MemberUpdateResponse, MoveLeaderRequest, PutRequest, PutResponse,
    RangeRequest, RangeResponse, StatusRequest, StatusResponse, TxnRequest, TxnResponse, WatchRequest, WatchResponse,
};
use tokio::time::{Instant, sleep, timeout};
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};

use super::settings::Identity;
use super::{Failure, Settings};

/// Pause between two rounds over all endpoints.
const ROUND_PAUSE: Duration = Duration::from_millis(100);

/// An unanswered ping ends the connection, for a watch that would otherwise wait for a member that is gone.
const PING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(6));

/// Whether a request may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Changes nothing.
    Read,
    /// May have happened although no answer came.
    Write,
}

/// One user's view of the cluster.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    endpoints: Vec<String>,
    dial_timeout: Duration,
    command_timeout: Duration,
    identity: Identity,
    fences: Vec<Vec<u8>>,
    receive_bytes_max: usize,
}

/// Why one attempt failed.
pub(super) enum Trouble {
    /// No connection; nothing was sent.
    Unreachable(String),
    /// The server said no.
    Refused(Status),
}

impl Client {
    /// A client for the endpoints in `settings`. Connects only when asked something.
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            endpoints: settings.endpoints.clone(),
            dial_timeout: settings.dial_timeout,
            command_timeout: settings.command_timeout,
            identity: settings.identity.clone(),
            fences: settings.fences.clone(),
            receive_bytes_max: settings.receive_bytes_max,
        }
    }

    /// The same client for one endpoint only.
    pub(crate) fn only(&self, endpoint: &str) -> Self {
        Self { endpoints: vec![endpoint.to_owned()], ..self.clone() }
    }

    /// Reads a range.
    pub(crate) async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Failure> {
        let send = async |channel, request| self.kv(channel).range(request).await;
        self.call(Kind::Read, request, send).await
    }

    /// Writes a key.
    pub(crate) async fn put(&self, request: PutRequest) -> Result<PutResponse, Failure> {
        let send = async |channel, request| self.kv(channel).put(request).await;
        self.call(Kind::Write, request, send).await
    }

    /// Deletes a range.
    pub(crate) async fn delete(&self, request: DeleteRangeRequest) -> Result<DeleteRangeResponse, Failure> {
        let send = async |channel, request| self.kv(channel).delete_range(request).await;
        self.call(Kind::Write, request, send).await
    }

    /// Runs a transaction.
    pub(crate) async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Failure> {
        let send = async |channel, request| self.kv(channel).txn(request).await;
        self.call(Kind::Write, request, send).await
    }

    /// Compacts.
    pub(crate) async fn compact(&self, request: CompactionRequest) -> Result<CompactionResponse, Failure> {
        let send = async |channel, request| self.kv(channel).compact(request).await;
        self.call(Kind::Write, request, send).await
    }

    /// Makes a lease.
    pub(crate) async fn lease_grant(&self, ttl: i64) -> Result<LeaseGrantResponse, Failure> {
        let send = async |channel, request| LeaseClient::new(channel).lease_grant(request).await;
        self.call(Kind::Write, LeaseGrantRequest { id: 0, ttl }, send).await
    }

    /// Ends a lease.
    pub(crate) async fn lease_revoke(&self, id: i64) -> Result<LeaseRevokeResponse, Failure> {
        let send = async |channel, request| LeaseClient::new(channel).lease_revoke(request).await;
        self.call(Kind::Write, LeaseRevokeRequest { id }, send).await
    }

    /// Looks at a lease.
    pub(crate) async fn lease_time_to_live(&self, id: i64, keys: bool) -> Result<LeaseTimeToLiveResponse, Failure> {
        let bytes_max = self.receive_bytes_max;
        let send = async |channel, request| {
            LeaseClient::new(channel).max_decoding_message_size(bytes_max).lease_time_to_live(request).await
        };
        self.call(Kind::Read, LeaseTimeToLiveRequest { id, keys }, send).await
    }

    /// Lists the leases.
    pub(crate) async fn leases(&self) -> Result<LeaseLeasesResponse, Failure> {
        let bytes_max = self.receive_bytes_max;
        let send = async |channel, request| {
            LeaseClient::new(channel).max_decoding_message_size(bytes_max).lease_leases(request).await
        };
        self.call(Kind::Read, LeaseLeasesRequest {}, send).await
    }

    /// A connection to the first endpoint that can be reached, and a request for it without a time limit: for calls
    /// that wait, and for streams.
    pub(crate) async fn connected<M>(&self, message: M) -> Result<(Channel, Request<M>), Failure> {
        let mut unreachable = Vec::new();
        for endpoint in &self.endpoints {
            match self.connect(endpoint).await {
                Ok(channel) => {
                    let request = self.dress(&channel, message).await;
                    let request = request.map_err(|status| Failure::Request(describe(&status)))?;
                    return Ok((channel, request));
                }
                Err(reason) => unreachable.push(format!("{endpoint}: {reason}")),
            }
        }
        Err(Failure::Request(format!("cannot connect ({})", unreachable.join("; "))))
    }

    /// Lists the members.
    pub(crate) async fn members(&self, linearizable: bool) -> Result<MemberListResponse, Failure> {
        let send = async |channel, request| ClusterClient::new(channel).member_list(request).await;
        self.call(Kind::Read, MemberListRequest { linearizable }, send).await
    }

    /// Status of the member behind the endpoint; meant for a client of one endpoint, see [`Client::only`].
    pub(crate) async fn status(&self) -> Result<StatusResponse, Failure> {
        let send = async |channel, request| MaintenanceClient::new(channel).status(request).await;
        self.call(Kind::Read, StatusRequest {}, send).await
    }

    /// Lists the alarms.
    pub(crate) async fn alarms(&self) -> Result<AlarmResponse, Failure> {
        let send = async |channel, request| MaintenanceClient::new(channel).alarm(request).await;
        self.call(Kind::Read, AlarmRequest::default(), send).await
    }

    /// Adds a member.
    pub(crate) async fn member_add(&self, request: MemberAddRequest) -> Result<MemberAddResponse, Failure> {
        let send = async |channel, request| ClusterClient::new(channel).member_add(request).await;
        self.call(Kind::Write, request, send).await
    }

    /// Makes a learner vote.
    pub(crate) async fn member_promote(&self, id: u64) -> Result<MemberPromoteResponse, Failure> {
        let send = async |channel, request| ClusterClient::new(channel).member_promote(request).await;
        self.call(Kind::Write, MemberPromoteRequest { id }, send).await
    }

    /// Removes a member.
    pub(crate) async fn member_remove(&self, id: u64) -> Result<MemberRemoveResponse, Failure> {
        let send = async |channel, request| ClusterClient::new(channel).member_remove(request).await;
        self.call(Kind::Write, MemberRemoveRequest { id }, send).await
    }

    /// Says where a member is to be reached.
    pub(crate) async fn member_update(&self, request: MemberUpdateRequest) -> Result<MemberUpdateResponse, Failure> {
        let send = async |channel, request| ClusterClient::new(channel).member_update(request).await;
        self.call(Kind::Write, request, send).await
    }

    /// Changes an alarm.
    pub(crate) async fn alarm(&self, request: AlarmRequest) -> Result<AlarmResponse, Failure> {
        let send = async |channel, request| MaintenanceClient::new(channel).alarm(request).await;
        self.call(Kind::Write, request, send).await
    }

    /// The fingerprint of the state of the member behind the endpoint.
    pub(crate) async fn hash_kv(&self, revision: i64) -> Result<HashKvResponse, Failure> {
        let send = async |channel, request| MaintenanceClient::new(channel).hash_kv(request).await;
        self.call(Kind::Read, HashKvRequest { revision }, send).await
    }

    /// Makes the member behind the endpoint give back the room of deleted data.
    pub(crate) async fn defragment(&self) -> Result<(), Failure> {
        let send = async |channel, request| MaintenanceClient::new(channel).defragment(request).await;
        self.call(Kind::Read, DefragmentRequest {}, send).await.map(drop)
    }

    /// Asks about an older version.
    pub(crate) async fn downgrade(&self, request: DowngradeRequest) -> Result<DowngradeResponse, Failure> {
        let send = async |channel, request| MaintenanceClient::new(channel).downgrade(request).await;
        self.call(Kind::Write, request, send).await
    }

    /// Makes the member behind the endpoint, the leader, hand over.
    pub(crate) async fn move_leader(&self, target_id: u64) -> Result<(), Failure> {
        let send = async |channel, request| MaintenanceClient::new(channel).move_leader(request).await;
        self.call(Kind::Write, MoveLeaderRequest { target_id }, send).await.map(drop)
    }

    /// Opens a stream of watches at one endpoint. It ends when that member knows no leader.
    pub(super) async fn watch(
        &self,
        endpoint: &str,
        requests: ReceiverStream<WatchRequest>,
    ) -> Result<Streaming<WatchResponse>, Trouble> {
        let channel = self.connect(endpoint).await.map_err(Trouble::Unreachable)?;
        let mut request = self.dress(&channel, requests).await.map_err(Trouble::Refused)?;
        let mut client = WatchClient::new(channel).max_decoding_message_size(self.receive_bytes_max);
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        client.watch(request).await.map(Response::into_inner).map_err(Trouble::Refused)
    }

    fn kv(&self, channel: Channel) -> KvClient<Channel> {
        KvClient::new(channel).max_decoding_message_size(self.receive_bytes_max)
    }

    async fn call<M: Clone, R>(
        &self,
        kind: Kind,
        message: M,
        send: impl AsyncFn(Channel, Request<M>) -> Result<Response<R>, Status>,
    ) -> Result<R, Failure> {
        let whole = self.rounds(kind, message, send);
        match timeout(self.command_timeout, whole).await {
            Ok(result) => result,
            Err(_) => Err(Failure::Request("context deadline exceeded".to_owned())),
        }
    }

    /// Goes round the endpoints until one answers or the dial timeout has passed.
    async fn rounds<M: Clone, R>(
        &self,
        kind: Kind,
        message: M,
        send: impl AsyncFn(Channel, Request<M>) -> Result<Response<R>, Status>,
    ) -> Result<R, Failure> {
        let give_up = Instant::now() + self.dial_timeout;
        loop {
            let mut unreachable = Vec::new();
            let mut refused = None;
            for endpoint in &self.endpoints {
                match self.attempt(endpoint, message.clone(), &send).await {
                    Ok(answer) => return Ok(answer),
                    Err(Trouble::Unreachable(reason)) => unreachable.push(format!("{endpoint}: {reason}")),
                    Err(Trouble::Refused(status)) if kind == Kind::Read && status.code() == Code::Unavailable => {
                        refused = Some(status);
                    }
                    Err(Trouble::Refused(status)) => return Err(Failure::Request(describe(&status))),
                }
            }
            if Instant::now() + ROUND_PAUSE >= give_up {
                return Err(Failure::Request(match refused {
                    Some(status) => describe(&status),
                    None => format!("cannot connect ({})", unreachable.join("; ")),
                }));
            }
            sleep(ROUND_PAUSE).await;
        }
    }

    async fn attempt<M, R>(
        &self,
        endpoint: &str,
        message: M,
        send: impl AsyncFn(Channel, Request<M>) -> Result<Response<R>, Status>,
    ) -> Result<R, Trouble> {
        let channel = self.connect(endpoint).await.map_err(Trouble::Unreachable)?;
        let mut request = self.dress(&channel, message).await.map_err(Trouble::Refused)?;
        // The server gives up when we do.
        request.set_timeout(self.command_timeout);
        send(channel, request).await.map(Response::into_inner).map_err(Trouble::Refused)
    }

    /// A request that says who asks, and under which conditions.
    async fn dress<M>(&self, channel: &Channel, message: M) -> Result<Request<M>, Status> {
        let mut request = Request::new(message);
        if let Some(token) = self.token(channel.clone()).await? {
            let token = MetadataValue::try_from(token)
                .map_err(|_| Status::unauthenticated("the token is not printable text"))?;
            request.metadata_mut().insert("token", token);
        }
        for fence in &self.fences {
            request.metadata_mut().append_bin("sinew-fence-bin", MetadataValue::from_bytes(fence));
        }
        Ok(request)
    }

    /// Connects to one endpoint.
    pub(crate) async fn connect(&self, endpoint: &str) -> Result<Channel, String> {
        self.target(endpoint)?.connect().await.map_err(|error| root_cause(&error))
    }

    /// How to connect to one endpoint.
    pub(crate) fn target(&self, endpoint: &str) -> Result<Endpoint, String> {
        let address = address_of(endpoint)?;
        let target = Endpoint::from_shared(format!("http://{address}")).map_err(|error| root_cause(&error))?;
        let target = target.http2_keep_alive_interval(PING.0).keep_alive_timeout(PING.1);
        Ok(target.connect_timeout(self.dial_timeout))
    }

    /// Trades the identity for a token, where there are users.
    pub(crate) async fn token(&self, channel: Channel) -> Result<Option<String>, Status> {
        let (name, password) = match &self.identity {
            Identity::Anonymous => return Ok(None),
            Identity::Token(token) => return Ok(Some(token.clone())),
            Identity::Password { name, password } => (name.clone(), password.clone()),
        };
        match AuthClient::new(channel).authenticate(AuthenticateRequest { name, password }).await {
            Ok(response) => Ok(Some(response.into_inner().token)),
            // A name does no harm where nobody asks for it.
            Err(status) if status.message() == "etcdserver: authentication is not enabled" => Ok(None),
            Err(status) => Err(status),
        }
    }
}

/// `host:port` of an endpoint given as `host:port` or `http://host:port`.
fn address_of(endpoint: &str) -> Result<&str, String> {
    if endpoint.starts_with("https://") {
        return Err("TLS is not available yet; write http://".to_owned());
    }
    if endpoint.starts_with("unix:") {
        return Err("unix sockets are not available; write host:port".to_owned());
    }
    let address = endpoint.strip_prefix("http://").unwrap_or(endpoint).trim_end_matches('/');
    match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(address),
        _ => Err("not host:port, for example 127.0.0.1:2379".to_owned()),
    }
}

/// What the user reads when the server said no: the text alone if it is one of etcd's, else with the code.
pub(super) fn describe(status: &Status) -> String {
    let message = status.message();
    if status.code() == Code::DeadlineExceeded {
        "context deadline exceeded".to_owned()
    } else if message.starts_with("etcdserver: ") {
        message.to_owned()
    } else {
        format!("rpc error: code = {:?} desc = {message}", status.code())
    }
}

/// The innermost reason, which is the one that helps ("Connection refused").
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_come_with_or_without_scheme() {
        assert_eq!(address_of("127.0.0.1:2379"), Ok("127.0.0.1:2379"));
        assert_eq!(address_of("http://host:1/"), Ok("host:1"));
        assert_eq!(address_of("[::1]:2379"), Ok("[::1]:2379"));
        for wrong in ["https://host:1", "host", "host:", ":1", "host:99999", "unix:///tmp/x"] {
            assert!(address_of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn server_texts_stand_alone_and_others_show_their_code() {
        let text = "etcdserver: requested lease not found";
        assert_eq!(describe(&Status::not_found(text)), text);
        assert_eq!(describe(&Status::unknown("hm")), "rpc error: code = Unknown desc = hm");
        assert_eq!(describe(&Status::deadline_exceeded("x")), "context deadline exceeded");
    }
}
