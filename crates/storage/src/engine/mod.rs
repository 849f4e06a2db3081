//! The state machine's rows on disk: an LSM tree without a log of its own, since the node's write-ahead log replays
//! what the tree forgets.
//!
//! Invariant: after a crash the tree holds exactly the batches up to some mark, [`LsmEngine::persisted_mark`]; log
//! entries above it must be kept.
//!
//! ```text
//!  write ─► active buffer ─► sealed buffers ─ flush ─► tables of level 0 ─ compaction ─► levels 1..6
//!           └─────────────── ours ───────┘            └───────── the tree's: the crate lsm-tree ─────┘
//! ```
//! Flush and compaction are run by the caller's threads. The tree's own memtable stays empty: its skip list took most
//! of the time of a write.
//!
//! - `store`: one tree: batches, visibility, flush, compaction. `config`: the tree's memory and shape.
//! - `layers`: the buffers in front of a tree. `buffer`: one of them, of `family` (keys in order) and `arena` (bytes).
//! - `view`: snapshots. `merge`: their scans. `recent`: the latest value of rows in use. `resident`: all current rows
//!   of a small tree.
//! - `pointer`: which directory is the current tree.
//! - `builder`: a second tree, for a snapshot that arrives from another node.

mod arena;
mod buffer;
mod builder;
mod config;
mod family;
mod layers;
mod merge;
mod pointer;
mod recent;
mod resident;
mod residents;
mod store;
mod view;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use base::Fault;
use bytes::Bytes;
use kernel::Mark;
use lsm_tree::Cache;
use mvcc::engine::{Batch, Engine, View};

use crate::disk::{OsDisk, SyncMode};
use store::Store;

pub use builder::{Built, EngineBuilder};

/// The row that holds the state machine's [`Mark`]; written by the state machine in every batch.
pub const MARK_KEY: &[u8] = b"mmark";

/// Memory and shape of an engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EngineOptions {
    /// Bytes of caches: half for the current rows as long as they all fit (twice that for the moment in which a flush
    /// renews them), three eighths for blocks of tables, an eighth for single rows in use.
    pub cache_bytes: u64,
    /// A write buffer is sealed when it takes this much memory.
    pub memtable_bytes: u64,
    /// Sealed buffers above which writers should wait, see [`LsmEngine::write_stall`].
    pub sealed_max: usize,
    /// Whether blocks are compressed (LZ4) below level 0.
    pub compression: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { cache_bytes: 64 << 20, memtable_bytes: 6 << 20, sealed_max: 2, compression: false }
    }
}

impl EngineOptions {
    const fn resident_bytes(&self) -> u64 {
        self.cache_bytes / 2
    }

    const fn block_cache_bytes(&self) -> u64 {
        self.cache_bytes / 8 * 3
    }

    const fn recent_bytes(&self) -> u64 {
        self.cache_bytes / 8
    }
}

/// Whether writers should hold back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Pressure {
    /// No.
    None,
    /// Upkeep falls behind: propose less.
    High,
    /// Upkeep is far behind: the next write may have to do it.
    Full,
}

/// Figures for metrics and status.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EngineStats {
    /// Bytes of tables.
    pub disk_bytes: u64,
    /// Tables.
    pub tables: u64,
    /// Runs in level 0, each of which a scan has to look at.
    pub level0_runs: u64,
    /// Memory of write buffers: those in use, sealed ones, and flushed ones that views still hold.
    pub memtable_bytes: u64,
    /// Bytes of filters and indexes that are always in memory.
    pub pinned_bytes: u64,
    /// Bytes of the tree's rows in memory, those of leases included; `None` if the current rows are too many, or were
    /// not read yet after a start.
    pub resident_bytes: Option<u64>,
    /// Snapshots in use.
    pub views: u64,
}

/// The engine. Writes come from one thread at a time, [`LsmEngine::flush_sealed`] and [`LsmEngine::compact`] best from
/// one other thread each, reads from any.
pub struct LsmEngine {
    root: PathBuf,
    options: EngineOptions,
    cache: Arc<Cache>,
    current: RwLock<Arc<Store>>,
    /// Held by installation, and by writers for the time of a batch.
    writer: Mutex<()>,
    /// One compaction at a time.
    upkeep: Mutex<()>,
}

impl LsmEngine {
    /// Opens the engine in the directory `root`, or makes an empty one if there is none. What an interrupted snapshot
    /// installation left behind is removed.
    ///
    /// # Errors
    /// [`Fault::Corrupt`] if a file is missing or damaged, with what to do; [`Fault::Io`].
    pub fn open(root: impl Into<PathBuf>, options: EngineOptions) -> Result<Self, Fault> {
        let root = root.into();
        std::fs::create_dir_all(&root).map_err(|error| crate::disk::io_fault("create directory", &root, &error))?;
        let disk = OsDisk::new(&root, SyncMode::Durable);
        let cache = Arc::new(Cache::with_capacity_bytes(options.block_cache_bytes()));
        let number = pointer::read(&disk)?;
        pointer::remove_others(&disk, &root, number)?;
        let store = match number {
            Some(number) => Store::open(&root, number, options, &cache)?,
            None => {
                pointer::write(&disk, 0)?;
                let store = Store::create(&root, 1, options, &cache)?;
                pointer::write(&disk, 1)?;
                store
            }
        };
        Ok(Self {
            root,
            options,
            cache,
            current: RwLock::new(Arc::new(store)),
            writer: Mutex::new(()),
            upkeep: Mutex::new(()),
        })
    }

