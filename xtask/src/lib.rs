//! Developer tasks, also called by the black-box suite so that plain `cargo test` covers the cheap ones.
//!
//! Everything here runs on a machine with Rust only, except `conformance`, which installs the outside clients it
//! drives below `target/`.

pub mod codegen;
pub mod conformance;
pub mod reflow;
pub mod soak;
pub mod tidy;
pub mod verify;

use std::path::PathBuf;

/// The root of the workspace this was built from.
#[must_use]
pub fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("xtask lies in the workspace").to_path_buf()
}

/// One line to the person who runs the task.
#[expect(clippy::print_stderr, reason = "a developer tool talks to its user on standard error")]
pub fn say(line: &str) {
    eprintln!("{line}");
}
