//! One host: a production replica with its disk, and what an input does to it.
//!
//! Invariant: what comes out depends on the host and the input alone, so it is worked out once and looked up ever
//! after. After each input the host is put into a form in which nothing is left of time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use base::{Ballot, GroupId, Index, Instant, Lsn, NodeId, ReplicaId};
use bytes::Bytes;
use kernel::{
    Body, Entry, EntryKind, Lapse, Mark, Member, Membership, Message, Protocol, ReadDone, ReadId, Ready, Record,
    Replica,
};

use crate::config::{Config, Target};
use crate::disk::{Disk, Image};
use crate::fingerprint::{Fingerprint, Interner, fingerprint};
use crate::ledger;
use crate::sight::{Sight, Sights};

/// The constant time.
const NOW: Instant = Instant(60_000_000);
const HEARTBEAT: Duration = Duration::from_millis(100);
const ELECTION: Duration = Duration::from_millis(1000);
/// One byte more than an append carries beside another entry.
const LARGE_BYTES: usize = base::limits::APPEND_BYTES_MAX + 1;
/// No turn has more rounds unless the replica never comes to rest.
const ROUNDS_MAX: usize = 1000;

/// What travels between hosts.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Packet {
    Message(Message),
    /// A snapshot of the state machine up to `mark`, from the leader of `ballot`.
    Snapshot {
        from: ReplicaId,
        to: ReplicaId,
        ballot: Ballot,
        mark: Mark,
    },
}

impl Packet {
    pub(crate) const fn to(&self) -> u64 {
        match self {
            Self::Message(message) => message.to.0,
            Self::Snapshot { to, .. } => to.0,
        }
    }
}

/// Something that happens at a host.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Input {
    /// The packet with this number arrives. `Lapse::Silence`: long after the leader was heard.
    Deliver(u32, Lapse),
    /// The election timeout passes at one that does not lead.
    Campaign,
    /// A leader has not heard a quorum for an election timeout.
    StepDown,
    Heartbeat,
    HandoverExpires,
    /// The oldest batch becomes durable.
    Persist,
    /// Power fails; of the records not yet durable so many survive. The replica starts again at once.
    Crash {
        kept: u8,
    },
    Propose {
        value: u8,
    },
    Read {
        id: u8,
    },
    Change,
    Transfer {
        to: u64,
    },
    /// The state machine becomes durable and the log before it is given up.
    Compact,
}

/// A committed entry was handed out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct HandedOut {
    pub(crate) index: Index,
    pub(crate) origin: Ballot,
    pub(crate) kind: EntryKind,
    pub(crate) payload: Fingerprint,
    pub(crate) effective: bool,
    /// The ballot of the replica that hands it out.
    pub(crate) by: Ballot,
    /// Membership of a leader that hands it out.
    pub(crate) decided_under: Option<Membership>,
}

/// What the world is to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    Led(Ballot),
    HandedOut(HandedOut),
    Read(ReadDone),
    Restarted,
}

/// A host.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Host {
    pub(crate) number: u64,
    pub(crate) replica: Replica,
    pub(crate) disk: Disk,
    incarnation: u64,
}

/// What an input led to.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) host: Host,
    pub(crate) sent: Vec<Packet>,
    pub(crate) events: Vec<Event>,
    pub(crate) sights: Sights,
    /// Highest round spoken of.
    pub(crate) round: u64,
    /// What is wrong.
    pub(crate) breach: Option<String>,
}

fn member(number: &u64) -> Member {
    Member { replica: ReplicaId(*number), node: NodeId(*number) }
}

fn members(numbers: &[u64]) -> Vec<Member> {
    numbers.iter().map(member).collect()
}

impl Host {
    /// Host `number` before anything happened.
    pub(crate) fn new(config: &Config, number: u64) -> Self {
        let mut disk = Disk::default();
        if !config.strangers.contains(&number) {
            let all: Vec<u64> = config.voters.iter().chain(&config.learners).copied().collect();
            let mut membership = Membership::initial(&members(&all));
            membership.learners = config.learners.iter().map(|learner| ReplicaId(*learner)).collect();
            membership.voters.retain(|voter| !membership.learners.contains(voter));
            disk.flushed.membership = membership.into();
        }
        let mut replica = start(config, number, 0, &disk).expect("an empty disk is sound");
        while replica.has_ready() {
            drop(replica.ready(Lsn(1)));
        }
        replica.assume(NOW, Lapse::Nothing);
        Self { number, replica, disk, incarnation: 0 }
    }

