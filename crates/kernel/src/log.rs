//! A replica's log as it stands in memory.
//!
//! ```text
//!            base        applied     persisted        last
//!   gone  ...  |  evicted   |  cached    |   cached     |
//!              +------------+------------+--------------+
//!   stamps:    known as runs ...........................
//!   payloads:  on disk only | in memory ................
//! ```
//!
//! The stamps of all entries after `base` are known (as runs of equal ballots), so that every protocol question is
//! answered without the disk. Payloads are cached from some index on to the end; an entry that is not yet applied or
//! not yet persisted is always cached. `persisted` says how far the log *as it is now* is durable: rewriting a slot
//! takes it back, so that a completion for the old content can never count for the new one.

use std::collections::VecDeque;

use base::limits::{APPEND_ENTRIES_MAX, ENTRY_CACHE_BYTES_MAX};
use base::{Ballot, Fault, Index};

use crate::cache::Cache;
use crate::entries::Entries;
use crate::entry::{Entry, Position};

/// What an entry costs in memory besides its payload, about.
const ENTRY_OVERHEAD_BYTES: usize = 96;

/// Entries from `first` up to the next run carry these ballots.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Run {
    first: Index,
    stamp: Ballot,
    origin: Ballot,
}

/// See the module's picture.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Log {
    base: Position,
    last: Index,
    persisted: Index,
    applied: Index,
    runs: VecDeque<Run>,
    cached: Cache,
    cached_bytes: usize,
    unapplied_bytes: usize,
}

impl Log {
    /// An empty log after `base`.
    pub(crate) fn new(base: Position) -> Self {
        Self {
            base,
            last: base.index,
            persisted: base.index,
            applied: base.index,
            runs: VecDeque::new(),
            cached: Cache::default(),
            cached_bytes: 0,
            unapplied_bytes: 0,
        }
    }

    /// The log found on disk: `runs` describe the entries after `base` that are not in `entries`.
    pub(crate) fn recover(
        base: Position,
        runs: &[(Index, Ballot, Ballot)],
        entries: Vec<Entry>,
        last: Index,
    ) -> Result<Self, Fault> {
        let corrupt = |detail: String| Fault::Corrupt { place: "log".into(), detail };
        let mut log = Self::new(base);
        let cached_from = entries.first().map_or(last.next(), |entry| entry.index);
        if cached_from <= base.index || last < base.index {
            return Err(corrupt(format!("ends at {last}, cached from {cached_from}, base {}", base.index)));
        }
        for &(first, stamp, origin) in runs {
            let expected_first = log.runs.is_empty().then(|| base.index.next());
            let ascending = log.runs.back().is_none_or(|run| run.first < first);
            if expected_first.is_some_and(|expected| expected != first) || !ascending || first >= cached_from {
                return Err(corrupt(format!("run at {first} after base {}", base.index)));
            }
            log.runs.push_back(Run { first, stamp, origin });
        }
        if log.runs.is_empty() && cached_from > base.index.next() {
            return Err(corrupt(format!("entries {}..{cached_from} are missing", base.index.next())));
        }
        log.last = cached_from.prev();
        for (entry, index) in entries.iter().zip(cached_from.0..) {
            if entry.index != Index(index) {
                return Err(corrupt(format!("entry {} in the place of {index}", entry.index)));
            }
        }
        // In pieces, so that those that are no longer needed can go before the others.
        let mut entries = entries.into_iter();
        while entries.len() > 0 {
            log.append(entries.by_ref().take(APPEND_ENTRIES_MAX).collect());
        }
        if log.last != last {
            return Err(corrupt(format!("ends at {} instead of {last}", log.last)));
        }
        log.persisted = last;
        Ok(log)
    }

    /// "Before the log".
    pub(crate) const fn base(&self) -> Position {
        self.base
    }

    /// Index of the last entry, or of the base.
    pub(crate) const fn last(&self) -> Index {
        self.last
    }

    /// Up to here the log is durable as it is.
    pub(crate) const fn persisted(&self) -> Index {
        self.persisted
    }

    /// Up to here the state machine has taken it over.
    pub(crate) const fn applied(&self) -> Index {
        self.applied
    }

    /// Payload bytes of entries not yet applied.
    pub(crate) const fn unapplied_bytes(&self) -> usize {
        self.unapplied_bytes
    }

