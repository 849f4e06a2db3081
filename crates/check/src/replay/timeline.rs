//! The answers of a history in the order of revisions, and what they say about single revisions.
//!
//! Invariant: each answer stands where a correct store gave it: a write at its revision, a read of the latest at the
//! revision of its header, a read of the past at the revision it names. Facts (a pair somebody saw) stand at the
//! revisions that the pair names.

use std::collections::BTreeMap;

use crate::history::{
    Bytes, Compare, CompareResult, CompareTarget, History, KeyValue, Op, Operation, Range, Request, Response, Revision,
    Txn,
};
use crate::verdict::Impossible;

/// What is judged at a place of the timeline.
#[derive(Debug, Clone, Copy)]
pub(super) enum Event<'a> {
    /// An acknowledged write. Positions are those in the history.
    Write(usize),
    /// A write whose acknowledgement nobody got: somebody saw what it wrote.
    Seen,
    /// Leases that ended, with keys or without.
    Ended(usize),
    /// An answer that changed nothing.
    Answer(usize),
    /// A read of the past, on its own or in a transaction.
    Past(usize, &'a Range, &'a Response),
}

/// A place of the timeline.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item<'a> {
    pub(super) revision: Revision,
    pub(super) event: Event<'a>,
}

/// What somebody saw of the write of a key at a revision; what was not seen is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fact<'a> {
    pub(super) key: &'a Bytes,
    pub(super) create_revision: Option<Revision>,
    pub(super) version: Option<i64>,
    /// Value and lease.
    pub(super) content: Option<(&'a Bytes, i64)>,
    /// Who saw it.
    pub(super) by: usize,
}

fn agree<T: PartialEq>(one: Option<T>, two: Option<T>) -> bool {
    one.is_none() || two.is_none() || one == two
}

impl<'a> Fact<'a> {
    fn agrees(&self, other: &Self) -> bool {
        self.key == other.key
            && agree(self.create_revision, other.create_revision)
            && agree(self.version, other.version)
            && agree(self.content, other.content)
    }

    fn add(&mut self, other: &Self) {
        if self.content.is_none() && other.content.is_some() {
            self.by = other.by;
        }
        self.create_revision = self.create_revision.or(other.create_revision);
        self.version = self.version.or(other.version);
        self.content = self.content.or(other.content);
    }

    /// What was seen, in words.
    pub(super) fn describe(&self, revision: Revision) -> String {
        let value = self.content.map_or(String::new(), |(value, _)| format!(" = {value}"));
        let create = self.create_revision.map_or(String::new(), |create| format!(", create {create}"));
        let version = self.version.map_or(String::new(), |version| format!(", version {version}"));
        format!("{}{value} was seen with mod {revision}{create}{version}", self.key)
    }
}

/// All answers and facts in order.
#[derive(Debug, Default)]
pub(super) struct Timeline<'a> {
    pub(super) items: Vec<Item<'a>>,
    pub(super) facts: BTreeMap<Revision, Vec<Fact<'a>>>,
    /// Acknowledged writes by revision.
    pub(super) writers: BTreeMap<Revision, usize>,
    /// The greatest revision anywhere.
    pub(super) revision_max: Revision,
}

impl<'a> Timeline<'a> {
    pub(super) fn new(history: &'a History) -> Result<Self, Impossible> {
        let mut timeline = Self { revision_max: history.header.start_revision, ..Self::default() };
        for (at, operation) in history.operations.iter().enumerate() {
            timeline.add(history, at, operation)?;
        }
        timeline.check_facts(history)?;
        timeline.add_ends();
        let seen = timeline.facts.keys().filter(|revision| !timeline.writers.contains_key(revision));
        let seen: Vec<Item<'_>> = seen.map(|revision| Item { revision: *revision, event: Event::Seen }).collect();
        timeline.items.extend(seen);
        timeline.items.sort_by_key(|item| (item.revision, item.event.rank()));
        Ok(timeline)
    }

    fn add(&mut self, history: &'a History, at: usize, operation: &'a Operation) -> Result<(), Impossible> {
        let (Some(revision), Some(response)) = (operation.revision(), operation.response()) else { return Ok(()) };
        self.revision_max = self.revision_max.max(revision);
        let event = match &operation.request {
            Request::Lease(lease) if !lease.ended().is_empty() => Event::Ended(at),
            Request::Watch(_) | Request::Lease(_) | Request::Lock(_) | Request::Compact(_) => return Ok(()),
            Request::Range(range) => {
                self.add_range(at, range, response);
                if range.revision > 0 {
                    return Ok(());
                }
                Event::Answer(at)
            }
            Request::Put(_) | Request::DeleteRange(_) => {
                self.add_previous(at, response);
                if modifies(operation) { Event::Write(at) } else { Event::Answer(at) }
            }
            Request::Txn(txn) => {
                self.add_txn(at, txn, response);
                if modifies(operation) { Event::Write(at) } else { Event::Answer(at) }
            }
        };
        self.items.push(Item { revision, event });
        if let Event::Write(_) = event {
            if revision <= history.header.start_revision {
                let start = history.header.start_revision;
                let reason = format!("a write has revision {revision}, but the history starts after revision {start}");
                return Err(Impossible::new(reason, [operation.id]));
            }
            if let Some(other) = self.writers.insert(revision, at) {
                let reason = format!("two writes have revision {revision}");
                return Err(Impossible::new(reason, [operation.id, history.operations[other].id]));
            }
        }
        Ok(())
    }

