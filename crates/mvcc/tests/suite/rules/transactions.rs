//! Compares, operations, nesting, duplicate keys, limits, and that a transaction happens wholly or not at all.

use base::{LeaseId, Revision};
use bytes::Bytes;
use mvcc::{
    Command, Compare, CompareResult as Is, CompareTarget as Field, DeleteRange, Engine, Limits, Op, OpResult,
    OutcomeResult, Put, RangeRequest, Reject, SortOrder, SortTarget, Txn,
};

use crate::store::{Store, at, compare, delete_of, get, never, put_leased, put_of, span, success};

fn put(key: &str, value: &str) -> Op {
    Op::Put(put_of(key, value))
}

fn delete(key: &str, end: &str) -> Op {
    Op::DeleteRange(delete_of(key, end))
}

fn nested(success: Vec<Op>, failure: Vec<Op>) -> Op {
    Op::Txn(Txn { compares: vec![], success, failure })
}

fn check(txn: &Txn) -> Result<(), Reject> {
    Command::Txn(txn.clone()).validate(&Limits::default())
}

#[test]
fn every_target_and_relation_compares_as_written() {
    let mut store = Store::new();
    store.put("k", "m");
    store.put("k", "m");
    store.put("other", "x");
    // create 2, mod 3, version 2, value m, lease 0; the operand below, equal and above the stored field.
    let targets: [[Field; 3]; 5] = [
        [1, 2, 3].map(Field::Version),
        [1, 2, 3].map(|n| Field::CreateRevision(Revision(n))),
        [2, 3, 4].map(|n| Field::ModRevision(Revision(n))),
        ["l", "m", "n"].map(|v| Field::Value(v.into())),
        [-1, 0, 1].map(|n| Field::Lease(LeaseId(n))),
    ];
    let relations = [
        (Is::Equal, [false, true, false]),
        (Is::Greater, [true, false, false]),
        (Is::Less, [false, false, true]),
        (Is::NotEqual, [true, false, true]),
    ];
    for operands in targets {
        for (relation, expected) in relations {
            for (operand, expected) in operands.iter().zip(expected) {
                let compares = vec![compare("k", relation, operand.clone())];
                let (_, result) = store.txn(Txn { compares, ..Txn::default() });
                assert_eq!(result.succeeded, expected, "{relation:?} {operand:?}");
            }
        }
    }
}

#[test]
fn a_missing_key_compares_as_zeros_and_never_by_value() {
    let mut store = Store::new();
    let mut holds = |relation, field| {
        let compares = vec![compare("missing", relation, field)];
        store.txn(Txn { compares, ..Txn::default() }).1.succeeded
    };
    assert!(holds(Is::Equal, Field::Version(0)));
    assert!(holds(Is::Equal, Field::CreateRevision(Revision(0))));
    assert!(holds(Is::Less, Field::ModRevision(Revision(1))));
    assert!(holds(Is::Equal, Field::Lease(LeaseId(0))));
    for relation in [Is::Equal, Is::Greater, Is::Less, Is::NotEqual] {
        assert!(!holds(relation, Field::Value(Bytes::new())), "{relation:?}");
    }
}

#[test]
fn a_compare_over_a_range_needs_every_key_and_an_empty_range_is_a_missing_key() {
    let mut store = Store::new();
    store.put("a1", "x");
    store.put("a2", "x");
    store.put("a2", "x");
    let mut holds = |from: &str, end: &str, field| {
        let compares = vec![Compare { range_end: end.to_owned().into(), ..compare(from, Is::Equal, field) }];
        store.txn(Txn { compares, ..Txn::default() }).1.succeeded
    };
    assert!(holds("a", "b", Field::Value("x".into())));
    assert!(!holds("a", "b", Field::Version(1)));
    assert!(holds("a", "a2", Field::Version(1)));
    assert!(holds("a2", "\0", Field::Version(2)));
    assert!(holds("x", "z", Field::Version(0)));
    assert!(!holds("x", "z", Field::Value(Bytes::new())));
}

