//! Put, delete, compaction, and the revision in every header.

use base::{LeaseId, Revision};
use bytes::Bytes;
use mvcc::{
    Class, Command, Compare, CompareResult, CompareTarget, DeleteResult, Limits, OutcomeResult, Put, Reject, State, Txn,
};

use crate::store::{Store, at, compact, delete, get, put, put_leased, put_of, span};

#[test]
fn a_fresh_store_is_at_revision_one_and_the_first_write_makes_two() {
    let mut store = Store::new();
    assert_eq!(store.machine.state(), State::FRESH);
    assert_eq!(store.machine.mark(), None);
    assert_eq!(store.range(&get("k")).unwrap().revision, Revision(1));
    assert_eq!(store.put("k", "v"), 2);
}

#[test]
fn versions_count_puts_since_creation_and_deletion_resets_them() {
    let mut store = Store::new();
    store.put("k", "1");
    store.put("k", "2");
    let kv = store.get("k").unwrap();
    assert_eq!((kv.create_revision.0, kv.mod_revision.0, kv.version, &kv.value[..]), (2, 3, 2, &b"2"[..]));
    store.delete("k");
    assert_eq!(store.get("k"), None);
    store.put("k", "3");
    let kv = store.get("k").unwrap();
    assert_eq!((kv.create_revision.0, kv.mod_revision.0, kv.version), (5, 5, 1));
}

#[test]
fn writing_the_same_value_or_an_empty_one_is_still_a_write() {
    let mut store = Store::new();
    assert_eq!([store.put("k", ""), store.put("k", ""), store.put("k", "")], [2, 3, 4]);
    assert_eq!(store.get("k").unwrap().version, 3);
    assert_eq!(store.events(2).unwrap().changes.len(), 3);
}

#[test]
fn deleting_nothing_does_not_move_the_revision() {
    let mut store = Store::new();
    store.put("k", "v");
    let outcome = store.apply(&delete("missing", ""));
    assert_eq!(outcome.revision, Revision(2));
    assert_eq!(outcome.result, OutcomeResult::DeleteRange(DeleteResult::default()));
    // Bounds that cross hold no key.
    assert_eq!(store.apply(&delete("z", "a")).revision, Revision(2));
}

#[test]
fn a_range_is_deleted_at_one_revision_with_one_event_per_key_in_key_order() {
    let mut store = Store::new();
    for key in ["b", "a", "c", "d"] {
        store.put(key, key);
    }
    let outcome = store.apply(&delete("a", "d"));
    assert_eq!(outcome.revision, Revision(6));
    let OutcomeResult::DeleteRange(result) = outcome.result else { panic!("{outcome:?}") };
    let prev: Vec<_> = result.prev_kvs.iter().map(|kv| kv.key.clone()).collect();
    assert_eq!((result.deleted, prev), (3, vec!["a".into(), "b".into(), Bytes::from("c")]));
    let page = store.events(6).unwrap();
    let keys: Vec<_> = page.changes[0].events.iter().map(|event| event.kv.key.clone()).collect();
    assert_eq!((page.changes.len(), keys), (1, vec!["a".into(), "b".into(), Bytes::from("c")]));
    assert_eq!(store.keys(&span("\0", "\0")), ["d"]);
    assert_eq!(store.machine.state().keys, 1);
}

#[test]
fn prev_kv_is_the_replaced_pair_and_absent_for_a_new_key() {
    let mut store = Store::new();
    let command = Command::Put(Put { prev_kv: true, ..put_of("k", "new") });
    let prev = |outcome| match outcome {
        OutcomeResult::Put(result) => result.prev_kv,
        other => panic!("{other:?}"),
    };
    assert_eq!(prev(store.apply(&command).result), None);
    let replaced = prev(store.apply(&command).result).unwrap();
    assert_eq!((replaced.mod_revision.0, &replaced.value[..]), (2, &b"new"[..]));
    // Not asked for, not sent.
    assert_eq!(prev(store.apply(&put("k", "x")).result), None);
}

#[test]
fn a_put_with_an_unknown_lease_is_refused_before_anything_is_written() {
    let mut store = Store::new();
    store.put("k", "v");
    let reject = store.reject(&Command::Put(put_leased("k", 7)));
    assert_eq!((reject, reject.class()), (Reject::LeaseNotFound, Class::NotFound));
    // The lease is looked at before the key.
    let ignoring = Put { ignore_value: true, value: Bytes::new(), ..put_leased("missing", 7) };
    assert_eq!(store.reject(&Command::Put(ignoring)), Reject::LeaseNotFound);
}

#[test]
fn ignore_value_keeps_the_value_and_needs_an_existing_key() {
    let mut store = Store::new();
    let keep = Command::Put(Put { ignore_value: true, ..put_of("k", "") });
    assert_eq!(store.reject(&keep), Reject::KeyNotFound);
    store.put("k", "v");
    assert_eq!(store.apply(&keep).revision, Revision(3));
    let kv = store.get("k").unwrap();
    assert_eq!((&kv.value[..], kv.version, kv.lease), (&b"v"[..], 2, LeaseId(0)));
    let keep_lease = Command::Put(Put { ignore_lease: true, ..put_of("k", "w") });
    store.apply(&keep_lease);
    assert_eq!(&store.get("k").unwrap().value[..], b"w");
    store.delete("k");
    assert_eq!(store.reject(&keep_lease), Reject::KeyNotFound);
}

