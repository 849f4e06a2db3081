//! The first fault of any thread stops the node; everybody who waits for its end learns why.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use base::Fault;
use tokio::sync::watch;
use tracing::error;

/// How the node ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    Running,
    Stopped,
    Failed(Fault),
}

/// The end of the node, once known.
#[derive(Debug)]
pub(crate) struct Failure {
    end: Mutex<End>,
    ended: Condvar,
    stop: watch::Sender<bool>,
}

impl Failure {
    pub(crate) fn new() -> Self {
        Self { end: Mutex::new(End::Running), ended: Condvar::new(), stop: watch::Sender::new(false) }
    }

    /// The node cannot go on. The first fault counts; the others follow from it.
    pub(crate) fn fail(&self, thread: &str, fault: Fault) {
        let mut end = self.lock();
        if *end == End::Running {
            error!(%thread, %fault, "the node stops");
            *end = End::Failed(fault);
        }
        drop(end);
        self.announce();
    }

    /// The node was asked to stop and did.
    pub(crate) fn stopped(&self) {
        let mut end = self.lock();
        if *end == End::Running {
            *end = End::Stopped;
        }
        drop(end);
        self.announce();
    }

    fn announce(&self) {
        self.ended.notify_all();
        self.stop.send_replace(true);
    }

    /// Changes to true when the node ends, for whatever reason.
    pub(crate) fn watch(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Blocks until the node ends.
    pub(crate) fn wait(&self) -> Result<(), Fault> {
        let mut end = self.lock();
        loop {
            match &*end {
                End::Running => end = self.ended.wait(end).unwrap_or_else(PoisonError::into_inner),
                End::Stopped => return Ok(()),
                End::Failed(fault) => return Err(fault.clone()),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, End> {
        // A panic cannot leave the value half changed.
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fault_is_the_one_reported() {
        let failure = Failure::new();
        let first = Fault::Refused("first".into());
        failure.fail("a", first.clone());
        failure.fail("b", Fault::Refused("second".into()));
        failure.stopped();
        assert_eq!(failure.wait(), Err(first));
        assert!(*failure.watch().borrow());
    }
}
