//! The state machine's thread: runs decided commands on the engine, in one atomic batch for all that is waiting, and
//! answers the clients that wait for them.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use base::{Fault, GroupId, Revision};
use kernel::Mark;
use mvcc::{Engine, Machine};
use node::{Event, SnapshotId, Task};
use storage::{Built, LsmEngine, Pressure};

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

use crate::host::maintenance::Upkeep;
use crate::lane::{Answer, Outbox};
use crate::members::Directory;
use crate::metrics::Metrics;
use crate::space::Space;
use crate::waits::KeyWaits;
use crate::watch::Feed;

/// What the apply thread is asked.
pub(crate) enum ApplyJob {
    /// Run these commands; the mark is the position after them.
    Apply { group: GroupId, tasks: Vec<Task>, mark: Mark },
    /// Make a received snapshot the group's state. Runs after everything handed out before it.
    Install { group: GroupId, id: SnapshotId, built: Built },
}

/// Commands executed in one engine batch at most: bounds the overlay and the time until the first answer.
const BATCH_TASKS_MAX: usize = 2048;
/// How long apply pauses at a time while the engine's flushes catch up.
const STALL_PAUSE: Duration = Duration::from_millis(1);

pub(crate) struct ApplyThread {
    pub(crate) engines: BTreeMap<GroupId, Arc<LsmEngine>>,
    pub(crate) node: UnboundedSender<Vec<Event>>,
    pub(crate) outbox: Outbox,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) upkeep: Arc<Upkeep>,
    pub(crate) key_waits: Arc<KeyWaits>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) space: Arc<Space>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) stop: watch::Receiver<bool>,
}

/// Commands of one group gathered for one engine batch.
struct Gathered {
    group: GroupId,
    tasks: Vec<Task>,
    mark: Mark,
}

impl ApplyThread {
    /// Runs until the jobs' sender is gone.
    pub(crate) fn run(mut self, jobs: &Receiver<ApplyJob>) -> Result<(), Fault> {
        let mut machines = BTreeMap::new();
        for (group, engine) in &self.engines {
            let machine = Machine::open(&**engine)?;
            self.space.alarmed(machine.alarms());
            machines.insert(*group, machine);
        }
        let mut next = None;
        while let Some(job) = next.take().or_else(|| jobs.recv().ok()) {
            match job {
                ApplyJob::Apply { group, tasks, mark } => {
                    let mut gathered = Gathered { group, tasks, mark };
                    while gathered.tasks.len() < BATCH_TASKS_MAX {
                        match jobs.try_recv() {
                            Ok(ApplyJob::Apply { group, tasks, mark }) if group == gathered.group => {
                                gathered.tasks.extend(tasks);
                                gathered.mark = mark;
                            }
                            Ok(other) => {
                                next = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    let machine = machines.get_mut(&group).expect("every group has a machine");
                    if self.wait_for_room(gathered.group).is_break() {
                        // Not one command more: the next batch rests on this one. The log brings both back.
                        return Ok(());
                    }
                    self.apply(machine, gathered)?;
                }
                ApplyJob::Install { group, id, built } => {
                    let engine = &self.engines[&group];
                    engine.install(built)?;
                    let machine = Machine::open(&**engine)?;
                    let leases = mvcc::leases(&*engine.view())?;
                    // What happened on the way there is in the history that came along.
                    self.feed.publish(Revision::default(), machine.state().revision, None);
                    self.key_waits.anything();
                    self.space.alarmed(machine.alarms());
                    self.directory.load(mvcc::members(&*engine.view())?);
                    machines.insert(group, machine);
                    self.tell(Event::LeasesLoaded { group, leases });
                    self.tell(Event::SnapshotInstalled { id });
                }
            }
        }
        Ok(())
    }

    /// Waits while the engine's flushes catch up; breaks off if the node stops, since nobody may be left to flush.
    fn wait_for_room(&self, group: GroupId) -> ControlFlow<()> {
        while self.engines[&group].write_stall() == Pressure::Full {
            if *self.stop.borrow() {
                return ControlFlow::Break(());
            }
            self.upkeep.wake();
            std::thread::sleep(STALL_PAUSE);
        }
        ControlFlow::Continue(())
    }

    fn apply(&mut self, machine: &mut Machine, gathered: Gathered) -> Result<(), Fault> {
        let engine = &self.engines[&gathered.group];
        let started = Instant::now();
        let count = gathered.tasks.len();
        let index = gathered.mark.position.index;
        let mut encoded = Vec::new();
        kernel::wire::encode_mark(&gathered.mark, &mut encoded);
        let before = machine.state().revision;
        let mut apply = machine.begin(engine.view())?;
        let waited_for = self.key_waits.any();
        let is_kept = waited_for || self.feed.is_wanted();
        if is_kept {
            apply.keep_changes();
        }
        let mut replies = Vec::new();
        for task in gathered.tasks {
            let outcome = apply.command(&task.payload, task.reply.is_some())?;
            replies.extend(task.reply.zip(outcome));
        }
        let (after, compacted) = (apply.state().revision, apply.state().compacted);
        let leases = apply.take_lease_changes();
        let members_changed = apply.members_changed();
        let (batch, changes) = apply.finish(encoded.into());
        engine.write(batch)?;
        match waited_for {
            true => self.key_waits.changed(&changes),
            // They came while the batch was being made, and may have looked before it was written.
            false if self.key_waits.any() => self.key_waits.anything(),
            false => {}
        }
        self.feed.publish(before, after, is_kept.then_some(changes));
        self.space.alarmed(machine.alarms());
        if members_changed {
            self.directory.load(mvcc::members(&*engine.view())?);
            // A start needs the addresses before it can replay what the others have.
            self.upkeep.flush();
        }
        self.metrics.engine_write.observe(started.elapsed());
        self.metrics.proposals_committed.add(count as u64);
        self.upkeep.compacted(compacted);

        for (ticket, outcome) in replies {
            self.outbox.push(ticket, Answer::Applied(outcome));
        }
        self.outbox.flush();
        if !leases.is_empty() {
            self.tell(Event::LeasesChanged { group: gathered.group, changes: leases });
        }
        self.tell(Event::Applied { group: gathered.group, index });
        if engine.wants_upkeep() {
            self.upkeep.wake();
        }
        Ok(())
    }

    fn tell(&self, event: Event) {
        // The node thread is gone only while the process stops.
        drop(self.node.send(vec![event]));
    }
}
