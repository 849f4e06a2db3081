//! Runs random actions against the code under test and the naive model side by side, and compares everything.
//!
//! The engine in between can be given a defect, to prove that the comparison notices.

use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};

use base::{Fault, LeaseId, Revision};
use bytes::Bytes;
use mvcc::{
    Batch, Change, Command, Engine, EventBudget, EventQuery, Machine, MemEngine, Outcome, RangeRequest, RangeStream,
    ReadError, Reject, Scan, Span, View,
};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use crate::generate::Action;
use crate::model::Model;

/// A defect planted below the state machine or beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defect {
    None,
    /// Scans treat an excluded upper bound as included.
    ScanIncludesEnd,
    /// Scans from the back start one row too early.
    ScanBackSkipsLast,
    /// Every 16th write of a batch loses the tombstones in it.
    LosesTombstones,
    /// Batches lose deletes of current rows.
    LosesDeletes,
    /// The sweep is one revision too eager: it also removes events at the floor.
    SweepTakesFloor,
    /// The batch is written without the caller's mark, so a replay applies entries twice.
    LosesMark,
    /// Batches lose attachments of keys to leases.
    LosesAttachments,
    /// The model believes that the floor itself is not readable.
    ModelFloorOffByOne,
}

struct DefectiveEngine {
    inner: MemEngine,
    defect: Defect,
    writes: AtomicU64,
}

struct DefectiveView {
    inner: Box<dyn View>,
    defect: Defect,
}

impl Engine for DefectiveEngine {
    fn view(&self) -> Box<dyn View> {
        let inner = self.inner.view();
        match self.defect {
            Defect::None => inner,
            defect => Box::new(DefectiveView { inner, defect }),
        }
    }

    fn write(&self, mut batch: Batch) -> Result<(), Fault> {
        let turn = self.writes.fetch_add(1, Ordering::Relaxed);
        match self.defect {
            Defect::LosesTombstones if turn % 16 == 15 => {
                batch.rows.retain(|(key, _)| key.first() != Some(&b'h') || key.last() != Some(&1));
            }
            Defect::LosesDeletes => batch.rows.retain(|(key, row)| key.first() != Some(&b'c') || row.is_some()),
            Defect::LosesAttachments => batch.rows.retain(|(key, row)| key.first() != Some(&b'k') || row.is_none()),
            Defect::LosesMark => batch.rows.retain(|(key, _)| key != "mmark"),
            _ => {}
        }
        self.inner.write(batch)
    }
}

impl View for DefectiveView {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.inner.get(key)
    }

    fn scan<'a>(&'a self, from: Bound<Bytes>, to: Bound<Bytes>) -> Scan<'a> {
        match (self.defect, to) {
            (Defect::ScanIncludesEnd, Bound::Excluded(to)) => self.inner.scan(from, Bound::Included(to)),
            (Defect::ScanBackSkipsLast, Bound::Included(to)) => {
                // Only history lookups scan with an included end.
                let mut scan = self.inner.scan(from, Bound::Included(to));
                let _ = scan.next_back();
                scan
            }
            (_, to) => self.inner.scan(from, to),
        }
    }
}

struct Driver {
    engine: DefectiveEngine,
    machine: Machine,
    model: Model,
    /// Entries with the outcomes they had.
    log: Vec<(Bytes, Outcome)>,
    /// Entries of the log that reached the engine.
    written: usize,
    defect: Defect,
}

fn reject<T>(result: Result<T, ReadError>) -> Result<Result<T, Reject>, TestCaseError> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(ReadError::Reject(reject)) => Ok(Err(reject)),
        Err(ReadError::Fault(fault)) => Err(TestCaseError::fail(fault.to_string())),
    }
}

fn fault<T>(result: Result<T, Fault>) -> Result<T, TestCaseError> {
    result.map_err(|fault| TestCaseError::fail(fault.to_string()))
}

/// Runs `actions`, then compares all of history, and replays the log in other batches.
pub(crate) fn run(actions: &[Action], defect: Defect) -> Result<(), TestCaseError> {
    let engine = DefectiveEngine { inner: MemEngine::new(), defect, writes: AtomicU64::new(0) };
    let machine = fault(Machine::open(&engine))?;
    let mut driver = Driver { engine, machine, model: Model::new(), log: vec![], written: 0, defect };
    for action in actions {
        driver.act(action)?;
    }
    driver.flush()?;
    driver.compare_everything()?;
    driver.compare_replays()
}