    /// The ballot led, if any.
    pub(crate) fn leads(&self) -> Option<Ballot> {
        self.replica.is_leader().then(|| self.replica.status().ballot)
    }

    /// What `input` does.
    pub(crate) fn step(&self, config: &Config, packets: &Interner<Packet>, input: Input) -> Step {
        let step = Step {
            host: self.clone(),
            sent: Vec::new(),
            events: Vec::new(),
            sights: Sights::default(),
            round: 0,
            breach: None,
        };
        let mut turn = Turn { config, packets, lsn: Lsn(self.disk.batches()), led: self.leads(), step };
        let result = catch_unwind(AssertUnwindSafe(|| turn.run(input)));
        let mut step = turn.step;
        if let Err(panic) = result {
            let words = panic.downcast_ref::<String>().cloned();
            let words = words.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default();
            step.breach.get_or_insert(format!("host {} panicked: {words}", self.number));
        }
        step
    }
}

fn start(config: &Config, number: u64, incarnation: u64, disk: &Disk) -> Result<Replica, base::Fault> {
    // The seed names reads a follower forwards; elsewhere it would only tell equal states apart.
    let seed = if config.bounds.reads > 0 { number * 100 + incarnation } else { 0 };
    let config = kernel::Config {
        group: GroupId(1),
        node: NodeId(number),
        replica: ReplicaId(number),
        protocol: config.protocol,
        heartbeat_interval: HEARTBEAT,
        election_timeout: ELECTION,
        seed,
        leader_priority: 0,
    };
    Replica::new(config, disk.recover(), NOW)
}

/// Whether a batch must be durable as a whole or not at all: Paxos-Raft moves its accepted ballot with its log. Of the
/// others every record stands for itself.
pub(crate) const fn needs_atomic_batches(protocol: Protocol) -> bool {
    match protocol {
        Protocol::PaxosRaft => true,
        Protocol::Raft | Protocol::MultiPaxos | Protocol::Zab => false,
    }
}

/// The payload of command `value`.
fn payload(config: &Config, value: u8) -> Bytes {
    let mut bytes = vec![0; if config.large_commands { LARGE_BYTES } else { 1 }];
    bytes[0] = value;
    bytes.into()
}

/// An input being worked out.
struct Turn<'a> {
    config: &'a Config,
    packets: &'a Interner<Packet>,
    /// Number of the last batch written.
    lsn: Lsn,
    /// The ballot that was led last.
    led: Option<Ballot>,
    step: Step,
}

