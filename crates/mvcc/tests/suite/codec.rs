//! The bytes of commands, outcomes and rows: what is written here stays readable for ever.

use base::{LeaseId, NodeId, Revision};
use bytes::Bytes;
use mvcc::{
    Alarm, AlarmChange, AlarmKind, Command, Compact, CompactResult, Compare, CompareResult, CompareTarget, DeleteRange,
    DeleteResult, KeyValue, LeaseCheckpoint, LeaseExpire, LeaseGrant, LeaseGrantResult, LeaseInstance, LeaseRevoke,
    MemberChange, MemberRecord, MemberStep, Op, OpOutcome, OpResult, Outcome, OutcomeResult, Put, PutResult,
    RangeRequest, RangeResult, Reject, SortOrder, SortTarget, Txn, TxnResult,
};

use crate::store::{Store, bytes, put_leased, put_of};

/// Both directions of one format.
fn check_command(command: &Command, golden: &[u8]) {
    assert_eq!(command.encode().as_ref(), golden, "{command:?}");
    assert_eq!(Command::decode(Bytes::copy_from_slice(golden)).as_ref(), Ok(command));
    for len in 0..golden.len() {
        assert!(Command::decode(Bytes::copy_from_slice(&golden[..len])).is_err(), "{len} bytes of {command:?}");
    }
    assert!(Command::decode([golden, b"\0"].concat().into()).is_err(), "a byte too many after {command:?}");
}

fn check_outcome(outcome: &Outcome, golden: &[u8]) {
    assert_eq!(outcome.encode().as_ref(), golden, "{outcome:?}");
    assert_eq!(Outcome::decode(Bytes::copy_from_slice(golden)).as_ref(), Ok(outcome));
    for len in 0..golden.len() {
        assert!(Outcome::decode(Bytes::copy_from_slice(&golden[..len])).is_err(), "{len} bytes of {outcome:?}");
    }
    assert!(Outcome::decode([golden, b"\0"].concat().into()).is_err(), "a byte too many after {outcome:?}");
}

#[test]
fn commands_have_these_bytes() {
    let put = Put { lease: LeaseId(-2), prev_kv: true, ignore_lease: true, ..put_of("key", "value") };
    check_command(&Command::Put(put), b"\x01\x01\x05\x03\x03key\x05value");
    let delete = DeleteRange { key: bytes("a"), range_end: bytes("b"), prev_kv: true };
    check_command(&Command::DeleteRange(delete), b"\x01\x02\x01\x01a\x01b");
    check_command(&Command::Compact(Compact { revision: Revision(300) }), b"\x01\x04\xd8\x04");
}

#[test]
fn lease_commands_have_these_bytes() {
    let grant = LeaseGrant { id: LeaseId(-2), ttl_s: 60 };
    check_command(&Command::LeaseGrant(grant), b"\x01\x06\x03\x78");
    check_command(&Command::LeaseRevoke(LeaseRevoke { id: LeaseId(7) }), b"\x01\x07\x0e");
    let one = LeaseInstance { id: LeaseId(7), instance: 300 };
    let two = LeaseInstance { id: LeaseId(8), instance: 1 };
    check_command(&Command::LeaseExpire(LeaseExpire { leases: vec![one, two] }), b"\x01\x08\x02\x0e\xac\x02\x10\x01");
    let checkpoint = LeaseCheckpoint { leases: vec![(one, 5)] };
    check_command(&Command::LeaseCheckpoint(checkpoint), b"\x01\x09\x01\x0e\xac\x02\x0a");
    let alarm = Alarm { member: NodeId(300), kind: AlarmKind::NoSpace };
    check_command(&Command::Alarm(AlarmChange { alarm, raise: true }), b"\x01\x0a\x01\x01\xac\x02");
    check_command(&Command::Alarm(AlarmChange { alarm, raise: false }), b"\x01\x0a\0\x01\xac\x02");
    let alarm = Alarm { member: NodeId(300), kind: AlarmKind::Corrupt };
    check_command(&Command::Alarm(AlarmChange { alarm, raise: true }), b"\x01\x0a\x01\x02\xac\x02");
    let record = |id, url: &str| MemberRecord {
        id: NodeId(id),
        name: "a".to_owned(),
        peer_urls: vec![url.to_owned()],
        ..MemberRecord::default()
    };
    let change = |step| Command::Member(MemberChange { founders: vec![record(300, "u")], step });
    let add = MemberStep::Add(MemberRecord { promotes: true, ..record(7, "w") });
    check_command(&change(add), b"\x01\x0b\x01\xac\x02\0\x01a\x01\x01u\x01\x07\x02\x01a\x01\x01w");
    let update = MemberStep::Update(NodeId(7), vec!["w".to_owned()]);
    check_command(&change(update), b"\x01\x0b\x01\xac\x02\0\x01a\x01\x01u\x02\x07\x01\x01w");
    check_command(&change(MemberStep::Remove(NodeId(7))), b"\x01\x0b\x01\xac\x02\0\x01a\x01\x01u\x03\x07");
    let huge = b"\x01\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    assert!(Command::decode(Bytes::from_static(huge)).is_err(), "a count beyond the input");
}

