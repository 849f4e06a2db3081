//! Row values: versions of keys and events, as bytes.
//!
//! ```text
//! version   flags | create | mod - create | version | [lease] | value ...     varints; flags: 1 = has a lease
//! event     kind  | mod revision of the version replaced, 0 if none | key ... kind: 0 = put, 1 = delete
//! ```
//!
//! Invariant: a current row and the history row it later becomes have the same bytes, so superseding a version moves
//! it without reading the value. Values are slices of the row.

use base::codec::{put_varint, put_varint_signed};
use base::{Fault, LeaseId, Revision};
use bytes::Bytes;

use crate::outcome::{EventKind, KeyValue};

const HAS_LEASE: u8 = 1;

/// The value of a tombstone row; its key says everything.
pub(crate) const TOMBSTONE: &[u8] = &[1];

/// The value of an attachment row; its key says everything.
pub(crate) const ATTACHED: &[u8] = &[1];

/// What a row holds besides the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) create: i64,
    pub(crate) modified: i64,
    pub(crate) version: i64,
    pub(crate) lease: LeaseId,
    /// Where the value starts.
    pub(crate) value_at: usize,
}

pub(crate) fn write_version(out: &mut Vec<u8>, header: &Header, value: &[u8]) {
    out.push(if header.lease.0 == 0 { 0 } else { HAS_LEASE });
    put_varint(out, header.create as u64);
    put_varint(out, (header.modified - header.create) as u64);
    put_varint(out, header.version as u64);
    if header.lease.0 != 0 {
        put_varint_signed(out, header.lease.0);
    }
    out.extend_from_slice(value);
}

/// Reads the fields in front of the value; the value is not touched.
pub(crate) fn read_header(row: &[u8]) -> Result<Header, Fault> {
    parse_header(row).ok_or_else(|| malformed("version", row))
}

fn parse_header(row: &[u8]) -> Option<Header> {
    let (&flags, mut rest) = row.split_first()?;
    if flags & !HAS_LEASE != 0 {
        return None;
    }
    let create = take_varint(&mut rest)?;
    let modified = take_varint(&mut rest)?.checked_add(create)?;
    let version = take_varint(&mut rest)?;
    let lease = if flags & HAS_LEASE == 0 { 0 } else { take_varint(&mut rest)? };
    Some(Header {
        create: i64::try_from(create).ok()?,
        modified: i64::try_from(modified).ok()?,
        version: i64::try_from(version).ok()?,
        lease: LeaseId(((lease >> 1) as i64) ^ -((lease & 1) as i64)),
        value_at: row.len() - rest.len(),
    })
}

pub(crate) fn key_value(key: Bytes, header: &Header, row: &Bytes) -> KeyValue {
    KeyValue {
        key,
        create_revision: Revision(header.create),
        mod_revision: Revision(header.modified),
        version: header.version,
        lease: header.lease,
        value: row.slice(header.value_at..),
    }
}

pub(crate) fn read_version(key: Bytes, row: &Bytes) -> Result<KeyValue, Fault> {
    Ok(key_value(key, &read_header(row)?, row))
}

/// An event row, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EventRow {
    pub(crate) kind: EventKind,
    /// Mod revision of the version this event replaced; 0 when the key did not exist.
    pub(crate) replaced: i64,
    pub(crate) key: Bytes,
}

pub(crate) fn write_event(out: &mut Vec<u8>, kind: EventKind, replaced: i64, key: &[u8]) {
    out.push(match kind {
        EventKind::Put => 0,
        EventKind::Delete => 1,
    });
    put_varint(out, replaced as u64);
    out.extend_from_slice(key);
}

pub(crate) fn read_event(row: &Bytes) -> Result<EventRow, Fault> {
    let parse = || {
        let (&kind, mut rest) = row.split_first()?;
        let kind = match kind {
            0 => EventKind::Put,
            1 => EventKind::Delete,
            _ => return None,
        };
        let replaced = i64::try_from(take_varint(&mut rest)?).ok()?;
        Some(EventRow { kind, replaced, key: row.slice(row.len() - rest.len()..) })
    };
    parse().ok_or_else(|| malformed("event", row))
}

/// A LEB128 number off the front of `rest`. The shared reader takes owned buffers; this is the hot path of every scan.
fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for (at, &byte) in rest.iter().enumerate().take(10) {
        if at == 9 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            *rest = &rest[at + 1..];
            return Some(value);
        }
    }
    None
}

fn malformed(what: &str, row: &[u8]) -> Fault {
    let shown = &row[..row.len().min(32)];
    Fault::Corrupt { place: format!("{what} row"), detail: format!("malformed, starts with {shown:02x?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(create: i64, modified: i64, version: i64, lease: i64) -> Header {
        Header { create, modified, version, lease: LeaseId(lease), value_at: 0 }
    }

    #[test]
    fn version_rows_have_these_bytes() {
        let mut out = Vec::new();
        write_version(&mut out, &header(2, 300, 5, 0), b"value");
        assert_eq!(out, b"\0\x02\xaa\x02\x05value");
        out.clear();
        write_version(&mut out, &header(2, 2, 1, -3), b"");
        assert_eq!(out, b"\x01\x02\0\x01\x05");
        let read = read_version("k".into(), &out.into()).unwrap();
        assert_eq!((read.create_revision, read.lease, read.value.len()), (Revision(2), LeaseId(-3), 0));
    }

    #[test]
    fn headers_round_trip_at_the_extremes() {
        for (create, modified, version, lease) in [(0, 0, 0, 0), (1, i64::MAX, i64::MAX, i64::MIN), (7, 8, 2, i64::MAX)]
        {
            let mut out = Vec::new();
            write_version(&mut out, &header(create, modified, version, lease), b"v");
            let read = read_header(&out).unwrap();
            assert_eq!(Header { value_at: 0, ..read }, header(create, modified, version, lease));
            assert_eq!(read.value_at, out.len() - 1);
        }
    }

    #[test]
    fn event_rows_have_these_bytes() {
        let mut out = Vec::new();
        write_event(&mut out, EventKind::Delete, 300, b"key");
        assert_eq!(out, b"\x01\xac\x02key");
        let read = read_event(&out.into()).unwrap();
        assert_eq!(read, EventRow { kind: EventKind::Delete, replaced: 300, key: "key".into() });
    }

    #[test]
    fn damaged_rows_are_faults() {
        for bytes in [
            &b""[..],
            b"\x02\x01\0\x01",
            b"\0\x80",
            b"\0\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x01",
            b"\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02\x01\x01",
        ] {
            assert!(read_header(bytes).is_err(), "{bytes:?}");
        }
        for bytes in [&b""[..], b"\x02\0k", b"\0\x80"] {
            assert!(read_event(&Bytes::copy_from_slice(bytes)).is_err(), "{bytes:?}");
        }
    }
}