impl Turn<'_> {
    fn run(&mut self, input: Input) {
        self.perform(input);
        self.settle();
        let replica = &mut self.step.host.replica;
        replica.assume(NOW, Lapse::Nothing);
        replica.check();
        let status = replica.status();
        self.step.round = self.step.round.max(status.ballot.round);
        if status.suspicious > 0 {
            self.breach("met a message that no correct replica sends".to_owned());
        }
    }

    fn breach(&mut self, what: String) {
        let number = self.step.host.number;
        self.step.breach.get_or_insert(format!("host {number} {what}"));
    }

    fn tick(&mut self, lapse: Lapse) {
        let replica = &mut self.step.host.replica;
        replica.assume(NOW, lapse);
        replica.tick(NOW);
    }

    fn deliver(&mut self, packet: &Packet, lapse: Lapse) {
        let Host { replica, disk, .. } = &mut self.step.host;
        match packet {
            Packet::Message(message) => {
                replica.assume(NOW, lapse);
                replica.step(NOW, message.clone());
            }
            Packet::Snapshot { ballot, mark, .. } => {
                let wanted = replica.wants_snapshot(mark);
                self.step.sights.add(if wanted { Sight::SnapshotInstalled } else { Sight::SnapshotRefused });
                if wanted {
                    disk.flushed = mark.clone();
                    replica.snapshot_installed(NOW, *ballot, mark.clone());
                }
            }
        }
    }

    fn perform(&mut self, input: Input) {
        let Host { number, replica, disk, .. } = &mut self.step.host;
        match input {
            Input::Deliver(packet, lapse) => self.deliver(&self.packets.get(packet).clone(), lapse),
            Input::Campaign => {
                self.tick(Lapse::Election);
                if !self.config.pre_votes {
                    self.assume_pre_vote();
                }
            }
            Input::StepDown => {
                self.tick(Lapse::Election);
                self.step.sights.add_if(!self.step.host.replica.is_leader(), Sight::SteppedDown);
            }
            Input::Heartbeat => {
                self.tick(Lapse::Heartbeat);
                self.step.sights.add(Sight::Heartbeat);
            }
            Input::HandoverExpires => {
                self.tick(Lapse::Transfer);
                self.step.sights.add(Sight::HandoverExpired);
            }
            Input::Persist => {
                if let Some(proof) = disk.sync(Lsn(1)) {
                    replica.persisted(NOW, proof);
                }
            }
            Input::Crash { kept } => self.crash(usize::from(kept)),
            Input::Propose { value } => {
                let _ = replica.propose(NOW, payload(self.config, value));
            }
            Input::Read { id } => {
                let id = ReadId(u64::from(id));
                if let Err(refusal) = replica.read(NOW, id) {
                    self.step.sights.add(Sight::ReadRefused);
                    self.step.events.push(Event::Read(ReadDone { id, at: Err(refusal) }));
                }
            }
            Input::Change => {
                let Target { voters, learners } = &self.config.target;
                let base = replica.membership().index;
                let _ = replica.change_membership(NOW, base, &members(voters), &members(learners));
            }
            Input::Transfer { to } if to != *number => {
                let _ = replica.transfer_leadership(NOW, ReplicaId(to));
            }
            Input::Transfer { .. } => {}
            Input::Compact => {
                disk.flushed = replica.mark().clone();
                if replica.compact(disk.flushed.position.index) && replica.has_ready() {
                    self.step.sights.add(Sight::Compacted);
                }
            }
        }
    }

    /// Grants every pre-vote that was just asked for.
    fn assume_pre_vote(&mut self) {
        let replica = &mut self.step.host.replica;
        if replica.role() != kernel::Role::PreCandidate {
            return;
        }
        // Nothing is written before a campaign, so what is sent are the requests.
        let asked = replica.ready(self.lsn.next()).messages;
        for Message { group, protocol, from, to, ballot, body } in asked {
            if matches!(body, Body::PreVote { .. }) {
                let body = Body::PreVoteReply { granted: true, promised: Ballot::ZERO };
                replica.step(NOW, Message { group, protocol, from: to, to: from, ballot, body });
            }
        }
    }

    fn crash(&mut self, kept: usize) {
        let host = &mut self.step.host;
        let before = host.disk.durable.clone();
        let atomic = needs_atomic_batches(self.config.protocol);
        let unsynced = host.disk.unsynced(atomic);
        let lost = host.disk.crash(kept, atomic);
        let promised = |record: &Record| matches!(record, Record::Hard { promised, .. } if *promised > before.promised);
        let sights = &mut self.step.sights;
        sights.add_if(lost.iter().any(promised), Sight::LostPromise);
        sights.add_if(lost.iter().any(|record| matches!(record, Record::Append(_))), Sight::LostEntries);
        sights.add_if(!atomic && kept > 0 && kept < unsynced, Sight::Torn);
        sights.add_if(lost.is_empty(), Sight::Restarted);
        host.incarnation += u64::from(self.config.bounds.reads > 0);
        self.lsn = Lsn(0);
        self.led = None;
        self.step.events.push(Event::Restarted);
        match start(self.config, host.number, host.incarnation, &host.disk) {
            Ok(replica) => host.replica = replica,
            Err(fault) => self.breach(format!("does not start: {fault}")),
        }
    }

    /// Ends turns until the replica wants nothing more.
    fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            self.notice_leadership();
            let replica = &mut self.step.host.replica;
            if !replica.has_ready() {
                return;
            }
            let ready = replica.ready(self.lsn.next());
            self.perform_ready(ready);
            let is_slow = self.config.slow_disks && self.config.is_frail(self.step.host.number);
            while !is_slow && let Some(proof) = self.step.host.disk.sync(self.lsn) {
                self.step.host.replica.persisted(NOW, proof);
            }
        }
        self.breach("never comes to rest".to_owned());
    }

    fn notice_leadership(&mut self) {
        let leads = self.step.host.leads();
        if let Some(ballot) = leads.filter(|_| leads != self.led) {
            self.step.sights.add(Sight::Elected);
            self.step.events.push(Event::Led(ballot));
            self.led = leads;
        }
    }

    fn perform_ready(&mut self, ready: Ready) {
        if !ready.records.is_empty() {
            let mut written = self.step.host.disk.written();
            for record in &ready.records {
                notice_record(&mut self.step.sights, &written, record);
                written.apply(record);
            }
            self.step.host.disk.write(ready.records);
            self.lsn = self.lsn.next();
        }
        for message in ready.messages {
            let host = &self.step.host;
            if let Some(what) = ledger::broken_promise(&host.disk, host.replica.commit_index(), &message) {
                self.step.breach.get_or_insert(what);
            }
            notice_message(&mut self.step.sights, &message);
            self.step.round = self.step.round.max(message.ballot.round);
            self.step.sent.push(Packet::Message(message));
        }
        for committed in &ready.committed {
            committed.entries.iter().for_each(|entry| self.hand_out(entry, committed.effective));
        }
        let Host { number, replica, disk, .. } = &mut self.step.host;
        if !ready.committed.is_empty() {
            replica.applied(replica.mark().position.index);
        }
        for load in ready.loads {
            let entries = disk.written().log.range(load.from..load.until).map(|(_, entry)| entry.clone()).collect();
            replica.loaded(NOW, load.to, entries);
        }
        for to in ready.snapshots_to_send {
            let (ballot, mark) = (replica.status().ballot, replica.mark().clone());
            self.step.sent.push(Packet::Snapshot { from: ReplicaId(*number), to, ballot, mark });
        }
        for done in ready.reads {
            self.step.sights.add(if done.at.is_ok() { Sight::ReadConfirmed } else { Sight::ReadRefused });
            self.step.events.push(Event::Read(done));
        }
        self.step.sights.add_if(self.step.host.replica.status().removed.is_some(), Sight::Removed);
    }

    fn hand_out(&mut self, entry: &Entry, effective: bool) {
        let replica = &self.step.host.replica;
        let by = replica.status().ballot;
        let decided_under = replica.is_leader().then(|| replica.membership().clone());
        let sights = &mut self.step.sights;
        sights.add(Sight::Committed);
        sights.add_if(decided_under.is_some() && entry.origin < by, Sight::OldCommitted);
        sights.add_if(!effective, Sight::Fenced);
        if entry.kind == EntryKind::Config && effective {
            let joint = replica.membership().is_joint() && replica.membership().index == entry.index;
            sights.add(if joint { Sight::JointEntered } else { Sight::JointLeft });
        }
        self.step.events.push(Event::HandedOut(HandedOut {
            index: entry.index,
            origin: entry.origin,
            kind: entry.kind,
            payload: fingerprint(&entry.payload),
            effective,
            by,
            decided_under,
        }));
    }
}

