//! The data model, written as naively as it can be: a full copy of the state for every revision, and a list of events
//! for each. No rows, no floor logic beyond one number, nothing shared with the code under test but the types.

use std::collections::{BTreeMap, BTreeSet};

use base::{LeaseId, NodeId, Revision};
use bytes::Bytes;
use mvcc::{
    Change, Command, CompactResult, Compare, CompareResult, CompareTarget, DeleteResult, Event, EventKind, KeyValue,
    Lease, LeaseChange, LeaseGrantResult, Limits, MemberChange, MemberRecord, MemberStep, Op, OpOutcome, OpResult,
    Outcome, OutcomeResult, Put, PutResult, RangeRequest, RangeResponse, RangeResult, Reject, SortOrder, SortTarget,
    Txn, TxnResult,
};

type Map = BTreeMap<Bytes, KeyValue>;

#[derive(Debug, Clone)]
pub(crate) struct Model {
    /// States by revision; 0 is never seen by anyone, 1 is the fresh store.
    pub(crate) states: Vec<Map>,
    /// Events by revision.
    pub(crate) log: Vec<Vec<Event>>,
    pub(crate) floor: i64,
    pub(crate) leases: BTreeMap<LeaseId, Lease>,
    /// Leases ever granted.
    pub(crate) grants: u64,
    /// What happened to leases, in order.
    pub(crate) lease_log: Vec<LeaseChange>,
    /// Members out of space.
    pub(crate) full: BTreeSet<NodeId>,
    /// Members written down.
    pub(crate) members: BTreeMap<NodeId, MemberRecord>,
}

/// A command in progress.
struct Step {
    states: Vec<Map>,
    before: Map,
    now: Map,
    revision_before: i64,
    floor: i64,
    leases: BTreeSet<LeaseId>,
    events: Vec<Event>,
}

fn in_span(key: &Bytes, from: &Bytes, end: &Bytes) -> bool {
    if end.is_empty() {
        key == from
    } else if end.as_ref() == b"\0" {
        key >= from
    } else {
        key >= from && key < end
    }
}

impl Model {
    pub(crate) fn new() -> Self {
        Self {
            states: vec![Map::new(), Map::new()],
            log: vec![vec![], vec![]],
            floor: -1,
            leases: BTreeMap::new(),
            grants: 0,
            lease_log: vec![],
            full: BTreeSet::new(),
            members: BTreeMap::new(),
        }
    }

    fn change_member(&mut self, change: &MemberChange) -> Result<OutcomeResult, Reject> {
        let mut after = self.members.clone();
        if after.is_empty() {
            after.extend(change.founders.iter().map(|founder| (founder.id, founder.clone())));
        }
        let changed = match &change.step {
            MemberStep::Add(member) => {
                if after.insert(member.id, member.clone()).is_some() {
                    return Err(Reject::MemberExists);
                }
                member.id
            }
            MemberStep::Update(id, _) | MemberStep::Remove(id) => *id,
        };
        let Some(member) = after.get_mut(&changed) else { return Err(Reject::MemberNotFound) };
        if member.removed && !matches!(change.step, MemberStep::Add(_)) {
            return Err(Reject::MemberNotFound);
        }
        match &change.step {
            MemberStep::Add(_) => {}
            MemberStep::Update(_, urls) => member.peer_urls = urls.clone(),
            MemberStep::Remove(_) => member.removed = true,
        }
        let mine = after[&changed].clone();
        let others = after.values().filter(|other| other.id != changed && !other.removed);
        let taken: BTreeSet<&String> = others.flat_map(|other| &other.peer_urls).collect();
        if !mine.removed && mine.peer_urls.iter().any(|url| taken.contains(url)) {
            return Err(Reject::PeerUrlsExist);
        }
        self.members = after;
        Ok(OutcomeResult::Member)
    }

    pub(crate) fn revision(&self) -> i64 {
        self.states.len() as i64 - 1
    }

    pub(crate) fn latest(&self) -> &Map {
        &self.states[self.states.len() - 1]
    }

