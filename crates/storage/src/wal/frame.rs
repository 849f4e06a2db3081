//! A frame: the records of one or more turns, written together at a block boundary.
//!
//! ```text
//! magic u32 | header crc u32 | body crc u32 | body length u32 | sequence u64 | flush u64 | lsn u64
//! | oldest segment u64 | flags u8 | segment u32 | offset u32 | zeros to 64 bytes
//! | records ... | zeros to the next block
//! ```
//! The address stands in the header, too, so that a frame that a drive wrote to the wrong place is recognized there: it
//! may be the only trace of the flush it belonged to.
//!
//! `sequence` counts frames without a gap over all segments. `flush` counts calls of fsync: the log writes nothing of
//! flush n + 1 before flush n is durable. That is what tells a torn tail from damage: an unreadable place followed by a
//! frame of a later flush was durable once. `MORE` marks a frame whose flush continues in the next frame; a flush
//! counts only as a whole.

use super::record::Address;
use crate::disk::BLOCK_BYTES;

/// Bytes in front of a frame's records.
pub(crate) const FRAME_HEADER_BYTES: usize = 64;
/// A frame is closed once its records reach this size; recovery holds one frame in memory.
pub(crate) const FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;

pub(crate) const MAGIC: u32 = 0x314C_5753; // "SWL1"
const FLAG_MORE: u8 = 1;
const FIELDS_BYTES: usize = 57;

/// The fields of a frame's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FrameHeader {
    pub(crate) body_crc: u32,
    /// Bytes of records.
    pub(crate) body: u32,
    pub(crate) sequence: u64,
    pub(crate) flush: u64,
    /// Last turn that is complete with this flush.
    pub(crate) lsn: u64,
    /// Segments below this one were not needed any more when the frame was written.
    pub(crate) oldest: u64,
    /// The flush continues in the next frame.
    pub(crate) more: bool,
}

impl FrameHeader {
    /// Writes the header, which will stand at `address`, to the start of `out`.
    pub(crate) fn write(&self, out: &mut [u8], address: Address) {
        out[..FRAME_HEADER_BYTES].fill(0);
        out[..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[8..12].copy_from_slice(&self.body_crc.to_le_bytes());
        out[12..16].copy_from_slice(&self.body.to_le_bytes());
        out[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        out[24..32].copy_from_slice(&self.flush.to_le_bytes());
        out[32..40].copy_from_slice(&self.lsn.to_le_bytes());
        out[40..48].copy_from_slice(&self.oldest.to_le_bytes());
        out[48] = if self.more { FLAG_MORE } else { 0 };
        out[49..53].copy_from_slice(&(address.segment as u32).to_le_bytes());
        out[53..57].copy_from_slice(&(address.offset as u32).to_le_bytes());
        let crc = address.checksum(&out[8..FIELDS_BYTES]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
    }

    /// The header at the start of `bytes`, if those were written as one at `address`.
    pub(crate) fn read(bytes: &[u8], address: Address) -> Option<Self> {
        match Self::find(bytes, address)? {
            (header, offset) if u64::from(offset) == address.offset => Some(header),
            _ => None,
        }
    }

    /// The header at the start of `bytes`, which stand at `address`, if those were written as one anywhere in the same
    /// segment; with the offset it was meant for.
    pub(crate) fn find(bytes: &[u8], address: Address) -> Option<(Self, u32)> {
        let bytes = bytes.get(..FRAME_HEADER_BYTES)?;
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let meant = Address { offset: u64::from(word(53)), ..address };
        if word(0) != MAGIC
            || u64::from(word(49)) != address.segment
            || word(4) != meant.checksum(&bytes[8..FIELDS_BYTES])
            || bytes[48] > FLAG_MORE
        {
            return None;
        }
        let header = Self {
            body_crc: word(8),
            body: word(12),
            sequence: long(16),
            flush: long(24),
            lsn: long(32),
            oldest: long(40),
            more: bytes[48] == FLAG_MORE,
        };
        Some((header, word(53)))
    }

    /// Bytes the frame takes in the segment, padding included.
    pub(crate) const fn span(&self) -> u64 {
        frame_span(self.body as usize)
    }
}

/// Bytes a frame with `body` bytes of records takes in a segment.
pub(crate) const fn frame_span(body: usize) -> u64 {
    (FRAME_HEADER_BYTES + body).next_multiple_of(BLOCK_BYTES) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_round_trip_and_every_flipped_bit_is_found() {
        let place = Address { incarnation: 1, segment: 2, offset: 4096 };
        let header = FrameHeader { body_crc: 1, body: 5000, sequence: 3, flush: 4, lsn: 5, oldest: 6, more: true };
        let mut bytes = [0xAA; FRAME_HEADER_BYTES];
        header.write(&mut bytes, place);
        assert_eq!(FrameHeader::read(&bytes, place), Some(header));
        assert_eq!(FrameHeader::read(&bytes, place.plus(4096)), None);
        assert_eq!(FrameHeader::find(&bytes, place.plus(4096)), Some((header, 4096)));
        assert_eq!(FrameHeader::find(&bytes, Address { segment: 3, ..place }), None);
        assert_eq!(header.span(), 8192);
        for bit in 0..FIELDS_BYTES * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FrameHeader::read(&damaged, place), None, "bit {bit}");
        }
    }
}
