//! Every request is decoded with the real messages, and every answer made from them.

use api::etcdserverpb::{
    LeaseGrantRequest, PutRequest, PutResponse, RangeRequest, RangeResponse, ResponseHeader, ResponseOp, TxnRequest,
    TxnResponse, compare, request_op, response_op,
};
use api::mvccpb::KeyValue;
use bytes::Bytes;
use prost::Message;

use super::{Effect, Generator, Operation, Shape, Workload};
use crate::bench::client::{Call, CallError};
use crate::bench::keys::{KeyPattern, KeySpace};

const KEYS: u64 = 5;

fn shape(value_bytes: usize) -> Shape {
    Shape {
        keys: KeySpace::new("bench/", 16, KEYS).unwrap(),
        pattern: KeyPattern::Sequential,
        value_bytes,
        range_keys: 3,
        read_ratio: 0.75,
        seed: 9,
    }
}

fn generator(workload: Workload) -> Generator {
    let mut generator = Generator::new(shape(64), true);
    generator.select(workload);
    generator
}

fn key(number: u64) -> Vec<u8> {
    format!("bench/{number:010}").into_bytes()
}

/// The message behind a correct frame header.
fn message<M: Message + Default>(operation: &Operation) -> M {
    let framed = &operation.framed;
    assert_eq!(framed[0], 0, "not compressed");
    assert_eq!(framed[1..5], u32::try_from(framed.len() - 5).unwrap().to_be_bytes());
    M::decode(&framed[5..]).unwrap()
}

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, cluster_id: 1, member_id: 2, raft_term: 3 })
}

fn encoded(message: &impl Message) -> Bytes {
    Bytes::from(message.encode_to_vec())
}

#[test]
fn puts_walk_the_keys_and_every_value_differs() {
    let mut generator = generator(Workload::Put);
    let mut values = Vec::new();
    for number in 0..7 {
        let operation = generator.next_operation();
        let put: PutRequest = message(&operation);
        assert_eq!(operation.call, Call::Put);
        assert_eq!(put.key, key(number % KEYS));
        assert_eq!(put.value.len(), 64);
        assert_eq!(put, PutRequest { key: put.key.clone(), value: put.value.clone(), ..PutRequest::default() });
        values.push(put.value);
    }
    values.sort();
    values.dedup();
    assert_eq!(values.len(), 7);
}

#[test]
fn values_of_every_length_encode() {
    for value_bytes in [0, 1, 15, 16, 17, 127, 128, 240, 248, 70_000] {
        let mut generator = Generator::new(shape(value_bytes), false);
        for workload in [Workload::Put, Workload::Txn, Workload::Cas] {
            generator.select(workload);
            let operation = generator.next_operation();
            let puts = match workload {
                Workload::Put => vec![message::<PutRequest>(&operation)],
                _ => message::<TxnRequest>(&operation).success.into_iter().map(inner_put).collect(),
            };
            for put in puts {
                assert_eq!(put.value.len(), value_bytes);
                assert!(put.key.starts_with(b"bench/"), "{:?}", put.key);
            }
        }
    }
}

fn inner_put(operation: api::etcdserverpb::RequestOp) -> PutRequest {
    match operation.request {
        Some(request_op::Request::RequestPut(put)) => put,
        other => panic!("{other:?} is not a put"),
    }
}

#[test]
fn reads_differ_in_what_they_ask_for() {
    let get: RangeRequest = message(&generator(Workload::Get).next_operation());
    assert_eq!(get, RangeRequest { key: key(0).into(), ..RangeRequest::default() });
    let stale: RangeRequest = message(&generator(Workload::StaleGet).next_operation());
    assert_eq!(stale, RangeRequest { key: key(0).into(), serializable: true, ..RangeRequest::default() });
    let probe: RangeRequest = message(&generator(Workload::Put).probe());
    assert_eq!(probe, stale);
}

#[test]
fn ranges_start_only_where_enough_keys_follow() {
    let mut generator = generator(Workload::Range);
    let starts: Vec<_> = (0..4)
        .map(|_| {
            let range: RangeRequest = message(&generator.next_operation());
            (range.key, range.range_end)
        })
        .collect();
    let expected = |start: u64| (Bytes::from(key(start)), Bytes::from(key(start + 3)));
    assert_eq!(starts, [expected(0), expected(1), expected(2), expected(0)]);
}

#[test]
fn a_transaction_writes_two_different_keys() {
    let mut generator = generator(Workload::Txn);
    for number in 0..20 {
        let txn: TxnRequest = message(&generator.next_operation());
        assert!(txn.compare.is_empty() && txn.failure.is_empty());
        let keys: Vec<_> = txn.success.into_iter().map(|operation| inner_put(operation).key).collect();
        assert_eq!(keys.len(), 2);
        assert_eq!(keys[0], key(number % KEYS));
        assert_ne!(keys[0], keys[1]);
    }
}

#[test]
fn mixed_keeps_the_ratio() {
    let mut generator = generator(Workload::Mixed);
    let reads = (0..10_000).filter(|_| generator.next_operation().call == Call::Range).count();
    assert!((7_300..7_700).contains(&reads), "{reads} reads of 10,000 at a ratio of 0.75");
}

