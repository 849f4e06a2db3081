//! The snapshot stream: whole, in order, undamaged, or not at all.

use base::Fault;
use bytes::Bytes;
use mvcc::engine::{Batch, Engine, MemEngine};
use storage::engine::LsmEngine;
use storage::snapshot::{SnapshotReader, SnapshotWriter};

use crate::engine_basic::{TINY, rows};
use crate::wal_basic::mark;

fn source(count: u64) -> MemEngine {
    let engine = MemEngine::new();
    for number in 0..count {
        let size = if number % 50 == 7 { 700_000 } else { 10_000 };
        let row = (Bytes::from(format!("c{number:06}")), Some(Bytes::from(vec![number as u8; size])));
        engine.write(Batch { rows: vec![row] }).expect("write");
    }
    engine
}

#[test]
fn an_interrupted_transfer_goes_on_where_it_stopped() {
    let dir = tempfile::tempdir().expect("dir");
    let (source, target) = (source(300), LsmEngine::open(dir.path(), TINY).expect("open"));
    let mut writer = SnapshotWriter::new(target.builder().expect("builder"));
    let mut reader = SnapshotReader::new(source.view());
    let mut taken = 0;
    loop {
        let chunk = reader.next_chunk().expect("read").expect("the last chunk ends the loop");
        if taken % 3 == 2 {
            // This one is lost on the way; the sender, perhaps a new one, asks where to go on.
            let (sequence, after) = writer.position();
            assert_eq!(sequence, chunk.sequence);
            reader = SnapshotReader::new(source.view());
            reader.resume(sequence, after);
            taken += 1;
            continue;
        }
        taken += 1;
        let again = chunk.bytes.clone();
        let done = writer.take(chunk.bytes).expect("take");
        assert_eq!(writer.take(again), Ok(done), "a repeated chunk is ignored");
        assert_eq!(done, chunk.last);
        if done {
            break;
        }
    }
    assert_eq!(reader.next_chunk(), Ok(None));
    assert!(taken > 8, "{taken} chunks");
    let built = writer.finish().expect("complete").finish(&mark(9, 1)).expect("finish");
    target.install(built).expect("install");
    let mut found = rows(&*target.view());
    found.retain(|(key, _)| key.starts_with(b"c"));
    assert!(found == source.rows(), "{} rows of {}", found.len(), source.rows().len());
}

#[test]
fn an_empty_state_is_one_chunk() {
    let dir = tempfile::tempdir().expect("dir");
    let target = LsmEngine::open(dir.path(), TINY).expect("open");
    let mut writer = SnapshotWriter::new(target.builder().expect("builder"));
    let mut reader = SnapshotReader::new(MemEngine::new().view());
    let chunk = reader.next_chunk().expect("read").expect("one chunk");
    assert_eq!(writer.take(chunk.bytes), Ok(true));
    assert_eq!(reader.next_chunk(), Ok(None));
    writer.finish().expect("complete");
}

#[test]
fn damaged_missing_and_cut_streams_are_refused() {
    let dir = tempfile::tempdir().expect("dir");
    let target = LsmEngine::open(dir.path(), TINY).expect("open");
    let source = source(120);
    let mut reader = SnapshotReader::new(source.view());
    let first = reader.next_chunk().expect("read").expect("chunk").bytes;
    let second = reader.next_chunk().expect("read").expect("chunk").bytes;
    let mut writer = SnapshotWriter::new(target.builder().expect("builder"));
    for bit in (0..200 * 8).chain((0..first.len() * 8).step_by(9973)) {
        let mut bad = first.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(writer.take(bad.into()), Err(Fault::Corrupt { .. })), "bit {bit}");
    }
    for len in [0, 5, 12, 13, 100, first.len() - 1] {
        assert!(writer.take(first.slice(..len)).is_err(), "cut at {len}");
    }
    assert!(writer.take(second.clone()).is_err(), "the first chunk is missing");
    assert_eq!(writer.take(first), Ok(false));
    assert_eq!(writer.take(second), Ok(false));
    assert!(
        matches!(writer.finish(), Err(Fault::Corrupt { .. })),
        "a stream that was cut off is taken for a whole one"
    );
    assert!(!dir.path().join("00000002").exists(), "what was received stays behind");
}
