//! The reference: what a correct store would hold and answer, in the simplest form.
//!
//! Invariant: it holds one state, that after the last applied write, and can go back to any earlier mark. Reads of the
//! past are not its business: whoever replays in revision order reads the past when it is the present.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::history::{
    Bytes, Compare, CompareResult, CompareTarget, DeleteRange, KeyValue, Op, Put, Range, Request, Response, Revision,
    SortOrder, SortTarget, Txn,
};
use crate::span::Span;

/// What is stored about a key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Stored {
    pub(crate) value: Bytes,
    pub(crate) create_revision: Revision,
    pub(crate) mod_revision: Revision,
    pub(crate) version: i64,
    pub(crate) lease: i64,
}

/// One state, and the way back.
#[derive(Debug, Clone, Default)]
pub(crate) struct Store {
    pairs: BTreeMap<Bytes, Stored>,
    journal: Vec<(Bytes, Option<Stored>)>,
}

/// The answer that a correct store gives.
pub(crate) struct Answer {
    pub(crate) response: Response,
    /// Whether keys were changed, and so a revision used up.
    pub(crate) modified: bool,
}

/// Why a correct store refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyNotFound;

impl Store {
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Stored> {
        self.pairs.get(key)
    }

    /// Pairs of a span in key order.
    pub(crate) fn scan<'a>(&'a self, span: &Span<'a>) -> impl Iterator<Item = (&'a Bytes, &'a Stored)> + use<'a> {
        span.bounds().into_iter().flat_map(|bounds| self.pairs.range::<[u8], _>(bounds))
    }

    /// A place to go back to.
    pub(crate) fn mark(&self) -> usize {
        self.journal.len()
    }

    /// Undoes everything after `mark`.
    pub(crate) fn undo(&mut self, mark: usize) {
        while self.journal.len() > mark {
            let (key, before) = self.journal.pop().expect("the journal is longer than the mark");
            match before {
                Some(stored) => self.pairs.insert(key, stored),
                None => self.pairs.remove(&key),
            };
        }
    }

    fn set(&mut self, key: &Bytes, stored: Option<Stored>) -> Option<Stored> {
        let before = match stored {
            Some(stored) => self.pairs.insert(key.clone(), stored),
            None => self.pairs.remove(key),
        };
        self.journal.push((key.clone(), before.clone()));
        before
    }

    /// Carries out a request at `revision`. After a refusal nothing has changed. Reads with a revision of their own get
    /// an empty answer.
    pub(crate) fn apply(&mut self, request: &Request, revision: Revision) -> Result<Answer, KeyNotFound> {
        let mark = self.mark();
        let result = self.run(request, revision);
        if result.is_err() {
            self.undo(mark);
        }
        result.map(|response| Answer { response, modified: self.mark() > mark })
    }

    fn run(&mut self, request: &Request, revision: Revision) -> Result<Response, KeyNotFound> {
        match request {
            Request::Range(range) => Ok(self.range(range)),
            Request::Put(put) => self.put(put, revision),
            Request::DeleteRange(delete) => Ok(self.delete(delete)),
            Request::Txn(txn) => {
                let mut path = Vec::new();
                self.choose(txn, &mut path);
                self.txn(txn, revision, &mut path.into_iter())
            }
            Request::Lease(lease) => {
                lease.ended().iter().for_each(|id| self.end(*id));
                Ok(Response::Compact {})
            }
            Request::Compact(_) | Request::Watch(_) | Request::Lock(_) => Ok(Response::Compact {}),
        }
    }

    fn put(&mut self, put: &Put, revision: Revision) -> Result<Response, KeyNotFound> {
        let before = self.pairs.get(&put.key);
        if (put.ignore_value || put.ignore_lease) && before.is_none() {
            return Err(KeyNotFound);
        }
        let old = before.cloned().unwrap_or(Stored { create_revision: revision, ..Stored::default() });
        let stored = Stored {
            value: if put.ignore_value { old.value } else { put.value.clone() },
            create_revision: old.create_revision,
            mod_revision: revision,
            version: old.version + 1,
            lease: if put.ignore_lease { old.lease } else { put.lease },
        };
        let before = self.set(&put.key, Some(stored));
        Ok(Response::Put { prev_kv: before.filter(|_| put.prev_kv).map(|stored| pair(&put.key, &stored)) })
    }

    fn delete(&mut self, delete: &DeleteRange) -> Response {
        let span = Span::new(&delete.key, &delete.range_end);
        let keys: Vec<Bytes> = self.scan(&span).map(|(key, _)| key.clone()).collect();
        let mut prev_kvs = Vec::new();
        for key in &keys {
            let before = self.set(key, None).expect("the key was found");
            if delete.prev_kv {
                prev_kvs.push(pair(key, &before));
            }
        }
        Response::DeleteRange { deleted: keys.len() as i64, prev_kvs }
    }

