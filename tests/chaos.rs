//! Chaos on real processes, judged by `sinew check cluster`, which runs beside it: whatever happens, a correct store
//! could have given all answers, and the cluster works again by itself.
//!
//! Each fault ends once it has had its effect: writes go on without the node that is hurt, and through it once it is
//! well. What this machine does not permit is skipped, and says so.

use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::cluster::{Cluster, is_reference};
use crate::disk::SmallDisk;
use crate::judge::Judge;
use crate::netns::Namespaces;
use crate::proxy::{Network, Weather};
use crate::{between, eventually, run, seed};

/// How long a write may take before another is tried: longer than an election.
const ATTEMPT: Duration = Duration::from_secs(3);

/// Waits until a node carries out a write.
async fn works(cluster: &Cluster, at: usize) {
    let client = cluster.client(at).with_timeout(ATTEMPT);
    eventually(&format!("a write at node {at}"), || async {
        client.put("chaos/probe", "1").await.map(|_| ()).map_err(|status| status.to_string())
    })
    .await;
}

/// Waits until every node does.
async fn all_work(cluster: &Cluster) {
    for at in 0..cluster.nodes.len() {
        works(cluster, at).await;
    }
}

async fn judge(cluster: &Cluster, prng: &mut base::Prng) -> Judge {
    Judge::start(&cluster.endpoints(), prng.below(1 << 32)).await
}

/// Fills the time between two faults.
async fn a_moment(prng: &mut base::Prng) {
    tokio::time::sleep(between(prng, 100, 900)).await;
}

#[expect(clippy::print_stderr, reason = "a test that does nothing must say so")]
fn skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
}

#[test]
fn nodes_killed_and_frozen_at_random_tell_no_lie() {
    if is_reference() {
        return;
    }
    run(async {
        let mut prng = seed(31);
        let mut cluster = Cluster::start(3).await;
        let judge = judge(&cluster, &mut prng).await;
        for _ in 0..4 {
            a_moment(&mut prng).await;
            let (killed, frozen) = (prng.below(3) as usize, prng.below(3) as usize);
            if killed == frozen {
                // All at once.
                (0..3).for_each(|at| cluster.kill(at));
                (0..3).for_each(|at| cluster.restart(at));
            } else {
                cluster.pause(frozen);
                a_moment(&mut prng).await;
                cluster.kill(killed);
                a_moment(&mut prng).await;
                cluster.resume(frozen);
                works(&cluster, frozen).await;
                cluster.restart(killed);
            }
            all_work(&cluster).await;
        }
        judge.verdict().await;
    });
}

/// Messages are lost, late, repeated, overtaken and damaged, and do no harm.
fn bad_weather(protocol: &str, scenario: u64) {
    if is_reference() {
        return;
    }
    run(async {
        let mut prng = seed(scenario);
        let mut cluster = Cluster::prepare(3, &["--consensus", protocol]);
        let network = Network::between(&mut cluster, &mut prng).await;
        (0..3).for_each(|at| cluster.restart(at));
        cluster.wait_ready().await;
        let judge = judge(&cluster, &mut prng).await;
        network.set_weather(Weather { lost: 30, repeated: 50, overtaken: 50, damaged: 2, delay_ms_max: 15 });
        let counts = network.counts();
        let faults = [
            ("lost", &counts.lost),
            ("repeated", &counts.repeated),
            ("overtaken", &counts.overtaken),
            ("damaged", &counts.damaged),
        ];
        for (name, happened) in faults {
            eventually(&format!("messages {name}"), || async {
                let count = happened.load(Ordering::Relaxed);
                if count >= 10 { Ok(()) } else { Err(format!("{count} of {}", counts.passed.load(Ordering::Relaxed))) }
            })
            .await;
            all_work(&cluster).await;
        }
        network.set_weather(Weather::default());
        all_work(&cluster).await;
        judge.verdict().await;
        assert!(counts.passed.load(Ordering::Relaxed) > 1_000, "the network was not used");
    });
}

#[test]
fn bad_weather_does_raft_no_harm() {
    bad_weather("raft", 38);
}

#[test]
fn bad_weather_does_multi_paxos_no_harm() {
    bad_weather("multi-paxos", 39);
}

#[test]
fn bad_weather_does_zab_no_harm() {
    bad_weather("zab", 40);
}

#[test]
fn bad_weather_does_paxos_raft_no_harm() {
    bad_weather("paxos-raft", 41);
}

/// Whoever waits for a frame that seems to be megabytes long hears nothing of what follows; not for ever.
#[test]
fn a_frame_with_a_damaged_length_does_not_make_a_node_deaf() {
    if is_reference() {
        return;
    }
    run(async {
        let mut prng = seed(37);
        let mut cluster = Cluster::prepare(3, &[]);
        let network = Network::between(&mut cluster, &mut prng).await;
        (0..3).for_each(|at| cluster.restart(at));
        cluster.wait_ready().await;
        let leader = cluster.leader().await;
        let lost = |cluster: &Cluster| cluster.output(leader).matches("lost connection to peer").count();
        let before = lost(&cluster);
        network.stretch_a_frame(leader, (leader + 1) % 3);
        eventually("a connection made anew", || async {
            if lost(&cluster) > before { Ok(()) } else { Err("the damage went unnoticed".to_owned()) }
        })
        .await;
        all_work(&cluster).await;
    });
}

