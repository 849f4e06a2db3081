//! A cluster of real replicas with a test's disk, network and clock. One input at a time; after each the replica's
//! turn is ended and checked.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use base::{GroupId, Index, Instant, Lsn, NodeId, ReplicaId, Synced};
use kernel::{
    Committed, Config, Entry, LoadRequest, Mark, Member, Membership, Message, Protocol, ReadDone, Ready, Record,
    Replica, Role,
};

use crate::disk::{Disk, Machine};
use crate::invariants::assert_durable;

pub(crate) const HEARTBEAT: Duration = Duration::from_millis(100);
pub(crate) const ELECTION: Duration = Duration::from_millis(1000);

/// Replica r lives on node r, unless a test says otherwise.
pub(crate) const fn member(number: u64) -> Member {
    Member { replica: ReplicaId(number), node: NodeId(number) }
}

/// A node with its one replica.
#[derive(Clone)]
pub(crate) struct Host {
    pub(crate) replica: Option<Replica>,
    pub(crate) disk: Disk,
    pub(crate) machine: Machine,
    pub(crate) to_apply: VecDeque<(Vec<Committed>, Mark)>,
    pub(crate) incarnation: u64,
    pub(crate) priority: u8,
    role: Role,
}

/// What a turn brought to light, for traces and invariants.
pub(crate) enum Event {
    Sent(Message),
    Role(u64, Role),
    /// One entry, and whether it is effective.
    Committed(u64, Entry, bool),
    Read(u64, ReadDone),
    SnapshotWanted(u64, u64),
    Wrote(u64, Vec<Record>),
    Loaded(u64, LoadRequest),
}

pub(crate) struct World {
    pub(crate) protocol: Protocol,
    pub(crate) now: Instant,
    pub(crate) hosts: BTreeMap<u64, Host>,
    pub(crate) net: Vec<Message>,
    /// Snapshots to be streamed: from, to.
    pub(crate) snapshots: Vec<(u64, u64)>,
    pub(crate) events: Vec<Event>,
    /// Disks and state machines answer at once.
    pub(crate) auto_sync: bool,
    pub(crate) auto_apply: bool,
    /// Attest durability as soon as a record is written (a planted defect).
    pub(crate) lying_disk: bool,
    pub(crate) cuts: BTreeSet<(u64, u64)>,
    seed: u64,
}

impl World {
    pub(crate) fn new(protocol: Protocol, seed: u64) -> Self {
        Self {
            protocol,
            now: Instant(1_000_000),
            hosts: BTreeMap::new(),
            net: Vec::new(),
            snapshots: Vec::new(),
            events: Vec::new(),
            auto_sync: true,
            auto_apply: true,
            lying_disk: false,
            cuts: BTreeSet::new(),
            seed,
        }
    }

    /// A new host; with an empty membership it waits to be told by a leader.
    pub(crate) fn add(&mut self, number: u64, membership: Membership) {
        let mut disk = Disk::default();
        disk.flushed.mark.membership = membership.into();
        let host = Host {
            replica: None,
            machine: Machine::default(),
            disk,
            to_apply: VecDeque::new(),
            incarnation: 0,
            priority: 0,
            role: Role::Follower,
        };
        self.hosts.insert(number, host);
        self.start(number);
    }

    pub(crate) fn start(&mut self, number: u64) {
        let (seed, protocol) = (self.seed, self.protocol);
        let now = self.now;
        let host = self.host(number);
        host.incarnation += 1;
        let config = Config {
            group: GroupId(1),
            node: NodeId(number),
            replica: ReplicaId(number),
            protocol,
            heartbeat_interval: HEARTBEAT,
            election_timeout: ELECTION,
            seed: seed.wrapping_add(number * 1000 + host.incarnation),
            leader_priority: host.priority,
        };
        host.machine = host.disk.flushed.clone();
        let replica = Replica::new(config, host.disk.recover(), now).expect("a disk written by a replica is sound");
        replica.check();
        host.replica = Some(replica);
        self.turn(number);
    }

    pub(crate) fn crash(&mut self, number: u64, torn: usize) {
        let atomic = self.protocol == Protocol::PaxosRaft;
        let host = self.host(number);
        host.replica = None;
        host.to_apply.clear();
        host.role = Role::Follower;
        host.disk.crash(torn, atomic);
    }

    pub(crate) fn host(&mut self, number: u64) -> &mut Host {
        self.hosts.get_mut(&number).expect("the host exists")
    }

    pub(crate) fn replica(&self, number: u64) -> Option<&Replica> {
        self.hosts[&number].replica.as_ref()
    }

    pub(crate) fn is_up(&self, number: u64) -> bool {
        self.hosts.get(&number).is_some_and(|host| host.replica.is_some())
    }

