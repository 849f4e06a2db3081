//! What a start makes of the files it finds: the longest sound log, or a refusal.
//!
//! Segments are read in order, frame by frame. Where no valid frame stands, the log ends, *if nothing behind that
//! place proves otherwise*:
//! - a frame of a later flush, or any frame in a later segment, was written only after the place was durable: damage;
//! - a frame of the same flush may survive a crash in the middle of one write: a torn tail, cut and wiped.
//!
//! What cannot be told apart: damage to the very last flush, with nothing behind it, looks like a write that never
//! finished and is cut. Only other replicas can notice.
//!
//! The tail is wiped before anything is appended, so that frames of a flush that was never acknowledged cannot appear
//! behind later ones.

use std::sync::{Arc, PoisonError, RwLock};

use base::{Defect, Fault, GroupId, Lsn};
use kernel::{Mark, Position, Recovered};

use super::gc::Spares;
use super::planted::{self, Bug};
use super::reader::Loaded;
use super::record::{Change, damaged};
use super::scan::{Place, Scan, WINDOW_BYTES, Window};
use super::segment::{
    DIR, FIRST_FRAME, Named, Segment, WalIdentity, open_segment, parse_name, segment_name, spare_name, write_header,
};
use super::writer::{Active, Counters, Staging, frame_bytes_max};
use super::{Wal, WalOptions};
use crate::disk::{BLOCK_BYTES, Disk};

/// The end of the log was cut: a write that a crash interrupted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TornTail {
    /// The file.
    pub file: String,
    /// Where the log ends now.
    pub offset: u64,
}

/// What was found; asked once per group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecoveredLog {
    groups: Vec<GroupId>,
    torn: Option<TornTail>,
}

impl RecoveredLog {
    /// The groups that have durable state, ascending.
    #[must_use]
    pub fn groups(&self) -> &[GroupId] {
        &self.groups
    }

    /// Whether an unfinished write was cut off the end: worth a line in the log.
    #[must_use]
    pub const fn torn(&self) -> Option<&TornTail> {
        self.torn.as_ref()
    }

    /// The state a group's replica starts from, given what its state machine holds. Entries above the mark are loaded.
    /// If the log does not connect to the mark (a snapshot was installed and the log had not followed yet), the log is
    /// emptied up to the mark; that change is durable with the next [`Wal::sync`].
    ///
    /// # Errors
    /// [`Fault::Corrupt`] if the log misses entries, or its group is gone although the state machine has applied some
    /// of it, or the state machine is behind the log's start.
    pub fn group(&self, wal: &mut Wal, group: GroupId, mark: Mark) -> Result<Recovered, Fault> {
        wal.check()?;
        recover_group(wal, group, mark)
    }
}

/// The fault for a group whose log cannot be used.
pub(super) fn lost(group: GroupId, detail: &str) -> Fault {
    Fault::Corrupt {
        place: format!("the log of group {group}"),
        detail: format!(
            "{detail}; this node may have forgotten promises. Remove it from the cluster and add it again with an \
             empty data directory"
        ),
    }
}

