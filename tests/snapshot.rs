//! A cluster saved to a file and started anew from it; files that are not whole.

use std::fs;
use std::process::Command;

use api::etcdserverpb::SnapshotRequest;
use api::etcdserverpb::maintenance_client::MaintenanceClient;
use api::v3lockpb::lock_client::LockClient;
use api::v3lockpb::{LockRequest, UnlockRequest};
use serde_json::{Value, json};
use tonic::Code;

use crate::client::{Client, prefix_request, revision};
use crate::cluster::{Cluster, Ended, Node, binary, is_reference, run_to_end};
use crate::members::{peer_url, renew};
use crate::{eventually, run};

fn sinew(words: &[&str]) -> Ended {
    let mut command = Command::new(binary());
    command.args(words);
    run_to_end(command)
}

/// How to restore the data of a member.
fn restore_words<'a>(file: &'a str, node: &'a Node) -> Vec<&'a str> {
    let own = ["--name", "--data-dir", "--initial-cluster", "--initial-advertise-peer-urls"];
    let flags = node.flags.chunks(2).filter(|pair| own.contains(&pair[0].as_str()));
    ["snapshot", "restore", file].into_iter().chain(flags.flatten().map(String::as_str)).collect()
}

#[test]
fn a_restored_cluster_has_the_data_at_a_higher_revision_and_grows() {
    if is_reference() {
        return; // Its snapshots have another format and another tool.
    }
    run(async {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("backup.snap");
        let file = file.to_str().expect("a path in UTF-8");
        let old = Cluster::start(1).await;
        for number in 0..300 {
            old.client(0).put(&format!("snapshot/{number:03}"), vec![7; 5_000]).await.expect("a put");
        }
        let last = old.client(0).delete("snapshot/000").await.expect("a delete");
        let last = revision(last.header.as_ref());
        let endpoint = format!("--endpoints={}", old.nodes[0].endpoint());
        let saved = sinew(&["snapshot", "save", file, &endpoint]);
        assert_eq!((saved.status.code(), saved.output), (Some(0), format!("Snapshot saved at {file}\n")));
        let again = sinew(&["snapshot", "save", file, &endpoint]);
        assert!(again.status.code() == Some(2) && again.output.contains("exists"), "{}", again.output);
        let status = sinew(&["snapshot", "status", file]);
        assert!(status.output.contains(&format!(", {last}, 299, ")), "{}", status.output);
        drop(old);

        let mut new = Cluster::prepare(3, &[]);
        for node in &new.nodes {
            let words = restore_words(file, node);
            let restored = sinew(&words);
            assert_eq!(restored.status.code(), Some(0), "{}", restored.output);
            let twice = sinew(&words);
            assert!(twice.status.code() == Some(1) && twice.output.contains("exists"), "{}", twice.output);
        }
        for at in 0..3 {
            new.restart(at);
        }
        new.wait_ready().await;
        let found = new.client(1).range(prefix_request("snapshot/")).await.expect("a range");
        let now = revision(found.header.as_ref());
        assert_eq!((found.count, now), (299, last + 1_000_000_000));
        assert!(found.kvs.iter().all(|pair| pair.value.len() == 5_000 && pair.mod_revision <= last));
        let put = new.client(2).put("snapshot/new", "v").await.expect("a put");
        assert_eq!(revision(put.header.as_ref()), now + 1);
        // The log does not hold the restored state: a member that comes later gets it all the same.
        let (old, url) = (new.client(0).id().await, peer_url(&new, 0));
        new.kill(0);
        new.client(1).remove(old).await.expect("removed");
        let added = new.client(1).add(&url, false).await.expect("added");
        renew(&mut new, 0, &added);
        new.restart(0);
        let found = eventually("the new member serves", || async {
            let found = new.client(0).range(prefix_request("snapshot/")).await;
            found.map_err(|status| status.to_string())
        })
        .await;
        assert_eq!(found.count, 300);
    });
}

/// Locks that were taken, as a history for `sinew check`.
#[derive(Clone)]
struct Grants(Vec<Value>);

