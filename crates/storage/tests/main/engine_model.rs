//! The engine against the engine in memory: random batches, views held across flushes, compactions and installations,
//! restarts at any time.

use std::ops::Bound;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use base::Prng;
use bytes::Bytes;
use mvcc::engine::{Batch, Engine, MemEngine, View};
use proptest::prelude::*;
use storage::engine::LsmEngine;

use crate::engine_basic::{TINY, mark_row, rows};
use crate::wal_basic::mark;

/// Keys of the kinds that the state machine has: names, names with a number behind, numbers.
fn key(number: u64) -> Bytes {
    match number % 3 {
        0 => Bytes::from(format!("c{number:04}")),
        1 => [&b"hname\0\x01"[..], &number.to_be_bytes()].concat().into(),
        _ => [&b"r"[..], &(number << 60 >> 58).to_be_bytes(), &number.to_be_bytes()].concat().into(),
    }
}

/// The batch that brings the state to mark `at`: the same in every run.
fn batch(seed: u64, at: u64) -> Batch {
    let mut prng = Prng::new(seed ^ at.wrapping_mul(0x9E37_79B9));
    let mut rows = vec![mark_row(&mark(at, 1))];
    for _ in 0..1 + prng.below(12) {
        let size = if prng.below(30) == 0 { 3000 } else { prng.below(200) };
        let value = (prng.below(4) > 0).then(|| Bytes::from(vec![at as u8; size as usize]));
        rows.push((key(prng.below(150)), value));
    }
    rows.sort();
    rows.dedup_by(|later, earlier| later.0 == earlier.0);
    Batch { rows }
}

fn state_at(seed: u64, at: u64) -> MemEngine {
    let engine = MemEngine::new();
    (1..=at).for_each(|at| engine.write(batch(seed, at)).expect("write"));
    engine
}

fn persisted(engine: &LsmEngine) -> u64 {
    engine.persisted_mark().expect("mark").map_or(0, |mark| mark.position.index.0)
}

fn compare(real: &dyn View, model: &dyn View, prng: &mut Prng) {
    assert_eq!(rows(real), rows(model));
    for _ in 0..5 {
        let wanted = key(prng.below(160));
        assert_eq!(real.get(&wanted), model.get(&wanted));
        let mut bound = || match prng.below(3) {
            0 => Bound::Included(key(prng.below(160))),
            1 => Bound::Excluded(key(prng.below(160))),
            _ => Bound::Unbounded,
        };
        let (from, to) = (bound(), bound());
        let (mut real, mut model) = (real.scan(from.clone(), to.clone()), model.scan(from, to));
        for _ in 0..40 {
            let back = prng.below(2) == 0;
            let (found, expected) =
                if back { (real.next_back(), model.next_back()) } else { (real.next(), model.next()) };
            assert_eq!(found, expected);
        }
    }
}

fn history(seed: u64, steps: u64) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut prng = Prng::new(seed);
    let mut engine = LsmEngine::open(dir.path(), TINY).expect("open");
    let mut model = MemEngine::new();
    let mut at = 0;
    let mut views: Vec<(Box<dyn View>, Box<dyn View>)> = Vec::new();
    for _ in 0..steps {
        match prng.below(20) {
            0..=9 => {
                for _ in 0..=prng.below(8) {
                    at += 1;
                    engine.write(batch(seed, at)).expect("write");
                    model.write(batch(seed, at)).expect("write");
                }
            }
            10 | 11 => views.push((engine.view(), model.view())),
            12 => views.push((engine.stream_view(), model.view())),
            13 => {
                engine.flush_sealed().expect("flush");
            }
            14 => {
                engine.compact().expect("compact");
            }
            18 if prng.below(3) == 0 => engine.flush_all().expect("flush"),
            15 if views.len() > 3 => drop(views.swap_remove(prng.below(views.len() as u64) as usize)),
            16 => {
                let mut builder = engine.builder().expect("builder");
                let (donor, reached) = (state_at(seed, at + 3), at + 3);
                builder.ingest(donor.rows()).expect("ingest");
                let built = builder.finish(&mark(reached, 1)).expect("finish");
                engine.install(built).expect("install");
                (model, at) = (donor, reached);
                assert_eq!(persisted(&engine), at);
            }
            17 => {
                drop(engine);
                views.clear();
                engine = LsmEngine::open(dir.path(), TINY).expect("reopen");
                let kept = persisted(&engine);
                assert!(kept <= at, "mark {kept} was never written");
                assert_eq!(rows(&*engine.view()), state_at(seed, kept).rows());
                // The log replays what is missing.
                (kept + 1..=at).for_each(|at| engine.write(batch(seed, at)).expect("write"));
            }
            _ => {
                for (real, model) in &views {
                    compare(&**real, &**model, &mut prng);
                }
            }
        }
        compare(&*engine.view(), &*model.view(), &mut prng);
    }
    for (real, model) in &views {
        compare(&**real, &**model, &mut prng);
    }
    drop(views);
    while engine.maintain().expect("maintain") {}
    assert_eq!(engine.stats().views, 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn engine_and_model_agree(seed in any::<u64>(), steps in 10u64..120) {
        history(seed, steps);
    }
}

