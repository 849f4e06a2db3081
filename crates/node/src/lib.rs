//! A whole node without IO: events in, effects out.
//!
//! [`Node::handle`] takes one [`Event`]; [`Node::finish_turn`] hands out the [`Effect`]s of everything handled since
//! the last turn, so that one write and one fsync serve all groups of the turn. The host owns the clock, the sockets,
//! the disk and the threads; a simulator is another host of the same code. What watches see is a function of its own,
//! [`watch::Hub`], since it needs what was applied and not how it was agreed; so is what waits for a lock, [`recipe`].

pub mod effect;
pub mod event;
mod forward;
mod group;
mod lease_clock;
mod lease_turn;
mod leases;
mod node;
mod pace;
mod proposals;
mod reads;
pub mod recipe;
mod reconfigure;
mod retention;
mod snapshot;
pub mod watch;
pub mod wire;

pub use effect::{Effect, Response, Task, Uncertainty};
pub use event::{Event, LeaseAsk, Request, SnapshotId, Ticket};
pub use lease_clock::LeaseTimes;
pub use node::{GroupStart, Node, NodeConfig};
pub use reconfigure::Reconfiguration;
pub use wire::{ForwardAnswer, LeaseReply, PeerMessage};
