//! The clients: each does one thing at a time, waits so long and no longer, and remembers what it was told.

mod locking;

use std::collections::{BTreeMap, VecDeque};

use base::{LeaseId, NodeId, Revision};
use bytes::Bytes;
use mvcc::{
    Command, Compact, Compare, CompareResult, CompareTarget, DeleteRange, KeyValue, LeaseGrant, LeaseRevoke, Op,
    OutcomeResult, Put, RangeRequest, Txn,
};

use crate::history::{Asked, Operation, Told};
use crate::locks::Errand;
use crate::workload::{
    ACCOUNTS, BANK, FORKS, Intent, LEASED, PAIRS, PlannedOperation, TOTAL, account_bytes, key_bytes, list_bytes,
    prefix_end,
};
use locking::{Holding, look_at_fence};

/// Who waits for an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Caller {
    Client(u64),
    /// Somebody who asked for a handover.
    Operator,
    /// Somebody who asked for a change of the members.
    Members,
    /// The node itself, for one that waits for a lock; with the operation in the history.
    Desk(Errand, usize),
}

/// What to read once a node is fresh enough.
#[derive(Clone, Debug)]
pub(crate) enum Reading {
    Range(RangeRequest),
    Txn(Txn),
}

/// A request at a node.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) caller: Caller,
    /// Place of the node's machine, and its life.
    pub(crate) machine: usize,
    pub(crate) life: u64,
    /// The read to serve once the node is fresh enough.
    pub(crate) read: Option<Reading>,
}

/// A client.
#[derive(Default)]
struct Client {
    /// Operations not begun.
    todo: VecDeque<usize>,
    /// The request it waits for.
    waiting: Option<u64>,
    /// The operation in the history it waits for, and the plan it belongs to.
    current: Option<(usize, usize)>,
    /// What comes after the answer.
    then: Then,
    /// The highest revision it was told of.
    seen: Revision,
    /// Counts its writes, for unique values.
    writes: u64,
    /// The lease it has, as far as it knows.
    lease: Option<LeaseId>,
    /// The lock it asked for last.
    wants: u64,
    /// The lock it holds, as far as it knows.
    holds: Option<Holding>,
}

/// The second step of what a client does.
#[derive(Clone, Copy, Default)]
enum Then {
    #[default]
    Nothing,
    /// The write of a read-modify-write.
    Write,
    /// This lock, now that there is a lease.
    Lock(u64),
}

/// All clients, and all requests on their way.
pub(crate) struct Clients {
    plan: Vec<PlannedOperation>,
    clients: Vec<Client>,
    pub(crate) calls: BTreeMap<u64, Call>,
    pub(crate) history: Vec<Operation>,
}

/// What a client does next.
pub(crate) enum Next {
    Nothing,
    /// Look again at this time.
    Wait(u64),
    /// Send this.
    Ask {
        node: NodeId,
        asked: Asked,
        patience_us: u64,
    },
}

impl Clients {
    pub(crate) fn new(plan: &[PlannedOperation]) -> Self {
        let count = plan.iter().map(|operation| operation.client + 1).max().unwrap_or(0);
        let mut clients: Vec<Client> = (0..count).map(|_| Client::default()).collect();
        for (place, operation) in plan.iter().enumerate() {
            clients[operation.client as usize].todo.push_back(place);
        }
        Self { plan: plan.to_vec(), clients, calls: BTreeMap::new(), history: Vec::new() }
    }

    pub(crate) fn count(&self) -> u64 {
        self.clients.len() as u64
    }

    /// Whether nobody waits and nobody has anything left to do.
    pub(crate) fn are_idle(&self) -> bool {
        self.clients.iter().all(|client| client.todo.is_empty() && client.current.is_none())
    }

    /// Whether this client still waits for this request.
    pub(crate) fn waits_for(&self, client: u64, ticket: u64) -> bool {
        self.clients[client as usize].waiting == Some(ticket)
    }

