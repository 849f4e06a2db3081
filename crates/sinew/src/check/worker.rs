//! One client of the load: one request in flight, another endpoint after each failure.
//!
//! Invariant: every request that leaves is recorded with its answer, exactly once. All keys begin with the prefix of
//! the run. Values are unique, so that an answer tells which write it saw.

use std::rc::Rc;
use std::time::Duration;

use ::check::history::{
    Bytes, Compare, CompareResult, CompareTarget, DeleteRange, KeyValue, Level, Op, Outcome, Put, Range, Request,
    Response, Revision, Txn,
};
use base::Prng;
use tokio::time::{Instant, sleep, sleep_until};

use super::connection::Connection;
use super::load::{ACCOUNTS, FORKS_MAX, LIST_APPENDS, LISTS, PAIRS, Shared};
use super::recorder::Caller;

/// Pause after an endpoint that could not be reached.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// A client.
pub(super) struct Worker {
    shared: Rc<Shared>,
    prng: Prng,
    caller: Caller,
    connection: Option<Connection>,
    /// The number of the next value.
    next: u64,
    /// The last revision it was told of.
    seen: Revision,
}

impl Worker {
    pub(super) fn new(shared: Rc<Shared>, client: u64, seed: u64) -> Self {
        let node = client % shared.endpoints.len() as u64;
        let caller = Caller { client, node, connection: 0 };
        Self { shared, prng: Prng::new(seed), caller, connection: None, next: 0, seen: 0 }
    }

    /// The same client number on a connection of its own.
    pub(super) fn on_connection(mut self, connection: u64) -> Self {
        self.caller.connection = connection;
        self
    }

    /// A number below `bound`, at random.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.prng.below(bound)
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(super) fn client(&self) -> u64 {
        self.caller.client
    }

    /// Works until the load is over.
    pub(super) async fn work(mut self) {
        let mut due = Instant::now();
        while !self.shared.is_over() {
            self.one_task().await;
            due = (due + self.shared.pace).max(Instant::now());
            sleep_until(due).await;
        }
    }

    /// Asks; `None` if the answer is not there or is a refusal.
    pub(super) async fn ask(&mut self, request: Request) -> Option<(Revision, Response)> {
        self.ask_by(request, false).await
    }

    /// The same for a write under a token, with the token in the request's metadata.
    pub(super) async fn ask_fenced(&mut self, txn: Txn) -> Option<(Revision, Response)> {
        self.ask_by(Request::Txn(txn), true).await
    }

