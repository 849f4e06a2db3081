//! Many runs, one after the other on each core, and what they found together.
//!
//! Invariant: what is run is a function of the seeds; which core runs what, and when, changes the order of the report
//! and nothing else.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use kernel::Protocol;

use crate::config::{Config, Profile};
use crate::counters::Counters;
use crate::fault::FaultKind;
use crate::report::{Failure, Report, Verdict};
use crate::run::run;

/// Profiles in turn: mostly everything at once, and each by itself.
const TURNS: &[Profile] = &[
    Profile::Swarm,
    Profile::Network,
    Profile::Swarm,
    Profile::Crash,
    Profile::Swarm,
    Profile::Disk,
    Profile::Clock,
    Profile::Members,
    Profile::WildClock,
    Profile::Swarm,
    Profile::OverTheLimit,
    Profile::Calm,
];

impl Config {
    /// A run of a soak: the protocols and the profiles take turns, and the seed decides the rest.
    #[must_use]
    pub fn in_turn(seed: u64, duration: Duration) -> Self {
        let protocols = Protocol::ALL.len() as u64;
        let protocol = Protocol::ALL[(seed % protocols) as usize];
        let profile = TURNS[(seed / protocols % TURNS.len() as u64) as usize];
        Self { protocol, duration, ..Self::new(seed) }.with_profile(profile)
    }
}

/// What many runs found.
#[derive(Default)]
pub struct Tally {
    /// Runs.
    pub runs: u64,
    /// Simulated time of all.
    pub simulated_us: u64,
    /// What was seen how often.
    pub counters: Counters,
    /// Faults planned and their effects, by kind.
    pub effects: BTreeMap<FaultKind, (u64, u64)>,
    /// Runs in which a check failed.
    pub failed: Vec<(Config, Failure)>,
}

impl Tally {
    /// Adds a run.
    pub fn add(&mut self, config: &Config, report: &Report) {
        self.runs += 1;
        self.simulated_us += report.simulated_us;
        self.counters.merge(&report.counters);
        for (kind, (planned, had)) in &report.effects {
            let sum = self.effects.entry(*kind).or_default();
            *sum = (sum.0 + planned, sum.1 + had);
        }
        if let Verdict::Failed(failure) = &report.verdict {
            self.failed.push((config.clone(), failure.clone()));
        }
    }
}

/// Runs them all on so many threads; `each` sees the sum after every run, and ends the soak by answering false.
pub fn soak(
    configs: impl Iterator<Item = Config> + Send,
    workers: usize,
    mut each: impl FnMut(&Tally) -> bool,
) -> Tally {
    let configs = Mutex::new(configs);
    let next = || configs.lock().map_or(None, |mut configs| configs.next());
    let mut tally = Tally::default();
    std::thread::scope(|scope| {
        let (sender, results) = channel();
        for _ in 0..workers.max(1) {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                while let Some(config) = next() {
                    let report = run(&config);
                    // Nobody listens any more: the soak is over.
                    if sender.send((config, report)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        while let Ok((config, report)) = results.recv() {
            tally.add(&config, &report);
            if !each(&tally) {
                break;
            }
        }
    });
    tally.failed.sort_by_key(|(config, _)| config.seed);
    tally
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_protocol_meets_every_profile() {
        let met: BTreeSet<_> = (0..Protocol::ALL.len() as u64 * TURNS.len() as u64)
            .map(|seed| Config::in_turn(seed, Duration::from_secs(1)))
            .map(|config| (config.protocol.id(), config.profile))
            .collect();
        assert_eq!(met.len(), Protocol::ALL.len() * Profile::ALL.len());
    }

    #[test]
    fn cores_change_nothing_and_a_soak_ends_when_told() {
        let configs = || (0..6).map(|seed| Config::in_turn(seed, Duration::from_secs(4)));
        let (one, two) = (soak(configs(), 1, |_| true), soak(configs(), 2, |_| true));
        assert_eq!((one.runs, one.simulated_us, one.counters), (two.runs, two.simulated_us, two.counters));
        assert_eq!(soak(configs(), 2, |tally| tally.runs < 2).runs, 2);
    }
}