    fn step(&self) -> Step {
        Step {
            states: self.states.clone(),
            before: self.latest().clone(),
            now: self.latest().clone(),
            revision_before: self.revision(),
            floor: self.floor,
            leases: self.leases.keys().copied().collect(),
            events: vec![],
        }
    }

    fn done(&mut self, step: Step) {
        if !step.events.is_empty() {
            self.states.push(step.now);
            self.log.push(step.events);
        }
    }

    pub(crate) fn apply(&mut self, command: &Command) -> Outcome {
        let result = match self.try_apply(command) {
            Ok(result) => result,
            Err(reject) => OutcomeResult::Rejected(reject),
        };
        Outcome { revision: Revision(self.revision()), result }
    }

    fn try_apply(&mut self, command: &Command) -> Result<OutcomeResult, Reject> {
        validate(command, usize::MAX)?;
        if !self.full.is_empty() && stores_more(command) {
            return Err(Reject::NoSpace);
        }
        let mut step = self.step();
        let result = match command {
            Command::Put(put) => {
                step.check_put(put)?;
                OutcomeResult::Put(step.put(put))
            }
            Command::DeleteRange(delete) => {
                OutcomeResult::DeleteRange(step.delete(&delete.key, &delete.range_end, delete.prev_kv))
            }
            Command::Txn(txn) => {
                step.check_txn(txn, &mut vec![])?;
                OutcomeResult::Txn(step.run(txn))
            }
            Command::Compact(compact) => {
                let revision = compact.revision.0;
                if revision <= self.floor {
                    return Err(Reject::Compacted);
                }
                if revision > self.revision() {
                    return Err(Reject::FutureRevision);
                }
                self.floor = revision;
                return Ok(OutcomeResult::Compact(CompactResult { compacted: compact.revision }));
            }
            Command::LeaseGrant(grant) => {
                if self.leases.contains_key(&grant.id) {
                    return Err(Reject::LeaseExists);
                }
                self.grants += 1;
                let ttl_s = if grant.ttl_s < 1 { 1 } else { grant.ttl_s };
                let lease = Lease { id: grant.id, instance: self.grants, ttl_s, remaining_s: 0 };
                self.leases.insert(grant.id, lease);
                self.lease_log.push(LeaseChange::Granted(lease));
                return Ok(OutcomeResult::LeaseGrant(LeaseGrantResult { id: grant.id, ttl_s }));
            }
            Command::LeaseRevoke(revoke) => {
                if !self.leases.contains_key(&revoke.id) {
                    return Err(Reject::LeaseNotFound);
                }
                self.end_lease(revoke.id);
                return Ok(OutcomeResult::LeaseRevoke);
            }
            Command::LeaseExpire(expire) => {
                let mut expired = 0;
                for lease in &expire.leases {
                    if self.leases.get(&lease.id).is_some_and(|found| found.instance == lease.instance) {
                        self.end_lease(lease.id);
                        expired += 1;
                    }
                }
                return Ok(OutcomeResult::LeaseExpire(expired));
            }
            Command::LeaseCheckpoint(checkpoint) => {
                let mut written = 0;
                for (lease, remaining_s) in &checkpoint.leases {
                    let Some(found) = self.leases.get_mut(&lease.id) else { continue };
                    if found.instance != lease.instance {
                        continue;
                    }
                    found.remaining_s = if *remaining_s < 0 { 0 } else { found.ttl_s.min(*remaining_s) };
                    let change = LeaseChange::Checkpointed { id: lease.id, remaining_s: found.remaining_s };
                    self.lease_log.push(change);
                    written += 1;
                }
                return Ok(OutcomeResult::LeaseCheckpoint(written));
            }
            Command::Alarm(change) => {
                let changed = match change.raise {
                    true => self.full.insert(change.alarm.member),
                    false => self.full.remove(&change.alarm.member),
                };
                return Ok(OutcomeResult::Alarm(changed));
            }
            Command::Member(change) => return self.change_member(change),
        };
        self.done(step);
        Ok(result)
    }

