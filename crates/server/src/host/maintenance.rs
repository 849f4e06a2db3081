//! The engine's upkeep: flushes, compactions, sweeping history below the compaction floor. Nobody waits for it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::{Fault, GroupId, Index, Revision};
use mvcc::Engine;
use node::Event;
use storage::LsmEngine;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

/// Without a wake-up, upkeep looks around this often.
const INTERVAL: Duration = Duration::from_secs(1);
/// Niceness of the compaction thread.
const NICENESS: i32 = 5;
/// An idle compaction thread looks for work this often; looking costs microseconds.
const COMPACTION_PAUSE: Duration = Duration::from_millis(50);
/// Events looked at by one piece of the sweep, as in etcd; between two pieces other work gets its turn.
const SWEEP_EVENTS: usize = 1000;

/// Sizes measured by the upkeep for everyone to read.
#[derive(Debug, Default)]
pub(crate) struct Sizes {
    state_bytes: AtomicU64,
    buffered_bytes: AtomicU64,
    /// What writes taken in since the last measurement may add.
    coming_bytes: AtomicU64,
}

impl Sizes {
    /// Bytes the state takes on disk.
    pub(crate) fn on_disk(&self) -> u64 {
        self.state_bytes.load(Ordering::Relaxed)
    }

    /// Bytes the state takes, be they on disk or on their way there.
    pub(crate) fn taken(&self) -> u64 {
        [&self.state_bytes, &self.buffered_bytes, &self.coming_bytes]
            .map(|bytes| bytes.load(Ordering::Relaxed))
            .iter()
            .sum()
    }

    /// A write that may add so much was taken in.
    pub(crate) fn coming(&self, bytes: u64) {
        self.coming_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn measured(&self, state_bytes: u64, buffered_bytes: u64) {
        self.coming_bytes.store(0, Ordering::Relaxed);
        self.state_bytes.store(state_bytes, Ordering::Relaxed);
        self.buffered_bytes.store(buffered_bytes, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
struct Wanted {
    look: bool,
    stop: bool,
    floor: Revision,
    /// Full compactions asked for so far.
    full: u64,
    /// Everything written so far is to be in the files soon.
    flush: bool,
}

/// How other threads talk to the upkeep.
#[derive(Debug)]
pub(crate) struct Upkeep {
    wanted: Mutex<Wanted>,
    changed: Condvar,
    swept: watch::Sender<Revision>,
    /// Full compactions carried out; several that are asked for together count as one each.
    compacted_fully: watch::Sender<u64>,
    pub(crate) sizes: Sizes,
}

impl Upkeep {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            wanted: Mutex::default(),
            changed: Condvar::new(),
            swept: watch::Sender::new(Revision(-1)),
            compacted_fully: watch::Sender::new(0),
            sizes: Sizes::default(),
        })
    }

    /// There is something to flush.
    pub(crate) fn wake(&self) {
        self.lock().look = true;
        self.changed.notify_one();
    }

    /// What was written just now should be found at the next start, before the log is replayed.
    pub(crate) fn flush(&self) {
        let mut wanted = self.lock();
        (wanted.flush, wanted.look) = (true, true);
        self.changed.notify_one();
    }

    /// The compaction floor is at `floor` now.
    pub(crate) fn compacted(&self, floor: Revision) {
        let mut wanted = self.lock();
        if floor > wanted.floor {
            wanted.floor = floor;
            wanted.look = true;
            self.changed.notify_one();
        }
    }

    /// Ends the upkeep thread.
    pub(crate) fn stop(&self) {
        self.lock().stop = true;
        self.changed.notify_one();
    }

    /// Waits until everything below the floor `revision` is physically gone.
    pub(crate) async fn swept(&self, revision: Revision) {
        // The sender lives as long as `self`.
        drop(self.swept.subscribe().wait_for(|swept| *swept >= revision).await);
    }

    /// The floor below which everything is gone.
    pub(crate) fn swept_to(&self) -> Revision {
        *self.swept.borrow()
    }

    /// Asks for the room that deleted and replaced rows take. Returns a number for [`Self::made_room`].
    pub(crate) fn make_room(&self) -> u64 {
        let mut wanted = self.lock();
        wanted.full += 1;
        wanted.full
    }

    /// Waits until what was asked for is done.
    pub(crate) async fn made_room(&self, asked: u64) {
        drop(self.compacted_fully.subscribe().wait_for(|done| *done >= asked).await);
    }

    fn lock(&self) -> MutexGuard<'_, Wanted> {
        // A panic cannot leave the flags half changed.
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a reason to look; false when it is time to stop.
    fn wait(&self) -> bool {
        let mut wanted = self.lock();
        if !wanted.look && !wanted.stop {
            wanted = self.changed.wait_timeout(wanted, INTERVAL).unwrap_or_else(PoisonError::into_inner).0;
        }
        wanted.look = false;
        !wanted.stop
    }
}

/// Runs until [`Upkeep::stop`].
pub(crate) fn run(
    upkeep: &Upkeep,
    engines: &BTreeMap<GroupId, Arc<LsmEngine>>,
    node: &UnboundedSender<Vec<Event>>,
) -> Result<(), Fault> {
    let mut checkpointed: BTreeMap<GroupId, Index> = BTreeMap::new();
    while upkeep.wait() {
        let (mut bytes, mut buffered) = (0, 0);
        let everything = std::mem::take(&mut upkeep.lock().flush);
        for (group, engine) in engines {
            if everything {
                engine.flush_all()?;
            }
            engine.flush_sealed()?;
            if let Some(mark) = engine.persisted_mark()? {
                let index = mark.position.index;
                if checkpointed.insert(*group, index) != Some(index) {
                    // The node thread is gone only while the process stops.
                    drop(node.send(vec![Event::Checkpointed { group: *group, index }]));
                }
            }
            sweep(upkeep, engine)?;
            let stats = engine.stats();
            bytes += stats.disk_bytes;
            buffered += stats.memtable_bytes;
        }
        upkeep.sizes.measured(bytes, buffered);
    }
    Ok(())
}

/// Compacts until [`Upkeep::stop`], on a thread of its own: a compaction takes seconds, and flushes must not wait for
/// it.
pub(crate) fn compact(upkeep: &Upkeep, engines: &BTreeMap<GroupId, Arc<LsmEngine>>) -> Result<(), Fault> {
    // Clients come first; when upkeep falls behind, writers are held back and leave the processor to it.
    let lower = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICENESS);
    if let Err(error) = lower {
        tracing::debug!(%error, "compaction runs at normal priority");
    }
    while !upkeep.lock().stop {
        let mut worked = false;
        let asked = upkeep.lock().full;
        let makes_room = asked > *upkeep.compacted_fully.borrow();
        for engine in engines.values() {
            if makes_room {
                engine.compact_fully()?;
            }
            worked |= engine.compact()?;
        }
        if makes_room {
            upkeep.compacted_fully.send_replace(asked);
            upkeep.wake();
        }
        if !worked {
            std::thread::sleep(COMPACTION_PAUSE);
        }
    }
    Ok(())
}

fn sweep(upkeep: &Upkeep, engine: &LsmEngine) -> Result<(), Fault> {
    loop {
        let floor = mvcc::state(&*engine.view())?.compacted;
        let piece = mvcc::sweep(&*engine.view(), SWEEP_EVENTS)?;
        if !piece.batch.rows.is_empty() {
            engine.write(piece.batch)?;
        }
        if piece.done {
            upkeep.swept.send_replace(floor);
            return Ok(());
        }
        if upkeep.lock().stop {
            return Ok(());
        }
        engine.flush_sealed()?;
    }
}
