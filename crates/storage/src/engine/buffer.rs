//! The rows of the newest batches in memory, in order, until they are written to a table.
//!
//! ```text
//! families   c ► keys in order ┐
//!            h ► keys in order ├─► versions: number, value, next older one ─► arena: the bytes
//!            r ► keys in order ┘
//! ```
//! Invariant: nothing is ever taken out or changed; an overwritten row gets a newer version in front of the older ones.
//! So a snapshot sees the same rows for as long as it holds the buffer: of each row the newest version below its
//! number.
//!
//! One lock is held for a few rows at a time only: by the writer in the middle of a batch, since nobody sees its number
//! yet, and by scans between rows, since nothing that they have to see changes.
//!
//! Rows of history are written with every row that is overwritten, those of attachments with every put that names a
//! lease, and both are seldom read before they are flushed. They are put in order by who reads them first, mostly the
//! flush.

use std::collections::{BTreeMap, VecDeque};
use std::ops::{Bound, RangeInclusive};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use lsm_tree::SeqNo;
use mvcc::{ATTACHMENT_ROWS, HISTORY_ROWS};

use super::arena::{Arena, Piece, SpareChunks};
use super::family::{Entry, Family};

/// Rows written under one hold of the lock.
const WRITE_ROWS: usize = 64;
/// Rows that a scan copies under one hold of the lock: few at first, since many scans end early.
const SCAN_ROWS_MIN: usize = 16;
const SCAN_ROWS_MAX: usize = 256;
/// Bytes after which such a piece ends early.
const SCAN_BYTES: usize = 64 << 10;

/// Rows that are put in order when they are read: what their keys begin with.
const READ_SELDOM: [u8; 2] = [HISTORY_ROWS, ATTACHMENT_ROWS];

/// There is no older version.
const NONE: u32 = u32::MAX;

/// A row; no value means that it was deleted.
pub(super) type Row = (Bytes, Option<Bytes>);

#[derive(Debug)]
struct Version {
    seqno: SeqNo,
    value: Option<Piece>,
    older: u32,
}

/// What is in a buffer.
#[derive(Debug)]
pub(super) struct Rows {
    families: BTreeMap<u8, Family>,
    versions: Vec<Version>,
    arena: Arena,
}

impl Rows {
    fn put(&mut self, key: &[u8], value: Option<&[u8]>, seqno: SeqNo) {
        let newest = u32::try_from(self.versions.len()).expect("a buffer is sealed long before");
        let family = self.families.entry(key[0]).or_default();
        let older = if READ_SELDOM.contains(&key[0]) {
            family.push(self.arena.push(key), newest);
            NONE
        } else {
            match family.search(&self.arena, key) {
                Ok(at) => std::mem::replace(&mut family.at(at).newest, newest),
                Err(at) => {
                    let key = self.arena.push(key);
                    family.insert(&self.arena, at, key, newest);
                    NONE
                }
            }
        };
        let value = value.map(|value| self.arena.push(value));
        self.versions.push(Version { seqno, value, older });
    }

    /// Whether all rows are in order whose keys begin with one of `tags`.
    fn is_settled(&self, tags: &RangeInclusive<u8>) -> bool {
        self.families.range(tags.clone()).all(|(_, family)| family.is_settled())
    }

    /// Puts rows in order.
    fn settle(&mut self, tags: RangeInclusive<u8>) {
        let Self { families, versions, arena } = self;
        for (_, family) in families.range_mut(tags) {
            family.settle(arena, |newest, before| versions[newest as usize].older = before);
        }
    }

    /// The row as the snapshot `seqno` sees it; `None` if it sees none here.
    fn visible(&self, entry: &Entry, seqno: SeqNo) -> Option<Option<&[u8]>> {
        let mut at = entry.newest;
        while at != NONE {
            let version = &self.versions[at as usize];
            if version.seqno < seqno {
                return Some(version.value.map(|value| self.arena.get(value)));
            }
            at = version.older;
        }
        None
    }

