//! Links between our own pages lead somewhere.
//!
//! Checks relative links of Markdown files, with the anchor's heading where one is named. Links to other hosts are not
//! followed: a check that needs the network would fail for reasons that are not ours.

use std::fs;
use std::path::Path;

use super::Violation;

/// Every relative link in the page `path` that leads nowhere below `root`.
#[must_use]
pub fn check(root: &Path, path: &Path, text: &str) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut fenced = false;
    for (at, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for target in targets(line) {
            if let Err(reason) = resolve(root, path, text, target) {
                violations.push(Violation::new(path, at + 1, format!("link to `{target}`: {reason}")));
            }
        }
    }
    violations
}

/// What stands between `](` and `)` in a line, code spans left out.
fn targets(line: &str) -> Vec<&str> {
    let outside_code = |at: usize| line[..at].matches('`').count().is_multiple_of(2);
    line.match_indices("](")
        .filter(|(at, _)| outside_code(*at))
        .filter_map(|(at, _)| line[at + 2..].split_once(')').map(|(target, _)| target))
        .collect()
}

fn resolve(root: &Path, page: &Path, text: &str, target: &str) -> Result<(), String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return Ok(());
    }
    let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let folder = page.parent().unwrap_or(Path::new(""));
    let there = root.join(folder).join(file);
    if !file.is_empty() && !there.exists() {
        return Err("no such file".to_owned());
    }
    let Some(anchor) = anchor else { return Ok(()) };
    let content = if file.is_empty() {
        text.to_owned()
    } else {
        fs::read_to_string(&there).map_err(|cause| format!("unreadable: {cause}"))?
    };
    if content.lines().any(|line| line.starts_with('#') && slug(line) == anchor) {
        return Ok(());
    }
    Err(format!("no heading #{anchor}"))
}

/// The anchor of a heading: lower case, blanks to dashes, everything else that is not a word dropped.
fn slug(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = words.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(text: &str) -> Vec<String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        check(root, Path::new("PAGE.md"), text).into_iter().map(|violation| violation.message).collect()
    }

    #[test]
    fn a_link_to_a_missing_file_or_heading_is_found() {
        assert_eq!(messages("see [this](src/missing.rs)\n"), ["link to `src/missing.rs`: no such file"]);
        assert_eq!(messages("# A heading\nsee [it](#another)\n"), ["link to `#another`: no heading #another"]);
    }

    #[test]
    fn links_that_lead_somewhere_are_let_through() {
        let lead = "# A heading, here\n[a](src/main.rs) [b](#a-heading-here) [c](https://example.com/x)";
        let text = &format!("{lead} `[d](gone)`\n```\n[e](gone)\n```\n");
        assert!(messages(text).is_empty(), "{:?}", messages(text));
    }
}
