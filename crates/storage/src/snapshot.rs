//! A state machine's rows as a stream of chunks, in key order.
//!
//! ```text
//! chunk:  magic u32 | crc u32 | sequence u32 | flags u8 | rows ...
//! row:    key length varint | key | value length varint | value
//! ```
//! The checksum covers everything after itself. Flag 1 marks the last chunk, so that a stream that was cut off is never
//! taken for a whole one. Chunks are numbered from zero; a transfer that was interrupted goes on with the chunk after
//! the last one taken, which starts behind that chunk's last key. It must then be read from the same view, since two
//! views may differ; the caller keeps the view, or starts again.

use std::ops::Bound;

use base::{Fault, Reader, codec, limits};
use bytes::Bytes;
use mvcc::engine::View;

use crate::engine::EngineBuilder;

const MAGIC: u32 = 0x314E_5353; // "SSN1"
const HEADER_BYTES: usize = 13;
const FLAG_LAST: u8 = 1;

/// Encoded rows, ready to be sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chunk {
    /// Number within the stream.
    pub sequence: u32,
    /// Whether the stream ends here.
    pub last: bool,
    /// What goes over the wire, everything above included.
    pub bytes: Bytes,
}

/// The sender's side: cuts the rows of a view into chunks.
pub struct SnapshotReader {
    view: Box<dyn View>,
    sequence: u32,
    /// The last key sent.
    after: Option<Bytes>,
    done: bool,
}

impl SnapshotReader {
    /// Streams all rows of `view` from the start.
    #[must_use]
    pub fn new(view: Box<dyn View>) -> Self {
        Self { view, sequence: 0, after: None, done: false }
    }

    /// Goes back to the chunk `sequence`, which starts behind the key `after`: the receiver knows both.
    pub fn resume(&mut self, sequence: u32, after: Option<Bytes>) {
        (self.sequence, self.after, self.done) = (sequence, after, false);
    }

    /// The next chunk, of about [`limits::SNAPSHOT_CHUNK_BYTES`]; a single larger row travels alone. `None` after the
    /// last.
    ///
    /// # Errors
    /// As reading from the view.
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>, Fault> {
        if self.done {
            return Ok(None);
        }
        let mut out = Vec::with_capacity(limits::SNAPSHOT_CHUNK_BYTES + HEADER_BYTES);
        out.extend_from_slice(&[0; HEADER_BYTES]);
        let from = self.after.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let mut last = true;
        for row in self.view.scan(from, Bound::Unbounded) {
            let (key, value) = row?;
            let more = key.len() + value.len() + 20;
            if out.len() > HEADER_BYTES && out.len() + more > limits::SNAPSHOT_CHUNK_BYTES {
                last = false;
                break;
            }
            codec::put_bytes(&mut out, &key);
            codec::put_bytes(&mut out, &value);
            self.after = Some(key);
        }
        let sequence = self.sequence;
        self.sequence += 1;
        self.done = last;
        out[..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[8..12].copy_from_slice(&sequence.to_le_bytes());
        out[12] = if last { FLAG_LAST } else { 0 };
        let crc = crc32c::crc32c(&out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        Ok(Some(Chunk { sequence, last, bytes: out.into() }))
    }
}

/// The receiver's side: feeds chunks to a second engine.
pub struct SnapshotWriter {
    builder: EngineBuilder,
    next: u32,
    complete: bool,
}

impl SnapshotWriter {
    /// Takes a stream from its first chunk on.
    #[must_use]
    pub const fn new(builder: EngineBuilder) -> Self {
        Self { builder, next: 0, complete: false }
    }

    /// Takes a chunk; answers whether it was the last one. A chunk that was taken before is ignored: the sender may
    /// repeat.
    ///
    /// # Errors
    /// [`Fault::Corrupt`] if the chunk is damaged or not the next one; the builder is unchanged then, and the sender
    /// may try again from [`SnapshotWriter::position`]. [`Fault::Io`].
    pub fn take(&mut self, bytes: Bytes) -> Result<bool, Fault> {
        let (sequence, last, rows) = decode(bytes)?;
        if sequence < self.next {
            return Ok(self.complete);
        }
        if sequence > self.next || self.complete {
            return Err(bad(format!("chunk {sequence} does not follow: {} is the next", self.next)));
        }
        self.builder.ingest(rows)?;
        self.next += 1;
        self.complete = last;
        Ok(last)
    }

    /// Where the stream goes on: number of the next chunk, and the last key taken.
    #[must_use]
    pub fn position(&self) -> (u32, Option<Bytes>) {
        (self.next, self.builder.last().cloned())
    }

    /// The filled builder, once the last chunk was taken.
    ///
    /// # Errors
    /// [`Fault::Corrupt`] if it was not.
    pub fn finish(self) -> Result<EngineBuilder, Fault> {
        if self.complete { Ok(self.builder) } else { Err(bad(format!("the stream ends before chunk {}", self.next))) }
    }
}

fn bad(detail: String) -> Fault {
    Fault::Corrupt { place: "a snapshot that is being received".to_owned(), detail }
}

pub(crate) type Rows = Vec<(Bytes, Bytes)>;

pub(crate) fn decode(bytes: Bytes) -> Result<(u32, bool, Rows), Fault> {
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    if bytes.len() < HEADER_BYTES || word(0) != MAGIC {
        return Err(bad("this is no snapshot chunk of format 1".to_owned()));
    }
    if word(4) != crc32c::crc32c(&bytes[8..]) || bytes[12] > FLAG_LAST {
        return Err(bad("a chunk's checksum does not match".to_owned()));
    }
    let (sequence, last) = (word(8), bytes[12] == FLAG_LAST);
    let mut reader = Reader::new(bytes.slice(HEADER_BYTES..));
    let mut rows = Vec::new();
    while reader.remaining() > 0 {
        let row = reader.bytes("row key").and_then(|key| Ok((key, reader.bytes("row value")?)));
        rows.push(row.map_err(|error| bad(error.to_string()))?);
    }
    Ok((sequence, last, rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_read_or_refused() {
        let mut good = vec![0; HEADER_BYTES];
        good[..4].copy_from_slice(&MAGIC.to_le_bytes());
        for (key, value) in [("ca", "value"), ("ha\0\x01", ""), ("mmark", "a longer value, of some bytes")] {
            codec::put_bytes(&mut good, key.as_bytes());
            codec::put_bytes(&mut good, value.as_bytes());
        }
        let sealed = |input: &[u8]| {
            let mut chunk = input.to_vec();
            if chunk.len() >= HEADER_BYTES {
                chunk[..4].copy_from_slice(&MAGIC.to_le_bytes());
                chunk[12] &= FLAG_LAST;
                let crc = crc32c::crc32c(&chunk[8..]);
                chunk[4..8].copy_from_slice(&crc.to_le_bytes());
            }
            Bytes::from(chunk)
        };
        assert_eq!(decode(sealed(&good)).map(|(_, _, rows)| rows.len()), Ok(3));
        let fuzz = fuzz::Fuzz::new("snapshot-chunk", env!("CARGO_MANIFEST_DIR")).seed(good);
        fuzz.run(|input| {
            drop(decode(Bytes::copy_from_slice(input)));
            drop(decode(sealed(input)));
        });
    }
}
