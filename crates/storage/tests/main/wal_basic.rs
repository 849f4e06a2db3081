//! The log's contract, one rule per test.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use base::{Ballot, ClusterId, Fault, GroupId, Index, Lsn, NodeId};
use kernel::{Entry, EntryKind, Mark, Position, Record};
use storage::disk::{MemDisk, OsDisk, SyncMode, WriteFault};
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
    write(&mut wal, GROUP, vec![hard(3, 0), Record::Append(entries.clone().into())]);
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
        let mut records = vec![Record::Append(vec![entry(index, 1, 500)].into())];
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

#[test]
fn a_full_disk_is_announced_and_a_restart_finds_everything() {
    let disk = MemDisk::new(1);
    let (mut wal, _) = Wal::open(Arc::new(disk.clone()), IDENTITY, SMALL).expect("create");
    run_maintenance(&mut wal);
    disk.set_capacity(Some(disk.used()));
    let mut announced = None;
    let mut index = 1;
    let fault = loop {
        let lsn = wal.next_lsn();
        wal.append(lsn, &[(GROUP, vec![Record::Append(vec![entry(index, 1, 3000)].into())])]).expect("append");
        match wal.sync() {
            Ok(_) => index += 1,
            Err(fault) => break fault,
        }
        while wal.maintain().expect("a full disk is no error here") {}
        if let (Space::Low { bytes, fault }, None) = (wal.space(), &announced) {
            assert!(fault.to_string().contains("disk full"), "{fault}");
            announced = Some((index, bytes));
        }
    };
    let (announced_at, bytes) = announced.expect("announced before it fails");
    assert!(index - announced_at >= bytes / 4096 / 2, "{bytes} bytes promised, {} entries taken", index - announced_at);
    let text = fault.to_string();
    assert!(text.contains("disk full") && text.contains("32768 more bytes") && text.contains("start"), "{text}");
    assert_eq!(wal.sync(), Err(fault), "poisoned");
    drop(wal);
    disk.kill();
    disk.set_capacity(None);
    let (mut wal, recovered) = Wal::open(Arc::new(disk), IDENTITY, SMALL).expect("open");
    let state = recovered.group(&mut wal, GROUP, mark(0, 0)).expect("recover");
    assert_eq!(state.last, Index(index - 1), "what was acknowledged, and nothing of what failed");
    write(&mut wal, GROUP, vec![Record::Append(vec![entry(index, 1, 10)].into())]);
}

/// The kernel may have dropped what a failed fsync was to save, and says so once: whoever asks again is told "saved".
#[test]
fn after_an_error_of_the_disk_the_log_never_touches_it_again() {
    type Breaks = fn(&MemDisk);
    let errors: [(&str, Breaks); 3] = [
        ("fsync", |disk| disk.fault_sync(0)),
        ("write", |disk| disk.fault_write(0, WriteFault::Error)),
        ("full", |disk| disk.set_capacity(Some(disk.used()))),
    ];
    for (error, fail) in errors {
        let disk = MemDisk::new(1);
        let (mut wal, _) = Wal::open(Arc::new(disk.clone()), IDENTITY, SMALL).expect("create");
        write(&mut wal, GROUP, vec![Record::Append(vec![entry(1, 1, 10)].into())]);
        fail(&disk);
        let mut index = 1;
        let fault = loop {
            index += 1;
            let lsn = wal.next_lsn();
            let turn = [(GROUP, vec![Record::Append(vec![entry(index, 1, 3000)].into())])];
            if let Err(fault) = wal.append(lsn, &turn).and_then(|()| wal.sync()) {
                break fault;
            }
            assert!(index < 1000, "{error} does no harm");
        };
        let before = disk.operations();
        for _ in 0..3 {
            assert_eq!(wal.sync(), Err(fault.clone()), "{error}");
            assert_eq!(wal.maintain(), Err(fault.clone()), "{error}");
            assert_eq!(wal.append(wal.next_lsn(), &[(GROUP, vec![hard(2, 1)])]), Err(fault.clone()), "{error}");
        }
        assert_eq!(disk.operations(), before, "{error}: something was tried again");
    }
}

