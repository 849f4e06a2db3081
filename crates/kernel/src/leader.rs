//! A leader: proposing, counting acknowledgements, staying in touch with a quorum, handing over.
//!
//! Invariant: the commit index moves only over entries that a quorum of the membership in effect holds durably, the
//! leader's own disk included only as far as its own writes are durable. What is sent to whom is in `replicate.rs`.

use base::limits::{ENTRY_BYTES_MAX, UNCOMMITTED_BYTES_MAX};
use base::planted::{Defect, planted};
use base::{Ballot, Index, Instant, ReplicaId};
use bytes::Bytes;

use crate::entry::{Entry, EntryKind, Position};
use crate::log::Log;
use crate::membership::marker_payload;
use crate::message::Body;
use crate::peers::Peers;
use crate::policy::LeaderPhase;
use crate::progress::Progress;
use crate::quorum::{has_quorum, may_be_quorum, quorum_index};
use crate::read::ReadRounds;
use crate::ready::Refusal;
use crate::replica::{Replica, RoleState};

/// A voter that lags by more entries would hold up proposals for too long while it catches up.
const PREFERRED_LAG_MAX: u64 = 1024;
/// Election timeouts between two attempts to hand over to a preferred voter.
const PREFER_TIMEOUTS: u32 = 5;

/// What only a leader needs.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Leadership {
    /// Index of the epoch marker, and the end of the log the leader was elected with.
    pub(crate) marker: Index,
    /// Where sending begins to those of whom nothing is known.
    pub(crate) resume_from: Index,
    /// Everyone else in any membership that may be in effect.
    pub(crate) peers: Peers,
    /// Number of the last append sent: rises with each, to anyone.
    pub(crate) confirm_seq: u64,
    pub(crate) heartbeat_at: Instant,
    pub(crate) transfer: Option<Transfer>,
    pub(crate) reads: ReadRounds,
    /// Highest leader priority among the voters heard.
    pub(crate) preferred: u8,
    /// Before this leadership is not handed to a preferred voter (again).
    pub(crate) prefer_at: Instant,
}

/// A handover under way: proposals wait for nobody, they are refused.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Transfer {
    pub(crate) to: ReplicaId,
    pub(crate) deadline: Instant,
    pub(crate) told: bool,
}

impl Leadership {
    pub(crate) fn next_deadline(&self) -> Instant {
        self.transfer.as_ref().map_or(self.heartbeat_at, |transfer| self.heartbeat_at.min(transfer.deadline))
    }
}

/// A received [`Body::AppendReply`].
pub(crate) struct Reply {
    pub(crate) from: ReplicaId,
    pub(crate) ballot: Ballot,
    pub(crate) ok: bool,
    pub(crate) matched: Index,
    pub(crate) hint: Position,
    pub(crate) promised: Ballot,
    pub(crate) confirm_seq: u64,
    pub(crate) priority: u8,
}

impl Replica {
    /// Proposes a command. `Ok` names the entry it becomes: it took effect once the entry of that index *and origin* is
    /// committed and effective; it surely did not once another entry is committed there.
    pub fn propose(&mut self, now: Instant, payload: Bytes) -> Result<(Index, Ballot), Refusal> {
        self.advance(now);
        let RoleState::Leader(leadership) = &self.role else { return Err(self.not_leader()) };
        let phase = if self.commit < leadership.marker { LeaderPhase::Syncing } else { LeaderPhase::Active };
        if leadership.transfer.is_some() || !self.config.protocol.accepts_proposals(phase) {
            return Err(Refusal::NotReady);
        }
        if payload.len() > ENTRY_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        let waiting = self.log.unapplied_bytes();
        if waiting > 0 && waiting + payload.len() > UNCOMMITTED_BYTES_MAX {
            return Err(Refusal::Overloaded);
        }
        Ok((self.append_own(EntryKind::Command, payload), self.promised))
    }

    /// Adds an own entry to the log. It goes to disk and followers with all others of the turn: see [`Self::seal`].
    pub(crate) fn append_own(&mut self, kind: EntryKind, payload: Bytes) -> Index {
        let index = self.log.last().next();
        let entry = Entry { index, stamp: self.promised, origin: self.promised, kind, payload };
        let changed = self.timeline.append(&entry);
        self.log.push(entry);
        if changed {
            self.sync_peers();
        }
        index
    }

