//! What the disk and the log can do: latency of a flush and throughput, by size of the flush.
//!
//! `cargo run --release -p storage --example wal_bench [directory] [flushes]`

#![expect(clippy::print_stdout, reason = "a benchmark talks to its user")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use base::{Ballot, ClusterId, Fault, GroupId, Index, NodeId};
use bytes::Bytes;
use kernel::{Entry, EntryKind, Position, Record};
use storage::disk::{OsDisk, SyncMode};
use storage::wal::{Wal, WalIdentity, WalOptions};

fn main() -> Result<(), Fault> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().unwrap_or_else(|| "wal_bench.tmp".to_owned());
    let flushes: usize = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(2000);
    println!(
        "{:<34} {:>9} {:>9} {:>9} {:>9} {:>10}",
        "flush", "p50 us", "p99 us", "max us", "flush/s", "payload MiB/s"
    );
    for (name, groups, entries, bytes) in [
        ("1 group, 1 entry of 256 B", 1, 1, 256),
        ("1 group, 10 entries of 256 B", 1, 10, 256),
        ("100 groups, 1 entry of 256 B each", 100, 1, 256),
        ("1 group, 200 entries of 300 B", 1, 200, 300),
        ("1 group, 1 entry of 1 MiB", 1, 1, 1 << 20),
    ] {
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).map_err(|error| Fault::Refused(error.to_string()))?;
        let flushes = if bytes > 100_000 { flushes / 4 } else { flushes };
        run(name, &directory, flushes, groups, entries, bytes)?;
    }
    let _ = std::fs::remove_dir_all(&directory);
    Ok(())
}

fn run(name: &str, directory: &str, flushes: usize, groups: u64, entries: u64, bytes: usize) -> Result<(), Fault> {
    let disk = Arc::new(OsDisk::new(directory, SyncMode::Durable));
    let identity = WalIdentity { cluster: ClusterId(1), node: NodeId(1), incarnation: 7 };
    let (mut wal, _) = Wal::open(disk, identity, WalOptions { may_create: true, ..WalOptions::default() })?;
    while wal.maintain()? {}
    let payload = Bytes::from(vec![7; bytes]);
    let ballot = Ballot::new(1, NodeId(1));
    let mut times = Vec::with_capacity(flushes);
    let started = Instant::now();
    for turn in 0..flushes as u64 {
        let first = turn * entries + 1;
        let entry = |index| Entry {
            index: Index(index),
            stamp: ballot,
            origin: ballot,
            kind: EntryKind::Command,
            payload: payload.clone(),
        };
        let mut batch = Vec::new();
        for group in 0..groups {
            let mut records = vec![Record::Append((first..first + entries).map(entry).collect())];
            if turn % 64 == 63 {
                let base = Position { index: Index(first - 1), stamp: ballot };
                records.push(Record::Compact { base, keep_suffix: true });
            }
            batch.push((GroupId(group), records));
        }
        let before = Instant::now();
        wal.append(wal.next_lsn(), &batch)?;
        wal.sync()?;
        times.push(before.elapsed());
        wal.maintain()?;
    }
    let total = started.elapsed().as_secs_f64();
    times.sort();
    let at = |part: f64| micros(times[((times.len() - 1) as f64 * part) as usize]);
    let payload = (flushes as u64 * groups * entries) as f64 * bytes as f64 / (1 << 20) as f64;
    println!(
        "{name:<34} {:>9} {:>9} {:>9} {:>9.0} {:>10.1}",
        at(0.5),
        at(0.99),
        at(1.0),
        flushes as f64 / total,
        payload / total
    );
    Ok(())
}

fn micros(time: Duration) -> u128 {
    time.as_micros()
}