    /// A lease ends, and its keys with it.
    fn end(&mut self, lease: i64) {
        let attached = self.pairs.iter().filter(|(_, stored)| stored.lease == lease && lease != 0);
        for key in attached.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.set(&key, None);
        }
    }

    /// Keys that were written after `mark`, with what was there before.
    pub(crate) fn changed_since(&self, mark: usize) -> &[(Bytes, Option<Stored>)] {
        &self.journal[mark..]
    }

    /// Judges the compares of a transaction and of the nested ones on its path, before anything is written.
    fn choose(&self, txn: &Txn, path: &mut Vec<bool>) {
        let succeeded = txn.compares.iter().all(|compare| self.holds(compare));
        path.push(succeeded);
        for op in if succeeded { &txn.success } else { &txn.failure } {
            if let Op::Txn(nested) = op {
                self.choose(nested, path);
            }
        }
    }

    fn txn(
        &mut self,
        txn: &Txn,
        revision: Revision,
        path: &mut impl Iterator<Item = bool>,
    ) -> Result<Response, KeyNotFound> {
        let succeeded = path.next().expect("one choice for each transaction");
        let mut responses = Vec::new();
        for op in if succeeded { &txn.success } else { &txn.failure } {
            responses.push(match op {
                Op::Range(range) => self.range(range),
                Op::Put(put) => self.put(put, revision)?,
                Op::DeleteRange(delete) => self.delete(delete),
                Op::Txn(nested) => self.txn(nested, revision, path)?,
            });
        }
        Ok(Response::Txn { succeeded, responses })
    }

    pub(crate) fn holds(&self, compare: &Compare) -> bool {
        let mut found = false;
        for (_, stored) in self.scan(&Span::new(&compare.key, &compare.range_end)) {
            found = true;
            if !passes(compare, stored) {
                return false;
            }
        }
        let is_value = matches!(compare.target, CompareTarget::Value(_));
        found || (!is_value && passes(compare, &Stored::default()))
    }

    fn range(&self, range: &Range) -> Response {
        if range.revision > 0 {
            return Response::Range { kvs: Vec::new(), more: false, count: 0 };
        }
        let span = Span::new(&range.key, &range.range_end);
        let mut count = 0;
        let mut kvs: Vec<KeyValue> = Vec::new();
        for (key, stored) in self.scan(&span) {
            count += 1;
            if !range.count_only && passes_filters(range, stored) {
                kvs.push(pair(key, stored));
            }
        }
        let limit = usize::try_from(range.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        let more = kvs.len() > limit;
        // etcd takes the first keys and one more, and sorts only them, unless an order is named or a filter set.
        if range.sort_order == SortOrder::None && !has_filters(range) {
            kvs.truncate(limit.saturating_add(1));
        }
        sort(range, &mut kvs);
        kvs.truncate(limit);
        if range.keys_only {
            for pair in &mut kvs {
                pair.value = Bytes::default();
            }
        }
        Response::Range { kvs, more, count }
    }

    /// Whether `response` answers `range` truly in this state.
    pub(crate) fn confirms(&self, range: &Range, response: &Response) -> bool {
        let now =
            if range.revision > 0 { Cow::Owned(Range { revision: 0, ..range.clone() }) } else { Cow::Borrowed(range) };
        self.range_matches(&now, &self.range(&now), response)
    }

    fn range_matches(&self, range: &Range, expected: &Response, got: &Response) -> bool {
        let (
            Response::Range { kvs: expected, more: expected_more, count: expected_count },
            Response::Range { kvs, more, count },
        ) = (expected, got)
        else {
            return false;
        };
        if (expected_more, expected_count, expected.len()) != (more, count, kvs.len()) {
            return false;
        }
        if range.sort_target == SortTarget::Key {
            return expected.iter().zip(kvs).all(|(expected, got)| same_pair(range, expected, got));
        }
        // Equal fields may come in any order, so the cut may fall on any of them.
        let mut seen = std::collections::BTreeSet::new();
        expected.iter().zip(kvs).all(|(expected, got)| {
            let stored = self.get(&got.key).map(|stored| pair(&got.key, stored));
            let blank = |pair: KeyValue| {
                if range.keys_only { KeyValue { value: Bytes::default(), ..pair } } else { pair }
            };
            seen.insert(&got.key)
                && Span::new(&range.key, &range.range_end).contains(&got.key)
                && stored.is_some_and(|stored| {
                    let expected = self.get(&expected.key).map(|stored| pair(&expected.key, stored));
                    expected.is_some_and(|expected| by_target(range, &expected, &stored) == Ordering::Equal)
                        && same_pair(range, &blank(stored), got)
                })
        })
    }

    /// Whether a correct store that gave `expected` could also have given `got`.
    pub(crate) fn matches(&self, request: &Request, expected: &Response, got: &Response) -> bool {
        match (request, expected, got) {
            (Request::Range(range), ..) => range.revision > 0 || self.range_matches(range, expected, got),
            (Request::Txn(txn), ..) => self.txn_matches(txn, expected, got),
            _ => expected == got,
        }
    }

    fn txn_matches(&self, txn: &Txn, expected: &Response, got: &Response) -> bool {
        let Response::Txn { succeeded: expected_branch, responses: expected } = expected else { return false };
        let Response::Txn { succeeded, responses } = got else { return false };
        let ops = if *succeeded { &txn.success } else { &txn.failure };
        expected_branch == succeeded
            && expected.len() == responses.len()
            && ops.iter().zip(expected.iter().zip(responses)).all(|(op, (expected, got))| match op {
                Op::Range(range) if range.revision > 0 => true,
                Op::Range(range) => ranges_equal(range, expected, got),
                Op::Txn(nested) => self.txn_matches(nested, expected, got),
                Op::Put(_) | Op::DeleteRange(_) => expected == got,
            })
    }
}

