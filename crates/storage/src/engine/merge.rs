//! The rows of several sources as one: what a scan reads from the buffers, and from the tree or its resident rows.
//!
//! Invariant: rows come in key order, each key once, from the first source that has it; deleted rows do not come.

use base::Fault;
use bytes::Bytes;
use lsm_tree::Slice;
use mvcc::engine::Scan;

use super::buffer::{Cursor, Row};
use super::resident;

/// A row's bytes leave the tree as a copy: the tree's own slice would keep the whole block around it in memory.
pub(super) fn copy(slice: &Slice) -> Bytes {
    Bytes::copy_from_slice(slice)
}

/// Rows of the tree, which leaves out deleted ones itself.
pub(super) type TreeRows<'a> = Box<dyn DoubleEndedIterator<Item = Result<(Slice, Slice), Fault>> + 'a>;

/// What is below the buffers is copied only if no buffer hides it.
enum Found<'a> {
    Buffered(Row),
    Resident(&'a [u8], &'a [u8]),
    InTree(Slice, Slice),
}

impl Found<'_> {
    fn key(&self) -> &[u8] {
        match self {
            Self::Buffered((key, _)) => key,
            Self::Resident(key, _) => key,
            Self::InTree(key, _) => key,
        }
    }

    fn row(self) -> Option<(Bytes, Bytes)> {
        match self {
            Self::Buffered((key, value)) => value.map(|value| (key, value)),
            Self::Resident(key, value) => Some((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value))),
            Self::InTree(key, value) => Some((copy(&key), copy(&value))),
        }
    }
}

/// A source, with the rows at its ends already read.
struct Source<'a> {
    rows: Rows<'a>,
    front: Option<Found<'a>>,
    back: Option<Found<'a>>,
}

pub(super) enum Rows<'a> {
    Buffer(Cursor<'a>),
    Resident(resident::Rows<'a>),
    Tree(TreeRows<'a>),
}

impl<'a> Source<'a> {
    const fn new(rows: Rows<'a>) -> Self {
        Self { rows, front: None, back: None }
    }

    fn read(&mut self, backwards: bool) -> Result<Option<Found<'a>>, Fault> {
        fn end<T>(rows: &mut impl DoubleEndedIterator<Item = T>, backwards: bool) -> Option<T> {
            if backwards { rows.next_back() } else { rows.next() }
        }
        Ok(match &mut self.rows {
            Rows::Buffer(rows) => end(rows, backwards).map(Found::Buffered),
            Rows::Resident(rows) => end(rows, backwards).map(|(key, value)| Found::Resident(key, value)),
            Rows::Tree(rows) => end(rows, backwards).transpose()?.map(|(key, value)| Found::InTree(key, value)),
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

    const fn end(&self, backwards: bool) -> Option<&Found<'a>> {
        if backwards { self.back.as_ref() } else { self.front.as_ref() }
    }

    const fn end_mut(&mut self, backwards: bool) -> &mut Option<Found<'a>> {
        if backwards { &mut self.back } else { &mut self.front }
    }
}

/// See the head of this file.
struct Merge<'a> {
    sources: Vec<Source<'a>>,
}

/// The rows of buffers, newest first, and of what they hide.
pub(super) fn merge<'a>(buffers: impl Iterator<Item = Cursor<'a>>, below: Rows<'a>) -> Scan<'a> {
    let rows = buffers.map(Rows::Buffer).chain([below]);
    Box::new(Merge { sources: rows.map(Source::new).collect() })
}

impl<'a> Merge<'a> {
    fn step(&mut self, backwards: bool) -> Result<Option<(Bytes, Bytes)>, Fault> {
        loop {
            let Some(found) = self.pop(backwards)? else { return Ok(None) };
            if let Some(row) = found.row() {
                return Ok(Some(row));
            }
        }
    }

    /// Takes the outermost key's row, and drops those that it hides.
    fn pop(&mut self, backwards: bool) -> Result<Option<Found<'a>>, Fault> {
        let mut best: Option<(usize, &Found<'_>)> = None;
        for source in &mut self.sources {
            source.prepare(backwards)?;
        }
        for (number, source) in self.sources.iter().enumerate() {
            let Some(found) = source.end(backwards) else { continue };
            let further = |best: &Found<'_>| (found.key() < best.key()) != backwards && found.key() != best.key();
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
