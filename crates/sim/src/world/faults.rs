//! What goes wrong, and how it ends.

use base::{Fault as NodeFault, Index, NodeId};
use mvcc::MemEngine;
use node::{Event, Request, Ticket};
use storage::disk::WriteFault;
use storage::{Disk, MemDisk};

use super::clients::{Call, Caller};
use super::operator::Wish;
use super::{Happening, START_US, World};
use crate::counters::Counter;
use crate::fault::{Fault, FaultKind};
use crate::machine::{GROUP, Standing, StartError, Wounds};
use crate::plan::WARM_UP_US;
use crate::random::{between, percent, pick, stream};
use crate::report::FailureKind;

/// Bytes of a block of the disk.
const BLOCK: usize = 4096;
/// Where a log segment's frames begin with.
const FRAME_MAGIC: &[u8] = b"SWL1";

impl World<'_> {
    pub(super) fn begin_fault(&mut self, number: usize) {
        let plan = self.plan;
        let fault = &plan.faults[number].fault;
        let at = self.now();
        if self.healed {
            return;
        }
        self.trace.note(at, 20, || format!("*** {fault}"));
        self.timeline.fault(at, fault);
        match fault {
            Fault::Crash { node, power, down_us } => self.crash_of(*node, *power, *down_us),
            Fault::CrashInTurn { node, effects, down_us } => {
                let place = self.place(*node);
                self.machines[place].crash_in_turn = Some((*effects, *down_us));
            }
            Fault::CrashInApply { node, down_us } => {
                let place = self.place(*node);
                self.machines[place].crash_in_apply = Some(*down_us);
            }
            Fault::CrashOnDisk { node, operations, down_us } => {
                let place = self.place(*node);
                let machine = &mut self.machines[place];
                if machine.process.is_some() {
                    machine.crash_on_disk = Some(*down_us);
                    machine.disk.power_off_after(*operations);
                }
            }
            Fault::CrashAll { power, down_us } => {
                for place in 0..self.machines.len() {
                    let later = between(&mut self.chance.crash, 0, 2_000_000);
                    if self.machines[place].process.is_some() {
                        self.had_effect(FaultKind::CrashAll);
                        self.crash(place, *power, Some(down_us + later));
                    }
                }
            }
            Fault::Lose { node } => self.lose(*node),
            Fault::Wipe { node, down_us } => self.wipe(*node, *down_us),
            Fault::Pause { node, for_us } => {
                let place = self.place(*node);
                let machine = &mut self.machines[place];
                machine.paused_until = machine.paused_until.max(at + for_us);
                if machine.process.is_some() {
                    self.had_effect(FaultKind::Pause);
                    self.timeline.pauses(*node, at, at + for_us);
                }
                self.schedule.after(*for_us, Happening::FaultEnds(number));
            }
            Fault::ClockRate { node, ppm, for_us } => {
                let place = self.place(*node);
                self.machines[place].clock.set_rate(at, *ppm);
                self.had_effect(FaultKind::ClockRate);
                self.schedule.after(*for_us, Happening::FaultEnds(number));
            }
            Fault::ClockJump { node, by_us } => {
                let place = self.place(*node);
                self.machines[place].clock.move_wall(*by_us);
                self.had_effect(FaultKind::ClockJump);
                self.rearm(place);
            }
            Fault::Stall { node, for_us } => {
                let place = self.place(*node);
                let machine = &mut self.machines[place];
                machine.stalled_until = machine.stalled_until.max(at + for_us);
                if machine.process.is_some() {
                    self.had_effect(FaultKind::Stall);
                    self.timeline.stalls(*node, at, at + for_us);
                }
                self.schedule.after(*for_us, Happening::FaultEnds(number));
            }
            Fault::Transfer { to } => self.ask_for_handover(*to),
            Fault::Join { node } => self.operator.wish(Wish::Add(*node), FaultKind::Join),
            Fault::Leave { node } => self.leave(*node),
            Fault::Replace { node, by, down_us } => self.replace(*node, *by, *down_us),
            Fault::Deafen { for_us } => self.deafen(number, *for_us),
            Fault::Cut { .. } | Fault::Clog { .. } | Fault::Weather { .. } | Fault::Replay { .. } => {
                self.begin_on_links(number, fault);
            }
            Fault::SyncError { .. }
            | Fault::WriteError { .. }
            | Fault::LostWrite { .. }
            | Fault::MisdirectedWrite { .. }
            | Fault::Rot { .. }
            | Fault::Full { .. } => self.begin_on_disk(number, fault),
        }
    }

    pub(super) fn end_fault(&mut self, number: usize) {
        let plan = self.plan;
        let at = self.now();
        match &plan.faults[number].fault {
            Fault::ClockRate { node, .. } => {
                let place = self.place(*node);
                self.machines[place].clock.set_rate(at, 0);
                // A wake-up that was computed with the old rate may come late.
                self.rearm(place);
            }
            Fault::Cut { .. } | Fault::Clog { .. } | Fault::Weather { .. } | Fault::Deafen { .. } => {
                self.end_on_links(number);
            }
            Fault::Full { node, .. } => {
                let place = self.place(*node);
                self.machines[place].disk.set_capacity(None);
            }
            Fault::Pause { node, .. } | Fault::Stall { node, .. } => {
                let place = self.place(*node);
                self.resume(place);
            }
            _ => {}
        }
    }

    fn begin_on_disk(&mut self, number: usize, fault: &Fault) {
        match *fault {
            Fault::SyncError { node, nth } => {
                let place = self.place(node);
                self.machines[place].wounds.errors = true;
                self.machines[place].disk.fault_sync(nth);
            }
            Fault::WriteError { node, nth } => {
                let place = self.place(node);
                self.machines[place].wounds.errors = true;
                self.machines[place].disk.fault_write(nth, WriteFault::Error);
            }
            Fault::LostWrite { node, nth } => {
                let place = self.place(node);
                self.machines[place].wounds.lies = true;
                self.machines[place].disk.fault_write(nth, WriteFault::Lost);
                self.had_effect(FaultKind::LostWrite);
            }
            Fault::MisdirectedWrite { node, nth, block } => {
                let place = self.place(node);
                self.machines[place].wounds.lies = true;
                let offset = block * BLOCK as u64;
                self.machines[place].disk.fault_write(nth, WriteFault::Misdirected { offset });
                self.had_effect(FaultKind::MisdirectedWrite);
            }
            Fault::Rot { node, seed } => {
                let place = self.place(node);
                if rot(&self.machines[place].disk, seed) {
                    self.machines[place].wounds.damage = true;
                    self.had_effect(FaultKind::Rot);
                }
            }
            Fault::Full { node, spare_bytes, for_us } => {
                let place = self.place(node);
                self.machines[place].wounds.errors = true;
                let used = self.machines[place].disk.used();
                self.machines[place].disk.set_capacity(Some(used + spare_bytes));
                self.schedule.after(for_us, Happening::FaultEnds(number));
            }
            _ => unreachable!("{fault} is no fault of a disk"),
        }
    }

    fn crash_of(&mut self, node: NodeId, power: bool, down_us: u64) {
        let place = self.place(node);
        if self.machines[place].process.is_some() {
            self.had_effect(FaultKind::Crash);
            self.crash(place, power, Some(down_us));
        }
    }

    /// The process dies; with `power` the machine does. It starts again after `down_us`, if given.
    pub(super) fn crash(&mut self, machine: usize, power: bool, down_us: Option<u64>) {
        let now = self.now();
        let state = &mut self.machines[machine];
        let Some(process) = state.process.take() else { return };
        let node = state.id;
        self.trace
            .note(now, 21 + u64::from(power), || format!("{node} {}", if power { "loses power" } else { "dies" }));
        // A write that was under way may have come any part of the way.
        let mut process = process;
        if process.log.taking > 0 && !state.disk.is_off() {
            state.disk.power_off_after(*pick(&mut self.chance.crash, &[0, 1, 1, 1, 2]));
            for (lsn, batch) in process.log.queue.iter().take(process.log.taking) {
                if process.wal.append(*lsn, batch).is_err() {
                    break;
                }
            }
            // Whatever comes of it, nobody is told.
            drop(process.wal.sync());
        }
        drop(process);
        if percent(&mut self.chance.crash, 20) {
            // It died just after a flush of the engine.
            drop(state.flush());
        }
        state.engine.crash();
        match power {
            true if percent(&mut self.chance.crash, 20) => state.disk.crash_hard(),
            true => state.disk.crash(self.chance.crash.next_u64()),
            false => state.disk.kill(),
        }
        if power {
            state.clock.reboot(now);
        }
        state.life += 1;
        state.standing = Standing::Down;
        state.paused_until = 0;
        self.waiting[machine].clear();
        (state.crash_in_turn, state.crash_in_apply, state.crash_on_disk) = (None, None, None);
        self.timeline.goes_down(node, now);
        self.timeline.stops_leading(node, now);
        self.hang_up(machine, power);
        self.break_calls(machine);
        if let Some(down_us) = down_us {
            let life = self.machines[machine].life;
            self.schedule.after(down_us, Happening::Restart { machine, life });
        }
    }

    pub(super) fn lose(&mut self, node: NodeId) {
        let place = self.place(node);
        if self.machines[place].standing == Standing::Lost {
            return;
        }
        self.had_effect(FaultKind::Lose);
        self.crash(place, true, None);
        let machine = &mut self.machines[place];
        machine.life += 1;
        machine.standing = Standing::Lost;
    }

    /// The disk is empty. Whoever noted the old one must not listen to the new; if somebody never met the old one,
    /// nobody could tell, and the fault would be more than can be survived.
    pub(super) fn wipe(&mut self, node: NodeId, down_us: u64) {
        let place = self.place(node);
        let known = |machine: &crate::machine::Machine| {
            machine.process.as_ref().is_some_and(|process| process.peers.noted().contains_key(&node))
        };
        let silent = |machine: &&crate::machine::Machine| {
            machine.id == node || matches!(machine.standing, Standing::Spare | Standing::Removed)
        };
        let noted = self.machines.iter().filter(|machine| !silent(machine)).all(known);
        if !noted || self.machines[place].process.is_none() || self.machines[place].wounds.wiped {
            return;
        }
        self.had_effect(FaultKind::Wipe);
        self.crash(place, true, Some(down_us));
        let seed = self.chance.crash.next_u64();
        let machine = &mut self.machines[place];
        machine.disk = MemDisk::new(seed);
        machine.engine = MemEngine::new();
        machine.wiped = Some((std::mem::take(&mut machine.ledger), machine.checkpoint));
        machine.checkpoint = Index(0);
        machine.wounds = Wounds { wiped: true, removed: machine.wounds.removed, ..Wounds::default() };
        self.met.retain(|(host, _), _| *host != node);
    }

    /// The machine's process starts, or tries to.
    pub(super) fn start(&mut self, machine: usize) {
        let now = self.now();
        let random = self.chance.host.next_u64();
        let state = &mut self.machines[machine];
        if state.process.is_some() || !matches!(state.standing, Standing::Down) {
            return;
        }
        state.life += 1;
        let node = state.id;
        match state.start(self.config, &self.plan.shape, now, random) {
            Ok(started) => {
                self.trace.note(now, 23, || {
                    let torn = if started.torn.is_some() { ", cuts a torn tail" } else { "" };
                    format!("{node} starts{torn}")
                });
                self.counters.add(Counter::TornTails, u64::from(started.torn.is_some()));
                self.counters.add(Counter::Recoveries, u64::from(!started.fresh));
                state.process = Some(started.process);
                state.standing = Standing::Running;
                self.timeline.comes_up(node, now);
                self.dial_all(machine);
                let (low, high) = self.plan.shape.checkpoint_us;
                let life = self.machines[machine].life;
                let pause = between(&mut self.chance.host, low, high);
                self.schedule.after(pause, Happening::Checkpoint { machine, life });
                self.schedule_upkeep(machine, 50_000);
                self.schedule.after(10, Happening::Turn { machine, life });
            }
            Err(StartError::Forgot(detail)) if state.wounds.lies => {
                self.counters.count(Counter::KeptOut);
                self.refuse(machine, format!("the drive lied about the end of the log: {detail}"));
            }
            Err(StartError::Forgot(detail)) => {
                self.fail(FailureKind::Recovery, format!("{node} starts without what it had promised: {detail}"));
            }
            Err(StartError::Fault(fault)) => self.start_failed(machine, &fault),
        }
    }

    fn start_failed(&mut self, machine: usize, fault: &NodeFault) {
        let now = self.now();
        let state = &mut self.machines[machine];
        let (node, life) = (state.id, state.life);
        self.trace.note(now, 24, || format!("{node} cannot start: {fault}"));
        if state.disk.is_off() {
            let down_us = state.crash_on_disk.take().unwrap_or(100_000);
            state.disk.crash(self.chance.crash.next_u64());
            self.schedule.after(down_us, Happening::Restart { machine, life });
            return;
        }
        if !self.is_excused(machine, fault) {
            return self.fail(FailureKind::Stopped, format!("{node} cannot start: {fault}"));
        }
        match fault {
            NodeFault::Io { .. } => {
                let pause = between(&mut self.chance.crash, 200_000, 2_000_000);
                self.schedule.after(pause, Happening::Restart { machine, life });
            }
            NodeFault::Corrupt { .. } | NodeFault::Refused(_) => self.refuse(machine, fault.to_string()),
        }
    }

    /// The machine stays down.
    pub(super) fn refuse(&mut self, machine: usize, reason: String) {
        self.counters.count(Counter::Refusals);
        let (at, node) = (self.now(), self.machines[machine].id);
        self.trace.note(at, 25, || format!("{node} stays down: {reason}"));
        self.machines[machine].standing = Standing::Refused(reason);
    }

    /// Place of a node that leads and works.
    pub(super) fn leader(&self) -> Option<usize> {
        let now = self.now();
        self.machines.iter().position(|machine| {
            let process = machine.process.as_ref().filter(|_| machine.is_working(now));
            process.is_some_and(|process| process.led != base::Ballot::ZERO)
        })
    }

    fn deafen(&mut self, number: usize, for_us: u64) {
        let Some(leader) = self.leader() else { return };
        let node = self.machines[leader].id;
        let links: Vec<_> = self.network.all().into_iter().filter(|link| link.1 == node).collect();
        for link in &links {
            self.network.link_mut(*link).clogs += 1;
        }
        self.deaf.insert(number, links);
        self.had_effect(FaultKind::Deafen);
        self.schedule.after(for_us, Happening::FaultEnds(number));
        self.ask_for_handover(None);
    }

    fn ask_for_handover(&mut self, to: Option<NodeId>) {
        let leader = self.leader();
        let Some(machine) = leader.filter(|leader| Some(self.machines[*leader].id) != to) else { return };
        self.had_effect(FaultKind::Transfer);
        let ticket = self.ticket();
        let life = self.machines[machine].life;
        self.clients.calls.insert(ticket, Call { caller: Caller::Operator, machine, life, read: None });
        let request = Request::TransferLeadership { group: GROUP, to };
        self.tell(machine, Event::Request(Ticket(ticket), request));
    }

    /// Everything that can be mended is.
    pub(super) fn heal(&mut self) {
        let now = self.now();
        self.trace.note(now, 26, || "*** everything heals".to_owned());
        self.healed = true;
        self.timeline.heals(now);
        self.heal_links();
        for machine in 0..self.machines.len() {
            let state = &mut self.machines[machine];
            state.paused_until = state.paused_until.min(now);
            state.stalled_until = state.stalled_until.min(now);
            (state.crash_in_turn, state.crash_in_apply, state.crash_on_disk) = (None, None, None);
            state.clock.set_rate(now, 0);
            state.disk.set_capacity(None);
            if !state.disk.is_off() {
                // Faults that wait for a write that has not come are forgotten.
                state.disk.kill();
            }
            let life = state.life;
            self.rearm(machine);
            self.resume(machine);
            if self.machines[machine].standing == Standing::Down {
                let delay = between(&mut self.chance.crash, 1_000, 300_000);
                self.schedule.after(delay, Happening::Restart { machine, life });
            }
        }
    }

    /// The phase of the run, for counting.
    pub(super) fn phase(&self) -> Counter {
        let first = self.plan.faults.first().map_or(WARM_UP_US, |planned| planned.at);
        match self.now() {
            _ if self.healed => Counter::DoneAfter,
            now if now < START_US + first => Counter::DoneBefore,
            _ => Counter::DoneDuring,
        }
    }
}

