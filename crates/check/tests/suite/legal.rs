//! Histories that look odd and are legal: no property may refuse them.

use check::Property::{self, ListAppend};
use check::history::{
    Bytes, CompareResult, CompareTarget, DeleteRange, Level, Op, Outcome, Put, Range, Request, Response, SortOrder,
    SortTarget, Txn, Workload,
};

use crate::build::{Build, PUT, delete_prefix, kv, put_previous, range, swap};
use crate::generate::{equal, get, prefix, put};

/// Builds a history that everybody accepts.
macro_rules! legal {
    ($($name:ident: $start:expr, |$history:ident| $body:block)*) => {$(
        #[test]
        fn $name() {
            let mut built: Build = $start;
            let $history = &mut built;
            $body
            built.legal();
        }
    )*};
}

pub(crate) use legal;

/// Builds a history of lists, whose revisions are made up.
macro_rules! legal_lists {
    ($($name:ident: |$history:ident| $body:block)*) => {$(
        #[test]
        fn $name() {
            let mut built = Build::rising().with(Workload::ListAppend { prefix: "list/".into() });
            let $history = &mut built;
            $body
            let property: Property = ListAppend;
            built.legal_for(property);
        }
    )*};
}

fn lost_txn(h: &mut Build, at: u64, txn: Txn) {
    h.add(at..at, Request::Txn(txn), Outcome::Unknown).returned = None;
}