impl Grants {
    /// Takes the lock with a lease of its own. The holder's key and its token.
    async fn take(&mut self, client: &Client) -> (String, i64) {
        let lease = client.grant(60).await.expect("a lease");
        let request = LockRequest { name: "restored".into(), lease };
        let answer = LockClient::new(client.channel()).lock(request).await.expect("the lock");
        let token = answer.metadata().get("sinew-fence-token").expect("a token").to_str().expect("text");
        let token: i64 = token.parse().expect("a number");
        let answer = answer.into_inner();
        let key = String::from_utf8(answer.key.to_vec()).expect("text");
        let request = json!({ "lock": { "acquire": { "name": "restored", "lease": lease } } });
        self.add(request, revision(answer.header.as_ref()), json!({ "lock": { "key": key, "token": token } }));
        (key, token)
    }

    async fn release(&mut self, client: &Client, key: &str) {
        let unlock = UnlockRequest { key: key.to_owned().into() };
        let answer = LockClient::new(client.channel()).unlock(unlock).await.expect("unlocked").into_inner();
        let request = json!({ "lock": { "release": { "key": key } } });
        self.add(request, revision(answer.header.as_ref()), json!({ "lock": { "key": key, "token": 0 } }));
    }

    /// One thing after the other: the times say no more than that.
    fn add(&mut self, request: Value, revision: i64, response: Value) {
        let id = self.0.len();
        let outcome = json!({ "done": { "revision": revision, "response": response } });
        self.0.push(json!({
            "id": id, "client": 1, "node": 0, "invoked": 2 * id, "returned": 2 * id + 1,
            "request": request, "outcome": outcome,
        }));
    }

    fn judge(&self) -> Ended {
        let header = json!({ "format": "sinew-history", "version": 1 });
        let lines: Vec<String> = [&header].into_iter().chain(&self.0).map(Value::to_string).collect();
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        fs::write(file.path(), lines.join("\n")).expect("a file");
        sinew(&["check", file.path().to_str().expect("a path in UTF-8")])
    }
}

/// The tokens of holders that came after the snapshot are the ones that a restore could hand out again.
#[test]
fn no_token_comes_again_after_a_restore_unless_the_revision_is_told_to() {
    if is_reference() {
        return; // It tells no tokens, and its snapshots have another format and another tool.
    }
    run(async {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("backup.snap");
        let file = file.to_str().expect("a path in UTF-8");
        let old = Cluster::start(1).await;
        let client = old.client(0);
        let mut before = Grants(Vec::new());
        let (key, first) = before.take(&client).await;
        before.release(&client, &key).await;
        let endpoint = format!("--endpoints={}", old.nodes[0].endpoint());
        assert_eq!(sinew(&["snapshot", "save", file, &endpoint]).status.code(), Some(0));
        let (key, second) = before.take(&client).await;
        before.release(&client, &key).await;
        let (last_key, last) = before.take(&client).await;
        assert!(first < second && second < last, "{first}, {second}, {last}");
        drop(old);

        let (mut after, mut new) = (before.clone(), Cluster::prepare(1, &[]));
        assert_eq!(sinew(&restore_words(file, &new.nodes[0])).status.code(), Some(0));
        new.restart(0);
        new.wait_ready().await;
        let (key, token) = after.take(&new.client(0)).await;
        assert!(token > last + 500_000_000, "{token} after {last}");
        let put = |fence: String| {
            let endpoint = format!("--endpoints={}", new.nodes[0].endpoint());
            sinew(&["put", "--fence", &fence, "restored", "v", &endpoint]).status.code()
        };
        assert_eq!(put(format!("{key}={token}")), Some(0));
        assert_eq!(put(format!("{last_key}={last}")), Some(1), "a holder of the old cluster writes to the new one");
        let judged = after.judge();
        assert!(
            judged.status.code() == Some(0) && judged.output.contains("lock             possible    6"),
            "{}",
            judged.output
        );

        // A restore that is told to go on where the snapshot was taken does it, and the check sees it.
        let (mut again, mut new) = (before, Cluster::prepare(1, &[]));
        let near = [&restore_words(file, &new.nodes[0])[..], &["--bump-revision", "1"]].concat();
        assert_eq!(sinew(&near).status.code(), Some(0));
        new.restart(0);
        new.wait_ready().await;
        new.client(0).put("restored", "v").await.expect("a put");
        let (_, token) = again.take(&new.client(0)).await;
        assert_eq!(token, last, "the revision did not come again");
        let judged = again.judge();
        assert_eq!(judged.status.code(), Some(1), "{}", judged.output);
        assert!(judged.output.contains(&format!("token {last} is granted to ")), "{}", judged.output);
    });
}

