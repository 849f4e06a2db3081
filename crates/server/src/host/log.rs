//! The log, and who writes it: the node thread itself while the disk is quick, the log thread otherwise.
//!
//! A hand-over to another thread and back costs two wake-ups, as much as the flush of a good disk. So the node thread
//! writes its turn's records itself as long as that takes less time than it is worth; on a disk that takes longer, or
//! while the log thread is at it, the log thread does, and the node thread goes on meanwhile.
//!
//! Invariant: batches reach the log in the order of their numbers, whoever writes them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use base::{Fault, GroupId, Lsn, Synced};
use kernel::Record;
use storage::Wal;

use crate::metrics::Metrics;

/// One turn's records of all groups.
pub(crate) struct Batch {
    pub(crate) lsn: Lsn,
    pub(crate) records: Vec<(GroupId, Vec<Record>)>,
}

impl Batch {
    /// About what it takes in the log, and rather too much.
    fn bytes_max(&self) -> u64 {
        let payload = |record: &Record| match record {
            Record::Append(entries) => entries.iter().map(|entry| entry.payload.len() + ENTRY_OVERHEAD_BYTES).sum(),
            _ => ENTRY_OVERHEAD_BYTES,
        };
        let bytes: usize = self.records.iter().flat_map(|(_, records)| records).map(payload).sum();
        bytes as u64 + FRAME_OVERHEAD_BYTES
    }
}

/// What the log thread is asked.
pub(crate) enum LogJob {
    Write(Batch),
    /// The node thread writes again: look after the segments.
    LookAfter,
}

/// Flushes that take longer than this on average are the log thread's. A node thread that waited longer would keep
/// reads and heartbeats waiting with it.
const QUICK: Duration = Duration::from_millis(1);
/// More than an entry takes beside its payload, and a batch beside its records.
const ENTRY_OVERHEAD_BYTES: usize = 128;
const FRAME_OVERHEAD_BYTES: u64 = 16 * 1024;
/// The average moves by one part in so many per flush.
const AVERAGED_OVER: u32 = 8;

/// How long flushes take, as a moving average.
#[derive(Default)]
struct Pulse {
    average: Duration,
}

impl Pulse {
    fn observe(&mut self, took: Duration) {
        self.average = (self.average * (AVERAGED_OVER - 1) + took) / AVERAGED_OVER;
    }

    fn is_quick(&self) -> bool {
        self.average <= QUICK
    }
}

struct Open {
    wal: Wal,
    pulse: Pulse,
}

/// The log of a node.
pub(crate) struct Log {
    open: Mutex<Open>,
    /// Flushes so far, for whoever looks after the segments.
    flushes: AtomicU64,
    /// The log thread sleeps until it is asked.
    sleeps: AtomicBool,
    metrics: Arc<Metrics>,
}

