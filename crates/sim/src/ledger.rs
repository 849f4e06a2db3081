//! The durability ledger: for each node, what it has written and what of that is on its disk, kept apart from the code
//! under test; and whether what a node says is covered by it.
//!
//! Invariant: a promise is checked at the moment it leaves the node, so that no lucky crash is needed to see that it
//! was made too early.

use std::collections::VecDeque;

use base::{Ballot, GroupId, Index, Lsn};
use kernel::{Body, Entry, EntryKind, Message, Position, Record, Recovered};

use crate::trace::hash_bytes;

/// An entry without its payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct EntryKey {
    pub(crate) stamp: Ballot,
    pub(crate) origin: Ballot,
    pub(crate) kind: EntryKind,
    payload: u64,
}

impl EntryKey {
    pub(crate) fn of(entry: &Entry) -> Self {
        let Entry { stamp, origin, kind, ref payload, .. } = *entry;
        Self { stamp, origin, kind, payload: hash_bytes(payload) }
    }

    /// Whether both are the same proposal, however often it was accepted since.
    pub(crate) fn same_value(&self, other: &Self) -> bool {
        (self.origin, self.kind, self.payload) == (other.origin, other.kind, other.payload)
    }
}

/// A record without payloads.
#[derive(Clone, Debug)]
enum Change {
    Hard { promised: Ballot, accepted: Ballot },
    Append { first: Index, keys: Vec<EntryKey> },
    Truncate { from: Index },
    Compact { base: Position, keep_suffix: bool },
}

impl Change {
    fn of(record: &Record) -> Option<Self> {
        Some(match record {
            Record::Hard { promised, accepted, .. } => Self::Hard { promised: *promised, accepted: *accepted },
            Record::Append(entries) => {
                Self::Append { first: entries.first()?.index, keys: entries.iter().map(EntryKey::of).collect() }
            }
            Record::Truncate { from } => Self::Truncate { from: *from },
            Record::Compact { base, keep_suffix } => Self::Compact { base: *base, keep_suffix: *keep_suffix },
        })
    }
}

/// A replica's log and promises as the records say.
#[derive(Clone, Default, Debug)]
pub(crate) struct ShadowLog {
    pub(crate) promised: Ballot,
    accepted: Ballot,
    base: Position,
    /// From the index after the base on.
    entries: VecDeque<EntryKey>,
}

impl ShadowLog {
    pub(crate) fn base(&self) -> Index {
        self.base.index
    }

    pub(crate) fn last(&self) -> Index {
        Index(self.base.index.0 + self.entries.len() as u64)
    }

    pub(crate) fn get(&self, index: Index) -> Option<&EntryKey> {
        self.entries.get(usize::try_from(index.0.checked_sub(self.base.index.0 + 1)?).ok()?)
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Hard { promised, accepted } => (self.promised, self.accepted) = (*promised, *accepted),
            Change::Append { first, keys } => {
                for (key, index) in keys.iter().zip(first.0..) {
                    let at = (index - self.base.index.0 - 1) as usize;
                    if at < self.entries.len() { self.entries[at] = *key } else { self.entries.push_back(*key) }
                }
            }
            Change::Truncate { from } => {
                self.entries.truncate((from.0 - self.base.index.0 - 1) as usize);
            }
            Change::Compact { base, keep_suffix } => {
                let gone = (base.index.0 - self.base.index.0) as usize;
                if *keep_suffix {
                    drop(self.entries.drain(..gone.min(self.entries.len())))
                } else {
                    self.entries.clear()
                }
                self.base = *base;
            }
        }
    }

    /// What a start does to this log when the state machine is at `mark`: a log that does not reach the mark, or holds
    /// another history there, starts over.
    fn connection(&self, mark: Position) -> Option<Change> {
        let connects = mark.index == self.base.index || self.get(mark.index).is_some_and(|key| key.stamp >= mark.stamp);
        (!connects).then_some(Change::Compact { base: mark, keep_suffix: false })
    }

    /// Why a recovered state is not this one.
    fn difference(&self, found: &Recovered) -> Option<String> {
        if (found.promised, found.accepted) != (self.promised, self.accepted) {
            return Some(format!("promise {} became {}", self.promised, found.promised));
        }
        if (found.base, found.last) != (self.base, self.last()) {
            let (base, last) = (self.base.index, self.last());
            return Some(format!("log {base}..={last} became {}..={}", found.base.index, found.last));
        }
        let wrong = found.entries.iter().find(|entry| self.get(entry.index) != Some(&EntryKey::of(entry)));
        wrong.map(|entry| format!("entry {} is another one", entry.index))
    }
}

