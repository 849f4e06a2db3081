//! Histories by hand: one call per operation, times as a range, everything else with a default.

use std::ops::Range as Times;

use check::history::{
    Bytes, Compact, CompareTarget, DeleteRange, Header, History, KeyValue, Lease, Level, Numbering, Op, Operation,
    Outcome, Put, Range, Request, Response, Txn, Workload,
};
use check::{Options, Property, Verdict, check};

use crate::generate::{equal, get, prefix, put};

/// A history that grows.
pub(crate) struct Build(pub(crate) History);

/// A pair: key, value, create revision, mod revision, version.
pub(crate) fn kv(key: &str, value: &str, create: i64, modified: i64, version: i64) -> KeyValue {
    let (key, value) = (Bytes::from(key), Bytes::from(value));
    KeyValue { key, value, create_revision: create, mod_revision: modified, version, lease: 0 }
}

pub(crate) fn range(kvs: &[KeyValue]) -> Response {
    Response::Range { kvs: kvs.to_vec(), more: false, count: kvs.len() as i64 }
}

pub(crate) const PUT: Response = Response::Put { prev_kv: None };

impl Build {
    /// A fresh store that numbers densely.
    pub(crate) fn dense() -> Self {
        let header = Header { start_revision: 1, numbering: Numbering::Dense, ..Header::default() };
        Self(History { header, operations: Vec::new() })
    }

    /// A store in use.
    pub(crate) fn rising() -> Self {
        Self(History { header: Header { start_revision: 1, ..Header::default() }, operations: Vec::new() })
    }

    pub(crate) fn with(mut self, workload: Workload) -> Self {
        self.0.header.workloads.push(workload);
        self
    }

    /// An operation with any outcome, by a client of its own.
    pub(crate) fn add(&mut self, times: Times<u64>, request: Request, outcome: Outcome) -> &mut Operation {
        let id = self.0.operations.len() as u64 + 1;
        let returned = Some(times.end);
        let operation =
            Operation { id, client: id, node: 0, connection: 0, invoked: times.start, returned, request, outcome };
        self.0.operations.push(operation);
        self.0.operations.last_mut().expect("just added")
    }

    pub(crate) fn done(
        &mut self,
        times: Times<u64>,
        revision: i64,
        request: Request,
        response: Response,
    ) -> &mut Operation {
        self.add(times, request, Outcome::Done { revision, response })
    }

    pub(crate) fn put(&mut self, times: Times<u64>, revision: i64, key: &str, value: &str) -> &mut Operation {
        self.done(times, revision, Request::Put(put(key, value)), PUT)
    }

    pub(crate) fn lost_put(&mut self, at: u64, key: &str, value: &str) -> &mut Operation {
        let operation = self.add(at..at, Request::Put(put(key, value)), Outcome::Unknown);
        operation.returned = None;
        operation
    }

    pub(crate) fn lost_delete(&mut self, at: u64, key: &str) -> &mut Operation {
        let delete = DeleteRange { key: key.into(), ..DeleteRange::default() };
        let operation = self.add(at..at, Request::DeleteRange(delete), Outcome::Unknown);
        operation.returned = None;
        operation
    }

    pub(crate) fn failed_put(&mut self, times: Times<u64>, key: &str, value: &str) -> &mut Operation {
        self.add(times, Request::Put(put(key, value)), Outcome::Failed { reason: "no leader".to_owned() })
    }

    pub(crate) fn get(&mut self, times: Times<u64>, revision: i64, key: &str, kvs: &[KeyValue]) -> &mut Operation {
        self.done(times, revision, Request::Range(get(key)), range(kvs))
    }

    pub(crate) fn stale_get(
        &mut self,
        times: Times<u64>,
        revision: i64,
        key: &str,
        kvs: &[KeyValue],
    ) -> &mut Operation {
        let request = Range { level: Level::Serializable, ..get(key) };
        self.done(times, revision, Request::Range(request), range(kvs))
    }

    pub(crate) fn all(&mut self, times: Times<u64>, revision: i64, start: &str, kvs: &[KeyValue]) -> &mut Operation {
        self.done(times, revision, Request::Range(prefix(start)), range(kvs))
    }

    pub(crate) fn past(
        &mut self,
        times: Times<u64>,
        revision: i64,
        at: i64,
        key: &str,
        kvs: &[KeyValue],
    ) -> &mut Operation {
        let request = Range { revision: at, ..get(key) };
        self.done(times, revision, Request::Range(request), range(kvs))
    }

    pub(crate) fn delete(&mut self, times: Times<u64>, revision: i64, key: &str, deleted: i64) -> &mut Operation {
        let request = DeleteRange { key: key.into(), ..DeleteRange::default() };
        let response = Response::DeleteRange { deleted, prev_kvs: Vec::new() };
        self.done(times, revision, Request::DeleteRange(request), response)
    }

