//! One replicated-log kernel, four protocol policies. A [`Replica`] is a group's copy on this node: a pure function
//! from inputs (message, tick, persisted, applied) to a [`Ready`] that says what the host must do, and in what order.

pub mod config;
pub mod entry;
pub mod membership;
pub mod message;
pub mod ready;

pub use config::{Config, Protocol};
pub use entry::{Entry, EntryKind, Mark, Position};
pub use membership::{Member, Membership};
pub use message::{Body, Message};
pub use ready::{Committed, LoadRequest, ReadDone, ReadId, Ready, Record, Recovered, Refusal, Role, Status};
