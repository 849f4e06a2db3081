//! A Sinew server: the production host of `node::Node`, and the services clients talk to.
//!
//! Threads of one server: a node thread (the core, the peers' sockets, and what little there is to write and to run
//! while the disk is quick), a log thread (one write and one fsync for all that waits), an apply thread (commands on
//! the engine), a maintenance thread (flush, compaction, sweep), an io thread (log reads for laggards, snapshots) and
//! client threads (gRPC and HTTP). What each may do is in `host` and `clients`.

mod admission;
mod auto_compaction;
mod body;
mod calls;
mod clients;
mod clock;
pub mod config;
mod convert;
mod corruption;
mod errors;
mod fence;
#[cfg(test)]
mod fuzz_tests;
mod gateway;
mod gathered;
mod grpc;
mod host;
mod http;
mod lane;
mod members;
mod metrics;
mod peer;
mod recipe;
mod reconfigure;
mod restore;
mod space;
mod standing;
mod start;
mod stream;
mod unary;
mod waits;
mod watch;

pub use config::{AutoCompaction, ClusterState, Config, InitialMember};
pub use gathered::Gathered;
pub use restore::{Summary, restore, summary};
pub use start::{Server, StartError};