/// The revision a swap of the next key expects.
fn expected_revision(generator: &mut Generator) -> (Operation, i64) {
    let operation = generator.next_operation();
    let txn: TxnRequest = message(&operation);
    let [condition] = txn.compare.as_slice() else { panic!("{} compares", txn.compare.len()) };
    assert_eq!(condition.target(), compare::CompareTarget::Mod);
    assert_eq!(condition.result(), compare::CompareResult::Equal);
    assert_eq!(inner_put(txn.success[0].clone()).key, condition.key);
    assert!(
        matches!(&txn.failure[0].request, Some(request_op::Request::RequestRange(read)) if read.key == condition.key)
    );
    match condition.target_union {
        Some(compare::TargetUnion::ModRevision(revision)) => (operation, revision),
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn a_swap_expects_what_it_saw_last() {
    let mut generator = Generator::new(Shape { keys: KeySpace::new("bench/", 16, 1).unwrap(), ..shape(64) }, true);
    generator.select(Workload::Cas);
    let (create, revision) = expected_revision(&mut generator);
    assert_eq!(revision, 0, "a key never seen must not exist");
    let won = TxnResponse { header: header(300), succeeded: true, ..TxnResponse::default() };
    assert_eq!(generator.settle(&create, encoded(&won)), Ok(Effect::Done));

    let (swap, revision) = expected_revision(&mut generator);
    assert_eq!(revision, 300);
    let current = KeyValue { key: key(0).into(), mod_revision: 400, value: vec![1; 64].into(), ..KeyValue::default() };
    let read = RangeResponse { header: header(401), kvs: vec![current], count: 1, ..RangeResponse::default() };
    let response = ResponseOp { response: Some(response_op::Response::ResponseRange(read)) };
    let lost = TxnResponse { header: header(401), succeeded: false, responses: vec![response] };
    assert_eq!(generator.settle(&swap, encoded(&lost)), Ok(Effect::Missed));

    let (swap, revision) = expected_revision(&mut generator);
    assert_eq!(revision, 400, "the loser learns the winner's revision");
    let late = TxnResponse { header: header(350), succeeded: true, ..TxnResponse::default() };
    assert_eq!(generator.settle(&swap, encoded(&late)), Ok(Effect::Done));
    assert_eq!(expected_revision(&mut generator).1, 400, "a late answer does not turn the revision back");
}

#[test]
fn writes_teach_the_swap() {
    let mut generator = generator(Workload::Put);
    let put = generator.next_operation();
    let answer = PutResponse { header: header(77), ..PutResponse::default() };
    assert_eq!(generator.settle(&put, encoded(&answer)), Ok(Effect::Done));
    generator.select(Workload::Cas);
    assert_eq!(expected_revision(&mut generator).1, 77);
}

#[test]
fn reads_that_find_too_little_are_missed() {
    let mut generator = generator(Workload::Range);
    let range = generator.next_operation();
    for (found, effect) in [(3, Effect::Done), (2, Effect::Missed), (0, Effect::Missed)] {
        let pair = KeyValue { key: key(0).into(), value: vec![1; 300].into(), ..KeyValue::default() };
        let answer = RangeResponse { header: header(5), kvs: vec![pair; found], more: true, count: 9 };
        assert_eq!(generator.settle(&range, encoded(&answer)), Ok(effect));
    }
}

#[test]
fn garbage_is_an_error() {
    let mut generator = generator(Workload::Put);
    let put = generator.next_operation();
    let refused = |result: Result<Effect, CallError>| matches!(result, Err(CallError::Protocol(_)));
    assert!(refused(generator.settle(&put, Bytes::from_static(b"\xff\xff\xff"))));
    assert!(refused(generator.settle(&put, Bytes::new())), "a put without a revision did not happen");
}

#[test]
fn a_lease_is_granted_before_the_key_that_is_attached_to_it() {
    let mut generator = generator(Workload::Lease);
    let mut leases = std::collections::BTreeSet::new();
    for number in 0..7 {
        let operation = generator.next_operation();
        let (call, framed) = operation.before.clone().unwrap();
        let grant = LeaseGrantRequest::decode(&framed[5..]).unwrap();
        let put: PutRequest = message(&operation);
        assert_eq!((call, operation.call), (Call::LeaseGrant, Call::Put));
        assert_eq!((put.lease, put.key.to_vec(), put.value.len()), (grant.id, key(number % KEYS), 64));
        assert!(grant.id > 0 && leases.insert(grant.id));
        let answer = PutResponse { header: header(7), ..PutResponse::default() };
        assert_eq!(generator.settle(&operation, encoded(&answer)), Ok(Effect::Done));
    }
}

#[test]
fn a_value_tells_which_operation_wrote_it() {
    let mut generator = generator(Workload::Watch);
    for _ in 0..3 {
        let operation = generator.next_operation();
        assert!(operation.before.is_none());
        let put: PutRequest = message(&operation);
        assert_eq!(crate::bench::template::stamp_of(&put.value), Some(operation.stamp));
    }
    assert_eq!(crate::bench::template::stamp_of(b"too short"), None);
}