    /// Leads the promised ballot. The first own entry is the marker: committing it commits everything before it, and
    /// until it is applied this leader answers no read and changes no membership.
    pub(crate) fn become_leader(&mut self, resume_from: Index) {
        assert!(self.promised.node == self.node(), "{} cannot lead {}", self.node(), self.promised);
        let marker = self.log.last().next();
        self.leader = Some(self.id());
        self.heard = None;
        self.role = RoleState::Leader(Box::new(Leadership {
            marker,
            resume_from,
            peers: Peers::default(),
            confirm_seq: 0,
            heartbeat_at: self.now + self.config.heartbeat_interval,
            transfer: None,
            reads: ReadRounds::default(),
            preferred: self.config.leader_priority,
            prefer_at: self.now + self.config.election_timeout,
        }));
        let payload = marker_payload(marker, self.timeline.effective());
        self.append_own(EntryKind::EpochStart, payload);
        self.sync_peers();
    }

    /// Leads no more; the ballot stays.
    pub(crate) fn step_down(&mut self) {
        self.become_follower(self.promised, None);
    }

    /// Follows everyone in any membership that may be in effect. Those being removed are followed until their removal
    /// is handed out, so that they learn of it.
    pub(crate) fn sync_peers(&mut self) {
        let own = self.id();
        let RoleState::Leader(leadership) = &mut self.role else { return };
        let next = leadership.resume_from.max(self.log.base().index.next());
        let (timeline, now) = (&self.timeline, self.now);
        leadership.peers.retain(|peer| timeline.all().any(|membership| membership.contains(peer)));
        for peer in timeline.all().flat_map(|membership| membership.replicas()).filter(|peer| *peer != own) {
            leadership.peers.follow(peer, next, now);
        }
    }

    /// Heartbeats, quorum contact, disk and handover.
    pub(crate) fn tick_leader(&mut self) {
        let now = self.now;
        let RoleState::Leader(leadership) = &mut self.role else { return };
        if let Some(late) = leadership.transfer.take_if(|transfer| now >= transfer.deadline) {
            // It did not catch up. Where it can lead all the same, now it may.
            if !late.told && self.config.protocol.elects_laggards() {
                let last = self.log.last_position();
                self.send(late.to, self.promised, Body::TimeoutNow { last });
            }
        }
        let RoleState::Leader(leadership) = &mut self.role else { return };
        if now < leadership.heartbeat_at {
            return;
        }
        leadership.heartbeat_at = now + self.config.heartbeat_interval;
        // A leader whose disk hangs must not keep the others from electing one whose disk writes.
        if self.is_disk_stalled() || !self.hears_quorum() {
            return self.step_down();
        }
        let RoleState::Leader(leadership) = &mut self.role else { return };
        for (_, peer) in leadership.peers.iter_mut() {
            peer.heartbeat_due = true;
        }
        if let Some(transfer) = &mut leadership.transfer {
            transfer.told = false;
        }
        self.maybe_hand_over();
        self.prefer_another();
        // A change of membership may have left the round without anyone to wait for.
        self.complete_reads();
    }

    /// Whether a quorum answered within an election timeout.
    fn hears_quorum(&self) -> bool {
        let RoleState::Leader(leadership) = &self.role else { return false };
        has_quorum(self.timeline.effective(), |replica| {
            let heard = leadership.peers.get(replica).map(|peer| peer.heard);
            replica == self.id() || heard.is_some_and(|at| self.now.since(at) < self.config.election_timeout)
        })
    }

    /// Whether the oldest write under way is older than an election timeout.
    pub(crate) fn is_disk_stalled(&self) -> bool {
        self.durable.oldest().is_some_and(|issued| self.now.since(issued) >= self.config.election_timeout)
    }

    /// Counts an answer to an append.
    pub(crate) fn on_append_reply(&mut self, reply: &Reply) {
        let learnt = reply.promised > self.promised;
        self.learnt = self.learnt.max(reply.promised);
        let (last, base) = (self.log.last(), self.log.base().index);
        let RoleState::Leader(leadership) = &mut self.role else { return };
        if reply.ballot != self.promised {
            return;
        }
        if learnt {
            return self.on_higher_promise();
        }
        let Some(peer) = leadership.peers.get_mut(reply.from) else { return };
        if reply.ok && reply.matched > last {
            self.suspicious += 1;
            return;
        }
        peer.heard = self.now;
        peer.priority = reply.priority;
        peer.confirmed = peer.confirmed.max(reply.confirm_seq);
        if reply.ok {
            if peer.acknowledged(reply.matched, reply.hint.index.min(last), base) {
                if reply.matched > self.commit {
                    self.advance_commit();
                }
                self.maybe_hand_over();
            }
        } else {
            let meeting = meeting_point(&self.log, reply.hint);
            if planted(Defect::MatchOnReject) && peer.acknowledged(meeting, Index(0), base) {
                self.advance_commit();
            } else {
                peer.rejected(meeting, reply.confirm_seq, !self.config.protocol.keeps_stamps());
            }
        }
        self.complete_reads();
    }

    /// Someone promised a ballot above this leader's and will never follow it: it has to campaign again, above that.
    fn on_higher_promise(&mut self) {
        self.step_down();
        if self.may_campaign() {
            self.pre_campaign();
        }
    }

