//! The node's thread: collects events, lets the node take its turn, carries out the effects.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use base::{Fault, Instant};
use node::{Effect, Event, Node};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tracing::info;

use crate::clock;
use crate::gateway::GROUP;
use crate::host::applier::{ApplyHand, Decided};
use crate::host::io_thread::IoJob;
use crate::host::log::{Batch, LogWriter};
use crate::host::timer::Timer;
use crate::host::word::Word;
use crate::lane::{Answer, Outbox};
use crate::metrics::Metrics;
use crate::peer::transport::{Inbox, Transport};
use crate::standing::StandingCell;

/// How long a member that was removed goes on, for the answers that are on their way.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// With so many events a turn begins, whatever else is waiting.
const EVENTS_PER_TURN_MAX: usize = 4096;

/// After this long at the disk, what peers said meanwhile is heard before it is judged who has fallen silent.
const ABSENCE_MAX: Duration = Duration::from_millis(20);

pub(crate) struct NodeThread {
    pub(crate) node: Node,
    pub(crate) events: UnboundedReceiver<Vec<Event>>,
    pub(crate) inbox: Rc<Inbox>,
    pub(crate) transport: Transport,
    pub(crate) log: LogWriter,
    /// The turn's records, not yet on disk.
    pub(crate) unwritten: Vec<Batch>,
    pub(crate) apply: ApplyHand,
    pub(crate) applied: Arc<Word>,
    pub(crate) io: Sender<IoJob>,
    pub(crate) outbox: Outbox,
    pub(crate) standing: Arc<StandingCell>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stop: watch::Receiver<bool>,
    /// Since when this node knows that it is no member any more.
    pub(crate) removed: Option<Instant>,
}

impl NodeThread {
    /// Runs until the node is told to stop.
    pub(crate) async fn run(mut self) -> Result<(), Fault> {
        let mut timer = Timer::new()?;
        let mut events = Vec::new();
        loop {
            let mut first = Vec::new();
            if events.is_empty() {
                timer.set(self.node.next_deadline())?;
                tokio::select! {
                    biased;
                    _ = self.stop.changed() => return Ok(()),
                    () = self.inbox.arrived() => {}
                    taken = self.events.recv() => match taken {
                        Some(batch) => first = batch,
                        None => return Ok(()),
                    },
                    rung = timer.rung() => rung?,
                }
            } else if *self.stop.borrow() {
                return Ok(());
            }
            self.collect(&mut events, first);
            self.turn(&mut events)?;
            self.end_turn(&mut events).await?;
        }
    }

    /// Takes everything that waits as one turn; what is applied first, since the rest may ask for it.
    fn collect(&mut self, events: &mut Vec<Event>, first: Vec<Event>) {
        self.applied.take(events);
        self.inbox.drain(events);
        events.extend(first);
        while events.len() < EVENTS_PER_TURN_MAX
            && let Ok(batch) = self.events.try_recv()
        {
            events.extend(batch);
        }
    }

    /// What the turn leaves to do for this thread, if the disk is quick: to run a small command, to write the log.
    async fn end_turn(&mut self, events: &mut Vec<Event>) -> Result<(), Fault> {
        if self.unwritten.is_empty() && !self.apply.has_small() {
            return Ok(());
        }
        // The messages of the turn leave first: the others do the same at the same time.
        tokio::task::yield_now().await;
        let begun = clock::now();
        self.apply.run_small(&mut self.outbox)?;
        if !self.unwritten.is_empty() {
            let batches = std::mem::take(&mut self.unwritten);
            events.extend(self.log.write(batches)?.map(Event::Persisted));
        }
        if clock::now().since(begun) > ABSENCE_MAX {
            // Before the clock is looked at again, what the others said meanwhile: once for the runtime to see that
            // there is something to read, once for it to be read.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn turn(&mut self, events: &mut Vec<Event>) -> Result<(), Fault> {
        let now = clock::now();
        for event in events.drain(..) {
            match &event {
                Event::Persisted(lsn) => self.log.written(*lsn.get()),
                Event::Applied { group, index } => self.apply.applied(*group, *index),
                _ => {}
            }
            self.node.handle(now, event);
        }
        if self.node.next_deadline() <= now {
            self.node.handle(now, Event::Tick);
        }
        let effects = self.node.finish_turn(now);
        for effect in effects {
            self.carry_out(effect);
        }
        self.transport.flush();
        self.outbox.flush();
        self.transport.follow_members();
        self.applied.heed(self.node.heeds_applied(), events);
        self.publish(now)
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Persist(lsn, records) => self.unwritten.push(Batch { lsn, records }),
            Effect::Send(to, message) => self.transport.send(to, &message),
            Effect::Apply { group, tasks, mark } => {
                self.apply.take(Decided { group, tasks, mark }, self.log.is_quick());
            }
            Effect::Reply(ticket, response) => self.outbox.push(ticket, Answer::Node(response)),
            Effect::Load(group, request) => hand_over(&self.io, IoJob::Load(group, request)),
            Effect::SnapshotOpen(group, id) => hand_over(&self.io, IoJob::SnapshotOpen(group, id)),
            Effect::SnapshotRead(id) => hand_over(&self.io, IoJob::SnapshotRead(id)),
            Effect::SnapshotClose(id) => hand_over(&self.io, IoJob::SnapshotClose(id)),
            Effect::SnapshotWrite { group, id, sequence, chunk } => {
                hand_over(&self.io, IoJob::SnapshotWrite { group, id, sequence, chunk });
            }
            Effect::SnapshotInstall { group, id, mark } => {
                hand_over(&self.io, IoJob::SnapshotInstall { group, id, mark });
            }
            Effect::SnapshotDiscard(id) => hand_over(&self.io, IoJob::SnapshotDiscard(id)),
        }
    }

    fn publish(&mut self, now: Instant) -> Result<(), Fault> {
        let Some(status) = self.node.status(GROUP) else { return Ok(()) };
        let before = self.standing.look(|before| (before.leader, before.ballot, before.role));
        if before.0 != status.leader || before.1 != status.ballot {
            if status.leader.is_some() && before.0 != status.leader {
                self.metrics.leader_changes.add(1);
            }
            info!(role = ?status.role, ballot = %status.ballot, leader = ?status.leader, "leadership");
        }
        let removed = status.removed.map(|_| *self.removed.get_or_insert(now));
        self.standing.publish(status);
        if removed.is_some_and(|since| now.since(since) >= LAST_WORDS) {
            return Err(Fault::Refused(String::from(
                "this member was removed from the cluster; to take this machine in again: `sinew member add`, then \
                 start it with an empty data directory and --initial-cluster-state existing",
            )));
        }
        Ok(())
    }
}

/// The receiving thread is gone only when it failed, which stops the node, or while the process stops.
fn hand_over<T>(to: &Sender<T>, job: T) {
    drop(to.send(job));
}
