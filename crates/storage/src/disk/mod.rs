//! The disk as the log and the small files see it: named files under one root, positioned reads and writes, explicit
//! durability. Nothing is durable before `sync_data`, no name before `sync_dir`.
//!
//! Two implementations: [`OsDisk`] on a directory of the operating system, [`MemDisk`] in memory with crashes and
//! faults on command. Both are run by the same log code.

mod mem;
mod os;

use std::sync::Arc;

use base::Fault;

pub use mem::{MemDisk, WriteFault};
pub(crate) use os::io_fault;
pub use os::{OsDisk, SyncMode};

/// How a [`Fault::Io`]'s cause starts when the disk has no room left.
pub const DISK_FULL: &str = "disk full";

/// The unit in which a disk is assumed to tear, and the log's alignment: no acknowledged byte shares a block with a
/// later write.
pub const BLOCK_BYTES: usize = 4096;

/// Bytes written at a time when a file is filled with zeros.
const ZERO_CHUNK_BYTES: usize = 256 * 1024;

/// Named files below one root. Names are relative, separated by `/`. All errors are [`Fault::Io`] and final: the
/// caller stops, it does not retry.
pub trait Disk: Send + Sync {
    /// A new empty file. Fails if the name exists. The name is durable after [`Disk::sync_dir`].
    fn create(&self, name: &str) -> Result<Arc<dyn File>, Fault>;

    /// An existing file, for reading and writing.
    fn open(&self, name: &str) -> Result<Arc<dyn File>, Fault>;

    /// Makes a directory; one that exists is fine. The parent must exist; it is synced.
    fn create_dir(&self, name: &str) -> Result<(), Fault>;

    /// The names of the files in a directory, without the directory, ascending.
    fn list(&self, dir: &str) -> Result<Vec<String>, Fault>;

    /// Whether a file or directory of this name exists.
    fn exists(&self, name: &str) -> Result<bool, Fault>;

    /// Renames a file within a directory, replacing what was there. Atomic; durable after [`Disk::sync_dir`].
    fn rename(&self, from: &str, to: &str) -> Result<(), Fault>;

    /// Removes a file. Open handles stay usable.
    fn remove(&self, name: &str) -> Result<(), Fault>;

    /// Makes the names in a directory durable. The root is the empty name.
    fn sync_dir(&self, dir: &str) -> Result<(), Fault>;

    /// The name as an operator would look for it.
    fn describe(&self, name: &str) -> String;
}

/// An open file; positioned access only, so that threads can share it.
pub trait File: Send + Sync {
    /// Fills `into` from `offset`; a shorter file is an error.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), Fault>;

    /// Writes all of `bytes` at `offset`. Not durable before [`File::sync_data`].
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Fault>;

    /// Makes everything written, and the size, durable. After an error nothing may be assumed about what is durable,
    /// and a second call proves nothing (Rebello et al., "Can applications recover from fsync failures?", 2020).
    fn sync_data(&self) -> Result<(), Fault>;

    /// The file's size in bytes.
    fn size(&self) -> Result<u64, Fault>;

    /// Writes zeros to `from..until`, so that later writes there allocate nothing.
    fn zero_fill(&self, from: u64, until: u64) -> Result<(), Fault> {
        let zeros = vec![0u8; ZERO_CHUNK_BYTES.min(usize::try_from(until - from).unwrap_or(ZERO_CHUNK_BYTES))];
        let mut at = from;
        while at < until {
            let len = (until - at).min(zeros.len() as u64);
            self.write_at(at, &zeros[..len as usize])?;
            at += len;
        }
        Ok(())
    }
}

/// Whether a fault means that the disk has no room left.
#[must_use]
pub fn is_full(fault: &Fault) -> bool {
    matches!(fault, Fault::Io { cause, .. } if cause.starts_with(DISK_FULL))
}

/// Replaces the file `name` in `dir` by `contents`, so that after a crash either the old or the new contents are found.
pub fn replace_file(disk: &dyn Disk, dir: &str, name: &str, contents: &[u8]) -> Result<(), Fault> {
    let join = |name: &str| if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") };
    let (target, draft) = (join(name), join(&format!("{name}.tmp")));
    if disk.exists(&draft)? {
        disk.remove(&draft)?;
    }
    let file = disk.create(&draft)?;
    file.write_at(0, contents)?;
    file.sync_data()?;
    disk.rename(&draft, &target)?;
    disk.sync_dir(dir)
}

/// The whole contents of a small file, at most `bytes_max`.
pub fn read_file(disk: &dyn Disk, name: &str, bytes_max: usize) -> Result<Vec<u8>, Fault> {
    let file = disk.open(name)?;
    let size = file.size()?;
    match usize::try_from(size) {
        Ok(size) if size <= bytes_max => {
            let mut contents = vec![0; size];
            file.read_at(0, &mut contents)?;
            Ok(contents)
        }
        _ => Err(Fault::Corrupt {
            place: disk.describe(name),
            detail: format!("the file has {size} bytes, at most {bytes_max} are expected"),
        }),
    }
}
