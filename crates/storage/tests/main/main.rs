//! The storage crate as its users see it. One binary, so that it links once.

mod engine_basic;
mod wal_basic;
