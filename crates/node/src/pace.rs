//! When the next round of a kind may start: self-clocked batching.
//!
//! Every round (an append with its fsyncs and acknowledgements, a confirmation of leadership) costs the cluster about
//! the same, whatever it carries. So while a round is under way, requests gather for the next one; and while rounds
//! carry many requests, as much time as the last one took passes before the next one starts. On an idle machine that is
//! short; on a busy one rounds take longer, so they get rarer and larger, and cost less. A client that is alone, or
//! nearly so, never waits.
//!
//! A round of writes costs fsyncs, so the more it carried the more is saved by waiting for as many again; one of reads
//! costs a few messages, and waits no longer than it took.
//!
//! Who got an answer often asks again. So once nearly as many writes wait as were in the last round or waited when it
//! was over, there is nobody left to wait for, and the pause ends early. Not so for reads, whose pause is short: ended
//! earlier, it costs more rounds than it saves waiting (measured).

use std::time::Duration;

use base::Instant;

/// Requests in a round that count as many.
const MANY: usize = 8;

/// How long rounds of a kind may be put off.
#[derive(Debug)]
struct Patience {
    /// The pause after a round that carried many requests, at most.
    pause_max: Duration,
    /// Whether that pause grows with what the round carried, and ends when enough have come.
    gathers: bool,
    /// Requests waiting longer than this go whatever is under way: on a slow network rounds overlap.
    wait_max: Duration,
}

const WRITES: Patience =
    Patience { pause_max: Duration::from_millis(2), gathers: true, wait_max: Duration::from_millis(2) };
const READS: Patience =
    Patience { pause_max: Duration::from_millis(1), gathers: false, wait_max: Duration::from_millis(1) };

/// The pace of one kind of round in one group.
#[derive(Debug)]
pub(crate) struct Pace {
    patience: &'static Patience,
    /// When the last round started, and what it carried.
    started: Instant,
    carried: usize,
    /// When it was finished.
    finished: Option<Instant>,
    /// How many requests there were then, in the round and waiting for the next one.
    expected: usize,
    /// Since when requests wait for the next one, and how many.
    waiting_since: Option<Instant>,
    waiting: usize,
}

impl Pace {
    /// For rounds that append to the log.
    pub(crate) fn of_writes() -> Self {
        Self::new(&WRITES)
    }

    /// For rounds that confirm leadership.
    pub(crate) fn of_reads() -> Self {
        Self::new(&READS)
    }

    fn new(patience: &'static Patience) -> Self {
        let start = Instant::default();
        let finished = Some(start);
        Self { patience, started: start, carried: 0, finished, expected: 0, waiting_since: None, waiting: 0 }
    }

    /// A request waits for the next round.
    pub(crate) fn wait(&mut self, now: Instant) {
        self.waiting_since.get_or_insert(now);
        self.waiting += 1;
    }

    /// The last round is over.
    pub(crate) fn finish(&mut self, now: Instant) {
        if self.finished.is_none() {
            self.finished = Some(now);
            self.expected = self.carried.saturating_add(self.waiting);
        }
    }

    /// When the next round may start, if anybody waits for it.
    pub(crate) fn due(&self) -> Option<Instant> {
        let since = self.waiting_since?;
        Some(match self.finished {
            None => since + self.patience.wait_max,
            Some(finished) if self.carried > MANY && !self.is_enough() => finished + self.pause(finished),
            Some(_) => since,
        })
    }

    /// Whether nearly all wait who can be expected to: seven eighths.
    fn is_enough(&self) -> bool {
        self.patience.gathers && self.waiting >= self.expected - self.expected / 8
    }

    fn pause(&self, finished: Instant) -> Duration {
        let took = finished.since(self.started).min(self.patience.pause_max);
        let times = if self.patience.gathers { u32::try_from(self.carried / MANY).unwrap_or(u32::MAX) } else { 1 };
        took.saturating_mul(times).min(self.patience.pause_max)
    }

    /// A round starts now with this many requests.
    pub(crate) fn start(&mut self, now: Instant, carried: usize) {
        *self = Self { started: now, carried, finished: None, waiting_since: None, waiting: 0, ..*self };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant(1_000_000);

    #[test]
    fn a_lone_request_goes_at_once() {
        let mut pace = Pace::of_writes();
        assert_eq!(pace.due(), None);
        pace.wait(NOW);
        assert_eq!(pace.due(), Some(NOW));
        pace.start(NOW, 1);
        pace.finish(NOW + Duration::from_micros(300));
        pace.wait(NOW + Duration::from_micros(301));
        assert_eq!(pace.due(), Some(NOW + Duration::from_micros(301)));
    }

    /// The pause after a round that took so long and carried so much.
    fn pause_after(mut pace: Pace, took: u64, carried: usize) -> Duration {
        pace.start(NOW, carried);
        pace.wait(NOW + Duration::from_micros(100));
        let finished = NOW + Duration::from_micros(took);
        pace.finish(finished);
        pace.finish(finished + Duration::from_micros(50));
        pace.due().expect("somebody waits").since(finished)
    }

    #[test]
    fn after_a_round_with_many_reads_comes_a_pause_as_long() {
        for (took, pause) in [(200, 200), (5000, 1000)] {
            for carried in [MANY + 1, 10 * MANY] {
                assert_eq!(pause_after(Pace::of_reads(), took, carried), Duration::from_micros(pause));
            }
        }
    }

    #[test]
    fn the_more_writes_a_round_carried_the_longer_the_next_one_gathers() {
        for (took, carried, pause) in [
            (200, MANY + 1, 200),
            (200, 2 * MANY, 400),
            (200, 5 * MANY + 1, 1000),
            (200, 11 * MANY, 2000),
            (5000, MANY + 1, 2000),
            (200, usize::MAX, 2000),
        ] {
            assert_eq!(pause_after(Pace::of_writes(), took, carried), Duration::from_micros(pause), "{took} {carried}");
        }
    }

    #[test]
    fn a_pause_ends_when_nearly_all_have_asked_again() {
        let mut pace = Pace::of_writes();
        pace.start(NOW, 40);
        let wait = |pace: &mut Pace, times: usize| (0..times).for_each(|_| pace.wait(NOW + Duration::from_micros(300)));
        wait(&mut pace, 24);
        let finished = NOW + Duration::from_micros(400);
        pace.finish(finished);
        // Half of all is waiting already; were that enough, rounds would stay half as large as they can be.
        assert_eq!(pace.due(), Some(finished + WRITES.pause_max));
        wait(&mut pace, 31);
        assert_eq!(pace.due(), Some(finished + WRITES.pause_max));
        wait(&mut pace, 1);
        assert_eq!(pace.due(), Some(NOW + Duration::from_micros(300)), "56 of 64");
        pace.start(finished, 56);
        assert_eq!(pace.due(), None);
    }

    #[test]
    fn a_round_under_way_holds_the_next_one_only_so_long() {
        for (mut pace, wait_max) in [(Pace::of_writes(), WRITES.wait_max), (Pace::of_reads(), READS.wait_max)] {
            pace.start(NOW, 1);
            pace.wait(NOW);
            pace.wait(NOW + Duration::from_micros(900));
            assert_eq!(pace.due(), Some(NOW + wait_max));
        }
    }
}