#[test]
fn transactions_have_these_bytes() {
    let compare = |target, result| Compare { key: bytes("k"), range_end: bytes("l"), result, target };
    let range = RangeRequest {
        key: bytes("a"),
        range_end: bytes("b"),
        limit: 3,
        revision: Revision(4),
        sort_order: SortOrder::Descend,
        sort_target: SortTarget::Value,
        serializable: true,
        keys_only: false,
        count_only: true,
        min_mod_revision: Revision(1),
        max_mod_revision: Revision(2),
        min_create_revision: Revision(3),
        max_create_revision: Revision(-1),
    };
    let txn = Txn {
        compares: vec![
            compare(CompareTarget::Version(1), CompareResult::Equal),
            compare(CompareTarget::CreateRevision(Revision(2)), CompareResult::Greater),
            compare(CompareTarget::ModRevision(Revision(3)), CompareResult::Less),
            compare(CompareTarget::Value(bytes("v")), CompareResult::NotEqual),
            compare(CompareTarget::Lease(LeaseId(5)), CompareResult::Equal),
        ],
        success: vec![Op::Range(range), Op::Put(put_of("p", "")), Op::Txn(Txn::default())],
        failure: vec![Op::DeleteRange(DeleteRange { key: bytes("d"), ..DeleteRange::default() }), Op::Empty],
    };
    let golden = [
        b"\x01\x03".as_slice(),
        b"\x05",
        b"\x01k\x01l\x00\x00\x02",
        b"\x01k\x01l\x01\x01\x04",
        b"\x01k\x01l\x02\x02\x06",
        b"\x01k\x01l\x03\x03\x01v",
        b"\x01k\x01l\x00\x04\x0a",
        b"\x03",
        b"\x05\x05\x01a\x01b\x06\x08\x02\x04\x02\x04\x06\x01",
        b"\x01\x00\x00\x01p\x00",
        b"\x03\x00\x00\x00",
        b"\x02",
        b"\x02\x00\x01d\x00",
        b"\x00",
    ];
    check_command(&Command::Txn(txn), &golden.concat());
}

#[test]
fn a_count_beyond_the_input_is_refused_without_allocating() {
    let huge = b"\x01\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    assert!(Command::decode(Bytes::from_static(huge)).is_err());
    let pairs = b"\x01\x04\x02\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    assert!(Outcome::decode(Bytes::from_static(pairs)).is_err());
}

fn kv() -> KeyValue {
    KeyValue {
        key: bytes("k"),
        create_revision: Revision(2),
        mod_revision: Revision(3),
        version: 2,
        lease: LeaseId(0),
        value: bytes("v"),
    }
}