legal! {
    nothing_happened: Build::dense(), |_h| {}
    a_read_overlaps_a_write_and_misses_it: Build::dense(), |h| {
        h.put(0..10, 2, "a", "1");
        h.get(5..6, 1, "a", &[]);
    }
    a_read_overlaps_a_write_and_sees_it: Build::dense(), |h| {
        h.put(0..10, 2, "a", "1");
        h.get(5..6, 2, "a", &[kv("a", "1", 2, 2, 1)]);
    }
    an_answer_at_the_very_moment_another_is_asked: Build::dense(), |h| {
        h.put(0..5, 3, "a", "1");
        h.put(5..9, 2, "b", "1");
    }
    concurrent_writes_in_the_other_order: Build::dense(), |h| {
        h.put(0..10, 3, "a", "1");
        h.put(1..2, 2, "a", "2");
        h.get(11..12, 3, "a", &[kv("a", "1", 2, 3, 2)]);
    }
    an_unknown_write_never_happened: Build::dense(), |h| {
        h.lost_put(0, "a", "1");
        h.get(2..3, 1, "a", &[]);
    }
    an_unknown_write_happened: Build::dense(), |h| {
        h.lost_put(0, "a", "1");
        h.get(2..3, 2, "a", &[kv("a", "1", 2, 2, 1)]);
    }
    an_unknown_write_happens_long_after_its_client_gave_up: Build::dense(), |h| {
        h.add(0..1, Request::Put(put("a", "1")), Outcome::Unknown);
        h.get(2..3, 1, "a", &[]);
        h.get(8..9, 2, "a", &[kv("a", "1", 2, 2, 1)]);
    }
    an_unknown_write_shows_only_as_a_gap: Build::dense(), |h| {
        h.lost_put(0, "a", "1");
        h.put(2..3, 3, "b", "1");
    }
    an_unknown_write_shows_only_in_a_version: Build::dense(), |h| {
        h.put(0..1, 2, "a", "1");
        h.lost_put(2, "a", "2");
        h.put(4..5, 4, "a", "3");
        h.get(6..7, 4, "a", &[kv("a", "3", 2, 4, 3)]);
    }
    an_unknown_write_under_a_put_nobody_read: Build::dense(), |h| {
        h.put(0..1, 2, "a", "1");
        h.lost_put(2, "a", "2");
        h.put(4..5, 4, "a", "3");
        h.swap(6..7, 5, "a", 4, "4", true);
        h.get(8..9, 5, "a", &[kv("a", "4", 2, 5, 4)]);
    }
    an_unknown_delete_shows_in_a_create_revision: Build::dense(), |h| {
        h.put(0..1, 2, "a", "1");
        h.lost_delete(2, "a");
        h.put(4..5, 4, "a", "2");
        h.get(6..7, 4, "a", &[kv("a", "2", 4, 4, 1)]);
    }
    an_unknown_delete_shows_in_an_absence: Build::rising(), |h| {
        h.put(0..1, 2, "a", "1");
        h.lost_delete(2, "a");
        h.get(4..5, 9, "a", &[]);
    }
    two_unknown_writes_of_the_same_value: Build::dense(), |h| {
        h.lost_put(0, "a", "1");
        h.lost_put(0, "a", "1");
        h.get(2..3, 3, "a", &[kv("a", "1", 2, 3, 2)]);
    }
    an_unknown_swap_builds_on_an_unknown_swap: Build::dense(), |h| {
        h.put(0..1, 2, "a", "1");
        lost_txn(h, 2, swap("a", 2, "2"));
        lost_txn(h, 3, swap("a", 3, "3"));
        h.get(6..7, 4, "a", &[kv("a", "3", 2, 4, 3)]);
    }
    an_unknown_transaction_is_seen_in_one_of_its_keys: Build::dense(), |h| {
        lost_txn(h, 0, Txn { success: vec![Op::Put(put("a", "1")), Op::Put(put("b", "1"))], ..Txn::default() });
        h.get(2..3, 2, "b", &[kv("b", "1", 2, 2, 1)]);
        h.get(4..5, 2, "a", &[kv("a", "1", 2, 2, 1)]);
    }
    an_unknown_range_delete_takes_two_keys: Build::dense(), |h| {
        h.put(0..1, 2, "a/1", "1");
        h.put(2..3, 3, "a/2", "1");
        h.add(4..4, Request::DeleteRange(delete_prefix("a/")), Outcome::Unknown).returned = None;
        h.all(6..7, 4, "a/", &[]);
    }
    a_failed_write_leaves_no_trace: Build::dense(), |h| {
        h.failed_put(0..1, "a", "1");
        h.get(2..3, 1, "a", &[]);
    }
    a_stale_read_says_that_it_is: Build::dense(), |h| {
        h.put(0..1, 2, "a", "1");
        h.put(2..3, 3, "a", "2");
        h.stale_get(4..5, 2, "a", &[kv("a", "1", 2, 2, 1)]);
    }
    a_stale_read_before_everything: Build::dense(), |h| {
        h.put(0..1, 2, "a", "1");
        h.stale_get(4..5, 1, "a", &[]);
    }
    another_connection_may_be_behind: Build::dense(), |h| {
        h.put(0..1, 2, "a", "1");
        h.stale_get(2..3, 2, "a", &[kv("a", "1", 2, 2, 1)]).client = 9;
        let behind = h.stale_get(4..5, 1, "a", &[]);
        (behind.client, behind.connection) = (9, 1);
    }
    another_node_may_be_behind: Build::dense(), |h| {
        h.put(0..1, 2, "a", "1");
        h.stale_get(2..3, 2, "a", &[kv("a", "1", 2, 2, 1)]).client = 9;
        let behind = h.stale_get(4..5, 1, "a", &[]);
        (behind.client, behind.node) = (9, 1);
    }
    answers_that_overlap_may_cross_on_one_connection: Build::dense(), |h| {
        h.put(0..1, 2, "a", "1");
        h.stale_get(2..5, 2, "a", &[kv("a", "1", 2, 2, 1)]).client = 9;
        h.stale_get(3..6, 1, "a", &[]).client = 9;
    }
    a_session_read_waits_for_its_revision: Build::dense(), |h| {
        h.put(0..1, 2, "a", "1");
        let request = Range { level: Level::Session { min_revision: 2 }, ..get("a") };
        h.done(2..3, 2, Request::Range(request), range(&[kv("a", "1", 2, 2, 1)]));
    }
    the_past_is_read_under_a_new_header: Build::dense(), |h| {
        h.put(0..1, 2, "a", "1");
        h.put(2..3, 3, "a", "2");
        h.past(4..5, 3, 2, "a", &[kv("a", "1", 2, 2, 1)]);
    }
    the_past_before_the_first_write: Build::dense(), |h| {
        h.put(0..1, 2, "a", "1");
        h.past(2..3, 2, 1, "a", &[]);
    }
    the_floor_itself_can_still_be_read: Build::dense(), |h| {
        h.put(0..1, 2, "a", "1");
        h.put(2..3, 3, "a", "2");
        h.compact(4..5, 3, 3);
        h.past(6..7, 3, 3, "a", &[kv("a", "2", 2, 3, 2)]);
    }
    a_lagging_node_still_has_what_was_compacted: Build::dense(), |h| {
        h.put(0..1, 2, "a", "1");
        h.put(2..3, 3, "a", "2");
        h.compact(4..5, 3, 3);
        let request = Range { level: Level::Serializable, revision: 2, ..get("a") };
        h.done(6..7, 2, Request::Range(request), range(&[kv("a", "1", 2, 2, 1)]));
    }
    a_compaction_of_unknown_outcome_is_felt: Build::dense(), |h| {
        h.put(0..1, 2, "a", "1");
        h.put(2..3, 3, "a", "2");
        h.add(4..4, Request::Compact(check::history::Compact { revision: 3 }), Outcome::Unknown).returned = None;
        let reason = "etcdserver: mvcc: required revision has been compacted".to_owned();
        h.add(6..7, Request::Range(Range { revision: 2, ..get("a") }), Outcome::Failed { reason });
    }
    the_same_value_again_is_a_new_revision: Build::dense(), |h| {
        h.put(0..1, 2, "a", "1");
        h.put(2..3, 3, "a", "1");
        h.get(4..5, 3, "a", &[kv("a", "1", 2, 3, 2)]);
    }
    a_delete_of_nothing_takes_no_revision: Build::dense(), |h| {
        h.delete(0..1, 1, "a", 0);
        h.put(2..3, 2, "a", "1");
    }
    a_recreated_key_starts_again: Build::dense(), |h| {
        h.put(0..1, 2, "a", "1");
        h.delete(2..3, 3, "a", 1);
        h.put(4..5, 4, "a", "2");
        h.get(6..7, 4, "a", &[kv("a", "2", 4, 4, 1)]);
    }
    a_transaction_reads_what_it_has_just_written: Build::dense(), |h| {
        let ops = vec![Op::Put(put("a", "1")), Op::Range(get("a"))];
        h.txn(0..1, 2, ops, vec![PUT, range(&[kv("a", "1", 2, 2, 1)])]);
    }
    a_nested_transaction_judges_the_state_before_the_outer: Build::dense(), |h| {
        let nested = Txn { compares: vec![equal("a", CompareTarget::Version(0))], success: vec![Op::Put(put("b", "1"))], failure: vec![] };
        let responses = vec![PUT, Response::Txn { succeeded: true, responses: vec![PUT] }];
        h.txn(0..1, 2, vec![Op::Put(put("a", "1")), Op::Txn(nested)], responses);
        h.get(2..3, 2, "b", &[kv("b", "1", 2, 2, 1)]);
    }
    a_value_compare_on_a_missing_key_never_holds: Build::dense(), |h| {
        let mut compare = equal("a", CompareTarget::Value(Bytes::default()));
        compare.result = CompareResult::NotEqual;
        let txn = Txn { compares: vec![compare], success: vec![Op::Put(put("a", "1"))], failure: vec![] };
        h.done(0..1, 1, Request::Txn(txn), Response::Txn { succeeded: false, responses: vec![] });
    }
    a_transaction_that_changes_nothing_takes_no_revision: Build::dense(), |h| {
        h.swap(0..1, 1, "a", 7, "1", false);
        h.put(2..3, 2, "a", "1");
    }
    a_transaction_reads_the_past: Build::dense(), |h| {
        h.put(0..1, 2, "a", "1");
        h.put(2..3, 3, "a", "2");
        let ops = vec![Op::Range(Range { revision: 2, ..get("a") }), Op::Put(put("b", "1"))];
        h.txn(4..5, 4, ops, vec![range(&[kv("a", "1", 2, 2, 1)]), PUT]);
    }
    a_limit_cuts_and_the_count_stays: Build::dense(), |h| {
        h.put(0..1, 2, "a/1", "1");
        h.put(2..3, 3, "a/2", "1");
        let request = Request::Range(Range { limit: 1, ..prefix("a/") });
        h.done(4..5, 3, request, Response::Range { kvs: vec![kv("a/1", "1", 2, 2, 1)], more: true, count: 2 });
    }
    equal_values_are_sorted_any_way: Build::dense(), |h| {
        h.txn(0..1, 2, vec![Op::Put(put("a/1", "1")), Op::Put(put("a/2", "1"))], vec![PUT, PUT]);
        let request = Range { sort_target: SortTarget::Value, sort_order: SortOrder::Descend, ..prefix("a/") };
        h.done(4..5, 2, Request::Range(request), range(&[kv("a/2", "1", 2, 2, 1), kv("a/1", "1", 2, 2, 1)]));
    }
    only_keys_and_only_a_count: Build::dense(), |h| {
        h.put(0..1, 2, "a/1", "1");
        h.done(2..3, 2, Request::Range(Range { keys_only: true, ..prefix("a/") }), range(&[kv("a/1", "", 2, 2, 1)]));
        let counted = Response::Range { kvs: vec![], more: false, count: 1 };
        h.done(4..5, 2, Request::Range(Range { count_only: true, ..prefix("a/") }), counted);
    }
    filters_hide_pairs_but_not_from_the_count: Build::dense(), |h| {
        h.put(0..1, 2, "a/1", "1");
        h.put(2..3, 3, "a/2", "1");
        let request = Request::Range(Range { min_mod_revision: 3, ..prefix("a/") });
        h.done(4..5, 3, request, Response::Range { kvs: vec![kv("a/2", "1", 3, 3, 1)], more: false, count: 2 });
    }
    a_put_keeps_the_value: Build::dense(), |h| {
        h.put(0..1, 2, "a", "1");
        h.done(2..3, 3, Request::Put(Put { ignore_value: true, ..put("a", "") }), PUT);
        h.get(4..5, 3, "a", &[kv("a", "1", 2, 3, 2)]);
    }
    replaced_and_deleted_pairs_come_back: Build::dense(), |h| {
        h.put(0..1, 2, "a", "1");
        h.done(2..3, 3, put_previous("a", "2"), Response::Put { prev_kv: Some(kv("a", "1", 2, 2, 1)) });
        let request = DeleteRange { key: "a".into(), prev_kv: true, ..DeleteRange::default() };
        let response = Response::DeleteRange { deleted: 1, prev_kvs: vec![kv("a", "2", 2, 3, 2)] };
        h.done(4..5, 4, Request::DeleteRange(request), response);
    }
    revisions_have_gaps_when_others_write_too: Build::rising(), |h| {
        h.put(0..1, 20, "a", "1");
        h.put(2..3, 900, "a", "2");
        h.get(4..5, 1000, "a", &[kv("a", "2", 20, 900, 2)]);
    }
    keys_and_values_are_any_bytes: Build::dense(), |h| {
        let key = Bytes::from(&[0xff, 0, 0xfe][..]);
        let value = Bytes::from(&[0xc3][..]);
        let request = Put { key: key.clone(), value: value.clone(), ..Put::default() };
        h.done(0..1, 2, Request::Put(request), PUT);
        let pair = check::history::KeyValue { key: key.clone(), value, ..kv("", "", 2, 2, 1) };
        h.done(2..3, 2, Request::Range(Range { key, ..Range::default() }), range(&[pair]));
    }
    money_moves: Build::dense().with(Workload::Bank { prefix: "bank/".into(), accounts: 2, total: 10 }), |h| {
        h.all(0..1, 1, "bank/", &[]);
        h.txn(2..3, 2, vec![Op::Put(put("bank/0", "5")), Op::Put(put("bank/1", "5"))], vec![PUT, PUT]);
        h.txn(4..9, 3, vec![Op::Put(put("bank/0", "-1")), Op::Put(put("bank/1", "11"))], vec![PUT, PUT]);
        h.all(5..6, 3, "bank/", &[kv("bank/0", "-1", 2, 3, 2), kv("bank/1", "11", 2, 3, 2)]);
    }
    one_of_a_pair: Build::dense().with(Workload::WriteSkew { prefix: "pair/".into() }), |h| {
        h.put(0..1, 2, "pair/1/a", "1");
        h.put(0..1, 3, "pair/2/b", "1");
        h.all(2..3, 3, "pair/", &[kv("pair/1/a", "1", 2, 2, 1), kv("pair/2/b", "1", 3, 3, 1)]);
    }
    stale_and_fresh_reads_agree_on_the_order: Build::dense().with(Workload::LongFork { prefix: "fork/".into() }), |h| {
        h.put(0..1, 2, "fork/2", "1");
        h.put(2..3, 3, "fork/1", "1");
        h.all(4..5, 3, "fork/", &[kv("fork/1", "1", 3, 3, 1), kv("fork/2", "1", 2, 2, 1)]);
        let request = Range { level: Level::Serializable, ..prefix("fork/") };
        h.done(6..7, 2, Request::Range(request), range(&[kv("fork/2", "1", 2, 2, 1)]));
    }
}

