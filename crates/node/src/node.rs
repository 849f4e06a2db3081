//! The node: routes requests to groups, groups' wishes to the host.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base::planted::{Defect, planted};
use base::{Fault, GroupId, Index, Instant, Lsn, NodeId, Synced, limits};
use bytes::Bytes;
use kernel::{Message, ReadId, Ready, Record, Refusal, Replica, Status};

use crate::effect::{Effect, ReplyTo, Response, Uncertainty};
use crate::event::{Event, Request, SnapshotId, Ticket};
use crate::forward::{Forwarded, Forwards};
use crate::group::{self, Group, Parked, Queued, Transfer};
use crate::leases::{Ask, LeaseForwards};
use crate::reads::Reader;
use crate::snapshot::{Incoming, Outgoing, Step};
use crate::wire::{ForwardAnswer, PeerMessage};

/// How often waiting requests are looked through for deadlines and for a leader that appeared.
const WAITERS_TICK: Duration = Duration::from_millis(50);

/// Identity and bounds of a node.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// This node.
    pub id: NodeId,
    /// Random; ids that travel to other nodes start here, so that two lives of a node never share them.
    pub seed: u64,
    /// How long a request may wait before its client is told the truth (etcd: 5 s + 2 election timeouts).
    pub request_timeout: Duration,
    /// Decided and unapplied entries per group above which proposals are refused.
    pub apply_backlog_max: u64,
    /// Log bytes kept behind the applied index.
    pub log_retained_bytes: u64,
}

/// A group as found on disk at start.
#[derive(Debug)]
pub struct GroupStart {
    /// The replica's configuration.
    pub config: kernel::Config,
    /// Its durable state.
    pub recovered: kernel::Recovered,
}

/// A whole node without IO.
#[derive(Debug)]
pub struct Node {
    pub(crate) config: NodeConfig,
    pub(crate) groups: BTreeMap<GroupId, Group>,
    /// Groups that received an input since the last turn.
    pub(crate) dirty: BTreeSet<GroupId>,
    /// The number of the next batch for the log.
    next_lsn: Lsn,
    pub(crate) connected: BTreeSet<NodeId>,
    forwards: Forwards,
    pub(crate) lease_forwards: LeaseForwards,
    pub(crate) next_read: u64,
    next_snapshot: u64,
    waiters_due: Instant,
    pub(crate) effects: Vec<Effect>,
    /// What a replica wants, taken apart at once: empty between turns, its vectors are used again.
    ready: Ready,
}

impl Node {
    /// A node with the groups it had. `first_lsn` is above every number the host's log acknowledged before.
    ///
    /// # Errors
    /// A replica's durable state contradicts itself.
    pub fn new(config: NodeConfig, groups: Vec<GroupStart>, first_lsn: Lsn, now: Instant) -> Result<Self, Fault> {
        let mut all = BTreeMap::new();
        for GroupStart { config: replica, recovered } in groups {
            let applied = recovered.mark.position.index;
            let id = replica.group;
            all.insert(id, Group::new(id, Replica::new(replica, recovered, now)?, applied, config.log_retained_bytes));
        }
        Ok(Self {
            dirty: all.keys().copied().collect(),
            groups: all,
            next_lsn: first_lsn,
            connected: BTreeSet::new(),
            forwards: Forwards::new(config.seed),
            lease_forwards: LeaseForwards::new(config.seed),
            next_read: config.seed >> 1,
            next_snapshot: config.seed >> 1,
            waiters_due: now,
            effects: Vec::new(),
            ready: Ready::default(),
            config,
        })
    }

