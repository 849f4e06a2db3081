//! Histories of watches: one with each predicate broken, and odd ones that every watch may give.

use check::Property::{self, Watch};
use check::history::{DeleteRange, Event, KeyValue, Op, Outcome, Request, Response, Watch as Asked, WatchBatch};

use crate::broken::broken;
use crate::build::{Build, PUT, delete_prefix, kv};
use crate::generate::{prefix, put};
use crate::legal::legal;

fn on(key: &str) -> Asked {
    Asked { key: key.into(), start_revision: 2, ..Asked::default() }
}

fn on_all() -> Asked {
    let range = prefix("a/");
    Asked { key: range.key, range_end: range.range_end, start_revision: 2, ..Asked::default() }
}

fn was_put(kv: KeyValue) -> Event {
    Event::Put { kv, prev_kv: None }
}

fn was_replaced(kv: KeyValue, before: KeyValue) -> Event {
    Event::Put { kv, prev_kv: Some(before) }
}

fn was_deleted(key: &str, revision: i64) -> Event {
    Event::Delete { key: key.into(), mod_revision: revision, prev_kv: None }
}

fn batch(at: u64, revision: i64, events: Vec<Event>) -> WatchBatch {
    WatchBatch { at, revision, events, ..WatchBatch::default() }
}

fn created(at: u64, revision: i64) -> WatchBatch {
    WatchBatch { at, revision, created: true, ..WatchBatch::default() }
}

fn compacted(at: u64, floor: i64) -> WatchBatch {
    WatchBatch { at, compact_revision: floor, ..WatchBatch::default() }
}

/// A watch that lives for the whole history.
fn watch(h: &mut Build, asked: Asked, batches: Vec<WatchBatch>) {
    h.done(0..100, 1, Request::Watch(asked), Response::Watch { batches });
}

/// Two puts of one key, at revisions 2 and 3, with what a watch delivers of them.
fn two_puts(h: &mut Build) -> (Event, Event) {
    h.put(0..1, 2, "a", "1");
    h.put(2..3, 3, "a", "2");
    (was_put(kv("a", "1", 2, 2, 1)), was_put(kv("a", "2", 2, 3, 2)))
}

/// Two keys written in one transaction, at revision 2.
fn both(h: &mut Build) -> (Event, Event) {
    h.txn(0..1, 2, vec![Op::Put(put("a/1", "1")), Op::Put(put("a/2", "1"))], vec![PUT, PUT]);
    (was_put(kv("a/1", "1", 2, 2, 1)), was_put(kv("a/2", "1", 2, 2, 1)))
}

