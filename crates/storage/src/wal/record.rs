//! One change to one group's durable state, as bytes.
//!
//! ```text
//! crc u32 | length u32 | kind u8 | body (length bytes)
//! ```
//! The checksum covers everything after itself *and* the record's address (see [`Address`]), so that a record found
//! anywhere but where it was written never verifies: neither one that a drive wrote to the wrong sector nor one that an
//! earlier use of the same file left behind.

use base::{Ballot, Fault, GroupId, Index, NodeId, Reader, codec};
use bytes::Bytes;
use kernel::{Entry, EntryKind, Position};

use super::planted::{self, Bug};

/// Bytes in front of a record's body.
pub(crate) const RECORD_HEADER_BYTES: usize = 9;

const KIND_HARD: u8 = 1;
const KIND_ENTRY: u8 = 2;
const KIND_TRUNCATE: u8 = 3;
const KIND_COMPACT: u8 = 4;
const KIND_FORGET: u8 = 5;

/// Where bytes were written: part of every checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Address {
    /// Random number of the data directory.
    pub(crate) incarnation: u64,
    /// The segment's number, never used twice.
    pub(crate) segment: u64,
    /// Offset within the segment.
    pub(crate) offset: u64,
}

impl Address {
    /// The checksum of `parts` at this address.
    pub(crate) fn checksum(&self, bytes: &[u8]) -> u32 {
        let mut place = [0; 24];
        if planted::is(Bug::NoAddress) {
            return crc32c::crc32c_append(crc32c::crc32c(&place), bytes);
        }
        place[..8].copy_from_slice(&self.incarnation.to_le_bytes());
        place[8..16].copy_from_slice(&self.segment.to_le_bytes());
        place[16..].copy_from_slice(&self.offset.to_le_bytes());
        crc32c::crc32c_append(crc32c::crc32c(&place), bytes)
    }

    /// `bytes` further on.
    #[cfg(test)]
    pub(crate) const fn plus(&self, bytes: u64) -> Self {
        Self { incarnation: self.incarnation, segment: self.segment, offset: self.offset + bytes }
    }
}

/// Promise, acceptance and commit hint of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Hard {
    pub(crate) promised: Ballot,
    pub(crate) accepted: Ballot,
    pub(crate) commit: Index,
}

/// A record without the payload it may carry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    /// See [`kernel::Record::Hard`].
    Hard(Hard),
    /// One entry of [`kernel::Record::Append`].
    Entry { index: Index, stamp: Ballot, origin: Ballot },
    /// See [`kernel::Record::Truncate`].
    Truncate { from: Index },
    /// See [`kernel::Record::Compact`].
    Compact { base: Position, keep_suffix: bool },
    /// The group has left this node: everything about it is gone.
    Forget,
}

fn put_ballot(out: &mut Vec<u8>, ballot: Ballot) {
    codec::put_varint(out, ballot.round);
    codec::put_varint(out, ballot.node.0);
}

/// Appends a record with an empty checksum; [`seal_record`] fills it in once the address is known.
pub(crate) fn put_record(out: &mut Vec<u8>, group: GroupId, change: &Change, entry: Option<&Entry>) {
    let start = out.len();
    out.extend_from_slice(&[0; RECORD_HEADER_BYTES]);
    codec::put_varint(out, group.0);
    let kind = match change {
        Change::Hard(hard) => {
            put_ballot(out, hard.promised);
            put_ballot(out, hard.accepted);
            codec::put_varint(out, hard.commit.0);
            KIND_HARD
        }
        Change::Entry { index, stamp, origin } => {
            let entry = entry.expect("an entry record is written from an entry");
            codec::put_varint(out, index.0);
            put_ballot(out, *stamp);
            put_ballot(out, *origin);
            out.push(entry.kind as u8);
            out.extend_from_slice(&entry.payload);
            KIND_ENTRY
        }
        Change::Truncate { from } => {
            codec::put_varint(out, from.0);
            KIND_TRUNCATE
        }
        Change::Compact { base, keep_suffix } => {
            codec::put_varint(out, base.index.0);
            put_ballot(out, base.stamp);
            out.push(u8::from(*keep_suffix));
            KIND_COMPACT
        }
        Change::Forget => KIND_FORGET,
    };
    let body = out.len() - start - RECORD_HEADER_BYTES;
    let body = u32::try_from(body).expect("the writer refuses records that do not fit a segment");
    out[start + 4..start + 8].copy_from_slice(&body.to_le_bytes());
    out[start + 8] = kind;
}

/// Writes the checksum of the record in `bytes`, which will stand at `address`.
pub(crate) fn seal_record(bytes: &mut [u8], address: Address) {
    let crc = address.checksum(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
}

/// A record as read back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Decoded {
    pub(crate) group: GroupId,
    pub(crate) change: Change,
    /// Of an entry; empty otherwise.
    pub(crate) kind: EntryKind,
    pub(crate) payload: Bytes,
    /// Bytes the record takes, header included.
    pub(crate) bytes: usize,
}

impl Decoded {
    /// The entry, if the record is one.
    pub(crate) fn into_entry(self) -> Option<Entry> {
        match self.change {
            Change::Entry { index, stamp, origin } => {
                Some(Entry { index, stamp, origin, kind: self.kind, payload: self.payload })
            }
            _ => None,
        }
    }
}

fn ballot(reader: &mut Reader, what: &'static str) -> Result<Ballot, base::DecodeError> {
    Ok(Ballot::new(reader.varint(what)?, NodeId(reader.varint(what)?)))
}

