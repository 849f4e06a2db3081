//! A snapshot as a file: the chunks of [`crate::snapshot`], each with its length before it.
//!
//! ```text
//! "SINEWSN2" | length u32 | chunk | length u32 | chunk ...       the last chunk says that it is the last
//! zeros up to a multiple of 512 | SHA-256 over all before it     so that etcdctl takes the file for a whole one
//! ```
//! Invariant: a file that was cut short, altered in any byte or followed by anything is never taken for a whole one:
//! chunks are numbered and have checksums, the last one is followed by zeros and the digest, and that ends the file.

use std::io::Read;

use base::{Fault, limits};
use bytes::Bytes;

use crate::sha256::{DIGEST_BYTES, Sha256};
use crate::snapshot::{Chunk, decode};

/// The first bytes of a file.
pub const SNAPSHOT_FILE_MAGIC: &[u8; 8] = b"SINEWSN2";
/// A chunk with one row of the largest size is not larger than this.
const CHUNK_BYTES_MAX: usize = 2 * limits::PEER_FRAME_BYTES_MAX;

/// What stands before the digest is a multiple of this: etcdctl's test for a whole file, from the pages of etcd's.
const PAGE_BYTES: usize = 512;

/// Makes a file of chunks, piece by piece.
#[derive(Debug)]
pub struct SnapshotFrames {
    digest: Sha256,
    length: usize,
}

impl Default for SnapshotFrames {
    fn default() -> Self {
        Self { digest: Sha256::new(), length: 0 }
    }
}

impl SnapshotFrames {
    /// What goes to the file for the next chunk.
    pub fn frame(&mut self, chunk: &Chunk) -> Bytes {
        let mut out = Vec::with_capacity(chunk.bytes.len() + PAGE_BYTES + DIGEST_BYTES);
        if chunk.sequence == 0 {
            out.extend_from_slice(SNAPSHOT_FILE_MAGIC);
        }
        out.extend_from_slice(&(chunk.bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(&chunk.bytes);
        self.length += out.len();
        if chunk.last {
            out.resize(out.len() + padding(self.length), 0);
        }
        self.digest.update(&out);
        if chunk.last {
            out.extend_from_slice(&self.digest.clone().finish());
        }
        out.into()
    }
}

/// Bytes that are missing from a whole number of pages.
const fn padding(length: usize) -> usize {
    length.next_multiple_of(PAGE_BYTES) - length
}

/// Reads a file, verifying it on the way.
pub struct SnapshotFile<R> {
    input: R,
    place: String,
    next: u32,
    complete: bool,
    /// Over what was read, and how much that was.
    digest: Sha256,
    length: usize,
}

impl<R: Read> SnapshotFile<R> {
    /// Starts reading. `place` is the file's name, for messages.
    ///
    /// # Errors
    /// [`Fault::Refused`] if it is no snapshot of this format; [`Fault::Io`].
    pub fn open(input: R, place: &str) -> Result<Self, Fault> {
        let digest = Sha256::new();
        let mut file = Self { input, place: place.to_owned(), next: 0, complete: false, digest, length: 0 };
        let mut magic = [0; 8];
        let found = file.fill(&mut magic)?;
        if found < magic.len() || &magic != SNAPSHOT_FILE_MAGIC {
            return Err(Fault::Refused(format!(
                "{place} is no snapshot that `sinew snapshot save` made; snapshots of etcd cannot be read"
            )));
        }
        Ok(file)
    }

    /// The next rows, in key order; `None` at the end of a whole file.
    ///
    /// # Errors
    /// [`Fault::Corrupt`] if the file is cut short or altered; [`Fault::Io`].
    pub fn next_rows(&mut self) -> Result<Option<Vec<(Bytes, Bytes)>>, Fault> {
        if self.complete {
            return self.end().map(|()| None);
        }
        let mut length = [0; 4];
        if self.fill(&mut length)? < length.len() {
            return Err(self.damaged("the file is cut short"));
        }
        let length = u32::from_le_bytes(length) as usize;
        if length > CHUNK_BYTES_MAX {
            return Err(self.damaged("a chunk has an impossible length"));
        }
        let mut chunk = vec![0; length];
        if self.fill(&mut chunk)? < length {
            return Err(self.damaged("the file is cut short"));
        }
        let (sequence, last, rows) = decode(chunk.into()).map_err(|fault| self.damaged(&fault.to_string()))?;
        if sequence != self.next {
            return Err(self.damaged(&format!("chunk {sequence} stands in the place of chunk {}", self.next)));
        }
        self.next += 1;
        self.complete = last;
        Ok(Some(rows))
    }

    /// What follows the last chunk.
    fn end(&mut self) -> Result<(), Fault> {
        let mut zeros = vec![0; padding(self.length)];
        let whole = self.fill(&mut zeros)? == zeros.len();
        let expected = self.digest.clone().finish();
        let mut digest = [0; DIGEST_BYTES];
        if !whole || self.fill(&mut digest)? < DIGEST_BYTES {
            return Err(self.damaged("the file is cut short"));
        }
        if digest != expected || zeros.iter().any(|byte| *byte != 0) {
            return Err(self.damaged("its SHA-256 is another"));
        }
        if self.fill(&mut [0])? > 0 {
            return Err(self.damaged("something follows the last chunk"));
        }
        Ok(())
    }

    /// Reads until the buffer is full or the file ends; answers with how much there was.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.input.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let (path, cause) = (self.place.clone(), error.to_string());
                    return Err(Fault::Io { operation: "read", path, cause });
                }
            }
        }
        self.digest.update(&buffer[..filled]);
        self.length += filled;
        Ok(filled)
    }

    fn damaged(&self, detail: &str) -> Fault {
        Fault::Corrupt { place: self.place.clone(), detail: format!("{detail}; use another copy of the snapshot") }
    }
}

