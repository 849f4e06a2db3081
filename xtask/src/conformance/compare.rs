//! What a client was told by the server under test, compared with what etcd told the same client.
//!
//! Each script writes a transcript: `== step`, then the answer as its client shows it. Both clusters are fresh and the
//! scripts do the same in the same order, so the transcripts are equal line by line, revisions included, once that is
//! masked which no two clusters share. What differs on purpose stands in a file, block by block, with the reason.
//! A block that no longer occurs is an error too: an excuse must not outlive what it excuses.

use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Names after which a number means nothing to another cluster: `"raft_term":3`, `took = 2.1ms`, `127.0.0.1:41234`.
const MASKED: [&str; 9] = [
    "127.0.0.1",
    "raft_term",
    "raftterm",
    "raftindex",
    "raftappliedindex",
    "dbsize",
    "dbsizeinuse",
    "took",
    "remaining",
];
/// Digits from which on a number is an identifier: members, clusters and leases have random ones.
const ID_DIGITS_MIN: usize = 12;
/// Differences shown of one comparison.
const SHOWN_MAX: usize = 20;
/// Equal lines shown before and after a difference.
const CONTEXT_LINES: usize = 3;

/// Lines of one transcript that differ from the other's, between equal ones.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hunk {
    /// The step in which it occurs.
    step: String,
    before: Vec<String>,
    reference: Vec<String>,
    ours: Vec<String>,
    after: Vec<String>,
}

/// A difference that is meant.
#[derive(Debug, PartialEq, Eq)]
struct Known {
    client: String,
    reference: Vec<String>,
    ours: Vec<String>,
}

/// The file of differences that are meant.
#[derive(Debug, Default)]
pub(super) struct KnownDifferences {
    blocks: Vec<Known>,
    met: BTreeSet<usize>,
}

impl KnownDifferences {
    /// Reads blocks like this one, separated by empty lines; lines that begin with `#` are comments:
    ///
    /// ```text
    /// client etcdctl
    /// - what etcd says
    /// + what we say
    /// because the reason
    /// ```
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let mut blocks = Vec::new();
        for block in lines.collect::<Vec<_>>().split(|line| line.trim().is_empty()).filter(|block| !block.is_empty()) {
            let part = |mark: &str| -> Vec<String> {
                block.iter().filter_map(|line| line.strip_prefix(mark)).map(str::to_owned).collect()
            };
            let (clients, reasons) = (part("client "), part("because "));
            let (reference, ours) = (part("- "), part("+ "));
            let [client] = clients.as_slice() else { return Err(format!("one client a block: {block:?}")) };
            if reasons.iter().all(|reason| reason.trim().is_empty()) {
                return Err(format!("a difference without a reason: {block:?}"));
            }
            if clients.len() + reasons.len() + reference.len() + ours.len() != block.len() {
                return Err(format!("a line that begins like no other: {block:?}"));
            }
            blocks.push(Known { client: client.clone(), reference, ours });
        }
        Ok(Self { blocks, met: BTreeSet::new() })
    }

    /// Compares what `client` was told.
    ///
    /// # Errors
    /// The differences that are in no block, as a diff.
    pub(super) fn compare(&mut self, client: &str, reference: &str, ours: &str) -> Result<usize, String> {
        if reference.trim().is_empty() || ours.trim().is_empty() {
            return Err("a transcript is empty: nothing was compared".to_owned());
        }
        let (reference, ours) = (masked(reference), masked(ours));
        let mut unknown = Vec::new();
        for hunk in hunks(&reference, &ours) {
            let same =
                |known: &Known| known.client == client && known.reference == hunk.reference && known.ours == hunk.ours;
            match self.blocks.iter().position(same) {
                Some(at) => drop(self.met.insert(at)),
                None => unknown.push(hunk),
            }
        }
        if unknown.is_empty() {
            return Ok(reference.len());
        }
        let mut shown: String = unknown.iter().take(SHOWN_MAX).map(show).collect();
        if unknown.len() > SHOWN_MAX {
            writeln!(shown, "and {} more", unknown.len() - SHOWN_MAX).expect("a String takes everything");
        }
        Err(shown)
    }

    /// Blocks of `clients` that no comparison has met.
    pub(super) fn outlived(&self, clients: &[&str]) -> Result<(), String> {
        let outlived = self
            .blocks
            .iter()
            .enumerate()
            .filter(|(at, known)| !self.met.contains(at) && clients.contains(&known.client.as_str()));
        let lines: Vec<String> = outlived.map(|(_, known)| format!("{known:?}")).collect();
        if lines.is_empty() { Ok(()) } else { Err(format!("excused, but did not occur:\n{}", lines.join("\n"))) }
    }
}

fn show(hunk: &Hunk) -> String {
    let mut out = format!("@@ {}\n", hunk.step);
    let marks = [(' ', &hunk.before), ('-', &hunk.reference), ('+', &hunk.ours), (' ', &hunk.after)];
    for (mark, line) in marks.iter().flat_map(|(mark, lines)| lines.iter().map(move |line| (mark, line))) {
        writeln!(out, "{mark} {line}").expect("a String takes everything");
    }
    out
}

/// The lines with masks where clusters may differ.
fn masked(text: &str) -> Vec<String> {
    text.lines().map(|line| masked_line(line.trim_end())).collect()
}

