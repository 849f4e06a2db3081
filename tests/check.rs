//! `sinew check`: verdicts on files, and on a cluster whose node is killed meanwhile.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::cluster::{Cluster, binary, is_reference};
use crate::run;

const HEADER: &str = r#"{"format":"sinew-history","version":1,"start_revision":1,"numbering":"dense"}"#;
const PUT: &str = r#"{"id":1,"client":1,"node":0,"invoked":1,"returned":2,"request":{"put":{"key":"a","value":"1"}},"outcome":{"done":{"revision":2,"response":{"put":{}}}}}"#;
const TRUE_READ: &str = r#"{"id":2,"client":2,"node":0,"invoked":3,"returned":4,"request":{"range":{"key":"a"}},"outcome":{"done":{"revision":2,"response":{"range":{"kvs":[{"key":"a","value":"1","create":2,"mod":2,"version":1}],"count":1}}}}}"#;
const STALE_READ: &str = r#"{"id":2,"client":2,"node":0,"invoked":3,"returned":4,"request":{"range":{"key":"a"}},"outcome":{"done":{"revision":1,"response":{"range":{"count":0}}}}}"#;

/// Judges `lines`, given on standard input.
fn check(lines: &[&str], flags: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(["check", "-"]).args(flags);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().expect("the program starts");
    let mut stdin = process.stdin.take().expect("a pipe");
    // A program that refuses the first line may be gone already.
    let _ = stdin.write_all(lines.join("\n").as_bytes());
    drop(stdin);
    process.wait_with_output().expect("the program ends")
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_file_is_judged_and_the_exit_code_says_how() {
    if is_reference() {
        return;
    }
    let good = check(&[HEADER, PUT, TRUE_READ], &[]);
    let (out, err) = texts(&good);
    assert_eq!(good.status.code(), Some(0), "{out}{err}");
    assert!(out.contains("Verdict: possible") && out.contains("not checked yet"), "{out}");

    let bad = check(&[HEADER, PUT, STALE_READ], &[]);
    let (out, err) = texts(&bad);
    assert_eq!(bad.status.code(), Some(1), "{out}{err}");
    assert!(out.contains("Verdict: impossible"), "{out}");
    assert!(out.contains("revision 2 was known before it was asked") && out.contains("#2 client 2"), "{out}");

    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("history.jsonl");
    std::fs::write(&path, [HEADER, PUT, STALE_READ].join("\n")).expect("a file");
    let output = Command::new(binary()).arg("check").arg(&path).args(["-w", "json"]).output().expect("the program");
    assert_eq!(output.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json["verdict"], "impossible");
    assert_eq!(json["properties"][0]["property"], "revision-order");
    assert_eq!(json["properties"][0]["operations"], serde_json::json!([2, 1]));
}

const WATCH: &str = r#"{"id":3,"client":3,"node":0,"invoked":1,"returned":9000000000,"request":{"watch":{"key":"a","start_revision":2}},"outcome":{"done":{"revision":3,"response":{"watch":{"batches":[{"at":3,"revision":1,"created":true},EVENTS{"at":7,"revision":3}]}}}}}"#;
const EVENTS: &str =
    r#"{"at":5,"revision":2,"events":[{"put":{"kv":{"key":"a","value":"1","create":2,"mod":2,"version":1}}}]},"#;
const GRANT: &str = r#"{"id":4,"client":4,"node":0,"invoked":0,"returned":1000,"request":{"lease":{"grant":{"id":0,"ttl":2}}},"outcome":{"done":{"revision":2,"response":{"lease":{"id":77,"ttl":2}}}}}"#;
const GONE: &str = r#"{"id":5,"client":4,"node":0,"invoked":NOW,"returned":NOW,"request":{"lease":{"time_to_live":{"id":77}}},"outcome":{"done":{"revision":2,"response":{"lease":{"id":77,"ttl":-1}}}}}"#;

const HELD: &str = r#"{"id":6,"client":4,"node":0,"invoked":2000,"returned":3000,"request":{"lock":{"acquire":{"name":"l","lease":77}}},"outcome":{"done":{"revision":3,"response":{"lock":{"key":"l/4d","token":3}}}}}"#;
const NEXT: &str = r#"{"id":7,"client":5,"node":0,"invoked":4000,"returned":NOW,"request":{"lock":{"acquire":{"name":"l","lease":78}}},"outcome":{"done":{"revision":5,"response":{"lock":{"key":"l/4e","token":4}}}}}"#;
const REFUSED: &str = r#"{"id":8,"client":4,"node":0,"invoked":1962000000,"returned":1963000000,"request":{"txn":{"compares":[{"key":"l/4d","result":"equal","target":{"create":3}}],"success":[{"put":{"key":"b","value":"3"}}]}},"outcome":{"done":{"revision":5,"response":{"txn":{"succeeded":false}}}}}"#;
const DONE: &str = r#""revision":6,"response":{"txn":{"succeeded":true,"responses":[{"put":{}}]}}"#;

#[test]
fn watches_leases_and_locks_that_lie_are_named() {
    if is_reference() {
        return;
    }
    let header = HEADER.replace("dense", "rising");
    let judge = |lines: &[&str]| {
        let output = check(lines, &[]);
        (output.status.code(), texts(&output).0)
    };
    let (whole, torn) = (WATCH.replace("EVENTS", EVENTS), WATCH.replace("EVENTS", ""));
    let (late, early) = (GONE.replace("NOW", "1961000000"), GONE.replace("NOW", "1959000000"));
    let (code, out) = judge(&[&header, PUT, &whole, GRANT, &late]);
    assert_eq!(code, Some(0), "{out}");
    let (code, out) = judge(&[&header, PUT, &torn, GRANT, &late]);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("\nwatch: not reliable: \"a\" at revision 2 was not delivered"), "{out}");
    let (code, out) = judge(&[&header, PUT, &whole, GRANT, &early]);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("\nlease: lease 77 ended 1 ms before its time"), "{out}");
    let (next, hasty) = (NEXT.replace("NOW", "1961000000"), NEXT.replace("NOW", "1959000000"));
    let written = REFUSED.replace(r#""revision":5,"response":{"txn":{"succeeded":false}}"#, DONE);
    let (code, out) = judge(&[&header, PUT, GRANT, HELD, &next, REFUSED]);
    assert_eq!(code, Some(0), "{out}");
    let (code, out) = judge(&[&header, PUT, GRANT, HELD, &hasty, REFUSED]);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("\nlock: lock \"l\": \"l/4d\" lost it 1 ms before the end of lease 77"), "{out}");
    let (code, out) = judge(&[&header, PUT, GRANT, HELD, &next, &written]);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("which was before it, writes under its token at 5"), "{out}");
}

