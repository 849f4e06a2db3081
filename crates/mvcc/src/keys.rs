//! Row keys: where each fact about the store lives in the engine.
//!
//! ```text
//! a | member | kind                    an alarm that is up (see `alarm`)
//! c | key                              the current version of a key: latest reads are dense, no history in between
//! h | escaped key | 0 1 | rev | rank   a version that was superseded, or a tombstone
//! k | lease | key                      the key is attached to the lease
//! l | lease                            a lease (see `lease`)
//! n | member                           a member (see `member`)
//! m | name                             state, mark, sweep (see `state`), leases granted
//! r | rev | sub                        what happened at a revision, no values: work list of watches and of the sweep
//! ```
//!
//! Invariant: rows sort bytewise as (key, revision, rank) for arbitrary keys. In history keys a zero byte is written as
//! `00 FF` and the key ends with `00 01`, so no key's rows lie between those of another. Revisions are 8 bytes
//! big-endian (never negative), sub numbers 4, leases 8 with the sign bit flipped.
//!
//! The rank orders history rows of one key and one revision. Only a transaction that puts and deletes the same key has
//! more than one there (see `validate::written_keys`):
//! transient (a version overwritten or deleted within its own revision) < tombstone < version.

use std::ops::Bound;

use base::{Fault, LeaseId, NodeId, Revision};
use bytes::Bytes;

use crate::alarm::{Alarm, AlarmKind};
use crate::span::Span;

const ALARM: u8 = b'a';
/// First byte of the keys of current rows: what nearly all reads are about.
pub const CURRENT: u8 = b'c';
/// First byte of the keys of superseded versions: each is written once and read by those who ask for the past.
pub const HISTORY: u8 = b'h';
/// First byte of the keys of events, which are written in order and once.
pub const EVENT: u8 = b'r';
/// First byte of the keys of attachments, which are read when a lease ends.
pub const ATTACHMENT: u8 = b'k';
/// First byte of the keys of leases: read with every write that names one.
pub const LEASE: u8 = b'l';
const MEMBER: u8 = b'n';

/// Revision, compaction floor and counters.
pub(crate) const STATE: &[u8] = b"mstate";
/// The caller's position in the log.
pub(crate) const MARK: &[u8] = b"mmark";
/// How far this node's sweep has come.
pub(crate) const SWEEP: &[u8] = b"msweep";
/// How many leases were ever granted.
pub(crate) const LEASES_GRANTED: &[u8] = b"mlease";

const TERMINATOR: [u8; 2] = [0, 1];
const ESCAPE: u8 = 0xff;
/// Bytes of a history key behind the escaped key: terminator, revision, rank.
const HISTORY_TAIL: usize = 2 + 8 + 1;
/// Bytes in front of the key of an attachment: tag and lease.
const LEASE_BYTES: usize = 1 + 8;

/// What a history row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rank {
    /// A version that never was visible at a revision boundary.
    Transient = 0,
    /// The key was deleted at this revision.
    Tombstone = 1,
    /// A version, under its own mod revision.
    Version = 2,
}

/// A history row key, read.
#[derive(Debug)]
pub(crate) struct HistoryKey {
    pub(crate) key: Bytes,
    pub(crate) revision: i64,
    pub(crate) rank: Rank,
}

pub(crate) fn write_current(out: &mut Vec<u8>, key: &[u8]) {
    out.push(CURRENT);
    out.extend_from_slice(key);
}

pub(crate) fn current(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + 1);
    write_current(&mut out, key);
    out
}

/// The user key of a current row, as a slice of it.
pub(crate) fn user_key(current: &Bytes) -> Bytes {
    current.slice(1..)
}

pub(crate) fn write_history(out: &mut Vec<u8>, key: &[u8], revision: i64, rank: Rank) {
    write_history_prefix(out, key);
    out.extend_from_slice(&TERMINATOR);
    out.extend_from_slice(&revision.to_be_bytes());
    out.push(rank as u8);
}

pub(crate) fn history(key: &[u8], revision: i64, rank: Rank) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + 1 + HISTORY_TAIL);
    write_history(&mut out, key, revision, rank);
    out
}

fn write_history_prefix(out: &mut Vec<u8>, key: &[u8]) {
    out.push(HISTORY);
    for &byte in key {
        out.push(byte);
        if byte == 0 {
            out.push(ESCAPE);
        }
    }
}

