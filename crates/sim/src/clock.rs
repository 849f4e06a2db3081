//! A node's monotonic clock: its own zero, its own rate.
//!
//! Invariant: it never goes back and never jumps, whatever happens to its rate, like `CLOCK_BOOTTIME`. Jumps of the
//! wall clock are not modelled because nothing below the host reads one.

use base::Instant;

/// A million: rates are counted in parts of it.
const UNIT: i128 = 1_000_000;

/// Local time as a straight line over world time, bent at each change of rate.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    world: u64,
    local: u64,
    ppm: i64,
}

impl Clock {
    /// A clock that shows `local` when the world's shows `world`.
    pub(crate) const fn new(world: u64, local: u64) -> Self {
        Self { world, local, ppm: 0 }
    }

    /// What it shows.
    pub(crate) fn read(&self, world: u64) -> Instant {
        let passed = i128::from(world.saturating_sub(self.world));
        Instant(self.local + (passed * (UNIT + i128::from(self.ppm)) / UNIT) as u64)
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
        let local = self.read(world).0;
        *self = Self { world, local, ppm };
    }

    /// The machine starts anew: the clock counts from boot.
    pub(crate) fn reboot(&mut self, world: u64) {
        *self = Self { world, local: 1_000_000, ppm: self.ppm };
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
