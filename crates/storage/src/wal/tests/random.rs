//! Random histories with crashes and faults at every point, against the model.
//!
//! After a crash the log must hold what was acknowledged, or that and the one flush that was under way, as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{Fault, GroupId, Index, Prng};
use kernel::{Entry, Position, Record};
use proptest::prelude::*;

use super::model::{Group, Model};
use super::{IDENTITY, SMALL, ballot, entry};
use crate::disk::{Disk, File, MemDisk, WriteFault};
use crate::wal::planted::{self, Bug};
use crate::wal::{RecoveredLog, Wal};

/// Which disk the log gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum DiskKind {
    Honest,
    /// Every other sync does nothing.
    Lying,
    /// Directory syncs do nothing.
    NoNames,
}

struct Lying {
    inner: MemDisk,
    kind: DiskKind,
}

struct LyingFile(Arc<dyn File>);

impl Disk for Lying {
    fn create(&self, name: &str) -> Result<Arc<dyn File>, Fault> {
        self.inner.create(name).map(|file| self.wrap(file))
    }
    fn open(&self, name: &str) -> Result<Arc<dyn File>, Fault> {
        self.inner.open(name).map(|file| self.wrap(file))
    }
    fn create_dir(&self, name: &str) -> Result<(), Fault> {
        self.inner.create_dir(name)
    }
    fn list(&self, dir: &str) -> Result<Vec<String>, Fault> {
        self.inner.list(dir)
    }
    fn exists(&self, name: &str) -> Result<bool, Fault> {
        self.inner.exists(name)
    }
    fn rename(&self, from: &str, to: &str) -> Result<(), Fault> {
        self.inner.rename(from, to)
    }
    fn remove(&self, name: &str) -> Result<(), Fault> {
        self.inner.remove(name)
    }
    fn sync_dir(&self, dir: &str) -> Result<(), Fault> {
        if self.kind == DiskKind::NoNames { Ok(()) } else { self.inner.sync_dir(dir) }
    }
    fn describe(&self, name: &str) -> String {
        self.inner.describe(name)
    }
}

impl Lying {
    fn wrap(&self, file: Arc<dyn File>) -> Arc<dyn File> {
        if self.kind == DiskKind::Lying { Arc::new(LyingFile(file)) } else { file }
    }
}

impl File for LyingFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), Fault> {
        self.0.read_at(offset, into)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.0.write_at(offset, bytes)
    }
    fn sync_data(&self) -> Result<(), Fault> {
        if self.0.size()? % 2 == 0 { Ok(()) } else { self.0.sync_data() }
    }
    fn size(&self) -> Result<u64, Fault> {
        self.0.size()
    }
}

struct World {
    mem: MemDisk,
    kind: DiskKind,
    prng: Prng,
    /// What was acknowledged.
    acked: Model,
    /// With everything staged.
    staged: Model,
    round: u64,
}

/// What a run did, so that a test can tell that it saw something.
#[derive(Default, Clone, Copy, Debug)]
struct Coverage {
    reopened: u64,
    torn: u64,
    faults: u64,
    full: u64,
}

impl World {
    fn new(seed: u64, kind: DiskKind) -> Self {
        Self {
            mem: MemDisk::new(seed),
            kind,
            prng: Prng::new(seed),
            acked: Model::default(),
            staged: Model::default(),
            round: 1,
        }
    }

    fn try_open(&self) -> Result<(Wal, RecoveredLog), Fault> {
        let disk: Arc<dyn Disk> = match self.kind {
            DiskKind::Honest => Arc::new(self.mem.clone()),
            kind => Arc::new(Lying { inner: self.mem.clone(), kind }),
        };
        Wal::open(disk, IDENTITY, SMALL)
    }

    fn crash(&mut self) {
        match self.prng.below(4) {
            0 => self.mem.kill(),
            1 => self.mem.crash_hard(),
            _ => self.mem.crash(self.prng.next_u64()),
        }
    }

