//! A replica's disk as far as its kernel can tell: records become durable in the order in which they were written, and
//! a crash loses any suffix of those that are not.
//!
//! Invariant: only this file attests durability in the model, and only for records it has moved to `durable`.

use std::collections::{BTreeMap, VecDeque};

use base::{Ballot, Index, Lsn, Synced};
use kernel::{Entry, Mark, Position, Record, Recovered};

/// What replaying records comes to.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Image {
    pub(crate) promised: Ballot,
    pub(crate) accepted: Ballot,
    pub(crate) commit: Index,
    pub(crate) base: Position,
    pub(crate) log: BTreeMap<Index, Entry>,
}

impl Image {
    /// Replays one record.
    pub(crate) fn apply(&mut self, record: &Record) {
        match record {
            Record::Hard { promised, accepted, commit } => {
                (self.promised, self.accepted, self.commit) = (*promised, *accepted, *commit);
            }
            Record::Append(entries) => {
                for entry in entries {
                    let gap = entry.index > self.last().next() || entry.index <= self.base.index;
                    assert!(!gap, "entry {} written outside {:?}..{}", entry.index, self.base, self.last());
                    self.log.insert(entry.index, entry.clone());
                }
            }
            Record::Truncate { from } => drop(self.log.split_off(from)),
            Record::Compact { base, keep_suffix } => {
                self.log = self.log.split_off(&base.index.next());
                if !keep_suffix {
                    self.log.clear();
                }
                self.base = *base;
            }
        }
    }

    /// Index of the last entry, or of the base.
    pub(crate) fn last(&self) -> Index {
        self.log.last_key_value().map_or(self.base.index, |(index, _)| *index)
    }

    /// Whether the entry at `index` is the one that `origin` proposed, as far as that is still known.
    pub(crate) fn holds(&self, index: Index, origin: Ballot) -> bool {
        index <= self.base.index || self.log.get(&index).is_some_and(|entry| entry.origin == origin)
    }
}

/// Log and state machine of one replica.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) durable: Image,
    /// Batches written and not yet durable, oldest first.
    batches: VecDeque<Vec<Record>>,
    /// The state machine as last made durable.
    pub(crate) flushed: Mark,
}

impl Disk {
    /// Writes a batch.
    pub(crate) fn write(&mut self, records: Vec<Record>) {
        self.batches.push_back(records);
    }

    /// Batches that are not durable.
    pub(crate) fn batches(&self) -> u64 {
        self.batches.len() as u64
    }

    /// What is not durable, in pieces that a crash keeps or loses whole: records, or batches if they are `atomic`.
    pub(crate) fn unsynced(&self, atomic: bool) -> usize {
        if atomic { self.batches.len() } else { self.batches.iter().map(Vec::len).sum() }
    }

    /// Makes the oldest batch durable; `lsn` is its number.
    pub(crate) fn sync(&mut self, lsn: Lsn) -> Option<Synced<Lsn>> {
        let records = self.batches.pop_front()?;
        records.iter().for_each(|record| self.durable.apply(record));
        Some(Synced::attest(lsn))
    }

    /// What a reader of the disk sees while the machine runs.
    pub(crate) fn written(&self) -> Image {
        let mut image = self.durable.clone();
        self.batches.iter().flatten().for_each(|record| image.apply(record));
        image
    }

    /// Loses what is not durable, but for the first `kept` pieces. Returns what is lost.
    pub(crate) fn crash(&mut self, kept: usize, atomic: bool) -> Vec<Record> {
        let mut pieces: Vec<Vec<Record>> = std::mem::take(&mut self.batches).into();
        if !atomic {
            pieces = pieces.into_iter().flatten().map(|record| vec![record]).collect();
        }
        let lost = pieces.split_off(kept);
        pieces.iter().flatten().for_each(|record| self.durable.apply(record));
        lost.into_iter().flatten().collect()
    }

    /// What a starting replica is told. Entries up to the mark are given as runs only.
    pub(crate) fn recover(&self) -> Recovered {
        let image = &self.durable;
        let applied = self.flushed.position.index;
        let mut runs: Vec<(Index, Ballot, Ballot)> = Vec::new();
        for entry in image.log.values().filter(|entry| entry.index <= applied) {
            if runs.last().is_none_or(|run| (run.1, run.2) != (entry.stamp, entry.origin)) {
                runs.push((entry.index, entry.stamp, entry.origin));
            }
        }
        Recovered {
            promised: image.promised,
            accepted: image.accepted,
            commit: image.commit,
            base: image.base,
            runs,
            entries: image.log.values().filter(|entry| entry.index > applied).cloned().collect(),
            last: image.last(),
            mark: self.flushed.clone(),
        }
    }
}
