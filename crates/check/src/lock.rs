//! Property 11: a lock has one holder at a time, tokens rise, and nothing is done under a token that is over.
//!
//! A contender is a key `NAME/…`; its create revision is its token. What answers say of it is that it *was there* at a
//! revision: an acquisition at the revision of its header, a guarded write (a transaction that compared the create
//! revision, and succeeded) just before its own, a read at the one it shows. It was then there from its token up to the
//! last of these. The predicates:
//!
//! * *fresh*: the revision of an acquisition is at least every revision that was known before it was asked for;
//! * *own*: its key belongs to the lock, and the token is a revision at which that key was created;
//! * *first*: no key of the lock with a smaller token was there at the revision of the acquisition, however late that
//!   came to light, and no two keys were granted the same token;
//! * *held*: no contender was there at or after a revision at which it is known to have gone: deleted, released, or
//!   ended with its lease;
//! * *kept*: whoever was granted it does not lose it while its lease must live, unless it was given back ([`tenure`]);
//! * *fenced*: values of a `fence` workload, which are tokens, never fall from one revision to the next.
//!
//! That tokens rise in the order of time, and that holders do not overlap, follows: a grant asked for after another was
//! answered is fresh, so its contender was there when the other was first. An answer may come long after the lock was
//! lost again, and the next holder may have been told before: that is legal, and why there are fences.
//!
//! Invariant: everything rests on answers. What is unknown may have happened or not and proves nothing; when a lease
//! ends is judged by the property of leases, and here only where the history says at which revision. O(n log n).

mod tenure;

use std::collections::BTreeMap;

use crate::changes::Changes;
use crate::fleeting::name_of;
use crate::history::{
    Bytes, Compare, CompareResult, CompareTarget, Event, History, KeyValue, Lock, Op, Operation, Request, Response,
    Revision, Txn, Workload,
};
use crate::replay::timeline::modifies;
use crate::time::floors;
use crate::verdict::{Impossible, Options, Verdict};

/// Judges `history`.
#[must_use]
pub fn check(history: &History, options: &Options) -> Verdict {
    match judge(history, options) {
        Ok(judged) => Verdict::Possible { judged },
        Err(impossible) => impossible.into(),
    }
}

fn judge(history: &History, options: &Options) -> Result<usize, Impossible> {
    let mut locks = Locks::of(history);
    locks.grants_are_fresh(history)?;
    for operation in &history.operations {
        locks.take_in(operation)?;
    }
    let changes = if locks.by_name.is_empty() { Changes::default() } else { Changes::new(history) };
    for (name, lock) in &locks.by_name {
        lock.tokens_are_own(name, &changes)?;
        lock.nobody_is_back(name, &changes)?;
        lock.holders_are_first(name)?;
    }
    tenure::check(history, options)?;
    Ok(locks.judged + values_never_fall(history)?)
}

/// Who stands in a queue: by token, then by key.
type Contender<'a> = (Revision, &'a Bytes);

/// A time of being there.
#[derive(Clone, Copy)]
struct Stay<'a> {
    /// The last revision at which somebody saw it.
    until: Revision,
    /// Who.
    seen_by: &'a Operation,
}

/// One lock: everybody who was seen in its queue, and what was granted.
#[derive(Default)]
struct Queue<'a> {
    stays: BTreeMap<Contender<'a>, Stay<'a>>,
    /// With the revision at which the contender was first.
    grants: Vec<(Contender<'a>, Revision, &'a Operation)>,
    /// Revisions at which a key was surely not there.
    absent: BTreeMap<&'a Bytes, Vec<(Revision, u64)>>,
}

/// All locks that somebody was granted.
#[derive(Default)]
struct Locks<'a> {
    by_name: BTreeMap<&'a [u8], Queue<'a>>,
    judged: usize,
}

