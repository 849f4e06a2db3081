//! Whole nodes on a toy host: virtual time, in-memory log and engine, a network that obeys the test.
//!
//! The host carries out effects at once and in order, which is the simplest legal host; faults beyond cut links and
//! lost nodes are the simulator's business.

#![expect(clippy::unwrap_used, reason = "a test host has nobody to report to")]

#[path = "cluster/leases.rs"]
mod leases;
#[path = "cluster/members.rs"]
mod members;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use base::{GroupId, Index, Instant, LeaseId, Lsn, NodeId, ReplicaId, Synced};
use bytes::Bytes;
use kernel::{Entry, Mark, Member, Membership, Protocol, Record};
use mvcc::{Batch, Command, Engine, Machine, MemEngine, Outcome, OutcomeResult, Put, RangeRequest};
use node::{
    Effect, Event, GroupStart, Node, NodeConfig, PeerMessage, Request, Response, SnapshotId, Ticket, Uncertainty,
};

const GROUP: GroupId = GroupId(0);
const START: Instant = Instant(1_000_000);
const STEP: Duration = Duration::from_millis(5);

/// What a request was answered with.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Node(Response),
    Applied(Outcome),
}

struct Host {
    node: Node,
    engine: MemEngine,
    machine: Machine,
    log: BTreeMap<Index, Entry>,
    answers: BTreeMap<Ticket, Answer>,
    snapshots_out: BTreeMap<SnapshotId, Vec<(Bytes, Bytes)>>,
    snapshots_in: BTreeMap<SnapshotId, Vec<(Bytes, Bytes)>>,
    /// A stalled disk: persistence is promised and not acknowledged.
    stalled: bool,
    unacknowledged: Option<Lsn>,
    /// What is applied is not told to the node until somebody asks for it.
    keeps_word: bool,
    word: Vec<Event>,
    /// A slow disk: a snapshot is being installed until somebody lets it end.
    slow_install: bool,
    install: Option<SnapshotId>,
    /// Stopped like a process is: nothing happens, and what arrives waits.
    frozen: bool,
    frozen_inbox: VecDeque<(NodeId, PeerMessage)>,
    /// How fast the clock goes, in thousandths of the true time.
    clock_rate: u64,
    /// Commands that were applied.
    applied: Vec<Command>,
}

struct Cluster {
    now: Instant,
    hosts: BTreeMap<NodeId, Host>,
    network: VecDeque<(NodeId, NodeId, PeerMessage)>,
    cut: BTreeSet<(NodeId, NodeId)>,
    next_ticket: u64,
    /// Every message sent so far, as bytes.
    sent: BTreeSet<Vec<u8>>,
}

fn membership(size: u64) -> Membership {
    let members: Vec<Member> = (1..=size).map(|n| Member { replica: ReplicaId(n), node: NodeId(n) }).collect();
    Membership::initial(&members)
}

impl Host {
    fn new(id: u64, size: u64, now: Instant) -> Self {
        let config = kernel::Config {
            group: GROUP,
            node: NodeId(id),
            replica: ReplicaId(id),
            protocol: Protocol::Raft,
            heartbeat_interval: Duration::from_millis(100),
            election_timeout: Duration::from_millis(1000),
            seed: id,
            leader_priority: 0,
        };
        let mark = Mark { membership: membership(size).into(), ..Default::default() };
        let recovered = kernel::Recovered { mark, ..Default::default() };
        let node_config = NodeConfig {
            id: NodeId(id),
            seed: id << 32,
            request_timeout: Duration::from_secs(7),
            apply_backlog_max: 1000,
            log_retained_bytes: 0,
        };
        let engine = MemEngine::new();
        Self {
            node: Node::new(node_config, vec![GroupStart { config, recovered }], Lsn(1), now).unwrap(),
            machine: Machine::open(&engine).unwrap(),
            engine,
            log: BTreeMap::new(),
            answers: BTreeMap::new(),
            snapshots_out: BTreeMap::new(),
            snapshots_in: BTreeMap::new(),
            stalled: false,
            unacknowledged: None,
            keeps_word: false,
            word: Vec::new(),
            slow_install: false,
            install: None,
            frozen: false,
            frozen_inbox: VecDeque::new(),
            clock_rate: 1000,
            applied: Vec::new(),
        }
    }

