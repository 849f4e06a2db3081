//! A replica without its clock, for a model checker that enumerates all states.
//!
//! A replica compares instants to answer a handful of questions: is it time for an election, for a heartbeat, to give
//! up a handover; was the leader, or a quorum, heard lately; does the disk write. A checker does not want to know
//! *when* the answer changes but to try both answers at any moment. [`Replica::assume`] moves every instant the
//! replica holds to where the wanted answers are given, counted from one constant `now`; two replicas that differ in
//! nothing but time become equal by it. The jitter of elections and the numbers of finished batches are forgotten as
//! well, and where strangers live, which only the host asks for.
//!
//! Invariant: no answer of the replica about safety depends on what is forgotten here. No lease rests on the clock, so
//! whatever a checker assumes, a cluster with some clocks, however slow or fast, could have done.

use base::{Instant, Prng};

use crate::replica::{Replica, RoleState};

/// What is assumed about the time that has passed since anything happened at a replica.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Lapse {
    /// None: whoever was heard was heard just now, and nothing is due.
    Nothing,
    /// An election timeout, but nobody looks at the clock: a leader may be voted out.
    Silence,
    /// An election timeout: a follower is to campaign, a leader has lost its quorum.
    Election,
    /// A heartbeat is due, and everyone was heard.
    Heartbeat,
    /// A handover takes too long, and everyone was heard.
    Transfer,
}

impl Replica {
    /// Puts the replica at `now` as if `lapse` had passed. `now` must be more than an election timeout.
    pub fn assume(&mut self, now: Instant, lapse: Lapse) {
        let timeout = self.config.election_timeout;
        assert!(now > Instant(0) + timeout, "no room before {now:?} for {timeout:?}");
        let is_heard = matches!(lapse, Lapse::Nothing | Lapse::Heartbeat | Lapse::Transfer);
        let heard = if is_heard { now } else { now - timeout };
        let due = |is_due: bool| if is_due { now } else { now + timeout };
        self.now = now;
        self.random = Prng::new(0);
        self.contacts.clear();
        self.heard = self.heard.map(|_| heard);
        self.election_deadline = due(lapse == Lapse::Election);
        self.durable.assume_just_issued(now);
        self.forwards.assume_deadline(due(lapse == Lapse::Election));
        if let RoleState::Leader(leadership) = &mut self.role {
            leadership.heartbeat_at = due(matches!(lapse, Lapse::Election | Lapse::Heartbeat));
            leadership.prefer_at = now + timeout;
            if let Some(transfer) = &mut leadership.transfer {
                transfer.deadline = due(matches!(lapse, Lapse::Election | Lapse::Transfer));
            }
            for (_, peer) in leadership.peers.iter_mut() {
                peer.heard = heard;
            }
        }
    }
}
