//! Reads entries back, from any thread, while the log is being written. Every record's checksum is verified again.

use std::sync::{Arc, PoisonError, RwLock};

use base::{Fault, GroupId, Index};
use bytes::Bytes;
use kernel::{Entry, Position};

use super::index::{Location, LogIndex};
use super::record::{damaged, decode_record};
use super::segment::Segment;
use crate::disk::Disk;

/// Neighbouring records are read together up to this many bytes.
const READ_BYTES_MAX: u64 = 1024 * 1024;

/// What a read found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Loaded {
    /// Consecutive entries from the index asked for; fewer than asked, or none, if the rest is not durable yet.
    Entries(Vec<Entry>),
    /// The log starts after this position: the entries are gone, a snapshot is needed.
    Compacted(Position),
}

/// A handle to read the log; cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct WalReader {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) index: Arc<RwLock<LogIndex>>,
}

struct Piece {
    index: Index,
    segment: Arc<Segment>,
    at: Location,
}

impl WalReader {
    /// The durable entries `from..until` of a group, in order, stopping after about `bytes_max` bytes but not before
    /// the first entry.
    ///
    /// # Errors
    /// [`Fault::Corrupt`] if an entry is not what was written, [`Fault::Io`] if it cannot be read.
    pub fn load(&self, group: GroupId, from: Index, until: Index, bytes_max: usize) -> Result<Loaded, Fault> {
        let pieces = match self.locate(group, from, until, bytes_max) {
            Ok(pieces) => pieces,
            Err(base) => return Ok(Loaded::Compacted(base)),
        };
        let mut entries = Vec::with_capacity(pieces.len());
        let mut rest = pieces.as_slice();
        while let Some(first) = rest.first() {
            // Overwritten and rewritten entries may stand before their predecessors.
            let mut end = first.at.offset;
            let follows = |piece: &&Piece| {
                let fits = piece.segment.number == first.segment.number
                    && piece.at.offset >= end
                    && u64::from(piece.at.offset + piece.at.len - first.at.offset) <= READ_BYTES_MAX;
                end = piece.at.offset + piece.at.len;
                fits
            };
            let run = rest.iter().take_while(follows).count().max(1);
            self.read_run(group, &rest[..run], &mut entries)?;
            rest = &rest[run..];
        }
        Ok(Loaded::Entries(entries))
    }

    /// Index of the last durable entry of a group.
    #[must_use]
    pub fn last(&self, group: GroupId) -> Option<Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner).groups.get(&group).map(super::index::GroupLog::last)
    }

    /// Decides under the lock what to read; the files are read without it. The segments stay open as long as they are
    /// held here, and are not reused.
    fn locate(&self, group: GroupId, from: Index, until: Index, bytes_max: usize) -> Result<Vec<Piece>, Position> {
        // A thread that panicked while holding the lock brings the process down; until then the index is as it was.
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let Some(log) = index.groups.get(&group) else { return Ok(Vec::new()) };
        if from <= log.base.index {
            return Err(log.base);
        }
        let (mut pieces, mut bytes) = (Vec::new(), 0);
        let mut at = from;
        while at < until {
            let Some(location) = log.location(at) else { break };
            bytes += location.len as usize;
            if bytes > bytes_max && !pieces.is_empty() {
                break;
            }
            let segment = index.segments.get(&location.segment).expect("an entry's segment is open");
            pieces.push(Piece { index: at, segment: Arc::clone(segment), at: location });
            at = at.next();
        }
        Ok(pieces)
    }

    fn read_run(&self, group: GroupId, run: &[Piece], entries: &mut Vec<Entry>) -> Result<(), Fault> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(()) };
        let segment = &first.segment;
        let mut bytes = vec![0; (last.at.offset + last.at.len - first.at.offset) as usize];
        segment.file.read_at(u64::from(first.at.offset), &mut bytes)?;
        let bytes = Bytes::from(bytes);
        for piece in run {
            let offset = u64::from(piece.at.offset);
            let start = (piece.at.offset - first.at.offset) as usize;
            let record = bytes.slice(start..start + piece.at.len as usize);
            let fail = |detail: &str| damaged(&segment.place(&*self.disk), offset, detail);
            let decoded = decode_record(&record, segment.address(offset)).map_err(|detail| fail(&detail))?;
            let found = decoded.group;
            match decoded.into_entry() {
                Some(entry) if found == group && entry.index == piece.index => entries.push(entry),
                _ => return Err(fail(&format!("expected entry {} of group {group}", piece.index))),
            }
        }
        Ok(())
    }
}
