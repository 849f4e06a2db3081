//! Bytes of a write buffer, one behind the other, in few large allocations.
//!
//! Invariant: bytes once written neither move nor change until the arena goes as a whole.

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

#[derive(Debug, Default)]
pub(super) struct Arena {
    /// Never filled beyond the capacity they were made with.
    chunks: Vec<Vec<u8>>,
    bytes: usize,
}

impl Arena {
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
        let usual = CHUNK_BYTES_MIN << self.chunks.len().min(usize::BITS as usize / 2);
        let chunk = Vec::with_capacity(usual.min(CHUNK_BYTES_MAX).max(needed));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_all_sizes_come_back() {
        let mut arena = Arena::default();
        let sizes = [0, 1, 4095, 1, 0, 5000, 300_000, 7, 100_000, 200_000, 0];
        let pieces: Vec<_> = (0u8..).zip(sizes).map(|(fill, size)| arena.push(&vec![fill; size])).collect();
        for ((fill, size), piece) in (0u8..).zip(sizes).zip(pieces) {
            assert_eq!(arena.get(piece), vec![fill; size]);
        }
        assert!(arena.bytes() >= sizes.iter().sum() && arena.bytes() < 3 << 20, "{}", arena.bytes());
        assert_eq!(arena.bytes(), arena.chunks.iter().map(Vec::capacity).sum::<usize>(), "a chunk was moved");
    }
}