fn recover_group(wal: &mut Wal, group: GroupId, mark: Mark) -> Result<Recovered, Fault> {
    let position = mark.position;
    let index = Arc::clone(&wal.index);
    let index = index.read().unwrap_or_else(PoisonError::into_inner);
    let Some(log) = index.groups.get(&group) else {
        if position.index.0 > 0 {
            let detail = format!("nothing is left of it, but entries up to {} are applied", position.index);
            return Err(lost(group, &detail));
        }
        return Ok(Recovered { mark, ..Recovered::default() });
    };
    if position.index < log.base.index {
        let detail = format!("it starts after {}, but only {} is applied", log.base.index, position.index);
        return Err(lost(group, &detail));
    }
    let (mark, position) = match log.stamp(position.index.prev()).filter(|_| base::planted::planted(Defect::ApplyTwice))
    {
        Some(stamp) => {
            let position = Position { index: position.index.prev(), stamp };
            (Mark { position, ..mark }, position)
        }
        None => (mark, position),
    };
    let recovered = Recovered {
        promised: log.hard.promised,
        accepted: log.hard.accepted,
        commit: log.hard.commit.max(position.index),
        base: log.base,
        runs: Vec::new(),
        entries: Vec::new(),
        last: log.last(),
        mark,
    };
    // An applied entry is chosen: the log may hold it under a higher stamp (accepted again), never under a lower one.
    // A lower one is a different entry that a snapshot has overtaken.
    let connects =
        position.index == log.base.index || log.stamp(position.index).is_some_and(|stamp| stamp >= position.stamp);
    if !connects {
        let change = Change::Compact { base: position, keep_suffix: false };
        wal.staging.put(&index, group, change, None)?;
        return Ok(Recovered { base: position, last: position.index, ..recovered });
    }
    let (runs, last) = (log.runs(position.index), log.last());
    drop(index);
    let entries = match wal.reader().load(group, position.index.next(), last.next(), usize::MAX)? {
        Loaded::Entries(entries) => entries,
        Loaded::Compacted(_) => Vec::new(),
    };
    let expected = last.0 - position.index.0;
    assert!(entries.len() as u64 == expected, "{group}: {} entries loaded, {expected} indexed", entries.len());
    Ok(Recovered { runs, entries, ..recovered })
}

pub(super) fn open(
    disk: Arc<dyn Disk>,
    identity: WalIdentity,
    options: WalOptions,
) -> Result<(Wal, RecoveredLog), Fault> {
    disk.create_dir(DIR)?;
    let (mut numbers, mut spares) = (Vec::new(), Vec::new());
    for name in disk.list(DIR)? {
        match parse_name(&name) {
            Named::Segment(number) => numbers.push(number),
            Named::Spare(number) => spares.push(number),
            Named::Foreign => {}
        }
    }
    numbers.sort_unstable();
    if numbers.is_empty() {
        if !options.may_create {
            return Err(Fault::Corrupt {
                place: disk.describe(DIR),
                detail:
                    "the log is missing from a data directory that had one; this node may have forgotten promises. \
                         Remove it from the cluster and add it again with an empty data directory"
                        .to_owned(),
            });
        }
        create_first(&*disk, identity, options.segment_bytes)?;
        numbers.push(1);
    }
    let mut segments = Vec::new();
    for number in &numbers {
        let (segment, size) = open_segment(&*disk, identity, *number)?;
        if u32::try_from(*number).is_err() || size > super::SEGMENT_BYTES_MAX {
            return Err(damaged(&segment.place(&*disk), 0, "impossible segment number or size"));
        }
        segments.push((Arc::new(segment), size));
    }
    let scan = Scan::new(Arc::clone(&disk)).run(&segments)?;
    finish(disk, identity, options, &segments, scan, &spares)
}

/// The first segment of a new log, under its name only once it is complete.
fn create_first(disk: &dyn Disk, identity: WalIdentity, segment_bytes: u64) -> Result<(), Fault> {
    let draft = spare_name(0);
    if disk.exists(&draft)? {
        disk.remove(&draft)?;
    }
    let file = disk.create(&draft)?;
    file.zero_fill(0, segment_bytes)?;
    write_header(&*file, identity, 1, segment_bytes)?;
    disk.rename(&draft, &segment_name(1))?;
    disk.sync_dir(DIR)
}

