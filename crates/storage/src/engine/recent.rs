//! The latest value of rows that are read by key again and again, so that neither the buffers nor the tables have to
//! be searched for them.
//!
//! Invariant: an entry holds the newest version of its row, and the number it was written under. A snapshot at or above
//! that number may use it; an older one must ask the tree.
//!
//! A row enters when it is read. A reader that is overtaken by a writer must not leave an old value behind: each shard
//! knows the number of the last write to any of its rows, and takes a value only from snapshots that include it.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use lsm_tree::SeqNo;

const SHARDS: usize = 16;
/// What an entry costs beside its bytes.
const ENTRY_OVERHEAD_BYTES: usize = 96;
/// Rows larger than this stay outside: they would push out hundreds of others.
const ROW_BYTES_MAX: usize = 16 * 1024;

/// The row's newest value (`None`: there is no such row), and the number of the batch that wrote it, or of the snapshot
/// that found it.
#[derive(Clone)]
struct Entry {
    seqno: SeqNo,
    value: Option<Bytes>,
}

/// Keys arrive hashed already.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxhash_rust::xxh3::xxh3_64_with_seed(bytes, self.0);
    }

    fn write_usize(&mut self, _: usize) {}
}

type Generation = HashMap<Bytes, Entry, BuildHasherDefault<Hashed>>;

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

    fn shard(&self, key: &[u8]) -> MutexGuard<'_, Shard> {
        let hash = xxhash_rust::xxh3::xxh3_64(key);
        // A panic cannot leave an entry half written.
        self.shards[(hash >> 60) as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The row in the snapshot `seqno`, which sees batches below that number; `None` if the tree must be asked.
    pub(super) fn get(&self, key: &[u8], seqno: SeqNo) -> Option<Option<Bytes>> {
        let mut shard = self.shard(key);
        if let Some(entry) = shard.young.get(key) {
            return (entry.seqno < seqno).then(|| entry.value.clone());
        }
        let (key, entry) = shard.old.remove_entry(key)?;
        let found = (entry.seqno < seqno).then(|| entry.value.clone());
        shard.insert(key, entry, self.generation_bytes);
        found
    }

    /// A reader found this in the tree, in the snapshot `seqno`.
    pub(super) fn found(&self, key: &[u8], seqno: SeqNo, value: Option<&Bytes>) {
        if key.len() + value.map_or(0, Bytes::len) > ROW_BYTES_MAX {
            return;
        }
        let mut shard = self.shard(key);
        if shard.last_write >= seqno || shard.young.contains_key(key) {
            return;
        }
        let entry = Entry { seqno: seqno.saturating_sub(1), value: value.cloned() };
        shard.insert(Bytes::copy_from_slice(key), entry, self.generation_bytes);
    }

    /// The row is being written under the number `seqno`, which no snapshot sees yet.
    pub(super) fn written(&self, key: &[u8], seqno: SeqNo, value: Option<&Bytes>) {
        let mut guard = self.shard(key);
        let shard = &mut *guard;
        shard.last_write = seqno;
        let Some(key) = shard.take(key) else { return };
        if value.map_or(0, Bytes::len) <= ROW_BYTES_MAX {
            // Copied: the bytes may be a slice of a much larger buffer.
            let value = value.map(|value| Bytes::copy_from_slice(value));
            shard.insert(key, Entry { seqno, value }, self.generation_bytes);
        }
    }
}

/// Bytes that an entry counts for.
fn cost(key: &Bytes, entry: &Entry) -> usize {
    key.len() + entry.value.as_ref().map_or(0, Bytes::len) + ENTRY_OVERHEAD_BYTES
}

impl Shard {
    /// Removes a row and gives its key back, if it was there.
    fn take(&mut self, key: &[u8]) -> Option<Bytes> {
        let Some((key, entry)) = self.young.remove_entry(key) else {
            return self.old.remove_entry(key).map(|(key, _)| key);
        };
        self.young_bytes -= cost(&key, &entry);
        self.old.remove(&key);
        Some(key)
    }

    fn insert(&mut self, key: Bytes, entry: Entry, generation_bytes: usize) {
        self.young_bytes += cost(&key, &entry);
        if let Some(replaced) = self.young.insert(key.clone(), entry) {
            self.young_bytes -= cost(&key, &replaced);
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
        recent.found(b"k", 5, Some(&V1));
        assert_eq!(recent.get(b"k", 5), Some(Some(V1)));
        recent.written(b"k", 7, Some(&V2));
        assert_eq!(recent.get(b"k", 7), None, "snapshot 7 does not include batch 7");
        assert_eq!(recent.get(b"k", 8), Some(Some(V2)));
        recent.written(b"k", 9, None);
        assert_eq!(recent.get(b"k", 10), Some(None));
    }

    #[test]
    fn a_reader_overtaken_by_a_writer_leaves_nothing_behind() {
        let recent = Recent::new(1 << 20);
        recent.written(b"k", 7, Some(&V2));
        recent.found(b"k", 7, Some(&V1));
        assert_eq!(recent.get(b"k", 100), None);
        recent.found(b"k", 8, Some(&V2));
        assert_eq!(recent.get(b"k", 100), Some(Some(V2)));
    }

    #[test]
    fn memory_is_bounded_and_rows_in_use_stay() {
        let recent = Recent::new(SHARDS as u64 * 2 * 4096);
        recent.found(b"hot", 5, Some(&V1));
        for number in 0..100_000u32 {
            recent.found(&number.to_be_bytes(), 5, Some(&V1));
            assert_eq!(recent.get(b"hot", 5), Some(Some(V1)));
        }
        let entries: usize = recent.shards.iter().map(|s| s.lock().unwrap()).map(|s| s.young.len() + s.old.len()).sum();
        assert!(entries < SHARDS * 2 * 4096 / ENTRY_OVERHEAD_BYTES + 1, "{entries} entries");
    }

    #[test]
    fn rows_that_grow_are_counted() {
        let recent = Recent::new(SHARDS as u64 * 2 * 65_536);
        let value = Bytes::from(vec![0; ROW_BYTES_MAX]);
        for number in 0..10_000u32 {
            recent.found(&number.to_be_bytes(), 2 * u64::from(number) + 1, None);
            recent.written(&number.to_be_bytes(), 2 * u64::from(number) + 2, Some(&value));
        }
        let bytes: usize = (0..10_000u32)
            .filter_map(|number| recent.get(&number.to_be_bytes(), 1 << 40).flatten())
            .map(|value| value.len())
            .sum();
        assert!(bytes <= SHARDS * 2 * (65_536 + ROW_BYTES_MAX), "{bytes}");
    }

    #[test]
    fn a_large_row_is_not_kept() {
        let recent = Recent::new(1 << 20);
        let large = Bytes::from(vec![0; ROW_BYTES_MAX + 1]);
        recent.found(b"k", 5, Some(&large));
        assert_eq!(recent.get(b"k", 5), None);
        recent.found(b"k", 5, Some(&V1));
        recent.written(b"k", 6, Some(&large));
        assert_eq!(recent.get(b"k", 9), None);
    }
}
