//! Watches in the simulation: the hub that a node's host runs, and the clients that listen to it.

mod client;
mod desk;

pub use client::WatchRecord;
pub(crate) use client::{Act, Ask, WatchClients};
pub(crate) use desk::{Desk, Line};
