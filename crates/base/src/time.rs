//! Time as a plain number: the pure core is told what time it is and never asks.

use std::ops::{Add, Sub};
use std::time::Duration;

/// Microseconds on the host's monotonic clock (Linux: `CLOCK_BOOTTIME`). The zero point means nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Instant(pub u64);

impl Instant {
    /// Time passed since `earlier`; zero if `earlier` lies ahead.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// `duration` in microseconds, at most what fits: without the 128 bits of [`Duration::as_micros`].
#[must_use]
pub const fn micros(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000).saturating_add(duration.subsec_micros() as u64)
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(micros(rhs)))
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(micros(rhs)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_whole_microseconds_and_never_overflows() {
        let counted = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let most = u64::MAX / 1_000_000;
        for seconds in [0, 1, 7, most - 1, most, most + 1, u64::MAX] {
            for nanoseconds in [0, 1, 999, 1000, 123_456_789, 999_999_999] {
                let duration = Duration::new(seconds, nanoseconds);
                assert_eq!(micros(duration), counted(duration), "{duration:?}");
            }
        }
    }
}