    /// Carries out one effect; what happens because of it at once comes back as events.
    fn carry_out(&mut self, effect: Effect, sends: &mut Vec<(NodeId, PeerMessage)>) -> Vec<Event> {
        match effect {
            Effect::Send(to, message) => sends.push((to, message)),
            Effect::Reply(ticket, response) => self.answer(ticket, Answer::Node(response)),
            Effect::Persist(lsn, batch) => {
                for record in batch.into_iter().flat_map(|(_, records)| records) {
                    self.record(record);
                }
                if self.stalled {
                    self.unacknowledged = Some(lsn);
                } else {
                    return vec![Event::Persisted(Synced::attest(lsn))];
                }
            }
            Effect::Apply { group, tasks, mark } => {
                let mut encoded = Vec::new();
                kernel::wire::encode_mark(&mark, &mut encoded);
                let mut apply = self.machine.begin(self.engine.view()).unwrap();
                let mut outcomes = Vec::new();
                for task in tasks {
                    let outcome = apply.command(&task.payload, task.reply.is_some()).unwrap();
                    self.applied.push(Command::decode(task.payload).unwrap());
                    outcomes.extend(task.reply.zip(outcome));
                }
                let changes = apply.take_lease_changes();
                self.engine.write(apply.finish(encoded.into()).0).unwrap();
                for (ticket, outcome) in outcomes {
                    self.answer(ticket, Answer::Applied(outcome));
                }
                let applied = Event::Applied { group, index: mark.position.index };
                let word = vec![Event::LeasesChanged { group, changes }, applied];
                if !self.keeps_word {
                    return word;
                }
                self.word.extend(word);
            }
            Effect::Load(group, request) => {
                let entries = self.log.range(request.from..request.until).map(|(_, entry)| entry.clone()).collect();
                return vec![Event::Loaded { group, to: request.to, entries }];
            }
            Effect::SnapshotOpen(_, id) => {
                self.snapshots_out.insert(id, self.engine.rows());
                let mark = mvcc::mark(&*self.engine.view()).unwrap().unwrap();
                return vec![Event::SnapshotOpened { id, mark: kernel::wire::decode_mark(mark).unwrap() }];
            }
            Effect::SnapshotRead(id) => {
                let rows = self.snapshots_out.get_mut(&id).unwrap();
                let rest = rows.split_off(rows.len().min(3));
                let chunk = encode_rows(&std::mem::replace(rows, rest));
                return vec![Event::SnapshotChunk { id, chunk, last: rows.is_empty() }];
            }
            Effect::SnapshotClose(id) => drop(self.snapshots_out.remove(&id)),
            Effect::SnapshotWrite { id, sequence, chunk, .. } => {
                if sequence == 0 {
                    self.snapshots_in.insert(id, Vec::new());
                }
                self.snapshots_in.get_mut(&id).unwrap().extend(decode_rows(chunk));
                return vec![Event::SnapshotWritten { id, sequence }];
            }
            Effect::SnapshotInstall { group, id, .. } => {
                if self.slow_install {
                    self.install = Some(id);
                    return Vec::new();
                }
                let rows = self.snapshots_in.remove(&id).unwrap();
                self.engine = MemEngine::new();
                self.engine.write(Batch { rows: rows.into_iter().map(|(k, v)| (k, Some(v))).collect() }).unwrap();
                self.machine = Machine::open(&self.engine).unwrap();
                let leases = mvcc::leases(&*self.engine.view()).unwrap();
                return vec![Event::LeasesLoaded { group, leases }, Event::SnapshotInstalled { id }];
            }
            Effect::SnapshotDiscard(id) => drop(self.snapshots_in.remove(&id)),
        }
        Vec::new()
    }

    fn record(&mut self, record: Record) {
        match record {
            Record::Hard { .. } => {}
            Record::Append(entries) => self.log.extend(entries.iter().map(|entry| (entry.index, entry.clone()))),
            Record::Truncate { from } => drop(self.log.split_off(&from)),
            Record::Compact { base, keep_suffix } => {
                let rest = self.log.split_off(&base.index.next());
                self.log = if keep_suffix { rest } else { BTreeMap::new() };
            }
        }
    }

    fn answer(&mut self, ticket: Ticket, answer: Answer) {
        assert!(self.answers.insert(ticket, answer).is_none(), "{ticket:?} answered twice");
    }
}