/// Reads the record at the start of `bytes`, which stands at `address`. The error says what does not hold.
pub(crate) fn decode_record(bytes: &Bytes, address: Address) -> Result<Decoded, String> {
    if bytes.len() < RECORD_HEADER_BYTES {
        return Err(format!("{} bytes are too few for a record", bytes.len()));
    }
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let total = RECORD_HEADER_BYTES + word(4) as usize;
    if total > bytes.len() {
        return Err(format!("a record of {total} bytes does not fit in {}", bytes.len()));
    }
    if word(0) != address.checksum(&bytes[4..total]) && !planted::is(Bug::RecordUnchecked) {
        return Err("the record's checksum does not match".to_owned());
    }
    parse(bytes[8], bytes.slice(RECORD_HEADER_BYTES..total), total).map_err(|error| error.to_string())
}

fn parse(record: u8, body: Bytes, bytes: usize) -> Result<Decoded, base::DecodeError> {
    let mut reader = Reader::new(body);
    let group = GroupId(reader.varint("group")?);
    let (mut kind, mut payload) = (EntryKind::Command, Bytes::new());
    let change = match record {
        KIND_HARD => Change::Hard(Hard {
            promised: ballot(&mut reader, "promised")?,
            accepted: ballot(&mut reader, "accepted")?,
            commit: Index(reader.varint("commit")?),
        }),
        KIND_ENTRY => {
            let index = Index(reader.varint("index")?);
            let stamp = ballot(&mut reader, "stamp")?;
            let origin = ballot(&mut reader, "origin")?;
            kind = match reader.u8("entry kind")? {
                1 => EntryKind::EpochStart,
                2 => EntryKind::Command,
                3 => EntryKind::Config,
                _ => return Err(reader.error("entry kind")),
            };
            payload = reader.take(reader.remaining(), "payload")?;
            Change::Entry { index, stamp, origin }
        }
        KIND_TRUNCATE => Change::Truncate { from: Index(reader.varint("from")?) },
        KIND_COMPACT => {
            let index = Index(reader.varint("base")?);
            let stamp = ballot(&mut reader, "base stamp")?;
            let keep_suffix = match reader.u8("keep suffix")? {
                0 => false,
                1 => true,
                _ => return Err(reader.error("keep suffix")),
            };
            Change::Compact { base: Position { index, stamp }, keep_suffix }
        }
        KIND_FORGET => Change::Forget,
        _ => return Err(reader.error("record kind")),
    };
    reader.finish("end of record")?;
    Ok(Decoded { group, change, kind, payload, bytes })
}

/// The fault for damage at a place in the log.
pub(crate) fn damaged(file: &str, offset: u64, detail: &str) -> Fault {
    Fault::Corrupt {
        place: format!("{file} at byte {offset}"),
        detail: format!(
            "{detail}; this node must not start with a damaged log, it might forget a promise. Remove it from the \
             cluster and add it again with an empty data directory"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Address = Address { incarnation: 7, segment: 3, offset: 4160 };

    fn entry() -> Entry {
        Entry {
            index: Index(300),
            stamp: Ballot::new(9, NodeId(2)),
            origin: Ballot::new(8, NodeId(1)),
            kind: EntryKind::Command,
            payload: Bytes::from_static(b"payload"),
        }
    }

    fn samples() -> Vec<(Change, Option<Entry>)> {
        let entry = entry();
        let change = Change::Entry { index: entry.index, stamp: entry.stamp, origin: entry.origin };
        let hard = Hard { promised: Ballot::new(1 << 40, NodeId(u64::MAX)), accepted: Ballot::ZERO, commit: Index(5) };
        vec![
            (Change::Hard(hard), None),
            (change, Some(entry)),
            (Change::Truncate { from: Index(u64::MAX) }, None),
            (Change::Compact { base: Position { index: Index(4), stamp: Ballot::ZERO }, keep_suffix: true }, None),
            (Change::Forget, None),
        ]
    }

    #[test]
    fn records_round_trip_and_bind_to_their_address() {
        for (change, entry) in samples() {
            let mut bytes = Vec::new();
            put_record(&mut bytes, GroupId(70), &change, entry.as_ref());
            seal_record(&mut bytes, PLACE);
            let len = bytes.len();
            let bytes = Bytes::from(bytes);
            let decoded = decode_record(&bytes, PLACE).expect("own record");
            assert_eq!((decoded.group, &decoded.change, decoded.bytes), (GroupId(70), &change, len));
            if let Some(entry) = entry {
                assert_eq!(decoded.into_entry(), Some(entry));
            }
            for other in [PLACE.plus(512), Address { segment: 4, ..PLACE }, Address { incarnation: 8, ..PLACE }] {
                assert!(decode_record(&bytes, other).is_err(), "a record verified at a place it was not written to");
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        for (change, entry) in samples() {
            let mut bytes = Vec::new();
            put_record(&mut bytes, GroupId(1), &change, entry.as_ref());
            seal_record(&mut bytes, PLACE);
            for at in 0..bytes.len() * 8 {
                let mut damaged = bytes.clone();
                damaged[at / 8] ^= 1 << (at % 8);
                assert!(decode_record(&damaged.into(), PLACE).is_err(), "bit {at} of {change:?}");
            }
            for len in 0..bytes.len() {
                assert!(decode_record(&Bytes::copy_from_slice(&bytes[..len]), PLACE).is_err());
            }
        }
    }
}