pub(crate) fn read_history(row_key: &Bytes) -> Result<HistoryKey, Fault> {
    let malformed = || Fault::Corrupt { place: format!("row {row_key:?}"), detail: "malformed history key".into() };
    if row_key.len() < 1 + HISTORY_TAIL {
        return Err(malformed());
    }
    let tail_at = row_key.len() - HISTORY_TAIL;
    let tail = &row_key[tail_at..];
    let (terminator, tail) = tail.split_at(2);
    let (revision, rank) = tail.split_at(8);
    if terminator != TERMINATOR {
        return Err(malformed());
    }
    let rank = match rank {
        [0] => Rank::Transient,
        [1] => Rank::Tombstone,
        [2] => Rank::Version,
        _ => return Err(malformed()),
    };
    let revision = i64::from_be_bytes(revision.try_into().map_err(|_| malformed())?);
    let escaped = row_key.slice(1..tail_at);
    let key = if escaped.contains(&0) { unescape(&escaped).ok_or_else(malformed)? } else { escaped };
    Ok(HistoryKey { key, revision, rank })
}

fn unescape(escaped: &[u8]) -> Option<Bytes> {
    let mut key = Vec::with_capacity(escaped.len());
    let mut rest = escaped.iter();
    while let Some(&byte) = rest.next() {
        key.push(byte);
        if byte == 0 && rest.next() != Some(&ESCAPE) {
            return None;
        }
    }
    Some(key.into())
}

/// The bounds of the current rows of `span`.
pub(crate) fn current_bounds(span: &Span) -> (Bound<Bytes>, Bound<Bytes>) {
    let from = Bound::Included(current(span.start()).into());
    let to = match span.end() {
        Bound::Included(end) => Bound::Included(current(end).into()),
        Bound::Excluded(end) => Bound::Excluded(current(end).into()),
        Bound::Unbounded => Bound::Excluded(Bytes::from_static(&[CURRENT + 1])),
    };
    (from, to)
}

/// The bounds of the history rows of all keys in `span`.
pub(crate) fn history_bounds(span: &Span) -> (Bound<Bytes>, Bound<Bytes>) {
    // The prefix with its terminator sorts before every row of the key and behind every row of a smaller key.
    let edge = |key: &[u8]| {
        let mut out = Vec::with_capacity(key.len() + 4);
        write_history_prefix(&mut out, key);
        out.extend_from_slice(&TERMINATOR);
        Bytes::from(out)
    };
    let from = Bound::Included(edge(span.start()));
    let to = match span.end() {
        Bound::Included(end) => Bound::Included(history(end, i64::MAX, Rank::Version).into()),
        Bound::Excluded(end) => Bound::Excluded(edge(end)),
        Bound::Unbounded => Bound::Excluded(Bytes::from_static(&[HISTORY + 1])),
    };
    (from, to)
}

/// The bounds of the history rows of `key` up to `revision`.
pub(crate) fn history_until(key: &[u8], revision: i64) -> (Bound<Bytes>, Bound<Bytes>) {
    let from = history(key, 0, Rank::Transient).into();
    (Bound::Included(from), Bound::Included(history(key, revision, Rank::Version).into()))
}

pub(crate) fn write_event(out: &mut Vec<u8>, revision: i64, sub: u32) {
    out.push(EVENT);
    out.extend_from_slice(&revision.to_be_bytes());
    out.extend_from_slice(&sub.to_be_bytes());
}

pub(crate) fn event(revision: i64, sub: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(13);
    write_event(&mut out, revision, sub);
    out
}

/// Revision and sub number of an event row.
pub(crate) fn read_event(row_key: &Bytes) -> Result<(Revision, u32), Fault> {
    let malformed = || Fault::Corrupt { place: format!("row {row_key:?}"), detail: "malformed event key".into() };
    let (&tag, rest) = row_key.split_first().ok_or_else(malformed)?;
    let (revision, sub) = rest.split_first_chunk::<8>().ok_or_else(malformed)?;
    let sub: [u8; 4] = sub.try_into().map_err(|_| malformed())?;
    if tag != EVENT {
        return Err(malformed());
    }
    Ok((Revision(i64::from_be_bytes(*revision)), u32::from_be_bytes(sub)))
}

/// The bounds of the event rows from (`revision`, `sub`) on, through revision `last`.
pub(crate) fn event_bounds(revision: i64, sub: u32, last: i64) -> (Bound<Bytes>, Bound<Bytes>) {
    (Bound::Included(event(revision.max(0), sub).into()), Bound::Included(event(last.max(0), u32::MAX).into()))
}

