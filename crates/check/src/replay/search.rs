//! The replay itself, and the search for which writes of unknown outcome happened, and when.
//!
//! Invariant: an unknown write is put in only where an answer or fact cannot be explained without it: at the revision
//! where it was seen, or "somewhere between" two answers that would notice it. Where several could explain it, all are
//! tried in turn; the search goes back to the choice.

use std::collections::{BTreeMap, BTreeSet};

use super::slots::Job;
use super::timeline::{Event, Fact, Item, Timeline, modifies};
use crate::history::{Bytes, CompareTarget, History, Op, Operation, Put, Range, Request, Response, Revision, Txn};
use crate::span::Span;
use crate::store::Store;
use crate::time::Floor;
use crate::verdict::{Impossible, Options, Verdict};

/// What was decided about an unknown write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// It happened before this item, at some revision of the job.
    Insert { before: usize, unknown: usize, job: Job },
    /// It is the write that was seen at this item.
    Make { item: usize, unknown: usize },
}

/// A place to which the search can go back.
struct Choice {
    at: usize,
    decisions: usize,
    rest: Vec<Vec<Decision>>,
}

/// A write of unknown outcome.
pub(super) struct Unknown<'a> {
    pub(super) operation: &'a Operation,
    pub(super) spans: Vec<Span<'a>>,
    pub(super) floor: Revision,
    /// Whether it must be the write at a revision, because nothing else can have written there.
    pub(super) is_reserved: bool,
    /// Whether a decision has used it.
    pub(super) is_placed: bool,
}

/// The state of the replay.
pub(super) struct Search<'a> {
    pub(super) history: &'a History,
    pub(super) timeline: &'a Timeline<'a>,
    pub(super) options: &'a Options,
    /// Whether all ways are kept, also when one was found.
    pub(super) is_thorough: bool,
    pub(super) unknowns: Vec<Unknown<'a>>,
    /// Who can have made the writes that were seen.
    pub(super) candidates: BTreeMap<Revision, Vec<usize>>,
    pub(super) store: Store,
    /// The store's mark before each item that has been carried out.
    pub(super) marks: Vec<usize>,
    /// Unknown writes that are carried out before an item.
    pub(super) inserted: BTreeMap<usize, Vec<(usize, Revision)>>,
    /// Revisions of keys that unknown writes ask for: what stands there may be another unknown write.
    pub(super) asked: BTreeMap<&'a Bytes, BTreeSet<Revision>>,
    /// Who made the writes that were seen.
    pub(super) made: BTreeMap<Revision, usize>,
    pub(super) decisions: Vec<Decision>,
    choices: Vec<Choice>,
    pub(super) steps: u64,
    pub(super) is_incomplete: bool,
    pub(super) deepest: Option<(usize, Impossible)>,
}

impl<'a> Search<'a> {
    pub(super) fn new(
        history: &'a History,
        timeline: &'a Timeline<'a>,
        floors: &[Option<Floor>],
        options: &'a Options,
        is_thorough: bool,
    ) -> Result<Self, Impossible> {
        let unknown = |(operation, floor): (&'a Operation, &Option<Floor>)| {
            let floor = floor.map_or(history.header.start_revision, |floor| floor.revision);
            let is_unknown_write = operation.is_unknown() && operation.request.may_write();
            let spans = operation.request.spans();
            is_unknown_write.then_some(Unknown { operation, spans, floor, is_reserved: false, is_placed: false })
        };
        let unknowns = history.operations.iter().zip(floors).filter_map(unknown).collect();
        let mut search = Self {
            history,
            timeline,
            options,
            is_thorough,
            unknowns,
            candidates: BTreeMap::new(),
            store: Store::default(),
            marks: Vec::new(),
            inserted: BTreeMap::new(),
            asked: BTreeMap::new(),
            made: BTreeMap::new(),
            decisions: Vec::new(),
            choices: Vec::new(),
            steps: 0,
            is_incomplete: false,
            deepest: None,
        };
        for unknown in &search.unknowns {
            if let Request::Txn(txn) = &unknown.operation.request {
                add_asked(txn, &mut search.asked);
            }
        }
        search.find_candidates()?;
        search.reserve()?;
        Ok(search)
    }

