//! Our kernel. The host does what `kernel::ready` asks for; its disk forgets the records and answers at once, since the
//! kernel keeps in memory what it needs again.

use std::time::Duration;

use base::{GroupId, Index, Instant, Lsn, NodeId, ReplicaId, Synced};
use kernel::{Config, EntryKind, Mark, Member, Membership, Message, Protocol, Ready, Recovered, Replica, Role};

use crate::cluster::{Cluster, Ledger, Network, REPLICAS, TRIM_KEEPS};

struct Host {
    replica: Replica,
    lsn: Lsn,
    ready: Ready,
    ledger: Ledger,
}

/// A cluster of one of our protocols.
pub struct Ours {
    hosts: Vec<Host>,
    network: Network<Message>,
    now: Instant,
}

impl Ours {
    pub fn elect(protocol: Protocol) -> Self {
        let members: Vec<Member> =
            (1..=REPLICAS as u64).map(|n| Member { replica: ReplicaId(n), node: NodeId(n) }).collect();
        let now = Instant(1_000_000);
        let hosts = members.iter().map(|member| host(protocol, *member, &members, now)).collect();
        let mut cluster = Self { hosts, network: Network::new(), now };
        while cluster.hosts[0].replica.role() != Role::Leader {
            cluster.now = cluster.hosts[0].replica.next_deadline();
            cluster.hosts[0].replica.tick(cluster.now);
            cluster.turn(0);
            cluster.drive();
        }
        cluster
    }

    /// Ends turns of a replica until it wants nothing more: the answers of disk and state machine may start another.
    fn turn(&mut self, at: usize) {
        let Host { replica, lsn, ready, ledger } = &mut self.hosts[at];
        let mut is_answered = true;
        while std::mem::take(&mut is_answered) && replica.has_ready() {
            *lsn = lsn.next();
            replica.ready_into(*lsn, ready);
            for message in ready.messages.drain(..) {
                self.network.send(message.to.0 as usize - 1, message);
            }
            if !ready.committed.is_empty() {
                for committed in ready.committed.drain(..) {
                    let commands = committed.entries.iter().filter(|entry| entry.kind == EntryKind::Command);
                    commands.filter(|_| committed.effective).for_each(|entry| ledger.take(&entry.payload));
                }
                replica.applied(replica.mark().position.index);
                is_answered = true;
            }
            if !ready.records.is_empty() {
                ready.records.clear();
                replica.persisted(self.now, Synced::attest(*lsn));
                is_answered = true;
            }
        }
    }
}

fn host(protocol: Protocol, member: Member, members: &[Member], now: Instant) -> Host {
    let config = Config {
        group: GroupId(1),
        node: member.node,
        replica: member.replica,
        protocol,
        heartbeat_interval: Duration::from_millis(100),
        election_timeout: Duration::from_secs(1),
        seed: member.node.0,
        leader_priority: 0,
    };
    let mark = Mark { membership: Membership::initial(members).into(), ..Mark::default() };
    let recovered = Recovered { mark, ..Recovered::default() };
    let replica = Replica::new(config, recovered, now).expect("a fresh replica is sound");
    Host { replica, lsn: Lsn(0), ready: Ready::default(), ledger: Ledger::default() }
}

impl Cluster for Ours {
    fn propose(&mut self, payload: Vec<u8>) {
        self.hosts[0].replica.propose(self.now, payload.into()).expect("the leader takes proposals");
    }

    fn drive(&mut self) {
        self.turn(0);
        while !self.network.is_quiet() {
            for at in 0..REPLICAS {
                while self.network.has_for(at) {
                    self.hosts[at].replica.step(self.now, self.network.receive(at));
                }
                self.turn(at);
            }
        }
    }

    fn trim(&mut self) {
        for at in 0..REPLICAS {
            let applied = self.hosts[at].replica.mark().position.index;
            assert!(self.hosts[at].replica.compact(Index(applied.0.saturating_sub(TRIM_KEEPS))), "not applied yet");
            self.turn(at);
        }
    }

    fn settle(&mut self) -> [u64; REPLICAS] {
        std::array::from_fn(|at| self.hosts[at].ledger.count)
    }
}