#[test]
fn old_versions_go_once_no_view_needs_them() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let engine = LsmEngine::open(dir.path(), TINY).expect("open");
    let write = |at: u64| {
        let value = Bytes::from(Prng::new(at).next_u64().to_le_bytes().repeat(250));
        engine.write(Batch { rows: vec![(key(1), Some(value)), mark_row(&mark(at, 1))] }).expect("write");
    };
    write(1);
    let view = engine.view();
    let before = rows(&*view);
    (2..400).for_each(write);
    engine.flush_all().expect("flush");
    while engine.maintain().expect("maintain") {}
    assert_eq!(rows(&*view), before);
    drop(view);
    write(400);
    // Until the next compaction.
    let mut runs = 0;
    while engine.stats().level0_runs >= runs {
        runs = engine.stats().level0_runs;
        (401..410).for_each(write);
        engine.flush_all().expect("flush");
        while engine.maintain().expect("maintain") {}
        assert!(runs < 100, "no compaction: {:?}", engine.stats());
    }
    let stats = engine.stats();
    assert!(stats.disk_bytes < 60_000 && stats.memtable_bytes < 20_000, "{stats:?}");
}

#[test]
fn memory_is_bounded_even_if_nobody_does_the_upkeep() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let engine = LsmEngine::open(dir.path(), TINY).expect("open");
    for at in 1..3000 {
        engine.write(batch(1, at)).expect("write");
        assert!(engine.stats().memtable_bytes < 20 * TINY.memtable_bytes, "{:?}", engine.stats());
    }
    assert!(persisted(&engine) > 2000);
}

const CHILD: &str = "SINEW_TEST_ENGINE_DIRECTORY";

/// Not a test of its own: the process that the next test kills.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Ok(directory) = std::env::var(CHILD) else { return };
    let engine = LsmEngine::open(&directory, TINY).expect("open");
    let start = persisted(&engine);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            loop {
                engine.maintain().expect("maintain");
            }
        });
        for at in start + 1.. {
            engine.write(batch(7, at)).expect("write");
        }
    });
}

fn run_and_kill(directory: &Path, life: Duration) {
    let mut child = Command::new(std::env::current_exe().expect("own program"))
        .args(["--exact", "engine_model::child_that_writes_until_it_is_killed", "--nocapture"])
        .env(CHILD, directory)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start");
    std::thread::sleep(life);
    child.kill().expect("kill -9");
    let status = child.wait().expect("wait");
    assert!(status.code().is_none(), "the child ended by itself: {status}");
}

#[test]
fn after_kill_nine_the_state_is_that_of_the_mark() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut last = 0;
    for round in 0..5 {
        run_and_kill(dir.path(), Duration::from_millis(150 + round * 130));
        let engine = LsmEngine::open(dir.path(), TINY).expect("open after kill -9");
        let kept = persisted(&engine);
        assert!(kept >= last, "the mark went back from {last} to {kept}");
        assert_eq!(rows(&*engine.view()), state_at(7, kept).rows());
        last = kept;
    }
    assert!(last > 100, "the children wrote hardly anything: {last}");
}
