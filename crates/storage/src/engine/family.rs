//! The keys of a write buffer that begin with the same byte, in order.
//!
//! ```text
//! prefix   what all keys have in common
//! leaves   ◄ floor │ hint key │ hint key │ ... ► ◄ floor │ ... ►      up to 64 entries each
//! ```
//! Two levels, since a buffer has some ten thousand keys. What makes a search expensive is fetching keys from memory to
//! compare them. So an entry carries a hint: the eight bytes behind the common prefix. Most comparisons end there.
//!
//! Keys that nobody looks for at first are put in order later, all together: that takes a fraction of the time.
//!
//! Invariant: entries ascend within a leaf and over the leaves; a floor is at most the first key of its leaf and above
//! the last key of the leaf before it. Hints never contradict the order of the keys. Searches and ranges see what is in
//! the leaves.

use std::cmp::Ordering;
use std::ops::Bound;

use super::arena::{Arena, Piece};

const LEAF_ENTRIES: usize = 64;

/// A key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    hint: u64,
    pub(super) key: Piece,
    /// The newest version of the row; its meaning is the owner's.
    pub(super) newest: u32,
}

#[derive(Debug)]
struct Leaf {
    floor: Entry,
    entries: Vec<Entry>,
}

/// Leaf and place in the leaf. The place may be one behind the last.
type Position = (usize, usize);

#[derive(Debug, Default)]
pub(super) struct Family {
    prefix: Vec<u8>,
    leaves: Vec<Leaf>,
    /// Entries there is memory for in the leaves.
    capacity: usize,
    /// Entries that are not in the leaves yet, as they came. They have no hints.
    unsettled: Vec<Entry>,
}

/// The next eight bytes of a key as a number of the same order; what is missing counts as zero, so that equal hints
/// decide nothing.
fn hint(rest: &[u8]) -> u64 {
    match rest.first_chunk() {
        Some(bytes) => u64::from_be_bytes(*bytes),
        None => {
            let mut bytes = [0; 8];
            bytes[..rest.len()].copy_from_slice(rest);
            u64::from_be_bytes(bytes)
        }
    }
}

impl Family {
    /// Where the key is, or where it belongs.
    pub(super) fn search(&self, arena: &Arena, key: &[u8]) -> Result<Position, Position> {
        let skip = self.prefix.len();
        if !key.starts_with(&self.prefix) {
            let all_above = key < self.prefix.as_slice();
            return Err(if all_above { (0, 0) } else { self.end() });
        }
        let Some(last) = self.leaves.len().checked_sub(1) else { return Err((0, 0)) };
        let (rest, wanted) = (&key[skip..], hint(&key[skip..]));
        // Of keys of one length the hint may be the whole rest: then nothing has to be fetched.
        let whole = rest.len() <= size_of_val(&wanted);
        let order = |entry: &Entry| match entry.hint.cmp(&wanted) {
            Ordering::Equal if whole && entry.key.len() == key.len() => Ordering::Equal,
            Ordering::Equal => arena.get(entry.key)[skip..].cmp(rest),
            order => order,
        };
        // Keys that arrive in order go behind the last one.
        let newest = self.leaves[last].entries.last().expect("no leaf is empty");
        if order(newest) == Ordering::Less {
            return Err((last, self.leaves[last].entries.len()));
        }
        let leaf = self.leaves[1..].partition_point(|leaf| order(&leaf.floor) != Ordering::Greater);
        let entries = &self.leaves[leaf].entries;
        let slot = entries.partition_point(|entry| order(entry) == Ordering::Less);
        match entries.get(slot) {
            Some(entry) if order(entry) == Ordering::Equal => Ok((leaf, slot)),
            _ => Err((leaf, slot)),
        }
    }

    fn end(&self) -> Position {
        match self.leaves.last() {
            Some(leaf) => (self.leaves.len() - 1, leaf.entries.len()),
            None => (0, 0),
        }
    }

    pub(super) fn get(&self, arena: &Arena, key: &[u8]) -> Option<&Entry> {
        self.search(arena, key).ok().map(|(leaf, slot)| &self.leaves[leaf].entries[slot])
    }

    pub(super) fn at(&mut self, (leaf, slot): Position) -> &mut Entry {
        &mut self.leaves[leaf].entries[slot]
    }

    /// Adds a key where [`Self::search`] said that it belongs.
    pub(super) fn insert(&mut self, arena: &Arena, at: Position, key: Piece, newest: u32) {
        if self.leaves.is_empty() && self.prefix.is_empty() {
            self.prefix = arena.get(key).to_vec();
        }
        self.shorten_prefix(arena, arena.get(key));
        let entry = Entry { hint: hint(&arena.get(key)[self.prefix.len()..]), key, newest };
        let (leaf, slot) = self.room(at, entry);
        let entries = &mut self.leaves[leaf].entries;
        let before = entries.capacity();
        entries.insert(slot, entry);
        self.capacity += entries.capacity() - before;
    }

