//! Group commit: the records of all groups and turns since the last sync, encoded into one buffer, become one write
//! and one `fdatasync`.
//!
//! Every flush starts at a block boundary and nothing is ever written to a block of an earlier flush, so no torn write
//! can damage what was acknowledged.

use std::collections::BTreeMap;

use base::{Defect, Fault, GroupId, Index};
use kernel::Entry;

use super::frame::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FrameHeader, frame_span};
use super::index::{Location, LogIndex};
use super::record::{Change, RECORD_HEADER_BYTES, put_record, seal_record};
use super::segment::{FIRST_FRAME, Segment};
use crate::disk::BLOCK_BYTES;

/// Bytes of a record's fields besides the payload, at most.
const RECORD_FIELDS_MAX: usize = RECORD_HEADER_BYTES + 8 * 10 + 2;
/// The buffer gives memory back when a flush made it larger than this.
const BUFFER_BYTES_KEPT: usize = 8 * 1024 * 1024;

struct StagedRecord {
    start: usize,
    len: usize,
    group: GroupId,
    change: Change,
}

struct StagedFrame {
    start: usize,
    body: usize,
    /// One past the frame's last record.
    records_end: usize,
}

/// Records waiting for the next sync, already encoded where they will be written from.
#[derive(Default)]
pub(crate) struct Staging {
    buffer: Vec<u8>,
    frames: Vec<StagedFrame>,
    records: Vec<StagedRecord>,
    /// (base, last) of the groups touched, as they will be after the flush.
    ends: BTreeMap<GroupId, (Index, Index)>,
    frame_bytes_max: usize,
}

/// Records per frame that the segment size allows.
pub(crate) fn frame_bytes_max(segment_bytes: u64) -> usize {
    let room = segment_bytes - FIRST_FRAME - FRAME_HEADER_BYTES as u64;
    FRAME_BYTES_MAX.min(usize::try_from(room).unwrap_or(FRAME_BYTES_MAX))
}

impl Staging {
    /// Nothing staged; frames of at most this many bytes of records.
    pub(crate) fn new(frame_bytes_max: usize) -> Self {
        Self { frame_bytes_max, ..Self::default() }
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes waiting.
    pub(crate) fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Adds a change. Asserts that it continues the group's log: a hole would make the log unreadable at the next
    /// start.
    pub(crate) fn put(
        &mut self,
        index: &LogIndex,
        group: GroupId,
        change: Change,
        entry: Option<&Entry>,
    ) -> Result<(), Fault> {
        let bound = RECORD_FIELDS_MAX + entry.map_or(0, |entry| entry.payload.len());
        if bound > self.frame_bytes_max {
            return Err(Fault::Refused(format!(
                "a log record of {bound} bytes does not fit the log's frames of {} bytes",
                self.frame_bytes_max
            )));
        }
        self.check_continuity(index, group, &change);
        if self.frames.last().is_none_or(|frame| frame.body + bound > self.frame_bytes_max) {
            self.open_frame();
        }
        let start = self.buffer.len();
        put_record(&mut self.buffer, group, &change, entry);
        let len = self.buffer.len() - start;
        self.records.push(StagedRecord { start, len, group, change });
        let frame = self.frames.last_mut().expect("a frame is open");
        frame.body += len;
        frame.records_end = self.records.len();
        Ok(())
    }

    fn check_continuity(&mut self, index: &LogIndex, group: GroupId, change: &Change) {
        let (base, last) = self.ends.entry(group).or_insert_with(|| {
            index.groups.get(&group).map_or((Index(0), Index(0)), |log| (log.base.index, log.last()))
        });
        match change {
            Change::Hard(_) => {}
            Change::Entry { index, .. } => {
                assert!(*index > *base, "{group}: entry {index} at or below the log's base {base}");
                assert!(*index <= last.next(), "{group}: entry {index} leaves a hole after {last}");
                *last = (*last).max(*index);
            }
            Change::Truncate { from } => {
                assert!(*from > *base, "{group}: truncation from {from} at or below the log's base {base}");
                *last = (*last).min(from.prev());
            }
            Change::Compact { base: new, keep_suffix } => {
                assert!(new.index >= *base, "{group}: base moves back from {base} to {}", new.index);
                *base = new.index;
                *last = if *keep_suffix { (*last).max(new.index) } else { new.index };
            }
            Change::Forget => (*base, *last) = (Index(0), Index(0)),
        }
    }

    fn open_frame(&mut self) {
        self.pad();
        self.frames.push(StagedFrame { start: self.buffer.len(), body: 0, records_end: self.records.len() });
        self.buffer.resize(self.buffer.len() + FRAME_HEADER_BYTES, 0);
    }

    fn pad(&mut self) {
        self.buffer.resize(self.buffer.len().next_multiple_of(BLOCK_BYTES), 0);
    }

    fn clear(&mut self) {
        if self.buffer.capacity() > BUFFER_BYTES_KEPT {
            self.buffer = Vec::new();
        }
        self.buffer.clear();
        self.frames.clear();
        self.records.clear();
        self.ends.clear();
    }
}

/// The counters that every frame carries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counters {
    /// Of the next frame.
    pub(crate) sequence: u64,
    /// Of the next flush.
    pub(crate) flush: u64,
    /// Last turn staged.
    pub(crate) lsn: u64,
    /// First segment still needed.
    pub(crate) oldest: u64,
}

