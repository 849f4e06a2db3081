//! A request encoded once, with holes for what changes.
//!
//! Invariant: filling a template changes no length, so the encoding around the holes stays valid. The holes are found
//! by encoding a marker: a run of one byte >= 0xf0, which no length or tag in front of it can end with (the last byte
//! of a varint is below 0x80), so the first such run of full length is the hole. Used by [`super::workload`].

use base::Prng;
use bytes::Bytes;
use prost::Message;

use super::client::FRAME_HEADER_BYTES;
use super::keys::KeySpace;

/// Shortest key or value whose marker cannot be mistaken for part of a varint.
pub(super) const MARKER_BYTES_MIN: usize = 16;
/// Bytes at the start of each value that carry the number of the operation.
const STAMP_BYTES: usize = 8;
const KEY_MARKERS: [u8; 2] = [0xf0, 0xf1];
const VALUE_MARKER: u8 = 0xf8;

/// A framed request and the places in it that differ from one operation to the next.
#[derive(Clone, Debug)]
pub(super) struct Template {
    framed: Vec<u8>,
    key_bytes: usize,
    key_offsets: Vec<(usize, usize)>,
    stamp_offsets: Vec<usize>,
}

impl Template {
    /// Encodes `message`, whose keys are [`key_marker`]s and whose values are [`value_marker`]s; `value` takes the
    /// place of the latter, and is empty if there are none.
    pub(super) fn new(message: &impl Message, key_bytes: usize, value: &[u8]) -> Self {
        let mut framed = Vec::from(framed(message));
        let mut key_offsets = Vec::new();
        for (index, marker) in KEY_MARKERS.iter().enumerate() {
            key_offsets.extend(runs(&framed, *marker, key_bytes).into_iter().map(|offset| (offset, index)));
        }
        assert!(!key_offsets.is_empty(), "a request without a key");
        let mut stamp_offsets = Vec::new();
        if value.len() >= MARKER_BYTES_MIN {
            stamp_offsets = runs(&framed, VALUE_MARKER, value.len());
        }
        for offset in &stamp_offsets {
            framed[*offset..*offset + value.len()].copy_from_slice(value);
        }
        Self { framed, key_bytes, key_offsets, stamp_offsets }
    }

    /// A copy with the keys of these numbers, and values that carry `sequence`.
    pub(super) fn filled(&self, keys: &KeySpace, numbers: &[u64], sequence: u64) -> Bytes {
        let mut copy = self.framed.clone();
        for (offset, index) in &self.key_offsets {
            keys.write_key(numbers[*index], &mut copy[*offset..*offset + self.key_bytes]);
        }
        for offset in &self.stamp_offsets {
            stamp(&mut copy[*offset..], sequence);
        }
        Bytes::from(copy)
    }
}

/// The message behind its gRPC frame header.
pub(super) fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = Vec::with_capacity(FRAME_HEADER_BYTES + length);
    bytes.push(0);
    bytes.extend_from_slice(&u32::try_from(length).expect("requests are bounded by the arguments").to_be_bytes());
    message.encode(&mut bytes).expect("a vector grows as needed");
    Bytes::from(bytes)
}

/// Stands for the key with this index until the template is filled.
pub(super) fn key_marker(index: usize, key_bytes: usize) -> Vec<u8> {
    assert!(key_bytes >= MARKER_BYTES_MIN, "a marker of {key_bytes} bytes could be part of a length");
    vec![KEY_MARKERS[index]; key_bytes]
}

/// Stands for `value` until the template is made. A value too short to be found again stands for itself.
pub(super) fn value_marker(value: &[u8]) -> Vec<u8> {
    if value.len() < MARKER_BYTES_MIN { value.to_vec() } else { vec![VALUE_MARKER; value.len()] }
}

/// A value that does not compress.
pub(super) fn random_value(value_bytes: usize, seed: u64) -> Vec<u8> {
    let mut prng = Prng::new(seed);
    (0..value_bytes).map(|_| prng.next_u64().to_le_bytes()[0]).collect()
}

/// Makes this value differ from all others of the run; one too short to be found stays as it is.
pub(super) fn stamp(value: &mut [u8], sequence: u64) {
    if value.len() >= MARKER_BYTES_MIN {
        value[..STAMP_BYTES].copy_from_slice(&sequence.to_be_bytes());
    }
}

/// The number of the operation that wrote this value.
pub(super) fn stamp_of(value: &[u8]) -> Option<u64> {
    let stamp = value.first_chunk::<STAMP_BYTES>()?;
    (value.len() >= MARKER_BYTES_MIN).then(|| u64::from_be_bytes(*stamp))
}

/// Where each run of exactly `length` bytes of `marker` starts.
fn runs(bytes: &[u8], marker: u8, length: usize) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut at = 0;
    while at + length <= bytes.len() {
        if bytes[at..at + length].iter().all(|byte| *byte == marker) {
            starts.push(at);
            at += length;
        } else {
            at += 1;
        }
    }
    starts
}
