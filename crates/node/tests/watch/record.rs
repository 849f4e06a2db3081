//! What one watch was promised and sent, and what really happened.

use std::collections::BTreeMap;

use base::Revision;
use bytes::Bytes;
use mvcc::{Change, Event, EventKind, KeyValue, Span};
use node::watch::{Create, ResponseKind};

/// Everything that happened, from the first revision on.
#[derive(Debug, Default, Clone)]
pub(crate) struct Truth {
    /// Ascending. Events have their pair before, whatever was compacted.
    pub(crate) changes: Vec<Change>,
    /// The compaction floor at the end.
    pub(crate) floor: Revision,
    pub(crate) keys: BTreeMap<Bytes, KeyValue>,
}

impl Truth {
    /// Adds what the state machine says happened; the pair before is worked out here, from what was there.
    pub(crate) fn add(&mut self, change: &Change) {
        let before = self.keys.clone();
        let mut events = Vec::new();
        for event in &change.events {
            let key = event.kv.key.clone();
            events.push(Event { prev_kv: before.get(&key).cloned(), ..event.clone() });
            match event.kind {
                EventKind::Put => drop(self.keys.insert(key, event.kv.clone())),
                EventKind::Delete => drop(self.keys.remove(&key)),
            }
        }
        self.changes.push(Change { revision: change.revision, events });
    }

    /// The events that a watch should see, with their revisions.
    pub(crate) fn of_interest(&self, record: &Record) -> Vec<(Revision, Event)> {
        let wanted = |event: &&Event| record.span.contains(&event.kv.key) && record.wants(event.kind);
        let changes = self.changes.iter().filter(|change| change.revision >= record.start);
        changes.flat_map(|change| change.events.iter().filter(wanted).map(|e| (change.revision, e.clone()))).collect()
    }
}

/// One watch.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) create: Create,
    pub(crate) span: Span,
    /// The first revision it should see.
    pub(crate) start: Revision,
    /// What it was sent, with the header's revision. Progress of the whole stream is noted for each of its watches.
    pub(crate) messages: Vec<(Revision, ResponseKind)>,
    /// Everything was drained at the end, so nothing may be missing.
    pub(crate) complete: bool,
}

impl Record {
    pub(crate) fn wants(&self, kind: EventKind) -> bool {
        match kind {
            EventKind::Put => !self.create.skip_puts,
            EventKind::Delete => !self.create.skip_deletes,
        }
    }

    /// The events of each message.
    pub(crate) fn batches(&self) -> impl Iterator<Item = &Vec<Event>> {
        self.messages.iter().filter_map(|(_, kind)| match kind {
            ResponseKind::Events { events, .. } => Some(events),
            _ => None,
        })
    }

    /// All events.
    pub(crate) fn events(&self) -> impl Iterator<Item = &Event> {
        self.batches().flatten()
    }

    pub(crate) fn has_ended(&self) -> bool {
        let ends = |kind: &ResponseKind| matches!(kind, ResponseKind::Cancelled | ResponseKind::Compacted(_));
        self.messages.iter().any(|(_, kind)| ends(kind))
    }
}
