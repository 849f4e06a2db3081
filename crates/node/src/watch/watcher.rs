//! One watch: what it wants and how far it is.
//!
//! Invariant: no event below `next` will be sent any more, and every event of interest from `next` on will be.

use std::collections::VecDeque;

use base::Revision;
use mvcc::{Change, Event, EventKind, Span};

use super::{Create, StreamId};

#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) stream: StreamId,
    /// Its number on the stream.
    pub(super) id: i64,
    pub(super) span: Span,
    skip_puts: bool,
    skip_deletes: bool,
    pub(super) prev_kv: bool,
    pub(super) fragment: bool,
    pub(super) progress_notify: bool,
    /// No events since the last time progress was due.
    pub(super) quiet: bool,
    /// The revision from which on there is progress to tell: the one that was asked for, or that of the creation.
    pub(super) start: Revision,
    /// The first revision that may be sent.
    pub(super) next: Revision,
    pub(super) place: Place,
    /// It stands in its stream's queue.
    pub(super) queued: bool,
}

/// Where a watcher gets its events from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Each applied change is matched with it. These revisions concern it and have not been sent; bounded.
    Current(VecDeque<Revision>),
    /// It reads on from `next`, when its client has room.
    Behind,
    /// The host reads a page of history for it, from `next` on.
    Reading,
}

impl Watcher {
    pub(super) fn new(stream: StreamId, id: i64, span: Span, create: &Create, next: Revision) -> Self {
        Self {
            stream,
            id,
            span,
            skip_puts: create.skip_puts,
            skip_deletes: create.skip_deletes,
            prev_kv: create.prev_kv,
            fragment: create.fragment,
            progress_notify: create.progress_notify,
            quiet: true,
            start: if create.start.0 == 0 { Revision(next.0 - 1) } else { create.start },
            next,
            place: Place::Current(VecDeque::new()),
            queued: false,
        }
    }

    /// Whether an event of its keys is one it wants.
    pub(super) fn wants(&self, kind: EventKind) -> bool {
        match kind {
            EventKind::Put => !self.skip_puts,
            EventKind::Delete => !self.skip_deletes,
        }
    }

    /// The events of a change that it wants, as it wants them.
    pub(super) fn select(&self, change: &Change) -> impl Iterator<Item = Event> {
        let wanted = |event: &&Event| self.span.contains(&event.kv.key) && self.wants(event.kind);
        change.events.iter().filter(wanted).map(|event| Event {
            kind: event.kind,
            kv: event.kv.clone(),
            prev_kv: if self.prev_kv { event.prev_kv.clone() } else { None },
        })
    }

    /// Everything of interest up to here has been sent, `current` being how far changes have been taken in.
    pub(super) fn sent_through(&self, current: Revision) -> Revision {
        let before_next = Revision(self.next.0 - 1);
        match &self.place {
            Place::Current(pending) => match pending.front() {
                Some(first) => Revision(first.0 - 1),
                None => before_next.max(current),
            },
            Place::Behind | Place::Reading => before_next,
        }
    }
}