    fn end_lease(&mut self, id: LeaseId) {
        let mut step = self.step();
        for key in self.attached(id) {
            step.delete(&key, &Bytes::new(), false);
        }
        self.done(step);
        self.leases.remove(&id);
        self.lease_log.push(LeaseChange::Gone(id));
    }

    /// The keys that name the lease.
    pub(crate) fn attached(&self, id: LeaseId) -> Vec<Bytes> {
        self.latest().values().filter(|kv| kv.lease == id).map(|kv| kv.key.clone()).collect()
    }

    pub(crate) fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Reject> {
        validate_range(request)?;
        let wanted = request.revision.0;
        if wanted > self.revision() {
            return Err(Reject::FutureRevision);
        }
        let revision = if wanted <= 0 { self.revision() } else { wanted };
        if revision < self.floor {
            return Err(Reject::Compacted);
        }
        let result = select(&self.states[revision as usize], request);
        Ok(RangeResponse { revision: Revision(self.revision()), result })
    }

    pub(crate) fn read_txn(&self, txn: &Txn) -> Outcome {
        let before = self.revision();
        let outcome = self.clone().apply(&Command::Txn(txn.clone()));
        assert_eq!(outcome.revision.0, before);
        outcome
    }

    pub(crate) fn events(&self, from: i64, key: &Bytes, end: &Bytes, want_prev: bool) -> Result<Vec<Change>, Reject> {
        if from < self.floor {
            return Err(Reject::Compacted);
        }
        let mut changes = vec![];
        for revision in from.max(0)..=self.revision() {
            let mut events = vec![];
            for event in &self.log[revision as usize] {
                let mut event = event.clone();
                if !want_prev || revision - 1 < self.floor {
                    event.prev_kv = None;
                }
                if in_span(&event.kv.key, key, end) {
                    events.push(event);
                }
            }
            if !events.is_empty() {
                changes.push(Change { revision: Revision(revision), events });
            }
        }
        Ok(changes)
    }

    /// Pairs that were replaced or deleted after the floor: what must still be stored besides the latest state.
    pub(crate) fn superseded_above_floor(&self) -> usize {
        let mut count = 0;
        for revision in (self.floor.max(0) + 1)..=self.revision() {
            let changed: BTreeSet<_> = self.log[revision as usize].iter().map(|event| event.kv.key.clone()).collect();
            count += changed.iter().filter(|key| self.states[revision as usize - 1].contains_key(*key)).count();
        }
        count
    }

    pub(crate) fn events_from_floor(&self) -> usize {
        (self.floor.max(0)..=self.revision()).map(|revision| self.log[revision as usize].len()).sum()
    }
}

impl Step {
    fn revision_now(&self) -> i64 {
        self.revision_before + i64::from(!self.events.is_empty())
    }

    fn check_put(&self, put: &Put) -> Result<(), Reject> {
        if put.lease != LeaseId(0) && !self.leases.contains(&put.lease) {
            return Err(Reject::LeaseNotFound);
        }
        if (put.ignore_lease || put.ignore_value) && !self.before.contains_key(&put.key) {
            return Err(Reject::KeyNotFound);
        }
        Ok(())
    }