    async fn ask_by(&mut self, request: Request, is_fenced: bool) -> Option<(Revision, Response)> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let endpoint = &self.shared.endpoints[self.caller.node as usize];
                match Connection::open(&self.shared.settings, endpoint).await {
                    Ok(connection) => connection,
                    Err(_) => {
                        self.move_on();
                        sleep(RETRY_PAUSE).await;
                        return None;
                    }
                }
            }
        };
        let invoked = self.shared.recorder.now();
        let answer = match &request {
            Request::Txn(txn) if is_fenced => connection.call_fenced(&request, txn).await,
            _ => connection.call(&request).await,
        };
        self.shared.recorder.add(self.caller, invoked, request, answer.outcome.clone());
        if answer.is_broken {
            drop(connection);
            self.move_on();
            sleep(RETRY_PAUSE).await;
        } else {
            self.connection = Some(connection);
        }
        match answer.outcome {
            Outcome::Done { revision, response } => {
                self.seen = self.seen.max(revision);
                Some((revision, response))
            }
            Outcome::Failed { .. } | Outcome::Unknown => None,
        }
    }

    /// Turns to the next endpoint.
    fn move_on(&mut self) {
        self.caller.node = (self.caller.node + 1) % self.shared.endpoints.len() as u64;
        self.caller.connection += 1;
    }

    async fn one_task(&mut self) {
        let key = self.shared.key(&format!("key/{}", self.prng.below(self.shared.keys)));
        match self.prng.below(100) {
            0..=19 => self.put(key, false).await,
            20..=24 => self.put(key, true).await,
            25..=32 => {
                let prev_kv = self.prng.below(2) == 0;
                let delete = DeleteRange { key, prev_kv, ..DeleteRange::default() };
                self.ask(Request::DeleteRange(delete)).await;
            }
            33..=47 => self.get(single(key)).await,
            48..=55 => self.get(Range { level: Level::Serializable, ..single(key) }).await,
            56..=60 => self.get(self.shared.range("key/")).await,
            61..=64 => self.get(Range { level: Level::Serializable, ..self.shared.range("key/") }).await,
            65..=68 => {
                let back = i64::try_from(self.prng.below(50)).unwrap_or(0);
                let revision = self.seen.saturating_sub(back).max(1);
                self.get(Range { revision, ..single(key) }).await;
            }
            69..=80 => self.swap(key).await,
            81..=89 => self.append().await,
            90..=94 => self.transfer().await,
            95..=96 => self.create_one_of_a_pair().await,
            _ => self.fork().await,
        }
    }

    pub(super) fn value(&mut self) -> Bytes {
        self.next += 1;
        Bytes::from(format!("{}-{}", self.caller.client, self.next))
    }

    async fn get(&mut self, range: Range) {
        self.ask(Request::Range(range)).await;
    }

    async fn put(&mut self, key: Bytes, prev_kv: bool) {
        let value = self.value();
        self.ask(Request::Put(Put { key, value, prev_kv, ..Put::default() })).await;
    }

    /// Reads the pairs of a range.
    async fn read(&mut self, range: Range) -> Option<Vec<KeyValue>> {
        match self.ask(Request::Range(range)).await? {
            (_, Response::Range { kvs, .. }) => Some(kvs),
            _ => None,
        }
    }

    /// Changes a key unless somebody else did since it was read.
    async fn swap(&mut self, key: Bytes) {
        let Some(pairs) = self.read(single(key.clone())).await else { return };
        let revision = pairs.first().map_or(0, |pair| pair.mod_revision);
        let value = self.value();
        let compares = vec![unchanged(&key, revision)];
        let failure = vec![Op::Range(single(key.clone()))];
        self.ask(Request::Txn(Txn { compares, success: vec![put_op(key, value)], failure })).await;
    }

    /// Reads some lists and appends to some of them, as one transaction.
    async fn append(&mut self) {
        let element = self.shared.next_element();
        let epoch = format!("list/{}/", element / LIST_APPENDS);
        let Some(pairs) = self.read(self.shared.range(&epoch)).await else { return };
        let mut txn = Txn { failure: vec![Op::Range(self.shared.range(&epoch))], ..Txn::default() };
        let writes = 1 + self.prng.below(2);
        let first = self.prng.below(LISTS);
        for list in 0..=writes {
            let key = self.shared.key(&format!("{epoch}{}", (first + list) % LISTS));
            let pair = pairs.iter().find(|pair| pair.key == key);
            txn.compares.push(unchanged(&key, pair.map_or(0, |pair| pair.mod_revision)));
            txn.success.push(Op::Range(single(key.clone())));
            // The last list is read only.
            if list < writes {
                let longer = match pair {
                    Some(pair) => [&pair.value[..], b",", element.to_string().as_bytes()].concat(),
                    None => element.to_string().into_bytes(),
                };
                txn.success.push(put_op(key, longer.into()));
            }
        }
        self.ask(Request::Txn(txn)).await;
    }

    /// Opens the bank; says whether it is open.
    pub(super) async fn open_bank(&mut self) -> bool {
        let first = self.shared.key("bank/0");
        let compares = vec![unchanged(&first, 0)];
        let account = |account: u64| put_op(self.shared.key(&format!("bank/{account}")), "100".into());
        let success = (0..ACCOUNTS).map(account).collect();
        let failure = vec![Op::Range(self.shared.range("bank/"))];
        self.ask(Request::Txn(Txn { compares, success, failure })).await.is_some()
    }

    /// Moves money between two accounts.
    async fn transfer(&mut self) {
        let Some(pairs) = self.read(self.shared.range("bank/")).await else { return };
        let (from, step) = (self.prng.below(ACCOUNTS), 1 + self.prng.below(ACCOUNTS - 1));
        let chosen = [from, (from + step) % ACCOUNTS].map(|account| pairs.get(account as usize));
        let [Some(from), Some(to)] = chosen else { return };
        let amount = i64::try_from(1 + self.prng.below(10)).unwrap_or(1);
        let mut txn = Txn { failure: vec![Op::Range(self.shared.range("bank/"))], ..Txn::default() };
        for (pair, amount) in [(from, -amount), (to, amount)] {
            let text = std::str::from_utf8(&pair.value).unwrap_or_default();
            let Ok(balance) = text.parse::<i64>() else { return };
            txn.compares.push(unchanged(&pair.key, pair.mod_revision));
            txn.success.push(put_op(pair.key.clone(), (balance + amount).to_string().into()));
        }
        self.ask(Request::Txn(txn)).await;
    }

    /// Creates one key of a pair if it sees neither.
    async fn create_one_of_a_pair(&mut self) {
        let stem = format!("pair/{}", self.prng.below(PAIRS));
        let keys = ["a", "b"].map(|half| self.shared.key(&format!("{stem}/{half}")));
        let chosen = keys[self.prng.below(2) as usize].clone();
        let compares = keys.iter().map(|key| unchanged(key, 0)).collect();
        let failure = keys.iter().map(|key| Op::Range(single(key.clone()))).collect();
        self.ask(Request::Txn(Txn { compares, success: vec![put_op(chosen, "1".into())], failure })).await;
    }

    /// Creates a key that stays, or looks at those that are there.
    async fn fork(&mut self) {
        if self.prng.below(2) == 0 {
            let key = self.shared.key(&format!("fork/{}", self.prng.below(FORKS_MAX)));
            let compares = vec![unchanged(&key, 0)];
            self.ask(Request::Txn(Txn { compares, success: vec![put_op(key, "1".into())], failure: Vec::new() })).await;
            return;
        }
        let level = if self.prng.below(2) == 0 { Level::Strict } else { Level::Serializable };
        self.get(Range { level, ..self.shared.range("fork/") }).await;
    }
}

fn single(key: Bytes) -> Range {
    Range { key, ..Range::default() }
}

fn put_op(key: Bytes, value: Bytes) -> Op {
    Op::Put(Put { key, value, ..Put::default() })
}

/// Holds if the key was last changed at `revision`; 0: if it does not exist.
fn unchanged(key: &Bytes, revision: Revision) -> Compare {
    let target = CompareTarget::Mod(revision);
    Compare { key: key.clone(), range_end: Bytes::default(), result: CompareResult::Equal, target }
}