    /// Gives a replica an input and ends its turn.
    pub(crate) fn input<R>(&mut self, number: u64, input: impl FnOnce(&mut Replica, Instant) -> R) -> R {
        let now = self.now;
        let replica = self.host(number).replica.as_mut().expect("the replica runs");
        let result = input(replica, now);
        replica.check();
        self.turn(number);
        result
    }

    /// Ends turns until the replica wants nothing more.
    fn turn(&mut self, number: u64) {
        for round in 0.. {
            assert!(round < 1000, "replica {number} never comes to rest");
            let now = self.now;
            let host = self.host(number);
            let replica = host.replica.as_mut().expect("the replica runs");
            let wants = replica.has_ready();
            let lsn = host.disk.lsn.next();
            let ready = replica.ready(lsn);
            replica.check();
            assert!(wants || ready.is_empty(), "unannounced {ready:?}");
            if !wants {
                return;
            }
            host.disk.lsn = lsn;
            let role = replica.role();
            if role != host.role {
                host.role = role;
                self.events.push(Event::Role(number, role));
            }
            self.perform(number, lsn, ready);
            if self.lying_disk && self.is_up(number) {
                let replica = self.host(number).replica.as_mut().expect("the replica runs");
                replica.persisted(now, Synced::attest(lsn));
            }
            if self.auto_sync {
                self.sync(number);
            }
            if self.auto_apply {
                self.apply(number);
            }
        }
    }

    fn perform(&mut self, number: u64, lsn: Lsn, ready: Ready) {
        let now = self.now;
        if !ready.records.is_empty() {
            self.events.push(Event::Wrote(number, ready.records.clone()));
            self.host(number).disk.write(lsn, ready.records);
        }
        for message in ready.messages {
            assert_durable(self, &message);
            self.events.push(Event::Sent(message.clone()));
            if !self.cuts.contains(&(number, message.to.0)) {
                self.net.push(message);
            }
        }
        for committed in &ready.committed {
            let one = |entry: &Entry| Event::Committed(number, entry.clone(), committed.effective);
            self.events.extend(committed.entries.iter().map(one));
        }
        if !ready.committed.is_empty() {
            let host = self.host(number);
            let mark = host.replica.as_ref().expect("the replica runs").mark().clone();
            host.to_apply.push_back((ready.committed, mark));
        }
        self.events.extend(ready.reads.into_iter().map(|done| Event::Read(number, done)));
        for to in ready.snapshots_to_send {
            self.snapshots.push((number, to.0));
            self.events.push(Event::SnapshotWanted(number, to.0));
        }
        for load in ready.loads {
            self.events.push(Event::Loaded(number, load.clone()));
            let host = self.host(number);
            let entries = host.disk.written.log.range(load.from..load.until).map(|(_, entry)| entry.clone()).collect();
            host.replica.as_mut().expect("the replica runs").loaded(now, load.to, entries);
        }
    }

    /// Makes the oldest batch durable, and says so.
    pub(crate) fn sync_one(&mut self, number: u64) -> bool {
        let now = self.now;
        let lying = self.lying_disk;
        let host = self.host(number);
        let Some(lsn) = host.disk.sync() else { return false };
        if let Some(replica) = host.replica.as_mut().filter(|_| !lying) {
            replica.persisted(now, Synced::attest(lsn));
            replica.check();
        }
        true
    }

    fn sync(&mut self, number: u64) {
        while self.sync_one(number) {}
    }

    /// Applies what was handed out.
    pub(crate) fn apply(&mut self, number: u64) {
        let host = self.host(number);
        while let Some((committed, mark)) = host.to_apply.pop_front() {
            let index = mark.position.index;
            host.machine.apply(&committed, mark);
            if let Some(replica) = &mut host.replica {
                replica.applied(index);
                replica.check();
            }
        }
    }

    /// Makes the state machine's present state durable.
    pub(crate) fn flush(&mut self, number: u64) {
        let host = self.host(number);
        host.disk.flushed = host.machine.clone();
    }

    /// Ends a turn without an input.
    pub(crate) fn settle(&mut self, number: u64) {
        if self.is_up(number) {
            self.turn(number);
        }
    }

    /// Delivers one message out of the network.
    pub(crate) fn deliver(&mut self, message: Message) {
        let (from, to) = (message.from.0, message.to.0);
        if self.is_up(to) && !self.cuts.contains(&(from, to)) {
            self.input(to, |replica, now| replica.step(now, message));
        }
    }

