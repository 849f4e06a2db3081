//! The latest value of rows that are read by key again and again, so that neither the buffers nor the tables have to
//! be searched for them.
//!
//! Invariant: an entry holds the newest version of its row, and the number it was written under. A snapshot at or above
//! that number may use it; an older one must ask the tree.
//!
//! A row enters when it is read. A reader that is overtaken by a writer must not leave an old value behind: each shard
//! knows the number of the last write to any of its rows, and takes a value only from snapshots that include it.
//!
//! Rows of the past stay outside: two of them are written with every put, and few are ever read by key.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use lsm_tree::SeqNo;
use mvcc::{ATTACHMENT_ROWS, EVENT_ROWS, HISTORY_ROWS};
use xxhash_rust::xxh3::xxh3_64;

const SHARDS: usize = 16;
/// What an entry costs beside its bytes.
const ENTRY_OVERHEAD_BYTES: usize = 96;
/// Rows larger than this stay outside: they would push out hundreds of others.
const ROW_BYTES_MAX: usize = 16 * 1024;

/// A row's newest value, and the number of the batch that wrote it, or of the snapshot that found it.
struct Entry {
    /// The key, and the value behind it: who compares the one has the other at hand.
    row: Bytes,
    key_bytes: usize,
    /// There is such a row.
    exists: bool,
    seqno: SeqNo,
}

/// The hash of a row's key, computed once for all that is done with it.
type Hash = u64;

/// Keys are hashes already.
#[derive(Default)]
struct Hashed(Hash);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("the keys are numbers");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// Whether the row may enter.
fn is_kept(key: &[u8]) -> bool {
    !matches!(key.first(), Some(&(HISTORY_ROWS | EVENT_ROWS | ATTACHMENT_ROWS)))
}

/// Of rows with the same hash one has a place, and the others are not kept.
type Generation = HashMap<Hash, Entry, BuildHasherDefault<Hashed>>;

/// Two generations: when the young one is full it becomes the old one, and what was old and not asked for is gone.
#[derive(Default)]
struct Shard {
    young: Generation,
    old: Generation,
    young_bytes: usize,
    last_write: SeqNo,
}

/// The cache.
pub(super) struct Recent {
    shards: Vec<Mutex<Shard>>,
    /// Bytes of one generation of one shard.
    generation_bytes: usize,
}

impl Recent {
    /// Holds rows of about `bytes` in all.
    pub(super) fn new(bytes: u64) -> Self {
        let generation_bytes = usize::try_from(bytes).unwrap_or(usize::MAX) / SHARDS / 2;
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), generation_bytes }
    }

    fn shard(&self, hash: Hash) -> MutexGuard<'_, Shard> {
        // A panic cannot leave an entry half written. The map uses the other bits.
        self.shards[(hash >> 48) as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The row in the snapshot `seqno`, which sees batches below that number; `None` if the tree must be asked.
    pub(super) fn get(&self, key: &[u8], seqno: SeqNo) -> Option<Option<Bytes>> {
        if !is_kept(key) {
            return None;
        }
        let hash = xxh3_64(key);
        let mut shard = self.shard(hash);
        if let Some(entry) = shard.young.get(&hash) {
            return entry.seen(key, seqno);
        }
        let entry = shard.old.remove(&hash)?;
        let found = entry.seen(key, seqno);
        shard.insert(hash, entry, self.generation_bytes);
        found
    }

    /// A reader found this in the tree, in the snapshot `seqno`.
    pub(super) fn found(&self, key: &[u8], seqno: SeqNo, value: Option<&Bytes>) {
        if key.len() + value.map_or(0, Bytes::len) > ROW_BYTES_MAX || !is_kept(key) {
            return;
        }
        let hash = xxh3_64(key);
        let mut shard = self.shard(hash);
        if shard.last_write >= seqno || shard.young.contains_key(&hash) {
            return;
        }
        shard.insert(hash, Entry::new(key, seqno.saturating_sub(1), value), self.generation_bytes);
    }

    /// The row is being written under the number `seqno`, which no snapshot sees yet.
    pub(super) fn written(&self, key: &[u8], seqno: SeqNo, value: Option<&Bytes>) {
        if !is_kept(key) {
            return;
        }
        let hash = xxh3_64(key);
        let mut shard = self.shard(hash);
        shard.last_write = seqno;
        if !shard.knows(hash, key) {
            return;
        }
        if key.len() + value.map_or(0, Bytes::len) <= ROW_BYTES_MAX {
            shard.insert(hash, Entry::new(key, seqno, value), self.generation_bytes);
        } else {
            shard.remove(hash);
        }
    }
}

