//! `omnipaxos` 0.2.4 over a log in a `Vec`. Its own batching is set to the size of the batches that are proposed: the
//! leader sends, and a follower writes, exactly once per batch.

use bytes::Bytes;
use omnipaxos::ballot_leader_election::Ballot;
use omnipaxos::messages::Message;
use omnipaxos::storage::{Entry, NoSnapshot, StopSign, Storage, StorageOp, StorageResult};
use omnipaxos::util::LogEntry;
use omnipaxos::{ClusterConfig, OmniPaxos, OmniPaxosConfig, ServerConfig};

use crate::cluster::{Cluster, Ledger, Network, REPLICAS, TRIM_KEEPS};

/// A payload as an entry of its log.
#[derive(Clone, Debug)]
pub struct Payload(Bytes);

impl Entry for Payload {
    type Snapshot = NoSnapshot;
}

struct Host {
    node: OmniPaxos<Payload, Memory>,
    outgoing: Vec<Message<Payload>>,
    handed: usize,
    ledger: Ledger,
}

/// A cluster of omnipaxos nodes.
pub struct Omni {
    hosts: Vec<Host>,
    network: Network<Message<Payload>>,
}

impl Omni {
    pub fn elect(batch: usize) -> Self {
        let hosts = (1..=REPLICAS as u64).map(|pid| host(pid, batch)).collect();
        let mut cluster = Self { hosts, network: Network::new() };
        while !cluster.hosts.iter().all(|host| host.node.get_current_leader() == Some((1, true))) {
            for at in 0..REPLICAS {
                cluster.hosts[at].node.tick();
                cluster.turn(at);
            }
            cluster.drive();
        }
        cluster
    }

    fn turn(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        host.node.take_outgoing_messages(&mut host.outgoing);
        for message in host.outgoing.drain(..) {
            self.network.send(message.get_receiver() as usize - 1, message);
        }
        if host.node.get_decided_idx() > host.handed {
            let decided = host.node.read_decided_suffix(host.handed).expect("what is decided and not trimmed");
            host.handed += decided.len();
            for entry in decided {
                let LogEntry::Decided(Payload(payload)) = entry else { panic!("{entry:?} is not decided") };
                host.ledger.take(&payload);
            }
        }
    }
}

fn host(pid: u64, batch: usize) -> Host {
    let cluster_config =
        ClusterConfig { configuration_id: 1, nodes: (1..=REPLICAS as u64).collect(), ..ClusterConfig::default() };
    let server_config =
        ServerConfig { pid, batch_size: batch, leader_priority: u32::from(pid == 1), ..ServerConfig::default() };
    let config = OmniPaxosConfig { cluster_config, server_config };
    let node = config.build(Memory::default()).expect("the configuration is valid");
    Host { node, outgoing: Vec::new(), handed: 0, ledger: Ledger::default() }
}

impl Cluster for Omni {
    fn propose(&mut self, payload: Vec<u8>) {
        self.hosts[0].node.append(Payload(payload.into())).expect("the leader takes proposals");
    }

    fn drive(&mut self) {
        self.turn(0);
        while !self.network.is_quiet() {
            for at in 0..REPLICAS {
                while self.network.has_for(at) {
                    self.hosts[at].node.handle_incoming(self.network.receive(at));
                }
                self.turn(at);
            }
        }
    }

    fn trim(&mut self) {
        let to = self.hosts[0].handed.saturating_sub(TRIM_KEEPS as usize);
        self.hosts[0].node.trim(Some(to)).expect("decided entries can go");
        self.drive();
    }

    fn settle(&mut self) -> [u64; REPLICAS] {
        std::array::from_fn(|at| self.hosts[at].ledger.count)
    }
}

/// A log in a `Vec`, starting after `compacted` entries.
#[derive(Default)]
struct Memory {
    log: Vec<Payload>,
    promised: Option<Ballot>,
    accepted: Option<Ballot>,
    decided: usize,
    trimmed: usize,
    compacted: usize,
    stopsign: Option<StopSign>,
}

