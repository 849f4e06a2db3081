//! Membership changes, seen from the leader (Raft thesis chapter 4; joint consensus, section 4.3).
//!
//! Rules: one change at a time; it names the membership it replaces; it is proposed only when the leader's marker is
//! applied and the membership in effect is committed; a joint membership is left by whoever leads once it is
//! committed, which follows from the log and from no flag in memory.

use base::planted::{Defect, planted};
use base::{Ballot, Index, Instant, ReplicaId};

use crate::entry::EntryKind;
use crate::membership::{Member, Membership, change_payload};
use crate::message::Body;
use crate::ready::Refusal;
use crate::replica::{Replica, RoleState};

/// A learner becomes a voter only if at most so many entries are missing there.
const PROMOTION_LAG_MAX: u64 = 1024;

impl Replica {
    /// Replaces the membership set at index `base` by `voters` and `learners`, in one step whatever they are. `Ok`
    /// names the entry that starts the change; if the voters change, a second entry follows by itself.
    pub fn change_membership(
        &mut self,
        now: Instant,
        base: Index,
        voters: &[Member],
        learners: &[Member],
    ) -> Result<(Index, Ballot), Refusal> {
        self.advance(now);
        let RoleState::Leader(leadership) = &self.role else { return Err(self.not_leader()) };
        if self.log.applied() < leadership.marker || leadership.transfer.is_some() {
            return Err(Refusal::NotReady);
        }
        let current = self.timeline.effective();
        let under_way = current.index > self.commit || current.is_joint();
        if current.index != base || (under_way && !planted(Defect::OverlappingChange)) {
            return Err(Refusal::MembershipBusy);
        }
        let next = current.towards(voters, learners).ok_or(Refusal::BadMembership)?;
        let promoted = current.learners.intersection(&next.voters);
        if !promoted.into_iter().all(|learner| self.keeps_up(*learner)) {
            return Err(Refusal::NotReady);
        }
        Ok((self.append_own(EntryKind::Config, change_payload(base, &next)), self.promised))
    }

    /// Whether a learner is close enough behind to count: otherwise its promotion could stop all commits. One that has
    /// acknowledged nothing to this leader may never have started, however short the log is.
    fn keeps_up(&self, learner: ReplicaId) -> bool {
        let RoleState::Leader(leadership) = &self.role else { return false };
        leadership.peers.get(learner).is_some_and(|peer| {
            self.now.since(peer.heard) <= 2 * self.config.heartbeat_interval
                && peer.matched > Index(0)
                && peer.matched.0 + PROMOTION_LAG_MAX > self.log.last().0
        })
    }

    /// Leaves a joint membership that is committed.
    pub(crate) fn maybe_leave_joint(&mut self) {
        let RoleState::Leader(leadership) = &self.role else { return };
        let current = self.timeline.effective();
        if !current.is_joint() || current.index > self.commit || self.log.applied() < leadership.marker {
            return;
        }
        let payload = change_payload(current.index, &current.leave_joint());
        self.append_own(EntryKind::Config, payload);
    }

    /// A leader outside the committed membership has done its last duty: it hands over and steps down.
    pub(crate) fn maybe_depart(&mut self) {
        let RoleState::Leader(leadership) = &self.role else { return };
        let current = self.timeline.effective();
        if current.index > self.commit || current.is_voter(self.id()) {
            return;
        }
        let last = self.log.last_position();
        let caught_up = |voter: &ReplicaId| leadership.peers.get(*voter).is_some_and(|peer| peer.matched == last.index);
        let successor = current.voters.iter().copied().find(caught_up);
        if let Some(to) = successor {
            self.send(to, self.promised, Body::TimeoutNow { last });
        }
        self.step_down();
    }

    /// Notices that a committed membership, handed out just now, leaves this replica out. `before` is a committed one,
    /// too: a membership that was only appended proves nothing when it goes away.
    pub(crate) fn notice_removal(&mut self, before: &Membership) {
        let after = &self.timeline.mark().membership;
        if before.contains(self.id()) && !after.contains(self.id()) {
            self.become_removed(after.index);
        }
    }
}
