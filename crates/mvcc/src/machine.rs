//! The state machine: log entries in, one atomic batch of rows and the answers out.
//!
//! Invariant: rows, state and the caller's mark reach the engine in one batch or not at all, so after a crash the
//! entries behind the mark are applied again, with the same result. A refused command leaves no trace.

use base::{Fault, LeaseId, Revision};
use bytes::Bytes;

use crate::command::{Command, Compact, DeleteRange, Op, Put, Txn};
use crate::engine::{Batch, Engine, View};
use crate::keys;
use crate::outcome::{
    Change, CompactResult, DeleteResult, OpOutcome, OpResult, Outcome, OutcomeResult, PutResult, TxnResult,
};
use crate::range::ReadError;
use crate::reject::Reject;
use crate::span::Span;
use crate::staged::Staged;
use crate::state::{State, mark, state};
use crate::txn::{Path, check_lease, read_op};
use crate::validate::Limits;
use crate::writer::Writer;

/// Whether a lease exists. There is no lease table yet, so none does; this is the one place that will ask it.
pub(crate) fn lease_exists(_lease: LeaseId) -> bool {
    false
}

/// The position of one group's store: what its engine holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    state: State,
    mark: Option<Bytes>,
}

impl Machine {
    /// Reads the position off `engine`.
    pub fn open(engine: &dyn Engine) -> Result<Self, Fault> {
        let view = engine.view();
        Ok(Self { state: state(&*view)?, mark: mark(&*view)? })
    }

    /// Clock, floor and counters after the last finished batch.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// What the caller passed to the last [`Apply::finish`]; none in a fresh store.
    #[must_use]
    pub fn mark(&self) -> Option<Bytes> {
        self.mark.clone()
    }

    /// Starts a batch. `view` must show everything of the batch before, and nothing else may write but
    /// [`sweep`](crate::sweep) until this one is written.
    pub fn begin(&mut self, view: Box<dyn View>) -> Result<Apply<'_>, Fault> {
        let shown = state(&*view)?;
        assert!(shown == self.state, "the view shows {shown:?}, the machine is at {:?}", self.state);
        let state = self.state;
        Ok(Apply { machine: self, staged: Staged::new(view), state, changes: None, broken: false })
    }
}

/// A batch in the making. Dropped without [`finish`](Self::finish) it never happened.
pub struct Apply<'a> {
    machine: &'a mut Machine,
    staged: Staged,
    state: State,
    changes: Option<Vec<Change>>,
    /// A fault left a command half staged.
    broken: bool,
}

