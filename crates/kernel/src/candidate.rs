//! Elections: asking for votes and giving them.
//!
//! Three rules keep a cluster with odd connectivity from chasing its own tail; all three are needed. *Pre-vote*: nobody
//! raises a promise before a quorum said it would vote. *Check-quorum*: a leader that does not hear a quorum steps down
//! (`leader.rs`). *Stickiness*: who heard a leader within the election timeout neither votes nor campaigns, unless the
//! leader itself asks (Raft thesis 4.2.3, 6.2, 9.6; Howard and Abraham, "Raft does not guarantee liveness", 2020).
//!
//! A grant never depends on the voter's own view of the membership: a learner may have been promoted without knowing.

use std::collections::{BTreeMap, BTreeSet};

use base::limits::{APPEND_BYTES_MAX, APPEND_ENTRIES_MAX};
use base::planted::{Defect, planted};
use base::{Ballot, Index, NodeId, ReplicaId};

use crate::entries::Entries;
use crate::entry::{Entry, Position};
use crate::membership::{Membership, Timeline};
use crate::message::{Body, Suffix};
use crate::policy::{Claim, Electorate, Grant, LogPlan, LogView, Vote};
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

    /// One round above everything heard of, refusals included; the node makes it unique. The answers to the pre-vote
    /// have told the promises of a quorum, which is what Zab calls discovery; whoever hands over has had a quorum's
    /// promises for its own ballot.
    fn choose_ballot(&self) -> Ballot {
        Ballot::new(self.promised.max(self.learnt).round + 1, self.config.node)
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
        let ballot = self.choose_ballot();
        let last = self.log.last_position();
        let (accepted, commit, membership) = (self.accepted, self.commit, self.timeline.effective().index);
        let voters = self.other_voters();
        for to in voters {
            self.send(to, ballot, Body::PreVote { last, accepted, commit, membership });
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
        let last = Position::default();
        let nothing = Vote { accepted: Ballot::ZERO, last, suffix_from: Index(1), suffix: Vec::new() };
        if let RoleState::Candidate(candidacy) = &mut self.role {
            candidacy.votes.extend(granted.into_iter().filter(|voter| *voter != own).map(|v| (v, nothing.clone())));
        }
    }

    /// Stands for election. The requests leave only when the promise is durable: otherwise a restart could use the
    /// ballot again, with another log, while old votes are still on their way.
    fn campaign(&mut self, forced: bool) {
        let ballot = self.choose_ballot();
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
            if planted(Defect::BallotReused) {
                self.send(to, self.promised, body);
                continue;
            }
            self.send_when_durable(to, self.promised, body);
        }
    }

    fn other_voters(&self) -> Vec<ReplicaId> {
        self.timeline.effective().all_voters().filter(|voter| *voter != self.id()).collect()
    }

    /// Answers a pre-vote. Whatever the answer, nothing changes here.
    pub(crate) fn on_pre_vote(&mut self, from: ReplicaId, ballot: Ballot, claim: &Claim, membership: Index) {
        self.contacts.remember(from, ballot.node);
        if self.tell_if_removed(from, ballot, membership) {
            return;
        }
        let willing = self.config.protocol.grant(&self.view(), claim) != Grant::Refuse;
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
        self.contacts.remember(from, ballot.node);
        if self.tell_if_removed(from, ballot, membership) {
            return;
        }
        // A repeated request gets a repeated answer; the vote is given once per incarnation and ballot.
        let repeated = ballot == self.promised && self.voted_for == Some(from) && self.leader.is_none();
        let open = repeated || (ballot > self.promised && (forced || !self.is_sticky(from)));
        let grant = if open { self.config.protocol.grant(&self.view(), claim) } else { Grant::Refuse };
        let (granted, suffix_from) = match grant {
            Grant::Refuse => (false, Index(0)),
            Grant::Give { suffix_from } => (true, suffix_from.unwrap_or(self.log.last().next())),
        };
        let entries = if granted { self.log_part(suffix_from) } else { Entries::default() };
        let suffix = Suffix { from: suffix_from, entries }.into();
        if granted && ballot > self.promised {
            self.become_follower(ballot, None);
            self.voted_for = Some(from);
        }
        let (promised, accepted, commit) = (self.promised, self.accepted, self.commit);
        let last = self.log.last_position();
        let body = Body::ElectReply { granted, promised, accepted, commit, last, suffix };
        match granted {
            true if planted(Defect::EarlyVote) => self.send(from, ballot, body),
            true => self.send_when_durable(from, ballot, body),
            false => self.send_promise(from, ballot, body),
        }
    }

    /// As much of the log as fits a message.
    fn log_part(&self, from: Index) -> Entries {
        self.log.slice(from, APPEND_BYTES_MAX, APPEND_ENTRIES_MAX)
    }

    /// Counts a vote for the current candidacy, and only for that.
    pub(crate) fn on_elect_reply(&mut self, from: ReplicaId, ballot: Ballot, vote: Option<Vote>, promised: Ballot) {
        self.learnt = self.learnt.max(promised);
        let me = LogView { log: &self.log, accepted: self.accepted, commit: self.commit };
        let RoleState::Candidate(candidacy) = &mut self.role else { return };
        let Some(vote) = vote.filter(|_| ballot == self.promised) else { return };
        let defer_to = self.config.protocol.defers_to(&me, &vote) && !self.deferred_to.contains(&from);
        let last = vote.last;
        // A repeated vote must not take back what was fetched since.
        candidacy.votes.entry(from).or_insert(vote);
        if defer_to { self.hand_candidacy_to(from, last) } else { self.complete_vote(from) }
    }

    /// Counts a vote that is complete, asks for the rest of one that is not.
    fn complete_vote(&mut self, from: ReplicaId) {
        let RoleState::Candidate(candidacy) = &self.role else { return };
        let Some(vote) = candidacy.votes.get(&from) else { return };
        if vote.is_complete() || planted(Defect::VoteBeyondRange) {
            return self.maybe_win();
        }
        let body = Body::FetchLog { from: vote.next() };
        self.send(from, self.promised, body);
    }

    /// A candidate wants more of this log. It has not changed since the vote; if it starts later by now, or this is
    /// another incarnation, the candidate gets no answer and will have to stand again.
    pub(crate) fn on_fetch_log(&mut self, from: ReplicaId, ballot: Ballot, first: Index) {
        let voted = ballot == self.promised && self.voted_for == Some(from) && self.leader.is_none();
        if !voted || first < self.log.cached_from() {
            return;
        }
        // The candidate is alive and has work to do: to campaign against it now would only make it start over.
        self.reset_election_timer();
        let entries = self.log_part(first);
        self.send(from, ballot, Body::FetchLogReply { from: first, entries });
    }

    /// The next part of a vote.
    pub(crate) fn on_fetch_log_reply(&mut self, from: ReplicaId, ballot: Ballot, first: Index, entries: &Entries) {
        let RoleState::Candidate(candidacy) = &mut self.role else { return };
        let Some(vote) = candidacy.votes.get_mut(&from) else { return };
        if ballot != self.promised || entries.is_empty() || first != vote.next() {
            return;
        }
        vote.suffix.extend_from_slice(entries);
        // Those that have told everything must know that this goes on.
        let waiting: Vec<_> = candidacy.votes.iter().filter(|(_, vote)| vote.is_complete()).collect();
        let waiting: Vec<_> = waiting.into_iter().map(|(voter, vote)| (*voter, vote.next())).collect();
        for (voter, past) in waiting.into_iter().filter(|(voter, _)| *voter != from) {
            self.send(voter, self.promised, Body::FetchLog { from: past });
        }
        self.reset_election_timer();
        self.complete_vote(from);
    }

    /// The leader hands over: campaign at once, if this log is the one it speaks of.
    pub(crate) fn on_timeout_now(&mut self, from: ReplicaId, ballot: Ballot, last: Position) {
        let sent_by_leader = self.leader == Some(from) || (self.leader.is_none() && self.voted_for == Some(from));
        let mine = self.log.last_position();
        let lags = self.config.protocol.elects_laggards() && mine.index < last.index;
        let holds = ballot == self.promised && (last == mine || lags);
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
        let own = self.id();
        let mut votes: BTreeMap<ReplicaId, &Vote> =
            candidacy.votes.iter().map(|(voter, vote)| (*voter, vote)).collect();
        votes.retain(|_, vote| vote.is_complete() || planted(Defect::VoteBeyondRange));
        let mut missing = BTreeSet::new();
        loop {
            let plan = self.config.protocol.build_log(&self.view(), &votes, self.promised);
            let electorate = match self.config.protocol.electorate() {
                Electorate::Latest => vec![self.timeline.effective().clone()],
                Electorate::AllUncommitted => self.memberships_after(&plan),
            };
            let voted = |replica: ReplicaId| replica == own || votes.contains_key(&replica);
            let Some(unwilling) = electorate.iter().find(|membership| !has_quorum(membership, voted)) else {
                return match plan.fetch_from {
                    Some((better, _)) if self.deferred_to.contains(&better) => self.fetch_history(better),
                    Some((better, last)) => self.hand_candidacy_to(better, last),
                    None => self.lead_with(plan),
                };
            };
            missing.extend(electorate.iter().flat_map(Membership::all_voters).filter(|voter| *voter != own));
            // A membership that nobody decided may have come with a vote, and its members may never answer. Without
            // that vote there may be a quorum all the same: not to have counted a vote is always safe.
            let bringer = plan.adopt.iter().find(|entry| entry.index == unwilling.index);
            let before = votes.len();
            votes.retain(|_, vote| bringer.is_none_or(|brought| !vote.at(brought.index).is_some_and(|e| e == brought)));
            if votes.len() == before {
                break;
            }
        }
        self.solicit(missing.into_iter().collect());
    }

    /// A voter with a better log was asked to lead and does not: its log has to come here.
    fn fetch_history(&mut self, better: ReplicaId) {
        let first = self.commit.next();
        let RoleState::Candidate(candidacy) = &mut self.role else { return };
        let Some(vote) = candidacy.votes.get_mut(&better) else { return };
        (vote.suffix_from, vote.suffix) = (first, Vec::new());
        self.complete_vote(better);
    }

    /// The membership at the commit index and all later ones in the log that `plan` makes, but nothing before the last
    /// one that ends a joint phase. Its entry was proposed only once the joint one was decided; whatever has been
    /// decided since then, and by in-order acceptance everything before, is with a majority of the new voters. Without
    /// this exception a new voter that has not heard of the end could need those that were removed and are gone.
    fn memberships_after(&self, plan: &LogPlan) -> Vec<Membership> {
        let handed = self.timeline.mark().position.index;
        let kept_to = plan.adopt.first().map_or(plan.keep_to, |first| plan.keep_to.min(first.index.prev()));
        let kept = self.log.iter_from(handed.next()).take_while(|entry| entry.index <= kept_to);
        let timeline = Timeline::new(self.timeline.mark().clone(), kept.chain(&plan.adopt));
        let current = timeline.at(self.commit).clone();
        let later = timeline.all().filter(|membership| membership.index > self.commit).cloned();
        let mut all: Vec<Membership> = std::iter::once(current).chain(later).collect();
        let ends_joint = |pair: &[Membership]| pair[0].is_joint() && !pair[1].is_joint();
        if let Some(joint) = all.windows(2).rposition(ends_joint) {
            all.drain(..=joint);
        }
        all
    }

    /// Another voter has the better log: it should lead, and at once.
    fn hand_candidacy_to(&mut self, better: ReplicaId, last: Position) {
        self.deferred_to.insert(better);
        self.become_follower(self.promised, None);
        self.send(better, self.promised, Body::TimeoutNow { last });
    }

    /// Makes the log what `plan` says, and leads.
    pub(crate) fn lead_with(&mut self, plan: LogPlan) {
        let ballot = self.promised;
        if let Some(accepted) = plan.accepted {
            self.accept_in(accepted);
        }
        if plan.keep_to < self.log.last() {
            self.cut_log(plan.keep_to.next());
        }
        let restamp_from = plan.restamp_from.unwrap_or(Index(u64::MAX));
        let adopted_from = plan.adopt.first().map_or(Index(u64::MAX), |first| first.index);
        let kept: Vec<Entry> =
            self.log.iter_from(restamp_from).take_while(|entry| entry.index < adopted_from).cloned().collect();
        let restamped =
            |entry: Entry| Entry { stamp: if entry.index >= restamp_from { ballot } else { entry.stamp }, ..entry };
        let entries: Entries = kept.into_iter().chain(plan.adopt).map(restamped).collect();
        self.write_entries(entries);
        // What was stamped anew has to go to everyone anew.
        let resume_from = plan.restamp_from.unwrap_or(Index(u64::MAX)).min(self.log.last().next());
        self.become_leader(resume_from);
    }

    /// Cuts the log from `from` on.
    pub(crate) fn cut_log(&mut self, from: Index) {
        assert!(from > self.commit, "cut from {from} reaches into the committed {}", self.commit);
        self.record(Record::Truncate { from });
        self.log.truncate(from);
        self.durable.rewritten(from);
        self.timeline.rebuild(self.log.iter_from(self.timeline.mark().position.index.next()));
    }

    /// Writes entries at their indexes: past the end they are appended, before it they replace what is there.
    pub(crate) fn write_entries(&mut self, entries: Entries) {
        let Some(first) = entries.first().map(|entry| entry.index) else { return };
        self.record(Record::Append(entries.clone()));
        let last = self.log.last();
        if first > last {
            entries.iter().for_each(|entry| _ = self.timeline.append(entry));
            return self.log.append(entries);
        }
        let mut fresh = entries;
        let replacing = fresh.iter().take_while(|entry| entry.index <= last).count();
        fresh[..replacing].iter().for_each(|entry| self.log.overwrite(entry.clone()));
        fresh.skip_front(replacing);
        self.log.append(fresh);
        self.durable.rewritten(first);
        self.timeline.rebuild(self.log.iter_from(self.timeline.mark().position.index.next()));
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