    /// Streams a snapshot of `from`'s state machine to `to` and installs it; false if it is not wanted (any more).
    pub(crate) fn transfer_snapshot(&mut self, from: u64, to: u64) -> bool {
        if !self.is_up(from) || !self.is_up(to) {
            return false;
        }
        let machine = self.hosts[&from].machine.clone();
        let ballot = self.replica(from).expect("is up").status().ballot;
        self.install(to, ballot, machine)
    }

    pub(crate) fn install(&mut self, to: u64, ballot: base::Ballot, machine: Machine) -> bool {
        let mark = machine.mark.clone();
        if !self.replica(to).expect("is up").wants_snapshot(&mark) {
            return false;
        }
        let host = self.host(to);
        host.to_apply.clear();
        host.machine = machine;
        self.flush(to);
        self.input(to, |replica, now| replica.snapshot_installed(now, ballot, mark));
        true
    }

    /// Who leads, among those that say so of themselves.
    pub(crate) fn leaders(&self) -> Vec<u64> {
        let leads = |host: &Host| host.replica.as_ref().is_some_and(Replica::is_leader);
        self.hosts.iter().filter(|(_, host)| leads(host)).map(|(number, _)| *number).collect()
    }

    /// Delivers everything, in order, until nobody has anything more to say.
    pub(crate) fn deliver_all(&mut self) {
        for round in 0.. {
            assert!(round < 100_000, "the network never comes to rest");
            if self.net.is_empty() {
                return;
            }
            let message = self.net.remove(0);
            self.deliver(message);
        }
    }

    /// Lets the time of `number` come, and only that replica notice.
    pub(crate) fn timeout(&mut self, number: u64) {
        let deadline = self.replica(number).expect("is up").next_deadline();
        self.now = self.now.max(deadline);
        self.input(number, |replica, now| replica.tick(now));
    }

    /// Runs everyone for a while, with a perfect network.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.deliver_all();
            let up =
                self.hosts.iter().filter_map(|(number, host)| Some((host.replica.as_ref()?.next_deadline(), *number)));
            let Some((deadline, number)) = up.min().filter(|(deadline, _)| *deadline <= end) else { break };
            self.now = self.now.max(deadline);
            self.input(number, |replica, now| replica.tick(now));
        }
        self.now = end;
    }

    /// What everyone that runs says of itself.
    pub(crate) fn status(&self) -> Vec<kernel::Status> {
        self.hosts.values().filter_map(|host| Some(host.replica.as_ref()?.status())).collect()
    }

    /// Highest commit index of all.
    pub(crate) fn commit(&self) -> Index {
        let commits = self.hosts.values().filter_map(|host| Some(host.replica.as_ref()?.status().commit));
        commits.max().unwrap_or_default()
    }
}

#[test]
fn three_replicas_elect_replicate_commit_and_read() {
    Protocol::ALL.iter().for_each(|protocol| three_replicas_work(*protocol));
}

fn three_replicas_work(protocol: Protocol) {
    let mut world = World::new(protocol, 1);
    let members = [member(1), member(2), member(3)];
    for number in 1..=3 {
        world.add(number, Membership::initial(&members));
    }
    world.run(ELECTION * 3);
    let leaders = world.leaders();
    assert_eq!(leaders.len(), 1);
    let leader = leaders[0];
    for text in ["a", "b", "c"] {
        world.input(leader, |replica, now| replica.propose(now, text.into())).expect("the leader takes proposals");
    }
    world.run(HEARTBEAT);
    for host in world.hosts.values() {
        let commands: Vec<_> = host.machine.commands.iter().map(|(_, text)| text.clone()).collect();
        assert_eq!(commands, ["a", "b", "c"]);
    }
    for number in 1..=3 {
        world.events.clear();
        world.input(number, |replica, now| replica.read(now, kernel::ReadId(7))).expect("reads are open");
        world.run(HEARTBEAT);
        let commit = world.commit();
        let reads: Vec<_> = world
            .events
            .iter()
            .filter_map(|e| if let Event::Read(_, done) = e { Some(done.at) } else { None })
            .collect();
        assert_eq!(reads, [Ok(commit)], "read on {number}");
    }
    // A follower that lost everything since the beginning, and a compacted log: a snapshot.
    world.flush(leader);
    let commit = world.commit();
    assert!(world.input(leader, |replica, _| replica.compact(commit)));
    world.add(4, Membership::default());
    let base = world.replica(leader).expect("is up").membership().index;
    world
        .input(leader, |replica, now| replica.change_membership(now, base, &members, &[member(4)]))
        .expect("a learner");
    world.run(HEARTBEAT * 3);
    assert_eq!(world.snapshots, [(leader, 4)]);
    assert!(world.transfer_snapshot(leader, 4));
    world.run(HEARTBEAT * 3);
    assert!(world.hosts[&4].machine.agrees_with(&world.hosts[&leader].machine));
}
