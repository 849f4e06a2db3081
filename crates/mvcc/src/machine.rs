//! The state machine: log entries in, one atomic batch of rows and the answers out.
//!
//! Invariant: rows, state and the caller's mark reach the engine in one batch or not at all, so after a crash the
//! entries behind the mark are applied again, with the same result. A refused command leaves no trace.

use base::codec::put_varint;
use base::planted::{Defect, planted};
use base::{Fault, LeaseId, Revision, limits};
use bytes::Bytes;

use crate::alarm::{self, Alarm, alarms};
use crate::budget::Budget;
use crate::command::{
    AlarmChange, Command, Compact, DeleteRange, LeaseCheckpoint, LeaseExpire, LeaseGrant, LeaseRevoke, MemberChange,
    MemberStep, Op, Put, Txn,
};
use crate::engine::{Batch, Engine, View};
use crate::keys;
use crate::lease::{self, Lease, LeaseChange, lease};
use crate::member::{MemberRecord, members};
use crate::outcome::{
    Change, CompactResult, DeleteResult, LeaseGrantResult, OpOutcome, OpResult, Outcome, OutcomeResult, PutResult,
    TxnResult,
};
use crate::range::ReadError;
use crate::reject::Reject;
use crate::staged::Staged;
use crate::state::{State, mark, state};
use crate::txn::{Path, check_lease, read_op};
use crate::validate::Limits;
use crate::writer::Writer;

/// The position of one group's store: what its engine holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    state: State,
    mark: Option<Bytes>,
    alarms: Vec<Alarm>,
}

impl Machine {
    /// Reads the position off `engine`.
    pub fn open(engine: &dyn Engine) -> Result<Self, Fault> {
        let view = engine.view();
        Ok(Self { state: state(&*view)?, mark: mark(&*view)?, alarms: alarms(&*view)? })
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

    /// The alarms that are up after the last finished batch.
    #[must_use]
    pub fn alarms(&self) -> &[Alarm] {
        &self.alarms
    }

    /// Starts a batch. `view` must show everything of the batch before, and nothing else may write but
    /// [`sweep`](crate::sweep) until this one is written.
    pub fn begin(&mut self, view: Box<dyn View>) -> Result<Apply<'_>, Fault> {
        let shown = state(&*view)?;
        assert!(shown == self.state, "the view shows {shown:?}, the machine is at {:?}", self.state);
        let state = self.state;
        let answers_left = limits::ANSWERS_BYTES_MAX;
        let staged = Staged::new(view);
        let (lease_changes, alarms) = (Vec::new(), self.alarms.clone());
        Ok(Apply {
            machine: self,
            staged,
            state,
            changes: None,
            lease_changes,
            alarms,
            members_changed: false,
            answers_left,
            broken: false,
        })
    }
}

/// A batch in the making. Dropped without [`finish`](Self::finish) it never happened.
pub struct Apply<'a> {
    machine: &'a mut Machine,
    staged: Staged,
    state: State,
    changes: Option<Vec<Change>>,
    lease_changes: Vec<LeaseChange>,
    /// Sorted.
    alarms: Vec<Alarm>,
    members_changed: bool,
    /// Bytes of pairs that the answers of this batch may still take together.
    answers_left: usize,
    /// A fault left a command half staged.
    broken: bool,
}

