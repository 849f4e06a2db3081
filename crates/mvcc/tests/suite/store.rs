//! A store on a memory engine with one batch per command, and short ways to write requests.

use base::{LeaseId, Revision};
use bytes::Bytes;
use mvcc::{
    Command, Compact, Compare, CompareResult, CompareTarget, DeleteRange, Engine, EventBudget, EventPage, EventQuery,
    KeyValue, Machine, MemEngine, Op, Outcome, OutcomeResult, Put, RangeRequest, RangeResponse, ReadError, Reject,
    Span, Txn, TxnResult,
};

pub(crate) struct Store {
    pub(crate) engine: MemEngine,
    pub(crate) machine: Machine,
    pub(crate) applied: u64,
}

impl Store {
    pub(crate) fn new() -> Self {
        let engine = MemEngine::new();
        let machine = Machine::open(&engine).unwrap();
        Self { engine, machine, applied: 0 }
    }

    pub(crate) fn apply(&mut self, command: &Command) -> Outcome {
        self.applied += 1;
        let mut apply = self.machine.begin(self.engine.view()).unwrap();
        let outcome = apply.command(&command.encode(), true).unwrap().unwrap();
        let (batch, _) = apply.finish(Bytes::copy_from_slice(&self.applied.to_be_bytes()));
        self.engine.write(batch).unwrap();
        outcome
    }

    pub(crate) fn reject(&mut self, command: &Command) -> Reject {
        let before = self.machine.state();
        let rows = data_rows(&self.engine);
        let outcome = self.apply(command);
        assert_eq!(self.machine.state(), before, "a refused command moved the state");
        assert_eq!(data_rows(&self.engine), rows, "a refused command left rows");
        match outcome.result {
            OutcomeResult::Rejected(reject) => reject,
            other => panic!("not refused: {other:?}"),
        }
    }

    /// Puts and gives the revision.
    pub(crate) fn put(&mut self, key: &str, value: &str) -> i64 {
        self.apply(&put(key, value)).revision.0
    }

    pub(crate) fn delete(&mut self, key: &str) -> i64 {
        self.apply(&delete(key, "")).revision.0
    }

    pub(crate) fn compact(&mut self, revision: i64) -> Outcome {
        self.apply(&compact(revision))
    }

    pub(crate) fn txn(&mut self, txn: Txn) -> (i64, TxnResult) {
        let outcome = self.apply(&Command::Txn(txn));
        match outcome.result {
            OutcomeResult::Txn(result) => (outcome.revision.0, result),
            other => panic!("not a transaction's answer: {other:?}"),
        }
    }

    pub(crate) fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Reject> {
        match mvcc::range(&*self.engine.view(), request) {
            Ok(response) => Ok(response),
            Err(ReadError::Reject(reject)) => Err(reject),
            Err(ReadError::Fault(fault)) => panic!("{fault}"),
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<KeyValue> {
        self.range(&get(key)).unwrap().result.kvs.pop()
    }

    pub(crate) fn keys(&self, request: &RangeRequest) -> Vec<String> {
        let kvs = self.range(request).unwrap().result.kvs;
        kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect()
    }

    pub(crate) fn events(&self, from: i64) -> Result<EventPage, Reject> {
        let query = EventQuery { span: Span::all(), from: Revision(from), prev_kv: true };
        let budget = EventBudget { events_max: usize::MAX, bytes_max: usize::MAX };
        match mvcc::events(&*self.engine.view(), &query, budget) {
            Ok(page) => Ok(page),
            Err(ReadError::Reject(reject)) => Err(reject),
            Err(ReadError::Fault(fault)) => panic!("{fault}"),
        }
    }

    pub(crate) fn sweep(&self, events_max: usize) {
        loop {
            let sweep = mvcc::sweep(&*self.engine.view(), events_max).unwrap();
            self.engine.write(sweep.batch).unwrap();
            if sweep.done {
                return;
            }
        }
    }
}

/// Everything but the log position, which moves with every entry.
pub(crate) fn data_rows(engine: &MemEngine) -> Vec<(Bytes, Bytes)> {
    engine.rows().into_iter().filter(|(key, _)| key.first() != Some(&b'm')).collect()
}

pub(crate) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(crate) fn put_of(key: &str, value: &str) -> Put {
    Put { key: bytes(key), value: bytes(value), ..Put::default() }
}

pub(crate) fn put(key: &str, value: &str) -> Command {
    Command::Put(put_of(key, value))
}

pub(crate) fn put_leased(key: &str, lease: i64) -> Put {
    Put { lease: LeaseId(lease), ..put_of(key, "v") }
}

pub(crate) fn delete_of(key: &str, end: &str) -> DeleteRange {
    DeleteRange { key: bytes(key), range_end: bytes(end), prev_kv: true }
}

pub(crate) fn delete(key: &str, end: &str) -> Command {
    Command::DeleteRange(delete_of(key, end))
}

pub(crate) fn compact(revision: i64) -> Command {
    Command::Compact(Compact { revision: Revision(revision) })
}

pub(crate) fn get(key: &str) -> RangeRequest {
    RangeRequest { key: bytes(key), ..RangeRequest::default() }
}

pub(crate) fn span(key: &str, end: &str) -> RangeRequest {
    RangeRequest { key: bytes(key), range_end: bytes(end), ..RangeRequest::default() }
}

pub(crate) fn at(revision: i64, request: RangeRequest) -> RangeRequest {
    RangeRequest { revision: Revision(revision), ..request }
}

pub(crate) fn compare(key: &str, result: CompareResult, target: CompareTarget) -> Compare {
    Compare { key: bytes(key), range_end: Bytes::new(), result, target }
}

/// A compare that never holds: keys are never at revision -1.
pub(crate) fn never() -> Compare {
    compare("k", CompareResult::Equal, CompareTarget::ModRevision(Revision(-1)))
}

pub(crate) fn success(ops: Vec<Op>) -> Txn {
    Txn { success: ops, ..Txn::default() }
}