    fn chosen<'t>(&self, txn: &'t Txn) -> (bool, &'t [Op]) {
        if txn.compares.iter().all(|compare| holds(&self.before, compare)) {
            (true, &txn.success)
        } else {
            (false, &txn.failure)
        }
    }

    fn check_txn(&self, txn: &Txn, deleted: &mut Vec<(Bytes, Bytes)>) -> Result<(), Reject> {
        for op in self.chosen(txn).1 {
            match op {
                Op::Range(range) => {
                    let revision = range.revision.0;
                    if revision > self.revision_before {
                        return Err(Reject::FutureRevision);
                    }
                    if revision != 0 && revision < self.floor {
                        return Err(Reject::Compacted);
                    }
                }
                Op::Put(put) => {
                    self.check_put(put)?;
                    if (put.ignore_lease || put.ignore_value)
                        && deleted.iter().any(|(from, end)| in_span(&put.key, from, end))
                    {
                        return Err(Reject::KeyNotFound);
                    }
                }
                Op::DeleteRange(delete) => deleted.push((delete.key.clone(), delete.range_end.clone())),
                Op::Txn(nested) => self.check_txn(nested, deleted)?,
                Op::Empty => unreachable!(),
            }
        }
        Ok(())
    }

    fn put(&mut self, put: &Put) -> PutResult {
        let revision = Revision(self.revision_before + 1);
        let old = self.now.get(&put.key).cloned();
        let mut new = KeyValue {
            key: put.key.clone(),
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            lease: put.lease,
            value: put.value.clone(),
        };
        if let Some(old) = &old {
            new.create_revision = old.create_revision;
            new.version = old.version + 1;
            if put.ignore_value {
                new.value = old.value.clone();
            }
            if put.ignore_lease {
                new.lease = old.lease;
            }
        }
        self.now.insert(put.key.clone(), new.clone());
        let prev_kv = if old.is_some() { self.before.get(&put.key).cloned() } else { None };
        self.events.push(Event { kind: EventKind::Put, kv: new, prev_kv });
        PutResult { prev_kv: old.filter(|_| put.prev_kv) }
    }

    fn delete(&mut self, from: &Bytes, end: &Bytes, want_prev: bool) -> DeleteResult {
        let doomed: Vec<KeyValue> = self.now.values().filter(|kv| in_span(&kv.key, from, end)).cloned().collect();
        for kv in &doomed {
            self.now.remove(&kv.key);
            self.events.push(Event {
                kind: EventKind::Delete,
                kv: KeyValue {
                    key: kv.key.clone(),
                    mod_revision: Revision(self.revision_before + 1),
                    ..KeyValue::default()
                },
                prev_kv: self.before.get(&kv.key).cloned(),
            });
        }
        DeleteResult { deleted: doomed.len() as i64, prev_kvs: if want_prev { doomed } else { vec![] } }
    }

    fn run(&mut self, txn: &Txn) -> TxnResult {
        let (succeeded, ops) = self.chosen(txn);
        let mut responses = vec![];
        for op in ops {
            let result = match op {
                Op::Range(range) => {
                    let state = if range.revision.0 > 0 { &self.states[range.revision.0 as usize] } else { &self.now };
                    OpResult::Range(select(state, range))
                }
                Op::Put(put) => OpResult::Put(self.put(put)),
                Op::DeleteRange(delete) => {
                    OpResult::DeleteRange(self.delete(&delete.key, &delete.range_end, delete.prev_kv))
                }
                Op::Txn(nested) => {
                    let result = OpResult::Txn(self.run(nested));
                    responses.push(OpOutcome { revision: Revision(0), result });
                    continue;
                }
                Op::Empty => unreachable!(),
            };
            responses.push(OpOutcome { revision: Revision(self.revision_now()), result });
        }
        TxnResult { succeeded, responses }
    }
}

fn holds(state: &Map, compare: &Compare) -> bool {
    let one = |kv: &KeyValue| {
        let order = match &compare.target {
            CompareTarget::Version(x) => kv.version.cmp(x),
            CompareTarget::CreateRevision(x) => kv.create_revision.0.cmp(&x.0),
            CompareTarget::ModRevision(x) => kv.mod_revision.0.cmp(&x.0),
            CompareTarget::Value(x) => kv.value.cmp(x),
            CompareTarget::Lease(x) => kv.lease.0.cmp(&x.0),
        };
        match compare.result {
            CompareResult::Equal => order.is_eq(),
            CompareResult::Greater => order.is_gt(),
            CompareResult::Less => order.is_lt(),
            CompareResult::NotEqual => order.is_ne(),
        }
    };
    let hits: Vec<_> = state.values().filter(|kv| in_span(&kv.key, &compare.key, &compare.range_end)).collect();
    if hits.is_empty() {
        return !matches!(compare.target, CompareTarget::Value(_)) && one(&KeyValue::default());
    }
    hits.into_iter().all(one)
}