    pub(crate) fn compact(&mut self, times: Times<u64>, revision: i64, to: i64) -> &mut Operation {
        self.done(times, revision, Request::Compact(Compact { revision: to }), Response::Compact {})
    }

    pub(crate) fn grant(&mut self, times: Times<u64>, id: i64, ttl: i64) -> &mut Operation {
        self.done(times, 1, Request::Lease(Lease::Grant { id, ttl }), Response::Lease { id, ttl })
    }

    /// The store ended these leases by itself.
    pub(crate) fn expired(&mut self, times: Times<u64>, revision: i64, ids: &[i64]) -> &mut Operation {
        let response = Response::Lease { id: 0, ttl: 0 };
        self.done(times, revision, Request::Lease(Lease::Expire { ids: ids.to_vec() }), response)
    }

    pub(crate) fn leased_put(
        &mut self,
        times: Times<u64>,
        revision: i64,
        key: &str,
        value: &str,
        lease: i64,
    ) -> &mut Operation {
        self.done(times, revision, Request::Put(Put { lease, ..put(key, value) }), PUT)
    }

    /// A compare-and-swap on the revision of `key`.
    pub(crate) fn swap(
        &mut self,
        times: Times<u64>,
        revision: i64,
        key: &str,
        from: i64,
        value: &str,
        succeeded: bool,
    ) -> &mut Operation {
        let responses = if succeeded { vec![PUT] } else { Vec::new() };
        self.done(times, revision, Request::Txn(swap(key, from, value)), Response::Txn { succeeded, responses })
    }

    pub(crate) fn txn(
        &mut self,
        times: Times<u64>,
        revision: i64,
        success: Vec<Op>,
        responses: Vec<Response>,
    ) -> &mut Operation {
        let txn = Txn { success, ..Txn::default() };
        self.done(times, revision, Request::Txn(txn), Response::Txn { succeeded: true, responses })
    }

    /// A transaction on lists: keys it reads and the lists it sees, keys it writes and the lists it leaves.
    pub(crate) fn lists(
        &mut self,
        times: Times<u64>,
        reads: &[(&str, &str)],
        writes: &[(&str, &str)],
    ) -> &mut Operation {
        let revision = self.0.operations.len() as i64 + 2;
        let (mut success, mut responses) = (Vec::new(), Vec::new());
        for (key, list) in reads {
            success.push(Op::Range(get(key)));
            let pair = kv(key, list, 2, 2, 1);
            responses.push(range(if list.is_empty() { &[] } else { std::slice::from_ref(&pair) }));
        }
        for (key, list) in writes {
            success.push(Op::Put(put(key, list)));
            responses.push(PUT);
        }
        self.txn(times, revision, success, responses)
    }

    /// This property, and only its own rules, finds the history impossible, and says so with `words`.
    #[track_caller]
    pub(crate) fn broken(&self, property: Property, words: &str) {
        self.0.validate().expect("a well-formed history");
        match check(&self.0, property, &Options::default()) {
            Verdict::Impossible(impossible) => {
                let text = impossible.explain(&self.0);
                assert!(text.contains(words), "no `{words}` in: {text}");
                assert!(!impossible.operations.is_empty(), "no operation is named: {text}");
            }
            other => panic!("{property} must find it impossible, and says {other:?}"),
        }
    }

    /// Every property accepts it.
    #[track_caller]
    pub(crate) fn legal(&self) {
        self.0.validate().expect("a well-formed history");
        for (property, verdict) in check::check_all(&self.0, &Options::default()) {
            assert!(verdict.is_possible(), "{property}: {verdict:?}");
        }
    }

    /// This property accepts it; the others have no opinion on made-up revisions.
    #[track_caller]
    pub(crate) fn legal_for(&self, property: Property) {
        let verdict = check(&self.0, property, &Options::default());
        assert!(matches!(verdict, Verdict::Possible { judged } if judged > 0), "{property}: {verdict:?}");
    }
}

/// A compare-and-swap on the revision of `key`.
pub(crate) fn swap(key: &str, from: i64, value: &str) -> Txn {
    let compares = vec![equal(key, CompareTarget::Mod(from))];
    Txn { compares, success: vec![Op::Put(put(key, value))], failure: Vec::new() }
}

pub(crate) fn delete_prefix(start: &str) -> DeleteRange {
    let Range { key, range_end, .. } = prefix(start);
    DeleteRange { key, range_end, ..DeleteRange::default() }
}

pub(crate) fn put_previous(key: &str, value: &str) -> Request {
    Request::Put(Put { prev_kv: true, ..put(key, value) })
}