impl Apply<'_> {
    /// From now on collects the changes of each command for [`finish`](Self::finish).
    pub fn keep_changes(&mut self) {
        self.changes.get_or_insert_default();
    }

    /// Clock, floor and counters after the commands so far.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Applies one log entry. With `want_outcome` the answer is returned; without it, reads inside transactions are
    /// not even run.
    pub fn command(&mut self, payload: &Bytes, want_outcome: bool) -> Result<Option<Outcome>, Fault> {
        let command = Command::decode(payload.clone())
            .map_err(|error| Fault::Corrupt { place: "log entry".into(), detail: error.to_string() })?;
        self.execute(&command, want_outcome)
    }

    /// Applies one command, like [`command`](Self::command) without the bytes.
    pub fn execute(&mut self, command: &Command, want_outcome: bool) -> Result<Option<Outcome>, Fault> {
        assert!(!self.broken, "a batch goes on after a fault");
        let result = match self.dispatch(command, want_outcome) {
            Ok(result) => result,
            Err(ReadError::Reject(reject)) => Some(OutcomeResult::Rejected(reject)),
            Err(ReadError::Fault(fault)) => {
                self.broken = true;
                return Err(fault);
            }
        };
        let revision = self.state.revision;
        Ok(result.filter(|_| want_outcome).map(|result| Outcome { revision, result }))
    }

    fn dispatch(&mut self, command: &Command, want: bool) -> Result<Option<OutcomeResult>, ReadError> {
        command.validate(&Limits::SHARED)?;
        Ok(match command {
            Command::Put(put) => self.put(put, want)?.map(OutcomeResult::Put),
            Command::DeleteRange(delete) => self.delete_range(delete, want)?.map(OutcomeResult::DeleteRange),
            Command::Txn(txn) => self.txn(txn, want)?.map(OutcomeResult::Txn),
            Command::Compact(compact) => Some(OutcomeResult::Compact(self.compact(compact)?)),
        })
    }

    fn put(&mut self, put: &Put, want: bool) -> Result<Option<PutResult>, ReadError> {
        check_lease(put)?;
        let mut writer = self.writer();
        let prev_kv = writer.put(put, want && put.prev_kv)?;
        let change = writer.finish();
        self.keep(change);
        Ok(want.then_some(PutResult { prev_kv }))
    }

    fn delete_range(&mut self, delete: &DeleteRange, want: bool) -> Result<Option<DeleteResult>, Fault> {
        let mut writer = self.writer();
        let span = Span::new(&delete.key, &delete.range_end);
        let (deleted, prev_kvs) = writer.delete_range(&span, want && delete.prev_kv)?;
        let change = writer.finish();
        self.keep(change);
        Ok(want.then_some(DeleteResult { deleted, prev_kvs }))
    }

    fn txn(&mut self, txn: &Txn, want: bool) -> Result<Option<TxnResult>, ReadError> {
        let path = Path::choose(&self.staged, txn)?;
        path.check(&self.staged, &self.state)?;
        let mut writer = self.writer();
        let result = run(&mut writer, &path, want)?;
        let change = writer.finish();
        self.keep(change);
        Ok(want.then_some(result))
    }

    /// Only moves the floor: replicas agree on it, each one sweeps in its own time.
    fn compact(&mut self, compact: &Compact) -> Result<CompactResult, Reject> {
        if compact.revision <= self.state.compacted {
            return Err(Reject::Compacted);
        }
        if compact.revision > self.state.revision {
            return Err(Reject::FutureRevision);
        }
        self.state.compacted = compact.revision;
        Ok(CompactResult { compacted: compact.revision })
    }

    fn writer(&mut self) -> Writer<'_> {
        Writer::new(&mut self.staged, &mut self.state, self.changes.is_some())
    }

    fn keep(&mut self, change: Option<Change>) {
        if let Some(changes) = &mut self.changes {
            changes.extend(change);
        }
    }

    /// Ends the batch: what to write to the engine, and the changes if they were kept. The machine is then ahead of the
    /// engine until the batch is written; if that fails the node must stop.
    #[must_use = "the batch has to be written"]
    pub fn finish(mut self, mark: Bytes) -> (Batch, Vec<Change>) {
        assert!(!self.broken, "a batch is finished after a fault");
        assert!(self.state.revision >= self.machine.state.revision, "the revision went backwards");
        assert!(self.state.compacted <= self.state.revision, "floor {} above the present", self.state.compacted);
        self.staged.put(Bytes::from_static(keys::STATE), self.state.encode());
        self.staged.put(Bytes::from_static(keys::MARK), mark.clone());
        self.machine.state = self.state;
        self.machine.mark = Some(mark);
        (self.staged.into_batch(), self.changes.unwrap_or_default())
    }
}

/// Runs a checked path. Without `want` the result is empty and reads are left out.
fn run(writer: &mut Writer<'_>, path: &Path<'_>, want: bool) -> Result<TxnResult, Fault> {
    let mut nested = path.nested.iter();
    let mut responses = Vec::new();
    for op in path.ops {
        let result = match op {
            Op::Range(range) => {
                if want {
                    responses.push(read_op(writer.view(), &writer.state(), range)?);
                }
                continue;
            }
            Op::Put(put) => match writer.put(put, want && put.prev_kv) {
                Ok(prev_kv) => OpResult::Put(PutResult { prev_kv }),
                Err(ReadError::Fault(fault)) => return Err(fault),
                Err(ReadError::Reject(reject)) => panic!("a checked put of {:?} was refused: {reject}", put.key),
            },
            Op::DeleteRange(delete) => {
                let span = Span::new(&delete.key, &delete.range_end);
                let (deleted, prev_kvs) = writer.delete_range(&span, want && delete.prev_kv)?;
                OpResult::DeleteRange(DeleteResult { deleted, prev_kvs })
            }
            Op::Txn(_) => {
                let inner = nested.next().expect("one path for each nested transaction");
                OpResult::Txn(run(writer, inner, want)?)
            }
            Op::Empty => panic!("an empty operation passed the checks"),
        };
        if want {
            let revision = match result {
                OpResult::Txn(_) => Revision(0),
                _ => writer.state().revision,
            };
            responses.push(OpOutcome { revision, result });
        }
    }
    Ok(TxnResult { succeeded: path.succeeded, responses })
}