    /// Who can have made the writes that were seen but not acknowledged.
    fn find_candidates(&mut self) -> Result<(), Impossible> {
        let seen = self.timeline.items.iter().filter(|item| matches!(item.event, Event::Seen));
        for item in seen {
            let facts = &self.timeline.facts[&item.revision];
            let can_be = |unknown: &Unknown<'_>| {
                unknown.floor < item.revision && facts.iter().all(|fact| may_put(&unknown.operation.request, fact))
            };
            let fitting: Vec<usize> = (0..self.unknowns.len()).filter(|at| can_be(&self.unknowns[*at])).collect();
            if fitting.is_empty() {
                return Err(self.nobody_wrote(item.revision, &facts[0]));
            }
            self.candidates.insert(item.revision, fitting);
        }
        Ok(())
    }

    /// A write that is the only explanation of one revision is no explanation of anything else.
    fn reserve(&mut self) -> Result<(), Impossible> {
        loop {
            let lone = self.candidates.iter().find_map(|(revision, fitting)| match fitting[..] {
                [only] if !self.unknowns[only].is_reserved => Some((*revision, only)),
                _ => None,
            });
            let Some((revision, only)) = lone else { return Ok(()) };
            self.unknowns[only].is_reserved = true;
            self.made.insert(revision, only);
            for (other, fitting) in &mut self.candidates {
                if *other != revision {
                    fitting.retain(|unknown| *unknown != only);
                }
                if fitting.is_empty() {
                    let reason = format!("one write was seen at two revisions, {revision} and {other}");
                    let facts = [&self.timeline.facts[&revision][0], &self.timeline.facts[other][0]];
                    let seen_by = facts.map(|fact| self.history.operations[fact.by].id);
                    let writer = self.unknowns[only].operation.id;
                    return Err(Impossible::new(reason, std::iter::once(writer).chain(seen_by)));
                }
            }
        }
    }

    /// Replays everything.
    pub(super) fn run(mut self, is_dense: bool) -> Verdict {
        let count = self.timeline.items.len();
        loop {
            let at = self.marks.len();
            if self.steps > self.options.search_steps_max {
                let why = format!("more than {} steps to explain unknown outcomes", self.options.search_steps_max);
                return Verdict::Undecided { why };
            }
            let problem = if at < count { self.carry_out() } else { self.check_slots(is_dense) };
            let problem = match problem {
                Ok(()) if at == count => return Verdict::Possible { judged: count },
                Ok(()) => continue,
                Err(problem) => problem,
            };
            let explanations = if at < count { self.explanations(at) } else { Vec::new() };
            if explanations.is_empty() && self.deepest.as_ref().is_none_or(|(deepest, _)| at > *deepest) {
                self.deepest = Some((at, problem));
            }
            if !explanations.is_empty() {
                self.choices.push(Choice { at, decisions: self.decisions.len(), rest: explanations });
            }
            if !self.go_on() {
                return self.conclude(is_dense);
            }
        }
    }

    /// Takes the next way of the last choice; `false` when there is none.
    fn go_on(&mut self) -> bool {
        let Some(mut choice) = self.choices.pop() else { return false };
        self.revoke(choice.decisions);
        let next = choice.rest.remove(0);
        let at = choice.at;
        if !choice.rest.is_empty() {
            self.choices.push(choice);
        }
        next.into_iter().for_each(|decision| self.decide(decision));
        let reached = self.carry_out_to(at + 1);
        assert!(reached, "an explanation that held does not hold any more");
        true
    }

    pub(super) fn decide(&mut self, decision: Decision) {
        let (Decision::Insert { unknown, .. } | Decision::Make { unknown, .. }) = decision;
        self.unknowns[unknown].is_placed = true;
        match decision {
            Decision::Insert { before, unknown, job } => {
                self.rewind(before);
                let revision = self.likely_revision(unknown, job);
                self.inserted.entry(before).or_default().push((unknown, revision));
            }
            Decision::Make { item, unknown } => {
                self.rewind(item);
                self.made.insert(self.timeline.items[item].revision, unknown);
            }
        }
        self.decisions.push(decision);
    }

    /// A revision for a write of which only the bounds are known: one that somebody asks for, if there is one.
    fn likely_revision(&self, unknown: usize, job: Job) -> Revision {
        let is_free = |revision: &&Revision| {
            !self.timeline.writers.contains_key(revision) && !self.candidates.contains_key(revision)
        };
        let spans = &self.unknowns[unknown].spans;
        let asked = self.asked.iter().filter(|(key, _)| spans.iter().any(|span| span.contains(key)));
        let inside = asked.flat_map(|(_, revisions)| revisions.range(job.after + 1..=job.until));
        inside.filter(is_free).max().copied().unwrap_or(job.until)
    }

    /// Takes back all decisions but the first `kept`.
    pub(super) fn revoke(&mut self, kept: usize) {
        while self.decisions.len() > kept {
            let decision = self.decisions.pop().expect("there are more than are kept");
            let (Decision::Insert { unknown, .. } | Decision::Make { unknown, .. }) = decision;
            self.unknowns[unknown].is_placed = false;
            match decision {
                Decision::Insert { before, .. } => {
                    self.rewind(before);
                    self.inserted.get_mut(&before).map(Vec::pop);
                }
                Decision::Make { item, .. } => {
                    self.rewind(item);
                    self.made.remove(&self.timeline.items[item].revision);
                }
            }
        }
    }

    /// Goes back to before an item.
    pub(super) fn rewind(&mut self, item: usize) {
        if let Some(mark) = self.marks.get(item) {
            self.store.undo(*mark);
            self.marks.truncate(item);
        }
    }

    /// Carries out items until `count` are done; says whether all were as they were answered.
    pub(super) fn carry_out_to(&mut self, count: usize) -> bool {
        while self.marks.len() < count {
            self.steps += 1;
            if self.carry_out().is_err() {
                return false;
            }
        }
        true
    }

    /// Carries out the next item with what was put in before it, and compares. After an error the store is as before.
    fn carry_out(&mut self) -> Result<(), Impossible> {
        let at = self.marks.len();
        let item = self.timeline.items[at];
        let mark = self.store.mark();
        let result = self.carry_out_inserted(at).and_then(|()| self.judge(&item));
        match result {
            Ok(()) => self.marks.push(mark),
            Err(_) => self.store.undo(mark),
        }
        result
    }

    fn carry_out_inserted(&mut self, at: usize) -> Result<(), Impossible> {
        for (unknown, revision) in self.inserted.get(&at).into_iter().flatten() {
            let operation = self.unknowns[*unknown].operation;
            let answer = self.store.apply(&operation.request, *revision);
            if !answer.is_ok_and(|answer| answer.modified) {
                return Err(Impossible::new("a write that must have happened changes nothing", [operation.id]));
            }
        }
        Ok(())
    }

    fn judge(&mut self, item: &Item<'a>) -> Result<(), Impossible> {
        match item.event {
            Event::Write(operation) => self.judge_answer(operation, item.revision, true),
            Event::Ended(operation) => self.judge_end(operation, item.revision),
            Event::Answer(operation) => self.judge_answer(operation, item.revision, false),
            Event::Past(operation, range, response) => self.judge_past(operation, item.revision, range, response),
            Event::Seen => {
                let Some(maker) = self.made.get(&item.revision) else { return Err(self.unexplained(item)) };
                let request = &self.unknowns[*maker].operation.request;
                let answer = self.store.apply(request, item.revision);
                if !answer.is_ok_and(|answer| answer.modified) {
                    return Err(self.unexplained(item));
                }
                self.judge_facts(item.revision)
            }
        }
    }

    fn judge_answer(&mut self, at: usize, revision: Revision, modifies: bool) -> Result<(), Impossible> {
        let operation = &self.history.operations[at];
        let got = operation.response().expect("only answered operations are on the timeline");
        if let Request::Range(range) = &operation.request {
            return self.judge_past(at, revision, range, got);
        }
        let Ok(answer) = self.store.apply(&operation.request, revision) else {
            let reason = format!("at revision {revision} a correct store refuses: the key does not exist");
            return Err(Impossible::new(reason, [operation.id]));
        };
        if !self.store.matches(&operation.request, &answer.response, got) || answer.modified != modifies {
            return Err(self.wrong(operation, revision, &answer.response, got));
        }
        if modifies { self.judge_facts(revision) } else { Ok(()) }
    }

    /// Keys that go with their lease take a revision, which nobody else has.
    fn judge_end(&mut self, at: usize, revision: Revision) -> Result<(), Impossible> {
        let operation = &self.history.operations[at];
        let ended = self.store.apply(&operation.request, revision);
        // Of several ends that show one revision, one had keys.
        let is_write = |writer: &&usize| modifies(&self.history.operations[**writer]);
        let other = self.timeline.writers.get(&revision).filter(is_write);
        match other {
            Some(other) if ended.is_ok_and(|answer| answer.modified) => {
                let reason = format!("a lease ended with its keys at revision {revision}, which another write has");
                Err(Impossible::new(reason, [operation.id, self.history.operations[*other].id]))
            }
            _ => Ok(()),
        }
    }

    fn judge_past(&self, at: usize, revision: Revision, range: &Range, got: &Response) -> Result<(), Impossible> {
        if self.store.confirms(range, got) {
            return Ok(());
        }
        let operation = &self.history.operations[at];
        let mut store = self.store.clone();
        let now = Request::Range(Range { revision: 0, ..range.clone() });
        let expected = store.apply(&now, revision).map(|answer| answer.response);
        Err(self.wrong(operation, revision, &expected.expect("a read is not refused"), got))
    }

    /// What was seen of the writes at `revision`, which have just been carried out.
    fn judge_facts(&self, revision: Revision) -> Result<(), Impossible> {
        for fact in self.timeline.facts.get(&revision).into_iter().flatten() {
            let stored = self.store.get(fact.key).filter(|stored| stored.mod_revision == revision);
            let is_same = stored.is_some_and(|stored| {
                fact.version.is_none_or(|version| version == stored.version)
                    && fact.create_revision.is_none_or(|revision| revision == stored.create_revision)
                    && fact.content.is_none_or(|(value, lease)| (value, lease) == (&stored.value, stored.lease))
            });
            if !is_same {
                return Err(self.wrong_fact(revision, fact));
            }
        }
        Ok(())
    }

    /// The keys of an item.
    pub(super) fn spans(&self, item: &Item<'a>) -> Vec<Span<'a>> {
        match item.event {
            Event::Seen => {
                let maker = self.made.get(&item.revision);
                maker.map_or_else(Vec::new, |unknown| self.unknowns[*unknown].spans.clone())
            }
            Event::Past(_, range, _) => vec![Span::new(&range.key, &range.range_end)],
            // Which keys hang on a lease is not known before the replay.
            Event::Ended(_) => Vec::new(),
            Event::Write(operation) | Event::Answer(operation) => self.history.operations[operation].request.spans(),
        }
    }

    pub(super) fn touches(&self, item: &Item<'a>, unknown: usize) -> bool {
        let spans = &self.unknowns[unknown].spans;
        self.spans(item).iter().any(|one| spans.iter().any(|two| one.overlaps(*two)))
    }

    /// A plain put whose result nobody saw says nothing about puts before it.
    pub(super) fn is_blind(&self, item: &Item<'_>) -> bool {
        let facts = self.timeline.facts.get(&item.revision);
        match item.event {
            Event::Write(operation) => {
                is_plain_put(&self.history.operations[operation].request)
                    && !facts.into_iter().flatten().any(|fact| fact.version.is_some())
            }
            Event::Seen | Event::Ended(_) | Event::Answer(_) | Event::Past(..) => false,
        }
    }

    /// All ways failed.
    fn conclude(mut self, is_dense: bool) -> Verdict {
        let (at, impossible) = self.deepest.take().expect("the search failed somewhere");
        if self.is_incomplete {
            let why = format!("too many ways to explain unknown outcomes; the last obstacle: {}", impossible.reason);
            return Verdict::Undecided { why };
        }
        if at == self.timeline.items.len() && (!is_dense || self.could_fill_gaps()) {
            let why = format!("not all ways were tried to give unknown writes their revisions; {}", impossible.reason);
            return Verdict::Undecided { why };
        }
        let spans = self.timeline.items.get(at).map_or_else(Vec::new, |item| self.spans(item));
        let is_vague = |unknown: &&Unknown<'_>| {
            let touches = unknown.spans.iter().any(|one| spans.iter().any(|two| one.overlaps(*two)));
            touches && !unknown.is_reserved && only_key(&unknown.spans).is_none()
        };
        if let Some(unknown) = self.unknowns.iter().find(is_vague) {
            let why = format!(
                "not all moments were tried at which operation {} may have happened, which writes several keys; the last \
                 obstacle: {}",
                unknown.operation.id, impossible.reason
            );
            return Verdict::Undecided { why };
        }
        impossible.into()
    }
}

