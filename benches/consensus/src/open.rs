//! `openraft` 0.9 on a current-thread tokio runtime: its tasks are the replicas, a call of a method is the network. A
//! batch is so many `client_write`s at once. It purges its log itself after a snapshot, in the rhythm of the others.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::io::Cursor;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use bytes::Bytes;
use futures::future::join_all;
use openraft::error::{InstallSnapshotError, RPCError, RaftError, RemoteError};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use openraft::storage::{LogFlushed, RaftLogStorage, RaftStateMachine};
use openraft::{
    BasicNode, Config, Entry, EntryPayload, LogId, LogState, OptionalSend, Raft, RaftLogId, RaftLogReader,
    RaftSnapshotBuilder, Snapshot, SnapshotMeta, SnapshotPolicy, StorageError, StoredMembership, Vote,
};
use tokio::runtime::Runtime;

use crate::cluster::{Cluster, Ledger, REPLICAS, TRIM_EVERY, TRIM_KEEPS};

openraft::declare_raft_types!(
    /// Payloads in, nothing out.
    pub Types: D = Bytes, R = ()
);

type Stored<T> = Result<T, StorageError<u64>>;
type Rpc<T, E = openraft::error::Infallible> = Result<T, RPCError<u64, BasicNode, RaftError<u64, E>>>;

/// A cluster of openraft nodes.
pub struct Open {
    runtime: Runtime,
    nodes: Vec<Raft<Types>>,
    machines: Vec<Machine>,
    proposed: Vec<Bytes>,
}

impl Open {
    pub fn elect() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let network = Network::default();
        let machines: Vec<Machine> = (0..REPLICAS).map(|_| Machine::default()).collect();
        let nodes = runtime.block_on(start(&network, &machines));
        Self { runtime, nodes, machines, proposed: Vec::new() }
    }
}

async fn start(network: &Network, machines: &[Machine]) -> Vec<Raft<Types>> {
    // Time plays no part in the measurement: timeouts are so long that heartbeats do not show.
    let config = Config {
        heartbeat_interval: 500,
        election_timeout_min: 5_000,
        election_timeout_max: 10_000,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(TRIM_EVERY),
        max_in_snapshot_log_to_keep: TRIM_KEEPS,
        ..Config::default()
    };
    let config = Arc::new(config.validate().expect("the configuration is valid"));
    let mut nodes = Vec::new();
    for (id, machine) in (1..).zip(machines) {
        let node = Raft::new(id, config.clone(), network.clone(), Log::default(), machine.clone());
        nodes.push(node.await.expect("a fresh node starts"));
    }
    network.0.set(nodes.clone()).ok().expect("set once");
    let members: BTreeMap<u64, BasicNode> = (1..=REPLICAS as u64).map(|id| (id, BasicNode::default())).collect();
    nodes[0].initialize(members).await.expect("a fresh cluster");
    let leads = nodes[0].wait(None).current_leader(1, "the one that was initialized").await;
    leads.expect("it is elected");
    nodes
}

impl Cluster for Open {
    fn propose(&mut self, payload: Vec<u8>) {
        self.proposed.push(payload.into());
    }

    fn drive(&mut self) {
        let leader = &self.nodes[0];
        let writes = self.proposed.drain(..).map(|payload| leader.client_write(payload));
        for done in self.runtime.block_on(join_all(writes)) {
            done.expect("the leader takes proposals");
        }
    }

    fn trim(&mut self) {}

    fn settle(&mut self) -> [u64; REPLICAS] {
        let target = self.machines[0].lock().ledger.count;
        self.runtime.block_on(async {
            while self.machines.iter().any(|machine| machine.lock().ledger.count < target) {
                tokio::task::yield_now().await;
            }
        });
        std::array::from_fn(|at| self.machines[at].lock().ledger.count)
    }
}

/// All nodes, once they are there.
#[derive(Clone, Default)]
struct Network(Arc<OnceLock<Vec<Raft<Types>>>>);

/// The way to one node.
struct Peer {
    network: Network,
    target: u64,
}

impl Peer {
    fn node(&self) -> &Raft<Types> {
        &self.network.0.get().expect("all nodes have started")[self.target as usize - 1]
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, _node: &BasicNode) -> Peer {
        Peer { network: self.clone(), target }
    }
}

