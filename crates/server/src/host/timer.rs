//! A timer finer than the runtime's millisecond: the node's pace is counted in tenths of one.

use std::os::fd::OwnedFd;

use base::{Fault, Instant};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// A timer on the node's clock. Must be made inside a runtime.
pub(crate) struct Timer {
    descriptor: AsyncFd<OwnedFd>,
    due: Instant,
}

impl Timer {
    pub(crate) fn new() -> Result<Self, Fault> {
        let descriptor = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)
            .map_err(|error| fault(&error.into()))?;
        #[expect(deprecated, reason = "its successor is unsafe, and the descriptor is ours alone")]
        let descriptor = AsyncFd::new(descriptor).map_err(|error| fault(&error))?;
        Ok(Self { descriptor, due: Instant(0) })
    }

    /// Rings once at `due`, or at once if that has passed.
    pub(crate) fn set(&mut self, due: Instant) -> Result<(), Fault> {
        if due == self.due {
            return Ok(());
        }
        self.due = due;
        // Zero would switch the timer off; the clock's first microsecond has passed in any case.
        let due = due.0.max(1);
        let value = Timespec {
            tv_sec: i64::try_from(due / 1_000_000).unwrap_or(i64::MAX),
            tv_nsec: (due % 1_000_000 * 1000) as i64,
        };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        timerfd_settime(self.descriptor.get_ref(), TimerfdTimerFlags::ABSTIME, &once)
            .map(drop)
            .map_err(|error| fault(&error.into()))
    }

    /// Waits until it rings.
    pub(crate) async fn rung(&mut self) -> Result<(), Fault> {
        let mut ready = self.descriptor.readable().await.map_err(|error| fault(&error))?;
        // Setting it anew makes it unreadable until it rings again; what it counted does not matter.
        ready.clear_ready();
        self.due = Instant(0);
        Ok(())
    }
}

fn fault(error: &std::io::Error) -> Fault {
    Fault::Io { operation: "timer", path: String::from("timerfd"), cause: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;

    #[tokio::test]
    async fn rings_at_the_time_and_not_before() {
        let mut timer = Timer::new().unwrap();
        for wait in [0, 300, 2000] {
            let due = clock::now() + Duration::from_micros(wait);
            timer.set(due).unwrap();
            timer.rung().await.unwrap();
            assert!(clock::now() >= due, "rang before {due:?}");
        }
    }
}