#[test]
fn contradicting_puts_are_refused_in_order_key_value_lease() {
    let check = |put: Put| Command::Put(put).validate(&Limits::default());
    let both = Put { ignore_value: true, ignore_lease: true, ..put_leased("k", 7) };
    assert_eq!(check(Put { key: Bytes::new(), ..both.clone() }), Err(Reject::EmptyKey));
    assert_eq!(check(both.clone()), Err(Reject::ValueProvided));
    assert_eq!(check(Put { value: Bytes::new(), ..both.clone() }), Err(Reject::LeaseProvided));
    assert_eq!(check(Put { value: Bytes::new(), lease: LeaseId(0), ..both }), Ok(()));
    // The machine says the same, should such an entry be in the log.
    assert_eq!(Store::new().reject(&put("", "v")), Reject::EmptyKey);
    assert_eq!(Store::new().reject(&delete("", "x")), Reject::EmptyKey);
}

#[test]
fn compacting_moves_the_floor_up_only_and_never_past_the_present() {
    let mut store = Store::new();
    store.put("k", "1");
    store.put("k", "2");
    assert_eq!(store.reject(&compact(-1)), Reject::Compacted);
    assert_eq!(store.reject(&compact(4)), Reject::FutureRevision);
    let outcome = store.compact(3);
    assert_eq!(outcome.revision, Revision(3));
    assert_eq!(store.machine.state().compacted, Revision(3));
    assert_eq!(store.reject(&compact(3)), Reject::Compacted);
    assert_eq!(store.reject(&compact(2)), Reject::Compacted);
    // A store that was never compacted takes 0; the floor then is 0.
    assert_eq!(Store::new().compact(0).revision, Revision(1));
}

#[test]
fn the_state_at_the_floor_stays_readable_and_below_it_is_compacted() {
    let mut store = Store::new();
    store.put("k", "1");
    store.put("k", "2");
    store.put("k", "3");
    store.compact(3);
    for swept in [false, true] {
        let read = |revision| store.range(&at(revision, get("k"))).map(|found| found.result.kvs[0].value.clone());
        assert_eq!(read(2), Err(Reject::Compacted), "swept: {swept}");
        assert_eq!(read(3), Ok("2".into()), "swept: {swept}");
        assert_eq!(read(4), Ok("3".into()), "swept: {swept}");
        store.sweep(1);
    }
}

#[test]
fn texts_and_classes_are_those_clients_match_on() {
    let table = [
        (Reject::EmptyKey, Class::InvalidArgument, "etcdserver: key is not provided"),
        (Reject::KeyNotFound, Class::InvalidArgument, "etcdserver: key not found"),
        (Reject::ValueProvided, Class::InvalidArgument, "etcdserver: value is provided"),
        (Reject::LeaseProvided, Class::InvalidArgument, "etcdserver: lease is provided"),
        (Reject::TooManyOperations, Class::InvalidArgument, "etcdserver: too many operations in txn request"),
        (Reject::DuplicateKey, Class::InvalidArgument, "etcdserver: duplicate key given in txn request"),
        (Reject::InvalidSortOption, Class::InvalidArgument, "etcdserver: invalid sort option"),
        (Reject::Compacted, Class::OutOfRange, "etcdserver: mvcc: required revision has been compacted"),
        (Reject::FutureRevision, Class::OutOfRange, "etcdserver: mvcc: required revision is a future revision"),
        (Reject::LeaseNotFound, Class::NotFound, "etcdserver: requested lease not found"),
        (Reject::KeyTooLong, Class::InvalidArgument, "etcdserver: key is too long: at most 32000 bytes are possible"),
        (Reject::LeaseExists, Class::FailedPrecondition, "etcdserver: lease already exists"),
        (Reject::LeaseTtlTooLarge, Class::OutOfRange, "etcdserver: too large lease TTL"),
        (Reject::NoSpace, Class::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
        (Reject::MemberNotFound, Class::NotFound, "etcdserver: member not found"),
        (Reject::MemberExists, Class::FailedPrecondition, "etcdserver: member ID already exist"),
        (Reject::PeerUrlsExist, Class::FailedPrecondition, "etcdserver: Peer URLs already exists"),
    ];
    assert_eq!(table.map(|(reject, _, _)| reject), Reject::ALL);
    for (reject, class, text) in table {
        assert_eq!((reject.class(), reject.to_string().as_str()), (class, text));
    }
}

#[test]
fn a_key_that_does_not_fit_the_engine_is_refused_everywhere() {
    let longest = "k".repeat(base::limits::KEY_BYTES_MAX);
    let longer = longest.clone() + "k";
    let mut store = Store::new();
    assert_eq!(store.put(&longest, "v"), 2);
    assert_eq!(store.put(&longest, "w"), 3);
    assert_eq!(store.get(&longest).unwrap().version, 2);
    let key = Bytes::from(longer.clone());
    let compare =
        Compare { key, range_end: Bytes::new(), result: CompareResult::Equal, target: CompareTarget::Version(0) };
    let txn = Txn { compares: vec![compare], ..Txn::default() };
    for command in [put(&longer, "v"), delete(&longer, ""), delete("a", &longer), Command::Txn(txn)] {
        assert_eq!(store.reject(&command), Reject::KeyTooLong);
    }
    assert_eq!(store.range(&get(&longer)), Err(Reject::KeyTooLong));
}
