//! Watches against everything at once: random changes, compactions, lost and late batches, slow and vanishing clients;
//! what each watch was sent is judged by predicates that know only the truth and the responses.

#![expect(clippy::unwrap_used, reason = "a test host has nobody to report to")]

mod predicates;
mod record;
mod rules;
mod world;

use base::Defect;
use predicates::PREDICATES;
use world::{Seen, World};

const SEEDS: u64 = 1500;

/// Runs one world to its end; the predicates that do not hold, with the reasons.
fn violations(seed: u64, seen: &mut Seen) -> Vec<(&'static str, String)> {
    let mut world = World::new(seed);
    let (truth, records) = world.run(seen);
    let mut violations = Vec::new();
    for record in &records {
        for (name, predicate) in PREDICATES {
            if let Err(reason) = predicate(record, &truth) {
                violations.push((*name, format!("seed {seed}: {reason}\n{record:?}")));
            }
        }
    }
    violations
}

#[test]
fn every_watch_sees_what_happened_once_and_in_order() {
    let mut seen = Seen::default();
    for seed in 0..SEEDS {
        if let Some((name, reason)) = violations(seed, &mut seen).into_iter().next() {
            panic!("{name}: {reason}");
        }
    }
    // A run that never came to the hard parts has shown nothing.
    let Seen { responses, pages, compacted, progress, lost, resumed, fell_behind, future } = seen;
    for (what, count) in [
        ("responses with events", responses),
        ("pages of history", pages),
        ("watches that lost their history", compacted),
        ("progress responses", progress),
        ("lost batches", lost),
        ("watches resumed elsewhere", resumed),
        ("watches that fell behind", fell_behind),
        ("watches of the future", future),
    ] {
        assert!(count > SEEDS / 4, "only {count} {what} in {SEEDS} seeds");
    }
}

/// A defect in the hub must be noticed, and by the predicate that is there for it.
fn must_be_caught(defect: Defect, by: &[&str]) {
    base::planted::plant(Some(defect));
    let caught = (0..SEEDS).find_map(|seed| {
        let found = violations(seed, &mut Seen::default());
        found.into_iter().find(|(name, _)| by.contains(name))
    });
    base::planted::plant(None);
    assert!(caught.is_some(), "{} was not noticed in {SEEDS} seeds", defect.id());
}

#[test]
fn an_event_lost_at_the_compaction_floor_is_noticed() {
    must_be_caught(Defect::WatchFloorLost, &["reliable", "resumable"]);
}

#[test]
fn events_of_history_repeated_by_a_lagging_node_are_noticed() {
    must_be_caught(Defect::WatchHistoryTwice, &["unique"]);
}

#[test]
fn progress_ahead_of_its_events_is_noticed() {
    must_be_caught(Defect::WatchEarlyProgress, &["bookmarkable"]);
}

#[test]
fn events_lost_by_a_starved_watch_are_noticed() {
    must_be_caught(Defect::WatchStarved, &["reliable"]);
}

#[test]
fn events_before_the_start_of_a_future_watch_are_noticed() {
    must_be_caught(Defect::WatchStartIgnored, &["start"]);
}
