//! The production host of `node::Node`: threads, sockets, disk. It carries out effects and decides nothing.
//!
//! ```text
//! client threads ──Request──► node thread ──Persist──► the log: here while the disk is quick, else the log thread
//!                               │  ▲  └────Apply────► apply thread ──Applied───► node thread, if it waits for that
//!        peers ◄──────frames────┘  └─────────────────── answers in batches ────► client threads
//! ```
//! Invariant: the node thread waits for the disk only when it just answered quickly, and never for more than the one
//! flush and the one small command of its own turn.

pub(crate) mod applier;
pub(crate) mod apply_thread;
pub(crate) mod failure;
pub(crate) mod io_thread;
pub(crate) mod log;
pub(crate) mod maintenance;
pub(crate) mod node_thread;
mod timer;
pub(crate) mod wal_thread;
pub(crate) mod word;