    /// First index whose payload is in memory; one past the end if none is.
    pub(crate) fn cached_from(&self) -> Index {
        self.cached.first().unwrap_or(self.last.next())
    }

    /// Position of the last entry, or the base.
    pub(crate) fn last_position(&self) -> Position {
        self.position(self.last).expect("the end of the log has a stamp")
    }

    /// Position of the entry at `index`; nothing before the base or past the end.
    pub(crate) fn position(&self, index: Index) -> Option<Position> {
        self.stamp(index).map(|stamp| Position { index, stamp })
    }

    /// Stamp of the entry at `index`.
    pub(crate) fn stamp(&self, index: Index) -> Option<Ballot> {
        if index == self.base.index { Some(self.base.stamp) } else { self.run(index).map(|run| run.stamp) }
    }

    /// Origin of the entry at `index`.
    pub(crate) fn origin(&self, index: Index) -> Option<Ballot> {
        self.run(index).map(|run| run.origin)
    }

    fn run(&self, index: Index) -> Option<&Run> {
        if index <= self.base.index || index > self.last {
            return None;
        }
        // Nearly every question is about the newest ballot.
        match self.runs.back() {
            Some(run) if run.first <= index => Some(run),
            _ => {
                let after = self.runs.partition_point(|run| run.first <= index);
                after.checked_sub(1).and_then(|at| self.runs.get(at))
            }
        }
    }

    /// The last index such that everything from `from` up to it carries `stamp`; the one before `from` if not even that
    /// does.
    pub(crate) fn stamped_until(&self, from: Index, stamp: Ballot) -> Index {
        let mut until = from.prev();
        let mut at = self.runs.partition_point(|run| run.first <= from).saturating_sub(1);
        while from <= self.last && self.runs.get(at).is_some_and(|run| run.stamp == stamp) {
            at += 1;
            until = self.runs.get(at).map_or(self.last, |run| run.first.prev());
        }
        until
    }

    /// The last index before the stretch of equal stamps that holds `index`: lets a conflict skip a whole ballot.
    pub(crate) fn before_ballot_of(&self, index: Index) -> Index {
        let mut at = self.runs.partition_point(|run| run.first <= index);
        let stamp = self.stamp(index);
        while at > 0 && Some(self.runs[at - 1].stamp) == stamp {
            at -= 1;
        }
        self.runs.get(at).map_or(self.base.index, |run| run.first.prev()).min(index.prev()).max(self.base.index)
    }

    /// Cached entries from `from` on.
    pub(crate) fn iter_from(&self, from: Index) -> impl Iterator<Item = &Entry> {
        self.cached.iter_from(from)
    }

    /// The entries with which cached entry `index` came, to share, and its place among them. Everything must be sealed.
    pub(crate) fn piece_with(&self, index: Index) -> (&Entries, usize) {
        self.cached.piece_with(index)
    }

    /// Entries from `from` on: at most `count_max`, about `bytes_max` payload bytes, at least one. Nothing if the
    /// first one is not in memory.
    pub(crate) fn slice(&self, from: Index, bytes_max: usize, count_max: usize) -> Entries {
        if from < self.cached_from() {
            return Entries::default();
        }
        let (mut bytes, mut count) = (0, 0);
        self.cached.slice(from, |entry| {
            (bytes, count) = (bytes + entry.payload.len(), count + 1);
            count <= count_max && (bytes <= bytes_max || entry.index == from)
        })
    }

    /// Adds the next entries.
    pub(crate) fn append(&mut self, entries: Entries) {
        entries.iter().for_each(|entry| self.count(entry));
        self.cached.append(entries);
    }

    /// Adds the next entry. Those added one by one are a piece of the log only when they are sealed.
    pub(crate) fn push(&mut self, entry: Entry) {
        self.count(&entry);
        self.cached.push(entry);
    }

    fn count(&mut self, entry: &Entry) {
        assert!(entry.index == self.last.next(), "entry {} appended after {}", entry.index, self.last);
        let extends = self.runs.back().is_some_and(|run| run.stamp == entry.stamp && run.origin == entry.origin);
        if !extends {
            self.runs.push_back(Run { first: entry.index, stamp: entry.stamp, origin: entry.origin });
        }
        self.last = entry.index;
        self.cached_bytes += entry.payload.len() + ENTRY_OVERHEAD_BYTES;
        self.unapplied_bytes += entry.payload.len();
    }

