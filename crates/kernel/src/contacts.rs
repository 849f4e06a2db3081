//! Where replicas live that spoke to this one: a stranger to the membership could not be answered otherwise.
//!
//! Invariant: each replica once, ascending, and no more of them than are remembered. A vector and no map: mostly it
//! holds the leader alone, and it is looked up for each append.

use base::{NodeId, ReplicaId};

/// Replicas remembered; beyond it the one of the lowest id goes.
const CONTACTS_MAX: usize = 32;

/// See the module.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Contacts(Vec<(ReplicaId, NodeId)>);

impl Contacts {
    /// Where `replica` lives, if it spoke to us.
    #[inline]
    pub(crate) fn get(&self, replica: ReplicaId) -> Option<NodeId> {
        self.0.iter().find(|(id, _)| *id == replica).map(|(_, node)| *node)
    }

    /// Notes that `replica` lives at `node`.
    #[inline]
    pub(crate) fn remember(&mut self, replica: ReplicaId, node: NodeId) {
        if self.get(replica) != Some(node) {
            self.note(replica, node);
        }
    }

    fn note(&mut self, replica: ReplicaId, node: NodeId) {
        self.0.retain(|(id, _)| *id != replica);
        if self.0.len() >= CONTACTS_MAX {
            self.0.remove(0);
        }
        let place = self.0.partition_point(|(id, _)| *id < replica);
        self.0.insert(place, (replica, node));
    }

    /// Forgets all of them.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts_and_the_lowest_goes_when_there_are_too_many() {
        let mut contacts = Contacts::default();
        for replica in (1..=CONTACTS_MAX as u64).rev() {
            contacts.remember(ReplicaId(replica), NodeId(replica));
        }
        contacts.remember(ReplicaId(7), NodeId(700));
        assert_eq!(contacts.get(ReplicaId(7)), Some(NodeId(700)));
        assert_eq!(contacts.get(ReplicaId(1)), Some(NodeId(1)), "a move makes nobody go");
        contacts.remember(ReplicaId(900), NodeId(9));
        assert_eq!((contacts.get(ReplicaId(1)), contacts.get(ReplicaId(900))), (None, Some(NodeId(9))));
        assert_eq!(contacts.0.len(), CONTACTS_MAX);
        assert!(contacts.0.is_sorted());
    }
}