fn select(state: &Map, request: &RangeRequest) -> RangeResult {
    let all: Vec<KeyValue> =
        state.values().filter(|kv| in_span(&kv.key, &request.key, &request.range_end)).cloned().collect();
    let count = all.len() as i64;
    if request.count_only {
        return RangeResult { kvs: vec![], more: false, count };
    }
    let filters =
        [request.min_mod_revision, request.max_mod_revision, request.min_create_revision, request.max_create_revision];
    let filtered = filters.iter().any(|filter| filter.0 != 0);
    let mut kvs = all;
    kvs.retain(|kv| request.min_mod_revision.0 == 0 || kv.mod_revision >= request.min_mod_revision);
    kvs.retain(|kv| request.max_mod_revision.0 == 0 || kv.mod_revision <= request.max_mod_revision);
    kvs.retain(|kv| request.min_create_revision.0 == 0 || kv.create_revision >= request.min_create_revision);
    kvs.retain(|kv| request.max_create_revision.0 == 0 || kv.create_revision <= request.max_create_revision);
    if request.sort_order == SortOrder::None && !filtered && request.limit > 0 {
        kvs.truncate(request.limit as usize + 1);
    }
    match request.sort_target {
        SortTarget::Key => {}
        SortTarget::Version => kvs.sort_by_key(|kv| kv.version),
        SortTarget::Create => kvs.sort_by_key(|kv| kv.create_revision),
        SortTarget::Mod => kvs.sort_by_key(|kv| kv.mod_revision),
        SortTarget::Value => kvs.sort_by_key(|kv| kv.value.clone()),
        SortTarget::Unknown => unreachable!(),
    }
    if request.sort_order == SortOrder::Descend {
        // Reversed, but ties stay in key order.
        match request.sort_target {
            SortTarget::Key => kvs.reverse(),
            SortTarget::Version => kvs.sort_by_key(|kv| -kv.version),
            SortTarget::Create => kvs.sort_by_key(|kv| -kv.create_revision.0),
            SortTarget::Mod => kvs.sort_by_key(|kv| -kv.mod_revision.0),
            SortTarget::Value => kvs.sort_by_key(|kv| std::cmp::Reverse(kv.value.clone())),
            SortTarget::Unknown => unreachable!(),
        }
    }
    let mut more = false;
    if request.limit > 0 && kvs.len() > request.limit as usize {
        kvs.truncate(request.limit as usize);
        more = true;
    }
    if request.keys_only {
        for kv in &mut kvs {
            kv.value = Bytes::new();
            if request.sort_target != SortTarget::Value {
                kv.lease = LeaseId(0);
            }
        }
    }
    RangeResult { kvs, more, count }
}

/// What a member out of space takes no more.
fn stores_more(command: &Command) -> bool {
    fn puts(ops: &[Op]) -> bool {
        ops.iter().any(|op| match op {
            Op::Put(_) => true,
            Op::Txn(txn) => puts(&txn.success) || puts(&txn.failure),
            _ => false,
        })
    }
    match command {
        Command::Put(_) | Command::LeaseGrant(_) => true,
        Command::Txn(txn) => puts(&txn.success) || puts(&txn.failure),
        _ => false,
    }
}

/// The refusals that need no state, in etcd's order.
pub(crate) fn validate(command: &Command, ops_max: usize) -> Result<(), Reject> {
    match command {
        Command::Put(put) => validate_put(put),
        Command::DeleteRange(delete) => {
            validate_key(&delete.key)?;
            validate_end(&delete.range_end)
        }
        Command::Txn(txn) => {
            validate_txn(txn, ops_max)?;
            intervals(&txn.success)?;
            intervals(&txn.failure)?;
            Ok(())
        }
        Command::LeaseGrant(grant) if grant.id.0 == 0 => Err(Reject::LeaseNotFound),
        Command::LeaseGrant(grant) if grant.ttl_s > 9_000_000_000 => Err(Reject::LeaseTtlTooLarge),
        Command::Compact(_)
        | Command::LeaseGrant(_)
        | Command::LeaseRevoke(_)
        | Command::LeaseExpire(_)
        | Command::LeaseCheckpoint(_)
        | Command::Alarm(_)
        | Command::Member(_) => Ok(()),
    }
}

