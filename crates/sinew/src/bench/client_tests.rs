//! The client against a scripted server.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Assembler, Call, CallError, Caller, Channel, Endpoint, percent_decoded};
use crate::bench::fake_server::{Reply, frame, start};

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), test).await.unwrap() });
}

async fn caller(endpoints: &[Arc<Endpoint>]) -> Caller {
    Caller::new(&Channel::connect(endpoints, 0).await.unwrap())
}

/// What the client makes of one reply.
fn check(reply: Reply, expected: Result<&[u8], CallError>) {
    run(async {
        let server = start(move |_, _| reply.clone()).await;
        let answer = caller(&[server]).await.call(Call::Put, frame(b"question")).await;
        assert_eq!(answer, expected.map(Bytes::copy_from_slice));
    });
}

fn protocol(reason: &str) -> Result<&'static [u8], CallError> {
    Err(CallError::Protocol(reason.to_owned()))
}

#[test]
fn a_message_arrives() {
    check(Reply::Message(b"answer".to_vec()), Ok(b"answer"));
    check(Reply::Message(Vec::new()), Ok(b""));
}

#[test]
fn a_message_in_many_frames_is_put_together() {
    let framed = frame(&[7; 5000]);
    // Cuts inside the frame header, an empty frame, and single bytes.
    let pieces = vec![
        framed.slice(..2),
        Bytes::new(),
        framed.slice(2..5),
        framed.slice(5..6),
        framed.slice(6..4000),
        framed.slice(4000..),
    ];
    check(Reply::Pieces(pieces, "0", ""), Ok(&[7; 5000]));
}

#[test]
fn a_stream_hands_out_one_message_after_the_other() {
    run(async {
        let framed = [frame(b"one"), frame(b""), frame(&[7; 5000])].concat();
        let pieces = [&framed[..2], &framed[2..9], &framed[9..20], &framed[20..]].map(Bytes::copy_from_slice).to_vec();
        let server = start(move |_, _| Reply::Pieces(pieces.clone(), "14", "gone")).await;
        let mut messages = caller(&[server]).await.open(Call::Watch, frame(b"question")).await.unwrap();
        for expected in [&b"one"[..], b"", &[7; 5000]] {
            assert_eq!(messages.next().await.unwrap(), expected);
        }
        let refused = CallError::Status(14, "gone".to_owned());
        assert_eq!(messages.next().await, Err(refused));
    });
}

