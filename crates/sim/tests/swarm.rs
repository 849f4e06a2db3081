//! A small soak on every commit: all protocols, all profiles, and a runner that hears the canary.

use std::time::Duration;

use base::Defect;
use sim::{Config, Counter};

#[test]
fn every_protocol_survives_every_profile() {
    let configs = (0..80).map(|seed| Config::in_turn(seed, Duration::from_secs(15)));
    let tally = sim::soak(configs, 2, |_| true);
    assert_eq!(tally.runs, 80);
    if let Some((config, failure)) = tally.failed.first() {
        let (seed, profile, protocol) = (config.seed, config.profile, config.protocol);
        panic!("seed {seed} of {profile}, {protocol}: {failure}\n{:#?}", sim::shrink(config, 60).map(|s| s.describe()));
    }
    for counter in [Counter::SnapshotsInstalled, Counter::Truncations, Counter::Transfers, Counter::Refusals] {
        assert!(tally.counters.get(counter) > 0, "no run has {}", counter.words());
    }
}

/// One run in a hundred carries a defect nobody announced. The runner must report it, and nothing else.
#[test]
fn a_canary_among_a_hundred_runs_is_heard() {
    let configs = (0..100).map(|seed| {
        let defect = (seed == 42).then_some(Defect::EarlyAppendAck);
        Config { defect, ..Config::in_turn(seed, Duration::from_secs(4)) }
    });
    let tally = sim::soak(configs, 2, |_| true);
    let failed: Vec<u64> = tally.failed.iter().map(|(config, _)| config.seed).collect();
    assert_eq!(
        (tally.runs, failed),
        (100, vec![42]),
        "{:?}",
        tally.failed.iter().map(|(_, why)| why).collect::<Vec<_>>()
    );
}