    fn range<'a>(
        &'a self,
        from: Bound<&'a [u8]>,
        to: Bound<&'a [u8]>,
    ) -> impl DoubleEndedIterator<Item = &'a Entry> + 'a {
        self.families.values().flat_map(move |family| family.range(&self.arena, from, to))
    }

    /// The newest version of every row whose key begins with one of `tags`: key, number, value.
    pub(super) fn newest(&self, tags: RangeInclusive<u8>) -> impl Iterator<Item = (&[u8], SeqNo, Option<&[u8]>)> {
        let families = self.families.range(tags).map(|(_, family)| family);
        families.flat_map(|family| family.range(&self.arena, Bound::Unbounded, Bound::Unbounded)).map(|entry| {
            let version = &self.versions[entry.newest as usize];
            (self.arena.get(entry.key), version.seqno, version.value.map(|value| self.arena.get(value)))
        })
    }

    /// Memory taken.
    fn bytes(&self) -> u64 {
        let families: usize = self.families.values().map(Family::bytes).sum();
        (families + self.versions.capacity() * size_of::<Version>() + self.arena.bytes()) as u64
    }
}

#[derive(Debug)]
pub(super) struct Buffer {
    rows: RwLock<Rows>,
    bytes: AtomicU64,
    /// Bytes of all buffers that are still in memory.
    total: Arc<AtomicU64>,
}

impl Buffer {
    pub(super) fn new(spare: &Arc<SpareChunks>, total: &Arc<AtomicU64>) -> Self {
        let rows = Rows { families: BTreeMap::new(), versions: Vec::new(), arena: Arena::new(spare) };
        Self { rows: RwLock::new(rows), bytes: AtomicU64::new(0), total: Arc::clone(total) }
    }

    /// All rows. To be held for long only when the buffer is sealed.
    pub(super) fn all_rows(&self) -> RwLockReadGuard<'_, Rows> {
        self.rows(0..=u8::MAX)
    }

    /// The rows, with those in order whose keys begin with one of `tags`.
    fn rows(&self, tags: RangeInclusive<u8>) -> RwLockReadGuard<'_, Rows> {
        // A thread that panicked with the lock held brings the process down (release builds abort).
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        if rows.is_settled(&tags) {
            return rows;
        }
        drop(rows);
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        rows.settle(tags);
        RwLockWriteGuard::downgrade(rows)
    }

    /// Adds rows under the number `seqno`, which no snapshot sees yet. Called by one thread at a time.
    pub(super) fn write(&self, rows: &[(Bytes, Option<Bytes>)], seqno: SeqNo) {
        let mut bytes = 0;
        for rows in rows.chunks(WRITE_ROWS) {
            let mut ours = self.rows.write().unwrap_or_else(PoisonError::into_inner);
            for (key, value) in rows {
                ours.put(key, value.as_deref(), seqno);
            }
            bytes = ours.bytes();
        }
        let before = self.bytes.swap(bytes.max(self.bytes()), Ordering::Relaxed);
        self.total.fetch_add(self.bytes() - before, Ordering::Relaxed);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes() == 0
    }

    /// The row as the snapshot `seqno` sees it; `None` if it sees none here.
    pub(super) fn get(&self, key: &[u8], seqno: SeqNo) -> Option<Option<Bytes>> {
        let tag = *key.first()?;
        let rows = self.rows(tag..=tag);
        let entry = rows.families.get(&tag)?.get(&rows.arena, key)?;
        rows.visible(entry, seqno).map(|value| value.map(Bytes::copy_from_slice))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes(), Ordering::Relaxed);
    }
}

/// The rows of a snapshot between two bounds, deleted ones included, in order from either end.
pub(super) struct Cursor<'a> {
    buffer: &'a Buffer,
    seqno: SeqNo,
    /// What was not copied yet lies between.
    from: Bound<Bytes>,
    to: Bound<Bytes>,
    /// Rows copied from the lower end, ascending, and from the upper end, descending.
    front: VecDeque<Row>,
    back: VecDeque<Row>,
    /// Entries looked at next time.
    rows_next: usize,
    /// Everything was looked at.
    done: bool,
}

