//! What a watch promises, each promise apart: etcd's nine, and three more. And a broken record for each.

use std::collections::BTreeSet;

use base::Revision;
use mvcc::{Event, EventKind, KeyValue};
use node::watch::ResponseKind;

use crate::record::{Record, Truth};

pub(crate) type Predicate = fn(&Record, &Truth) -> Result<(), String>;

/// All of them.
pub(crate) const PREDICATES: &[(&str, Predicate)] = &[
    ("filter", filter),
    ("ordered", ordered),
    ("unique", unique),
    ("atomic", atomic),
    ("bookmarkable", bookmarkable),
    ("resumable", resumable),
    ("is-create", is_create),
    ("reliable", reliable),
    ("prev-kv", prev_kv),
    ("start", start),
    ("announced", announced),
    ("ended", ended),
];

fn ensure(holds: bool, reason: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(reason()) }
}

fn revision(event: &Event) -> Revision {
    event.kv.mod_revision
}

/// Only what was asked for.
fn filter(record: &Record, _: &Truth) -> Result<(), String> {
    record.events().try_for_each(|event| {
        let fits = record.span.contains(&event.kv.key) && record.wants(event.kind);
        ensure(fits, || format!("nobody asked for {event:?}"))
    })
}

/// Revisions ascend.
fn ordered(record: &Record, _: &Truth) -> Result<(), String> {
    let revisions: Vec<_> = record.events().map(revision).collect();
    revisions.windows(2).try_for_each(|pair| ensure(pair[0] <= pair[1], || format!("{} after {}", pair[1], pair[0])))
}

/// No event twice.
fn unique(record: &Record, _: &Truth) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    record.events().try_for_each(|event| {
        let fresh = seen.insert((revision(event), event.kv.key.clone()));
        ensure(fresh, || format!("twice: {event:?}"))
    })
}

/// A revision comes in one message.
fn atomic(record: &Record, _: &Truth) -> Result<(), String> {
    let mut before = BTreeSet::new();
    record.batches().try_for_each(|events| {
        let here: BTreeSet<_> = events.iter().map(revision).collect();
        let torn = here.iter().find(|revision| before.contains(*revision)).copied();
        before.extend(here);
        ensure(torn.is_none(), || format!("revision {torn:?} is torn apart"))
    })
}