/// For a state that is not at hand: pairs that are sorted by another field than the key need only agree in that field.
fn ranges_equal(range: &Range, expected: &Response, got: &Response) -> bool {
    let Response::Range { kvs: expected, more: expected_more, count: expected_count } = expected else { return false };
    let Response::Range { kvs, more, count } = got else { return false };
    let same = |(expected, got): (&KeyValue, &KeyValue)| match range.sort_target {
        SortTarget::Key => same_pair(range, expected, got),
        _ => by_target(range, expected, got) == Ordering::Equal,
    };
    (expected_more, expected_count, expected.len()) == (more, count, kvs.len()) && expected.iter().zip(kvs).all(same)
}

/// Some releases leave out the lease when only keys are asked for.
fn same_pair(range: &Range, expected: &KeyValue, got: &KeyValue) -> bool {
    if range.keys_only && got.lease == 0 {
        return *got == KeyValue { lease: 0, ..expected.clone() };
    }
    expected == got
}

pub(crate) fn pair(key: &Bytes, stored: &Stored) -> KeyValue {
    KeyValue {
        key: key.clone(),
        value: stored.value.clone(),
        create_revision: stored.create_revision,
        mod_revision: stored.mod_revision,
        version: stored.version,
        lease: stored.lease,
    }
}

fn has_filters(range: &Range) -> bool {
    [range.min_mod_revision, range.max_mod_revision, range.min_create_revision, range.max_create_revision]
        .iter()
        .any(|filter| *filter != 0)
}

fn passes_filters(range: &Range, stored: &Stored) -> bool {
    let within = |revision, min, max| (min == 0 || revision >= min) && (max == 0 || revision <= max);
    within(stored.mod_revision, range.min_mod_revision, range.max_mod_revision)
        && within(stored.create_revision, range.min_create_revision, range.max_create_revision)
}

fn by_target(range: &Range, one: &KeyValue, two: &KeyValue) -> Ordering {
    match range.sort_target {
        SortTarget::Key => one.key.cmp(&two.key),
        SortTarget::Version => one.version.cmp(&two.version),
        SortTarget::Create => one.create_revision.cmp(&two.create_revision),
        SortTarget::Mod => one.mod_revision.cmp(&two.mod_revision),
        SortTarget::Value => one.value.cmp(&two.value),
    }
}

fn sort(range: &Range, kvs: &mut [KeyValue]) {
    if range.sort_target == SortTarget::Key && range.sort_order != SortOrder::Descend {
        return;
    }
    kvs.sort_by(|one, two| {
        let order = by_target(range, one, two);
        if range.sort_order == SortOrder::Descend { order.reverse() } else { order }
    });
}

fn passes(compare: &Compare, stored: &Stored) -> bool {
    let order = match &compare.target {
        CompareTarget::Version(operand) => stored.version.cmp(operand),
        CompareTarget::Create(operand) => stored.create_revision.cmp(operand),
        CompareTarget::Mod(operand) => stored.mod_revision.cmp(operand),
        CompareTarget::Value(operand) => stored.value.cmp(operand),
        CompareTarget::Lease(operand) => stored.lease.cmp(operand),
    };
    match compare.result {
        CompareResult::Equal => order == Ordering::Equal,
        CompareResult::Greater => order == Ordering::Greater,
        CompareResult::Less => order == Ordering::Less,
        CompareResult::NotEqual => order != Ordering::Equal,
    }
}
