//! The writes of one command: rows into the overlay, events for watches.
//!
//! Invariant: everything a command writes carries one revision, one above the state's; the state moves only in
//! [`Writer::finish`], and only if something was written.

use base::{Fault, LeaseId, Revision};
use bytes::Bytes;

use crate::budget::Budget;
use crate::command::{DeleteRange, Put};
use crate::engine::View;
use crate::keys::{self, Rank};
use crate::lease;
use crate::outcome::{Change, DeleteResult, Event, EventKind, KeyValue};
use crate::range::{ReadError, stored_bytes};
use crate::reject::Reject;
use crate::rows::{self, Header};
use crate::scan;
use crate::span::Span;
use crate::staged::Staged;
use crate::state::State;
use crate::txn::needs_existing;

/// The writes of one command in the making.
pub(crate) struct Writer<'a> {
    staged: &'a mut Staged,
    state: &'a mut State,
    revision: i64,
    /// Events so far; the next one gets this sub number.
    sub: u32,
    /// Collected only when a watch wants them.
    events: Option<Vec<Event>>,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(staged: &'a mut Staged, state: &'a mut State, keep_events: bool) -> Self {
        let revision = state.revision.0 + 1;
        Self { staged, state, revision, sub: 0, events: keep_events.then(Vec::new) }
    }

    pub(crate) fn view(&self) -> &Staged {
        self.staged
    }

    /// The state as the next operation sees it: already at the new revision once something was written.
    pub(crate) fn state(&self) -> State {
        let revision = if self.sub == 0 { self.state.revision } else { Revision(self.revision) };
        State { revision, ..*self.state }
    }

    /// Writes a pair; answers with the one it replaced if that is asked for and fits.
    /// Refuses before anything is staged.
    pub(crate) fn put(&mut self, put: &Put, budget: &mut Budget) -> Result<Option<KeyValue>, ReadError> {
        // One allocation holds everything that is written, as slices: current row, event row, history key.
        let mut buffer = Vec::with_capacity(3 * put.key.len() + put.value.len() + 96);
        keys::write_current(&mut buffer, &put.key);
        let key_end = buffer.len();
        let replaced = self.staged.get(&buffer)?;
        if replaced.is_none() && needs_existing(put) {
            return Err(Reject::KeyNotFound.into());
        }
        let old = match &replaced {
            Some(row) => Some((rows::read_header(row)?, row)),
            None => None,
        };
        let header = Header {
            create: old.map_or(self.revision, |(header, _)| header.create),
            modified: self.revision,
            version: old.map_or(0, |(header, _)| header.version) + 1,
            lease: if put.ignore_lease { old.map_or(put.lease, |(header, _)| header.lease) } else { put.lease },
            value_at: 0,
        };
        match old {
            Some((header_old, row)) if put.ignore_value => {
                rows::write_version(&mut buffer, &header, &row[header_old.value_at..]);
            }
            _ => rows::write_version(&mut buffer, &header, &put.value),
        }
        let row_end = buffer.len();
        keys::write_event(&mut buffer, self.revision, self.sub);
        let event_key_end = buffer.len();
        rows::write_event(&mut buffer, EventKind::Put, old.map_or(0, |(header, _)| header.modified), &put.key);
        let event_end = buffer.len();
        if let Some((header, _)) = old {
            keys::write_history(&mut buffer, &put.key, header.modified, self.rank(&header));
        }
        let buffer = Bytes::from(buffer);
        let row = buffer.slice(key_end..row_end);

        let old_lease = old.map_or(LeaseId(0), |(header, _)| header.lease);
        let prev = old.map(|(header, row)| (header, row.clone()));
        let mut answer = None;
        let want_prev = put.prev_kv && budget.is_open();
        if want_prev || self.events.is_some() {
            let prev_kv = prev.as_ref().map(|(header, row)| rows::key_value(put.key.clone(), header, row));
            if let Some(events) = &mut self.events {
                let kv = rows::read_version(put.key.clone(), &row)?;
                events.push(Event { kind: EventKind::Put, kv, prev_kv: prev_kv.clone() });
            }
            answer = prev_kv.filter(|kv| want_prev && budget.take(stored_bytes(kv)));
        }
        match prev {
            Some((_, row)) => self.staged.put(buffer.slice(event_end..), row),
            None => self.state.keys += 1,
        }
        self.attach(&put.key, old_lease, header.lease);
        self.staged.put(buffer.slice(..key_end), row);
        self.staged.put(buffer.slice(row_end..event_key_end), buffer.slice(event_key_end..event_end));
        self.sub += 1;
        Ok(answer)
    }

    /// Moves a key from one lease to another; 0 is none.
    fn attach(&mut self, key: &[u8], from: LeaseId, to: LeaseId) {
        if from == to {
            return;
        }
        if from.0 != 0 {
            self.staged.delete(keys::attachment(from, key).into());
        }
        if to.0 != 0 {
            self.staged.put(keys::attachment(to, key).into(), Bytes::from_static(rows::ATTACHED));
        }
    }

    /// Deletes all keys that are attached to a lease, in key order; answers with their number.
    pub(crate) fn delete_attached(&mut self, id: LeaseId) -> Result<usize, Fault> {
        let keys = lease::attached(self.staged, id, usize::MAX)?.expect("no bound on the bytes");
        let count = keys.len();
        for key in keys {
            let row = scan::point(self.staged, &key, None)?;
            let header = row.as_ref().map(|row| rows::read_header(row)).transpose()?;
            match (row, header) {
                (Some(row), Some(header)) if header.lease == id => self.delete(key, &header, row)?,
                _ => {
                    let detail = format!("{key:?} is attached to it and does not know it");
                    return Err(Fault::Corrupt { place: format!("lease {}", id.0), detail });
                }
            }
        }
        Ok(count)
    }

    /// Deletes all keys of a range; answers with their number, and with the pairs if they are asked for and fit.
    pub(crate) fn delete_range(&mut self, delete: &DeleteRange, budget: &mut Budget) -> Result<DeleteResult, Fault> {
        let span = &Span::new(&delete.key, &delete.range_end);
        let mut found = Vec::new();
        if let Span::Key(key) = span {
            found.extend(scan::point(self.staged, key, None)?.map(|row| (key.clone(), row)));
        } else {
            let (from, to) = keys::current_bounds(span);
            for row in self.staged.scan(from, to) {
                let (row_key, row) = row?;
                found.push((keys::user_key(&row_key), row));
            }
        }
        let deleted = found.len() as i64;
        let mut prev_kvs = Vec::new();
        for (key, row) in found {
            let header = rows::read_header(&row)?;
            if delete.prev_kv && budget.is_open() {
                let kv = rows::key_value(key.clone(), &header, &row);
                if budget.take(stored_bytes(&kv)) {
                    prev_kvs.push(kv);
                }
            }
            self.delete(key, &header, row)?;
        }
        Ok(DeleteResult { deleted, prev_kvs })
    }

    fn delete(&mut self, key: Bytes, header: &Header, row: Bytes) -> Result<(), Fault> {
        if self.events.is_some() {
            let prev_kv = self.before_this_revision(&key, header, &row)?;
            let kv = KeyValue { key: key.clone(), mod_revision: Revision(self.revision), ..KeyValue::default() };
            self.events.get_or_insert_default().push(Event { kind: EventKind::Delete, kv, prev_kv });
        }
        self.staged.put(keys::history(&key, header.modified, self.rank(header)).into(), row);
        self.staged
            .put(keys::history(&key, self.revision, Rank::Tombstone).into(), Bytes::from_static(rows::TOMBSTONE));
        self.staged.delete(keys::current(&key).into());
        self.attach(&key, header.lease, LeaseId(0));
        let mut event = Vec::with_capacity(key.len() + 11);
        rows::write_event(&mut event, EventKind::Delete, header.modified, &key);
        self.staged.put(keys::event(self.revision, self.sub).into(), event.into());
        assert!(self.state.keys > 0, "deleted {key:?} from a store without keys");
        self.state.keys -= 1;
        self.sub += 1;
        Ok(())
    }

    /// The pair as a watcher knew it: events report the state one revision before, not one operation before.
    fn before_this_revision(&self, key: &Bytes, header: &Header, row: &Bytes) -> Result<Option<KeyValue>, Fault> {
        if header.modified < self.revision {
            return Ok(Some(rows::key_value(key.clone(), header, row)));
        }
        let row = scan::point(self.staged, key, Some(self.revision - 1))?;
        row.map(|row| rows::read_version(key.clone(), &row)).transpose()
    }

    /// Under which rank a version is put away when this command replaces it.
    fn rank(&self, header: &Header) -> Rank {
        assert!(header.modified <= self.revision, "version {} is newer than {}", header.modified, self.revision);
        if header.modified == self.revision { Rank::Transient } else { Rank::Version }
    }

    /// Moves the clock if anything was written.
    pub(crate) fn finish(self) -> Option<Change> {
        if self.sub == 0 {
            return None;
        }
        self.state.revision = Revision(self.revision);
        self.events.map(|events| Change { revision: Revision(self.revision), events })
    }
}
