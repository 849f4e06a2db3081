//! One source file as the checks see it: its text, and the same text with comments, strings and characters blanked.
//!
//! The blanked copy has the same length and the same lines, so that a position in one is a position in the other.
//! A check that looks for code reads the copy and cannot be fooled by a comment that talks about the code.

use std::path::{Path, PathBuf};

/// A Rust file of the workspace.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Path relative to the root of the workspace.
    pub path: PathBuf,
    /// What stands in the file.
    pub text: String,
    /// The text with comments and literals blanked; newlines stay.
    pub code: String,
    /// For each line whether it belongs to an item under `#[cfg(test)]`.
    test_lines: Vec<bool>,
}

impl SourceFile {
    /// Prepares the file at `path` (relative) with the content `text`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        let text = text.into();
        let code = blank(&text);
        let test_lines = test_lines(&code);
        Self { path: path.into(), text, code, test_lines }
    }

    /// The crate the file belongs to: the folder below `crates/`, or the first folder (`xtask`, `tests`).
    #[must_use]
    pub fn crate_name(&self) -> &str {
        let mut parts = self.path.iter().filter_map(|part| part.to_str());
        match parts.next() {
            Some("crates") => parts.next().unwrap_or(""),
            Some(first) => first,
            None => "",
        }
    }

    /// Whether the whole file is test code: a `tests` or `benches` folder, or a `tests.rs` beside the code.
    #[must_use]
    pub fn is_test_file(&self) -> bool {
        let in_folder = self.path.iter().any(|part| part == "tests" || part == "benches");
        let stem = self.path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("");
        in_folder || stem == "tests" || stem.ends_with("_test") || stem.ends_with("_tests")
    }

    /// Whether the one-based `line` is test code.
    #[must_use]
    pub fn is_test_line(&self, line: usize) -> bool {
        self.is_test_file() || self.test_lines.get(line - 1).copied().unwrap_or(false)
    }

    /// The lines of code with their one-based numbers.
    pub fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().map(|(at, line)| (at + 1, line))
    }

    /// The one-based line of a byte position.
    #[must_use]
    pub fn line_at(&self, position: usize) -> usize {
        self.code.as_bytes()[..position].iter().filter(|byte| **byte == b'\n').count() + 1
    }
}

/// Whether `name` is generated code, which no person reads line by line.
#[must_use]
pub fn is_generated(path: &Path) -> bool {
    path.iter().any(|part| part == "generated" || part == "gen")
}

/// Whether a byte can stand inside an identifier.
#[must_use]
pub fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The positions at which `word` stands in `code` as a whole word.
pub fn whole_words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = code.as_bytes();
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let end = at + word.len();
        (at == 0 || !is_word(bytes[at - 1])) && (end == bytes.len() || !is_word(bytes[end]))
    })
}

fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(text, at);
        if end == at {
            at += 1;
            continue;
        }
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    // Only whole literals were replaced, by as many spaces: what is left is still UTF-8.
    String::from_utf8(out).expect("blanking keeps UTF-8")
}

/// Where the comment or literal that starts at `at` ends; `at` itself if none starts there.
fn literal_end(text: &str, at: usize) -> usize {
    let bytes = text.as_bytes();
    let rest = &bytes[at..];
    match rest[0] {
        b'/' if rest.starts_with(b"//") => rest.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |n| at + n),
        b'/' if rest.starts_with(b"/*") => block_comment_end(bytes, at),
        b'"' => string_end(bytes, at),
        b'r' if at == 0 || !is_word(bytes[at - 1]) || matches!(bytes[at - 1], b'b' | b'c') => raw_string_end(bytes, at),
        b'\'' => character_end(text, at),
        _ => at,
    }
}

fn block_comment_end(bytes: &[u8], start: usize) -> usize {
    let (mut depth, mut at) = (0, start);
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" if depth == 1 => return at + 2,
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn raw_string_end(bytes: &[u8], start: usize) -> usize {
    let hashes = bytes[start + 1..].iter().take_while(|byte| **byte == b'#').count();
    if bytes.get(start + 1 + hashes) != Some(&b'"') {
        return start;
    }
    let mut close = vec![b'"'];
    close.resize(hashes + 1, b'#');
    let body = start + 2 + hashes;
    let found = bytes[body..].windows(close.len()).position(|window| window == close);
    found.map_or(bytes.len(), |n| body + n + close.len())
}

/// `'x'` and `'\n'` are characters; `'a` in a type is a lifetime and stays.
fn character_end(text: &str, start: usize) -> usize {
    let bytes = text.as_bytes();
    if bytes.get(start + 1) == Some(&b'\\') {
        let close = bytes[(start + 3).min(bytes.len())..].iter().position(|byte| *byte == b'\'');
        return close.map_or(bytes.len(), |n| start + 3 + n + 1);
    }
    let Some(character) = text[start + 1..].chars().next() else { return start };
    let close = start + 1 + character.len_utf8();
    if bytes.get(close) == Some(&b'\'') { close + 1 } else { start }
}

fn test_lines(code: &str) -> Vec<bool> {
    let mut lines = vec![false; code.lines().count()];
    for (start, _) in code.match_indices("#[cfg(test)]") {
        let end = item_end(code.as_bytes(), start);
        let first = code[..start].matches('\n').count();
        let last = code[..end].matches('\n').count();
        let last = last.min(lines.len().saturating_sub(1));
        lines[first..=last].fill(true);
    }
    lines
}

/// The end of the item that starts at `start`: its closing brace, or the semicolon of one without a body.
fn item_end(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0usize;
    for (at, byte) in bytes.iter().enumerate().skip(start) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth <= 1 => return at,
            b'}' => depth -= 1,
            b';' if depth == 0 => return at,
            _ => {}
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_strings_and_characters_are_blanked_but_lifetimes_stay() {
        let file = SourceFile::new(
            "crates/x/src/lib.rs",
            "a /* std::fs /* nested */ */ b // std::fs\nlet s = \"std::fs \\\" std::net\"; let r = r#\"std::env\"#;\n\
             let c = '\"'; let d: &'a str; let e = '\\''; std::thread",
        );
        for hidden in ["std::fs", "std::net", "std::env"] {
            assert!(!file.code.contains(hidden), "{hidden} survived in {}", file.code);
        }
        assert!(file.code.contains("&'a str") && file.code.contains("std::thread"));
        assert_eq!(file.code.len(), file.text.len());
        assert_eq!(file.code.lines().count(), file.text.lines().count());
    }

    #[test]
    fn lines_under_cfg_test_are_known_to_be_test_code() {
        let file =
            SourceFile::new("crates/x/src/lib.rs", "fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() {}\n}\nfn c() {}\n");
        let test: Vec<bool> = (1..=6).map(|line| file.is_test_line(line)).collect();
        assert_eq!(test, [false, true, true, true, true, false]);
        assert!(SourceFile::new("crates/x/tests/all.rs", "fn a() {}").is_test_line(1));
    }

    #[test]
    fn a_word_inside_a_longer_word_is_not_a_hit() {
        assert_eq!(whole_words("todo todos my_todo (todo)", "todo").collect::<Vec<_>>(), [0, 20]);
    }
}
