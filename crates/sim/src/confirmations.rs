//! Whether a leader still led, and when: from the messages that left and arrived, not from what it made of them.
//!
//! A follower that answers an append, and has promised no higher ballot, followed this one after the append was sent.
//! So a leader to which a quorum has answered appends that were sent at some moment or later led at that moment.
//!
//! Invariant: times are those of the leader's clock, and quorums are counted here. Leaders number their appends; that a
//! number comes back from nobody who has not got it is checked, not believed.

use std::collections::BTreeMap;

use base::{Ballot, Instant, ReplicaId};
use kernel::{Body, Membership, Message};

use crate::members::is_quorum;

/// What one leadership has sent, and what came back.
#[derive(Default)]
struct Reign {
    ballot: Ballot,
    /// When each number was first sent, in the order of numbers.
    sent: Vec<(u64, Instant)>,
    /// The greatest number that each follower has answered.
    answered: BTreeMap<ReplicaId, u64>,
}

/// The latest leadership of each replica, and what followers have got.
#[derive(Default)]
pub(crate) struct Confirmations {
    reigns: BTreeMap<ReplicaId, Reign>,
    /// By follower and ballot: the greatest number that arrived.
    heard: BTreeMap<(ReplicaId, Ballot), u64>,
}

impl Reign {
    /// The latest moment at which this follower is known to have followed.
    fn followed_at(&self, follower: ReplicaId) -> Option<Instant> {
        let number = self.answered.get(&follower)?;
        let at = self.sent.binary_search_by_key(number, |(number, _)| *number).ok()?;
        Some(self.sent[at].1)
    }
}

impl Confirmations {
    /// A message leaves, at a moment of its sender's clock.
    pub(crate) fn leaves(&mut self, now: Instant, message: &Message) -> Result<(), String> {
        match message.body {
            Body::Append { confirm_seq, .. } => {
                let reign = self.reigns.entry(message.from).or_default();
                if message.ballot > reign.ballot {
                    *reign = Reign { ballot: message.ballot, ..Reign::default() };
                }
                if message.ballot == reign.ballot
                    && let Err(at) = reign.sent.binary_search_by_key(&confirm_seq, |(number, _)| *number)
                {
                    reign.sent.insert(at, (confirm_seq, now));
                }
                Ok(())
            }
            Body::AppendReply { confirm_seq, .. } => {
                let heard = self.heard.get(&(message.from, message.ballot)).copied().unwrap_or_default();
                match confirm_seq <= heard {
                    true => Ok(()),
                    false => Err(format!("answers append {confirm_seq} of {}, and has got {heard}", message.ballot)),
                }
            }
            _ => Ok(()),
        }
    }

    /// A message arrives.
    pub(crate) fn arrives(&mut self, message: &Message) {
        match message.body {
            Body::Append { confirm_seq, .. } => {
                let heard = self.heard.entry((message.to, message.ballot)).or_default();
                *heard = confirm_seq.max(*heard);
            }
            // Who has promised a higher ballot follows this one no more.
            Body::AppendReply { confirm_seq, promised, .. } if promised <= message.ballot => {
                let reign = self.reigns.get_mut(&message.to).filter(|reign| reign.ballot == message.ballot);
                if let Some(reign) = reign {
                    let answered = reign.answered.entry(message.from).or_default();
                    *answered = confirm_seq.max(*answered);
                }
            }
            _ => {}
        }
    }

    /// Whether a quorum of `membership` has followed `leader` in `ballot` at `moment` or later, as far as it can know.
    pub(crate) fn led_at(
        &self,
        (leader, ballot): (ReplicaId, Ballot),
        moment: Instant,
        membership: &Membership,
    ) -> bool {
        let reign = self.reigns.get(&leader).filter(|reign| reign.ballot == ballot);
        let followed = |replica| reign.and_then(|reign| reign.followed_at(replica)).is_some_and(|at| at >= moment);
        is_quorum(membership, |replica| replica == leader || followed(replica))
    }
}

#[cfg(test)]
mod tests {
    use base::{GroupId, Index, NodeId};
    use kernel::{Entries, Position, Protocol};

    use super::*;

    const LEADER: ReplicaId = ReplicaId(1);
    const BALLOT: Ballot = Ballot::new(4, NodeId(1));

    fn message(from: u64, to: u64, body: Body) -> Message {
        let (from, to) = (ReplicaId(from), ReplicaId(to));
        Message { group: GroupId(0), protocol: Protocol::Raft, from, to, ballot: BALLOT, body }
    }

    fn append(to: u64, confirm_seq: u64) -> Message {
        let (prev, commit, sync_index) = (Position::default(), Index(0), Index(0));
        let body = Body::Append { prev, entries: Entries::default(), commit, sync_index, confirm_seq, preferred: 0 };
        message(1, to, body)
    }

    fn answer(from: u64, confirm_seq: u64, promised: Ballot) -> Message {
        let (matched, hint) = (Index(0), Position::default());
        message(from, 1, Body::AppendReply { ok: true, matched, hint, promised, confirm_seq, priority: 0 })
    }

    /// Append `number` goes to a follower at `sent`, and its answer comes back.
    fn round(seen: &mut Confirmations, follower: u64, number: u64, sent: u64, promised: Ballot) {
        seen.leaves(Instant(sent), &append(follower, number)).expect("a leader may send");
        seen.arrives(&append(follower, number));
        seen.leaves(Instant(0), &answer(follower, number, promised)).expect("it has got that");
        seen.arrives(&answer(follower, number, promised));
    }

    #[test]
    fn a_quorum_leads_at_the_moment_at_which_the_oldest_answered_append_was_sent() {
        let (mut seen, five) = (Confirmations::default(), crate::machine::membership(5));
        let led_at = |seen: &Confirmations, moment| seen.led_at((LEADER, BALLOT), Instant(moment), &five);
        assert!(!led_at(&seen, 0), "nobody has answered");
        round(&mut seen, 2, 1, 10, BALLOT);
        assert!(!led_at(&seen, 10), "two of five");
        round(&mut seen, 3, 2, 20, BALLOT);
        assert!(led_at(&seen, 10) && !led_at(&seen, 11));
        round(&mut seen, 2, 3, 30, BALLOT);
        assert!(led_at(&seen, 20) && !led_at(&seen, 21));
        // An old answer that comes late takes nothing back.
        seen.arrives(&answer(2, 1, BALLOT));
        assert!(led_at(&seen, 20));
        assert!(!seen.led_at((LEADER, Ballot::new(3, NodeId(1))), Instant(10), &five), "another leadership");
    }

    #[test]
    fn who_has_promised_a_higher_ballot_confirms_nothing() {
        let (mut seen, three) = (Confirmations::default(), crate::machine::membership(3));
        round(&mut seen, 2, 1, 10, Ballot::new(5, NodeId(2)));
        assert!(!seen.led_at((LEADER, BALLOT), Instant(10), &three));
    }

    #[test]
    fn an_answer_to_what_did_not_arrive_is_found() {
        let mut seen = Confirmations::default();
        seen.leaves(Instant(10), &append(2, 7)).expect("a leader may send");
        assert!(seen.leaves(Instant(0), &answer(2, 7, BALLOT)).is_err());
        seen.arrives(&append(2, 7));
        assert!(seen.leaves(Instant(0), &answer(2, 7, BALLOT)).is_ok());
    }
}