fn masked_line(line: &str) -> String {
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '.';
    let mut out = String::with_capacity(line.len());
    let (mut rest, mut name) = (line, String::new());
    while !rest.is_empty() {
        let word_length = rest.find(|letter| !is_word(letter)).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(word_length);
        let is_number = word.starts_with(|letter: char| letter.is_ascii_digit());
        if is_id(word) {
            // etcdctl fills those with leading zeros up with spaces.
            out.truncate(out.trim_end_matches(' ').len() + usize::from(out.ends_with(' ')));
            out.push_str("<id>");
        } else if is_number && word != "0" && MASKED.contains(&name.as_str()) {
            out.push_str("<n>");
        } else {
            out.push_str(word);
        }
        name = word.to_ascii_lowercase();
        let gap_length = behind.find(is_word).unwrap_or(behind.len());
        out.push_str(&behind[..gap_length]);
        rest = &behind[gap_length..];
    }
    out
}

/// A long number, decimal or hexadecimal.
fn is_id(word: &str) -> bool {
    word.len() >= ID_DIGITS_MIN
        && word.chars().all(|digit| digit.is_ascii_hexdigit())
        && word.contains(|digit: char| digit.is_ascii_digit())
}

/// Where the lines differ: what is in no longest common subsequence.
fn hunks(reference: &[String], ours: &[String]) -> Vec<Hunk> {
    // lengths[i][j]: how many lines reference[i..] and ours[j..] have in common, in order.
    let mut lengths = vec![vec![0_u32; ours.len() + 1]; reference.len() + 1];
    for i in (0..reference.len()).rev() {
        for j in (0..ours.len()).rev() {
            lengths[i][j] = if reference[i] == ours[j] {
                lengths[i + 1][j + 1] + 1
            } else {
                lengths[i + 1][j].max(lengths[i][j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let (mut found, mut step) = (Vec::new(), String::new());
    while i < reference.len() || j < ours.len() {
        if i < reference.len() && j < ours.len() && reference[i] == ours[j] {
            if reference[i].starts_with("== ") {
                step.clone_from(&reference[i]);
            }
            (i, j) = (i + 1, j + 1);
            continue;
        }
        let (from_i, from_j) = (i, j);
        while (i < reference.len() || j < ours.len())
            && !(i < reference.len() && j < ours.len() && reference[i] == ours[j])
        {
            if j == ours.len() || (i < reference.len() && lengths[i + 1][j] >= lengths[i][j + 1]) {
                i += 1;
            } else {
                j += 1;
            }
        }
        found.push(Hunk {
            step: step.clone(),
            before: reference[from_i.saturating_sub(CONTEXT_LINES)..from_i].to_vec(),
            reference: reference[from_i..i].to_vec(),
            ours: ours[from_j..j].to_vec(),
            after: reference[i..(i + CONTEXT_LINES).min(reference.len())].to_vec(),
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_two_clusters_share_is_masked_and_nothing_else() {
        for (line, expected) in [
            (
                r#"{"cluster_id":14841639068965178418,"revision":7,"raft_term":2}"#,
                r#"{"cluster_id":<id>,"revision":7,"raft_term":<n>}"#,
            ),
            ("lease 32695410dcc0ca06 granted with TTL(60s)", "lease <id> granted with TTL(60s)"),
            ("http://127.0.0.1:41234 is healthy: took = 2.13ms", "http://127.0.0.1:<n> is healthy: took = <n>"),
            ("Member  68eac0a8c5f4a3b added", "Member <id> added"),
            ("member_id: 0", "member_id: 0"),
            ("raft_term: 0", "raft_term: 0"),
            ("value: deadbeefcafe", "value: deadbeefcafe"),
            ("create_revision: 123", "create_revision: 123"),
        ] {
            assert_eq!(masked_line(line), expected);
        }
    }

    const REFERENCE: &str = "== put\nOK\n== get\na\nrevision: 2\n== version\n3.5.1\n";

    #[test]
    fn a_difference_is_shown_with_its_step() {
        let ours = REFERENCE.replace("revision: 2", "revision: 3");
        let shown = KnownDifferences::default().compare("ctl", REFERENCE, &ours).expect_err("planted");
        assert_eq!(shown, "@@ == get\n  OK\n  == get\n  a\n- revision: 2\n+ revision: 3\n  == version\n  3.5.1\n");
        // A step that one of them never made is a difference too.
        assert!(KnownDifferences::default().compare("ctl", REFERENCE, "== put\nOK\n== get\na\n").is_err());
        assert!(KnownDifferences::default().compare("ctl", "", "").is_err(), "nothing was compared");
        assert_eq!(KnownDifferences::default().compare("ctl", REFERENCE, REFERENCE), Ok(7));
    }

    #[test]
    fn a_known_difference_is_excused_for_its_client_while_it_occurs() {
        let file = "# why\n\nclient ctl\n- 3.5.1\n+ 3.7.0\nbecause we speak a newer API\n";
        let ours = REFERENCE.replace("3.5.1", "3.7.0");
        let mut known = KnownDifferences::parse(file).expect("a good file");
        assert!(known.outlived(&["ctl"]).is_err(), "nothing has been compared yet");
        assert!(known.outlived(&["other"]).is_ok(), "was not asked to run");
        assert!(known.compare("other", REFERENCE, &ours).is_err());
        assert_eq!(known.compare("ctl", REFERENCE, &ours), Ok(7));
        assert!(known.outlived(&["ctl"]).is_ok());
        assert!(known.compare("ctl", REFERENCE, &ours.replace("3.7.0", "3.8.0")).is_err());
    }

    #[test]
    fn a_block_needs_a_client_and_a_reason() {
        for wrong in ["client a\n- x\n+ y\n", "- x\n+ y\nbecause z\n", "client a\n- x\nwords\nbecause z\n"] {
            assert!(KnownDifferences::parse(wrong).is_err(), "{wrong}");
        }
    }
}
