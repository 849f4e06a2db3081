//! Bad input of every kind: each is answered with words that say what is wrong, and nobody else notices.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use tonic::{Code, Status};

use crate::client::{create_request, get_request, put_op, put_request};
use crate::cluster::{Cluster, Ended, free_port, is_reference, run_to_end, serve};
use crate::run;

/// A node's flags that work, to be spoilt by one more.
fn good_flags(folder: &tempfile::TempDir) -> Vec<String> {
    let (client, peer) = (format!("http://127.0.0.1:{}", free_port()), format!("http://127.0.0.1:{}", free_port()));
    let data_dir = folder.path().join("data");
    let data_dir = data_dir.to_str().expect("a path in UTF-8").to_owned();
    [
        ("--name", "n0"),
        ("--data-dir", &data_dir),
        ("--listen-client-urls", &client),
        ("--advertise-client-urls", &client),
        ("--listen-peer-urls", &peer),
        ("--initial-advertise-peer-urls", &peer),
        ("--initial-cluster", &format!("n0={peer}")),
    ]
    .into_iter()
    .flat_map(|(flag, value)| [flag.to_owned(), value.to_owned()])
    .collect()
}

/// Replaces the value of `flag`, or adds the flag.
fn with(flags: &[String], flag: &str, value: &str) -> Vec<String> {
    let mut changed = flags.to_vec();
    match changed.iter().position(|each| each == flag) {
        Some(at) => changed[at + 1] = value.to_owned(),
        None => changed.extend([flag.to_owned(), value.to_owned()]),
    }
    changed
}

/// Starts a node that must refuse to run.
fn refused(flags: &[String]) -> Ended {
    let mut command = serve();
    command.args(flags);
    let ended = run_to_end(command);
    assert!(!ended.status.success(), "{flags:?} was accepted:\n{}", ended.output);
    assert!(!ended.output.contains("panicked at"), "an error of the user is no panic:\n{}", ended.output);
    ended
}

/// The complaint must contain every one of `words`; the reference words its complaints differently.
fn complains(ended: &Ended, words: &[&str]) {
    if !is_reference() {
        for word in words {
            let found = ended.output.to_lowercase().contains(&word.to_lowercase());
            assert!(found, "no `{word}` in the complaint:\n{}", ended.output);
        }
    }
}

#[test]
fn flags_that_make_no_sense_are_refused_by_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let good = good_flags(&folder);
    let cases: &[(&str, &str, &[&str])] = &[
        ("--no-such-flag", "1", &["--no-such-flag"]),
        ("--listen-client-urls", "not a url", &["listen-client-urls"]),
        ("--listen-peer-urls", "ftp://127.0.0.1:1", &["listen-peer-urls", "http"]),
        ("--initial-cluster", "n0", &["initial-cluster"]),
        ("--initial-cluster", "other=http://127.0.0.1:1", &["initial-cluster", "n0"]),
        ("--initial-cluster-state", "maybe", &["initial-cluster-state", "new"]),
        ("--heartbeat-interval", "soon", &["heartbeat-interval"]),
        ("--election-timeout", "99", &["election-timeout", "heartbeat"]),
        ("--initial-advertise-peer-urls", "http://127.0.0.1:1", &["initial-advertise-peer-urls", "initial-cluster"]),
    ];
    for (flag, value, words) in cases {
        complains(&refused(&with(&good, flag, value)), words);
    }
}

#[test]
fn data_directory_that_cannot_be_one_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "I am not a directory").expect("a file");
    let path = file.to_str().expect("a path in UTF-8");
    complains(&refused(&with(&good_flags(&folder), "--data-dir", path)), &[path]);
    assert_eq!(std::fs::read_to_string(&file).expect("the file"), "I am not a directory", "it was overwritten");
}

#[test]
fn port_in_use_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for flag in ["--listen-client-urls", "--listen-peer-urls"] {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = taken.local_addr().expect("an address").port();
        let ended = refused(&with(&good_flags(&folder), flag, &format!("http://127.0.0.1:{port}")));
        if flag == "--listen-client-urls" {
            complains(&ended, &[&port.to_string(), "in use"]);
        }
    }
}

#[test]
fn second_process_on_one_data_directory_is_refused_and_the_first_goes_on() {
    run(async {
        let cluster = Cluster::start(1).await;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data_dir = cluster.nodes[0].data_dir.to_str().expect("a path in UTF-8");
        let flags = with(&good_flags(&folder), "--data-dir", data_dir);
        if !is_reference() {
            // The reference waits for the lock for ever.
            let ended = tokio::task::spawn_blocking(move || refused(&flags)).await.expect("a thread");
            complains(&ended, &[data_dir]);
        }
        cluster.client(0).put("second/a", "1").await.expect("the first process goes on");
    });
}

#[test]
fn data_directory_of_another_cluster_is_refused_and_left_alone() {
    if is_reference() {
        return;
    }
    run(async {
        let mut cluster = Cluster::start(1).await;
        cluster.client(0).put("token/a", "1").await.expect("a put");
        cluster.kill(0);
        let flags = with(&cluster.nodes[0].flags, "--initial-cluster-token", "another");
        let ended = tokio::task::spawn_blocking(move || refused(&flags)).await.expect("a thread");
        let data_dir = cluster.nodes[0].data_dir.to_str().expect("a path in UTF-8");
        complains(&ended, &[data_dir, "cluster"]);
        cluster.restart(0);
        cluster.wait_ready().await;
        assert_eq!(cluster.client(0).get("token/a").await.expect("a get").count, 1);
    });
}

