//! When the next round of a kind may start: self-clocked batching.
//!
//! Every round (an append with its fsyncs and acknowledgements, a confirmation of leadership) costs the cluster about
//! the same, whatever it carries. So while a round is under way, requests gather for the next one; and while rounds
//! carry many requests, as much time as the last one took passes before the next one starts. On an idle machine that is
//! short; on a busy one rounds take longer, so they get rarer and larger, and cost less. A client that is alone, or
//! nearly so, never waits.

use std::time::Duration;

use base::Instant;

/// Requests in a round that count as many.
const MANY: usize = 8;
/// The pause after a round that carried many requests, at most.
const PAUSE_MAX: Duration = Duration::from_millis(1);
/// Requests waiting longer than this go whatever is under way: on a slow network rounds overlap.
const WAIT_MAX: Duration = Duration::from_millis(1);

/// The pace of one kind of round in one group.
#[derive(Debug)]
pub(crate) struct Pace {
    /// When the last round started, and what it carried.
    started: Instant,
    carried: usize,
    /// When it was finished.
    finished: Option<Instant>,
    /// Since when requests wait for the next one.
    waiting_since: Option<Instant>,
}

impl Default for Pace {
    fn default() -> Self {
        let start = Instant::default();
        Self { started: start, carried: 0, finished: Some(start), waiting_since: None }
    }
}

impl Pace {
    /// A request waits for the next round.
    pub(crate) fn wait(&mut self, now: Instant) {
        self.waiting_since.get_or_insert(now);
    }

    /// The last round is over.
    pub(crate) fn finish(&mut self, now: Instant) {
        self.finished.get_or_insert(now);
    }

    /// When the next round may start, if anybody waits for it.
    pub(crate) fn due(&self) -> Option<Instant> {
        let since = self.waiting_since?;
        Some(match self.finished {
            None => since + WAIT_MAX,
            Some(finished) if self.carried > MANY => finished + finished.since(self.started).min(PAUSE_MAX),
            Some(_) => since,
        })
    }

    /// A round starts now with this many requests.
    pub(crate) fn start(&mut self, now: Instant, carried: usize) {
        *self = Self { started: now, carried, finished: None, waiting_since: None };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant(1_000_000);

    #[test]
    fn a_lone_request_goes_at_once() {
        let mut pace = Pace::default();
        assert_eq!(pace.due(), None);
        pace.wait(NOW);
        assert_eq!(pace.due(), Some(NOW));
        pace.start(NOW, 1);
        pace.finish(NOW + Duration::from_micros(300));
        pace.wait(NOW + Duration::from_micros(301));
        assert_eq!(pace.due(), Some(NOW + Duration::from_micros(301)));
    }

    #[test]
    fn after_a_round_with_many_requests_comes_a_pause_as_long() {
        for (took, pause) in [(200, 200), (5000, 1000)] {
            let mut pace = Pace::default();
            pace.start(NOW, MANY + 1);
            pace.wait(NOW + Duration::from_micros(100));
            let finished = NOW + Duration::from_micros(took);
            pace.finish(finished);
            pace.finish(finished + Duration::from_micros(50));
            assert_eq!(pace.due(), Some(finished + Duration::from_micros(pause)));
        }
    }

    #[test]
    fn a_round_under_way_holds_the_next_one_only_so_long() {
        let mut pace = Pace::default();
        pace.start(NOW, 1);
        pace.wait(NOW);
        pace.wait(NOW + Duration::from_micros(900));
        assert_eq!(pace.due(), Some(NOW + WAIT_MAX));
    }
}