broken! {
    a_watch_delivers_a_key_nobody_asked_for: Watch, "not filter", Build::dense(), |h| {
        let (one, _) = two_puts(h);
        watch(h, on("b"), vec![batch(5, 2, vec![one])]);
    }
    a_watch_of_puts_delivers_a_delete: Watch, "not filter", Build::dense(), |h| {
        h.put(0..1, 2, "a", "1");
        h.delete(2..3, 3, "a", 1);
        watch(h, Asked { no_delete: true, start_revision: 3, ..on("a") }, vec![batch(5, 3, vec![was_deleted("a", 3)])]);
    }
    events_come_in_the_wrong_order: Watch, "not ordered", Build::dense(), |h| {
        let (one, two) = two_puts(h);
        watch(h, on("a"), vec![batch(5, 3, vec![two]), batch(6, 3, vec![one])]);
    }
    events_come_before_the_watch_stands: Watch, "not ordered", Build::dense(), |h| {
        let (one, _) = two_puts(h);
        watch(h, on("a"), vec![batch(5, 3, vec![one]), created(6, 3)]);
    }
    an_event_comes_twice: Watch, "not unique", Build::dense(), |h| {
        let (one, two) = two_puts(h);
        watch(h, on("a"), vec![batch(5, 3, vec![one, two.clone()]), batch(6, 3, vec![two])]);
    }
    older_events_are_replayed: Watch, "not unique", Build::dense(), |h| {
        let (one, two) = two_puts(h);
        watch(h, on("a"), vec![batch(5, 3, vec![one.clone(), two]), batch(6, 3, vec![one])]);
    }
    a_revision_comes_in_two_batches: Watch, "not atomic", Build::dense(), |h| {
        let (one, two) = both(h);
        watch(h, on_all(), vec![batch(5, 2, vec![one]), batch(6, 2, vec![two])]);
    }
    half_a_revision_is_missing: Watch, "not atomic", Build::dense(), |h| {
        let (one, _) = both(h);
        watch(h, on_all(), vec![batch(5, 2, vec![one])]);
    }
    an_event_comes_after_progress_beyond_it: Watch, "not bookmarkable", Build::dense(), |h| {
        let (one, two) = two_puts(h);
        watch(h, on("a"), vec![batch(5, 2, vec![one]), batch(6, 3, vec![]), batch(7, 3, vec![two])]);
    }
    progress_goes_back: Watch, "not bookmarkable", Build::dense(), |h| {
        let (one, two) = two_puts(h);
        watch(h, on("a"), vec![batch(5, 3, vec![one, two]), batch(6, 3, vec![]), batch(7, 2, vec![])]);
    }
    progress_speaks_of_what_was_not_delivered: Watch, "not reliable", Build::dense(), |h| {
        let (one, _) = two_puts(h);
        watch(h, on("a"), vec![batch(5, 3, vec![one]), batch(6, 3, vec![])]);
    }
    the_first_event_is_missing: Watch, "not resumable", Build::dense(), |h| {
        let (_, two) = two_puts(h);
        watch(h, on("a"), vec![batch(5, 3, vec![two])]);
    }
    an_event_in_the_middle_is_missing: Watch, "not reliable", Build::dense(), |h| {
        let (one, _) = two_puts(h);
        h.put(4..5, 4, "a", "3");
        watch(h, on("a"), vec![batch(6, 4, vec![one, was_put(kv("a", "3", 2, 4, 3))])]);
    }
    what_came_between_two_members_is_missing: Watch, "not resumable", Build::dense(), |h| {
        let (one, _) = two_puts(h);
        h.put(4..5, 4, "a", "3");
        watch(h, on("a"), vec![batch(6, 2, vec![one])]);
        let third = was_put(kv("a", "3", 2, 4, 3));
        watch(h, Asked { start_revision: 3, ..on("a") }, vec![batch(7, 4, vec![third])]);
    }
    a_watch_from_now_on_loses_what_came_after: Watch, "not reliable", Build::dense(), |h| {
        two_puts(h);
        watch(h, Asked { start_revision: 0, ..on("a") }, vec![created(1, 2), batch(5, 3, vec![])]);
    }
    a_lease_s_end_is_delivered_in_part: Watch, "not atomic", Build::dense(), |h| {
        leased_pair(h);
        h.expired(8..8, 4, &[7]);
        watch(h, Asked { start_revision: 4, ..on_all() }, vec![batch(9, 4, vec![was_deleted("a/1", 4)])]);
    }
    a_later_put_claims_to_be_the_first: Watch, "not is-create", Build::rising(), |h| {
        two_puts(h);
        watch(h, Asked { start_revision: 3, ..on("a") }, vec![batch(5, 3, vec![was_put(kv("a", "2", 3, 3, 2))])]);
    }
    a_put_goes_on_with_what_was_deleted: Watch, "not is-create", Build::rising(), |h| {
        h.put(0..1, 2, "a", "1");
        h.delete(2..3, 3, "a", 1);
        h.put(4..5, 4, "a", "2");
        watch(h, Asked { start_revision: 4, ..on("a") }, vec![batch(6, 4, vec![was_put(kv("a", "2", 2, 4, 2))])]);
    }
    the_pair_before_is_missing: Watch, "not prev-kv", Build::dense(), |h| {
        let (one, two) = two_puts(h);
        watch(h, Asked { prev_kv: true, ..on("a") }, vec![batch(5, 3, vec![one, two])]);
    }
    the_pair_before_is_another: Watch, "not prev-kv", Build::dense(), |h| {
        let (one, _) = two_puts(h);
        let two = was_replaced(kv("a", "2", 2, 3, 2), kv("a", "x", 2, 2, 1));
        watch(h, Asked { prev_kv: true, ..on("a") }, vec![batch(5, 3, vec![one, two])]);
    }
    the_pair_before_is_an_older_one: Watch, "not prev-kv", Build::rising(), |h| {
        two_puts(h);
        h.delete(4..5, 4, "a", 1);
        let gone = Event::Delete { key: "a".into(), mod_revision: 4, prev_kv: Some(kv("a", "1", 2, 2, 1)) };
        watch(h, Asked { prev_kv: true, start_revision: 4, ..on("a") }, vec![batch(6, 4, vec![gone])]);
    }
    a_pair_before_that_nobody_asked_for: Watch, "not prev-kv", Build::dense(), |h| {
        let (one, _) = two_puts(h);
        let two = was_replaced(kv("a", "2", 2, 3, 2), kv("a", "1", 2, 2, 1));
        watch(h, on("a"), vec![batch(5, 3, vec![one, two])]);
    }
    a_new_key_has_a_pair_before: Watch, "not prev-kv", Build::dense(), |h| {
        h.put(0..1, 2, "a", "1");
        let one = was_replaced(kv("a", "1", 2, 2, 1), kv("a", "0", 1, 1, 1));
        watch(h, Asked { prev_kv: true, ..on("a") }, vec![batch(5, 2, vec![one])]);
    }
    an_event_lies_below_the_start: Watch, "not start", Build::dense(), |h| {
        let (_, two) = two_puts(h);
        watch(h, Asked { start_revision: 4, ..on("a") }, vec![batch(5, 3, vec![two])]);
    }
    a_watch_from_now_on_shows_the_past: Watch, "not start", Build::dense(), |h| {
        let (one, _) = two_puts(h);
        watch(h, Asked { start_revision: 0, ..on("a") }, vec![created(4, 3), batch(5, 3, vec![one])]);
    }
    a_watch_delivers_another_value: Watch, "written otherwise", Build::dense(), |h| {
        two_puts(h);
        watch(h, on("a"), vec![batch(5, 2, vec![was_put(kv("a", "x", 2, 2, 1))])]);
    }
    a_watch_delivers_what_nobody_wrote: Watch, "no operation writes that", Build::rising(), |h| {
        watch(h, on("a"), vec![batch(5, 2, vec![was_put(kv("a", "x", 2, 2, 1))])]);
    }
    a_watch_delivers_another_key_of_a_revision: Watch, "did not touch", Build::dense(), |h| {
        two_puts(h);
        watch(h, on("b"), vec![batch(5, 2, vec![was_put(kv("b", "1", 2, 2, 1))])]);
    }
    a_watch_delivers_a_write_before_it_was_asked_for: Watch, "before it was asked for", Build::dense(), |h| {
        h.put(10..20, 2, "a", "1");
        watch(h, on("a"), vec![batch(9, 2, vec![was_put(kv("a", "1", 2, 2, 1))])]);
    }
    two_watches_disagree_on_a_lost_write: Watch, "disagree", Build::rising(), |h| {
        h.lost_put(0, "a", "1");
        watch(h, on("a"), vec![batch(5, 9, vec![was_put(kv("a", "1", 9, 9, 1))])]);
        watch(h, on("a"), vec![batch(5, 9, vec![was_put(kv("a", "1", 2, 9, 2))])]);
    }
    one_watch_misses_a_lost_write_that_another_shows: Watch, "not reliable", Build::rising(), |h| {
        h.lost_put(0, "a", "1");
        watch(h, on("a"), vec![batch(5, 9, vec![was_put(kv("a", "1", 9, 9, 1))])]);
        watch(h, on("a"), vec![batch(5, 9, vec![])]);
    }
    a_node_delivers_what_it_does_not_have: Watch, "from a node at revision 2", Build::dense(), |h| {
        let (one, two) = two_puts(h);
        watch(h, on("a"), vec![batch(5, 2, vec![one, two])]);
    }
    a_watch_ends_for_a_compaction_that_takes_nothing: Watch, "not cancel", Build::dense(), |h| {
        let (one, two) = two_puts(h);
        h.compact(4..5, 3, 3);
        watch(h, on("a"), vec![batch(6, 3, vec![one, two]), compacted(7, 3)]);
    }
    a_watch_at_the_floor_is_refused: Watch, "not cancel", Build::dense(), |h| {
        two_puts(h);
        h.compact(4..5, 3, 3);
        watch(h, Asked { start_revision: 3, ..on("a") }, vec![created(6, 3), compacted(7, 3)]);
    }
    a_watch_ends_for_a_compaction_nobody_asked_for: Watch, "nobody asked for", Build::dense(), |h| {
        two_puts(h);
        watch(h, on("a"), vec![created(6, 3), compacted(7, 3)]);
    }
    a_watch_ends_without_a_reason: Watch, "without a reason", Build::dense(), |h| {
        watch(h, on("a"), vec![WatchBatch { cancelled: Some(String::new()), ..created(6, 3) }]);
    }
    a_watch_goes_on_after_its_end: Watch, "follows the end", Build::dense(), |h| {
        let (one, _) = two_puts(h);
        let end = WatchBatch { cancelled: Some("no leader".to_owned()), ..batch(5, 2, vec![]) };
        watch(h, on("a"), vec![end, batch(6, 2, vec![one])]);
    }
}

