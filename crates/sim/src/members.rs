//! Who belongs to the cluster: as a machine was told, and as the memberships of all replicas together say.
//!
//! Invariant: quorums are counted here and not by the code under test.

use std::collections::{BTreeMap, BTreeSet};

use base::{Fault, Index, NodeId, ReplicaId};
use kernel::Membership;
use mvcc::{MemberRecord, View};

/// Whom a machine takes for a member: what its rows say, or, as long as there are none, what it was started with.
#[derive(Clone, Default, Debug)]
pub(crate) struct Directory {
    told: BTreeSet<NodeId>,
    pub(crate) members: BTreeSet<NodeId>,
    pub(crate) removed: BTreeSet<NodeId>,
    /// The members it knows after any crash.
    pub(crate) lasting: BTreeSet<NodeId>,
}

impl Directory {
    /// That of a process that is started with these.
    pub(crate) fn new(told: BTreeSet<NodeId>) -> Self {
        Self { members: told.clone(), lasting: told.clone(), told, removed: BTreeSet::new() }
    }

    /// Reads the rows again.
    pub(crate) fn load(&mut self, view: &dyn View) -> Result<(), Fault> {
        let records = mvcc::members(view)?;
        if records.is_empty() {
            self.members.clone_from(&self.told);
            return Ok(());
        }
        let (gone, here): (Vec<_>, Vec<_>) = records.into_iter().partition(|record| record.removed);
        self.removed = gone.into_iter().map(|record| record.id).collect();
        self.members = here.into_iter().map(|record| record.id).collect();
        Ok(())
    }

    /// The rows survive a crash from now on.
    pub(crate) fn flushed(&mut self, view: &dyn View) -> Result<(), Fault> {
        let mut flushed = Self::new(self.told.clone());
        flushed.load(view)?;
        self.lasting = flushed.members;
        Ok(())
    }

    /// Others said who the members are, before the rows do.
    pub(crate) fn meet(&mut self, members: BTreeSet<NodeId>) {
        self.members.extend(members.difference(&self.removed));
    }

    /// The members as they are written down before the first of them changes.
    pub(crate) fn records(&self) -> Vec<MemberRecord> {
        self.members.iter().copied().map(record).collect()
    }
}

/// What is written down of a member.
pub(crate) fn record(id: NodeId) -> MemberRecord {
    MemberRecord { id, peer_urls: vec![id.to_string()], ..MemberRecord::default() }
}

/// Whether those for which `holds` is true decide in this membership: a majority of the voters and, during a change,
/// of the outgoing ones.
pub(crate) fn is_quorum(membership: &Membership, holds: impl Fn(ReplicaId) -> bool) -> bool {
    let majority = |set: &BTreeSet<ReplicaId>| 2 * set.iter().filter(|replica| holds(**replica)).count() > set.len();
    majority(&membership.voters) && (membership.outgoing.is_empty() || majority(&membership.outgoing))
}

/// Every membership that was in effect at a replica, decided or not, by the index of the entry that set it.
#[derive(Default)]
pub(crate) struct Memberships {
    seen: BTreeMap<Index, Vec<Membership>>,
    /// The last decided one.
    decided: Index,
}

impl Memberships {
    /// It is in effect somewhere. Answers whether that is news.
    pub(crate) fn meet(&mut self, membership: &Membership) -> bool {
        let here = self.seen.entry(membership.index).or_default();
        let is_new = !here.contains(membership);
        if is_new {
            here.push(membership.clone());
        }
        is_new
    }

    /// Those that may count now: the last decided one, and what came after it.
    pub(crate) fn current(&self) -> impl Iterator<Item = &Membership> {
        self.seen.range(self.decided..).flat_map(|(_, all)| all)
    }

    /// Those that ever counted.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Membership> {
        self.seen.values().flatten()
    }

    /// Whether these holders are enough to decide the slot. A leader counts with the latest membership of its log,
    /// which may lie behind the slot; but one that the slot itself holds counts from there on, and no later one can
    /// have begun before it was decided.
    pub(crate) fn may_decide(&self, slot: Index, is_change: bool, holds: impl Fn(ReplicaId) -> bool) -> bool {
        let enough = |membership: &Membership| is_quorum(membership, &holds);
        match self.seen.get(&slot).filter(|_| is_change) {
            Some(here) => here.iter().any(enough),
            None => self.current().any(enough),
        }
    }

    /// The slot is decided, and holds a change or not.
    pub(crate) fn decide(&mut self, slot: Index, is_change: bool) {
        if is_change && self.seen.contains_key(&slot) {
            self.decided = slot;
        }
    }
}

#[cfg(test)]
mod tests {
    use kernel::Member;
    use mvcc::Engine as _;

    use super::*;

    fn membership(index: u64, voters: &[u64], outgoing: &[u64]) -> Membership {
        let member = |n: &u64| Member { replica: ReplicaId(*n), node: NodeId(*n) };
        let voters: Vec<Member> = voters.iter().map(member).collect();
        let outgoing = outgoing.iter().map(|n| ReplicaId(*n)).collect();
        Membership { outgoing, index: Index(index), ..Membership::initial(&voters) }
    }

    #[test]
    fn what_is_only_in_memory_does_not_last() {
        let founders = BTreeSet::from([NodeId(1), NodeId(2)]);
        let (engine, all) = (mvcc::MemEngine::new(), BTreeSet::from([NodeId(1), NodeId(2), NodeId(3)]));
        let mut directory = Directory::new(founders.clone());
        directory.meet(all.clone());
        directory.flushed(&*engine.view()).expect("no rows");
        assert_eq!((&directory.members, &directory.lasting), (&all, &founders));
        let step = mvcc::MemberStep::Add(record(NodeId(3)));
        let change = mvcc::MemberChange { founders: Directory::new(founders).records(), step };
        let mut machine = mvcc::Machine::open(&engine).expect("new");
        let mut apply = machine.begin(engine.view()).expect("begins");
        apply.execute(&mvcc::Command::Member(change), false).expect("written down");
        engine.write(apply.finish(bytes::Bytes::new()).0).expect("memory");
        directory.flushed(&*engine.view()).expect("rows");
        assert_eq!(directory.lasting, all);
    }

    #[test]
    fn a_joint_membership_decides_itself_by_both_majorities() {
        let mut memberships = Memberships::default();
        memberships.meet(&membership(0, &[1, 2, 3], &[]));
        memberships.meet(&membership(7, &[3, 4, 5], &[1, 2, 3]));
        memberships.meet(&membership(8, &[3, 4, 5], &[]));
        let held_by = |holders: &'static [u64]| move |replica: ReplicaId| holders.contains(&replica.0);
        assert!(memberships.may_decide(Index(6), false, held_by(&[1, 2])));
        assert!(memberships.may_decide(Index(7), true, held_by(&[2, 3, 4])));
        assert!(!memberships.may_decide(Index(7), true, held_by(&[3, 4, 5])), "the new ones alone");
        assert!(!memberships.may_decide(Index(7), true, held_by(&[1, 2])), "the old ones alone");
        memberships.decide(Index(7), true);
        assert!(!memberships.may_decide(Index(9), false, held_by(&[1, 2])), "they are of the past");
        assert_eq!(memberships.current().count(), 2);
    }
}
