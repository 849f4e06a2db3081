//! A snapshot as a file: the chunks of [`crate::snapshot`], each with its length before it.
//!
//! ```text
//! "SINEWSN1" | length u32 | chunk | length u32 | chunk ...       the last chunk says that it is the last
//! ```
//! Invariant: a file that was cut short, altered in any byte or followed by anything is never taken for a whole one:
//! chunks are numbered and have checksums, and the last one ends the file.

use std::io::Read;

use base::{Fault, limits};
use bytes::Bytes;

use crate::snapshot::{Chunk, decode};

/// The first bytes of a file.
pub const SNAPSHOT_FILE_MAGIC: &[u8; 8] = b"SINEWSN1";
/// A chunk with one row of the largest size is not larger than this.
const CHUNK_BYTES_MAX: usize = 2 * limits::PEER_FRAME_BYTES_MAX;

/// What goes to the file for one chunk.
#[must_use]
pub fn framed(chunk: &Chunk) -> Bytes {
    let mut out = Vec::with_capacity(chunk.bytes.len() + 12);
    if chunk.sequence == 0 {
        out.extend_from_slice(SNAPSHOT_FILE_MAGIC);
    }
    out.extend_from_slice(&(chunk.bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(&chunk.bytes);
    out.into()
}

/// Reads a file, verifying it on the way.
pub struct SnapshotFile<R> {
    input: R,
    place: String,
    next: u32,
    complete: bool,
}

impl<R: Read> SnapshotFile<R> {
    /// Starts reading. `place` is the file's name, for messages.
    ///
    /// # Errors
    /// [`Fault::Refused`] if it is no snapshot of this format; [`Fault::Io`].
    pub fn open(input: R, place: &str) -> Result<Self, Fault> {
        let mut file = Self { input, place: place.to_owned(), next: 0, complete: false };
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
        let mut length = [0; 4];
        let found = self.fill(&mut length)?;
        if self.complete {
            return if found == 0 { Ok(None) } else { Err(self.damaged("something follows the last chunk")) };
        }
        if found < length.len() {
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
        let mut out = Vec::new();
        while let Some(chunk) = reader.next_chunk().unwrap() {
            out.extend_from_slice(&framed(&chunk));
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
        assert_eq!(&whole[..8], b"SINEWSN1");
        assert_eq!(read(&whole), Ok(20));
        for cut in (0..whole.len()).step_by(4099).chain([7, 8, 9, 12, whole.len() - 1]) {
            assert!(read(&whole[..cut]).is_err(), "cut at {cut}");
        }
        for at in (0..whole.len()).step_by(4099).chain([3, 9, 13, 20]) {
            let mut altered = whole.clone();
            altered[at] ^= 1;
            assert!(read(&altered).is_err(), "altered at {at}");
        }
        assert!(read(&[whole.clone(), vec![0]].concat()).is_err(), "a byte too many");
        assert_eq!(read(&file(0)), Ok(0));
    }
}
