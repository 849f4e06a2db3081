//! Concurrent clients that write, count and read while a scenario hurts the cluster, and remember every answer.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use base::Prng;
use tokio::task::{JoinHandle, LocalSet};

use crate::client::{self, Client, create_request, get_request, prefix_request, swap_request};
use crate::cluster::Cluster;
use crate::eventually;
use crate::history::{History, Kind, Outcome, Read, Stored, Write};

/// Counters that all clients share.
const COUNTERS: u64 = 3;
/// Bound on one call under load: shorter than the server's own, so that a client soon turns to another node.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// Revisions of the past that are read back.
const PAST_READS_MAX: usize = 200;

/// State that the clients of one load share; all run on one thread.
#[derive(Default)]
struct Shared {
    history: RefCell<History>,
    /// The greatest version of each counter that somebody was told of.
    known: RefCell<BTreeMap<String, i64>>,
    acknowledged: Cell<u64>,
    stop: Cell<bool>,
}

/// A running load.
pub(crate) struct Load {
    shared: Rc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts `count` clients against all nodes of `cluster`. Must run inside a [`LocalSet`]; see [`within`].
    pub(crate) fn start(cluster: &Cluster, count: usize, prng: &mut Prng) -> Self {
        let shared = Rc::new(Shared::default());
        let clients = (0..count)
            .map(|id| {
                let nodes = cluster.clients().iter().map(|node| node.with_timeout(CALL_TIMEOUT)).collect();
                let worker = Worker { id, nodes, at: id, prng: Prng::new(prng.next_u64()), shared: shared.clone() };
                tokio::task::spawn_local(worker.work())
            })
            .collect();
        Self { shared, clients }
    }

    /// Writes acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.get()
    }

    /// Waits until the cluster has acknowledged `more` further writes.
    pub(crate) async fn progress(&self, more: u64) {
        let goal = self.acknowledged() + more;
        eventually("acknowledged writes", || async {
            let done = self.acknowledged();
            if done >= goal { Ok(()) } else { Err(format!("{done} of {goal}")) }
        })
        .await;
    }

    /// Stops the clients, reads everything back from every node, and fails the test if it cannot be true.
    pub(crate) async fn finish_and_check(self, cluster: &mut Cluster) {
        self.shared.stop.set(true);
        for client in self.clients {
            client.await.expect("a client of the load");
        }
        cluster.wait_ready().await;
        let mut history = self.shared.history.take();
        for node in cluster.clients() {
            let pairs = eventually("reading everything back", || async {
                node.range(prefix_request("load/")).await.map_err(|status| status.to_string())
            });
            history.stored.push(pairs.await.kvs.iter().map(Stored::from).collect());
        }
        history.past = read_past(&history, &cluster.client(0)).await;
        let problems = history.problems();
        let acked = self.shared.acknowledged.get();
        assert!(problems.is_empty(), "{} problem(s) after {acked} acknowledged writes: {problems:#?}", problems.len());
        assert!(acked > 0 && !history.past.is_empty() && !history.reads.is_empty(), "the load did nothing");
    }
}

/// Runs a scenario in which [`Load`] may be used.
pub(crate) fn within(scenario: impl Future<Output = ()>) {
    crate::run(async { LocalSet::new().run_until(scenario).await });
}

/// Reads counters at revisions at which they were written: history must not change.
async fn read_past(history: &History, node: &Client) -> Vec<(i64, Stored)> {
    let mut past = Vec::new();
    let increments = history.writes.iter().filter(|write| write.kind == Kind::Increment);
    for write in increments.rev() {
        let Outcome::Acked(revision) = write.outcome else { continue };
        if past.len() == PAST_READS_MAX {
            break;
        }
        let request = get_request(&write.key);
        let request = api::etcdserverpb::RangeRequest { revision, ..request };
        let answer = node.range(request).await.expect("a read of the past");
        past.extend(answer.kvs.iter().map(|pair| (revision, Stored::from(pair))));
    }
    past
}

/// One client: one request in flight, another node after each failure.
struct Worker {
    id: usize,
    nodes: Vec<Client>,
    at: usize,
    prng: Prng,
    shared: Rc<Shared>,
}

impl Worker {
    async fn work(mut self) {
        let mut sequence = 0u64;
        while !self.shared.stop.get() {
            sequence += 1;
            let well = if self.prng.below(2) == 0 { self.create(sequence).await } else { self.count().await };
            if !well {
                self.at += 1;
            }
            // Leave the machine some air: the scenario is about order, not about load.
            tokio::time::sleep(Duration::from_millis(1 + self.prng.below(4))).await;
        }
    }

    fn node(&self) -> &Client {
        &self.nodes[self.at % self.nodes.len()]
    }

    /// Creates a key that nobody else will ever write. Says whether the node answered.
    async fn create(&mut self, sequence: u64) -> bool {
        let key = format!("load/new/{}/{sequence}", self.id);
        let value = format!("{}:{sequence}", self.id);
        let outcome = self.swap(create_request(&key, value.clone())).await;
        self.record(Kind::Create, key, value, outcome);
        outcome != Outcome::Unknown
    }

    /// Reads a shared counter and raises it by one unless somebody else did in between.
    async fn count(&mut self) -> bool {
        let key = format!("load/counter/{}", self.prng.below(COUNTERS));
        let version_at_least = self.shared.known.borrow().get(&key).copied().unwrap_or(0);
        let Ok(answer) = self.node().range(get_request(&key)).await else { return false };
        let (version, revision) = answer.kvs.first().map_or((0, 0), |pair| (pair.version, pair.mod_revision));
        self.learn(&key, version);
        self.shared.history.borrow_mut().reads.push(Read { key: key.clone(), version, version_at_least });
        let value = (version + 1).to_string();
        let outcome = self.swap(swap_request(&key, revision, value.clone())).await;
        if let Outcome::Acked(_) = outcome {
            self.learn(&key, version + 1);
        }
        self.record(Kind::Increment, key, value, outcome);
        outcome != Outcome::Unknown
    }

    async fn swap(&self, request: api::etcdserverpb::TxnRequest) -> Outcome {
        match self.node().txn(request).await {
            Ok(answer) if answer.succeeded => Outcome::Acked(client::revision(answer.header.as_ref())),
            Ok(_) => Outcome::Refused,
            // Whatever the words, a write that failed under fire may have happened.
            Err(_) => Outcome::Unknown,
        }
    }

    fn learn(&self, key: &str, version: i64) {
        let mut known = self.shared.known.borrow_mut();
        let entry = known.entry(key.to_owned()).or_insert(0);
        *entry = version.max(*entry);
    }

    fn record(&self, kind: Kind, key: String, value: String, outcome: Outcome) {
        if let Outcome::Acked(_) = outcome {
            self.shared.acknowledged.set(self.shared.acknowledged.get() + 1);
        }
        let write = Write { client: self.id, kind, key, value, outcome };
        self.shared.history.borrow_mut().writes.push(write);
    }
}