legal_lists! {
    lists_grow_and_are_read: |h| {
        h.lists(0..1, &[("list/x", "")], &[("list/x", "1")]);
        h.lists(2..3, &[("list/x", "1")], &[("list/x", "1,2")]);
        h.lists(4..5, &[("list/x", "1,2"), ("list/y", "")], &[]);
    }
    a_read_overlaps_the_append_it_misses: |h| {
        h.lists(0..9, &[("list/x", "")], &[("list/x", "1")]);
        h.lists(2..3, &[("list/x", "")], &[]);
    }
    one_misses_the_other_but_not_both_ways: |h| {
        h.lists(0..9, &[("list/x", "")], &[("list/y", "1")]);
        h.lists(0..9, &[("list/y", "1")], &[("list/x", "2")]);
    }
    a_failed_append_is_seen_by_nobody: |h| {
        let txn = Txn { success: vec![Op::Put(put("list/x", "1"))], ..Txn::default() };
        h.add(0..1, Request::Txn(txn), Outcome::Failed { reason: "no".to_owned() });
        h.lists(2..3, &[("list/x", "")], &[]);
    }
    an_unknown_append_is_seen_late: |h| {
        lost_txn(h, 0, Txn { success: vec![Op::Put(put("list/x", "1"))], ..Txn::default() });
        h.lists(2..3, &[("list/x", "")], &[]);
        h.lists(4..5, &[("list/x", "1")], &[("list/x", "1,2")]);
    }
}
