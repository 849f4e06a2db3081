//! Whoever breaks the cluster: a command of the user's, run with `break` and `heal` in turn on a thread of its own.
//!
//! Invariant: what was broken is healed before the run ends, unless the command itself refuses.

use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crate::ctl::Failure;

/// A running nemesis.
pub(super) struct Nemesis {
    stop: Sender<()>,
    said: Receiver<String>,
    thread: JoinHandle<u64>,
}

impl Nemesis {
    /// Starts to break and heal, every `interval`.
    pub(super) fn start(command: &str, interval: Duration) -> Result<Self, Failure> {
        let (stop, stopped) = channel();
        let (say, said) = channel();
        let command = command.to_owned();
        let work = move || work(&command, interval, &stopped, &say);
        let thread = Builder::new().name("nemesis".to_owned()).spawn(work);
        let thread = thread.map_err(|error| Failure::Request(format!("cannot start the nemesis: {error}")))?;
        Ok(Self { stop, said, thread })
    }

    /// What it did since it was last asked.
    pub(super) fn said(&self) -> Vec<String> {
        self.said.try_iter().collect()
    }

    /// Heals and stops; returns how often it broke something.
    pub(super) fn finish(self) -> (u64, Vec<String>) {
        // A thread that is gone needs no telling.
        let _ = self.stop.send(());
        let broken = self.thread.join().unwrap_or(0);
        (broken, self.said.try_iter().collect())
    }
}

fn work(command: &str, interval: Duration, stopped: &Receiver<()>, say: &Sender<String>) -> u64 {
    let mut broken = 0;
    let mut is_broken = false;
    loop {
        let is_over = !matches!(stopped.recv_timeout(interval), Err(RecvTimeoutError::Timeout));
        if is_over && !is_broken {
            return broken;
        }
        let word = if is_broken { "heal" } else { "break" };
        // If nobody listens any more the run is about to end anyway.
        let _ = say.send(run(command, word));
        broken += u64::from(!is_broken);
        is_broken = !is_broken;
        if is_over {
            return broken;
        }
    }
}

/// Runs the command with one more word; tells how it went.
fn run(command: &str, word: &str) -> String {
    let script = format!("{command} {word}");
    let status = Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).stdout(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => format!("nemesis: {word}"),
        Ok(status) => format!("nemesis: `{script}` failed ({status})"),
        Err(error) => format!("nemesis: `{script}` could not be run: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_broken_is_healed_at_the_end() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = folder.path().join("log");
        let command = format!("echo >> {} ", log.display());
        let nemesis = Nemesis::start(&command, Duration::from_millis(5)).expect("a thread");
        let mut said = Vec::new();
        while said.is_empty() {
            said.extend(nemesis.said());
            std::thread::yield_now();
        }
        let (broken, rest) = nemesis.finish();
        said.extend(rest);
        let words = std::fs::read_to_string(&log).expect("the log of the command");
        assert_eq!(words.lines().count(), said.len());
        assert_eq!(said.len() as u64, broken * 2, "{said:?}");
        assert_eq!(words.lines().last(), Some("heal"));
    }

    #[test]
    fn a_command_that_fails_is_told() {
        assert!(run("false", "break").contains("failed"));
        assert_eq!(run("true", "heal"), "nemesis: heal");
    }
}
