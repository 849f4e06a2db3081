//! The command line as a person meets it: a cluster in one command, verbs that print and exit as they should.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::PATIENCE;
use crate::cluster::{Cluster, binary, free_port, free_ports, is_reference};
use crate::run;

/// Runs a client verb against `endpoints` with `input` on its standard input.
fn verb(endpoints: &str, words: &[&str], input: &str) -> Output {
    let mut command = Command::new(binary());
    command.args(words).env("ETCDCTL_ENDPOINTS", endpoints);
    let mut process = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = process.stdin.take().expect("a pipe");
    // A verb that does not read its input may be gone already.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    process.wait_with_output().expect("the program ends")
}

/// The verb must succeed; returns what it printed.
fn prints(endpoints: &str, words: &[&str], input: &str) -> String {
    let output = verb(endpoints, words, input);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{words:?} printed\n{out}\n{err}");
    out.into_owned()
}

/// The verb must fail with this exit code and say `words_said`.
fn fails(endpoints: &str, words: &[&str], code: i32, words_said: &str) {
    let output = verb(endpoints, words, "");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{words:?} said\n{err}");
    assert!(err.contains(words_said), "no `{words_said}` in\n{err}");
    assert!(output.stdout.is_empty(), "an error belongs on standard error");
}

#[test]
fn verbs_print_what_etcdctl_prints_and_exit_with_a_code_that_scripts_can_use() {
    if is_reference() {
        return;
    }
    run(async {
        let cluster = Cluster::start(3).await;
        let each = cluster.endpoints();
        let all = each.join(",");
        assert_eq!(prints(&all, &["put", "cli/a", "1"], ""), "OK\n");
        assert_eq!(prints(&all, &["get", "cli/a"], ""), "cli/a\n1\n");
        assert_eq!(prints(&all, &["put", "cli/b"], "from standard input"), "OK\n");
        assert_eq!(prints(&each[1], &["get", "cli/b", "--print-value-only"], ""), "from standard input\n");
        assert_eq!(prints(&all, &["get", "cli/missing"], ""), "");
        assert_eq!(prints(&all, &["get", "cli/", "--prefix", "--limit", "1"], ""), "cli/a\n1\n");
        let txn = "value(\"cli/a\") = \"1\"\n\nput cli/a 2\nget cli/a\n\nput cli/a 3\n\n";
        assert_eq!(prints(&all, &["txn"], txn), "SUCCESS\n\nOK\n\ncli/a\n2\n");
        assert!(prints(&all, &["txn"], txn).starts_with("FAILURE\n"));
        assert_eq!(prints(&all, &["del", "cli/", "--prefix"], ""), "2\n");
        assert_eq!(prints(&all, &["member", "list"], "").lines().count(), 3);
        assert!(prints(&all, &["endpoint", "status", "--cluster", "-w", "table"], "").contains("IS LEADER"));
        assert!(!prints(&all, &["status"], "").is_empty());
        assert_eq!(prints(&all, &["ctl", "put", "cli/c", "1"], ""), "OK\n");

        fails(&all, &["put", "", "1"], 1, "etcdserver: key is not provided");
        fails(
            &all,
            &["get", "cli/a", "--rev", "1000000"],
            1,
            "etcdserver: mvcc: required revision is a future revision",
        );
        fails(&all, &["get"], 2, "get");
        fails(&all, &["get", "a", "--no-such-flag"], 2, "--no-such-flag");
        let nobody = format!("127.0.0.1:{}", free_port());
        fails(&nobody, &["get", "a", "--dial-timeout", "1s", "--command-timeout", "2s"], 1, &nobody);
    });
}

#[test]
fn demo_says_where_it_listens_works_at_once_and_leaves_nothing_behind() {
    if is_reference() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output: PathBuf = folder.path().join("output");
    let log = std::fs::File::create(&output).expect("a file");
    let scratch = folder.path().join("scratch");
    std::fs::create_dir(&scratch).expect("a folder");
    let mut command = Command::new(binary());
    command.args(["demo", "--base-port", &free_ports(6).to_string()]).env("TMPDIR", &scratch);
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("a handle")).stderr(log);
    let mut demo = command.spawn().expect("the program starts");
    let said = || std::fs::read_to_string(&output).expect("output");

    let outcome = std::panic::catch_unwind(|| {
        let endpoints = wait_for(|| {
            let line =
                said().lines().find_map(|line| line.split_once("ETCDCTL_ENDPOINTS=").map(|(_, all)| all.to_owned()));
            line.ok_or_else(said)
        });
        assert_eq!(endpoints.split(',').count(), 3, "{endpoints}");
        wait_for(|| {
            let put = verb(&endpoints, &["put", "greeting", "hello"], "");
            if put.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&put.stderr).into_owned()) }
        });
        for endpoint in endpoints.split(',') {
            assert_eq!(prints(endpoint, &["get", "greeting"], ""), "greeting\nhello\n");
        }
    });
    kill_process(Pid::from_child(&demo), Signal::INT).expect("Ctrl-C");
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = demo.try_wait().expect("a child process") {
            break Some(status);
        }
        if Instant::now() > deadline {
            demo.kill().expect("kill -9");
            demo.wait().expect("a dead process");
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
    assert_eq!(status.and_then(|status| status.code()), Some(0), "after Ctrl-C, having said\n{}", said());
    let left = std::fs::read_dir(&scratch).expect("a folder").count();
    assert_eq!(left, 0, "the demo left its data behind");
}

/// Asks until there is an answer.
fn wait_for<T>(attempt: impl Fn() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Ok(found) => return found,
            Err(reason) => assert!(Instant::now() < deadline, "not after {PATIENCE:?}: {reason}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
