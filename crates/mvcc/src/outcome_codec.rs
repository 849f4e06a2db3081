//! Outcomes as bytes, for the way from the node that applied a command to the one that holds the client.
//!
//! Invariant: `decode(encode(o)) == o`; other input gives an error, never a panic. Byte strings are slices of the
//! input.

use base::codec::{put_bytes, put_varint, put_varint_signed};
use base::limits::TXN_DEPTH_MAX;
use base::{DecodeError, LeaseId, Reader, Revision};
use bytes::Bytes;

use crate::outcome::{
    CompactResult, DeleteResult, KeyValue, LeaseGrantResult, OpOutcome, OpResult, Outcome, OutcomeResult, PutResult,
    RangeResult, TxnResult,
};
use crate::reject::Reject;

const VERSION: u8 = 1;

const REJECTED: u8 = 0;
const PUT: u8 = 1;
const DELETE_RANGE: u8 = 2;
const TXN: u8 = 3;
const COMPACT: u8 = 4;
const RANGE: u8 = 5;
const ANSWER_TOO_LARGE: u8 = 6;
const LEASE_GRANT: u8 = 7;
const LEASE_REVOKE: u8 = 8;
const LEASE_EXPIRE: u8 = 9;
const LEASE_CHECKPOINT: u8 = 10;
const ALARM: u8 = 11;
const MEMBER: u8 = 12;

impl Outcome {
    /// The bytes of the outcome.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(64);
        out.push(VERSION);
        put_varint_signed(&mut out, self.revision.0);
        match &self.result {
            OutcomeResult::Put(put) => {
                out.push(PUT);
                write_put(&mut out, put);
            }
            OutcomeResult::DeleteRange(delete) => {
                out.push(DELETE_RANGE);
                write_delete(&mut out, delete);
            }
            OutcomeResult::Txn(txn) => {
                out.push(TXN);
                write_txn(&mut out, txn);
            }
            OutcomeResult::Compact(compact) => {
                out.push(COMPACT);
                put_varint_signed(&mut out, compact.compacted.0);
            }
            OutcomeResult::LeaseGrant(grant) => {
                out.push(LEASE_GRANT);
                put_varint_signed(&mut out, grant.id.0);
                put_varint_signed(&mut out, grant.ttl_s);
            }
            OutcomeResult::LeaseRevoke => out.push(LEASE_REVOKE),
            OutcomeResult::LeaseExpire(count) => {
                out.push(LEASE_EXPIRE);
                put_varint(&mut out, *count);
            }
            OutcomeResult::LeaseCheckpoint(count) => {
                out.push(LEASE_CHECKPOINT);
                put_varint(&mut out, *count);
            }
            OutcomeResult::Alarm(changed) => {
                out.push(ALARM);
                out.push(u8::from(*changed));
            }
            OutcomeResult::Member => out.push(MEMBER),
            OutcomeResult::AnswerTooLarge => out.push(ANSWER_TOO_LARGE),
            OutcomeResult::Rejected(reject) => {
                out.push(REJECTED);
                out.push(reject.code());
            }
        }
        out.into()
    }

    /// Reads the bytes of an outcome.
    pub fn decode(input: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(input);
        if reader.u8("outcome version")? != VERSION {
            return Err(reader.error("outcome version"));
        }
        let revision = Revision(reader.varint_signed("outcome revision")?);
        let result = match reader.u8("outcome kind")? {
            PUT => OutcomeResult::Put(read_put(&mut reader)?),
            DELETE_RANGE => OutcomeResult::DeleteRange(read_delete(&mut reader)?),
            TXN => OutcomeResult::Txn(read_txn(&mut reader, 0)?),
            COMPACT => {
                OutcomeResult::Compact(CompactResult { compacted: Revision(reader.varint_signed("compacted")?) })
            }
            LEASE_GRANT => OutcomeResult::LeaseGrant(LeaseGrantResult {
                id: LeaseId(reader.varint_signed("lease")?),
                ttl_s: reader.varint_signed("lease ttl")?,
            }),
            LEASE_REVOKE => OutcomeResult::LeaseRevoke,
            LEASE_EXPIRE => OutcomeResult::LeaseExpire(reader.varint("leases expired")?),
            LEASE_CHECKPOINT => OutcomeResult::LeaseCheckpoint(reader.varint("leases checkpointed")?),
            ALARM => OutcomeResult::Alarm(read_bool(&mut reader, "alarm changed")?),
            MEMBER => OutcomeResult::Member,
            ANSWER_TOO_LARGE => OutcomeResult::AnswerTooLarge,
            REJECTED => OutcomeResult::Rejected(Reject::read(&mut reader)?),
            _ => return Err(reader.error("outcome kind")),
        };
        reader.finish("end of outcome")?;
        Ok(Self { revision, result })
    }
}

