//! The purity line: below it no clock, file, socket, thread, environment or randomness, outside tests.
//!
//! Reads `use` trees and written-out paths, so `use std::{fs, net}` is found as well as `std::fs::read`. The bans by
//! type in each pure crate's `clippy.toml` find what hides behind a name of our own.

use super::Violation;
use super::source::{SourceFile, is_word, whole_words};

/// The crates below the line.
pub const PURE_CRATES: &[&str] = &["base", "kernel", "mvcc", "txn", "placement", "node"];

/// What they must not name, and what to do instead.
const BANNED: &[(&str, &str)] = &[
    ("std::time::Instant", "time is an input (base::Instant)"),
    ("std::time::SystemTime", "wall-clock time decides nothing in the core"),
    ("std::fs", "files belong to the storage crate"),
    ("std::net", "sockets belong to the server crate"),
    ("std::os", "the operating system belongs to storage and server"),
    ("std::thread", "the host owns the threads"),
    ("std::env", "configuration is parsed at the edge and handed in"),
    ("std::process", "return a Fault; the host decides how to stop"),
    ("rand", "randomness is an input (base::Prng from the host's seed)"),
    ("getrandom", "randomness is an input (base::Prng from the host's seed)"),
    ("std::collections::HashMap", "its order is random: use BTreeMap"),
    ("std::collections::HashSet", "its order is random: use BTreeSet"),
    ("std::collections::hash_map", "its order is random: use BTreeMap"),
    ("std::hash::RandomState", "its order is random: use BTreeMap"),
];

/// Every banned name that non-test code of a pure crate mentions.
#[must_use]
pub fn check(file: &SourceFile) -> Vec<Violation> {
    if !PURE_CRATES.contains(&file.crate_name()) {
        return Vec::new();
    }
    let mut violations = Vec::new();
    for (line, path) in paths(file) {
        if file.is_test_line(line) {
            continue;
        }
        for (banned, instead) in BANNED {
            let inside = path.strip_prefix(banned).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
            if inside {
                let message = format!("{path} below the purity line: {instead}");
                violations.push(Violation::new(&file.path, line, message));
            }
        }
    }
    violations
}

/// Every path that starts at an outside crate of interest, `use` trees expanded, with its line.
fn paths(file: &SourceFile) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for root in ["std", "rand", "getrandom"] {
        for at in whole_words(&file.code, root) {
            // `a::rand` is somebody's module, not the crate; a field or a function of that name has no `::` after it.
            if file.code[..at].ends_with("::") || !file.code[at + root.len()..].starts_with("::") {
                continue;
            }
            let line = file.line_at(at);
            expand(&file.code[at..], "", &mut |path| found.push((line, path)));
        }
    }
    found
}

/// Walks one path or `use` tree at the start of `code`, calls `emit` with each full path, returns the bytes consumed.
fn expand(code: &str, prefix: &str, emit: &mut dyn FnMut(String)) -> usize {
    let bytes = code.as_bytes();
    let mut path = prefix.to_owned();
    let mut at = 0;
    loop {
        while at < bytes.len() && bytes[at].is_ascii_whitespace() {
            at += 1;
        }
        let word = bytes[at..].iter().take_while(|byte| is_word(**byte)).count();
        path.push_str(&code[at..at + word]);
        at += word;
        if !code[at..].starts_with("::") {
            break;
        }
        at += 2;
        path.push_str("::");
        if code[at..].starts_with('{') {
            return at + 1 + expand_group(&code[at + 1..], &path, emit);
        }
    }
    // `use std::{self}` names the parent.
    emit(path.trim_end_matches("::self").trim_end_matches("::").to_owned());
    at
}

/// The inside of braces: trees between commas up to the closing brace.
fn expand_group(code: &str, prefix: &str, emit: &mut dyn FnMut(String)) -> usize {
    let bytes = code.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'}' => return at + 1,
            byte if is_word(byte) => {
                at += expand(&code[at..], prefix, emit);
                // Skip ` as name` up to the next comma or the end of the group.
                at += bytes[at..].iter().take_while(|byte| !matches!(**byte, b',' | b'}')).count();
            }
            _ => at += 1,
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        check(&SourceFile::new(path, text)).into_iter().map(|violation| violation.line).collect()
    }

    #[test]
    fn clocks_files_sockets_threads_and_randomness_are_found() {
        for line in [
            "use std::time::Instant;",
            "use std::time::{Duration, SystemTime};",
            "use std::{fmt, fs};",
            "use std::{collections::{BTreeMap, HashMap}, fmt};",
            "fn a() { std::thread::sleep(d); }",
            "let a = std::net::TcpStream::connect(b);",
            "let a = std::env::var(b);",
            "use rand::Rng;",
            "use std::fs as files;",
            "use std::fs::{self, File};",
        ] {
            assert!(!lines("crates/node/src/a.rs", line).is_empty(), "{line} was let through");
        }
    }

    #[test]
    fn what_the_core_may_use_is_let_through() {
        let fine = "use std::time::Duration;\nuse std::{fmt, collections::BTreeMap};\n// std::fs in words\n\
            let rand = 1; self::rand::x();\n";
        assert!(lines("crates/kernel/src/a.rs", fine).is_empty());
    }

    #[test]
    fn tests_and_crates_above_the_line_are_free() {
        let text = "use std::fs;\n";
        assert!(lines("crates/storage/src/a.rs", text).is_empty());
        assert!(lines("crates/kernel/tests/a.rs", text).is_empty());
        assert!(lines("crates/kernel/src/a.rs", "#[cfg(test)]\nmod tests {\n use std::fs;\n}\n").is_empty());
        assert_eq!(lines("crates/kernel/src/a.rs", text), [1]);
    }
}
