//! Word of what is applied, from the apply thread to the node thread.
//!
//! Most of the time nobody waits for it: then it lies here until the node takes its next turn, and wakes nobody.

use std::sync::{Mutex, MutexGuard, PoisonError};

use node::Event;
use tokio::sync::mpsc::UnboundedSender;

#[derive(Default)]
struct Waiting {
    events: Vec<Event>,
    /// The node wants to be woken.
    heeded: bool,
}

/// Events in their order, and whether the node waits for them.
pub(crate) struct Word {
    waiting: Mutex<Waiting>,
    node: UnboundedSender<Vec<Event>>,
}

impl Word {
    pub(crate) fn new(node: UnboundedSender<Vec<Event>>) -> Self {
        Self { waiting: Mutex::default(), node }
    }

    /// For the node's next turn, which begins now if the node waits for it.
    pub(crate) fn leave(&self, events: impl IntoIterator<Item = Event>) {
        let mut waiting = self.lock();
        waiting.events.extend(events);
        let heeded = waiting.heeded;
        drop(waiting);
        if heeded {
            self.wake();
        }
    }

    /// For a turn that begins now.
    pub(crate) fn tell(&self, events: impl IntoIterator<Item = Event>) {
        self.lock().events.extend(events);
        self.wake();
    }

    /// Moves everything to `into`.
    pub(crate) fn take(&self, into: &mut Vec<Event>) {
        into.append(&mut self.lock().events);
    }

    /// The node's turn ends: takes what came during it, if the node waits for that; else the next word waits.
    pub(crate) fn heed(&self, heeds: bool, into: &mut Vec<Event>) {
        let mut waiting = self.lock();
        waiting.heeded = heeds;
        if heeds {
            into.append(&mut waiting.events);
        }
    }

    fn wake(&self) {
        // The node thread is gone only while the process stops.
        drop(self.node.send(Vec::new()));
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // A panic cannot leave it half changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use base::{GroupId, Index};
    use tokio::sync::mpsc;

    use super::*;

    fn applied(index: u64) -> [Event; 1] {
        [Event::Applied { group: GroupId(0), index: Index(index) }]
    }

    #[test]
    fn it_wakes_only_a_node_that_waits() {
        let (sender, mut woken) = mpsc::unbounded_channel();
        let (word, mut events) = (Word::new(sender), Vec::new());
        word.leave(applied(1));
        assert!(woken.try_recv().is_err(), "nobody waited");
        word.heed(false, &mut events);
        assert!(events.is_empty(), "it lies there for the next turn");
        word.heed(true, &mut events);
        assert_eq!(events.len(), 1, "came before the node said that it waits, and must not be missed");
        word.leave(applied(2));
        assert!(woken.try_recv().is_ok());
        word.heed(false, &mut events);
        word.tell(applied(3));
        assert!(woken.try_recv().is_ok());
        word.take(&mut events);
        assert_eq!(events.len(), 3);
    }
}
