//! Commands as bytes, the payload of log entries.
//!
//! Invariant: `decode(encode(c)) == c`; decoding any other input gives an error, never a panic, and allocates in
//! proportion to the input. Byte strings are slices of the input. The layout is in `docs/formats/mvcc.md`.

use base::codec::{put_bytes, put_varint, put_varint_signed};
use base::limits::TXN_DEPTH_MAX;
use base::{DecodeError, LeaseId, NodeId, Reader, Revision};
use bytes::Bytes;

use crate::alarm::{Alarm, AlarmKind};
use crate::command::{
    AlarmChange, Command, Compact, Compare, CompareResult, CompareTarget, DeleteRange, LeaseCheckpoint, LeaseExpire,
    LeaseGrant, LeaseInstance, LeaseRevoke, MemberChange, MemberStep, Op, Put, RangeRequest, SortOrder, SortTarget,
    Txn,
};
use crate::member::{MemberRecord, read_urls, write_urls};
use crate::validate::TXN_OPS_TOTAL_MAX;

const VERSION: u8 = 1;

const EMPTY: u8 = 0;
const PUT: u8 = 1;
const DELETE_RANGE: u8 = 2;
const TXN: u8 = 3;
const COMPACT: u8 = 4;
const RANGE: u8 = 5;
const LEASE_GRANT: u8 = 6;
const LEASE_REVOKE: u8 = 7;
const LEASE_EXPIRE: u8 = 8;
const LEASE_CHECKPOINT: u8 = 9;
const ALARM: u8 = 10;
const MEMBER: u8 = 11;

const MEMBER_ADD: u8 = 1;
const MEMBER_UPDATE: u8 = 2;
const MEMBER_REMOVE: u8 = 3;

impl Command {
    /// The bytes of a log entry.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.size_hint());
        out.push(VERSION);
        match self {
            Self::Put(put) => {
                out.push(PUT);
                write_put(&mut out, put);
            }
            Self::DeleteRange(delete) => {
                out.push(DELETE_RANGE);
                write_delete(&mut out, delete);
            }
            Self::Txn(txn) => {
                out.push(TXN);
                write_txn(&mut out, txn);
            }
            Self::Compact(compact) => {
                out.push(COMPACT);
                put_varint_signed(&mut out, compact.revision.0);
            }
            Self::LeaseGrant(grant) => {
                out.push(LEASE_GRANT);
                put_varint_signed(&mut out, grant.id.0);
                put_varint_signed(&mut out, grant.ttl_s);
            }
            Self::LeaseRevoke(revoke) => {
                out.push(LEASE_REVOKE);
                put_varint_signed(&mut out, revoke.id.0);
            }
            Self::LeaseExpire(expire) => {
                out.push(LEASE_EXPIRE);
                put_varint(&mut out, expire.leases.len() as u64);
                for lease in &expire.leases {
                    write_instance(&mut out, lease);
                }
            }
            Self::LeaseCheckpoint(checkpoint) => {
                out.push(LEASE_CHECKPOINT);
                put_varint(&mut out, checkpoint.leases.len() as u64);
                for (lease, remaining_s) in &checkpoint.leases {
                    write_instance(&mut out, lease);
                    put_varint_signed(&mut out, *remaining_s);
                }
            }
            Self::Alarm(change) => {
                out.push(ALARM);
                out.push(flags([change.raise]));
                out.push(change.alarm.kind.code());
                put_varint(&mut out, change.alarm.member.0);
            }
            Self::Member(change) => {
                out.push(MEMBER);
                write_member_change(&mut out, change);
            }
        }
        out.into()
    }

    /// Reads the bytes of a log entry.
    pub fn decode(payload: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload);
        if reader.u8("command version")? != VERSION {
            return Err(reader.error("command version"));
        }
        let command = match reader.u8("command kind")? {
            PUT => Self::Put(read_put(&mut reader)?),
            DELETE_RANGE => Self::DeleteRange(read_delete(&mut reader)?),
            TXN => Self::Txn(read_txn(&mut reader, 0, &mut 0)?),
            COMPACT => Self::Compact(Compact { revision: Revision(reader.varint_signed("compact revision")?) }),
            LEASE_GRANT => Self::LeaseGrant(LeaseGrant {
                id: LeaseId(reader.varint_signed("lease")?),
                ttl_s: reader.varint_signed("lease ttl")?,
            }),
            LEASE_REVOKE => Self::LeaseRevoke(LeaseRevoke { id: LeaseId(reader.varint_signed("lease")?) }),
            LEASE_EXPIRE => Self::LeaseExpire(LeaseExpire { leases: read_leases(&mut reader, read_instance)? }),
            LEASE_CHECKPOINT => Self::LeaseCheckpoint(LeaseCheckpoint {
                leases: read_leases(&mut reader, |reader| {
                    Ok((read_instance(reader)?, reader.varint_signed("lease remaining")?))
                })?,
            }),
            ALARM => Self::Alarm(read_alarm(&mut reader)?),
            MEMBER => Self::Member(read_member_change(&mut reader)?),
            _ => return Err(reader.error("command kind")),
        };
        reader.finish("end of command")?;
        Ok(command)
    }

    fn size_hint(&self) -> usize {
        match self {
            Self::Put(put) => put.key.len() + put.value.len() + 24,
            Self::DeleteRange(delete) => delete.key.len() + delete.range_end.len() + 24,
            Self::Txn(_) | Self::Member(_) => 256,
            Self::Compact(_) | Self::LeaseRevoke(_) => 16,
            Self::LeaseGrant(_) | Self::Alarm(_) => 24,
            Self::LeaseExpire(expire) => expire.leases.len() * 16 + 8,
            Self::LeaseCheckpoint(checkpoint) => checkpoint.leases.len() * 20 + 8,
        }
    }
}

