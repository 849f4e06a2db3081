//! `sinew check cluster` beside a scenario: its load, its record of every answer, and its verdict.
//!
//! The load runs until the scenario is over, so nothing depends on how fast the machine is.

use std::fs;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::cluster::binary;
use crate::{PATIENCE, eventually};

/// Longer than any scenario; it is ended by Ctrl-C.
const DURATION: &str = "10m";
/// Acknowledged writes that make a verdict worth something.
const WRITES_MIN: u64 = 50;

/// A running load with its judge.
pub(crate) struct Judge {
    process: Option<Child>,
    /// What it says meanwhile.
    words: tempfile::NamedTempFile,
}

impl Judge {
    /// Starts the load against `endpoints`, and waits until it runs.
    pub(crate) async fn start(endpoints: &[String], seed: u64) -> Self {
        let mut command = Command::new(binary());
        command.args(["check", "cluster", "--duration", DURATION, "--rate", "200", "--clients", "6", "-w", "json"]);
        // A request to a node that says nothing must not hold its client until the scenario is over.
        command.args(["--command-timeout", "2s", "--dial-timeout", "1s", "--seed", &seed.to_string()]);
        command.args(["--endpoints", &endpoints.join(",")]);
        let words = tempfile::NamedTempFile::new().expect("a temporary file");
        let errors = words.reopen().expect("a temporary file");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        let judge = Self { process: Some(command.spawn().expect("the program starts")), words };
        eventually("the load runs", || async {
            let words = judge.words();
            if words.contains("The load is running") { Ok(()) } else { Err(words) }
        })
        .await;
        judge
    }

    fn words(&self) -> String {
        fs::read_to_string(self.words.path()).unwrap_or_default()
    }

    /// Ends the load and fails the test unless a correct store could have given all answers.
    pub(crate) async fn verdict(mut self) -> Value {
        let process = self.process.take().expect("judged once");
        kill_process(Pid::from_child(&process), Signal::INT).expect("a signal");
        let output = tokio::task::spawn_blocking(|| process.wait_with_output());
        let output = tokio::time::timeout(2 * PATIENCE, output).await.expect("the verdict takes too long");
        let output = output.expect("a thread").expect("the program ends");
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{text}{}", self.words());
        let json: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((&json["verdict"], &json["run"]["came_back"]), (&"possible".into(), &true.into()), "{text}");
        assert!(json["run"]["writes"].as_u64() > Some(WRITES_MIN), "{text}");
        for property in ["revision-order", "linearizable", "session", "watch", "lease", "lock"] {
            let found = json["properties"].as_array().expect("a list").iter().find(|one| one["property"] == property);
            assert!(found.expect("the property")["judged"].as_u64() > Some(0), "{property} judged nothing: {text}");
        }
        json
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Already gone is what we want.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
