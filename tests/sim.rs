//! `sinew sim` and `sinew compare-protocols` as a person runs them.

use std::process::Command;

use crate::cluster::{Ended, binary, is_reference, run_to_end};

fn sinew(words: &[&str]) -> Ended {
    let mut command = Command::new(binary());
    command.args(words);
    run_to_end(command)
}

/// The part of the output that depends on the seed alone.
fn told(ended: &Ended) -> Vec<&str> {
    let lines = ended.output.lines();
    lines.map(|line| line.split(" in ").next().unwrap_or_default()).collect()
}

/// What follows `trace` in the summary.
fn trace(ended: &Ended) -> &str {
    ended.output.split("trace ").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("a trace hash")
}

#[test]
fn a_seed_is_the_same_run_each_time() {
    if is_reference() {
        return;
    }
    for protocol in ["raft", "multi-paxos", "zab", "paxos-raft"] {
        let words = ["sim", "--seed", "3", "--duration", "10s", "--protocol", protocol];
        let (one, two) = (sinew(&words), sinew(&words));
        assert!(one.status.success(), "{}", one.output);
        assert!(one.output.contains("every check held"), "{}", one.output);
        assert_eq!(told(&one), told(&two));
        assert_eq!(trace(&one), trace(&two));
        let other = sinew(&["sim", "--seed", "4", "--duration", "10s", "--protocol", protocol]);
        assert_ne!(trace(&one), trace(&other), "another seed is another run");
    }
}

#[test]
fn a_run_can_be_kept_as_a_page_and_as_a_history() {
    if is_reference() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str| directory.path().join(name).to_str().expect("a path in UTF-8").to_owned();
    let (page, history) = (file("run.html"), file("run.jsonl"));
    let ended = sinew(&["sim", "--seed", "5", "--duration", "10s", "--report", &page, "--history", &history]);
    assert!(ended.status.success(), "{}", ended.output);
    let text = std::fs::read_to_string(&page).expect("the page");
    assert!(text.contains("<svg") && !text.contains("http://") && !text.contains("https://"), "it stands alone");
    let lines = std::fs::read_to_string(&history).expect("the history").lines().count();
    assert!(lines > 50, "{lines} lines");
}

#[test]
fn protocols_are_compared_under_the_same_fault() {
    if is_reference() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let page = directory.path().join("page.html").to_str().expect("a path in UTF-8").to_owned();
    let words = ["compare-protocols", "--faults", "constrained-election", "--seeds", "1", "--report", &page];
    let ended = sinew(&words);
    assert!(ended.status.success(), "{}", ended.output);
    let row = |protocol: &str| {
        let line = ended.output.lines().find(|line| line.trim_start().starts_with(&format!("{protocol} ")));
        line.unwrap_or_else(|| panic!("no row of {protocol}:\n{}", ended.output)).to_owned()
    };
    assert!(row("raft").contains(" 0/1 "), "{}", ended.output);
    for protocol in ["multi-paxos", "zab", "paxos-raft"] {
        assert!(row(protocol).contains(" 1/1 "), "{}", ended.output);
    }
    assert_eq!(std::fs::read_to_string(&page).expect("the page").matches("<svg").count(), 4);
}

#[test]
fn what_is_not_known_is_named_with_what_is() {
    if is_reference() {
        return;
    }
    for (words, said) in [
        (&["sim", "--profile", "hurricane"][..], "over-the-limit"),
        (&["sim", "--protocol", "viewstamped"], "multi-paxos"),
        (&["sim", "--plant", "C1"], "--features planted"),
        (&["compare-protocols", "--faults", "meteor"], "leader-crash"),
    ] {
        let ended = sinew(words);
        assert_eq!(ended.status.code(), Some(2), "{words:?}: {}", ended.output);
        assert!(ended.output.contains(said), "{words:?}: no `{said}` in {}", ended.output);
    }
}
