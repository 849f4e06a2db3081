//! How the node stands, published by the node thread for everyone else to read.

use std::sync::{Mutex, PoisonError};

use kernel::Status;

/// The latest published status of group 0.
#[derive(Debug)]
pub(crate) struct StandingCell(Mutex<Status>);

impl StandingCell {
    pub(crate) fn new(status: Status) -> Self {
        Self(Mutex::new(status))
    }

    pub(crate) fn publish(&self, status: Status) {
        *self.lock() = status;
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