#[test]
fn readers_on_other_threads_never_see_anything_wrong() {
    let disk = MemDisk::new(1);
    let (mut wal, _) = Wal::open(Arc::new(disk), IDENTITY, SMALL).expect("create");
    let (done, seen) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|number| {
                let (reader, done, seen) = (wal.reader(), &done, &seen);
                scope.spawn(move || {
                    let mut round = number * 1000;
                    while !done.load(Ordering::Acquire) {
                        round += 1;
                        let last = reader.last(GROUP).unwrap_or_default().0;
                        let from = Index(last.saturating_sub(round % 30).max(1));
                        match reader.load(GROUP, from, Index(from.0 + 10), 8000).expect("sound") {
                            Loaded::Compacted(base) => assert!(base.index >= from),
                            Loaded::Entries(entries) => {
                                for (position, found) in entries.iter().enumerate() {
                                    assert_eq!(found, &entry(from.0 + position as u64, 1, 700));
                                    seen.fetch_add(1, Ordering::Relaxed);
                                }
                            }
                        }
                    }
                })
            })
            .collect();
        // On a busy machine the readers' turn may come late.
        let want_more = || seen.load(Ordering::Relaxed) <= 1000 && readers.iter().all(|reader| !reader.is_finished());
        for index in (1..).take_while(|index| *index < 3000 || want_more()) {
            let mut records = vec![Record::Append(vec![entry(index, 1, 700)].into())];
            if index % 20 == 0 {
                let base = Position { index: Index(index - 15), stamp: ballot(1) };
                records.push(Record::Compact { base, keep_suffix: true });
            }
            write(&mut wal, GROUP, records);
            run_maintenance(&mut wal);
        }
        done.store(true, Ordering::Release);
        readers.into_iter().for_each(|reader| reader.join().expect("reader"));
        assert!(seen.load(Ordering::Relaxed) > 1000);
    });
}

#[test]
fn a_mark_that_the_log_does_not_reach_starts_the_log_anew() {
    let disk = MemDisk::new(1);
    let open = || Wal::open(Arc::new(disk.clone()), IDENTITY, SMALL).expect("open");
    let (mut wal, _) = open();
    let entries: Vec<Entry> = (1..=10).map(|index| entry(index, 3, 10)).collect();
    write(&mut wal, GROUP, vec![hard(7, 4), Record::Append(entries.into())]);
    drop(wal);
    // A higher stamp at the mark is the same entry, accepted again; a lower one is another entry.
    let (mut wal, recovered) = open();
    let state = recovered.group(&mut wal, GROUP, mark(5, 2)).expect("recover");
    assert_eq!((state.base.index, state.last, state.entries.len()), (Index(0), Index(10), 5));
    for (at, stamp) in [(5, 4), (11, 3), (500, 3)] {
        let state = recovered.group(&mut wal, GROUP, mark(at, stamp)).expect("recover");
        assert_eq!((state.base, state.last), (mark(at, stamp).position, Index(at)));
        assert_eq!((state.promised, state.entries.len(), state.runs.len()), (ballot(7), 0, 0));
    }
    write(&mut wal, GROUP, vec![Record::Append(vec![entry(501, 8, 10)].into())]);
    drop(wal);
    let (mut wal, recovered) = open();
    let state = recovered.group(&mut wal, GROUP, mark(500, 3)).expect("recover");
    assert_eq!((state.promised, state.last, state.entries), (ballot(7), Index(501), vec![entry(501, 8, 10)]));
    // The state machine was lost, or the log was: nothing to go on with.
    for (group, at) in [(GROUP, 499), (GroupId(9), 1)] {
        let fault = recovered.group(&mut wal, group, mark(at, 3)).expect_err("a gap");
        assert!(
            matches!(fault, Fault::Corrupt { .. }) && fault.to_string().contains("empty data directory"),
            "{fault}"
        );
    }
    wal.forget(GROUP).expect("forget");
    wal.sync().expect("sync");
    drop(wal);
    assert_eq!(open().1.groups(), &[]);
}

#[test]
fn one_turn_of_many_groups_is_one_flush() {
    let disk = MemDisk::new(1);
    let options = WalOptions { segment_bytes: 1 << 20, ..SMALL };
    let (mut wal, _) = Wal::open(Arc::new(disk.clone()), IDENTITY, options).expect("create");
    let (writes, syncs) = disk.counts();
    for turn in 1..=3 {
        let batch: Vec<_> =
            (0..100).map(|group| (GroupId(group), vec![Record::Append(vec![entry(turn, 1, 200)].into())])).collect();
        wal.append(wal.next_lsn(), &batch).expect("append");
    }
    assert_eq!(wal.sync().expect("sync").into_inner(), Lsn(3));
    assert_eq!(disk.counts(), (writes + 1, syncs + 1));
    wal.append(Lsn(10), &[]).expect("a turn without records");
    assert_eq!(wal.sync().expect("sync").into_inner(), Lsn(10));
    assert_eq!(disk.counts(), (writes + 1, syncs + 1), "nothing to write");
    let large = vec![(GROUP, vec![Record::Append(vec![entry(4, 1, 2 << 20)].into())])];
    assert!(matches!(wal.append(Lsn(11), &large), Err(Fault::Refused(_))), "larger than a segment");
}
