//! The entries of a log that are in memory, in the pieces in which they came.
//!
//! ```text
//!   | piece | piece |  piece  | open |
//!     shared with records, messages    proposed in this turn, nobody else's yet
//!     and hand-outs
//! ```
//! Invariant: indexes are consecutive and no piece is empty. Where one piece ends and the next begins means nothing:
//! equality and hash do not see it.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use base::Index;

use crate::entries::Entries;
use crate::entry::Entry;

/// See the module's picture.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cache {
    pieces: VecDeque<Entries>,
    open: Vec<Entry>,
}

impl Cache {
    /// Index of the first entry.
    pub(crate) fn first(&self) -> Option<Index> {
        let first = self.pieces.front().map_or_else(|| self.open.first(), |piece| piece.first());
        first.map(|entry| entry.index)
    }

    /// Adds a piece. Nothing may be open.
    pub(crate) fn append(&mut self, piece: Entries) {
        assert!(self.open.is_empty(), "a piece appended after {} open entries", self.open.len());
        if !piece.is_empty() {
            self.pieces.push_back(piece);
        }
    }

    /// Adds an entry, to become a piece with those that follow until [`Self::seal`].
    pub(crate) fn push(&mut self, entry: Entry) {
        self.open.push(entry);
    }

    /// Whether there is anything to seal.
    pub(crate) const fn has_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Makes a piece of what is open, and returns it.
    pub(crate) fn seal(&mut self) -> Entries {
        // Mostly it is one: then the general way costs more than the entry.
        let piece: Entries = match self.open.len() {
            1 => self.open.pop().map_or_else(Entries::default, Entries::one),
            _ => self.open.drain(..).collect(),
        };
        self.append(piece.clone());
        piece
    }

    /// The place of the piece that holds `index` or, if it lies before the first entry, of the first one; past the end
    /// if no piece reaches `index`.
    fn place(&self, index: Index) -> usize {
        match self.in_last(index) {
            Some(_) => self.pieces.len() - 1,
            None => self.pieces.partition_point(|piece| piece.last().is_some_and(|last| last.index < index)),
        }
    }

    /// The last piece and the place of `index` in it, if it is there. It nearly always is.
    #[inline]
    fn in_last(&self, index: Index) -> Option<(&Entries, usize)> {
        let piece = self.pieces.back()?;
        let at = index.0.checked_sub(piece.first()?.index.0)?;
        usize::try_from(at).ok().filter(|at| *at < piece.len()).map(|at| (piece, at))
    }

    /// The piece that holds entry `index`, which must be there, and its place in it. Nothing may be open.
    pub(crate) fn piece_with(&self, index: Index) -> (&Entries, usize) {
        assert!(self.open.is_empty(), "{} open entries are nobody's yet", self.open.len());
        self.in_last(index).unwrap_or_else(|| {
            let piece = &self.pieces[self.place(index)];
            (piece, offset(piece, index))
        })
    }

    /// Entries from `from` on.
    pub(crate) fn iter_from(&self, from: Index) -> impl Iterator<Item = &Entry> {
        let pieces = self.pieces.range(self.place(from)..).map(move |piece| &piece[offset(piece, from)..]);
        pieces.chain(std::iter::once(&self.open[offset(&self.open, from)..])).flatten()
    }

    /// Entries from `from` on as long as `fits` says so: shared if they lie in one piece.
    pub(crate) fn slice(&self, from: Index, mut fits: impl FnMut(&Entry) -> bool) -> Entries {
        if let Some((piece, start)) = self.in_last(from).filter(|_| self.open.is_empty()) {
            let count = piece[start..].iter().take_while(|entry| fits(entry)).count();
            return piece.part(start..start + count);
        }
        let place = self.place(from);
        let Some(piece) = self.pieces.get(place) else {
            return self.iter_from(from).take_while(|entry| fits(entry)).cloned().collect();
        };
        let start = offset(piece, from);
        let end = start + piece[start..].iter().take_while(|entry| fits(entry)).count();
        let shared = piece.part(start..end);
        if end < piece.len() {
            return shared;
        }
        let mut rest = self.iter_from(piece[end - 1].index.next()).take_while(|entry| fits(entry)).peekable();
        if rest.peek().is_none() { shared } else { shared.iter().chain(rest).cloned().collect() }
    }

