//! Legal histories: clients that overlap, lag, give up and never learn what became of their writes.
//!
//! Invariant: every operation takes effect at one moment between its invocation and its answer; those of unknown
//! outcome at any later moment, or never.

use check::history::{
    Bytes, Compare, CompareResult, CompareTarget, DeleteRange, Header, History, Level, Numbering, Op, Operation,
    Outcome, Put, Range, Request, Response, Revision, Txn, Workload,
};

use crate::model::Model;
use crate::random::Random;

/// What to generate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) operations: u64,
    pub(crate) clients: u64,
    pub(crate) keys: u64,
    /// One operation in so many has an unknown outcome.
    pub(crate) unknown_one_in: u64,
    pub(crate) numbering: Numbering,
}

impl Default for Shape {
    fn default() -> Self {
        Self { operations: 300, clients: 5, keys: 6, unknown_one_in: 15, numbering: Numbering::Dense }
    }
}

/// Operations after which other lists are used, so that lists stay short.
const LIST_OPERATIONS: usize = 400;
/// Keys of the long fork, all in one answer.
const FORKS_MAX: usize = 60;
/// Accounts of the bank, and what is on each at first.
const ACCOUNTS: u64 = 4;
const BALANCE: i64 = 25;

/// An operation that was invoked and not finished.
struct Pending {
    at: usize,
    /// Answer, once it took effect.
    effect: Option<(Revision, Response)>,
}

/// A run.
struct Run {
    shape: Shape,
    random: Random,
    model: Model,
    clock: u64,
    operations: Vec<Operation>,
    /// What each client waits for.
    clients: Vec<Option<Pending>>,
    /// Writes whose clients gave up, and that may still take effect.
    orphans: Vec<usize>,
    /// How far each node has applied.
    applied: Vec<Revision>,
}

/// A legal history.
pub(crate) fn history(seed: u64, shape: Shape) -> History {
    let mut run = Run {
        shape,
        random: Random::new(seed),
        model: Model::new(),
        clock: 0,
        operations: Vec::new(),
        clients: (0..shape.clients).map(|_| None).collect(),
        orphans: Vec::new(),
        applied: vec![1; 3],
    };
    run.open_bank();
    while (run.operations.len() as u64) < shape.operations || run.clients.iter().any(Option::is_some) {
        run.step();
    }
    let prefix = |text: &str| Bytes::from(text);
    let header = Header {
        nodes: Vec::new(),
        start_revision: 1,
        numbering: shape.numbering,
        workloads: vec![
            Workload::ListAppend { prefix: prefix("list/") },
            Workload::Bank { prefix: prefix("bank/"), accounts: ACCOUNTS, total: ACCOUNTS as i64 * BALANCE },
            Workload::WriteSkew { prefix: prefix("pair/") },
            Workload::LongFork { prefix: prefix("fork/") },
        ],
    };
    History { header, operations: run.operations }
}

pub(crate) fn put(key: &str, value: &str) -> Put {
    Put { key: key.into(), value: value.into(), ..Put::default() }
}

pub(crate) fn get(key: &str) -> Range {
    Range { key: key.into(), ..Range::default() }
}

pub(crate) fn prefix(key: &str) -> Range {
    let mut end = key.as_bytes().to_vec();
    *end.last_mut().expect("a prefix") += 1;
    Range { range_end: end.into(), ..get(key) }
}

pub(crate) fn equal(key: &str, target: CompareTarget) -> Compare {
    Compare { key: key.into(), range_end: Bytes::default(), result: CompareResult::Equal, target }
}

impl Run {
    fn open_bank(&mut self) {
        let names: Vec<String> = (0..ACCOUNTS).map(|account| format!("bank/{account}")).collect();
        let success = names.iter().map(|name| Op::Put(put(name, &BALANCE.to_string()))).collect();
        self.invoke(0, Request::Txn(Txn { success, ..Txn::default() }));
        self.finish(0, false);
    }