/// The byte that the keys at a bound begin with.
fn tag_of(bound: &Bound<Bytes>, unbounded: u8) -> u8 {
    match bound {
        Bound::Included(key) | Bound::Excluded(key) => key.first().copied().unwrap_or(0),
        Bound::Unbounded => unbounded,
    }
}

impl<'a> Cursor<'a> {
    pub(super) fn new(buffer: &'a Buffer, seqno: SeqNo, from: Bound<Bytes>, to: Bound<Bytes>) -> Self {
        let (front, back) = (VecDeque::new(), VecDeque::new());
        Self { buffer, seqno, from, to, front, back, rows_next: SCAN_ROWS_MIN, done: false }
    }

    /// Copies the next rows from one end, and at least one if there is one.
    fn fill(&mut self, backwards: bool) {
        let queue = if backwards { &mut self.back } else { &mut self.front };
        while queue.is_empty() && !self.done {
            let rows = self.buffer.rows(tag_of(&self.from, 0)..=tag_of(&self.to, u8::MAX));
            let mut entries = rows.range(self.from.as_ref().map(|key| &key[..]), self.to.as_ref().map(|key| &key[..]));
            let mut bytes = 0;
            let mut reached = None;
            for _ in 0..self.rows_next {
                let next = if backwards { entries.next_back() } else { entries.next() };
                let Some(entry) = next else {
                    self.done = true;
                    break;
                };
                let key = rows.arena.get(entry.key);
                reached = Some(key);
                if let Some(value) = rows.visible(entry, self.seqno) {
                    queue.push_back((Bytes::copy_from_slice(key), value.map(Bytes::copy_from_slice)));
                    bytes += key.len() + value.map_or(0, <[u8]>::len);
                    if bytes >= SCAN_BYTES {
                        break;
                    }
                }
            }
            drop(entries);
            if let Some(key) = reached {
                let reached = Bound::Excluded(Bytes::copy_from_slice(key));
                if backwards { self.to = reached } else { self.from = reached }
            }
            self.rows_next = (self.rows_next * 2).min(SCAN_ROWS_MAX);
        }
    }
}

impl Iterator for Cursor<'_> {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        if self.front.is_empty() {
            self.fill(false);
        }
        self.front.pop_front().or_else(|| self.back.pop_back())
    }
}