    /// Adds a key, be it new or not, that is seen only after [`Self::settle`].
    pub(super) fn push(&mut self, key: Piece, newest: u32) {
        self.unsettled.push(Entry { hint: 0, key, newest });
    }

    pub(super) const fn is_settled(&self) -> bool {
        self.unsettled.is_empty()
    }

    /// Puts what was pushed where it belongs. For keys that are there already `replaces` is told the newest version and
    /// the one that was it before.
    pub(super) fn settle(&mut self, arena: &Arena, mut replaces: impl FnMut(u32, u32)) {
        let mut added = std::mem::take(&mut self.unsettled);
        let Some(first) = added.first() else { return };
        if self.leaves.is_empty() {
            self.prefix = arena.get(first.key).to_vec();
        }
        for entry in &added {
            self.shorten_prefix(arena, arena.get(entry.key));
        }
        let rest = |entry: &Entry| &arena.get(entry.key)[self.prefix.len()..];
        for entry in &mut added {
            entry.hint = hint(rest(entry));
        }
        added.sort_unstable_by(|a, b| {
            a.hint.cmp(&b.hint).then_with(|| rest(a).cmp(rest(b))).then_with(|| a.newest.cmp(&b.newest))
        });
        for Entry { key, newest, .. } in added {
            match self.search(arena, arena.get(key)) {
                Ok(at) => replaces(newest, std::mem::replace(&mut self.at(at).newest, newest)),
                Err(at) => self.insert(arena, at, key, newest),
            }
        }
    }

    /// Makes room in a leaf that is full; answers with the place that is meant then.
    fn room(&mut self, (leaf, slot): Position, entry: Entry) -> Position {
        if self.leaves.is_empty() {
            self.leaves.push(Leaf { floor: entry, entries: Vec::new() });
        }
        if self.leaves[leaf].entries.len() < LEAF_ENTRIES {
            return (leaf, slot);
        }
        // Behind the last key the old leaf stays full: keys that arrive in order leave no gaps.
        let cut = if (leaf, slot) == self.end() { LEAF_ENTRIES } else { LEAF_ENTRIES / 2 };
        let mut entries = Vec::with_capacity(LEAF_ENTRIES);
        entries.extend(self.leaves[leaf].entries.drain(cut..));
        self.capacity += entries.capacity();
        let floor = entries.first().copied().unwrap_or(entry);
        self.leaves.insert(leaf + 1, Leaf { floor, entries });
        if slot < cut || (slot == cut && cut < LEAF_ENTRIES) { (leaf, slot) } else { (leaf + 1, slot - cut) }
    }

    fn shorten_prefix(&mut self, arena: &Arena, key: &[u8]) {
        let common = self.prefix.iter().zip(key).take_while(|(ours, new)| ours == new).count();
        if common == self.prefix.len() {
            return;
        }
        self.prefix.truncate(common);
        for leaf in &mut self.leaves {
            for entry in std::iter::once(&mut leaf.floor).chain(&mut leaf.entries) {
                entry.hint = hint(&arena.get(entry.key)[common..]);
            }
        }
    }

    /// The entries between the bounds.
    pub(super) fn range(&self, arena: &Arena, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Range<'_> {
        let edge = |key: &[u8], behind: bool| match self.search(arena, key) {
            Ok((leaf, slot)) => (leaf, slot + usize::from(behind)),
            Err(position) => position,
        };
        let from = match from {
            Bound::Included(key) => edge(key, false),
            Bound::Excluded(key) => edge(key, true),
            Bound::Unbounded => (0, 0),
        };
        let to = match to {
            Bound::Included(key) => edge(key, true),
            Bound::Excluded(key) => edge(key, false),
            Bound::Unbounded => self.end(),
        };
        Range { leaves: &self.leaves, from, to }
    }

    /// Memory taken, without that of the keys.
    pub(super) const fn bytes(&self) -> usize {
        (self.capacity + self.unsettled.capacity()) * size_of::<Entry>() + self.leaves.capacity() * size_of::<Leaf>()
    }
}

/// Entries in order, from either end.
pub(super) struct Range<'a> {
    leaves: &'a [Leaf],
    from: Position,
    to: Position,
}

impl<'a> Iterator for Range<'a> {
    type Item = &'a Entry;

    fn next(&mut self) -> Option<Self::Item> {
        while self.from < self.to {
            let (leaf, slot) = self.from;
            if let Some(entry) = self.leaves[leaf].entries.get(slot) {
                self.from = (leaf, slot + 1);
                return Some(entry);
            }
            self.from = (leaf + 1, 0);
        }
        None
    }
}