    fn step(&mut self) {
        self.clock += 1 + self.random.below(3);
        if self.random.one_in(4) {
            let node = self.random.below(3) as usize;
            self.applied[node] = self.model.revision;
        }
        if !self.orphans.is_empty() && self.random.one_in(6) {
            let at = self.random.below(self.orphans.len() as u64) as usize;
            let orphan = self.orphans.swap_remove(at);
            // Some never happen.
            if !self.random.one_in(2) {
                let request = self.operations[orphan].request.clone();
                self.model.apply(&request);
            }
        }
        let client = self.random.below(self.shape.clients) as usize;
        match self.clients[client].take() {
            None if (self.operations.len() as u64) < self.shape.operations => {
                let request = self.request();
                self.invoke(client, request);
            }
            None => {}
            Some(pending) if pending.effect.is_none() && self.random.one_in(2) => {
                self.clients[client] = Some(pending);
                self.take_effect(client);
            }
            Some(pending) => {
                self.clients[client] = Some(pending);
                let is_lost = self.random.one_in(self.shape.unknown_one_in);
                self.finish(client, is_lost);
            }
        }
    }

    fn invoke(&mut self, client: usize, request: Request) {
        let (id, at) = (self.operations.len() as u64, self.operations.len());
        self.operations.push(Operation {
            id,
            client: client as u64,
            node: (client % 3) as u64,
            connection: 0,
            invoked: self.clock,
            returned: None,
            request,
            outcome: Outcome::Unknown,
        });
        self.clients[client] = Some(Pending { at, effect: None });
    }

    fn take_effect(&mut self, client: usize) {
        let pending = self.clients[client].as_mut().expect("a pending operation");
        let operation = &self.operations[pending.at];
        pending.effect = Some(match &operation.request {
            Request::Range(range) if range.level != Level::Strict => {
                let at = match range.level {
                    Level::Session { min_revision } => self.applied[operation.node as usize].max(min_revision),
                    Level::Serializable | Level::Strict => self.applied[operation.node as usize],
                };
                self.applied[operation.node as usize] = at;
                (at, self.model.range(range, at))
            }
            request => {
                let effect = self.model.apply(request);
                // A node answers what it has applied.
                self.applied[operation.node as usize] = effect.0;
                effect
            }
        });
    }

    fn finish(&mut self, client: usize, is_lost: bool) {
        self.clock += 1;
        let at = self.clients[client].as_ref().expect("a pending operation").at;
        if is_lost {
            let pending = self.clients[client].take().expect("a pending operation");
            if self.random.one_in(2) {
                self.operations[at].returned = Some(self.clock);
            }
            if pending.effect.is_none() && self.operations[at].request.may_write() {
                self.orphans.push(at);
            }
            return;
        }
        if self.clients[client].as_ref().is_some_and(|pending| pending.effect.is_none()) {
            self.take_effect(client);
        }
        let pending = self.clients[client].take().expect("a pending operation");
        let (revision, response) = pending.effect.expect("it took effect");
        let operation = &mut self.operations[at];
        operation.returned = Some(self.clock);
        operation.outcome = match &operation.request {
            // What the store refuses because of the past.
            Request::Range(range) if range.revision > revision => Outcome::Failed { reason: "future".to_owned() },
            _ => Outcome::Done { revision, response },
        };
    }

    fn request(&mut self) -> Request {
        let number = self.operations.len();
        let key = format!("key/{}", self.random.below(self.shape.keys));
        let value = format!("v{number}");
        let current = self.model.get(key.as_bytes(), self.model.revision).map_or(0, |pair| pair.mod_revision);
        match self.random.below(20) {
            0..=3 => Request::Put(put(&key, &value)),
            4 => Request::Put(Put { prev_kv: true, ..put(&key, &value) }),
            5 | 6 => {
                let prev_kv = self.random.one_in(2);
                Request::DeleteRange(DeleteRange { key: key.as_str().into(), prev_kv, ..DeleteRange::default() })
            }
            7 if self.random.one_in(4) => {
                let Range { key, range_end, .. } = prefix("key/");
                Request::DeleteRange(DeleteRange { key, range_end, prev_kv: true })
            }
            7 | 8 => Request::Range(get(&key)),
            9 => Request::Range(prefix("key/")),
            10 => {
                let levels = [Level::Serializable, Level::Session { min_revision: self.applied[0] }];
                let level = *self.random.pick(&levels);
                Request::Range(Range { level, ..prefix("key/") })
            }
            11 => {
                let revision = 1 + self.random.below(self.model.revision as u64) as i64;
                Request::Range(Range { revision, ..get(&key) })
            }
            12 | 13 => {
                let compares = vec![equal(&key, CompareTarget::Mod(current))];
                let success = vec![Op::Put(put(&key, &value))];
                Request::Txn(Txn { compares, success, failure: vec![Op::Range(get(&key))] })
            }
            14 => self.transfer(),
            15 => Request::Range(prefix("bank/")),
            16 => self.create_one_of_a_pair(),
            17 => self.fork(number),
            _ => self.append(number),
        }
    }

