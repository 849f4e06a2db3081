//! One replicated-log kernel for several consensus protocols. A [`Replica`] is a group's copy on this node: a pure
//! function from inputs (message, tick, persisted, applied) to a [`Ready`] that says what the host must do, and in
//! what order.
//!
//! Where to look: `replica` (state, dispatch), `candidate` (elections), `leader` and `replicate` (leading), `follower`,
//! `change` and `membership`, `read`, `snapshot`, `output` (the end of a turn), `durable` (what waits for the disk),
//! `check` (the invariant chain), `timeless` (for the model checker), `policy` (the points at which protocols differ),
//! `wire` (bytes).
//!
//! The one invariant: nothing leaves a replica that rests on something not yet durable here.

pub mod config;
pub mod entries;
pub mod entry;
pub mod membership;
pub mod message;
pub mod ready;
pub mod wire;

mod cache;
mod candidate;
mod change;
mod check;
mod contacts;
mod durable;
mod follower;
mod input;
mod leader;
mod log;
mod output;
mod peers;
mod policy;
mod progress;
mod quorum;
mod read;
mod replica;
mod replicate;
mod snapshot;
mod timeless;

#[cfg(test)]
mod executor_tests;

pub use config::{Config, Protocol, UnknownProtocol};
pub use entries::Entries;
pub use entry::{Entry, EntryKind, Mark, Position};
pub use membership::{Member, Membership};
pub use message::{Body, Message, Suffix};
pub use ready::{Committed, LoadRequest, ReadDone, ReadId, Ready, Record, Recovered, Refusal, Role, Status};
pub use replica::Replica;
pub use timeless::Lapse;
pub use wire::{decode, encode};
