//! What the log holds, per group: a few words per entry that say where its bytes are. Shared between the thread that
//! writes the log and those that read it; it only ever shows what is durable.
//!
//! Invariant: replaying the segments from the oldest on, through [`LogIndex::apply`], gives this index.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use base::{Ballot, GroupId, Index};
use kernel::Position;

use super::record::{Change, Hard};
use super::segment::Segment;

/// Largest hole between indexes that a replay bridges before it calls the log damaged.
const GAP_MAX: u64 = 1 << 26;
/// Distinct ballots kept per group before unused ones are looked for.
const BALLOTS_MAX: usize = 1024;

/// Where a record's bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Location {
    /// Number of the segment; never zero.
    pub(crate) segment: u32,
    pub(crate) offset: u32,
    /// Length with the record's header.
    pub(crate) len: u32,
}

/// One entry; `len` zero where none is known.
#[derive(Clone, Copy, Debug)]
struct Slot {
    at: Location,
    stamp: u32,
    origin: u32,
}

const NO_SLOT: Slot = Slot { at: Location { segment: 0, offset: 0, len: 0 }, stamp: 0, origin: 0 };

/// One group's part of the log.
#[derive(Default)]
pub(crate) struct GroupLog {
    pub(crate) hard: Hard,
    /// Segment of the newest record of `hard`; zero if there is none.
    pub(crate) hard_segment: u32,
    pub(crate) base: Position,
    /// Segment of the newest record of `base`; zero if there is none.
    pub(crate) base_segment: u32,
    /// Index of the first slot.
    first: u64,
    slots: VecDeque<Slot>,
    ballots: Vec<Ballot>,
    /// Bytes of this group's entries, by segment.
    live: BTreeMap<u32, u64>,
}

impl GroupLog {
    /// Last index of the log.
    pub(crate) fn last(&self) -> Index {
        if self.slots.is_empty() { self.base.index } else { Index(self.first + self.slots.len() as u64 - 1) }
    }

    fn slot(&self, index: Index) -> Option<&Slot> {
        let at = usize::try_from(index.0.checked_sub(self.first)?).ok()?;
        self.slots.get(at).filter(|slot| slot.at.len > 0)
    }

    /// Where the entry at `index` is.
    pub(crate) fn location(&self, index: Index) -> Option<Location> {
        self.slot(index).map(|slot| slot.at)
    }

    /// The stamp of the entry at `index`.
    pub(crate) fn stamp(&self, index: Index) -> Option<Ballot> {
        self.slot(index).map(|slot| self.ballots[slot.stamp as usize])
    }

    /// Stamps and origins of the entries after the base up to `until`, as runs.
    pub(crate) fn runs(&self, until: Index) -> Vec<(Index, Ballot, Ballot)> {
        let mut runs: Vec<(Index, Ballot, Ballot)> = Vec::new();
        for (slot, index) in self.slots.iter().zip(self.first..) {
            if index > until.0 {
                break;
            }
            let (stamp, origin) = (self.ballots[slot.stamp as usize], self.ballots[slot.origin as usize]);
            if runs.last().is_none_or(|run| (run.1, run.2) != (stamp, origin)) {
                runs.push((Index(index), stamp, origin));
            }
        }
        runs
    }

    /// Bytes of entries in `segment`.
    pub(crate) fn live_in(&self, segment: u32) -> u64 {
        self.live.get(&segment).copied().unwrap_or(0)
    }

    /// Bytes of all entries.
    pub(crate) fn live(&self) -> u64 {
        self.live.values().sum()
    }

    /// The first `max` indexes whose entries are in `segment`.
    pub(crate) fn indexes_in(&self, segment: u32, max: usize) -> Vec<Index> {
        let within = self.slots.iter().zip(self.first..).filter(|(slot, _)| slot.at.segment == segment);
        within.take(max).map(|(_, index)| Index(index)).collect()
    }

    /// The first index between base and end without an entry: none in a sound log.
    pub(crate) fn hole(&self) -> Option<Index> {
        if self.slots.is_empty() {
            return None;
        }
        if self.first != self.base.index.0 + 1 {
            return Some(self.base.index.next());
        }
        self.slots.iter().position(|slot| slot.at.len == 0).map(|at| Index(self.first + at as u64))
    }

    fn ballot(&mut self, ballot: Ballot) -> u32 {
        if let Some(at) = self.ballots.iter().rposition(|known| *known == ballot) {
            return at as u32;
        }
        if self.ballots.len() > BALLOTS_MAX.max(self.slots.len()) {
            self.rebuild_ballots();
        }
        self.ballots.push(ballot);
        (self.ballots.len() - 1) as u32
    }

    fn rebuild_ballots(&mut self) {
        let old = std::mem::take(&mut self.ballots);
        let mut new_ids: BTreeMap<u32, u32> = BTreeMap::new();
        let ballots = &mut self.ballots;
        let mut translate = |id: u32| {
            *new_ids.entry(id).or_insert_with(|| {
                ballots.push(old[id as usize]);
                (ballots.len() - 1) as u32
            })
        };
        for slot in self.slots.iter_mut().filter(|slot| slot.at.len > 0) {
            slot.stamp = translate(slot.stamp);
            slot.origin = translate(slot.origin);
        }
    }

    fn release(live: &mut BTreeMap<u32, u64>, at: Location) {
        if at.len == 0 {
            return;
        }
        let bytes = live.get_mut(&at.segment).expect("every entry is counted");
        *bytes -= u64::from(at.len);
        if *bytes == 0 {
            live.remove(&at.segment);
        }
    }