impl Log {
    pub(crate) fn new(wal: Wal, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            open: Mutex::new(Open { wal, pulse: Pulse::default() }),
            flushes: AtomicU64::new(0),
            sleeps: AtomicBool::new(false),
            metrics,
        })
    }

    /// Makes the batches durable, with one write and one flush.
    pub(crate) fn write(&self, batches: &[Batch]) -> Result<Synced<Lsn>, Fault> {
        self.write_to(&mut self.lock(), batches)
    }

    /// One step of upkeep; answers whether there is more to do.
    pub(crate) fn look_after(&self) -> Result<bool, Fault> {
        self.lock().wal.maintain()
    }

    pub(crate) fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Relaxed)
    }

    /// The log thread is about to sleep; answers whether it may, having seen this many flushes.
    pub(crate) fn may_sleep(&self, seen: u64) -> bool {
        self.sleeps.store(true, Ordering::SeqCst);
        self.flushes.load(Ordering::SeqCst) == seen
    }

    fn write_to(&self, open: &mut Open, batches: &[Batch]) -> Result<Synced<Lsn>, Fault> {
        let started = Instant::now();
        for batch in batches {
            open.wal.append(batch.lsn, &batch.records)?;
        }
        let synced = open.wal.sync()?;
        let took = started.elapsed();
        open.pulse.observe(took);
        self.metrics.wal_fsync.observe(took);
        self.flushes.fetch_add(1, Ordering::SeqCst);
        Ok(synced)
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // A panic stops the node, and an error poisons the log itself.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The node thread's side of the log.
pub(crate) struct LogWriter {
    log: Arc<Log>,
    thread: Sender<LogJob>,
    /// The last batch that the log thread was given and has not reported.
    handed: Option<Lsn>,
    /// The disk was quick at the last look.
    is_quick: bool,
}

impl LogWriter {
    pub(crate) fn new(log: Arc<Log>, thread: Sender<LogJob>) -> Self {
        Self { log, thread, handed: None, is_quick: true }
    }

    /// Whether this thread may wait for the disk.
    pub(crate) const fn is_quick(&self) -> bool {
        self.is_quick && self.handed.is_none()
    }

    /// Makes the batches durable now and says so, or leaves that to the log thread.
    pub(crate) fn write(&mut self, batches: Vec<Batch>) -> Result<Option<Synced<Lsn>>, Fault> {
        let open = match self.log.open.try_lock() {
            Ok(open) => Some(open),
            Err(TryLockError::Poisoned(open)) => Some(open.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        if let Some(open) = &open {
            self.is_quick = open.pulse.is_quick();
        }
        // Where no segment is ready one has to be made, and that is nothing for this thread.
        let needed: u64 = batches.iter().map(Batch::bytes_max).sum();
        let fits = |open: &MutexGuard<'_, Open>| open.wal.room() >= needed;
        if let Some(mut open) = open.filter(|open| self.is_quick() && fits(open)) {
            let synced = self.log.write_to(&mut open, &batches)?;
            drop(open);
            if self.log.sleeps.swap(false, Ordering::SeqCst) {
                self.hand_over(LogJob::LookAfter);
            }
            return Ok(Some(synced));
        }
        for batch in batches {
            self.handed = Some(batch.lsn);
            self.hand_over(LogJob::Write(batch));
        }
        Ok(None)
    }

    /// The log thread reported this batch.
    pub(crate) fn written(&mut self, lsn: Lsn) {
        self.handed = self.handed.filter(|handed| *handed > lsn);
    }

    fn hand_over(&self, job: LogJob) {
        // The log thread is gone only when it failed, which stops the node, or while the process stops.
        drop(self.thread.send(job));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Receiver};

    use base::{Ballot, ClusterId, Index, NodeId};
    use storage::MemDisk;
    use storage::wal::{WalIdentity, WalOptions};

    use super::*;

    fn writer() -> (Arc<Log>, LogWriter, Receiver<LogJob>) {
        let disk = Arc::new(MemDisk::new(1));
        let identity = WalIdentity { cluster: ClusterId(1), node: NodeId(1), incarnation: 1 };
        let options = WalOptions { may_create: true, segment_bytes: 64 * 1024 };
        let (wal, _) = Wal::open(disk, identity, options).expect("a new log");
        let log = Log::new(wal, Arc::default());
        let (sender, jobs) = mpsc::channel();
        let writer = LogWriter::new(Arc::clone(&log), sender);
        (log, writer, jobs)
    }

    fn batch(lsn: u64) -> Vec<Batch> {
        let promise = Record::Hard { promised: Ballot::default(), accepted: Ballot::default(), commit: Index(lsn) };
        vec![Batch { lsn: Lsn(lsn), records: vec![(GroupId(0), vec![promise])] }]
    }

    fn batches(jobs: &Receiver<LogJob>) -> Vec<Batch> {
        let writes = jobs.try_iter().filter_map(|job| match job {
            LogJob::Write(batch) => Some(batch),
            LogJob::LookAfter => None,
        });
        writes.collect()
    }

    #[test]
    fn batches_reach_the_log_in_order_whoever_writes_them() {
        let (log, mut writer, jobs) = writer();
        let write = |writer: &mut LogWriter, lsn| {
            writer.write(batch(lsn)).expect("the disk is fine").map(|synced| synced.get().0)
        };
        assert_eq!(write(&mut writer, 1), Some(1), "nobody else is at it");
        let busy = log.lock();
        assert_eq!(write(&mut writer, 2), None);
        drop(busy);
        // Nobody is at it any more, but the log thread has not written what it was given.
        assert_eq!(write(&mut writer, 3), None);
        assert_eq!(log.write(&batches(&jobs)).expect("in order").get().0, 3);
        writer.written(Lsn(2));
        assert_eq!(write(&mut writer, 4), None, "3 is not reported");
        assert_eq!(log.write(&batches(&jobs)).expect("in order").get().0, 4);
        writer.written(Lsn(4));
        assert_eq!(write(&mut writer, 5), Some(5));
    }

    #[test]
    fn a_batch_that_needs_a_new_segment_is_left_to_the_log_thread_until_one_is_ready() {
        let (log, mut writer, jobs) = writer();
        let mut lsn = 0;
        let mut write = |writer: &mut LogWriter| {
            lsn += 1;
            writer.write(batch(lsn)).expect("the disk is fine").map(|synced| synced.get().0)
        };
        let here = std::iter::from_fn(|| write(&mut writer)).count();
        assert!((2..64).contains(&here), "{here} of 4 KiB or so in a segment of 64");
        let synced = log.write(&batches(&jobs)).expect("in order");
        writer.written(*synced.get());
        while log.look_after().expect("the disk is fine") {}
        assert!(write(&mut writer).is_some(), "the next segment is ready");
    }

    #[test]
    fn a_log_thread_that_sleeps_is_woken_to_look_after_the_segments() {
        let (log, mut writer, jobs) = writer();
        assert!(!log.may_sleep(7), "more was flushed than it has seen");
        assert!(log.may_sleep(0));
        for (lsn, woken) in [(1, 1), (2, 0), (3, 0)] {
            writer.write(batch(lsn)).expect("the disk is fine").expect("written here");
            assert_eq!(jobs.try_iter().count(), woken, "{lsn}");
        }
    }

    #[test]
    fn a_disk_that_stalls_once_is_left_to_the_log_thread_for_a_while() {
        let mut pulse = Pulse::default();
        (0..100).for_each(|_| pulse.observe(Duration::from_micros(300)));
        assert!(pulse.is_quick());
        pulse.observe(Duration::from_millis(20));
        assert!(!pulse.is_quick());
        let needed = (1..100).find(|_| {
            pulse.observe(Duration::from_micros(300));
            pulse.is_quick()
        });
        assert!((5..30).contains(&needed.expect("quick again")), "{needed:?}");
        (0..100).for_each(|_| pulse.observe(Duration::from_millis(2)));
        assert!(!pulse.is_quick());
    }
}
