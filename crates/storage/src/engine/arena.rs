//! Bytes of a write buffer, one behind the other, in few large allocations.
//!
//! Invariant: bytes once written neither move nor change until the arena goes as a whole.
//!
//! Buffers come and go several times a second. The chunks of one that went serve the next ones: what came from the
//! allocator would be mapped and zeroed anew each time, and stay resident for a while after it was given back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The first chunk; each further one is twice as large, so that a small buffer takes little.
const CHUNK_BYTES_MIN: usize = 4 << 10;
const CHUNK_BYTES_MAX: usize = 256 << 10;

/// Where some bytes lie in an arena.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    chunk: u32,
    at: u32,
    bytes: u32,
}

impl Piece {
    pub(super) const fn len(self) -> usize {
        self.bytes as usize
    }
}

/// Chunks of the usual size that no arena uses, up to a bound.
#[derive(Debug)]
pub(super) struct SpareChunks {
    chunks: Mutex<Vec<Vec<u8>>>,
    chunks_max: usize,
}

impl SpareChunks {
    /// Keeps no more than `bytes_max`.
    pub(super) fn new(bytes_max: u64) -> Self {
        let chunks_max = usize::try_from(bytes_max).unwrap_or(usize::MAX) / CHUNK_BYTES_MAX;
        Self { chunks: Mutex::default(), chunks_max }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        // A panic cannot leave the list half changed.
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Vec<u8> {
        let spare = self.lock().pop();
        spare.unwrap_or_else(|| Vec::with_capacity(CHUNK_BYTES_MAX))
    }

    fn give_back(&self, used: impl Iterator<Item = Vec<u8>>) {
        let mut chunks = self.lock();
        let room = self.chunks_max - chunks.len();
        chunks.extend(used.filter(|chunk| chunk.capacity() == CHUNK_BYTES_MAX).take(room).map(|mut chunk| {
            chunk.clear();
            chunk
        }));
    }
}

#[derive(Debug)]
pub(super) struct Arena {
    /// Never filled beyond the capacity they were made with.
    chunks: Vec<Vec<u8>>,
    bytes: usize,
    spare: Arc<SpareChunks>,
}

impl Arena {
    /// Takes chunks from `spare`, and leaves them there.
    pub(super) fn new(spare: &Arc<SpareChunks>) -> Self {
        Self { chunks: Vec::new(), bytes: 0, spare: Arc::clone(spare) }
    }

    /// Where its chunks go.
    pub(super) const fn spare(&self) -> &Arc<SpareChunks> {
        &self.spare
    }

    /// Copies `bytes` into the arena. A piece larger than a chunk gets one of its own.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Piece {
        let room = self.chunks.last().map_or(0, |chunk| chunk.capacity() - chunk.len());
        if room < bytes.len() {
            self.grow(bytes.len());
        }
        let number = self.chunks.len().saturating_sub(1);
        let at = match self.chunks.last_mut() {
            Some(chunk) => {
                chunk.extend_from_slice(bytes);
                chunk.len() - bytes.len()
            }
            // Nothing was ever pushed, and nothing is now.
            None => 0,
        };
        let small = |number: usize| u32::try_from(number).expect("rows are smaller than 4 GiB, and chunks fewer");
        Piece { chunk: small(number), at: small(at), bytes: small(bytes.len()) }
    }

    fn grow(&mut self, needed: usize) {
        let usual = (CHUNK_BYTES_MIN << self.chunks.len().min(usize::BITS as usize / 2)).min(CHUNK_BYTES_MAX);
        let wanted = usual.max(needed);
        let chunk = if wanted == CHUNK_BYTES_MAX { self.spare.take() } else { Vec::with_capacity(wanted) };
        self.bytes += chunk.capacity();
        self.chunks.push(chunk);
    }

    pub(super) fn get(&self, piece: Piece) -> &[u8] {
        match self.chunks.get(piece.chunk as usize) {
            Some(chunk) => &chunk[piece.at as usize..][..piece.bytes as usize],
            None => &[],
        }
    }

    /// Memory taken, with what is not used yet.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        self.spare.give_back(self.chunks.drain(..));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_all_sizes_come_back() {
        let mut arena = Arena::new(&Arc::new(SpareChunks::new(0)));
        let sizes = [0, 1, 4095, 1, 0, 5000, 300_000, 7, 100_000, 200_000, 0];
        let pieces: Vec<_> = (0u8..).zip(sizes).map(|(fill, size)| arena.push(&vec![fill; size])).collect();
        for ((fill, size), piece) in (0u8..).zip(sizes).zip(pieces) {
            assert_eq!(arena.get(piece), vec![fill; size]);
        }
        assert!(arena.bytes() >= sizes.iter().sum() && arena.bytes() < 3 << 20, "{}", arena.bytes());
        assert_eq!(arena.bytes(), arena.chunks.iter().map(Vec::capacity).sum::<usize>(), "a chunk was moved");
    }

    #[test]
    fn chunks_are_used_again_and_few_are_kept() {
        let spare = Arc::new(SpareChunks::new(3 * CHUNK_BYTES_MAX as u64));
        let fill = |byte: u8| {
            let mut arena = Arena::new(&spare);
            let pieces: Vec<_> = (0..500).map(|_| arena.push(&[byte; 2048])).collect();
            assert!(pieces.iter().all(|piece| arena.get(*piece) == [byte; 2048]));
            arena
        };
        let (first, second) = (fill(1), fill(2));
        drop(first);
        assert_eq!(spare.lock().len(), 3, "smaller ones are not kept");
        drop(second);
        assert_eq!(spare.lock().len(), 3, "no more than the bound");
        drop(fill(3));
        let _held = fill(4);
        assert_eq!(spare.lock().len(), 0);
    }
}