    fn store(&self) -> Arc<Store> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// All upkeep in one call: [`Self::flush_sealed`], then [`Self::compact`]. For callers that can wait, or have one
    /// thread only: while a compaction runs nothing is flushed, and writers may have to wait for its end.
    ///
    /// # Errors
    /// [`Fault::Io`]; after a full disk it may be called again.
    pub fn maintain(&self) -> Result<bool, Fault> {
        let flushed = self.flush_sealed()?;
        Ok(self.compact()? || flushed)
    }

    /// Writes sealed buffers to level 0, durably. Answers whether there were any. Takes about as long as the disk
    /// needs for them; reads, writes and a compaction go on meanwhile. To be called by a thread of its own as soon as
    /// [`Self::write_stall`] is above [`Pressure::None`], or every few milliseconds.
    ///
    /// # Errors
    /// [`Fault::Io`]; after a full disk it may be called again.
    pub fn flush_sealed(&self) -> Result<bool, Fault> {
        self.store().flush()
    }

    /// Performs at most one compaction. Answers whether there may be more to do. It can take seconds; reads, writes and
    /// flushes go on meanwhile.
    ///
    /// # Errors
    /// [`Fault::Io`]; after a full disk it may be called again.
    pub fn compact(&self) -> Result<bool, Fault> {
        let _one = self.upkeep.lock().unwrap_or_else(PoisonError::into_inner);
        self.store().compact()
    }

    /// Makes room: writes everything out and rewrites all tables without what was deleted or replaced. Reads, writes
    /// and flushes go on meanwhile.
    ///
    /// # Errors
    /// [`Fault::Io`]; after a full disk it may be called again.
    pub fn compact_fully(&self) -> Result<(), Fault> {
        let _one = self.upkeep.lock().unwrap_or_else(PoisonError::into_inner);
        self.flush_all()?;
        self.store().compact_fully()
    }

    /// Makes everything written so far durable, and with it the mark.
    ///
    /// # Errors
    /// [`Fault::Io`].
    pub fn flush_all(&self) -> Result<(), Fault> {
        let store = self.store();
        store.seal();
        store.flush().map(|_| ())
    }

    /// Whether writers should hold back until [`LsmEngine::maintain`] has caught up.
    #[must_use]
    pub fn write_stall(&self) -> Pressure {
        self.store().pressure()
    }

    /// Whether a buffer waits to be flushed: time to call [`LsmEngine::maintain`].
    #[must_use]
    pub fn wants_upkeep(&self) -> bool {
        self.store().has_sealed()
    }

    /// The mark in the part that survives a crash; `None` as long as no mark was flushed. Log entries up to it are no
    /// longer needed for recovery.
    ///
    /// # Errors
    /// [`Fault::Corrupt`] if the row is not a mark.
    pub fn persisted_mark(&self) -> Result<Option<Mark>, Fault> {
        let store = self.store();
        store.persisted_mark().map(|row| decode_mark(&row, &store.place())).transpose()
    }

    /// The mark as last written.
    ///
    /// # Errors
    /// [`Fault::Corrupt`] if the row is not a mark; [`Fault::Io`].
    pub fn applied_mark(&self) -> Result<Option<Mark>, Fault> {
        let store = self.store();
        let row = self.view().get(MARK_KEY)?;
        row.map(|row| decode_mark(&row, &store.place())).transpose()
    }

    /// A snapshot for streaming: it holds no older row versions back from compaction, at the price of slow point reads.
    /// For the sender of a snapshot; everything else uses [`Engine::view`].
    #[must_use]
    pub fn stream_view(&self) -> Box<dyn View> {
        Box::new(self.store().pinned_view())
    }

    /// Starts a second engine next to this one, to be filled from a snapshot and put in its place.
    ///
    /// # Errors
    /// [`Fault::Io`].
    pub fn builder(&self) -> Result<EngineBuilder, Fault> {
        EngineBuilder::new(&self.root, self.store().number() + 1, self.options, &self.cache)
    }

    /// Puts a finished builder's rows in the place of all rows, atomically and durably: after a crash the engine has
    /// either the old rows or the new ones. The old files are removed once the last view of them is gone.
    ///
    /// # Errors
    /// [`Fault::Io`]; nothing has changed then, unless the fault names the pointer file.
    ///
    /// # Panics
    /// If the builder was not made by this engine since its last installation: a bug of the caller.
    pub fn install(&self, built: Built) -> Result<(), Fault> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let store = built.into_store();
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        assert!(store.number() == current.number() + 1, "a builder of another engine, or an old one");
        assert!(store.root() == self.root, "a builder of another engine");
        pointer::write(&OsDisk::new(&self.root, SyncMode::Durable), store.number())?;
        let old = std::mem::replace(&mut *current, Arc::new(store));
        old.doom();
        Ok(())
    }

    /// Figures for metrics and status.
    #[must_use]
    pub fn stats(&self) -> EngineStats {
        self.store().stats()
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }
}

impl Engine for LsmEngine {
    fn view(&self) -> Box<dyn View> {
        Box::new(self.store().view())
    }

    fn write(&self, batch: Batch) -> Result<(), Fault> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let store = self.store();
        store.write(batch)?;
        drop(writer);
        // The bound that holds when the caller ignores the pressure: the writer does the flush itself.
        if store.overfull() {
            store.flush()?;
        }
        Ok(())
    }
}

fn decode_mark(row: &Bytes, place: &str) -> Result<Mark, Fault> {
    kernel::wire::decode_mark(row.clone())
        .map_err(|error| Fault::Corrupt { place: format!("{place}, mark row"), detail: error.to_string() })
}
