//! What the load generator asks for: one [`Operation`] after the other, and what its answer must look like.
//!
//! Invariant: an operation is ready to send, framing included. Requests whose length never changes are encoded once and
//! only keys and value stamps are written into a copy ([`super::template`]); compare-and-swap carries a revision of
//! varying length and is encoded each time. Used by [`super::load`].

use api::etcdserverpb::{
    Compare, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, compare, request_op,
};
use base::Prng;
use bytes::Bytes;
use clap::ValueEnum;
use prost::Message;

use super::client::{Call, CallError};
use super::keys::{KeyPattern, KeySpace, Picker};
use super::template::{self, Template};

/// One million, the unit of the read ratio.
const PPM: u64 = 1_000_000;
/// Time to live of leases, in seconds: none runs out while it is measured.
const LEASE_TTL_SECONDS: i64 = 3600;

/// A kind of load.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Workload {
    /// Write one key.
    Put,
    /// Read one key, linearizable.
    Get,
    /// Read one key, serializable: whatever the contacted server has.
    StaleGet,
    /// Read --range-keys neighbouring keys, linearizable.
    Range,
    /// Write two keys in one transaction.
    Txn,
    /// Write one key if its revision is still the last one seen (compare-and-swap).
    Cas,
    /// get and put mixed by --read-ratio.
    Mixed,
    /// Grant a lease, then write one key that is attached to it.
    Lease,
    /// Write one key while --watchers watch all of them; what counts is when each watcher sees it.
    Watch,
}

impl Workload {
    /// The word the user types for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::StaleGet => "stale-get",
            Self::Range => "range",
            Self::Txn => "txn",
            Self::Cas => "cas",
            Self::Mixed => "mixed",
            Self::Lease => "lease",
            Self::Watch => "watch",
        }
    }
}

/// The fixed properties of a run's requests.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// The keys touched.
    pub(super) keys: KeySpace,
    /// The order they are touched in.
    pub(super) pattern: KeyPattern,
    /// Bytes in each value.
    pub(super) value_bytes: usize,
    /// Keys read by one range; at most the whole key space.
    pub(super) range_keys: u64,
    /// Share of reads in [`Workload::Mixed`], in `0.0..=1.0`.
    pub(super) read_ratio: f64,
    /// Start of the random numbers.
    pub(super) seed: u64,
}

/// One request, and what is needed to understand its answer.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    /// A call that must succeed first.
    pub(super) before: Option<(Call, Bytes)>,
    /// The number that its values carry.
    pub(super) stamp: u64,
    /// The method.
    pub(super) call: Call,
    /// The request with its gRPC frame header.
    pub(super) framed: Bytes,
    answer: Expected,
}

/// What the answer to an operation is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expected {
    Written { key: u64 },
    Read { keys: u64 },
    WrittenTwo { first: u64, second: u64 },
    Swapped { key: u64 },
}

/// How a successful answer counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    /// As asked.
    Done,
    /// A correct answer without effect: a read that found less than the key space holds, a swap that lost.
    Missed,
}

/// Makes the operations of one service under load; keeps the revisions it has seen for compare-and-swap.
pub(super) struct Generator {
    shape: Shape,
    workload: Option<Workload>,
    picker: Picker,
    prng: Prng,
    sequence: u64,
    templates: Templates,
    /// Last seen mod revision by key number, 0 for none; empty unless compare-and-swap will need it.
    revisions: Vec<i64>,
}

impl Generator {
    /// A generator that first writes every key once, until [`Self::select`] gives it a workload.
    pub(super) fn new(shape: Shape, remember_revisions: bool) -> Self {
        let count = shape.keys.count();
        let remembered = if remember_revisions { usize::try_from(count).expect("bounded by the arguments") } else { 0 };
        Self {
            workload: None,
            picker: Picker::new(KeyPattern::Sequential, count),
            prng: Prng::new(shape.seed),
            sequence: 0,
            templates: Templates::new(&shape),
            revisions: vec![0; remembered],
            shape,
        }
    }

    /// Turns to another workload.
    pub(super) fn select(&mut self, workload: Workload) {
        // A range must start where enough keys follow.
        let starts = match workload {
            Workload::Range => self.shape.keys.count() - self.shape.range_keys + 1,
            Workload::Put
            | Workload::Get
            | Workload::StaleGet
            | Workload::Txn
            | Workload::Cas
            | Workload::Mixed
            | Workload::Lease
            | Workload::Watch => self.shape.keys.count(),
        };
        self.workload = Some(workload);
        self.picker = Picker::new(self.shape.pattern, starts);
    }

