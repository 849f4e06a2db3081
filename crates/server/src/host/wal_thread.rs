//! The log's thread: writes what the node thread does not write itself, takes every batch that is waiting together, and
//! looks after the segments whoever writes.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use base::Fault;
use node::Event;
use tokio::sync::mpsc::UnboundedSender;

use crate::host::log::{Log, LogJob};

/// How long the log must be idle before its upkeep (segments, garbage) runs; it also runs between busy batches.
const IDLE: Duration = Duration::from_millis(50);
/// Flushes between two steps of upkeep on a busy log.
const UPKEEP_EVERY: u64 = 64;

/// What is left to look after.
struct Upkeep {
    /// Flushes, and the time, when it last took a step.
    kept_up: u64,
    stepped: Instant,
    /// Flushes at the last look.
    seen: u64,
    /// The last step was not the last.
    more: bool,
}

impl Upkeep {
    /// Takes a step if one is due; answers how long to wait for the next look, if there is anything to look for.
    fn look(&mut self, log: &Log) -> Result<Option<Duration>, Fault> {
        let flushes = log.flushes();
        let idle = flushes == std::mem::replace(&mut self.seen, flushes);
        let due = flushes - self.kept_up;
        // What was begun goes on at least so often, however large the flushes are.
        let goes_on = self.more && (idle || self.stepped.elapsed() >= IDLE);
        if due < UPKEEP_EVERY && !goes_on && !(idle && due > 0) {
            return Ok((!idle).then_some(IDLE));
        }
        self.kept_up += due.min(UPKEEP_EVERY);
        self.stepped = Instant::now();
        // A step at a time: a write that comes meanwhile waits for no more than that.
        self.more = log.look_after()?;
        let behind = due >= 2 * UPKEEP_EVERY;
        Ok(Some(if idle || behind { Duration::ZERO } else { IDLE }))
    }
}

/// Runs until the jobs' sender is gone. Returns the fault that ended the log, if one did.
pub(crate) fn run(log: &Log, jobs: &Receiver<LogJob>, node: &UnboundedSender<Vec<Event>>) -> Result<(), Fault> {
    let mut upkeep = Upkeep { kept_up: 0, stepped: Instant::now(), seen: 0, more: false };
    let mut wait = Some(IDLE);
    loop {
        let first = match wait {
            Some(wait) => jobs.recv_timeout(wait),
            None if log.may_sleep(upkeep.seen) => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
            None => Err(RecvTimeoutError::Timeout),
        };
        let mut batches = Vec::new();
        match first {
            Ok(LogJob::Write(batch)) => batches.push(batch),
            Ok(LogJob::LookAfter) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        // Group commit: whatever came while the last flush was running goes with this one.
        batches.extend(jobs.try_iter().filter_map(|job| match job {
            LogJob::Write(batch) => Some(batch),
            LogJob::LookAfter => None,
        }));
        if !batches.is_empty() {
            let synced = log.write(&batches)?;
            if node.send(vec![Event::Persisted(synced)]).is_err() {
                return Ok(());
            }
        }
        wait = upkeep.look(log)?;
    }
}
