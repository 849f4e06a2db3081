//! The small searches: exhausted, nothing wrong, and nothing missed that they are there for.

use explore::{run, sets};
use kernel::Protocol;

/// Fewer distinct states than this and the set has lost something.
const STATES_MIN: usize = 500_000;

#[expect(clippy::print_stdout, reason = "a test's own words: the table in `docs/testing.md` is made of them")]
fn exhaust(protocol: Protocol) {
    let mut states = 0;
    for config in sets::small(protocol) {
        let report = run(&config);
        if let Some(counterexample) = &report.counterexample {
            panic!("{protocol} {}:\n{counterexample}", config.name);
        }
        assert!(report.is_proof(), "{protocol}: {report:?}");
        println!("{protocol} {} {}", config.name, report.states);
        states += report.states;
    }
    assert!(states > STATES_MIN, "{protocol}: {states} states in all");
}

#[test]
fn small_searches_of_raft_are_exhausted_without_a_breach() {
    exhaust(Protocol::Raft);
}

#[test]
fn small_searches_of_multi_paxos_are_exhausted_without_a_breach() {
    exhaust(Protocol::MultiPaxos);
}

#[test]
fn small_searches_of_zab_are_exhausted_without_a_breach() {
    exhaust(Protocol::Zab);
}

#[test]
fn small_searches_of_paxos_raft_are_exhausted_without_a_breach() {
    exhaust(Protocol::PaxosRaft);
}
