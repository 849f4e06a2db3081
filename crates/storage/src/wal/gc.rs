//! Segments ahead and segments behind: preparing the next one before it is needed, and giving back those whose
//! records nobody needs.
//!
//! Ahead: one prepared segment, so that rotation costs nothing, and one spare file, the reserve: when the disk fills
//! up, the log still has room for a segment and a half to say so in an orderly way.
//!
//! Behind: only the oldest segment is ever given back. What is still needed of it (promises, bases, the tail of a group
//! that hardly writes) is staged again at the log's end first. A frame that names a later oldest segment, once durable,
//! is the point of no return; only then is the file reused. Like raft-engine's rewrite, or the cleaner of a
//! log-structured file system (Rosenblum and Ousterhout, 1991).

use std::sync::{Arc, PoisonError};

use base::{Fault, GroupId};
use kernel::Entry;

use super::Wal;
use super::index::LogIndex;
use super::planted::{self, Bug};
use super::reader::Loaded;
use super::record::Change;
use super::segment::{DIR, FIRST_FRAME, Segment, segment_name, spare_name, write_header};
use crate::disk::{File, is_full};

/// Bytes filled with zeros, or rewritten, per step.
const STEP_BYTES: u64 = 1024 * 1024;
/// Entries looked up per rewriting step.
const STEP_ENTRIES: usize = 1024;
/// With fewer segments than this nothing is rewritten: waiting is cheaper.
const SEGMENTS_BEFORE_REWRITE: usize = 4;
/// With more segments than this even a well-filled oldest segment is rewritten, if most of the log is garbage.
const SEGMENTS_BEFORE_CLEANING: usize = 8;

/// Complete files kept for reuse.
const SPARES_MAX: usize = 3;

/// How much room the log has ahead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Space {
    /// The next segment and a reserve are prepared, or will be.
    Ample,
    /// The disk is full. The log can take this many more bytes; after that it fails. Proposals should be refused now.
    Low {
        /// Bytes left in prepared segments.
        bytes: u64,
        /// What the disk said.
        fault: Fault,
    },
}

struct Spare {
    name: String,
    file: Arc<dyn File>,
    /// Bytes that are filled.
    filled: u64,
}

/// Files that wait for their next use.
pub(crate) struct Spares {
    /// The next segment, ready to be written.
    next: Option<(Segment, u64)>,
    /// Complete files.
    ready: Vec<Spare>,
    /// A file being made.
    filling: Option<Spare>,
    /// Segments given back, waiting for the flush that says so.
    leaving: Vec<Arc<Segment>>,
    /// Of which this many may be reused: that flush is durable.
    left: usize,
    counter: u64,
    full: Option<Fault>,
}

impl Spares {
    pub(crate) fn new(counter: u64) -> Self {
        Self { next: None, ready: Vec::new(), filling: None, leaving: Vec::new(), left: 0, counter, full: None }
    }

    /// A flush is durable, and with it the mark that releases the leaving segments; their entries are elsewhere now.
    pub(crate) fn flushed(&mut self, index: &mut LogIndex) {
        self.left = self.leaving.len();
        for segment in &self.leaving {
            index.segments.retain(|number, _| u64::from(*number) != segment.number);
        }
    }

    /// A segment that was given back in an earlier life, but is still there.
    pub(crate) fn add_left(&mut self, segment: Segment) {
        self.leaving.push(Arc::new(segment));
        self.left = self.leaving.len();
    }

    pub(crate) fn is_next_ready(&self) -> bool {
        self.next.is_some()
    }

    pub(crate) fn set_next(&mut self, segment: Segment, size: u64) {
        self.next = Some((segment, size));
    }

    pub(crate) fn add_ready(&mut self, name: String, file: Arc<dyn File>, filled: u64) {
        self.ready.push(Spare { name, file, filled });
    }

    pub(crate) fn ready(&self) -> usize {
        self.ready.len()
    }
}

impl Wal {
    /// One bounded step of upkeep: gives back old segments, prepares the next ones. To be called
    /// after a sync and when idle; answers whether there is more to do right now. A step writes at most about 1 MiB.
    ///
    /// # Errors
    /// As [`Wal::sync`]. A full disk is no error here: see [`Wal::space`].
    pub fn maintain(&mut self) -> Result<bool, Fault> {
        self.check()?;
        let step = self.maintain_step();
        self.poison_on_error(step)
    }

