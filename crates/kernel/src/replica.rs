//! The replica: its state, and the dispatch from inputs to the files that know what to do.
//!
//! A replica is a pure function from inputs to a [`Ready`](crate::Ready). Inputs carry the time; the replica has no
//! clock. It holds no log on disk, no socket and no state machine: the host does what `Ready` says.
//!
//! Left out on purpose: read leases (so a restarted voter may vote at once: it has promised nobody to stay silent),
//! parallel changes of membership, and any retry of a request on behalf of its caller.

use std::collections::{BTreeSet, VecDeque};

use base::planted::{Defect, planted};
use base::time::micros;
use base::{Ballot, Fault, Index, Instant, NodeId, Prng, ReplicaId};

use crate::candidate::{Candidacy, Poll};
use crate::config::Config;
use crate::contacts::Contacts;
use crate::durable::Durability;
use crate::follower::Staged;
use crate::leader::Leadership;
use crate::log::Log;
use crate::membership::{Membership, Timeline};
use crate::message::{Body, Message};
use crate::output::Outbox;
use crate::policy::{History, LogView};
use crate::read::Forwards;
use crate::ready::{Record, Recovered, Refusal, Role, Status};

/// A group's copy on this node.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Replica {
    pub(crate) config: Config,
    pub(crate) now: Instant,
    pub(crate) random: Prng,
    /// No message of a lower ballot is accepted any more.
    pub(crate) promised: Ballot,
    /// Paxos-Raft: the ballot of the leader of which the whole log is a prefix.
    pub(crate) accepted: Ballot,
    pub(crate) log: Log,
    /// Decided up to here.
    pub(crate) commit: Index,
    /// Memberships along the log, and the mark after the last entry handed out.
    pub(crate) timeline: Timeline,
    /// Batches handed out and not yet applied: last index and payload bytes.
    pub(crate) applying: VecDeque<(Index, usize)>,
    /// Their payload bytes.
    pub(crate) applying_bytes: usize,
    /// The host replaces the state machine by a snapshot: nothing is handed out meanwhile.
    pub(crate) installing: bool,
    pub(crate) role: RoleState,
    /// Who leads `promised`, if that is known.
    pub(crate) leader: Option<ReplicaId>,
    /// Who was granted `promised` by this incarnation, so that a repeated request gets a repeated answer.
    pub(crate) voted_for: Option<ReplicaId>,
    /// Who was asked to lead in this replica's place, since a leader was last heard.
    pub(crate) deferred_to: BTreeSet<ReplicaId>,
    /// Highest ballot anyone claimed to have promised: a candidacy must be above it.
    pub(crate) learnt: Ballot,
    /// When the leader was last heard. Not known after a restart.
    pub(crate) heard: Option<Instant>,
    pub(crate) election_deadline: Instant,
    /// Highest leader priority among the voters, as last heard of a leader.
    pub(crate) preferred: u8,
    /// This replica is no member any more, says the membership of this index.
    pub(crate) removed: Option<Index>,
    /// Where replicas outside the membership live that spoke to us.
    pub(crate) contacts: Contacts,
    /// Paxos-Raft: entries of the leader that do not cover the log yet.
    pub(crate) staged: Option<Staged>,
    pub(crate) durable: Durability,
    pub(crate) forwards: Forwards,
    pub(crate) out: Outbox,
    pub(crate) suspicious: u64,
}

/// The role with what only it needs.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum RoleState {
    Follower,
    PreCandidate(Poll),
    Candidate(Candidacy),
    Leader(Box<Leadership>),
}

