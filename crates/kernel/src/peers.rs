//! Everyone a leader follows, in the order of their ids.
//!
//! Invariant: each replica once, ascending. A vector and no map: there are a handful of them, and they are walked or
//! looked up several times for each message.

use base::{Index, Instant, ReplicaId};

use crate::progress::Progress;

/// See the module.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Peers(Vec<(ReplicaId, Progress)>);

impl Peers {
    /// What is known of `replica`, if it is followed.
    pub(crate) fn get(&self, replica: ReplicaId) -> Option<&Progress> {
        self.iter().find(|(id, _)| *id == replica).map(|(_, peer)| peer)
    }

    /// The same, to change it.
    pub(crate) fn get_mut(&mut self, replica: ReplicaId) -> Option<&mut Progress> {
        self.iter_mut().find(|(id, _)| *id == replica).map(|(_, peer)| peer)
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ReplicaId, &Progress)> {
        self.0.iter().map(|(id, peer)| (*id, peer))
    }

    /// The same, to change them.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (ReplicaId, &mut Progress)> {
        self.0.iter_mut().map(|(id, peer)| (*id, peer))
    }

    /// Follows `replica` from `next` on, unless it is followed already.
    pub(crate) fn follow(&mut self, replica: ReplicaId, next: Index, now: Instant) {
        if let Err(place) = self.0.binary_search_by_key(&replica, |(id, _)| *id) {
            self.0.insert(place, (replica, Progress::new(next, now)));
        }
    }

    /// Follows only those any longer for which `keep` says so.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(ReplicaId) -> bool) {
        self.0.retain(|(id, _)| keep(*id));
    }
}
