//! What the log should hold, kept naively; and the comparison with what it does hold.

use std::collections::BTreeMap;

use base::{Ballot, GroupId, Index};
use kernel::{Entry, Mark, Position, Record};

use crate::wal::{Loaded, RecoveredLog, Wal};

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Group {
    pub(super) hard: (Ballot, Ballot, Index),
    pub(super) base: Position,
    pub(super) entries: BTreeMap<u64, Entry>,
}

impl Group {
    pub(super) fn last(&self) -> u64 {
        self.entries.keys().next_back().copied().unwrap_or(self.base.index.0)
    }

    fn apply(&mut self, record: &Record) {
        match record {
            Record::Hard { promised, accepted, commit } => self.hard = (*promised, *accepted, *commit),
            Record::Append(entries) => {
                for entry in entries {
                    self.entries.insert(entry.index.0, entry.clone());
                }
            }
            Record::Truncate { from } => drop(self.entries.split_off(&from.0)),
            Record::Compact { base, keep_suffix } => {
                self.entries = if *keep_suffix { self.entries.split_off(&(base.index.0 + 1)) } else { BTreeMap::new() };
                self.base = *base;
            }
        }
    }
}

/// The state after some turn.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Model {
    pub(super) lsn: u64,
    pub(super) groups: BTreeMap<GroupId, Group>,
}

impl Model {
    pub(super) fn apply(&mut self, lsn: u64, batch: &[(GroupId, Vec<Record>)]) {
        self.lsn = lsn;
        for (group, records) in batch {
            for record in records {
                self.groups.entry(*group).or_default().apply(record);
            }
        }
    }

    /// Whether the log holds exactly this state.
    pub(super) fn compare(&self, wal: &mut Wal, recovered: &RecoveredLog) -> Result<(), String> {
        if recovered.groups() != self.groups.keys().copied().collect::<Vec<_>>() {
            return Err(format!("groups {:?}, expected {:?}", recovered.groups(), self.groups.keys()));
        }
        for (id, group) in &self.groups {
            for at in [group.base.index.0, (group.base.index.0 + group.last()) / 2, group.last()] {
                let stamp = group.entries.get(&at).map_or(group.base.stamp, |entry| entry.stamp);
                let mark = Mark { position: Position { index: Index(at), stamp }, ..Mark::default() };
                let found = recovered.group(wal, *id, mark).map_err(|fault| format!("{id}: {fault}"))?;
                let entries: Vec<Entry> = group.entries.range(at + 1..).map(|(_, entry)| entry.clone()).collect();
                let expected = (group.hard.0, group.hard.1, group.hard.2.max(Index(at)), group.base, group.last());
                let found_state = (found.promised, found.accepted, found.commit, found.base, found.last.0);
                if found_state != expected || found.entries != entries {
                    let (found, expected) = (summary(&found.entries), summary(&entries));
                    return Err(format!("{id} at {at}: {found_state:?} {found}, expected {expected:?} {expected}"));
                }
                let mut stamps = Vec::new();
                for (position, run) in found.runs.iter().enumerate() {
                    let end = found.runs.get(position + 1).map_or(at + 1, |next| next.0.0);
                    stamps.extend((run.0.0..end).map(|index| (index, run.1, run.2)));
                }
                let known = group.entries.range(..=at).map(|(index, entry)| (*index, entry.stamp, entry.origin));
                if stamps != known.collect::<Vec<_>>() {
                    return Err(format!("{id}: runs {:?} do not describe the entries up to {at}", found.runs));
                }
            }
        }
        Ok(())
    }

    /// Whether a reader sees this state.
    pub(super) fn compare_reads(&self, wal: &Wal, from: u64, until: u64, bytes: usize) -> Result<(), String> {
        for (id, group) in &self.groups {
            let loaded = wal.reader().load(*id, Index(from), Index(until), bytes).map_err(|fault| fault.to_string())?;
            let expected: Vec<Entry> = group.entries.range(from..until.max(from)).map(|row| row.1.clone()).collect();
            match loaded {
                Loaded::Compacted(base) if from <= group.base.index.0 && base == group.base => {}
                Loaded::Entries(entries)
                    if from > group.base.index.0
                        && expected.starts_with(&entries)
                        && (entries.is_empty() == expected.is_empty())
                        && (entries.len() == expected.len() || bytes < 1 << 20) => {}
                other => return Err(format!("{id}: reading {from}..{until} gave {other:?}")),
            }
        }
        Ok(())
    }
}

fn summary(entries: &[Entry]) -> String {
    let text: Vec<String> =
        entries.iter().map(|entry| format!("{}@{}+{}", entry.index, entry.stamp, entry.payload.len())).collect();
    text.join(" ")
}
