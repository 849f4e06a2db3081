//! The consensus kernel beside other libraries: three replicas in one thread, no disk, no network, nothing but the cost
//! of agreeing.
//!
//! Invariant: all contenders do the same work (`cluster`) in the same process, with the same allocator and profile, in
//! alternating rounds. What is measured is the CPU time of the one thread, since other processes share the machine; no
//! contender ever waits.

mod alloc;
mod cluster;
mod omni;
mod open;
mod ours;
mod raft_rs;

use std::time::Duration;

use kernel::Protocol;
use rustix::time::{ClockId, clock_gettime};

use alloc::{Counting, allocated};
use cluster::{Cluster, REPLICAS, TRIM_EVERY, payload};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Proposals that are made at once.
const BATCHES: [u64; 3] = [1, 10, 100];
/// Entries before the clock starts.
const WARM_UP: u64 = 5_000;

const USAGE: &str = "consensus-bench [--rounds N] [--entries N] [--batch N] [--only NAME]";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Contender {
    Ours(Protocol),
    RaftRs,
    Omnipaxos,
    Openraft,
}

impl Contender {
    /// All of them, ours first.
    fn all() -> Vec<Self> {
        let ours = (0..=u8::MAX).filter_map(Protocol::from_id).map(Self::Ours);
        ours.chain([Self::RaftRs, Self::Omnipaxos, Self::Openraft]).collect()
    }

    fn name(self) -> String {
        match self {
            Self::Ours(protocol) => format!("kernel: {protocol:?}"),
            Self::RaftRs => "raft 0.7".into(),
            Self::Omnipaxos => "omnipaxos 0.2.4".into(),
            Self::Openraft => "openraft 0.9".into(),
        }
    }

    fn elect(self, batch: u64) -> Box<dyn Cluster> {
        match self {
            Self::Ours(protocol) => Box::new(ours::Ours::elect(protocol)),
            Self::RaftRs => Box::new(raft_rs::RaftRs::elect()),
            Self::Omnipaxos => Box::new(omni::Omni::elect(batch as usize)),
            Self::Openraft => Box::new(open::Open::elect()),
        }
    }
}

/// One run, per entry.
#[derive(Clone, Copy)]
struct Cost {
    nanoseconds: f64,
    allocations: f64,
    bytes: f64,
}

struct Options {
    rounds: usize,
    entries: Option<u64>,
    batch: Option<u64>,
    only: Option<String>,
}

fn main() {
    let options = options(std::env::args().skip(1)).unwrap_or_else(|wrong| {
        eprintln!("{wrong}; {USAGE}");
        std::process::exit(2)
    });
    let chosen = |contender: &Contender| options.only.as_ref().is_none_or(|only| contender.name().contains(only));
    let contenders: Vec<Contender> = Contender::all().into_iter().filter(chosen).collect();
    for batch in BATCHES.into_iter().filter(|batch| options.batch.is_none_or(|only| only == *batch)) {
        let entries = options.entries.unwrap_or(if batch == 1 { 100_000 } else { 200_000 });
        let rounds: Vec<Vec<Cost>> = (0..options.rounds)
            .map(|_| contenders.iter().map(|contender| measure(*contender, batch, entries)).collect())
            .collect();
        print(batch, &contenders, &rounds);
    }
}

fn options(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { rounds: 9, entries: None, batch: None, only: None };
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} wants a value"))?;
        let number = || value.parse::<u64>().ok().filter(|n| *n > 0).ok_or_else(|| format!("{value} is no count"));
        match word.as_str() {
            "--rounds" => options.rounds = number()? as usize,
            "--entries" => options.entries = Some(number()?),
            "--batch" => options.batch = Some(number()?),
            "--only" => options.only = Some(value),
            _ => return Err(format!("{word} is unknown")),
        }
    }
    Ok(options)
}

/// Runs a fresh cluster over `entries` entries in batches of `batch`.
fn measure(contender: Contender, batch: u64, entries: u64) -> Cost {
    let mut cluster = contender.elect(batch);
    let (warm, end) = (WARM_UP.next_multiple_of(batch), (WARM_UP + entries).next_multiple_of(batch));
    run(cluster.as_mut(), 0, warm, batch);
    let (before, start) = (allocated(), thread_time());
    run(cluster.as_mut(), warm, end, batch);
    let (time, after) = (thread_time() - start, allocated());
    assert_eq!(cluster.settle(), [end; REPLICAS], "{} lost entries", contender.name());
    let per_entry = |sum: u64| sum as f64 / (end - warm) as f64;
    Cost {
        nanoseconds: per_entry(time.as_nanos() as u64),
        allocations: per_entry(after.count - before.count),
        bytes: per_entry(after.bytes - before.bytes),
    }
}

fn run(cluster: &mut dyn Cluster, from: u64, until: u64, batch: u64) {
    for start in (from..until).step_by(batch as usize) {
        for number in start..start + batch {
            cluster.propose(payload(number));
        }
        cluster.drive();
        if start / TRIM_EVERY != (start + batch) / TRIM_EVERY {
            cluster.trim();
        }
    }
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A row each. Ratios are taken within a round, against the first contender, and the median of them is shown.
fn print(batch: u64, contenders: &[Contender], rounds: &[Vec<Cost>]) {
    println!("\n| B = {batch} | entries/s | time, first = 1 | range | allocations | bytes |\n|---|---|---|---|---|---|");
    for (at, contender) in contenders.iter().enumerate() {
        let ratios = sorted(rounds, |round| round[at].nanoseconds / round[0].nanoseconds);
        println!(
            "| {} | {:.0} | {:.2}x | {:.2} to {:.2} | {:.2} | {:.0} |",
            contender.name(),
            1e9 / median(rounds, |round| round[at].nanoseconds),
            ratios[ratios.len() / 2],
            ratios[0],
            ratios[ratios.len() - 1],
            median(rounds, |round| round[at].allocations),
            median(rounds, |round| round[at].bytes),
        );
    }
}

fn sorted(rounds: &[Vec<Cost>], what: impl Fn(&Vec<Cost>) -> f64) -> Vec<f64> {
    let mut values: Vec<f64> = rounds.iter().map(what).collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(rounds: &[Vec<Cost>], what: impl Fn(&Vec<Cost>) -> f64) -> f64 {
    sorted(rounds, what)[rounds.len() / 2]
}
