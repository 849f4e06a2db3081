//! The order and the numbers of answers, each rule by itself.

use std::sync::Arc;
use std::time::Duration;

use base::{Instant, Revision};
use mvcc::{Change, Event, EventBudget, EventKind, EventPage, KeyValue, State};
use node::watch::{Config, Create, Hub, NO_WATCH, Next, PageRead, Refused, Response, ResponseKind, StreamId};

const STREAM: StreamId = StreamId(1);
const INTERVAL: Duration = Duration::from_secs(600);

fn hub() -> Hub {
    let budget = EventBudget { events_max: 100, bytes_max: 10_000 };
    let mut hub = Hub::new(Config {
        progress_interval: INTERVAL,
        watchers_per_stream_max: 3,
        recent_bytes_max: 100_000,
        pending_max: 4,
        budget,
        seed: 1,
    });
    hub.open(STREAM, Instant(0));
    hub
}

fn at(revision: i64) -> State {
    State { revision: Revision(revision), compacted: Revision(3), keys: 0 }
}

fn watch(key: &'static str, range_end: &'static str, start: i64) -> Create {
    Create { key: key.into(), range_end: range_end.into(), start: Revision(start), ..Create::default() }
}

fn put(key: &'static str, revision: i64) -> Event {
    let kv = KeyValue { key: key.into(), mod_revision: Revision(revision), ..KeyValue::default() };
    Event { kind: EventKind::Put, kv, prev_kv: None }
}

