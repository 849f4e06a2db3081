//! The state machines on their engines, and who is told what they did. The apply thread runs them; a command that costs
//! little may be run by the node thread, see `ApplyHand`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Instant;

use base::{Fault, GroupId, Index, Revision};
use kernel::Mark;
use mvcc::{Command, Engine, Machine};
use node::{Event, SnapshotId, Task};
use storage::{Built, LsmEngine, Pressure};
use tokio::sync::mpsc::UnboundedSender;

use crate::host::maintenance::Upkeep;
use crate::host::word::Word;
use crate::lane::{Answer, Outbox};
use crate::members::Directory;
use crate::metrics::Metrics;
use crate::space::Space;
use crate::waits::KeyWaits;
use crate::watch::Feed;

/// A command for the node thread is not longer than this.
const SMALL_BYTES_MAX: usize = 4096;

/// Decided commands of one group, and its position after them.
pub(crate) struct Decided {
    pub(crate) group: GroupId,
    pub(crate) tasks: Vec<Task>,
    pub(crate) mark: Mark,
}

impl Decided {
    /// Whether it costs little, whatever the store holds.
    fn is_small(&self) -> bool {
        match &self.tasks[..] {
            [] => true,
            [task] if task.payload.len() <= SMALL_BYTES_MAX => {
                Command::decode(task.payload.clone()).is_ok_and(|command| command.is_point())
            }
            _ => false,
        }
    }
}

/// What the apply thread is asked.
pub(crate) enum ApplyJob {
    /// Run these commands.
    Apply(Decided),
    /// Make a received snapshot the group's state. Runs after everything handed out before it.
    Install { group: GroupId, id: SnapshotId, built: Built },
}

/// What the state machines need, and whom they tell.
pub(crate) struct Surroundings {
    pub(crate) engines: BTreeMap<GroupId, Arc<LsmEngine>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) upkeep: Arc<Upkeep>,
    pub(crate) key_waits: Arc<KeyWaits>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) space: Arc<Space>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) word: Arc<Word>,
}

/// The state machines of a node.
pub(crate) struct Applier {
    around: Surroundings,
    machines: Mutex<BTreeMap<GroupId, Machine>>,
}

type Machines<'a> = MutexGuard<'a, BTreeMap<GroupId, Machine>>;

impl Applier {
    /// The machines of all groups, as their engines have them.
    pub(crate) fn open(around: Surroundings) -> Result<Self, Fault> {
        let mut machines = BTreeMap::new();
        for (group, engine) in &around.engines {
            let machine = Machine::open(&**engine)?;
            around.space.alarmed(machine.alarms());
            machines.insert(*group, machine);
        }
        Ok(Self { around, machines: Mutex::new(machines) })
    }

    /// How far the group's engine is behind with its upkeep.
    pub(crate) fn pressure(&self, group: GroupId) -> Pressure {
        self.around.engines[&group].write_stall()
    }

    /// Has the engines looked after.
    pub(crate) fn wake_upkeep(&self) {
        self.around.upkeep.wake();
    }

    /// Runs the commands in one atomic batch and answers the clients that wait for them.
    pub(crate) fn apply(&self, decided: Decided, outbox: &mut Outbox) -> Result<(), Fault> {
        self.apply_on(&mut self.lock(), decided, outbox)
    }

    /// Makes a received snapshot the group's state.
    pub(crate) fn install(&self, group: GroupId, id: SnapshotId, built: Built) -> Result<(), Fault> {
        let engine = &self.around.engines[&group];
        let mut machines = self.lock();
        engine.install(built)?;
        let machine = Machine::open(&**engine)?;
        let leases = mvcc::leases(&*engine.view())?;
        // What happened on the way there is in the history that came along.
        self.around.feed.publish(Revision::default(), machine.state().revision, None);
        self.around.key_waits.anything();
        self.around.space.alarmed(machine.alarms());
        self.around.directory.load(mvcc::members(&*engine.view())?);
        machines.insert(group, machine);
        self.around.word.tell([Event::LeasesLoaded { group, leases }, Event::SnapshotInstalled { id }]);
        Ok(())
    }

