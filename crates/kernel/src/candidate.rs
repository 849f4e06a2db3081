//! Elections: asking for votes and giving them.
//!
//! Three rules keep a cluster with odd connectivity from chasing its own tail; all three are needed. *Pre-vote*: nobody
//! raises a promise before a quorum said it would vote. *Check-quorum*: a leader that does not hear a quorum steps down
//! (`leader.rs`). *Stickiness*: who heard a leader within the election timeout neither votes nor campaigns, unless the
//! leader itself asks (Raft thesis 4.2.3, 6.2, 9.6; Howard and Abraham, "Raft does not guarantee liveness", 2020).
//!
//! A grant never depends on the voter's own view of the membership: a learner may have been promoted without knowing.

use std::collections::{BTreeMap, BTreeSet};

use base::planted::{Defect, planted};
use base::{Ballot, Index, NodeId, ReplicaId};

use crate::entry::{Entry, Position};
use crate::membership::{Membership, Timeline};
use crate::message::Body;
use crate::policy::{Claim, Electorate, Grant, LogPlan, Vote};
use crate::quorum::has_quorum;
use crate::ready::Record;
use crate::replica::{Replica, RoleState};

/// A pre-vote under way.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Poll {
    ballot: Ballot,
    granted: BTreeSet<ReplicaId>,
}

/// A candidacy under way; its ballot is the replica's promise.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Candidacy {
    /// Asked for by the leader.
    forced: bool,
    /// Who was asked.
    asked: BTreeSet<ReplicaId>,
    /// Votes of others.
    votes: BTreeMap<ReplicaId, Vote>,
}

impl Replica {
    /// No leader was heard for long enough.
    pub(crate) fn on_election_timeout(&mut self) {
        self.become_follower(self.promised, None);
        if self.may_campaign() {
            self.pre_campaign();
        }
    }

    /// Only voters campaign, and only with a disk that writes: a leader that cannot persist is of no use. A voter whose
    /// removal is in its log but not known to be committed still campaigns, without a vote of its own: those that
    /// stay may all lack entries that only it has (thesis 4.2.2).
    pub(crate) fn may_campaign(&self) -> bool {
        let votes = self.timeline.all().any(|membership| membership.is_voter(self.id()));
        self.removed.is_none() && votes && !self.is_disk_stalled()
    }

    /// Asks whether an election could be won.
    pub(crate) fn pre_campaign(&mut self) {
        let ballot = self.config.protocol.choose_ballot(self.promised, self.learnt, self.config.node);
        let last = self.log.last_position();
        let membership = self.timeline.effective().index;
        let voters = self.other_voters();
        for to in voters {
            self.send(to, ballot, Body::PreVote { last, membership });
        }
        self.role = RoleState::PreCandidate(Poll { ballot, granted: BTreeSet::from([self.id()]) });
        self.maybe_campaign();
    }

    fn maybe_campaign(&mut self) {
        let RoleState::PreCandidate(poll) = &self.role else { return };
        if has_quorum(self.timeline.effective(), |replica| poll.granted.contains(&replica)) {
            let granted = poll.granted.clone();
            self.campaign(false);
            if planted(Defect::PreVotesCount) {
                self.count_pre_votes(granted);
            }
        }
    }

    /// Planted: takes willingness for votes.
    fn count_pre_votes(&mut self, granted: BTreeSet<ReplicaId>) {
        let own = self.id();
        let nothing = Vote { accepted: Ballot::ZERO, commit: Index(0), last: Position::default(), suffix: Vec::new() };
        if let RoleState::Candidate(candidacy) = &mut self.role {
            candidacy.votes.extend(granted.into_iter().filter(|voter| *voter != own).map(|v| (v, nothing.clone())));
        }
    }

    /// Stands for election. The requests leave only when the promise is durable: otherwise a restart could use the
    /// ballot again, with another log, while old votes are still on their way.
    fn campaign(&mut self, forced: bool) {
        let ballot = self.config.protocol.choose_ballot(self.promised, self.learnt, self.config.node);
        self.become_follower(ballot, None);
        self.voted_for = Some(self.id());
        self.role = RoleState::Candidate(Candidacy { forced, asked: BTreeSet::new(), votes: BTreeMap::new() });
        let voters = self.other_voters();
        self.solicit(voters);
    }

    /// Asks for the votes of those not asked yet.
    fn solicit(&mut self, voters: Vec<ReplicaId>) {
        let RoleState::Candidate(candidacy) = &mut self.role else { return };
        let forced = candidacy.forced;
        let fresh: Vec<ReplicaId> = voters.into_iter().filter(|voter| candidacy.asked.insert(*voter)).collect();
        let last = self.log.last_position();
        let (accepted, commit, membership) = (self.accepted, self.commit, self.timeline.effective().index);
        for to in fresh {
            let body = Body::Elect { last, accepted, commit, forced, membership };
            self.send_when_durable(to, self.promised, body);
        }
    }