#[test]
fn a_file_that_is_not_whole_is_never_restored() {
    if is_reference() {
        return; // It does not have these verbs.
    }
    run(async {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| folder.path().join(name).to_str().expect("a path in UTF-8").to_owned();
        let cluster = Cluster::start(1).await;
        cluster.client(0).put("k", vec![7; 100_000]).await.expect("a put");
        let endpoint = format!("--endpoints={}", cluster.nodes[0].endpoint());
        let whole = path("whole");
        assert_eq!(sinew(&["snapshot", "save", &whole, &endpoint]).status.code(), Some(0));
        let bytes = fs::read(&whole).expect("the file");
        let mut altered = bytes.clone();
        altered[bytes.len() / 2] ^= 1;
        let wrong = [
            ("cut", bytes[..bytes.len() / 2].to_vec(), "cut short"),
            ("altered", altered, "checksum"),
            ("longer", [&bytes[..], b"x"].concat(), "something follows"),
            ("other", b"not a snapshot at all".to_vec(), "is no snapshot"),
        ];
        for (name, contents, complaint) in wrong {
            let (file, data_dir) = (path(name), path(&format!("{name}.data")));
            fs::write(&file, contents).expect("a file");
            for words in [&["snapshot", "status", &file][..], &["snapshot", "restore", &file, "--data-dir", &data_dir]]
            {
                let ended = sinew(words);
                assert_eq!(ended.status.code(), Some(1), "{words:?}: {}", ended.output);
                assert!(ended.output.contains(complaint), "{words:?}: {}", ended.output);
            }
            assert!(!fs::exists(&data_dir).expect("the folder"), "{name}: something was left behind");
        }
        let two = format!("{endpoint},127.0.0.1:1");
        assert_eq!(sinew(&["snapshot", "save", &path("x"), &two]).status.code(), Some(2));
    });
}

#[test]
fn those_who_do_not_read_their_snapshot_hold_up_large_reads_for_a_while_only() {
    if is_reference() {
        return; // It has no such limit.
    }
    run(async {
        let cluster = Cluster::start(1).await;
        let client = cluster.client(0);
        for number in 0..24 {
            client.put(&format!("stalled/{number}"), vec![7; 1_000_000]).await.expect("a put");
        }
        // More than there are places for large reads.
        let mut stalled = Vec::new();
        for _ in 0..4 {
            let channel = cluster.client(0).channel();
            let mut maintenance = MaintenanceClient::new(channel).max_decoding_message_size(usize::MAX);
            stalled.push(maintenance.snapshot(SnapshotRequest {}).await.expect("a stream").into_inner());
        }
        let refused = client.range(prefix_request("stalled/")).await.expect_err("no place is left");
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
        eventually("large reads have a place again", || async {
            let found = client.range(prefix_request("stalled/")).await.map_err(|status| status.to_string())?;
            if found.count == 24 { Ok(()) } else { Err(format!("{} keys", found.count)) }
        })
        .await;
        // Who reads on too late is told; who does just in time gets the whole.
        let mut told = 0;
        for mut pieces in stalled {
            let mut bytes = 0;
            loop {
                match pieces.message().await {
                    Ok(Some(piece)) => bytes += piece.blob.len(),
                    Ok(None) => break assert_eq!(bytes % 512, 32, "a part was taken for the whole"),
                    Err(status) => {
                        assert_eq!(status.code(), Code::Aborted, "{status}");
                        told += 1;
                        break;
                    }
                }
            }
        }
        assert!(told > 0, "nobody was told");
    });
}