#[cfg(test)]
mod tests {
    use mvcc::engine::{Batch, Engine, MemEngine};

    use super::*;
    use crate::snapshot::SnapshotReader;

    fn file(values: usize) -> Vec<u8> {
        let engine = MemEngine::new();
        let row = |number: usize| (Bytes::from(format!("c{number:04}")), Some(Bytes::from(vec![7; 100_000])));
        engine.write(Batch { rows: (0..values).map(row).collect() }).unwrap();
        let mut reader = SnapshotReader::new(engine.view());
        let (mut frames, mut out) = (SnapshotFrames::default(), Vec::new());
        while let Some(chunk) = reader.next_chunk().unwrap() {
            out.extend_from_slice(&frames.frame(&chunk));
        }
        out
    }

    fn read(bytes: &[u8]) -> Result<usize, Fault> {
        let mut file = SnapshotFile::open(bytes, "s")?;
        let mut rows = 0;
        while let Some(more) = file.next_rows()? {
            rows += more.len();
        }
        Ok(rows)
    }

    #[test]
    fn a_whole_file_is_read_and_no_other() {
        let whole = file(20);
        assert_eq!(&whole[..8], b"SINEWSN2");
        assert_eq!(read(&whole), Ok(20));
        for cut in (0..whole.len()).step_by(4099).chain([7, 8, 9, 12, whole.len() - 33, whole.len() - 1]) {
            assert!(read(&whole[..cut]).is_err(), "cut at {cut}");
        }
        for at in (0..whole.len()).step_by(4099).chain([3, 9, 13, 20, whole.len() - 33, whole.len() - 1]) {
            let mut altered = whole.clone();
            altered[at] ^= 1;
            assert!(read(&altered).is_err(), "altered at {at}");
        }
        assert!(read(&[whole.clone(), vec![0]].concat()).is_err(), "a byte too many");
        let smallest = file(0);
        assert_eq!(read(&smallest), Ok(0));
        for at in 0..smallest.len() {
            assert!(read(&smallest[..at]).is_err(), "cut at {at}");
            let mut altered = smallest.clone();
            altered[at] ^= 1;
            assert!(read(&altered).is_err(), "altered at {at}");
        }
    }

    #[test]
    fn a_file_ends_the_way_etcdctl_wants_it() {
        for values in [0, 1, 20] {
            let whole = file(values);
            assert_eq!(whole.len() % 512, 32, "{values} values");
            let (content, digest) = whole.split_at(whole.len() - 32);
            let mut expected = Sha256::new();
            expected.update(content);
            assert_eq!(expected.finish(), *digest, "{values} values");
        }
    }
}