/// A grant: the lock, the contender, and the revision at which it was first.
fn grant(operation: &Operation) -> Option<(&Bytes, Contender<'_>, Revision)> {
    match (&operation.request, operation.response(), operation.revision()) {
        (Request::Lock(Lock::Acquire { name, .. }), Some(Response::Lock { key, token }), Some(revision)) => {
            Some((name, (*token, key), revision))
        }
        _ => None,
    }
}

impl<'a> Locks<'a> {
    fn of(history: &'a History) -> Self {
        let mut locks = Self::default();
        for (name, contender, revision, operation) in
            history.operations.iter().filter_map(|one| grant(one).map(|(name, who, at)| (name, who, at, one)))
        {
            locks.by_name.entry(&name[..]).or_default().grants.push((contender, revision, operation));
        }
        locks
    }

    fn grants_are_fresh(&self, history: &History) -> Result<(), Impossible> {
        for (operation, floor) in history.operations.iter().zip(floors(&history.operations)) {
            let (Some((_, _, revision)), Some(floor)) = (grant(operation), floor) else { continue };
            if revision < floor.revision {
                let known = floor.revision;
                let reason = format!("a lock is granted at revision {revision}, and {known} was known before");
                return Err(Impossible::new(reason, [operation.id, history.operations[floor.at].id]));
            }
        }
        Ok(())
    }

    /// Remembers what an answer says of contenders.
    fn take_in(&mut self, operation: &'a Operation) -> Result<(), Impossible> {
        let (Some(response), Some(revision)) = (operation.response(), operation.revision()) else { return Ok(()) };
        match (&operation.request, response) {
            (Request::Lock(Lock::Acquire { name, .. }), Response::Lock { key, token }) => {
                if name_of(key) != Some(&name[..]) || *token <= 0 || *token > revision {
                    let reason = format!("lock {name} is granted as {key} with token {token} at revision {revision}");
                    return Err(Impossible::new(reason, [operation.id]));
                }
                self.judged += 1;
                self.was_there(operation, (*token, key), revision);
            }
            (Request::Lock(Lock::Release { key }), Response::Lock { token, .. }) => {
                self.judged += 1;
                if *token > 0 {
                    self.was_there(operation, (*token, key), revision - 1);
                }
                self.was_absent(operation, key, revision);
            }
            (Request::Watch(_), Response::Watch { batches }) => {
                for event in batches.iter().flat_map(|batch| &batch.events) {
                    match event {
                        Event::Put { kv, .. } => {
                            self.was_there(operation, (kv.create_revision, &kv.key), kv.mod_revision);
                        }
                        Event::Delete { key, mod_revision, .. } => self.was_absent(operation, key, *mod_revision),
                    }
                }
            }
            (Request::Range(range), Response::Range { kvs, .. }) => {
                let at = if range.revision > 0 { range.revision } else { revision };
                self.were_shown(operation, at, kvs);
            }
            (Request::Txn(txn), response) => {
                // What a transaction compares and reads is what was there before its own writes.
                let at = if modifies(operation) { revision - 1 } else { revision };
                self.take_in_txn(operation, at, txn, response);
            }
            _ => {}
        }
        Ok(())
    }

    fn take_in_txn(&mut self, operation: &'a Operation, at: Revision, txn: &'a Txn, response: &'a Response) {
        let Response::Txn { succeeded, responses } = response else { return };
        if *succeeded {
            for (key, token) in txn.compares.iter().filter_map(guard) {
                let is_known = self.was_there(operation, (token, key), at);
                self.judged += usize::from(is_known);
            }
        }
        for (op, response) in if *succeeded { &txn.success } else { &txn.failure }.iter().zip(responses) {
            match (op, response) {
                (Op::Range(range), Response::Range { kvs, .. }) => {
                    let at = if range.revision > 0 { range.revision } else { at };
                    self.were_shown(operation, at, kvs);
                }
                (Op::Txn(nested), response) => self.take_in_txn(operation, at, nested, response),
                _ => {}
            }
        }
    }

    fn were_shown(&mut self, seen_by: &'a Operation, at: Revision, kvs: &'a [KeyValue]) {
        for pair in kvs {
            self.was_there(seen_by, (pair.create_revision, &pair.key), at);
        }
    }