/// Where the next frame goes.
pub(crate) struct Active {
    pub(crate) segment: std::sync::Arc<Segment>,
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

/// A stretch of frames that fits one segment.
pub(crate) struct Placed {
    /// In the buffer.
    start: usize,
    end: usize,
}

impl Staging {
    /// Closes the flush: from here on nothing is added until [`Staging::finish`].
    pub(crate) fn close(&mut self) {
        self.pad();
    }

    /// How many of the frames from `first` on fit behind `active`.
    pub(crate) fn fitting(&self, first: usize, active: &Active) -> usize {
        let mut offset = active.offset;
        let mut count = 0;
        for frame in &self.frames[first..] {
            offset += frame_span(frame.body);
            if offset > active.size {
                break;
            }
            count += 1;
        }
        count
    }

    /// Frames staged.
    pub(crate) fn frames(&self) -> usize {
        self.frames.len()
    }

    /// Seals frames `first..until` for their place behind `active` and returns what to write there.
    pub(crate) fn place(
        &mut self,
        first: usize,
        until: usize,
        active: &Active,
        counters: &mut Counters,
        locations: &mut Vec<Location>,
    ) -> Placed {
        let start = self.frames[first].start;
        let segment = u32::try_from(active.segment.number).expect("rotation refuses larger numbers");
        for number in first..until {
            let frame = &self.frames[number];
            let records_start = if number == 0 { 0 } else { self.frames[number - 1].records_end };
            let shift = |at: usize| active.offset + (at - start) as u64;
            for record in &self.records[records_start..frame.records_end] {
                let offset = shift(record.start);
                let bytes = &mut self.buffer[record.start..record.start + record.len];
                seal_record(bytes, active.segment.address(offset));
                let offset = u32::try_from(offset).expect("segments are smaller than 4 GiB");
                let len = u32::try_from(record.len).expect("records are smaller than a segment");
                locations.push(Location { segment, offset, len });
            }
            let body_start = frame.start + FRAME_HEADER_BYTES;
            let header = FrameHeader {
                body_crc: crc32c::crc32c(&self.buffer[body_start..body_start + frame.body]),
                body: u32::try_from(frame.body).expect("frames are smaller than a segment"),
                sequence: counters.sequence,
                flush: counters.flush,
                lsn: counters.lsn,
                oldest: counters.oldest,
                more: number + 1 < self.frames.len(),
            };
            header.write(&mut self.buffer[frame.start..], active.segment.address(shift(frame.start)));
            counters.sequence += 1;
        }
        let end = self.frames.get(until).map_or(self.buffer.len(), |frame| frame.start);
        Placed { start, end }
    }

    /// The bytes of a placed stretch.
    pub(crate) fn bytes_of(&self, placed: &Placed) -> &[u8] {
        &self.buffer[placed.start..placed.end]
    }

    /// The flush is durable: shows it in the index and forgets it.
    pub(crate) fn finish(&mut self, index: &mut LogIndex, locations: &[Location]) {
        let whole = locations.len() == self.records.len() || base::planted::planted(Defect::HalfBatch);
        assert!(whole, "a record without a place");
        for (record, at) in self.records.iter().zip(locations) {
            index.apply(record.group, &record.change, *at).expect("continuity was asserted when it was staged");
        }
        self.clear();
    }
}