/// When progress says a revision, everything up to it has been sent, and nothing up to it follows. It never says less
/// than what was sent: a client that keeps the last revision it heard of would go back.
fn bookmarkable(record: &Record, truth: &Truth) -> Result<(), String> {
    let wanted = truth.of_interest(record);
    let (mut told, mut sent, mut last) = (Revision(0), 0, Revision(0));
    for (at, kind) in &record.messages {
        match kind {
            ResponseKind::Events { events, .. } => {
                sent += events.len();
                last = events.last().map_or(last, revision);
                let late = events.iter().find(|event| revision(event) <= told);
                ensure(late.is_none(), || format!("{late:?} after progress {told}"))?;
            }
            ResponseKind::Progress => {
                ensure(*at >= told.max(last), || format!("progress {at} after {last}"))?;
                told = *at;
                let due = wanted.iter().filter(|(revision, _)| revision <= at).count();
                ensure(sent >= due, || format!("progress {at} after {sent} of {due} events"))?;
                let is_early = *at < record.create.start || at.0 + 1 < record.start.0;
                ensure(!is_early, || format!("progress {at} of a watch that starts at {}", record.start))?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// The first event is the first one at or behind the start.
fn resumable(record: &Record, truth: &Truth) -> Result<(), String> {
    let wanted = truth.of_interest(record).first().map(|(revision, event)| (*revision, event.kv.key.clone()));
    let Some(first) = record.events().next() else { return Ok(()) };
    let found = Some((revision(first), first.kv.key.clone()));
    ensure(found == wanted, || format!("begins with {found:?} and not with {wanted:?}"))
}

/// A key is created by the event that says so, and by no other.
fn is_create(record: &Record, truth: &Truth) -> Result<(), String> {
    record.events().filter(|event| event.kind == EventKind::Put).try_for_each(|event| {
        let says = event.kv.create_revision == event.kv.mod_revision;
        let known = find(truth, event).map(|real| real.prev_kv.is_none());
        ensure(known == Some(says), || format!("says created: {says}, is created: {known:?}: {event:?}"))
    })
}

fn find<'a>(truth: &'a Truth, event: &Event) -> Option<&'a Event> {
    let change = truth.changes.iter().find(|change| change.revision == revision(event))?;
    change.events.iter().find(|real| real.kv.key == event.kv.key)
}

/// No gap, and what is said is what happened.
fn reliable(record: &Record, truth: &Truth) -> Result<(), String> {
    let wanted = truth.of_interest(record);
    let found: Vec<_> = record.events().collect();
    for (at, event) in found.iter().enumerate() {
        let real = wanted.get(at).map(|(_, real)| real);
        let same = real.is_some_and(|real| real.kind == event.kind && real.kv == event.kv);
        ensure(same, || format!("event {at} should be {real:?}, it is {event:?}"))?;
    }
    let may_miss = record.has_ended() || !record.complete;
    ensure(may_miss || found.len() == wanted.len(), || format!("{} events of {}", found.len(), wanted.len()))
}

/// The pair before is the one that was there; it may be missing if it was compacted.
fn prev_kv(record: &Record, truth: &Truth) -> Result<(), String> {
    record.events().try_for_each(|event| {
        let real = find(truth, event).and_then(|real| real.prev_kv.clone());
        let is_compacted = revision(event).0 - 1 < truth.floor.0;
        let fits = match &event.prev_kv {
            Some(_) => record.create.prev_kv && event.prev_kv == real,
            None => !record.create.prev_kv || real.is_none() || is_compacted,
        };
        ensure(fits, || format!("before it was {real:?}: {event:?}"))
    })
}

/// Nothing from before the start.
fn start(record: &Record, _: &Truth) -> Result<(), String> {
    let early = record.events().find(|event| revision(event) < record.start);
    ensure(early.is_none(), || format!("starts at {}: {early:?}", record.start))
}

/// The first message, and only the first, says that the watch stands.
fn announced(record: &Record, _: &Truth) -> Result<(), String> {
    let created = |kind: &ResponseKind| *kind == ResponseKind::Created;
    let places: Vec<_> = (0..record.messages.len()).filter(|at| created(&record.messages[*at].1)).collect();
    ensure(record.messages.is_empty() || places == [0], || format!("announced at {places:?}"))
}

/// Nothing follows the end.
fn ended(record: &Record, _: &Truth) -> Result<(), String> {
    let ends = |kind: &ResponseKind| matches!(kind, ResponseKind::Cancelled | ResponseKind::Compacted(_));
    let end = record.messages.iter().position(|(_, kind)| ends(kind));
    ensure(end.is_none_or(|at| at + 1 == record.messages.len()), || format!("goes on after its end at {end:?}"))
}

/// A record in which everything is right.
fn sound() -> (Record, Truth) {
    use mvcc::{Change, Span};
    use node::watch::Create;
    let kv = |key: &'static str, create: i64, modified: i64, version: i64| KeyValue {
        key: key.into(),
        create_revision: Revision(create),
        mod_revision: Revision(modified),
        version,
        ..KeyValue::default()
    };
    let put = |kv| Event { kind: EventKind::Put, kv, prev_kv: None };
    let deleted = KeyValue { key: "a".into(), mod_revision: Revision(5), ..KeyValue::default() };
    let happened = [
        (2, vec![put(kv("a", 2, 2, 1))]),
        (3, vec![put(kv("a", 2, 3, 2)), put(kv("b", 3, 3, 1))]),
        (4, vec![put(kv("a", 2, 4, 3))]),
        (5, vec![Event { kind: EventKind::Delete, kv: deleted, prev_kv: None }]),
    ];
    let mut truth = Truth::default();
    for (revision, events) in happened {
        truth.add(&Change { revision: Revision(revision), events });
    }
    let message = |at: usize| {
        let change = &truth.changes[at];
        (change.revision, ResponseKind::Events { events: change.events.clone(), fragment: false })
    };
    let messages = vec![
        (Revision(4), ResponseKind::Created),
        message(1),
        message(2),
        (Revision(4), ResponseKind::Progress),
        message(3),
    ];
    let create = Create { prev_kv: true, start: Revision(3), ..Create::default() };
    (Record { create, span: Span::all(), start: Revision(3), messages, complete: true }, truth)
}

fn events(record: &mut Record, at: usize) -> &mut Vec<Event> {
    match &mut record.messages[at].1 {
        ResponseKind::Events { events, .. } => events,
        other => panic!("no events in {other:?}"),
    }
}

#[test]
fn every_predicate_accepts_what_is_right_and_refuses_what_it_is_for() {
    type Break = fn(&mut Record);
    let broken: &[(&str, Break)] = &[
        ("filter", |record| record.span = mvcc::Span::Key("b".into())),
        ("filter", |record| record.create.skip_deletes = true),
        ("ordered", |record| record.messages.swap(1, 2)),
        ("unique", |record| record.messages.insert(2, record.messages[1].clone())),
        ("atomic", |record| {
            let second = events(record, 1).split_off(1);
            let torn = ResponseKind::Events { events: second, fragment: false };
            record.messages.insert(2, (Revision(3), torn));
        }),
        ("bookmarkable", |record| record.messages[3].0 = Revision(5)),
        ("bookmarkable", |record| record.messages.swap(2, 3)),
        ("bookmarkable", |record| record.messages[3].0 = Revision(3)),
        ("resumable", |record| drop(record.messages.remove(1))),
        ("is-create", |record| events(record, 1)[1].kv.create_revision = Revision(2)),
        ("reliable", |record| drop(record.messages.remove(2))),
        ("reliable", |record| drop(record.messages.pop())),
        ("reliable", |record| events(record, 2)[0].kv.version = 9),
        ("prev-kv", |record| events(record, 2)[0].prev_kv = None),
        ("prev-kv", |record| record.create.prev_kv = false),
        ("start", |record| record.start = Revision(4)),
        ("announced", |record| drop(record.messages.remove(0))),
        ("ended", |record| record.messages.insert(2, (Revision(4), ResponseKind::Cancelled))),
    ];
    for (name, predicate) in PREDICATES {
        let (record, truth) = sound();
        assert_eq!(predicate(&record, &truth), Ok(()), "{name}");
        let mut bites = broken.iter().filter(|(of, _)| of == name).peekable();
        assert!(bites.peek().is_some(), "{name} has never been seen to refuse anything");
        for (_, spoil) in bites {
            let (mut record, truth) = sound();
            spoil(&mut record);
            assert!(predicate(&record, &truth).is_err(), "{name} accepts {record:#?}");
        }
    }
}
