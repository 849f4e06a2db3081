//! Events, compaction as a watcher sees it, the fingerprint, and what a crash may cost.

use base::{Fault, Revision};
use bytes::Bytes;
use mvcc::{
    Batch, Engine, Event, EventBudget, EventKind, EventQuery, KeyValue, Machine, MemEngine, Outcome, Reject, Span,
};

use crate::store::{Store, bytes, data_rows, delete, put};

fn single(store: &Store, from: i64) -> Event {
    store.events(from).unwrap().changes.remove(0).events.remove(0)
}

#[test]
fn a_delete_event_has_key_and_revision_alone() {
    let mut store = Store::new();
    store.put("k", "v");
    store.delete("k");
    let event = single(&store, 3);
    assert_eq!(event.kind, EventKind::Delete);
    let expected = KeyValue { key: "k".into(), mod_revision: Revision(3), ..KeyValue::default() };
    assert_eq!(event.kv, expected);
    assert_eq!(&event.prev_kv.unwrap().value[..], b"v");
}

#[test]
fn a_created_key_has_equal_revisions_and_no_pair_before() {
    let mut store = Store::new();
    store.put("k", "1");
    store.put("k", "2");
    let created = single(&store, 2);
    assert_eq!((created.kv.create_revision, created.prev_kv), (created.kv.mod_revision, None));
    let changed = single(&store, 3);
    assert_eq!(&changed.prev_kv.unwrap().value[..], b"1");
}

#[test]
fn the_pair_before_is_silently_absent_once_compacted_swept_or_not() {
    let mut store = Store::new();
    store.put("k", "1");
    store.put("k", "2");
    store.put("k", "3");
    store.compact(3);
    for _ in 0..2 {
        assert_eq!(single(&store, 3).prev_kv, None);
        assert_eq!(&single(&store, 4).prev_kv.unwrap().value[..], b"2");
        store.sweep(1);
    }
}

#[test]
fn a_watch_may_start_at_the_floor_and_sees_the_tombstone_there() {
    let mut store = Store::new();
    store.put("k", "v");
    store.delete("k");
    store.put("other", "v");
    store.compact(3);
    for _ in 0..2 {
        assert_eq!(store.events(2), Err(Reject::Compacted));
        let event = single(&store, 3);
        assert_eq!((event.kind, event.kv.key), (EventKind::Delete, bytes("k")));
        store.sweep(1);
    }
}

#[test]
fn starting_after_the_present_gives_nothing_yet() {
    let mut store = Store::new();
    store.put("k", "v");
    let page = store.events(10).unwrap();
    assert_eq!((page.changes.len(), page.next, page.current), (0, Revision(10), Revision(2)));
}

#[test]
fn pages_hold_whole_revisions_and_leave_no_gap() {
    let mut store = Store::new();
    for key in ["a", "b", "c"] {
        store.put(key, "v");
    }
    store.apply(&delete("\0", "\0"));
    store.put("d", "v");
    let mut query = EventQuery { span: Span::all(), from: Revision(1), prev_kv: false };
    let mut sizes = Vec::new();
    loop {
        let budget = EventBudget { events_max: 2, bytes_max: usize::MAX };
        let page = mvcc::events(&*store.engine.view(), &query, budget).unwrap();
        sizes.push(page.changes.iter().map(|change| (change.revision.0, change.events.len())).collect::<Vec<_>>());
        query.from = page.next;
        if page.next > page.current {
            break;
        }
    }
    assert_eq!(sizes, [vec![(2, 1), (3, 1)], vec![(4, 1), (5, 3)], vec![(6, 1)]]);
    // The byte budget cuts in the same way.
    let budget = EventBudget { events_max: usize::MAX, bytes_max: 1 };
    query.from = Revision(2);
    let page = mvcc::events(&*store.engine.view(), &query, budget).unwrap();
    assert_eq!((page.changes.len(), page.next), (1, Revision(3)));
}

