//! The state machine's thread: runs decided commands on the engine, in one atomic batch for all that is waiting, and
//! answers the clients that wait for them.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use base::{Fault, GroupId};
use storage::Pressure;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;

use crate::host::applier::{Applier, ApplyJob, Decided};
use crate::lane::Outbox;

/// Commands executed in one engine batch at most: bounds the overlay and the time until the first answer.
const BATCH_TASKS_MAX: usize = 2048;
/// How long apply pauses at a time while the engine's flushes catch up.
const STALL_PAUSE: Duration = Duration::from_millis(1);

pub(crate) struct ApplyThread {
    pub(crate) applier: Arc<Applier>,
    pub(crate) outbox: Outbox,
    pub(crate) stop: watch::Receiver<bool>,
}

impl ApplyThread {
    /// Runs until the jobs' sender is gone.
    pub(crate) fn run(mut self, jobs: &mut UnboundedReceiver<ApplyJob>) -> Result<(), Fault> {
        let mut next = None;
        while let Some(job) = next.take().or_else(|| jobs.blocking_recv()) {
            match job {
                ApplyJob::Apply(mut decided) => {
                    next = gather(&mut decided, jobs);
                    if self.wait_for_room(decided.group).is_break() {
                        // Not one command more: the next batch rests on this one. The log brings both back.
                        return Ok(());
                    }
                    self.applier.apply(decided, &mut self.outbox)?;
                }
                ApplyJob::Install { group, id, built } => self.applier.install(group, id, built)?,
            }
        }
        Ok(())
    }

    /// Waits while the engine's flushes catch up; breaks off if the node stops, since nobody may be left to flush.
    fn wait_for_room(&self, group: GroupId) -> ControlFlow<()> {
        while self.applier.pressure(group) == Pressure::Full {
            if *self.stop.borrow() {
                return ControlFlow::Break(());
            }
            self.applier.wake_upkeep();
            std::thread::sleep(STALL_PAUSE);
        }
        ControlFlow::Continue(())
    }
}

/// Adds what else waits for the same group. Returns what came after that, if anything did.
fn gather(decided: &mut Decided, jobs: &mut UnboundedReceiver<ApplyJob>) -> Option<ApplyJob> {
    while decided.tasks.len() < BATCH_TASKS_MAX {
        match jobs.try_recv() {
            Ok(ApplyJob::Apply(more)) if more.group == decided.group => {
                decided.tasks.extend(more.tasks);
                decided.mark = more.mark;
            }
            other => return other.ok(),
        }
    }
    None
}