    /// Takes one event. Its effects come with the next [`Node::finish_turn`].
    pub fn handle(&mut self, now: Instant, event: Event) {
        match event {
            Event::Tick => self.on_tick(now),
            Event::PeerConnected(node) => {
                self.connected.insert(node);
                self.retry_waiting(now);
            }
            Event::PeerLost(node) => self.on_peer_lost(node),
            Event::Peer(from, message) => self.on_peer(now, from, message),
            Event::Request(ticket, request) => self.on_request(now, ticket, request),
            Event::Persisted(lsn) => self.on_persisted(now, lsn),
            Event::Applied { group, index } => self.on_applied(group, index),
            Event::LeasesLoaded { group, leases } => self.on_leases_loaded(now, group, leases),
            Event::LeasesChanged { group, changes } => self.on_leases_changed(now, group, changes),
            Event::Loaded { group, to, entries } => {
                if let Some(group) = self.touch(group) {
                    group.replica.loaded(now, to, entries);
                }
            }
            Event::Checkpointed { group, index } => self.on_checkpointed(group, index),
            Event::SnapshotOpened { id, mark } => self.with_outgoing(now, id, |outgoing, _| outgoing.opened(mark)),
            Event::SnapshotChunk { id, chunk, last } => self.on_snapshot_chunk_read(now, id, chunk, last),
            Event::SnapshotWritten { id, sequence } => self.on_snapshot_written(id, sequence),
            Event::SnapshotInstalled { id } => self.on_snapshot_installed(now, id),
            Event::SnapshotFailed { id } => self.on_snapshot_failed(id),
        }
    }

    /// Ends the turn: everything the host must do now, all groups' records as one batch.
    pub fn finish_turn(&mut self, now: Instant) -> Vec<Effect> {
        self.turn_leases(now);
        self.ask_for_reads(now);
        self.propose_due_writes(now);
        let mut effects = Vec::new();
        // Serving a group can make it dirty again: a new leader proposes what waited for one. That is a second batch.
        while !self.dirty.is_empty() {
            let mut batch = Vec::new();
            let mut sends = Vec::new();
            let mut rest = Vec::new();
            for id in std::mem::take(&mut self.dirty) {
                self.serve_group(now, id, &mut batch, &mut sends, &mut rest);
            }
            if !batch.is_empty() {
                effects.push(Effect::Persist(self.next_lsn, batch));
                self.next_lsn = self.next_lsn.next();
            }
            effects.append(&mut sends);
            effects.append(&mut rest);
            self.turn_leases(now);
            self.ask_for_reads(now);
            self.propose_due_writes(now);
        }
        effects.append(&mut self.effects);
        effects
    }

    /// Takes a group's `Ready` apart.
    fn serve_group(
        &mut self,
        now: Instant,
        id: GroupId,
        batch: &mut Vec<(GroupId, Vec<Record>)>,
        sends: &mut Vec<Effect>,
        rest: &mut Vec<Effect>,
    ) {
        let group = self.groups.get_mut(&id).expect("only known groups get dirty");
        if !group.replica.has_ready() {
            return;
        }
        let ready = &mut self.ready;
        group.replica.ready_into(self.next_lsn, ready);
        if !ready.records.is_empty() {
            batch.push((id, std::mem::take(&mut ready.records)));
        }
        sends.extend(ready.messages.drain(..).filter_map(|message| {
            let node = group.replica.node_of(message.to)?;
            Some(Effect::Send(node, PeerMessage::Group(message)))
        }));
        if !ready.committed.is_empty() {
            let mark = group.replica.mark().clone();
            group.apply(&mut ready.committed, mark, rest);
        }
        for done in ready.reads.drain(..) {
            if group.leases.confirmed(done.id, done.at.ok()) {
                continue;
            }
            match done.at {
                Ok(at) => {
                    let fresh = group.reads.confirmed(done.id, at, group.applied);
                    rest.extend(fresh.into_iter().map(|r| Effect::Reply(r.ticket, Response::ReadReady)));
                }
                Err(_) => group.reads.failed(done.id), // Asked again at the next look at those who wait.
            }
        }
        rest.extend(ready.loads.drain(..).map(|load| Effect::Load(id, load)));
        for to in ready.snapshots_to_send.drain(..) {
            let Some(node) = group.replica.node_of(to) else { continue };
            // A newer transfer to the same replica takes the place of what is left of an older one.
            for (old, _) in group.outgoing.extract_if(.., |_, outgoing| outgoing.to == to) {
                rest.push(Effect::SnapshotClose(old));
            }
            let snapshot = SnapshotId(self.next_snapshot);
            self.next_snapshot += 1;
            group.outgoing.insert(snapshot, Outgoing::new(snapshot, to, node, now));
            rest.push(Effect::SnapshotOpen(id, snapshot));
        }
        if ready.status_changed {
            self.on_status_changed(now, id);
        }
    }

