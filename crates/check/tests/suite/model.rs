//! A store with all its past, for generating histories. Written apart from the checker's own reference.
//!
//! Invariant: `past` has one entry per key and revision at which it changed, in order.

use std::collections::BTreeMap;

use check::history::{
    Bytes, Compare, CompareResult, CompareTarget, DeleteRange, KeyValue, Op, Put, Range, Request, Response, Revision,
    Txn,
};

/// The store.
pub(crate) struct Model {
    pub(crate) revision: Revision,
    past: BTreeMap<Bytes, Vec<(Revision, Option<KeyValue>)>>,
}

impl Model {
    pub(crate) fn new() -> Self {
        Self { revision: 1, past: BTreeMap::new() }
    }

    pub(crate) fn get(&self, key: &[u8], at: Revision) -> Option<&KeyValue> {
        let past = self.past.get(key)?;
        let count = past.partition_point(|(revision, _)| *revision <= at);
        past[..count].last()?.1.as_ref()
    }

    fn keys(&self, key: &Bytes, end: &Bytes) -> Vec<Bytes> {
        if end.is_empty() {
            return vec![key.clone()];
        }
        let inside = |candidate: &&Bytes| *candidate >= key && (end[..] == [0] || *candidate < end);
        self.past.keys().filter(inside).cloned().collect()
    }

    fn set(&mut self, key: &Bytes, at: Revision, pair: Option<KeyValue>) {
        let past = self.past.entry(key.clone()).or_default();
        past.retain(|(revision, _)| *revision != at);
        past.push((at, pair));
    }

    /// Carries out a request; returns the header's revision and the answer.
    pub(crate) fn apply(&mut self, request: &Request) -> (Revision, Response) {
        let next = self.revision + 1;
        let mut modified = false;
        let response = match request {
            Request::Range(range) => self.range(range, self.revision),
            Request::Put(put) => self.put(put, next, &mut modified),
            Request::DeleteRange(delete) => self.delete(delete, next, &mut modified),
            Request::Txn(txn) => self.txn(txn, next, &mut modified),
            _ => Response::Compact {},
        };
        if modified {
            self.revision = next;
        }
        (self.revision, response)
    }

    /// Reads the state at `now`, or further in the past if the request says so.
    pub(crate) fn range(&self, range: &Range, now: Revision) -> Response {
        let at = if range.revision > 0 { range.revision } else { now };
        let keys = self.keys(&range.key, &range.range_end);
        let mut kvs: Vec<KeyValue> = keys.iter().filter_map(|key| self.get(key, at).cloned()).collect();
        let count = kvs.len() as i64;
        let more = range.limit > 0 && count > range.limit;
        if more {
            kvs.truncate(range.limit as usize);
        }
        if range.count_only {
            kvs.clear();
        }
        Response::Range { kvs, more: more && !range.count_only, count }
    }

    fn put(&mut self, put: &Put, next: Revision, modified: &mut bool) -> Response {
        let before = self.get(&put.key, next).cloned();
        let pair = KeyValue {
            key: put.key.clone(),
            value: put.value.clone(),
            create_revision: before.as_ref().map_or(next, |before| before.create_revision),
            mod_revision: next,
            version: before.as_ref().map_or(1, |before| before.version + 1),
            lease: 0,
        };
        self.set(&put.key, next, Some(pair));
        *modified = true;
        Response::Put { prev_kv: before.filter(|_| put.prev_kv) }
    }

    fn delete(&mut self, delete: &DeleteRange, next: Revision, modified: &mut bool) -> Response {
        let mut deleted = Vec::new();
        for key in self.keys(&delete.key, &delete.range_end) {
            if let Some(before) = self.get(&key, next).cloned() {
                deleted.push(before);
                self.set(&key, next, None);
                *modified = true;
            }
        }
        let count = deleted.len() as i64;
        Response::DeleteRange { deleted: count, prev_kvs: if delete.prev_kv { deleted } else { Vec::new() } }
    }

    fn txn(&mut self, txn: &Txn, next: Revision, modified: &mut bool) -> Response {
        let succeeded = txn.compares.iter().all(|compare| self.holds(compare));
        let mut responses = Vec::new();
        for op in if succeeded { &txn.success } else { &txn.failure } {
            responses.push(match op {
                Op::Range(range) => self.range(range, next),
                Op::Put(put) => self.put(put, next, modified),
                Op::DeleteRange(delete) => self.delete(delete, next, modified),
                Op::Txn(nested) => self.txn(nested, next, modified),
            });
        }
        Response::Txn { succeeded, responses }
    }

    /// Only compares of single keys, and only before the transaction has written: what the generator needs.
    fn holds(&self, compare: &Compare) -> bool {
        let pair = self.get(&compare.key, self.revision);
        let order = match &compare.target {
            CompareTarget::Version(operand) => pair.map_or(0, |pair| pair.version).cmp(operand),
            CompareTarget::Create(operand) => pair.map_or(0, |pair| pair.create_revision).cmp(operand),
            CompareTarget::Mod(operand) => pair.map_or(0, |pair| pair.mod_revision).cmp(operand),
            CompareTarget::Lease(operand) => 0.cmp(operand),
            CompareTarget::Value(operand) => match pair {
                Some(pair) => pair.value.cmp(operand),
                None => return false,
            },
        };
        match compare.result {
            CompareResult::Equal => order.is_eq(),
            CompareResult::Greater => order.is_gt(),
            CompareResult::Less => order.is_lt(),
            CompareResult::NotEqual => order.is_ne(),
        }
    }
}
