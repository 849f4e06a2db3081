//! Reads the segments in order and finds where the log ends.
//!
//! Invariant: what is taken is an unbroken sequence of frames, flush by flush; where it breaks off, nothing that was
//! written later exists. See [`super::recovery`] for the rules and their reasons.

use std::sync::Arc;

use base::{Fault, GroupId};
use bytes::Bytes;

use super::frame::{FRAME_HEADER_BYTES, FrameHeader};
use super::index::{Location, LogIndex};
use super::planted::{self, Bug};
use super::record::{Change, damaged, decode_record};
use super::recovery::lost;
use super::segment::{FIRST_FRAME, Segment, segment_name};
use crate::disk::{BLOCK_BYTES, Disk};

/// Bytes read ahead while scanning.
pub(super) const WINDOW_BYTES: u64 = 1024 * 1024;

/// A place in the log.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Position in the list of segments.
    pub(super) segment: usize,
    pub(super) offset: u64,
}

/// What was read so far.
pub(super) struct Scan {
    disk: Arc<dyn Disk>,
    pub(super) index: LogIndex,
    /// The last frame taken.
    last: Option<FrameHeader>,
    /// Last turn of the last complete flush.
    pub(super) lsn: u64,
    pub(super) oldest: u64,
    /// Changes of a flush that is not complete yet.
    pending: Vec<(GroupId, Change, Location)>,
    /// Where that flush starts.
    pending_from: Option<Place>,
    /// The last complete flush starts and ends here.
    pub(super) start: Place,
    pub(super) end: Place,
    /// The counters as they were there.
    pub(super) sequence: u64,
    pub(super) flush: u64,
    /// Segments before this number do not connect to it.
    gap_before: u64,
    /// Where no frame was found, in the last segment read: the first suspect if it turns out that one is missing.
    stop: Option<(Arc<Segment>, u64)>,
}

impl Scan {
    /// Nothing read yet.
    pub(super) fn new(disk: Arc<dyn Disk>) -> Self {
        Self {
            disk,
            index: LogIndex::default(),
            last: None,
            lsn: 0,
            oldest: 0,
            pending: Vec::new(),
            pending_from: None,
            start: Place { segment: 0, offset: FIRST_FRAME },
            end: Place { segment: 0, offset: FIRST_FRAME },
            sequence: 1,
            flush: 1,
            gap_before: 0,
            stop: None,
        }
    }

    /// Reads all segments, in ascending order.
    pub(super) fn run(mut self, segments: &[(Arc<Segment>, u64)]) -> Result<Self, Fault> {
        for (position, (segment, size)) in segments.iter().enumerate() {
            if position > 0 && segment.number != segments[position - 1].0.number + 1 {
                // Only segments that are not needed any more may be missing: checked once that is known.
                let disk = self.disk;
                self = Self { gap_before: segment.number, ..Self::new(disk) };
                self.end.segment = position;
            }
            self.scan_segment(position, segment, *size)?;
        }
        let first = segments.first().map_or(0, |(segment, _)| segment.number);
        let needed = self.oldest.max(1);
        if first > needed || self.gap_before > needed {
            let missing = if first > needed { needed } else { self.gap_before - 1 };
            let place = self.disk.describe(&segment_name(missing));
            return Err(damaged(&place, 0, "this segment of the log is missing"));
        }
        self.check_holes()?;
        Ok(self)
    }

    fn scan_segment(&mut self, position: usize, segment: &Arc<Segment>, size: u64) -> Result<(), Fault> {
        let number = u32::try_from(segment.number).expect("checked when opened");
        let mut window = Window::new(segment, size);
        let mut offset = FIRST_FRAME;
        while let Some(header) = window.header(offset)? {
            let Some(body) = window.body(offset, &header)? else { break };
            if !self.continues(&header, position, offset) {
                break;
            }
            if self.index.segments.is_empty() || offset == FIRST_FRAME {
                self.index.segments.insert(number, Arc::clone(segment));
            }
            self.take_frame(position, segment, offset, header, &body)?;
            offset += header.span();
        }
        self.check_rest(position, &mut window, offset)?;
        self.stop = Some((Arc::clone(segment), offset));
        Ok(())
    }

    /// Whether a valid frame is the one that must follow.
    fn continues(&self, header: &FrameHeader, position: usize, offset: u64) -> bool {
        let Some(last) = &self.last else {
            // The first frame of all. After a gap, or where older segments were given back, its numbers are unknown;
            // a new log starts with 1.
            return offset == FIRST_FRAME && self.end.segment == position;
        };
        // Also refuses a frame that would continue behind a place where the log had ended within a segment: the
        // sequence has moved on there.
        let flush = if last.more { last.flush } else { last.flush + 1 };
        header.sequence == last.sequence + 1 && header.flush == flush
    }