    /// Crashes, perhaps several times while starting, and compares what is found with what may be found.
    fn reopen(&mut self, candidates: &[Model], coverage: &mut Coverage) -> Result<Wal, String> {
        self.crash();
        for _ in 0..self.prng.below(3) {
            self.mem.power_off_after(self.prng.below(12));
            let _ = self.try_open();
            self.crash();
        }
        self.mem.set_capacity(None);
        let (mut wal, recovered) = self.try_open().map_err(|fault| format!("refused after a crash: {fault}"))?;
        coverage.reopened += 1;
        coverage.torn += u64::from(recovered.torn().is_some());
        let mut problems = Vec::new();
        for candidate in candidates {
            match candidate.compare(&mut wal, &recovered) {
                Ok(()) if wal.synced().0 > candidate.lsn => {
                    problems.push(format!("turn {} attested, {} written", wal.synced(), candidate.lsn));
                }
                Ok(()) => {
                    self.acked = candidate.clone();
                    self.acked.lsn = wal.synced().0;
                    self.staged = self.acked.clone();
                    return Ok(wal);
                }
                Err(problem) => problems.push(problem),
            }
        }
        Err(format!("no state that may be found: {}", problems.join(" | ")))
    }

    fn turn(&mut self) -> Vec<(GroupId, Vec<Record>)> {
        let mut batch = BTreeMap::new();
        for _ in 0..=self.prng.below(2) {
            let id = GroupId(self.prng.below(3));
            let mut group = self.staged.groups.get(&id).cloned().unwrap_or_default();
            let mut records = Vec::new();
            for _ in 0..=self.prng.below(2) {
                let record = self.record(id, &group);
                let mut scratch = Model::default();
                scratch.groups.insert(id, group);
                scratch.apply(0, &[(id, vec![record.clone()])]);
                group = scratch.groups.remove(&id).expect("kept");
                records.push(record);
            }
            batch.insert(id, records);
        }
        batch.into_iter().collect()
    }

    fn entries(&mut self, from: u64, count: u64) -> Vec<Entry> {
        let round = self.round;
        // Now and then large, so that flushes span segments.
        let limit = if self.prng.below(20) == 0 { 9_000 } else { 600 };
        (from..from + count).map(|index| entry(index, round, self.prng.below(limit) as usize)).collect()
    }

    fn record(&mut self, id: GroupId, group: &Group) -> Record {
        let (base, last) = (group.base.index.0, group.last());
        // Group 2 hardly ever moves: its tail must not pin segments.
        let choice = if id == GroupId(2) && group.entries.len() > 3 { 19 } else { self.prng.below(20) };
        match choice {
            0..=9 => {
                let count = 1 + self.prng.below(5);
                Record::Append(self.entries(last + 1, count).into())
            }
            10 | 11 if last > base => {
                self.round += 1;
                let from = base + 1 + self.prng.below(last - base);
                let count = 1 + self.prng.below(last - from + 2);
                Record::Append(self.entries(from, count).into())
            }
            12 if last > base => {
                self.round += 1;
                Record::Truncate { from: Index(base + 1 + self.prng.below(last - base)) }
            }
            13..=16 if last > base => {
                let to = last - self.prng.below((last - base).min(4));
                let stamp = group.entries[&to].stamp;
                Record::Compact { base: Position { index: Index(to), stamp }, keep_suffix: true }
            }
            17 => {
                let base = Position { index: Index(last + self.prng.below(5)), stamp: ballot(self.round) };
                Record::Compact { base, keep_suffix: false }
            }
            _ => {
                self.round += 1;
                Record::Hard { promised: ballot(self.round), accepted: ballot(1), commit: Index(base) }
            }
        }
    }

    fn plant_fault(&mut self, coverage: &mut Coverage) {
        coverage.faults += 1;
        match self.prng.below(4) {
            0 => self.mem.fault_sync(self.prng.below(2)),
            1 => self.mem.fault_write(self.prng.below(2), WriteFault::Error),
            2 => self.mem.power_off_after(self.prng.below(6)),
            _ => {
                coverage.full += 1;
                self.mem.set_capacity(Some(self.mem.used()));
            }
        }
    }
}