    /// The client has nothing under way and looks what to do. `start` is the world time of the plan's zero.
    pub(crate) fn next(&mut self, client: u64, start: u64, now: u64) -> Next {
        let place = client as usize;
        if self.clients[place].current.is_some() {
            return Next::Nothing;
        }
        let Some(&number) = self.clients[place].todo.front() else { return Next::Nothing };
        let planned = self.plan[number].clone();
        if start + planned.at > now {
            return Next::Wait(start + planned.at);
        }
        self.clients[place].todo.pop_front();
        self.clients[place].then = match planned.intent {
            Intent::Swap { .. } | Intent::Append { .. } | Intent::Transfer { .. } => Then::Write,
            _ => Then::Nothing,
        };
        let asked = self.first_step(client, &planned.intent);
        self.begin(client, number, now, asked)
    }

    fn begin(&mut self, client: u64, number: usize, now: u64, asked: Asked) -> Next {
        let planned = &self.plan[number];
        let operation = Operation {
            client,
            node: planned.node,
            connection: 0,
            called_at: now,
            returned_at: None,
            asked: asked.clone(),
            told: Told::Unknown,
        };
        self.clients[client as usize].current = Some((self.history.len(), number));
        self.history.push(operation);
        Next::Ask { node: planned.node, asked, patience_us: planned.patience_us }
    }

    pub(crate) fn sent(&mut self, client: u64, ticket: u64) {
        self.clients[client as usize].waiting = Some(ticket);
    }

    /// The request arrived at this node in this life of it, if the client still cares.
    pub(crate) fn arrived(&mut self, client: u64, ticket: u64, (node, life): (NodeId, u64)) {
        if let Some((operation, _)) = self.clients[client as usize].current.filter(|_| self.waits_for(client, ticket)) {
            (self.history[operation].node, self.history[operation].connection) = (node, life);
        }
    }

    /// The client learns what became of its request. Answers what it does next.
    pub(crate) fn told(&mut self, client: u64, now: u64, told: Told) -> Next {
        let place = client as usize;
        self.clients[place].waiting = None;
        let Some((operation, number)) = self.clients[place].current.take() else { return Next::Nothing };
        let seen = match &told {
            Told::Outcome(outcome) => outcome.revision,
            Told::Range(answer) => answer.revision,
            Told::Lock(Some(held)) => held.revision,
            Told::Lease(_) | Told::Lock(None) | Told::Rejected(_) | Told::NotDone | Told::Unknown => Revision(0),
        };
        self.clients[place].seen = self.clients[place].seen.max(seen);
        if matches!(told, Told::Lease(None)) {
            self.clients[place].lease = None;
        }
        self.learn_of_lock(client, operation, &told);
        let second = match (std::mem::take(&mut self.clients[place].then), &told) {
            (Then::Write, Told::Range(answer)) => Some(self.second_step(client, number, &answer.result.kvs)),
            (Then::Lock(lock), Told::Outcome(_)) => Some(self.lock(client, lock, 0)),
            _ => None,
        };
        let entry = &mut self.history[operation];
        entry.returned_at = (told != Told::Unknown).then_some(now);
        entry.told = told;
        match second {
            Some(asked) => self.begin(client, number, now, asked),
            None => Next::Wait(now),
        }
    }

