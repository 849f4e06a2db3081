//! Only the storage layer and a simulator's disk may say that something is durable.
//!
//! `Synced::attest` is what stands between a promise and a lie: called anywhere else it would let an acknowledgement
//! leave the node before its bytes are on stable storage. Tests of any crate may call it.

use super::Violation;
use super::source::{SourceFile, whole_words};

/// Crates that may attest.
const ATTESTING: &[&str] = &["storage", "sim", "explore"];

/// Every call of `attest` outside the crates that own a disk.
#[must_use]
pub fn check(file: &SourceFile) -> Vec<Violation> {
    let defined_here = file.path.ends_with("crates/base/src/synced.rs");
    if defined_here || ATTESTING.contains(&file.crate_name()) {
        return Vec::new();
    }
    whole_words(&file.code, "attest")
        .filter(|at| file.code[..*at].ends_with("::"))
        .map(|at| file.line_at(at))
        .filter(|line| !file.is_test_line(*line))
        .map(|line| {
            let message = "Synced::attest outside the storage layer: only a finished fsync proves durability";
            Violation::new(&file.path, line, message)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attesting_outside_the_storage_layer_is_refused() {
        let call = "fn a() {\n    let proof = Synced::attest(3);\n}\n";
        let lines = |path: &str, text: &str| check(&SourceFile::new(path, text)).len();
        assert_eq!(lines("crates/server/src/a.rs", call), 1);
        assert_eq!(lines("crates/kernel/src/a.rs", "let f = Synced::<u8>::attest;"), 1);
        assert_eq!(lines("crates/storage/src/a.rs", call), 0);
        assert_eq!(lines("crates/sim/src/a.rs", call), 0);
        assert_eq!(lines("crates/kernel/tests/a.rs", call), 0);
        assert_eq!(lines("crates/server/src/a.rs", "mod attest; // Synced::attest is not called here\n"), 0);
    }
}