fn validate_key(key: &Bytes) -> Result<(), Reject> {
    if key.is_empty() { Err(Reject::EmptyKey) } else { validate_end(key) }
}

fn validate_end(end: &Bytes) -> Result<(), Reject> {
    if end.len() > 32_000 { Err(Reject::KeyTooLong) } else { Ok(()) }
}

fn validate_put(put: &Put) -> Result<(), Reject> {
    validate_key(&put.key)?;
    if put.ignore_value && !put.value.is_empty() {
        Err(Reject::ValueProvided)
    } else if put.ignore_lease && put.lease.0 != 0 {
        Err(Reject::LeaseProvided)
    } else {
        Ok(())
    }
}

fn validate_range(range: &RangeRequest) -> Result<(), Reject> {
    validate_key(&range.key)?;
    validate_end(&range.range_end)?;
    if range.sort_order == SortOrder::Unknown || range.sort_target == SortTarget::Unknown {
        Err(Reject::InvalidSortOption)
    } else {
        Ok(())
    }
}

fn validate_txn(txn: &Txn, ops_max: usize) -> Result<(), Reject> {
    let width = [txn.compares.len(), txn.success.len(), txn.failure.len()].into_iter().max().unwrap();
    if width > ops_max {
        return Err(Reject::TooManyOperations);
    }
    for compare in &txn.compares {
        validate_key(&compare.key)?;
        validate_end(&compare.range_end)?;
    }
    for op in txn.success.iter().chain(&txn.failure) {
        match op {
            Op::Range(range) => validate_range(range)?,
            Op::Put(put) => validate_put(put)?,
            Op::DeleteRange(delete) => validate(&Command::DeleteRange(delete.clone()), 0)?,
            Op::Txn(nested) => validate_txn(nested, ops_max - width)?,
            Op::Empty => return Err(Reject::KeyNotFound),
        }
    }
    Ok(())
}

type Writes = (BTreeSet<Bytes>, Vec<(Bytes, Bytes)>);

/// etcd's interval check, with its order of evaluation: deletes of this level, then nested transactions one after the
/// other, then puts of this level.
fn intervals(ops: &[Op]) -> Result<Writes, Reject> {
    let hit = |dels: &[(Bytes, Bytes)], key: &Bytes| {
        dels.iter().any(|(from, end)| if end.is_empty() { from == key } else { from <= key && key < end })
    };
    let mut dels: Vec<(Bytes, Bytes)> = ops
        .iter()
        .filter_map(|op| match op {
            Op::DeleteRange(delete) => Some((delete.key.clone(), delete.range_end.clone())),
            _ => None,
        })
        .collect();
    let mut puts = BTreeSet::new();
    for op in ops {
        if let Op::Txn(nested) = op {
            let (then_puts, then_dels) = intervals(&nested.success)?;
            let (else_puts, else_dels) = intervals(&nested.failure)?;
            for key in &then_puts {
                if hit(&dels, key) || !puts.insert(key.clone()) {
                    return Err(Reject::DuplicateKey);
                }
            }
            for key in &else_puts {
                if hit(&dels, key) || (!puts.insert(key.clone()) && !then_puts.contains(key)) {
                    return Err(Reject::DuplicateKey);
                }
            }
            dels.extend(then_dels);
            dels.extend(else_dels);
        }
    }
    for op in ops {
        if let Op::Put(put) = op
            && (hit(&dels, &put.key) || !puts.insert(put.key.clone()))
        {
            return Err(Reject::DuplicateKey);
        }
    }
    Ok((puts, dels))
}

/// The limits as the code under test takes them.
pub(crate) fn limits(ops_max: usize) -> Limits {
    Limits { txn_ops_max: ops_max }
}
