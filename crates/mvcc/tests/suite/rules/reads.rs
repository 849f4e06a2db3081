//! Range: spans, revisions, order, limits, filters, and reads in pieces.

use base::Revision;
use bytes::Bytes;
use mvcc::{Engine, RangeRequest, RangeStream, ReadError, Reject, SortOrder, SortTarget};

use crate::store::{Store, at, get, span};

/// Keys a..e, written in the order c, a, e, b, d; then a twice more. Values in reverse key order.
fn letters() -> Store {
    let mut store = Store::new();
    for (key, value) in [("c", "3"), ("a", "5"), ("e", "1"), ("b", "4"), ("d", "2"), ("a", "5"), ("a", "5")] {
        store.put(key, value);
    }
    store
}

fn sorted(order: SortOrder, target: SortTarget) -> RangeRequest {
    RangeRequest { sort_order: order, sort_target: target, ..span("\0", "\0") }
}

#[test]
fn range_end_means_one_key_a_range_or_everything_from_the_key_on() {
    let mut store = Store::new();
    for key in ["\0", "a", "a\0", "aa", "b", "c"] {
        store.put(key, "v");
    }
    let table: [(&str, &str, &[&str]); 8] = [
        ("a", "", &["a"]),
        ("a", "b", &["a", "a\0", "aa"]),
        ("a", "a\0", &["a"]),
        ("aa", "\0", &["aa", "b", "c"]),
        ("\0", "\0", &["\0", "a", "a\0", "aa", "b", "c"]),
        ("b", "a", &[]),
        ("b", "b", &[]),
        ("missing", "", &[]),
    ];
    for (key, end, expected) in table {
        assert_eq!(store.keys(&span(key, end)), expected, "{key:?}..{end:?}");
        let past = at(store.machine.state().revision.0, span(key, end));
        assert_eq!(store.keys(&past), expected, "{key:?}..{end:?} in the past");
    }
    let last = store.machine.state().revision.0;
    store.apply(&crate::store::delete("\0", "\0"));
    for (key, end, expected) in table {
        assert_eq!(store.keys(&at(last, span(key, end))), expected, "{key:?}..{end:?} from history");
    }
}

#[test]
fn a_read_without_a_key_or_with_an_unknown_sort_is_refused() {
    let store = letters();
    let unknown = sorted(SortOrder::Unknown, SortTarget::Key);
    assert_eq!(store.range(&unknown), Err(Reject::InvalidSortOption));
    assert_eq!(store.range(&sorted(SortOrder::None, SortTarget::Unknown)), Err(Reject::InvalidSortOption));
    assert_eq!(store.range(&RangeRequest { key: Bytes::new(), ..unknown }), Err(Reject::EmptyKey));
}

#[test]
fn revision_zero_or_less_is_the_latest_and_above_the_present_is_the_future() {
    let store = letters();
    let read =
        |revision| store.range(&at(revision, get("a"))).map(|found| found.result.kvs.first().map(|kv| kv.version));
    assert_eq!(read(0), Ok(Some(3)));
    assert_eq!(read(-5), Ok(Some(3)));
    assert_eq!(read(8), Ok(Some(3)));
    assert_eq!(read(7), Ok(Some(2)));
    assert_eq!(read(3), Ok(Some(1)));
    assert_eq!(read(2), Ok(None));
    assert_eq!(read(1), Ok(None));
    assert_eq!(read(9), Err(Reject::FutureRevision));
}

#[test]
fn the_header_carries_the_current_revision_also_when_the_past_is_read() {
    let store = letters();
    assert_eq!(store.range(&at(3, get("a"))).unwrap().revision, Revision(8));
}

#[test]
fn count_is_everything_in_range_whatever_limit_and_filters_say() {
    let store = letters();
    let limited = store.range(&RangeRequest { limit: 2, ..span("a", "e") }).unwrap().result;
    assert_eq!((limited.kvs.len(), limited.more, limited.count), (2, true, 4));
    let exact = store.range(&RangeRequest { limit: 4, ..span("a", "e") }).unwrap().result;
    assert_eq!((exact.kvs.len(), exact.more, exact.count), (4, false, 4));
    let filtered =
        store.range(&RangeRequest { min_create_revision: Revision(4), limit: 1, ..span("a", "e") }).unwrap().result;
    assert_eq!((filtered.kvs.len(), filtered.more, filtered.count), (1, true, 4));
    let everything = store.range(&RangeRequest { limit: 1, ..span("\0", "\0") }).unwrap().result;
    assert_eq!((everything.kvs.len(), everything.more, everything.count), (1, true, 5));
}

