//! More asked of a node than it can hold: what does not fit is refused with a hint, what keeps things alive goes on.

use std::time::{Duration, Instant};

use api::etcdserverpb::lease_client::LeaseClient;
use api::etcdserverpb::watch_client::WatchClient;
use api::etcdserverpb::watch_request::RequestUnion;
use api::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, PutRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest,
};
use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use http::{Request, Response};
use prost::Message;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;

use crate::client::{Client, prefix_request, put_request};
use crate::cluster::{Cluster, is_reference};
use crate::{PATIENCE, eventually, http as plain, run};

/// Ask for everything at once, and then read none of it.
const GREEDY_CONNECTIONS: usize = 8;
const GREEDY_REQUESTS: usize = 16;
/// What each of them asks for: together four times what a node holds for those who do not read.
const KEYS: usize = 16;
const VALUE_BYTES: usize = 1_000_000;
/// Clients that write meanwhile.
const WRITERS: usize = 32;
/// What the node may use at most: its budget for large answers, and as much again for everything else.
const RESIDENT_BYTES_MAX: u64 = 1_400_000_000;
/// The least that is granted with the election timeout below.
const LEASE_TTL_S: i64 = 8;

/// A connection whose answers arrive only as far as their windows allow.
async fn connect(port: u16) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
    let (sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

/// Asks for the whole range; the answer's headers, and its body unread.
async fn ask(sender: SendRequest<Bytes>) -> Response<RecvStream> {
    let message = prefix_request("large/").encode_to_vec();
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).expect("a small request").to_be_bytes());
    framed.extend_from_slice(&message);
    let uri = "http://localhost/etcdserverpb.KV/Range";
    let request = Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
    let mut sender = sender.ready().await.expect("room for a stream");
    let (answer, mut body) = sender.send_request(request.body(()).expect("a request"), false).expect("sent");
    body.send_data(framed.into(), true).expect("sent");
    tokio::time::timeout(PATIENCE, answer).await.expect("an answer in time").expect("an answer")
}

/// Resident memory of the node, as it says itself.
pub(crate) async fn resident_bytes(port: u16) -> u64 {
    let text = tokio::task::spawn_blocking(move || plain::get(port, "/metrics")).await.expect("a thread");
    let (_, text) = text.expect("metrics");
    let line = text.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
    line.and_then(|bytes| bytes.parse().ok()).expect("a number")
}

/// Keeps a lease alive until aborted; fails if it has ended.
async fn keep_alive(client: Client, id: i64) {
    let (sender, requests) = tokio::sync::mpsc::channel(1);
    let mut lease = LeaseClient::new(client.channel());
    let stream = lease.lease_keep_alive(ReceiverStream::new(requests));
    sender.send(LeaseKeepAliveRequest { id }).await.expect("room for a request");
    let mut answers = stream.await.expect("a stream").into_inner();
    loop {
        let answer = answers.message().await.expect("an answer").expect("the stream goes on");
        assert_eq!(answer.ttl, LEASE_TTL_S, "the lease has ended");
        tokio::time::sleep(Duration::from_millis(300)).await;
        sender.send(LeaseKeepAliveRequest { id }).await.expect("room for a request");
    }
}