    /// Payload bytes of the entries after `after` up to `to`.
    pub(crate) fn payload_bytes(&self, after: Index, to: Index) -> usize {
        let mut bytes = 0;
        for piece in self.pieces.range(self.place(after.next())..) {
            if piece[0].index > to {
                break;
            }
            let wanted = &piece[offset(piece, after.next())..offset(piece, to.next())];
            bytes += wanted.iter().map(|entry| entry.payload.len()).sum::<usize>();
        }
        bytes
    }

    /// Removes the first entry if it is at most at `to`. Returns its payload's length.
    pub(crate) fn pop_front_to(&mut self, to: Index) -> Option<usize> {
        let piece = self.pieces.front_mut()?;
        let length = piece.first().filter(|entry| entry.index <= to)?.payload.len();
        if piece.len() == 1 {
            self.pieces.pop_front();
        } else {
            piece.skip_front(1);
        }
        Some(length)
    }

    /// Removes the last entry if it is at least at `from`. Returns its payload's length. Nothing may be open.
    pub(crate) fn pop_back_from(&mut self, from: Index) -> Option<usize> {
        assert!(self.open.is_empty(), "{} open entries were not recorded", self.open.len());
        let piece = self.pieces.back_mut()?;
        let length = piece.last().filter(|entry| entry.index >= from)?.payload.len();
        piece.truncate(piece.len() - 1);
        if piece.is_empty() {
            self.pieces.pop_back();
        }
        Some(length)
    }

    /// Replaces the entry at the index of `entry`, which must be there. Returns the old payload's length.
    pub(crate) fn replace(&mut self, entry: Entry) -> usize {
        let place = self.place(entry.index);
        let piece = self.pieces.get_mut(place).expect("an entry that is replaced is in a piece");
        let at = offset(piece, entry.index);
        let old = std::mem::replace(&mut piece.to_mut()[at], entry);
        old.payload.len()
    }
}

/// The place of `index` in consecutive entries: zero if it lies before them, their number if it lies behind.
#[inline]
fn offset(entries: &[Entry], index: Index) -> usize {
    let first = entries.first().map_or(index, |entry| entry.index);
    usize::try_from(index.0.saturating_sub(first.0)).unwrap_or(usize::MAX).min(entries.len())
}

impl PartialEq for Cache {
    fn eq(&self, other: &Self) -> bool {
        // What is open is still to be recorded and sent.
        self.open.len() == other.open.len() && self.iter_from(Index(0)).eq(other.iter_from(Index(0)))
    }
}

impl Eq for Cache {}