    fn add_txn(&mut self, at: usize, txn: &'a Txn, response: &'a Response) {
        let Response::Txn { succeeded, responses } = response else { return };
        if *succeeded {
            txn.compares.iter().for_each(|compare| self.add_compare(at, compare));
        }
        let ops = if *succeeded { &txn.success } else { &txn.failure };
        for (op, response) in ops.iter().zip(responses) {
            match op {
                Op::Range(range) => self.add_range(at, range, response),
                Op::Txn(nested) => self.add_txn(at, nested, response),
                Op::Put(_) | Op::DeleteRange(_) => self.add_previous(at, response),
            }
        }
    }

    fn add_range(&mut self, at: usize, range: &'a Range, response: &'a Response) {
        let Response::Range { kvs, .. } = response else { return };
        if range.revision > 0 {
            self.items.push(Item { revision: range.revision, event: Event::Past(at, range, response) });
        }
        kvs.iter().for_each(|pair| self.add_pair(at, pair, !range.keys_only));
    }

    fn add_previous(&mut self, at: usize, response: &'a Response) {
        match response {
            Response::Put { prev_kv: Some(pair) } => self.add_pair(at, pair, true),
            Response::DeleteRange { prev_kvs, .. } => prev_kvs.iter().for_each(|pair| self.add_pair(at, pair, true)),
            _ => {}
        }
    }

    /// A pair tells of the write that made it, and of the one that created the key.
    fn add_pair(&mut self, at: usize, pair: &'a KeyValue, has_value: bool) {
        let KeyValue { key, value, create_revision, mod_revision, version, lease } = pair;
        let content = has_value.then_some((value, *lease));
        let created = Some(*create_revision);
        self.add_fact(*mod_revision, Fact { key, create_revision: created, version: Some(*version), content, by: at });
        if create_revision != mod_revision {
            self.add_created(at, key, *create_revision);
        }
    }

    fn add_created(&mut self, at: usize, key: &'a Bytes, revision: Revision) {
        let fact = Fact { key, create_revision: Some(revision), version: Some(1), content: None, by: at };
        self.add_fact(revision, fact);
    }

    /// A compare that held tells of a write too.
    fn add_compare(&mut self, at: usize, compare: &'a Compare) {
        let Compare { key, range_end, result, target } = compare;
        if !range_end.is_empty() || *result != CompareResult::Equal {
            return;
        }
        match target {
            CompareTarget::Mod(revision) if *revision > 0 => {
                self.add_fact(*revision, Fact { key, create_revision: None, version: None, content: None, by: at });
            }
            CompareTarget::Create(revision) if *revision > 0 => self.add_created(at, key, *revision),
            _ => {}
        }
    }

    /// Facts about one write are kept once, the fullest; those that contradict it stay beside it, to be found.
    fn add_fact(&mut self, revision: Revision, fact: Fact<'a>) {
        self.revision_max = self.revision_max.max(revision);
        let facts = self.facts.entry(revision).or_default();
        match facts.iter_mut().find(|known| known.agrees(&fact)) {
            Some(known) => known.add(&fact),
            None => facts.push(fact),
        }
    }

    /// The answer to the end of a lease does not say whether there were keys. If nobody else has made its revision, it
    /// has.
    fn add_ends(&mut self) {
        for item in &self.items {
            if let Event::Ended(at) = item.event
                && !self.facts.contains_key(&item.revision)
            {
                self.writers.entry(item.revision).or_insert(at);
            }
        }
    }

    fn check_facts(&self, history: &History) -> Result<(), Impossible> {
        for (revision, facts) in &self.facts {
            for (at, fact) in facts.iter().enumerate() {
                let seen_by = history.operations[fact.by].id;
                if *revision <= history.header.start_revision {
                    let start = history.header.start_revision;
                    let reason = format!(
                        "{} was written at revision {revision}, but the history starts after revision {start}",
                        fact.key
                    );
                    return Err(Impossible::new(reason, [seen_by]));
                }
                if fact.version.is_some_and(|version| version < 1) || fact.create_revision > Some(*revision) {
                    let reason = format!("{} has an impossible version or create revision", fact.key);
                    return Err(Impossible::new(reason, [seen_by]));
                }
                if let Some(other) = facts[..at].iter().find(|other| other.key == fact.key) {
                    let reason = format!("two answers disagree on what revision {revision} wrote to {}", fact.key);
                    return Err(Impossible::new(reason, [seen_by, history.operations[other.by].id]));
                }
            }
        }
        Ok(())
    }
}

impl Event<'_> {
    /// The order of what has one revision. Leases without keys end after the write whose revision they show.
    const fn rank(&self) -> u8 {
        match self {
            Self::Write(_) | Self::Seen => 0,
            Self::Ended(_) => 1,
            Self::Answer(_) | Self::Past(..) => 2,
        }
    }
}

/// Whether an acknowledged operation says that it changed something.
pub(crate) fn modifies(operation: &Operation) -> bool {
    operation.response().is_some_and(response_modifies)
}

fn response_modifies(response: &Response) -> bool {
    match response {
        Response::Put { .. } => true,
        Response::DeleteRange { deleted, .. } => *deleted > 0,
        Response::Txn { responses, .. } => responses.iter().any(response_modifies),
        Response::Range { .. }
        | Response::Compact {}
        | Response::Watch { .. }
        | Response::Lease { .. }
        | Response::Lock { .. } => false,
    }
}
