//! What happened since a revision, for watches that start in the past.
//!
//! Invariant: a page holds whole revisions, in order, without gaps; what it shows does not depend on the sweep.

use base::{Fault, Revision};
use bytes::Bytes;

use crate::engine::View;
use crate::keys::{self, Rank};
use crate::outcome::{Change, Event, EventKind, KeyValue};
use crate::range::ReadError;
use crate::reject::Reject;
use crate::rows::{self, EventRow};
use crate::scan;
use crate::span::Span;
use crate::state::state;

/// Which events are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventQuery {
    /// The keys of interest.
    pub span: Span,
    /// The first revision.
    pub from: Revision,
    /// Whether events carry the pair before.
    pub prev_kv: bool,
}

/// How much one page may hold. Both are looked at between revisions only, so a page exceeds them by up to one revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventBudget {
    /// Events to look at, of interest or not.
    pub events_max: usize,
    /// Stored bytes of keys and values to return.
    pub bytes_max: usize,
}

/// A piece of history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventPage {
    /// What happened, ascending; revisions without events of interest are left out.
    pub changes: Vec<Change>,
    /// The first revision this page says nothing about: where the next one starts.
    pub next: Revision,
    /// The current revision; the page is the last one when `next` lies above it.
    pub current: Revision,
}

/// The events from `query.from` on. Starting at the floor is allowed, below it is [`Reject::Compacted`].
pub fn events(view: &dyn View, query: &EventQuery, budget: EventBudget) -> Result<EventPage, ReadError> {
    let state = state(view)?;
    if query.from < state.compacted {
        return Err(Reject::Compacted.into());
    }
    let mut page =
        EventPage { changes: Vec::new(), next: query.from.max(state.revision_after()), current: state.revision };
    if query.from > state.revision {
        return Ok(page);
    }
    let (from, to) = keys::event_bounds(query.from.0, 0, state.revision.0);
    let (mut seen, mut bytes) = (0usize, 0usize);
    let mut revision_seen = None;
    for found in view.scan(from, to) {
        let (row_key, row) = found?;
        let (revision, _) = keys::read_event(&row_key)?;
        if revision_seen != Some(revision) {
            if seen >= budget.events_max.max(1) || bytes >= budget.bytes_max.max(1) {
                page.next = revision;
                break;
            }
            revision_seen = Some(revision);
        }
        seen += 1;
        let event = rows::read_event(&row)?;
        if !query.span.contains(&event.key) {
            continue;
        }
        let event = complete(view, revision, event, query.prev_kv, state.compacted)?;
        bytes += event.kv.key.len() + event.kv.value.len() + event.prev_kv.as_ref().map_or(0, |kv| kv.value.len());
        match page.changes.last_mut() {
            Some(change) if change.revision == revision => change.events.push(event),
            _ => page.changes.push(Change { revision, events: vec![event] }),
        }
    }
    Ok(page)
}

/// Adds the pairs to an event row.
fn complete(
    view: &dyn View,
    revision: Revision,
    row: EventRow,
    want_prev: bool,
    compacted: Revision,
) -> Result<Event, Fault> {
    let kv = match row.kind {
        EventKind::Put => put_pair(view, revision, &row.key)?,
        EventKind::Delete => KeyValue { key: row.key.clone(), mod_revision: revision, ..KeyValue::default() },
    };
    // The pair before is the state one revision earlier, and that state must still be readable: whether the sweep
    // has already come by must not show.
    let created = row.kind == EventKind::Put && row.replaced == 0;
    let prev_kv = if !want_prev || created || revision.0 - 1 < compacted.0 {
        None
    } else if row.replaced < revision.0 {
        let found = view.get(&keys::history(&row.key, row.replaced, Rank::Version))?;
        Some(rows::read_version(row.key.clone(), &found.ok_or_else(|| missing(&row.key, row.replaced))?)?)
    } else {
        let found = scan::point(view, &row.key, Some(revision.0 - 1))?;
        found.map(|found| rows::read_version(row.key.clone(), &found)).transpose()?
    };
    Ok(Event { kind: row.kind, kv, prev_kv })
}

/// The pair that was put at `revision`: current, superseded since, or replaced within its own revision.
fn put_pair(view: &dyn View, revision: Revision, key: &Bytes) -> Result<KeyValue, Fault> {
    if let Some(row) = view.get(&keys::current(key))? {
        let header = rows::read_header(&row)?;
        if header.modified == revision.0 {
            return Ok(rows::key_value(key.clone(), &header, &row));
        }
    }
    for rank in [Rank::Version, Rank::Transient] {
        if let Some(row) = view.get(&keys::history(key, revision.0, rank))? {
            return rows::read_version(key.clone(), &row);
        }
    }
    Err(missing(key, revision.0))
}

fn missing(key: &Bytes, revision: i64) -> Fault {
    Fault::Corrupt { place: format!("history of {key:?}"), detail: format!("no version of revision {revision}") }
}
