//! The storage crate as its users see it. One binary, so that it links once.

mod engine_basic;
mod engine_damage;
mod engine_model;
mod engine_stress;
mod layout;
mod snapshot;
mod wal_basic;
