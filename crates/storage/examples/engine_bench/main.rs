//! What the engine can do with rows like those of the state machine, and what memory it takes.
//!
//! `cargo run --release -p storage --example engine_bench [keys] [directory] [lz4|none] [cache MiB]`: a fill and reads.
//! `cargo run --release -p storage --example engine_bench apply [puts] [directory] [buffer MiB]`: the load of a
//! node.

#![expect(clippy::print_stdout, reason = "a benchmark talks to its user")]

mod apply;

use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use base::{Fault, Prng};
use bytes::Bytes;
use mvcc::engine::{Batch, Engine};
use storage::engine::{EngineOptions, LsmEngine, MARK_KEY, Pressure};

const BATCH: u64 = 100;

// As in the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Fault> {
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments.next_if(|text| text == "apply").is_some() {
        return apply_load(arguments);
    }
    let keys: u64 = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let directory = arguments.next().unwrap_or_else(|| "engine_bench.tmp".to_owned());
    let compression = arguments.next().is_none_or(|text| text == "lz4");
    let cache: u64 = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(64);
    let _ = std::fs::remove_dir_all(&directory);
    let options = EngineOptions { compression, cache_bytes: cache << 20, ..EngineOptions::default() };
    println!("{keys} keys of 32 B, values of 256 B, batches of {BATCH}, lz4 {compression}, cache {cache} MiB");
    let engine = LsmEngine::open(&directory, options)?;
    println!("empty: rss {} MiB", memory("VmRSS"));
    let settled = load(&engine, keys, &directory)?;
    println!("{settled}");
    println!("{:?}", engine.stats());
    let now = Instant::now();
    drop(engine);
    println!("closed in {:?}, rss {} MiB", now.elapsed(), memory("VmRSS"));
    let now = Instant::now();
    let engine = LsmEngine::open(&directory, options)?;
    println!("reopened in {:?}, rss {} MiB", now.elapsed(), memory("VmRSS"));
    reads(&engine, keys)?;
    println!("{:?}", engine.stats());
    let _ = std::fs::remove_dir_all(&directory);
    Ok(())
}

/// Overwrites of few keys, then new keys, each in an engine of its own.
fn apply_load(mut arguments: impl Iterator<Item = String>) -> Result<(), Fault> {
    let puts: u64 = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(600_000);
    let directory = arguments.next().unwrap_or_else(|| "engine_bench.tmp".to_owned());
    let buffer = arguments.next().and_then(|text| text.parse::<u64>().ok());
    let usual = EngineOptions::default();
    let options = EngineOptions { memtable_bytes: buffer.map_or(usual.memtable_bytes, |mib| mib << 20), ..usual };
    for (name, keys) in [("10,000 keys", Some(10_000)), ("new keys", None)] {
        let _ = std::fs::remove_dir_all(&directory);
        apply::run(name, &LsmEngine::open(&directory, options)?, puts, keys)?;
    }
    let _ = std::fs::remove_dir_all(&directory);
    Ok(())
}

