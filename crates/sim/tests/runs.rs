//! Runs of whole clusters: every profile, many seeds, the same run twice.

use std::collections::BTreeMap;
use std::time::Duration;

use base::NodeId;
use sim::{Config, Counter, Counters, Fault, Plan, PlannedFault, Profile, Report, Verdict};

fn config(seed: u64, profile: Profile, seconds: u64) -> Config {
    Config { duration: Duration::from_secs(seconds), ..Config::new(seed).with_profile(profile) }
}

fn passes(config: &Config) -> Report {
    let report = sim::run(config);
    assert_eq!(report.verdict, Verdict::Passed, "seed {} of {}", config.seed, config.profile);
    report
}

/// Runs seeds of a profile; what they met together.
fn batch(profile: Profile, seeds: std::ops::Range<u64>, seconds: u64) -> (Counters, BTreeMap<sim::FaultKind, u64>) {
    let (mut counters, mut effects) = (Counters::default(), BTreeMap::new());
    for seed in seeds {
        let report = passes(&config(seed, profile, seconds));
        counters.merge(&report.counters);
        for (kind, (_, had)) in report.effects {
            *effects.entry(kind).or_default() += had;
        }
    }
    (counters, effects)
}

fn met(counters: &Counters, expected: &[Counter]) {
    let unmet: Vec<_> = expected.iter().filter(|counter| counters.get(**counter) == 0).collect();
    assert!(unmet.is_empty(), "these runs never met {unmet:?}");
}

/// What clients that want locks go through.
const LOCKING: [Counter; 5] =
    [Counter::LocksGranted, Counter::LockWaits, Counter::LocksLost, Counter::GuardedWrites, Counter::GuardsHeld];

#[test]
fn without_faults_everything_is_done() {
    let (counters, effects) = batch(Profile::Calm, 0..4, 10);
    assert!(effects.is_empty());
    met(&counters, &[Counter::Writes, Counter::Reads, Counter::LocalReads, Counter::Compactions, Counter::Audits]);
    met(&counters, &LOCKING);
    assert_eq!(counters.get(Counter::NotDone), 0, "nothing is refused by a calm cluster");
    assert_eq!(counters.get(Counter::Elections), 4, "a calm cluster keeps its first leader");
}

#[test]
fn the_recorded_history_says_enough_to_be_judged_by_every_checker() {
    let report = passes(&config(1, Profile::Calm, 20));
    let history = report.recorded;
    history.validate().expect("well formed");
    for (property, verdict) in check::check_all(&history, &check::Options::default()) {
        let check::Verdict::Possible { judged } = verdict else { panic!("{property}: {verdict:?}") };
        assert!(judged > 10, "{property} judges {judged} operations only");
    }
    let mut file = Vec::new();
    let mut writer = check::history::Writer::new(&mut file, &history.header).expect("memory");
    history.operations.iter().for_each(|operation| writer.write(operation).expect("memory"));
    assert_eq!(check::history::read(&file[..]).expect("own file"), history);
}

/// Locks go through every protocol, and through every profile but the one in which nothing has to work.
#[test]
fn locks_have_one_holder_whatever_happens() {
    for protocol in kernel::Protocol::ALL {
        for profile in Profile::ALL.iter().filter(|profile| **profile != Profile::OverTheLimit) {
            let mut judged = 0;
            for seed in 0..2 {
                let report = passes(&Config { protocol: *protocol, ..config(seed, *profile, 10) });
                judged += match check::check(&report.recorded, check::Property::Lock, &check::Options::default()) {
                    check::Verdict::Possible { judged } => judged,
                    verdict => panic!("{protocol} in {profile}: {verdict:?}"),
                };
            }
            assert!(judged > 10, "{protocol} in {profile} judges {judged} operations on locks only");
        }
    }
}

#[test]
fn nothing_goes_wrong_when_the_network_does() {
    let (counters, _) = batch(Profile::Network, 0..6, 20);
    let expected = [
        Counter::Duplicated,
        Counter::Reordered,
        Counter::Clogged,
        Counter::Dropped,
        Counter::Replayed,
        Counter::Truncations,
        Counter::Forwards,
    ];
    met(&counters, &expected);
}

#[test]
fn nothing_promised_is_lost_in_crashes() {
    let (counters, _) = batch(Profile::Crash, 0..6, 20);
    met(&counters, &[Counter::Recoveries, Counter::SnapshotsInstalled, Counter::Unknown, Counter::EndsConfirmed]);
    met(&counters, &LOCKING);
    met(&counters, &[Counter::WatchEvents, Counter::WatchProgress, Counter::WatchPages, Counter::WatchStreamsLost]);
}