/// Two keys on a lease, at revisions 2 and 3.
fn leased_pair(h: &mut Build) {
    h.grant(0..1, 7, 5);
    h.leased_put(2..3, 2, "a/1", "1", 7);
    h.leased_put(4..5, 3, "a/2", "1", 7);
}

legal! {
    a_watch_delivers_everything: Build::dense(), |h| {
        let (one, two) = two_puts(h);
        h.delete(4..5, 4, "a", 1);
        watch(h, on("a"), vec![created(1, 1), batch(6, 3, vec![one]), batch(6, 4, vec![two, was_deleted("a", 4)])]);
    }
    a_watch_delivers_nothing_yet: Build::dense(), |h| {
        two_puts(h);
        watch(h, on("a"), vec![created(1, 1)]);
        watch(h, on("a"), vec![]);
    }
    a_watch_ends_in_the_middle: Build::dense(), |h| {
        let (one, _) = two_puts(h);
        watch(h, on("a"), vec![created(1, 1), batch(6, 3, vec![one])]);
    }
    a_watch_from_now_on_at_a_node_that_lags: Build::dense(), |h| {
        let (_, two) = two_puts(h);
        watch(h, Asked { start_revision: 0, ..on("a") }, vec![created(50, 2), batch(51, 3, vec![two])]);
    }
    a_watch_of_the_future_waits: Build::dense(), |h| {
        two_puts(h);
        h.put(4..5, 4, "a", "3");
        let third = was_put(kv("a", "3", 2, 4, 3));
        watch(h, Asked { start_revision: 4, ..on("a") }, vec![created(1, 2), batch(6, 4, vec![third])]);
    }
    two_halves_on_two_members: Build::dense(), |h| {
        let (one, two) = two_puts(h);
        watch(h, on("a"), vec![created(1, 1), batch(2, 2, vec![one])]);
        watch(h, Asked { start_revision: 3, ..on("a") }, vec![created(7, 1), batch(8, 3, vec![two])]);
    }
    progress_is_older_than_the_last_event: Build::dense(), |h| {
        let (one, two) = two_puts(h);
        watch(h, on("a"), vec![batch(6, 3, vec![one, two]), batch(7, 2, vec![]), batch(7, 3, vec![])]);
    }
    progress_without_events: Build::dense(), |h| {
        two_puts(h);
        watch(h, on("b"), vec![created(1, 1), batch(6, 3, vec![])]);
    }
    puts_are_left_out: Build::dense(), |h| {
        two_puts(h);
        h.delete(4..5, 4, "a", 1);
        watch(h, Asked { no_put: true, ..on("a") }, vec![batch(6, 4, vec![was_deleted("a", 4)])]);
    }
    a_revision_of_many_keys: Build::dense(), |h| {
        let (one, two) = both(h);
        let response = Response::DeleteRange { deleted: 2, prev_kvs: vec![] };
        h.done(2..3, 3, Request::DeleteRange(delete_prefix("a/")), response);
        let gone = vec![was_deleted("a/1", 3), was_deleted("a/2", 3)];
        watch(h, on_all(), vec![batch(5, 2, vec![one, two]), batch(6, 3, gone)]);
    }
    pairs_before_are_shown: Build::dense(), |h| {
        let (one, _) = two_puts(h);
        h.delete(4..5, 4, "a", 1);
        let two = was_replaced(kv("a", "2", 2, 3, 2), kv("a", "1", 2, 2, 1));
        let gone = Event::Delete { key: "a".into(), mod_revision: 4, prev_kv: Some(kv("a", "2", 2, 3, 2)) };
        watch(h, Asked { prev_kv: true, ..on("a") }, vec![batch(6, 4, vec![one, two, gone])]);
    }
    a_pair_before_is_compacted: Build::dense(), |h| {
        let (_, two) = two_puts(h);
        h.compact(4..5, 3, 3);
        watch(h, Asked { prev_kv: true, start_revision: 3, ..on("a") }, vec![batch(6, 3, vec![two])]);
    }
    a_watch_at_the_floor_gets_its_events: Build::dense(), |h| {
        h.put(0..1, 2, "a", "1");
        h.delete(2..3, 3, "a", 1);
        h.compact(4..5, 3, 3);
        watch(h, Asked { start_revision: 3, ..on("a") }, vec![created(6, 3), batch(7, 3, vec![was_deleted("a", 3)])]);
    }
    a_watch_below_the_floor_ends: Build::dense(), |h| {
        two_puts(h);
        h.compact(4..5, 3, 3);
        watch(h, on("a"), vec![created(6, 3), compacted(6, 3)]);
    }
    a_watch_is_overtaken_by_a_compaction: Build::dense(), |h| {
        let (one, _) = two_puts(h);
        h.put(4..5, 4, "a", "3");
        h.compact(6..7, 4, 4);
        watch(h, on("a"), vec![created(1, 1), batch(2, 2, vec![one]), compacted(9, 4)]);
    }
    a_watch_ends_for_a_compaction_of_unknown_outcome: Build::dense(), |h| {
        two_puts(h);
        let request = Request::Compact(check::history::Compact { revision: 3 });
        h.add(4..4, request, Outcome::Unknown).returned = None;
        watch(h, on("a"), vec![created(6, 3), compacted(7, 3)]);
    }
    a_watch_ends_with_words: Build::dense(), |h| {
        let end = WatchBatch { cancelled: Some("etcdserver: no leader".to_owned()), ..batch(5, 0, vec![]) };
        watch(h, on("a"), vec![created(1, 1), end]);
    }
    a_lost_write_is_delivered: Build::rising(), |h| {
        h.lost_put(0, "a", "1");
        watch(h, on("a"), vec![batch(5, 7, vec![was_put(kv("a", "1", 7, 7, 1))])]);
    }
    a_lost_delete_of_a_range_is_delivered: Build::rising(), |h| {
        h.put(0..1, 2, "a/1", "1");
        let range = prefix("a/");
        let delete = DeleteRange { key: range.key, range_end: range.range_end, prev_kv: false };
        h.add(2..2, Request::DeleteRange(delete), Outcome::Unknown).returned = None;
        let one = was_put(kv("a/1", "1", 2, 2, 1));
        watch(h, on_all(), vec![batch(5, 9, vec![one, was_deleted("a/1", 9)])]);
    }
    a_lease_ends_and_its_keys_with_it: Build::dense(), |h| {
        leased_pair(h);
        h.expired(9_000_000_000..9_000_000_000, 4, &[7]);
        let one = was_put(KeyValue { lease: 7, ..kv("a/1", "1", 2, 2, 1) });
        let two = was_put(KeyValue { lease: 7, ..kv("a/2", "1", 3, 3, 1) });
        let gone = vec![was_deleted("a/1", 4), was_deleted("a/2", 4)];
        let batches = vec![batch(5, 3, vec![one, two]), batch(9_000_000_001, 4, gone)];
        h.done(0..9_000_000_009, 1, Request::Watch(on_all()), Response::Watch { batches });
    }
}

#[test]
fn a_watch_beside_writes_nobody_recorded_is_judged_by_itself() {
    let mut built = Build::rising();
    let h = &mut built;
    h.put(0..1, 20, "a", "1");
    h.put(2..3, 40, "a", "2");
    let events = vec![was_put(kv("a", "1", 20, 20, 1)), was_put(kv("a", "2", 20, 40, 2))];
    watch(h, on("a"), vec![created(1, 10), batch(5, 41, events), batch(6, 90, vec![])]);
    let property: Property = Watch;
    built.legal_for(property);
}