    /// Somebody saw that there is no such contender.
    fn was_absent(&mut self, seen_by: &Operation, key: &'a Bytes, at: Revision) {
        if let Some(queue) = name_of(key).and_then(|name| self.by_name.get_mut(name)) {
            queue.absent.entry(key).or_default().push((at, seen_by.id));
        }
    }

    /// Somebody saw a contender. Whether it is one, of a lock that was ever granted.
    fn was_there(&mut self, seen_by: &'a Operation, contender: Contender<'a>, at: Revision) -> bool {
        let Some(queue) = name_of(contender.1).and_then(|name| self.by_name.get_mut(name)) else { return false };
        let until = at.max(contender.0);
        let stay = queue.stays.entry(contender).or_insert(Stay { until, seen_by });
        if until > stay.until {
            *stay = Stay { until, seen_by };
        }
        true
    }
}

/// What a compare says of a contender when it holds.
fn guard(compare: &Compare) -> Option<(&Bytes, Revision)> {
    match (&compare.target, compare.result) {
        (CompareTarget::Create(token), CompareResult::Equal) if *token > 0 && compare.range_end.is_empty() => {
            Some((&compare.key, *token))
        }
        _ => None,
    }
}

/// What an operation does that shows a contender.
fn deed(operation: &Operation) -> &'static str {
    match &operation.request {
        Request::Lock(Lock::Acquire { .. }) => "is told to hold it",
        Request::Lock(Lock::Release { .. }) => "releases it",
        Request::Txn(txn) if !txn.is_read_only() => "writes under its token",
        _ => "is seen",
    }
}

impl<'a> Queue<'a> {
    /// Every token granted is the revision at which that key was created.
    fn tokens_are_own(&self, name: &[u8], changes: &Changes<'_>) -> Result<(), Impossible> {
        for ((token, key), _, operation) in &self.grants {
            let Some(change) = changes.at(*token) else { continue };
            let creates = match change.keys.get(*key) {
                Some(after) => after.put.is_some() && after.exact.as_ref().is_none_or(|exact| exact.1.is_none()),
                None => !change.is_whole,
            };
            if !creates {
                let reason = format!("lock {}: token {token} is not a revision that created {key}", show(name));
                return Err(Impossible::new(reason, [operation.id, change.writer.id]));
            }
        }
        Ok(())
    }

    /// Nobody was there after it had gone.
    fn nobody_is_back(&self, name: &[u8], changes: &Changes<'_>) -> Result<(), Impossible> {
        for ((token, key), stay) in &self.stays {
            let absent = self.absent.get(key).into_iter().flatten().copied();
            let gone = changes.end(key, *token).into_iter().chain(absent).filter(|(gone, _)| gone > token).min();
            let Some((gone, by)) = gone.filter(|(gone, _)| stay.until >= *gone) else { continue };
            let (deed, until) = (deed(stay.seen_by), stay.until);
            let reason = format!("lock {}: {key} {deed} at revision {until}, and was gone at {gone}", show(name));
            return Err(Impossible::new(reason, [stay.seen_by.id, by]));
        }
        Ok(())
    }