#[test]
fn what_is_no_history_is_refused_with_line_and_reason() {
    if is_reference() {
        return;
    }
    let cases: [(&[&str], &str); 5] = [
        (&["garbage"], "line 1: not the header of a history"),
        (&[], "the file is empty"),
        (&[HEADER], "holds no operations"),
        (&[HEADER, PUT, "{\"id\":"], "line 3: not an operation"),
        (&[HEADER, PUT, PUT], "line 3: operation 1 is there twice"),
    ];
    for (lines, words) in cases {
        let output = check(lines, &[]);
        let (out, err) = texts(&output);
        assert_eq!(output.status.code(), Some(2), "{lines:?}: {out}{err}");
        assert!(err.contains(words) && out.is_empty(), "no `{words}` in {err}{out}");
    }
    let missing = Command::new(binary()).args(["check", "no/such/file"]).output().expect("the program");
    assert_eq!(missing.status.code(), Some(2));
    assert!(texts(&missing).1.contains("no/such/file"));
    let nothing = Command::new(binary()).arg("check").output().expect("the program");
    assert_eq!(nothing.status.code(), Some(2));
    assert!(texts(&nothing).1.contains("Examples:"), "help that teaches");
}

#[test]
fn without_a_verdict_the_exit_code_is_not_that_of_a_violation() {
    if is_reference() {
        return;
    }
    let words =
        ["check", "cluster", "--endpoints", "127.0.0.1:1", "--dial-timeout", "200ms", "--command-timeout", "1s"];
    let nobody = Command::new(binary()).args(words).output().expect("the program");
    let (out, err) = texts(&nobody);
    assert_eq!(nobody.status.code(), Some(2), "{out}{err}");
    assert!(err.contains("127.0.0.1:1") && out.is_empty(), "{out}{err}");
    // A history that nothing can be said about is no history that is fine.
    let watch =
        r#"{"id":1,"client":1,"node":0,"invoked":1,"returned":9,"request":{"watch":{"key":"a"}},"outcome":"unknown"}"#;
    let unjudged = check(&[HEADER, watch], &[]);
    let (out, err) = texts(&unjudged);
    assert_eq!(unjudged.status.code(), Some(1), "{out}{err}");
    assert!(out.contains("Verdict: undecided"), "{out}");
}

