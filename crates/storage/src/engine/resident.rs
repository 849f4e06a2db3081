//! All rows that the tree holds whose keys begin with one of some bytes, in memory, for as long as they are few.
//!
//! A tree holds what was overwritten lately several times, in level 0 and below: reading fifty neighbours means merging
//! ten sources of fifty rows. Here every row is once, next to its neighbour.
//!
//! Invariant: it holds exactly those rows of the tree below the write buffers it is layered with. It never
//! changes; a flush makes the next one.

use std::ops::{Bound, RangeInclusive};
use std::sync::Arc;

use bytes::Bytes;

use super::arena::{Arena, Piece, SpareChunks};
use super::family::{self, Family};

/// A row of a write buffer that goes to the tree; no value means that it was deleted.
pub(super) type Change<'a> = (&'a [u8], Option<&'a [u8]>);

#[derive(Debug)]
pub(super) struct Resident {
    tags: RangeInclusive<u8>,
    keys: Family,
    /// What the keys' entries point to.
    values: Vec<Piece>,
    arena: Arena,
}

impl Resident {
    /// For keys that begin with one of `tags`, of which there are none.
    pub(super) fn empty(tags: RangeInclusive<u8>, spare: &Arc<SpareChunks>) -> Self {
        Self { tags, keys: Family::default(), values: Vec::new(), arena: Arena::new(spare) }
    }

    /// With rows that come in key order, behind those that are there. `None` if they take more than `bytes_max`.
    pub(super) fn load<E>(
        mut self,
        rows: impl Iterator<Item = Result<(impl AsRef<[u8]>, impl AsRef<[u8]>), E>>,
        bytes_max: u64,
    ) -> Result<Option<Self>, E> {
        for row in rows {
            let (key, value) = row?;
            self.push(key.as_ref(), value.as_ref());
            if self.bytes() > bytes_max {
                return Ok(None);
            }
        }
        Ok(Some(self))
    }

    /// The rows after `changes`, which come in key order. `None` if they take more than `bytes_max`.
    pub(super) fn changed<'a>(
        self: &'a Arc<Self>,
        changes: impl Iterator<Item = Change<'a>>,
        bytes_max: u64,
    ) -> Option<Arc<Self>> {
        let mut changes = changes.filter(|(key, _)| self.covers(key)).peekable();
        if changes.peek().is_none() {
            return (self.bytes() <= bytes_max).then(|| Arc::clone(self));
        }
        let mut next = Self::empty(self.tags.clone(), self.arena.spare());
        for (key, value) in self.rows((Bound::Unbounded, Bound::Unbounded)) {
            while let Some((added, value)) = changes.next_if(|(changed, _)| *changed < key) {
                next.change(added, value);
            }
            match changes.next_if(|(changed, _)| *changed == key) {
                Some((key, value)) => next.change(key, value),
                None => next.push(key, value),
            }
            if next.bytes() > bytes_max {
                return None;
            }
        }
        for (added, value) in changes {
            next.change(added, value);
            if next.bytes() > bytes_max {
                return None;
            }
        }
        Some(Arc::new(next))
    }

    fn change(&mut self, key: &[u8], value: Option<&[u8]>) {
        if let Some(value) = value {
            self.push(key, value);
        }
    }

    /// Adds a row behind the last one.
    fn push(&mut self, key: &[u8], value: &[u8]) {
        let number = u32::try_from(self.values.len()).expect("the bytes are bounded far below");
        let at = self.keys.search(&self.arena, key).expect_err("rows come in order, each once");
        let key = self.arena.push(key);
        self.keys.insert(&self.arena, at, key, number);
        self.values.push(self.arena.push(value));
    }

    /// Whether the key would be here, so that what is not here does not exist.
    pub(super) fn covers(&self, key: &[u8]) -> bool {
        key.first().is_some_and(|tag| self.tags.contains(tag))
    }

    /// Whether all keys between the bounds would be here.
    pub(super) fn covers_range(&self, from: &Bound<Bytes>, to: &Bound<Bytes>) -> bool {
        let begins = match from {
            Bound::Included(key) | Bound::Excluded(key) => self.covers(key),
            Bound::Unbounded => false,
        };
        begins
            && match to {
                Bound::Included(key) => self.covers(key),
                Bound::Excluded(key) => self.covers(key) || key[..] == [self.tags.end() + 1],
                Bound::Unbounded => false,
            }
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.keys.get(&self.arena, key).map(|entry| self.arena.get(self.values[entry.newest as usize]))
    }

    /// The rows between the bounds, from either end.
    pub(super) fn rows(&self, (from, to): (Bound<&[u8]>, Bound<&[u8]>)) -> Rows<'_> {
        Rows { resident: self, entries: self.keys.range(&self.arena, from, to) }
    }

    /// Memory taken.
    pub(super) fn bytes(&self) -> u64 {
        (self.keys.bytes() + self.values.capacity() * size_of::<Piece>() + self.arena.bytes()) as u64
    }
}

/// Keys and values in order.
pub(super) struct Rows<'a> {
    resident: &'a Resident,
    entries: family::Range<'a>,
}