/// One node's ledger.
#[derive(Default)]
pub(crate) struct Ledger {
    /// Everything handed to the log.
    pub(crate) appended: ShadowLog,
    /// What is synced.
    pub(crate) durable: ShadowLog,
    pending: VecDeque<(Lsn, Vec<Change>)>,
}

impl Ledger {
    /// A batch was handed to the log. Answers how many suffixes it cuts off and how often it moves the base.
    pub(crate) fn issue(&mut self, lsn: Lsn, batch: &[(GroupId, Vec<Record>)]) -> (u64, u64) {
        let changes: Vec<Change> = batch.iter().flat_map(|(_, records)| records).filter_map(Change::of).collect();
        let (mut cut, mut compacted) = (0, 0);
        for change in &changes {
            cut += u64::from(matches!(change, Change::Truncate { .. }));
            compacted += u64::from(matches!(change, Change::Compact { .. }));
            self.appended.apply(change);
        }
        self.pending.push_back((lsn, changes));
        (cut, compacted)
    }

    /// The log says that everything up to here is synced.
    pub(crate) fn synced(&mut self, lsn: Lsn) {
        while let Some((_, changes)) = self.pending.pop_front_if(|(pending, _)| *pending <= lsn) {
            for change in &changes {
                self.durable.apply(change);
            }
        }
    }

    /// A start found this. It must be what was synced, or that and some of the batches that were under way, in order
    /// and whole.
    pub(crate) fn recovered(&mut self, found: &Recovered) -> Result<(), String> {
        let mark = found.mark.position;
        let mut candidate = self.durable.clone();
        let mut pending = std::mem::take(&mut self.pending);
        let mut first_difference = None;
        loop {
            let mut connected = candidate.clone();
            let connection = candidate.connection(mark);
            connection.iter().for_each(|change| connected.apply(change));
            match connected.difference(found) {
                None => {
                    self.durable = candidate;
                    self.appended = connected;
                    // Staged by the start, durable with the first sync.
                    self.pending.extend(connection.map(|change| (Lsn(0), vec![change])));
                    return Ok(());
                }
                Some(difference) => drop(first_difference.get_or_insert(difference)),
            }
            let Some((_, changes)) = pending.pop_front() else { break };
            for change in &changes {
                candidate.apply(change);
            }
        }
        Err(first_difference.unwrap_or_default())
    }

    /// Whether a copy of the disk, crashed, gives back what is synced.
    pub(crate) fn audit(&self, found: &Recovered) -> Result<(), String> {
        let mut durable = self.durable.clone();
        durable.connection(found.mark.position).iter().for_each(|change| durable.apply(change));
        durable.difference(found).map_or(Ok(()), Err)
    }

    /// Whether the node holds this entry where a crash cannot reach it.
    pub(crate) fn holds(&self, index: Index, key: &EntryKey, checkpoint: Index) -> bool {
        index <= checkpoint
            || index <= self.durable.base()
            || self.durable.get(index).is_some_and(|held| held.same_value(key))
    }

