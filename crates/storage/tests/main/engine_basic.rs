//! The engine's contract, one rule per test.

use std::ops::Bound;

use base::Index;
use bytes::Bytes;
use kernel::Mark;
use mvcc::engine::{Batch, Engine, View};
use storage::engine::{EngineOptions, LsmEngine, MARK_KEY};
use storage::snapshot::{SnapshotReader, SnapshotWriter};

use crate::wal_basic::mark;

pub(crate) const TINY: EngineOptions =
    EngineOptions { cache_bytes: 1 << 20, memtable_bytes: 8 << 10, sealed_max: 2, compression: true };

pub(crate) fn mark_row(mark: &Mark) -> (Bytes, Option<Bytes>) {
    let mut row = Vec::new();
    kernel::wire::encode_mark(mark, &mut row);
    (Bytes::from_static(MARK_KEY), Some(row.into()))
}

pub(crate) fn rows(view: &dyn View) -> Vec<(Bytes, Bytes)> {
    view.scan(Bound::Unbounded, Bound::Unbounded).map(|row| row.expect("row")).collect()
}

fn put(engine: &LsmEngine, at: u64, keys: std::ops::Range<u64>) {
    let row = |key| (Bytes::from(format!("c{key:06}")), Some(Bytes::from(format!("{at:03}").repeat(30))));
    let mut rows: Vec<_> = keys.map(row).collect();
    rows.push(mark_row(&mark(at, 1)));
    engine.write(Batch { rows }).expect("write");
}

#[test]
fn reopen_finds_the_state_of_the_persisted_mark() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let engine = LsmEngine::open(dir.path(), TINY).expect("open");
    assert_eq!(engine.persisted_mark(), Ok(None));
    for at in 1..=50 {
        put(&engine, at, at * 7 % 40..at * 7 % 40 + 10);
        if at % 10 == 0 {
            while engine.maintain().expect("maintain") {}
        }
    }
    engine.flush_all().expect("flush");
    let kept = rows(&*engine.view());
    assert_eq!(engine.persisted_mark(), Ok(Some(mark(50, 1))));
    put(&engine, 51, 0..5);
    assert_eq!(engine.applied_mark().expect("mark").expect("mark").position.index, Index(51));
    assert_eq!(engine.persisted_mark(), Ok(Some(mark(50, 1))));
    drop(engine);
    let engine = LsmEngine::open(dir.path(), TINY).expect("reopen");
    assert_eq!(engine.persisted_mark(), Ok(Some(mark(50, 1))));
    assert_eq!(rows(&*engine.view()), kept);
}

#[test]
fn a_snapshot_replaces_everything_and_old_views_stay() {
    let (from, to) = (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
    let sender = LsmEngine::open(from.path(), TINY).expect("open");
    for at in 1..=300 {
        put(&sender, at, at * 20..at * 20 + 25);
    }
    let receiver = LsmEngine::open(to.path(), TINY).expect("open");
    put(&receiver, 7, 0..100);
    let old = receiver.view();
    let before = rows(&*old);
    let mut reader = SnapshotReader::new(sender.stream_view());
    put(&sender, 301, 0..10);
    let mut writer = SnapshotWriter::new(receiver.builder().expect("builder"));
    while let Some(chunk) = reader.next_chunk().expect("chunk") {
        writer.take(chunk.bytes).expect("take");
    }
    let built = writer.finish().expect("complete").finish(&mark(300, 1)).expect("finish");
    receiver.install(built).expect("install");
    assert_eq!(rows(&*old), before);
    assert_eq!(receiver.persisted_mark(), Ok(Some(mark(300, 1))));
    let mut expected = rows(&*sender.view());
    expected.retain(|(key, value)| key != MARK_KEY && !value.starts_with(b"301"));
    let installed = rows(&*receiver.view());
    assert_eq!(installed.iter().filter(|(key, _)| key != MARK_KEY).cloned().collect::<Vec<_>>(), expected);
    drop(receiver);
    let receiver = LsmEngine::open(to.path(), TINY).expect("reopen");
    assert_eq!(rows(&*receiver.view()), installed);
    drop(old);
    let trees = std::fs::read_dir(to.path())
        .expect("list")
        .filter(|entry| entry.as_ref().expect("entry").file_type().expect("type").is_dir());
    assert_eq!(trees.count(), 1, "the replaced tree must go");
}