fn encode_rows(rows: &[(Bytes, Bytes)]) -> Bytes {
    let mut out = Vec::new();
    for (key, value) in rows {
        base::codec::put_bytes(&mut out, key);
        base::codec::put_bytes(&mut out, value);
    }
    out.into()
}

fn decode_rows(chunk: Bytes) -> Vec<(Bytes, Bytes)> {
    let mut reader = base::Reader::new(chunk);
    let mut rows = Vec::new();
    while reader.remaining() > 0 {
        rows.push((reader.bytes("key").unwrap(), reader.bytes("value").unwrap()));
    }
    rows
}

impl Cluster {
    fn new(size: u64) -> Self {
        let now = START;
        let hosts: BTreeMap<_, _> = (1..=size).map(|id| (NodeId(id), Host::new(id, size, now))).collect();
        let mut cluster =
            Self { now, hosts, network: VecDeque::new(), cut: BTreeSet::new(), next_ticket: 1, sent: BTreeSet::new() };
        for from in cluster.ids() {
            for to in cluster.ids().into_iter().filter(|to| *to != from) {
                cluster.event(from, Event::PeerConnected(to));
            }
        }
        cluster
    }

    fn ids(&self) -> Vec<NodeId> {
        self.hosts.keys().copied().collect()
    }

    /// Gives a node an event and plays everything out on it.
    fn event(&mut self, id: NodeId, event: Event) {
        let now = self.clock(id);
        let host = self.hosts.get_mut(&id).unwrap();
        let mut events = VecDeque::from([event]);
        let mut sends = Vec::new();
        while let Some(event) = events.pop_front() {
            host.node.handle(now, event);
            for effect in host.node.finish_turn(now) {
                events.extend(host.carry_out(effect, &mut sends));
            }
            host.node.check();
        }
        for (to, message) in sends {
            let mut wire = Vec::new();
            message.encode(&mut wire);
            assert_eq!(PeerMessage::decode(wire.clone().into()).as_ref(), Ok(&message), "the wire keeps every message");
            if wire.len() < 4096 {
                self.sent.insert(wire);
            }
            if !self.cut.contains(&(id, to)) {
                self.network.push_back((id, to, message));
            }
        }
    }

    /// What a node takes for the time.
    fn clock(&self, id: NodeId) -> Instant {
        let passed = self.now.0 - START.0;
        Instant(START.0 + passed * self.hosts[&id].clock_rate / 1000)
    }

    /// Delivers what is under way, then lets time pass, until `done` or the limit.
    fn run_until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        for _ in 0..20_000 {
            while let Some((from, to, message)) = self.network.pop_front() {
                if self.hosts[&to].frozen {
                    self.hosts.get_mut(&to).unwrap().frozen_inbox.push_back((from, message));
                } else if !self.cut.contains(&(from, to)) {
                    self.event(to, Event::Peer(from, message));
                }
            }
            if done(self) {
                return;
            }
            self.now = self.now + STEP;
            for id in self.ids() {
                if !self.hosts[&id].frozen && self.hosts[&id].node.next_deadline() <= self.clock(id) {
                    self.event(id, Event::Tick);
                }
            }
        }
        panic!("{what} did not happen");
    }

    fn leader(&self) -> Option<NodeId> {
        let leaders: Vec<_> = self
            .hosts
            .iter()
            .filter(|(id, host)| {
                let status = host.node.status(GROUP).unwrap();
                status.role == kernel::Role::Leader && status.leader == Some(**id)
            })
            .map(|(id, host)| (host.node.status(GROUP).unwrap().ballot, *id))
            .collect();
        leaders.into_iter().max().map(|(_, id)| id)
    }

    fn elect(&mut self) -> NodeId {
        self.run_until("an election", |cluster| {
            let leader = cluster.leader();
            leader.is_some()
                && cluster.hosts.values().filter(|h| h.node.status(GROUP).unwrap().leader == leader).count() * 2
                    > cluster.hosts.len()
        });
        self.leader().unwrap()
    }

    fn follower(&mut self) -> NodeId {
        let leader = self.elect();
        self.ids().into_iter().find(|id| *id != leader).unwrap()
    }

    fn request(&mut self, on: NodeId, request: Request) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.event(on, Event::Request(ticket, request));
        ticket
    }

    fn put(&mut self, on: NodeId, key: &str, value: &str) -> Ticket {
        let put = Put {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: Bytes::copy_from_slice(value.as_bytes()),
            lease: LeaseId(0),
            ..Default::default()
        };
        let payload = Command::Put(put).encode();
        self.request(on, Request::Propose { group: GROUP, payload })
    }

    fn finished(&mut self, on: NodeId, ticket: Ticket) -> &Answer {
        self.run_until("an answer", |cluster| cluster.hosts[&on].answers.contains_key(&ticket));
        &self.hosts[&on].answers[&ticket]
    }

    fn get(&self, on: NodeId, key: &str) -> Option<String> {
        let request = RangeRequest { key: Bytes::copy_from_slice(key.as_bytes()), ..Default::default() };
        let response = mvcc::range(&*self.hosts[&on].engine.view(), &request).unwrap();
        response.result.kvs.first().map(|kv| String::from_utf8(kv.value.to_vec()).unwrap())
    }

    fn isolate(&mut self, id: NodeId) {
        for other in self.ids().into_iter().filter(|other| *other != id) {
            self.cut.insert((id, other));
            self.cut.insert((other, id));
        }
    }

    fn heal(&mut self) {
        self.cut.clear();
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            // In pieces that `run_until` does not take for a hang.
            let piece = end.min(self.now + Duration::from_secs(50));
            self.run_until("time", |cluster| cluster.now >= piece);
        }
    }

    fn freeze(&mut self, id: NodeId) {
        self.hosts.get_mut(&id).unwrap().frozen = true;
    }

    fn thaw(&mut self, id: NodeId) {
        let host = self.hosts.get_mut(&id).unwrap();
        host.frozen = false;
        for (from, message) in std::mem::take(&mut host.frozen_inbox) {
            self.network.push_back((from, id, message));
        }
    }
}

