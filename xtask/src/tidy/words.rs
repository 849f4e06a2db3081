//! Words that must not stand anywhere: paths of the machine somebody built on, hosts of package registries.
//!
//! The project stands alone. A path of one machine is wrong on every other, and a registry's host belongs into the
//! configuration of the package client, not into a repository.

use std::path::Path;

use super::Violation;

/// Each word in two halves, so that this file does not contain what it forbids.
const FORBIDDEN: &[(&str, &str)] = &[
    ("/wo", "rk/main"),
    ("/wo", "rk/shared"),
    ("/ro", "ot/"),
    ("/ho", "me/"),
    ("/Us", "ers/"),
    ("py", "pi.org"),
    ("python", "hosted.org"),
    ("registry.npm", "js.org"),
    ("static.crates", ".io"),
    ("index.crates", ".io"),
    ("deb.debi", "an.org"),
    ("proxy.gol", "ang.org"),
];

/// Every forbidden word in `text`.
#[must_use]
pub fn check(path: &Path, text: &str) -> Vec<Violation> {
    let words: Vec<String> = FORBIDDEN.iter().map(|(head, tail)| format!("{head}{tail}")).collect();
    let mut violations = Vec::new();
    for (at, line) in text.lines().enumerate() {
        for word in words.iter().filter(|word| line.contains(word.as_str())) {
            let message = format!("`{word}` names one machine or a registry: say it without");
            violations.push(Violation::new(path, at + 1, message));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_forbidden_word_is_found_where_it_stands() {
        for (head, tail) in FORBIDDEN {
            let found = check(Path::new("README.md"), &format!("fine\nsee {head}{tail} for more\n"));
            assert_eq!(found.len(), 1, "{head}{tail}");
            assert_eq!(found[0].line, 2);
        }
        assert!(check(Path::new("README.md"), "cargo test, target/debug, https://example.com\n").is_empty());
    }
}
