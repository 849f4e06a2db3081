//! `sinew sim`: whole clusters in virtual time, with faults, from a seed.
//!
//! Invariant: what is printed about a seed is the same each time, except how long it took.

pub(crate) mod compare;
mod page;

use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base::Defect;
use check::history::Writer;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use kernel::Protocol;
use serde_json::{Value, json};
use sim::{Config, Counter, Profile, Report, Tally};

use crate::bench::args::parse_duration;
use crate::ctl::Failure;

/// Arguments of `sim`.
#[derive(Debug, Args)]
#[command(after_help = "\
A run is decided by its seed: which faults there are and when, what clients ask,
how long every message and every write to a disk takes. What decides inside the
nodes is the code of the server. Every promise that leaves a node is checked
against what is synced on its disk, all replicas against each other, and all
answers against what a correct store could have said.

Exit codes:
  0    every check held in every run
  1    a check failed: the seed and the shortest run that shows it are printed
  2    wrong usage

Examples:
  sinew sim                                one run of 60 simulated seconds
  sinew sim --seed 7 --trace               every event, one line each
  sinew sim --seeds 200 --nodes 5 --protocol zab
  sinew sim --seed 7 --report run.html     who led, what was cut, what overlapped")]
pub(crate) struct SimArgs {
    /// The first seed
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    seed: u64,
    /// How many seeds, one after the other
    #[arg(long, default_value_t = 1, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// How many nodes [default: three or five, as the seed decides]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=9))]
    nodes: Option<u64>,
    /// raft, multi-paxos, zab or paxos-raft
    #[arg(long, default_value_t = Protocol::Raft, value_name = "PROTOCOL")]
    protocol: Protocol,
    /// calm, network, disk, crash, clock, wild-clock, members, swarm (all of them) or over-the-limit (more than can be
    /// survived)
    #[arg(long, default_value = "swarm", value_name = "NAME", value_parser = parse_profile)]
    profile: Profile,
    /// Simulated time until everything heals
    #[arg(long, default_value = "60s", value_name = "TIME", value_parser = parse_duration)]
    duration: Duration,
    /// Print every event
    #[arg(long)]
    trace: bool,
    /// Write a page with the timeline of the run; of the first that failed, or else of the last
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write what the clients asked and were told, for `sinew check`
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Do not look for a shorter run when a check fails
    #[arg(long)]
    no_shrink: bool,
    /// Plant a defect in the code under test, by its id; only in builds with the feature `planted`
    #[arg(long, value_name = "ID", value_parser = parse_defect)]
    plant: Option<Defect>,
    /// simple or json
    #[arg(long, short = 'w', default_value = "simple", value_name = "FORMAT", value_parser = ["simple", "json"])]
    write_out: String,
}

fn parse_profile(name: &str) -> Result<Profile, String> {
    Profile::from_name(name).ok_or_else(|| {
        let names: Vec<_> = Profile::ALL.iter().map(|profile| profile.name()).collect();
        format!("no profile is called '{name}': choose one of {}", names.join(", "))
    })
}

fn parse_defect(id: &str) -> Result<Defect, String> {
    if !cfg!(feature = "planted") {
        return Err("this build has no planted defects: build with --profile planted --features planted".to_owned());
    }
    Defect::from_id(id).ok_or_else(|| {
        let ids: Vec<_> = Defect::ALL.iter().map(|defect| defect.id()).collect();
        format!("no defect is called '{id}': choose one of {}", ids.join(", "))
    })
}

/// Runs the seeds.
///
/// # Errors
/// A check failed; a file cannot be written.
pub(crate) fn run(arguments: &SimArgs) -> Result<(), Failure> {
    let progress = progress(arguments);
    let started = Instant::now();
    let mut batch = Batch::default();
    let mut shown = None;
    for config in configs(arguments) {
        let report = sim::run(&config);
        batch.add(&config, &report);
        progress.inc(1);
        if arguments.trace {
            print_lines(&report)?;
        }
        shown = Some((config, report));
        if !batch.tally.failed.is_empty() {
            break;
        }
    }
    progress.finish_and_clear();
    let (config, report) = shown.expect("at least one seed");
    write_files(arguments, &report)?;
    let mut out = io::stdout().lock();
    match arguments.write_out.as_str() {
        "json" => writeln!(out, "{}", batch.json())?,
        _ => out.write_all(batch.text(started.elapsed()).as_bytes())?,
    }
    if batch.tally.failed.is_empty() {
        return Ok(());
    }
    if !arguments.no_shrink && arguments.write_out == "simple" {
        out.write_all(shortest(&config).as_bytes())?;
    }
    Err(Failure::Silent)
}

