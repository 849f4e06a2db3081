//! Compaction of history without being asked, as etcd does it: by age, or by number of revisions.
//!
//! Invariant: never compacts above what the policy keeps. Every member keeps the books, so that a new leader knows how
//! old revisions are; only the leader compacts.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use base::{Instant, Revision};
use mvcc::{Command, Compact, Reject};
use tokio::sync::watch;
use tracing::{debug, info};

use crate::clock;
use crate::config::AutoCompaction;
use crate::gateway::Gateway;

/// Age is looked at in tenths of the retention, or of this if that is longer; and history is compacted as often.
const PERIOD_MAX: Duration = Duration::from_secs(3600);
/// How often the number of revisions is looked at.
const REVISIONS_INTERVAL: Duration = Duration::from_secs(300);

/// When to compact, and up to where.
#[derive(Debug)]
struct AutoCompactor {
    policy: AutoCompaction,
    /// The revisions at the last looks, oldest first: as many as make up the retention.
    seen: VecDeque<Revision>,
    compacted: Revision,
    /// Not before this.
    due: Instant,
}

impl AutoCompactor {
    fn new(policy: AutoCompaction, now: Instant) -> Self {
        let first = match policy {
            AutoCompaction::Periodic(retention) => retention,
            AutoCompaction::Revisions(_) => Duration::ZERO,
        };
        Self { policy, seen: VecDeque::new(), compacted: Revision(0), due: now + first }
    }

    /// Time between two looks.
    fn interval(&self) -> Duration {
        match self.policy {
            AutoCompaction::Periodic(retention) => (retention.min(PERIOD_MAX) / 10).max(Duration::from_millis(1)),
            AutoCompaction::Revisions(_) => REVISIONS_INTERVAL,
        }
    }

    /// Takes a look; answers with the revision to compact now, if there is one.
    fn look(&mut self, now: Instant, current: Revision) -> Option<Revision> {
        let revision = match self.policy {
            AutoCompaction::Periodic(retention) => {
                let looks = retention.as_nanos() / self.interval().as_nanos();
                self.seen.push_back(current);
                // One more than intervals: the oldest was seen a whole retention ago.
                if self.seen.len() as u128 > looks + 1 {
                    self.seen.pop_front();
                }
                self.seen[0]
            }
            AutoCompaction::Revisions(kept) => Revision(current.0.saturating_sub(kept)),
        };
        (now >= self.due && revision.0 > 0 && revision > self.compacted).then_some(revision)
    }

    /// It is compacted, by us or by somebody else.
    fn done(&mut self, now: Instant, revision: Revision) {
        self.compacted = revision;
        if let AutoCompaction::Periodic(retention) = self.policy {
            self.due = now + retention.min(PERIOD_MAX);
        }
    }
}

/// Compacts by the policy until `stop` changes.
pub(crate) async fn run(gateway: Gateway, policy: AutoCompaction, mut stop: watch::Receiver<bool>) {
    let context = Arc::clone(&gateway.context);
    let me = context.directory.me().id;
    let mut compactor = AutoCompactor::new(policy, clock::now());
    loop {
        // A fault of the engine stops the node by other ways.
        if let Ok(state) = mvcc::state(&*context.engine.view()) {
            let due = compactor.look(clock::now(), state.revision);
            let leads = context.standing.look(|status| status.leader == Some(me));
            if let Some(revision) = due.filter(|_| leads) {
                match gateway.propose(&Command::Compact(Compact { revision })).await {
                    Ok(_) => {
                        info!(%revision, "history compacted, see --auto-compaction-retention");
                        compactor.done(clock::now(), revision);
                    }
                    Err(status) if status.message() == Reject::Compacted.to_string() => {
                        compactor.done(clock::now(), revision);
                    }
                    // Tried again at the next look.
                    Err(status) => debug!(%status, %revision, "history could not be compacted"),
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(compactor.interval()) => {}
            _ = stop.changed() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks as often as the compactor wants, with `per_look` new revisions each time; what was compacted, and when.
    fn compactions(policy: AutoCompaction, looks: u32, per_look: i64) -> Vec<(u64, i64)> {
        let start = Instant::default();
        let mut compactor = AutoCompactor::new(policy, start);
        let mut found = Vec::new();
        for look in 0..looks {
            let now = start + compactor.interval() * look;
            if let Some(revision) = compactor.look(now, Revision(1 + i64::from(look) * per_look)) {
                found.push((now.since(start).as_secs(), revision.0));
                compactor.done(now, revision);
            }
        }
        found
    }

    #[test]
    fn what_is_older_than_the_retention_goes_and_nothing_younger() {
        let minute = AutoCompaction::Periodic(Duration::from_secs(60));
        // A look every six seconds, ten revisions each: at second 120 revision 101 is 60 seconds old.
        assert_eq!(compactions(minute, 31, 10), [(60, 1), (120, 101), (180, 201)]);
    }

    #[test]
    fn long_retentions_are_kept_and_compacted_every_hour() {
        let day = AutoCompaction::Periodic(Duration::from_secs(24 * 3600));
        let found = compactions(day, 10 * 27, 10);
        let hour = 3600;
        assert_eq!(found, [(24 * hour, 1), (25 * hour, 101), (26 * hour, 201)]);
    }

    #[test]
    fn a_number_of_revisions_is_kept() {
        let found = compactions(AutoCompaction::Revisions(1000), 5, 400);
        assert_eq!(found, [(900, 201), (1200, 601)]);
    }

    #[test]
    fn without_writes_nothing_is_compacted_twice() {
        assert_eq!(compactions(AutoCompaction::Periodic(Duration::from_secs(60)), 100, 0), [(60, 1)]);
    }
}