/// Leases sort by their number, negative ones first.
fn write_lease(out: &mut Vec<u8>, tag: u8, id: LeaseId) {
    out.push(tag);
    out.extend_from_slice(&((id.0 as u64) ^ (1 << 63)).to_be_bytes());
}

/// The row of a lease.
pub(crate) fn lease(id: LeaseId) -> Vec<u8> {
    let mut out = Vec::with_capacity(LEASE_BYTES);
    write_lease(&mut out, LEASE, id);
    out
}

pub(crate) fn read_lease(row_key: &Bytes) -> Result<LeaseId, Fault> {
    match row_key.split_first() {
        Some((&LEASE, id)) if id.len() == 8 => {
            Ok(LeaseId((u64::from_be_bytes(id.try_into().expect("8 bytes")) ^ (1 << 63)) as i64))
        }
        _ => Err(Fault::Corrupt { place: format!("row {row_key:?}"), detail: "malformed lease key".into() }),
    }
}

/// The bounds of all leases.
pub(crate) fn lease_bounds() -> (Bound<Bytes>, Bound<Bytes>) {
    (Bound::Included(Bytes::from_static(&[LEASE])), Bound::Excluded(Bytes::from_static(&[LEASE + 1])))
}

/// The row that says that a key is attached to a lease.
pub(crate) fn attachment(id: LeaseId, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(LEASE_BYTES + key.len());
    write_lease(&mut out, ATTACHMENT, id);
    out.extend_from_slice(key);
    out
}

/// The user key of an attachment, as a slice of it.
pub(crate) fn attached_key(attachment: &Bytes) -> Bytes {
    attachment.slice(LEASE_BYTES..)
}

/// The bounds of the attachments of one lease.
pub(crate) fn attachment_bounds(id: LeaseId) -> (Bound<Bytes>, Bound<Bytes>) {
    let to = match id.0.checked_add(1) {
        Some(next) => Bound::Excluded(attachment(LeaseId(next), b"").into()),
        None => all_attachments().1,
    };
    (Bound::Included(attachment(id, b"").into()), to)
}

/// The row of an alarm.
pub(crate) fn alarm(alarm: &Alarm) -> Vec<u8> {
    let mut out = vec![ALARM];
    out.extend_from_slice(&alarm.member.0.to_be_bytes());
    out.push(alarm.kind.code());
    out
}

pub(crate) fn read_alarm(row_key: &Bytes) -> Result<Alarm, Fault> {
    let parse = || {
        let (member, kind) = row_key.strip_prefix(&[ALARM])?.split_at_checked(8)?;
        let [kind] = kind else { return None };
        let member = NodeId(u64::from_be_bytes(member.try_into().ok()?));
        Some(Alarm { member, kind: AlarmKind::from_code(*kind)? })
    };
    parse().ok_or_else(|| Fault::Corrupt { place: format!("row {row_key:?}"), detail: "malformed alarm key".into() })
}

/// The bounds of all alarms.
pub(crate) fn alarm_bounds() -> (Bound<Bytes>, Bound<Bytes>) {
    (Bound::Included(Bytes::from_static(&[ALARM])), Bound::Excluded(Bytes::from_static(&[ALARM + 1])))
}

/// The row of a member.
pub(crate) fn member(id: NodeId) -> Vec<u8> {
    let mut out = vec![MEMBER];
    out.extend_from_slice(&id.0.to_be_bytes());
    out
}

pub(crate) fn read_member(row_key: &Bytes) -> Result<NodeId, Fault> {
    let id = row_key.strip_prefix(&[MEMBER]).and_then(|id| id.try_into().ok());
    let malformed = || Fault::Corrupt { place: format!("row {row_key:?}"), detail: "malformed member key".into() };
    id.map(|id| NodeId(u64::from_be_bytes(id))).ok_or_else(malformed)
}

/// Whether the row is about members: their places, their alarms.
pub(crate) fn belongs_to_members(row_key: &[u8]) -> bool {
    matches!(row_key.first(), Some(&(ALARM | MEMBER)))
}

/// The bounds of all members.
pub(crate) fn member_bounds() -> (Bound<Bytes>, Bound<Bytes>) {
    (Bound::Included(Bytes::from_static(&[MEMBER])), Bound::Excluded(Bytes::from_static(&[MEMBER + 1])))
}

