//! The open loop's clock: hands out permission to send at fixed times, whatever the server does.
//!
//! Invariant: operation `n` is due at `start + n * interval`, and its latency counts from then, also if all clients
//! were busy at that time; otherwise a stalled server would stop the clock that measures it ("coordinated omission",
//! Tene
//! 2013). Due operations that nobody could send are not queued but counted. Used by [`super::load`].

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Shortest time slept: above 20,000 operations per second several become due at once.
const PAUSE_MIN: Duration = Duration::from_micros(50);

/// The times operations are due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    start: Instant,
    interval: Duration,
    /// Operations of the whole schedule.
    count: u64,
}

impl Schedule {
    /// `rate` operations per second from `start` on for `duration`, at most `total`.
    pub(super) fn new(start: Instant, rate: f64, duration: Duration, total: Option<u64>) -> Self {
        assert!(rate > 0.0, "nothing is ever due at rate {rate}");
        let count = (rate * duration.as_secs_f64()).ceil() as u64;
        let count = total.map_or(count, |total| total.min(count));
        Self { start, interval: Duration::from_secs_f64(1.0 / rate), count }
    }

    /// When the operation with this number, from 0, is due.
    pub(super) fn due_at(&self, number: u64) -> Instant {
        // In whole nanoseconds: exact for 290 years of schedule, far beyond the longest run.
        let offset = u64::try_from(self.interval.as_nanos()).expect("an interval is short").saturating_mul(number);
        self.start + Duration::from_nanos(offset)
    }

    /// How many operations are due at `now`.
    pub(super) fn due(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.start).as_nanos();
        let due = passed / self.interval.as_nanos().max(1) + 1;
        u64::try_from(due).unwrap_or(u64::MAX).min(self.count)
    }
}

/// Releases the operations of a [`Schedule`] as they become due.
pub(super) struct Pacer {
    schedule: Schedule,
    permits: Semaphore,
}

impl Pacer {
    /// A pacer that has not released anything yet; [`Self::run`] does.
    pub(super) fn new(schedule: Schedule) -> Self {
        Self { schedule, permits: Semaphore::new(0) }
    }

    /// The schedule kept.
    pub(super) fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Waits until an operation is due and unsent; false once the run is over.
    pub(super) async fn turn(&self) -> bool {
        self.permits.acquire().await.map(SemaphorePermit::forget).is_ok()
    }

    /// Ends the run: everybody who waits for a turn gets none.
    pub(super) fn close(&self) {
        self.permits.close();
    }

    /// Releases operations until `deadline`, or until all are released and taken.
    ///
    /// # Errors
    /// If the operating system has no timer left.
    pub(super) async fn run(&self, deadline: Instant) -> io::Result<()> {
        let timer = Timer::new()?;
        let mut released = 0;
        while Instant::now() < deadline && !self.permits.is_closed() {
            let due = self.schedule.due(Instant::now());
            let more = usize::try_from(due - released).expect("bounded by rate and duration");
            self.permits.add_permits(more);
            released = due;
            if released == self.schedule.count {
                break;
            }
            let next = self.schedule.due_at(released).min(deadline);
            timer.wait(next.saturating_duration_since(Instant::now()).max(PAUSE_MIN)).await?;
        }
        Ok(())
    }
}

/// A timer of the operating system. The runtime's own has a resolution of one millisecond, which is longer than most
/// of the latencies measured here.
struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    #[expect(deprecated, reason = "deprecated for types that lie about their descriptor, which OwnedFd cannot")]
    fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Self(AsyncFd::new(timer)?))
    }

    async fn wait(&self, pause: Duration) -> io::Result<()> {
        let once = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec {
                tv_sec: i64::try_from(pause.as_secs()).expect("a pause is short"),
                tv_nsec: pause.subsec_nanos().into(),
            },
        };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut ready = self.0.readable().await?;
            let read = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut [0; 8])?));
            // Would block: the readiness was a left-over of the previous wait.
            if let Ok(result) = read {
                return result.map(|_expirations| ());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Pacer, Schedule};

    #[test]
    fn operations_are_due_at_even_times_whatever_was_sent() {
        let start = Instant::now();
        let schedule = Schedule::new(start, 1000.0, Duration::from_secs(2), None);
        assert_eq!(schedule.due_at(0), start);
        assert_eq!(schedule.due_at(1500), start + Duration::from_millis(1500));
        assert_eq!(schedule.due(start), 1);
        assert_eq!(schedule.due(start + Duration::from_micros(2500)), 3);
        assert_eq!(schedule.due(start + Duration::from_secs(60)), 2000, "the schedule ends");
    }

    #[test]
    fn a_total_shortens_the_schedule() {
        let start = Instant::now();
        let schedule = Schedule::new(start, 1000.0, Duration::from_secs(2), Some(5));
        assert_eq!(schedule.due(start + Duration::from_secs(60)), 5);
    }

    #[test]
    fn turns_come_no_earlier_than_due_and_end_when_closed() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let start = Instant::now();
            let pacer = Pacer::new(Schedule::new(start, 2000.0, Duration::from_secs(10), Some(20)));
            let turns = async {
                for number in 0..20 {
                    assert!(pacer.turn().await);
                    assert!(Instant::now() >= pacer.schedule().due_at(number), "turn {number} came early");
                }
                pacer.close();
                assert!(!pacer.turn().await);
            };
            let (released, ()) = tokio::join!(pacer.run(start + Duration::from_secs(10)), turns);
            released.unwrap();
            assert!(start.elapsed() >= Duration::from_micros(9_500));
        });
    }
}
