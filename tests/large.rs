//! Large answers, many connections, readers that do not read.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use api::etcdserverpb::RangeRequest;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::client::{get_request, prefix_request};
use crate::cluster::{Cluster, is_reference};
use crate::run;

/// Idle connections that must not hurt anybody.
const IDLE_CONNECTIONS: usize = 1_000;

#[test]
fn large_value_goes_round() {
    run(async {
        let cluster = Cluster::start(3).await;
        let value: Vec<u8> = (0..1_400 * 1024).map(|at: u32| (at % 251) as u8).collect();
        for (at, node) in cluster.clients().iter().enumerate() {
            let key = format!("large/{at}");
            node.put(&key, value.clone()).await.expect("a large put");
            let reader = cluster.client((at + 1) % 3);
            let answer = reader.get(&key).await.expect("a large get");
            assert_eq!(answer.kvs[0].value.len(), value.len());
            assert!(answer.kvs[0].value == value, "the value came back changed");
        }
    });
}

#[test]
fn streamed_range_merges_to_the_plain_one() {
    if is_reference() {
        return;
    }
    run(async {
        let cluster = Cluster::start(3).await;
        let node = cluster.client(1);
        for at in 0..300 {
            node.put(&format!("stream/{at:04}"), vec![b'x'; 10_000 + at]).await.expect("a put");
        }
        for request in [
            prefix_request("stream/"),
            RangeRequest { limit: 7, ..prefix_request("stream/") },
            RangeRequest { keys_only: true, ..prefix_request("stream/") },
            RangeRequest { count_only: true, ..prefix_request("stream/") },
            get_request("stream/missing"),
        ] {
            let plain = node.range(request.clone()).await.expect("a range");
            let mut stream = node.kv().range_stream(request).await.expect("a streamed range").into_inner();
            let (mut pairs, mut chunks, mut last) = (Vec::new(), 0, None);
            while let Some(chunk) = stream.message().await.expect("a chunk") {
                let answer = chunk.range_response.expect("a chunk carries a range");
                pairs.extend(answer.kvs.clone());
                chunks += 1;
                last = Some(answer);
            }
            let last = last.expect("at least one chunk");
            assert!(pairs == plain.kvs, "{} pairs streamed, {} in one answer", pairs.len(), plain.kvs.len());
            assert_eq!((last.count, last.more), (plain.count, plain.more));
            assert!(last.header.is_some(), "the last chunk carries the header");
            let bytes: usize = pairs.iter().map(|pair| pair.value.len()).sum();
            assert!(chunks > 1 || bytes < 1_000_000, "{bytes} bytes came in one chunk");
        }
    });
}

#[test]
fn thousand_idle_connections_and_a_reader_that_does_not_read_hurt_nobody() {
    raise_file_limit();
    run(async {
        let cluster = Cluster::start(3).await;
        let port = cluster.nodes[0].client_port;
        let node = cluster.client(0);
        for at in 0..20 {
            node.put(&format!("slow/{at:02}"), vec![b'x'; 1_000_000]).await.expect("a put");
        }
        let idle: Vec<TcpStream> = (0..IDLE_CONNECTIONS)
            .map(|at| {
                TcpStream::connect(("127.0.0.1", port)).unwrap_or_else(|cause| panic!("connection {at}: {cause}"))
            })
            .collect();
        // Asks for twenty megabytes again and again, and never reads a byte.
        let mut slow = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        slow.set_write_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        for _ in 0..200 {
            // Once the node stops reading from us, writing fails: that is its right.
            if slow.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").is_err() {
                break;
            }
        }
        let stalled = cluster.client(0);
        let mut streams = Vec::new();
        for _ in 0..4 {
            let request = prefix_request("slow/");
            let mut kv = stalled.kv();
            streams.push(tokio::spawn(async move {
                if is_reference() {
                    return drop(kv.range(request).await);
                }
                let stream = kv.range_stream(request).await;
                tokio::time::sleep(Duration::from_secs(600)).await;
                drop(stream);
            }));
        }
        let other = cluster.client(0);
        for at in 0..100 {
            other.put("slow/other", at.to_string()).await.expect("a put beside idle and slow connections");
            let answer = other.get("slow/other").await.expect("a get beside idle and slow connections");
            assert_eq!(answer.kvs[0].value, at.to_string().as_bytes());
        }
        assert_eq!(idle.len(), IDLE_CONNECTIONS);
        streams.iter().for_each(tokio::task::JoinHandle::abort);
    });
}

/// A thousand connections need a thousand descriptors here and as many in the node, which inherits the limit.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).expect("the limit on open files up to its maximum");
}