    fn other_voters(&self) -> Vec<ReplicaId> {
        self.timeline.effective().all_voters().filter(|voter| *voter != self.id()).collect()
    }

    /// Answers a pre-vote. Whatever the answer, nothing changes here.
    pub(crate) fn on_pre_vote(&mut self, from: ReplicaId, ballot: Ballot, last: Position, membership: Index) {
        self.remember(from, ballot.node);
        if self.tell_if_removed(from, ballot, membership) {
            return;
        }
        let claim = Claim { last, accepted: Ballot::ZERO, commit: Index(0) };
        let willing = self.config.protocol.grant(&self.view(), &claim) != Grant::Refuse;
        let granted = ballot > self.promised && !self.is_sticky(from) && willing;
        let promised = self.promised;
        self.send_promise(from, ballot, Body::PreVoteReply { granted, promised });
    }

    /// Counts a pre-vote.
    pub(crate) fn on_pre_vote_reply(&mut self, from: ReplicaId, ballot: Ballot, granted: bool, promised: Ballot) {
        self.learnt = self.learnt.max(promised);
        let RoleState::PreCandidate(poll) = &mut self.role else { return };
        if granted && ballot == poll.ballot {
            poll.granted.insert(from);
            self.maybe_campaign();
        }
    }

    /// Votes, or says why not. A refusal does not raise the promise.
    pub(crate) fn on_elect(&mut self, from: ReplicaId, ballot: Ballot, claim: &Claim, forced: bool, membership: Index) {
        self.remember(from, ballot.node);
        if self.tell_if_removed(from, ballot, membership) {
            return;
        }
        // A repeated request gets a repeated answer; the vote is given once per incarnation and ballot.
        let repeated = ballot == self.promised && self.voted_for == Some(from) && self.leader.is_none();
        let open = repeated || (ballot > self.promised && (forced || !self.is_sticky(from)));
        let grant = if open { self.config.protocol.grant(&self.view(), claim) } else { Grant::Refuse };
        let suffix = match grant {
            Grant::Refuse => None,
            Grant::Give { suffix_from: None } => Some((self.log.last().next(), Vec::new())),
            // What the candidate lacks must be sent whole or not at all.
            Grant::Give { suffix_from: Some(from) } if from < self.log.cached_from() => None,
            Grant::Give { suffix_from: Some(from) } => Some((from, self.log.slice(from, usize::MAX, usize::MAX))),
        };
        let granted = suffix.is_some();
        if granted && ballot > self.promised {
            self.become_follower(ballot, None);
            self.voted_for = Some(from);
        }
        let (suffix_from, suffix) = suffix.unwrap_or_default();
        let (promised, accepted, commit) = (self.promised, self.accepted, self.commit);
        let last = self.log.last_position();
        let body = Body::ElectReply { granted, promised, accepted, commit, last, suffix_from, suffix };
        match granted {
            true if planted(Defect::EarlyVote) => self.send(from, ballot, body),
            true => self.send_when_durable(from, ballot, body),
            false => self.send_promise(from, ballot, body),
        }
    }

    /// Counts a vote for the current candidacy, and only for that.
    pub(crate) fn on_elect_reply(&mut self, from: ReplicaId, ballot: Ballot, vote: Option<Vote>, promised: Ballot) {
        self.learnt = self.learnt.max(promised);
        let current = ballot == self.promised;
        let RoleState::Candidate(candidacy) = &mut self.role else { return };
        if let Some(vote) = vote.filter(|_| current) {
            candidacy.votes.insert(from, vote);
            self.maybe_win();
        }
    }

    /// The leader hands over: campaign at once, if this log is the one it speaks of.
    pub(crate) fn on_timeout_now(&mut self, from: ReplicaId, ballot: Ballot, last: Position) {
        let sent_by_leader = self.leader == Some(from) || (self.leader.is_none() && self.voted_for == Some(from));
        let holds = ballot == self.promised && last == self.log.last_position();
        if sent_by_leader && holds && !self.is_leader() && self.may_campaign() {
            self.campaign(true);
        }
    }

    /// Whether a leader was heard too recently to vote for anyone but that leader. After a restart nothing is known of
    /// that, and nothing needs to be: no lease rests on it.
    fn is_sticky(&self, candidate: ReplicaId) -> bool {
        if self.is_leader() {
            return true;
        }
        let heard = self.heard.is_some_and(|heard| self.now.since(heard) < self.config.election_timeout);
        heard && self.leader != Some(candidate)
    }