    /// Whether entries were pushed since the last [`Self::seal`].
    pub(crate) const fn has_open(&self) -> bool {
        self.cached.has_open()
    }

    /// Makes one piece of the entries pushed since the last time, and returns it.
    pub(crate) fn seal(&mut self) -> Entries {
        self.cached.seal()
    }

    /// Removes the entries at `from` and above.
    pub(crate) fn truncate(&mut self, from: Index) {
        assert!(from > self.applied, "truncation from {from} reaches into the applied {}", self.applied);
        while let Some(bytes) = self.cached.pop_back_from(from) {
            self.cached_bytes -= bytes + ENTRY_OVERHEAD_BYTES;
            self.unapplied_bytes -= bytes;
        }
        while self.runs.pop_back_if(|run| run.first >= from).is_some() {}
        self.last = self.last.min(from.prev());
        self.persisted = self.persisted.min(self.last);
    }

    /// Replaces the entry at an index the log has and keeps everything after it.
    pub(crate) fn overwrite(&mut self, entry: Entry) {
        let index = entry.index;
        assert!(index > self.applied && index <= self.last, "overwrite of {index} outside the unapplied log");
        self.split_run(index);
        self.split_run(index.next());
        let at = self.runs.partition_point(|run| run.first < index);
        self.runs[at].stamp = entry.stamp;
        self.runs[at].origin = entry.origin;
        self.join_run(at + 1);
        self.join_run(at);
        let new = entry.payload.len();
        let old = self.cached.replace(entry);
        self.cached_bytes = self.cached_bytes - old + new;
        self.unapplied_bytes = self.unapplied_bytes - old + new;
        self.persisted = self.persisted.min(index.prev());
    }

    /// Makes `first` the start of a run of its own.
    fn split_run(&mut self, first: Index) {
        if first > self.last || self.runs.iter().any(|run| run.first == first) {
            return;
        }
        let run = self.run(first).expect("an index inside the log belongs to a run");
        let tail = Run { first, ..run.clone() };
        let at = self.runs.partition_point(|run| run.first < first);
        self.runs.insert(at, tail);
    }

    /// Joins run `at` with the one before it if they carry the same ballots.
    fn join_run(&mut self, at: usize) {
        if at == 0 || at >= self.runs.len() {
            return;
        }
        let (before, after) = (&self.runs[at - 1], &self.runs[at]);
        if before.stamp == after.stamp && before.origin == after.origin {
            self.runs.remove(at);
        }
    }

    /// Forgets the entries up to `to`, which must be applied.
    pub(crate) fn compact(&mut self, to: Index) {
        assert!(to <= self.applied, "compaction to {to} past applied {}", self.applied);
        let Some(base) = self.position(to) else { return };
        while let Some(bytes) = self.cached.pop_front_to(to) {
            self.cached_bytes -= bytes + ENTRY_OVERHEAD_BYTES;
        }
        while self.runs.get(1).is_some_and(|run| run.first <= to.next()) {
            self.runs.pop_front();
        }
        match self.runs.front_mut() {
            Some(run) if to < self.last => run.first = run.first.max(to.next()),
            _ => self.runs.clear(),
        }
        self.base = base;
        self.persisted = self.persisted.max(to);
    }

    /// Forgets the entries up to `base`, which must be applied. Whatever stamp the entry there carries, the log starts
    /// after `base` from now on.
    pub(crate) fn rebase(&mut self, base: Position) {
        self.compact(base.index);
        self.base = base;
    }

    /// Notes that the state machine holds everything up to `to`, and lets old payloads go.
    pub(crate) fn apply_to(&mut self, to: Index) {
        assert!(to <= self.last, "applied {to} past the log's end {}", self.last);
        if to <= self.applied {
            return;
        }
        // Where everything is applied there is nothing to count.
        let applied_bytes = || self.cached.payload_bytes(self.applied, to);
        self.unapplied_bytes = if to == self.last { 0 } else { self.unapplied_bytes - applied_bytes() };
        self.applied = to;
        self.evict();
    }

