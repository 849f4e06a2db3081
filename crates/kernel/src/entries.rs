//! Consecutive entries that many hold at once.
//!
//! Invariant: what is shared never changes. The log in memory, the record for the disk, the append to each follower and
//! the hand-out to the state machine are the same entries, so they share them: one reference count for all, in the
//! place of one for the payload of each. Whoever wants fewer of them narrows its own view.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::entry::Entry;

/// Entries at consecutive indexes: a view of a shared slice. Equality and hash go by content.
///
/// A view keeps the whole slice alive: never more than what came together in one message or one turn.
#[derive(Clone, Default)]
pub struct Entries {
    /// Nothing if there are none: an empty append costs no allocation.
    shared: Option<Arc<[Entry]>>,
    from: u32,
    until: u32,
}

impl Entries {
    fn of(shared: Arc<[Entry]>) -> Self {
        let until = u32::try_from(shared.len()).expect("entries that fit into memory are fewer than 2^32");
        Self { shared: (until > 0).then_some(shared), from: 0, until }
    }

    /// A single one.
    pub(crate) fn one(entry: Entry) -> Self {
        Self { shared: Some(Arc::new([entry])), from: 0, until: 1 }
    }

    /// How many there are.
    #[inline]
    #[must_use]
    pub const fn len(&self) -> usize {
        (self.until - self.from) as usize
    }

    /// Whether there are none.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.from == self.until
    }

    /// The first one.
    #[inline]
    #[must_use]
    pub fn first(&self) -> Option<&Entry> {
        self.shared.as_ref()?.get(self.from as usize)
    }

    /// Those at the places `range` of this view, which must lie inside it.
    #[inline]
    #[must_use]
    pub fn part(&self, range: Range<usize>) -> Self {
        self.check_inside(&range);
        if range.is_empty() {
            return Self::default();
        }
        Self { shared: self.shared.clone(), from: self.place(range.start), until: self.place(range.end) }
    }

    /// Narrows the view to the first `count`, if there are more.
    #[inline]
    pub fn truncate(&mut self, count: usize) {
        if count < self.len() {
            self.narrow(0..count);
        }
    }

    /// Narrows the view to what follows the first `count`, which it must have.
    #[inline]
    pub fn skip_front(&mut self, count: usize) {
        if count > 0 {
            self.narrow(count..self.len());
        }
    }

    #[inline]
    fn narrow(&mut self, range: Range<usize>) {
        self.check_inside(&range);
        if range.is_empty() {
            *self = Self::default();
        } else {
            (self.from, self.until) = (self.place(range.start), self.place(range.end));
        }
    }

    #[inline]
    fn check_inside(&self, range: &Range<usize>) {
        assert!(range.start <= range.end && range.end <= self.len(), "{range:?} of {} entries", self.len());
    }

    #[inline]
    fn place(&self, at: usize) -> u32 {
        self.from + u32::try_from(at).expect("a place inside the view")
    }

    /// To change the entries of this view: of a copy, if someone else sees them.
    pub(crate) fn to_mut(&mut self) -> &mut [Entry] {
        let range = self.from as usize..self.until as usize;
        self.shared.as_mut().map_or(&mut [], |shared| &mut Arc::make_mut(shared)[range])
    }
}

impl Deref for Entries {
    type Target = [Entry];

    #[inline]
    fn deref(&self) -> &[Entry] {
        self.shared.as_ref().map_or(&[], |shared| &shared[self.from as usize..self.until as usize])
    }
}

impl<'a> IntoIterator for &'a Entries {
    type Item = &'a Entry;
    type IntoIter = std::slice::Iter<'a, Entry>;

    #[inline]
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl FromIterator<Entry> for Entries {
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Self {
        Self::of(entries.into_iter().collect())
    }
}

impl From<Vec<Entry>> for Entries {
    fn from(entries: Vec<Entry>) -> Self {
        Self::of(entries.into())
    }
}

impl PartialEq for Entries {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Entries {}

impl Hash for Entries {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::hash::DefaultHasher;

    use base::{Ballot, Index};
    use bytes::Bytes;

    use super::*;
    use crate::entry::EntryKind;

    fn entries(indexes: Range<u64>) -> Entries {
        let entry = |index| Entry {
            index: Index(index),
            stamp: Ballot::ZERO,
            origin: Ballot::ZERO,
            kind: EntryKind::Command,
            payload: Bytes::new(),
        };
        indexes.map(entry).collect()
    }

    fn hash(entries: &Entries) -> u64 {
        let mut hasher = DefaultHasher::new();
        entries.hash(&mut hasher);
        hasher.finish()
    }

    #[test]
    fn a_view_equals_a_copy_of_what_it_shows() {
        let mut view = entries(1..6).part(1..4);
        assert_eq!(view, entries(2..5));
        assert_eq!(hash(&view), hash(&entries(2..5)));
        assert_eq!(view.part(1..2), entries(3..4));
        view.truncate(7);
        view.skip_front(1);
        assert_eq!(view, entries(3..5));
        view.truncate(1);
        assert_eq!(view, entries(3..4));
        view.truncate(0);
        assert_eq!((&view, hash(&view)), (&Entries::default(), hash(&entries(1..1))));
    }

    #[test]
    fn a_change_stays_with_the_view_that_made_it() {
        let all = entries(1..6);
        let mut changed = all.part(1..3);
        changed.to_mut()[0].kind = EntryKind::Config;
        assert_eq!(changed[0].kind, EntryKind::Config);
        assert_eq!(changed.len(), 2);
        assert_eq!(all, entries(1..6));
    }

    #[test]
    #[should_panic(expected = "3..6 of 5 entries")]
    fn a_view_is_never_wider_than_what_it_comes_from() {
        drop(entries(1..6).part(3..6));
    }
}