impl DoubleEndedIterator for Cursor<'_> {
    fn next_back(&mut self) -> Option<Row> {
        if self.back.is_empty() {
            self.fill(true);
        }
        self.back.pop_front().or_else(|| self.front.pop_back())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty(total: &Arc<AtomicU64>) -> Buffer {
        Buffer::new(&Arc::new(SpareChunks::new(0)), total)
    }

    fn row(number: u32, value: Option<u32>) -> Row {
        let value = value.map(|value| Bytes::from(vec![value as u8; 100]));
        (Bytes::from(format!("c{number:06}")), value)
    }

    fn rows(buffer: &Buffer, seqno: SeqNo) -> Vec<Row> {
        Cursor::new(buffer, seqno, Bound::Unbounded, Bound::Unbounded).collect()
    }

    #[test]
    fn every_snapshot_sees_the_versions_below_its_number() {
        let buffer = empty(&Arc::default());
        buffer.write(&[row(1, Some(1)), row(2, Some(1))], 5);
        buffer.write(&[row(1, Some(2)), row(3, None)], 6);
        buffer.write(&[row(1, None)], 9);
        assert_eq!(rows(&buffer, 5), []);
        assert_eq!(rows(&buffer, 6), [row(1, Some(1)), row(2, Some(1))]);
        assert_eq!(rows(&buffer, 7), [row(1, Some(2)), row(2, Some(1)), row(3, None)]);
        assert_eq!(rows(&buffer, 9), rows(&buffer, 7));
        assert_eq!(rows(&buffer, 10), [row(1, None), row(2, Some(1)), row(3, None)]);
        assert_eq!(buffer.get(b"c000001", 9), Some(row(1, Some(2)).1));
        assert_eq!(buffer.get(b"c000001", 5), None);
        assert_eq!(buffer.get(b"c", 10), None);
        assert_eq!(buffer.get(b"", 10), None);
    }

    #[test]
    fn rows_that_are_read_seldom_are_found_whoever_comes_first() {
        READ_SELDOM.into_iter().for_each(found_whoever_comes_first);
    }

    fn found_whoever_comes_first(tag: u8) {
        let key = |number: u32| format!("{}{number:06}", char::from(tag));
        let history = |number: u32, value| (Bytes::from(key(number)), row(0, value).1);
        let write = || {
            let buffer = empty(&Arc::default());
            buffer.write(&[row(1, Some(1)), history(5, Some(1)), history(7, Some(1))], 5);
            buffer.write(&[history(3, Some(2)), history(5, None), history(6, Some(2))], 6);
            buffer
        };
        let all = [row(1, Some(1)), history(3, Some(2)), history(5, None), history(6, Some(2)), history(7, Some(1))];
        let buffer = write();
        assert_eq!(buffer.get(b"c000001", 9), Some(row(1, Some(1)).1));
        assert!(!buffer.rows.read().unwrap().is_settled(&(0..=u8::MAX)), "nobody has asked for them");
        assert_eq!(buffer.get(key(5).as_bytes(), 7), Some(None));
        assert_eq!(buffer.get(key(5).as_bytes(), 6), Some(row(0, Some(1)).1));
        assert_eq!(rows(&buffer, 7), all);
        buffer.write(&[history(3, None), history(9, Some(3))], 8);
        assert_eq!(rows(&buffer, 7), all);
        assert_eq!(rows(&buffer, 9)[1..2], [history(3, None)]);
        assert_eq!(rows(&buffer, 9)[5..], [history(9, Some(3))]);
        assert_eq!(rows(&write(), 7), all);
        let newest = write();
        let newest: Vec<_> =
            newest.all_rows().newest(0..=u8::MAX).map(|(key, seqno, _)| (key.to_vec(), seqno)).collect();
        let expected: Vec<_> = all.iter().zip([5, 6, 6, 6, 5]).map(|((key, _), seqno)| (key.to_vec(), seqno)).collect();
        assert_eq!(newest, expected);
    }

    #[test]
    fn a_scan_goes_on_where_it_was_while_the_buffer_grows() {
        let buffer = empty(&Arc::default());
        let old: Vec<_> = (0..3000).map(|number| row(number * 2, Some(number))).collect();
        buffer.write(&old, 1);
        let mut scan = Cursor::new(&buffer, 2, Bound::Unbounded, Bound::Unbounded);
        let (mut front, mut back) = (Vec::new(), Vec::new());
        for number in 0.. {
            let backwards = number % 3 == 0;
            let Some(found) = (if backwards { scan.next_back() } else { scan.next() }) else { break };
            if backwards {
                back.push(found)
            } else {
                front.push(found)
            }
            buffer.write(&[row(number * 7 % 6001, Some(number))], 2 + u64::from(number));
        }
        front.extend(back.into_iter().rev());
        assert_eq!(front, old);
        assert_ne!(rows(&buffer, 5000), old);
    }

    #[test]
    fn memory_is_counted_until_the_buffer_is_gone() {
        let total = Arc::default();
        let (first, second) = (empty(&total), empty(&total));
        for number in 0..2000 {
            first.write(&[row(number, Some(1))], 1);
            second.write(&[row(0, Some(number))], u64::from(number));
            assert_eq!(total.load(Ordering::Relaxed), first.bytes() + second.bytes());
        }
        let bytes = 2000 * (7 + 100 + size_of::<Version>() as u64 + 24);
        assert!((bytes..bytes * 2).contains(&first.bytes()), "{} for {bytes}", first.bytes());
        drop(first);
        assert_eq!(total.load(Ordering::Relaxed), second.bytes());
        drop(second);
        assert_eq!(total.load(Ordering::Relaxed), 0);
    }
}