    /// Leads, if the votes suffice: the own one counts once the promise is durable.
    pub(crate) fn maybe_win(&mut self) {
        let RoleState::Candidate(candidacy) = &self.role else { return };
        if self.durable.promised() != self.promised {
            return;
        }
        let protocol = self.config.protocol;
        let plan = protocol.build_log(&self.view(), &candidacy.votes, self.promised);
        let electorate = match protocol.electorate() {
            Electorate::Latest => vec![self.timeline.effective().clone()],
            Electorate::AllUncommitted => self.memberships_after(&plan),
        };
        let own = self.id();
        let voted = |replica: ReplicaId| replica == own || candidacy.votes.contains_key(&replica);
        if electorate.iter().all(|membership| has_quorum(membership, voted)) {
            return match plan.fetch_from {
                Some((better, last)) => self.hand_candidacy_to(better, last),
                None => self.lead_with(plan),
            };
        }
        let voters = electorate.iter().flat_map(Membership::all_voters).filter(|voter| *voter != own).collect();
        self.solicit(voters);
    }

    /// The membership at the commit index and all later ones in the log that `plan` makes.
    fn memberships_after(&self, plan: &LogPlan) -> Vec<Membership> {
        let handed = self.timeline.mark().position.index;
        let kept = self.log.iter_from(handed.next()).take_while(|entry| entry.index <= plan.keep_to);
        let timeline = Timeline::new(self.timeline.mark().clone(), kept.chain(&plan.adopt));
        let current = timeline.at(self.commit).clone();
        let later = timeline.all().filter(|membership| membership.index > self.commit).cloned();
        std::iter::once(current).chain(later).collect()
    }

    /// Another voter has the better log: it should lead, and at once.
    fn hand_candidacy_to(&mut self, better: ReplicaId, last: Position) {
        self.become_follower(self.promised, None);
        self.send(better, self.promised, Body::TimeoutNow { last });
    }

    /// Makes the log what `plan` says, and leads.
    pub(crate) fn lead_with(&mut self, plan: LogPlan) {
        let ballot = self.promised;
        if let Some(accepted) = plan.accepted {
            self.accepted = accepted;
            self.record_hard();
        }
        if plan.keep_to < self.log.last() {
            self.cut_log(plan.keep_to.next());
        }
        let restamp_from = plan.restamp_from.unwrap_or(Index(u64::MAX));
        let kept: Vec<Entry> =
            self.log.iter_from(restamp_from).filter(|entry| entry.stamp != ballot).cloned().collect();
        let restamped =
            |entry: Entry| Entry { stamp: if entry.index >= restamp_from { ballot } else { entry.stamp }, ..entry };
        let entries: Vec<Entry> = kept.into_iter().chain(plan.adopt).map(restamped).collect();
        self.write_entries(entries);
        self.become_leader();
    }

    /// Cuts the log from `from` on.
    pub(crate) fn cut_log(&mut self, from: Index) {
        assert!(from > self.commit, "cut from {from} reaches into the committed {}", self.commit);
        self.log.truncate(from);
        self.durable.rewritten(from);
        self.out.records.push(Record::Truncate { from });
        self.timeline.rebuild(self.log.iter_from(self.timeline.mark().position.index.next()));
    }

    /// Writes entries at their indexes: past the end they are appended, before it they replace what is there.
    pub(crate) fn write_entries(&mut self, entries: Vec<Entry>) {
        let Some(first) = entries.first().map(|entry| entry.index) else { return };
        let overwrites = first <= self.log.last();
        for entry in entries {
            self.out.record_entry(&entry);
            if entry.index <= self.log.last() {
                self.log.overwrite(entry);
            } else {
                self.timeline.append(&entry);
                self.log.push(entry);
            }
        }
        if overwrites {
            self.durable.rewritten(first);
            self.timeline.rebuild(self.log.iter_from(self.timeline.mark().position.index.next()));
        }
    }

    /// Answers a replica that no longer belongs to the group, as a committed membership newer than its own says. It
    /// would otherwise campaign for ever.
    fn tell_if_removed(&mut self, from: ReplicaId, ballot: Ballot, membership: Index) -> bool {
        let committed = self.timeline.at(self.commit);
        let index = committed.index;
        let removed = index > membership && !committed.contains(from);
        if removed {
            self.send(from, ballot, Body::Removed { index });
        }
        removed
    }

    /// A peer says that this replica belongs to the group no more. Believed only against an older membership.
    pub(crate) fn on_removed(&mut self, index: Index) {
        if index > self.timeline.at(self.commit).index {
            self.become_removed(index);
        }
    }

    /// From now on this replica is silent; its host may destroy it.
    pub(crate) fn become_removed(&mut self, index: Index) {
        self.become_follower(self.promised, None);
        self.removed = Some(index);
    }

    /// Node of the replica's own ballots.
    pub(crate) const fn node(&self) -> NodeId {
        self.config.node
    }
}
