//! The four consensus protocols, each under kill -9; and a cluster whose members do not agree on one.

use crate::cluster::{Cluster, is_reference, run_to_end, serve};
use crate::load::{Load, within};
use crate::{between, eventually, seed};

/// Clients of each load.
const CLIENTS: usize = 6;
/// Writes that show that the cluster works (again).
const SOME: u64 = 20;

/// Leader, follower and everybody die under load; the history must be possible.
fn survives(protocol: &str, scenario: u64) {
    if is_reference() {
        return; // It has one protocol.
    }
    within(async {
        let mut prng = seed(scenario);
        let mut cluster = Cluster::start_with(3, &["--consensus", protocol]).await;
        let load = Load::start(&cluster, CLIENTS, &mut prng);
        for _ in 0..2 {
            load.progress(SOME).await;
            let leader = cluster.leader().await;
            cluster.kill(leader);
            load.progress(SOME).await;
            cluster.restart(leader);
            load.progress(SOME).await;
            let follower = (cluster.leader().await + 1) % 3;
            cluster.pause(follower);
            load.progress(SOME).await;
            cluster.resume(follower);
        }
        tokio::time::sleep(between(&mut prng, 1, 500)).await;
        (0..3).for_each(|at| cluster.kill(at));
        (0..3).for_each(|at| cluster.restart(at));
        load.progress(SOME).await;
        load.finish_and_check(&mut cluster).await;
    });
}

#[test]
fn multi_paxos_survives_kills_under_load() {
    survives("multi-paxos", 21);
}

#[test]
fn zab_survives_kills_under_load() {
    survives("zab", 22);
}

#[test]
fn paxos_raft_survives_kills_under_load() {
    survives("paxos-raft", 23);
}

#[test]
fn a_cluster_keeps_the_protocol_it_was_created_with() {
    if is_reference() {
        return;
    }
    within(async {
        let mut cluster = Cluster::start_with(1, &["--consensus", "zab"]).await;
        cluster.kill(0);
        let kept = cluster.nodes[0].flags.len() - 2;
        let mut other = serve();
        other.args(&cluster.nodes[0].flags[..kept]).args(["--consensus", "raft"]);
        let ended = run_to_end(other);
        assert!(!ended.status.success(), "{}", ended.output);
        for word in ["zab", "raft", "--consensus"] {
            assert!(ended.output.contains(word), "no `{word}` in the complaint:\n{}", ended.output);
        }
        cluster.nodes[0].flags.truncate(kept);
        cluster.restart(0);
        cluster.wait_ready().await;
    });
}

#[test]
fn members_that_disagree_on_the_protocol_do_not_meet() {
    if is_reference() {
        return;
    }
    within(async {
        let mut cluster = Cluster::prepare(3, &[]);
        for (at, protocol) in ["raft", "raft", "paxos-raft"].into_iter().enumerate() {
            cluster.nodes[at].flags.extend(["--consensus".to_owned(), protocol.to_owned()]);
            cluster.restart(at);
        }
        // The two that agree are a quorum; the third hears why it is left out.
        eventually("a leader of two", || async { cluster.client(0).get("k").await.map_err(|s| s.to_string()) }).await;
        eventually("a complaint", || async {
            let said = cluster.output(2);
            if said.contains("consensus protocol mismatch") { Ok(()) } else { Err(said) }
        })
        .await;
        assert!(cluster.client(2).get("k").await.is_err(), "a stranger serves reads");
    });
}