/// Packs booleans, the first into the lowest bit.
fn flags<const N: usize>(bits: [bool; N]) -> u8 {
    const { assert!(N <= 8) };
    bits.into_iter().enumerate().fold(0, |byte, (at, bit)| byte | u8::from(bit) << at)
}

/// Unpacks `N` booleans; a set bit beyond them is malformed.
fn read_flags<const N: usize>(reader: &mut Reader, what: &'static str) -> Result<[bool; N], DecodeError> {
    let byte = reader.u8(what)?;
    if u32::from(byte) >> N != 0 {
        return Err(reader.error(what));
    }
    Ok(std::array::from_fn(|at| byte >> at & 1 == 1))
}

fn write_instance(out: &mut Vec<u8>, lease: &LeaseInstance) {
    put_varint_signed(out, lease.id.0);
    put_varint(out, lease.instance);
}

fn read_instance(reader: &mut Reader) -> Result<LeaseInstance, DecodeError> {
    Ok(LeaseInstance { id: LeaseId(reader.varint_signed("lease")?), instance: reader.varint("lease instance")? })
}

fn read_alarm(reader: &mut Reader) -> Result<AlarmChange, DecodeError> {
    let [raise] = read_flags(reader, "alarm flags")?;
    let kind = AlarmKind::from_code(reader.u8("alarm kind")?).ok_or_else(|| reader.error("alarm kind"))?;
    Ok(AlarmChange { alarm: Alarm { member: NodeId(reader.varint("alarm member")?), kind }, raise })
}

fn write_member_change(out: &mut Vec<u8>, change: &MemberChange) {
    put_varint(out, change.founders.len() as u64);
    for founder in &change.founders {
        put_varint(out, founder.id.0);
        founder.write(out);
    }
    match &change.step {
        MemberStep::Add(member) => {
            out.push(MEMBER_ADD);
            put_varint(out, member.id.0);
            member.write(out);
        }
        MemberStep::Update(id, urls) => {
            out.push(MEMBER_UPDATE);
            put_varint(out, id.0);
            write_urls(out, urls);
        }
        MemberStep::Remove(id) => {
            out.push(MEMBER_REMOVE);
            put_varint(out, id.0);
        }
    }
}

fn read_member_change(reader: &mut Reader) -> Result<MemberChange, DecodeError> {
    let read_id = |reader: &mut Reader| Ok(NodeId(reader.varint("member")?));
    let count = reader.varint("member count")?;
    let mut founders = Vec::new();
    for _ in 0..count {
        let id = read_id(reader)?;
        founders.push(MemberRecord::read(reader, id)?);
    }
    let kind = reader.u8("member change")?;
    let id = read_id(reader)?;
    let step = match kind {
        MEMBER_ADD => MemberStep::Add(MemberRecord::read(reader, id)?),
        MEMBER_UPDATE => MemberStep::Update(id, read_urls(reader)?),
        MEMBER_REMOVE => MemberStep::Remove(id),
        _ => return Err(reader.error("member change")),
    };
    Ok(MemberChange { founders, step })
}