impl Replica {
    /// The replica described by `config`, in the state found on disk. A state that no correct replica can have left
    /// there is a fault, and so is a timing that cannot work.
    pub fn new(config: Config, recovered: Recovered, now: Instant) -> Result<Self, Fault> {
        if config.heartbeat_interval.is_zero() || config.election_timeout < config.heartbeat_interval * 2 {
            return Err(Fault::Refused(format!(
                "election timeout {:?} must be at least twice the heartbeat interval {:?}",
                config.election_timeout, config.heartbeat_interval
            )));
        }
        let mark = recovered.mark;
        if !mark.membership.nodes.is_empty() && !mark.membership.is_sound() {
            return Err(Fault::Corrupt { place: "mark".into(), detail: format!("{:?}", mark.membership) });
        }
        let mut out = Outbox::default();
        let mut log = Log::recover(recovered.base, &recovered.runs, recovered.entries, recovered.last)?;
        if log.last_position().stamp > recovered.promised && log.last() > log.base().index {
            let detail = format!("entry of {} above promise {}", log.last_position().stamp, recovered.promised);
            return Err(Fault::Corrupt { place: "log".into(), detail });
        }
        if mark.position.index < log.base().index {
            let detail = format!("applied {} before the log's base {}", mark.position.index, log.base().index);
            return Err(Fault::Corrupt { place: "mark".into(), detail });
        }
        // The state machine may have been flushed before the log. What it holds is committed, so a log that does not
        // reach it, or tells another history there, has nothing to add.
        let history = config.protocol.history(log.stamp(mark.position.index), mark.position.stamp);
        if history == History::Other {
            log = Log::new(mark.position);
        }
        log.apply_to(mark.position.index);
        if history == History::SuffixOnly {
            log.rebase(mark.position);
        }
        if history != History::Same {
            let keep_suffix = history == History::SuffixOnly;
            out.records.push(Record::Compact { base: mark.position, keep_suffix });
        }
        if log.cached_from() > log.applied().next() {
            let detail = format!("entries {}..{} are missing", log.applied().next(), log.cached_from());
            return Err(Fault::Corrupt { place: "log".into(), detail });
        }
        let seen = mark.position.stamp.max(mark.max_origin);
        let forgetful = planted(Defect::ForgottenVote);
        let promised = if forgetful { log.last_position().stamp } else { recovered.promised };
        let commit = recovered.commit.min(log.last()).max(mark.position.index);
        let timeline = Timeline::new(mark, log.iter_from(log.applied().next()));
        let mut replica = Self {
            random: Prng::new(config.seed),
            now,
            promised,
            accepted: recovered.accepted,
            log,
            commit,
            timeline,
            applying: VecDeque::new(),
            applying_bytes: 0,
            installing: false,
            role: RoleState::Follower,
            leader: None,
            voted_for: None,
            deferred_to: BTreeSet::new(),
            learnt: promised,
            heard: None,
            election_deadline: now,
            preferred: 0,
            removed: None,
            contacts: Contacts::default(),
            staged: None,
            durable: Durability::new(promised),
            forwards: Forwards::new(config.seed),
            out,
            suspicious: 0,
            config,
        };
        if seen > replica.promised {
            replica.promise(seen);
        }
        replica.reset_election_timer();
        if replica.is_sole_voter() {
            // Nobody else could be disturbed.
            replica.election_deadline = now;
        }
        Ok(replica)
    }

    /// Takes a message. Whatever it says, the replica stays sound; what contradicts the protocol is dropped and counted
    /// in [`Status::suspicious`].
    pub fn step(&mut self, now: Instant, message: Message) {
        self.advance(now);
        if self.removed.is_some() {
            return;
        }
        if !self.is_plausible(&message) {
            self.suspicious += 1;
            return;
        }
        let (from, ballot) = (message.from, message.ballot);
        match message.body {
            Body::PreVote { last, accepted, commit, membership } => {
                let claim = crate::policy::Claim { last, accepted, commit };
                self.on_pre_vote(from, ballot, &claim, membership);
            }
            Body::PreVoteReply { granted, promised } => self.on_pre_vote_reply(from, ballot, granted, promised),
            Body::Elect { last, accepted, commit, forced, membership } => {
                let claim = crate::policy::Claim { last, accepted, commit };
                self.on_elect(from, ballot, &claim, forced, membership);
            }
            Body::ElectReply { granted, promised, accepted, commit: _, last, suffix } => {
                let (suffix_from, suffix) = (suffix.from, suffix.entries.to_vec());
                let vote = crate::policy::Vote { accepted, last, suffix_from, suffix };
                self.on_elect_reply(from, ballot, granted.then_some(vote), promised);
            }
            Body::FetchLog { from: first } => self.on_fetch_log(from, ballot, first),
            Body::FetchLogReply { from: first, entries } => self.on_fetch_log_reply(from, ballot, first, &entries),
            Body::Append { prev, entries, commit, sync_index, confirm_seq, preferred } => {
                self.preferred = preferred;
                let append = crate::follower::Append { from, ballot, prev, entries, commit, sync_index, confirm_seq };
                self.on_append(append);
            }
            Body::AppendReply { ok, matched, hint, promised, confirm_seq, priority } => {
                let reply = crate::leader::Reply { from, ballot, ok, matched, hint, promised, confirm_seq, priority };
                self.on_append_reply(&reply);
            }
            Body::ReadIndex { id } => self.on_read_index(from, id),
            Body::ReadIndexReply { id, at } => self.on_read_index_reply(id, at),
            Body::TimeoutNow { last } => self.on_timeout_now(from, ballot, last),
            Body::SnapshotInstalled { position } => self.on_snapshot_installed(from, ballot, position),
            Body::Removed { index } => self.on_removed(index),
        }
    }

