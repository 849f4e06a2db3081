//! The production host of `node::Node`: threads, sockets, disk. It carries out effects and decides nothing.
//!
//! ```text
//! client threads ──Request──► node thread ──Persist──► wal thread ──Persisted──► node thread
//!                               │  ▲  └────Apply────► apply thread ──Applied───► node thread
//!        peers ◄──────frames────┘  └─────────────────── answers in batches ────► client threads
//! ```
//! Invariant: the node thread never touches the disk, so a stalled disk cannot keep it from noticing that it lost its
//! quorum.

pub(crate) mod apply_thread;
pub(crate) mod failure;
pub(crate) mod io_thread;
pub(crate) mod maintenance;
pub(crate) mod node_thread;
mod timer;
pub(crate) mod wal_thread;
