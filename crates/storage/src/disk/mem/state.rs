//! All of a disk in memory behind its lock: files, names, and the faults that wait.

use std::collections::{BTreeMap, BTreeSet};

use base::{Fault, Prng};

use super::WriteFault;
use super::inode::Inode;
use crate::disk::BLOCK_BYTES;

/// A change of names that is not durable yet.
#[derive(Clone)]
pub(super) enum NameChange {
    Link { name: String, inode: u64 },
    Unlink { name: String },
    Rename { from: String, to: String, inode: u64 },
}

/// The disk.
#[derive(Clone)]
pub(super) struct State {
    pub(super) inodes: BTreeMap<u64, Inode>,
    pub(super) names: BTreeMap<String, u64>,
    pub(super) durable_names: BTreeMap<String, u64>,
    pub(super) changes: Vec<NameChange>,
    pub(super) dirs: BTreeSet<String>,
    pub(super) next_inode: u64,
    pub(super) prng: Prng,
    pub(super) writes: u64,
    pub(super) syncs: u64,
    /// Counts every call that changes something; the machine loses power after this many.
    pub(super) operations: u64,
    pub(super) power_off_after: Option<u64>,
    pub(super) write_faults: BTreeMap<u64, WriteFault>,
    pub(super) sync_faults: BTreeSet<u64>,
    pub(super) capacity_pages: Option<u64>,
}

impl State {
    pub(super) fn forget_faults(&mut self) {
        self.power_off_after = None;
        self.write_faults.clear();
        self.sync_faults.clear();
    }

    pub(super) fn crash(&mut self, prng: &mut Prng, hard: bool) {
        self.forget_faults();
        for inode in self.inodes.values_mut() {
            inode.crash(prng, hard);
        }
        let mut names = std::mem::take(&mut self.durable_names);
        let mood = if hard { 0 } else { prng.below(4) };
        for change in std::mem::take(&mut self.changes) {
            let kept = match mood {
                0 => false,
                1 => true,
                _ => prng.below(2) == 0,
            };
            if kept {
                change.apply(&mut names);
            }
        }
        self.inodes.retain(|id, _| names.values().any(|used| used == id));
        self.names = names.clone();
        self.durable_names = names;
    }

    /// Counts an operation that changes something, and refuses it once the power is off.
    pub(super) fn operate(&mut self, operation: &'static str, name: &str) -> Result<(), Fault> {
        self.check_power(operation, name)?;
        self.operations += 1;
        Ok(())
    }

    pub(super) fn check_power(&self, operation: &'static str, name: &str) -> Result<(), Fault> {
        match self.power_off_after {
            Some(limit) if self.operations >= limit => Err(fault(operation, name, "the power is off")),
            _ => Ok(()),
        }
    }

    pub(super) fn used_pages(&self) -> u64 {
        let linked: BTreeSet<u64> = self.names.values().copied().collect();
        let pages = |id: &u64| self.inodes.get(id).map_or(0, |inode| inode.size.div_ceil(BLOCK_BYTES as u64));
        linked.iter().map(pages).sum()
    }

    pub(super) fn inode(&self, operation: &'static str, name: &str) -> Result<u64, Fault> {
        self.names.get(name).copied().ok_or_else(|| fault(operation, name, "no such file"))
    }

    pub(super) fn change(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.changes.push(change);
    }
}

impl NameChange {
    pub(super) fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Link { name, inode } => {
                names.insert(name.clone(), *inode);
            }
            Self::Unlink { name } => {
                names.remove(name);
            }
            Self::Rename { from, to, inode } => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
        }
    }

    pub(super) fn touches(&self, dir: &str) -> bool {
        let name = match self {
            Self::Link { name, .. } | Self::Unlink { name } | Self::Rename { from: name, .. } => name,
        };
        name.rsplit_once('/').map_or("", |(parent, _)| parent) == dir
    }
}

pub(super) fn fault(operation: &'static str, name: &str, cause: &str) -> Fault {
    Fault::Io { operation, path: name.to_owned(), cause: cause.to_owned() }
}
