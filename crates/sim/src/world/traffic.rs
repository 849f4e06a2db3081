//! Requests of clients on their way to nodes, and answers on their way back.

use base::NodeId;
use mvcc::Engine;
use mvcc::range::ReadError;
use node::{Event, LeaseAsk, Request, Response, Ticket};

use super::clients::{Call, Caller, Next, Reading, is_conflict};
use super::{Happening, START_US, World};
use crate::counters::Counter;
use crate::history::{Asked, Told};
use crate::machine::GROUP;
use crate::random::between;
use crate::report::FailureKind;

/// A transaction reads no more than this.
const READ_BYTES_MAX: usize = 1 << 20;

impl World<'_> {
    /// A client looks what to do.
    pub(super) fn client(&mut self, client: u64) {
        let now = self.now();
        let next = self.clients.next(client, START_US, now);
        self.follow(client, next);
    }

    fn follow(&mut self, client: u64, next: Next) {
        match next {
            Next::Nothing => {}
            Next::Wait(at) => self.schedule.at(at, Happening::Client(client)),
            Next::Ask { node, asked, patience_us } => {
                let ticket = self.ticket();
                self.clients.sent(client, ticket);
                let node = self.operator.in_place_of(node, self.config.nodes, ticket);
                let now = self.now();
                self.trace.note(now, 40, || format!("client {client} asks {node} #{ticket}: {asked:?}"));
                let delay = between(&mut self.chance.network, 50, 400);
                self.schedule.after(delay, Happening::Arrive { ticket, node, client, asked: Box::new(asked) });
                self.schedule.after(patience_us, Happening::Patience { client, ticket });
            }
        }
    }

    /// A request arrives at a node.
    pub(super) fn arrive(&mut self, ticket: u64, node: NodeId, client: u64, asked: Asked) {
        let machine = self.place(node);
        let state = &self.machines[machine];
        if state.process.is_none() {
            // Nobody listens: surely not done.
            return self.send_answer(client, ticket, Told::NotDone);
        }
        self.clients.arrived(client, ticket, (node, state.life));
        if matches!(asked, Asked::Write(_)) {
            self.monitor.attempted(node, self.schedule.now());
        }
        let call = Call { caller: Caller::Client(client), machine, life: state.life, read: None };
        match asked {
            Asked::Read(request) if request.serializable => {
                let told = self.read(machine, &request);
                self.counters.count(Counter::LocalReads);
                self.send_answer(client, ticket, told);
            }
            Asked::Lock { name, lease } => {
                self.clients.calls.insert(ticket, call);
                self.begin_lock(machine, ticket, name, lease);
            }
            Asked::Unlock { key } => {
                self.clients.calls.insert(ticket, call);
                self.begin_unlock(machine, ticket, key);
            }
            asked => self.submit(machine, ticket, call, asked),
        }
    }

    /// The node is asked, in whosever name.
    pub(super) fn submit(&mut self, machine: usize, ticket: u64, call: Call, asked: Asked) {
        let (read, request) = match asked {
            Asked::Read(request) => (Some(Reading::Range(request)), Request::Read { group: GROUP }),
            Asked::ReadTxn(txn) => (Some(Reading::Txn(txn)), Request::Read { group: GROUP }),
            Asked::KeepAlive(lease) => (None, Request::Lease { group: GROUP, lease, ask: LeaseAsk::KeepAlive }),
            Asked::Write(command) => (None, Request::Propose { group: GROUP, payload: command.encode() }),
            Asked::Lock { .. } | Asked::Unlock { .. } => unreachable!("the lock service asks for something else"),
        };
        self.clients.calls.insert(ticket, Call { read, ..call });
        self.tell(machine, Event::Request(Ticket(ticket), request));
    }

    fn read(&mut self, machine: usize, request: &mvcc::RangeRequest) -> Told {
        match mvcc::range(&*self.machines[machine].engine.view(), request) {
            Ok(answer) => Told::Range(answer),
            Err(ReadError::Reject(reject)) => Told::Rejected(reject),
            Err(ReadError::Fault(fault)) => {
                self.fail(FailureKind::Stopped, format!("a read fails: {fault}"));
                Told::NotDone
            }
        }
    }

    fn read_txn(&mut self, machine: usize, txn: &mvcc::Txn) -> Told {
        match mvcc::read_txn(&*self.machines[machine].engine.view(), txn, READ_BYTES_MAX) {
            Ok(outcome) => Told::Outcome(outcome),
            Err(fault) => {
                self.fail(FailureKind::Stopped, format!("a transaction that reads fails: {fault}"));
                Told::NotDone
            }
        }
    }

    /// The node answers a request itself.
    pub(super) fn reply(&mut self, machine: usize, ticket: Ticket, response: &Response) {
        let told = match response {
            Response::ReadReady => {
                let read = self.clients.calls.get(&ticket.0).and_then(|call| call.read.clone());
                match read {
                    Some(Reading::Range(request)) => self.read(machine, &request),
                    Some(Reading::Txn(txn)) => self.read_txn(machine, &txn),
                    None => {
                        let detail = format!("request {} is no read and is told to read", ticket.0);
                        return self.fail(FailureKind::Answers, detail);
                    }
                }
            }
            Response::Done => {
                let caller = self.clients.calls.get(&ticket.0).map(|call| call.caller);
                self.counters.add(Counter::Transfers, u64::from(caller == Some(Caller::Operator)));
                Told::NotDone
            }
            Response::Lease(times) => Told::Lease(*times),
            Response::Refused(_) | Response::TimedOut | Response::Superseded => Told::NotDone,
            Response::Unknown(_) => Told::Unknown,
        };
        self.answer(machine, ticket, told);
    }

    /// An answer leaves a node: exactly one for each request.
    pub(super) fn answer(&mut self, machine: usize, ticket: Ticket, told: Told) {
        let now = self.now();
        let life = self.machines[machine].life;
        self.trace.note(now, 41, || format!("n{} answers #{}: {told:?}", machine + 1, ticket.0));
        let Some(call) = self.clients.calls.remove(&ticket.0) else {
            let detail = format!("n{} answers request {} again: {told:?}", machine + 1, ticket.0);
            return self.fail(FailureKind::Answers, detail);
        };
        if (call.machine, call.life) != (machine, life) {
            let detail = format!("n{} answers request {} of another node: {told:?}", machine + 1, ticket.0);
            return self.fail(FailureKind::Answers, detail);
        }
        if matches!(told, Told::Outcome(_)) && call.read.is_none() {
            self.monitor.wrote(now);
            let is_late = self.machines[machine].id.0 > self.config.nodes;
            self.counters.add(Counter::DoneByJoined, u64::from(is_late));
        }
        match call.caller {
            Caller::Client(client) => self.send_answer(client, ticket.0, told),
            Caller::Members => self.operator.answered(ticket.0),
            Caller::Operator => {}
            Caller::Desk(errand, operation) => self.errand_done(machine, errand, operation, told),
        }
    }

    fn send_answer(&mut self, client: u64, ticket: u64, told: Told) {
        if self.chance.network.below(1000) < self.plan.shape.answers_lost && !self.healed {
            return;
        }
        let delay = between(&mut self.chance.network, 50, 400);
        self.schedule.after(delay, Happening::Answer { client, ticket, told: Box::new(told) });
    }

    /// An answer arrives.
    pub(super) fn answered(&mut self, client: u64, ticket: u64, told: Told) {
        if !self.clients.waits_for(client, ticket) {
            return;
        }
        self.count(&told);
        if let Some(is_done) = self.clients.guarded(client, &told) {
            self.counters.count(if is_done { Counter::GuardedWrites } else { Counter::GuardsHeld });
        }
        let now = self.now();
        let next = self.clients.told(client, now, told);
        self.follow(client, next);
    }

    /// The client has waited long enough.
    pub(super) fn impatient(&mut self, client: u64, ticket: u64) {
        if self.clients.waits_for(client, ticket) {
            self.give_up_lock(ticket);
            // A read that nobody hears the answer of has no effect; of a write nobody can tell.
            let now = self.now();
            self.count(&Told::Unknown);
            let next = self.clients.told(client, now, Told::Unknown);
            self.follow(client, next);
        }
    }

    /// The node died: whoever waits there learns that the connection broke.
    pub(super) fn break_calls(&mut self, machine: usize) {
        self.break_watches(machine);
        let gone: Vec<_> = self.clients.calls.extract_if(.., |_, call| call.machine == machine).collect();
        for (ticket, call) in gone {
            match call.caller {
                Caller::Client(client) => self.send_answer(client, ticket, Told::Unknown),
                Caller::Members => self.operator.answered(ticket),
                // Nobody is there to be told: what the node asked for itself stays unknown.
                Caller::Operator | Caller::Desk(..) => {}
            }
        }
    }

    fn count(&mut self, told: &Told) {
        match told {
            Told::Outcome(_) => self.counters.count(Counter::Writes),
            Told::Range(_) => self.counters.count(Counter::Reads),
            Told::Lease(Some(_)) => self.counters.count(Counter::LeasesRenewed),
            Told::Lease(None) => self.counters.count(Counter::LeasesNotFound),
            // Counted where they are granted, or lost.
            Told::Lock(_) => {}
            Told::Rejected(_) => self.counters.count(Counter::RevisionRefused),
            Told::NotDone => return self.counters.count(Counter::NotDone),
            Told::Unknown => return self.counters.count(Counter::Unknown),
        }
        self.counters.add(Counter::Conflicts, u64::from(is_conflict(told)));
        if let Told::Outcome(outcome) = told
            && matches!(outcome.result, mvcc::OutcomeResult::Compact(_))
        {
            self.counters.count(Counter::Compactions);
        }
        let phase = self.phase();
        self.counters.count(phase);
    }
}
