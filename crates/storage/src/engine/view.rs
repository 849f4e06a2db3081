//! Snapshots of a tree.

use std::ops::Bound;
use std::sync::Arc;

use base::Fault;
use bytes::Bytes;
use lsm_tree::{AbstractTree, Guard, InternalValue, SeqNo, Slice, Tree};
use mvcc::engine::{Scan, View, bounds_cross};

use super::store::{ROW_KEY_BYTES_MAX, Store};

type Rows = Box<dyn DoubleEndedIterator<Item = lsm_tree::Result<InternalValue>>>;

/// A row's bytes leave the tree as a copy: the tree's own slice would keep the whole block around it in memory.
pub(super) fn copy(slice: &Slice) -> Bytes {
    Bytes::copy_from_slice(slice)
}

/// A view by number: the tree keeps the row versions it needs.
struct NumberedView {
    store: Arc<Store>,
    seqno: SeqNo,
}

impl Store {
    /// A snapshot of everything published.
    pub(super) fn view(self: Arc<Self>) -> impl View {
        let seqno = self.open_snapshot();
        NumberedView { store: self, seqno }
    }

    /// A snapshot that holds on to the files and memtables themselves instead of a number.
    pub(super) fn pinned_view(self: Arc<Self>) -> impl View {
        let seqno = self.open_snapshot();
        let version = self.tree().get_version_history_lock().get_version_for_snapshot(seqno);
        self.close_snapshot(seqno);
        let range = move |from: Bound<Bytes>, to: Bound<Bytes>| -> Rows {
            Box::new(Tree::create_internal_range(version.clone(), &(from, to), seqno, None))
        };
        PinnedView { store: self, range: Box::new(range) }
    }
}

impl Drop for NumberedView {
    fn drop(&mut self) {
        self.store.close_snapshot(self.seqno);
    }
}

impl View for NumberedView {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        if key.is_empty() || key.len() > ROW_KEY_BYTES_MAX {
            return Ok(None);
        }
        if let Some(row) = self.store.recent.get(key, self.seqno) {
            return Ok(row);
        }
        let row = self.store.tree().get(key, self.seqno).map_err(|error| self.store.fault("read", &error))?;
        let row = row.map(|value| copy(&value));
        self.store.recent.found(key, self.seqno, row.as_ref());
        Ok(row)
    }

    fn scan<'a>(&'a self, from: Bound<Bytes>, to: Bound<Bytes>) -> Scan<'a> {
        if bounds_cross(&from, &to) {
            return Box::new(std::iter::empty());
        }
        let rows = self.store.tree().range((from, to), self.seqno, None);
        Box::new(rows.map(|guard| match guard.into_inner() {
            Ok((key, value)) => Ok((copy(&key), copy(&value))),
            Err(error) => Err(self.store.fault("read", &error)),
        }))
    }
}

struct PinnedView {
    store: Arc<Store>,
    range: Box<dyn Fn(Bound<Bytes>, Bound<Bytes>) -> Rows + Send>,
}

impl View for PinnedView {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        let key = Bytes::copy_from_slice(key);
        let mut rows = self.scan(Bound::Included(key.clone()), Bound::Included(key));
        rows.next().transpose().map(|row| row.map(|(_, value)| value))
    }

    fn scan<'a>(&'a self, from: Bound<Bytes>, to: Bound<Bytes>) -> Scan<'a> {
        if bounds_cross(&from, &to) {
            return Box::new(std::iter::empty());
        }
        Box::new((self.range)(from, to).map(|row| match row {
            Ok(row) => Ok((copy(&row.key.user_key), copy(&row.value))),
            Err(error) => Err(self.store.fault("read", &error)),
        }))
    }
}
