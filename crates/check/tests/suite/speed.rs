//! A history of a hundred thousand operations is judged at once, not overnight.

use std::time::Instant;

use check::history::Numbering;
use check::{Options, check_all, replay};

use crate::generate::{Shape, history};

/// Run in release by hand: `cargo test --release -p check speed -- --nocapture --ignored`. Figures depend on the
/// machine, so nothing is asserted about them.
#[test]
#[ignore = "a measurement"]
fn speed_of_a_large_history() {
    for unknown_one_in in [u64::MAX, 500] {
        let keys = 100;
        let shape = Shape { operations: 100_000, clients: 16, keys, unknown_one_in, numbering: Numbering::Dense };
        let history = history(1, shape);
        let start = Instant::now();
        let verdict = replay::check(&history, &Options::default());
        println!("replay of {} operations: {:?} {verdict:?}", history.operations.len(), start.elapsed());
        for property in check::Property::ALL.into_iter().filter(|property| property.is_checked()) {
            let start = Instant::now();
            let verdict = check::check(&history, property, &Options::default());
            println!("  {property}: {:?}, possible: {}", start.elapsed(), verdict.is_possible());
        }
    }
}

#[test]
fn a_history_of_ten_thousand_operations_is_possible() {
    let shape = Shape { operations: 10_000, clients: 12, keys: 50, unknown_one_in: 200, numbering: Numbering::Dense };
    let history = history(2, shape);
    for (property, verdict) in check_all(&history, &Options::default()) {
        assert!(verdict.is_possible(), "{property}: {verdict:?}");
    }
}