    fn take_frame(
        &mut self,
        position: usize,
        segment: &Arc<Segment>,
        offset: u64,
        header: FrameHeader,
        body: &Bytes,
    ) -> Result<(), Fault> {
        if self.pending_from.is_none() {
            self.pending_from = Some(Place { segment: position, offset });
        }
        let mut at = 0;
        while at < body.len() {
            let record_offset = offset + (FRAME_HEADER_BYTES + at) as u64;
            let record = decode_record(&body.slice(at..), segment.address(record_offset))
                .map_err(|detail| damaged(&segment.place(&*self.disk), record_offset, &detail))?;
            let location = Location {
                segment: u32::try_from(segment.number).expect("checked when opened"),
                offset: u32::try_from(record_offset).expect("segments are smaller than 4 GiB"),
                len: u32::try_from(record.bytes).expect("records are smaller than a segment"),
            };
            at += record.bytes;
            self.pending.push((record.group, record.change, location));
        }
        self.last = Some(header);
        if header.more {
            return Ok(());
        }
        for (group, change, location) in std::mem::take(&mut self.pending) {
            self.index
                .apply(group, &change, location)
                .map_err(|detail| damaged(&segment.place(&*self.disk), u64::from(location.offset), &detail))?;
        }
        self.start = self.pending_from.take().unwrap_or(self.end);
        self.end = Place { segment: position, offset: offset + header.span() };
        (self.lsn, self.oldest) = (header.lsn, header.oldest);
        (self.sequence, self.flush) = (header.sequence + 1, header.flush + 1);
        Ok(())
    }

    /// The log ends at `offset`, or goes on in the next segment. Anything behind it that was written later proves that
    /// the bytes here were durable once.
    fn check_rest(&self, position: usize, window: &mut Window<'_>, offset: u64) -> Result<(), Fault> {
        let expected = match &self.last {
            Some(last) if last.more => last.flush,
            Some(last) => last.flush + 1,
            // Nothing was read at all: in a new log the first flush may be torn; a later segment is only ever first
            // when frames in it are durable.
            None if window.segment.number == 1 => 1,
            None => 0,
        };
        let sequence = self.last.map(|last| last.sequence + 1);
        let mut at = offset;
        while at < window.size {
            if let Some((header, meant)) = window.find(at)? {
                // The first frame of a segment is written when everything before it is durable.
                let opens = position > 0 && at == FIRST_FRAME && u64::from(meant) == at;
                let skips = opens && sequence.is_some_and(|next| header.sequence != next);
                if (header.flush > expected || skips) && !planted::is(Bug::DamageIsTail) {
                    let place = window.segment.place(&*self.disk);
                    let (segment, hole) = match &self.stop {
                        Some((segment, hole)) if offset == FIRST_FRAME => (&**segment, *hole),
                        _ => (window.segment, offset),
                    };
                    let detail = format!(
                        "no valid frame here, but one that was written later (flush {}, {expected} expected) at byte \
                         {at} of {place}",
                        header.flush
                    );
                    return Err(damaged(&segment.place(&*self.disk), hole, &detail));
                }
            }
            at += BLOCK_BYTES as u64;
        }
        Ok(())
    }

    fn check_holes(&self) -> Result<(), Fault> {
        for (group, log) in &self.index.groups {
            if let Some(hole) = log.hole() {
                return Err(lost(*group, &format!("entry {hole} is missing")));
            }
        }
        Ok(())
    }
}

/// Reads a segment in large pieces.
pub(super) struct Window<'a> {
    segment: &'a Segment,
    size: u64,
    start: u64,
    bytes: Bytes,
}

impl<'a> Window<'a> {
    pub(super) fn new(segment: &'a Segment, size: u64) -> Self {
        Self { segment, size, start: 0, bytes: Bytes::new() }
    }

    fn get(&mut self, offset: u64, len: u64) -> Result<Bytes, Fault> {
        let end = self.start + self.bytes.len() as u64;
        if offset < self.start || offset + len > end {
            let take = len.max(WINDOW_BYTES).min(self.size - offset);
            let mut bytes = vec![0; take as usize];
            self.segment.file.read_at(offset, &mut bytes)?;
            (self.start, self.bytes) = (offset, Bytes::from(bytes));
        }
        let from = (offset - self.start) as usize;
        Ok(self.bytes.slice(from..from + len as usize))
    }

    /// The frame header at `offset`, if there is a valid one of a frame that fits.
    fn header(&mut self, offset: u64) -> Result<Option<FrameHeader>, Fault> {
        if offset + BLOCK_BYTES as u64 > self.size {
            return Ok(None);
        }
        let bytes = self.get(offset, FRAME_HEADER_BYTES as u64)?;
        let header = FrameHeader::read(&bytes, self.segment.address(offset));
        Ok(header.filter(|header| offset + header.span() <= self.size))
    }

    /// A frame header at `offset`, with the offset it was meant for.
    pub(super) fn find(&mut self, offset: u64) -> Result<Option<(FrameHeader, u32)>, Fault> {
        let bytes = self.get(offset, FRAME_HEADER_BYTES as u64)?;
        Ok(FrameHeader::find(&bytes, self.segment.address(offset)))
    }

    /// The records of a frame, if its body is what was written.
    fn body(&mut self, offset: u64, header: &FrameHeader) -> Result<Option<Bytes>, Fault> {
        let body = self.get(offset + FRAME_HEADER_BYTES as u64, u64::from(header.body))?;
        Ok((crc32c::crc32c(&body) == header.body_crc).then_some(body))
    }
}
