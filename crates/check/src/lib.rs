//! Checkers of recorded histories: could a correct store have given these answers?
//!
//! A [`History`] is what clients asked and were told, with the times of both. One file per property judges it. Knows
//! nothing of how the store works; depends on no other crate of the project, so that a mistake cannot be in both.

pub mod history;

pub use history::{History, Operation, Outcome, Request, Response, Revision};