impl DoubleEndedIterator for Range<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        while self.from < self.to {
            let (leaf, slot) = self.to;
            if let Some(slot) = slot.checked_sub(1) {
                self.to = (leaf, slot);
                return self.leaves[leaf].entries.get(slot);
            }
            self.to = (leaf - 1, self.leaves[leaf - 1].entries.len());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::arena::SpareChunks;
    use super::*;

    fn arena() -> Arena {
        Arena::new(&Arc::new(SpareChunks::new(0)))
    }

    /// Keys over few bytes with common prefixes, zeros and ends of all kinds.
    fn keys() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let short = prop::collection::vec(0u8..3, 0..14);
        let long = short.clone().prop_map(|tail| [b"common prefix ".to_vec(), tail].concat());
        prop::collection::vec(prop_oneof![1 => short, 20 => long], 0..600)
    }

    /// Keys to search for: the kinds of the two bounds, and whether the key has the common prefix.
    fn probes() -> impl Strategy<Value = Vec<(Vec<u8>, u8, u8, bool)>> {
        prop::collection::vec((prop::collection::vec(0u8..3, 0..14), 0u8..3, 0u8..3, any::<bool>()), 1..40)
    }

    fn bound(kind: u8, key: &[u8]) -> Bound<&[u8]> {
        match kind {
            0 => Bound::Unbounded,
            1 => Bound::Included(key),
            _ => Bound::Excluded(key),
        }
    }

    fn check(family: &Family, arena: &Arena, model: &BTreeMap<Vec<u8>, u32>, from: Bound<&[u8]>, to: Bound<&[u8]>) {
        let row = |entry: &Entry| (arena.get(entry.key).to_vec(), entry.newest);
        let expected: Vec<_> = model.range::<[u8], _>((from, to)).map(|(key, at)| (key.clone(), *at)).collect();
        assert_eq!(family.range(arena, from, to).map(row).collect::<Vec<_>>(), expected);
        let mut back: Vec<_> = family.range(arena, from, to).rev().map(row).collect();
        back.reverse();
        assert_eq!(back, expected);
        let mut ends = family.range(arena, from, to);
        let mut rest = expected.iter();
        for turn in 0..expected.len() + 2 {
            let (found, expected) =
                if turn % 3 == 0 { (ends.next(), rest.next()) } else { (ends.next_back(), rest.next_back()) };
            assert_eq!(found.map(row).as_ref(), expected);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_family_is_an_ordered_map(
            keys in keys(),
            sorted in any::<bool>(),
            probes in probes(),
        ) {
            let mut keys = keys;
            if sorted { keys.sort(); }
            let (mut arena, mut family, mut model) = (arena(), Family::default(), BTreeMap::new());
            for (number, key) in (0u32..).zip(keys) {
                let found = family.search(&arena, &key);
                prop_assert_eq!(found.is_ok(), model.insert(key.clone(), number).is_some());
                match found {
                    Ok(at) => family.at(at).newest = number,
                    Err(at) => {
                        let piece = arena.push(&key);
                        family.insert(&arena, at, piece, number);
                    }
                }
            }
            for (key, from, to, long) in &probes {
                let key = if *long { [b"common prefix ", &key[..]].concat() } else { key.clone() };
                let end = [&key[..], &[2]].concat();
                check(&family, &arena, &model, bound(*from, &key), bound(*to, &end));
            }
            prop_assert!(family.leaves.iter().all(|leaf| leaf.entries.len() <= LEAF_ENTRIES));
            prop_assert_eq!(family.capacity, family.leaves.iter().map(|leaf| leaf.entries.capacity()).sum::<usize>());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn keys_may_be_put_in_order_later(keys in keys(), settle_every in 1usize..200) {
            let (mut arena, mut family, mut model) = (arena(), Family::default(), BTreeMap::new());
            let mut replaced = Vec::new();
            let mut expected = Vec::new();
            for (number, key) in (0u32..).zip(&keys) {
                let piece = arena.push(key);
                family.push(piece, number);
                expected.extend(model.insert(key.clone(), number).map(|before| (number, before)));
                if (number as usize).is_multiple_of(settle_every) {
                    family.settle(&arena, |newest, before| replaced.push((newest, before)));
                    check(&family, &arena, &model, Bound::Unbounded, Bound::Unbounded);
                }
            }
            family.settle(&arena, |newest, before| replaced.push((newest, before)));
            check(&family, &arena, &model, Bound::Unbounded, Bound::Unbounded);
            replaced.sort_unstable();
            prop_assert_eq!(replaced, expected);
        }
    }

    #[test]
    fn keys_in_order_fill_the_leaves() {
        let (mut arena, mut family) = (arena(), Family::default());
        for number in 0..1000u32 {
            let key = number.to_be_bytes();
            let at = family.search(&arena, &key).expect_err("a new key");
            let piece = arena.push(&key);
            family.insert(&arena, at, piece, number);
        }
        assert_eq!(family.leaves.len(), 1000usize.div_ceil(LEAF_ENTRIES));
    }
}
