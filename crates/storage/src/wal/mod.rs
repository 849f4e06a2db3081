//! The node's write-ahead log: one sequence of records for all groups, in segments of fixed size.
//!
//! Invariant: [`Wal::sync`] answers `Synced` only when every record staged before is on stable storage, and recovery
//! gives back every record that was ever answered so, or refuses.
//!
//! ```text
//!  append ─► staging (one buffer) ─► sync: one write, one fdatasync ─► index ─► readers
//!                                     │ segment full: next one, prepared ahead by `maintain`
//! ```
//! - [`record`], [`frame`], [`segment`]: the format, from the inside out.
//! - [`writer`]: staging and placement (group commit).
//! - [`recovery`], [`scan`]: what a start makes of the files.
//! - [`gc`]: segments that nobody needs become spares; spares become the next segments.
//! - [`index`], [`reader`]: where the entries are, and reading them back.
//!
//! After any error the log is poisoned: every later call returns the first fault. Above all a failed sync is never
//! repeated, since the kernel may have dropped the pages and would answer that all is well.

mod frame;
mod gc;
mod index;
mod planted;
mod reader;
mod record;
mod recovery;
mod scan;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use base::{Defect, Fault, GroupId, Lsn, Synced};
use kernel::Record;

use crate::disk::{BLOCK_BYTES, Disk, is_full};
use gc::Spares;
use index::LogIndex;
use planted::Bug;
use record::{Change, Hard};
use segment::FIRST_FRAME;
use writer::{Active, Counters, Staging};

pub use gc::Space;
pub use reader::{Loaded, WalReader};
pub use recovery::{RecoveredLog, TornTail};
pub use segment::{WAL_FORMAT, WalIdentity};

/// Smallest segment: the header and three blocks of frames.
const SEGMENT_BYTES_MIN: u64 = 4 * BLOCK_BYTES as u64;
/// Offsets within a segment are kept in 32 bits.
const SEGMENT_BYTES_MAX: u64 = 1 << 31;

/// How a log is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalOptions {
    /// Size of new segments in bytes; a multiple of 4096.
    pub segment_bytes: u64,
    /// Whether a log that does not exist may be made. Only for a data directory whose creation is not finished: a
    /// node that lost its log has forgotten its promises.
    pub may_create: bool,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self { segment_bytes: base::limits::WAL_SEGMENT_BYTES, may_create: false }
    }
}

/// Figures for metrics and status.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WalStats {
    /// Segments that hold frames.
    pub segments: u64,
    /// Bytes of entries still needed.
    pub live_bytes: u64,
    /// Flushes (calls of `fdatasync` on behalf of [`Wal::sync`]) since the log was opened.
    pub flushes: u64,
    /// Bytes written since the log was opened, padding included.
    pub written_bytes: u64,
    /// Bytes waiting for the next sync.
    pub staged_bytes: u64,
}

/// The log. One thread at a time writes it; readers go through [`Wal::reader`].
pub struct Wal {
    disk: Arc<dyn Disk>,
    identity: WalIdentity,
    options: WalOptions,
    index: Arc<RwLock<LogIndex>>,
    staging: Staging,
    active: Active,
    counters: Counters,
    spares: Spares,
    synced: Lsn,
    poison: Option<Fault>,
    flushes: u64,
    written_bytes: u64,
}

