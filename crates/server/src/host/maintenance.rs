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
}

impl Sizes {
    /// Bytes the state takes on disk.
    pub(crate) fn on_disk(&self) -> u64 {
        self.state_bytes.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
struct Wanted {
    look: bool,
    stop: bool,
    floor: Revision,
}

/// How other threads talk to the upkeep.
#[derive(Debug)]
pub(crate) struct Upkeep {
    wanted: Mutex<Wanted>,
    changed: Condvar,
    swept: watch::Sender<Revision>,
    pub(crate) sizes: Sizes,
}

impl Upkeep {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            wanted: Mutex::default(),
            changed: Condvar::new(),
            swept: watch::Sender::new(Revision(-1)),
            sizes: Sizes::default(),
        })
    }

    /// There is something to flush.
    pub(crate) fn wake(&self) {
        self.lock().look = true;
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
    node: &UnboundedSender<Event>,
) -> Result<(), Fault> {
    let mut checkpointed: BTreeMap<GroupId, Index> = BTreeMap::new();
    while upkeep.wait() {
        let mut bytes = 0;
        for (group, engine) in engines {
            engine.flush_sealed()?;
            if let Some(mark) = engine.persisted_mark()? {
                let index = mark.position.index;
                if checkpointed.insert(*group, index) != Some(index) {
                    // The node thread is gone only while the process stops.
                    drop(node.send(Event::Checkpointed { group: *group, index }));
                }
            }
            sweep(upkeep, engine)?;
            bytes += engine.stats().disk_bytes;
        }
        upkeep.sizes.state_bytes.store(bytes, Ordering::Relaxed);
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
        for engine in engines.values() {
            worked |= engine.compact()?;
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