impl Driver {
    fn act(&mut self, action: &Action) -> Result<(), TestCaseError> {
        if let Action::Apply(command) = action {
            let outcome = self.model.apply(command);
            self.log.push((command.encode(), outcome));
            return Ok(());
        }
        self.flush()?;
        match action {
            Action::Apply(_) | Action::Flush => Ok(()),
            Action::Range(request) => self.range(request),
            Action::ReadTxn(txn) => {
                prop_assert!(txn.is_read_only());
                prop_assert_eq!(
                    fault(mvcc::read_txn(&*self.engine.view(), txn, usize::MAX))?,
                    self.model.read_txn(txn)
                );
                Ok(())
            }
            Action::Stream(request, keys) => self.stream(request, *keys),
            Action::Events { from, key, end, prev_kv, page } => self.events(*from, key, end, *prev_kv, *page),
            Action::Hash(revision) => {
                let refused = reject(mvcc::hash(&*self.engine.view(), Revision(*revision)))?.err();
                let request = RangeRequest { key: "k".into(), revision: Revision(*revision), ..Default::default() };
                prop_assert_eq!(refused, self.model_range(&request).err());
                Ok(())
            }
            Action::Sweep(events) => self.sweep(*events).map(|_| ()),
            Action::Checkpoint => {
                self.engine.inner.checkpoint();
                Ok(())
            }
            Action::Crash(batch) => {
                self.engine.inner.crash();
                self.recover(*batch)
            }
        }
    }

    /// Applies the rest of the log in one batch and compares outcomes and changes.
    fn flush(&mut self) -> Result<(), TestCaseError> {
        if self.written == self.log.len() {
            return Ok(());
        }
        let before = self.machine.state();
        let lease_changes = self.model.lease_log.split_off(0);
        // A batch that is dropped must not have happened.
        let mut dropped = fault(self.machine.begin(self.engine.view()))?;
        fault(dropped.command(&self.log[self.written].0, true))?;
        drop(dropped);
        prop_assert_eq!(self.machine.state(), before);

        let mut apply = fault(self.machine.begin(self.engine.view()))?;
        apply.keep_changes();
        for (payload, expected) in &self.log[self.written..] {
            let outcome = fault(apply.command(payload, true))?.expect("an outcome was asked for");
            prop_assert_eq!(&Outcome::decode(outcome.encode()), &Ok(outcome.clone()));
            prop_assert_eq!(&outcome, expected, "{:?}", Command::decode(payload.clone()));
        }
        prop_assert_eq!(apply.take_lease_changes(), lease_changes);
        self.written = self.log.len();
        let (batch, changes) = apply.finish(Bytes::copy_from_slice(&(self.written as u64).to_be_bytes()));
        let mut expected = vec![];
        for revision in before.revision.0 + 1..=self.model.revision() {
            let events = self.model.log[revision as usize].clone();
            expected.push(Change { revision: Revision(revision), events });
        }
        prop_assert_eq!(changes, expected);
        fault(self.engine.write(batch))?;
        prop_assert_eq!(self.machine.state().revision.0, self.model.revision());
        prop_assert_eq!(self.machine.state().compacted.0, self.model.floor);
        prop_assert_eq!(self.machine.state().keys as usize, self.model.latest().len());
        self.compare_leases()
    }

    fn compare_leases(&self) -> Result<(), TestCaseError> {
        let view = self.engine.view();
        let expected: Vec<_> = self.model.leases.values().copied().collect();
        prop_assert_eq!(fault(mvcc::leases(&*view))?, expected);
        for id in [7, -1, i64::MAX].map(LeaseId) {
            prop_assert_eq!(fault(mvcc::lease(&*view, id))?, self.model.leases.get(&id).copied());
            prop_assert_eq!(fault(mvcc::attached(&*view, id, usize::MAX))?, Some(self.model.attached(id)));
        }
        Ok(())
    }

    fn recover(&mut self, batch: usize) -> Result<(), TestCaseError> {
        self.machine = fault(Machine::open(&self.engine))?;
        let mut at = self.machine.mark().map_or(0, |mark| u64::from_be_bytes(mark[..].try_into().unwrap())) as usize;
        while at < self.log.len() {
            let mut apply = fault(self.machine.begin(self.engine.view()))?;
            for (payload, expected) in self.log[at..].iter().take(batch) {
                let outcome = fault(apply.command(payload, true))?;
                prop_assert_eq!(outcome.as_ref(), Some(expected));
                at += 1;
            }
            let (rows, changes) = apply.finish(Bytes::copy_from_slice(&(at as u64).to_be_bytes()));
            prop_assert!(changes.is_empty());
            fault(self.engine.write(rows))?;
        }
        self.written = at;
        Ok(())
    }

