//! The history of a run as the crate `check` reads it (`docs/formats/history.md`), and its verdict on it.
//!
//! Invariant: nothing is left out. Revisions are dense: whatever changes the store was asked for by a client here.

use base::{NodeId, Revision};
use bytes::Bytes;
use check::history::{self as record, Header, Numbering, Workload};
use check::{History, Options, Outcome, Request, Response, Verdict};
use mvcc::{Command, OutcomeResult, RangeResult, Reject, TxnResult};

use crate::history::{Asked, Operation, Told};
use crate::settled::{LeaseEnd, Settled};
use crate::watches::WatchRecord;
use crate::workload::{ACCOUNTS, BANK, FENCES, FORKS, LISTS_PREFIX, PAIRS, TOTAL};

/// The history, and whether the answers in it can all be true; if not, why.
///
/// `clocks_fast_percent` is by how much a clock may run fast: leases end so much earlier.
/// What clients do not know is filled in from the log: a search would have to try every moment for every such write.
pub(crate) fn judge(
    history: &[Operation],
    watches: &[WatchRecord],
    settled: &Settled,
    clocks_fast_percent: u64,
) -> (History, Result<(), String>) {
    match settled.resolve(history) {
        Ok(resolved) => {
            let mut recorded = recorded(&resolved, watches);
            recorded
                .operations
                .extend(settled.lease_ends().iter().zip(recorded.operations.len() as u64..).map(expired));
            let judged = check_all(&recorded, clocks_fast_percent);
            (recorded, judged)
        }
        Err(reason) => {
            let told: Vec<_> = history.iter().map(|operation| (operation.clone(), None)).collect();
            (recorded(&told, watches), Err(reason))
        }
    }
}

/// Undecided is a failure: nobody would look at it again.
fn check_all(history: &History, clocks_fast_percent: u64) -> Result<(), String> {
    // On a clock that runs half as fast again a lease is over after two thirds of its time.
    let clock_error_percent = 100 - 10_000 / (100 + clocks_fast_percent);
    let options = Options { clock_error_percent, ..Options::default() };
    history.validate().map_err(|reason| format!("the record itself is wrong: {reason}"))?;
    for (property, verdict) in check::check_all(history, &options) {
        match verdict {
            Verdict::Possible { .. } => {}
            Verdict::Impossible(impossible) => return Err(format!("{property}: {}", impossible.explain(history))),
            Verdict::Undecided { why } => return Err(format!("{property} is undecided: {why}")),
        }
    }
    Ok(())
}

/// With the moments at which operations happened that nobody was told about.
fn recorded(history: &[(Operation, Option<u64>)], watches: &[WatchRecord]) -> History {
    let nodes = history.iter().map(|(operation, _)| operation.node.0).max().unwrap_or(0);
    let workloads = vec![
        Workload::ListAppend { prefix: LISTS_PREFIX.into() },
        Workload::Bank { prefix: BANK.into(), accounts: ACCOUNTS, total: TOTAL },
        Workload::WriteSkew { prefix: PAIRS.into() },
        Workload::LongFork { prefix: FORKS.into() },
        Workload::Fence { prefix: FENCES.into() },
    ];
    let header = Header {
        nodes: (1..=nodes).map(|node| NodeId(node).to_string()).collect(),
        start_revision: 1,
        numbering: Numbering::Dense,
        workloads,
    };
    let requests = history.iter().zip(0..).map(|((operation, moment), id)| one(operation, *moment, id));
    let watches = watches.iter().zip(history.len() as u64..).map(|(record, id)| watch(record, id));
    let operations = requests.chain(watches).collect();
    History { header, operations }
}

fn one(operation: &Operation, moment: Option<u64>, id: u64) -> record::Operation {
    record::Operation {
        id,
        client: operation.client,
        node: operation.node.0 - 1,
        connection: operation.connection,
        invoked: moment.unwrap_or(operation.called_at * 1000),
        returned: moment.or(operation.returned_at.map(|at| at * 1000)),
        request: request(&operation.asked),
        outcome: outcome(&operation.told),
    }
}

/// A lease that the store ended, in the name of nobody.
fn expired((end, id): (&LeaseEnd, u64)) -> record::Operation {
    record::Operation {
        id,
        client: u64::MAX,
        node: 0,
        connection: 0,
        invoked: end.moment,
        returned: Some(end.moment),
        request: Request::Lease(record::Lease::Expire { ids: vec![end.id.0] }),
        outcome: done(end.revision, Response::Lease { id: end.id.0, ttl: 0 }),
    }
}

/// Clients that watch are numbered from here on.
const WATCHING_CLIENTS: u64 = 100;

