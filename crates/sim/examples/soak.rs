//! Runs many seeds, then plants defects that must be found; what `cargo xtask soak` starts.
//!
//! `cargo run -p sim --profile planted --features planted --example soak -- --seeds 400 --planted all`. One seed again:
//! `--first 17 --seeds 1 --workers 1 --trace`. One defect: `--seeds 0 --planted W3`. Ends with 1 if a run fails, or a
//! defect is not found.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it tells what it found")]

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use base::Defect;
use kernel::Protocol;
use sim::{Config, Counter, FailureKind, Hunt, Profile, Tally, Verdict};

/// A run is a tenth faster than with the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs tried to shrink a failing one.
const SHRINK_RUNS_MAX: u32 = 150;
/// Lines shown of a shrunk run.
const LINES_MAX: usize = 120;

/// What was asked for.
struct Wanted {
    first: u64,
    seeds: Option<u64>,
    minutes: Option<u64>,
    duration: Duration,
    workers: usize,
    protocol: Option<Protocol>,
    profile: Option<Profile>,
    planted: Vec<Hunt>,
    /// Whether a defect that was found once is enough.
    once: bool,
    trace: bool,
}

fn main() -> ExitCode {
    let wanted = match Wanted::read(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(wanted) => wanted,
        Err(words) => {
            eprintln!("{words}");
            return ExitCode::FAILURE;
        }
    };
    // Assertions of broken code are expected here, and reported like any other failure.
    std::panic::set_hook(Box::new(|_| {}));
    let sound = wanted.seeds == Some(0) || sound_seeds(&wanted);
    let unseen = planted(&wanted);
    if sound && unseen == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Wanted {
    fn read(words: &[String]) -> Result<Self, String> {
        let value = |name: &str| words.iter().position(|word| word == name).and_then(|at| words.get(at + 1));
        let number = |name: &str| match value(name) {
            None => Ok(None),
            Some(word) => word.parse::<u64>().map(Some).map_err(|cause| format!("{name} {word}: {cause}")),
        };
        let protocol = value("--protocol").map(|name| name.parse().map_err(|cause| format!("{cause}"))).transpose()?;
        let profile = value("--profile").map(|name| Profile::from_name(name).ok_or(format!("no profile {name}")));
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let (seeds, minutes) = (number("--seeds")?, number("--minutes")?);
        let one = value("--planted").and_then(|word| Defect::from_id(word));
        let one = |hunt: &&Hunt| Some(hunt.defect) == one;
        Ok(Self {
            first: number("--first")?.unwrap_or(0),
            seeds: seeds.or(minutes.is_none().then_some(40)),
            minutes,
            duration: Duration::from_secs(number("--seconds")?.unwrap_or(60)),
            workers: number("--workers")?.map_or(cores, |workers| workers as usize),
            protocol,
            profile: profile.transpose()?,
            planted: match value("--planted").map(String::as_str) {
                None => Vec::new(),
                Some("all") => sim::HUNTS.to_vec(),
                Some(_) if sim::HUNTS.iter().any(|hunt| one(&hunt)) => sim::HUNTS.iter().filter(one).copied().collect(),
                Some(word) => rotation(word),
            },
            once: value("--planted").is_some_and(|word| word != "all" && Defect::from_id(word).is_none()),
            trace: words.iter().any(|word| word == "--trace"),
        })
    }

    fn config(&self, seed: u64) -> Config {
        let turn = Config::in_turn(seed, self.duration);
        let profile = self.profile.unwrap_or(turn.profile);
        Config { protocol: self.protocol.unwrap_or(turn.protocol), trace: self.trace, ..turn }.with_profile(profile)
    }
}

/// Ten defects in turn: a word, such as the name of a commit, says where to begin.
fn rotation(word: &str) -> Vec<Hunt> {
    let start = word.bytes().fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
    let hunts: Vec<Hunt> = (0..10).map(|step| sim::HUNTS[start.wrapping_add(step) % sim::HUNTS.len()]).collect();
    let names: Vec<&str> = hunts.iter().map(|hunt| hunt.defect.id()).collect();
    println!("planted in turn, by {word:?}: {}", names.join(" "));
    hunts
}

/// A line that is written over, or, into a file, one from time to time.
struct Progress {
    started: Instant,
    told: Instant,
}

impl Progress {
    fn new() -> Self {
        Self { started: Instant::now(), told: Instant::now() }
    }

    fn tell(&mut self, words: impl FnOnce(f64) -> String) {
        let pause = if std::io::stderr().is_terminal() { 1 } else { 15 };
        if self.told.elapsed() < Duration::from_secs(pause) {
            return;
        }
        self.told = Instant::now();
        let words = words(self.started.elapsed().as_secs_f64());
        if std::io::stderr().is_terminal() {
            eprint!("\r{words}   ")
        } else {
            eprintln!("{words}")
        }
        // A progress line that cannot be shown is no reason to stop.
        let _ = std::io::stderr().flush();
    }
}

/// Runs without a defect. Whether every check held.
fn sound_seeds(wanted: &Wanted) -> bool {
    let mut progress = Progress::new();
    let until = wanted.minutes.map(|minutes| progress.started + Duration::from_secs(minutes * 60));
    let seeds = wanted.first..wanted.seeds.map_or(u64::MAX, |seeds| wanted.first + seeds);
    let configs =
        seeds.map(|seed| wanted.config(seed)).take_while(|_| until.is_none_or(|until| Instant::now() < until));
    let tally = sim::soak(configs, wanted.workers, |tally| {
        progress.tell(|seconds| {
            let simulated = tally.simulated_us as f64 / 1e6;
            let (runs, failed) = (tally.runs, tally.failed.len());
            format!("{seconds:.0} s: {runs} seeds, {failed} failed, {:.0}x real time", simulated / seconds)
        });
        true
    });
    summary(&tally, &progress, wanted);
    for (config, failure) in &tally.failed {
        println!("FAILED seed {} of {}, {}: {failure}", config.seed, config.profile, config.protocol);
    }
    if let Some((config, _)) = tally.failed.first() {
        show(config);
    }
    if wanted.trace {
        trace(&wanted.config(wanted.first), usize::MAX);
    }
    tally.failed.is_empty()
}

fn summary(tally: &Tally, progress: &Progress, wanted: &Wanted) {
    for counter in Counter::ALL {
        println!("{:>12} {}", tally.counters.get(*counter), counter.words());
    }
    for (kind, (planned, had)) in &tally.effects {
        println!("{planned:>12} {}, {had} effects", kind.name());
    }
    let (wall, simulated) = (progress.started.elapsed().as_secs_f64(), tally.simulated_us as f64 / 1e6);
    println!(
        "{} seeds, {} failed, {simulated:.0} s simulated in {wall:.1} s on {} cores: {:.0}x real time",
        tally.runs,
        tally.failed.len(),
        wanted.workers,
        simulated / wall
    );
}

/// The first failing run, made small, with what happens in it.
fn show(config: &Config) {
    let Some(shrunk) = sim::shrink(config, SHRINK_RUNS_MAX) else { return };
    println!("seed {} made small:\n{}", config.seed, shrunk.describe());
    trace(&shrunk.config, LINES_MAX);
}

/// The last lines of a run.
fn trace(config: &Config, lines_max: usize) {
    let lines = sim::run(&Config { trace: true, ..config.clone() }).lines;
    for line in &lines[lines.len().saturating_sub(lines_max)..] {
        println!("{line}");
    }
}

/// Plants the defects. How many of them nobody finds.
fn planted(wanted: &Wanted) -> usize {
    if wanted.planted.is_empty() {
        return 0;
    }
    let mut progress = Progress::new();
    let mut unseen = 0;
    println!("| defect | protocol | aim | found | by |\n|---|---|---|---|---|");
    for hunt in &wanted.planted {
        let configs = (wanted.first..wanted.first + hunt.seeds).map(|seed| hunt.config(seed));
        let tally = sim::soak(configs, wanted.workers, |tally| {
            progress.tell(|seconds| format!("{seconds:.0} s: {:?}, {} seeds", hunt.defect, tally.runs));
            !wanted.once || tally.failed.is_empty()
        });
        let mut by: BTreeMap<FailureKind, u64> = BTreeMap::new();
        for (_, failure) in &tally.failed {
            *by.entry(failure.kind).or_default() += 1;
        }
        let by: Vec<String> = by.iter().map(|(kind, count)| format!("{kind:?} {count}")).collect();
        let (found, runs) = (tally.failed.len(), tally.runs);
        let Hunt { defect, protocol, aim, .. } = hunt;
        let aim = aim.name();
        println!("| {} {defect:?} | {protocol} | {aim} | {found} of {runs} | {} |", defect.id(), by.join(", "));
        if found == 0 {
            println!("NOT FOUND: {}", defect.id());
            unseen += 1;
        }
        if wanted.trace {
            trace(&hunt.config(wanted.first), usize::MAX);
        }
        let sound = Config { defect: None, ..hunt.config(wanted.first) };
        if let Verdict::Failed(failure) = sim::run(&sound).verdict {
            println!("NOT SOUND without {}: {failure}", defect.id());
            unseen += 1;
        }
    }
    unseen
}