#[test]
fn outcomes_have_these_bytes() {
    let outcome = |result| Outcome { revision: Revision(3), result };
    const KV: &[u8] = b"\x01k\x04\x06\x04\x00\x01v";
    let put = PutResult { prev_kv: Some(kv()) };
    check_outcome(&outcome(OutcomeResult::Put(put)), &[b"\x01\x06\x01\x01", KV].concat());
    check_outcome(&outcome(OutcomeResult::Put(PutResult::default())), b"\x01\x06\x01\x00");
    let delete = DeleteResult { deleted: 1, prev_kvs: vec![kv()] };
    check_outcome(&outcome(OutcomeResult::DeleteRange(delete)), &[b"\x01\x06\x02\x02\x01", KV].concat());
    check_outcome(&outcome(OutcomeResult::Compact(CompactResult { compacted: Revision(2) })), b"\x01\x06\x04\x04");
    check_outcome(&outcome(OutcomeResult::Rejected(Reject::Compacted)), b"\x01\x06\x00\x08");
    let granted = LeaseGrantResult { id: LeaseId(7), ttl_s: 60 };
    check_outcome(&outcome(OutcomeResult::LeaseGrant(granted)), b"\x01\x06\x07\x0e\x78");
    check_outcome(&outcome(OutcomeResult::LeaseRevoke), b"\x01\x06\x08");
    check_outcome(&outcome(OutcomeResult::LeaseExpire(300)), b"\x01\x06\x09\xac\x02");
    check_outcome(&outcome(OutcomeResult::LeaseCheckpoint(1)), b"\x01\x06\x0a\x01");
    let op = |revision, result| OpOutcome { revision: Revision(revision), result };
    let txn = TxnResult {
        succeeded: true,
        responses: vec![
            op(3, OpResult::Range(RangeResult { kvs: vec![kv()], more: true, count: 9 })),
            op(3, OpResult::Put(PutResult::default())),
            op(3, OpResult::DeleteRange(DeleteResult::default())),
            op(0, OpResult::Txn(TxnResult::default())),
        ],
    };
    let golden = [
        b"\x01\x06\x03\x01\x04".as_slice(),
        b"\x06\x05\x01\x12\x01",
        KV,
        b"\x06\x01\x00",
        b"\x06\x02\x00\x00",
        b"\x00\x03\x00\x00",
    ];
    check_outcome(&outcome(OutcomeResult::Txn(txn)), &golden.concat());
}

#[test]
fn a_store_has_these_rows() {
    let mut store = Store::new();
    store.put("a\0", "1");
    store.put("a\0", "2");
    store.put("b", "x");
    store.delete("b");
    store.compact(3);
    let rows: [(&[u8], &[u8]); 10] = [
        (b"ca\0", b"\0\x02\x01\x022"),
        (b"ha\0\xff\0\x01\0\0\0\0\0\0\0\x02\x02", b"\0\x02\0\x011"),
        (b"hb\0\x01\0\0\0\0\0\0\0\x04\x02", b"\0\x04\0\x01x"),
        (b"hb\0\x01\0\0\0\0\0\0\0\x05\x01", b"\x01"),
        (b"mmark", b"\0\0\0\0\0\0\0\x05"),
        (b"mstate", b"\x01\x0a\x06\x01"),
        (b"r\0\0\0\0\0\0\0\x02\0\0\0\0", b"\0\0a\0"),
        (b"r\0\0\0\0\0\0\0\x03\0\0\0\0", b"\0\x02a\0"),
        (b"r\0\0\0\0\0\0\0\x04\0\0\0\0", b"\0\0b"),
        (b"r\0\0\0\0\0\0\0\x05\0\0\0\0", b"\x01\x04b"),
    ];
    let found = store.engine.rows();
    let found: Vec<(&[u8], &[u8])> = found.iter().map(|(key, value)| (&key[..], &value[..])).collect();
    assert_eq!(found, rows);
    store.sweep(100);
    let swept = store.engine.rows();
    let position = swept.iter().find(|(key, _)| key == "msweep").map(|(_, value)| &value[..]);
    assert_eq!(position, Some(&b"\x01\x01\x03\x03\0"[..]));
}

#[test]
fn a_store_with_leases_has_these_rows() {
    let mut store = Store::new();
    store.apply(&Command::LeaseGrant(LeaseGrant { id: LeaseId(7), ttl_s: 60 }));
    store.apply(&Command::Put(put_leased("a", 7)));
    let rows: [(&[u8], &[u8]); 7] = [
        (b"ca", b"\x01\x02\0\x01\x0ev"),
        (b"k\x80\0\0\0\0\0\0\x07a", b"\x01"),
        (b"l\x80\0\0\0\0\0\0\x07", b"\x01\x01\x3c\0"),
        (b"mlease", b"\x01"),
        (b"mmark", b"\0\0\0\0\0\0\0\x02"),
        (b"mstate", b"\x01\x04\x01\x01"),
        (b"r\0\0\0\0\0\0\0\x02\0\0\0\0", b"\0\0a"),
    ];
    let found = store.engine.rows();
    let found: Vec<(&[u8], &[u8])> = found.iter().map(|(key, value)| (&key[..], &value[..])).collect();
    assert_eq!(found, rows);
}
