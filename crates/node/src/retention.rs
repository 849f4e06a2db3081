//! How much log is kept behind the applied index for followers that lag.

use std::collections::VecDeque;

use base::Index;

/// Samples of (index, bytes appended so far), one for about every `STEP_BYTES` of log.
#[derive(Debug, Default)]
pub(crate) struct Retention {
    samples: VecDeque<(Index, u64)>,
    bytes: u64,
    sampled_at: u64,
}

const STEP_BYTES: u64 = 1024 * 1024;
/// What an entry costs beside its payload.
const ENTRY_OVERHEAD_BYTES: u64 = 64;

impl Retention {
    /// An entry went through apply.
    pub(crate) fn applied(&mut self, index: Index, payload_bytes: usize) {
        self.bytes += payload_bytes as u64 + ENTRY_OVERHEAD_BYTES;
        if self.bytes - self.sampled_at >= STEP_BYTES {
            self.sampled_at = self.bytes;
            self.samples.push_back((index, self.bytes));
        }
    }

    /// The highest index the log may start after: at most `checkpointed`, and with `retained_bytes` of log left.
    pub(crate) fn compact_to(&mut self, checkpointed: Index, retained_bytes: u64) -> Option<Index> {
        let mut found = None;
        while let Some(&(index, bytes)) = self.samples.front() {
            if index > checkpointed || self.bytes - bytes < retained_bytes {
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
        let mut retention = Retention::default();
        for index in 1..=100 {
            retention.applied(Index(index), STEP_BYTES as usize);
        }
        assert_eq!(retention.compact_to(Index(30), 0), Some(Index(30)));
        let kept = retention.compact_to(Index(100), 10 * STEP_BYTES).expect("90 MiB may go");
        assert!((88..=90).contains(&kept.0), "kept from {kept}");
        assert_eq!(retention.compact_to(Index(100), 10 * STEP_BYTES), None, "asking twice moves nothing");
    }
}