/// The bounds of all attachments.
pub(crate) fn all_attachments() -> (Bound<Bytes>, Bound<Bytes>) {
    (Bound::Included(Bytes::from_static(&[ATTACHMENT])), Bound::Excluded(Bytes::from_static(&[ATTACHMENT + 1])))
}

#[cfg(test)]
mod tests {
    use std::ops::RangeBounds as _;

    use super::*;

    #[test]
    fn history_rows_sort_by_key_then_revision_then_rank() {
        let keys: [&[u8]; 9] = [b"\0", b"\0\0", b"\0\x01", b"\0\xff", b"\x01", b"a", b"a\0", b"a\0b", b"a\x01"];
        let mut rows = Vec::new();
        for key in keys {
            for revision in [0, 1, 255, 256, i64::MAX] {
                for rank in [Rank::Transient, Rank::Tombstone, Rank::Version] {
                    rows.push(history(key, revision, rank));
                    let read = read_history(&rows[rows.len() - 1].clone().into()).unwrap();
                    assert_eq!((read.key.as_ref(), read.revision, read.rank), (key, revision, rank));
                }
            }
        }
        assert!(rows.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn row_keys_have_these_bytes() {
        assert_eq!(current(b"a\0"), b"ca\0");
        assert_eq!(history(b"a\0b", 258, Rank::Version), b"ha\0\xffb\0\x01\0\0\0\0\0\0\x01\x02\x02");
        assert_eq!(event(258, 3), b"r\0\0\0\0\0\0\x01\x02\0\0\0\x03");
        assert_eq!(read_event(&event(258, 3).into()).unwrap(), (Revision(258), 3));
        assert_eq!(lease(LeaseId(258)), b"l\x80\0\0\0\0\0\x01\x02");
        assert_eq!(attachment(LeaseId(-1), b"a\0"), b"k\x7f\xff\xff\xff\xff\xff\xff\xffa\0");
        let full = Alarm { member: NodeId(258), kind: AlarmKind::NoSpace };
        assert_eq!(alarm(&full), b"a\0\0\0\0\0\0\x01\x02\x01");
        assert_eq!(read_alarm(&alarm(&full).into()).unwrap(), full);
        assert_eq!(member(NodeId(258)), b"n\0\0\0\0\0\0\x01\x02");
        assert_eq!(read_member(&member(NodeId(258)).into()).unwrap(), NodeId(258));
        assert!(read_member(&Bytes::from_static(b"n\0")).is_err());
    }

    #[test]
    fn attachments_lie_between_the_bounds_of_their_lease_and_no_other() {
        let ids = [i64::MIN, -1, 0, 1, 255, 256, i64::MAX].map(LeaseId);
        for id in ids {
            assert_eq!(read_lease(&lease(id).into()).unwrap(), id);
            for of in ids {
                let (from, to) = attachment_bounds(id);
                for key in [&b"\0"[..], b"\xff\xff"] {
                    let row = Bytes::from(attachment(of, key));
                    assert_eq!((from.clone(), to.clone()).contains(&row), of == id, "{of:?} in {id:?}");
                    assert_eq!(attached_key(&row), key);
                }
            }
        }
    }

    #[test]
    fn damaged_row_keys_are_faults() {
        for bytes in [
            &b"h"[..],
            b"ha\0\x02\0\0\0\0\0\0\0\0\0",
            b"ha\0b\0\x01\0\0\0\0\0\0\0\0\0",
            b"ha\0\x01\0\0\0\0\0\0\0\0\x03",
        ] {
            assert!(read_history(&Bytes::copy_from_slice(bytes)).is_err(), "{bytes:?}");
        }
        for bytes in [&b""[..], b"l", b"l\0\0", b"k\0\0\0\0\0\0\0\0"] {
            assert!(read_lease(&Bytes::copy_from_slice(bytes)).is_err(), "{bytes:?}");
        }
        for bytes in [&b""[..], b"a\0\0\0\0\0\0\0\x01", b"a\0\0\0\0\0\0\0\x01\x03", b"l\0\0\0\0\0\0\0\x01\x01"] {
            assert!(read_alarm(&Bytes::copy_from_slice(bytes)).is_err(), "{bytes:?}");
        }
        for bytes in [&b""[..], b"r", b"r\0\0\0\0\0\0\0\0\0\0\0", b"x\0\0\0\0\0\0\0\0\0\0\0\0"] {
            assert!(read_event(&Bytes::copy_from_slice(bytes)).is_err(), "{bytes:?}");
        }
    }
}