    fn first_step(&mut self, client: u64, intent: &Intent) -> Asked {
        let seen = self.clients[client as usize].seen.0;
        match *intent {
            Intent::Put { key, padding } => {
                let value = self.value(client, padding);
                Asked::Write(Command::Put(put(key_bytes(key), value)))
            }
            Intent::Delete { key } => Asked::Write(Command::DeleteRange(delete(key, None))),
            Intent::DeleteRange { from, until } => Asked::Write(Command::DeleteRange(delete(from, Some(until)))),
            Intent::Get { key, serializable } => Asked::Read(read(key_bytes(key), None, serializable)),
            Intent::Range { from, until, serializable } => {
                Asked::Read(read(key_bytes(from), Some(key_bytes(until)), serializable))
            }
            Intent::GetPast { key, back } => {
                let revision = Revision((seen - back as i64).max(0));
                Asked::Read(RangeRequest { revision, ..read(key_bytes(key), None, false) })
            }
            Intent::Swap { key } => Asked::Read(read(key_bytes(key), None, client.is_multiple_of(2))),
            Intent::Append { list } => Asked::Read(read(list_bytes(list), None, false)),
            Intent::Transfer { serializable, .. } | Intent::Accounts { serializable } => {
                Asked::Read(read_prefix(BANK, serializable))
            }
            Intent::Forks { serializable } => Asked::Read(read_prefix(FORKS, serializable)),
            Intent::Fork => {
                let value = self.value(client, 0);
                Asked::Write(Command::Put(put(format!("{FORKS}{value}"), value)))
            }
            Intent::Pair { pair, second } => self.create_of_pair(client, pair, second),
            Intent::Unpair { pair } => {
                let prefix = format!("{PAIRS}{pair}/");
                let range_end = prefix_end(&prefix).into();
                Asked::Write(Command::DeleteRange(DeleteRange { key: prefix.into(), range_end, prev_kv: true }))
            }
            Intent::PutBoth { first, second } => {
                let (one, two) = (self.value(client, 0), self.value(client, 0));
                let mut success = vec![Op::Put(put(key_bytes(first), one))];
                if first != second {
                    success.push(Op::Put(put(key_bytes(second), two)));
                }
                let target = CompareTarget::Version(0);
                let compares = vec![compare(key_bytes(first), CompareResult::Greater, target)];
                let failure = vec![Op::Range(read(key_bytes(second), None, false))];
                Asked::Write(Command::Txn(Txn { compares, success, failure }))
            }
            Intent::Grant { ttl_s } => self.grant(client, ttl_s),
            Intent::KeepAlive => match self.clients[client as usize].lease {
                Some(lease) => Asked::KeepAlive(lease),
                None => self.grant(client, 3),
            },
            Intent::Attach { key } => {
                let Some(lease) = self.clients[client as usize].lease else { return self.grant(client, 5) };
                let (key, value) = (format!("{LEASED}{client}/{key}"), self.value(client, 0));
                Asked::Write(Command::Put(Put { lease, ..put(key, value) }))
            }
            Intent::Revoke => match self.clients[client as usize].lease.take() {
                Some(id) => Asked::Write(Command::LeaseRevoke(LeaseRevoke { id })),
                None => self.grant(client, 2),
            },
            Intent::Lock { lock, ttl_s } => self.lock(client, lock, ttl_s),
            Intent::Guarded { lock } => self.write_guarded(client).unwrap_or_else(|| look_at_fence(lock)),
            Intent::Unlock { lock } => self.unlock(client).unwrap_or_else(|| look_at_fence(lock)),
            Intent::Compact { back } => {
                Asked::Write(Command::Compact(Compact { revision: Revision((seen - back as i64).max(1)) }))
            }
        }
    }

    /// A lease nobody had before.
    fn grant(&mut self, client: u64, ttl_s: i64) -> Asked {
        let state = &mut self.clients[client as usize];
        state.writes += 1;
        let id = LeaseId(((client + 1) * 1_000_000 + state.writes) as i64);
        state.lease = Some(id);
        Asked::Write(Command::LeaseGrant(LeaseGrant { id, ttl_s }))
    }

    /// One key of a pair, if neither is there.
    fn create_of_pair(&mut self, client: u64, pair: u64, second: bool) -> Asked {
        let prefix = format!("{PAIRS}{pair}/");
        let (one, other) = (format!("{prefix}a"), format!("{prefix}b"));
        let absent = |key: &String| compare(key.clone(), CompareResult::Equal, CompareTarget::Version(0));
        let compares = vec![absent(&one), absent(&other)];
        let mine = if second { other } else { one };
        let success = vec![Op::Put(put(mine, self.value(client, 0)))];
        Asked::Write(Command::Txn(Txn { compares, success, failure: vec![Op::Range(read_prefix(PAIRS, false))] }))
    }