/// Each takes bytes of the input, so a count beyond it ends with the input.
fn read_leases<T>(
    reader: &mut Reader,
    read: impl Fn(&mut Reader) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = reader.varint("lease count")?;
    let mut leases = Vec::new();
    for _ in 0..count {
        leases.push(read(reader)?);
    }
    Ok(leases)
}

fn write_put(out: &mut Vec<u8>, put: &Put) {
    out.push(flags([put.prev_kv, put.ignore_value, put.ignore_lease]));
    put_varint_signed(out, put.lease.0);
    put_bytes(out, &put.key);
    put_bytes(out, &put.value);
}

fn read_put(reader: &mut Reader) -> Result<Put, DecodeError> {
    let [prev_kv, ignore_value, ignore_lease] = read_flags(reader, "put flags")?;
    let lease = LeaseId(reader.varint_signed("put lease")?);
    let key = reader.bytes("put key")?;
    let value = reader.bytes("put value")?;
    Ok(Put { key, value, lease, prev_kv, ignore_value, ignore_lease })
}

fn write_delete(out: &mut Vec<u8>, delete: &DeleteRange) {
    out.push(flags([delete.prev_kv]));
    put_bytes(out, &delete.key);
    put_bytes(out, &delete.range_end);
}

fn read_delete(reader: &mut Reader) -> Result<DeleteRange, DecodeError> {
    let [prev_kv] = read_flags(reader, "delete flags")?;
    Ok(DeleteRange { key: reader.bytes("delete key")?, range_end: reader.bytes("delete end")?, prev_kv })
}

fn write_range(out: &mut Vec<u8>, range: &RangeRequest) {
    out.push(flags([range.serializable, range.keys_only, range.count_only]));
    put_bytes(out, &range.key);
    put_bytes(out, &range.range_end);
    put_varint_signed(out, range.limit);
    put_varint_signed(out, range.revision.0);
    out.push(match range.sort_order {
        SortOrder::None => 0,
        SortOrder::Ascend => 1,
        SortOrder::Descend => 2,
        SortOrder::Unknown => 255,
    });
    out.push(match range.sort_target {
        SortTarget::Key => 0,
        SortTarget::Version => 1,
        SortTarget::Create => 2,
        SortTarget::Mod => 3,
        SortTarget::Value => 4,
        SortTarget::Unknown => 255,
    });
    for revision in
        [range.min_mod_revision, range.max_mod_revision, range.min_create_revision, range.max_create_revision]
    {
        put_varint_signed(out, revision.0);
    }
}

fn read_range(reader: &mut Reader) -> Result<RangeRequest, DecodeError> {
    let [serializable, keys_only, count_only] = read_flags(reader, "range flags")?;
    Ok(RangeRequest {
        serializable,
        keys_only,
        count_only,
        key: reader.bytes("range key")?,
        range_end: reader.bytes("range end")?,
        limit: reader.varint_signed("range limit")?,
        revision: Revision(reader.varint_signed("range revision")?),
        sort_order: match reader.u8("sort order")? {
            0 => SortOrder::None,
            1 => SortOrder::Ascend,
            2 => SortOrder::Descend,
            255 => SortOrder::Unknown,
            _ => return Err(reader.error("sort order")),
        },
        sort_target: match reader.u8("sort target")? {
            0 => SortTarget::Key,
            1 => SortTarget::Version,
            2 => SortTarget::Create,
            3 => SortTarget::Mod,
            4 => SortTarget::Value,
            255 => SortTarget::Unknown,
            _ => return Err(reader.error("sort target")),
        },
        min_mod_revision: Revision(reader.varint_signed("minimum mod revision")?),
        max_mod_revision: Revision(reader.varint_signed("maximum mod revision")?),
        min_create_revision: Revision(reader.varint_signed("minimum create revision")?),
        max_create_revision: Revision(reader.varint_signed("maximum create revision")?),
    })
}