fn revision(answer: &Answer) -> i64 {
    let outcome = match answer {
        Answer::Applied(outcome) => outcome.clone(),
        Answer::Node(other) => panic!("no outcome: {other:?}"),
    };
    assert!(matches!(outcome.result, OutcomeResult::Put(_)), "{outcome:?}");
    outcome.revision.0
}

#[test]
fn a_write_on_any_node_is_applied_on_all() {
    let mut cluster = Cluster::new(3);
    cluster.elect();
    for (count, id) in cluster.ids().into_iter().enumerate() {
        let ticket = cluster.put(id, &format!("k{id}"), "v");
        assert_eq!(revision(cluster.finished(id, ticket)), 2 + count as i64);
    }
    cluster.run_until("apply everywhere", |c| c.ids().iter().all(|id| c.get(*id, "kn3") == Some("v".into())));
    let rows: Vec<_> = cluster.hosts.values().map(|host| host.engine.rows()).collect();
    assert!(rows.windows(2).all(|pair| pair[0] == pair[1]), "replicas differ");
}

#[test]
fn a_read_point_on_a_follower_covers_every_acknowledged_write() {
    let mut cluster = Cluster::new(3);
    let follower = cluster.follower();
    let leader = cluster.leader().unwrap();
    for round in 0..20 {
        let value = round.to_string();
        let put = cluster.put(leader, "k", &value);
        revision(cluster.finished(leader, put));
        let read = cluster.request(follower, Request::Read { group: GROUP });
        assert_eq!(*cluster.finished(follower, read), Answer::Node(Response::ReadReady));
        assert_eq!(cluster.get(follower, "k"), Some(value));
    }
}

#[test]
fn a_write_waits_for_the_first_leader() {
    let mut cluster = Cluster::new(3);
    let ticket = cluster.put(NodeId(2), "k", "v");
    assert_eq!(revision(cluster.finished(NodeId(2), ticket)), 2);
}

#[test]
fn without_a_quorum_writes_and_reads_end_with_the_truth() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.isolate(leader);
    let proposed = cluster.put(leader, "k", "lost");
    let read = cluster.request(leader, Request::Read { group: GROUP });
    // Proposed and then deposed: nobody knows. The read was promised nothing.
    assert_eq!(*cluster.finished(leader, proposed), Answer::Node(Response::Unknown(Uncertainty::Timeout)));
    assert_eq!(*cluster.finished(leader, read), Answer::Node(Response::TimedOut));
    // Asked after the old leader stepped down: surely not done.
    let parked = cluster.put(leader, "k", "never");
    assert_eq!(*cluster.finished(leader, parked), Answer::Node(Response::TimedOut));
}