#[test]
fn a_cluster_that_loses_a_node_meanwhile_passes_and_is_left_clean() {
    if is_reference() {
        return;
    }
    run(async {
        let mut cluster = Cluster::start(3).await;
        let endpoints = cluster.endpoints();
        cluster.client(0).put("other/key", "stays").await.expect("a put");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let record = folder.path().join("history.jsonl");
        let mut command = Command::new(binary());
        command.args(["check", "cluster", "--duration", "8s", "--rate", "300", "-w", "json", "--seed", "7"]);
        // A request to a node that was killed must not hold its client until the end.
        command.args(["--command-timeout", "2s", "--dial-timeout", "1s"]);
        command.args(["--endpoints", &endpoints.join(",")]).arg("--record").arg(&record);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let process = command.spawn().expect("the program starts");
        tokio::time::sleep(Duration::from_secs(2)).await;
        let leader = cluster.leader().await;
        cluster.kill(leader);
        tokio::time::sleep(Duration::from_secs(2)).await;
        cluster.restart(leader);
        let output = tokio::task::spawn_blocking(|| process.wait_with_output()).await;
        let output = output.expect("a thread").expect("the program ends");
        let (out, err) = texts(&output);
        assert_eq!(output.status.code(), Some(0), "{out}\n{err}");
        let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!(json["verdict"], "possible", "{out}");
        assert!(json["run"]["writes"].as_u64() > Some(100), "{out}");
        assert_eq!(json["run"]["came_back"], true, "{out}");
        for count in ["watches", "events", "leases", "locks"] {
            assert!(json["run"][count].as_u64() > Some(1), "{count}: {out}");
        }
        let judged = ["revision-order", "linearizable", "list-append", "bank", "long-fork", "session", "snapshot"];
        for property in judged.into_iter().chain(["watch", "lease", "lock"]) {
            let found = json["properties"].as_array().expect("a list").iter().find(|one| one["property"] == property);
            assert!(found.expect("the property")["judged"].as_u64() > Some(0), "{property} judged nothing: {out}");
        }
        cluster.wait_ready().await;
        let everything = api::etcdserverpb::RangeRequest {
            key: vec![0].into(),
            range_end: vec![0].into(),
            ..api::etcdserverpb::RangeRequest::default()
        };
        let left = cluster.client(0).range(everything).await.expect("a range");
        assert_eq!(left.kvs.iter().map(|pair| &pair.key[..]).collect::<Vec<_>>(), [b"other/key"]);
        // The same history, judged again from the file, and no more once an acknowledged write is taken out of it.
        let again = Command::new(binary()).arg("check").arg(&record).output().expect("the program");
        assert_eq!(again.status.code(), Some(0), "{}", texts(&again).0);
        let text = std::fs::read_to_string(&record).expect("the history");
        // One event that a watch delivered is taken out of it: somebody lies, and it is said who.
        let (least, most) = lying_watch(&text);
        std::fs::write(&record, text.replace(&least, &most)).expect("a file");
        let broken = Command::new(binary()).arg("check").arg(&record).output().expect("the program");
        let (out, err) = texts(&broken);
        assert_eq!(broken.status.code(), Some(1), "{out}{err}");
        assert!(out.contains("was not delivered") && out.contains("watch            IMPOSSIBLE"), "{out}{err}");
        // Somebody is told a token that another holder of the lock was told before.
        let (true_line, lying_line) = lying_lock(&text);
        std::fs::write(&record, text.replace(&true_line, &lying_line)).expect("a file");
        let broken = Command::new(binary()).arg("check").arg(&record).output().expect("the program");
        let (out, err) = texts(&broken);
        assert_eq!(broken.status.code(), Some(1), "{out}{err}");
        assert!(out.contains("lock             IMPOSSIBLE") && out.contains("is granted to"), "{out}{err}");
        let is_seen = |line: &&str| line.contains("{\"put\":{\"key\":\"sinew-check/") && line.contains("\"done\"");
        let lost = text.lines().filter(is_seen).find(|line| is_read_later(&text, line)).expect("a put that was read");
        std::fs::write(&record, text.replace(&format!("{lost}\n"), "")).expect("a file");
        let broken = Command::new(binary()).arg("check").arg(&record).output().expect("the program");
        assert_eq!(broken.status.code(), Some(1), "{}", texts(&broken).0);
    });
}

