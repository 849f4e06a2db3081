//! Everything of a node that outlives the process: the disk, the write-ahead log, the state machine's rows.
//!
//! - [`disk`]: the only way to the disk for the log and small files; a real one, and one in memory that fails on
//!   command.
//! - [`wal`]: the node's write-ahead log for all its groups. The only production code that attests durability.
//! - [`engine`]: the state machine's rows in an LSM tree, without a log of its own.
//! - [`layout`]: the data directory: who it belongs to, and that one process has it.
//! - [`peers`]: which data the other nodes spoke from.
//! - [`snapshot`]: a state machine's rows as a stream of chunks; [`snapshot_file`]: as a file.
//!
//! The crate stores the kernel's records and the state machine's rows; it decides nothing about either.

pub mod disk;
pub mod engine;
pub mod layout;
pub mod peers;
mod sha256;
pub mod snapshot;
pub mod snapshot_file;
pub mod wal;

pub use disk::{Disk, File, MemDisk, OsDisk};
pub use engine::{Built, EngineBuilder, EngineOptions, LsmEngine, Pressure};
pub use layout::{DataDir, Identity};
pub use peers::KnownPeers;
pub use snapshot::{Chunk, SnapshotReader, SnapshotWriter};
pub use snapshot_file::{SnapshotFile, SnapshotFrames};
pub use wal::{RecoveredLog, Wal, WalReader};
