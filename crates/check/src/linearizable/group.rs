//! Groups of keys that are judged together, what a state of a group is, and what an operation does to it.
//!
//! Invariant: a step accepts every answer that a correct store could give in that state, and as few others as possible.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::state::State;
use crate::fleeting::Fleeting;
use crate::history::{
    Bytes, Compare, CompareResult, CompareTarget, DeleteRange, History, KeyValue, Level, Op, Operation, Put, Range,
    Request, Response, Txn,
};
use crate::span::Span;

/// An operation as a group sees it.
pub(super) struct Step<'a> {
    pub(super) id: u64,
    pub(super) invoked: u64,
    /// `None` for an unknown outcome.
    pub(super) returned: Option<u64>,
    operation: &'a Operation,
}

/// Keys that are judged together, and the operations on them.
pub(super) struct Group<'a> {
    keys: BTreeSet<&'a Bytes>,
    /// Keys that are judged nowhere: they come and go when nobody asks for it.
    fleeting: Rc<Fleeting<'a>>,
    /// Whether there is no other key.
    is_whole: bool,
    /// Answered operations by invocation.
    pub(super) answered: Vec<Step<'a>>,
    /// Writes of unknown outcome by invocation.
    pub(super) unknown: Vec<Step<'a>>,
}

/// Splits a history; one group if it has at most `whole_max` operations.
pub(super) fn split(history: &History, whole_max: usize) -> Vec<Group<'_>> {
    let mut keys = BTreeSet::new();
    for operation in &history.operations {
        for span in operation.request.spans() {
            if let Span::Key(key) = span {
                keys.insert(key);
            }
        }
        if let Some(response) = operation.response() {
            add_keys(response, &mut keys);
        }
    }
    let fleeting = Rc::new(Fleeting::of(history));
    let keys: Vec<&Bytes> = keys.into_iter().filter(|key| !fleeting.contains(key)).collect();
    let mut leader: Vec<usize> = (0..keys.len()).collect();
    if history.operations.len() <= whole_max {
        leader.fill(0);
    }
    for operation in history.operations.iter().filter(|operation| operation.request.may_write()) {
        let touched = indexes(&keys, operation);
        for pair in touched.windows(2) {
            let (one, two) = (find(&mut leader, pair[0]), find(&mut leader, pair[1]));
            leader[one.max(two)] = one.min(two);
        }
    }
    let mut groups: BTreeMap<usize, Group<'_>> = BTreeMap::new();
    for (at, key) in keys.iter().enumerate() {
        let (fleeting, answered, unknown) = (Rc::clone(&fleeting), Vec::new(), Vec::new());
        let group = Group { keys: BTreeSet::new(), fleeting, is_whole: false, answered, unknown };
        groups.entry(find(&mut leader, at)).or_insert(group).keys.insert(key);
    }
    for operation in &history.operations {
        let members: BTreeSet<usize> = indexes(&keys, operation).into_iter().map(|at| find(&mut leader, at)).collect();
        for member in members {
            groups.get_mut(&member).expect("every key has a group").add(operation);
        }
    }
    let mut groups: Vec<Group<'_>> = groups.into_values().collect();
    let is_whole = groups.len() == 1 && fleeting.is_empty();
    for group in &mut groups {
        group.is_whole = is_whole;
        group.answered.sort_by_key(|step| (step.invoked, step.id));
        group.unknown.sort_by_key(|step| (step.invoked, step.id));
    }
    groups
}

fn find(leader: &mut [usize], mut at: usize) -> usize {
    while leader[at] != at {
        leader[at] = leader[leader[at]];
        at = leader[at];
    }
    at
}

/// The known keys that an operation touches, in order.
fn indexes(keys: &[&Bytes], operation: &Operation) -> Vec<usize> {
    let mut indexes = BTreeSet::new();
    for span in operation.request.spans() {
        let Some(bounds) = span.bounds() else { continue };
        let start = match bounds.0 {
            std::ops::Bound::Included(key) => keys.partition_point(|known| &known[..] < key),
            std::ops::Bound::Excluded(_) | std::ops::Bound::Unbounded => 0,
        };
        indexes.extend((start..keys.len()).take_while(|at| span.contains(keys[*at])));
    }
    indexes.into_iter().collect()
}

