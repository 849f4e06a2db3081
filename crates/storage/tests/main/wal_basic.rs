//! The log's contract, one rule per test.

use std::sync::Arc;

use base::{Ballot, ClusterId, Fault, GroupId, Index, Lsn, NodeId};
use kernel::{Entry, EntryKind, Mark, Position, Record};
use storage::disk::{MemDisk, OsDisk, SyncMode};
use storage::wal::{Loaded, Space, Wal, WalIdentity, WalOptions};

pub(crate) const IDENTITY: WalIdentity =
    WalIdentity { cluster: ClusterId(1), node: NodeId(2), incarnation: 0x5eed_5eed_5eed_5eed };
pub(crate) const SMALL: WalOptions = WalOptions { segment_bytes: 32 * 1024, may_create: true };
const GROUP: GroupId = GroupId(1);

pub(crate) fn ballot(round: u64) -> Ballot {
    Ballot::new(round, NodeId(1))
}

pub(crate) fn entry(index: u64, round: u64, bytes: usize) -> Entry {
    Entry {
        index: Index(index),
        stamp: ballot(round),
        origin: ballot(round),
        kind: EntryKind::Command,
        payload: vec![(index * 7 + round) as u8; bytes].into(),
    }
}

pub(crate) fn mark(index: u64, round: u64) -> Mark {
    Mark { position: Position { index: Index(index), stamp: ballot(round) }, ..Mark::default() }
}

fn hard(round: u64, commit: u64) -> Record {
    Record::Hard { promised: ballot(round), accepted: Ballot::ZERO, commit: Index(commit) }
}

fn write(wal: &mut Wal, group: GroupId, records: Vec<Record>) {
    let lsn = wal.next_lsn();
    wal.append(lsn, &[(group, records)]).expect("append");
    assert_eq!(wal.sync().expect("sync").into_inner(), lsn);
}

fn run_maintenance(wal: &mut Wal) {
    for _ in 0..1000 {
        if !wal.maintain().expect("maintain") {
            return;
        }
    }
    panic!("upkeep never comes to rest");
}

#[test]
fn what_was_synced_comes_back() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let open = |may_create| {
        let disk = Arc::new(OsDisk::new(dir.path(), SyncMode::Durable));
        Wal::open(disk, IDENTITY, WalOptions { may_create, ..SMALL })
    };
    assert!(matches!(open(false), Err(Fault::Corrupt { .. })), "a lost log must not look like a new one");
    let (mut wal, recovered) = open(true).expect("create");
    assert!(recovered.groups().is_empty());
    let entries: Vec<Entry> = (1..=20).map(|index| entry(index, 3, 1000)).collect();
    write(&mut wal, GROUP, vec![hard(3, 0), Record::Append(entries.clone())]);
    write(&mut wal, GROUP, vec![Record::Truncate { from: Index(19) }, hard(4, 17)]);
    let base = Position { index: Index(2), stamp: ballot(3) };
    write(&mut wal, GROUP, vec![Record::Compact { base, keep_suffix: true }]);
    drop(wal);
    let (mut wal, recovered) = open(false).expect("open");
    assert_eq!((recovered.groups(), recovered.torn()), (&[GROUP][..], None));
    assert_eq!(wal.synced(), Lsn(3));
    let state = recovered.group(&mut wal, GROUP, mark(10, 3)).expect("recover");
    assert_eq!((state.promised, state.commit, state.last), (ballot(4), Index(17), Index(18)));
    assert_eq!(state.base, base);
    assert_eq!(state.runs, vec![(Index(3), ballot(3), ballot(3))]);
    assert_eq!(state.entries, entries[10..18]);
    let reader = wal.reader();
    let loaded = reader.load(GROUP, Index(3), Index(100), 2500).expect("load");
    assert_eq!(loaded, Loaded::Entries(entries[2..4].to_vec()));
    assert_eq!(reader.load(GROUP, Index(2), Index(4), 1), Ok(Loaded::Compacted(base)));
    assert_eq!(reader.load(GROUP, Index(19), Index(21), 1), Ok(Loaded::Entries(Vec::new())));
    run_maintenance(&mut wal);
    assert_eq!(wal.space(), Space::Ample);
}

#[test]
fn old_segments_are_reused_and_the_log_stays_small() {
    let disk = MemDisk::new(1);
    let (mut wal, _) = Wal::open(Arc::new(disk.clone()), IDENTITY, SMALL).expect("create");
    for index in 1..2000u64 {
        let mut records = vec![Record::Append(vec![entry(index, 1, 500)])];
        if index % 10 == 0 {
            let base = Position { index: Index(index - 5), stamp: ballot(1) };
            records.push(Record::Compact { base, keep_suffix: true });
        }
        write(&mut wal, GROUP, records);
        run_maintenance(&mut wal);
    }
    assert!(wal.stats().segments <= 4, "{:?}", wal.stats());
    assert!(disk.used() <= 8 * SMALL.segment_bytes, "{}", disk.used());
    drop(wal);
    disk.crash(3);
    let (mut wal, recovered) = Wal::open(Arc::new(disk), IDENTITY, SMALL).expect("open");
    let state = recovered.group(&mut wal, GROUP, mark(1990, 1)).expect("recover");
    assert_eq!((state.last, state.entries.len()), (Index(1999), 9));
}
