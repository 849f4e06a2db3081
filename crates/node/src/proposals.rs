//! Proposals of this node that wait for their slot to be decided.
//!
//! A proposal is named by (index, origin): the origin ballot is unique to one leadership, so at most one proposal ever
//! has that name. When the slot is applied it holds either that proposal (done) or another one (surely not done).

use std::collections::{BTreeMap, VecDeque};

use base::{Ballot, Index, Instant};

use crate::effect::ReplyTo;

#[derive(Debug)]
struct Pending {
    origin: Ballot,
    reply: ReplyTo,
}

/// What became of the proposals that waited for a slot.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    /// The proposal that holds the slot.
    pub(crate) winner: Option<ReplyTo>,
    /// Proposals of earlier leaderships that lost it.
    pub(crate) losers: Vec<ReplyTo>,
}

#[derive(Debug, Default)]
pub(crate) struct Proposals {
    by_index: BTreeMap<Index, Vec<Pending>>,
    /// In order of deadline: the timeout is the same for all.
    deadlines: VecDeque<(Instant, Index, Ballot)>,
}

impl Proposals {
    pub(crate) fn add(&mut self, index: Index, origin: Ballot, reply: ReplyTo, deadline: Instant) {
        self.by_index.entry(index).or_default().push(Pending { origin, reply });
        self.deadlines.push_back((deadline, index, origin));
    }

    /// The slot is decided and holds an entry of `origin`.
    pub(crate) fn settle(&mut self, index: Index, origin: Ballot) -> Settled {
        let mut settled = Settled::default();
        for pending in self.by_index.remove(&index).into_iter().flatten() {
            if pending.origin == origin {
                assert!(settled.winner.is_none(), "two proposals named {index}@{origin}");
                settled.winner = Some(pending.reply);
            } else {
                settled.losers.push(pending.reply);
            }
        }
        settled
    }

    /// Everything decided up to `index` by other means (a snapshot): the outcomes are not known here.
    pub(crate) fn drain_through(&mut self, index: Index) -> Vec<ReplyTo> {
        let later = self.by_index.split_off(&index.next());
        let done = std::mem::replace(&mut self.by_index, later);
        done.into_values().flatten().map(|pending| pending.reply).collect()
    }

    /// Proposals that waited too long; they may still be decided later.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<ReplyTo> {
        let mut expired = Vec::new();
        while let Some(&(deadline, index, origin)) = self.deadlines.front() {
            let waiting = self.by_index.get(&index).is_some_and(|all| all.iter().any(|p| p.origin == origin));
            if waiting && deadline > now {
                break;
            }
            self.deadlines.pop_front();
            if waiting && let Some(all) = self.by_index.get_mut(&index) {
                let at = all.iter().position(|p| p.origin == origin).expect("found above");
                expired.push(all.swap_remove(at).reply);
                if all.is_empty() {
                    self.by_index.remove(&index);
                }
            }
        }
        expired
    }
}

#[cfg(test)]
mod tests {
    use base::NodeId;

    use super::*;
    use crate::event::Ticket;

    const A: Ballot = Ballot::new(1, NodeId(1));
    const B: Ballot = Ballot::new(2, NodeId(1));

    fn reply(ticket: u64) -> ReplyTo {
        ReplyTo::Local(Ticket(ticket))
    }

    #[test]
    fn only_the_proposal_of_the_deciding_ballot_wins_its_slot() {
        let mut proposals = Proposals::default();
        proposals.add(Index(5), A, reply(1), Instant(10));
        proposals.add(Index(5), B, reply(2), Instant(20));
        let settled = proposals.settle(Index(5), B);
        assert_eq!((settled.winner, settled.losers), (Some(reply(2)), vec![reply(1)]));
        assert!(proposals.settle(Index(5), A).winner.is_none(), "a slot settles once");
    }

    #[test]
    fn expiry_takes_only_what_still_waits() {
        let mut proposals = Proposals::default();
        for index in 1..=3 {
            proposals.add(Index(index), A, reply(index), Instant(index * 10));
        }
        proposals.settle(Index(1), A);
        assert_eq!(proposals.expire(Instant(9)), vec![]);
        assert_eq!(proposals.expire(Instant(25)), vec![reply(2)]);
        assert_eq!(proposals.drain_through(Index(3)), vec![reply(3)]);
        assert_eq!(proposals.expire(Instant(99)), vec![]);
    }
}