    fn model_range(&self, request: &RangeRequest) -> Result<mvcc::RangeResponse, Reject> {
        if self.defect == Defect::ModelFloorOffByOne && request.revision.0 == self.model.floor && self.model.floor > 0 {
            return Err(Reject::Compacted);
        }
        self.model.range(request)
    }

    fn range(&self, request: &RangeRequest) -> Result<(), TestCaseError> {
        let view = self.engine.view();
        let expected = self.model_range(request);
        let answer = reject(mvcc::range(&*view, request))?;
        prop_assert_eq!(&answer, &expected, "{:?} at floor {}", request, self.model.floor);
        // With a budget of nothing, one pair at a time comes, and going on from the stop gives the whole answer.
        let Ok(whole) = answer else { return Ok(()) };
        let (first, stopped_at) = reject(mvcc::range_within(&*view, request, 0))?.expect("just answered");
        prop_assert_eq!(first.result.count, whole.result.count);
        match stopped_at {
            None => prop_assert_eq!(first, whole),
            Some(stop) => {
                prop_assert!(first.result.more);
                prop_assert_eq!(&first.result.kvs[..], &whole.result.kvs[..1]);
                prop_assert_eq!(&stop, &whole.result.kvs[1].key);
            }
        }
        Ok(())
    }

    fn stream(&self, request: &RangeRequest, keys: usize) -> Result<(), TestCaseError> {
        if !RangeStream::supports(request) {
            return Ok(());
        }
        let view = self.engine.view();
        let expected = self.model_range(request);
        let mut stream = match reject(RangeStream::open(&*view, request.clone()))? {
            Ok(stream) => stream,
            Err(refused) => {
                prop_assert_eq!(Err(refused), expected);
                return Ok(());
            }
        };
        let expected = expected.map_err(|refused| TestCaseError::fail(format!("not refused: {refused}")))?;
        let mut kvs = vec![];
        loop {
            let Some(chunk) = reject(stream.chunk(&*view, keys, 64))?.expect("the view does not move") else {
                return Err(TestCaseError::fail("the stream ended without an end"));
            };
            prop_assert!(chunk.kvs.len() <= keys);
            kvs.extend(chunk.kvs);
            if let Some(end) = chunk.end {
                prop_assert_eq!(end.revision, expected.revision);
                prop_assert_eq!((end.more, end.count), (expected.result.more, expected.result.count));
                break;
            }
        }
        prop_assert_eq!(kvs, expected.result.kvs);
        prop_assert_eq!(reject(stream.chunk(&*view, keys, 64))?, Ok(None));
        Ok(())
    }

    fn events(&self, from: i64, key: &Bytes, end: &Bytes, prev: bool, page: usize) -> Result<(), TestCaseError> {
        let expected = self.model.events(from, key, end, prev);
        let view = self.engine.view();
        let mut query = EventQuery { span: Span::new(key, end), from: Revision(from), prev_kv: prev };
        let mut changes = vec![];
        loop {
            let budget = EventBudget { events_max: page, bytes_max: usize::MAX };
            let found = match reject(mvcc::events(&*view, &query, budget))? {
                Ok(found) => found,
                Err(refused) => {
                    prop_assert_eq!(Err(refused), expected);
                    return Ok(());
                }
            };
            prop_assert_eq!(found.current.0, self.model.revision());
            changes.extend(found.changes);
            if found.next > found.current {
                break;
            }
            prop_assert!(found.next > query.from, "a page without progress");
            query.from = found.next;
        }
        prop_assert_eq!(Ok(changes), expected);
        Ok(())
    }