    /// Notes that the log as it is now is durable up to `to`.
    pub(crate) fn persist_to(&mut self, to: Index) {
        assert!(to <= self.last, "persisted {to} past the log's end {}", self.last);
        self.persisted = self.persisted.max(to);
        self.evict();
    }

    /// Takes back that anything after `to` is durable as it is.
    pub(crate) fn unpersist(&mut self, to: Index) {
        self.persisted = self.persisted.min(to);
    }

    fn evict(&mut self) {
        let upto = self.applied.min(self.persisted);
        while self.cached_bytes > ENTRY_CACHE_BYTES_MAX {
            let Some(bytes) = self.cached.pop_front_to(upto) else { return };
            self.cached_bytes -= bytes + ENTRY_OVERHEAD_BYTES;
        }
    }

    /// The chain of positions, and the shape of runs and cache.
    pub(crate) fn check(&self) {
        assert!(self.base.index <= self.applied, "base {} past applied {}", self.base.index, self.applied);
        assert!(self.applied <= self.last, "applied {} past last {}", self.applied, self.last);
        assert!(self.persisted <= self.last, "persisted {} past last {}", self.persisted, self.last);
        assert!(self.base.index <= self.persisted, "base {} past persisted {}", self.base.index, self.persisted);
        assert!(self.cached_from() <= self.applied.min(self.persisted).next(), "an entry still needed is not cached");
        assert!((self.last > self.base.index) != self.runs.is_empty(), "runs do not fit the log's length");
        assert!(self.runs.front().is_none_or(|run| run.first == self.base.index.next()), "a gap before the first run");
        for (before, after) in self.runs.iter().zip(self.runs.iter().skip(1)) {
            assert!(before.first < after.first, "runs {before:?} and {after:?} are out of order");
        }
        for (entry, index) in self.iter_from(Index(0)).zip(self.cached_from().0..) {
            assert!(entry.index.0 == index, "entry {} cached at {index}", entry.index);
            let run = self.run(entry.index).expect("cached entries lie inside the log");
            assert!((entry.stamp, entry.origin) == (run.stamp, run.origin), "entry {} disagrees with {run:?}", index);
        }
    }
}

#[cfg(test)]
mod tests {
    use base::NodeId;
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::entry::EntryKind;

    fn ballot(round: u64) -> Ballot {
        Ballot::new(round, NodeId(1))
    }

    fn entry(index: u64, round: u64) -> Entry {
        let payload = Bytes::from(vec![0; usize::try_from(index % 5).expect("small")]);
        Entry { index: Index(index), stamp: ballot(round), origin: ballot(round), kind: EntryKind::Command, payload }
    }

    fn log(rounds: &[u64]) -> Log {
        let mut log = Log::new(Position::default());
        log.append((1..).zip(rounds).map(|(index, round)| entry(index, *round)).collect());
        log.check();
        log
    }

    #[test]
    fn stamps_are_known_where_entries_are() {
        let log = log(&[1, 1, 2, 5, 5]);
        let stamps: Vec<_> = (0..=6).map(|index| log.stamp(Index(index)).map(|stamp| stamp.round)).collect();
        assert_eq!(stamps, [Some(0), Some(1), Some(1), Some(2), Some(5), Some(5), None]);
        let before: Vec<_> = (1..=5).map(|index| log.before_ballot_of(Index(index)).0).collect();
        assert_eq!(before, [0, 0, 2, 3, 3]);
    }

    #[test]
    fn a_stretch_of_one_stamp_is_found_whatever_its_origins() {
        let mut log = log(&[1, 1, 4, 4, 2]);
        log.overwrite(Entry { origin: ballot(3), ..entry(4, 4) });
        log.check();
        let until = |from, round| log.stamped_until(Index(from), ballot(round)).0;
        assert_eq!([until(3, 4), until(4, 4), until(1, 4), until(5, 4), until(6, 4)], [4, 4, 0, 4, 5]);
        assert_eq!([until(1, 1), until(2, 1), until(5, 2), until(3, 1)], [2, 2, 5, 2]);
        assert_eq!(Log::new(Position::default()).stamped_until(Index(1), ballot(1)), Index(0));
    }