fn key(number: u64) -> Bytes {
    // Scattered over the key space, like hashed names.
    Bytes::from(format!("cregistry/pods/{:017x}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
}

/// Writes every key once in random order, then a tenth of them again.
fn load(engine: &LsmEngine, keys: u64, directory: &str) -> Result<String, Fault> {
    let mut prng = Prng::new(1);
    let mut value = vec![0u8; 256];
    let mut times = Vec::new();
    let done = AtomicBool::new(false);
    let started = Instant::now();
    let done = &done;
    std::thread::scope(|scope| {
        let repeat = |work: fn(&LsmEngine) -> Result<bool, Fault>| -> Result<(), Fault> {
            while !done.load(Ordering::Acquire) {
                if !work(engine)? {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
            }
            Ok(())
        };
        let flusher = scope.spawn(move || repeat(LsmEngine::flush_sealed));
        let compactor = scope.spawn(move || repeat(LsmEngine::compact));
        let total = keys + keys / 10;
        for batch in 0..total / BATCH {
            let mut rows = Vec::with_capacity(2 * BATCH as usize + 1);
            for sub in 0..BATCH {
                let revision = batch * BATCH + sub;
                for part in value[..128].chunks_exact_mut(8) {
                    part.copy_from_slice(&prng.next_u64().to_le_bytes());
                }
                rows.push((key(revision % keys), Some(Bytes::copy_from_slice(&value))));
                if revision >= keys {
                    let mut history = key(revision % keys).to_vec();
                    history[0] = b'h';
                    history.extend_from_slice(&revision.to_be_bytes());
                    rows.push((history.into(), Some(Bytes::copy_from_slice(&value))));
                }
                let mut event = vec![b'r'];
                event.extend_from_slice(&revision.to_be_bytes());
                rows.push((event.into(), Some(key(revision % keys))));
            }
            rows.push((Bytes::from_static(MARK_KEY), Some(Bytes::from(vec![1; 40]))));
            rows.sort();
            let now = Instant::now();
            while engine.write_stall() == Pressure::Full {
                std::thread::sleep(std::time::Duration::from_micros(200));
            }
            engine.write(Batch { rows })?;
            times.push(now.elapsed());
            if batch % (total / BATCH / 10).max(1) == 0 {
                let stats = engine.stats();
                println!(
                    "  {batch} batches, {:.1} s: rss {} MiB, {} MiB on disk, {} runs in level 0",
                    started.elapsed().as_secs_f64(),
                    memory("VmRSS"),
                    stats.disk_bytes >> 20,
                    stats.level0_runs
                );
            }
        }
        let wrote = started.elapsed().as_secs_f64();
        done.store(true, Ordering::Release);
        flusher.join().expect("the thread does not panic")?;
        compactor.join().expect("the thread does not panic")?;
        engine.flush_all()?;
        while engine.maintain()? {}
        times.sort();
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
        Ok(format!(
            "loaded: {:.0} puts/s, batch p50 {:?} p99 {:?} p99.9 {:?} max {:?}; settled after {:.1} s; rss {} MiB, \
             peak {} MiB, {} MiB in {directory}",
            total as f64 / wrote,
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0),
            started.elapsed().as_secs_f64(),
            memory("VmRSS"),
            memory("VmHWM"),
            engine.stats().disk_bytes >> 20
        ))
    })
}

fn reads(engine: &LsmEngine, keys: u64) -> Result<(), Fault> {
    let mut prng = Prng::new(2);
    for (name, offset) in [("present", 0), ("absent", keys)] {
        let (count, now) = (500_000u64, Instant::now());
        let mut found = 0;
        for _ in 0..count {
            let view = engine.view();
            found += u64::from(view.get(&key(prng.below(keys) + offset))?.is_some());
        }
        let rate = count as f64 / now.elapsed().as_secs_f64();
        println!("get {name}: {rate:.0}/s, {found} of {count} found, rss {} MiB", memory("VmRSS"));
    }
    let (count, now) = (20_000u64, Instant::now());
    let mut rows = 0;
    for _ in 0..count {
        let view = engine.view();
        rows += view.scan(Bound::Included(key(prng.below(keys))), Bound::Unbounded).take(50).count();
    }
    println!(
        "scan of 50: {:.0}/s, {rows} rows, rss {} MiB",
        count as f64 / now.elapsed().as_secs_f64(),
        memory("VmRSS")
    );
    let now = Instant::now();
    let rows = engine.stream_view().scan(Bound::Unbounded, Bound::Unbounded).count();
    println!(
        "full scan: {rows} rows in {:?}, rss {} MiB, peak {} MiB",
        now.elapsed(),
        memory("VmRSS"),
        memory("VmHWM")
    );
    Ok(())
}

/// A figure of this process in MiB.
fn memory(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) / 1024
}
