//! What must be true of all replicas together, whatever happens.
//!
//! - A decided slot never changes, is held durably by a quorum when anybody first learns of it, and is in the log of
//!   every later leader (invariants I3, I4, I5 and I10 of the kernel's model).
//! - A ballot has one leader (I1).
//! - The same applied index is the same state (I8).
//! - A leader ends leases only after a quorum has confirmed that it led when their time was up.

use std::collections::BTreeMap;

use base::{Ballot, Index, Instant, LeaseId, NodeId, ReplicaId};
use kernel::EntryKind;
use mvcc::StateHash;

use crate::confirmations::Confirmations;
use crate::ledger::{EntryKey, ShadowLog};
use crate::members::Memberships;

/// Everything known about the cluster as one.
#[derive(Default)]
pub(crate) struct Oracle {
    /// Decided entries from index 1 on, each with the ballot in which it was first known to be decided.
    decided: Vec<(EntryKey, Ballot)>,
    leaders: BTreeMap<Ballot, NodeId>,
    states: BTreeMap<Index, StateHash>,
    pub(crate) memberships: Memberships,
    pub(crate) confirmations: Confirmations,
    last_leader: Option<NodeId>,
}

impl Oracle {
    /// The last index anybody knows to be decided.
    pub(crate) fn decided(&self) -> Index {
        Index(self.decided.len() as u64)
    }

    /// `node`, in `ballot`, was told that `key` is decided at `index`. `holds` says who holds it durably; it is
    /// asked once per slot. Answers whether this is news.
    pub(crate) fn decide(
        &mut self,
        (node, ballot): (NodeId, Ballot),
        index: Index,
        key: &EntryKey,
        holds: impl Fn(ReplicaId) -> bool,
    ) -> Result<bool, String> {
        if let Some((known, _)) = self.decided.get(index.0 as usize - 1) {
            return match known.same_value(key) {
                true => Ok(false),
                false => Err(format!("slot {index} holds {key:?} at {node} and was decided as {known:?}")),
            };
        }
        if index.0 != self.decided.len() as u64 + 1 {
            return Err(format!("{node} applies {index}, but only {} was decided before", self.decided.len()));
        }
        let is_change = key.kind == EntryKind::Config;
        if !self.memberships.may_decide(index, is_change, &holds) {
            let held: Vec<u64> = (1..64).filter(|replica| holds(ReplicaId(*replica))).collect();
            return Err(format!("{node} takes slot {index} for decided, but only the disks of {held:?} hold it"));
        }
        self.memberships.decide(index, is_change);
        self.decided.push((*key, ballot));
        Ok(true)
    }

    /// `node` leads. Answers whether somebody else led before.
    pub(crate) fn leads(&mut self, node: NodeId, ballot: Ballot, log: &ShadowLog) -> Result<bool, String> {
        let first = *self.leaders.entry(ballot).or_insert(node);
        if first != node {
            return Err(format!("{node} and {first} both lead {ballot}"));
        }
        // A leader of an old ballot may learn late that it was elected: it cannot decide anything any more, and what
        // was decided since need not be in its log. That tells the ballot of the decision, not the entry's stamp: an
        // entry of an old ballot may be decided in a later one.
        for ((key, decided), index) in self.decided.iter().zip(1..).skip(log.base().0 as usize) {
            if *decided >= ballot {
                continue;
            }
            match log.get(Index(index)) {
                Some(held) if held.same_value(key) => {}
                held => {
                    return Err(format!("{node} leads {ballot} and lacks slot {index}, decided as {key:?}: {held:?}"));
                }
            }
        }
        Ok(self.last_leader.replace(node) != Some(node))
    }

    /// `leader` proposes to end a lease whose time was up at `until`, by its clock.
    pub(crate) fn ends_lease(
        &self,
        leader: (ReplicaId, Ballot),
        lease: LeaseId,
        until: Option<Instant>,
    ) -> Result<(), String> {
        let (replica, ballot) = leader;
        let Some(until) = until else {
            return Err(format!("{replica}, leader of {ballot}, ends {lease}, which it does not know"));
        };
        // It counted with the membership of its log when the answers came, which may have changed since.
        match self.memberships.all().any(|membership| self.confirmations.led_at(leader, until, membership)) {
            true => Ok(()),
            false => Err(format!(
                "{replica}, leader of {ballot}, ends {lease}, and no quorum has confirmed since that it leads"
            )),
        }
    }

    /// `node` has applied everything up to `index`. Answers whether there was something to compare with.
    pub(crate) fn applied(&mut self, node: NodeId, index: Index, state: StateHash) -> Result<bool, String> {
        match self.states.insert(index, state) {
            None => Ok(false),
            Some(known) if known == state => Ok(true),
            Some(known) => Err(format!("{node} at {index} is in {state:?}, another node was in {known:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kernel::{Entry, EntryKind};

    use super::*;

    fn key(payload: &'static str) -> EntryKey {
        let ballot = Ballot::new(1, NodeId(1));
        let payload = Bytes::from_static(payload.as_bytes());
        EntryKey::of(&Entry { index: Index(1), stamp: ballot, origin: ballot, kind: EntryKind::Command, payload })
    }

    fn of_three() -> Oracle {
        let mut oracle = Oracle::default();
        oracle.memberships.meet(&crate::machine::membership(3));
        oracle
    }

    #[test]
    fn a_changed_slot_a_hole_and_a_missing_quorum_are_found() {
        let mut oracle = of_three();
        let one = (NodeId(1), Ballot::new(1, NodeId(1)));
        let two = (NodeId(2), one.1);
        let first = |number: u64| move |replica: ReplicaId| replica.0 <= number;
        assert!(oracle.decide(one, Index(1), &key("a"), first(1)).is_err(), "one disk is no quorum");
        assert_eq!(oracle.decide(one, Index(1), &key("a"), first(2)), Ok(true));
        assert_eq!(oracle.decide(two, Index(1), &key("a"), first(0)), Ok(false));
        assert!(oracle.decide(two, Index(1), &key("b"), first(3)).is_err());
        assert!(oracle.decide(one, Index(3), &key("c"), first(3)).is_err());
    }

    #[test]
    fn two_leaders_and_a_leader_without_a_decided_slot_are_found() {
        let mut oracle = of_three();
        let ballot = Ballot::new(5, NodeId(1));
        let empty = ShadowLog::default();
        assert_eq!(oracle.leads(NodeId(1), ballot, &empty), Ok(true));
        assert!(oracle.leads(NodeId(2), ballot, &empty).is_err());
        assert_eq!(oracle.decide((NodeId(1), ballot), Index(1), &key("a"), |_| true), Ok(true));
        assert!(oracle.leads(NodeId(1), Ballot::new(6, NodeId(1)), &empty).is_err());
        // The entry's stamp is of ballot 1, and it was decided in ballot 5.
        let late = Ballot::new(4, NodeId(3));
        assert!(oracle.leads(NodeId(3), late, &empty).is_ok(), "elected in an old ballot, which decides nothing");
    }

    #[test]
    fn different_states_at_one_index_are_found() {
        let mut oracle = Oracle::default();
        let state = |hash| StateHash {
            hash,
            revision: base::Revision(5),
            current: base::Revision(5),
            compacted: base::Revision(-1),
        };
        assert_eq!(oracle.applied(NodeId(1), Index(9), state(1)), Ok(false));
        assert_eq!(oracle.applied(NodeId(2), Index(9), state(1)), Ok(true));
        assert!(oracle.applied(NodeId(3), Index(9), state(2)).is_err());
    }
}