    /// Whether what this message promises is on the disk. `checkpoint` is what the engine holds durably. Answers
    /// whether it promises anything.
    pub(crate) fn check(&self, message: &Message, checkpoint: Index) -> Result<bool, String> {
        let durable = &self.durable;
        let promised = |ballot: Ballot| match durable.promised >= ballot {
            true => Ok(true),
            false => Err(format!("promises {ballot}, but only {} is synced", durable.promised)),
        };
        match &message.body {
            Body::Elect { .. } => promised(message.ballot),
            Body::ElectReply { granted: true, .. } => promised(message.ballot),
            Body::ElectReply { granted: false, promised: told, .. } => promised(*told),
            Body::AppendReply { ok: true, matched, .. } => {
                promised(message.ballot)?;
                if *matched > durable.last().max(checkpoint) {
                    return Err(format!("acknowledges {matched}, but only {} is synced", durable.last()));
                }
                // What a later leader has written there since is no part of what this one is told.
                let (synced, written) = (durable.get(*matched), self.appended.get(*matched));
                let is_meant = written.is_some_and(|written| written.stamp <= message.ballot);
                if *matched > checkpoint && synced.is_some() && is_meant && synced != written {
                    return Err(format!("acknowledges entry {matched}, but an older one is synced there"));
                }
                Ok(true)
            }
            Body::SnapshotInstalled { position } if position.index > checkpoint => {
                Err(format!("has installed {}, but the engine's checkpoint is at {checkpoint}", position.index))
            }
            Body::SnapshotInstalled { .. } => Ok(true),
            Body::PreVote { .. }
            | Body::PreVoteReply { .. }
            | Body::FetchLog { .. }
            | Body::FetchLogReply { .. }
            | Body::Append { .. }
            | Body::AppendReply { ok: false, .. }
            | Body::ReadIndex { .. }
            | Body::ReadIndexReply { .. }
            | Body::TimeoutNow { .. }
            | Body::Removed { .. } => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use base::{NodeId, ReplicaId};
    use bytes::Bytes;
    use kernel::{Entries, Mark, Protocol, Suffix};

    use super::*;

    const BALLOT: Ballot = Ballot::new(1, NodeId(1));
    const GROUP: GroupId = GroupId(0);

    fn entry(index: u64) -> Entry {
        let payload = Bytes::from(index.to_string());
        Entry { index: Index(index), stamp: BALLOT, origin: BALLOT, kind: EntryKind::Command, payload }
    }

    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        let hard = Record::Hard { promised: BALLOT, accepted: Ballot::ZERO, commit: Index(0) };
        ledger.issue(Lsn(1), &[(GROUP, vec![hard, Record::Append(vec![entry(1), entry(2)].into())])]);
        ledger.synced(Lsn(1));
        ledger.issue(Lsn(2), &[(GROUP, vec![Record::Append(vec![entry(3)].into())])]);
        ledger
    }

    fn acknowledgement(matched: u64) -> Message {
        let (hint, promised) = (Position::default(), BALLOT);
        let body = Body::AppendReply { ok: true, matched: Index(matched), hint, promised, confirm_seq: 1, priority: 0 };
        let (from, to) = (ReplicaId(1), ReplicaId(2));
        Message { group: GROUP, protocol: Protocol::Raft, from, to, ballot: BALLOT, body }
    }

    fn recovered(last: u64) -> Recovered {
        let entries = (1..=last).map(entry).collect();
        Recovered { promised: BALLOT, entries, last: Index(last), mark: Mark::default(), ..Recovered::default() }
    }

    #[test]
    fn an_acknowledgement_before_the_sync_is_found() {
        let mut ledger = ledger();
        assert_eq!(ledger.check(&acknowledgement(2), Index(0)), Ok(true));
        assert!(ledger.check(&acknowledgement(3), Index(0)).is_err());
        ledger.synced(Lsn(2));
        assert_eq!(ledger.check(&acknowledgement(3), Index(0)), Ok(true));
    }

    #[test]
    fn what_a_later_leader_has_written_since_takes_nothing_back() {
        let mut ledger = ledger();
        let overwrite = |stamp| vec![(GROUP, vec![Record::Append(vec![Entry { stamp, ..entry(2) }].into())])];
        ledger.issue(Lsn(3), &overwrite(Ballot::new(2, NodeId(2))));
        assert_eq!(ledger.check(&acknowledgement(2), Index(0)), Ok(true));
        let mut ledger = self::ledger();
        ledger.issue(Lsn(3), &overwrite(Ballot::new(1, NodeId(0))));
        assert!(ledger.check(&acknowledgement(2), Index(0)).is_err(), "this leader's own is not synced");
    }

    #[test]
    fn a_vote_before_the_sync_is_found() {
        let body = Body::ElectReply {
            granted: true,
            promised: Ballot::new(2, NodeId(2)),
            accepted: Ballot::ZERO,
            commit: Index(0),
            last: Position::default(),
            suffix: Suffix { from: Index(0), entries: Entries::default() }.into(),
        };
        let vote = Message { ballot: Ballot::new(2, NodeId(2)), body, ..acknowledgement(0) };
        assert!(ledger().check(&vote, Index(0)).is_err());
    }

    #[test]
    fn a_start_may_find_more_than_was_synced_and_never_less() {
        assert!(ledger().recovered(&recovered(2)).is_ok());
        assert!(ledger().recovered(&recovered(3)).is_ok());
        assert!(ledger().recovered(&recovered(1)).is_err());
        let mut other = recovered(2);
        other.entries[1].payload = Bytes::from_static(b"other");
        assert!(ledger().recovered(&other).is_err());
        assert!(ledger().audit(&recovered(2)).is_ok());
        assert!(ledger().audit(&recovered(1)).is_err());
    }
}