/// Inverts bits of a frame of the log that is not the newest: what stands behind it proves that it was whole.
fn rot(disk: &MemDisk, seed: u64) -> bool {
    let mut prng = stream(seed, 4);
    let mut frames = Vec::new();
    for name in disk.list("wal").unwrap_or_default() {
        let Some(number) = name.strip_suffix(".log").and_then(|hex| u64::from_str_radix(hex, 16).ok()) else {
            continue;
        };
        let path = format!("wal/{name}");
        let contents = disk.contents(&path).unwrap_or_default();
        for (place, block) in contents.chunks(BLOCK).enumerate() {
            let word = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
            // Left over from an earlier life of the file: no part of the log.
            if block.len() < 64 || !block.starts_with(FRAME_MAGIC) || u64::from(word(49)) != number {
                continue;
            }
            let flush = u64::from(word(24)) | u64::from(word(28)) << 32;
            frames.push((flush, path.clone(), (place * BLOCK) as u64, u64::from(word(12))));
        }
    }
    let Some(newest) = frames.iter().map(|(flush, ..)| *flush).max() else { return false };
    frames.retain(|(flush, ..)| *flush < newest);
    if frames.is_empty() {
        return false;
    }
    let (_, path, offset, body) = &frames[prng.below(frames.len() as u64) as usize];
    let within = if percent(&mut prng, 20) { prng.below(57) } else { 64 + prng.below((*body).max(1)) };
    disk.flip(path, offset + within, 1 << prng.below(8));
    if percent(&mut prng, 30) {
        // The drive is dying: no old frame is whole any more.
        for (_, path, offset, body) in &frames {
            disk.flip(path, offset + 64 + prng.below((*body).max(1)), 1 << prng.below(8));
        }
    }
    true
}
