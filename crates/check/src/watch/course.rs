//! One watch by itself: the order of what it delivered, and whether it asked for that.
//!
//! Invariant: looks at nothing but the watch, and at the compactions that were asked for.

use std::collections::BTreeSet;

use crate::history::{Bytes, Event, History, Numbering, Operation, Outcome, Request, Revision, Watch, WatchBatch};
use crate::span::Span;
use crate::verdict::Impossible;

/// A watch whose order is right.
pub(super) struct Course<'a> {
    pub(super) operation: &'a Operation,
    pub(super) watch: &'a Watch,
    /// What was delivered, with the time of it, by revision and key.
    pub(super) events: Vec<(u64, &'a Event)>,
    seen: BTreeSet<(Revision, &'a Bytes)>,
    /// The first revision it has to deliver, if that is known.
    pub(super) start: Option<Revision>,
    /// The revision of the last event.
    last: Revision,
    /// What the last progress spoke of.
    told: Revision,
    has_ended: bool,
}

impl<'a> Course<'a> {
    pub(super) fn follow(
        history: &History,
        operation: &'a Operation,
        watch: &'a Watch,
        batches: &'a [WatchBatch],
    ) -> Result<Self, Impossible> {
        let start = (watch.start_revision > 0).then_some(watch.start_revision);
        let (events, seen) = (Vec::new(), BTreeSet::new());
        let mut course = Self { operation, watch, events, seen, start, last: 0, told: 0, has_ended: false };
        for (at, batch) in batches.iter().enumerate() {
            if course.has_ended {
                return Err(course.wrong("cancel", format!("a batch of revision {} follows the end", batch.revision)));
            }
            if batch.created {
                course.created(at, batch)?;
            }
            course.deliver(batch)?;
            if batch.is_end() {
                course.end(history, batch)?;
            } else if batch.events.is_empty() && !batch.created {
                course.progress(batch.revision)?;
            }
        }
        Ok(course)
    }

    /// How many events there were.
    pub(super) fn events(&self) -> usize {
        self.events.len()
    }

    /// Whether this event was delivered.
    pub(super) fn has(&self, revision: Revision, key: &Bytes) -> bool {
        self.seen.contains(&(revision, key))
    }

    /// Whether it asked for puts or deletes of this key.
    pub(super) fn wants(&self, key: &[u8], is_put: bool) -> bool {
        let kind = if is_put { !self.watch.no_put } else { !self.watch.no_delete };
        kind && Span::new(&self.watch.key, &self.watch.range_end).contains(key)
    }

    /// The revisions of which it must have delivered everything; nothing if nobody can say.
    pub(super) fn covered(&self) -> Option<std::ops::RangeInclusive<Revision>> {
        let first = self.start.or_else(|| self.events.first().map(|(_, event)| event.revision()))?;
        let until = self.last.max(self.told);
        (first <= until).then_some(first..=until)
    }

    pub(super) fn wrong(&self, predicate: &str, what: String) -> Impossible {
        Impossible::new(format!("not {predicate}: {what}"), [self.operation.id])
    }

    fn created(&mut self, at: usize, batch: &WatchBatch) -> Result<(), Impossible> {
        if at > 0 {
            return Err(self.wrong("ordered", "something came before the watch was said to stand".to_owned()));
        }
        // From now on: behind the revision that the server had then.
        self.start = self.start.or(Some(batch.revision + 1));
        Ok(())
    }

    fn deliver(&mut self, batch: &'a WatchBatch) -> Result<(), Impossible> {
        let before = self.last;
        for event in &batch.events {
            let (key, revision) = (event.key(), event.revision());
            if !self.wants(key, matches!(event, Event::Put { .. })) {
                return Err(self.wrong("filter", format!("{key} at revision {revision} was not asked for")));
            }
            if let Some(start) = self.start.filter(|start| revision < *start) {
                let what = format!("{key} at revision {revision}, but the watch starts at revision {start}");
                return Err(self.wrong("start", what));
            }
            if !self.seen.insert((revision, key)) {
                return Err(self.wrong("unique", format!("{key} at revision {revision} was delivered twice")));
            }
            if revision < self.last {
                let what = format!("{key} at revision {revision} comes after revision {}", self.last);
                return Err(self.wrong("ordered", what));
            }
            if revision == before {
                return Err(self.wrong("atomic", format!("revision {revision} came in two batches")));
            }
            if revision <= self.told {
                let what = format!("{key} at revision {revision} comes after progress {}", self.told);
                return Err(self.wrong("bookmarkable", what));
            }
            if revision > batch.revision {
                let what = format!("{key} at revision {revision} comes from a node at revision {}", batch.revision);
                return Err(self.wrong("true", what));
            }
            self.last = revision;
            self.events.push((batch.at, event));
        }
        Ok(())
    }

    fn progress(&mut self, revision: Revision) -> Result<(), Impossible> {
        if revision < self.told {
            return Err(self.wrong("bookmarkable", format!("progress goes back from {} to {revision}", self.told)));
        }
        self.told = revision;
        Ok(())
    }

    /// The server ended the watch: because something is gone that it needs, or with words.
    fn end(&mut self, history: &History, batch: &WatchBatch) -> Result<(), Impossible> {
        self.has_ended = true;
        let floor = batch.compact_revision;
        if floor == 0 {
            let is_said = batch.cancelled.as_ref().is_some_and(|reason| !reason.is_empty());
            return if is_said { Ok(()) } else { Err(self.wrong("cancel", "it ended without a reason".to_owned())) };
        }
        let next = self.start.unwrap_or(0).max(self.last + 1).max(self.told + 1);
        if floor <= next {
            let what = format!("it ended for compaction {floor}, and needed nothing below revision {next}");
            return Err(self.wrong("cancel", what));
        }
        if history.header.numbering == Numbering::Dense && !was_asked(history, floor, batch.at) {
            return Err(self.wrong("cancel", format!("it ended for compaction {floor}, which nobody asked for")));
        }
        Ok(())
    }
}

fn was_asked(history: &History, floor: Revision, at: u64) -> bool {
    compactions(history, at).any(|revision| revision == floor)
}

/// Compactions that may have happened before `at`.
pub(super) fn compactions(history: &History, at: u64) -> impl Iterator<Item = Revision> {
    history.operations.iter().filter_map(move |operation| match &operation.request {
        Request::Compact(compact)
            if operation.invoked <= at && !matches!(operation.outcome, Outcome::Failed { .. }) =>
        {
            Some(compact.revision)
        }
        _ => None,
    })
}
