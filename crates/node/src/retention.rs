//! How much log is kept behind the applied index for followers that lag.

use std::collections::VecDeque;

use base::Index;

/// Samples of (index, bytes appended so far), one for about every `step_bytes` of log.
#[derive(Debug)]
pub(crate) struct Retention {
    retained_bytes: u64,
    step_bytes: u64,
    samples: VecDeque<(Index, u64)>,
    bytes: u64,
    sampled_at: u64,
}

/// What is kept is a multiple of about this part of it.
const STEPS: u64 = 64;
/// What an entry costs beside its payload.
const ENTRY_OVERHEAD_BYTES: u64 = 64;

impl Retention {
    /// Keeps about `retained_bytes` of log.
    pub(crate) fn new(retained_bytes: u64) -> Self {
        let step_bytes = (retained_bytes / STEPS).max(1);
        Self { retained_bytes, step_bytes, samples: VecDeque::new(), bytes: 0, sampled_at: 0 }
    }

    /// An entry went through apply.
    pub(crate) fn applied(&mut self, index: Index, payload_bytes: usize) {
        self.bytes += payload_bytes as u64 + ENTRY_OVERHEAD_BYTES;
        if self.bytes - self.sampled_at >= self.step_bytes {
            self.sampled_at = self.bytes;
            self.samples.push_back((index, self.bytes));
        }
    }

    /// The highest index the log may start after: at most `checkpointed`, and with the bytes to retain left.
    pub(crate) fn compact_to(&mut self, checkpointed: Index) -> Option<Index> {
        let mut found = None;
        while let Some(&(index, bytes)) = self.samples.front() {
            if index > checkpointed || self.bytes - bytes < self.retained_bytes {
                break;
            }
            found = Some(index);
            self.samples.pop_front();
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_bytes_asked_for_and_never_passes_the_checkpoint() {
        const ENTRY_BYTES: u64 = 1024 * 1024;
        let mut retention = Retention::new(10 * ENTRY_BYTES);
        for index in 1..=100 {
            retention.applied(Index(index), ENTRY_BYTES as usize);
        }
        assert_eq!(retention.compact_to(Index(30)), Some(Index(30)));
        let kept = retention.compact_to(Index(100)).expect("90 MiB may go");
        assert!((88..=90).contains(&kept.0), "kept from {kept}");
        assert_eq!(retention.compact_to(Index(100)), None, "asking twice moves nothing");
    }
}
