//! The threads of a node's host: the node's turns, the log, the state machine, the maintenance of the engine.
//!
//! As in the server: effects of a turn in their order, one write and one sync for all batches that wait, decided
//! commands in one atomic batch with the log position, checkpoints and the sweep beside all that.

use std::collections::{BTreeMap, BTreeSet};

use base::{Fault, Index, ReplicaId};
use mvcc::{Engine, EventKind, LeaseChange, OutcomeResult};
use node::{Effect, Event, PeerMessage, Ticket};
use storage::disk::is_full;
use storage::wal::Space;

use super::{Happening, World};
use crate::counters::Counter;
use crate::fault::FaultKind;
use crate::history::Told;
use crate::machine::{ApplyJob, GROUP, IoJob, Standing, decode_mark, encode_mark};
use crate::random::{between, percent};
use crate::report::FailureKind;

/// Commands in one batch of the engine at most.
const BATCH_TASKS_MAX: usize = 2048;
/// The log's upkeep comes when it was idle for so long.
const LOG_IDLE_US: u64 = 50_000;
/// Batches between two rounds of upkeep on a busy log.
const UPKEEP_EVERY: u32 = 64;
/// How long a node that was removed goes on, for the answers that are on their way.
const LAST_WORDS_US: u64 = 1_000_000;
/// One turn in so many is followed by a check of the whole node.
const CHECK_EVERY: u64 = 8;
/// One sync in so many is followed by an audit of the disk.
const AUDIT_EVERY: u64 = 48;
/// States are compared at one index in so many: members that came to differ go on differing.
const HASHED_EVERY: u64 = 4;

