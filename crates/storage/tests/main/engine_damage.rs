//! Damaged and half-finished engine directories: exact rows or a clear refusal, never an empty or a wrong engine.

use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use base::Fault;
use bytes::Bytes;
use mvcc::engine::{Batch, Engine};
use storage::engine::LsmEngine;

use crate::engine_basic::{TINY, mark_row, rows};
use crate::wal_basic::mark;

fn filled(directory: &Path) -> LsmEngine {
    let engine = LsmEngine::open(directory, TINY).expect("open");
    for at in 1..200u64 {
        let row = |sub| (Bytes::from(format!("c{:05}", at * 7 % 300 + sub)), Some(Bytes::from(vec![at as u8; 100])));
        let mut rows: Vec<_> = (0..3).map(row).collect();
        rows.push(mark_row(&mark(at, 1)));
        engine.write(Batch { rows }).expect("write");
        while engine.maintain().expect("maintain") {}
    }
    engine.flush_all().expect("flush");
    engine
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("create");
    for entry in std::fs::read_dir(from).expect("list") {
        let entry = entry.expect("entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copy");
        }
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("list") {
        let entry = entry.expect("entry");
        if entry.file_type().expect("type").is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

type Rows = Vec<(Bytes, Bytes)>;

fn read_all(directory: &Path) -> Result<Rows, Fault> {
    let engine = LsmEngine::open(directory, TINY)?;
    engine.view().scan(Bound::Unbounded, Bound::Unbounded).collect()
}

fn check_refusal(fault: &Fault, file: &Path) {
    let text = fault.to_string();
    assert!(matches!(fault, Fault::Corrupt { .. }), "{file:?}: {text}");
    assert!(text.contains("empty data directory"), "no advice: {text}");
}

#[test]
fn a_missing_file_is_refused() {
    let (origin, work) = (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
    drop(filled(origin.path()));
    for (number, file) in files(origin.path()).iter().enumerate() {
        let directory = work.path().join(number.to_string());
        copy(origin.path(), &directory);
        let name = file.strip_prefix(origin.path()).expect("below");
        std::fs::remove_file(directory.join(name)).expect("remove");
        match read_all(&directory) {
            Err(fault) => check_refusal(&fault, name),
            Ok(rows) => panic!("{name:?} is not missed, {} rows found", rows.len()),
        }
    }
}

#[test]
fn a_flipped_byte_is_refused_or_harmless() {
    let (origin, work) = (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
    let engine = filled(origin.path());
    let expected = rows(&*engine.view());
    drop(engine);
    let directory = work.path().join("copy");
    copy(origin.path(), &directory);
    let mut counts = [0, 0, 0];
    for file in files(origin.path()) {
        let name = file.strip_prefix(origin.path()).expect("below");
        let good = std::fs::read(&file).expect("read");
        let step = (good.len() / 150).max(1);
        for at in (0..good.len()).step_by(step) {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            std::fs::write(directory.join(name), &bad).expect("write");
            match catch_unwind(AssertUnwindSafe(|| read_all(&directory))) {
                Ok(Ok(found)) => {
                    assert!(found == expected, "{name:?} byte {at} of {}: wrong rows are served", good.len());
                    counts[0] += 1;
                }
                Ok(Err(fault)) => {
                    check_refusal(&fault, name);
                    counts[1] += 1;
                }
                Err(_) => counts[2] += 1,
            }
            // A start may have removed files that the damaged one did not name.
            let _ = std::fs::remove_dir_all(&directory);
            copy(origin.path(), &directory);
        }
    }
    eprintln!("harmless {}, refused {}, panicked {}", counts[0], counts[1], counts[2]);
    assert!(counts[1] > 100, "{counts:?}");
}

#[test]
fn an_interrupted_installation_leaves_the_old_or_the_new_rows() {
    let dir = tempfile::tempdir().expect("dir");
    let engine = filled(dir.path());
    let old = rows(&*engine.view());
    let new_rows = vec![(Bytes::from("cnew"), Bytes::from("1"))];
    // Dropped half-way and before the switch: nothing happened.
    let mut builder = engine.builder().expect("builder");
    builder.ingest(new_rows.clone()).expect("ingest");
    drop(builder);
    let mut builder = engine.builder().expect("builder");
    builder.ingest(new_rows.clone()).expect("ingest");
    let built = builder.finish(&mark(500, 2)).expect("finish");
    // The process dies between building and switching.
    let image = tempfile::tempdir().expect("dir");
    copy(dir.path(), image.path());
    assert_eq!(read_all(image.path()), Ok(old.clone()));
    assert!(!image.path().join("00000002").exists(), "the unfinished tree stays");
    // The process dies after switching, before the old tree is gone.
    let view = engine.view();
    engine.install(built).expect("install");
    let image = tempfile::tempdir().expect("dir");
    copy(dir.path(), image.path());
    let found = read_all(image.path()).expect("open");
    assert_eq!(found.len(), 2, "the new row and the mark");
    assert!(!image.path().join("00000001").exists(), "the replaced tree stays");
    assert_eq!(rows(&*view), old);
    drop(view);
    assert!(!dir.path().join("00000001").exists(), "the replaced tree stays");
    let mut builder = engine.builder().expect("builder");
    builder.ingest(vec![(Bytes::from("b"), Bytes::new())]).expect("ingest");
    let disordered = builder.ingest(vec![(Bytes::from("a"), Bytes::new())]);
    assert!(matches!(disordered, Err(Fault::Corrupt { .. })), "rows out of order are taken");
}

#[test]
fn rows_that_cannot_be_stored_are_refused() {
    let dir = tempfile::tempdir().expect("dir");
    let engine = LsmEngine::open(dir.path(), TINY).expect("open");
    for len in [0, 65_536] {
        let rows = vec![(Bytes::from("a"), Some(Bytes::new())), (Bytes::from(vec![b'x'; len]), Some(Bytes::new()))];
        assert!(matches!(engine.write(Batch { rows }), Err(Fault::Refused(_))));
    }
    assert_eq!(rows(&*engine.view()), vec![], "half a batch was written");
    assert_eq!(engine.view().get(&[]), Ok(None));
    assert_eq!(engine.view().get(&vec![0; 70_000]), Ok(None));
}
