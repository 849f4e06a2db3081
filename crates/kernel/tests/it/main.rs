//! Tests of the kernel from outside: golden traces, a random walk with invariants, and the bytes on the wire.

mod disk;
mod invariants;
mod script;
mod trace;
mod walk;
mod world;
