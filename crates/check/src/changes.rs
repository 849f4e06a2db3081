//! What is known to have been written at each revision, for the checkers of watches, leases and locks.
//!
//! Invariant: what is said here follows from acknowledged writes alone. While the history accounts for every revision
//! ([`Changes::whole_until`]) it is everything there is to know; beyond, it is what the answers prove by themselves.

use std::collections::BTreeMap;
use std::ops::RangeBounds;

use crate::history::{
    Bytes, DeleteRange, History, KeyValue, Numbering, Op, Operation, Put, Request, Response, Revision, Txn,
};
use crate::replay::timeline::modifies;
use crate::span::Span;
use crate::store::{Store, pair};

/// What one revision did.
#[derive(Debug)]
pub(crate) struct Change<'a> {
    /// Whose doing it was.
    pub(crate) writer: &'a Operation,
    /// What is known of the keys.
    pub(crate) keys: BTreeMap<Bytes, After>,
    /// Whether no other key was changed.
    pub(crate) is_whole: bool,
}

/// What a revision left of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct After {
    /// The value and lease of a put, as far as known; nothing after a delete.
    pub(crate) put: Option<(Option<Bytes>, Option<i64>)>,
    /// The pairs after and before, where everything is known.
    pub(crate) exact: Option<(Option<KeyValue>, Option<KeyValue>)>,
}

/// All that is known.
#[derive(Debug, Default)]
pub(crate) struct Changes<'a> {
    by_revision: BTreeMap<Revision, Change<'a>>,
    /// The known changes of each key, in order.
    by_key: BTreeMap<Bytes, Vec<Revision>>,
    /// Up to here every revision is accounted for.
    pub(crate) whole_until: Revision,
}

impl<'a> Changes<'a> {
    pub(crate) fn new(history: &'a History) -> Self {
        let mut writers: Vec<(Revision, &Operation)> = history.operations.iter().filter_map(writer).collect();
        writers.sort_by_key(|(revision, operation)| (*revision, ends(operation)));
        let mut changes = Self { whole_until: history.header.start_revision, ..Self::default() };
        let is_dense = history.header.numbering == Numbering::Dense;
        let mut store = Store::default();
        for (revision, writer) in writers {
            if is_dense && revision <= changes.whole_until + 1 {
                changes.replay(&mut store, revision, writer);
            } else if !ends(writer) {
                changes.derive(revision, writer);
            }
        }
        for (revision, change) in &changes.by_revision {
            for key in change.keys.keys() {
                changes.by_key.entry(key.clone()).or_default().push(*revision);
            }
        }
        changes
    }

    /// Everything before is known, and so is what this did.
    fn replay(&mut self, store: &mut Store, revision: Revision, writer: &'a Operation) {
        if revision <= self.whole_until && !ends(writer) {
            // Two writes at one revision: somebody else's business.
            return;
        }
        let mark = store.mark();
        let done = store.apply(&writer.request, revision).is_ok_and(|answer| answer.modified);
        if !done || revision <= self.whole_until {
            return;
        }
        let mut keys = BTreeMap::new();
        for (key, before) in store.changed_since(mark) {
            let after = store.get(key);
            let before = before.as_ref().map(|stored| pair(key, stored));
            let put = after.map(|stored| (Some(stored.value.clone()), Some(stored.lease)));
            let exact = Some((after.map(|stored| pair(key, stored)), before));
            keys.insert(key.clone(), After { put, exact });
        }
        self.by_revision.insert(revision, Change { writer, keys, is_whole: true });
        self.whole_until = revision;
    }

    /// What the request and its answer say by themselves.
    fn derive(&mut self, revision: Revision, writer: &'a Operation) {
        let mut change = Change { writer, keys: BTreeMap::new(), is_whole: true };
        match (&writer.request, writer.response()) {
            (Request::Put(put), _) => change.put(put),
            (Request::DeleteRange(delete), Some(response)) => change.delete(delete, response),
            (Request::Txn(txn), Some(response)) => change.txn(txn, response),
            _ => change.is_whole = false,
        }
        self.by_revision.entry(revision).or_insert(change);
    }

    pub(crate) fn at(&self, revision: Revision) -> Option<&Change<'a>> {
        self.by_revision.get(&revision)
    }

    /// Known changes of a range of revisions.
    pub(crate) fn range(
        &self,
        revisions: impl RangeBounds<Revision>,
    ) -> impl DoubleEndedIterator<Item = (Revision, &Change<'a>)> {
        self.by_revision.range(revisions).map(|(revision, change)| (*revision, change))
    }

    /// The last known change of a key before a revision.
    pub(crate) fn before(&self, key: &Bytes, revision: Revision) -> Option<(Revision, &After)> {
        let revisions = self.by_key.get(key)?;
        let at = *revisions[..revisions.partition_point(|known| *known < revision)].last()?;
        Some((at, &self.by_revision[&at].keys[key]))
    }

    /// The first revision known to have ended the key that was created at a revision, and whose doing it was.
    pub(crate) fn end(&self, key: &Bytes, created: Revision) -> Option<(Revision, u64)> {
        let revisions = self.by_key.get(key)?;
        let later = &revisions[revisions.partition_point(|known| *known <= created)..];
        let changes = later.iter().map(|at| (*at, &self.by_revision[at]));
        let mut ends = changes.filter(|(_, change)| change.keys[key].put.is_none());
        ends.next().map(|(at, change)| (at, change.writer.id))
    }

    /// What is known of a key at exactly this revision.
    pub(crate) fn of(&self, key: &Bytes, revision: Revision) -> Option<&After> {
        self.by_revision.get(&revision)?.keys.get(key)
    }
}

/// The revision of an operation that changed something, or ended leases, which may have.
fn writer(operation: &Operation) -> Option<(Revision, &Operation)> {
    let revision = operation.revision()?;
    (modifies(operation) || ends(operation)).then_some((revision, operation))
}

fn ends(operation: &Operation) -> bool {
    matches!(&operation.request, Request::Lease(lease) if !lease.ended().is_empty())
}

impl Change<'_> {
    fn put(&mut self, put: &Put) {
        let value = (!put.ignore_value).then(|| put.value.clone());
        let lease = (!put.ignore_lease).then_some(put.lease);
        self.keys.insert(put.key.clone(), After { put: Some((value, lease)), exact: None });
    }

    fn delete(&mut self, delete: &DeleteRange, response: &Response) {
        let Response::DeleteRange { deleted, prev_kvs } = response else { return };
        let gone = || After { put: None, exact: None };
        match Span::new(&delete.key, &delete.range_end) {
            Span::Key(key) if *deleted > 0 => drop(self.keys.insert(key.clone(), gone())),
            Span::Key(_) => {}
            Span::Range(..) | Span::From(_) => {
                self.keys.extend(prev_kvs.iter().map(|pair| (pair.key.clone(), gone())));
                self.is_whole &= prev_kvs.len() as i64 == *deleted;
            }
        }
    }

    fn txn(&mut self, txn: &Txn, response: &Response) {
        let Response::Txn { succeeded, responses } = response else { return };
        for (op, response) in if *succeeded { &txn.success } else { &txn.failure }.iter().zip(responses) {
            match op {
                Op::Range(_) => {}
                Op::Put(put) => self.put(put),
                Op::DeleteRange(delete) => self.delete(delete, response),
                Op::Txn(nested) => self.txn(nested, response),
            }
        }
    }
}