    /// When [`Event::Tick`] is due at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Instant {
        let replicas = self.groups.values().map(|group| group.replica.next_deadline()).min();
        let waiting = !self.forwards.is_empty()
            || !self.lease_forwards.is_empty()
            || self.groups.values().any(Group::has_waiters);
        let waiters = if waiting { self.waiters_due } else { self.waiters_due + Duration::from_secs(1) };
        let writes = self.groups.values().filter_map(Group::write_deadline).min();
        let reads = self.groups.values().filter_map(Group::read_deadline).min();
        let leases = self.groups.values().filter_map(|group| group.leases.next_deadline()).min();
        [replicas, writes, reads, leases].into_iter().flatten().fold(waiters, Instant::min)
    }

    /// Whether an [`Event::Applied`] is due as soon as it can be told. If not, it may wait for the next turn, whatever
    /// begins that.
    #[must_use]
    pub fn heeds_applied(&self) -> bool {
        self.groups.values().any(Group::heeds_applied)
    }

    /// The state of a group's replica, for operators and routing.
    #[must_use]
    pub fn status(&self, group: GroupId) -> Option<Status> {
        self.groups.get(&group).map(|group| group.replica.status())
    }

    /// A group's replica, to look at.
    #[must_use]
    pub fn replica(&self, group: GroupId) -> Option<&Replica> {
        self.groups.get(&group).map(|group| &group.replica)
    }

    /// Checks every invariant that can be told from one node's state; panics with the broken relation.
    pub fn check(&self) {
        for group in self.groups.values() {
            group.replica.check();
            group.leases.check();
            assert!(group.applied <= group.handed, "applied {} past handed {}", group.applied, group.handed);
        }
    }

    pub(crate) fn touch(&mut self, id: GroupId) -> Option<&mut Group> {
        let group = self.groups.get_mut(&id)?;
        self.dirty.insert(id);
        Some(group)
    }

    fn on_tick(&mut self, now: Instant) {
        for (id, group) in &mut self.groups {
            if group.replica.next_deadline() <= now {
                group.replica.tick(now);
                self.dirty.insert(*id);
            }
        }
        if self.waiters_due <= now {
            self.waiters_due = now + WAITERS_TICK;
            self.expire(now);
            self.expire_lease_asks(now);
            self.retry_waiting(now);
            self.tick_snapshots(now);
        }
    }

    /// Tells everyone whose time is up what is known about their request.
    fn expire(&mut self, now: Instant) {
        let effects = &mut self.effects;
        for group in self.groups.values_mut() {
            for ticket in group.proposals.expire(now) {
                effects.push(Effect::Reply(ticket, Response::Unknown(Uncertainty::Timeout)));
            }
            for reader in group.reads.expire(now) {
                effects.push(Effect::Reply(reader.ticket, Response::TimedOut));
            }
            while let Some(parked) = group.expired_parked(now) {
                effects.push(Effect::Reply(parked.ticket, Response::TimedOut));
            }
            for transfer in group.transfers.extract_if(.., |transfer| transfer.deadline <= now) {
                effects.push(Effect::Reply(transfer.ticket, Response::TimedOut));
            }
        }
        for forwarded in self.forwards.expire(now) {
            effects.push(Effect::Reply(forwarded.ticket, Response::Unknown(Uncertainty::Timeout)));
        }
    }

    /// Parked writes go to the leader, if there is one now.
    fn retry_waiting(&mut self, now: Instant) {
        let ids: Vec<GroupId> = self.groups.keys().copied().collect();
        for id in ids {
            let parked = self.groups.get_mut(&id).expect("listed above").unpark();
            for Parked { ticket, payload, deadline } in parked {
                self.route_write(now, id, ReplyTo::Local(ticket), payload, deadline);
            }
            let group = self.groups.get_mut(&id).expect("listed above");
            if group.reads.has_arrived() {
                group.read_pace.wait(now);
                self.dirty.insert(id);
            }
        }
    }

    fn on_status_changed(&mut self, now: Instant, id: GroupId) {
        let me = self.config.id;
        let group = self.groups.get_mut(&id).expect("known group");
        if group.remote_leader(me).is_some() {
            for transfer in group.transfers.drain(..) {
                self.effects.push(Effect::Reply(transfer.ticket, Response::Done));
            }
        }
        self.recall_asks(id);
        self.retry_waiting(now);
    }

    fn on_peer_lost(&mut self, node: NodeId) {
        self.connected.remove(&node);
        self.on_leader_lost(node);
        for forwarded in self.forwards.lost(node) {
            self.effects.push(Effect::Reply(forwarded.ticket, Response::Unknown(Uncertainty::ConnectionLost)));
        }
    }

    fn on_request(&mut self, now: Instant, ticket: Ticket, request: Request) {
        let deadline = now + self.config.request_timeout;
        match request {
            Request::Propose { group, payload } => {
                self.route_write(now, group, ReplyTo::Local(ticket), payload, deadline);
            }
            Request::Read { group } => match self.touch(group) {
                Some(group) => {
                    group.reads.arrive(Reader { ticket, deadline });
                    group.read_pace.wait(now);
                }
                None => self.effects.push(Effect::Reply(ticket, Response::Refused(Refusal::NotLeader(None)))),
            },
            Request::TransferLeadership { group, to } => self.transfer(now, ticket, group, to),
            Request::Reconfigure { group, change } => self.reconfigure(now, ticket, group, change),
            Request::Lease { group, lease, ask } => {
                self.on_lease_ask(group, Ask { reply: ReplyTo::Local(ticket), lease, ask, deadline });
            }
        }
    }

    fn transfer(&mut self, now: Instant, ticket: Ticket, id: GroupId, to: Option<NodeId>) {
        let deadline = now + self.config.request_timeout;
        let Some(group) = self.touch(id) else {
            self.effects.push(Effect::Reply(ticket, Response::Refused(Refusal::NotLeader(None))));
            return;
        };
        let status = group.replica.status();
        let target = match to {
            Some(node) => status.membership.nodes.iter().find(|(_, n)| **n == node).map(|(replica, _)| *replica),
            // The follower with most of the log among those heard from.
            None => status
                .peers
                .iter()
                .filter(|(replica, _, alive)| *alive && status.membership.voters.contains(replica))
                .max_by_key(|(_, matched, _)| *matched)
                .map(|(replica, ..)| *replica),
        };
        let started = match target {
            Some(target) => group.replica.transfer_leadership(now, target),
            None => Err(Refusal::BadMembership),
        };
        match started {
            Ok(()) => group.transfers.push(Transfer { ticket, deadline }),
            Err(refusal) => self.effects.push(Effect::Reply(ticket, Response::Refused(refusal))),
        }
    }

    /// Proposes here, hands the command to the leader, or parks it until a leader is known. In all three cases nothing
    /// has happened yet, so the choice may be repeated.
    fn route_write(&mut self, now: Instant, id: GroupId, reply: ReplyTo, payload: Bytes, deadline: Instant) {
        let backlog_max = self.config.apply_backlog_max;
        let forwarded = self.forwards.bytes();
        let Some(group) = self.touch(id) else {
            self.effects.push(group::refused(reply, Refusal::NotLeader(None)));
            return;
        };
        // What is parked or with the leader stays in memory until it is answered, also when its client has gone.
        let held = forwarded + group.parked_bytes();
        if group.is_behind(backlog_max) || held > limits::UNCOMMITTED_BYTES_MAX {
            self.effects.push(group::refused(reply, Refusal::Overloaded));
            return;
        }
        if group.leads() {
            return group.enqueue(now, Queued { reply, payload, deadline });
        }
        self.reroute(id, reply, payload, deadline);
    }

    /// Hands a write that cannot be proposed here to the leader, or parks it.
    fn reroute(&mut self, id: GroupId, reply: ReplyTo, payload: Bytes, deadline: Instant) {
        let group = self.groups.get_mut(&id).expect("routed to a known group");
        let leader = group.remote_leader(self.config.id);
        let ReplyTo::Local(ticket) = reply else {
            self.effects.push(group::refused(reply, Refusal::NotLeader(leader)));
            return;
        };
        match leader.filter(|leader| self.connected.contains(leader)) {
            Some(node) => {
                let forwarded = Forwarded { ticket, group: id, node, payload: payload.clone(), deadline };
                let forward = self.forwards.add(forwarded);
                self.effects.push(Effect::Send(node, PeerMessage::Forward { id: forward, group: id, payload }));
            }
            None => {
                let group = self.groups.get_mut(&id).expect("touched above");
                group.park(Parked { ticket, payload, deadline });
            }
        }
    }

    /// Proposes the writes whose round it is.
    fn propose_due_writes(&mut self, now: Instant) {
        let mut refused = Vec::new();
        for (id, group) in &mut self.groups {
            for Queued { reply, payload, deadline } in group.take_due_writes(now) {
                match group.replica.propose(now, payload.clone()) {
                    Ok((index, origin)) => {
                        group.proposed(index);
                        match reply {
                            ReplyTo::Local(ticket) => {
                                let added = group.proposals.add(index, origin, ticket, deadline);
                                assert!(added, "the kernel gave {index}@{origin} away twice");
                            }
                            ReplyTo::Remote(node, id) => {
                                // Sent after the append of this turn, on the same connection: it is there before the
                                // index can be applied.
                                let answer = ForwardAnswer::Accepted { index, origin };
                                self.effects.push(Effect::Send(node, PeerMessage::ForwardReply { id, answer }));
                            }
                        }
                    }
                    // Not the leader any more: to whoever is.
                    Err(Refusal::NotLeader(_) | Refusal::NotReady) => refused.push((*id, reply, payload, deadline)),
                    Err(refusal) => self.effects.push(group::refused(reply, refusal)),
                }
                self.dirty.insert(*id);
            }
        }
        for (id, reply, payload, deadline) in refused {
            self.reroute(id, reply, payload, deadline);
        }
    }

    fn ask_for_reads(&mut self, now: Instant) {
        for (id, group) in &mut self.groups {
            if !group.reads.has_asked() {
                group.read_pace.finish(now);
            }
            // Without a deadline they wait for the next look at those who wait: they were refused a moment ago.
            if !group.reads.has_arrived() || group.read_deadline().is_none_or(|due| now < due) {
                continue;
            }
            let read = ReadId(self.next_read);
            if group.replica.read(now, read).is_ok() {
                self.next_read += 1;
                let readers = group.reads.take_arrived();
                group.read_pace.start(now, readers.len());
                group.reads.asked(read, readers);
                self.dirty.insert(*id);
            } else {
                // Asked again when a leader shows up, or at the next look at those who wait.
                group.read_pace.start(now, 0);
            }
        }
    }

    fn on_peer(&mut self, now: Instant, from: NodeId, message: PeerMessage) {
        match message {
            PeerMessage::Group(message) => self.on_group_message(now, from, message),
            PeerMessage::Forward { id, group, payload } => {
                let deadline = now + self.config.request_timeout;
                self.route_write(now, group, ReplyTo::Remote(from, id), payload, deadline);
            }
            PeerMessage::ForwardReply { id, answer } => self.on_forward_reply(from, id, answer),
            PeerMessage::LeaseAsk { id, group, lease, ask } => {
                let deadline = now + self.config.request_timeout;
                self.on_lease_ask(group, Ask { reply: ReplyTo::Remote(from, id), lease, ask, deadline });
            }
            PeerMessage::LeaseReply { id, answer } => self.on_lease_reply(from, id, answer),
            PeerMessage::SnapshotChunk { group, ballot, id, sequence, mark, chunk, last } => {
                let incoming = Incoming::new(id, from, ballot, mark, now);
                self.on_snapshot_chunk(now, group, incoming, sequence, chunk, last);
            }
            PeerMessage::SnapshotAck { id, next } => {
                self.with_outgoing(now, id, |outgoing, now| {
                    if outgoing.node == from { outgoing.acked(next, now) } else { Step::Nothing }
                });
            }
            PeerMessage::SnapshotRefused { id } => {
                self.with_outgoing(
                    now,
                    id,
                    |outgoing, _| if outgoing.node == from { Step::GiveUp } else { Step::Nothing },
                );
            }
        }
    }

    fn on_group_message(&mut self, now: Instant, from: NodeId, message: Message) {
        let backlog_max = self.config.apply_backlog_max;
        let Some(group) = self.touch(message.group) else { return };
        // A follower whose state machine cannot keep up takes no more entries; the leader repeats them.
        let brings_entries = matches!(&message.body, kernel::Body::Append { entries, .. } if !entries.is_empty());
        if brings_entries && group.is_behind(2 * backlog_max) {
            return;
        }
        // A replica speaks only through the node it lives on; one we do not know (yet) may introduce itself.
        if group.replica.node_of(message.from).is_none_or(|node| node == from) {
            group.replica.step(now, message);
        }
    }

    fn on_forward_reply(&mut self, from: NodeId, id: u64, answer: ForwardAnswer) {
        let Some(forwarded) = self.forwards.take(id, from) else { return };
        let Forwarded { ticket, group, payload, deadline, .. } = forwarded;
        let group = self.groups.get_mut(&group).expect("forwarded for a known group");
        match answer {
            ForwardAnswer::Accepted { index, origin }
                if index > group.handed && group.proposals.add(index, origin, ticket, deadline) => {}
            // Decided before we knew that it was ours, or a place that is another command's: the outcome cannot be
            // told.
            ForwardAnswer::Accepted { .. } => {
                self.effects.push(Effect::Reply(ticket, Response::Unknown(Uncertainty::LeaderFailed)));
            }
            // Surely not done: try again when a leader shows up, at the latest at the next look at the waiters.
            ForwardAnswer::Refused(Refusal::NotLeader(_) | Refusal::NotReady) => {
                group.park(Parked { ticket, payload, deadline });
            }
            ForwardAnswer::Refused(refusal) => self.effects.push(Effect::Reply(ticket, Response::Refused(refusal))),
        }
    }

    fn on_persisted(&mut self, now: Instant, lsn: Synced<Lsn>) {
        assert!(*lsn.get() < self.next_lsn, "{} acknowledged and never handed out", lsn.get());
        for (id, group) in &mut self.groups {
            group.replica.persisted(now, lsn);
            self.dirty.insert(*id);
        }
    }

    fn on_applied(&mut self, id: GroupId, index: Index) {
        let group = self.groups.get_mut(&id).expect("applied for a known group");
        if index <= group.applied {
            return;
        }
        group.moved_to(index);
        group.replica.applied(index);
        group.leases.applied(index);
        let ready = group.reads.applied(index);
        self.effects.extend(ready.into_iter().map(|reader| Effect::Reply(reader.ticket, Response::ReadReady)));
        self.dirty.insert(id);
    }

    fn on_checkpointed(&mut self, id: GroupId, index: Index) {
        let Some(group) = self.touch(id) else { return };
        // Who installs a snapshot goes on with the log behind it. If that were gone it would need the next snapshot,
        // and under steady writes so on for ever.
        let sent = group.outgoing.values().filter_map(|outgoing| outgoing.mark.as_ref());
        let needed = sent.map(|mark| mark.position.index).min().unwrap_or(index);
        if let Some(to) = group.retention.compact_to(index.min(group.applied).min(needed)) {
            group.replica.compact(to);
        }
    }

    // Snapshots, sending side.

    fn with_outgoing(&mut self, now: Instant, id: SnapshotId, act: impl FnOnce(&mut Outgoing, Instant) -> Step) {
        let Some(group) = self.groups.values_mut().find(|group| group.outgoing.contains_key(&id)) else { return };
        let outgoing = group.outgoing.get_mut(&id).expect("found above");
        let step = act(outgoing, now);
        let group = group.id;
        self.take_step(group, id, step);
    }

    fn take_step(&mut self, group: GroupId, id: SnapshotId, step: Step) {
        match step {
            Step::Nothing => {}
            Step::Read => self.effects.push(Effect::SnapshotRead(id)),
            Step::Send(chunks) => {
                for (sequence, chunk, last) in chunks {
                    self.send_chunk(group, id, sequence, chunk, last);
                }
            }
            Step::Close => self.effects.push(Effect::SnapshotClose(id)),
            Step::GiveUp => self.end_outgoing(group, id),
        }
    }

    fn end_outgoing(&mut self, group: GroupId, id: SnapshotId) {
        let Some(group) = self.touch(group) else { return };
        if let Some(outgoing) = group.outgoing.remove(&id) {
            group.replica.snapshot_failed(outgoing.to);
            self.effects.push(Effect::SnapshotClose(id));
        }
    }

    fn send_chunk(&mut self, group: GroupId, id: SnapshotId, sequence: u64, chunk: Bytes, last: bool) {
        let group = &self.groups[&group];
        let outgoing = &group.outgoing[&id];
        let Some(mut mark) = outgoing.mark.clone() else { return };
        if planted(Defect::SnapshotWithoutMembership) {
            mark.membership = Default::default();
        }
        let ballot = group.replica.status().ballot;
        let message = PeerMessage::SnapshotChunk { group: group.id, ballot, id, sequence, mark, chunk, last };
        self.effects.push(Effect::Send(outgoing.node, message));
    }

    fn on_snapshot_chunk_read(&mut self, now: Instant, id: SnapshotId, chunk: Bytes, last: bool) {
        let Some(group) = self.groups.values_mut().find(|group| group.outgoing.contains_key(&id)) else { return };
        let outgoing = group.outgoing.get_mut(&id).expect("found above");
        let (sequence, step) = outgoing.chunk(chunk.clone(), last, now);
        let group = group.id;
        self.send_chunk(group, id, sequence, chunk, last);
        self.take_step(group, id, step);
    }

    fn tick_snapshots(&mut self, now: Instant) {
        let mut steps = Vec::new();
        for group in self.groups.values_mut() {
            let leads = group.replica.is_leader();
            for outgoing in group.outgoing.values_mut() {
                // A follower's snapshot is of no use: only a leader can go on from it.
                let step = if leads { outgoing.tick(now) } else { Step::GiveUp };
                steps.push((group.id, outgoing.id, step));
            }
            if group.incoming.as_ref().is_some_and(|incoming| incoming.abandoned(now)) {
                let incoming = group.incoming.take().expect("seen in the condition");
                self.effects.push(Effect::SnapshotDiscard(incoming.id));
            }
        }
        for (group, id, step) in steps {
            self.take_step(group, id, step);
        }
    }

    // Snapshots, receiving side.

    fn on_snapshot_chunk(
        &mut self,
        now: Instant,
        id: GroupId,
        offered: Incoming,
        sequence: u64,
        chunk: Bytes,
        last: bool,
    ) {
        let (snapshot, from) = (offered.id, offered.from);
        let effects = &mut self.effects;
        let Some(group) = self.groups.get_mut(&id) else { return };
        if group.incoming.as_ref().is_none_or(|incoming| incoming.id != snapshot) {
            let busy = group.incoming.as_ref().is_some_and(|incoming| incoming.installing);
            let older = group.incoming.as_ref().is_some_and(|incoming| incoming.ballot > offered.ballot);
            if sequence != 0 || busy || older || !group.replica.wants_snapshot(&offered.mark) {
                return effects.push(Effect::Send(from, PeerMessage::SnapshotRefused { id: snapshot }));
            }
            if let Some(replaced) = group.incoming.replace(offered) {
                effects.push(Effect::SnapshotDiscard(replaced.id));
            }
        }
        let incoming = group.incoming.as_mut().expect("set above");
        if incoming.accept(sequence, last, now) {
            effects.push(Effect::SnapshotWrite { group: id, id: snapshot, sequence, chunk });
        } else {
            let next = incoming.next();
            effects.push(Effect::Send(from, PeerMessage::SnapshotAck { id: snapshot, next }));
        }
    }

    fn incoming_of(&mut self, id: SnapshotId) -> Option<&mut Group> {
        self.groups.values_mut().find(|group| group.incoming.as_ref().is_some_and(|incoming| incoming.id == id))
    }

    fn on_snapshot_written(&mut self, id: SnapshotId, sequence: u64) {
        let Some(group) = self.incoming_of(id) else { return };
        let group_id = group.id;
        let incoming = group.incoming.as_mut().expect("found by it");
        let complete = incoming.stored(sequence);
        let ack = PeerMessage::SnapshotAck { id, next: incoming.next() };
        let from = incoming.from;
        let mark = incoming.mark.clone();
        let wanted = complete && mark.position.index > group.handed && group.replica.wants_snapshot(&mark);
        if complete {
            let incoming = group.incoming.as_mut().expect("found by it");
            incoming.installing = wanted;
            group.replica.snapshot_installing(wanted);
        }
        if complete && !wanted {
            group.incoming = None;
        }
        self.effects.push(Effect::Send(from, ack));
        if wanted {
            self.effects.push(Effect::SnapshotInstall { group: group_id, id, mark });
        } else if complete {
            self.effects.push(Effect::SnapshotDiscard(id));
        }
    }

    fn on_snapshot_installed(&mut self, now: Instant, id: SnapshotId) {
        let Some(group) = self.incoming_of(id) else { return };
        let incoming = group.incoming.take().expect("found by it");
        let group_id = group.id;
        let index = incoming.mark.position.index;
        let mut effects = Vec::new();
        group.installed(index, &mut effects);
        group.replica.snapshot_installed(now, incoming.ballot, incoming.mark);
        for reader in group.reads.applied(index) {
            effects.push(Effect::Reply(reader.ticket, Response::ReadReady));
        }
        self.effects.append(&mut effects);
        self.dirty.insert(group_id);
    }

    fn on_snapshot_failed(&mut self, id: SnapshotId) {
        let outgoing = self.groups.values().find(|group| group.outgoing.contains_key(&id)).map(|group| group.id);
        if let Some(group) = outgoing {
            return self.end_outgoing(group, id);
        }
        let Some(group) = self.incoming_of(id) else { return };
        let incoming = group.incoming.take().expect("found by it");
        group.replica.snapshot_installing(false);
        let group = group.id;
        self.dirty.insert(group);
        self.effects.push(Effect::Send(incoming.from, PeerMessage::SnapshotRefused { id }));
    }
}