impl World<'_> {
    /// Something for the node to look at.
    pub(super) fn tell(&mut self, machine: usize, event: Event) {
        let life = self.machines[machine].life;
        let Some(process) = &mut self.machines[machine].process else { return };
        process.inbox.push(event);
        if !process.turn_scheduled {
            process.turn_scheduled = true;
            let delay = between(&mut self.chance.host, 2, 60);
            self.schedule.after(delay, Happening::Turn { machine, life });
        }
    }

    /// Word of what is applied: it waits for the next turn if the node does not wait for it, as in production.
    fn leave_word(&mut self, machine: usize, event: Event) {
        let Some(process) = &mut self.machines[machine].process else { return };
        if process.node.heeds_applied() {
            return self.tell(machine, event);
        }
        process.inbox.push(event);
    }

    pub(super) fn wake(&mut self, machine: usize, at: u64) {
        let now = self.machines[machine].clock.read(self.now());
        let Some(process) = &mut self.machines[machine].process else { return };
        if process.wake_at != at {
            return;
        }
        process.wake_at = u64::MAX;
        if process.node.next_deadline() <= now { self.turn(machine) } else { self.arm(machine) }
    }

    /// Sees to it that the node wakes up in time.
    fn arm(&mut self, machine: usize) {
        let now = self.now();
        let state = &mut self.machines[machine];
        let life = state.life;
        let Some(process) = &mut state.process else { return };
        let due = match state.clock.when(process.node.next_deadline()) {
            due if due > now => due,
            // After a turn nothing is overdue; should it be, time goes on all the same.
            _ => now + 50_000,
        };
        if due < process.wake_at {
            process.wake_at = due;
            self.schedule.at(due, Happening::Wake { machine, life, at: due });
        }
    }

    /// The clock changed its rate: the wake-up is computed anew.
    pub(super) fn rearm(&mut self, machine: usize) {
        if let Some(process) = &mut self.machines[machine].process {
            process.wake_at = u64::MAX;
        }
        self.arm(machine);
    }

    /// One turn of the node.
    pub(super) fn turn(&mut self, machine: usize) {
        self.counters.count(Counter::Turns);
        let world = self.now();
        let state = &mut self.machines[machine];
        let now = state.clock.read(world);
        let Some(process) = &mut state.process else { return };
        process.turn_scheduled = false;
        process.turns += 1;
        for event in std::mem::take(&mut process.inbox) {
            process.node.handle(now, event);
        }
        if process.node.next_deadline() <= now {
            process.node.handle(now, Event::Tick);
        }
        let effects = process.node.finish_turn(now);
        if process.turns.is_multiple_of(CHECK_EVERY) {
            process.node.check();
        }
        self.observe_members(machine);
        for effect in effects {
            if let Some((effects, down_us)) = &mut self.machines[machine].crash_in_turn {
                if *effects == 0 {
                    let down_us = *down_us;
                    self.had_effect(FaultKind::CrashInTurn);
                    let power = percent(&mut self.chance.crash, 60);
                    return self.crash(machine, power, Some(down_us));
                }
                *effects -= 1;
            }
            self.carry_out(machine, effect);
            if self.machines[machine].process.is_none() || self.failure.is_some() {
                return;
            }
        }
        self.observe(machine);
        self.arm(machine);
    }

    fn carry_out(&mut self, machine: usize, effect: Effect) {
        let at = self.now();
        match effect {
            Effect::Persist(lsn, batch) => {
                self.trace.note(at, 1 + 16 * machine as u64, || format!("n{} writes {lsn}", machine + 1));
                self.only_confirmed_leaders_end_leases(machine, &batch);
                let (cut, compacted) = self.machines[machine].ledger.issue(lsn, &batch);
                self.counters.add(Counter::Truncations, cut);
                self.counters.add(Counter::LogCompactions, compacted);
                if let Some(process) = &mut self.machines[machine].process {
                    process.log.queue.push_back((lsn, batch));
                }
                self.work_on_log(machine);
            }
            Effect::Send(to, message) => {
                if let PeerMessage::Group(message) = &message {
                    let state = &self.machines[machine];
                    let checked = state.ledger.check(message, state.checkpoint);
                    let checked = checked.map_err(|detail| format!("{} to {to} {detail}", state.id));
                    let leaves = self.oracle.confirmations.leaves(state.clock.read(at), message);
                    let leaves = leaves.map_err(|detail| format!("{} to {to} {detail}", state.id));
                    if self.judge(FailureKind::Durability, checked) == Some(true) {
                        self.counters.count(Counter::PromisesChecked);
                    }
                    self.judge(FailureKind::Agreement, leaves);
                }
                self.only_leaders_end_leases(machine, to, &message);
                self.send(machine, to, &message);
            }
            Effect::Apply { tasks, mark, .. } => {
                self.decide(machine, mark.position.index);
                if let Some(process) = &mut self.machines[machine].process {
                    process.apply.push_back(ApplyJob::Apply { tasks, mark });
                }
                self.work_on_apply(machine);
            }
            Effect::Reply(ticket, response) => self.reply(machine, ticket, &response),
            Effect::Load(_, request) => self.ask_io(machine, IoJob::Load(request)),
            Effect::SnapshotOpen(_, id) => self.ask_io(machine, IoJob::SnapshotOpen(id)),
            Effect::SnapshotRead(id) => self.ask_io(machine, IoJob::SnapshotRead(id)),
            Effect::SnapshotClose(id) => self.ask_io(machine, IoJob::SnapshotClose(id)),
            Effect::SnapshotWrite { id, sequence, chunk, .. } => {
                self.ask_io(machine, IoJob::SnapshotWrite { id, sequence, chunk });
            }
            Effect::SnapshotInstall { id, mark, .. } => self.ask_io(machine, IoJob::SnapshotInstall { id, mark }),
            Effect::SnapshotDiscard(id) => self.ask_io(machine, IoJob::SnapshotDiscard(id)),
        }
    }

    /// The node takes everything up to `until` for decided: is it?
    fn decide(&mut self, machine: usize, until: Index) {
        let Some(process) = &mut self.machines[machine].process else { return };
        let from = process.handed.next();
        process.handed = until;
        let ballot = process.node.status(GROUP).expect("the node has its group").ballot;
        let (machines, oracle) = (&self.machines, &mut self.oracle);
        let (node, log) = (machines[machine].id, &machines[machine].ledger.appended);
        let result = (from.0..=until.0).map(Index).try_for_each(|index| {
            let key = log.get(index).ok_or_else(|| format!("{node} applies {index}, which is not in its log"))?;
            let holds = |replica: ReplicaId| {
                machines.get(replica.0 as usize - 1).is_some_and(|machine| machine.held(index, key))
            };
            oracle.decide((node, ballot), index, key, holds).map(drop)
        });
        self.judge(FailureKind::Agreement, result);
    }

    /// Looks at the membership in effect, before anything is done that rests on it.
    fn observe_members(&mut self, machine: usize) {
        let life = self.machines[machine].life;
        let Some(process) = &mut self.machines[machine].process else { return };
        let Some(replica) = process.node.replica(GROUP) else { return };
        let membership = replica.membership();
        if process.membership != Some(membership.index) && !membership.voters.is_empty() {
            process.membership = Some(membership.index);
            let is_new = self.oracle.memberships.meet(membership);
            self.counters.add(Counter::JointMemberships, u64::from(is_new && membership.is_joint()));
        }
        if replica.is_removed() && !process.leaves {
            process.leaves = true;
            self.schedule.after(LAST_WORDS_US, Happening::StandDown { machine, life });
        }
    }

    /// The process has known for a while that it was removed.
    pub(super) fn stand_down(&mut self, machine: usize) {
        let fault = Fault::Refused(format!("{} was removed", self.machines[machine].id));
        self.stop(machine, &fault);
    }

    /// Looks at the role after a turn.
    fn observe(&mut self, machine: usize) {
        let now = self.now();
        let state = &mut self.machines[machine];
        let Some(process) = &mut state.process else { return };
        let Some(replica) = process.node.replica(GROUP) else { return };
        let leads = replica.is_leader();
        if leads == (process.led != base::Ballot::ZERO) {
            return;
        }
        let node = state.id;
        if !leads {
            process.led = base::Ballot::ZERO;
            self.timeline.stops_leading(node, now);
            self.trace.note(now, 2, || format!("{node} leads no more"));
            return;
        }
        let ballot = replica.status().ballot;
        process.led = ballot;
        let result = self.oracle.leads(node, ballot, &state.ledger.appended);
        self.timeline.leads(node, ballot, now);
        self.trace.note(now, 3, || format!("{node} leads {ballot}"));
        self.counters.count(Counter::Elections);
        self.judge(FailureKind::Agreement, result);
    }

    /// The process cannot go on.
    pub(super) fn stop(&mut self, machine: usize, fault: &Fault) {
        if self.machines[machine].disk.is_off() {
            // After the healing nobody says how long any more.
            let down_us = self.machines[machine].crash_on_disk.take().unwrap_or(100_000);
            self.had_effect(FaultKind::CrashOnDisk);
            return self.crash(machine, true, Some(down_us));
        }
        if !self.is_excused(machine, fault) {
            let node = self.machines[machine].id;
            return self.fail(FailureKind::Stopped, format!("{node} stops and nothing was done to it: {fault}"));
        }
        self.counters.count(Counter::Stopped);
        let now = self.now();
        let node = self.machines[machine].id;
        self.trace.note(now, 4, || format!("{node} stops: {fault}"));
        match fault {
            Fault::Io { .. } => {
                let kind = match fault {
                    _ if is_full(fault) => FaultKind::Full,
                    Fault::Io { operation: "write", .. } => FaultKind::WriteError,
                    _ => FaultKind::SyncError,
                };
                self.had_effect(kind);
                let power = percent(&mut self.chance.crash, 50);
                let down_us = between(&mut self.chance.crash, 200_000, 3_000_000);
                self.crash(machine, power, Some(down_us));
            }
            Fault::Refused(_) if self.machines[machine].wounds.removed => {
                self.crash(machine, false, None);
                self.counters.count(Counter::StoodDown);
                self.machines[machine].standing = Standing::Removed;
            }
            Fault::Corrupt { .. } | Fault::Refused(_) => {
                self.crash(machine, false, None);
                self.refuse(machine, fault.to_string());
            }
        }
    }

    fn work_on_log(&mut self, machine: usize) {
        let (low, high) = self.plan.shape.sync_us;
        let now = self.now();
        let state = &mut self.machines[machine];
        let life = state.life;
        let Some(process) = &mut state.process else { return };
        if process.log.taking > 0 || process.log.queue.is_empty() {
            return;
        }
        process.log.taking = process.log.queue.len();
        process.log.writing_since = now;
        let duration = between(&mut self.chance.host, low, high);
        self.schedule.after(duration, Happening::LogDone { machine, life });
    }

    pub(super) fn log_done(&mut self, machine: usize) {
        let Some(process) = &mut self.machines[machine].process else { return };
        let taking = std::mem::take(&mut process.log.taking);
        let batches: Vec<_> = process.log.queue.drain(..taking).collect();
        let appended = batches.iter().try_for_each(|(lsn, batch)| process.wal.append(*lsn, batch));
        let synced = appended.and_then(|()| process.wal.sync());
        let synced = match synced {
            Ok(synced) => synced,
            Err(fault) => return self.stop(machine, &fault),
        };
        process.log.since_upkeep += 1;
        let busy = process.log.since_upkeep >= UPKEEP_EVERY;
        let at = self.now();
        let lsn = *synced.get();
        self.trace.note(at, 5 + 16 * machine as u64, || format!("n{} has synced {lsn}", machine + 1));
        self.machines[machine].ledger.synced(lsn);
        self.counters.count(Counter::Syncs);
        if self.counters.get(Counter::Syncs).is_multiple_of(AUDIT_EVERY) {
            self.audit(machine);
        }
        self.tell(machine, Event::Persisted(synced));
        if busy {
            self.maintain_log(machine);
        }
        self.work_on_log(machine);
        self.schedule_upkeep(machine, LOG_IDLE_US);
    }

    /// Whether a crash right now would find everything that was promised.
    fn audit(&mut self, machine: usize) {
        let state = &self.machines[machine];
        // What a lying or damaged disk would give back is judged when the node starts from it.
        if state.wounds.lies || state.wounds.damage || state.disk.is_off() {
            return;
        }
        let result = state.audit(self.config, &self.plan.shape).map_err(|detail| format!("{}: {detail}", state.id));
        self.counters.count(Counter::Audits);
        self.judge(FailureKind::Recovery, result);
    }

    pub(super) fn schedule_upkeep(&mut self, machine: usize, delay: u64) {
        let life = self.machines[machine].life;
        let Some(process) = &mut self.machines[machine].process else { return };
        if process.log.since_upkeep > 0 && !process.log.upkeep_scheduled {
            process.log.upkeep_scheduled = true;
            self.schedule.after(delay, Happening::LogUpkeep { machine, life });
        }
    }

    pub(super) fn log_upkeep(&mut self, machine: usize) {
        let Some(process) = &mut self.machines[machine].process else { return };
        process.log.upkeep_scheduled = false;
        if process.log.taking > 0 {
            return self.schedule_upkeep(machine, LOG_IDLE_US);
        }
        if self.maintain_log(machine) {
            self.schedule_upkeep(machine, 300);
        }
    }

    /// One step of the log's upkeep; whether there is more to do.
    fn maintain_log(&mut self, machine: usize) -> bool {
        let Some(process) = &mut self.machines[machine].process else { return false };
        match process.wal.maintain() {
            Ok(more) => {
                if !more {
                    process.log.since_upkeep = 0;
                }
                if matches!(process.wal.space(), Space::Low { .. }) {
                    self.had_effect(FaultKind::Full);
                }
                more
            }
            Err(fault) => {
                self.stop(machine, &fault);
                false
            }
        }
    }

    pub(super) fn work_on_apply(&mut self, machine: usize) {
        let (low, high) = self.plan.shape.apply_us;
        let state = &mut self.machines[machine];
        let life = state.life;
        let Some(process) = &mut state.process else { return };
        if process.applying > 0 || process.apply.is_empty() {
            return;
        }
        let mut tasks = 0;
        let batch = process.apply.iter().take_while(|job| match job {
            ApplyJob::Apply { tasks: more, .. } => {
                tasks += more.len();
                tasks <= BATCH_TASKS_MAX
            }
            ApplyJob::Install { .. } => false,
        });
        process.applying = batch.count().max(1);
        let duration = between(&mut self.chance.host, low, high);
        self.schedule.after(duration, Happening::ApplyDone { machine, life });
    }

    pub(super) fn apply_done(&mut self, machine: usize) {
        let Some(process) = &mut self.machines[machine].process else { return };
        let jobs: Vec<_> = process.apply.drain(..std::mem::take(&mut process.applying)).collect();
        let (mut tasks, mut mark) = (Vec::new(), None);
        for job in jobs {
            match job {
                ApplyJob::Apply { tasks: more, mark: after } => {
                    tasks.extend(more);
                    mark = Some(after);
                }
                ApplyJob::Install { id, mark, rows } => {
                    self.install(machine, id, &mark, rows);
                    return self.work_on_apply(machine);
                }
            }
        }
        if let Some(mark) = mark
            && let Err(fault) = self.apply(machine, tasks, &mark)
        {
            return self.stop(machine, &fault);
        }
        self.work_on_apply(machine);
    }

    fn apply(&mut self, machine: usize, tasks: Vec<node::Task>, mark: &kernel::Mark) -> Result<(), Fault> {
        let state = &mut self.machines[machine];
        let Some(process) = &mut state.process else { return Ok(()) };
        let (index, now) = (mark.position.index, self.schedule.now());
        let before = mvcc::mark(&*state.engine.view())?.map(decode_mark).transpose()?.unwrap_or_default();
        let mut number = self.settled.number_after(before.position.index);
        let revision = process.state.state().revision;
        let mut apply = process.state.begin(state.engine.view())?;
        // Somebody may have begun to watch while the batch was being made.
        let is_kept = process.watches.is_wanted() && !percent(&mut self.chance.host, 2);
        // They tell which leases ended when.
        apply.keep_changes();
        let (mut leases, mut expired) = (Vec::new(), BTreeSet::new());
        let mut replies: Vec<(Ticket, Told)> = Vec::new();
        for task in tasks {
            let is_news = self.settled.is_news(number);
            let outcome = apply.command(&task.payload, is_news || task.reply.is_some())?;
            let changed = apply.take_lease_changes();
            if let Some(outcome) = outcome.clone().filter(|_| is_news) {
                let (revision, is_expiry) = (outcome.revision, matches!(outcome.result, OutcomeResult::LeaseExpire(_)));
                self.settled.add(now, task.payload, outcome);
                for change in changed.iter().filter(|_| is_expiry) {
                    if let LeaseChange::Gone(id) = change {
                        self.counters.count(Counter::LeasesExpired);
                        self.settled.ended(*id, revision);
                        expired.insert(*id);
                    }
                }
            }
            leases.extend(changed);
            number = number.map(|number| number + 1);
            replies.extend(task.reply.zip(outcome).map(|(ticket, outcome)| (ticket, Told::Outcome(outcome))));
        }
        let members_changed = apply.members_changed();
        let after = apply.state().revision;
        let (batch, changes) = apply.finish(encode_mark(mark));
        state.engine.write(batch)?;
        let mut ends = BTreeMap::new();
        for change in &changes {
            let lease = change.events.first().and_then(|event| event.prev_kv.as_ref()).map(|pair| pair.lease);
            let is_end = change.events.iter().all(|event| event.kind == EventKind::Delete);
            if let Some(lease) = lease.filter(|lease| is_end && expired.contains(lease)) {
                ends.insert(lease, change.revision);
            }
        }
        // The last one that deleted keys on it: whoever deletes them one by one does so before it ends.
        ends.into_iter().for_each(|(lease, revision)| self.settled.ended_at(lease, revision));
        if members_changed {
            state.directory.load(&*state.engine.view())?;
            self.follow_members(machine);
        }
        self.counters.count(Counter::Applies);
        if let Some(number) = number {
            self.settled.reached(index, number);
        }
        if let Some(down_us) = self.machines[machine].crash_in_apply.take() {
            self.had_effect(FaultKind::CrashInApply);
            if percent(&mut self.chance.crash, 50) {
                self.machines[machine].flush()?;
            }
            let power = percent(&mut self.chance.crash, 60);
            self.crash(machine, power, Some(down_us));
            return Ok(());
        }
        self.publish(machine, revision, after, is_kept.then_some(changes));
        let (at, node) = (self.now(), self.machines[machine].id);
        self.trace.note(at, 6 + 16 * machine as u64, || format!("{node} has applied {index}"));
        if index.0.is_multiple_of(HASHED_EVERY) {
            self.compare_state(machine, index)?;
        }
        for (ticket, told) in replies {
            self.answer(machine, ticket, told);
        }
        if !leases.is_empty() {
            self.leave_word(machine, Event::LeasesChanged { group: GROUP, changes: leases });
        }
        self.leave_word(machine, Event::Applied { group: GROUP, index });
        Ok(())
    }

    /// The same index must be the same state everywhere.
    pub(super) fn compare_state(&mut self, machine: usize, index: Index) -> Result<(), Fault> {
        let state = &self.machines[machine];
        let hash = match mvcc::hash(&*state.engine.view(), base::Revision(0)) {
            Ok(hash) => hash,
            Err(mvcc::range::ReadError::Fault(fault)) => return Err(fault),
            Err(mvcc::range::ReadError::Reject(reject)) => {
                self.fail(FailureKind::Agreement, format!("the present cannot be hashed: {reject}"));
                return Ok(());
            }
        };
        let node = state.id;
        self.trace.mix(u64::from(hash.hash));
        let result = self.oracle.applied(node, index, hash);
        if self.judge(FailureKind::Agreement, result) == Some(true) {
            self.counters.count(Counter::HashesCompared);
        }
        Ok(())
    }

    /// The engine's maintenance: flush, tell the node, sweep.
    pub(super) fn checkpoint(&mut self, machine: usize) {
        let (low, high) = self.plan.shape.checkpoint_us;
        let life = self.machines[machine].life;
        let before = self.machines[machine].checkpoint;
        match self.flush_and_sweep(machine) {
            Ok(index) if index > before => self.tell(machine, Event::Checkpointed { group: GROUP, index }),
            Ok(_) => {}
            Err(fault) => return self.stop(machine, &fault),
        }
        let pause = between(&mut self.chance.host, low, high);
        self.schedule.after(pause, Happening::Checkpoint { machine, life });
    }

    fn flush_and_sweep(&mut self, machine: usize) -> Result<Index, Fault> {
        let state = &mut self.machines[machine];
        let index = state.flush()?;
        let (at, node) = (self.schedule.now(), state.id);
        self.trace.note(at, 7 + 16 * machine as u64, || format!("{node} has flushed {index}"));
        self.counters.count(Counter::Checkpoints);
        // A few pieces at a time: batches are applied in between.
        for _ in 0..8 {
            let piece = mvcc::sweep(&*state.engine.view(), self.plan.shape.sweep_events)?;
            let done = piece.done;
            if !piece.batch.rows.is_empty() {
                state.engine.write(piece.batch)?;
                self.counters.count(Counter::Sweeps);
            }
            if done {
                break;
            }
        }
        Ok(index)
    }

    /// An engine of its own for what was received.
    pub(super) fn engine_from(rows: Vec<(bytes::Bytes, bytes::Bytes)>) -> Result<mvcc::MemEngine, Fault> {
        let engine = mvcc::MemEngine::new();
        engine.write(mvcc::Batch { rows: rows.into_iter().map(|(key, value)| (key, Some(value))).collect() })?;
        Ok(engine)
    }
}
