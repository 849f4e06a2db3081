//! Snapshots of a tree and its buffers.

use std::ops::Bound;
use std::sync::Arc;

use base::Fault;
use bytes::Bytes;
use lsm_tree::{AbstractTree, Guard, InternalValue, SeqNo, Tree};
use mvcc::engine::{Scan, View, bounds_cross};

use super::buffer::Cursor;
use super::layers::Layers;
use super::merge::{Rows, copy, merge};
use super::store::{ROW_KEY_BYTES_MAX, Store};

type Versions = Box<dyn DoubleEndedIterator<Item = lsm_tree::Result<InternalValue>>>;

/// A view by number: the tree keeps the versions of itself that it needs.
struct NumberedView {
    store: Arc<Store>,
    seqno: SeqNo,
    layers: Arc<Layers>,
}

impl Store {
    /// A snapshot of everything published.
    pub(super) fn view(self: Arc<Self>) -> impl View {
        let (seqno, layers) = self.open_snapshot();
        NumberedView { store: self, seqno, layers }
    }

    /// A snapshot that holds on to the files themselves instead of a number.
    pub(super) fn pinned_view(self: Arc<Self>) -> impl View {
        let (seqno, layers) = self.open_snapshot();
        let version = self.tree().get_version_history_lock().get_version_for_snapshot(seqno);
        self.close_snapshot(seqno);
        let range = move |from: Bound<Bytes>, to: Bound<Bytes>| -> Versions {
            Box::new(Tree::create_internal_range(version.clone(), &(from, to), seqno, None))
        };
        PinnedView { store: self, seqno, layers, range: Box::new(range) }
    }
}

impl Drop for NumberedView {
    fn drop(&mut self) {
        self.store.close_snapshot(self.seqno);
    }
}

/// The rows of the snapshot `seqno` in the buffers, over those below.
fn scan<'a>(
    (layers, seqno): (&'a Layers, SeqNo),
    (from, to): (Bound<Bytes>, Bound<Bytes>),
    below: Rows<'a>,
) -> Scan<'a> {
    merge(layers.newest_first().map(|buffer| Cursor::new(buffer, seqno, from.clone(), to.clone())), below)
}

impl View for NumberedView {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        if key.is_empty() || key.len() > ROW_KEY_BYTES_MAX {
            return Ok(None);
        }
        if let Some(row) = self.store.recent.get(key, self.seqno) {
            return Ok(row);
        }
        let row = match (self.layers.get(key, self.seqno), self.layers.resident.with(key)) {
            (Some(row), _) => row,
            (None, Some(resident)) => resident.get(key).map(Bytes::copy_from_slice),
            (None, None) => {
                let row = self.store.tree().get(key, self.seqno).map_err(|error| self.store.fault("read", &error))?;
                row.map(|value| copy(&value))
            }
        };
        self.store.recent.found(key, self.seqno, row.as_ref());
        Ok(row)
    }

    fn scan<'a>(&'a self, from: Bound<Bytes>, to: Bound<Bytes>) -> Scan<'a> {
        if bounds_cross(&from, &to) {
            return Box::new(std::iter::empty());
        }
        let below = match self.layers.resident.with_range(&from, &to) {
            Some(resident) => {
                Rows::Resident(resident.rows((from.as_ref().map(|key| &key[..]), to.as_ref().map(|key| &key[..]))))
            }
            None => {
                let rows = self.store.tree().range((from.clone(), to.clone()), self.seqno, None);
                Rows::Tree(Box::new(rows.map(|row| row.into_inner().map_err(|error| self.store.fault("read", &error)))))
            }
        };
        scan((&self.layers, self.seqno), (from, to), below)
    }
}

struct PinnedView {
    store: Arc<Store>,
    seqno: SeqNo,
    layers: Arc<Layers>,
    range: Box<dyn Fn(Bound<Bytes>, Bound<Bytes>) -> Versions + Send>,
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
        let bounds = (from, to);
        let rows = (self.range)(bounds.0.clone(), bounds.1.clone()).map(|row| match row {
            Ok(row) => Ok((row.key.user_key, row.value)),
            Err(error) => Err(self.store.fault("read", &error)),
        });
        scan((&self.layers, self.seqno), bounds, Rows::Tree(Box::new(rows)))
    }
}