impl Wal {
    /// Opens the log in `wal/` on `disk`, verifying every byte that is still needed, and cutting a torn tail. What is
    /// found is durable when this returns.
    ///
    /// # Errors
    /// [`Fault::Corrupt`] if something that was durable is damaged or missing; [`Fault::Refused`] if the log belongs to
    /// another node or format, or the options make no sense; [`Fault::Io`].
    pub fn open(
        disk: Arc<dyn Disk>,
        identity: WalIdentity,
        options: WalOptions,
    ) -> Result<(Self, RecoveredLog), Fault> {
        let bytes = options.segment_bytes;
        if !bytes.is_multiple_of(BLOCK_BYTES as u64) || !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&bytes) {
            return Err(Fault::Refused(format!(
                "a log segment of {bytes} bytes is not possible: use a multiple of {BLOCK_BYTES} from \
                 {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX}"
            )));
        }
        recovery::open(disk, identity, options)
    }

    /// Stages the records of one turn, all groups together, under the number `lsn`. Nothing is written yet. Records of
    /// one group keep their order; the turn becomes durable as a whole or not at all.
    ///
    /// # Errors
    /// A record too large for a segment is refused and poisons the log, since part of the turn is staged already.
    ///
    /// # Panics
    /// If `lsn` does not rise, or entries leave a hole in a group's log: bugs of the caller.
    pub fn append(&mut self, lsn: Lsn, batch: &[(GroupId, Vec<Record>)]) -> Result<(), Fault> {
        self.check()?;
        assert!(lsn.0 > self.counters.lsn, "turn {lsn} after turn {}", self.counters.lsn);
        self.counters.lsn = lsn.0;
        let staged = self.stage(batch);
        self.poison_on_error(staged)
    }

    fn stage(&mut self, batch: &[(GroupId, Vec<Record>)]) -> Result<(), Fault> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        for (group, records) in batch {
            for record in records {
                match record {
                    Record::Hard { promised, accepted, commit } => {
                        let hard = Hard { promised: *promised, accepted: *accepted, commit: *commit };
                        self.staging.put(&index, *group, Change::Hard(hard), None)?;
                    }
                    Record::Append(entries) => {
                        for entry in entries {
                            let (stamp, origin) = (entry.stamp, entry.origin);
                            let change = Change::Entry { index: entry.index, stamp, origin };
                            self.staging.put(&index, *group, change, Some(entry))?;
                        }
                    }
                    Record::Truncate { from } => {
                        self.staging.put(&index, *group, Change::Truncate { from: *from }, None)?;
                    }
                    Record::Compact { base, keep_suffix } => {
                        let change = Change::Compact { base: *base, keep_suffix: *keep_suffix };
                        self.staging.put(&index, *group, change, None)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Stages that a group's replica has left this node: its log and promises are gone with the next sync. A replica
    /// of the group that comes later is another one and must have another id.
    ///
    /// # Errors
    /// If the log is poisoned.
    pub fn forget(&mut self, group: GroupId) -> Result<(), Fault> {
        self.check()?;
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        self.staging.put(&index, group, Change::Forget, None)
    }

    /// Writes everything staged and makes it durable: one write and one `fdatasync` per segment touched, that is one
    /// nearly always. Answers the last turn that is durable.
    ///
    /// # Errors
    /// Any. The log is poisoned: it is unknown whether the staged turns will be found at the next start.
    pub fn sync(&mut self) -> Result<Synced<Lsn>, Fault> {
        self.check()?;
        if !self.staging.is_empty() {
            let flushed = self.flush();
            self.poison_on_error(flushed)?;
        }
        // A turn without records is durable together with everything before it.
        self.synced = Lsn(self.counters.lsn);
        Ok(Synced::attest(self.synced))
    }

    fn flush(&mut self) -> Result<(), Fault> {
        self.staging.close();
        let mut locations = Vec::new();
        let mut first = 0;
        while first < self.staging.frames() {
            let fitting = self.staging.fitting(first, &self.active);
            if fitting == 0 {
                // Everything in the old segment is durable before the new one gets its first frame: recovery relies
                // on it when it takes a gap before a later segment for damage.
                match self.rotate() {
                    Err(fault) if is_full(&fault) && base::planted::planted(Defect::HalfBatch) => break,
                    rotated => rotated?,
                }
                continue;
            }
            let placed = self.staging.place(first, first + fitting, &self.active, &mut self.counters, &mut locations);
            let bytes = self.staging.bytes_of(&placed);
            self.active.segment.file.write_at(self.active.offset, bytes)?;
            let durable = self.active.segment.file.sync_data();
            if !planted::is(Bug::SyncErrorIgnored) {
                durable?;
            }
            self.active.offset += bytes.len() as u64;
            self.written_bytes += bytes.len() as u64;
            self.flushes += 1;
            first += fitting;
        }
        self.counters.flush += 1;
        let index = Arc::clone(&self.index);
        let mut index = index.write().unwrap_or_else(PoisonError::into_inner);
        self.staging.finish(&mut index, &locations);
        self.spares.flushed(&mut index);
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), Fault> {
        let (segment, size) = self.next_segment()?;
        let number = u32::try_from(segment.number)
            .map_err(|_| Fault::Refused("the log has used up its segment numbers".to_owned()))?;
        let segment = Arc::new(segment);
        self.write_index().segments.insert(number, Arc::clone(&segment));
        self.active = Active { segment, offset: FIRST_FRAME, size };
        Ok(())
    }

    /// A handle that reads durable entries, from any thread.
    #[must_use]
    pub fn reader(&self) -> WalReader {
        WalReader { disk: Arc::clone(&self.disk), index: Arc::clone(&self.index) }
    }

    /// Bytes that can be written without first making a segment on the spot, which takes long.
    #[must_use]
    pub fn room(&self) -> u64 {
        if self.spares.is_next_ready() { u64::MAX } else { self.active.size - self.active.offset }
    }

    /// The number for the next turn.
    #[must_use]
    pub const fn next_lsn(&self) -> Lsn {
        Lsn(self.counters.lsn + 1)
    }

    /// The last turn that is durable.
    #[must_use]
    pub const fn synced(&self) -> Lsn {
        self.synced
    }

    /// Figures for metrics and status.
    #[must_use]
    pub fn stats(&self) -> WalStats {
        let index = self.read_index();
        WalStats {
            segments: index.segments.len() as u64,
            live_bytes: index.live(),
            flushes: self.flushes,
            written_bytes: self.written_bytes,
            staged_bytes: self.staging.bytes() as u64,
        }
    }

    fn check(&self) -> Result<(), Fault> {
        self.poison.clone().map_or(Ok(()), Err)
    }

    fn poison_on_error<T>(&mut self, result: Result<T, Fault>) -> Result<T, Fault> {
        if let Err(fault) = &result {
            self.poison = Some(fault.clone());
        }
        result
    }

    // Lock poisoning: a thread that panicked while holding the lock brings the process down; the index it leaves is
    // never half changed, since changes happen only in `finish` and `apply`, which do not panic on their own account.
    fn read_index(&self) -> RwLockReadGuard<'_, LogIndex> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_index(&self) -> RwLockWriteGuard<'_, LogIndex> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }
}