    fn apply_on(&self, machines: &mut Machines<'_>, decided: Decided, outbox: &mut Outbox) -> Result<(), Fault> {
        let Decided { group, tasks, mark } = decided;
        let machine = machines.get_mut(&group).expect("every group has a machine");
        let engine = &self.around.engines[&group];
        let started = Instant::now();
        let count = tasks.len();
        let index = mark.position.index;
        let mut encoded = Vec::new();
        kernel::wire::encode_mark(&mark, &mut encoded);
        let before = machine.state().revision;
        let mut apply = machine.begin(engine.view())?;
        let waited_for = self.around.key_waits.any();
        let is_kept = waited_for || self.around.feed.is_wanted();
        if is_kept {
            apply.keep_changes();
        }
        let mut replies = Vec::new();
        for task in tasks {
            let outcome = apply.command(&task.payload, task.reply.is_some())?;
            replies.extend(task.reply.zip(outcome));
        }
        let (after, compacted) = (apply.state().revision, apply.state().compacted);
        let leases = apply.take_lease_changes();
        let members_changed = apply.members_changed();
        let (batch, changes) = apply.finish(encoded.into());
        engine.write(batch)?;
        match waited_for {
            true => self.around.key_waits.changed(&changes),
            // They came while the batch was being made, and may have looked before it was written.
            false if self.around.key_waits.any() => self.around.key_waits.anything(),
            false => {}
        }
        self.around.feed.publish(before, after, is_kept.then_some(changes));
        self.around.space.alarmed(machine.alarms());
        if members_changed {
            self.around.directory.load(mvcc::members(&*engine.view())?);
            // A start needs the addresses before it can replay what the others have.
            self.around.upkeep.flush();
        }
        self.around.metrics.engine_write.observe(started.elapsed());
        self.around.metrics.proposals_committed.add(count as u64);
        self.around.upkeep.compacted(compacted);

        for (ticket, outcome) in replies {
            outbox.push(ticket, Answer::Applied(outcome));
        }
        outbox.flush();
        let changed = (!leases.is_empty()).then_some(Event::LeasesChanged { group, changes: leases });
        self.around.word.leave(changed.into_iter().chain([Event::Applied { group, index }]));
        if engine.wants_upkeep() {
            self.around.upkeep.wake();
        }
        Ok(())
    }

    fn lock(&self) -> Machines<'_> {
        // A panic stops the node.
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was decided, in its order: what is for the node thread, what for the apply thread.
///
/// Invariant: the commands of a group run in the order in which they were decided.
#[derive(Default)]
struct Order {
    /// The last positions that the apply thread was given and has not reported.
    handed: BTreeMap<GroupId, Index>,
    /// For the node thread.
    small: Option<Decided>,
}

impl Order {
    /// Takes in what was decided; returns what is for the apply thread now.
    fn take(&mut self, decided: Decided, may_wait: bool) -> Vec<Decided> {
        let is_next = self.small.is_none() && !self.handed.contains_key(&decided.group);
        if is_next && may_wait && decided.is_small() {
            self.small = Some(decided);
            return Vec::new();
        }
        let before = self.small.take();
        let given: Vec<_> = before.into_iter().chain([decided]).collect();
        given.iter().for_each(|decided| self.give(decided));
        given
    }

    /// This goes to the apply thread.
    fn give(&mut self, decided: &Decided) {
        self.handed.insert(decided.group, decided.mark.position.index);
    }

    fn applied(&mut self, group: GroupId, index: Index) {
        if self.handed.get(&group).is_some_and(|handed| *handed <= index) {
            self.handed.remove(&group);
        }
    }
}

/// The node thread's way to have commands run. One that is alone and costs little it runs itself while the disk is
/// quick: to wake the apply thread for it would take longer.
pub(crate) struct ApplyHand {
    applier: Arc<Applier>,
    thread: UnboundedSender<ApplyJob>,
    order: Order,
}

impl ApplyHand {
    pub(crate) fn new(applier: Arc<Applier>, thread: UnboundedSender<ApplyJob>) -> Self {
        Self { applier, thread, order: Order::default() }
    }

