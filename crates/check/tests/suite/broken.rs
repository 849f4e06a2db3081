//! Histories no correct store can give, each with one thing wrong, and the property that must say so.

use check::Property::{self, Bank, Linearizable, ListAppend, LongFork, RevisionOrder, Session, Snapshot, WriteSkew};
use check::history::{DeleteRange, Level, Op, Outcome, Range, Request, Response, Workload};

use crate::build::{Build, PUT, delete_prefix, kv, put_previous, range, swap};
use crate::generate::{get, prefix, put};

/// Builds a history and expects the property to refuse it with these words.
macro_rules! broken {
    ($($name:ident: $property:expr, $words:expr, $start:expr, |$history:ident| $body:block)*) => {$(
        #[test]
        fn $name() {
            let mut built: Build = $start;
            let $history = &mut built;
            $body
            let property: Property = $property;
            built.broken(property, $words);
        }
    )*};
}

pub(crate) use broken;

fn bank() -> Build {
    Build::dense().with(Workload::Bank { prefix: "bank/".into(), accounts: 2, total: 10 })
}

fn lists() -> Build {
    Build::rising().with(Workload::ListAppend { prefix: "list/".into() })
}

broken! {
    a_strict_read_does_not_see_what_was_acknowledged_before: RevisionOrder, "was known before", Build::dense(), |h| {
        h.put(0..1, 2, "a", "1");
        h.put(2..3, 3, "a", "2");
        h.get(4..5, 2, "a", &[kv("a", "1", 2, 2, 1)]);
    }
    a_strict_read_has_a_new_header_and_an_old_value: RevisionOrder, "a correct store answers", Build::dense(), |h| {
        h.put(0..1, 2, "a", "1");
        h.put(2..3, 3, "a", "2");
        h.get(4..5, 3, "a", &[kv("a", "1", 2, 2, 1)]);
    }
    two_writes_share_a_revision: RevisionOrder, "two writes have revision 2", Build::dense(), |h| {
        h.put(0..5, 2, "a", "1");
        h.put(0..5, 2, "b", "1");
    }
    a_later_write_has_an_earlier_revision: RevisionOrder, "was known before", Build::dense(), |h| {
        h.put(0..1, 3, "a", "1");
        h.put(2..3, 2, "b", "1");
    }
    a_write_repeats_the_revision_of_a_read_before_it: RevisionOrder, "was known before", Build::rising(), |h| {
        h.get(0..1, 7, "a", &[]);
        h.put(2..3, 7, "a", "1");
    }
    a_revision_nobody_made: RevisionOrder, "revision 3 was made by nobody", Build::dense(), |h| {
        h.put(0..1, 2, "a", "1");
        h.put(2..3, 4, "a", "2");
    }
    an_acknowledged_write_is_lost: RevisionOrder, "a correct store answers", Build::dense(), |h| {
        h.put(0..1, 2, "a", "1");
        h.get(2..3, 2, "a", &[]);
    }
    a_failed_write_is_visible: RevisionOrder, "reported as not done", Build::rising(), |h| {
        h.failed_put(0..1, "a", "1");
        h.get(2..3, 2, "a", &[kv("a", "1", 2, 2, 1)]);
    }
    a_value_nobody_wrote: RevisionOrder, "no operation writes that", Build::rising(), |h| {
        h.get(2..3, 2, "a", &[kv("a", "ghost", 2, 2, 1)]);
    }
    an_acknowledged_write_appears_at_another_revision: RevisionOrder, "acknowledged at revision 2", Build::rising(), |h| {
        h.put(0..1, 2, "a", "1");
        h.get(2..3, 5, "a", &[kv("a", "1", 5, 5, 1)]);
    }
    an_unknown_write_is_visible_before_it_was_asked: RevisionOrder, "known before the write", Build::rising(), |h| {
        h.get(0..1, 5, "b", &[]);
        h.lost_put(2, "a", "1");
        h.stale_get(3..4, 5, "a", &[kv("a", "1", 4, 4, 1)]);
    }
    an_unknown_write_happens_twice: RevisionOrder, "seen at two revisions", Build::rising(), |h| {
        h.lost_put(0, "a", "1");
        h.get(2..3, 2, "a", &[kv("a", "1", 2, 2, 1)]);
        h.get(4..5, 4, "a", &[kv("a", "1", 2, 4, 2)]);
    }
    an_unknown_write_comes_and_goes: RevisionOrder, "a correct store answers", Build::rising(), |h| {
        h.lost_put(0, "a", "1");
        h.get(2..3, 5, "a", &[kv("a", "1", 2, 2, 1)]);
        h.get(4..5, 6, "a", &[]);
    }
    a_deleted_key_is_still_there: RevisionOrder, "a correct store answers", Build::dense(), |h| {
        h.put(0..1, 2, "a", "1");
        h.delete(2..3, 3, "a", 1);
        h.get(4..5, 3, "a", &[kv("a", "1", 2, 2, 1)]);
    }
    a_delete_of_nothing_takes_a_revision: RevisionOrder, "made by nobody", Build::dense(), |h| {
        h.put(0..1, 2, "a", "1");
        h.delete(2..3, 3, "b", 0);
    }
    a_delete_counts_wrong: RevisionOrder, "a correct store answers", Build::dense(), |h| {
        h.put(0..1, 2, "a/1", "1");
        h.put(2..3, 3, "a/2", "1");
        let response = Response::DeleteRange { deleted: 1, prev_kvs: vec![] };
        h.done(4..5, 4, Request::DeleteRange(delete_prefix("a/")), response);
    }
    a_version_skips_a_put: RevisionOrder, "version 3", Build::dense(), |h| {
        h.put(0..1, 2, "a", "1");
        h.put(2..3, 3, "a", "2");
        h.get(4..5, 3, "a", &[kv("a", "2", 2, 3, 3)]);
    }
    a_recreated_key_keeps_its_create_revision: RevisionOrder, "create 2", Build::dense(), |h| {
        h.put(0..1, 2, "a", "1");
        h.delete(2..3, 3, "a", 1);
        h.put(4..5, 4, "a", "2");
        h.get(6..7, 4, "a", &[kv("a", "2", 2, 4, 2)]);
    }
    two_reads_disagree_about_one_write: RevisionOrder, "disagree", Build::rising(), |h| {
        h.lost_put(0, "a", "1");
        h.get(2..3, 2, "a", &[kv("a", "1", 2, 2, 1)]);
        h.get(4..5, 2, "a", &[kv("a", "1", 2, 2, 2)]);
    }
    a_swap_succeeds_against_a_changed_key: RevisionOrder, "a correct store answers", Build::dense(), |h| {
        h.put(0..1, 2, "a", "1");
        h.put(2..3, 3, "a", "2");
        h.swap(4..5, 4, "a", 2, "3", true);
    }
    a_swap_fails_against_an_unchanged_key: RevisionOrder, "a correct store answers", Build::dense(), |h| {
        h.put(0..1, 2, "a", "1");
        h.swap(4..5, 2, "a", 2, "3", false);
    }
    two_swaps_of_one_version_succeed: RevisionOrder, "a correct store answers", Build::dense(), |h| {
        h.put(0..1, 2, "a", "1");
        h.swap(2..9, 3, "a", 2, "x", true);
        h.swap(2..9, 4, "a", 2, "y", true);
    }
    half_a_transaction_is_visible: RevisionOrder, "a correct store answers", Build::dense(), |h| {
        h.txn(0..1, 2, vec![Op::Put(put("a/1", "1")), Op::Put(put("a/2", "1"))], vec![PUT, PUT]);
        h.all(2..3, 2, "a/", &[kv("a/1", "1", 2, 2, 1)]);
    }
    a_transaction_takes_two_revisions: RevisionOrder, "a correct store answers", Build::rising(), |h| {
        h.txn(0..1, 2, vec![Op::Put(put("a/1", "1")), Op::Put(put("a/2", "1"))], vec![PUT, PUT]);
        h.stale_get(2..3, 3, "a/2", &[]);
    }
    a_replaced_pair_was_not_there: RevisionOrder, "a correct store answers", Build::dense(), |h| {
        h.put(0..1, 2, "a", "1");
        let response = Response::Put { prev_kv: None };
        h.done(2..3, 3, put_previous("a", "2"), response);
    }
    a_put_that_keeps_the_value_of_nothing: RevisionOrder, "refuses", Build::dense(), |h| {
        let keep = check::history::Put { ignore_value: true, ..put("a", "") };
        h.done(0..1, 2, Request::Put(keep), PUT);
    }
    a_limit_is_not_kept: RevisionOrder, "a correct store answers", Build::dense(), |h| {
        h.put(0..1, 2, "a/1", "1");
        h.put(2..3, 3, "a/2", "1");
        let request = Request::Range(Range { limit: 1, ..prefix("a/") });
        h.done(4..5, 3, request, range(&[kv("a/1", "1", 2, 2, 1), kv("a/2", "1", 3, 3, 1)]));
    }
    a_serializable_read_mixes_two_moments: RevisionOrder, "a correct store answers", Build::dense(), |h| {
        h.put(0..1, 2, "a/1", "1");
        h.put(2..3, 3, "a/2", "1");
        h.put(4..5, 4, "a/1", "2");
        let request = Request::Range(Range { level: Level::Serializable, ..prefix("a/") });
        h.done(6..7, 3, request, range(&[kv("a/1", "2", 2, 4, 2), kv("a/2", "1", 3, 3, 1)]));
    }
    the_past_has_changed: RevisionOrder, "a correct store answers", Build::dense(), |h| {
        h.put(0..1, 2, "a", "1");
        h.put(2..3, 3, "a", "2");
        h.past(4..5, 3, 2, "a", &[]);
    }
    the_history_starts_before_its_start: RevisionOrder, "starts after revision 1", Build::dense(), |h| {
        h.put(0..1, 1, "a", "1");
    }
    more_unknown_writes_than_revisions: RevisionOrder, "version 4", Build::dense(), |h| {
        h.put(0..1, 2, "a", "1");
        h.lost_put(2, "a", "x");
        h.put(8..9, 4, "a", "2");
        h.get(10..11, 4, "a", &[kv("a", "2", 2, 4, 4)]);
    }
    values_go_back_whatever_the_revisions_say: Linearizable, "no order respects time", Build::rising(), |h| {
        h.put(0..1, 2, "a", "1");
        h.put(2..3, 3, "a", "2");
        h.get(4..5, 9, "a", &[kv("a", "1", 2, 2, 1)]);
    }
    two_readers_see_two_writes_in_two_orders: Linearizable, "no order respects time", Build::rising(), |h| {
        h.put(0..100, 2, "a", "1");
        h.put(0..100, 3, "a", "2");
        h.get(10..20, 4, "a", &[kv("a", "1", 2, 2, 1)]);
        h.get(30..40, 5, "a", &[kv("a", "2", 2, 3, 2)]);
        h.get(50..60, 6, "a", &[kv("a", "1", 2, 4, 1)]);
    }
    a_lost_update_without_revisions: Linearizable, "no order respects time", Build::rising(), |h| {
        h.put(0..1, 2, "a", "1");
        let by_value = |value: &str| {
            let compare = crate::generate::equal("a", check::history::CompareTarget::Value("1".into()));
            Request::Txn(check::history::Txn { compares: vec![compare], ..swap("a", 0, value) })
        };
        let done = || Response::Txn { succeeded: true, responses: vec![PUT] };
        h.done(2..9, 3, by_value("x"), done());
        h.done(2..9, 4, by_value("y"), done());
    }
    an_unknown_put_is_read_before_it_was_asked: Linearizable, "no order respects time", Build::rising(), |h| {
        h.get(0..1, 2, "a", &[kv("a", "1", 2, 2, 1)]);
        h.lost_put(2, "a", "1");
    }
    a_small_history_is_judged_over_all_keys: Linearizable, "no order respects time", Build::rising(), |h| {
        h.put(0..100, 2, "kx", "1");
        h.put(0..100, 3, "ky", "1");
        h.all(10..20, 4, "k", &[kv("kx", "1", 2, 2, 1)]);
        h.all(10..20, 5, "k", &[kv("ky", "1", 3, 3, 1)]);
    }
    g0_transactions_overwrite_each_other: ListAppend, "G0", lists(), |h| {
        h.lists(0..100, &[], &[("list/x", "1"), ("list/y", "2,1")]);
        h.lists(0..100, &[], &[("list/x", "1,2"), ("list/y", "2")]);
    }
    g1a_an_aborted_append_is_read: ListAppend, "G1a", lists(), |h| {
        let txn = check::history::Txn { success: vec![Op::Put(put("list/x", "1"))], ..Default::default() };
        h.add(0..1, Request::Txn(txn), Outcome::Failed { reason: "no".to_owned() });
        h.lists(2..3, &[("list/x", "1")], &[]);
    }
    g1b_half_of_a_transaction_is_read: ListAppend, "G1b", lists(), |h| {
        h.lists(0..100, &[("list/x", "")], &[("list/x", "1,2")]);
        h.lists(0..100, &[("list/x", "1")], &[]);
    }
    g1c_transactions_see_each_other: ListAppend, "G1c", lists(), |h| {
        h.lists(0..100, &[("list/y", "2")], &[("list/x", "1")]);
        h.lists(0..100, &[("list/x", "1")], &[("list/y", "2")]);
    }
    g_single_a_reader_sees_one_write_of_two: ListAppend, "G-single", lists(), |h| {
        h.lists(0..100, &[], &[("list/x", "1"), ("list/y", "1")]);
        h.lists(0..100, &[("list/x", "1"), ("list/y", "")], &[]);
    }
    g2_item_two_transactions_miss_each_other: ListAppend, "G2-item", lists(), |h| {
        h.lists(0..100, &[("list/x", "")], &[("list/y", "1")]);
        h.lists(0..100, &[("list/y", "")], &[("list/x", "2")]);
    }
    a_lost_update_of_a_list: ListAppend, "lost update", lists(), |h| {
        h.lists(0..100, &[("list/x", "")], &[("list/x", "1")]);
        h.lists(0..100, &[("list/x", "")], &[("list/x", "2")]);
    }
    a_read_that_comes_too_late_for_what_it_misses: ListAppend, "G-single-realtime", lists(), |h| {
        h.lists(0..1, &[], &[("list/x", "1")]);
        h.lists(2..3, &[("list/x", "")], &[]);
    }
    an_append_before_the_one_it_follows: ListAppend, "-realtime", lists(), |h| {
        h.lists(0..1, &[], &[("list/x", "2,1")]);
        h.lists(2..3, &[], &[("list/x", "2")]);
    }
    an_element_is_there_twice: ListAppend, "twice", lists(), |h| {
        h.lists(0..100, &[], &[("list/x", "1")]);
        h.lists(0..100, &[("list/x", "1,1")], &[]);
    }
    an_element_nobody_appended: ListAppend, "by nobody", lists(), |h| {
        h.lists(0..100, &[("list/x", "7")], &[]);
    }
    two_orders_of_one_list: ListAppend, "no order of", lists(), |h| {
        h.lists(0..100, &[], &[("list/x", "1")]);
        h.lists(0..100, &[], &[("list/x", "1,2")]);
        h.lists(0..100, &[], &[("list/x", "2,1,3")]);
    }
    money_is_made: Bank, "add up to 11", bank(), |h| {
        h.txn(0..1, 2, vec![Op::Put(put("bank/0", "5")), Op::Put(put("bank/1", "5"))], vec![PUT, PUT]);
        h.all(2..3, 3, "bank/", &[kv("bank/0", "6", 2, 3, 2), kv("bank/1", "5", 2, 2, 1)]);
    }
    an_account_is_missing: Bank, "1 of 2 accounts", bank(), |h| {
        h.all(2..3, 3, "bank/", &[kv("bank/0", "5", 2, 2, 1)]);
    }
    a_balance_is_no_number: Bank, "no balance", bank(), |h| {
        h.all(2..3, 3, "bank/", &[kv("bank/0", "five", 2, 2, 1), kv("bank/1", "5", 2, 2, 1)]);
    }
    both_keys_of_a_pair: WriteSkew, "both keys of the pair \"pair/1\"", Build::rising().with(Workload::WriteSkew { prefix: "pair/".into() }), |h| {
        h.all(2..3, 3, "pair/", &[kv("pair/1/a", "1", 2, 2, 1), kv("pair/1/b", "1", 3, 3, 1)]);
    }
    a_long_fork: LongFork, "without", Build::rising().with(Workload::LongFork { prefix: "fork/".into() }), |h| {
        h.all(2..3, 3, "fork/", &[kv("fork/1", "1", 2, 2, 1)]);
        h.all(2..3, 3, "fork/", &[kv("fork/2", "1", 3, 3, 1)]);
    }
    a_connection_goes_back: Session, "went back from revision 5 to 4", Build::rising(), |h| {
        h.stale_get(0..1, 5, "a", &[]).client = 1;
        h.stale_get(2..3, 4, "a", &[]).client = 1;
    }
    a_session_is_not_kept: Session, "at least 7", Build::rising(), |h| {
        let request = Range { level: Level::Session { min_revision: 7 }, ..get("a") };
        h.done(0..1, 6, Request::Range(request), range(&[]));
    }
    two_answers_about_one_past: Snapshot, "differ", Build::rising(), |h| {
        h.past(0..1, 5, 3, "a", &[]);
        h.past(2..3, 5, 3, "a", &[kv("a", "1", 2, 2, 1)]);
    }
    a_past_that_is_not_past: Snapshot, "comes from a node at revision 5", Build::rising(), |h| {
        h.past(0..1, 5, 6, "a", &[]);
    }
    a_read_below_the_compaction: Snapshot, "read after compaction to 5", Build::rising(), |h| {
        h.compact(0..1, 8, 5);
        h.past(2..3, 8, 4, "a", &[]);
    }
    a_compaction_that_goes_back: Snapshot, "compacted to 4 after", Build::rising(), |h| {
        h.compact(0..1, 8, 5);
        h.compact(2..3, 8, 4);
    }
    a_known_revision_is_called_future: Snapshot, "known before", Build::rising(), |h| {
        h.get(0..1, 8, "a", &[]);
        let reason = "etcdserver: mvcc: required revision is a future revision".to_owned();
        h.add(2..3, Request::Range(Range { revision: 7, ..get("a") }), Outcome::Failed { reason });
    }
    a_compaction_nobody_asked_for: Snapshot, "nobody compacted", Build::dense(), |h| {
        let reason = "etcdserver: mvcc: required revision has been compacted".to_owned();
        h.add(2..3, Request::Range(Range { revision: 7, ..get("a") }), Outcome::Failed { reason });
    }
    a_delete_answers_with_the_wrong_pair: RevisionOrder, "a correct store answers", Build::dense(), |h| {
        h.put(0..1, 2, "a", "1");
        h.put(2..3, 3, "a", "2");
        let request = DeleteRange { key: "a".into(), prev_kv: true, ..DeleteRange::default() };
        let response = Response::DeleteRange { deleted: 1, prev_kvs: vec![kv("a", "1", 2, 2, 1)] };
        h.done(4..5, 4, Request::DeleteRange(request), response);
    }
}
