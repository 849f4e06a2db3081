//! Plants one defect after the other and measures in how many seeds it is found: the table of `docs/testing.md`.
//! `cargo run -p sim --profile planted --features planted --example planted -- --seeds 40`; with `--canary` one seed
//! in a hundred has a defect, and exactly those must be reported.

#![expect(clippy::print_stdout, reason = "it prints what it found")]

use std::collections::BTreeMap;
use std::time::Duration;

use base::Defect;
use sim::{Config, Profile, Verdict};

/// What is planted, and the profile that must find it.
const PLANTED: &[(Defect, Profile)] = &[
    (Defect::EarlyAppendAck, Profile::Calm),
    (Defect::SnapshotRollback, Profile::Network),
    (Defect::SnapshotWithoutMembership, Profile::Crash),
    (Defect::MarkApart, Profile::Crash),
    (Defect::ApplyTwice, Profile::Crash),
    (Defect::LateConfirmation, Profile::Network),
    (Defect::TicksWaitForDisk, Profile::Disk),
    (Defect::ChecksumSkipped, Profile::Disk),
    (Defect::DamageTruncated, Profile::Disk),
    (Defect::DirectoryUnsynced, Profile::Crash),
    (Defect::SyncRetried, Profile::Disk),
    (Defect::AddressUnchecked, Profile::Disk),
    (Defect::HalfBatch, Profile::Disk),
    (Defect::AmnesiacVotes, Profile::Crash),
];

fn config(seed: u64, profile: Profile, defect: Option<Defect>) -> Config {
    Config { duration: Duration::from_secs(20), defect, ..Config::new(seed).with_profile(profile) }
}

fn main() {
    // Assertions of broken code are expected here.
    std::panic::set_hook(Box::new(|_| {}));
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| arguments.iter().position(|word| word == name).and_then(|at| arguments.get(at + 1));
    let seeds = value("--seeds").and_then(|word| word.parse().ok()).unwrap_or(40);
    if arguments.iter().any(|word| word == "--canary") {
        return canary(seeds);
    }
    println!("| defect | | profile | found in | by |\n|---|---|---|---|---|");
    for (defect, profile) in PLANTED {
        let mut by: BTreeMap<_, u64> = BTreeMap::new();
        for seed in 0..seeds {
            if let Verdict::Failed(failure) = sim::run(&config(seed, *profile, Some(*defect))).verdict {
                *by.entry(failure.kind).or_default() += 1;
            }
        }
        let found: u64 = by.values().sum();
        let by: Vec<String> = by.iter().map(|(kind, count)| format!("{kind:?} {count}")).collect();
        println!("| {} | {defect:?} | {profile} | {found} of {seeds} | {} |", defect.id(), by.join(", "));
    }
}

/// One seed in a hundred carries a defect nobody announced.
fn canary(seeds: u64) {
    let mut wrong = 0;
    for seed in 0..seeds {
        let defect = (seed % 100 == 42).then_some(Defect::EarlyAppendAck);
        let report = sim::run(&config(seed, Profile::Crash, defect));
        if let Verdict::Failed(failure) = &report.verdict {
            println!("seed {seed}: {failure}");
        }
        wrong += u64::from(report.verdict.failure().is_some() != defect.is_some());
    }
    println!("{seeds} seeds, {wrong} judged wrongly");
    assert!(wrong == 0, "a canary sang unheard, or a sound run was called broken");
}