    #[test]
    fn an_overwritten_slot_keeps_its_suffix() {
        let mut log = log(&[1, 1, 1, 1]);
        log.persist_to(Index(4));
        log.overwrite(entry(2, 7));
        log.check();
        let rounds: Vec<_> = log.iter_from(Index(1)).map(|entry| entry.stamp.round).collect();
        assert_eq!(rounds, [1, 7, 1, 1]);
        assert_eq!(log.persisted(), Index(1), "the new content of slot 2 is not durable");
        log.overwrite(entry(3, 7));
        log.overwrite(entry(4, 7));
        log.check();
        assert_eq!(log.before_ballot_of(Index(4)), Index(1), "equal neighbours are one run");
    }

    #[test]
    fn a_damaged_recovery_is_refused() {
        let base = Position { index: Index(3), stamp: ballot(1) };
        let run = |first, round| (Index(first), ballot(round), ballot(round));
        let recover = |runs: &[_], entries: &[Entry], last| Log::recover(base, runs, entries.to_vec(), Index(last));
        assert!(recover(&[run(4, 1)], &[entry(6, 2), entry(7, 2)], 7).is_ok());
        assert!(recover(&[], &[], 3).is_ok());
        assert!(recover(&[run(4, 1)], &[], 9).is_ok());
        assert!(recover(&[], &[entry(6, 2)], 6).is_err(), "4 and 5 are missing");
        assert!(recover(&[run(5, 1)], &[entry(6, 2)], 6).is_err(), "4 is missing");
        assert!(recover(&[run(4, 1)], &[entry(6, 2), entry(8, 2)], 8).is_err(), "7 is missing");
        assert!(recover(&[run(4, 1)], &[entry(6, 2)], 7).is_err(), "ends early");
        assert!(recover(&[run(4, 1), run(4, 2)], &[entry(6, 2)], 6).is_err(), "runs do not ascend");
        assert!(recover(&[], &[entry(2, 1)], 2).is_err(), "below the base");
        assert!(recover(&[], &[], 2).is_err(), "ends below the base");
    }

    proptest! {
        /// Any sequence of operations leaves what a plain vector of entries would hold.
        #[test]
        fn agrees_with_a_plain_vector(operations in proptest::collection::vec((0u8..6, 1u64..40), 1..120)) {
            let mut log = Log::new(Position::default());
            let mut plain: Vec<Entry> = Vec::new();
            let mut compacted = 0usize;
            for (operation, argument) in operations {
                let last = plain.len() as u64;
                let chosen = argument.min(last);
                if operation > 2 && log.has_open() {
                    let sealed = log.seal();
                    prop_assert_eq!(sealed.last(), plain.last());
                }
                match operation {
                    0..=2 => {
                        let next = entry(last + 1, argument / 4);
                        log.push(next.clone());
                        plain.push(next);
                        // Pieces of one entry and of several.
                        if argument % 3 > 0 {
                            let sealed = log.seal();
                            prop_assert_eq!(sealed.last(), plain.last());
                        }
                    }
                    3 if chosen > log.applied().0 => {
                        log.truncate(Index(chosen));
                        plain.truncate(usize::try_from(chosen - 1).expect("small"));
                    }
                    4 if chosen > log.applied().0 => {
                        log.overwrite(entry(chosen, argument));
                        plain[usize::try_from(chosen - 1).expect("small")] = entry(chosen, argument);
                    }
                    5 if chosen > 0 => {
                        log.persist_to(Index(last));
                        log.apply_to(Index(chosen / 2));
                        log.compact(Index(chosen / 3).min(log.applied()));
                        compacted = usize::try_from(log.base().index.0).expect("small");
                    }
                    _ => {}
                }
                log.check();
                prop_assert_eq!(log.last().0, plain.len() as u64);
                let held: Vec<Entry> = log.iter_from(Index(0)).cloned().collect();
                prop_assert_eq!(&held[..], &plain[compacted..]);
                for entry in &plain[compacted..] {
                    prop_assert_eq!(log.stamp(entry.index), Some(entry.stamp));
                    prop_assert_eq!(log.origin(entry.index), Some(entry.origin));
                }
                let unapplied: usize = plain.iter().filter(|e| e.index > log.applied()).map(|e| e.payload.len()).sum();
                prop_assert_eq!(log.unapplied_bytes(), unapplied);
            }
        }
    }
}
