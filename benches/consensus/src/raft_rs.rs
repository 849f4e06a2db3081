//! `raft` 0.7 (raft-rs), driven as its example with several nodes does: `MemStorage`, `ready`, persisted messages,
//! `advance`, `advance_apply`. Appends are batched (`batch_append`, as TiKV sets it): without, each proposal is a
//! message of its own.

use raft::eraftpb::{ConfState, Entry, EntryType, Message};
use raft::storage::MemStorage;
use raft::{Config, RawNode, StateRole};

use crate::cluster::{Cluster, Ledger, Network, REPLICAS, TRIM_KEEPS};

struct Host {
    node: RawNode<MemStorage>,
    ledger: Ledger,
}

/// A cluster of raft-rs nodes.
pub struct RaftRs {
    hosts: Vec<Host>,
    network: Network<Message>,
}

impl RaftRs {
    pub fn elect() -> Self {
        let hosts = (1..=REPLICAS as u64).map(host).collect();
        let mut cluster = Self { hosts, network: Network::new() };
        cluster.hosts[0].node.campaign().expect("a fresh node may campaign");
        cluster.drive();
        assert!(cluster.hosts[0].node.raft.state == StateRole::Leader, "not elected");
        cluster
    }

    fn turn(&mut self, at: usize) {
        let Host { node, ledger } = &mut self.hosts[at];
        while node.has_ready() {
            turn(node, ledger, &mut self.network);
        }
    }
}

fn host(id: u64) -> Host {
    let voters: Vec<u64> = (1..=REPLICAS as u64).collect();
    let storage = MemStorage::new_with_conf_state(ConfState::from((voters, vec![])));
    let config = Config {
        id,
        election_tick: 10,
        heartbeat_tick: 3,
        max_size_per_msg: 1024 * 1024,
        max_inflight_msgs: 256,
        batch_append: true,
        ..Config::default()
    };
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    Host {
        node: RawNode::new(&config, storage, &logger).expect("the configuration is valid"),
        ledger: Ledger::default(),
    }
}

/// One round of the example's `on_ready`.
fn turn(node: &mut RawNode<MemStorage>, ledger: &mut Ledger, network: &mut Network<Message>) {
    let store = node.raft.raft_log.store.clone();
    let mut send = |messages: Vec<Message>| {
        for message in messages {
            network.send(message.to as usize - 1, message);
        }
    };
    let mut hand_out = |entries: Vec<Entry>| {
        for entry in entries {
            if entry.get_entry_type() == EntryType::EntryNormal && !entry.data.is_empty() {
                ledger.take(&entry.data);
            }
        }
    };
    let mut ready = node.ready();
    assert!(ready.snapshot().is_empty(), "nobody is behind the log");
    send(ready.take_messages());
    hand_out(ready.take_committed_entries());
    store.wl().append(ready.entries()).expect("the log has no gap");
    if let Some(hard_state) = ready.hs() {
        store.wl().set_hardstate(hard_state.clone());
    }
    send(ready.take_persisted_messages());
    let mut light = node.advance(ready);
    if let Some(commit) = light.commit_index() {
        store.wl().mut_hard_state().set_commit(commit);
    }
    send(light.take_messages());
    hand_out(light.take_committed_entries());
    node.advance_apply();
}

impl Cluster for RaftRs {
    fn propose(&mut self, payload: Vec<u8>) {
        self.hosts[0].node.propose(Vec::new(), payload).expect("the leader takes proposals");
    }

    fn drive(&mut self) {
        self.turn(0);
        while !self.network.is_quiet() {
            for at in 0..REPLICAS {
                while self.network.has_for(at) {
                    self.hosts[at].node.step(self.network.receive(at)).expect("a message of a member");
                }
                self.turn(at);
            }
        }
    }

    fn trim(&mut self) {
        for host in &mut self.hosts {
            let to = host.node.raft.raft_log.applied.saturating_sub(TRIM_KEEPS);
            host.node.raft.raft_log.store.wl().compact(to).expect("applied entries can go");
        }
    }

    fn settle(&mut self) -> [u64; REPLICAS] {
        std::array::from_fn(|at| self.hosts[at].ledger.count)
    }
}
