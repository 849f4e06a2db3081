//! A disk in memory that forgets like a real one.
//!
//! Model (Pillai et al., "All file systems are not created equal", 2014; Rebello et al. 2020): a file is a set of 4 KiB
//! pages, each with a durable and perhaps a newer, unsynced content. [`MemDisk::crash`] keeps a random subset of the
//! unsynced pages, some of them torn at 512 bytes, and a random subset of the unsynced directory operations. A page
//! whose sync failed, or whose write the drive lost, can still be read until the crash, but no later sync saves it.
//! Everything is decided by seeds: the same calls give the same disk.

mod inode;
mod state;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base::{Fault, Prng};

use super::{BLOCK_BYTES, DISK_FULL, Disk, File};
use inode::Inode;
use state::{NameChange, State, fault};

/// What happens to a chosen write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WriteFault {
    /// The call fails; a random part of the bytes may have been written.
    Error,
    /// The call succeeds and the bytes can be read until the crash, but they never reach the medium.
    Lost,
    /// The call succeeds, but the bytes land elsewhere in the same file.
    Misdirected {
        /// Where they land.
        offset: u64,
    },
}

/// The disk. Clones share it, as handles of one machine do.
#[derive(Clone)]
pub struct MemDisk {
    state: Arc<Mutex<State>>,
}

impl MemDisk {
    /// An empty disk; `seed` decides how failing writes tear.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State {
            inodes: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            changes: Vec::new(),
            dirs: BTreeSet::from([String::new()]),
            next_inode: 1,
            prng: Prng::new(seed),
            writes: 0,
            syncs: 0,
            operations: 0,
            power_off_after: None,
            write_faults: BTreeMap::new(),
            sync_faults: BTreeSet::new(),
            capacity_pages: None,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A test that panicked while holding the lock has failed already; the model itself stays consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An independent copy of the disk as it is now; pages are shared until written.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self { state: Arc::new(Mutex::new(self.lock().clone())) }
    }

    /// Power loss and restart: what was not synced survives in part, as `seed` decides. Pending faults are forgotten.
    /// Handles opened before must not be used any more.
    pub fn crash(&self, seed: u64) {
        self.lock().crash(&mut Prng::new(seed), false);
    }

    /// Power loss where nothing that was not synced survives.
    pub fn crash_hard(&self) {
        self.lock().crash(&mut Prng::new(0), true);
    }

    /// The process dies, the machine goes on: nothing is lost, pending faults are forgotten.
    pub fn kill(&self) {
        self.lock().forget_faults();
    }

    /// Writes, and syncs of files, performed so far.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let state = self.lock();
        (state.writes, state.syncs)
    }

    /// Calls so far that changed, or made durable, anything.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// After this many more operations every call fails, as if the machine were off.
    pub fn power_off_after(&self, operations: u64) {
        let mut state = self.lock();
        state.power_off_after = Some(state.operations + operations);
    }

    /// Whether the power is off.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.lock().check_power("look at", "").is_err()
    }

    /// Plants a fault on the `nth` write from now; 0 is the next one.
    pub fn fault_write(&self, nth: u64, fault: WriteFault) {
        let mut state = self.lock();
        let at = state.writes + nth;
        state.write_faults.insert(at, fault);
    }

    /// Lets the `nth` file sync from now fail; 0 is the next one. What it should have saved is lost at the next crash.
    pub fn fault_sync(&self, nth: u64) {
        let mut state = self.lock();
        let at = state.syncs + nth;
        state.sync_faults.insert(at);
    }

    /// Limits the disk to this many bytes; existing data stays.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity_pages = bytes.map(|bytes| bytes / BLOCK_BYTES as u64);
    }

    /// Bytes in use, in whole pages.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.lock().used_pages() * BLOCK_BYTES as u64
    }

    /// Bit rot: inverts the bits of `mask` in one byte, durably.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn flip(&self, name: &str, offset: u64, mask: u8) {
        let mut state = self.lock();
        let id = *state.names.get(name).expect("flip names a file that exists");
        let inode = state.inodes.get_mut(&id).expect("every name has an inode");
        inode.flip(offset, mask);
    }

    /// The whole contents of a file as a reader sees them now.
    #[must_use]
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.lock();
        let inode = &state.inodes[state.names.get(name)?];
        let mut contents = vec![0; usize::try_from(inode.size).ok()?];
        inode.read(0, &mut contents);
        Some(contents)
    }

    /// Puts a file of these contents on the disk, durably, replacing what was there: for crash images.
    pub fn put(&self, name: &str, contents: &[u8]) {
        let mut state = self.lock();
        let id = state.next_inode;
        state.next_inode += 1;
        let mut inode = Inode::default();
        inode.write(0, contents);
        inode.sync();
        state.inodes.insert(id, inode);
        state.names.insert(name.to_owned(), id);
        state.durable_names.insert(name.to_owned(), id);
        if let Some((dir, _)) = name.rsplit_once('/') {
            state.dirs.insert(dir.to_owned());
        }
    }
}