fn write_kv(out: &mut Vec<u8>, kv: &KeyValue) {
    put_bytes(out, &kv.key);
    put_varint_signed(out, kv.create_revision.0);
    put_varint_signed(out, kv.mod_revision.0);
    put_varint_signed(out, kv.version);
    put_varint_signed(out, kv.lease.0);
    put_bytes(out, &kv.value);
}

fn read_kv(reader: &mut Reader) -> Result<KeyValue, DecodeError> {
    Ok(KeyValue {
        key: reader.bytes("key")?,
        create_revision: Revision(reader.varint_signed("create revision")?),
        mod_revision: Revision(reader.varint_signed("mod revision")?),
        version: reader.varint_signed("version")?,
        lease: LeaseId(reader.varint_signed("lease")?),
        value: reader.bytes("value")?,
    })
}

fn write_kvs(out: &mut Vec<u8>, kvs: &[KeyValue]) {
    put_varint(out, kvs.len() as u64);
    for kv in kvs {
        write_kv(out, kv);
    }
}

fn read_kvs(reader: &mut Reader) -> Result<Vec<KeyValue>, DecodeError> {
    let count = reader.varint("pair count")?;
    let mut kvs = Vec::new();
    for _ in 0..count {
        kvs.push(read_kv(reader)?);
    }
    Ok(kvs)
}

fn write_put(out: &mut Vec<u8>, put: &PutResult) {
    out.push(u8::from(put.prev_kv.is_some()));
    if let Some(kv) = &put.prev_kv {
        write_kv(out, kv);
    }
}

fn read_put(reader: &mut Reader) -> Result<PutResult, DecodeError> {
    let prev_kv = if read_bool(reader, "previous pair flag")? { Some(read_kv(reader)?) } else { None };
    Ok(PutResult { prev_kv })
}

fn write_delete(out: &mut Vec<u8>, delete: &DeleteResult) {
    put_varint_signed(out, delete.deleted);
    write_kvs(out, &delete.prev_kvs);
}

fn read_delete(reader: &mut Reader) -> Result<DeleteResult, DecodeError> {
    Ok(DeleteResult { deleted: reader.varint_signed("deleted")?, prev_kvs: read_kvs(reader)? })
}

fn write_txn(out: &mut Vec<u8>, txn: &TxnResult) {
    out.push(u8::from(txn.succeeded));
    put_varint(out, txn.responses.len() as u64);
    for op in &txn.responses {
        put_varint_signed(out, op.revision.0);
        match &op.result {
            OpResult::Range(range) => {
                out.push(RANGE);
                out.push(u8::from(range.more));
                put_varint_signed(out, range.count);
                write_kvs(out, &range.kvs);
            }
            OpResult::Put(put) => {
                out.push(PUT);
                write_put(out, put);
            }
            OpResult::DeleteRange(delete) => {
                out.push(DELETE_RANGE);
                write_delete(out, delete);
            }
            OpResult::Txn(nested) => {
                out.push(TXN);
                write_txn(out, nested);
            }
        }
    }
}

fn read_txn(reader: &mut Reader, depth: usize) -> Result<TxnResult, DecodeError> {
    if depth >= TXN_DEPTH_MAX {
        return Err(reader.error("transaction depth"));
    }
    let succeeded = read_bool(reader, "succeeded")?;
    let count = reader.varint("response count")?;
    let mut responses = Vec::new();
    for _ in 0..count {
        let revision = Revision(reader.varint_signed("operation revision")?);
        let result = match reader.u8("operation kind")? {
            RANGE => OpResult::Range(RangeResult {
                more: read_bool(reader, "more")?,
                count: reader.varint_signed("count")?,
                kvs: read_kvs(reader)?,
            }),
            PUT => OpResult::Put(read_put(reader)?),
            DELETE_RANGE => OpResult::DeleteRange(read_delete(reader)?),
            TXN => OpResult::Txn(read_txn(reader, depth + 1)?),
            _ => return Err(reader.error("operation kind")),
        };
        responses.push(OpOutcome { revision, result });
    }
    Ok(TxnResult { succeeded, responses })
}

fn read_bool(reader: &mut Reader, what: &'static str) -> Result<bool, DecodeError> {
    match reader.u8(what)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(reader.error(what)),
    }
}
