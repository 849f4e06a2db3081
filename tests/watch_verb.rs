//! `sinew watch` as a person or a script meets it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::client::revision;
use crate::cluster::{Cluster, binary, is_reference};
use crate::{PATIENCE, run};

/// A running `watch`, killed with the test.
struct Verb {
    process: Child,
    out: mpsc::Receiver<String>,
    err: mpsc::Receiver<String>,
}

impl Verb {
    fn start(endpoints: &str, words: &[&str]) -> Self {
        let mut command = Command::new(binary());
        command.arg("watch").args(words).env("ETCDCTL_ENDPOINTS", endpoints);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("the program starts");
        let out = lines(process.stdout.take().expect("a pipe"));
        let err = lines(process.stderr.take().expect("a pipe"));
        Self { process, out, err }
    }

    /// The next lines of output.
    fn prints(&self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.out.recv_timeout(PATIENCE).expect("another line in time")).collect()
    }

    fn says(&mut self, line: &str) {
        let input = self.process.stdin.as_mut().expect("a pipe");
        input.write_all(line.as_bytes()).expect("the program reads");
    }

    fn ends(&mut self) -> Option<i32> {
        drop(self.process.stdin.take());
        self.process.wait().expect("the program ends").code()
    }
}

impl Drop for Verb {
    fn drop(&mut self) {
        // Already gone is what we want.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn lines(pipe: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

#[test]
fn the_verb_prints_events_in_all_formats_runs_commands_and_reads_orders() {
    if is_reference() {
        return;
    }
    run(async {
        let cluster = Cluster::start(1).await;
        let client = cluster.client(0);
        let endpoint = cluster.nodes[0].endpoint();
        let first = revision(client.put("v/a", "1").await.expect("a put").header.as_ref());
        client.put("v/a", "2").await.expect("a put");
        client.delete("v/a").await.expect("a delete");
        let rev = format!("--rev={first}");

        let simple = Verb::start(&endpoint, &["v/", "--prefix", &rev, "--prev-kv"]);
        let expected = ["PUT", "v/a", "1", "PUT", "v/a", "1", "v/a", "2", "DELETE", "v/a", "2", "v/a", ""];
        assert_eq!(simple.prints(expected.len()), expected);
        let json = Verb::start(&endpoint, &["v/a", &rev, "-w", "json"]).prints(1).remove(0);
        let event =
            format!(r#"{{"key":"di9h","create_revision":{first},"mod_revision":{first},"version":1,"value":"MQ=="}}"#);
        assert!(json.contains(&format!(r#""Events":[{{"kv":{event}}},"#)), "{json}");
        let delete = format!(r#"{{"type":1,"kv":{{"key":"di9h","mod_revision":{}}}}}"#, first + 2);
        assert!(
            json.ends_with(&format!(r#"{delete}],"CompactRevision":0,"Canceled":false,"Created":false}}"#)),
            "{json}"
        );
        let fields = Verb::start(&endpoint, &["v/a", &rev, "-w", "fields"]).prints(11);
        assert_eq!(
            fields[4..8],
            [
                r#""Type" : PUT"#,
                r#""Key" : "v/a""#,
                &format!("\"CreateRevision\" : {first}"),
                &format!("\"ModRevision\" : {first}")
            ]
        );

        let script = "echo $ETCD_WATCH_REVISION $ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY $ETCD_WATCH_VALUE";
        let exec = Verb::start(&endpoint, &["v/a", &rev, "--", "sh", "-c", script]);
        let shown = exec.prints(12);
        let ran: Vec<&String> = shown.iter().filter(|line| line.contains('"')).collect();
        assert_eq!(ran.len(), 3, "{shown:?}");
        assert!(ran[0].ends_with(r#""PUT" "v/a" "1""#) && ran[2].ends_with(r#""DELETE" "v/a" """#), "{ran:?}");

        let mut interactive = Verb::start(&endpoint, &["-i"]);
        interactive.says("nonsense\n");
        let complaint = interactive.err.recv_timeout(PATIENCE).expect("a complaint");
        assert_eq!(complaint, "Invalid command nonsense (only support watch)");
        interactive.says(&format!("watch v/a {rev}\n"));
        assert_eq!(interactive.prints(3), ["PUT", "v/a", "1"]);
        assert_eq!(interactive.prints(6), ["PUT", "v/a", "2", "DELETE", "v/a", ""]);
        interactive.says("progress\n");
        assert_eq!(interactive.prints(1), [format!("progress notify: {}", first + 2)]);
        assert_eq!(interactive.ends(), Some(1));

        let compact = api::etcdserverpb::CompactionRequest { revision: first + 2, physical: true };
        client.kv().compact(compact).await.expect("a compaction");
        let mut late = Verb::start(&endpoint, &["v/a", &rev]);
        assert_eq!(late.ends(), Some(1));
        let said: Vec<String> = late.err.iter().collect();
        assert!(said[0].contains("watch was canceled (etcdserver: mvcc: required revision has been compacted)"));
        assert!(said[1].contains("watch is canceled by the server"), "{said:?}");
    });
}

#[test]
fn the_verb_goes_on_at_another_endpoint_without_a_gap_or_a_repetition() {
    if is_reference() {
        return;
    }
    run(async {
        let mut cluster = Cluster::start(3).await;
        let endpoints = cluster.endpoints();
        let verb = Verb::start(&endpoints.join(","), &["e/", "--prefix"]);
        let writer = cluster.client(2);
        // The watch is from now on: it is there when it shows something.
        let mut shown = Vec::new();
        let mut step = 0u32;
        while shown.is_empty() {
            writer.put(&format!("e/{step}"), "x").await.expect("a put");
            step += 1;
            while let Ok(line) = verb.out.recv_timeout(Duration::from_millis(100)) {
                shown.push(line);
            }
        }
        cluster.kill(0);
        let until = step + 200;
        while step < until {
            // The killed node may have led; a write whose fate is unknown would spoil the count.
            match writer.put(&format!("e/{step}"), "x").await {
                Ok(_) => step += 1,
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        let last = format!("e/{}", until - 1);
        while !shown.contains(&last) {
            shown.extend(verb.prints(1));
        }
        let keys: Vec<&String> = shown.iter().filter(|line| line.starts_with("e/")).collect();
        let first: u32 = keys[0][2..].parse().expect("a number");
        let mut expected: Vec<String> = (first..until).map(|step| format!("e/{step}")).collect();
        let mut found: Vec<String> = keys.into_iter().cloned().collect();
        // A write whose answer was lost was sent again: the same key twice in a row, at two revisions.
        found.dedup();
        expected.dedup();
        assert_eq!(found, expected);
        let said: Vec<String> = verb.err.try_iter().collect();
        assert!(said.iter().any(|line| line.starts_with("going on at")), "{said:?}");
    });
}