#[test]
fn events_outside_the_span_are_left_out() {
    let mut store = Store::new();
    store.put("a", "v");
    store.put("b", "v");
    let query = EventQuery { span: Span::Key("b".into()), from: Revision(1), prev_kv: false };
    let budget = EventBudget { events_max: 100, bytes_max: 1000 };
    let page = mvcc::events(&*store.engine.view(), &query, budget).unwrap();
    assert_eq!((page.changes.len(), page.changes[0].revision, page.next), (1, Revision(3), Revision(4)));
}

#[test]
fn a_sweep_removes_exactly_what_cannot_be_read() {
    let mut store = Store::new();
    for value in ["1", "2", "3", "4"] {
        store.put("k", value);
    }
    store.put("gone", "v");
    store.delete("gone");
    let history = |store: &Store| store.engine.rows().iter().filter(|(key, _)| key[0] == b'h').count();
    assert_eq!(history(&store), 5);
    store.compact(4);
    store.sweep(1);
    assert_eq!(history(&store), 3, "versions 2 and 3 are gone");
    let last = store.put("x", "v");
    store.compact(last);
    store.sweep(100);
    assert_eq!(history(&store), 0);
    let nothing = mvcc::sweep(&*store.engine.view(), 1).unwrap();
    assert_eq!((nothing.done, nothing.batch), (true, Batch::default()));
}

#[test]
fn a_piece_of_a_sweep_may_be_written_after_newer_batches() {
    let mut store = Store::new();
    for value in ["1", "2", "3"] {
        store.put("k", value);
    }
    store.put("d", "v");
    store.delete("d");
    store.compact(6);
    let late = mvcc::sweep(&*store.engine.view(), 100).unwrap();
    store.put("k", "4");
    store.put("d", "again");
    store.delete("d");
    store.engine.write(late.batch).unwrap();
    let versions = |revision| {
        let page = store.events(revision).unwrap();
        page.changes.iter().map(|change| change.events.len()).sum::<usize>()
    };
    assert_eq!(versions(6), 4);
    let read = |key, revision| {
        let found = store.range(&crate::store::at(revision, crate::store::get(key))).unwrap().result;
        found.kvs.first().map(|kv| kv.value.clone())
    };
    assert_eq!((read("k", 6), read("k", 7), read("d", 8)), (Some("3".into()), Some("4".into()), Some("again".into())));
}

#[test]
fn a_floor_that_rises_in_the_middle_of_a_revision_leaves_nothing_behind() {
    let mut store = Store::new();
    for key in ["a", "b", "c"] {
        store.put(key, "v");
    }
    store.apply(&delete("\0", "\0"));
    store.compact(5);
    // Stops behind the second of the three deletes at the floor, which all are still needed there.
    for _ in 0..5 {
        let piece = mvcc::sweep(&*store.engine.view(), 1).unwrap();
        assert!(!piece.done);
        store.engine.write(piece.batch).unwrap();
    }
    assert_eq!(store.events(5).unwrap().changes[0].events.len(), 3);
    store.put("d", "v");
    store.compact(6);
    store.sweep(1);
    let left: Vec<_> = data_rows(&store.engine).into_iter().map(|(key, _)| key[0]).collect();
    assert_eq!(left, *b"cr", "the one pair and the one event at the floor");
}

#[test]
fn the_fingerprint_depends_on_the_state_alone() {
    let mut store = Store::new();
    store.put("a", "1");
    store.put("b", "2");
    store.put("a", "3");
    let hash = |store: &Store, revision| mvcc::hash(&*store.engine.view(), Revision(revision)).unwrap();
    let at_two = hash(&store, 2);
    let at_three = hash(&store, 3);
    assert_ne!(at_two.hash, at_three.hash);
    assert_ne!(at_three.hash, hash(&store, 4).hash);
    assert_eq!(hash(&store, 0), hash(&store, 4));
    store.compact(3);
    assert_eq!(hash(&store, 3).hash, at_three.hash);
    store.sweep(1);
    assert_eq!(hash(&store, 3).hash, at_three.hash);
    assert_eq!((hash(&store, 3).compacted, hash(&store, 3).current), (Revision(3), Revision(4)));
    assert!(mvcc::hash(&*store.engine.view(), Revision(2)).is_err());
    assert!(mvcc::hash(&*store.engine.view(), Revision(5)).is_err());
    // Bytes cannot wander between key and value.
    let mut one = Store::new();
    one.put("ab", "c");
    let mut other = Store::new();
    other.put("a", "bc");
    assert_ne!(hash(&one, 2).hash, hash(&other, 2).hash);
}