    fn put(&mut self, index: Index, stamp: Ballot, origin: Ballot, at: Location) -> Result<(), String> {
        if index <= self.base.index {
            return Ok(());
        }
        let slot = Slot { at, stamp: self.ballot(stamp), origin: self.ballot(origin) };
        if self.slots.is_empty() {
            self.first = index.0;
        }
        let gap = self.first.saturating_sub(index.0).max(index.0.saturating_sub(self.first + self.slots.len() as u64));
        if gap > GAP_MAX {
            return Err(format!("entry {index} is {gap} away from the rest of its log"));
        }
        while index.0 < self.first {
            self.slots.push_front(NO_SLOT);
            self.first -= 1;
        }
        while index.0 >= self.first + self.slots.len() as u64 {
            self.slots.push_back(NO_SLOT);
        }
        let place = &mut self.slots[(index.0 - self.first) as usize];
        Self::release(&mut self.live, place.at);
        *place = slot;
        *self.live.entry(at.segment).or_default() += u64::from(at.len);
        Ok(())
    }

    fn truncate(&mut self, from: Index) {
        while !self.slots.is_empty() && self.first + self.slots.len() as u64 > from.0 {
            let slot = self.slots.pop_back().expect("not empty");
            Self::release(&mut self.live, slot.at);
        }
    }

    fn compact(&mut self, base: Position, keep_suffix: bool, segment: u32) {
        while !self.slots.is_empty() && (!keep_suffix || self.first <= base.index.0) {
            let slot = self.slots.pop_front().expect("not empty");
            Self::release(&mut self.live, slot.at);
            self.first += 1;
        }
        self.base = base;
        self.base_segment = segment;
        if self.slots.capacity() > 4096 && self.slots.len() < self.slots.capacity() / 4 {
            self.slots.shrink_to_fit();
        }
    }
}

/// The whole log.
#[derive(Default)]
pub(crate) struct LogIndex {
    pub(crate) groups: BTreeMap<GroupId, GroupLog>,
    /// Open segments that hold frames, by number.
    pub(crate) segments: BTreeMap<u32, Arc<Segment>>,
}

impl LogIndex {
    /// Performs a change that stands at `at`. The error says why the change cannot be: a damaged log.
    pub(crate) fn apply(&mut self, group: GroupId, change: &Change, at: Location) -> Result<(), String> {
        if *change == Change::Forget {
            self.groups.remove(&group);
            return Ok(());
        }
        let log = self.groups.entry(group).or_default();
        match change {
            Change::Hard(hard) => {
                log.hard = *hard;
                log.hard_segment = at.segment;
            }
            Change::Entry { index, stamp, origin } => log.put(*index, *stamp, *origin, at)?,
            Change::Truncate { from } => log.truncate(*from),
            Change::Compact { base, keep_suffix } => log.compact(*base, *keep_suffix, at.segment),
            Change::Forget => {}
        }
        Ok(())
    }

    /// Bytes of entries in `segment`.
    pub(crate) fn live_in(&self, segment: u32) -> u64 {
        self.groups.values().map(|log| log.live_in(segment)).sum()
    }

    /// Bytes of all entries.
    pub(crate) fn live(&self) -> u64 {
        self.groups.values().map(GroupLog::live).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::NodeId;

    fn at(segment: u32, offset: u32) -> Location {
        Location { segment, offset, len: 10 }
    }

    fn entry(index: u64, round: u64) -> Change {
        let ballot = Ballot::new(round, NodeId(1));
        Change::Entry { index: Index(index), stamp: ballot, origin: ballot }
    }

    #[test]
    fn live_bytes_follow_overwrites_truncations_and_compactions() {
        let mut index = LogIndex::default();
        let group = GroupId(1);
        for i in 1..=5 {
            index.apply(group, &entry(i, 1), at(1, i as u32 * 10)).expect("contiguous");
        }
        index.apply(group, &entry(3, 2), at(2, 10)).expect("overwrite");
        assert_eq!((index.live_in(1), index.live_in(2)), (40, 10));
        assert_eq!(index.groups[&group].runs(Index(4)).len(), 3);
        index.apply(group, &Change::Truncate { from: Index(5) }, at(2, 20)).expect("truncate");
        let base = Position { index: Index(2), stamp: Ballot::ZERO };
        index.apply(group, &Change::Compact { base, keep_suffix: true }, at(2, 30)).expect("compact");
        assert_eq!((index.live_in(1), index.live_in(2), index.groups[&group].last()), (10, 10, Index(4)));
        assert_eq!(index.groups[&group].hole(), None);
        index.apply(group, &entry(6, 2), at(2, 40)).expect("a replay may see holes");
        assert_eq!(index.groups[&group].hole(), Some(Index(5)));
        assert!(index.apply(group, &entry(1 << 40, 2), at(2, 50)).is_err(), "but not absurd ones");
        index.apply(group, &Change::Compact { base, keep_suffix: false }, at(2, 60)).expect("compact");
        assert_eq!((index.live(), index.groups[&group].last()), (0, Index(2)));
        index.apply(group, &Change::Forget, at(2, 70)).expect("forget");
        assert!(index.groups.is_empty());
    }

    #[test]
    fn unused_ballots_are_dropped() {
        let mut log = GroupLog::default();
        for round in 0..5_000 {
            let ballot = Ballot::new(round, NodeId(1));
            log.put(Index(1), ballot, ballot, at(1, 0)).expect("overwrite");
            assert_eq!(log.stamp(Index(1)), Some(ballot));
        }
        assert!(log.ballots.len() <= BALLOTS_MAX + 2, "{}", log.ballots.len());
    }
}
