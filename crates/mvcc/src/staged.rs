//! The writes of a batch that is still being made, laid over the view it started from.
//!
//! Invariant: reading through it is the same as reading an engine to which the rows had been written. Later commands
//! of a batch, and later operations of a transaction, read through it.

use std::collections::BTreeMap;
use std::ops::Bound;

use base::Fault;
use bytes::Bytes;

use crate::engine::{Batch, Scan, View, bounds_cross};

/// A view with rows on top.
pub(crate) struct Staged {
    view: Box<dyn View>,
    rows: BTreeMap<Bytes, Option<Bytes>>,
}

impl Staged {
    pub(crate) fn new(view: Box<dyn View>) -> Self {
        Self { view, rows: BTreeMap::new() }
    }

    pub(crate) fn put(&mut self, key: Bytes, value: Bytes) {
        self.rows.insert(key, Some(value));
    }

    pub(crate) fn delete(&mut self, key: Bytes) {
        self.rows.insert(key, None);
    }

    pub(crate) fn into_batch(self) -> Batch {
        Batch { rows: self.rows.into_iter().collect() }
    }
}

impl View for Staged {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        match self.rows.get(key) {
            Some(staged) => Ok(staged.clone()),
            None => self.view.get(key),
        }
    }

    fn scan<'a>(&'a self, from: Bound<Bytes>, to: Bound<Bytes>) -> Scan<'a> {
        if bounds_cross(&from, &to) {
            return Box::new(std::iter::empty());
        }
        let upper =
            self.rows.range::<Bytes, _>((from.clone(), to.clone())).map(|(key, row)| (key.clone(), row.clone()));
        let lower = self.view.scan(from, to);
        Box::new(Merge {
            upper: Ends { rest: upper, front: None, back: None },
            lower: Ends { rest: lower, front: None, back: None },
        })
    }
}

/// An iterator that can be peeked at both ends.
struct Ends<I: Iterator> {
    rest: I,
    front: Option<I::Item>,
    back: Option<I::Item>,
}

impl<I: DoubleEndedIterator> Ends<I> {
    fn peek(&mut self) -> Option<&I::Item> {
        if self.front.is_none() {
            // When the middle is used up, the item peeked from the other end is the last one left.
            self.front = self.rest.next().or_else(|| self.back.take());
        }
        self.front.as_ref()
    }

    fn peek_back(&mut self) -> Option<&I::Item> {
        if self.back.is_none() {
            self.back = self.rest.next_back().or_else(|| self.front.take());
        }
        self.back.as_ref()
    }
}

/// Both sources in one order; where they share a key the upper one wins.
struct Merge<'a, U: Iterator> {
    upper: Ends<U>,
    lower: Ends<Scan<'a>>,
}

/// Which source has the next row.
enum Side {
    Upper,
    Lower,
    Both,
}

fn choose(upper: Option<&Bytes>, lower: Option<&Bytes>, backwards: bool) -> Option<Side> {
    Some(match (upper, lower) {
        (None, None) => return None,
        (Some(_), None) => Side::Upper,
        (None, Some(_)) => Side::Lower,
        (Some(upper), Some(lower)) if upper == lower => Side::Both,
        (Some(upper), Some(lower)) if (upper < lower) != backwards => Side::Upper,
        (Some(_), Some(_)) => Side::Lower,
    })
}

impl<U: DoubleEndedIterator<Item = (Bytes, Option<Bytes>)>> Iterator for Merge<'_, U> {
    type Item = Result<(Bytes, Bytes), Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let lower = match self.lower.peek() {
                Some(Err(_)) => return self.lower.front.take(),
                Some(Ok((key, _))) => Some(key),
                None => None,
            };
            let side = choose(self.upper.peek().map(|(key, _)| key), lower, false)?;
            let staged = match side {
                Side::Lower => return self.lower.front.take(),
                Side::Upper => self.upper.front.take(),
                Side::Both => {
                    self.lower.front = None;
                    self.upper.front.take()
                }
            };
            if let Some((key, Some(value))) = staged {
                return Some(Ok((key, value)));
            }
        }
    }
}

impl<U: DoubleEndedIterator<Item = (Bytes, Option<Bytes>)>> DoubleEndedIterator for Merge<'_, U> {
    fn next_back(&mut self) -> Option<Self::Item> {
        loop {
            let lower = match self.lower.peek_back() {
                Some(Err(_)) => return self.lower.back.take(),
                Some(Ok((key, _))) => Some(key),
                None => None,
            };
            let side = choose(self.upper.peek_back().map(|(key, _)| key), lower, true)?;
            let staged = match side {
                Side::Lower => return self.lower.back.take(),
                Side::Upper => self.upper.back.take(),
                Side::Both => {
                    self.lower.back = None;
                    self.upper.back.take()
                }
            };
            if let Some((key, Some(value))) = staged {
                return Some(Ok((key, value)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::{Engine, MemEngine};

    type Pairs = Vec<(Bytes, Bytes)>;

    fn drain(mut scan: Scan<'_>, ends: &[bool]) -> Pairs {
        let (mut front, mut back) = (Vec::new(), Vec::new());
        let mut ends = ends.iter().cycle();
        loop {
            let backwards = *ends.next().unwrap();
            let Some(row) = (if backwards { scan.next_back() } else { scan.next() }) else { break };
            if backwards { back.push(row.unwrap()) } else { front.push(row.unwrap()) }
        }
        front.extend(back.into_iter().rev());
        front
    }

    proptest! {
        #[test]
        fn reading_through_staged_rows_equals_reading_after_the_write(
            base in prop::collection::btree_map(0u8..12, any::<u8>(), 0..10),
            staged in prop::collection::btree_map(0u8..12, any::<Option<u8>>(), 0..10),
            bounds in (0u8..14, 0u8..14),
            ends in prop::collection::vec(any::<bool>(), 1..7),
        ) {
            let byte = |byte: u8| Bytes::copy_from_slice(&[byte]);
            let engine = MemEngine::new();
            engine.write(Batch { rows: base.into_iter().map(|(k, v)| (byte(k), Some(byte(v)))).collect() }).unwrap();
            let mut overlay = Staged::new(engine.view());
            for (key, value) in staged {
                match value {
                    Some(value) => overlay.put(byte(key), byte(value)),
                    None => overlay.delete(byte(key)),
                }
            }
            let range = (Bound::Included(byte(bounds.0)), Bound::Excluded(byte(bounds.1)));
            let seen = drain(overlay.scan(range.0.clone(), range.1.clone()), &ends);
            let gets: Vec<_> = (0..12).map(|key| overlay.get(&[key]).unwrap()).collect();
            engine.write(overlay.into_batch()).unwrap();
            let view = engine.view();
            prop_assert_eq!(seen, drain(view.scan(range.0, range.1), &[false]));
            for (key, got) in gets.into_iter().enumerate() {
                prop_assert_eq!(got, view.get(&[key as u8]).unwrap());
            }
        }
    }
}