/// What strangers send: other protocols, nonsense, lengths that lie, half a message.
fn strange_bytes() -> Vec<Vec<u8>> {
    let nonsense: Vec<u8> = (0..20_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    vec![
        b"GET / HTTP/1.0\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
        vec![0xff; 4096],
        vec![0x00; 4096],
        vec![0x07],
        nonsense,
        strange_hello(b"SINEW\xee"),
        strange_hello(b"OTHER\x01"),
        Vec::new(),
    ]
}

/// A well-framed greeting of a node of another protocol or another cluster.
fn strange_hello(magic: &[u8; 6]) -> Vec<u8> {
    let mut body = magic.to_vec();
    body.extend([1, 2, 3, 9, 1, b'x', 0]);
    let length = (body.len() as u32).to_le_bytes();
    let checksum = crc32c(&[&length[..], &body].concat()).to_le_bytes();
    [&length[..], &checksum, &body].concat()
}

/// CRC-32C, bit by bit: the suite checks the wire, so it does not borrow the server's code.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82F6_3B78 } else { crc >> 1 })
    })
}

#[test]
fn garbage_on_either_port_ends_its_own_connection_only() {
    run(async {
        let mut cluster = Cluster::start(3).await;
        let before = cluster.leader().await;
        let mut held = Vec::new();
        for node in &cluster.nodes {
            for port in [node.client_port, node.peer_port] {
                for bytes in strange_bytes() {
                    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
                    // The node may hang up in the middle: that is its right.
                    let _ = stream.write_all(&bytes);
                    stream.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
                    let _ = stream.read(&mut [0; 64]);
                    held.push(stream);
                }
            }
        }
        for node in cluster.clients() {
            node.put("garbage/a", "1").await.expect("a put among garbage");
            assert_eq!(node.get("garbage/a").await.expect("a get").count, 1);
        }
        assert_eq!(cluster.leader().await, before, "garbage must not make anybody campaign");
        for at in 0..3 {
            assert!(cluster.exited(at).is_none(), "node {at} died of garbage");
            let output = cluster.output(at);
            assert!(!output.contains("panicked at"), "garbage made node {at} panic:\n{output}");
            let named = output.contains("does not speak the peer protocol");
            assert!(named || is_reference(), "node {at} did not say what came to its peer port:\n{output}");
        }
        drop(held);
    });
}

/// The answer must be an error with this code and exactly these words: clients compare them.
fn says<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, words: &str) {
    let status = answer.expect_err("an error");
    assert_eq!((status.code(), status.message()), (code, words));
}

#[test]
fn requests_that_make_no_sense_are_refused_in_the_words_clients_know() {
    run(async {
        let cluster = Cluster::start(3).await;
        for node in cluster.clients() {
            says(node.put("", "x").await, Code::InvalidArgument, "etcdserver: key is not provided");
            says(node.get("").await, Code::InvalidArgument, "etcdserver: key is not provided");
            says(node.delete("").await, Code::InvalidArgument, "etcdserver: key is not provided");

            let mut many = create_request("bad/many", "x");
            many.success = (0..200).map(|at| put_op(&format!("bad/{at}"), "x")).collect();
            says(node.txn(many).await, Code::InvalidArgument, "etcdserver: too many operations in txn request");
            let mut twice = create_request("bad/twice", "x");
            twice.success = vec![put_op("bad/k", "1"), put_op("bad/k", "2")];
            says(node.txn(twice).await, Code::InvalidArgument, "etcdserver: duplicate key given in txn request");

            let large = node.put("bad/large", vec![b'x'; 1_600_000]).await;
            says(large, Code::InvalidArgument, "etcdserver: request is too large");
            let huge = node.put("bad/huge", vec![b'x'; 3 << 20]).await.expect_err("an error");
            let too_large = matches!(huge.code(), Code::ResourceExhausted | Code::OutOfRange | Code::InvalidArgument);
            assert!(too_large && !huge.message().is_empty(), "{huge:?}");

            let unknown_lease = api::etcdserverpb::PutRequest { lease: 4_711, ..put_request("bad/lease", "x") };
            let answer = node.put_request(unknown_lease).await;
            says(answer, Code::NotFound, "etcdserver: requested lease not found");
            let future = api::etcdserverpb::RangeRequest { revision: 1 << 40, ..get_request("bad/k") };
            let words = "etcdserver: mvcc: required revision is a future revision";
            says(node.range(future).await, Code::OutOfRange, words);
            let sort = api::etcdserverpb::RangeRequest { sort_order: 77, ..get_request("bad/k") };
            if !is_reference() {
                says(node.range(sort).await, Code::InvalidArgument, "etcdserver: invalid sort option");
            }
        }
        // Not one of them left anything behind, and the nodes are as well as before.
        let left = cluster.client(0).range(crate::client::prefix_request("bad/")).await.expect("a range");
        assert_eq!(left.count, 0);
    });
}

#[test]
fn unknown_service_or_method_is_unimplemented() {
    run(async {
        let cluster = Cluster::start(1).await;
        let mut grpc = tonic::client::Grpc::new(cluster.client(0).channel());
        grpc.ready().await.expect("a connection");
        let codec = tonic_prost::ProstCodec::<_, api::etcdserverpb::PutResponse>::default();
        let request = tonic::Request::new(put_request("a", "b"));
        let path = "/etcdserverpb.KV/NoSuchMethod".parse().expect("a path");
        let answer = grpc.unary(request, path, codec).await;
        assert_eq!(answer.expect_err("an error").code(), Code::Unimplemented);
    });
}

#[test]
fn unknown_verb_is_refused_with_a_hint() {
    let mut command = Command::new(crate::cluster::binary());
    command.arg("no-such-verb");
    let ended = run_to_end(command);
    assert!(!ended.status.success());
    complains(&ended, &["no-such-verb", "--help"]);
}
