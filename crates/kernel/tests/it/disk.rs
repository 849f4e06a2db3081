//! A replica's disk and state machine, as far as a test needs them: records become durable batch by batch, and a crash
//! loses what is not.

use std::collections::{BTreeMap, VecDeque};

use base::{Ballot, Index, Lsn};
use bytes::Bytes;
use kernel::{Committed, Entry, EntryKind, Mark, Position, Record, Recovered};

/// Result of replaying records.
#[derive(Clone, Default, Debug, PartialEq)]
pub(crate) struct Image {
    pub(crate) promised: Ballot,
    pub(crate) accepted: Ballot,
    pub(crate) commit: Index,
    pub(crate) base: Position,
    pub(crate) log: BTreeMap<Index, Entry>,
}

impl Image {
    pub(crate) fn apply(&mut self, record: &Record) {
        match record {
            Record::Hard { promised, accepted, commit } => {
                assert!(*promised >= self.promised, "I2: promise goes back from {} to {promised}", self.promised);
                assert!(*accepted >= self.accepted, "I2: acceptance goes back from {} to {accepted}", self.accepted);
                (self.promised, self.accepted, self.commit) = (*promised, *accepted, *commit);
            }
            Record::Append(entries) => {
                for entry in entries {
                    assert!(entry.index <= self.last().next(), "hole before {}", entry.index);
                    assert!(entry.index > self.base.index, "entry {} below the base", entry.index);
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

    pub(crate) fn last(&self) -> Index {
        self.log.last_key_value().map_or(self.base.index, |(index, _)| *index)
    }
}

/// The replicated state: every effective command in order.
#[derive(Clone, Default, Debug, PartialEq)]
pub(crate) struct Machine {
    pub(crate) mark: Mark,
    pub(crate) commands: Vec<(Index, Bytes)>,
}

impl Machine {
    /// Whether both hold the same. Stamps of decided entries need not agree in every protocol.
    pub(crate) fn agrees_with(&self, other: &Self) -> bool {
        let what = |machine: &Self| {
            let Mark { position, max_origin, membership } = machine.mark.clone();
            (position.index, max_origin, membership)
        };
        what(self) == what(other) && self.commands == other.commands
    }

    pub(crate) fn apply(&mut self, committed: &[Committed], mark: Mark) {
        for Committed { entries, .. } in committed.iter().filter(|committed| committed.effective) {
            let commands = entries.iter().filter(|entry| entry.kind == EntryKind::Command);
            self.commands.extend(commands.map(|entry| (entry.index, entry.payload.clone())));
        }
        self.mark = mark;
    }
}

#[derive(Clone, Default, Debug)]
pub(crate) struct Disk {
    pub(crate) durable: Image,
    /// With the batches not yet synced.
    pub(crate) written: Image,
    batches: VecDeque<(Lsn, Vec<Record>)>,
    pub(crate) lsn: Lsn,
    /// The state machine as last flushed.
    pub(crate) flushed: Machine,
}

impl Disk {
    pub(crate) fn write(&mut self, lsn: Lsn, records: Vec<Record>) {
        for record in &records {
            self.written.apply(record);
        }
        self.batches.push_back((lsn, records));
    }

    /// Makes the oldest batch durable.
    pub(crate) fn sync(&mut self) -> Option<Lsn> {
        let (lsn, records) = self.batches.pop_front()?;
        for record in &records {
            self.durable.apply(record);
        }
        Some(lsn)
    }

    /// Loses what is not durable, except for the first `torn` records: a batch need not be atomic. If it must be, the
    /// first `torn` batches.
    pub(crate) fn crash(&mut self, torn: usize, atomic: bool) {
        let batches = std::mem::take(&mut self.batches).into_iter().map(|(_, records)| records);
        let pieces: Vec<Vec<Record>> =
            if atomic { batches.collect() } else { batches.flatten().map(|record| vec![record]).collect() };
        for record in pieces.iter().take(torn).flatten() {
            self.durable.apply(record);
        }
        self.written = self.durable.clone();
    }

    /// What a starting replica is told. Entries up to the applied index are given as runs only, in part.
    pub(crate) fn recover(&self) -> Recovered {
        let image = &self.durable;
        let applied = self.flushed.mark.position.index;
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
            mark: self.flushed.mark.clone(),
        }
    }
}