#[test]
fn count_only_sends_no_pairs_and_never_more() {
    let store = letters();
    for request in [span("\0", "\0"), span("a", "f"), at(8, span("a", "f"))] {
        let result = store.range(&RangeRequest { count_only: true, limit: 1, ..request }).unwrap().result;
        assert_eq!((result.kvs.len(), result.more, result.count), (0, false, 5));
    }
    let past = store.range(&RangeRequest { count_only: true, ..at(4, span("\0", "\0")) }).unwrap().result;
    assert_eq!(past.count, 3);
}

#[test]
fn every_sort_target_works_in_both_directions() {
    let store = letters();
    let table: [(SortTarget, [&str; 5]); 5] = [
        (SortTarget::Key, ["a", "b", "c", "d", "e"]),
        (SortTarget::Version, ["b", "c", "d", "e", "a"]),
        (SortTarget::Create, ["c", "a", "e", "b", "d"]),
        (SortTarget::Mod, ["c", "e", "b", "d", "a"]),
        (SortTarget::Value, ["e", "d", "c", "b", "a"]),
    ];
    for (target, expected) in table {
        assert_eq!(store.keys(&sorted(SortOrder::Ascend, target)), expected, "{target:?}");
        assert_eq!(store.keys(&sorted(SortOrder::None, target)), expected, "{target:?} without an order");
        let mut reversed = expected;
        reversed.reverse();
        if target == SortTarget::Version {
            reversed = ["a", "b", "c", "d", "e"]; // Ties stay in key order.
        }
        assert_eq!(store.keys(&sorted(SortOrder::Descend, target)), reversed, "{target:?} descending");
        let limited = RangeRequest { limit: 2, ..sorted(SortOrder::Descend, target) };
        assert_eq!(store.keys(&limited), reversed[..2], "{target:?} descending, limited");
    }
}

#[test]
fn a_limited_sort_finds_the_best_of_many() {
    let mut store = Store::new();
    for number in 0..500 {
        store.put(&format!("k{:03}", (number * 77) % 500), "v");
    }
    let request = RangeRequest { limit: 3, ..sorted(SortOrder::Descend, SortTarget::Create) };
    let result = store.range(&request).unwrap().result;
    let created: Vec<_> = result.kvs.iter().map(|kv| kv.create_revision.0).collect();
    assert_eq!((created, result.more, result.count), (vec![501, 500, 499], true, 500));
}

#[test]
fn without_an_order_the_limit_cuts_before_another_target_sorts() {
    let store = letters();
    let request = RangeRequest { limit: 2, ..sorted(SortOrder::None, SortTarget::Create) };
    // The first three keys are a, b, c; by creation c, a, b; two of them are sent.
    assert_eq!(store.keys(&request), ["c", "a"]);
    let named = RangeRequest { limit: 2, ..sorted(SortOrder::Ascend, SortTarget::Mod) };
    assert_eq!(store.keys(&named), ["c", "e"]);
}

#[test]
fn filters_by_revision_apply_before_the_limit() {
    let store = letters();
    let base = span("\0", "\0");
    let keys = |request: RangeRequest| store.keys(&request);
    assert_eq!(keys(RangeRequest { min_mod_revision: Revision(5), ..base.clone() }), ["a", "b", "d"]);
    assert_eq!(keys(RangeRequest { max_mod_revision: Revision(5), ..base.clone() }), ["b", "c", "e"]);
    assert_eq!(keys(RangeRequest { min_create_revision: Revision(4), ..base.clone() }), ["b", "d", "e"]);
    assert_eq!(keys(RangeRequest { max_create_revision: Revision(4), ..base.clone() }), ["a", "c", "e"]);
    assert_eq!(keys(RangeRequest { max_create_revision: Revision(4), limit: 2, ..base }), ["a", "c"]);
}