#[test]
fn a_deposed_leader_learns_that_its_proposal_lost_its_slot() {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect();
    cluster.isolate(old);
    let lost = cluster.put(old, "k", "old");
    cluster.run_until("a new leader", |c| c.leader().is_some_and(|leader| leader != old));
    let new = cluster.leader().unwrap();
    let won = cluster.put(new, "k", "new");
    revision(cluster.finished(new, won));
    cluster.heal();
    assert_eq!(*cluster.finished(old, lost), Answer::Node(Response::Superseded));
    cluster.run_until("the old leader catches up", |c| c.get(old, "k") == Some("new".into()));
}

#[test]
fn a_forwarded_write_whose_connection_breaks_is_unknown() {
    let mut cluster = Cluster::new(3);
    let follower = cluster.follower();
    let leader = cluster.leader().unwrap();
    cluster.cut.insert((leader, follower));
    let ticket = cluster.put(follower, "k", "v");
    cluster.event(follower, Event::PeerLost(leader));
    let answer = cluster.finished(follower, ticket);
    assert_eq!(*answer, Answer::Node(Response::Unknown(Uncertainty::ConnectionLost)));
}

#[test]
fn word_of_what_is_applied_may_wait_until_somebody_waits_for_it() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let heeds = |cluster: &Cluster| cluster.hosts[&leader].node.heeds_applied();
    cluster.run_until("the marker is applied", |c| !heeds(c));
    cluster.hosts.get_mut(&leader).unwrap().keeps_word = true;
    let put = cluster.put(leader, "k", "v");
    revision(cluster.finished(leader, put));
    cluster.run_for(Duration::from_secs(1));
    assert!(!heeds(&cluster), "the client has its answer, and nobody else waits");
    let read = cluster.request(leader, Request::Read { group: GROUP });
    cluster.run_for(Duration::from_secs(1));
    assert!(heeds(&cluster) && !cluster.hosts[&leader].answers.contains_key(&read));
    for event in std::mem::take(&mut cluster.hosts.get_mut(&leader).unwrap().word) {
        cluster.event(leader, event);
    }
    assert_eq!(*cluster.finished(leader, read), Answer::Node(Response::ReadReady));
    assert!(!heeds(&cluster));
    // Much that is applied and not told of fills the room for more.
    let large = "v".repeat(100_000);
    let puts: Vec<_> = (0..3).map(|_| cluster.put(leader, "k", &large)).collect();
    for put in puts {
        revision(cluster.finished(leader, put));
    }
    assert!(heeds(&cluster));
}

#[test]
fn a_stalled_disk_acknowledges_nothing_and_costs_the_leader_its_place() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.hosts.get_mut(&leader).unwrap().stalled = true;
    let ticket = cluster.put(leader, "k", "v");
    // The other two hold it durably, so it is decided; the stalled leader notices its own disk and makes way.
    cluster.run_until("another leader", |c| c.leader().is_some_and(|l| l != leader));
    let new = cluster.leader().unwrap();
    let after = cluster.put(new, "k2", "v");
    revision(cluster.finished(new, after));
    if let Some(answer) = cluster.hosts[&leader].answers.get(&ticket) {
        assert_eq!(revision(answer), 2);
        assert_eq!(cluster.get(new, "k"), Some("v".into()), "acknowledged and lost");
    }
}

#[test]
fn leadership_is_handed_over_on_request() {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect();
    cluster.run_until("followers to catch up", |c| {
        let status = c.hosts[&old].node.status(GROUP).unwrap();
        status.peers.iter().filter(|(_, matched, _)| *matched == status.last).count() >= 2
    });
    let before = cluster.now;
    let ticket = cluster.request(old, Request::TransferLeadership { group: GROUP, to: None });
    assert_eq!(*cluster.finished(old, ticket), Answer::Node(Response::Done));
    assert_ne!(cluster.elect(), old);
    assert!(cluster.now.since(before) < Duration::from_millis(500), "that was an election timeout, not a handover");
}

