//! How the node stands, published by the node thread for everyone else to read.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use base::NodeId;
use kernel::Status;

/// The latest published status of group 0.
#[derive(Debug)]
pub(crate) struct StandingCell {
    me: NodeId,
    status: Mutex<Status>,
    /// This node only learns. Beside the status, because every request asks.
    is_learner: AtomicBool,
}

impl StandingCell {
    pub(crate) fn new(me: NodeId, status: Status) -> Self {
        let is_learner = AtomicBool::new(learns(&status, me));
        Self { me, status: Mutex::new(status), is_learner }
    }

    pub(crate) fn publish(&self, status: Status) {
        self.is_learner.store(learns(&status, self.me), Ordering::Relaxed);
        *self.lock() = status;
    }

    pub(crate) fn is_learner(&self) -> bool {
        self.is_learner.load(Ordering::Relaxed)
    }

    pub(crate) fn get(&self) -> Status {
        self.lock().clone()
    }

    /// Runs `look` on the status without copying it.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Status) -> T) -> T {
        look(&self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Status> {
        // A panic cannot leave the status half replaced.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a member votes.
pub(crate) fn votes(status: &Status, id: NodeId) -> bool {
    let membership = &status.membership;
    membership.all_voters().any(|replica| membership.nodes.get(&replica) == Some(&id))
}

/// Whether a member learns.
pub(crate) fn learns(status: &Status, id: NodeId) -> bool {
    let membership = &status.membership;
    membership.learners.iter().any(|replica| membership.nodes.get(replica) == Some(&id))
}

/// Whether a member's voice is not enough yet in the place of another's: it learns, or its promotion is under way and
/// still needs a majority of those before it.
pub(crate) fn is_on_its_way(status: &Status, id: NodeId) -> bool {
    let membership = &status.membership;
    let voted = membership.outgoing.iter().any(|replica| membership.nodes.get(replica) == Some(&id));
    learns(status, id) || (membership.is_joint() && !voted)
}
