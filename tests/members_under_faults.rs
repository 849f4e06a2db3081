//! Members that change while others die, under each consensus protocol.

use crate::client::revision;
use crate::cluster::{Cluster, is_reference};
use crate::load::{Load, within};
use crate::members::{listed, peer_url, renew, votes};
use crate::{between, eventually, seed};

/// Clients of each load.
const CLIENTS: usize = 4;
/// Writes that show that the cluster works (again).
const SOME: u64 = 10;

/// A member dies, is removed, and a new one learns and votes in its place, while another one is killed at some moment
/// of that. The history of what clients were told must be possible, and all members equal at the end.
fn is_replaced_under_kills(protocol: &str, scenario: u64) {
    if is_reference() {
        return; // It has one protocol, and counts a new member as missing.
    }
    within(async {
        let mut prng = seed(scenario);
        let mut cluster = Cluster::start_with(3, &["--consensus", protocol]).await;
        let load = Load::start(&cluster, CLIENTS, &mut prng);
        load.progress(SOME).await;
        let leader = cluster.leader().await;
        let (dead, other) = ((leader + 1) % 3, (leader + 2) % 3);
        let client = cluster.client(other);
        let old = cluster.client(dead).id().await;
        cluster.kill(dead);
        // Whether an attempt that was cut off has done it is seen in the list.
        eventually("the dead one is removed", || async {
            match client.remove(old).await {
                Err(status) if status.code() != tonic::Code::NotFound => Err(status.to_string()),
                _ => Ok(()),
            }
        })
        .await;
        let added = client.add(&peer_url(&cluster, dead), true).await.expect("a learner");
        let new = added.member.as_ref().expect("a member").id;
        renew(&mut cluster, dead, &added);
        cluster.restart(dead);
        tokio::time::sleep(between(&mut prng, 1, 400)).await;
        let leader = if cluster.leader().await == dead { other } else { cluster.leader().await };
        cluster.kill(leader);
        tokio::time::sleep(between(&mut prng, 1, 400)).await;
        cluster.restart(leader);
        eventually("the new one is promoted", || async {
            match cluster.client(other).promote(new).await {
                Err(status) if status.message() != "etcdserver: can only promote a learner member" => {
                    Err(status.to_string())
                }
                _ => Ok(()),
            }
        })
        .await;
        listed(&client, "the new one votes", |members| votes(members, new) && members.len() == 3).await;
        load.progress(SOME).await;
        // Its voice counts: the other two alone are no majority with one of them dead.
        cluster.kill(leader);
        load.progress(SOME).await;
        cluster.restart(leader);
        load.finish_and_check(&mut cluster).await;
    });
}

#[test]
fn raft_member_is_replaced_under_kills() {
    is_replaced_under_kills("raft", 31);
}

#[test]
fn multi_paxos_member_is_replaced_under_kills() {
    is_replaced_under_kills("multi-paxos", 32);
}

#[test]
fn zab_member_is_replaced_under_kills() {
    is_replaced_under_kills("zab", 33);
}

#[test]
fn paxos_raft_member_is_replaced_under_kills() {
    is_replaced_under_kills("paxos-raft", 34);
}

/// Nobody may have noticed yet that a member is dead when the next one is removed. Then the removal is refused, or the
/// cluster stands still until the dead one is back; nothing that was acknowledged is lost either way, and all agree on
/// who belongs to it.
#[test]
fn a_removal_right_after_a_death_is_refused_or_heals() {
    if is_reference() {
        return; // It has one protocol.
    }
    within(async {
        for protocol in ["raft", "multi-paxos", "zab", "paxos-raft"] {
            let mut cluster = Cluster::start_with(3, &["--consensus", protocol]).await;
            let leader = cluster.leader().await;
            let (dead, third) = ((leader + 1) % 3, (leader + 2) % 3);
            let client = cluster.client(leader);
            let removed = cluster.client(third).id().await;
            let written = client.put("race", protocol).await.expect("a put");
            cluster.kill(dead);
            let outcome = client.remove(removed).await;
            cluster.restart(dead);
            let client = cluster.client(dead);
            let count = eventually("the cluster goes on", || async {
                client.put("after", "v").await.map_err(|status| status.to_string())?;
                let members = client.members().await.map_err(|status| status.to_string())?.members;
                match (&outcome, members.len()) {
                    (Ok(()), 2) | (Err(_), 2 | 3) => Ok(members.len()),
                    (_, count) => Err(format!("{count} members after {outcome:?}")),
                }
            })
            .await;
            let found = client.get("race").await.expect("a get");
            assert_eq!(found.kvs[0].mod_revision, revision(written.header.as_ref()), "{protocol}");
            for at in [leader, dead] {
                listed(&cluster.client(at), "all agree", |members| members.len() == count).await;
            }
            if count == 2 {
                // Whoever is not a member any more does not go on as if it were.
                cluster.wait_exit(third).await;
            }
        }
    });
}