#[test]
fn all_compares_must_hold() {
    let mut store = Store::new();
    store.put("k", "v");
    let yes = compare("k", Is::Equal, Field::Version(1));
    assert!(store.txn(Txn { compares: vec![yes.clone(), yes.clone()], ..Txn::default() }).1.succeeded);
    assert!(!store.txn(Txn { compares: vec![yes, never()], ..Txn::default() }).1.succeeded);
}

#[test]
fn compares_of_nested_transactions_see_the_state_before_the_outermost_one() {
    let mut store = Store::new();
    let inner = Txn {
        compares: vec![compare("k", Is::Equal, Field::Version(0))],
        success: vec![put("then", "v")],
        failure: vec![put("else", "v")],
    };
    let (_, result) = store.txn(success(vec![put("k", "v"), Op::Txn(inner)]));
    let OpResult::Txn(inner) = &result.responses[1].result else { panic!("{result:?}") };
    assert!(inner.succeeded);
    assert!(store.get("then").is_some() && store.get("else").is_none());
}

#[test]
fn later_operations_see_earlier_ones_and_all_share_one_revision() {
    let mut store = Store::new();
    store.put("k", "old");
    let (revision, result) = store.txn(success(vec![
        Op::Range(get("k")),
        put("k", "new"),
        Op::Range(get("k")),
        delete("other", ""),
        Op::Range(at(2, get("k"))),
    ]));
    assert_eq!(revision, 3);
    let values: Vec<_> = result
        .responses
        .iter()
        .filter_map(|response| match &response.result {
            OpResult::Range(range) => Some(range.kvs[0].value.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(values, ["old", "new", "old"]);
    // Headers: the revision before the first write, the new one from it on.
    let revisions: Vec<_> = result.responses.iter().map(|response| response.revision.0).collect();
    assert_eq!(revisions, [2, 3, 3, 3, 3]);
    assert_eq!(store.events(3).unwrap().changes.len(), 1);
}

#[test]
fn an_inner_delete_of_nothing_before_any_write_carries_the_old_revision() {
    let mut store = Store::new();
    let (revision, result) = store.txn(success(vec![delete("missing", ""), put("k", "v"), delete("missing", "")]));
    let revisions: Vec<_> = result.responses.iter().map(|response| response.revision.0).collect();
    assert_eq!((revision, revisions), (2, vec![1, 2, 2]));
}

#[test]
fn the_header_of_a_nested_transaction_is_empty() {
    let mut store = Store::new();
    let (_, result) = store.txn(success(vec![nested(vec![put("k", "v")], vec![])]));
    assert_eq!(result.responses[0].revision, Revision(0));
    let OpResult::Txn(inner) = &result.responses[0].result else { panic!("{result:?}") };
    assert_eq!(inner.responses[0].revision, Revision(2));
}

#[test]
fn a_transaction_without_effect_does_not_move_the_revision() {
    let mut store = Store::new();
    store.put("k", "v");
    let failed = Txn { compares: vec![never()], success: vec![put("k", "w")], failure: vec![] };
    assert_eq!(store.txn(failed).0, 2);
    assert_eq!(store.txn(success(vec![Op::Range(get("k"))])).0, 2);
    assert_eq!(store.txn(success(vec![delete("missing", "")])).0, 2);
    assert_eq!(store.txn(Txn::default()).0, 2);
}

#[test]
fn a_transaction_that_cannot_finish_changes_nothing() {
    let mut store = Store::new();
    store.put("k", "v");
    store.put("k", "w");
    store.compact(2);
    let table = [
        (Op::Put(put_leased("b", 9)), Reject::LeaseNotFound),
        (Op::Put(Put { ignore_value: true, ..put_of("missing", "") }), Reject::KeyNotFound),
        (Op::Put(Put { ignore_lease: true, ..put_of("missing", "v") }), Reject::KeyNotFound),
        (Op::Range(at(1, get("k"))), Reject::Compacted),
        (Op::Range(at(4, get("k"))), Reject::FutureRevision),
        (Op::Range(at(-1, get("k"))), Reject::Compacted),
    ];
    for (op, expected) in table {
        let flat = success(vec![put("a", "v"), delete("k", ""), op.clone()]);
        assert_eq!(store.reject(&Command::Txn(flat)), expected, "{op:?}");
        let deep = success(vec![put("a", "v"), nested(vec![delete("k", ""), op.clone()], vec![])]);
        assert_eq!(store.reject(&Command::Txn(deep)), expected, "{op:?} nested");
        // On the path that is not chosen it does not matter.
        let unused = Txn { compares: vec![never()], success: vec![op], failure: vec![] };
        assert!(!store.txn(unused).1.succeeded);
    }
}

#[test]
fn a_read_at_the_revision_being_written_is_in_the_future() {
    let mut store = Store::new();
    store.put("k", "v");
    let txn = success(vec![put("k", "w"), Op::Range(at(3, get("k")))]);
    assert_eq!(store.reject(&Command::Txn(txn)), Reject::FutureRevision);
}

#[test]
fn levels_share_the_limit_on_operations() {
    let limits = Limits { txn_ops_max: 3 };
    let reads = |count: usize| vec![Op::Range(get("k")); count];
    let check = |txn: Txn| Command::Txn(txn).validate(&limits);
    assert_eq!(check(success(reads(3))), Ok(()));
    assert_eq!(check(success(reads(4))), Err(Reject::TooManyOperations));
    assert_eq!(check(Txn { failure: reads(4), ..Txn::default() }), Err(Reject::TooManyOperations));
    assert_eq!(check(Txn { compares: vec![never(); 4], ..Txn::default() }), Err(Reject::TooManyOperations));
    // The outer level is as wide as its widest list; the nested one gets the rest.
    assert_eq!(check(success(vec![nested(reads(2), vec![])])), Ok(()));
    assert_eq!(check(success(vec![nested(reads(3), vec![])])), Err(Reject::TooManyOperations));
    let wide = Txn { compares: vec![never(); 2], ..success(vec![nested(reads(2), vec![])]) };
    assert_eq!(check(wide), Err(Reject::TooManyOperations));
    // Counts come before the checks of what is counted.
    assert_eq!(check(success(vec![Op::Range(get("")); 4])), Err(Reject::TooManyOperations));
    assert_eq!(Limits::default().txn_ops_max, 128);
}

#[test]
fn nesting_has_a_bound_and_the_bytes_respect_it() {
    let deep = |levels: usize| (1..levels).fold(Txn::default(), |inner, _| success(vec![Op::Txn(inner)]));
    let (fits, too_deep) = (Command::Txn(deep(16)), Command::Txn(deep(17)));
    assert_eq!(fits.validate(&Limits::default()), Ok(()));
    assert_eq!(Command::decode(fits.encode()), Ok(fits));
    assert_eq!(too_deep.validate(&Limits::default()), Err(Reject::TooManyOperations));
    assert!(Command::decode(too_deep.encode()).is_err());
}

#[test]
fn static_checks_reach_every_operation() {
    let table = [
        (Op::Range(get("")), Reject::EmptyKey),
        (put("", "v"), Reject::EmptyKey),
        (delete("", ""), Reject::EmptyKey),
        (Op::Put(Put { ignore_value: true, ..put_of("k", "v") }), Reject::ValueProvided),
        (Op::Put(Put { ignore_lease: true, ..put_leased("k", 1) }), Reject::LeaseProvided),
        (Op::Range(RangeRequest { sort_order: SortOrder::Unknown, ..get("k") }), Reject::InvalidSortOption),
        (Op::Empty, Reject::KeyNotFound),
    ];
    for (op, expected) in table {
        assert_eq!(check(&success(vec![op.clone()])), Err(expected), "{op:?}");
        assert_eq!(check(&Txn { failure: vec![op.clone()], ..Txn::default() }), Err(expected), "{op:?}");
        assert_eq!(check(&success(vec![nested(vec![], vec![op.clone()])])), Err(expected), "{op:?}");
    }
    let nameless = Compare { key: Bytes::new(), ..never() };
    assert_eq!(
        check(&Txn { compares: vec![nameless], success: vec![Op::Empty], ..Txn::default() }),
        Err(Reject::EmptyKey)
    );
}

#[test]
fn no_key_is_put_twice_or_put_and_deleted_on_one_path() {
    let refused: [Vec<Op>; 9] = [
        vec![put("a", "1"), put("a", "2")],
        vec![put("a", "1"), delete("a", "")],
        vec![delete("a", ""), put("a", "1")],
        vec![put("b", "1"), delete("a", "c")],
        vec![put("a", "1"), nested(vec![put("a", "2")], vec![])],
        vec![put("a", "1"), nested(vec![], vec![delete("a", "")])],
        vec![delete("a", "c"), nested(vec![put("b", "1")], vec![])],
        vec![nested(vec![put("a", "1")], vec![]), nested(vec![], vec![put("a", "2")])],
        vec![nested(vec![delete("a", "")], vec![]), nested(vec![put("a", "1")], vec![])],
    ];
    for ops in refused {
        assert_eq!(check(&success(ops.clone())), Err(Reject::DuplicateKey), "{ops:?}");
        assert_eq!(check(&Txn { failure: ops.clone(), ..Txn::default() }), Err(Reject::DuplicateKey), "{ops:?}");
        assert_eq!(Store::new().reject(&Command::Txn(success(ops))), Reject::DuplicateKey);
    }
    let accepted: [Vec<Op>; 6] = [
        vec![delete("a", "c"), delete("b", "d")],
        vec![put("c", "1"), delete("a", "c")],
        vec![nested(vec![put("a", "1")], vec![put("a", "2")])],
        vec![nested(vec![put("a", "1")], vec![delete("a", "")])],
        // Two gaps of etcd, kept: "from key on" is not seen to cover, nor is a delete after its sibling's put.
        vec![put("b", "1"), delete("a", "\0")],
        vec![nested(vec![put("a", "1")], vec![]), nested(vec![delete("a", "")], vec![])],
    ];
    for ops in accepted {
        assert_eq!(check(&success(ops.clone())), Ok(()), "{ops:?}");
    }
    // Both lists are checked each for itself.
    assert_eq!(check(&Txn { compares: vec![], success: vec![put("a", "1")], failure: vec![put("a", "2")] }), Ok(()));
}

#[test]
fn a_key_put_and_deleted_at_one_revision_shows_both_events_and_ends_deleted() {
    for existed in [false, true] {
        let mut store = Store::new();
        let first = if existed { store.put("b", "old") } else { store.put("x", "old") };
        let (revision, _) = store.txn(success(vec![put("b", "new"), delete("a", "\0")]));
        assert_eq!((first, revision), (2, 3));
        assert_eq!(store.get("b"), None);
        let events = store.events(3).unwrap().changes.remove(0).events;
        assert_eq!(&events[0].kv.value[..], b"new");
        assert_eq!(events[0].prev_kv.is_some(), existed);
        // What a watcher knew before this revision, not before this operation.
        let deleted = events.iter().filter(|event| event.kv.key == "b").nth(1).unwrap();
        assert_eq!(deleted.prev_kv.as_ref().map(|kv| kv.value.clone()), existed.then(|| "old".into()));
        store.put("b", "again");
        store.compact(3);
        store.sweep(1);
        assert_eq!(store.range(&at(3, get("b"))).unwrap().result.kvs, []);
        assert_eq!(&store.events(3).unwrap().changes[0].events[0].kv.value[..], b"new");
    }
}

#[test]
fn a_key_deleted_and_put_at_one_revision_is_created_anew_and_survives_the_sweep() {
    let mut store = Store::new();
    store.put("b", "old");
    let (_, result) = store.txn(success(vec![delete("a", "\0"), put("b", "new")]));
    assert_eq!(result.responses.len(), 2);
    let kv = store.get("b").unwrap();
    assert_eq!((kv.create_revision.0, kv.version), (3, 1));
    store.put("b", "newer");
    store.compact(3);
    store.sweep(1);
    assert_eq!(&store.range(&at(3, get("b"))).unwrap().result.kvs[0].value[..], b"new");
    // Nothing is left to keep on the same path.
    let keep = Op::Put(Put { ignore_value: true, ..put_of("b", "") });
    assert_eq!(store.reject(&Command::Txn(success(vec![delete("a", "\0"), keep]))), Reject::KeyNotFound);
}

#[test]
fn a_transaction_of_reads_alone_needs_no_log_and_answers_the_same() {
    let mut store = Store::new();
    store.put("k", "v");
    let reads = Txn {
        compares: vec![compare("k", Is::Equal, Field::Version(1))],
        success: vec![Op::Range(get("k")), nested(vec![Op::Range(span("a", "z"))], vec![])],
        failure: vec![],
    };
    assert!(reads.is_read_only());
    assert!(Txn::default().is_read_only());
    for write in [put("k", "v"), delete("k", ""), nested(vec![], vec![put("k", "v")])] {
        assert!(!success(vec![write.clone()]).is_read_only());
        assert!(!Txn { failure: vec![write], ..Txn::default() }.is_read_only());
    }
    let read = mvcc::read_txn(&*store.engine.view(), &reads, usize::MAX).unwrap();
    assert_eq!(read, store.apply(&Command::Txn(reads)));
    let future = success(vec![Op::Range(at(9, get("k")))]);
    let refused = mvcc::read_txn(&*store.engine.view(), &future, usize::MAX).unwrap();
    assert_eq!(refused.result, OutcomeResult::Rejected(Reject::FutureRevision));
}

#[test]
fn an_answer_beyond_its_bytes_is_left_out_and_the_writes_stay() {
    let mut store = Store::new();
    for key in ["a", "b", "c"] {
        store.put(key, &"v".repeat(100));
    }
    let bounded = |store: &mut Store, command: &Command, bytes| {
        store.applied += 1;
        let mut apply = store.machine.begin(store.engine.view()).unwrap();
        apply.bound_answers(bytes);
        let outcome = apply.execute(command, true).unwrap().unwrap();
        // What the batch has left is less by what was answered before.
        let next = apply.execute(&Command::Txn(success(vec![Op::Range(get("z"))])), true).unwrap().unwrap();
        assert!(matches!(next.result, OutcomeResult::Txn(_)), "an empty answer always fits");
        let (batch, _) = apply.finish(Bytes::copy_from_slice(&store.applied.to_be_bytes()));
        store.engine.write(batch).unwrap();
        outcome
    };
    let reads = success(vec![Op::Range(span("a", "z")), put("d", "1")]);
    let outcome = bounded(&mut store, &Command::Txn(reads.clone()), 200);
    assert_eq!((outcome.revision, outcome.result), (Revision(5), OutcomeResult::AnswerTooLarge));
    assert_eq!(store.get("d").unwrap().mod_revision, Revision(5));
    let outcome = bounded(&mut store, &Command::Txn(reads), 1000);
    assert!(matches!(outcome.result, OutcomeResult::Txn(_)), "{outcome:?}");

    let replace = Command::Put(Put { prev_kv: true, ..put_of("a", "2") });
    assert_eq!(bounded(&mut store, &replace, 100).result, OutcomeResult::AnswerTooLarge);
    assert_eq!(&store.get("a").unwrap().value[..], b"2");
    let all = Command::DeleteRange(DeleteRange { prev_kv: true, ..delete_of("a", "z") });
    assert_eq!(bounded(&mut store, &all, 200).result, OutcomeResult::AnswerTooLarge);
    assert_eq!(store.keys(&span("a", "z")), [""; 0]);
}

#[test]
fn a_read_only_transaction_stops_at_its_bytes_also_when_it_sorts() {
    let mut store = Store::new();
    for number in 0..50 {
        store.put(&format!("k{number:02}"), &"v".repeat(100));
    }
    for limit in [0, 5, 1_000_000] {
        let range =
            RangeRequest { limit, sort_target: SortTarget::Value, sort_order: SortOrder::Descend, ..span("k", "l") };
        let txn = success(vec![Op::Range(range)]);
        let answer = |bytes| mvcc::read_txn(&*store.engine.view(), &txn, bytes).unwrap().result;
        assert_eq!(answer(400), OutcomeResult::AnswerTooLarge, "limit {limit}");
        assert!(matches!(answer(20_000), OutcomeResult::Txn(_)), "limit {limit}");
    }
}