fn notice_record(sights: &mut Sights, written: &Image, record: &Record) {
    match record {
        Record::Truncate { .. } => sights.add(Sight::Truncated),
        Record::Append(entries) => {
            let overwrites = entries.iter().any(|entry| written.log.contains_key(&entry.index));
            sights.add_if(overwrites, Sight::Overwritten);
        }
        Record::Hard { .. } | Record::Compact { .. } => {}
    }
}

fn notice_message(sights: &mut Sights, message: &Message) {
    match &message.body {
        Body::ElectReply { granted: false, .. } | Body::PreVoteReply { granted: false, .. } => {
            sights.add(Sight::VoteRefused);
        }
        Body::AppendReply { ok: false, .. } => sights.add(Sight::AppendRejected),
        Body::TimeoutNow { .. } => sights.add(Sight::HandedOver),
        Body::ElectReply { granted: true, .. }
        | Body::PreVoteReply { granted: true, .. }
        | Body::AppendReply { ok: true, .. }
        | Body::PreVote { .. }
        | Body::Elect { .. }
        | Body::FetchLog { .. }
        | Body::FetchLogReply { .. }
        | Body::Append { .. }
        | Body::ReadIndex { .. }
        | Body::ReadIndexReply { .. }
        | Body::SnapshotInstalled { .. }
        | Body::Removed { .. } => {}
    }
}
