//! Runs searches and prints a table: `explore [--protocol NAME] [--config small|large|NAME] [--defect ID] [--states N]
//! [--seconds N]`. Ends with an error if anything is wrong, or unseen, or not finished.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use base::planted::{Defect, plant};
use explore::{Config, End, Report, run_while, sets};
use kernel::Protocol;

const USAGE: &str =
    "explore [--protocol NAME|all] [--config small|large|everything|NAME] [--defect ID] [--states N] [--seconds N]";

struct Arguments {
    protocols: Vec<Protocol>,
    config: String,
    defect: Option<Defect>,
    states: usize,
    depth: usize,
    seconds: u64,
}

fn parse(mut words: impl Iterator<Item = String>) -> Option<Arguments> {
    let mut arguments = Arguments {
        protocols: vec![Protocol::Raft],
        config: "small".to_owned(),
        defect: None,
        states: usize::MAX,
        depth: usize::MAX,
        seconds: u64::MAX,
    };
    while let Some(word) = words.next() {
        let value = words.next()?;
        match word.as_str() {
            "--protocol" => arguments.protocols = sets::protocols(&value).ok()?,
            "--config" => arguments.config = value,
            "--defect" => arguments.defect = Some(Defect::from_id(&value)?),
            "--depth" => arguments.depth = value.parse().ok()?,
            "--states" => arguments.states = value.parse().ok()?,
            "--seconds" => arguments.seconds = value.parse().ok()?,
            _ => return None,
        }
    }
    Some(arguments)
}

fn configs(arguments: &Arguments, protocol: Protocol) -> Vec<Config> {
    if let Some(defect) = arguments.defect {
        return sets::hunt(defect, protocol).into_iter().collect();
    }
    match arguments.config.as_str() {
        "small" => sets::small(protocol),
        "large" => sets::large(protocol),
        "everything" => vec![sets::bounded(protocol, arguments.states)],
        name => {
            let all = sets::small(protocol).into_iter().chain(sets::large(protocol));
            all.filter(|config| config.name == name).collect()
        }
    }
}

fn search(config: &Config, seconds: u64) -> Report {
    let start = Instant::now();
    let mut shown = start;
    let report = run_while(config, |progress| {
        if shown.elapsed() > Duration::from_secs(10) {
            shown = Instant::now();
            eprintln!("  {} after {} s: {progress:?}", config.name, start.elapsed().as_secs());
        }
        start.elapsed().as_secs() < seconds
    });
    let Report { name, end, states, transitions, depth, hosts, packets, .. } = &report;
    let protocol = config.protocol.name();
    let took = start.elapsed().as_secs_f64();
    println!(
        "{protocol:11} {name:16} {states:>10} {transitions:>11} {depth:>5} {hosts:>7} {packets:>7} {took:>7.1}  {end:?}"
    );
    if let Some(counterexample) = &report.counterexample {
        println!("{counterexample}");
    }
    if !report.missed.is_empty() {
        println!("never seen: {:?}", report.missed);
    }
    report
}

fn main() -> ExitCode {
    let Some(arguments) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::FAILURE;
    };
    println!("protocol    search               states transitions depth   hosts packets seconds  end");
    plant(arguments.defect);
    let mut reports = Vec::new();
    for protocol in &arguments.protocols {
        let mut of_protocol = configs(&arguments, *protocol);
        for config in &mut of_protocol {
            config.limits.depth = config.limits.depth.min(arguments.depth);
            config.limits.states = config.limits.states.min(arguments.states);
        }
        let first = reports.len();
        reports.extend(of_protocol.iter().map(|config| search(config, arguments.seconds)));
        let states: usize = reports[first..].iter().map(|report| report.states).sum();
        println!("{:11} {:16} {states:>10}", protocol.name(), "all");
        for sight in explore::Sight::ALL {
            let count: u64 = reports[first..].iter().map(|report| report.seen(*sight)).sum();
            println!("  {count:>10}  {}", sight.text());
        }
    }
    let is_good = |report: &Report| match arguments.config.as_str() {
        "everything" => report.end != End::Breach,
        _ => report.is_proof(),
    };
    if reports.is_empty() || !reports.iter().all(is_good) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