#[test]
fn after_a_crash_the_mark_says_which_entries_to_apply_again() {
    let mut store = Store::new();
    store.put("k", "1");
    store.engine.checkpoint();
    let lost = store.apply(&put("k", "2"));
    store.engine.crash();
    let mut machine = Machine::open(&store.engine).unwrap();
    assert_eq!(machine.mark(), Some(Bytes::copy_from_slice(&1u64.to_be_bytes())));
    assert_eq!(machine.state().revision, Revision(2));
    let mut apply = machine.begin(store.engine.view()).unwrap();
    assert_eq!(apply.command(&put("k", "2").encode(), true).unwrap(), Some(lost));
}

#[test]
fn a_dropped_batch_never_happened() {
    let engine = MemEngine::new();
    let mut machine = Machine::open(&engine).unwrap();
    let mut apply = machine.begin(engine.view()).unwrap();
    apply.command(&put("k", "v").encode(), false).unwrap();
    assert_eq!(apply.state().revision, Revision(2));
    drop(apply);
    assert_eq!((machine.state().revision, machine.mark()), (Revision(1), None));
    assert_eq!(engine.rows(), []);
}

#[test]
fn an_entry_that_is_no_command_is_a_fault() {
    let engine = MemEngine::new();
    let mut machine = Machine::open(&engine).unwrap();
    for payload in [&b""[..], b"\x01", b"\x02\x01", b"\x01\x09", b"\x01\x04\x02\x00"] {
        let mut apply = machine.begin(engine.view()).unwrap();
        let result = apply.command(&Bytes::copy_from_slice(payload), true);
        assert!(matches!(result, Err(Fault::Corrupt { .. })), "{payload:?}: {result:?}");
    }
}

#[test]
fn damaged_rows_are_faults_not_answers() {
    let mut store = Store::new();
    store.put("k", "v");
    store.put("k", "w");
    let damage = |row: &'static [u8], value: &'static [u8]| {
        let engine = store.engine.clone();
        engine.write(Batch { rows: vec![(Bytes::from_static(row), Some(Bytes::from_static(value)))] }).unwrap();
        engine
    };
    let engine = damage(b"ck", b"\xff");
    assert!(mvcc::range(&*engine.view(), &crate::store::get("k")).is_err());
    let mut machine = Machine::open(&engine).unwrap();
    let mut apply = machine.begin(engine.view()).unwrap();
    assert!(apply.command(&put("k", "x").encode(), true).is_err());
    assert!(Machine::open(&damage(b"mstate", b"\x01")).is_err());
    let engine = damage(b"hk\0\x01\0\0\0\0\0\0\0\x02\x02", b"");
    assert!(mvcc::range(&*engine.view(), &crate::store::at(2, crate::store::get("k"))).is_err());
    let engine = damage(b"r\0\0\0\0\0\0\0\x03\0\0\0\0", b"\x07");
    let query = EventQuery { span: Span::all(), from: Revision(2), prev_kv: true };
    assert!(mvcc::events(&*engine.view(), &query, EventBudget { events_max: 9, bytes_max: 9 }).is_err());
}

#[test]
#[should_panic(expected = "the view shows")]
fn a_view_from_before_the_last_batch_is_refused() {
    let mut store = Store::new();
    let stale = store.engine.view();
    store.put("k", "v");
    drop(store.machine.begin(stale));
}

#[test]
fn followers_need_no_outcome_and_get_none() {
    let engine = MemEngine::new();
    let mut machine = Machine::open(&engine).unwrap();
    let mut apply = machine.begin(engine.view()).unwrap();
    assert_eq!(apply.command(&put("k", "v").encode(), false).unwrap(), None::<Outcome>);
    assert_eq!(apply.command(&put("", "v").encode(), false).unwrap(), None);
    let (_, changes) = apply.finish(Bytes::new());
    assert_eq!(changes, []);
}