fn write_txn(out: &mut Vec<u8>, txn: &Txn) {
    put_varint(out, txn.compares.len() as u64);
    for compare in &txn.compares {
        write_compare(out, compare);
    }
    for ops in [&txn.success, &txn.failure] {
        put_varint(out, ops.len() as u64);
        for op in ops {
            write_op(out, op);
        }
    }
}

/// `total` counts operations and compares of all levels read so far.
fn read_txn(reader: &mut Reader, depth: usize, total: &mut usize) -> Result<Txn, DecodeError> {
    if depth >= TXN_DEPTH_MAX {
        return Err(reader.error("transaction depth"));
    }
    let mut compares = Vec::new();
    for _ in 0..read_count(reader, total)? {
        compares.push(read_compare(reader)?);
    }
    let mut lists = [Vec::new(), Vec::new()];
    for ops in &mut lists {
        for _ in 0..read_count(reader, total)? {
            ops.push(read_op(reader, depth, total)?);
        }
    }
    let [success, failure] = lists;
    Ok(Txn { compares, success, failure })
}

fn read_count(reader: &mut Reader, total: &mut usize) -> Result<usize, DecodeError> {
    let count = reader.varint("operation count")?;
    let count = usize::try_from(count).map_err(|_| reader.error("operation count"))?;
    *total = total.saturating_add(count);
    if *total > TXN_OPS_TOTAL_MAX {
        return Err(reader.error("operation count"));
    }
    Ok(count)
}

fn write_op(out: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Range(range) => {
            out.push(RANGE);
            write_range(out, range);
        }
        Op::Put(put) => {
            out.push(PUT);
            write_put(out, put);
        }
        Op::DeleteRange(delete) => {
            out.push(DELETE_RANGE);
            write_delete(out, delete);
        }
        Op::Txn(nested) => {
            out.push(TXN);
            write_txn(out, nested);
        }
        Op::Empty => out.push(EMPTY),
    }
}

fn read_op(reader: &mut Reader, depth: usize, total: &mut usize) -> Result<Op, DecodeError> {
    Ok(match reader.u8("operation kind")? {
        RANGE => Op::Range(read_range(reader)?),
        PUT => Op::Put(read_put(reader)?),
        DELETE_RANGE => Op::DeleteRange(read_delete(reader)?),
        TXN => Op::Txn(read_txn(reader, depth + 1, total)?),
        EMPTY => Op::Empty,
        _ => return Err(reader.error("operation kind")),
    })
}

fn write_compare(out: &mut Vec<u8>, compare: &Compare) {
    put_bytes(out, &compare.key);
    put_bytes(out, &compare.range_end);
    out.push(match compare.result {
        CompareResult::Equal => 0,
        CompareResult::Greater => 1,
        CompareResult::Less => 2,
        CompareResult::NotEqual => 3,
    });
    match &compare.target {
        CompareTarget::Version(version) => {
            out.push(0);
            put_varint_signed(out, *version);
        }
        CompareTarget::CreateRevision(revision) => {
            out.push(1);
            put_varint_signed(out, revision.0);
        }
        CompareTarget::ModRevision(revision) => {
            out.push(2);
            put_varint_signed(out, revision.0);
        }
        CompareTarget::Value(value) => {
            out.push(3);
            put_bytes(out, value);
        }
        CompareTarget::Lease(lease) => {
            out.push(4);
            put_varint_signed(out, lease.0);
        }
    }
}

fn read_compare(reader: &mut Reader) -> Result<Compare, DecodeError> {
    let key = reader.bytes("compare key")?;
    let range_end = reader.bytes("compare end")?;
    let result = match reader.u8("compare result")? {
        0 => CompareResult::Equal,
        1 => CompareResult::Greater,
        2 => CompareResult::Less,
        3 => CompareResult::NotEqual,
        _ => return Err(reader.error("compare result")),
    };
    let target = match reader.u8("compare target")? {
        0 => CompareTarget::Version(reader.varint_signed("compare version")?),
        1 => CompareTarget::CreateRevision(Revision(reader.varint_signed("compare create revision")?)),
        2 => CompareTarget::ModRevision(Revision(reader.varint_signed("compare mod revision")?)),
        3 => CompareTarget::Value(reader.bytes("compare value")?),
        4 => CompareTarget::Lease(LeaseId(reader.varint_signed("compare lease")?)),
        _ => return Err(reader.error("compare target")),
    };
    Ok(Compare { key, range_end, result, target })
}
