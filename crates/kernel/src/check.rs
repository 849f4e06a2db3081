//! The invariant chain of a replica, in one place. Tests and the simulator call it after every step.

use crate::replica::{Replica, RoleState};

impl Replica {
    /// Panics with the broken relation.
    pub fn check(&self) {
        self.log.check();
        self.timeline.check();
        self.durable.check(self.promised);
        let (base, applied, last) = (self.log.base().index, self.log.applied(), self.log.last());
        let handed = self.timeline.mark().position.index;
        assert!(base <= applied, "base {base} past applied {applied}");
        assert!(applied <= handed, "applied {applied} past handed out {handed}");
        assert!(handed <= self.commit, "handed out {handed} past commit {}", self.commit);
        assert!(self.commit <= last, "commit {} past last {last}", self.commit);
        let newest = self.log.last_position().stamp;
        assert!(newest <= self.promised, "entry of {newest} above promise {}", self.promised);
        assert!(self.accepted <= self.promised, "accepted {} above promise {}", self.accepted, self.promised);
        assert!(self.promised <= self.learnt, "promise {} above anything learnt", self.promised);
        if self.config.protocol.keeps_stamps() {
            let mark = self.timeline.mark().position;
            let stamp = self.log.stamp(mark.index);
            assert!(stamp == Some(mark.stamp), "handed out {mark:?}, log has {stamp:?}");
        }
        let applying: usize = self.applying.iter().map(|(_, bytes)| bytes).sum();
        assert!(applying == self.applying_bytes, "{applying} bytes are being applied, counted {}", self.applying_bytes);
        self.check_role();
    }

    fn check_role(&self) {
        match &self.role {
            RoleState::Follower => assert!(self.leader != Some(self.id()), "a follower cannot lead"),
            RoleState::PreCandidate(_) => assert!(self.leader.is_none(), "a pre-candidate has no leader"),
            RoleState::Candidate(_) => {
                assert!(self.leader.is_none(), "a candidate has no leader");
                assert!(self.promised.node == self.node(), "candidate for the ballot of another: {}", self.promised);
                assert!(self.voted_for == Some(self.id()), "a candidate votes for itself");
            }
            RoleState::Leader(leadership) => {
                assert!(self.leader == Some(self.id()), "a leader knows itself");
                assert!(self.promised.node == self.node(), "leader of the ballot of another: {}", self.promised);
                assert!(self.durable.promised() == self.promised, "leads {} before it is durable", self.promised);
                assert!(leadership.marker <= self.log.last(), "marker {} is gone", leadership.marker);
                let members = self.timeline.all().flat_map(|membership| membership.replicas());
                for member in members.filter(|member| *member != self.id()) {
                    assert!(leadership.peers.get(member).is_some(), "member {member} is not followed");
                }
                for (id, peer) in leadership.peers.iter() {
                    peer.check();
                    let last = self.log.last();
                    assert!(peer.matched <= last, "{id} matched {} past last {last}", peer.matched);
                    assert!(peer.next <= last.next(), "next {} of {id} past last {last}", peer.next);
                }
            }
        }
        assert!(self.removed.is_none() || !self.is_leader(), "a removed replica leads");
    }
}