fn add_keys<'a>(response: &'a Response, keys: &mut BTreeSet<&'a Bytes>) {
    match response {
        Response::Range { kvs, .. } => keys.extend(kvs.iter().map(|pair| &pair.key)),
        Response::Put { prev_kv } => keys.extend(prev_kv.iter().map(|pair| &pair.key)),
        Response::DeleteRange { prev_kvs, .. } => keys.extend(prev_kvs.iter().map(|pair| &pair.key)),
        Response::Txn { responses, .. } => responses.iter().for_each(|response| add_keys(response, keys)),
        Response::Compact {} | Response::Watch { .. } | Response::Lease { .. } | Response::Lock { .. } => {}
    }
}

impl<'a> Group<'a> {
    fn add(&mut self, operation: &'a Operation) {
        let Operation { id, invoked, returned, .. } = *operation;
        if operation.is_unknown() && operation.request.may_write() {
            self.unknown.push(Step { id, invoked, returned: None, operation });
        } else if operation.response().is_some() && operation.request.level() == Level::Strict {
            self.answered.push(Step { id, invoked, returned, operation });
        }
    }

    /// Carries out a step; says whether its answer is possible. Compares that rest on what a state does not have hold
    /// if the answer says so, or, without an answer, if `assumed`. After a no the state is to be undone.
    pub(super) fn step(&self, state: &mut State, step: &Step<'_>, assumed: bool) -> bool {
        let answer = step.operation.response();
        match &step.operation.request {
            Request::Txn(txn) => {
                let mut path = Vec::new();
                if !self.choose(state, txn, answer, assumed, &mut path) {
                    return false;
                }
                self.run_branch(state, txn, &mut path.into_iter(), answer)
            }
            Request::Range(range) => self.run_range(state, range, answer),
            Request::Put(put) => self.run_put(state, put, answer),
            Request::DeleteRange(delete) => self.run_delete(state, delete, answer),
            Request::Compact(_) | Request::Watch(_) | Request::Lease(_) | Request::Lock(_) => true,
        }
    }

    /// Whether a step may go two ways.
    pub(super) fn is_open(step: &Step<'_>) -> bool {
        step.returned.is_none() && matches!(step.operation.request, Request::Txn(_))
    }

    /// Judges the compares of a transaction and of the nested ones on its path; `false` if the answer contradicts them.
    fn choose(&self, state: &State, txn: &Txn, answer: Option<&Response>, assumed: bool, path: &mut Vec<bool>) -> bool {
        let holds = self.compares(state, txn);
        let (branch, responses) = match answer {
            Some(Response::Txn { succeeded, responses }) => (*succeeded, Some(responses)),
            _ => (holds.unwrap_or(assumed), None),
        };
        if holds.is_some_and(|holds| holds != branch) {
            return false;
        }
        path.push(branch);
        let ops = if branch { &txn.success } else { &txn.failure };
        ops.iter().enumerate().all(|(at, op)| match op {
            Op::Txn(nested) => self.choose(state, nested, responses.map(|responses| &responses[at]), assumed, path),
            Op::Range(_) | Op::Put(_) | Op::DeleteRange(_) => true,
        })
    }

    /// Whether the compares hold; `None` if that rests on what a state does not have.
    fn compares(&self, state: &State, txn: &Txn) -> Option<bool> {
        let verdicts: Vec<Option<bool>> = txn.compares.iter().map(|compare| self.compare(state, compare)).collect();
        if verdicts.contains(&Some(false)) {
            return Some(false);
        }
        if verdicts.contains(&None) { None } else { Some(true) }
    }

    fn compare(&self, state: &State, compare: &Compare) -> Option<bool> {
        if !compare.range_end.is_empty() || !self.keys.contains(&compare.key) {
            return None;
        }
        let pair = state.get(&compare.key);
        let order = match &compare.target {
            CompareTarget::Version(operand) => pair.map_or(0, |pair| pair.1).cmp(operand),
            CompareTarget::Value(operand) => match pair {
                Some(pair) => pair.0.cmp(operand),
                None => return Some(false),
            },
            // Zero is the revision of what does not exist, and of nothing else.
            CompareTarget::Create(0) | CompareTarget::Mod(0) => i64::from(pair.is_some()).cmp(&0),
            CompareTarget::Create(_) | CompareTarget::Mod(_) if pair.is_none() => 0.cmp(&1),
            CompareTarget::Create(_) | CompareTarget::Mod(_) | CompareTarget::Lease(_) => return None,
        };
        Some(match compare.result {
            CompareResult::Equal => order.is_eq(),
            CompareResult::Greater => order.is_gt(),
            CompareResult::Less => order.is_lt(),
            CompareResult::NotEqual => order.is_ne(),
        })
    }

