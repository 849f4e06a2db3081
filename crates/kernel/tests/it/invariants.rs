//! What must hold whatever happens, seen from above the whole cluster. Each breach panics with its name.

use std::collections::{BTreeMap, BTreeSet};

use base::{Ballot, Index, ReplicaId};
use bytes::Bytes;
use kernel::{Body, Entry, EntryKind, Message, Protocol, ReadId, Role};

use crate::world::{Event, World};

/// Whether an entry has one stamp wherever it is.
const fn keeps_stamps(protocol: Protocol) -> bool {
    match protocol {
        Protocol::Raft | Protocol::Zab => true,
        Protocol::MultiPaxos | Protocol::PaxosRaft => false,
    }
}

/// An entry as the group decided it.
#[derive(Clone, PartialEq, Debug)]
struct Chosen {
    origin: Ballot,
    kind: EntryKind,
    payload: Bytes,
    effective: bool,
}

/// Everything seen so far.
#[derive(Default)]
pub(crate) struct Invariants {
    leaders: BTreeMap<Ballot, u64>,
    chosen: BTreeMap<Index, Chosen>,
    /// A ballot in which, or before which, the entry was decided.
    chosen_by: BTreeMap<Index, Ballot>,
    /// Reads under way: the highest index decided when they were asked.
    reads: BTreeMap<(u64, ReadId), Index>,
    pub(crate) members_ever: BTreeSet<ReplicaId>,
    pub(crate) counts: Counts,
}

/// Evidence that a run did something.
#[derive(Default, Debug, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) leaders: usize,
    pub(crate) chosen: usize,
    pub(crate) configs: usize,
    pub(crate) reads: usize,
    pub(crate) refused_reads: usize,
    pub(crate) snapshots: usize,
    pub(crate) restarts: usize,
    pub(crate) removed: usize,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.leaders += other.leaders;
        self.chosen += other.chosen;
        self.configs += other.configs;
        self.reads += other.reads;
        self.refused_reads += other.refused_reads;
        self.snapshots += other.snapshots;
        self.restarts += other.restarts;
        self.removed += other.removed;
    }
}

impl Invariants {
    pub(crate) fn read_asked(&mut self, host: u64, id: ReadId) {
        let decided = self.chosen.last_key_value().map_or(Index(0), |(index, _)| *index);
        self.reads.insert((host, id), decided);
    }

    /// Not taken: no answer will come.
    pub(crate) fn read_refused(&mut self, host: u64, id: ReadId) {
        self.reads.remove(&(host, id));
    }

    /// The host crashed: nobody waits for its reads any more.
    pub(crate) fn forget_reads(&mut self, host: u64) {
        self.reads.retain(|(asked, _), _| *asked != host);
    }

    pub(crate) fn reads_open(&self) -> usize {
        self.reads.len()
    }

    /// Whether the group decided a membership at this index.
    pub(crate) fn is_decided_membership(&self, index: Index) -> bool {
        self.chosen.get(&index).is_some_and(|chosen| chosen.kind == EntryKind::Config && chosen.effective)
    }

    pub(crate) fn decided(&self) -> usize {
        self.chosen.len()
    }

    /// Takes in what happened since the last call.
    pub(crate) fn observe(&mut self, world: &mut World) {
        for event in std::mem::take(&mut world.events) {
            match event {
                Event::Role(host, Role::LeaderElect | Role::Leader) => self.on_leader(world, host),
                Event::Role(..) => {}
                Event::Committed(host, entry, effective) => self.on_committed(world, host, entry, effective),
                Event::Read(host, done) => {
                    let asked = self.reads.remove(&(host, done.id));
                    let asked =
                        asked.unwrap_or_else(|| panic!("I9: {:?} of {host} answered twice or unasked", done.id));
                    match done.at {
                        Ok(at) => {
                            self.counts.reads += 1;
                            assert!(at >= asked, "I9: stale read at {at}, {asked} was decided before it began");
                        }
                        Err(_) => self.counts.refused_reads += 1,
                    }
                }
                Event::Sent(..) | Event::SnapshotWanted(..) | Event::Wrote(..) | Event::Loaded(..) => {}
            }
        }
        for (number, host) in &world.hosts {
            if let Some(replica) = &host.replica {
                assert!(replica.status().suspicious == 0, "{number} met a message that cannot be");
            }
        }
    }