/// One history. The error says what the log did that it must not do.
fn run(seed: u64, steps: u64, kind: DiskKind) -> Result<Coverage, String> {
    let mut world = World::new(seed, kind);
    let mut coverage = Coverage::default();
    let (mut wal, _) = world.try_open().map_err(|fault| fault.to_string())?;
    for step in 0..steps {
        let context = |problem| format!("seed {seed}, step {step}: {problem}");
        let failed = match world.prng.below(12) {
            0..=4 => {
                let batch = world.turn();
                let lsn = wal.next_lsn();
                wal.append(lsn, &batch).map_err(|fault| context(fault.to_string()))?;
                world.staged.apply(lsn.0, &batch);
                None
            }
            5..=8 => {
                if world.prng.below(8) == 0 {
                    world.plant_fault(&mut coverage);
                }
                match wal.sync() {
                    Ok(lsn) if lsn.get().0 == world.staged.lsn => {
                        world.acked = world.staged.clone();
                        None
                    }
                    Ok(lsn) => return Err(context(format!("{lsn:?} attested, {} staged", world.staged.lsn))),
                    Err(fault) => Some(fault),
                }
            }
            9 | 10 => (0..world.prng.below(12)).find_map(|_| wal.maintain().err()),
            _ if world.mem.is_off() => Some(Fault::Refused("the machine is off".to_owned())),
            _ => {
                let (from, count) = (1 + world.prng.below(200), world.prng.below(50));
                let bytes = if world.prng.below(2) == 0 { usize::MAX } else { world.prng.below(3000) as usize };
                world.acked.compare_reads(&wal, from, from + count, bytes).map_err(context)?;
                None
            }
        };
        let restart = world.prng.below(40) == 0;
        if let Some(fault) = failed {
            let poisoned = wal.sync() == Err(fault.clone()) && wal.append(wal.next_lsn(), &[]) == Err(fault.clone());
            if !poisoned && !matches!(fault, Fault::Refused(_)) {
                return Err(context("the log is not poisoned after an error".to_owned()));
            }
        } else if !restart {
            continue;
        }
        drop(wal);
        let candidates = [world.acked.clone(), world.staged.clone()];
        wal = world.reopen(&candidates, &mut coverage).map_err(context)?;
    }
    drop(wal);
    let candidates = [world.acked.clone(), world.staged.clone()];
    world.reopen(&candidates, &mut coverage)?;
    Ok(coverage)
}

/// The first seed at which the checker finds something.
fn first_failure(kind: DiskKind, seeds: u64) -> Option<String> {
    (0..seeds).find_map(|seed| run(seed, 400, kind).err())
}

#[test]
fn histories_see_what_they_are_meant_to_see() {
    let mut sum = Coverage::default();
    for seed in 1000..1030 {
        let coverage = run(seed, 400, DiskKind::Honest).expect("sound");
        sum.reopened += coverage.reopened;
        sum.torn += coverage.torn;
        sum.faults += coverage.faults;
        sum.full += coverage.full;
    }
    assert!(sum.reopened > 300 && sum.torn > 3 && sum.faults > 200 && sum.full > 30, "{sum:?}");
}

#[test]
fn a_disk_that_lies_about_syncs_is_caught() {
    assert!(first_failure(DiskKind::Lying, 20).is_some());
}

#[test]
fn a_disk_that_forgets_names_is_caught() {
    assert!(first_failure(DiskKind::NoNames, 20).is_some());
}

#[test]
fn planted_bugs_are_caught() {
    for bug in [Bug::TailNotWiped, Bug::SyncErrorIgnored, Bug::NoDirectorySync, Bug::NothingKept] {
        assert!(planted::with(bug, || first_failure(DiskKind::Honest, 300)).is_some(), "{bug:?} was not noticed");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_survives_any_crash(seed in any::<u64>(), steps in 20u64..500) {
        if let Err(problem) = run(seed, steps, DiskKind::Honest) {
            panic!("{problem}");
        }
    }
}