    /// One piece of the sweep; whether all is done.
    fn sweep(&self, events: usize) -> Result<bool, TestCaseError> {
        let mut sweep = fault(mvcc::sweep(&*self.engine.view(), events))?;
        if self.defect == Defect::SweepTakesFloor {
            let floor = self.model.floor.to_be_bytes();
            let view = self.engine.inner.view();
            let from = Bytes::from([b"r".as_slice(), &floor].concat());
            for row in view.scan(Bound::Included(from.clone()), Bound::Unbounded) {
                let (key, _) = fault(row)?;
                if key.starts_with(&from) && sweep.batch.rows.iter().all(|(swept, _)| *swept != key) {
                    sweep.batch.rows.push((key, None));
                }
            }
            sweep.batch.rows.sort();
        }
        fault(self.engine.write(sweep.batch))?;
        Ok(sweep.done)
    }

    /// Every readable revision, every start of a watch, before and after the rest of the sweep.
    fn compare_everything(&self) -> Result<(), TestCaseError> {
        self.compare_leases()?;
        let hashes = self.compare_history()?;
        while !self.sweep(3)? {}
        prop_assert_eq!(self.compare_history()?, hashes);
        let rows = self.engine.inner.rows();
        let versions = rows.iter().filter(|(key, _)| key[0] == b'h' && key[key.len() - 1] == 2).count();
        prop_assert_eq!(versions, self.model.superseded_above_floor(), "superseded versions kept");
        let events = rows.iter().filter(|(key, _)| key[0] == b'r').count();
        prop_assert_eq!(events, self.model.events_from_floor(), "events kept");
        Ok(())
    }

    fn compare_history(&self) -> Result<Vec<u32>, TestCaseError> {
        let mut hashes = vec![];
        for revision in self.model.floor.max(1)..=self.model.revision() {
            let everything = RangeRequest {
                key: Bytes::from_static(b"\0"),
                range_end: Bytes::from_static(b"\0"),
                revision: Revision(revision),
                ..RangeRequest::default()
            };
            self.range(&everything)?;
            for key in
                self.model.states.iter().flat_map(|state| state.keys()).collect::<std::collections::BTreeSet<_>>()
            {
                self.range(&RangeRequest { key: key.clone(), revision: Revision(revision), ..Default::default() })?;
            }
            let hash = reject(mvcc::hash(&*self.engine.view(), Revision(revision)))?;
            hashes.push(hash.expect("a readable revision").hash);
        }
        let end = Bytes::from_static(b"\0");
        for from in self.model.floor.max(1) - 2..=self.model.revision() + 1 {
            self.events(from, &Bytes::new(), &end, true, 4)?;
        }
        Ok(hashes)
    }

    /// The same log in one batch, and in batches of one entry without asking for outcomes: the same rows.
    fn compare_replays(&self) -> Result<(), TestCaseError> {
        if self.log.is_empty() {
            // Nothing was ever written, not even the state.
            prop_assert_eq!(self.engine.inner.rows(), vec![]);
            return Ok(());
        }
        let whole = MemEngine::new();
        let mut machine = fault(Machine::open(&whole))?;
        let mut apply = fault(machine.begin(whole.view()))?;
        for (payload, _) in &self.log {
            prop_assert_eq!(fault(apply.command(payload, false))?, None);
        }
        fault(whole.write(apply.finish(Bytes::from_static(b"end")).0))?;

        let single = MemEngine::new();
        let mut machine = fault(Machine::open(&single))?;
        fault(single.write(fault(machine.begin(single.view()))?.finish(Bytes::from_static(b"end")).0))?;
        for (payload, _) in &self.log {
            let mut apply = fault(machine.begin(single.view()))?;
            fault(apply.command(payload, false))?;
            fault(single.write(apply.finish(Bytes::from_static(b"end")).0))?;
        }
        prop_assert!(whole == single, "batches show in the rows");
        let lease_hash = |engine: &dyn Engine| fault(mvcc::lease_hash(&*engine.view()));
        prop_assert_eq!(lease_hash(&whole)?, lease_hash(&self.engine.inner)?);

        // A sweep in one go ends at the same rows as the interrupted ones did.
        for (events, engine) in [(1, &whole), (usize::MAX, &single)] {
            while {
                let sweep = fault(mvcc::sweep(&*engine.view(), events))?;
                fault(engine.write(sweep.batch))?;
                !sweep.done
            } {}
        }
        prop_assert_eq!(whole.rows(), single.rows());
        let without_mark =
            |rows: Vec<(Bytes, Bytes)>| rows.into_iter().filter(|(key, _)| key != "mmark").collect::<Vec<_>>();
        prop_assert_eq!(without_mark(whole.rows()), without_mark(self.engine.inner.rows()));
        Ok(())
    }
}
