//! The log's thread: takes every batch that is waiting, writes them together, syncs once.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use base::{Fault, GroupId, Lsn};
use kernel::Record;
use node::Event;
use storage::Wal;
use tokio::sync::mpsc::UnboundedSender;

use crate::metrics::Metrics;

/// One turn's records of all groups.
pub(crate) struct WalJob {
    pub(crate) lsn: Lsn,
    pub(crate) batch: Vec<(GroupId, Vec<Record>)>,
}

/// How long the log must be idle before its upkeep (segments, garbage) runs; it also runs between busy batches.
const IDLE: Duration = Duration::from_millis(50);
/// Batches between two rounds of upkeep on a busy log.
const UPKEEP_EVERY: u32 = 64;

/// Runs until the jobs' sender is gone. Returns the fault that ended the log, if one did.
pub(crate) fn run(
    mut wal: Wal,
    jobs: &Receiver<WalJob>,
    node: &UnboundedSender<Vec<Event>>,
    metrics: &Arc<Metrics>,
) -> Result<(), Fault> {
    let mut since_upkeep = 0;
    let mut idle = IDLE;
    loop {
        let first = match jobs.recv_timeout(idle) {
            Ok(job) => job,
            Err(RecvTimeoutError::Timeout) => {
                if since_upkeep > 0 {
                    // A step at a time: a write that comes meanwhile waits for no more than that.
                    if wal.maintain()? {
                        idle = Duration::ZERO;
                    } else {
                        since_upkeep = 0;
                        idle = IDLE;
                    }
                    continue;
                }
                // Nothing to keep up: sleep until there is something to write.
                match jobs.recv() {
                    Ok(job) => job,
                    Err(_) => return Ok(()),
                }
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        let started = Instant::now();
        wal.append(first.lsn, &first.batch)?;
        // Group commit: whatever came while the last sync was running goes with this one.
        while let Ok(job) = jobs.try_recv() {
            wal.append(job.lsn, &job.batch)?;
        }
        let synced = wal.sync()?;
        metrics.wal_fsync.observe(started.elapsed());
        if node.send(vec![Event::Persisted(synced)]).is_err() {
            return Ok(());
        }
        since_upkeep += 1;
        if since_upkeep >= UPKEEP_EVERY {
            since_upkeep = 0;
            wal.maintain()?;
        }
    }
}