    /// The write of a read-modify-write: nothing happens if a key was changed since it was read.
    fn second_step(&mut self, client: u64, number: usize, found: &[KeyValue]) -> Asked {
        let (key, value) = match self.plan[number].intent {
            Intent::Transfer { from, to, amount, .. } => return transfer(found, (from, to), amount as i64),
            Intent::Append { list } => {
                let mine = self.element(client);
                let before = found.first().map(|kv| String::from_utf8_lossy(&kv.value).into_owned());
                (list_bytes(list), before.map_or(mine.clone(), |before| format!("{before},{mine}")))
            }
            Intent::Swap { key } => (key_bytes(key), self.value(client, 0)),
            _ => unreachable!("only swaps, appends and transfers have a second step"),
        };
        let failure = vec![Op::Range(read(key.clone(), None, false))];
        let compares = vec![unchanged(&key, found)];
        // The transaction shows what it read, so that its order among others can be told.
        let success = vec![Op::Range(read(key.clone(), None, false)), Op::Put(put(key, value))];
        Asked::Write(Command::Txn(Txn { compares, success, failure }))
    }

    /// An element nobody appends twice: a decimal number.
    fn element(&mut self, client: u64) -> String {
        let writes = &mut self.clients[client as usize].writes;
        *writes += 1;
        format!("{}{:06}", client + 1, *writes)
    }

    /// A value nobody writes twice.
    fn value(&mut self, client: u64, padding: u64) -> String {
        let writes = &mut self.clients[client as usize].writes;
        *writes += 1;
        format!("{client}.{writes}{}", "x".repeat(padding as usize))
    }
}

fn put(key: String, value: String) -> Put {
    Put { key: key.into(), value: value.into(), lease: LeaseId(0), ..Put::default() }
}

fn delete(from: u64, until: Option<u64>) -> DeleteRange {
    let range_end = until.map_or_else(Bytes::new, |until| key_bytes(until).into());
    DeleteRange { key: key_bytes(from).into(), range_end, prev_kv: true }
}

fn read(key: String, until: Option<String>, serializable: bool) -> RangeRequest {
    let range_end = until.map_or_else(Bytes::new, Bytes::from);
    RangeRequest { key: key.into(), range_end, serializable, ..RangeRequest::default() }
}

fn read_prefix(prefix: &str, serializable: bool) -> RangeRequest {
    read(prefix.to_owned(), Some(prefix_end(prefix)), serializable)
}

/// That a key is as it was found.
fn unchanged(key: &str, found: &[KeyValue]) -> Compare {
    let revision = found.iter().find(|kv| kv.key == key.as_bytes()).map_or(Revision(0), |kv| kv.mod_revision);
    compare(key.to_owned(), CompareResult::Equal, CompareTarget::ModRevision(revision))
}

/// Moves an amount if both accounts are as they were found; the first transfer opens them all.
fn transfer(found: &[KeyValue], (from, to): (u64, u64), amount: i64) -> Asked {
    let balance = |account: u64| {
        let kv = found.iter().find(|kv| kv.key == account_bytes(account).as_bytes());
        kv.and_then(|kv| std::str::from_utf8(&kv.value).ok()?.parse::<i64>().ok())
    };
    let (compares, balances) = match (balance(from), balance(to)) {
        (Some(poorer), Some(richer)) => {
            let compares = vec![unchanged(&account_bytes(from), found), unchanged(&account_bytes(to), found)];
            (compares, vec![(from, poorer - amount), (to, richer + amount)])
        }
        _ => {
            let compares = vec![unchanged(&account_bytes(0), &[])];
            (compares, (0..ACCOUNTS).map(|account| (account, TOTAL / ACCOUNTS as i64)).collect())
        }
    };
    let success = balances.iter().map(|(account, balance)| Op::Put(put(account_bytes(*account), balance.to_string())));
    let failure = vec![Op::Range(read_prefix(BANK, false))];
    Asked::Write(Command::Txn(Txn { compares, success: success.collect(), failure }))
}

fn compare(key: String, result: CompareResult, target: CompareTarget) -> Compare {
    Compare { key: key.into(), range_end: Bytes::new(), result, target }
}

/// Whether an outcome is a transaction that took its other branch.
pub(crate) fn is_conflict(told: &Told) -> bool {
    matches!(told, Told::Outcome(outcome) if matches!(&outcome.result, OutcomeResult::Txn(txn) if !txn.succeeded))
}