#[test]
fn a_failing_disk_stops_a_node_and_nothing_else() {
    let (counters, _) = batch(Profile::Disk, 0..6, 20);
    met(&counters, &[Counter::Stopped, Counter::Recoveries, Counter::Refusals, Counter::WatchedSeconds]);
}

#[test]
fn clocks_and_pauses_change_nothing_but_the_pace() {
    for profile in [Profile::Clock, Profile::WildClock] {
        let (_, effects) = batch(profile, 0..6, 20);
        for kind in [sim::FaultKind::ClockRate, sim::FaultKind::ClockJump] {
            assert!(effects.get(&kind).is_some_and(|had| *had > 0), "{profile} never had a {}", kind.name());
        }
    }
}

#[test]
fn members_come_and_go_and_nothing_is_lost() {
    let (counters, effects) = batch(Profile::Members, 0..16, 20);
    let expected = [
        Counter::JointMemberships,
        Counter::MembersJoined,
        Counter::MembersRemoved,
        Counter::StoodDown,
        Counter::Strangers,
        Counter::DoneByJoined,
        Counter::SnapshotsInstalled,
    ];
    met(&counters, &expected);
    for kind in [sim::FaultKind::Join, sim::FaultKind::Leave, sim::FaultKind::Replace] {
        assert!(effects.get(&kind).is_some_and(|had| *had > 0), "{} never had an effect", kind.name());
    }
}

#[test]
fn over_the_limit_service_ends_and_no_answer_is_wrong() {
    let (counters, _) = batch(Profile::OverTheLimit, 0..6, 20);
    met(&counters, &[Counter::Refusals, Counter::NotDone]);
}

#[test]
fn the_swarm_finds_nothing() {
    let (counters, effects) = batch(Profile::Swarm, 0..20, 20);
    let everywhere = [
        Counter::Elections,
        Counter::SnapshotsInstalled,
        Counter::Compactions,
        Counter::LogCompactions,
        Counter::Truncations,
        Counter::Unknown,
        Counter::Conflicts,
        Counter::Sweeps,
        Counter::Transfers,
        Counter::Loads,
        Counter::HashesCompared,
        Counter::RevisionRefused,
    ];
    met(&counters, &everywhere);
    for (kind, had) in effects {
        // Not every cluster can do without a member.
        assert!(had > 0 || kind == sim::FaultKind::Leave, "{} never had an effect", kind.name());
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..4 {
        let config = config(seed, Profile::Swarm, 8);
        let (one, other) = (sim::run(&config), sim::run(&config));
        assert_eq!(one.trace_hash, other.trace_hash, "seed {seed} runs differently the second time");
        assert_eq!(one.history, other.history);
        let traced = sim::run(&Config { trace: true, ..config.clone() });
        assert_eq!(traced.trace_hash, one.trace_hash, "looking at seed {seed} changes it");
        assert!(traced.lines.len() > 1000 && one.lines.is_empty());
        let next = sim::run(&Config { seed: seed + 1, ..config });
        assert_ne!(next.trace_hash, one.trace_hash, "the seed makes no difference");
    }
}

/// Cut off while others came and the founders went, itself among them: it waits for founders who are gone, and nobody
/// can tell it. The rest must not wait for it.
#[test]
fn a_member_that_missed_its_own_removal_and_knows_nobody_left_holds_up_nobody() {
    let (lone, others) = (NodeId(2), [NodeId(1), NodeId(3)]);
    let config = config(5310, Profile::Members, 20);
    let plan = sim::plan(&config);
    let at = |seconds: u64, fault| PlannedFault { at: seconds * 1_000_000, fault };
    let faults = vec![
        at(3, Fault::Cut { links: others.map(|other| (lone, other)).to_vec(), for_us: 20_000_000 }),
        at(4, Fault::Join { node: NodeId(4) }),
        at(7, Fault::Leave { node: NodeId(3) }),
        at(9, Fault::Join { node: NodeId(5) }),
        at(12, Fault::Leave { node: lone }),
        at(15, Fault::Leave { node: NodeId(1) }),
    ];
    let report = passes(&Config { nodes: 3, plan: Some(Plan { faults, ..plan }), ..config });
    assert_eq!(report.counters.get(Counter::MembersRemoved), 3);
    assert_eq!(report.counters.get(Counter::StoodDown), 2, "the one that was cut off runs on");
}