impl Entry {
    /// Copies key and value: they may be slices of much larger buffers.
    fn new(key: &[u8], seqno: SeqNo, value: Option<&Bytes>) -> Self {
        let row = [key, value.map_or(&[], |value| &value[..])].concat().into();
        Self { row, key_bytes: key.len(), exists: value.is_some(), seqno }
    }

    fn is_of(&self, key: &[u8]) -> bool {
        self.row[..self.key_bytes] == *key
    }

    /// The row in the snapshot `seqno`, if this is the row and the snapshot includes it.
    fn seen(&self, key: &[u8], seqno: SeqNo) -> Option<Option<Bytes>> {
        (self.seqno < seqno && self.is_of(key)).then(|| self.exists.then(|| self.row.slice(self.key_bytes..)))
    }

    /// Bytes that the entry counts for.
    fn cost(&self) -> usize {
        self.row.len() + ENTRY_OVERHEAD_BYTES
    }
}

impl Shard {
    fn knows(&self, hash: Hash, key: &[u8]) -> bool {
        [&self.young, &self.old].iter().any(|rows| rows.get(&hash).is_some_and(|entry| entry.is_of(key)))
    }

    fn remove(&mut self, hash: Hash) {
        if let Some(entry) = self.young.remove(&hash) {
            self.young_bytes -= entry.cost();
        }
        self.old.remove(&hash);
    }

