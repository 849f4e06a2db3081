//! What watches say happened, against what was written and against each other.
//!
//! Invariant: an event that no acknowledged write explains is taken for true if some write of unknown outcome may
//! explain it, and then every other watch must agree.

use std::collections::BTreeMap;

use super::course::{Course, compactions};
use crate::changes::{After, Changes};
use crate::fleeting::Fleeting;
use crate::history::{Bytes, Event, History, KeyValue, Numbering, Op, Operation, Outcome, Request, Revision, Txn};
use crate::span::Span;
use crate::verdict::Impossible;

/// All that is known and said.
pub(super) struct Claims<'a> {
    history: &'a History,
    changes: &'a Changes<'a>,
    fleeting: Fleeting<'a>,
    /// Said and not known otherwise, with who said so first.
    said: BTreeMap<(Revision, Bytes), (&'a Event, u64)>,
}

impl<'a> Claims<'a> {
    pub(super) fn new(history: &'a History, changes: &'a Changes<'a>) -> Self {
        Self { history, changes, fleeting: Fleeting::of(history), said: BTreeMap::new() }
    }

    /// Judges each event by itself, and remembers what it says.
    pub(super) fn take_in(&mut self, course: &Course<'a>) -> Result<(), Impossible> {
        for (at, event) in &course.events {
            self.is_true(course, *at, event)?;
            self.says_itself(course, event)?;
            self.knows_before(course, *at, event)?;
        }
        Ok(())
    }

    /// It was written so.
    fn is_true(&mut self, course: &Course<'a>, at: u64, event: &'a Event) -> Result<(), Impossible> {
        let (key, revision) = (event.key(), event.revision());
        let wrong = |what: String, other: Option<u64>| Impossible {
            operations: std::iter::once(course.operation.id).chain(other).collect(),
            ..course.wrong("true", what)
        };
        let Some(change) = self.changes.at(revision) else { return self.is_said(course, at, event) };
        let writer = Some(change.writer.id);
        if at < change.writer.invoked {
            return Err(wrong(format!("{key} at revision {revision} came before it was asked for"), writer));
        }
        match change.keys.get(key) {
            Some(after) if agrees(event, after) => Ok(()),
            Some(_) => Err(wrong(format!("{key} at revision {revision} was written otherwise"), writer)),
            None if change.is_whole => Err(wrong(format!("revision {revision} did not touch {key}"), writer)),
            None => Ok(()),
        }
    }

    /// Nobody was told that this revision was written.
    fn is_said(&mut self, course: &Course<'a>, at: u64, event: &'a Event) -> Result<(), Impossible> {
        let (key, revision) = (event.key(), event.revision());
        if revision <= self.changes.whole_until && self.history.header.numbering == Numbering::Dense {
            return Err(course.wrong("true", format!("{key} at revision {revision}, where nothing was written")));
        }
        let may_write = |operation: &&Operation| operation.invoked <= at && may_cause(operation, event);
        let is_unseen = match event {
            Event::Delete { key, .. } => self.fleeting.contains(key),
            Event::Put { kv, .. } => self.fleeting.may_join(&kv.key, kv.lease, at),
        };
        if !is_unseen && !self.history.operations.iter().any(|operation| may_write(&operation)) {
            return Err(course.wrong("true", format!("{key} at revision {revision}: no operation writes that")));
        }
        let (first, by) = *self.said.entry((revision, key.clone())).or_insert((event, course.operation.id));
        if same(first, event) {
            return Ok(());
        }
        let what = format!("two watches disagree on {key} at revision {revision}");
        Err(Impossible { operations: vec![course.operation.id, by], ..course.wrong("true", what) })
    }

    /// A put that creates has version 1, and no other has.
    fn says_itself(&self, course: &Course<'a>, event: &Event) -> Result<(), Impossible> {
        let Event::Put { kv, .. } = event else { return Ok(()) };
        let KeyValue { key, create_revision, mod_revision, version, .. } = kv;
        let creates = create_revision == mod_revision;
        if creates != (*version == 1) || create_revision > mod_revision {
            let what = format!("{key} at revision {mod_revision} with create {create_revision} and version {version}");
            return Err(course.wrong("is-create", what));
        }
        // Only of a key that was not touched in between is the past certain.
        let before =
            self.changes.range(..*mod_revision).rev().find_map(|(at, change)| Some((at, change.keys.get(key)?)));
        if let Some((at, after)) = before
            && let Some(wrong) = contradiction(kv, at, after)
        {
            return Err(course.wrong("is-create", format!("{key} at revision {mod_revision} {wrong}")));
        }
        Ok(())
    }

