//! kill -9 and frozen processes under load: nothing acknowledged is lost, nothing happens twice, no read is stale, and
//! the cluster is back by itself.

use std::time::Duration;

use crate::cluster::{Cluster, is_reference};
use crate::load::{Load, within};
use crate::{between, seed};

/// Clients of each load.
const CLIENTS: usize = 6;
/// Writes that show that the cluster works (again).
const SOME: u64 = 20;

#[test]
fn leader_killed_under_load_loses_and_repeats_nothing() {
    within(async {
        let mut prng = seed(1);
        let mut cluster = Cluster::start(3).await;
        let load = Load::start(&cluster, CLIENTS, &mut prng);
        for _ in 0..3 {
            load.progress(SOME).await;
            let leader = cluster.leader().await;
            tokio::time::sleep(between(&mut prng, 1, 800)).await;
            cluster.kill(leader);
            // The other two elect a leader and go on.
            load.progress(SOME).await;
            tokio::time::sleep(between(&mut prng, 1, 500)).await;
            cluster.restart(leader);
        }
        load.progress(SOME).await;
        load.finish_and_check(&mut cluster).await;
    });
}

#[test]
fn follower_killed_under_load_loses_and_repeats_nothing() {
    within(async {
        let mut prng = seed(2);
        let mut cluster = Cluster::start(3).await;
        let load = Load::start(&cluster, CLIENTS, &mut prng);
        for _ in 0..3 {
            load.progress(SOME).await;
            let leader = cluster.leader().await;
            let follower = (leader + 1 + prng.below(2) as usize) % 3;
            tokio::time::sleep(between(&mut prng, 1, 800)).await;
            cluster.kill(follower);
            load.progress(SOME).await;
            cluster.restart(follower);
        }
        load.progress(SOME).await;
        load.finish_and_check(&mut cluster).await;
    });
}

#[test]
fn all_nodes_killed_under_load_lose_and_repeat_nothing() {
    within(async {
        let mut prng = seed(3);
        let mut cluster = Cluster::start(3).await;
        let load = Load::start(&cluster, CLIENTS, &mut prng);
        for _ in 0..3 {
            load.progress(SOME).await;
            tokio::time::sleep(between(&mut prng, 1, 1_000)).await;
            let first = prng.below(3) as usize;
            for step in 0..3 {
                cluster.kill((first + step) % 3);
            }
            for step in 0..3 {
                cluster.restart((first + 2 * step) % 3);
            }
        }
        load.progress(SOME).await;
        load.finish_and_check(&mut cluster).await;
    });
}

/// A leader that wakes up after the others have elected another must not answer from what it remembers.
#[test]
fn frozen_leader_answers_nothing_stale_when_it_wakes() {
    within(async {
        let mut prng = seed(4);
        let mut cluster = Cluster::start(3).await;
        let load = Load::start(&cluster, CLIENTS, &mut prng);
        for _ in 0..2 {
            load.progress(SOME).await;
            let leader = cluster.leader().await;
            cluster.pause(leader);
            // Longer than an election takes.
            load.progress(SOME).await;
            tokio::time::sleep(between(&mut prng, 1, 500)).await;
            cluster.resume(leader);
            load.progress(SOME).await;
        }
        load.finish_and_check(&mut cluster).await;
    });
}

/// A node that missed a lot catches up, and the cluster can then do without another one.
#[test]
fn node_that_was_away_catches_up_and_counts_again() {
    within(async {
        let mut prng = seed(5);
        let mut cluster = Cluster::start(3).await;
        let away = (cluster.leader().await + 1) % 3;
        cluster.kill(away);
        let load = Load::start(&cluster, CLIENTS, &mut prng);
        load.progress(20 * SOME).await;
        cluster.restart(away);
        tokio::time::sleep(Duration::from_millis(500)).await;
        let other = (away + 1) % 3;
        cluster.kill(other);
        // The quorum is now the one that was away and the one that stayed.
        load.progress(SOME).await;
        cluster.restart(other);
        load.finish_and_check(&mut cluster).await;
    });
}

#[test]
fn a_node_that_lost_its_data_is_not_taken_back_as_its_old_self() {
    if is_reference() {
        return; // etcd says it in other words.
    }
    within(async {
        let mut cluster = Cluster::start(3).await;
        let leader = cluster.leader().await;
        let (wiped, other) = ((leader + 1) % 3, (leader + 2) % 3);
        cluster.client(leader).put("kept", "value").await.expect("a put");

        cluster.kill(wiped);
        std::fs::remove_dir_all(&cluster.nodes[wiped].data_dir).expect("the data can be removed");
        cluster.restart(wiped);
        while !cluster.output(wiped).contains("has lost the data it had") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // The other two are a majority without it.
        cluster.client(other).put("kept", "again").await.expect("a put");

        // With one of them gone the one that forgot everything must not make up the number.
        cluster.kill(other);
        let alone = cluster.client(leader).with_timeout(Duration::from_secs(4));
        alone.put("kept", "by a minority").await.expect_err("a minority must not accept writes");

        cluster.restart(other);
        let client = cluster.client(other);
        while client.get("kept").await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let kv = client.get("kept").await.expect("a read").kvs.remove(0);
        assert!([&b"again"[..], b"by a minority"].contains(&&kv.value[..]), "lost an acknowledged write: {kv:?}");
    });
}

#[test]
fn a_node_that_missed_more_than_the_log_keeps_catches_up_by_snapshot() {
    if is_reference() {
        return; // etcd keeps its log by entries, not bytes.
    }
    /// Written while the node is down, in values of [`VALUE`] bytes: well beyond what the log keeps.
    const MISSED: usize = 150;
    const VALUE: usize = 1_400_000;
    within(async {
        let mut cluster = Cluster::start(3).await;
        let leader = cluster.leader().await;
        let (behind, other) = ((leader + 1) % 3, (leader + 2) % 3);
        let client = cluster.client(leader);
        client.put("first", "before").await.expect("a put");
        client.put("doomed", "before").await.expect("a put");
        cluster.kill(behind);
        client.delete("doomed").await.expect("a delete");
        for at in 0..MISSED {
            client.put(&format!("missed/{at:03}"), vec![b'x'; VALUE]).await.expect("a put");
        }
        // The log is cut behind the engine's flushes, which take a moment.
        tokio::time::sleep(Duration::from_secs(3)).await;
        cluster.restart(behind);
        while !cluster.output(behind).contains("installing a snapshot") {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // It counts again: with the third node gone, it and the leader are the majority.
        cluster.kill(other);
        while client.put("last", "after").await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let caught_up = cluster.client(behind);
        let read = async |key: String| {
            loop {
                match caught_up.get(&key).await {
                    Ok(found) => return found.kvs.first().map(|kv| kv.value.clone()),
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        };
        assert_eq!(read("last".into()).await.as_deref(), Some(&b"after"[..]));
        assert_eq!(read("first".into()).await.as_deref(), Some(&b"before"[..]));
        assert_eq!(read("doomed".into()).await, None, "a snapshot brought back a deleted key");
        for at in 0..MISSED {
            assert_eq!(read(format!("missed/{at:03}")).await.map(|value| value.len()), Some(VALUE), "missed/{at:03}");
        }
        // And it survives what it installed.
        cluster.kill(behind);
        cluster.restart(behind);
        let again = cluster.client(behind);
        while again.get("first").await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(again.get("missed/000").await.expect("a read").kvs.len(), 1);
    });
}
