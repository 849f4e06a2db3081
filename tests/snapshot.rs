//! A cluster saved to a file and started anew from it; files that are not whole.

use std::fs;
use std::process::Command;

use api::etcdserverpb::SnapshotRequest;
use api::etcdserverpb::maintenance_client::MaintenanceClient;
use tonic::Code;

use crate::client::{prefix_request, revision};
use crate::cluster::{Cluster, Ended, binary, is_reference, run_to_end};
use crate::members::{peer_url, renew};
use crate::{eventually, run};

fn sinew(words: &[&str]) -> Ended {
    let mut command = Command::new(binary());
    command.args(words);
    run_to_end(command)
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
            let flags = node.flags.chunks(2);
            let own = ["--name", "--data-dir", "--initial-cluster", "--initial-advertise-peer-urls"];
            let own = flags.filter(|pair| own.contains(&pair[0].as_str())).flatten().map(String::as_str);
            let words: Vec<&str> = ["snapshot", "restore", file].into_iter().chain(own).collect();
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