impl Hash for Cache {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.open.len().hash(state);
        for entry in self.iter_from(Index(0)) {
            entry.hash(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hash::DefaultHasher;
    use std::ops::Range;

    use base::Ballot;
    use bytes::Bytes;

    use super::*;
    use crate::entry::EntryKind;

    /// The payload says the index, in as many bytes.
    fn entry(index: u64) -> Entry {
        let payload = Bytes::from(vec![0; usize::try_from(index).expect("small")]);
        let ballot = Ballot::ZERO;
        Entry { index: Index(index), stamp: ballot, origin: ballot, kind: EntryKind::Command, payload }
    }

    fn entries(indexes: Range<u64>) -> Entries {
        indexes.map(entry).collect()
    }

    /// Entries from 1 on, in pieces that end before each of `cuts`.
    fn cut(cuts: &[u64]) -> Cache {
        let mut cache = Cache::default();
        let starts = std::iter::once(&1).chain(cuts);
        starts.zip(cuts).for_each(|(from, until)| cache.append(entries(*from..*until)));
        cache
    }

    fn hash(cache: &Cache) -> u64 {
        let mut hasher = DefaultHasher::new();
        cache.hash(&mut hasher);
        hasher.finish()
    }

    /// All ways to cut the entries 1 to 5.
    fn all_cuts() -> impl Iterator<Item = Cache> {
        (0..16u64).map(|set| {
            let cuts: Vec<u64> = (2..6).filter(|at| set >> (at - 2) & 1 == 1).chain([6]).collect();
            cut(&cuts)
        })
    }

    #[test]
    fn a_slice_is_the_same_however_the_entries_are_cut() {
        for cache in all_cuts() {
            for from in 1..=6 {
                for until in from..=6 {
                    let slice = cache.slice(Index(from), |entry| entry.index.0 < until);
                    assert_eq!(slice, entries(from..until), "{from}..{until} of {cache:?}");
                }
            }
            assert_eq!(cache.slice(Index(0), |_| true), entries(1..6), "what lies before the first entry is left out");
        }
    }

    #[test]
    fn a_slice_asks_for_each_entry_once_and_stops_at_the_first_refused() {
        for cache in all_cuts() {
            let mut asked = Vec::new();
            let slice = cache.slice(Index(2), |entry| {
                asked.push(entry.index.0);
                entry.index.0 != 4
            });
            assert_eq!((slice, asked), (entries(2..4), vec![2, 3, 4]), "{cache:?}");
        }
    }

    #[test]
    fn a_slice_within_a_piece_is_shared() {
        let cache = cut(&[4, 6]);
        let is_shared = |from: u64, until: u64| {
            let slice = cache.slice(Index(from), |entry| entry.index.0 < until);
            let kept = cache.iter_from(Index(from)).next().expect("an entry");
            std::ptr::eq(&raw const slice[0], kept)
        };
        assert!(is_shared(1, 4) && is_shared(2, 3) && is_shared(5, 6));
        assert!(!is_shared(3, 5), "across two pieces there is nothing to share");
    }

    #[test]
    fn what_is_open_is_sliced_too() {
        let mut cache = cut(&[3]);
        cache.push(entry(3));
        cache.push(entry(4));
        assert_eq!(cache.slice(Index(2), |_| true), entries(2..5));
        assert_eq!(cache.slice(Index(3), |entry| entry.index.0 < 4), entries(3..4));
        assert_eq!(cache.seal(), entries(3..5));
        assert_eq!(cache, cut(&[5]));
    }

    #[test]
    fn equality_and_hash_do_not_see_where_the_entries_are_cut() {
        let whole = cut(&[6]);
        for mut cache in all_cuts() {
            assert_eq!((&cache, hash(&cache)), (&whole, hash(&whole)));
            cache.pop_front_to(Index(2));
            cache.pop_front_to(Index(2));
            cache.pop_back_from(Index(5));
            let mut narrow = Cache::default();
            narrow.append(entries(3..5));
            assert_eq!((&cache, hash(&cache)), (&narrow, hash(&narrow)));
            assert_ne!(cache, whole);
        }
    }

    #[test]
    fn what_is_open_is_not_equal_to_what_is_sealed() {
        let mut open = cut(&[3]);
        open.push(entry(3));
        assert_ne!(open, cut(&[4]), "it is still to be recorded");
        open.seal();
        assert_eq!(open, cut(&[4]));
    }

    #[test]
    fn a_replaced_entry_and_the_bytes_around_it() {
        for mut cache in all_cuts() {
            assert_eq!(cache.payload_bytes(Index(1), Index(4)), 2 + 3 + 4);
            let before = cache.clone();
            assert_eq!(cache.replace(Entry { payload: Bytes::new(), ..entry(3) }), 3);
            assert_eq!(cache.payload_bytes(Index(1), Index(4)), 2 + 4);
            assert_eq!(before, cut(&[6]), "others that hold the entries keep them as they were");
        }
    }
}