/// A follower that needs a snapshot, cut off from the others, and the leader.
fn behind_the_log(cluster: &mut Cluster) -> (NodeId, NodeId) {
    let behind = cluster.follower();
    let leader = cluster.leader().unwrap();
    cluster.isolate(behind);
    let value = "x".repeat(300 * 1024);
    for round in 0..40 {
        let ticket = cluster.put(leader, &format!("k{round:02}"), &value);
        cluster.finished(leader, ticket);
    }
    let index = cluster.hosts[&leader].node.status(GROUP).unwrap().applied;
    cluster.event(leader, Event::Checkpointed { group: GROUP, index });
    let first = cluster.hosts[&leader].node.status(GROUP).unwrap().first;
    assert!(first > Index(10), "the log was not compacted: it starts at {first}");
    (behind, leader)
}

/// Installing takes as long as the disk likes; an election cannot wait for it.
#[test]
fn a_node_that_installs_a_snapshot_votes() {
    let mut cluster = Cluster::new(3);
    let (behind, leader) = behind_the_log(&mut cluster);
    cluster.hosts.get_mut(&behind).unwrap().slow_install = true;
    cluster.heal();
    cluster.run_until("the installation to begin", |c| c.hosts[&behind].install.is_some());
    cluster.isolate(leader);
    cluster.run_until("an election", |c| c.leader().is_some_and(|new| new != leader));
    let new = cluster.leader().unwrap();
    assert_ne!(new, behind, "it cannot know the log's end");
    let host = cluster.hosts.get_mut(&behind).unwrap();
    host.slow_install = false;
    let id = host.install.take().unwrap();
    let events = host.carry_out(Effect::SnapshotInstall { group: GROUP, id, mark: Mark::default() }, &mut Vec::new());
    for event in events {
        cluster.event(behind, event);
    }
    let ticket = cluster.put(new, "after", "v");
    cluster.finished(new, ticket);
    cluster.run_until("replication after the snapshot", |c| c.get(behind, "after").is_some());
    assert_eq!(cluster.hosts[&behind].engine.rows(), cluster.hosts[&new].engine.rows());
}

/// etcd #18055: a member got two snapshots in a short time. Receiving the second one deleted the file of the first,
/// which waited to be opened: the member fell over.
#[test]
fn a_second_snapshot_leaves_the_one_that_is_being_installed_alone() {
    let mut cluster = Cluster::new(3);
    let (behind, leader) = behind_the_log(&mut cluster);
    let other = cluster.ids().into_iter().find(|id| ![behind, leader].contains(id)).unwrap();
    cluster.hosts.get_mut(&behind).unwrap().slow_install = true;
    cluster.heal();
    cluster.run_until("the installation to begin", |c| c.hosts[&behind].install.is_some());
    let first = cluster.hosts[&behind].install.unwrap();
    // Whoever leads next would wait until it is told that the first one is over. Should it not:
    let sent = std::mem::take(&mut cluster.sent).into_iter().filter_map(|sent| PeerMessage::decode(sent.into()).ok());
    let chunks = sent.filter(|message| matches!(message, PeerMessage::SnapshotChunk { .. }));
    let mut offered = 0;
    for mut offer in chunks {
        let PeerMessage::SnapshotChunk { id, ballot, sequence, mark, .. } = &mut offer else { continue };
        *id = SnapshotId(id.0 + 1000);
        *ballot = base::Ballot::new(ballot.round + 1, other);
        *sequence = offered;
        mark.position.index = mark.position.index.next();
        cluster.event(behind, Event::Peer(other, offer));
        offered += 1;
    }
    assert!(offered > 1, "a snapshot of one chunk shows little");
    let host = cluster.hosts.get_mut(&behind).unwrap();
    assert_eq!(host.install, Some(first));
    assert_eq!(
        host.snapshots_in.keys().collect::<Vec<_>>(),
        [&first],
        "the first is there and the second is not taken"
    );
    host.slow_install = false;
    for event in host.carry_out(Effect::SnapshotInstall { group: GROUP, id: first, mark: Mark::default() }, &mut vec![])
    {
        cluster.event(behind, event);
    }
    let ticket = cluster.put(leader, "after", "v");
    cluster.finished(leader, ticket);
    cluster.run_until("replication after the snapshot", |c| c.get(behind, "after").is_some());
    assert_eq!(cluster.hosts[&behind].engine.rows(), cluster.hosts[&leader].engine.rows());
}

