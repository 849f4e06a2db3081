//! Stopping on purpose is not a failure: a leader that is asked to stop hands over first.

use std::time::{Duration, Instant};

use crate::cluster::{Cluster, is_reference};
use crate::{eventually, run};

/// So long that losing a leader without a handover cannot be mistaken for a handover.
const ELECTION_TIMEOUT_MS: &str = "8000";
/// The longest time without an acknowledged write. Far above a handover, far below an election.
const GAP_MAX: Duration = Duration::from_secs(5);

#[test]
fn leader_that_is_asked_to_stop_hands_over_without_a_gap_and_exits_cleanly() {
    run(async {
        let flags = ["--heartbeat-interval", "500", "--election-timeout", ELECTION_TIMEOUT_MS];
        let mut cluster = Cluster::start_with(3, &flags).await;
        let leader = cluster.leader().await;
        let others = [cluster.client((leader + 1) % 3), cluster.client((leader + 2) % 3)];
        others[0].put("handover/before", "1").await.expect("a put");

        let asked = Instant::now();
        cluster.terminate(leader);
        let mut last = asked;
        let mut gap = Duration::ZERO;
        let mut sequence = 0u32;
        while asked.elapsed() < GAP_MAX * 2 {
            let node = others[sequence as usize % 2].with_timeout(Duration::from_millis(700));
            sequence += 1;
            if node.put(&format!("handover/{sequence}"), "1").await.is_ok() {
                gap = gap.max(last.elapsed());
                last = Instant::now();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        gap = gap.max(last.elapsed());
        assert!(gap < GAP_MAX, "no write was acknowledged for {gap:?} after the leader was asked to stop");

        let status = cluster.wait_exit(leader).await;
        if !is_reference() {
            assert_eq!(status.code(), Some(0), "a node that was asked to stop has not failed");
        }
        cluster.restart(leader);
        let back = cluster.client(leader);
        eventually("the stopped node is back", || async {
            back.get("handover/before").await.map(|_| ()).map_err(|status| status.to_string())
        })
        .await;
    });
}

#[test]
fn single_node_that_is_asked_to_stop_keeps_everything() {
    run(async {
        let mut cluster = Cluster::start(1).await;
        for step in 0..50 {
            cluster.client(0).put(&format!("stop/{step}"), step.to_string()).await.expect("a put");
        }
        cluster.terminate(0);
        let status = cluster.wait_exit(0).await;
        assert!(status.success() || is_reference(), "{status}");
        cluster.restart(0);
        cluster.wait_ready().await;
        let answer = cluster.client(0).range(crate::client::prefix_request("stop/")).await.expect("a range");
        assert_eq!(answer.count, 50);
    });
}