impl Storage<Payload> for Memory {
    fn write_atomically(&mut self, ops: Vec<StorageOp<Payload>>) -> StorageResult<()> {
        for op in ops {
            match op {
                StorageOp::AppendEntry(entry) => self.append_entry(entry)?,
                StorageOp::AppendEntries(entries) => self.append_entries(entries)?,
                StorageOp::AppendOnPrefix(from, entries) => self.append_on_prefix(from, entries)?,
                StorageOp::SetPromise(ballot) => self.set_promise(ballot)?,
                StorageOp::SetDecidedIndex(index) => self.set_decided_idx(index)?,
                StorageOp::SetAcceptedRound(ballot) => self.set_accepted_round(ballot)?,
                StorageOp::SetCompactedIdx(index) => self.set_compacted_idx(index)?,
                StorageOp::Trim(index) => self.trim(index)?,
                StorageOp::SetStopsign(stopsign) => self.set_stopsign(stopsign)?,
                StorageOp::SetSnapshot(snapshot) => self.set_snapshot(snapshot)?,
            }
        }
        Ok(())
    }

    fn append_entry(&mut self, entry: Payload) -> StorageResult<()> {
        self.log.push(entry);
        Ok(())
    }

    fn append_entries(&mut self, entries: Vec<Payload>) -> StorageResult<()> {
        self.log.extend(entries);
        Ok(())
    }

    fn append_on_prefix(&mut self, from: usize, entries: Vec<Payload>) -> StorageResult<()> {
        self.log.truncate(from - self.trimmed);
        self.append_entries(entries)
    }

    fn set_promise(&mut self, ballot: Ballot) -> StorageResult<()> {
        self.promised = Some(ballot);
        Ok(())
    }

    fn set_decided_idx(&mut self, index: usize) -> StorageResult<()> {
        self.decided = index;
        Ok(())
    }

    fn get_decided_idx(&self) -> StorageResult<usize> {
        Ok(self.decided)
    }

    fn set_accepted_round(&mut self, ballot: Ballot) -> StorageResult<()> {
        self.accepted = Some(ballot);
        Ok(())
    }

    fn get_accepted_round(&self) -> StorageResult<Option<Ballot>> {
        Ok(self.accepted)
    }

    fn get_entries(&self, from: usize, to: usize) -> StorageResult<Vec<Payload>> {
        let range = from.saturating_sub(self.trimmed)..to.saturating_sub(self.trimmed);
        Ok(self.log.get(range).unwrap_or_default().to_vec())
    }

    fn get_log_len(&self) -> StorageResult<usize> {
        Ok(self.log.len())
    }

    fn get_suffix(&self, from: usize) -> StorageResult<Vec<Payload>> {
        Ok(self.log.get(from.saturating_sub(self.trimmed)..).unwrap_or_default().to_vec())
    }

    fn get_promise(&self) -> StorageResult<Option<Ballot>> {
        Ok(self.promised)
    }

    fn set_stopsign(&mut self, stopsign: Option<StopSign>) -> StorageResult<()> {
        self.stopsign = stopsign;
        Ok(())
    }

    fn get_stopsign(&self) -> StorageResult<Option<StopSign>> {
        Ok(self.stopsign.clone())
    }

    fn trim(&mut self, index: usize) -> StorageResult<()> {
        self.log.drain(..(index - self.trimmed).min(self.log.len()));
        self.trimmed = index;
        Ok(())
    }

    fn set_compacted_idx(&mut self, index: usize) -> StorageResult<()> {
        self.compacted = index;
        Ok(())
    }

    fn get_compacted_idx(&self) -> StorageResult<usize> {
        Ok(self.compacted)
    }

    fn set_snapshot(&mut self, snapshot: Option<NoSnapshot>) -> StorageResult<()> {
        assert!(snapshot.is_none(), "nobody makes snapshots");
        Ok(())
    }

    fn get_snapshot(&self) -> StorageResult<Option<NoSnapshot>> {
        Ok(None)
    }
}