    /// Moves the commit index as far as a quorum reaches and the protocol allows.
    pub(crate) fn advance_commit(&mut self) {
        let RoleState::Leader(leadership) = &self.role else { return };
        let (own, persisted) = (self.id(), self.log.persisted());
        let membership = self.timeline.effective();
        let ahead = leadership.peers.iter().filter(|(_, peer)| peer.matched > self.commit).count();
        if !may_be_quorum(membership, ahead + usize::from(persisted > self.commit)) {
            return;
        }
        // Planted: a leader that is being removed counts itself in the place of the first of those that stay.
        let usurped = membership.voters.first().filter(|_| planted(Defect::RemovedCounts));
        let usurped = usurped.filter(|_| !membership.voters.contains(&own));
        let matched = |replica: ReplicaId| {
            if replica == own || usurped == Some(&replica) {
                return persisted;
            }
            leadership.peers.get(replica).map_or(Index(0), |peer| peer.matched)
        };
        let reached = quorum_index(membership, self.commit, matched);
        if reached <= self.commit {
            return;
        }
        let stamp = self.log.stamp(reached).expect("nobody can match beyond the leader's log");
        if self.config.protocol.may_commit(stamp, self.promised) || planted(Defect::CommitOldStamp) {
            self.commit = reached;
        }
    }

    /// Hands leadership to voter `to`: proposals are refused until it leads, or until an election timeout has passed.
    pub fn transfer_leadership(&mut self, now: Instant, to: ReplicaId) -> Result<(), Refusal> {
        self.advance(now);
        let RoleState::Leader(leadership) = &mut self.role else { return Err(self.not_leader()) };
        if self.log.applied() < leadership.marker || leadership.transfer.as_ref().is_some_and(|t| t.to != to) {
            return Err(Refusal::NotReady);
        }
        if to == self.config.replica || !self.timeline.effective().voters.contains(&to) {
            return Err(Refusal::BadMembership);
        }
        if leadership.transfer.is_none() {
            let deadline = self.now + self.config.election_timeout;
            leadership.transfer = Some(Transfer { to, deadline, told: false });
        }
        self.maybe_hand_over();
        Ok(())
    }

    /// Looks for a voter that should rather lead and could, and begins to hand over to it.
    fn prefer_another(&mut self) {
        let now = self.now;
        let own = self.config.leader_priority;
        let RoleState::Leader(leadership) = &mut self.role else { return };
        let membership = self.timeline.effective();
        let heard = |peer: &Progress| now.since(peer.heard) <= 2 * self.config.heartbeat_interval;
        let voters = leadership.peers.iter().filter(|(id, peer)| membership.voters.contains(id) && heard(peer));
        let best = voters.max_by_key(|(id, peer)| (peer.priority, std::cmp::Reverse(*id)));
        leadership.preferred = best.map_or(own, |(_, peer)| own.max(peer.priority));
        let Some((to, peer)) = best.filter(|(_, peer)| peer.priority > own && now >= leadership.prefer_at) else {
            return;
        };
        let behind = self.log.last().0 - peer.matched.0;
        let keeps_up = match self.config.protocol.elects_laggards() {
            true => peer.matched.next() >= self.log.cached_from(),
            false => behind <= PREFERRED_LAG_MAX,
        };
        let settled = membership.index <= self.commit && !membership.is_joint();
        if keeps_up && settled {
            leadership.prefer_at = now + PREFER_TIMEOUTS * self.config.election_timeout;
            // Refused while another handover is under way: then there will be a next time.
            let _ = self.transfer_leadership(now, to);
        }
    }

    /// Tells the chosen successor to campaign once it holds the whole log.
    pub(crate) fn maybe_hand_over(&mut self) {
        let RoleState::Leader(leadership) = &mut self.role else { return };
        let Some(transfer) = leadership.transfer.as_mut().filter(|transfer| !transfer.told) else { return };
        let (to, last) = (transfer.to, self.log.last_position());
        if leadership.peers.get(to).is_some_and(|peer| peer.matched == last.index) {
            transfer.told = true;
            self.send(to, self.promised, Body::TimeoutNow { last });
        }
    }
}

/// The last index at which the leader's log may agree with a follower whose log has `hint` (its stamp there is not
/// above the leader's stamp at the refused place). Below the base of the log nothing can be compared any more: then the
/// answer lies before the base, and a snapshot has to do.
fn meeting_point(log: &Log, hint: Position) -> Index {
    let mut index = hint.index.min(log.last());
    while log.stamp(index).is_some_and(|stamp| stamp > hint.stamp) {
        if index == log.base().index {
            return index.prev();
        }
        index = log.before_ballot_of(index);
    }
    index
}
