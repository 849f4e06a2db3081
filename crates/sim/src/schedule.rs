//! The queue of everything that is going to happen, in virtual time.
//!
//! Invariant: what is due at the same microsecond happens in the order in which it was scheduled, so a run has one
//! order of events.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Something due.
struct Due<T> {
    at: u64,
    number: u64,
    what: T,
}

impl<T> PartialEq for Due<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl<T> Eq for Due<T> {}

impl<T> PartialOrd for Due<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Due<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// The queue and the clock of the world.
pub(crate) struct Schedule<T> {
    now: u64,
    next: u64,
    due: BinaryHeap<Reverse<Due<T>>>,
}

impl<T> Schedule<T> {
    pub(crate) const fn new(now: u64) -> Self {
        Self { now, next: 0, due: BinaryHeap::new() }
    }

    /// World time in microseconds.
    pub(crate) const fn now(&self) -> u64 {
        self.now
    }

    /// Events taken so far and still waiting.
    pub(crate) const fn scheduled(&self) -> u64 {
        self.next
    }

    /// Lets `what` happen at `at`, or now if that has passed.
    pub(crate) fn at(&mut self, at: u64, what: T) {
        let number = self.next;
        self.next += 1;
        self.due.push(Reverse(Due { at: at.max(self.now), number, what }));
    }

    /// Lets `what` happen `delay` microseconds from now.
    pub(crate) fn after(&mut self, delay: u64, what: T) {
        self.at(self.now + delay, what);
    }

    /// The next thing to happen; moves the clock there.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let Reverse(due) = self.due.pop()?;
        self.now = due.at;
        Some(due.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_times_keep_their_order_and_the_past_is_now() {
        let mut schedule = Schedule::new(100);
        schedule.after(5, 'b');
        schedule.after(5, 'c');
        schedule.at(1, 'a');
        let order: Vec<_> = std::iter::from_fn(|| schedule.pop().map(|what| (schedule.now(), what))).collect();
        assert_eq!(order, [(100, 'a'), (105, 'b'), (105, 'c')]);
    }
}