impl Apply<'_> {
    /// From now on collects the changes of each command for [`finish`](Self::finish).
    pub fn keep_changes(&mut self) {
        self.changes.get_or_insert_default();
    }

    /// What happened to leases since the last call, in order; for the clock that decides when they are over.
    pub fn take_lease_changes(&mut self) -> Vec<LeaseChange> {
        std::mem::take(&mut self.lease_changes)
    }

    /// Whether anything was written down about members.
    #[must_use]
    pub fn members_changed(&self) -> bool {
        self.members_changed
    }

    /// From now on the answers of this batch may take this many bytes of pairs together, instead of
    /// [`limits::ANSWERS_BYTES_MAX`].
    pub fn bound_answers(&mut self, bytes_max: usize) {
        self.answers_left = bytes_max;
    }

    /// Clock, floor and counters after the commands so far.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Applies one log entry. With `want_outcome` the answer is returned; without it, reads inside transactions are
    /// not even run. An answer above [`limits::ANSWER_BYTES_MAX`] is [`OutcomeResult::AnswerTooLarge`].
    pub fn command(&mut self, payload: &Bytes, want_outcome: bool) -> Result<Option<Outcome>, Fault> {
        let command = Command::decode(payload.clone())
            .map_err(|error| Fault::Corrupt { place: "log entry".into(), detail: error.to_string() })?;
        self.execute(&command, want_outcome)
    }

    /// Applies one command, like [`command`](Self::command) without the bytes.
    pub fn execute(&mut self, command: &Command, want_outcome: bool) -> Result<Option<Outcome>, Fault> {
        assert!(!self.broken, "a batch goes on after a fault");
        let granted = if want_outcome { self.answers_left.min(limits::ANSWER_BYTES_MAX) } else { 0 };
        let mut budget = if want_outcome { Budget::new(granted) } else { Budget::none() };
        let result = match self.dispatch(command, &mut budget) {
            Ok(_) if !budget.is_open() => OutcomeResult::AnswerTooLarge,
            Ok(result) => result,
            Err(ReadError::Reject(reject)) => OutcomeResult::Rejected(reject),
            Err(ReadError::Fault(fault)) => {
                self.broken = true;
                return Err(fault);
            }
        };
        self.answers_left -= granted - budget.left();
        let revision = self.state.revision;
        Ok(want_outcome.then_some(Outcome { revision, result }))
    }

    /// Whatever does not fit into the budget is left out of the result.
    fn dispatch(&mut self, command: &Command, budget: &mut Budget) -> Result<OutcomeResult, ReadError> {
        command.validate(&Limits::SHARED)?;
        alarm::admit(&self.alarms, command)?;
        Ok(match command {
            Command::Put(put) => OutcomeResult::Put(self.put(put, budget)?),
            Command::DeleteRange(delete) => OutcomeResult::DeleteRange(self.delete_range(delete, budget)?),
            Command::Txn(txn) => OutcomeResult::Txn(self.txn(txn, budget)?),
            Command::Compact(compact) => OutcomeResult::Compact(self.compact(compact)?),
            Command::LeaseGrant(grant) => OutcomeResult::LeaseGrant(self.lease_grant(grant)?),
            Command::LeaseRevoke(revoke) => self.lease_revoke(revoke)?,
            Command::LeaseExpire(expire) => OutcomeResult::LeaseExpire(self.lease_expire(expire)?),
            Command::LeaseCheckpoint(checkpoint) => OutcomeResult::LeaseCheckpoint(self.lease_checkpoint(checkpoint)?),
            Command::Alarm(change) => OutcomeResult::Alarm(self.alarm(*change)),
            Command::Member(change) => self.member(change)?,
        })
    }

    fn put(&mut self, put: &Put, budget: &mut Budget) -> Result<PutResult, ReadError> {
        check_lease(&self.staged, put)?;
        let mut writer = self.writer();
        let prev_kv = writer.put(put, budget)?;
        let change = writer.finish();
        self.keep(change);
        Ok(PutResult { prev_kv })
    }

    fn delete_range(&mut self, delete: &DeleteRange, budget: &mut Budget) -> Result<DeleteResult, Fault> {
        let mut writer = self.writer();
        let result = writer.delete_range(delete, budget)?;
        let change = writer.finish();
        self.keep(change);
        Ok(result)
    }

    fn txn(&mut self, txn: &Txn, budget: &mut Budget) -> Result<TxnResult, ReadError> {
        let path = Path::choose(&self.staged, txn)?;
        path.check(&self.staged, &self.state)?;
        let mut writer = self.writer();
        let result = run(&mut writer, &path, budget)?;
        let change = writer.finish();
        self.keep(change);
        Ok(result)
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

    fn lease_grant(&mut self, grant: &LeaseGrant) -> Result<LeaseGrantResult, ReadError> {
        if lease(&self.staged, grant.id)?.is_some() {
            return Err(Reject::LeaseExists.into());
        }
        let instance = lease::granted(&self.staged)? + 1;
        let mut counter = Vec::new();
        put_varint(&mut counter, instance);
        self.staged.put(Bytes::from_static(keys::LEASES_GRANTED), counter.into());
        let granted = Lease { id: grant.id, instance, ttl_s: grant.ttl_s.max(1), remaining_s: 0 };
        self.staged.put(keys::lease(grant.id).into(), granted.encode());
        self.lease_changes.push(LeaseChange::Granted(granted));
        Ok(LeaseGrantResult { id: granted.id, ttl_s: granted.ttl_s })
    }

    fn lease_revoke(&mut self, revoke: &LeaseRevoke) -> Result<OutcomeResult, ReadError> {
        if lease(&self.staged, revoke.id)?.is_none() {
            return Err(Reject::LeaseNotFound.into());
        }
        self.end_lease(revoke.id)?;
        Ok(OutcomeResult::LeaseRevoke)
    }

    /// What the proposer believed is checked here: the lease may have been revoked, and granted anew, in between.
    fn lease_expire(&mut self, expire: &LeaseExpire) -> Result<u64, Fault> {
        let (mut expired, mut deleted) = (0, 0);
        for expected in &expire.leases {
            if deleted >= limits::LEASE_EXPIRE_KEYS_MAX {
                break;
            }
            if lease(&self.staged, expected.id)?.is_some_and(|lease| lease.instance == expected.instance) {
                deleted += self.end_lease(expected.id)?;
                expired += 1;
            }
        }
        Ok(expired)
    }

    fn lease_checkpoint(&mut self, checkpoint: &LeaseCheckpoint) -> Result<u64, Fault> {
        let mut written = 0;
        for (expected, remaining_s) in &checkpoint.leases {
            let Some(found) = lease(&self.staged, expected.id)? else { continue };
            if found.instance == expected.instance {
                let remaining_s = (*remaining_s).clamp(0, found.ttl_s);
                let id = found.id;
                self.staged.put(keys::lease(id).into(), Lease { remaining_s, ..found }.encode());
                self.lease_changes.push(LeaseChange::Checkpointed { id, remaining_s });
                written += 1;
            }
        }
        Ok(written)
    }

    /// Deletes a lease with its keys, at one revision; answers with the number of keys.
    fn end_lease(&mut self, id: LeaseId) -> Result<usize, Fault> {
        let mut writer = self.writer();
        let deleted = writer.delete_attached(id)?;
        let change = writer.finish();
        self.keep(change);
        self.staged.delete(keys::lease(id).into());
        self.lease_changes.push(LeaseChange::Gone(id));
        Ok(deleted)
    }

    /// Answers whether it was not so before.
    fn alarm(&mut self, change: AlarmChange) -> bool {
        let AlarmChange { alarm, raise } = change;
        let row = keys::alarm(&alarm).into();
        match (self.alarms.binary_search(&alarm), raise) {
            (Ok(_), true) | (Err(_), false) => return false,
            (Err(at), true) => {
                self.alarms.insert(at, alarm);
                self.staged.put(row, alarm::RAISED);
            }
            (Ok(at), false) => {
                self.alarms.remove(at);
                self.staged.delete(row);
            }
        }
        true
    }

    fn member(&mut self, change: &MemberChange) -> Result<OutcomeResult, ReadError> {
        let mut members = members(&self.staged)?;
        let mut written = Vec::new();
        if members.is_empty() {
            members.clone_from(&change.founders);
            written.clone_from(&change.founders);
        }
        let find = |id| members.iter().find(|member| member.id == id);
        let present = |id| find(id).filter(|member| !member.removed).ok_or(Reject::MemberNotFound);
        let next = match &change.step {
            MemberStep::Add(member) if find(member.id).is_some() => return Err(Reject::MemberExists.into()),
            MemberStep::Add(member) => member.clone(),
            MemberStep::Update(id, urls) => MemberRecord { peer_urls: urls.clone(), ..present(*id)?.clone() },
            MemberStep::Remove(id) => MemberRecord { removed: true, ..present(*id)?.clone() },
        };
        if members.iter().any(|member| member.collides(&next)) {
            return Err(Reject::PeerUrlsExist.into());
        }
        // The last of two rows of one key counts.
        written.push(next);
        for member in written {
            self.staged.put(keys::member(member.id).into(), member.encode());
        }
        self.members_changed = true;
        Ok(OutcomeResult::Member)
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
        if planted(Defect::MarkApart) {
            // It comes with the batch after.
            let before = self.machine.mark.iter().cloned();
            before.for_each(|before| self.staged.put(Bytes::from_static(keys::MARK), before));
        } else {
            self.staged.put(Bytes::from_static(keys::MARK), mark.clone());
        }
        self.machine.state = self.state;
        self.machine.mark = Some(mark);
        self.machine.alarms = self.alarms;
        (self.staged.into_batch(), self.changes.unwrap_or_default())
    }
}