fn watch(watch: &WatchRecord, id: u64) -> record::Operation {
    let end = watch.batches.last().map(|batch| batch.at);
    let returned = watch.returned.map(|at| at * 1000).or(end);
    let create = &watch.create;
    let request = record::Watch {
        key: if create.key.is_empty() { record::Bytes::from(&[0][..]) } else { bytes(&create.key) },
        range_end: bytes(&create.range_end),
        start_revision: create.start.0,
        prev_kv: create.prev_kv,
        no_put: create.skip_puts,
        no_delete: create.skip_deletes,
    };
    let revision = watch.batches.iter().map(|batch| batch.revision).max();
    let outcome = match (&watch.refused, revision) {
        (Some(reason), _) => Outcome::Failed { reason: reason.clone() },
        (None, Some(revision)) => {
            Outcome::Done { revision, response: Response::Watch { batches: watch.batches.clone() } }
        }
        (None, None) => Outcome::Unknown,
    };
    record::Operation {
        id,
        client: WATCHING_CLIENTS + watch.client,
        node: watch.node.0 - 1,
        connection: watch.connection,
        invoked: watch.invoked * 1000,
        returned,
        request: Request::Watch(request),
        outcome,
    }
}

/// An event as it was delivered.
pub(crate) fn event(event: &mvcc::Event) -> record::Event {
    let prev_kv = event.prev_kv.as_ref().map(pair);
    match event.kind {
        mvcc::EventKind::Put => record::Event::Put { kv: pair(&event.kv), prev_kv },
        mvcc::EventKind::Delete => {
            record::Event::Delete { key: bytes(&event.kv.key), mod_revision: event.kv.mod_revision.0, prev_kv }
        }
    }
}

fn bytes(bytes: &Bytes) -> record::Bytes {
    record::Bytes::from(&bytes[..])
}

fn request(asked: &Asked) -> Request {
    match asked {
        Asked::Read(read) => Request::Range(range(read)),
        Asked::Write(Command::Put(one)) => Request::Put(put(one)),
        Asked::Write(Command::DeleteRange(one)) => Request::DeleteRange(delete(one)),
        Asked::Write(Command::Txn(one)) | Asked::ReadTxn(one) => Request::Txn(txn(one)),
        Asked::Write(Command::Compact(one)) => Request::Compact(record::Compact { revision: one.revision.0 }),
        Asked::Write(Command::LeaseGrant(one)) => Request::Lease(record::Lease::Grant { id: one.id.0, ttl: one.ttl_s }),
        Asked::Write(Command::LeaseRevoke(one)) => Request::Lease(record::Lease::Revoke { id: one.id.0 }),
        Asked::KeepAlive(id) => Request::Lease(record::Lease::KeepAlive { id: id.0 }),
        Asked::Lock { name, lease } => Request::Lock(record::Lock::Acquire { name: bytes(name), lease: lease.0 }),
        Asked::Unlock { key } => Request::Lock(record::Lock::Release { key: bytes(key) }),
        Asked::Write(other) => unreachable!("no client asks for {other:?}"),
    }
}

fn range(read: &mvcc::RangeRequest) -> record::Range {
    // What is not set here is at rest in every request that is made.
    record::Range {
        key: bytes(&read.key),
        range_end: bytes(&read.range_end),
        limit: read.limit.max(0),
        revision: read.revision.0.max(0),
        level: if read.serializable { record::Level::Serializable } else { record::Level::Strict },
        keys_only: read.keys_only,
        count_only: read.count_only,
        sort_order: match read.sort_order {
            mvcc::SortOrder::None | mvcc::SortOrder::Unknown => record::SortOrder::None,
            mvcc::SortOrder::Ascend => record::SortOrder::Ascend,
            mvcc::SortOrder::Descend => record::SortOrder::Descend,
        },
        sort_target: match read.sort_target {
            mvcc::SortTarget::Key | mvcc::SortTarget::Unknown => record::SortTarget::Key,
            mvcc::SortTarget::Version => record::SortTarget::Version,
            mvcc::SortTarget::Create => record::SortTarget::Create,
            mvcc::SortTarget::Mod => record::SortTarget::Mod,
            mvcc::SortTarget::Value => record::SortTarget::Value,
        },
        max_create_revision: read.max_create_revision.0.max(0),
        ..record::Range::default()
    }
}

fn put(put: &mvcc::Put) -> record::Put {
    record::Put {
        key: bytes(&put.key),
        value: bytes(&put.value),
        lease: put.lease.0,
        prev_kv: put.prev_kv,
        ignore_value: put.ignore_value,
        ignore_lease: put.ignore_lease,
    }
}

fn delete(delete: &mvcc::DeleteRange) -> record::DeleteRange {
    record::DeleteRange { key: bytes(&delete.key), range_end: bytes(&delete.range_end), prev_kv: delete.prev_kv }
}

fn txn(txn: &mvcc::Txn) -> record::Txn {
    record::Txn {
        compares: txn.compares.iter().map(compare).collect(),
        success: txn.success.iter().map(op).collect(),
        failure: txn.failure.iter().map(op).collect(),
    }
}

