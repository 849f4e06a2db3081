//! Checkers of recorded histories: could a correct store have given these answers?
//!
//! A [`History`] is what clients asked and were told, with the times of both. One file per property judges it. Knows
//! nothing of how the store works; depends on no other crate of the project, so that a mistake cannot be in both.

pub mod bank;
mod changes;
mod fleeting;
pub mod history;
pub mod lease;
pub mod linearizable;
pub mod list_append;
pub mod lock;
pub mod long_fork;
pub mod replay;
pub mod session;
mod shown;
pub mod snapshot;
pub mod span;
mod store;
mod time;
pub mod verdict;
pub mod watch;
pub mod write_skew;

pub use history::{History, Operation, Outcome, Request, Response, Revision};
pub use verdict::{Impossible, Options, Property, Verdict};

/// Judges `history` by `property`. Deterministic.
///
/// A property without a checker ([`Property::is_checked`]) is undecided.
#[must_use]
pub fn check(history: &History, property: Property, options: &Options) -> Verdict {
    match property {
        Property::RevisionOrder => replay::check(history, options),
        Property::Linearizable => linearizable::check(history, options),
        Property::ListAppend => list_append::check(history),
        Property::Bank => bank::check(history),
        Property::WriteSkew => write_skew::check(history),
        Property::LongFork => long_fork::check(history),
        Property::Session => session::check(history),
        Property::Snapshot => snapshot::check(history),
        Property::Watch => watch::check(history),
        Property::Lease => lease::check(history, options),
        Property::Lock => lock::check(history, options),
        Property::CrossPartition => Verdict::Undecided { why: format!("{property} is not checked yet") },
    }
}

/// Judges `history` by every property that has a checker, in the order of [`Property::ALL`].
#[must_use]
pub fn check_all(history: &History, options: &Options) -> Vec<(Property, Verdict)> {
    let checked = Property::ALL.into_iter().filter(|property| property.is_checked());
    checked.map(|property| (property, check(history, property, options))).collect()
}