/// Runs a checked path. Once the budget is exceeded reads are left out, and what the result says is of no use.
fn run(writer: &mut Writer<'_>, path: &Path<'_>, budget: &mut Budget) -> Result<TxnResult, Fault> {
    let mut nested = path.nested.iter();
    let mut responses = Vec::new();
    for op in path.ops {
        let result = match op {
            Op::Range(range) => {
                if budget.is_open() {
                    responses.push(read_op(writer.view(), &writer.state(), range, budget)?);
                }
                continue;
            }
            Op::Put(put) => match writer.put(put, budget) {
                Ok(prev_kv) => OpResult::Put(PutResult { prev_kv }),
                Err(ReadError::Fault(fault)) => return Err(fault),
                Err(ReadError::Reject(reject)) => panic!("a checked put of {:?} was refused: {reject}", put.key),
            },
            Op::DeleteRange(delete) => OpResult::DeleteRange(writer.delete_range(delete, budget)?),
            Op::Txn(_) => {
                let inner = nested.next().expect("one path for each nested transaction");
                OpResult::Txn(run(writer, inner, budget)?)
            }
            Op::Empty => panic!("an empty operation passed the checks"),
        };
        if budget.is_open() {
            let revision = match result {
                OpResult::Txn(_) => Revision(0),
                _ => writer.state().revision,
            };
            responses.push(OpOutcome { revision, result });
        }
    }
    Ok(TxnResult { succeeded: path.succeeded, responses })
}