fn op(op: &mvcc::Op) -> record::Op {
    match op {
        mvcc::Op::Range(one) => record::Op::Range(range(one)),
        mvcc::Op::Put(one) => record::Op::Put(put(one)),
        mvcc::Op::DeleteRange(one) => record::Op::DeleteRange(delete(one)),
        mvcc::Op::Txn(one) => record::Op::Txn(txn(one)),
        mvcc::Op::Empty => unreachable!("no client sends an operation without content"),
    }
}

fn compare(compare: &mvcc::Compare) -> record::Compare {
    use mvcc::{CompareResult as R, CompareTarget as T};
    record::Compare {
        key: bytes(&compare.key),
        range_end: bytes(&compare.range_end),
        result: match compare.result {
            R::Equal => record::CompareResult::Equal,
            R::Greater => record::CompareResult::Greater,
            R::Less => record::CompareResult::Less,
            R::NotEqual => record::CompareResult::NotEqual,
        },
        target: match &compare.target {
            T::Version(version) => record::CompareTarget::Version(*version),
            T::CreateRevision(revision) => record::CompareTarget::Create(revision.0),
            T::ModRevision(revision) => record::CompareTarget::Mod(revision.0),
            T::Value(value) => record::CompareTarget::Value(bytes(value)),
            T::Lease(lease) => record::CompareTarget::Lease(lease.0),
        },
    }
}

fn outcome(told: &Told) -> Outcome {
    match told {
        Told::Outcome(mvcc::Outcome { result: OutcomeResult::Rejected(reject), .. }) | Told::Rejected(reject) => {
            refused(reject)
        }
        Told::Outcome(mvcc::Outcome { revision, result }) => match response(result) {
            Some(response) => Outcome::Done { revision: revision.0, response },
            None => Outcome::Unknown,
        },
        Told::Range(answer) => done(answer.revision, range_response(&answer.result)),
        // The header of such an answer says nothing about the lease.
        Told::Lease(times) => done(Revision(0), Response::Lease { id: 0, ttl: times.map_or(0, |times| times.ttl_s) }),
        Told::Lock(Some(held)) => done(held.revision, Response::Lock { key: bytes(&held.key), token: held.token.0 }),
        Told::Lock(None) => Outcome::Failed { reason: "the lease is over".to_owned() },
        Told::NotDone => Outcome::Failed { reason: "not done".to_owned() },
        Told::Unknown => Outcome::Unknown,
    }
}

fn refused(reject: &Reject) -> Outcome {
    Outcome::Failed { reason: reject.to_string() }
}

const fn done(revision: Revision, response: Response) -> Outcome {
    Outcome::Done { revision: revision.0, response }
}

/// The answer to a command; none if it was too large to be told.
fn response(result: &OutcomeResult) -> Option<Response> {
    Some(match result {
        OutcomeResult::Put(put) => put_response(put),
        OutcomeResult::DeleteRange(deleted) => delete_response(deleted),
        OutcomeResult::Txn(txn) => txn_response(txn),
        OutcomeResult::Compact(_) => Response::Compact {},
        OutcomeResult::LeaseGrant(granted) => Response::Lease { id: granted.id.0, ttl: granted.ttl_s },
        OutcomeResult::LeaseRevoke => Response::Lease { id: 0, ttl: 0 },
        OutcomeResult::AnswerTooLarge => return None,
        other => unreachable!("no client asks for what is answered with {other:?}"),
    })
}

fn pair(pair: &mvcc::KeyValue) -> record::KeyValue {
    record::KeyValue {
        key: bytes(&pair.key),
        value: bytes(&pair.value),
        create_revision: pair.create_revision.0,
        mod_revision: pair.mod_revision.0,
        version: pair.version,
        lease: pair.lease.0,
    }
}

fn range_response(result: &RangeResult) -> Response {
    Response::Range { kvs: result.kvs.iter().map(pair).collect(), more: result.more, count: result.count }
}

fn put_response(put: &mvcc::PutResult) -> Response {
    Response::Put { prev_kv: put.prev_kv.as_ref().map(pair) }
}

fn delete_response(deleted: &mvcc::DeleteResult) -> Response {
    Response::DeleteRange { deleted: deleted.deleted, prev_kvs: deleted.prev_kvs.iter().map(pair).collect() }
}

fn txn_response(txn: &TxnResult) -> Response {
    let responses = txn.responses.iter().map(|outcome| match &outcome.result {
        mvcc::OpResult::Range(range) => range_response(range),
        mvcc::OpResult::Put(put) => put_response(put),
        mvcc::OpResult::DeleteRange(deleted) => delete_response(deleted),
        mvcc::OpResult::Txn(nested) => txn_response(nested),
    });
    Response::Txn { succeeded: txn.succeeded, responses: responses.collect() }
}

#[cfg(test)]
#[path = "recorded_tests.rs"]
mod tests;
