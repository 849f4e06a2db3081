//! Every check must be seen failing: defects planted in the production code, and the check that finds each.

use std::time::Duration;

use base::Defect;
use sim::{Config, FailureKind, Profile, Verdict};

fn config(seed: u64, profile: Profile, defect: Option<Defect>) -> Config {
    Config { duration: Duration::from_secs(20), defect, ..Config::new(seed).with_profile(profile) }
}

/// The first of sixty seeds that finds the defect, which must be found by one of these checks.
fn found(defect: Defect, profile: Profile, kinds: &[FailureKind]) -> Config {
    first(defect, (0..60).map(|seed| config(seed, profile, Some(defect))), kinds)
}

/// The same where the hunt for this defect looks.
fn hunted(defect: Defect, kinds: &[FailureKind]) -> Config {
    let hunt = sim::HUNTS.iter().find(|hunt| hunt.defect == defect).expect("somebody looks for it");
    first(defect, (0..hunt.seeds).map(|seed| hunt.config(seed)), kinds)
}

/// The first of these runs that fails.
fn first(defect: Defect, configs: impl Iterator<Item = Config>, kinds: &[FailureKind]) -> Config {
    for config in configs {
        if let Verdict::Failed(failure) = sim::run(&config).verdict {
            assert!(kinds.contains(&failure.kind), "{defect:?} was found by another check: {failure}");
            let sound = sim::run(&Config { defect: None, ..config.clone() });
            assert_eq!(sound.verdict, Verdict::Passed, "seed {} fails without the defect", config.seed);
            return config;
        }
    }
    panic!("{defect:?} stays unseen");
}

#[test]
fn an_early_acknowledgement_is_found_by_the_ledger() {
    found(Defect::EarlyAppendAck, Profile::Calm, &[FailureKind::Durability]);
}

#[test]
fn a_state_apart_from_its_position_is_found_by_the_hashes() {
    // Or by the clients: something was done twice.
    found(Defect::MarkApart, Profile::Crash, &[FailureKind::Agreement, FailureKind::History]);
    found(Defect::ApplyTwice, Profile::Crash, &[FailureKind::Agreement, FailureKind::History]);
}

#[test]
fn a_snapshot_nobody_can_use_is_found_by_the_lack_of_progress() {
    let kinds = [FailureKind::Availability, FailureKind::Liveness];
    found(Defect::SnapshotWithoutMembership, Profile::Crash, &kinds);
}

#[test]
fn a_leader_that_waits_for_its_disk_is_found() {
    found(Defect::TicksWaitForDisk, Profile::Disk, &[FailureKind::Availability]);
}

#[test]
fn a_node_that_believes_the_wall_clock_is_found() {
    found(Defect::WallClock, Profile::Clock, &[FailureKind::Availability, FailureKind::Liveness, FailureKind::Panic]);
}

#[test]
fn a_leader_of_the_past_that_ends_leases_is_found_when_it_asks() {
    found(Defect::StaleExpiry, Profile::Network, &[FailureKind::Agreement]);
}

#[test]
fn a_leader_that_ends_leases_unconfirmed_is_found_by_the_answers_of_its_followers() {
    found(Defect::UnconfirmedExpiry, Profile::Calm, &[FailureKind::Agreement]);
    hunted(Defect::OldConfirmation, &[FailureKind::Agreement]);
}

#[test]
fn a_new_leader_that_ends_leases_too_early_is_found_by_the_histories() {
    found(Defect::LeaseTimeKept, Profile::Network, &[FailureKind::History]);
}

#[test]
fn a_lock_without_a_second_look_is_found_by_the_histories() {
    found(Defect::LockWithoutRecheck, Profile::Calm, &[FailureKind::History]);
    // The checker of locks says so in most runs, that of leases in the others: the lease was over.
    let failures = (0..20).filter_map(|seed| {
        let report = sim::run(&config(seed, Profile::Calm, Some(Defect::LockWithoutRecheck)));
        report.verdict.failure().map(|failure| failure.detail.clone())
    });
    let by_locks = failures.filter(|words| words.starts_with("lock: lock ")).count();
    assert!(by_locks >= 3, "the checker of locks found it in {by_locks} runs only");
}

#[test]
fn a_log_that_forgets_is_found_when_it_starts_or_before() {
    let kinds = [FailureKind::Recovery];
    found(Defect::DamageTruncated, Profile::Disk, &kinds);
    found(Defect::DirectoryUnsynced, Profile::Crash, &kinds);
    // What a sync lost is missing at the next start; with a later flush behind the gap the log says so itself.
    found(Defect::SyncRetried, Profile::Disk, &[FailureKind::Recovery, FailureKind::Stopped]);
}

#[test]
fn a_log_that_goes_on_after_half_a_batch_is_found() {
    found(Defect::HalfBatch, Profile::Disk, &[FailureKind::Panic, FailureKind::Recovery]);
}

#[test]
fn watches_that_lose_repeat_or_promise_too_much_are_found_by_the_histories() {
    found(Defect::WatchFloorLost, Profile::Network, &[FailureKind::History]);
    found(Defect::WatchHistoryTwice, Profile::Calm, &[FailureKind::History]);
    found(Defect::WatchEarlyProgress, Profile::Calm, &[FailureKind::History]);
    found(Defect::WatchStarved, Profile::Calm, &[FailureKind::History]);
    found(Defect::WatchStartIgnored, Profile::Calm, &[FailureKind::History]);
}

#[test]
fn a_majority_of_the_wrong_members_is_found_when_it_decides() {
    found(Defect::NewQuorumOnly, Profile::Members, &[FailureKind::Agreement]);
    found(Defect::LearnerVotes, Profile::Members, &[FailureKind::Agreement]);
}

#[test]
fn a_failing_run_shrinks_and_still_fails_in_the_same_way() {
    let mut configs = (0..60).map(|seed| config(seed, Profile::Crash, Some(Defect::MarkApart)));
    let is_agreement = |config: &Config| {
        sim::run(config).verdict.failure().is_some_and(|failure| failure.kind == FailureKind::Agreement)
    };
    let config = configs.find(is_agreement).expect("the hashes find it");
    let before = sim::plan(&config);
    let shrunk = sim::shrink(&config, 150).expect("it fails");
    let after = shrunk.config.plan.as_ref().expect("the plan is written down");
    assert_eq!(shrunk.report.verdict.failure().map(|failure| failure.kind), Some(FailureKind::Agreement));
    assert!(after.faults.len() <= 2 && after.faults.len() < before.faults.len(), "{} faults left", after.faults.len());
    assert!(after.operations.len() * 4 < before.operations.len(), "{} operations left", after.operations.len());
    assert_eq!(sim::run(&shrunk.config).trace_hash, shrunk.report.trace_hash, "it can be run again");
    assert!(shrunk.describe().lines().count() > after.operations.len());
    assert!(sim::shrink(&Config { defect: None, ..config }, 10).is_none(), "nothing to shrink in a sound run");
}
