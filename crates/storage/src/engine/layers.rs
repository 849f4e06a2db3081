//! What lies in front of the tree: a write buffer in use, older ones that wait for their flush, and those of the
//! tree's rows that are held in memory.
//!
//! Invariant: a newer buffer's row hides that of an older one, and every buffer's those of the tree. A row may be in a
//! buffer and in the tree at the same time; it is the same row then. The resident rows are those of the tree without
//! what is still in the buffers, so they change in the step in which buffers leave.

use std::ops::RangeInclusive;
use std::sync::{Arc, RwLockReadGuard};

use bytes::Bytes;
use lsm_tree::{InternalValue, SeqNo, Slice, ValueType};

use super::buffer::{Buffer, Rows};
use super::residents::Residents;

/// A set of layers. It never changes; the active buffer grows.
#[derive(Clone, Debug)]
pub(super) struct Layers {
    pub(super) active: Arc<Buffer>,
    /// Oldest first. None is empty.
    pub(super) sealed: Vec<Arc<Buffer>>,
    pub(super) resident: Residents,
}

impl Layers {
    /// The layers after sealing, with `fresh` to be written next.
    pub(super) fn seal(&self, fresh: Buffer) -> Self {
        let mut sealed = self.sealed.clone();
        sealed.push(Arc::clone(&self.active));
        Self { active: Arc::new(fresh), sealed, resident: self.resident.clone() }
    }

    /// The layers without the `count` oldest sealed buffers, over a tree of whose rows these are `resident`.
    pub(super) fn without(&self, count: usize, resident: Residents) -> Self {
        Self { active: Arc::clone(&self.active), sealed: self.sealed[count..].to_vec(), resident }
    }

    /// Newest first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = &Buffer> {
        std::iter::once(&*self.active).chain(self.sealed.iter().rev().map(|buffer| &**buffer))
    }

    /// The row as the snapshot `seqno` sees it; `None` if no buffer knows.
    pub(super) fn get(&self, key: &[u8], seqno: SeqNo) -> Option<Option<Bytes>> {
        self.newest_first().find_map(|buffer| buffer.get(key, seqno))
    }
}

/// The rows of sealed buffers, which come oldest first, as [`newest_rows`] takes them.
pub(super) fn newest_first(sealed: &[Arc<Buffer>]) -> Vec<RwLockReadGuard<'_, Rows>> {
    sealed.iter().rev().map(|buffer| buffer.all_rows()).collect()
}

/// What a flush of sealed buffers, newest first, has to write of the rows whose keys begin with one of `tags`: the
/// newest version of each, in order. Nobody will look for older ones in the table: a snapshot that needs them holds the
/// buffers.
pub(super) fn newest_rows<'a>(
    buffers: &'a [RwLockReadGuard<'_, Rows>],
    tags: &RangeInclusive<u8>,
) -> impl Iterator<Item = (&'a [u8], SeqNo, Option<&'a [u8]>)> + use<'a> {
    let mut runs: Vec<_> = buffers.iter().map(|rows| rows.newest(tags.clone()).peekable()).collect();
    std::iter::from_fn(move || {
        // Of equal keys the first, from the newest buffer.
        let (from, key) = (runs.iter_mut().enumerate())
            .filter_map(|(number, run)| run.peek().map(|(key, ..)| (number, *key)))
            .min_by_key(|(number, key)| (*key, *number))?;
        for run in &mut runs[from + 1..] {
            run.next_if(|(hidden, ..)| *hidden == key);
        }
        runs[from].next()
    })
}

/// A row as the tree wants it.
pub(super) fn tree_row((key, seqno, value): (&[u8], SeqNo, Option<&[u8]>)) -> InternalValue {
    match value {
        Some(value) => InternalValue::from_components(Slice::new(key), Slice::new(value), seqno, ValueType::Value),
        None => InternalValue::new_tombstone(Slice::new(key), seqno),
    }
}