/// The line of a watch that delivered several revisions, and the same without one from their middle.
fn lying_watch(text: &str) -> (String, String) {
    for line in text.lines().filter(|line| line.contains("{\"watch\":{\"batches\"")) {
        let mut operation: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let batches = operation["outcome"]["done"]["response"]["watch"]["batches"].as_array_mut().expect("a list");
        let is_put = |batch: &serde_json::Value| {
            let events = batch["events"].as_array().map_or(&[][..], Vec::as_slice);
            matches!(events, [event] if event.get("put").is_some())
        };
        let puts: Vec<usize> = (0..batches.len()).filter(|at| is_put(&batches[*at])).collect();
        if puts.len() > 2 {
            batches.remove(puts[1]);
            return (line.to_owned(), operation.to_string());
        }
    }
    panic!("no watch delivered three revisions one by one");
}

/// The line of a lock that was granted, and the same with the token of an earlier holder.
fn lying_lock(text: &str) -> (String, String) {
    let mut tokens = BTreeMap::new();
    for line in text.lines().filter(|line| line.contains("{\"lock\":{\"acquire\"")) {
        let mut operation: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let name = operation["request"]["lock"]["acquire"]["name"].to_string();
        let token = &mut operation["outcome"]["done"]["response"]["lock"]["token"];
        if token.is_null() {
            continue;
        }
        if let Some(earlier) = tokens.insert(name, token.clone()) {
            *token = earlier;
            return (line.to_owned(), operation.to_string());
        }
    }
    panic!("no lock was granted twice");
}

/// Whether the value of the put in `line` is in an answer too.
fn is_read_later(text: &str, line: &str) -> bool {
    let Some((_, rest)) = line.split_once("\"value\":\"") else { return false };
    let value = rest.split('"').next().unwrap_or_default();
    text.matches(&format!("\"value\":\"{value}\",\"create\"")).count() > 0
}

#[test]
fn a_load_that_etcdctl_knows_is_tried_and_what_it_wrote_is_deleted() {
    if is_reference() {
        return;
    }
    run(async {
        let cluster = Cluster::start(1).await;
        let endpoint = format!("--endpoints={}", cluster.nodes[0].endpoint());
        let perf = |flags: &[&str]| {
            let mut command = Command::new(binary());
            command.args(["check", "perf", &endpoint, "--duration=2s"]).args(flags);
            texts_of(command.output().expect("the program ends"))
        };
        let (code, out, err) = perf(&["--load=s", "--auto-compact", "--auto-defrag=true"]);
        // How fast this machine is, is not the question; the exit code says what the last line says.
        let passed = out.ends_with("\nPASS\n");
        assert!(passed || out.ends_with("\nFAIL\n"), "{out}{err}");
        assert_eq!(code, Some(i32::from(!passed)), "{out}{err}");
        for line in ["Compacting with revision ", "Compacted with revision ", "Defragmented ", " writes/s\n", "Stddev"]
        {
            assert!(out.contains(line), "no {line} in {out}{err}");
        }
        let client = cluster.client(0);
        let left = client.range(crate::client::prefix_request("/etcdctl-check-perf/")).await.expect("a range");
        assert_eq!(left.count, 0);
        let written = left.header.map_or(0, |header| header.revision);
        assert!(written > 100, "only {written} writes");
        client.put("perf/old", "mine").await.expect("a put");
        let (code, out, err) = perf(&["--prefix=perf/"]);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{err}");
        assert!(err.contains("has keys"), "{err}");
        assert_eq!(client.get("perf/old").await.expect("a get").count, 1);
    });
}

fn texts_of(output: Output) -> (Option<i32>, String, String) {
    let (out, err) = texts(&output);
    (output.status.code(), out, err)
}
