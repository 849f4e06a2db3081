//! `cargo xtask tidy`: the rules of the house that a compiler does not know, checked from the sources.
//!
//! Each rule is one file with one `check` function over prepared input and a test in which a planted violation makes
//! it fail. A rule reports every violation it finds, with file and line; nothing here writes or needs the network.
//! Runs as a test as well (`tests/main.rs`), so that plain `cargo test` covers it.

pub mod arrows;
pub mod attest;
pub mod links;
pub mod purity;
pub mod shape;
pub mod source;
pub mod words;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use source::SourceFile;

/// A rule that does not hold somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// File, relative to the root.
    pub path: PathBuf,
    /// One-based line; 0 means the file as a whole.
    pub line: usize,
    /// What is wrong and what to do instead.
    pub message: String,
}

impl Violation {
    /// A violation at a line of `path`.
    pub fn new(path: impl Into<PathBuf>, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.into(), line, message: message.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path.display(), self.line, self.message)
    }
}

/// Checks the workspace at `root`.
///
/// # Errors
/// The list of violations as text, one a line; or why the workspace could not be read.
pub fn run(root: &Path) -> Result<(), String> {
    let mut violations = arrows::check(&arrows::metadata(root)?)?;
    let texts = read_texts(root)?;
    for (path, text) in &texts {
        violations.extend(words::check(path, text));
        if path.extension().is_some_and(|extension| extension == "md") {
            violations.extend(links::check(root, path, text));
        }
        if path.extension().is_some_and(|extension| extension == "rs") {
            let file = SourceFile::new(path, text);
            violations.extend(shape::check(&file));
            violations.extend(purity::check(&file));
            violations.extend(attest::check(&file));
        }
    }
    report(violations)
}

fn report(mut violations: Vec<Violation>) -> Result<(), String> {
    if violations.is_empty() {
        return Ok(());
    }
    violations.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    let lines: Vec<String> = violations.iter().map(Violation::to_string).collect();
    Err(format!("tidy: {} violation(s)\n{}", lines.len(), lines.join("\n")))
}

/// Text files of the workspace, relative path and content, in order of path. Build output, version control and
/// lock files are left out; a file that is not UTF-8 is binary and left out too.
///
/// # Errors
/// A folder that cannot be read.
pub fn read_texts(root: &Path) -> Result<Vec<(PathBuf, String)>, String> {
    let mut texts = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).map_err(|cause| format!("reading {}: {cause}", folder.display()))?;
        for entry in entries {
            let entry = entry.map_err(|cause| format!("reading {}: {cause}", folder.display()))?;
            let (path, name) = (entry.path(), entry.file_name());
            if path.is_dir() {
                if name != "target" && name != ".git" && name != "node_modules" {
                    folders.push(path);
                }
            } else if name != "Cargo.lock"
                // In a second work tree this is a file that names the first.
                && name != ".git"
                && let Ok(text) = fs::read_to_string(&path)
            {
                let relative = path.strip_prefix(root).expect("walked from the root").to_path_buf();
                texts.push((relative, text));
            }
        }
    }
    texts.sort();
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn violations_are_reported_in_order_with_file_and_line() {
        let error = report(vec![Violation::new("b.rs", 2, "second"), Violation::new("a.rs", 7, "first")]);
        assert_eq!(error, Err("tidy: 2 violation(s)\na.rs:7: first\nb.rs:2: second".to_owned()));
        assert_eq!(report(Vec::new()), Ok(()));
    }
}
