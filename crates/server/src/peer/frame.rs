//! Frames: `length u32 | crc32c u32 | body`, little-endian, the checksum over length and body (docs/formats/peer.md).

use base::limits;
use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

/// Bytes before the body.
pub(crate) const HEADER_BYTES: usize = 8;

/// The bytes on a connection are not frames of ours.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum FrameError {
    #[error("frame of {0} bytes exceeds the limit of {max}", max = limits::PEER_FRAME_BYTES_MAX)]
    TooLong(usize),
    #[error("checksum mismatch in a frame of {0} bytes")]
    Checksum(usize),
}

/// Appends one frame whose body `write` appends to the buffer.
pub(crate) fn put(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    write(out);
    let length = out.len() - start - HEADER_BYTES;
    assert!(length <= limits::PEER_FRAME_BYTES_MAX, "a message of {length} bytes exceeds every bound of its parts");
    let length_bytes = (length as u32).to_le_bytes();
    let crc = crc32c::crc32c_append(crc32c::crc32c(&length_bytes), &out[start + HEADER_BYTES..]);
    out[start..start + 4].copy_from_slice(&length_bytes);
    out[start + 4..start + HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
}

/// Takes the next whole frame off `input`; `None` until it is all there.
pub(crate) fn take(input: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
    let Some(header) = input.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let length_bytes = [header[0], header[1], header[2], header[3]];
    let length = u32::from_le_bytes(length_bytes) as usize;
    let crc = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
    if length > limits::PEER_FRAME_BYTES_MAX {
        return Err(FrameError::TooLong(length));
    }
    if input.len() < HEADER_BYTES + length {
        input.reserve(HEADER_BYTES + length - input.len());
        return Ok(None);
    }
    input.advance(HEADER_BYTES);
    let body = input.split_to(length).freeze();
    if crc32c::crc32c_append(crc32c::crc32c(&length_bytes), &body) != crc {
        return Err(FrameError::Checksum(length));
    }
    Ok(Some(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, |out| out.extend_from_slice(body));
        out
    }

    #[test]
    fn golden_bytes() {
        assert_eq!(framed(b"hi"), [2, 0, 0, 0, 0x59, 0x72, 0x5a, 0x88, b'h', b'i']);
    }

    #[test]
    fn frames_come_out_whole_however_the_bytes_arrive() {
        let stream = [framed(b"first"), framed(b""), framed(&[7; 5000])].concat();
        let mut input = BytesMut::new();
        let mut bodies = Vec::new();
        for byte in stream {
            input.extend_from_slice(&[byte]);
            while let Some(body) = take(&mut input).unwrap() {
                bodies.push(body);
            }
        }
        assert_eq!(bodies, [&b"first"[..], b"", &[7; 5000]]);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = framed(b"body");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let taken = take(&mut BytesMut::from(&bad[..]));
            assert!(!matches!(taken, Ok(Some(_))), "bit {bit} went unnoticed");
        }
    }

    #[test]
    fn an_absurd_length_is_refused_before_anything_is_allocated() {
        let mut input = BytesMut::from(&[0xff; HEADER_BYTES][..]);
        assert_eq!(take(&mut input), Err(FrameError::TooLong(u32::MAX as usize)));
    }
}