#[test]
fn what_is_no_message_ends_a_stream() {
    run(async {
        let server = start(|number, _| match number {
            0 => Reply::Pieces(vec![Bytes::from_static(&[1, 0, 0, 0, 0])], "0", ""),
            1 => Reply::Pieces(vec![Bytes::from_static(&[0, 255, 0, 0, 0])], "0", ""),
            _ => Reply::Pieces(vec![Bytes::from_static(&[0, 0, 0, 0, 9, 1])], "0", ""),
        });
        let mut caller = caller(&[server.await]).await;
        for expected in ["compression 1", "4278190080 bytes", "the server ended the stream"] {
            let error = caller.open(Call::Watch, frame(b"")).await.unwrap().next().await.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    });
}

#[test]
fn a_status_in_the_trailers_is_the_error_even_after_a_message() {
    let pieces = vec![frame(b"answer")];
    let refused = CallError::Status(14, "etcdserver: no leader".to_owned());
    assert_eq!(refused.to_string(), "Unavailable: etcdserver: no leader");
    check(Reply::Pieces(pieces, "14", "etcdserver: no leader"), Err(refused));
}

#[test]
fn a_status_in_the_headers_is_the_error() {
    check(Reply::HeadersOnly("3", "50%25 of%20it"), Err(CallError::Status(3, "50% of it".to_owned())));
}

#[test]
fn answers_that_are_not_grpc_are_refused() {
    check(Reply::Http(404), protocol("HTTP status 404 Not Found"));
    check(Reply::NoTrailers(frame(b"x")), protocol("no trailers"));
    check(Reply::Pieces(Vec::new(), "0", ""), protocol("0 bytes where a message was due"));
    check(
        Reply::Pieces(vec![Bytes::from_static(b"\x01\0\0\0\x01x")], "0", ""),
        protocol("a compressed message nobody asked for"),
    );
    check(
        Reply::Pieces(vec![Bytes::from_static(b"\0\0\0\0\x09x")], "0", ""),
        protocol("a message of 9 bytes in a body of 1"),
    );
    check(Reply::Pieces(vec![frame(b"x")], "zero", ""), protocol("grpc-status is not a number"));
    check(Reply::Reset, protocol("stream reset: REFUSED_STREAM"));
}

#[test]
fn each_method_has_its_path() {
    run(async {
        let server = start(|_, path| Reply::Message(path.as_bytes().to_vec())).await;
        let mut caller = caller(&[server]).await;
        for (call, path) in [
            (Call::Put, "/etcdserverpb.KV/Put"),
            (Call::Range, "/etcdserverpb.KV/Range"),
            (Call::Txn, "/etcdserverpb.KV/Txn"),
        ] {
            assert_eq!(caller.call(call, frame(b"")).await, Ok(Bytes::from_static(path.as_bytes())));
        }
    });
}

#[test]
fn a_request_larger_than_the_window_goes_through_whole() {
    run(async {
        let server = start(|_, _| Reply::Echo).await;
        let question: Vec<u8> = (0..700_000_u32).map(|number| number.to_le_bytes()[1]).collect();
        let answer = caller(&[server]).await.call(Call::Txn, frame(&question)).await.unwrap();
        assert!(answer == question, "{} bytes of {}", answer.len(), question.len());
    });
}

#[test]
fn a_broken_connection_is_reported_once_and_replaced() {
    run(async {
        let server = start(|number, _| if number == 1 { Reply::HangUp } else { Reply::Echo }).await;
        let mut caller = caller(&[server]).await;
        assert!(caller.call(Call::Put, frame(b"a")).await.is_ok());
        let error = caller.call(Call::Put, frame(b"b")).await.unwrap_err();
        assert!(error.is_connection(), "{error}");
        assert_eq!(caller.call(Call::Put, frame(b"c")).await, Ok(Bytes::from_static(b"c")));
    });
}

#[test]
fn when_a_server_is_gone_the_next_endpoint_is_used() {
    run(async {
        let dead: Arc<Endpoint> = Arc::new("127.0.0.1:1".parse().unwrap());
        let error = Channel::connect(&[Arc::clone(&dead)], 0).await.map(|_| ()).unwrap_err();
        assert!(matches!(&error, CallError::Connect(reason) if reason.starts_with("127.0.0.1:1: ")), "{error}");

        let fragile = start(|_, _| Reply::HangUp).await;
        let healthy = start(|_, _| Reply::Echo).await;
        let channel = Channel::connect(&[fragile, dead, healthy], 0).await.unwrap();
        channel.state.lock().await.next = 1;
        let mut caller = Caller::new(&channel);
        assert!(matches!(caller.call(Call::Put, frame(b"a")).await, Err(CallError::Lost(_))));
        assert!(matches!(caller.call(Call::Put, frame(b"a")).await, Err(CallError::Connect(_))));
        assert_eq!(caller.call(Call::Put, frame(b"a")).await, Ok(Bytes::from_static(b"a")));
    });
}

#[test]
fn callers_of_one_channel_share_the_replacement() {
    run(async {
        let server = start(|number, _| if number < 2 { Reply::HangUp } else { Reply::Echo }).await;
        let channel = Channel::connect(&[server], 0).await.unwrap();
        let (mut first, mut second) = (Caller::new(&channel), Caller::new(&channel));
        let (one, two) = tokio::join!(first.call(Call::Put, frame(b"a")), second.call(Call::Put, frame(b"a")));
        assert!(one.unwrap_err().is_connection() && two.unwrap_err().is_connection());
        while first.call(Call::Put, frame(b"a")).await.is_err() {}
        assert!(second.call(Call::Put, frame(b"a")).await.is_ok());
        assert_eq!(first.generation, second.generation);
    });
}

#[test]
fn an_answer_beyond_the_limit_is_refused_before_it_is_copied() {
    let mut assembler = Assembler::default();
    let chunk = Bytes::from(vec![0; 1024 * 1024]);
    let refused = (0..100).find_map(|number| assembler.push(chunk.clone()).err().map(|_| number));
    assert_eq!(refused, Some(64));
}

#[test]
fn endpoints_are_host_and_port() {
    for good in ["127.0.0.1:2379", "http://localhost:2379", "http://localhost:2379/", "[::1]:2379"] {
        let endpoint: Endpoint = good.parse().unwrap();
        assert!(endpoint.uris[2].to_string().ends_with(":2379/etcdserverpb.KV/Txn"), "{good}");
    }
    for bad in ["", "localhost", ":2379", "localhost:0", "localhost:99999", "a b:1", "a:1/path", "https://a:1", "u@a:1"]
    {
        assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
    }
}

#[test]
fn percent_escapes_are_undone_and_other_percents_kept() {
    assert_eq!(percent_decoded(b"a%20b%C3%A9%"), "a b\u{e9}%");
    assert_eq!(percent_decoded(b"100%zz %+1 %2"), "100%zz %+1 %2");
}
