//! `cargo xtask soak`: clusters in the simulator for some minutes, then every planted defect.
//!
//! With `--ci` the amount is fixed and ends in a few minutes: seeds of clusters and of the kernel alone, and ten
//! planted defects in turn. A seed that fails is printed, made small, and ends the task with an error.

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::say;

/// Seeds of clusters, 60 simulated seconds each, that CI runs.
const CI_SEEDS: &str = "400";
/// Seeds of the kernel alone that CI runs, for each of four protocols and three kinds of groups.
const CI_KERNEL_SEEDS: &str = "100000..100334";

/// What to run.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Amount {
    Minutes(u64),
    /// The word says which planted defects are in turn; none is the commit.
    Ci(Option<String>),
}

/// Runs what the words ask for.
///
/// # Errors
/// Words nobody understands, a build that fails, a check that does.
pub fn run(root: &Path, words: &[&str]) -> Result<(), String> {
    let amount = parse(words)?;
    let build = ["build", "--profile", "planted", "--package", "sim", "--features", "planted", "--example", "soak"];
    cargo(root, &build, &[])?;
    match amount {
        Amount::Minutes(minutes) => {
            // Other seeds every time; what is printed can be run again.
            let first = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            say(&format!("==> seeds from {first}"));
            soak(root, &["--first", &first.to_string(), "--minutes", &minutes.to_string(), "--planted", "all"])
        }
        Amount::Ci(word) => {
            let word = word.map_or_else(|| commit(root), Ok)?;
            soak(root, &["--seeds", CI_SEEDS, "--planted", &word])?;
            let walk = ["test", "--profile", "planted", "--package", "kernel", "--test", "it", "keeps_every_invariant"];
            // Each walk says how much time it simulated.
            cargo(root, &[&walk[..], &["--", "--nocapture"]].concat(), &[("WALK_SEEDS", CI_KERNEL_SEEDS)])
        }
    }
}

fn parse(words: &[&str]) -> Result<Amount, String> {
    match words {
        ["--minutes", minutes] => {
            minutes.parse().map(Amount::Minutes).map_err(|cause| format!("--minutes {minutes}: {cause}"))
        }
        ["--ci"] => Ok(Amount::Ci(None)),
        ["--ci", "--turn", word] => Ok(Amount::Ci(Some((*word).to_owned()))),
        _ => Err("usage: cargo xtask soak --minutes N | --ci [--turn WORD]".to_owned()),
    }
}

fn soak(root: &Path, words: &[&str]) -> Result<(), String> {
    let run = ["run", "--quiet", "--profile", "planted", "--package", "sim", "--features", "planted"];
    cargo(root, &[&run[..], &["--example", "soak", "--"], words].concat(), &[])
}

/// The commit's name: each one has other defects planted.
fn commit(root: &Path) -> Result<String, String> {
    let output = Command::new("git").args(["rev-parse", "HEAD"]).current_dir(root).output();
    let output = output.map_err(|cause| format!("git could not be started: {cause}; give --turn WORD"))?;
    let name = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if name.is_empty() { Err("no commit here: give --turn WORD".to_owned()) } else { Ok(name) }
}

fn cargo(root: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Result<(), String> {
    let line = format!("cargo {}", arguments.join(" "));
    say(&format!("==> {line}"));
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(arguments).envs(environment.iter().copied()).current_dir(root);
    let status = command.status().map_err(|cause| format!("{line} could not be started: {cause}"))?;
    if status.success() { Ok(()) } else { Err(format!("{line} failed: {status}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_understood_or_refused() {
        assert_eq!(parse(&["--minutes", "5"]), Ok(Amount::Minutes(5)));
        assert_eq!(parse(&["--ci", "--turn", "monday"]), Ok(Amount::Ci(Some("monday".to_owned()))));
        for wrong in [&["--minutes"][..], &["--minutes", "a few"], &["--cii"], &[]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