    fn run_branch(
        &self,
        state: &mut State,
        txn: &Txn,
        path: &mut impl Iterator<Item = bool>,
        answer: Option<&Response>,
    ) -> bool {
        let responses = match answer {
            Some(Response::Txn { responses, .. }) => Some(responses),
            _ => None,
        };
        let branch = path.next().expect("one choice for each transaction");
        let ops = if branch { &txn.success } else { &txn.failure };
        for (at, op) in ops.iter().enumerate() {
            let answer = responses.map(|responses| &responses[at]);
            let is_possible = match op {
                Op::Range(range) => self.run_range(state, range, answer),
                Op::Put(put) => self.run_put(state, put, answer),
                Op::DeleteRange(delete) => self.run_delete(state, delete, answer),
                Op::Txn(nested) => self.run_branch(state, nested, path, answer),
            };
            if !is_possible {
                return false;
            }
        }
        true
    }

    fn run_range(&self, state: &State, range: &Range, answer: Option<&Response>) -> bool {
        answer.is_none_or(|answer| self.shows(state, range, answer))
    }

    /// Whether a read could show this. Only keys of the group count.
    fn shows(&self, state: &State, range: &Range, answer: &Response) -> bool {
        let Response::Range { kvs, more, count } = answer else { return true };
        if range.revision > 0 {
            return true;
        }
        let same = |pair: &KeyValue| {
            state
                .get(&pair.key)
                .is_some_and(|(value, version)| *version == pair.version && (range.keys_only || *value == pair.value))
        };
        let ours = kvs.iter().filter(|pair| self.keys.contains(&pair.key));
        if !ours.clone().all(same) {
            return false;
        }
        let span = Span::new(&range.key, &range.range_end);
        let there = state.count(&span);
        let is_all_ours = self.is_all_ours(&span, kvs);
        if is_all_ours && there as i64 != *count {
            return false;
        }
        // Of an answer that is cut or filtered, what it leaves out says nothing.
        let is_complete = !more && !range.count_only && kvs.len() as i64 == *count;
        !is_complete || there == ours.count()
    }

    /// Whether nothing in `span` belongs to another group.
    fn is_all_ours(&self, span: &Span<'_>, kvs: &[KeyValue]) -> bool {
        matches!(span, Span::Key(_)) || (self.is_whole && kvs.iter().all(|pair| self.keys.contains(&pair.key)))
    }

    fn run_put(&self, state: &mut State, put: &Put, answer: Option<&Response>) -> bool {
        if self.fleeting.contains(&put.key) {
            return true;
        }
        let old = state.get(&put.key).cloned();
        if (put.ignore_value || put.ignore_lease) && old.is_none() {
            // Refused: an unknown one did nothing, an acknowledged one cannot be.
            return answer.is_none();
        }
        let (old_value, old_version) = old.clone().unwrap_or_default();
        let value = if put.ignore_value { old_value } else { put.value.clone() };
        state.set(&put.key, Some((value, old_version + 1)));
        match answer {
            Some(Response::Put { prev_kv }) if put.prev_kv => {
                prev_kv.as_ref().map(|pair| (pair.value.clone(), pair.version)) == old
            }
            _ => true,
        }
    }

    fn run_delete(&self, state: &mut State, delete: &DeleteRange, answer: Option<&Response>) -> bool {
        let span = Span::new(&delete.key, &delete.range_end);
        let gone = state.keys(&span);
        let is_all_ours = !self.fleeting.meets(&span);
        let prev_kvs: &[KeyValue] = match answer {
            Some(Response::DeleteRange { deleted, prev_kvs }) if !is_all_ours || *deleted == gone.len() as i64 => {
                prev_kvs
            }
            Some(_) => return false,
            None => &[],
        };
        let same = |pair: &KeyValue| state.get(&pair.key).is_some_and(|old| *old == (pair.value.clone(), pair.version));
        if !prev_kvs.iter().filter(|pair| !self.fleeting.contains(&pair.key)).all(same) {
            return false;
        }
        gone.iter().for_each(|key| state.set(key, None));
        true
    }
}
