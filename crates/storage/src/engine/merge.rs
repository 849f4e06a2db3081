//! The rows of several sources as one: what a scan reads from the buffers and from the tree.
//!
//! Invariant: rows come in key order, each key once, from the first source that has it; deleted rows do not come.

use base::Fault;
use bytes::Bytes;
use lsm_tree::Slice;
use mvcc::engine::Scan;

use super::buffer::{Cursor, Row};

/// A row's bytes leave the tree as a copy: the tree's own slice would keep the whole block around it in memory.
pub(super) fn copy(slice: &Slice) -> Bytes {
    Bytes::copy_from_slice(slice)
}

/// Rows of the tree, which leaves out deleted ones itself.
pub(super) type TreeRows<'a> = Box<dyn DoubleEndedIterator<Item = Result<(Slice, Slice), Fault>> + 'a>;

enum Found {
    Buffered(Row),
    /// Copied only if it is not hidden by a buffer.
    InTree(Slice, Slice),
}

impl Found {
    fn key(&self) -> &[u8] {
        match self {
            Self::Buffered((key, _)) => key,
            Self::InTree(key, _) => key,
        }
    }

    fn row(self) -> Option<(Bytes, Bytes)> {
        match self {
            Self::Buffered((key, value)) => value.map(|value| (key, value)),
            Self::InTree(key, value) => Some((copy(&key), copy(&value))),
        }
    }
}

/// A source, with the rows at its ends already read.
struct Source<'a> {
    rows: Rows<'a>,
    front: Option<Found>,
    back: Option<Found>,
}

enum Rows<'a> {
    Buffer(Cursor<'a>),
    Tree(TreeRows<'a>),
}

impl<'a> Source<'a> {
    const fn new(rows: Rows<'a>) -> Self {
        Self { rows, front: None, back: None }
    }

    fn read(&mut self, backwards: bool) -> Result<Option<Found>, Fault> {
        Ok(match (&mut self.rows, backwards) {
            (Rows::Buffer(rows), false) => rows.next().map(Found::Buffered),
            (Rows::Buffer(rows), true) => rows.next_back().map(Found::Buffered),
            (Rows::Tree(rows), false) => rows.next().transpose()?.map(|(key, value)| Found::InTree(key, value)),
            (Rows::Tree(rows), true) => rows.next_back().transpose()?.map(|(key, value)| Found::InTree(key, value)),
        })
    }

    /// Makes sure that the next row of an end is there, if there is one.
    fn prepare(&mut self, backwards: bool) -> Result<(), Fault> {
        if self.end(backwards).is_none() {
            let read = self.read(backwards)?;
            // When the middle is used up, the row read from the other end is the last one left.
            let next = read.or_else(|| self.end_mut(!backwards).take());
            *self.end_mut(backwards) = next;
        }
        Ok(())
    }

    const fn end(&self, backwards: bool) -> Option<&Found> {
        if backwards { self.back.as_ref() } else { self.front.as_ref() }
    }

    const fn end_mut(&mut self, backwards: bool) -> &mut Option<Found> {
        if backwards { &mut self.back } else { &mut self.front }
    }
}

/// See the head of this file.
struct Merge<'a> {
    sources: Vec<Source<'a>>,
}

/// The rows of buffers, newest first, and behind them those of the tree.
pub(super) fn merge<'a>(buffers: impl Iterator<Item = Cursor<'a>>, tree: TreeRows<'a>) -> Scan<'a> {
    let buffers = buffers.map(|rows| Source::new(Rows::Buffer(rows)));
    Box::new(Merge { sources: buffers.chain([Source::new(Rows::Tree(tree))]).collect() })
}

impl Merge<'_> {
    fn step(&mut self, backwards: bool) -> Result<Option<(Bytes, Bytes)>, Fault> {
        loop {
            let Some(found) = self.pop(backwards)? else { return Ok(None) };
            if let Some(row) = found.row() {
                return Ok(Some(row));
            }
        }
    }

    /// Takes the outermost key's row, and drops those that it hides.
    fn pop(&mut self, backwards: bool) -> Result<Option<Found>, Fault> {
        let mut best: Option<(usize, &Found)> = None;
        for source in &mut self.sources {
            source.prepare(backwards)?;
        }
        for (number, source) in self.sources.iter().enumerate() {
            let Some(found) = source.end(backwards) else { continue };
            let further = |best: &Found| (found.key() < best.key()) != backwards && found.key() != best.key();
            if best.is_none_or(|(_, best)| further(best)) {
                best = Some((number, found));
            }
        }
        let Some((number, _)) = best else { return Ok(None) };
        let found = self.sources[number].end_mut(backwards).take().expect("it was just looked at");
        for source in &mut self.sources[number + 1..] {
            if source.end(backwards).is_some_and(|hidden| hidden.key() == found.key()) {
                *source.end_mut(backwards) = None;
            }
        }
        Ok(Some(found))
    }
}

impl Iterator for Merge<'_> {
    type Item = Result<(Bytes, Bytes), Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step(false).transpose()
    }
}

impl DoubleEndedIterator for Merge<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.step(true).transpose()
    }
}
