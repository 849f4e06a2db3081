//! The shape of a file: a header, lines that fit, a length that fits, nothing left unfinished.

use super::Violation;
use super::source::{SourceFile, is_generated, whole_words};

/// Columns of a line, the same number as in `rustfmt.toml`.
const WIDTH_MAX: usize = 120;

/// Lines of a file. A ratchet: it may be lowered, never raised. A good file has 100 to 400; one that wants more hides
/// a second noun.
const LINES_MAX: usize = 900;

/// Macros that mean "later".
const UNFINISHED: &[&str] = &["todo", "unimplemented", "dbg"];

/// Every way in which `file` is out of shape. Generated code has the shape its generator gives it.
#[must_use]
pub fn check(file: &SourceFile) -> Vec<Violation> {
    let mut violations = Vec::new();
    if is_generated(&file.path) {
        return violations;
    }
    if !opens_with_header(file) {
        let message = "open the file with `//!`: what it is, the one invariant worth remembering, where it sits";
        violations.push(Violation::new(&file.path, 1, message));
    }
    let count = file.text.lines().count();
    if count > LINES_MAX {
        let message = format!("{count} lines, at most {LINES_MAX}: find the second noun and give it a file");
        violations.push(Violation::new(&file.path, 0, message));
    }
    for ((at, line), code) in file.text.lines().enumerate().zip(file.code.lines()) {
        let width = line.chars().count();
        if width > WIDTH_MAX && !holds_literal(line, code) {
            violations.push(Violation::new(&file.path, at + 1, format!("{width} columns, at most {WIDTH_MAX}")));
        }
        if line.ends_with([' ', '\t']) {
            violations.push(Violation::new(&file.path, at + 1, "blanks at the end of the line"));
        }
    }
    for name in UNFINISHED {
        for at in whole_words(&file.code, name).filter(|at| file.code[at + name.len()..].starts_with('!')) {
            violations.push(Violation::new(&file.path, file.line_at(at), format!("{name}! is left over: finish it")));
        }
    }
    violations
}

/// Whether a literal stands in a line: a text that somebody will read or compare is not broken for the width's sake.
/// `code` is the line with comments and literals blanked.
fn holds_literal(line: &str, code: &str) -> bool {
    let is_comment = line.trim_start().starts_with("//");
    !is_comment && line != code
}

/// Attributes of the whole file may stand before the header (generated code has them).
fn opens_with_header(file: &SourceFile) -> bool {
    let first = file.text.lines().find(|line| {
        let plain_comment = line.starts_with("//") && !line.starts_with("//!");
        !line.trim().is_empty() && !plain_comment && !line.starts_with("#![")
    });
    first.is_some_and(|line| line.starts_with("//!"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(text: &str) -> Vec<String> {
        let file = SourceFile::new("crates/x/src/a.rs", text);
        check(&file).into_iter().map(|violation| violation.message).collect()
    }

    #[test]
    fn a_file_in_shape_has_nothing_to_report() {
        assert!(messages("//! What it is.\n\nfn todo() { /* dbg! in words */ }\n").is_empty());
    }

    #[test]
    fn a_file_without_a_header_is_found() {
        assert!(messages("use a::b;\n//! Too late.\n")[0].contains("open the file with"));
        assert!(messages("")[0].contains("open the file with"));
    }

    #[test]
    fn long_lines_and_trailing_blanks_are_found() {
        assert_eq!(messages(&format!("//! {}\n", "x".repeat(117))), ["121 columns, at most 120"]);
        assert_eq!(messages(&format!("//! A.\nlet a = {};\n", "x".repeat(120))), ["129 columns, at most 120"]);
        assert!(messages(&format!("//! A.\nlet a = \"{}\";\n", "x".repeat(120))).is_empty(), "a text is not broken");
        assert_eq!(messages("//! a\nfn b() {} \n"), ["blanks at the end of the line"]);
    }

    #[test]
    fn a_giant_file_is_found() {
        let text = format!("//! Long.\n{}", "fn a() {}\n".repeat(LINES_MAX));
        assert_eq!(messages(&text).len(), 1);
    }

    #[test]
    fn unfinished_code_is_found() {
        for name in UNFINISHED {
            assert_eq!(messages(&format!("//! A.\nfn a() {{ {name}!() }}\n")).len(), 1, "{name}");
        }
    }
}
