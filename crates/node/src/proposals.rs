//! Commands of this node's clients that have a place in the log and wait for it to be decided; proposed here, or by the
//! leader on our behalf.
//!
//! A proposal is named by (index, origin): the origin ballot is unique to one leadership, so at most one proposal ever
//! has that name. When the slot is applied it holds either that proposal (done) or another one (surely not done).

use std::collections::{BTreeMap, VecDeque};

use base::{Ballot, Index, Instant};

use crate::event::Ticket;

#[derive(Debug)]
struct Pending {
    origin: Ballot,
    ticket: Ticket,
}

/// What became of the proposals that waited for a slot.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    /// The proposal that holds the slot.
    pub(crate) winner: Option<Ticket>,
    /// Proposals of earlier leaderships that lost it.
    pub(crate) losers: Vec<Ticket>,
}

#[derive(Debug, Default)]
pub(crate) struct Proposals {
    by_index: BTreeMap<Index, Vec<Pending>>,
    /// In order of deadline: the timeout is the same for all.
    deadlines: VecDeque<(Instant, Index, Ballot)>,
}

impl Proposals {
    /// False if another command has that name already.
    pub(crate) fn add(&mut self, index: Index, origin: Ballot, ticket: Ticket, deadline: Instant) -> bool {
        let waiting = self.by_index.entry(index).or_default();
        if waiting.iter().any(|pending| pending.origin == origin) {
            return false;
        }
        waiting.push(Pending { origin, ticket });
        self.deadlines.push_back((deadline, index, origin));
        true
    }

    /// The slot is decided and holds an entry of `origin`.
    pub(crate) fn settle(&mut self, index: Index, origin: Ballot) -> Settled {
        let mut settled = Settled::default();
        for pending in self.by_index.remove(&index).into_iter().flatten() {
            if pending.origin == origin {
                assert!(settled.winner.is_none(), "two proposals named {index}@{origin}");
                settled.winner = Some(pending.ticket);
            } else {
                settled.losers.push(pending.ticket);
            }
        }
        settled
    }

    /// Everything decided up to `index` by other means (a snapshot): the outcomes are not known here.
    pub(crate) fn drain_through(&mut self, index: Index) -> Vec<Ticket> {
        let later = self.by_index.split_off(&index.next());
        let done = std::mem::replace(&mut self.by_index, later);
        done.into_values().flatten().map(|pending| pending.ticket).collect()
    }

    /// Proposals that waited too long; they may still be decided later.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Ticket> {
        let mut expired = Vec::new();
        while let Some(&(deadline, index, origin)) = self.deadlines.front() {
            let waiting = self.by_index.get(&index).is_some_and(|all| all.iter().any(|p| p.origin == origin));
            if waiting && deadline > now {
                break;
            }
            self.deadlines.pop_front();
            if waiting && let Some(all) = self.by_index.get_mut(&index) {
                let at = all.iter().position(|p| p.origin == origin).expect("found above");
                expired.push(all.swap_remove(at).ticket);
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

    const A: Ballot = Ballot::new(1, NodeId(1));
    const B: Ballot = Ballot::new(2, NodeId(1));

    #[test]
    fn only_the_proposal_of_the_deciding_ballot_wins_its_slot() {
        let mut proposals = Proposals::default();
        proposals.add(Index(5), A, Ticket(1), Instant(10));
        proposals.add(Index(5), B, Ticket(2), Instant(20));
        let settled = proposals.settle(Index(5), B);
        assert_eq!((settled.winner, settled.losers), (Some(Ticket(2)), vec![Ticket(1)]));
        assert!(proposals.settle(Index(5), A).winner.is_none(), "a slot settles once");
    }

    #[test]
    fn a_name_is_given_once() {
        let mut proposals = Proposals::default();
        assert!(proposals.add(Index(5), A, Ticket(1), Instant(10)));
        assert!(!proposals.add(Index(5), A, Ticket(2), Instant(10)));
        assert!(proposals.add(Index(5), B, Ticket(3), Instant(10)));
    }

    #[test]
    fn expiry_takes_only_what_still_waits() {
        let mut proposals = Proposals::default();
        for index in 1..=3 {
            proposals.add(Index(index), A, Ticket(index), Instant(index * 10));
        }
        proposals.settle(Index(1), A);
        assert_eq!(proposals.expire(Instant(9)), vec![]);
        assert_eq!(proposals.expire(Instant(25)), vec![Ticket(2)]);
        assert_eq!(proposals.drain_through(Index(3)), vec![Ticket(3)]);
        assert_eq!(proposals.expire(Instant(99)), vec![]);
    }
}
