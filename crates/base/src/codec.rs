//! Byte encodings shared by the log, the engine rows and the peer frames: little-endian integers, LEB128 varints,
//! length-prefixed byte strings. Decoding never panics and never allocates more than the input holds.

use bytes::{Buf, Bytes};
use thiserror::Error;

/// The input is not what the format says.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("malformed {what} at byte {at}")]
pub struct DecodeError {
    /// The field that could not be read.
    pub what: &'static str,
    /// Offset from the start of the input.
    pub at: usize,
}

/// Appends `value` as LEB128.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends `value` zig-zag encoded, so that small negative numbers stay short.
pub fn put_varint_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Appends `bytes` behind its length as varint.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads fields off a shared buffer; byte strings are slices of it, not copies.
#[derive(Debug, Clone)]
pub struct Reader {
    rest: Bytes,
    total: usize,
}

impl Reader {
    /// Reads from the start of `input`.
    #[must_use]
    pub fn new(input: Bytes) -> Self {
        Self { total: input.len(), rest: input }
    }

    /// Bytes not yet read.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Offset of the next byte.
    #[must_use]
    pub fn position(&self) -> usize {
        self.total - self.rest.len()
    }

    /// The error "`what` is malformed here".
    #[must_use]
    pub fn error(&self, what: &'static str) -> DecodeError {
        DecodeError { what, at: self.position() }
    }

    /// One byte.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        if self.rest.is_empty() {
            return Err(self.error(what));
        }
        Ok(self.rest.get_u8())
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        if self.rest.len() < 4 {
            return Err(self.error(what));
        }
        Ok(self.rest.get_u32_le())
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        if self.rest.len() < 8 {
            return Err(self.error(what));
        }
        Ok(self.rest.get_u64_le())
    }

    /// A LEB128 number; longer than ten bytes, or above `u64::MAX`, is malformed.
    pub fn varint(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.u8(what)?;
            if shift == 63 && byte > 1 {
                return Err(self.error(what));
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.error(what))
    }

    /// A zig-zag number.
    pub fn varint_signed(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        let raw = self.varint(what)?;
        Ok(((raw >> 1) as i64) ^ -((raw & 1) as i64))
    }

    /// A byte string behind its length.
    pub fn bytes(&mut self, what: &'static str) -> Result<Bytes, DecodeError> {
        let len = self.varint(what)?;
        match usize::try_from(len) {
            Ok(len) if len <= self.rest.len() => Ok(self.rest.split_to(len)),
            _ => Err(self.error(what)),
        }
    }

    /// Exactly `len` bytes.
    pub fn take(&mut self, len: usize, what: &'static str) -> Result<Bytes, DecodeError> {
        if len > self.rest.len() {
            return Err(self.error(what));
        }
        Ok(self.rest.split_to(len))
    }

    /// Fails unless everything was read.
    pub fn finish(self, what: &'static str) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.error(what)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_at_every_width() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) - 1, u64::MAX >> shift] {
                let mut out = Vec::new();
                put_varint(&mut out, value);
                put_varint_signed(&mut out, value as i64);
                let mut reader = Reader::new(out.into());
                assert_eq!(reader.varint("v"), Ok(value));
                assert_eq!(reader.varint_signed("v"), Ok(value as i64));
                assert_eq!(reader.finish("end"), Ok(()));
            }
        }
    }

    #[test]
    fn overlong_and_truncated_input_is_refused() {
        assert!(Reader::new(vec![0xff; 10].into()).varint("v").is_err());
        assert!(Reader::new(vec![0x80; 11].into()).varint("v").is_err());
        assert!(Reader::new(vec![0x80].into()).varint("v").is_err());
        assert!(Reader::new(vec![5, 1, 2].into()).bytes("b").is_err());
        assert_eq!(Reader::new(vec![1].into()).u32("n"), Err(DecodeError { what: "n", at: 0 }));
    }
}