/// Found by the simulator: under steady writes the log went past every snapshot before it was installed, and followers
/// got one after the other without ever catching up.
#[test]
fn the_log_behind_a_snapshot_waits_for_its_installation() {
    let mut cluster = Cluster::new(3);
    let (behind, leader) = behind_the_log(&mut cluster);
    let first = |cluster: &Cluster| cluster.hosts[&leader].node.status(GROUP).unwrap().first;
    cluster.hosts.get_mut(&behind).unwrap().slow_install = true;
    cluster.heal();
    cluster.run_until("the installation to begin", |c| c.hosts[&behind].install.is_some());
    let before = first(&cluster);
    let value = "x".repeat(300 * 1024);
    for round in 0..20 {
        let ticket = cluster.put(leader, &format!("m{round:02}"), &value);
        cluster.finished(leader, ticket);
    }
    let index = cluster.hosts[&leader].node.status(GROUP).unwrap().applied;
    cluster.event(leader, Event::Checkpointed { group: GROUP, index });
    assert!(first(&cluster) <= before.next(), "the log starts at {} now", first(&cluster));
    let host = cluster.hosts.get_mut(&behind).unwrap();
    host.slow_install = false;
    let id = host.install.take().unwrap();
    for event in host.carry_out(Effect::SnapshotInstall { group: GROUP, id, mark: Mark::default() }, &mut Vec::new()) {
        cluster.event(behind, event);
    }
    cluster.run_until("the rest from the log", |c| c.get(behind, "m19").is_some());
    assert!(cluster.hosts[&leader].snapshots_out.is_empty(), "one snapshot was enough");
    // The sender forgets the snapshot after a while, and the log may go on.
    let until = cluster.now + Duration::from_secs(35);
    cluster.run_until("the time to pass", |c| c.now >= until);
    cluster.event(leader, Event::Checkpointed { group: GROUP, index });
    assert!(first(&cluster) > before.next(), "the log is kept for ever");
}

#[test]
fn a_follower_far_behind_gets_a_snapshot() {
    let mut cluster = Cluster::new(3);
    let (behind, leader) = behind_the_log(&mut cluster);
    cluster.heal();
    cluster.run_until("the snapshot", |c| c.get(behind, "k39").is_some());
    let ticket = cluster.put(leader, "after", "v");
    cluster.finished(leader, ticket);
    cluster.run_until("replication after the snapshot", |c| c.get(behind, "after").is_some());
    assert_eq!(cluster.hosts[&behind].engine.rows(), cluster.hosts[&leader].engine.rows());
}

#[test]
fn a_single_node_is_a_cluster() {
    let mut cluster = Cluster::new(1);
    let ticket = cluster.put(NodeId(1), "k", "v");
    assert_eq!(revision(cluster.finished(NodeId(1), ticket)), 2);
    let read = cluster.request(NodeId(1), Request::Read { group: GROUP });
    assert_eq!(*cluster.finished(NodeId(1), read), Answer::Node(Response::ReadReady));
}

/// Peers are known, but a broken one must not take the others with it.
#[test]
fn a_damaged_message_is_refused_or_survived() {
    let mut cluster = Cluster::new(3);
    let (behind, leader) = behind_the_log(&mut cluster);
    cluster.heal();
    cluster.run_until("the snapshot", |c| c.get(behind, "k39").is_some());
    let ticket = cluster.put(behind, "forwarded", "v");
    cluster.finished(behind, ticket);
    let read = cluster.request(behind, Request::Read { group: GROUP });
    cluster.finished(behind, read);
    let mut fuzz = fuzz::Fuzz::new("peer-message", env!("CARGO_MANIFEST_DIR")).allocating(16 << 20);
    for message in std::mem::take(&mut cluster.sent).into_iter().step_by(7) {
        fuzz = fuzz.seed(message);
    }
    let mut number = 0;
    fuzz.run(|input| {
        let Ok(message) = PeerMessage::decode(Bytes::copy_from_slice(input)) else { return };
        let mut again = Vec::new();
        message.encode(&mut again);
        assert_eq!(PeerMessage::decode(again.into()).as_ref(), Ok(&message), "the wire keeps every message");
        // Each node in turn meets it, from each of the others.
        number += 1;
        let to = NodeId(1 + number % 3);
        let from = NodeId(1 + (number + 1 + number / 3 % 2) % 3);
        let host = cluster.hosts.get_mut(&to).unwrap();
        host.node.handle(cluster.now, Event::Peer(from, message));
        drop(host.node.finish_turn(cluster.now));
        host.node.check();
    });
    assert!(cluster.hosts.contains_key(&leader));
}
