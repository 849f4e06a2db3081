//! Locks: what a node's lock service does between its clients and its store.
//!
//! Invariant: as in the server, whoever waits looks at its own node's engine, which may be behind; what is asked of the
//! store is fresh, and is in the history as an operation of the node's own.

use base::{LeaseId, Revision};
use bytes::Bytes;
use mvcc::{Command, DeleteRange, Engine, OutcomeResult, Reject};
use node::Ticket;
use node::recipe::{self, Look, Place};

use super::clients::{Call, Caller};
use super::{Happening, World};
use crate::counters::Counter;
use crate::history::{Asked, Held, Operation, Told};
use crate::locks::{Contender, DESKS, Errand, LockDesk, Standing};
use crate::random::between;
use crate::report::FailureKind;

/// The shortest way of an answer.
const ANSWER_US: u64 = 50;

/// Something about locks that happens at a node, in one life of its machine.
#[derive(Clone, Copy)]
pub(crate) enum LockStep {
    /// Those who wait look whether the keys before theirs are gone.
    Wake,
    /// The client of this request went away.
    HangUp { ticket: u64 },
}

impl World<'_> {
    pub(super) fn lock_step(&mut self, machine: usize, life: u64, step: LockStep) {
        if !self.is_due(machine, life, 0, || Happening::Lock { machine, life, step }) {
            return;
        }
        match step {
            LockStep::Wake => self.wake_contenders(machine),
            LockStep::HangUp { ticket } => {
                if let Some(contender) = self.locks(machine).and_then(|locks| locks.contenders.remove(&ticket)) {
                    self.clients.calls.remove(&ticket);
                    self.leave_queue(machine, contender.place);
                }
            }
        }
    }

    fn locks(&mut self, machine: usize) -> Option<&mut LockDesk> {
        self.machines[machine].process.as_mut().map(|process| &mut process.locks)
    }

    /// A request for a lock arrived.
    pub(super) fn begin_lock(&mut self, machine: usize, ticket: u64, name: Bytes, lease: LeaseId) {
        let join = recipe::join(&name, lease, Bytes::new());
        let contender = Contender { name, lease, place: None, standing: Standing::Joining };
        let Some(locks) = self.locks(machine) else { return };
        locks.contenders.insert(ticket, contender);
        self.run_errand(machine, Errand::Join(ticket), Asked::Write(Command::Txn(join)));
    }

    /// A lock is given back.
    pub(super) fn begin_unlock(&mut self, machine: usize, ticket: u64, key: Bytes) {
        let delete = DeleteRange { key: key.clone(), prev_kv: true, ..DeleteRange::default() };
        let Some(locks) = self.locks(machine) else { return };
        locks.unlocking.insert(ticket, key);
        self.run_errand(machine, Errand::Unlock(ticket), Asked::Write(Command::DeleteRange(delete)));
    }

    /// The node asks its store, like a client of its own.
    fn run_errand(&mut self, machine: usize, errand: Errand, asked: Asked) {
        let (ticket, now) = (self.ticket(), self.now());
        let state = &self.machines[machine];
        let (node, life) = (state.id, state.life);
        let operation = self.clients.history.len();
        self.trace.note(now, 42, || format!("{node} asks itself #{ticket}, for {errand:?}: {asked:?}"));
        self.clients.history.push(Operation {
            client: DESKS + machine as u64,
            node,
            connection: life,
            called_at: now,
            returned_at: None,
            asked: asked.clone(),
            told: Told::Unknown,
        });
        let call = Call { caller: Caller::Desk(errand, operation), machine, life, read: None };
        self.submit(machine, ticket, call, asked);
    }

    /// The store answered.
    pub(super) fn errand_done(&mut self, machine: usize, errand: Errand, operation: usize, told: Told) {
        let now = self.now();
        let entry = &mut self.clients.history[operation];
        // As late as a client would have known: commands of one batch happen within these microseconds.
        entry.returned_at = (told != Told::Unknown).then_some(now + ANSWER_US);
        entry.told = told.clone();
        match errand {
            Errand::Join(ticket) => self.joined(machine, ticket, told),
            Errand::Look(ticket) => self.looked(machine, ticket, told),
            Errand::Unlock(ticket) => self.unlocked(machine, ticket, told),
            Errand::Leave => {}
        }
    }

    fn joined(&mut self, machine: usize, ticket: u64, told: Told) {
        let Some(contender) = self.locks(machine).and_then(|locks| locks.contenders.get_mut(&ticket)) else { return };
        let (revision, result) = match done(&told) {
            Some((revision, OutcomeResult::Txn(result))) => (revision, result),
            Some((_, OutcomeResult::Rejected(Reject::LeaseNotFound))) => {
                self.counters.count(Counter::LocksLost);
                return self.end_lock(machine, ticket, Told::Lock(None));
            }
            _ => return self.end_lock(machine, ticket, refusal(&told)),
        };
        let place = Place::joined(&contender.name, contender.lease, revision, result);
        contender.place = Some(place.clone());
        match place.first_at {
            Some(revision) => self.grant_lock(machine, ticket, &place, revision),
            None => self.look_at_queue(machine, ticket, false),
        }
    }

    fn look_at_queue(&mut self, machine: usize, ticket: u64, waited: bool) {
        let Some(contender) = self.locks(machine).and_then(|locks| locks.contenders.get_mut(&ticket)) else { return };
        contender.standing = Standing::Looking { waited };
        let look = contender.place.as_ref().map(Place::look).expect("looks at the queue it stands in");
        self.run_errand(machine, Errand::Look(ticket), Asked::ReadTxn(look));
    }

    fn looked(&mut self, machine: usize, ticket: u64, told: Told) {
        let Some(contender) = self.locks(machine).and_then(|locks| locks.contenders.get_mut(&ticket)) else { return };
        let Standing::Looking { waited } = contender.standing else { return };
        let (Some(place), Some((revision, OutcomeResult::Txn(result)))) = (contender.place.clone(), done(&told)) else {
            return self.end_lock(machine, ticket, refusal(&told));
        };
        match place.looked(waited, revision, result) {
            Look::First(revision) => self.grant_lock(machine, ticket, &place, revision),
            Look::Gone => {
                self.counters.count(Counter::LocksLost);
                self.end_lock(machine, ticket, Told::Lock(None));
            }
            Look::Behind(key, created) => {
                contender.standing = Standing::Waiting { key, created };
                self.counters.count(Counter::LockWaits);
                self.wake_locks(machine);
            }
        }
    }

    fn grant_lock(&mut self, machine: usize, ticket: u64, place: &Place, revision: Revision) {
        let Some(locks) = self.locks(machine) else { return };
        locks.contenders.remove(&ticket);
        self.counters.count(Counter::LocksGranted);
        let held = Held { revision, key: place.key.clone(), token: place.created };
        self.answer(machine, Ticket(ticket), Told::Lock(Some(held)));
    }

    /// The request comes to nothing.
    fn end_lock(&mut self, machine: usize, ticket: u64, told: Told) {
        let Some(contender) = self.locks(machine).and_then(|locks| locks.contenders.remove(&ticket)) else { return };
        self.answer(machine, Ticket(ticket), told);
        self.leave_queue(machine, contender.place);
    }

    fn leave_queue(&mut self, machine: usize, place: Option<Place>) {
        // A place that was there before belongs to another request of that lease.
        if let Some(place) = place.filter(|place| place.is_new) {
            let leave = recipe::leave(&place.key, place.created);
            self.run_errand(machine, Errand::Leave, Asked::Write(Command::Txn(leave)));
        }
    }

    fn unlocked(&mut self, machine: usize, ticket: u64, told: Told) {
        let Some(key) = self.locks(machine).and_then(|locks| locks.unlocking.remove(&ticket)) else { return };
        let told = match done(&told) {
            Some((revision, OutcomeResult::DeleteRange(deleted))) => {
                let token = deleted.prev_kvs.first().map_or(Revision(0), |pair| pair.create_revision);
                Told::Lock(Some(Held { revision, key, token }))
            }
            _ => refusal(&told),
        };
        self.answer(machine, Ticket(ticket), told);
    }

    /// The engine shows a new state, or somebody begins to wait.
    pub(super) fn wake_locks(&mut self, machine: usize) {
        let life = self.machines[machine].life;
        let Some(locks) = self.locks(machine).filter(|locks| locks.is_wanted() && !locks.wakes) else { return };
        locks.wakes = true;
        let delay = between(&mut self.chance.host, 2, 300);
        self.schedule.after(delay, Happening::Lock { machine, life, step: LockStep::Wake });
    }

    fn wake_contenders(&mut self, machine: usize) {
        let view = self.machines[machine].engine.view();
        let Some(locks) = self.locks(machine) else { return };
        locks.wakes = false;
        let waiting = locks.contenders.iter().filter_map(|(ticket, contender)| match &contender.standing {
            Standing::Waiting { key, created } => {
                Some(recipe::is_gone(&*view, key, *created).map(|gone| (*ticket, gone)))
            }
            Standing::Joining | Standing::Looking { .. } => None,
        });
        let waiting: Result<Vec<_>, _> = waiting.collect();
        let found = waiting.map_err(|error| format!("a contender cannot look at the engine: {error:?}"));
        for (ticket, _) in self.judge(FailureKind::Stopped, found).into_iter().flatten().filter(|(_, gone)| *gone) {
            self.look_at_queue(machine, ticket, true);
        }
    }

    /// A client does not wait for this request any more. Mostly the node learns of it.
    pub(super) fn give_up_lock(&mut self, ticket: u64) {
        let Some(Call { machine, life, .. }) = self.clients.calls.get(&ticket).cloned() else { return };
        let is_lock = self.locks(machine).is_some_and(|locks| locks.contenders.contains_key(&ticket));
        if is_lock && self.chance.network.below(100) < 80 {
            let delay = between(&mut self.chance.network, 50, 400);
            self.schedule.after(delay, Happening::Lock { machine, life, step: LockStep::HangUp { ticket } });
        }
    }
}

/// What the store did.
fn done(told: &Told) -> Option<(Revision, &OutcomeResult)> {
    match told {
        Told::Outcome(outcome) => Some((outcome.revision, &outcome.result)),
        _ => None,
    }
}

/// What the client is told when the store did not answer what was asked.
fn refusal(told: &Told) -> Told {
    if *told == Told::Unknown { Told::Unknown } else { Told::NotDone }
}
