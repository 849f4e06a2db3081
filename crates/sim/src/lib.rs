//! A whole cluster in one thread and virtual time, with every fault we can think of; same seed, same run.
//!
//! [`run`] takes a [`Config`] and gives a [`Report`]. What decides is the production code: the node, the write-ahead
//! log, the state machine. Clock, network, disks and the threads around them are modelled here; this is the second host
//! of `node`, after the server.
//!
//! ```text
//!  config ──► plan: faults, operations (plain data, may be given) ──► world ──► report
//!                                                                       │
//!    schedule: one queue of everything ◄──► machine: disk, engine, process (node, log, apply, io)
//!    network: links with weather, cuts, clogs     clients: one request each at a time, history
//!    ledger: what is synced ── every promise      oracle: what all replicas agree on
//! ```
//!
//! A run that fails can be made smaller, [`shrink`], and looked at, [`report_html`].
//!
//! Left out so far: several groups.
//!
//! Invariant: a run is a function of its configuration, byte for byte. The crate prints nothing.

mod clock;
mod compare;
mod config;
mod confirmations;
mod counters;
mod fault;
mod history;
mod html;
mod ledger;
mod locks;
mod machine;
mod members;
mod network;
mod oracle;
mod plan;
mod planted;
mod random;
mod recorded;
mod report;
mod run;
mod schedule;
mod settled;
mod shrink;
mod soak;
mod timeline;
mod trace;
mod watches;
mod workload;
mod world;

pub use compare::{Play, Row, Script, Showing, play};
pub use config::{Config, Profile};
pub use counters::{Counter, Counters};
pub use fault::{Fault, FaultKind, Link, Weather};
pub use history::{Asked, Held, Operation, Told};
pub use html::report_html;
pub use plan::{Plan, PlannedFault, Shape, plan};
pub use planted::{Aim, HUNTS, Hunt};
pub use report::{Failure, FailureKind, Report, Verdict};
pub use run::run;
pub use shrink::{Shrunk, shrink};
pub use soak::{Tally, soak};
pub use timeline::{Cut, Span, SpanKind, Timeline, Traffic};
pub use trace::Line;
pub use watches::WatchRecord;
pub use workload::{Intent, PlannedOperation, key_bytes, list_bytes};