fn configs(arguments: &SimArgs) -> impl Iterator<Item = Config> {
    seeds(arguments.seed, arguments.seeds).map(|seed| {
        let usual = Config::new(seed).with_profile(arguments.profile);
        Config {
            nodes: arguments.nodes.unwrap_or(usual.nodes),
            protocol: arguments.protocol,
            duration: arguments.duration,
            trace: arguments.trace,
            defect: arguments.plant,
            ..usual
        }
    })
}

/// So many seeds from the first; after the greatest number comes 0.
fn seeds(first: u64, count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(move |step| first.wrapping_add(step))
}

fn progress(arguments: &SimArgs) -> ProgressBar {
    if arguments.seeds < 2 || arguments.trace || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} seeds, {eta} left").expect("a template that parses");
    ProgressBar::new(arguments.seeds).with_style(style)
}

fn print_lines(report: &Report) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for line in &report.lines {
        writeln!(out, "{line}")?;
    }
    out.flush()
}

fn write_files(arguments: &SimArgs, report: &Report) -> Result<(), Failure> {
    let failed = |path: &Path, error: io::Error| Failure::Request(format!("cannot write {}: {error}", path.display()));
    if let Some(path) = &arguments.report {
        std::fs::write(path, sim::report_html(report)).map_err(|error| failed(path, error))?;
    }
    if let Some(path) = &arguments.history {
        write_history(path, &report.recorded).map_err(|error| failed(path, error))?;
    }
    Ok(())
}

fn write_history(path: &Path, history: &check::History) -> io::Result<()> {
    let mut writer = Writer::new(io::BufWriter::new(File::create(path)?), &history.header)?;
    history.operations.iter().try_for_each(|operation| writer.write(operation))?;
    writer.finish()?.flush()
}

/// What several runs have met.
#[derive(Default)]
struct Batch {
    tally: Tally,
    trace_hash: u64,
}

impl Batch {
    fn add(&mut self, config: &Config, report: &Report) {
        self.tally.add(config, report);
        self.trace_hash = self.trace_hash.rotate_left(7) ^ report.trace_hash;
    }

    fn text(&self, took: Duration) -> String {
        let mut text = String::new();
        for counter in Counter::ALL {
            text.push_str(&format!("{:>14}  {}\n", self.tally.counters.get(*counter), counter.words()));
        }
        let simulated = self.tally.simulated_us as f64 / 1e6;
        let factor = simulated / took.as_secs_f64().max(1e-9);
        text.push_str(&format!(
            "\n{} runs, {simulated:.0} simulated seconds in {:.1} s ({factor:.0}x), trace {:016x}\n",
            self.tally.runs,
            took.as_secs_f64(),
            self.trace_hash
        ));
        match self.tally.failed.first() {
            None => text.push_str("every check held\n"),
            Some((config, failure)) => text.push_str(&format!("FAILED with seed {}: {failure}\n", config.seed)),
        }
        text
    }

    fn json(&self) -> Value {
        let counters: serde_json::Map<String, Value> = Counter::ALL
            .iter()
            .map(|counter| (counter.words().to_owned(), self.tally.counters.get(*counter).into()))
            .collect();
        let failed = self.tally.failed.iter().map(|(config, failure)| {
            json!({ "seed": config.seed, "kind": format!("{:?}", failure.kind), "detail": failure.to_string() })
        });
        json!({
            "runs": self.tally.runs,
            "simulated_us": self.tally.simulated_us,
            "trace": format!("{:016x}", self.trace_hash),
            "counters": counters,
            "failures": failed.collect::<Vec<_>>(),
        })
    }
}

/// Runs that looking for a shorter one may take.
const SHRINK_RUNS: u32 = 300;
/// Events of the shortest run that are printed, the last ones.
const LINES_MAX: usize = 200;

/// The shortest run found that fails in the same way, and how it went.
fn shortest(config: &Config) -> String {
    let Some(shrunk) = sim::shrink(config, SHRINK_RUNS) else { return String::new() };
    let traced = sim::run(&Config { trace: true, ..shrunk.config.clone() });
    let from = traced.lines.len().saturating_sub(LINES_MAX);
    let mut text = format!("\nthe shortest run found that fails as well: {}\n", shrunk.describe());
    text.push_str(&format!("its last events, of {}:\n", traced.lines.len()));
    traced.lines[from..].iter().for_each(|line| text.push_str(&format!("{line}\n")));
    text
}