/// Wipes what lies behind the end of the log, makes what was found durable, and sorts the other files.
fn finish(
    disk: Arc<dyn Disk>,
    identity: WalIdentity,
    options: WalOptions,
    segments: &[(Arc<Segment>, u64)],
    scan: Scan,
    spare_numbers: &[u64],
) -> Result<(Wal, RecoveredLog), Fault> {
    let Scan { mut index, start, end, sequence, flush, lsn, oldest, .. } = scan;
    let oldest = oldest.max(segments.first().map_or(1, |(segment, _)| segment.number));
    let mut wiped = false;
    // From the back: what is wiped and what is left always looks like a flush that was interrupted, even if this is.
    for (position, (segment, size)) in segments.iter().enumerate().skip(end.segment).rev() {
        let from = if position == end.segment { end.offset } else { FIRST_FRAME };
        wiped |= wipe(segment, *size, from)?;
    }
    let (active, active_size) = &segments[end.segment];
    let from = if start.segment == end.segment { start.offset } else { FIRST_FRAME };
    rewrite(active, from, end.offset)?;
    disk.sync_dir(DIR)?;
    let torn = wiped.then(|| TornTail { file: active.place(&*disk), offset: end.offset });
    let active_number = u32::try_from(active.number).expect("checked when opened");
    index.segments.retain(|number, _| u64::from(*number) >= oldest && *number <= active_number);
    index.segments.insert(active_number, Arc::clone(active));
    let spares = sort_files(&*disk, options, segments, end, oldest, spare_numbers)?;
    let groups = index.groups.keys().copied().collect();
    let wal = Wal {
        disk,
        identity,
        options,
        index: Arc::new(RwLock::new(index)),
        staging: Staging::new(frame_bytes_max(options.segment_bytes)),
        active: Active { segment: Arc::clone(active), offset: end.offset, size: *active_size },
        counters: Counters { sequence, flush, lsn, oldest },
        spares,
        synced: Lsn(lsn),
        poison: None,
        flushes: 0,
        written_bytes: 0,
    };
    Ok((wal, RecoveredLog { groups, torn }))
}

/// Makes the last flush durable, which a process that died may have left in the page cache only. Its bytes are written
/// again first: if its sync had failed, the cache holds them as clean and a sync alone would do nothing. Earlier
/// flushes were synced, or the last one would not be there. Equal bytes cannot tear.
fn rewrite(segment: &Arc<Segment>, from: u64, until: u64) -> Result<(), Fault> {
    let mut at = from;
    while at < until {
        let mut bytes = vec![0; (until - at).min(WINDOW_BYTES) as usize];
        segment.file.read_at(at, &mut bytes)?;
        segment.file.write_at(at, &bytes)?;
        at += bytes.len() as u64;
    }
    segment.file.sync_data()
}

/// Clears every frame header of this segment from `from` on. Leftovers of the file's earlier lives do not verify and
/// stay. Answers whether there were any.
fn wipe(segment: &Arc<Segment>, size: u64, from: u64) -> Result<bool, Fault> {
    let mut found = Vec::new();
    let mut window = Window::new(segment, size);
    // Sizes are multiples of the block.
    for at in (from..size).step_by(BLOCK_BYTES) {
        if window.find(at)?.is_some() {
            found.push(at);
        }
    }
    if planted::is(Bug::TailNotWiped) {
        return Ok(false);
    }
    for at in &found {
        segment.file.write_at(*at, &[0; BLOCK_BYTES])?;
    }
    // Even if nothing was found: an earlier start may have wiped it and died before its sync.
    segment.file.sync_data()?;
    Ok(!found.is_empty())
}

/// Files that are no part of the log any more, or not yet: at most one next segment and one reserve are kept.
fn sort_files(
    disk: &dyn Disk,
    options: WalOptions,
    segments: &[(Arc<Segment>, u64)],
    end: Place,
    oldest: u64,
    spare_numbers: &[u64],
) -> Result<Spares, Fault> {
    let mut spares = Spares::new(spare_numbers.iter().copied().max().unwrap_or(0));
    for (position, (segment, size)) in segments.iter().enumerate() {
        if segment.number < oldest {
            let segment = Segment { file: Arc::clone(&segment.file), ..**segment };
            spares.add_left(segment);
        } else if position == end.segment + 1 && *size == options.segment_bytes {
            let segment = Segment { file: Arc::clone(&segment.file), ..**segment };
            spares.set_next(segment, *size);
        } else if position > end.segment {
            disk.remove(&segment_name(segment.number))?;
        }
    }
    for number in spare_numbers {
        let name = spare_name(*number);
        let file = disk.open(&name)?;
        if spares.ready() == 0 && file.size()? == options.segment_bytes {
            file.sync_data()?;
            spares.add_ready(name, file, options.segment_bytes);
        } else {
            drop(file);
            disk.remove(&name)?;
        }
    }
    disk.sync_dir(DIR)?;
    Ok(spares)
}