    /// Takes in what the node wants to have run.
    pub(crate) fn take(&mut self, decided: Decided, disk_is_quick: bool) {
        for given in self.order.take(decided, disk_is_quick) {
            self.hand_over(given);
        }
    }

    /// Whether something is to be run here.
    pub(crate) fn has_small(&self) -> bool {
        self.order.small.is_some()
    }

    /// Runs it, unless it would have to wait for something.
    pub(crate) fn run_small(&mut self, outbox: &mut Outbox) -> Result<(), Fault> {
        let Some(decided) = self.order.small.take() else { return Ok(()) };
        let machines = match self.applier.machines.try_lock() {
            Ok(machines) => Some(machines),
            Err(TryLockError::Poisoned(machines)) => Some(machines.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        match machines {
            Some(mut machines) if self.applier.pressure(decided.group) == Pressure::None => {
                self.applier.apply_on(&mut machines, decided, outbox)
            }
            _ => {
                self.order.give(&decided);
                self.hand_over(decided);
                Ok(())
            }
        }
    }

    /// The group is at this position.
    pub(crate) fn applied(&mut self, group: GroupId, index: Index) {
        self.order.applied(group, index);
    }

    fn hand_over(&self, decided: Decided) {
        // The thread is gone only when it failed, which stops the node, or while the process stops.
        drop(self.thread.send(ApplyJob::Apply(decided)));
    }
}

#[cfg(test)]
mod tests {
    use base::LeaseId;
    use mvcc::{DeleteRange, Put};

    use super::*;

    fn task(command: &Command) -> Task {
        Task { payload: command.encode(), reply: None }
    }

    fn put(value_bytes: usize) -> Task {
        task(&Command::Put(Put { key: b"k".as_slice().into(), value: vec![0; value_bytes].into(), ..Put::default() }))
    }

    fn decided(group: u64, index: u64, tasks: Vec<Task>) -> Decided {
        let mut mark = Mark::default();
        mark.position.index = Index(index);
        Decided { group: GroupId(group), tasks, mark }
    }

    fn indexes(given: Vec<Decided>) -> Vec<u64> {
        given.into_iter().map(|decided| decided.mark.position.index.0).collect()
    }

    #[test]
    fn only_a_single_command_that_costs_little_is_for_the_node_thread() {
        let range = DeleteRange { key: b"a".as_slice().into(), range_end: b"z".as_slice().into(), prev_kv: false };
        let grant = mvcc::LeaseGrant { id: LeaseId(1), ttl_s: 60 };
        for (tasks, small) in [
            (vec![], true),
            (vec![put(100)], true),
            (vec![task(&Command::LeaseGrant(grant))], true),
            (vec![put(100), put(100)], false),
            (vec![put(SMALL_BYTES_MAX)], false),
            (vec![task(&Command::DeleteRange(range))], false),
            (vec![Task { payload: b"nonsense".as_slice().into(), reply: None }], false),
        ] {
            let mut order = Order::default();
            let given = order.take(decided(0, 1, tasks), true);
            assert_eq!((given.is_empty(), order.small.is_some()), (small, small));
        }
        assert_eq!(indexes(Order::default().take(decided(0, 1, vec![put(1)]), false)), [1], "the disk is slow");
    }

    #[test]
    fn commands_of_a_group_run_in_the_order_of_their_decision() {
        let mut order = Order::default();
        assert!(order.take(decided(0, 5, vec![put(1)]), true).is_empty());
        // In the same turn: what was kept goes first.
        assert_eq!(indexes(order.take(decided(0, 6, vec![put(1)]), true)), [5, 6]);
        assert_eq!(indexes(order.take(decided(0, 7, vec![put(1)]), true)), [7], "6 is not done yet");
        assert!(order.take(decided(1, 3, vec![put(1)]), true).is_empty(), "another group waits for nobody");
        order.small = None;
        order.applied(GroupId(0), Index(6));
        assert_eq!(indexes(order.take(decided(0, 8, vec![put(1)]), true)), [8]);
        order.applied(GroupId(0), Index(8));
        assert!(order.take(decided(0, 9, vec![put(1)]), true).is_empty());
    }
}
