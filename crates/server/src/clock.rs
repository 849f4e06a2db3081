//! The one place that asks what time it is.

use base::Instant;
use rustix::time::{ClockId, clock_gettime};

/// Microseconds of `CLOCK_BOOTTIME`: monotonic, and it goes on while the machine is suspended, so that a node that
/// slept knows that it slept.
pub(crate) fn now() -> Instant {
    let time = clock_gettime(ClockId::Boottime);
    Instant(u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000)
}