    /// How much room is left; looks at the result of the last [`Wal::maintain`].
    #[must_use]
    pub fn space(&self) -> Space {
        match &self.spares.full {
            None => Space::Ample,
            Some(fault) => {
                let next = self.spares.next.as_ref().map_or(0, |(_, size)| size - FIRST_FRAME);
                let ready = self.spares.ready.len() as u64 * (self.options.segment_bytes - FIRST_FRAME);
                let bytes = self.active.size - self.active.offset + next + ready;
                Space::Low { bytes, fault: fault.clone() }
            }
        }
    }

    fn maintain_step(&mut self) -> Result<bool, Fault> {
        if self.spares.left > 0 {
            self.recycle()?;
            return Ok(true);
        }
        if self.spares.next.is_none() && !self.spares.ready.is_empty() {
            self.prepare_next()?;
            return Ok(true);
        }
        // Segments that are about to come free are cheaper than new files.
        let soon = self.spares.next.is_some() && !self.spares.leaving.is_empty();
        if (self.spares.next.is_none() || self.spares.ready.is_empty()) && !soon {
            match self.fill_spare(STEP_BYTES) {
                Ok(()) => {
                    self.spares.full = None;
                    return Ok(true);
                }
                Err(fault) if is_full(&fault) => {
                    self.drop_filling()?;
                    self.spares.full = Some(fault);
                }
                Err(fault) => return Err(fault),
            }
        }
        self.collect()
    }

    /// The segment to write to after the active one; made on the spot if upkeep did not keep up.
    pub(super) fn next_segment(&mut self) -> Result<(Segment, u64), Fault> {
        if self.spares.next.is_none() {
            while self.spares.ready.is_empty() {
                self.fill_spare(u64::MAX).map_err(|fault| self.explain_full(fault))?;
            }
            self.prepare_next()?;
        }
        Ok(self.spares.next.take().expect("just prepared"))
    }

    fn explain_full(&self, fault: Fault) -> Fault {
        match fault {
            Fault::Io { operation, path, cause } if cause.starts_with(crate::disk::DISK_FULL) => Fault::Io {
                operation,
                path,
                cause: format!(
                    "{cause}; the log needs {} more bytes. Nothing that was acknowledged is lost: free that much and \
                     start the node again",
                    self.options.segment_bytes
                ),
            },
            other => other,
        }
    }

    /// Turns a complete spare file into the next segment: header first, then the name.
    fn prepare_next(&mut self) -> Result<(), Fault> {
        let Some(spare) = self.spares.ready.pop() else { return Ok(()) };
        let number = self.active.segment.number + 1;
        write_header(&*spare.file, self.identity, number, spare.filled)?;
        self.disk.rename(&spare.name, &segment_name(number))?;
        if !planted::is(Bug::NoDirectorySync) {
            self.disk.sync_dir(DIR)?;
        }
        let segment = Segment { number, file: spare.file, incarnation: self.identity.incarnation };
        self.spares.next = Some((segment, spare.filled));
        Ok(())
    }

    /// Makes a spare file, at most `step` bytes of it now. Zeros are written so that later writes change data only and
    /// `fdatasync` has no metadata to commit: half the latency.
    fn fill_spare(&mut self, step: u64) -> Result<(), Fault> {
        let size = self.options.segment_bytes;
        let mut spare = match self.spares.filling.take() {
            Some(spare) => spare,
            None => {
                self.spares.counter += 1;
                let name = spare_name(self.spares.counter);
                let file = self.disk.create(&name)?;
                Spare { name, file, filled: 0 }
            }
        };
        let until = spare.filled.saturating_add(step).min(size);
        let filled = spare.file.zero_fill(spare.filled, until).and_then(|()| spare.file.sync_data());
        if filled.is_ok() {
            spare.filled = until;
        }
        if spare.filled == size {
            self.spares.ready.push(spare);
        } else {
            self.spares.filling = Some(spare);
        }
        filled
    }

    fn drop_filling(&mut self) -> Result<(), Fault> {
        match self.spares.filling.take() {
            Some(spare) => self.disk.remove(&spare.name),
            None => Ok(()),
        }
    }