    /// Puts an entry among the young ones. An old one of the row is not asked any more, and goes before this one can.
    fn insert(&mut self, hash: Hash, entry: Entry, generation_bytes: usize) {
        self.young_bytes += entry.cost();
        if let Some(replaced) = self.young.insert(hash, entry) {
            self.young_bytes -= replaced.cost();
        }
        if self.young_bytes >= generation_bytes {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: Bytes = Bytes::from_static(b"1");
    const V2: Bytes = Bytes::from_static(b"2");

    #[test]
    fn snapshots_from_before_a_write_are_sent_to_the_tree() {
        let recent = Recent::new(1 << 20);
        recent.found(b"c", 5, Some(&V1));
        assert_eq!(recent.get(b"c", 5), Some(Some(V1)));
        recent.written(b"c", 7, Some(&V2));
        assert_eq!(recent.get(b"c", 7), None, "snapshot 7 does not include batch 7");
        assert_eq!(recent.get(b"c", 8), Some(Some(V2)));
        recent.written(b"c", 9, None);
        assert_eq!(recent.get(b"c", 10), Some(None));
    }

    #[test]
    fn a_reader_overtaken_by_a_writer_leaves_nothing_behind() {
        let recent = Recent::new(1 << 20);
        recent.written(b"c", 7, Some(&V2));
        recent.found(b"c", 7, Some(&V1));
        assert_eq!(recent.get(b"c", 100), None);
        recent.found(b"c", 8, Some(&V2));
        assert_eq!(recent.get(b"c", 100), Some(Some(V2)));
    }

    #[test]
    fn rows_with_the_same_hash_are_not_taken_for_each_other() {
        for old in [false, true] {
            let recent = Recent::new(1 << 20);
            recent.found(b"a", 5, Some(&V1));
            // As if the hash of b were that of a.
            let entry = recent.shard(xxh3_64(b"a")).young.remove(&xxh3_64(b"a")).expect("it was found");
            let mut shard = recent.shard(xxh3_64(b"b"));
            let generation = if old { &mut shard.old } else { &mut shard.young };
            generation.insert(xxh3_64(b"b"), entry);
            drop(shard);
            assert_eq!(recent.get(b"b", 9), None);
            recent.written(b"b", 6, Some(&V2));
            assert_eq!(recent.get(b"b", 9), None, "a row enters when it is read");
            recent.found(b"b", 9, Some(&V2));
            assert_eq!(recent.get(b"b", 9), None, "the place is taken");
        }
    }

    #[test]
    fn memory_is_bounded_and_rows_in_use_stay() {
        let recent = Recent::new(SHARDS as u64 * 2 * 4096);
        recent.found(b"warm", 5, Some(&V1));
        for number in 0..100_000u32 {
            recent.found(&number.to_be_bytes(), 5, Some(&V1));
            assert_eq!(recent.get(b"warm", 5), Some(Some(V1)));
        }
        let entries: usize = recent.shards.iter().map(|s| s.lock().unwrap()).map(|s| s.young.len() + s.old.len()).sum();
        assert!(entries < SHARDS * 2 * 4096 / ENTRY_OVERHEAD_BYTES + 1, "{entries} entries");
    }

    #[test]
    fn rows_that_grow_are_counted() {
        let recent = Recent::new(SHARDS as u64 * 2 * 65_536);
        let value = Bytes::from(vec![0; ROW_BYTES_MAX - 4]);
        for number in 0..10_000u32 {
            recent.found(&number.to_be_bytes(), 2 * u64::from(number) + 1, None);
            recent.written(&number.to_be_bytes(), 2 * u64::from(number) + 2, Some(&value));
        }
        let bytes: usize = (0..10_000u32)
            .filter_map(|number| recent.get(&number.to_be_bytes(), 1 << 40).flatten())
            .map(|value| value.len())
            .sum();
        let bound = SHARDS * 2 * (65_536 + ROW_BYTES_MAX);
        assert!((bound / 4..=bound).contains(&bytes), "{bytes}");
    }

    #[test]
    fn an_old_entry_does_not_outlive_the_one_that_replaced_it() {
        let recent = Recent::new(SHARDS as u64 * 2 * 65_536);
        let too_large = Bytes::from(vec![0; ROW_BYTES_MAX]);
        for (at, last, expected) in [(0, &V2, Some(Some(V2))), (100, &too_large, None)] {
            recent.found(b"c", at + 5, Some(&V1));
            let mut shard = recent.shard(xxh3_64(b"c"));
            shard.old = std::mem::take(&mut shard.young);
            shard.young_bytes = 0;
            drop(shard);
            recent.written(b"c", at + 6, Some(&V2));
            assert_eq!(recent.get(b"c", at + 9), Some(Some(V2)));
            recent.written(b"c", at + 10, Some(last));
            assert_eq!(recent.get(b"c", at + 20), expected);
        }
    }

    #[test]
    fn rows_of_the_past_are_not_kept() {
        let recent = Recent::new(1 << 20);
        for key in [b"h1", b"r1"] {
            recent.found(key, 5, Some(&V1));
            recent.written(key, 6, Some(&V2));
            assert_eq!(recent.get(key, 9), None);
        }
    }

    #[test]
    fn a_large_row_is_not_kept() {
        let recent = Recent::new(1 << 20);
        let large = Bytes::from(vec![0; ROW_BYTES_MAX + 1]);
        recent.found(b"c", 5, Some(&large));
        assert_eq!(recent.get(b"c", 5), None);
        recent.found(b"c", 5, Some(&V1));
        recent.written(b"c", 6, Some(&large));
        assert_eq!(recent.get(b"c", 9), None);
    }
}