impl RaftNetwork<Types> for Peer {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Rpc<AppendEntriesResponse<u64>> {
        let answer = self.node().append_entries(request).await;
        answer.map_err(|error| RPCError::RemoteError(RemoteError::new(self.target, error)))
    }

    async fn install_snapshot(
        &mut self,
        _request: InstallSnapshotRequest<Types>,
        _option: RPCOption,
    ) -> Rpc<InstallSnapshotResponse<u64>, InstallSnapshotError> {
        panic!("nobody is behind the log")
    }

    async fn vote(&mut self, request: VoteRequest<u64>, _option: RPCOption) -> Rpc<VoteResponse<u64>> {
        let answer = self.node().vote(request).await;
        answer.map_err(|error| RPCError::RemoteError(RemoteError::new(self.target, error)))
    }
}

/// A log in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<LogState_>>);

#[derive(Default)]
struct LogState_ {
    purged: Option<LogId<u64>>,
    entries: VecDeque<Entry<Types>>,
    vote: Option<Vote<u64>>,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, LogState_> {
        self.0.lock().expect("nobody panics with the lock")
    }
}

impl LogState_ {
    /// Where index `index` stands, or would stand.
    fn place(&self, index: u64) -> usize {
        let first = self.purged.map_or(0, |purged| purged.index + 1);
        (index.saturating_sub(first) as usize).min(self.entries.len())
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Stored<Vec<Entry<Types>>> {
        let log = self.lock();
        let from = match range.start_bound() {
            Bound::Included(index) => log.place(*index),
            Bound::Excluded(index) => log.place(*index + 1),
            Bound::Unbounded => 0,
        };
        let until = match range.end_bound() {
            Bound::Included(index) => log.place(*index + 1),
            Bound::Excluded(index) => log.place(*index),
            Bound::Unbounded => log.entries.len(),
        };
        Ok(log.entries.range(from..until.max(from)).cloned().collect())
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Stored<LogState<Types>> {
        let log = self.lock();
        let last = log.entries.back().map(|entry| *entry.get_log_id()).or(log.purged);
        Ok(LogState { last_purged_log_id: log.purged, last_log_id: last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Stored<()> {
        self.lock().vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Stored<Option<Vote<u64>>> {
        Ok(self.lock().vote)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Stored<()>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
    {
        self.lock().entries.extend(entries);
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, from: LogId<u64>) -> Stored<()> {
        let mut log = self.lock();
        let place = log.place(from.index);
        log.entries.truncate(place);
        Ok(())
    }

    async fn purge(&mut self, to: LogId<u64>) -> Stored<()> {
        let mut log = self.lock();
        let place = log.place(to.index + 1);
        log.entries.drain(..place);
        log.purged = Some(to);
        Ok(())
    }
}

/// A state machine that only counts.
#[derive(Clone, Default)]
struct Machine(Arc<Mutex<MachineState>>);

#[derive(Default)]
struct MachineState {
    applied: Option<LogId<u64>>,
    membership: StoredMembership<u64, BasicNode>,
    ledger: Ledger,
}

impl Machine {
    fn lock(&self) -> MutexGuard<'_, MachineState> {
        self.0.lock().expect("nobody panics with the lock")
    }
}

impl RaftSnapshotBuilder<Types> for Machine {
    async fn build_snapshot(&mut self) -> Stored<Snapshot<Types>> {
        let machine = self.lock();
        let meta = SnapshotMeta {
            last_log_id: machine.applied,
            last_membership: machine.membership.clone(),
            snapshot_id: String::new(),
        };
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(Vec::new())) })
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Stored<(Option<LogId<u64>>, StoredMembership<u64, BasicNode>)> {
        let machine = self.lock();
        Ok((machine.applied, machine.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Stored<Vec<()>>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
    {
        let mut machine = self.lock();
        let mut answers = Vec::new();
        for entry in entries {
            machine.applied = Some(entry.log_id);
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(payload) => machine.ledger.take(&payload),
                EntryPayload::Membership(membership) => {
                    machine.membership = StoredMembership::new(Some(entry.log_id), membership);
                }
            }
            answers.push(());
        }
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Stored<Box<Cursor<Vec<u8>>>> {
        panic!("nobody is behind the log")
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMeta<u64, BasicNode>,
        _snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Stored<()> {
        panic!("nobody is behind the log")
    }

    async fn get_current_snapshot(&mut self) -> Stored<Option<Snapshot<Types>>> {
        Ok(None)
    }
}
