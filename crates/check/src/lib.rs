//! Checkers of recorded histories: could a correct store have given these answers?
//!
//! Knows nothing of how the store works; depends on no other crate of the project.
