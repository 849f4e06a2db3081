//! Runs many seeds and says what they met: `cargo run -p sim --profile planted --features planted --example soak
//! -- --seeds 400`.

#![expect(clippy::print_stdout, reason = "it prints what it found")]

use std::time::{Duration, Instant};

use kernel::Protocol;
use sim::{Config, Counter, Counters, Profile, Verdict};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| arguments.iter().position(|word| word == name).and_then(|at| arguments.get(at + 1));
    let number = |name: &str, usual: u64| value(name).and_then(|word| word.parse().ok()).unwrap_or(usual);
    let (first, seeds, seconds) = (number("--first", 0), number("--seeds", 40), number("--seconds", 60));
    let profile = value("--profile").and_then(|name| Profile::from_name(name)).unwrap_or(Profile::Swarm);
    let named = |protocol: &Protocol| value("--protocol").is_some_and(|id| id.parse() == Ok(protocol.id()));
    let protocol = Protocol::ALL.iter().copied().find(named).unwrap_or(Protocol::Raft);
    let trace = arguments.iter().any(|word| word == "--trace");
    let mut counters = Counters::default();
    let (mut simulated, mut failed) = (0, 0);
    let started = Instant::now();
    for seed in first..first + seeds {
        let usual = Config::new(seed).with_profile(profile);
        let config = Config { duration: Duration::from_secs(seconds), protocol, trace, ..usual };
        let report = sim::run(&config);
        simulated += report.simulated_us;
        counters.merge(&report.counters);
        if trace {
            for line in &report.lines {
                println!("{:>5}.{:06} {}", line.at / 1_000_000, line.at % 1_000_000, line.text);
            }
        }
        if let Verdict::Failed(failure) = &report.verdict {
            failed += 1;
            println!("seed {seed}: {failure}");
        }
    }
    let wall = started.elapsed().as_secs_f64();
    for counter in Counter::ALL {
        println!("{:>12} {}", counters.get(*counter), counter.words());
    }
    let simulated = simulated as f64 / 1e6;
    println!("{seeds} seeds, {failed} failed, {simulated:.0} s simulated in {wall:.1} s: {:.0}x", simulated / wall);
}