impl<'a> Rows<'a> {
    fn row(&self, entry: &family::Entry) -> (&'a [u8], &'a [u8]) {
        let Resident { arena, values, .. } = self.resident;
        (arena.get(entry.key), arena.get(values[entry.newest as usize]))
    }
}

impl<'a> Iterator for Rows<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.entries.next().map(|entry| self.row(entry))
    }
}

impl DoubleEndedIterator for Rows<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.entries.next_back().map(|entry| self.row(entry))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn empty() -> Resident {
        Resident::empty(b'c'..=b'c', &Arc::new(SpareChunks::new(0)))
    }

    fn key() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(0u8..3, 0..5).prop_map(|tail| [b"c".to_vec(), tail].concat())
    }

    fn changes() -> impl Strategy<Value = BTreeMap<Vec<u8>, Option<Vec<u8>>>> {
        let other = prop_oneof![Just(b"b".to_vec()), Just(b"d".to_vec()), Just(b"mark".to_vec())];
        let value = prop::option::weighted(0.7, prop::collection::vec(any::<u8>(), 0..9));
        prop::collection::btree_map(prop_oneof![9 => key(), 1 => other], value, 0..60)
    }

    fn bound(kind: u8, key: &[u8]) -> Bound<&[u8]> {
        match kind {
            0 => Bound::Unbounded,
            1 => Bound::Included(key),
            _ => Bound::Excluded(key),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn changes_have_the_effect_that_they_have_on_a_map(
            flushes in prop::collection::vec(changes(), 1..6),
            (from, from_kind, to, to_kind) in (key(), 0u8..3, key(), 0u8..3),
        ) {
            let mut resident = Arc::new(empty());
            let mut model = BTreeMap::new();
            for flush in &flushes {
                let changes = flush.iter().map(|(key, value)| (&key[..], value.as_deref()));
                resident = resident.changed(changes, u64::MAX).expect("within the bounds");
                for (key, value) in flush.iter().filter(|(key, _)| key[0] == b'c') {
                    match value {
                        Some(value) => model.insert(key.clone(), value.clone()),
                        None => model.remove(key),
                    };
                }
            }
            let all: Vec<_> = model.iter().map(|(key, value)| (&key[..], &value[..])).collect();
            let everything = (Bound::Unbounded, Bound::Unbounded);
            prop_assert_eq!(resident.rows(everything).collect::<Vec<_>>(), all);
            for key in flushes.iter().flat_map(BTreeMap::keys) {
                prop_assert_eq!(resident.get(key), model.get(key).map(|value| &value[..]));
            }
            if from < to {
                let bounds = (bound(from_kind, &from), bound(to_kind, &to));
                let expected: Vec<_> =
                    model.range::<[u8], _>(bounds).rev().map(|(key, value)| (&key[..], &value[..])).collect();
                prop_assert_eq!(resident.rows(bounds).rev().collect::<Vec<_>>(), expected);
            }
            let rows = model.iter().map(Ok::<_, ()>);
            let loaded = empty().load(rows, u64::MAX).expect("no error").expect("within the bounds");
            prop_assert_eq!(loaded.rows(everything).collect::<Vec<_>>(), resident.rows(everything).collect::<Vec<_>>());
        }
    }

    #[test]
    fn too_many_rows_are_refused() {
        let rows: Vec<_> = (0..1000u32).map(|number| (format!("c{number:06}"), vec![1u8; 100])).collect();
        let load = |bytes_max| empty().load(rows.iter().cloned().map(Ok::<_, ()>), bytes_max).expect("no error");
        let bytes = load(u64::MAX).expect("no bounds").bytes();
        assert!((107_000..300_000).contains(&bytes), "{bytes}");
        assert!(load(bytes).is_some() && load(bytes - 1).is_none());
        let changes = || rows.iter().map(|(key, value)| (key.as_bytes(), Some(&value[..])));
        let empty = Arc::new(empty());
        assert!(empty.changed(changes(), bytes).is_some() && empty.changed(changes(), bytes - 1).is_none());
        let full = Arc::new(load(bytes).expect("they fit"));
        assert!(full.changed(changes(), bytes).is_some() && full.changed(std::iter::empty(), bytes - 1).is_none());
    }

    #[test]
    fn only_bounds_within_the_family_are_covered() {
        let resident = empty();
        let (inside, below, above) = (Bytes::from_static(b"cat"), Bytes::from_static(b"b"), Bytes::from_static(b"d"));
        let covered = |from: Bound<&Bytes>, to: Bound<&Bytes>| resident.covers_range(&from.cloned(), &to.cloned());
        assert!(covered(Bound::Included(&inside), Bound::Included(&inside)));
        assert!(covered(Bound::Excluded(&inside), Bound::Excluded(&above)));
        assert!(!covered(Bound::Included(&inside), Bound::Included(&above)));
        assert!(!covered(Bound::Included(&below), Bound::Included(&inside)));
        assert!(!covered(Bound::Unbounded, Bound::Included(&inside)));
        assert!(!covered(Bound::Included(&inside), Bound::Unbounded));
        assert!(!covered(Bound::Included(&inside), Bound::Excluded(&Bytes::from_static(b"da"))));
    }
}
