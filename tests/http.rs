//! What load balancers, orchestrators and dashboards ask: plain HTTP on the client port, gRPC health and reflection.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use api::etcdserverpb::watch_client::WatchClient;
use api::etcdserverpb::watch_request::RequestUnion;
use api::etcdserverpb::{RangeRequest, WatchCreateRequest, WatchRequest};
use tonic::codegen::tokio_stream;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::cluster::{Cluster, is_reference};
use crate::{eventually, run};

/// Status code and body of a GET.
pub(crate) fn get(port: u16, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(15)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((code, body.to_owned()))
}

/// The same off the runtime's thread, which must go on serving the connections of the test.
async fn ask(port: u16, path: &'static str) -> (u16, String) {
    let answer = tokio::task::spawn_blocking(move || get(port, path)).await.expect("a thread");
    answer.unwrap_or_else(|cause| panic!("GET {path}: {cause}"))
}

#[test]
fn every_node_tells_health_version_and_metrics_over_plain_http() {
    run(async {
        let cluster = Cluster::start(3).await;
        cluster.client(0).put("http/a", "1").await.expect("a put");
        for node in &cluster.nodes {
            let port = node.client_port;
            let (code, body) = ask(port, "/health").await;
            assert!(code == 200 && body.contains(r#""health":"true""#), "{code} {body}");
            let (code, body) = ask(port, "/version").await;
            assert!(code == 200 && body.contains(r#""etcdserver":"3."#), "{code} {body}");
            if !is_reference() {
                for path in ["/livez", "/readyz"] {
                    let (code, body) = ask(port, path).await;
                    assert!(code == 200 && body.contains("ok"), "{path}: {code} {body}");
                }
            }
            let (code, body) = ask(port, "/metrics").await;
            assert_eq!(code, 200);
            for series in [
                "etcd_server_has_leader 1",
                "etcd_disk_wal_fsync_duration_seconds_count",
                "etcd_debugging_mvcc_keys_total",
                "process_resident_memory_bytes",
            ] {
                assert!(body.contains(series), "no {series} in\n{body}");
            }
            let (code, _) = ask(port, "/no/such/page").await;
            assert_eq!(code, 404);
        }
    });
}

/// Runs against etcd as well: the names, labels and values are those its dashboards read.
#[test]
fn calls_are_counted_by_method_and_by_what_the_client_was_told() {
    run(async {
        let cluster = Cluster::start(1).await;
        let client = cluster.client(0);
        let (requests, outgoing) = tokio::sync::mpsc::channel(1);
        let create = WatchCreateRequest { key: b"counted/a".to_vec().into(), ..Default::default() };
        let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        requests.send(request).await.expect("room for a request");
        let outgoing = tokio_stream::wrappers::ReceiverStream::new(outgoing);
        let mut answers = WatchClient::new(client.channel()).watch(outgoing).await.expect("a watch").into_inner();
        assert!(answers.message().await.expect("an answer").is_some_and(|answer| answer.created));
        for value in ["1", "2"] {
            client.put("counted/a", value).await.expect("a put");
            assert!(answers.message().await.expect("an answer").is_some_and(|answer| answer.events.len() == 1));
        }
        let future = RangeRequest { revision: 1_000_000, ..crate::client::get_request("counted/a") };
        client.range(future).await.expect_err("a read of the future");
        drop((requests, answers));
        let port = cluster.nodes[0].client_port;
        let (put, range) = (labels("KV", "Put", "unary"), labels("KV", "Range", "unary"));
        let watch = labels("Watch", "Watch", "bidi_stream");
        let expected = [
            format!("grpc_server_started_total{{{put}}} 2"),
            format!("grpc_server_msg_received_total{{{put}}} 2"),
            format!("grpc_server_msg_sent_total{{{put}}} 2"),
            format!("grpc_server_handled_total{{grpc_code=\"OK\",{put}}} 2"),
            format!("grpc_server_handled_total{{grpc_code=\"OutOfRange\",{range}}} 1"),
            format!("grpc_server_started_total{{{watch}}} 1"),
            format!("grpc_server_msg_received_total{{{watch}}} 1"),
            format!("grpc_server_msg_sent_total{{{watch}}} 3"),
        ];
        eventually("the calls are counted", || async {
            let (_, text) = ask(port, "/metrics").await;
            let missing = expected.iter().find(|line| !text.lines().any(|found| found == *line));
            missing.map_or(Ok(()), |line| {
                let near = text.lines().filter(|found| found.starts_with(&line[..40])).collect::<Vec<_>>();
                Err(format!("no {line} among {near:#?}"))
            })
        })
        .await;
    });
}

fn labels(service: &str, method: &str, kind: &str) -> String {
    format!("grpc_method=\"{method}\",grpc_service=\"etcdserverpb.{service}\",grpc_type=\"{kind}\"")
}

#[test]
fn node_without_a_quorum_says_that_it_is_not_healthy_but_lives() {
    run(async {
        let mut cluster = Cluster::start(3).await;
        cluster.kill(1);
        cluster.kill(2);
        let port = cluster.nodes[0].client_port;
        eventually("an unhealthy answer", || async {
            let (code, body) = ask(port, "/health").await;
            if code == 503 && body.contains(r#""health":"false""#) { Ok(()) } else { Err(format!("{code} {body}")) }
        })
        .await;
        if !is_reference() {
            assert_eq!(ask(port, "/livez").await.0, 200, "restarting it would not help, so it must count as alive");
            assert_eq!(ask(port, "/readyz").await.0, 503);
        }
        cluster.restart(1);
        eventually("a healthy answer", || async {
            let (code, body) = ask(port, "/health").await;
            if code == 200 { Ok(()) } else { Err(format!("{code} {body}")) }
        })
        .await;
    });
}

#[test]
fn grpc_health_says_serving() {
    run(async {
        let cluster = Cluster::start(1).await;
        let mut client = HealthClient::new(cluster.client(0).channel());
        let answer = client.check(HealthCheckRequest { service: String::new() }).await.expect("a health check");
        assert_eq!(answer.into_inner().status(), ServingStatus::Serving);
    });
}

#[test]
fn grpc_reflection_lists_the_services() {
    if is_reference() {
        return;
    }
    run(async {
        let cluster = Cluster::start(1).await;
        let mut client = ServerReflectionClient::new(cluster.client(0).channel());
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let answer = client.server_reflection_info(tokio_stream::once(request)).await.expect("reflection");
        let message = answer.into_inner().message().await.expect("an answer").expect("one message");
        let Some(MessageResponse::ListServicesResponse(list)) = message.message_response else {
            panic!("not a list of services: {message:?}");
        };
        let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
        for name in ["etcdserverpb.KV", "etcdserverpb.Cluster", "etcdserverpb.Maintenance"] {
            assert!(names.contains(&name), "no {name} in {names:?}");
        }
    });
}
