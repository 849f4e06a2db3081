//! Damaged bytes on the two sockets: peers' frames and greetings, clients' requests.

use api::etcdserverpb as pb;
use bytes::{Bytes, BytesMut};
use mvcc::{Command, Limits, Op};
use prost::Message;

use crate::convert;
use crate::peer::frame;
use crate::peer::hello::{Hello, Welcome};

fn hello() -> Hello {
    Hello {
        cluster: base::ClusterId(1),
        node: base::NodeId(2),
        to: base::NodeId(3),
        protocol: 1,
        incarnation: 4,
        name: "one".to_owned(),
        client_urls: vec!["http://127.0.0.1:2379".to_owned()],
    }
}

#[test]
fn a_stream_of_frames_is_read_or_refused() {
    let mut stream = Vec::new();
    for body in [&b""[..], b"a body", &[7; 300]] {
        frame::put(&mut stream, |out| out.extend_from_slice(body));
    }
    // A length is believed up to the limit of a frame before the body is there.
    let fuzz = fuzz::Fuzz::new("frames", env!("CARGO_MANIFEST_DIR")).seed(stream);
    fuzz.allocating(2 * base::limits::PEER_FRAME_BYTES_MAX as u64).run(|input| {
        let mut buffer = BytesMut::from(input);
        let mut taken = 0;
        while let Ok(Some(body)) = frame::take(&mut buffer) {
            taken += body.len() + frame::HEADER_BYTES;
        }
        assert!(taken <= input.len(), "{taken} bytes out of {}", input.len());
    });
}

#[test]
fn a_greeting_is_read_or_refused() {
    let (mut plain, mut accepted, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    hello().encode(&mut plain);
    Welcome::Accepted(hello()).encode(&mut accepted);
    Welcome::Refused("go away".to_owned()).encode(&mut refused);
    let fuzz = fuzz::Fuzz::new("greetings", env!("CARGO_MANIFEST_DIR")).seed(plain).seed(accepted).seed(refused);
    fuzz.run(|input| {
        drop(Hello::decode(Bytes::copy_from_slice(input)));
        drop(Welcome::decode(Bytes::copy_from_slice(input)));
    });
}

fn txn(depth: usize) -> pb::TxnRequest {
    use pb::request_op::Request;
    let range = pb::RangeRequest { key: "a".into(), range_end: "z".into(), limit: 5, ..Default::default() };
    let put = pb::PutRequest { key: "k".into(), value: "v".into(), prev_kv: true, ..Default::default() };
    let delete = pb::DeleteRangeRequest { key: "k".into(), ..Default::default() };
    let mut success = vec![Request::RequestRange(range), Request::RequestPut(put), Request::RequestDeleteRange(delete)];
    if depth > 0 {
        success.push(Request::RequestTxn(txn(depth - 1)));
    }
    let compare =
        pb::Compare { key: "k".into(), target_union: Some(pb::compare::TargetUnion::Version(1)), ..Default::default() };
    let ops = |requests: Vec<Request>| requests.into_iter().map(|r| pb::RequestOp { request: Some(r) }).collect();
    pb::TxnRequest { compare: vec![compare], success: ops(success), failure: vec![pb::RequestOp { request: None }] }
}

#[test]
fn a_clients_request_is_translated_or_refused() {
    let put = pb::PutRequest { key: "k".into(), value: "v".into(), lease: 7, ..Default::default() };
    let range = pb::RangeRequest { key: "k".into(), range_end: vec![0].into(), ..Default::default() };
    let fuzz = fuzz::Fuzz::new("requests", env!("CARGO_MANIFEST_DIR"))
        .seed(put.encode_to_vec())
        .seed(range.encode_to_vec())
        .seed(txn(0).encode_to_vec())
        .seed(txn(3).encode_to_vec());
    // A field of two bytes in a message becomes an operation of hundreds: what a request may hold is bounded by its
    // size, 1.5 MiB, and by the number of its operations.
    fuzz.allocating(16 << 20).run(|input| {
        let bytes = || Bytes::copy_from_slice(input);
        if let Ok(request) = pb::RangeRequest::decode(bytes()) {
            let _refused = convert::range_request(request).validate();
        }
        if let Ok(request) = pb::PutRequest::decode(bytes()) {
            logged(&Command::Put(convert::put_request(request)));
        }
        if let Ok(request) = pb::DeleteRangeRequest::decode(bytes()) {
            logged(&Command::DeleteRange(convert::delete_request(request)));
        }
        if let Ok(request) = pb::CompactionRequest::decode(bytes()) {
            logged(&convert::compact_request(&request));
        }
        if let Ok(Ok(txn)) = pb::TxnRequest::decode(bytes()).map(convert::txn_request) {
            assert!(txn.is_read_only() || !txn.success.iter().chain(&txn.failure).all(|op| matches!(op, Op::Range(_))));
            logged(&Command::Txn(txn));
        }
    });
}

/// What passes the checks can be logged and read back.
fn logged(command: &Command) {
    if command.validate(&Limits::default()).is_ok() {
        assert_eq!(Command::decode(command.encode()).as_ref(), Ok(command));
    }
}