#[test]
fn keys_only_leaves_out_value_and_lease() {
    let store = letters();
    let result = store.range(&RangeRequest { keys_only: true, ..get("a") }).unwrap().result;
    assert_eq!((result.kvs[0].value.len(), result.kvs[0].version, result.kvs[0].create_revision.0), (0, 3, 3));
    let by_value = RangeRequest { keys_only: true, ..sorted(SortOrder::Ascend, SortTarget::Value) };
    assert_eq!(store.keys(&by_value), ["e", "d", "c", "b", "a"]);
}

#[test]
fn a_read_within_bytes_stops_at_a_key_and_goes_on_there() {
    let mut store = Store::new();
    for key in ["a", "b", "c", "d"] {
        store.put(key, &"v".repeat(100));
    }
    let view = store.engine.view();
    let (first, stop) = mvcc::range_within(&*view, &span("a", "z"), 250).unwrap();
    assert_eq!((first.result.kvs.len(), first.result.more, first.result.count), (2, true, 4));
    let rest = RangeRequest { key: stop.unwrap(), ..span("a", "z") };
    let (second, stop) = mvcc::range_within(&*view, &at(5, rest), 250).unwrap();
    assert_eq!((second.result.kvs.len(), second.result.more, stop), (2, false, None));
    // The limit comes first.
    let limited = RangeRequest { limit: 2, ..span("a", "z") };
    let (answer, stop) = mvcc::range_within(&*view, &limited, 250).unwrap();
    assert_eq!((answer.result.kvs.len(), answer.result.more, stop), (2, true, None));
}

#[test]
fn a_stream_stays_at_its_revision_while_the_store_moves_on() {
    let mut store = letters();
    let mut stream = RangeStream::open(&*store.engine.view(), RangeRequest { limit: 4, ..span("\0", "\0") }).unwrap();
    assert_eq!(stream.pinned(), Revision(8));
    let mut keys = Vec::new();
    let end = loop {
        let chunk = stream.chunk(&*store.engine.view(), 3, usize::MAX).unwrap().unwrap();
        keys.extend(chunk.kvs.into_iter().map(|kv| kv.key));
        store.apply(&crate::store::delete("\0", "\0"));
        store.put("new", "v");
        if let Some(end) = chunk.end {
            break end;
        }
    };
    assert_eq!(keys, ["a", "b", "c", "d"]);
    assert_eq!((end.revision, end.more, end.count), (Revision(8), true, 5));
}

#[test]
fn a_compaction_during_a_stream_ends_it() {
    let mut store = letters();
    let mut stream = RangeStream::open(&*store.engine.view(), at(7, span("\0", "\0"))).unwrap();
    stream.chunk(&*store.engine.view(), 1, 1).unwrap().unwrap();
    store.compact(8);
    let error = stream.chunk(&*store.engine.view(), 1, 1).unwrap_err();
    assert_eq!(error, ReadError::Reject(Reject::Compacted));
}

#[test]
fn only_unfiltered_key_order_can_be_streamed() {
    assert!(RangeStream::supports(&sorted(SortOrder::Ascend, SortTarget::Key)));
    assert!(!RangeStream::supports(&sorted(SortOrder::Descend, SortTarget::Key)));
    assert!(!RangeStream::supports(&sorted(SortOrder::None, SortTarget::Mod)));
    assert!(!RangeStream::supports(&RangeRequest { max_mod_revision: Revision(3), ..get("a") }));
}

#[test]
fn an_answer_wanted_whole_is_given_up_at_its_bound_whatever_the_order() {
    let mut store = Store::new();
    for key in ["a", "b", "c"] {
        store.put(key, "a value of some length");
    }
    let view = store.engine.view();
    for sort_target in [SortTarget::Key, SortTarget::Mod] {
        let request = RangeRequest { sort_target, sort_order: SortOrder::Descend, ..span("a", "z") };
        assert_eq!(mvcc::range_whole(&*view, &request, 60), Ok(None), "{sort_target:?}");
        let whole = mvcc::range_whole(&*view, &request, 1000);
        assert_eq!(whole, mvcc::range(&*view, &request).map(Some));
        let limited = RangeRequest { limit: 1, ..request };
        assert_eq!(mvcc::range_whole(&*view, &limited, 60), mvcc::range(&*view, &limited).map(Some));
    }
}