    /// The next operation.
    pub(super) fn next_operation(&mut self) -> Operation {
        self.sequence += 1;
        let key = self.picker.pick(&mut self.prng);
        match self.workload {
            None | Some(Workload::Put | Workload::Watch) => self.put(key),
            Some(Workload::Get) => self.get(key),
            Some(Workload::StaleGet) => self.stale_get(key),
            Some(Workload::Range) => {
                let keys = self.shape.range_keys;
                let framed = self.templates.range.filled(&self.shape.keys, &[key, key + keys], self.sequence);
                self.operation(Call::Range, framed, Expected::Read { keys })
            }
            Some(Workload::Txn) => self.put_two(key),
            Some(Workload::Cas) => self.swap(key),
            Some(Workload::Mixed) if self.prng.below(PPM) < self.read_ppm() => self.get(key),
            Some(Workload::Mixed) => self.put(key),
            Some(Workload::Lease) => self.grant_and_put(key),
        }
    }

    fn operation(&self, call: Call, framed: Bytes, answer: Expected) -> Operation {
        Operation { before: None, stamp: self.sequence, call, framed, answer }
    }

    /// An operation that any single healthy server can answer.
    pub(super) fn probe(&self) -> Operation {
        self.stale_get(0)
    }

    /// Judges an answer, and remembers its revision.
    ///
    /// # Errors
    /// [`CallError::Protocol`] if the message is not what the call answers with.
    pub(super) fn settle(&mut self, operation: &Operation, answer: Bytes) -> Result<Effect, CallError> {
        match operation.answer {
            Expected::Written { key } => {
                let answer = WriteAnswer::decode(answer).map_err(|error| malformed(&error))?;
                self.remember(key, answer.revision()?);
                Ok(Effect::Done)
            }
            Expected::Read { keys } => {
                let answer = ReadAnswer::decode(answer).map_err(|error| malformed(&error))?;
                let found = answer.pairs.len() as u64;
                Ok(if found == keys { Effect::Done } else { Effect::Missed })
            }
            Expected::WrittenTwo { first, second } => {
                let answer = TxnAnswer::decode(answer).map_err(|error| malformed(&error))?;
                let revision = answer.revision()?;
                self.remember(first, revision);
                self.remember(second, revision);
                Ok(Effect::Done)
            }
            Expected::Swapped { key } => {
                let answer = TxnAnswer::decode(answer).map_err(|error| malformed(&error))?;
                if answer.succeeded {
                    self.remember(key, answer.revision()?);
                    return Ok(Effect::Done);
                }
                // The else branch read the key: the next swap of it knows better.
                let pair = answer.responses.first().and_then(|response| response.range.as_ref()?.pairs.first());
                self.remember(key, pair.map_or(0, |pair| pair.mod_revision));
                Ok(Effect::Missed)
            }
        }
    }

    fn put(&self, key: u64) -> Operation {
        let framed = self.templates.put.filled(&self.shape.keys, &[key], self.sequence);
        self.operation(Call::Put, framed, Expected::Written { key })
    }

    fn get(&self, key: u64) -> Operation {
        let framed = self.templates.get.filled(&self.shape.keys, &[key], self.sequence);
        self.operation(Call::Range, framed, Expected::Read { keys: 1 })
    }

    fn stale_get(&self, key: u64) -> Operation {
        let framed = self.templates.stale_get.filled(&self.shape.keys, &[key], self.sequence);
        self.operation(Call::Range, framed, Expected::Read { keys: 1 })
    }

    fn put_two(&mut self, first: u64) -> Operation {
        // A transaction may not put a key twice, so the second is any other.
        let count = self.shape.keys.count();
        let second = (first + 1 + self.prng.below(count - 1)) % count;
        assert_ne!(first, second, "two keys out of {count}");
        let framed = self.templates.txn.filled(&self.shape.keys, &[first, second], self.sequence);
        self.operation(Call::Txn, framed, Expected::WrittenTwo { first, second })
    }

    fn grant_and_put(&mut self, number: u64) -> Operation {
        // The client names the lease, so that the put is ready before the grant is answered.
        let id = i64::try_from(self.prng.next_u64() >> 1).expect("63 bits").max(1);
        let grant = LeaseGrantRequest { ttl: LEASE_TTL_SECONDS, id };
        let key = self.shape.keys.key(number).into();
        let put =
            PutRequest { key, value: self.templates.value(self.sequence).into(), lease: id, ..Default::default() };
        let before = Some((Call::LeaseGrant, template::framed(&grant)));
        let answer = Expected::Written { key: number };
        Operation { before, ..self.operation(Call::Put, template::framed(&put), answer) }
    }