    fn append(&mut self, number: usize) -> Request {
        let mut txn = Txn::default();
        for list in 0..3 {
            if self.random.one_in(2) {
                continue;
            }
            let key = format!("list/{}/{list}", number / LIST_OPERATIONS);
            let (revision, old) = self.now(&key);
            txn.compares.push(equal(&key, CompareTarget::Mod(revision)));
            txn.success.push(Op::Range(get(&key)));
            if self.random.one_in(2) {
                let comma = if old.is_empty() { "" } else { "," };
                txn.success.push(Op::Put(put(&key, &format!("{old}{comma}{number}"))));
            }
        }
        txn.failure.push(Op::Range(prefix(&format!("list/{}/", number / LIST_OPERATIONS))));
        Request::Txn(txn)
    }

    fn now(&self, key: &str) -> (Revision, String) {
        let pair = self.model.get(key.as_bytes(), self.model.revision);
        let text = |value: &Bytes| String::from_utf8(value.to_vec()).expect("text");
        pair.map_or((0, String::new()), |pair| (pair.mod_revision, text(&pair.value)))
    }

    fn transfer(&mut self) -> Request {
        let from = self.random.below(ACCOUNTS);
        let to = (from + 1 + self.random.below(ACCOUNTS - 1)) % ACCOUNTS;
        let mut txn = Txn::default();
        for (account, amount) in [(from, -1), (to, 1)] {
            let key = format!("bank/{account}");
            let (revision, balance) = self.now(&key);
            let balance: i64 = balance.parse().expect("a balance");
            txn.compares.push(equal(&key, CompareTarget::Mod(revision)));
            txn.success.push(Op::Put(put(&key, &(balance + amount).to_string())));
        }
        txn.failure.push(Op::Range(prefix("bank/")));
        Request::Txn(txn)
    }

    fn create_one_of_a_pair(&mut self) -> Request {
        let pair = self.random.below(4);
        let (one, two) = (format!("pair/{pair}/a"), format!("pair/{pair}/b"));
        let chosen = if self.random.one_in(2) { &one } else { &two };
        let compares = [&one, &two].map(|key| equal(key, CompareTarget::Version(0))).to_vec();
        let success = vec![Op::Put(put(chosen, "1"))];
        Request::Txn(Txn { compares, success, failure: vec![Op::Range(get(&one)), Op::Range(get(&two))] })
    }

    fn fork(&mut self, number: usize) -> Request {
        if self.random.one_in(2) {
            let key = format!("fork/{}", number % FORKS_MAX);
            return Request::Txn(Txn {
                compares: vec![equal(&key, CompareTarget::Version(0))],
                success: vec![Op::Put(put(&key, "1"))],
                failure: Vec::new(),
            });
        }
        let level = if self.random.one_in(2) { Level::Serializable } else { Level::Strict };
        Request::Range(Range { level, ..prefix("fork/") })
    }
}

#[test]
fn generated_histories_hold_everything_that_is_judged() {
    let history = history(1, Shape { operations: 2000, ..Shape::default() });
    history.validate().unwrap();
    let has = |what: &dyn Fn(&Operation) -> bool| history.operations.iter().filter(|one| what(one)).count();
    assert!(has(&|one| one.is_unknown()) > 50);
    assert!(
        has(&|one| matches!(one.outcome, Outcome::Done { response: Response::Txn { succeeded: true, .. }, .. })) > 50
    );
    assert!(
        has(&|one| matches!(one.outcome, Outcome::Done { response: Response::Txn { succeeded: false, .. }, .. })) > 20
    );
    assert!(has(&|one| one.request.level() != Level::Strict) > 50);
}
