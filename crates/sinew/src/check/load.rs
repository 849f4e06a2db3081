//! The load: what the clients share, and how it begins and ends.
//!
//! Invariant: the history has everything that touched the keys of the run: the clients' requests, and at the end a read
//! of all that is left, by which a lost write shows even if no client came back to it.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ::check::history::{Bytes, Header, Level, Range, Request, Revision, Workload};
use base::Prng;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::args::ClusterArgs;
use super::holder;
use super::locker;
use super::recorder::Recorder;
use super::watcher::Watcher;
use super::worker::Worker;
use crate::ctl::Settings;

/// Accounts of the bank, with 100 on each at first.
pub(super) const ACCOUNTS: u64 = 5;
/// Lists in use at a time.
pub(super) const LISTS: u64 = 3;
/// Appends after which other lists are used, so that lists stay short.
pub(super) const LIST_APPENDS: u64 = 100;
/// Pairs of which one key may exist.
pub(super) const PAIRS: u64 = 50;
/// Keys of the long fork.
pub(super) const FORKS_MAX: u64 = 100;

/// How long to wait for a cluster that answers, at the start and at the end.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the clients share; all run on one thread.
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) endpoints: Vec<String>,
    pub(super) recorder: Recorder,
    pub(super) keys: u64,
    /// Time between two tasks of one client.
    pub(super) pace: Duration,
    prefix: String,
    /// The store's revision before the run.
    pub(super) start_revision: Revision,
    over: Cell<bool>,
    closing: Cell<bool>,
    elements: Cell<u64>,
}

/// What the header of the history says about a run with this prefix.
pub(super) fn header(endpoints: &[String], prefix: &str, start_revision: i64) -> Header {
    let under = |name: &str| Bytes::from(format!("{prefix}{name}/"));
    let total = 100 * ACCOUNTS.cast_signed();
    Header {
        nodes: endpoints.to_vec(),
        start_revision,
        workloads: vec![
            Workload::ListAppend { prefix: under("list") },
            Workload::Bank { prefix: under("bank"), accounts: ACCOUNTS, total },
            Workload::WriteSkew { prefix: under("pair") },
            Workload::LongFork { prefix: under("fork") },
            Workload::Fence { prefix: Bytes::from(format!("{prefix}{}", locker::FENCED)) },
        ],
        ..Header::default()
    }
}

impl Shared {
    pub(super) fn new(
        settings: &Settings,
        arguments: &ClusterArgs,
        recorder: Recorder,
        prefix: &str,
        start_revision: Revision,
    ) -> Rc<Self> {
        Rc::new(Self {
            settings: settings.clone(),
            endpoints: settings.endpoints.clone(),
            recorder,
            keys: arguments.keys,
            pace: Duration::from_secs(1).mul_f64(arguments.clients as f64 / arguments.rate as f64),
            prefix: prefix.to_owned(),
            start_revision,
            over: Cell::new(false),
            closing: Cell::new(false),
            elements: Cell::new(0),
        })
    }

    pub(super) fn key(&self, name: &str) -> Bytes {
        Bytes::from(format!("{}{name}", self.prefix))
    }

    /// All keys that begin with `name`, which ends in a slash.
    pub(super) fn range(&self, name: &str) -> Range {
        let key = self.key(name);
        let mut range_end = key.to_vec();
        if let Some(last) = range_end.last_mut() {
            *last += 1;
        }
        Range { key, range_end: range_end.into(), ..Range::default() }
    }

    pub(super) fn next_element(&self) -> u64 {
        let element = self.elements.get();
        self.elements.set(element + 1);
        element
    }

    /// Whether nothing more is to be written.
    pub(super) fn is_over(&self) -> bool {
        self.over.get()
    }

    /// Whether everything has been written, so that watches can be asked for the rest.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.get()
    }
}

/// Those who work, by what they wait for.
pub(super) struct Clients {
    /// Until nothing more is to be written.
    writers: Vec<JoinHandle<()>>,
    /// Until everything has been written.
    watchers: Vec<JoinHandle<()>>,
    /// A number no client has.
    next: u64,
}

/// Opens the bank and starts the clients. Must run inside a local set.
pub(super) async fn start(shared: &Rc<Shared>, arguments: &ClusterArgs) -> Result<Clients, String> {
    let ClusterArgs { clients, watchers, lease_holders, lock_holders, seed, .. } = *arguments;
    let mut prng = Prng::new(seed);
    let mut first = Worker::new(Rc::clone(shared), clients, prng.next_u64());
    let deadline = Instant::now() + PATIENCE;
    while !first.open_bank().await {
        if Instant::now() > deadline {
            return Err("no endpoint carries out a write; is this a cluster that works?".to_owned());
        }
    }
    let mut worker = |client| Worker::new(Rc::clone(shared), client, prng.next_u64());
    let mut writers: Vec<_> = (0..clients).map(|client| tokio::task::spawn_local(worker(client).work())).collect();
    let holders = clients + 1..clients + 1 + lease_holders;
    writers.extend(holders.clone().map(|client| tokio::task::spawn_local(holder::hold(worker(client)))));
    let lockers = holders.end..holders.end + lock_holders;
    writers.extend(lockers.clone().map(|client| tokio::task::spawn_local(locker::hold(worker(client)))));
    let next = lockers.end + watchers;
    let watcher = |client| Watcher::new(Rc::clone(shared), client, prng.next_u64());
    let watchers = (lockers.end..next).map(watcher).map(|watcher| tokio::task::spawn_local(watcher.work())).collect();
    Ok(Clients { writers, watchers, next })
}

/// Lets the clients finish and reads what is left. Says whether the cluster answered.
pub(super) async fn finish(shared: &Rc<Shared>, clients: Clients) -> bool {
    shared.over.set(true);
    for client in clients.writers {
        // A client that panicked has said so on standard error; the history up to there is still true.
        let _ = client.await;
    }
    shared.recorder.close_gap();
    shared.closing.set(true);
    for client in clients.watchers {
        // The same.
        let _ = client.await;
    }
    let mut reader = Worker::new(Rc::clone(shared), clients.next, 0);
    let names = ["key/", "list/", "bank/", "pair/", "fork/", holder::KEYS, locker::LOCKS, locker::FENCED];
    let deadline = Instant::now() + PATIENCE;
    for name in names {
        while reader.ask(Request::Range(shared.range(name))).await.is_none() {
            if Instant::now() > deadline {
                return false;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
    // What each node has by itself, asked once: some may be down.
    for node in 0..shared.endpoints.len() as u64 {
        let mut reader = Worker::new(Rc::clone(shared), node, 0).on_connection(u64::MAX / 2);
        let range = Range { level: Level::Serializable, ..shared.range("key/") };
        reader.ask(Request::Range(range)).await;
    }
    true
}