    fn swap(&self, number: u64) -> Operation {
        let key = self.shape.keys.key(number);
        let known = usize::try_from(number).ok().and_then(|number| self.revisions.get(number));
        let condition = Compare {
            result: compare::CompareResult::Equal.into(),
            target: compare::CompareTarget::Mod.into(),
            key: key.clone().into(),
            target_union: Some(compare::TargetUnion::ModRevision(known.copied().unwrap_or(0))),
            ..Compare::default()
        };
        let value = self.templates.value(self.sequence);
        let put = PutRequest { key: key.clone().into(), value: value.into(), ..PutRequest::default() };
        let read = RangeRequest { key: key.into(), ..RangeRequest::default() };
        let message = TxnRequest {
            compare: vec![condition],
            success: vec![RequestOp { request: Some(request_op::Request::RequestPut(put)) }],
            failure: vec![RequestOp { request: Some(request_op::Request::RequestRange(read)) }],
        };
        self.operation(Call::Txn, template::framed(&message), Expected::Swapped { key: number })
    }

    fn remember(&mut self, key: u64, revision: i64) {
        let slot = usize::try_from(key).ok().and_then(|key| self.revisions.get_mut(key));
        if let Some(slot) = slot {
            // Answers of concurrent writes may arrive in either order; a key's revision only grows.
            *slot = (*slot).max(revision);
        }
    }

    fn read_ppm(&self) -> u64 {
        (self.shape.read_ratio * PPM as f64) as u64
    }
}

/// Every request whose length is the same each time.
struct Templates {
    put: Template,
    get: Template,
    stale_get: Template,
    range: Template,
    txn: Template,
    value: Vec<u8>,
}

impl Templates {
    fn new(shape: &Shape) -> Self {
        let value = template::random_value(shape.value_bytes, shape.seed);
        let key_bytes = shape.keys.key_bytes();
        let slot = |index| template::key_marker(index, key_bytes);
        let put = |index| PutRequest {
            key: slot(index).into(),
            value: template::value_marker(&value).into(),
            ..PutRequest::default()
        };
        let put_operation = |index| RequestOp { request: Some(request_op::Request::RequestPut(put(index))) };
        let get = RangeRequest { key: slot(0).into(), ..RangeRequest::default() };
        let stale_get = RangeRequest { serializable: true, ..get.clone() };
        let range = RangeRequest { range_end: slot(1).into(), ..get.clone() };
        let txn = TxnRequest { success: vec![put_operation(0), put_operation(1)], ..TxnRequest::default() };
        Self {
            put: Template::new(&put(0), key_bytes, &value),
            get: Template::new(&get, key_bytes, &[]),
            stale_get: Template::new(&stale_get, key_bytes, &[]),
            range: Template::new(&range, key_bytes, &[]),
            txn: Template::new(&txn, key_bytes, &value),
            value,
        }
    }

    fn value(&self, sequence: u64) -> Vec<u8> {
        let mut value = self.value.clone();
        template::stamp(&mut value, sequence);
        value
    }
}

fn malformed(error: &prost::DecodeError) -> CallError {
    CallError::Protocol(format!("malformed message: {error}"))
}

// Views of the answers with only the fields looked at: prost skips all others without copying them, which is most of
// the cost of a range. Field numbers are those of rpc.proto.

#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(int64, tag = "3")]
    revision: i64,
}

#[derive(Clone, PartialEq, Message)]
struct WriteAnswer {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
}

impl WriteAnswer {
    fn revision(&self) -> Result<i64, CallError> {
        revision_of(self.header.as_ref())
    }
}

#[derive(Clone, PartialEq, Message)]
struct Pair {
    #[prost(int64, tag = "3")]
    mod_revision: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ReadAnswer {
    #[prost(message, repeated, tag = "2")]
    pairs: Vec<Pair>,
}

#[derive(Clone, PartialEq, Message)]
struct InnerAnswer {
    #[prost(message, optional, tag = "1")]
    range: Option<ReadAnswer>,
}

#[derive(Clone, PartialEq, Message)]
struct TxnAnswer {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(bool, tag = "2")]
    succeeded: bool,
    #[prost(message, repeated, tag = "3")]
    responses: Vec<InnerAnswer>,
}

impl TxnAnswer {
    fn revision(&self) -> Result<i64, CallError> {
        revision_of(self.header.as_ref())
    }
}

/// The revision of a write; every service fills the header of these answers.
fn revision_of(header: Option<&Header>) -> Result<i64, CallError> {
    let revision = header.map_or(0, |header| header.revision);
    if revision <= 0 {
        return Err(CallError::Protocol("a write answered without a revision".to_owned()));
    }
    Ok(revision)
}

#[cfg(test)]
#[path = "workload_tests.rs"]
mod tests;