impl Disk for MemDisk {
    fn create(&self, name: &str) -> Result<Arc<dyn File>, Fault> {
        let mut state = self.lock();
        state.operate("create", name)?;
        if state.names.contains_key(name) {
            return Err(fault("create", name, "the file exists"));
        }
        let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
        if !state.dirs.contains(parent) {
            return Err(fault("create", name, "no such directory"));
        }
        let inode = state.next_inode;
        state.next_inode += 1;
        state.inodes.insert(inode, Inode::default());
        state.change(NameChange::Link { name: name.to_owned(), inode });
        Ok(Arc::new(MemFile { disk: self.clone(), inode, name: name.to_owned() }))
    }

    fn open(&self, name: &str) -> Result<Arc<dyn File>, Fault> {
        let state = self.lock();
        state.check_power("open", name)?;
        let inode = state.inode("open", name)?;
        Ok(Arc::new(MemFile { disk: self.clone(), inode, name: name.to_owned() }))
    }

    fn create_dir(&self, name: &str) -> Result<(), Fault> {
        let mut state = self.lock();
        state.operate("create directory", name)?;
        // Directories themselves are not what is tested here: they survive at once.
        state.dirs.insert(name.to_owned());
        Ok(())
    }

    fn list(&self, dir: &str) -> Result<Vec<String>, Fault> {
        let state = self.lock();
        state.check_power("list", dir)?;
        if !state.dirs.contains(dir) {
            return Err(fault("list", dir, "no such directory"));
        }
        let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
        let within = |name: &String| name.strip_prefix(&prefix).filter(|rest| !rest.contains('/')).map(str::to_owned);
        Ok(state.names.keys().filter_map(within).collect())
    }

    fn exists(&self, name: &str) -> Result<bool, Fault> {
        let state = self.lock();
        state.check_power("stat", name)?;
        Ok(state.names.contains_key(name) || state.dirs.contains(name))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), Fault> {
        let mut state = self.lock();
        state.operate("rename", from)?;
        let inode = state.inode("rename", from)?;
        state.change(NameChange::Rename { from: from.to_owned(), to: to.to_owned(), inode });
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), Fault> {
        let mut state = self.lock();
        state.operate("remove", name)?;
        state.inode("remove", name)?;
        state.change(NameChange::Unlink { name: name.to_owned() });
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> Result<(), Fault> {
        let mut state = self.lock();
        state.operate("fsync directory", dir)?;
        let state = &mut *state;
        let (synced, rest) = std::mem::take(&mut state.changes).into_iter().partition(|change| change.touches(dir));
        state.changes = rest;
        let synced: Vec<NameChange> = synced;
        for change in synced {
            change.apply(&mut state.durable_names);
        }
        Ok(())
    }

    fn describe(&self, name: &str) -> String {
        name.to_owned()
    }
}

struct MemFile {
    disk: MemDisk,
    inode: u64,
    name: String,
}

impl MemFile {
    fn with<R>(
        &self,
        operation: &'static str,
        state: &mut State,
        work: impl FnOnce(&mut Inode) -> R,
    ) -> Result<R, Fault> {
        match state.inodes.get_mut(&self.inode) {
            Some(inode) => Ok(work(inode)),
            None => Err(fault(operation, &self.name, "the file was lost in a crash")),
        }
    }
}

impl File for MemFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), Fault> {
        let mut state = self.disk.lock();
        state.check_power("read", &self.name)?;
        let end = offset + into.len() as u64;
        self.with("read", &mut state, |inode| {
            if end > inode.size {
                return Err(fault("read", &self.name, "read past the end of the file"));
            }
            inode.read(offset, into);
            Ok(())
        })?
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        let mut state = self.disk.lock();
        state.operate("write", &self.name)?;
        let nth = state.writes;
        state.writes += 1;
        if let Some(capacity) = state.capacity_pages {
            let size = self.with("write", &mut state, |inode| inode.size)?;
            let end = offset + bytes.len() as u64;
            let more = end.div_ceil(BLOCK_BYTES as u64).saturating_sub(size.div_ceil(BLOCK_BYTES as u64));
            if more > 0 && state.used_pages() + more > capacity {
                return Err(fault("write", &self.name, &format!("{DISK_FULL} (injected)")));
            }
        }
        let planted = state.write_faults.remove(&nth);
        let part = state.prng.below(bytes.len() as u64 + 1) as usize;
        self.with("write", &mut state, |inode| match planted {
            None => {
                inode.write(offset, bytes);
                Ok(())
            }
            Some(WriteFault::Error) => {
                inode.write(offset, &bytes[..part]);
                Err(fault("write", &self.name, "input/output error (injected)"))
            }
            Some(WriteFault::Lost) => {
                inode.write_lost(offset, bytes);
                Ok(())
            }
            Some(WriteFault::Misdirected { offset }) => {
                inode.write(offset, bytes);
                Ok(())
            }
        })?
    }

    fn sync_data(&self) -> Result<(), Fault> {
        let mut state = self.disk.lock();
        state.operate("fdatasync", &self.name)?;
        let nth = state.syncs;
        state.syncs += 1;
        let fails = state.sync_faults.remove(&nth);
        self.with("fdatasync", &mut state, |inode| {
            if fails {
                inode.lose_dirty();
                return Err(fault("fdatasync", &self.name, "input/output error (injected)"));
            }
            inode.sync();
            Ok(())
        })?
    }

    fn size(&self) -> Result<u64, Fault> {
        let mut state = self.disk.lock();
        state.check_power("stat", &self.name)?;
        self.with("stat", &mut state, |inode| inode.size)
    }
}