/// The leader alone, deaf, or dumb; and two nodes that do not hear each other.
#[test]
fn links_cut_one_by_one_leave_a_majority_that_works() {
    if is_reference() {
        return;
    }
    run(async {
        let mut prng = seed(33);
        let mut cluster = Cluster::prepare(3, &[]);
        let network = Network::between(&mut cluster, &mut prng).await;
        (0..3).for_each(|at| cluster.restart(at));
        cluster.wait_ready().await;
        let judge = judge(&cluster, &mut prng).await;
        for case in ["alone", "deaf", "dumb", "without one follower"] {
            let leader = cluster.leader().await;
            let others = [(leader + 1) % 3, (leader + 2) % 3];
            match case {
                "alone" => others.iter().for_each(|other| network.cut_both_ways(leader, *other)),
                "deaf" => others.iter().for_each(|other| network.cut(*other, leader)),
                "dumb" => others.iter().for_each(|other| network.cut(leader, *other)),
                _ => network.cut_both_ways(leader, others[0]),
            }
            // Somebody who hears a majority leads, and the others find it.
            works(&cluster, others[1]).await;
            a_moment(&mut prng).await;
            if case != "without one follower" {
                works(&cluster, others[0]).await;
            }
            network.heal();
            all_work(&cluster).await;
        }
        judge.verdict().await;
        assert!(network.counts().cut.load(Ordering::Relaxed) > 20, "nothing was cut");
    });
}

/// Silence as of a pulled cable: nothing is refused or reset, and what was under way may arrive much later.
#[test]
fn cables_pulled_and_put_back_lose_nothing() {
    if is_reference() {
        return;
    }
    run(async {
        let mut prng = seed(34);
        let mut cluster = Cluster::prepare(3, &[]);
        let Some(cables) = Namespaces::around(&mut cluster) else {
            return skipped("network namespaces are not permitted here, so no cable can be pulled");
        };
        (0..3).for_each(|at| cluster.restart(at));
        cluster.wait_ready().await;
        let judge = judge(&cluster, &mut prng).await;
        for _ in 0..2 {
            let leader = cluster.leader().await;
            let others = [(leader + 1) % 3, (leader + 2) % 3];
            others.iter().for_each(|other| cables.cut(leader, *other));
            works(&cluster, others[0]).await;
            works(&cluster, others[1]).await;
            let alone = cluster.client(leader).with_timeout(Duration::from_secs(1));
            alone.put("chaos/alone", "1").await.expect_err("a leader without a majority must not acknowledge");
            others.iter().for_each(|other| cables.mend(leader, *other));
            all_work(&cluster).await;
        }
        judge.verdict().await;
    });
}

/// The system refuses an fsync of the log: the node stops and says why, and nothing rests on what was not synced.
#[test]
fn failing_fsync_stops_the_node_and_loses_nothing() {
    if is_reference() {
        return;
    }
    /// Syncs of the log's thread that go well: enough to start, few enough to come soon.
    const GOOD_SYNCS: u32 = 200;
    run(async {
        let mut prng = seed(35);
        let inject = format!("inject=fdatasync:error=EIO:when={GOOD_SYNCS}+");
        let wrapper =
            ["strace", "-D", "-f", "-qqq", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", &inject];
        let permitted = Command::new(wrapper[0]).args(&wrapper[1..]).arg("true").output();
        if !permitted.is_ok_and(|output| output.status.success()) {
            return skipped("there is no strace that may be used here, so no fsync can be made to fail");
        }
        let mut cluster = Cluster::prepare(3, &[]);
        cluster.nodes[1].wrapper = wrapper.map(str::to_owned).into();
        (0..3).for_each(|at| cluster.restart(at));
        cluster.wait_ready().await;
        let judge = judge(&cluster, &mut prng).await;
        let status = cluster.wait_exit(1).await;
        assert!(!status.success(), "stopping for a failed fsync is a failure: {status}");
        let said = cluster.output(1);
        assert!(said.contains("fdatasync") && said.contains("Input/output error"), "no reason in:\n{said}");
        works(&cluster, 0).await;
        works(&cluster, 2).await;
        // The disk is mended, and what it holds is believed again after it was read.
        cluster.nodes[1].wrapper.clear();
        cluster.restart(1);
        all_work(&cluster).await;
        judge.verdict().await;
    });
}

#[test]
fn full_disk_of_one_node_does_not_stop_the_others() {
    if is_reference() {
        return;
    }
    run(async {
        let mut prng = seed(36);
        let mut cluster = Cluster::prepare(3, &[]);
        let Some(disk) = SmallDisk::mount(&cluster.nodes[0].data_dir) else {
            return skipped("mounting a tmpfs is not permitted here, so no disk can be filled");
        };
        (0..3).for_each(|at| cluster.restart(at));
        cluster.wait_ready().await;
        let judge = judge(&cluster, &mut prng).await;
        let ballast = disk.fill();
        // Fills what is left in files that exist already.
        let client = cluster.client(1).with_timeout(ATTEMPT);
        let mut written = 0;
        while cluster.exited(0).is_none() {
            written += 1;
            assert!(written < 1_000, "a full disk is not noticed");
            // An answer is not needed: the node that fills up may have led.
            let _ = client.put(&format!("chaos/large/{}", written % 10), vec![b'x'; 1_000_000]).await;
        }
        works(&cluster, 1).await;
        works(&cluster, 2).await;
        std::fs::remove_file(ballast).expect("giving the space back");
        cluster.restart(0);
        all_work(&cluster).await;
        judge.verdict().await;
    });
}