    /// Reuses the file of a segment that was given back, or removes it.
    fn recycle(&mut self) -> Result<(), Fault> {
        self.spares.left -= 1;
        let segment = self.spares.leaving.remove(0);
        let name = segment_name(segment.number);
        let size = segment.file.size()?;
        let wanted = self.spares.ready.len() < SPARES_MAX;
        match Arc::into_inner(segment) {
            Some(segment) if wanted && size == self.options.segment_bytes => {
                self.spares.counter += 1;
                let spare = spare_name(self.spares.counter);
                self.disk.rename(&name, &spare)?;
                // The name must be gone before the contents change, or a crash could leave a numbered segment with
                // the header of another.
                if !planted::is(Bug::NoDirectorySync) {
                    self.disk.sync_dir(DIR)?;
                }
                self.spares.add_ready(spare, segment.file, size);
                self.spares.full = None;
                if self.spares.next.is_some() { self.drop_filling() } else { Ok(()) }
            }
            // A reader still holds it, or there are spares enough.
            _ => {
                self.disk.remove(&name)?;
                self.disk.sync_dir(DIR)
            }
        }
    }

    /// Gives back the oldest segment, or stages a part of what is still needed of it.
    fn collect(&mut self) -> Result<bool, Fault> {
        // What is staged may truncate or overwrite what would be staged after it here.
        if !self.staging.is_empty() {
            return Ok(false);
        }
        let index = self.read_index();
        let first = u32::try_from(self.counters.oldest).unwrap_or(u32::MAX);
        let count = index.segments.range(first..).count();
        let Some((&oldest, segment)) = index.segments.range(first..).next() else { return Ok(false) };
        if segment.number == self.active.segment.number {
            return Ok(false);
        }
        let segment = Arc::clone(segment);
        let live = index.live_in(oldest);
        let nearly_empty = count >= SEGMENTS_BEFORE_REWRITE && live <= self.options.segment_bytes / 8;
        let garbage = count >= SEGMENTS_BEFORE_CLEANING && index.live() < self.options.segment_bytes * count as u64 / 2;
        drop(index);
        if live > 0 && !nearly_empty && !garbage {
            return Ok(false);
        }
        if live > 0 && !self.rewrite_entries(oldest)? {
            return Ok(true);
        }
        if !planted::is(Bug::NothingKept) {
            self.rewrite_states(oldest)?;
        }
        self.counters.oldest = segment.number + 1;
        self.spares.leaving.push(segment);
        Ok(true)
    }

    /// Stages entries of a segment again, in order; answers whether that were all.
    fn rewrite_entries(&mut self, oldest: u32) -> Result<bool, Fault> {
        let reader = self.reader();
        let mut budget = STEP_BYTES;
        let index = self.read_index();
        let groups: Vec<GroupId> =
            index.groups.iter().filter(|(_, log)| log.live_in(oldest) > 0).map(|(group, _)| *group).collect();
        drop(index);
        for group in groups {
            let mut wanted = self.read_index().groups[&group].indexes_in(oldest, STEP_ENTRIES);
            let complete = wanted.len() < STEP_ENTRIES;
            wanted.reverse();
            while let Some(at) = wanted.pop() {
                let entries = match reader.load(group, at, at.next(), usize::MAX)? {
                    Loaded::Entries(entries) => entries,
                    Loaded::Compacted(_) => Vec::new(),
                };
                for entry in entries {
                    budget = budget.saturating_sub(entry.payload.len() as u64 + 64);
                    self.restage(group, &entry)?;
                }
                if budget == 0 {
                    return Ok(false);
                }
            }
            if !complete {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn restage(&mut self, group: GroupId, entry: &Entry) -> Result<(), Fault> {
        let change = Change::Entry { index: entry.index, stamp: entry.stamp, origin: entry.origin };
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        self.staging.put(&index, group, change, Some(entry))
    }

    /// Stages the promises and bases that a segment holds the newest record of.
    fn rewrite_states(&mut self, oldest: u32) -> Result<(), Fault> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        for (group, log) in &index.groups {
            if log.hard_segment == oldest {
                self.staging.put(&index, *group, Change::Hard(log.hard), None)?;
            }
            if log.base_segment == oldest {
                let change = Change::Compact { base: log.base, keep_suffix: true };
                self.staging.put(&index, *group, change, None)?;
            }
        }
        Ok(())
    }
}