    /// Nobody with a smaller token was there when a contender was first.
    fn holders_are_first(&self, name: &[u8]) -> Result<(), Impossible> {
        // By token: who of all up to there was seen latest.
        let mut latest: BTreeMap<Revision, (&Bytes, Stay<'a>)> = BTreeMap::new();
        let mut last: Option<(&Bytes, Stay<'a>)> = None;
        for ((token, key), stay) in &self.stays {
            if last.is_none_or(|(_, before)| stay.until > before.until) {
                last = Some((key, *stay));
            }
            latest.extend(last.map(|last| (*token, last)));
        }
        let mut granted: BTreeMap<Revision, (&Bytes, u64)> = BTreeMap::new();
        for ((token, key), first_at, operation) in &self.grants {
            let (other, by) = *granted.entry(*token).or_insert((key, operation.id));
            if other != *key {
                let reason = format!("lock {}: token {token} is granted to {other} and to {key}", show(name));
                return Err(Impossible::new(reason, [operation.id, by]));
            }
            let before = latest.range(..token).next_back().map(|(_, before)| *before);
            let Some((before, stay)) = before.filter(|(_, stay)| stay.until >= *first_at) else { continue };
            let (deed, until) = (deed(stay.seen_by), stay.until);
            let reason = format!(
                "lock {}: {key} is first at revision {first_at} with token {token}, and {before}, which was before it, \
                 {deed} at {until}",
                show(name)
            );
            return Err(Impossible::new(reason, [operation.id, stay.seen_by.id]));
        }
        Ok(())
    }
}

fn show(name: &[u8]) -> Bytes {
    Bytes::from(name)
}

/// The values of fence workloads.
struct Fenced<'a> {
    prefixes: Vec<&'a Bytes>,
    /// By key and revision, with who says so.
    values: BTreeMap<(&'a Bytes, Revision), (&'a Bytes, u64)>,
}

/// Whoever writes under a token writes after all that was written under smaller ones. How many values there are.
fn values_never_fall(history: &History) -> Result<usize, Impossible> {
    let prefixes = history.header.workloads.iter().filter_map(|workload| match workload {
        Workload::Fence { prefix } => Some(prefix),
        _ => None,
    });
    let mut fenced = Fenced { prefixes: prefixes.collect(), values: BTreeMap::new() };
    if fenced.prefixes.is_empty() {
        return Ok(0);
    }
    for operation in &history.operations {
        fenced.take_in(operation);
    }
    let mut last: Option<(&Bytes, Revision, u64)> = None;
    for ((key, revision), (value, by)) in &fenced.values {
        let token = std::str::from_utf8(value).ok().and_then(|text| text.parse::<Revision>().ok());
        let token = token.ok_or_else(|| Impossible::new(format!("{key} holds {value}, which is no token"), [*by]))?;
        if let Some((_, before, earlier)) = last.filter(|(other, before, _)| other == key && *before > token) {
            let reason = format!("{key} falls from token {before} to {token} at revision {revision}");
            return Err(Impossible::new(reason, [*by, earlier]));
        }
        last = Some((key, token, *by));
    }
    Ok(fenced.values.len())
}

impl<'a> Fenced<'a> {
    fn take_in(&mut self, operation: &'a Operation) {
        let (Some(response), Some(revision)) = (operation.response(), operation.revision()) else { return };
        match &operation.request {
            Request::Put(put) if !put.ignore_value => self.add(&put.key, revision, &put.value, operation.id),
            Request::Range(range) if !range.keys_only => self.take_in_pairs(response, operation.id),
            Request::Txn(txn) => self.take_in_txn(operation.id, revision, txn, response),
            _ => {}
        }
    }

    fn take_in_txn(&mut self, by: u64, revision: Revision, txn: &'a Txn, response: &'a Response) {
        let Response::Txn { succeeded, responses } = response else { return };
        for (op, response) in if *succeeded { &txn.success } else { &txn.failure }.iter().zip(responses) {
            match op {
                Op::Put(put) if !put.ignore_value => self.add(&put.key, revision, &put.value, by),
                Op::Range(range) if !range.keys_only => self.take_in_pairs(response, by),
                Op::Txn(nested) => self.take_in_txn(by, revision, nested, response),
                Op::Put(_) | Op::Range(_) | Op::DeleteRange(_) => {}
            }
        }
    }

    fn take_in_pairs(&mut self, response: &'a Response, by: u64) {
        let Response::Range { kvs, .. } = response else { return };
        kvs.iter().for_each(|pair| self.add(&pair.key, pair.mod_revision, &pair.value, by));
    }

    fn add(&mut self, key: &'a Bytes, revision: Revision, value: &'a Bytes, by: u64) {
        if self.prefixes.iter().any(|prefix| key.starts_with(prefix)) {
            self.values.entry((key, revision)).or_insert((value, by));
        }
    }
}
