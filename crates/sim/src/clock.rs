//! A node's clocks: a monotonic one with its own zero and rate, and how far the wall clock was moved beside it.
//!
//! Invariant: the one that nodes are given never goes back and never jumps, whatever happens to its rate or to the wall
//! clock, like `CLOCK_BOOTTIME`. Nothing below the host reads a wall clock; a planted defect does.

use base::Instant;
use base::planted::{Defect, planted};

/// A million: rates are counted in parts of it.
const UNIT: i128 = 1_000_000;

/// Local time as a straight line over world time, bent at each change of rate.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    world: u64,
    local: u64,
    ppm: i64,
    /// The wall clock was moved by so many microseconds in all.
    moved: i64,
}

impl Clock {
    /// A clock that shows `local` when the world's shows `world`.
    pub(crate) const fn new(world: u64, local: u64) -> Self {
        Self { world, local, ppm: 0, moved: 0 }
    }

    /// What it shows.
    pub(crate) fn read(&self, world: u64) -> Instant {
        let local = self.steady(world);
        Instant(if planted(Defect::WallClock) { local.saturating_add_signed(self.moved) } else { local })
    }

    fn steady(&self, world: u64) -> u64 {
        let passed = i128::from(world.saturating_sub(self.world));
        self.local + (passed * (UNIT + i128::from(self.ppm)) / UNIT) as u64
    }

    /// Somebody sets the wall clock.
    pub(crate) fn move_wall(&mut self, by_us: i64) {
        self.moved += by_us;
    }

    /// When it will show `local`, in world time.
    pub(crate) fn when(&self, local: Instant) -> u64 {
        let ahead = i128::from(local.0.saturating_sub(self.local));
        let rate = UNIT + i128::from(self.ppm);
        self.world + ((ahead * UNIT + rate - 1) / rate) as u64
    }

    /// From now on runs so many parts in a million too fast.
    pub(crate) fn set_rate(&mut self, world: u64, ppm: i64) {
        assert!(ppm.abs() < 900_000, "a clock that runs {ppm} ppm off is no clock");
        let local = self.steady(world);
        *self = Self { world, local, ppm, ..*self };
    }

    /// The machine starts anew: the clock counts from boot.
    pub(crate) fn reboot(&mut self, world: u64) {
        *self = Self { world, local: 1_000_000, ..*self };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_reached_when_the_clock_says_so_at_any_rate() {
        let mut clock = Clock::new(500, 77);
        for (step, ppm) in [0, 50_000, -50_000, 123, -7].into_iter().enumerate() {
            let now = 1000 * (step as u64 + 1);
            let before = clock.read(now);
            clock.set_rate(now, ppm);
            assert_eq!(clock.read(now), before, "a change of rate is no jump");
            for ahead in [0, 1, 999, 1_000_000] {
                let local = Instant(before.0 + ahead);
                let at = clock.when(local);
                assert!(clock.read(at) >= local, "{ahead} at {ppm}");
                assert!(ahead == 0 || clock.read(at - 1) < local || at == now, "{ahead} at {ppm} is late");
            }
        }
    }
}