    /// I1 one leader per ballot, and I5 a leader's log holds everything decided before.
    fn on_leader(&mut self, world: &World, host: u64) {
        let Some(replica) = world.replica(host).filter(|replica| replica.is_leader()) else { return };
        let ballot = replica.status().ballot;
        let first = *self.leaders.entry(ballot).or_insert(host);
        assert!(first == host, "I1: {first} and {host} lead {ballot}");
        self.counts.leaders = self.leaders.len();
        let log = &world.hosts[&host].disk.written;
        let keeps_stamps = keeps_stamps(world.protocol);
        for (index, chosen) in self.chosen.range(log.base.index.next()..) {
            // Where old entries are proposed again, a leader may be late and lack what a later one has decided.
            if if keeps_stamps { chosen.origin < ballot } else { self.chosen_by[index] < ballot } {
                let origin = log.log.get(index).map(|entry| entry.origin);
                assert!(
                    origin == Some(chosen.origin),
                    "I5: leader {ballot} on {host} has {origin:?} at {index}, not {}",
                    chosen.origin
                );
            }
        }
    }

    /// I3/I4/I8: every replica is handed the same entries, in order, with the same effect; I7: a leader decides only
    /// what a quorum holds durably.
    fn on_committed(&mut self, world: &World, host: u64, entry: Entry, effective: bool) {
        let Entry { index, stamp, origin, kind, payload } = entry;
        let new = Chosen { origin, kind, payload, effective };
        if let Some(old) = self.chosen.get(&index) {
            assert!(*old == new, "I3: {host} is handed {new:?} at {index}, others {old:?}");
        } else {
            let next = self.chosen.last_key_value().map_or(Index(1), |(index, _)| index.next());
            assert!(index == next, "I8: {index} decided after {next}");
            let before = self.chosen.values().rfind(|chosen| chosen.effective);
            assert!(
                !new.effective || before.is_none_or(|b| b.origin <= origin),
                "I8: origin {origin} after {before:?}"
            );
            self.counts.configs += usize::from(kind == EntryKind::Config && new.effective);
            self.counts.chosen += 1;
            self.chosen.insert(index, new);
            let ballot = world.replica(host).map(|replica| replica.status().ballot);
            self.chosen_by.insert(index, ballot.expect("who hands out is up"));
        }
        let Some(leader) = world.replica(host).filter(|replica| replica.is_leader()) else { return };
        let keeps_stamps = keeps_stamps(world.protocol);
        let same = |entry: &Entry| if keeps_stamps { entry.stamp == stamp } else { entry.origin == origin };
        let holds = |replica: &ReplicaId| {
            let durable = world.hosts.get(&replica.0).map(|host| &host.disk.durable);
            durable.is_some_and(|d| d.base.index >= index || d.log.get(&index).is_some_and(same))
        };
        let membership = leader.membership();
        for set in [&membership.voters, &membership.outgoing] {
            let count = set.iter().filter(|replica| holds(replica)).count();
            assert!(set.is_empty() || 2 * count > set.len(), "I7: {index} decided with {count} of {set:?}");
        }
    }

    /// I6: an index and an origin name one entry; logs that agree on (index, stamp) agree up to there, in Multi-Paxos
    /// there only; I11: a leader has at most one undecided membership, unless competing ones can come together.
    pub(crate) fn compare_logs(&self, world: &World) {
        let logs: Vec<_> = world.hosts.values().map(|host| &host.disk.written).collect();
        let protocol = world.protocol;
        let same = |a: &Entry, b: &Entry| (a.origin, a.kind, &a.payload) == (b.origin, b.kind, &b.payload);
        for (at, a) in logs.iter().enumerate() {
            for b in &logs[at + 1..] {
                for (one, other) in a.log.values().filter_map(|entry| Some((entry, b.log.get(&entry.index)?))) {
                    let named = one.origin == other.origin || one.stamp == other.stamp;
                    assert!(!named || same(one, other), "I6: {one:?} and {other:?}");
                }
                if protocol == Protocol::MultiPaxos {
                    continue;
                }
                let agree =
                    |(index, entry): &(&Index, &Entry)| b.log.get(index).is_some_and(|e| e.stamp == entry.stamp);
                let Some((top, _)) = a.log.iter().rev().find(agree) else { continue };
                for (index, entry) in a.log.range(..top) {
                    let other = b.log.get(index);
                    let equal =
                        |other: &Entry| if keeps_stamps(protocol) { other == entry } else { same(other, entry) };
                    assert!(other.is_none_or(equal), "I6: {entry:?} and {other:?} below {top}");
                }
            }
        }
        for host in world.hosts.values().filter(|_| keeps_stamps(protocol)) {
            if let Some(replica) = host.replica.as_ref().filter(|replica| replica.is_leader()) {
                // The leader may not know yet how much is decided.
                let known = self.chosen.last_key_value().map_or(Index(0), |(index, _)| *index);
                let undecided = host.disk.written.log.range(known.max(replica.status().commit).next()..);
                let configs = undecided.filter(|(_, entry)| entry.kind == EntryKind::Config).count();
                assert!(configs <= 1, "I11: {configs} undecided memberships");
            }
        }
    }
}

