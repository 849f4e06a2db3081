//! Quorums of a membership: a majority of the voters and, while a change is under way, also of the outgoing voters
//! (joint consensus, Raft thesis 4.3). Knows nothing of roles, logs or messages; learners never count.

use std::collections::BTreeSet;

use base::planted::{Defect, planted};
use base::{Index, ReplicaId};

use crate::membership::Membership;

/// Whether the replicas for which `holds` is true form a quorum. An empty membership has none.
pub(crate) fn has_quorum(membership: &Membership, mut holds: impl FnMut(ReplicaId) -> bool) -> bool {
    let mut majority =
        |set: &BTreeSet<ReplicaId>| is_majority(set.iter().filter(|replica| holds(**replica)).count(), set.len());
    majority(&membership.voters) && (!is_joint(membership) || majority(&membership.outgoing))
}

fn is_majority(count: usize, of: usize) -> bool {
    2 * count > of || (planted(Defect::HalfQuorum) && 2 * count == of && count > 0)
}

static NOBODY: BTreeSet<ReplicaId> = BTreeSet::new();

/// Whether so many replicas, voters or not, could be a quorum at all: "no" spares the count of voters.
pub(crate) fn may_be_quorum(membership: &Membership, replicas: usize) -> bool {
    is_majority(replicas, membership.voters.len())
}

/// The highest index that a quorum has reached, when `matched` says how far each replica is; `above` if that is higher.
pub(crate) fn quorum_index(membership: &Membership, above: Index, matched: impl Fn(ReplicaId) -> Index) -> Index {
    let also = if planted(Defect::LearnerVotes) { &membership.learners } else { &NOBODY };
    let incoming = majority_index(&membership.voters, also, above, &matched);
    if !is_joint(membership) {
        return incoming;
    }
    incoming.min(majority_index(&membership.outgoing, also, above, &matched))
}

fn is_joint(membership: &Membership) -> bool {
    membership.is_joint() && !planted(Defect::NewQuorumOnly)
}

/// Without a sort or an allocation per acknowledgement; quadratic in the handful of voters only if they all differ.
/// `also` count without being of the set: nobody, unless that is the defect.
fn majority_index(
    set: &BTreeSet<ReplicaId>,
    also: &BTreeSet<ReplicaId>,
    above: Index,
    matched: &impl Fn(ReplicaId) -> Index,
) -> Index {
    let count = |of: &BTreeSet<ReplicaId>, index| of.iter().filter(|replica| matched(**replica) >= index).count();
    let holders = |index: Index| count(set, index) + count(also, index);
    let further = |reached: Index, replica: &ReplicaId| {
        let index = matched(*replica);
        if index > reached && is_majority(holders(index), set.len()) { index } else { reached }
    };
    set.iter().fold(above, further)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership(voters: &[u64], outgoing: &[u64]) -> Membership {
        Membership {
            voters: voters.iter().map(|v| ReplicaId(*v)).collect(),
            outgoing: outgoing.iter().map(|v| ReplicaId(*v)).collect(),
            ..Membership::default()
        }
    }

    #[test]
    fn a_quorum_is_more_than_half() {
        for voters in 1..=7u64 {
            let all: Vec<u64> = (1..=voters).collect();
            let group = membership(&all, &[]);
            for yes in 0..=voters {
                assert_eq!(has_quorum(&group, |r| r.0 <= yes), yes > voters / 2, "{yes} of {voters}");
            }
        }
        assert!(!has_quorum(&membership(&[], &[]), |_| true), "nobody is not a quorum");
    }

    #[test]
    fn a_joint_quorum_needs_both_majorities() {
        let group = membership(&[3, 4, 5], &[1, 2, 3]);
        assert!(!has_quorum(&group, |r| [3, 4, 5].contains(&r.0)));
        assert!(!has_quorum(&group, |r| [1, 2, 3].contains(&r.0)));
        assert!(has_quorum(&group, |r| [1, 3, 4].contains(&r.0)));
    }

    #[test]
    fn any_two_quorums_of_one_membership_intersect() {
        let group = membership(&[1, 2, 3, 4], &[3, 4, 5]);
        let quorums: Vec<u32> = (0..32).filter(|set| has_quorum(&group, |r| set >> (r.0 - 1) & 1 == 1)).collect();
        assert!(!quorums.is_empty());
        assert!(quorums.iter().all(|a| quorums.iter().all(|b| a & b != 0)));
    }

    #[test]
    fn the_quorum_index_is_the_highest_with_a_quorum() {
        for (matches, expected) in [([1, 2, 3], 2), ([5, 5, 0], 5), ([0, 0, 9], 0)] {
            let group = membership(&[1, 2, 3], &[]);
            assert_eq!(quorum_index(&group, Index(0), |r| Index(matches[r.0 as usize - 1])), Index(expected));
        }
        let joint = membership(&[1, 2, 3], &[3, 4, 5]);
        let matches = [9, 9, 9, 4, 2];
        assert_eq!(quorum_index(&joint, Index(0), |r| Index(matches[r.0 as usize - 1])), Index(4));
        assert_eq!(quorum_index(&joint, Index(5), |r| Index(matches[r.0 as usize - 1])), Index(5));
        assert_eq!(quorum_index(&membership(&[], &[]), Index(0), |_| Index(7)), Index(0));
    }
}