    /// The pair before is the one that was there, and missing only if it may be.
    fn knows_before(&self, course: &Course<'a>, at: u64, event: &Event) -> Result<(), Impossible> {
        let (key, revision, before) = (event.key(), event.revision(), event.before());
        let wrong = |what: &str| Err(course.wrong("prev-kv", format!("{key} at revision {revision} {what}")));
        let creates = matches!(event, Event::Put { kv, .. } if kv.create_revision == kv.mod_revision);
        if before.is_some() && (creates || !course.watch.prev_kv) {
            return wrong(if creates { "is new, and shows a pair before" } else { "shows the pair before unasked" });
        }
        if !course.watch.prev_kv || creates {
            return Ok(());
        }
        let Some(before) = before else {
            let may_be_gone = self.history.header.numbering == Numbering::Rising
                || compactions(self.history, at).any(|floor| floor >= revision);
            return if may_be_gone { Ok(()) } else { wrong("does not show the pair before") };
        };
        if before.key != *key || before.mod_revision >= revision {
            return wrong("shows another pair as the one before");
        }
        if let Event::Put { kv, .. } = event
            && (kv.create_revision, kv.version) != (before.create_revision, before.version + 1)
        {
            return wrong("does not follow the pair it shows as the one before");
        }
        if self.changes.before(key, revision).is_some_and(|(at, _)| at > before.mod_revision) {
            return wrong("shows an older pair than the one before");
        }
        let known = self.changes.of(key, before.mod_revision);
        let shown = Event::Put { kv: before.clone(), prev_kv: None };
        let exact = self.changes.of(key, revision).and_then(|after| after.exact.as_ref());
        if known.is_some_and(|known| !agrees(&shown, known))
            || exact.is_some_and(|exact| exact.1.as_ref() != Some(before))
        {
            return wrong("shows a pair that was not there");
        }
        Ok(())
    }

    /// Everything from the start to what was delivered last, or told to be, is there.
    pub(super) fn nothing_is_missing(&self, course: &Course<'_>) -> Result<(), Impossible> {
        let Some(covered) = course.covered() else { return Ok(()) };
        for (revision, change) in self.changes.range(covered.clone()) {
            for (key, after) in &change.keys {
                if course.wants(key, after.put.is_some()) && !course.has(revision, key) {
                    return Err(missing(course, revision, key, change.writer.id));
                }
            }
        }
        let (from, until) = (*covered.start(), *covered.end());
        for ((revision, key), (event, by)) in self.said.range((from, Bytes::default())..(until + 1, Bytes::default())) {
            if course.wants(key, matches!(event, Event::Put { .. })) && !course.has(*revision, key) {
                return Err(missing(course, *revision, key, *by));
            }
        }
        Ok(())
    }
}

fn missing(course: &Course<'_>, revision: Revision, key: &Bytes, other: u64) -> Impossible {
    let delivered = |event: &Event| event.revision();
    let predicate = match course.events.first().map(|(_, event)| delivered(event)) {
        Some(_) if course.events.iter().any(|(_, event)| delivered(event) == revision) => "atomic",
        Some(first) if first < revision => "reliable",
        Some(_) => "resumable",
        None => "reliable",
    };
    let what = format!("{key} at revision {revision} was not delivered");
    Impossible { operations: vec![course.operation.id, other], ..course.wrong(predicate, what) }
}

/// Whether an event says what is known.
fn agrees(event: &Event, after: &After) -> bool {
    match (event, &after.put) {
        (Event::Delete { .. }, None) => true,
        (Event::Put { kv, .. }, Some((value, lease))) => {
            value.as_ref().is_none_or(|value| *value == kv.value)
                && lease.is_none_or(|lease| lease == kv.lease)
                && after.exact.as_ref().is_none_or(|exact| exact.0.as_ref() == Some(kv))
        }
        (Event::Put { .. }, None) | (Event::Delete { .. }, Some(_)) => false,
    }
}

/// Whether two events say the same, whatever they show of before.
fn same(one: &Event, two: &Event) -> bool {
    match (one, two) {
        (Event::Put { kv: one, .. }, Event::Put { kv: two, .. }) => one == two,
        (Event::Delete { .. }, Event::Delete { .. }) => true,
        (Event::Put { .. }, Event::Delete { .. }) | (Event::Delete { .. }, Event::Put { .. }) => false,
    }
}

/// What is wrong with a put after a known change of its key, with perhaps others in between.
fn contradiction(kv: &KeyValue, at: Revision, after: &After) -> Option<&'static str> {
    let is_new = kv.create_revision > at;
    match (&after.put, &after.exact) {
        (None, _) if !is_new => Some("goes on with a key that was deleted"),
        (Some(_), Some((Some(known), _))) if !is_new => {
            let follows = kv.create_revision == known.create_revision && kv.version > known.version;
            (!follows).then_some("does not follow what was there")
        }
        _ => None,
    }
}

/// Whether an operation of which nobody knows may have caused an event. Says yes when in doubt.
fn may_cause(operation: &Operation, event: &Event) -> bool {
    if operation.outcome != Outcome::Unknown {
        return false;
    }
    match (&operation.request, event) {
        (Request::Put(put), Event::Put { kv, .. }) => put.key == kv.key && (put.ignore_value || put.value == kv.value),
        (Request::DeleteRange(delete), Event::Delete { key, .. }) => {
            Span::new(&delete.key, &delete.range_end).contains(key)
        }
        (Request::Txn(txn), event) => txn_may_cause(txn, event),
        _ => false,
    }
}

fn txn_may_cause(txn: &Txn, event: &Event) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match (op, event) {
        (Op::Put(put), Event::Put { kv, .. }) => put.key == kv.key && (put.ignore_value || put.value == kv.value),
        (Op::DeleteRange(delete), Event::Delete { key, .. }) => Span::new(&delete.key, &delete.range_end).contains(key),
        (Op::Txn(nested), event) => txn_may_cause(nested, event),
        (Op::Range(_) | Op::Put(_) | Op::DeleteRange(_), _) => false,
    })
}