/// Asks a watch for its progress `count` times, and waits for each answer.
async fn progress(client: Client, count: usize) -> i64 {
    let (sender, requests) = tokio::sync::mpsc::channel(1);
    let send = async |union| sender.send(WatchRequest { request_union: Some(union) }).await.expect("room");
    let create = WatchCreateRequest { key: b"watched".to_vec().into(), ..Default::default() };
    send(RequestUnion::CreateRequest(create)).await;
    let mut answers =
        WatchClient::new(client.channel()).watch(ReceiverStream::new(requests)).await.expect("a watch").into_inner();
    assert!(answers.message().await.expect("an answer").is_some_and(|answer| answer.created));
    let mut revision = 0;
    for _ in 0..count {
        send(RequestUnion::ProgressRequest(WatchProgressRequest {})).await;
        // One that is asked while a watch is behind may be left out: then it is asked again.
        while let Ok(answer) = tokio::time::timeout(Duration::from_secs(2), answers.message()).await {
            let answer = answer.expect("an answer").expect("the stream goes on");
            let told = answer.header.map_or(0, |header| header.revision);
            assert!(told >= revision && !answer.canceled, "{answer:?} after {revision}");
            revision = told;
            if answer.watch_id == -1 {
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    revision
}

#[test]
fn what_does_not_fit_is_refused_with_a_hint_and_the_rest_goes_on() {
    if is_reference() {
        return; // It takes everything, until it is out of memory.
    }
    run(async {
        // A busy machine is not what is tested.
        let cluster = Cluster::start_with(3, &["--election-timeout=5000"]).await;
        let at = cluster.leader().await;
        let (client, port) = (cluster.client(at), cluster.nodes[at].client_port);
        for key in 0..KEYS {
            client.put(&format!("large/{key:02}"), vec![b'x'; VALUE_BYTES]).await.expect("a put");
        }
        let grant = LeaseGrantRequest { id: 0, ttl: LEASE_TTL_S };
        let lease = LeaseClient::new(client.channel()).lease_grant(grant).await.expect("a lease").into_inner();
        let put = PutRequest { lease: lease.id, ..put_request("leased", "v") };
        client.put_request(put).await.expect("a put");
        let before = client.status().await.expect("a status");
        let keeping = tokio::spawn(keep_alive(cluster.client(at), lease.id));
        let watching = tokio::spawn(progress(cluster.client(at), 10));
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let client = cluster.client(at);
            writers.spawn(async move {
                let begin = Instant::now();
                let mut written = 0;
                while begin.elapsed() < Duration::from_secs(8) {
                    written += u64::from(client.put(&format!("writer/{writer}"), vec![b'y'; 50_000]).await.is_ok());
                }
                written
            });
        }
        let mut greedy = JoinSet::new();
        for _ in 0..GREEDY_CONNECTIONS {
            let sender = connect(port).await;
            (0..GREEDY_REQUESTS).for_each(|_| drop(greedy.spawn(ask(sender.clone()))));
        }
        let answers = greedy.join_all().await;
        let status = |answer: &Response<RecvStream>| answer.headers().get("grpc-status").cloned();
        let (refused, held): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| status(answer).is_some());
        assert!(!refused.is_empty(), "everything fitted");
        assert!(held.len() >= 8, "only {} had an answer", held.len());
        for answer in &refused {
            assert_eq!(status(answer).expect("refused"), "8", "resource exhausted: {:?}", answer.headers());
            assert!(answer.headers().contains_key("grpc-retry-pushback-ms"), "no hint: {:?}", answer.headers());
        }
        let resident = resident_bytes(port).await;
        assert!(resident < RESIDENT_BYTES_MAX, "{resident} bytes with {} answers held", held.len());
        let written: u64 = writers.join_all().await.into_iter().sum();
        assert!(written > WRITERS as u64, "only {written} writes");
        let told = watching.await.expect("progress was told");
        assert!(told > before.header.as_ref().map_or(0, |header| header.revision), "no progress: {told}");
        assert!(!keeping.is_finished(), "{:?}", keeping.await);
        keeping.abort();
        assert_eq!(client.get("leased").await.expect("a get").count, 1, "the lease ended");
        let after = client.status().await.expect("a status");
        assert_eq!((after.raft_term, after.leader), (before.raft_term, before.leader), "leadership moved");
        // Those who hold their answers go away, and there is room for others.
        drop(held);
        eventually("a large read", || async {
            let found = client.range(prefix_request("large/")).await.map_err(|status| status.to_string())?;
            if found.count == KEYS as i64 { Ok(()) } else { Err(format!("{} keys", found.count)) }
        })
        .await;
    });
}