/// I10: what a message promises is durable. A promise that has been overtaken by a higher one is no longer visible
/// on the disk and need not be.
pub(crate) fn assert_durable(world: &World, message: &Message) {
    let disk = &world.hosts[&message.from.0].disk;
    let durable = &disk.durable;
    // A log that does not reach the state machine's mark is replaced by it at the next start.
    let held = durable.last().max(disk.flushed.mark.position.index);
    let ballot = message.ballot;
    let what = &message.body;
    match what {
        Body::Elect { .. } => assert!(durable.promised >= ballot, "I10: {ballot} not durable: {what:?}"),
        Body::ElectReply { granted: true, suffix, accepted, .. } => {
            assert!(durable.promised >= ballot, "I10: {ballot} not durable: {what:?}");
            let known =
                |entry: &Entry| entry.index <= durable.base.index || durable.log.get(&entry.index) == Some(entry);
            let told = suffix.entries.iter().all(known) && durable.accepted == *accepted;
            // While it waited for the disk others may have elected the candidate, and its entries replaced these.
            let replaced = durable.accepted == ballot || durable.log.values().any(|entry| entry.stamp == ballot);
            assert!(durable.promised > ballot || replaced || told, "I10: not durable: {what:?}");
        }
        Body::AppendReply { ok: true, matched, .. } => {
            assert!(durable.promised >= ballot, "I10: {ballot} not durable: {what:?}");
            assert!(durable.promised > ballot || held >= *matched, "I10: {matched} not durable: {what:?}");
            assert_accepted(world, message.from, ballot, *matched);
        }
        Body::AppendReply { ok: false, promised, .. }
        | Body::ElectReply { granted: false, promised, .. }
        | Body::PreVoteReply { promised, .. } => {
            assert!(durable.promised >= *promised, "I10: {promised} not durable: {what:?}");
        }
        Body::SnapshotInstalled { position } => {
            assert!(durable.base.index >= position.index, "I10: snapshot not durable: {what:?}");
        }
        Body::PreVote { .. }
        | Body::Append { .. }
        | Body::ReadIndex { .. }
        | Body::ReadIndexReply { .. }
        | Body::TimeoutNow { .. }
        | Body::FetchLog { .. }
        | Body::FetchLogReply { .. }
        | Body::Removed { .. } => {}
    }
}

/// I10 where a stamp says in which ballot an entry was accepted: what is acknowledged in a ballot is durably
/// accepted in it, or decided.
fn assert_accepted(world: &World, from: ReplicaId, ballot: Ballot, matched: Index) {
    let host = &world.hosts[&from.0];
    let durable = &host.disk.durable;
    let decided = host.replica.as_ref().map_or(Index(0), |replica| replica.status().commit);
    if durable.promised > ballot || matched <= decided {
        return;
    }
    match world.protocol {
        Protocol::Raft | Protocol::Zab => {}
        Protocol::MultiPaxos => {
            let stamp = durable.log.get(&matched).map(|entry| entry.stamp);
            assert!(stamp == Some(ballot), "I10: {matched} acknowledged in {ballot}, accepted in {stamp:?}");
        }
        Protocol::PaxosRaft => {
            let accepted = durable.accepted;
            assert!(accepted == ballot, "I10: {matched} acknowledged in {ballot}, accepted in {accepted}");
        }
    }
}
