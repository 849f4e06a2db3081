//! One tree and its write buffers: batches, what is visible, flush and compaction.
//!
//! Invariant: a view at sequence number s sees exactly the batches numbered below s, and every batch below the
//! published number is complete. Batches and versions of the tree draw their numbers from one counter.
//!
//! A view takes its number and the buffers in one step. A buffer leaves the layers only when the published number is
//! above that of the version of the tree that holds its rows. So a view without the buffer finds that version, or a
//! later one; and a view whose number is lower still has the buffer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base::Fault;
use bytes::Bytes;
use lsm_tree::{AbstractTree, Cache, Guard, SeqNo, SequenceNumberCounter, Tree};
use mvcc::engine::Batch;

use super::arena::SpareChunks;
use super::buffer::Buffer;
use super::config::{LEVEL0_RUNS_FULL, LEVEL0_RUNS_HIGH, TABLE_BYTES, fault, open_tree, strategy, verify_version};
use super::layers::{Layers, newest_first, newest_rows, tree_row};
use super::merge::copy;
use super::pointer::tree_path;
use super::recent::Recent;
use super::resident::Resident;
use super::residents::{GROUPS, Residents};
use super::{EngineOptions, EngineStats, MARK_KEY, Pressure};
use crate::disk::io_fault;

/// Longest row key: the tree stores the length in 16 bits.
pub(super) const ROW_KEY_BYTES_MAX: usize = 65_535;

/// What a view sees, and which sequence numbers are in use by views.
struct Snapshots {
    /// Views are taken here: batches below it are complete.
    published: SeqNo,
    layers: Arc<Layers>,
    open: BTreeMap<SeqNo, usize>,
}

/// A tree and its bookkeeping. Views hold it, so its files live as long as the last view.
pub(super) struct Store {
    tree: Tree,
    root: PathBuf,
    number: u64,
    path: PathBuf,
    options: EngineOptions,
    seqno: SequenceNumberCounter,
    snapshots: Mutex<Snapshots>,
    pub(super) recent: Recent,
    /// Held while a batch is written, and while buffers are sealed or leave.
    writer: Mutex<()>,
    /// One flush at a time.
    flusher: Mutex<()>,
    /// The rows of each group were too many to hold when the tables took twice this.
    resident_below: [AtomicU64; GROUPS.len()],
    /// The mark in the tree.
    persisted: Mutex<Option<Bytes>>,
    /// Memory of all buffers, those included that only views still hold.
    buffered_bytes: Arc<AtomicU64>,
    /// What buffers and resident rows that are gone leave to the next ones.
    spare: Arc<SpareChunks>,
    /// The files go when the store goes.
    doomed: AtomicBool,
    /// Runs in level 0 after the last flush or compaction. The tree itself tells only when neither is writing down what
    /// it did, which takes several flushes of the disk.
    level0_runs: AtomicUsize,
}

