//! Everything of a node that outlives the process: the disk, the write-ahead log, the state machine's rows.
//!
//! - [`disk`]: the only way to the disk for the log and small files; a real one, and one in memory that fails on command.
//! - [`wal`]: the node's write-ahead log for all its groups. The only production code that attests durability.
//!
//! The crate stores the kernel's records and the state machine's rows; it decides nothing about either.

pub mod disk;
pub mod wal;

pub use disk::{Disk, File, MemDisk, OsDisk};
pub use wal::{RecoveredLog, Wal, WalReader};
