//! An exhaustive model check of the production kernel: every order of events around a few replicas, up to a bound.
//!
//! Invariant: the code that is searched is the kernel's own. Only disk and network are models, and what they leave out
//! is listed here.
//!
//! Where to look: `config` (what is searched), `sets` (the searches that are run), `host` (one replica with its disk,
//! and what an input does), `lab` (each step worked out once), `world` (states and what follows them), `past` and
//! `ledger` (what must hold), `search` (breadth first), `sight` (what must have been seen), `trace` (for people).
//!
//! # The model
//! Replicas with disks, and packets in flight. A packet arrives at any time, in any order, or never. Records become
//! durable batch by batch in the order written; a crash keeps any prefix of those that are not durable, cutting a batch
//! if need be, and the replica starts again at once (one that stays down is one to which nothing is delivered).
//!
//! # What is abstracted, and why a breach cannot hide behind it
//! - *Time.* A replica asks its clock only whether something is due and whether someone was heard lately. The model
//!   gives every answer at every moment (`kernel::Lapse`), so it does all that a cluster could do under any clocks, and
//!   more. No lease rests on a clock. Left out: a disk that stalls, which makes a replica do what it does when it
//!   hears no quorum, or nothing.
//! - *Randomness.* Only the jitter of elections is random, and any replica may time out at any moment.
//! - *Numbers of batches* are counted from the oldest that is not durable: they are compared with each other only.
//! - *Addresses* of strangers are forgotten: packets find their receiver.
//! - *Loss.* A lost packet is one that never arrives. When one more is sent than fits, any one of those in flight is
//!   lost, at no cost. So a search with `in_flight` K covers exactly those behaviours in which at no time more than K
//!   packets are under way that will still arrive.
//! - *Dead packets.* An answer in a ballot below the promise on its receiver's disk, which tells of no higher promise,
//!   changes nothing when it arrives; it is lost at once.
//! - *Pre-votes*, unless `pre_votes` is set: a campaign starts as if a quorum had been willing. Pre-votes change
//!   nothing at those that give them, so this allows more than the kernel does.
//! - *Applying* follows at once. A state machine that lags delays answers and allows nothing new; one that is durable
//!   ahead of the log is part of `compactions`.
//! - *Loads* from the log and the streaming of a snapshot take one step; a snapshot that is lost is not reported.
//! - *Equality* of states is that of 128 bits of fingerprint.

mod config;
mod disk;
mod fingerprint;
mod host;
mod lab;
mod ledger;
mod past;
mod search;
pub mod sets;
mod sight;
mod trace;
mod world;

pub use config::{Bounds, Config, Limits, Target};
pub use search::{Counterexample, End, Progress, Report, run, run_while};
pub use sight::Sight;