// A thread that panicked with a lock held brings the process down (release builds abort); in tests the data behind the
// locks is replaced field by field and stays usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// Makes an empty tree. A leftover of the same number is removed.
    pub(super) fn create(root: &Path, number: u64, options: EngineOptions, cache: &Arc<Cache>) -> Result<Self, Fault> {
        let path = tree_path(root, number);
        if path.exists() {
            std::fs::remove_dir_all(&path).map_err(|error| io_fault("remove", &path, &error))?;
        }
        Self::new(root, number, options, cache)
    }

    /// Opens a tree that must exist.
    pub(super) fn open(root: &Path, number: u64, options: EngineOptions, cache: &Arc<Cache>) -> Result<Self, Fault> {
        let path = tree_path(root, number);
        verify_version(&path)?;
        Self::new(root, number, options, cache)
    }

    fn new(root: &Path, number: u64, options: EngineOptions, cache: &Arc<Cache>) -> Result<Self, Fault> {
        let path = tree_path(root, number);
        let seqno = SequenceNumberCounter::new(1);
        let tree = open_tree(&path, options, cache, &seqno)?;
        seqno.fetch_max(tree.get_highest_persisted_seqno().map_or(1, |highest| highest + 1));
        let published = seqno.get();
        let persisted = tree.get(MARK_KEY, published).map_err(|error| fault("read", &path, &error))?;
        let persisted = persisted.map(|row| copy(&row));
        let buffered_bytes = Arc::default();
        // A flush leaves a buffer, and resident rows, which in most stores are less than half of one.
        let spare = Arc::new(SpareChunks::new(options.memtable_bytes / 2 * 3));
        let nothing = |tags| (tree.table_count() == 0).then(|| Arc::new(Resident::empty(tags, &spare)));
        let resident = Residents(GROUPS.map(nothing));
        let level0_runs = AtomicUsize::new(tree.l0_run_count());
        let active = Arc::new(Buffer::new(&spare, &buffered_bytes));
        let layers = Layers { active, sealed: Vec::new(), resident };
        Ok(Self {
            tree,
            recent: Recent::new(options.recent_bytes()),
            root: root.to_owned(),
            number,
            path,
            options,
            seqno,
            snapshots: Mutex::new(Snapshots { published, layers: Arc::new(layers), open: BTreeMap::new() }),
            writer: Mutex::new(()),
            flusher: Mutex::new(()),
            resident_below: GROUPS.map(|_| AtomicU64::new(u64::MAX)),
            persisted: Mutex::new(persisted),
            buffered_bytes,
            spare,
            doomed: AtomicBool::new(false),
            level0_runs,
        })
    }

    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) const fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Where the tree is, for messages.
    pub(super) fn place(&self) -> String {
        self.path.display().to_string()
    }

    pub(super) fn fault(&self, operation: &'static str, error: &lsm_tree::Error) -> Fault {
        fault(operation, &self.path, error)
    }

    /// The files are not needed any more once the last view is gone.
    pub(super) fn doom(&self) {
        self.doomed.store(true, Ordering::Release);
    }

    /// The files are needed after all.
    pub(super) fn spare(&self) {
        self.doomed.store(false, Ordering::Release);
    }

    /// Writes a batch and publishes it. Rows are copied: their bytes may be slices of much larger buffers.
    pub(super) fn write(&self, batch: Batch) -> Result<(), Fault> {
        if let Some((key, _)) = batch.rows.iter().find(|(key, _)| key.is_empty() || key.len() > ROW_KEY_BYTES_MAX) {
            return Err(Fault::Refused(format!(
                "a row key of {} bytes cannot be stored: 1 to {ROW_KEY_BYTES_MAX} bytes are possible",
                key.len()
            )));
        }
        let _writer = lock(&self.writer);
        let active = Arc::clone(&self.layers().active);
        let seqno = self.seqno.next();
        for (key, value) in &batch.rows {
            self.recent.written(key, seqno, value.as_ref());
        }
        active.write(&batch.rows, seqno);
        let mut snapshots = lock(&self.snapshots);
        if active.bytes() >= self.options.memtable_bytes {
            self.seal_locked(&mut snapshots);
        }
        snapshots.published = seqno + 1;
        Ok(())
    }

    fn layers(&self) -> Arc<Layers> {
        Arc::clone(&lock(&self.snapshots).layers)
    }

    /// Seals the active buffer, between batches.
    pub(super) fn seal(&self) {
        let _writer = lock(&self.writer);
        self.seal_locked(&mut lock(&self.snapshots));
    }

    fn seal_locked(&self, snapshots: &mut Snapshots) {
        if !snapshots.layers.active.is_empty() {
            snapshots.layers = Arc::new(snapshots.layers.seal(Buffer::new(&self.spare, &self.buffered_bytes)));
        }
    }

    /// Writes sealed buffers to level 0, durably and all at once. Answers whether there were any.
    pub(super) fn flush(&self) -> Result<bool, Fault> {
        let _one = lock(&self.flusher);
        let sealed = self.layers().sealed.clone();
        if sealed.is_empty() {
            self.load_resident()?;
            return Ok(false);
        }
        self.write_tables(&sealed)?;
        let resident = self.next_resident(&sealed);
        self.settle_buffers(&sealed, resident);
        self.remove_versions()?;
        Ok(true)
    }

    /// Makes the rows of sealed buffers part of the tree, in one durable step.
    fn write_tables(&self, sealed: &[Arc<Buffer>]) -> Result<(), Fault> {
        let rows = newest_first(sealed);
        let written = self.tree.flush_to_tables(newest_rows(&rows, &(0..=u8::MAX)).map(tree_row).map(Ok));
        let tables = written.map_err(|error| self.fault("flush", &error))?.map(|(tables, _)| tables);
        let registered = self.tree.register_tables(&tables.unwrap_or_default(), None, None, &[], self.watermark());
        registered.map_err(|error| self.fault("flush", &error))
    }

    /// The resident rows after a flush of these buffers.
    fn next_resident(&self, flushed: &[Arc<Buffer>]) -> Residents {
        let mut residents = self.layers().resident.clone();
        let rows = newest_first(flushed);
        for (group, (resident, tags)) in residents.0.iter_mut().zip(&GROUPS).enumerate() {
            let Some(before) = resident.take() else { continue };
            let changes = newest_rows(&rows, tags).map(|(key, _, value)| (key, value));
            *resident = before.changed(changes, self.options.resident_bytes());
            self.note_resident(group, resident.is_some());
        }
        residents
    }

    /// Reads rows of the tree into memory if there is hope that they are few. To be called by the flusher: the tree
    /// must not get new rows meanwhile.
    fn load_resident(&self) -> Result<(), Fault> {
        let mut residents = self.layers().resident.clone();
        let mut loaded = false;
        for (group, tags) in GROUPS.into_iter().enumerate() {
            let too_large = self.tree.disk_space() >= self.resident_below[group].load(Ordering::Relaxed);
            if residents.0[group].is_some() || too_large {
                continue;
            }
            let rows = self.tree.range([*tags.start()]..[*tags.end() + 1], SeqNo::MAX, None).map(Guard::into_inner);
            let read = Resident::empty(tags, &self.spare).load(rows, self.options.resident_bytes());
            residents.0[group] = read.map_err(|error| self.fault("read", &error))?.map(Arc::new);
            self.note_resident(group, residents.0[group].is_some());
            loaded = true;
        }
        if loaded {
            let mut snapshots = lock(&self.snapshots);
            snapshots.layers = Arc::new(snapshots.layers.without(0, residents));
        }
        Ok(())
    }

    /// Remembers when not to try again.
    fn note_resident(&self, group: usize, is_held: bool) {
        if !is_held {
            self.resident_below[group].store(self.tree.disk_space() / 2, Ordering::Relaxed);
        }
    }

    /// Takes buffers whose rows are in the tree out of the layers.
    fn settle_buffers(&self, flushed: &[Arc<Buffer>], resident: Residents) {
        if let Some(mark) = flushed.iter().rev().find_map(|buffer| buffer.get(MARK_KEY, SeqNo::MAX)) {
            *lock(&self.persisted) = mark;
        }
        let _writer = lock(&self.writer);
        let mut snapshots = lock(&self.snapshots);
        // No batch is under way: every number drawn so far belongs to something complete, and that of the version with
        // the new tables is among them.
        snapshots.published = self.seqno.get();
        snapshots.layers = Arc::new(snapshots.layers.without(flushed.len(), resident));
    }

    /// Lets new views see the newest version of the tree, so that older ones, and the files they hold, can go.
    fn settle_versions(&self) -> Result<(), Fault> {
        let writer = lock(&self.writer);
        lock(&self.snapshots).published = self.seqno.get();
        drop(writer);
        self.remove_versions()
    }

    /// After a flush or a compaction: removes versions of the tree that no view needs.
    fn remove_versions(&self) -> Result<(), Fault> {
        let watermark = self.watermark();
        self.level0_runs.store(self.tree.l0_run_count(), Ordering::Relaxed);
        let mut versions = self.tree.get_version_history_lock();
        versions.maintenance(&self.path, watermark).map_err(|error| self.fault("remove old versions", &error))
    }

    /// Performs one compaction if one is due. Answers whether it did.
    pub(super) fn compact(&self) -> Result<bool, Fault> {
        let before = self.tree.current_version().id();
        let strategy = strategy(self.layers().resident.all());
        self.tree.compact(strategy, self.watermark()).map_err(|error| self.fault("compact", &error))?;
        let worked = self.tree.current_version().id() != before;
        if worked {
            self.settle_versions()?;
        }
        Ok(worked)
    }

    /// Rewrites all tables: nothing is left of what was deleted or replaced. Takes as long as the data is large.
    pub(super) fn compact_fully(&self) -> Result<(), Fault> {
        if self.tree.table_count() == 0 {
            return Ok(());
        }
        self.tree.major_compact(TABLE_BYTES, self.watermark()).map_err(|error| self.fault("compact", &error))?;
        self.settle_versions()
    }

    /// Row versions that no view at or above this number needs may be dropped.
    fn watermark(&self) -> SeqNo {
        let snapshots = lock(&self.snapshots);
        snapshots.open.keys().next().copied().unwrap_or(snapshots.published)
    }

    /// Registers a view: its number, and the buffers to look at.
    pub(super) fn open_snapshot(&self) -> (SeqNo, Arc<Layers>) {
        let mut snapshots = lock(&self.snapshots);
        let seqno = snapshots.published;
        *snapshots.open.entry(seqno).or_default() += 1;
        (seqno, Arc::clone(&snapshots.layers))
    }

    /// Gives a view's number back.
    pub(super) fn close_snapshot(&self, seqno: SeqNo) {
        let mut snapshots = lock(&self.snapshots);
        let count = snapshots.open.get_mut(&seqno).expect("the snapshot was opened");
        *count -= 1;
        if *count == 0 {
            snapshots.open.remove(&seqno);
        }
    }

    pub(super) fn persisted_mark(&self) -> Option<Bytes> {
        lock(&self.persisted).clone()
    }

    fn sealed_count(&self) -> usize {
        lock(&self.snapshots).layers.sealed.len()
    }

    pub(super) fn has_sealed(&self) -> bool {
        self.sealed_count() > 0
    }

    pub(super) fn pressure(&self) -> Pressure {
        let (sealed, runs) = (self.sealed_count(), self.level0_runs.load(Ordering::Relaxed));
        if sealed > self.options.sealed_max || runs >= LEVEL0_RUNS_FULL {
            Pressure::Full
        } else if sealed == self.options.sealed_max || runs >= LEVEL0_RUNS_HIGH {
            Pressure::High
        } else {
            Pressure::None
        }
    }

    /// Buffers take more memory than was granted.
    pub(super) fn overfull(&self) -> bool {
        self.sealed_count() > self.options.sealed_max + 1
    }

    pub(super) fn stats(&self) -> EngineStats {
        let pinned = self.tree.pinned_block_index_size() + self.tree.pinned_filter_size();
        EngineStats {
            disk_bytes: self.tree.disk_space(),
            tables: self.tree.table_count() as u64,
            level0_runs: self.tree.l0_run_count() as u64,
            memtable_bytes: self.buffered_bytes.load(Ordering::Relaxed),
            pinned_bytes: pinned as u64,
            resident_bytes: self.layers().resident.bytes(),
            views: lock(&self.snapshots).open.values().sum::<usize>() as u64,
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if !self.doomed.load(Ordering::Acquire) {
            return;
        }
        // Only a nuisance: the next start removes what is left.
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "could not remove the replaced tree");
        }
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