    /// Takes the time. Must be called when [`next_deadline`](Self::next_deadline) is reached, and may be called any
    /// time; must not wait for the disk, since a leader with a stalled disk has to notice it here.
    pub fn tick(&mut self, now: Instant) {
        self.advance(now);
        if planted(Defect::TicksWaitForDisk) && self.durable.oldest().is_some() {
            return;
        }
        self.expire_forwards();
        match &self.role {
            RoleState::Leader(_) => self.tick_leader(),
            RoleState::Follower | RoleState::PreCandidate(_) | RoleState::Candidate(_) => {
                if self.now >= self.election_deadline {
                    self.on_election_timeout();
                }
            }
        }
    }

    /// When `tick` must be called next, if nothing else happens.
    #[must_use]
    pub fn next_deadline(&self) -> Instant {
        let role = match &self.role {
            RoleState::Leader(leadership) => leadership.next_deadline(),
            RoleState::Follower | RoleState::PreCandidate(_) | RoleState::Candidate(_) => self.election_deadline,
        };
        self.forwards.next_deadline().map_or(role, |forwards| role.min(forwards))
    }

    /// The node that leads, if known.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        // The ballot names the node; the replica id only says whether anyone leads it.
        self.leader.map(|_| self.promised.node)
    }

    /// Whether this replica leads, its marker applied or not.
    #[must_use]
    pub const fn is_leader(&self) -> bool {
        matches!(self.role, RoleState::Leader(_))
    }

    /// Whether this replica knows that it belongs to the group no more.
    #[must_use]
    pub const fn is_removed(&self) -> bool {
        self.removed.is_some()
    }

    /// The ballot promised: the one this replica leads or follows, or campaigns for.
    #[must_use]
    pub const fn ballot(&self) -> Ballot {
        self.promised
    }

    /// The role.
    #[must_use]
    pub fn role(&self) -> Role {
        match &self.role {
            RoleState::Follower => Role::Follower,
            RoleState::PreCandidate(_) => Role::PreCandidate,
            RoleState::Candidate(_) => Role::Candidate,
            RoleState::Leader(leadership) if self.log.applied() < leadership.marker => Role::LeaderElect,
            RoleState::Leader(_) => Role::Leader,
        }
    }

    /// The state for operators, metrics and routing.
    #[must_use]
    pub fn status(&self) -> Status {
        let peers = match &self.role {
            RoleState::Leader(leadership) => {
                let alive = |heard: Instant| self.now.since(heard) < self.config.election_timeout;
                leadership.peers.iter().map(|(id, peer)| (id, peer.matched, alive(peer.heard))).collect()
            }
            RoleState::Follower | RoleState::PreCandidate(_) | RoleState::Candidate(_) => Vec::new(),
        };
        Status {
            role: self.role(),
            ballot: self.promised,
            leader: self.leader(),
            last: self.log.last(),
            commit: self.commit,
            applied: self.log.applied(),
            first: self.log.base().index.next(),
            membership: self.timeline.effective().clone(),
            peers,
            removed: self.removed,
            suspicious: self.suspicious,
        }
    }

    /// How far the log is known to be decided.
    #[must_use]
    pub const fn commit_index(&self) -> Index {
        self.commit
    }

    /// The membership in effect: that of the last config entry in the log, committed or not.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        self.timeline.effective()
    }

    /// The mark after the last entry handed out.
    #[must_use]
    pub const fn mark(&self) -> &crate::entry::Mark {
        self.timeline.mark()
    }

    /// Where a replica lives, so that a message to it finds its way: members old and new, and strangers that spoke to
    /// this replica lately.
    #[must_use]
    pub fn node_of(&self, replica: ReplicaId) -> Option<NodeId> {
        let known = self.timeline.all().filter_map(|membership| membership.nodes.get(&replica)).last();
        known.copied().or_else(|| self.contacts.get(replica))
    }

    /// Moves the clock, never back.
    pub(crate) fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    /// What policies may look at.
    pub(crate) const fn view(&self) -> LogView<'_> {
        LogView { log: &self.log, accepted: self.accepted, commit: self.commit }
    }

    pub(crate) const fn id(&self) -> ReplicaId {
        self.config.replica
    }

    pub(crate) fn is_sole_voter(&self) -> bool {
        let membership = self.timeline.effective();
        membership.is_voter(self.id()) && membership.all_voters().count() == 1
    }

    /// Raises the promise; records it before anything that rests on it.
    pub(crate) fn promise(&mut self, ballot: Ballot) {
        assert!(ballot > self.promised, "promise {} cannot become {ballot}", self.promised);
        self.promised = ballot;
        self.learnt = self.learnt.max(ballot);
        self.voted_for = None;
        self.record_hard();
    }

    /// Records promise and accepted ballot. The commit hint never covers entries that are not durable as they are: a
    /// batch may be lost from any record on, and an old suffix must not come back as committed.
    pub(crate) fn record_hard(&mut self) {
        let commit = self.commit.min(self.log.persisted());
        self.record(Record::Hard { promised: self.promised, accepted: self.accepted, commit });
    }

    /// Records a change of the durable state.
    pub(crate) fn record(&mut self, record: Record) {
        self.seal();
        self.out.records.push(record);
    }

    /// Records the own entries that were proposed since the last record. They stay together from here on: the log, the
    /// record, the appends to the followers and the hand-out share them.
    pub(crate) fn seal(&mut self) {
        if self.log.has_open() {
            let entries = self.log.seal();
            self.out.records.push(Record::Append(entries));
        }
    }

    /// Moves the accepted ballot: the whole log counts as accepted in `ballot` now. Not before that is durable, though,
    /// so no acknowledgement, and not the own copy either, may rest on entries that were durable before.
    pub(crate) fn accept_in(&mut self, ballot: Ballot) {
        self.accepted = ballot;
        self.record_hard();
        self.log.unpersist(self.commit);
        self.durable.rewritten(self.commit.next());
    }

    /// Gives up whatever role there is and follows `ballot`, led by `leader` if that is known.
    pub(crate) fn become_follower(&mut self, ballot: Ballot, leader: Option<ReplicaId>) {
        if ballot > self.promised {
            self.promise(ballot);
        }
        let role = std::mem::replace(&mut self.role, RoleState::Follower);
        if self.leader != leader {
            self.leader = leader;
            self.heard = None;
        }
        if leader.is_some() {
            self.deferred_to.clear();
        }
        if let RoleState::Leader(leadership) = role {
            self.fail_reads(*leadership);
        }
        self.staged = None;
        self.fail_forwards();
        self.reset_election_timer();
    }

    /// Draws the next election deadline from [T, 2T): two replicas rarely draw the same, so votes rarely split. Who
    /// knows of a replica that should rather lead lets it go first.
    pub(crate) fn reset_election_timer(&mut self) {
        let timeout_us = micros(self.config.election_timeout);
        let courtesy_us = if self.config.leader_priority < self.preferred { timeout_us } else { 0 };
        let jitter_us = self.random.below(timeout_us.max(1));
        let waits_us = timeout_us.saturating_add(courtesy_us).saturating_add(jitter_us);
        self.election_deadline = Instant(self.now.0.saturating_add(waits_us));
    }

    /// The refusal of everything only a leader can do.
    pub(crate) fn not_leader(&self) -> Refusal {
        Refusal::NotLeader(self.leader())
    }

    /// A message in ballot `ballot`.
    pub(crate) fn message(&self, to: ReplicaId, ballot: Ballot, body: Body) -> Message {
        Message { group: self.config.group, protocol: self.config.protocol, from: self.id(), to, ballot, body }
    }

    /// Sends a message that promises nothing.
    pub(crate) fn send(&mut self, to: ReplicaId, ballot: Ballot, body: Body) {
        let message = self.message(to, ballot, body);
        self.out.messages.push(message);
    }

    /// Sends a message once everything recorded so far is durable.
    pub(crate) fn send_when_durable(&mut self, to: ReplicaId, ballot: Ballot, body: Body) {
        let message = self.message(to, ballot, body);
        self.durable.hold(message);
    }

    /// Sends a message that tells the promise: not before the promise is durable.
    pub(crate) fn send_promise(&mut self, to: ReplicaId, ballot: Ballot, body: Body) {
        if self.durable.promised() == self.promised {
            self.send(to, ballot, body);
        } else {
            self.send_when_durable(to, ballot, body);
        }
    }
}