fn add_asked<'a>(txn: &'a Txn, asked: &mut BTreeMap<&'a Bytes, BTreeSet<Revision>>) {
    for compare in &txn.compares {
        if let CompareTarget::Mod(revision) | CompareTarget::Create(revision) = compare.target {
            asked.entry(&compare.key).or_default().insert(revision);
        }
    }
    for op in txn.success.iter().chain(&txn.failure) {
        if let Op::Txn(nested) = op {
            add_asked(nested, asked);
        }
    }
}

/// The key of writes that concern one key alone.
pub(super) fn only_key<'a>(spans: &[Span<'a>]) -> Option<&'a Bytes> {
    let Some(Span::Key(key)) = spans.first() else { return None };
    spans.iter().all(|span| matches!(span, Span::Key(other) if other == key)).then_some(*key)
}

/// The greatest revision a write can have that happened before the item.
pub(super) fn until(item: &Item<'_>) -> Revision {
    match item.event {
        Event::Write(_) | Event::Seen => item.revision - 1,
        Event::Ended(_) | Event::Answer(_) | Event::Past(..) => item.revision,
    }
}

pub(super) fn is_plain_put(request: &Request) -> bool {
    matches!(request, Request::Put(Put { prev_kv: false, ignore_value: false, ignore_lease: false, .. }))
}

/// Whether a request could have written what was seen, in some state.
pub(super) fn may_put(request: &Request, fact: &Fact<'_>) -> bool {
    match request {
        Request::Put(put) => put_may_write(put, fact),
        Request::Txn(txn) => txn_may_put(txn, fact),
        _ => false,
    }
}

fn put_may_write(put: &Put, fact: &Fact<'_>) -> bool {
    put.key == *fact.key && (put.ignore_value || fact.content.is_none_or(|(value, _)| *value == put.value))
}

fn txn_may_put(txn: &Txn, fact: &Fact<'_>) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match op {
        Op::Put(put) => put_may_write(put, fact),
        Op::Txn(nested) => txn_may_put(nested, fact),
        Op::Range(_) | Op::DeleteRange(_) => false,
    })
}