/// One more revision, in which these keys are put.
fn apply(hub: &mut Hub, revision: i64, keys: &[&'static str]) {
    let events = keys.iter().map(|key| put(key, revision)).collect();
    let change = Arc::new(Change { revision: Revision(revision), events });
    hub.applied(Revision(revision - 1), Revision(revision), Some(&[change]));
}

fn drain(hub: &mut Hub) -> Vec<(i64, i64, ResponseKind)> {
    let mut found = Vec::new();
    while let Next::Response(Response { id, revision, kind }) = hub.next(STREAM) {
        found.push((id, revision.0, kind));
    }
    found
}

fn events(events: &[Event]) -> ResponseKind {
    ResponseKind::Events { events: events.to_vec(), fragment: false }
}

#[test]
fn watches_are_numbered_from_zero_and_chosen_numbers_are_kept() {
    let mut hub = hub();
    hub.create(STREAM, &watch("a", "", 0), &at(9));
    hub.create(STREAM, &Create { id: 1, ..watch("b", "", 0) }, &at(9));
    hub.create(STREAM, &watch("c", "", 0), &at(9));
    let numbers: Vec<_> = drain(&mut hub).into_iter().map(|(id, ..)| id).collect();
    assert_eq!(numbers, [0, 1, 2]);
}

#[test]
fn what_makes_no_sense_is_refused_and_the_stream_goes_on() {
    let mut hub = hub();
    hub.create(STREAM, &Create { id: 7, ..watch("a", "", 0) }, &at(9));
    hub.create(STREAM, &Create { id: 7, ..watch("a", "", 0) }, &at(9));
    hub.create(STREAM, &watch("b", "b", 0), &at(9));
    hub.create(STREAM, &watch("b", "a", 0), &at(9));
    hub.create(STREAM, &watch("b", "", -1), &at(9));
    hub.create(STREAM, &Create { key: vec![b'k'; 32_001].into(), ..Create::default() }, &at(9));
    hub.create(STREAM, &watch("", "\0", 0), &at(9));
    hub.create(STREAM, &watch("a", "", 0), &at(9));
    hub.create(STREAM, &watch("a", "", 0), &at(9));
    let refused = |why| (NO_WATCH, 9, ResponseKind::Refused(why));
    let expected = [
        (7, 9, ResponseKind::Created),
        refused(Refused::DuplicateId),
        refused(Refused::EmptyRange),
        refused(Refused::EmptyRange),
        refused(Refused::NegativeStart),
        refused(Refused::KeyTooLong),
        (0, 9, ResponseKind::Created),
        (1, 9, ResponseKind::Created),
        refused(Refused::TooManyOnStream),
    ];
    assert_eq!(drain(&mut hub), expected);
}

#[test]
fn a_watch_from_now_on_gets_each_revision_whole() {
    let mut hub = hub();
    hub.create(STREAM, &watch("a", "c", 0), &at(9));
    drain(&mut hub);
    apply(&mut hub, 10, &["a", "b", "c"]);
    assert_eq!(drain(&mut hub), [(0, 10, events(&[put("a", 10), put("b", 10)]))]);
    apply(&mut hub, 11, &["c"]);
    assert!(hub.take_woken().contains(&STREAM));
    assert_eq!(drain(&mut hub), []);
    apply(&mut hub, 12, &["c"]);
    assert!(hub.take_woken().is_empty(), "a change of somebody else's keys wakes nobody");
}

#[test]
fn an_ended_watch_is_answered_once_and_an_unknown_one_not_at_all() {
    let mut hub = hub();
    hub.create(STREAM, &watch("a", "", 0), &at(9));
    apply(&mut hub, 10, &["a"]);
    hub.cancel(STREAM, 0, Revision(10));
    hub.cancel(STREAM, 0, Revision(10));
    hub.cancel(STREAM, 5, Revision(10));
    assert_eq!(drain(&mut hub), [(0, 9, ResponseKind::Created), (0, 10, ResponseKind::Cancelled)]);
}

#[test]
fn a_start_below_the_floor_is_announced_and_ended_at_the_floor() {
    let mut hub = hub();
    hub.create(STREAM, &watch("a", "", 2), &at(9));
    assert_eq!(drain(&mut hub), [(0, 9, ResponseKind::Created), (0, 0, ResponseKind::Compacted(Revision(3)))]);
    assert_eq!(hub.counts().watchers, 0);
}

fn read(hub: &mut Hub) -> PageRead {
    match hub.next(STREAM) {
        Next::Read(read) => read,
        other => panic!("no read but {other:?}"),
    }
}

fn page(changes: Vec<Change>, next: i64, current: i64) -> EventPage {
    EventPage { changes, next: Revision(next), current: Revision(current) }
}

#[test]
fn the_past_comes_from_history_and_joins_the_present_without_a_seam() {
    let mut hub = hub();
    hub.create(STREAM, &watch("a", "", 3), &at(9));
    assert!(matches!(hub.next(STREAM), Next::Response(Response { kind: ResponseKind::Created, .. })));
    let first = read(&mut hub);
    assert_eq!(first.query.from, Revision(3));
    assert_eq!(hub.next(STREAM), Next::Wait);
    // The engine is ahead of what was handed out: revision 10 is in the page and comes again as a change.
    let changes = vec![Change { revision: Revision(10), events: vec![put("a", 10)] }];
    hub.page(STREAM, first.watcher, Ok(page(changes, 11, 10)));
    assert_eq!(drain(&mut hub), [(0, 10, events(&[put("a", 10)]))]);
    apply(&mut hub, 10, &["a"]);
    apply(&mut hub, 11, &["a"]);
    assert_eq!(drain(&mut hub), [(0, 11, events(&[put("a", 11)]))]);
}

#[test]
fn history_that_is_compacted_meanwhile_ends_the_watch() {
    let mut hub = hub();
    hub.create(STREAM, &watch("a", "", 4), &at(9));
    assert!(matches!(hub.next(STREAM), Next::Response(_)));
    let first = read(&mut hub);
    hub.page(STREAM, first.watcher, Err(Revision(6)));
    assert_eq!(drain(&mut hub), [(0, 0, ResponseKind::Compacted(Revision(6)))]);
    assert_eq!(hub.counts().slow_watchers, 0);
}

#[test]
fn one_page_is_read_at_a_time_and_cancelled_readers_hold_up_nobody() {
    let mut hub = hub();
    for _ in 0..3 {
        hub.create(STREAM, &watch("a", "", 4), &at(9));
    }
    for _ in 0..3 {
        assert!(matches!(hub.next(STREAM), Next::Response(_)));
    }
    let first = read(&mut hub);
    assert_eq!(hub.next(STREAM), Next::Wait);
    hub.cancel(STREAM, 1, Revision(9));
    drain(&mut hub);
    hub.page(STREAM, first.watcher, Ok(page(Vec::new(), 10, 9)));
    let third = read(&mut hub);
    assert_ne!(third.watcher, first.watcher, "the third watch has its turn");
}

#[test]
fn a_reader_cancelled_when_its_turn_has_come_holds_up_nobody() {
    let mut hub = hub();
    for _ in 0..3 {
        hub.create(STREAM, &watch("a", "", 4), &at(9));
    }
    for _ in 0..3 {
        assert!(matches!(hub.next(STREAM), Next::Response(_)));
    }
    let first = read(&mut hub);
    assert_eq!(hub.next(STREAM), Next::Wait);
    hub.page(STREAM, first.watcher, Ok(page(Vec::new(), 10, 9)));
    hub.cancel(STREAM, 1, Revision(9));
    assert!(matches!(hub.next(STREAM), Next::Response(Response { kind: ResponseKind::Cancelled, .. })));
    let third = read(&mut hub);
    hub.page(STREAM, third.watcher, Ok(page(Vec::new(), 10, 9)));
    assert_eq!(hub.next(STREAM), Next::Wait);
    assert_eq!(hub.counts().slow_watchers, 0, "everybody has caught up");
}

#[test]
fn progress_is_told_after_the_events_it_speaks_of() {
    let mut hub = hub();
    hub.create(STREAM, &watch("a", "", 0), &at(9));
    drain(&mut hub);
    apply(&mut hub, 10, &["a"]);
    // The store is at 11 already; the change has not arrived.
    hub.progress(STREAM, Revision(11));
    assert_eq!(drain(&mut hub), [(0, 10, events(&[put("a", 10)]))]);
    apply(&mut hub, 11, &["a"]);
    assert_eq!(drain(&mut hub), [(0, 11, events(&[put("a", 11)])), (NO_WATCH, 11, ResponseKind::Progress)]);
}

#[test]
fn progress_asked_ahead_of_the_changes_wakes_the_stream_when_they_come() {
    let mut hub = hub();
    hub.create(STREAM, &watch("a", "", 0), &at(9));
    drain(&mut hub);
    hub.take_woken();
    hub.progress(STREAM, Revision(10));
    assert_eq!(drain(&mut hub), []);
    apply(&mut hub, 10, &["somebody else's"]);
    assert!(hub.take_woken().contains(&STREAM));
    assert_eq!(drain(&mut hub), [(NO_WATCH, 10, ResponseKind::Progress)]);
}

#[test]
fn progress_is_never_behind_what_was_sent() {
    let mut hub = hub();
    hub.create(STREAM, &watch("a", "", 3), &at(9));
    assert!(matches!(hub.next(STREAM), Next::Response(Response { kind: ResponseKind::Created, .. })));
    let read = read(&mut hub);
    hub.progress(STREAM, Revision(9));
    // The engine was ahead of the changes.
    let changes = vec![Change { revision: Revision(10), events: vec![put("a", 10)] }];
    hub.page(STREAM, read.watcher, Ok(page(changes, 11, 10)));
    assert_eq!(drain(&mut hub), [(0, 10, events(&[put("a", 10)]))]);
    apply(&mut hub, 10, &["a"]);
    assert_eq!(drain(&mut hub), [(NO_WATCH, 10, ResponseKind::Progress)]);
}

#[test]
fn progress_comes_although_there_are_always_new_events() {
    let mut hub = hub();
    hub.create(STREAM, &watch("a", "", 0), &at(9));
    hub.create(STREAM, &watch("a", "c", 0), &at(9));
    drain(&mut hub);
    apply(&mut hub, 10, &["a"]);
    hub.progress(STREAM, Revision(10));
    let mut sent = Vec::new();
    for revision in 11..15 {
        apply(&mut hub, revision, &["a"]);
        let Next::Response(Response { id, revision, .. }) = hub.next(STREAM) else { panic!("nothing after {sent:?}") };
        sent.push((id, revision.0));
    }
    assert_eq!(sent[..3], [(0, 10), (1, 10), (NO_WATCH, 10)], "then those that waited go on: {sent:?}");
    assert_eq!(drain(&mut hub).iter().map(|(id, ..)| *id).collect::<Vec<_>>(), [1]);
}

#[test]
fn a_watch_of_the_future_gets_no_progress_and_nothing_older() {
    let mut hub = hub();
    hub.create(STREAM, &Create { progress_notify: true, ..watch("a", "", 12) }, &at(9));
    drain(&mut hub);
    hub.progress(STREAM, Revision(9));
    hub.tick(Instant(0) + INTERVAL + INTERVAL);
    apply(&mut hub, 10, &["a"]);
    apply(&mut hub, 11, &["a"]);
    assert_eq!(drain(&mut hub), []);
    apply(&mut hub, 12, &["a"]);
    assert_eq!(drain(&mut hub), [(0, 12, events(&[put("a", 12)]))]);
}

#[test]
fn a_stream_without_watches_gets_no_progress() {
    let mut hub = hub();
    hub.progress(STREAM, Revision(9));
    assert_eq!(drain(&mut hub), []);
}

#[test]
fn periodic_progress_comes_only_to_those_who_asked_and_saw_nothing() {
    let mut hub = hub();
    hub.create(STREAM, &Create { progress_notify: true, ..watch("a", "", 0) }, &at(9));
    hub.create(STREAM, &Create { progress_notify: true, ..watch("b", "", 0) }, &at(9));
    hub.create(STREAM, &watch("c", "", 0), &at(9));
    apply(&mut hub, 10, &["b"]);
    drain(&mut hub);
    let mut now = Instant(0) + INTERVAL;
    hub.tick(now);
    assert_eq!(drain(&mut hub), [], "an interval has up to a tenth more");
    now = now + INTERVAL / 10;
    hub.tick(now);
    assert_eq!(drain(&mut hub), [(0, 10, ResponseKind::Progress)]);
    hub.tick(now + INTERVAL + INTERVAL / 10);
    assert_eq!(drain(&mut hub), [(0, 10, ResponseKind::Progress), (1, 10, ResponseKind::Progress)]);
}

#[test]
fn an_answer_about_progress_does_not_fall_behind_a_notice() {
    let mut hub = hub();
    hub.create(STREAM, &Create { progress_notify: true, ..watch("a", "", 0) }, &at(9));
    drain(&mut hub);
    hub.create(STREAM, &watch("b", "", 4), &at(9));
    assert!(matches!(hub.next(STREAM), Next::Response(Response { kind: ResponseKind::Created, .. })));
    let read = read(&mut hub);
    hub.progress(STREAM, Revision(9));
    apply(&mut hub, 10, &["somebody else's"]);
    hub.tick(Instant(0) + INTERVAL + INTERVAL / 10);
    assert_eq!(drain(&mut hub), [(0, 10, ResponseKind::Progress)]);
    hub.page(STREAM, read.watcher, Ok(page(vec![], 10, 9)));
    assert_eq!(drain(&mut hub), [(NO_WATCH, 10, ResponseKind::Progress)], "the first watch was told 10 already");
}

#[test]
fn a_watch_that_does_not_keep_up_costs_no_more_than_its_cursor() {
    let mut hub = hub();
    hub.create(STREAM, &watch("a", "", 0), &at(9));
    drain(&mut hub);
    for revision in 10..1010 {
        apply(&mut hub, revision, &["a"]);
        assert!(hub.counts().pending <= 4, "{:?}", hub.counts());
    }
    assert_eq!(hub.counts().slow_watchers, 1);
    // What was dropped from memory is read from history; the rest is still there.
    let read = read(&mut hub);
    assert_eq!(read.query.from, Revision(10));
    let old = (10..900).map(|at| Change { revision: Revision(at), events: vec![put("a", at)] }).collect();
    hub.page(STREAM, read.watcher, Ok(page(old, 900, 1009)));
    let sent = drain(&mut hub);
    let count: usize = sent
        .iter()
        .map(|(.., kind)| if let ResponseKind::Events { events, .. } = kind { events.len() } else { 0 })
        .sum();
    assert_eq!(count, 1000);
    assert_eq!(hub.counts().slow_watchers, 0);
}
