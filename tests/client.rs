//! A thin client: one connection, one bound on every call, bytes as text.

use std::time::Duration;

use api::etcdserverpb::cluster_client::ClusterClient;
use api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::etcdserverpb::kv_client::KvClient;
use api::etcdserverpb::maintenance_client::MaintenanceClient;
use api::etcdserverpb::request_op::Request as Op;
use api::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, MemberListRequest, MemberListResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, RequestOp, StatusRequest, StatusResponse, TxnRequest, TxnResponse,
};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// Bound on one call. Above the seven seconds after which a server gives up by itself, so that its own words arrive.
const CALL_TIMEOUT: Duration = Duration::from_secs(12);

/// One connection to one node; made when first used, made anew when it broke.
#[derive(Clone)]
pub(crate) struct Client {
    channel: Channel,
    call_timeout: Duration,
}

impl Client {
    pub(crate) fn new(endpoint: &str) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{endpoint}")).expect("a well-formed address");
        let channel = endpoint.connect_timeout(Duration::from_secs(2)).tcp_nodelay(true).connect_lazy();
        Self { channel, call_timeout: CALL_TIMEOUT }
    }

    /// The same connection with another bound on each call.
    pub(crate) fn with_timeout(&self, call_timeout: Duration) -> Self {
        Self { channel: self.channel.clone(), call_timeout }
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) fn kv(&self) -> KvClient<Channel> {
        // A client may read any answer a server may give.
        KvClient::new(self.channel()).max_decoding_message_size(usize::MAX)
    }

    async fn bounded<T>(&self, call: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, Status> {
        match tokio::time::timeout(self.call_timeout, call).await {
            Ok(answer) => answer.map(tonic::Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded("the test's own bound on a call")),
        }
    }

    pub(crate) async fn put(&self, key: &str, value: impl Into<Vec<u8>>) -> Result<PutResponse, Status> {
        self.put_request(put_request(key, value)).await
    }

    pub(crate) async fn put_request(&self, request: PutRequest) -> Result<PutResponse, Status> {
        self.bounded(self.kv().put(request)).await
    }

    /// A linearizable read of one key.
    pub(crate) async fn get(&self, key: &str) -> Result<RangeResponse, Status> {
        self.range(get_request(key)).await
    }

    pub(crate) async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        self.bounded(self.kv().range(request)).await
    }

    pub(crate) async fn delete(&self, key: &str) -> Result<DeleteRangeResponse, Status> {
        let request = DeleteRangeRequest { key: key.to_owned().into(), ..Default::default() };
        self.bounded(self.kv().delete_range(request)).await
    }

    pub(crate) async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        self.bounded(self.kv().txn(request)).await
    }

    pub(crate) async fn status(&self) -> Result<StatusResponse, Status> {
        let mut client = MaintenanceClient::new(self.channel());
        self.bounded(client.status(StatusRequest::default())).await
    }

    pub(crate) async fn members(&self) -> Result<MemberListResponse, Status> {
        let mut client = ClusterClient::new(self.channel());
        self.bounded(client.member_list(MemberListRequest { linearizable: true })).await
    }
}

pub(crate) fn put_request(key: &str, value: impl Into<Vec<u8>>) -> PutRequest {
    PutRequest { key: key.to_owned().into(), value: value.into().into(), ..Default::default() }
}

pub(crate) fn get_request(key: &str) -> RangeRequest {
    RangeRequest { key: key.to_owned().into(), ..Default::default() }
}

/// All keys that start with `prefix`.
pub(crate) fn prefix_request(prefix: &str) -> RangeRequest {
    let mut end = prefix.as_bytes().to_vec();
    *end.last_mut().expect("a prefix that is not empty") += 1;
    RangeRequest { key: prefix.to_owned().into(), range_end: end.into(), ..Default::default() }
}

pub(crate) fn put_op(key: &str, value: impl Into<Vec<u8>>) -> RequestOp {
    RequestOp { request: Some(Op::RequestPut(put_request(key, value))) }
}

fn compare(key: &str, target: CompareTarget, union: TargetUnion) -> Compare {
    Compare {
        key: key.to_owned().into(),
        target: target as i32,
        result: CompareResult::Equal as i32,
        target_union: Some(union),
        ..Default::default()
    }
}

/// A put that happens only if the key does not exist.
pub(crate) fn create_request(key: &str, value: impl Into<Vec<u8>>) -> TxnRequest {
    let absent = compare(key, CompareTarget::Create, TargetUnion::CreateRevision(0));
    TxnRequest { compare: vec![absent], success: vec![put_op(key, value)], failure: Vec::new() }
}

/// A put that happens only if the key was last modified at `revision` (0: does not exist).
pub(crate) fn swap_request(key: &str, revision: i64, value: impl Into<Vec<u8>>) -> TxnRequest {
    let unchanged = compare(key, CompareTarget::Mod, TargetUnion::ModRevision(revision));
    TxnRequest { compare: vec![unchanged], success: vec![put_op(key, value)], failure: Vec::new() }
}

/// The revision in an answer's header.
pub(crate) fn revision(header: Option<&api::etcdserverpb::ResponseHeader>) -> i64 {
    header.expect("every answer has a header").revision
}
