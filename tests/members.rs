//! Members of a running cluster: replaced, moved, refused; and what a machine without its data may not do.

use api::etcdserverpb::cluster_client::ClusterClient;
use api::etcdserverpb::maintenance_client::MaintenanceClient;
use api::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberPromoteRequest, MemberRemoveRequest, MemberUpdateRequest,
    MoveLeaderRequest,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::client::Client;
use crate::cluster::{Cluster, free_ports, is_reference, run_to_end, serve};
use crate::{eventually, run};

const NOT_ENOUGH: &str = "etcdserver: re-configuration failed due to not enough started members";

impl Client {
    fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel())
    }

    pub(crate) async fn add(&self, url: &str, is_learner: bool) -> Result<MemberAddResponse, Status> {
        let request = MemberAddRequest { peer_urls: vec![url.to_owned()], is_learner };
        self.cluster().member_add(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn remove(&self, id: u64) -> Result<(), Status> {
        self.cluster().member_remove(MemberRemoveRequest { id }).await.map(drop)
    }

    pub(crate) async fn promote(&self, id: u64) -> Result<(), Status> {
        self.cluster().member_promote(MemberPromoteRequest { id }).await.map(drop)
    }

    pub(crate) async fn update(&self, id: u64, url: &str) -> Result<(), Status> {
        self.cluster().member_update(MemberUpdateRequest { id, peer_urls: vec![url.to_owned()] }).await.map(drop)
    }

    pub(crate) async fn id(&self) -> u64 {
        self.status().await.expect("a status").header.expect("a header").member_id
    }
}

/// Waits until a member's list of members is as wanted.
pub(crate) async fn listed(client: &Client, what: &str, is: impl Fn(&[Member]) -> bool) {
    eventually(what, || async {
        let list = client.members().await.map_err(|status| status.to_string())?.members;
        if is(&list) { Ok(()) } else { Err(format!("{list:?}")) }
    })
    .await;
}

pub(crate) fn votes(members: &[Member], id: u64) -> bool {
    members.iter().any(|member| member.id == id && !member.is_learner)
}

/// Empties a stopped node and points it at new ports, so that it can join as somebody new.
pub(crate) fn renew(cluster: &mut Cluster, at: usize, answer: &MemberAddResponse) {
    let node = &mut cluster.nodes[at];
    let _ = std::fs::remove_dir_all(&node.data_dir);
    let new = answer.member.as_ref().expect("the new member").id;
    let names = answer.members.iter().flat_map(|member| {
        let name = if member.id == new { node.name.clone() } else { member.name.clone() };
        member.peer_urls.iter().map(move |url| format!("{name}={url}")).collect::<Vec<_>>()
    });
    let names = names.collect::<Vec<_>>().join(",");
    set(&mut node.flags, "--initial-cluster", &names);
    set(&mut node.flags, "--initial-cluster-state", "existing");
}

fn set(flags: &mut [String], flag: &str, value: &str) {
    let at = flags.iter().position(|found| found == flag).expect("the flag is there");
    flags[at + 1] = value.to_owned();
}

pub(crate) fn peer_url(cluster: &Cluster, at: usize) -> String {
    format!("http://127.0.0.1:{}", cluster.nodes[at].peer_port)
}

#[test]
fn a_dead_member_is_replaced_in_two_commands_and_the_new_one_counts() {
    if is_reference() {
        return; // It lets a member vote before it has the data, and counts it as missing until it has started.
    }
    run(async {
        let mut cluster = Cluster::start(3).await;
        let leader = cluster.leader().await;
        let (dead, other) = ((leader + 1) % 3, (leader + 2) % 3);
        let client = cluster.client(other);
        let mut written = 0;
        for number in 0..50 {
            client.put(&format!("members/{number}"), "v").await.expect("a put");
            written += 1;
        }
        let old = cluster.client(dead).id().await;
        cluster.kill(dead);
        // Through a follower: it passes the request on.
        client.remove(old).await.expect("the dead one can be removed");
        let taken = client.add(&peer_url(&cluster, leader), false).await.expect_err("another member is there");
        assert_eq!((taken.code(), taken.message()), (Code::FailedPrecondition, "etcdserver: Peer URLs already exists"));
        let added = client.add(&peer_url(&cluster, dead), false).await.expect("a new member");
        let new = added.member.as_ref().expect("a member").id;
        assert_ne!(new, old, "ids are given away once");
        let early = client.add("http://127.0.0.1:9", false).await.expect_err("the last one has not started");
        assert_eq!(early.message(), NOT_ENOUGH);
        renew(&mut cluster, dead, &added);
        cluster.restart(dead);
        listed(&client, "the new member votes", |members| votes(members, new) && members.len() == 3).await;
        // Only with the new one's voice there is a majority now.
        cluster.kill(leader);
        eventually("a write", || async { client.put("members/after", "v").await.map_err(|s| s.to_string()) }).await;
        let newcomer = cluster.client(dead);
        let found = newcomer.range(crate::client::prefix_request("members/")).await.expect("a range");
        assert_eq!(found.count, written + 1);
        // It is a member like any other: it comes back with its data.
        cluster.kill(dead);
        cluster.restart(dead);
        cluster.restart(leader);
        cluster.wait_ready().await;
        assert_eq!(newcomer.id().await, new);
        listed(&newcomer, "all are known by name", |members| members.iter().all(|member| !member.name.is_empty()))
            .await;
    });
}

#[test]
fn a_member_that_was_away_listens_to_a_new_one_that_leads() {
    if is_reference() {
        return; // It takes the caller's own word for its place; what is lost here is found there by other tests.
    }
    run(async {
        let mut cluster = Cluster::prepare(4, &[]);
        let names: Vec<String> = (0..3).map(|at| format!("n{at}={}", peer_url(&cluster, at))).collect();
        for at in 0..3 {
            set(&mut cluster.nodes[at].flags, "--initial-cluster", &names.join(","));
            cluster.restart(at);
        }
        cluster.wait_ready().await;
        let leader = cluster.leader().await;
        let away = (leader + 1) % 3;
        cluster.kill(away);
        let client = cluster.client(leader);
        let added = client.add(&peer_url(&cluster, 3), false).await.expect("a new member");
        let target_id = added.member.as_ref().expect("a member").id;
        renew(&mut cluster, 3, &added);
        cluster.restart(3);
        listed(&client, "the new member votes", |members| votes(members, target_id)).await;
        eventually("the new member leads", || async {
            let mut maintenance = MaintenanceClient::new(client.channel());
            let asked = maintenance.move_leader(MoveLeaderRequest { target_id }).await;
            let leads = client.status().await.map_err(|status| status.to_string())?.leader == target_id;
            if leads { Ok(()) } else { Err(format!("{asked:?}")) }
        })
        .await;
        // It has never heard of the one that leads now.
        cluster.restart(away);
        let late = cluster.client(away);
        eventually("a write by the one that was away", || async {
            late.put("members/late", "v").await.map(drop).map_err(|status| status.to_string())
        })
        .await;
        assert_eq!(cluster.leader().await, 3, "the new member leads on");
    });
}

#[test]
fn what_could_cost_the_majority_is_refused() {
    run(async {
        let mut cluster = Cluster::start(3).await;
        let leader = cluster.leader().await;
        let (dead, other) = ((leader + 1) % 3, (leader + 2) % 3);
        let client = cluster.client(leader);
        let other_id = cluster.client(other).id().await;
        let unknown = client.remove(1234).await.expect_err("nobody has that id");
        assert_eq!((unknown.code(), unknown.message()), (Code::NotFound, "etcdserver: member not found"));
        let voter = client.promote(other_id).await.expect_err("it votes already");
        assert_eq!(voter.message(), "etcdserver: can only promote a learner member");
        let nowhere = client.add("nowhere", false).await.expect_err("not a URL");
        let invalid = "etcdserver: given member URLs are invalid";
        assert_eq!((nowhere.code(), nowhere.message()), (Code::InvalidArgument, invalid));
        let learner = client.add("http://127.0.0.1:9", true).await.expect("a learner").member.expect("a member");
        assert!(learner.is_learner && learner.name.is_empty(), "{learner:?}");
        let behind = client.promote(learner.id).await.expect_err("it has not started");
        let text = "etcdserver: can only promote a learner member which is in sync with leader";
        assert_eq!((behind.code(), behind.message()), (Code::FailedPrecondition, text));
        let second = client.add("http://127.0.0.1:10", true).await.expect_err("one learns already");
        assert_eq!(second.message(), "etcdserver: too many learner members in cluster");
        client.remove(learner.id).await.expect("a learner counts for nothing");
        cluster.kill(dead);
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        eventually("the leader notices", || async {
            match client.remove(other_id).await {
                Err(status) if status.message() == NOT_ENOUGH => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        client.put("still", "works").await.expect("a put");
    });
}

#[test]
fn a_removed_member_stops_and_says_why() {
    if is_reference() {
        return; // Its words are others.
    }
    run(async {
        let mut cluster = Cluster::start(3).await;
        let leader = cluster.leader().await;
        let id = cluster.client(leader).id().await;
        // The leader itself: it hands over first.
        cluster.client(leader).remove(id).await.expect("removed");
        let status = cluster.wait_exit(leader).await;
        assert_eq!(status.code(), Some(1));
        assert!(cluster.output(leader).contains("was removed from the cluster"), "{}", cluster.output(leader));
        // It missed nothing of that when it comes back.
        cluster.restart(leader);
        cluster.wait_exit(leader).await;
        let other = cluster.client((leader + 1) % 3);
        listed(&other, "two members", |members| members.len() == 2).await;
        other.put("two", "go on").await.expect("a put");
    });
}

#[test]
fn a_machine_without_its_data_does_not_come_back_as_its_old_self() {
    if is_reference() {
        return; // It trusts the operator.
    }
    run(async {
        let mut cluster = Cluster::start(3).await;
        cluster.kill(1);
        std::fs::remove_dir_all(&cluster.nodes[1].data_dir).expect("the data is lost");
        set(&mut cluster.nodes[1].flags, "--initial-cluster-state", "existing");
        let mut command = serve();
        command.args(&cluster.nodes[1].flags);
        let ended = tokio::task::spawn_blocking(|| run_to_end(command)).await.expect("a thread");
        assert_eq!(ended.status.code(), Some(1), "{}", ended.output);
        assert!(ended.output.contains("has started before, from other data"), "{}", ended.output);
        assert!(ended.output.contains("member remove"), "{}", ended.output);
        // Somebody who was not added is told how.
        let port = free_ports(2);
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let mut command = serve();
        let members = format!("n0={},stranger={}", peer_url(&cluster, 0), url(port));
        let folder = cluster.nodes[1].data_dir.with_file_name("stranger");
        command.args(["--name", "stranger", "--data-dir"]).arg(folder).args([
            "--listen-client-urls",
            &url(port + 1),
            "--advertise-client-urls",
            &url(port + 1),
            "--listen-peer-urls",
            &url(port),
            "--initial-advertise-peer-urls",
            &url(port),
            "--initial-cluster",
            &members,
            "--initial-cluster-state",
            "existing",
        ]);
        let ended = tokio::task::spawn_blocking(|| run_to_end(command)).await.expect("a thread");
        assert!(ended.output.contains("sinew member add"), "{}", ended.output);
    });
}

#[test]
fn a_member_moves_to_another_port() {
    if is_reference() {
        return; // Connections outlive the change there.
    }
    run(async {
        let mut cluster = Cluster::start(3).await;
        let at = (cluster.leader().await + 1) % 3;
        let id = cluster.client(at).id().await;
        let port = free_ports(1);
        let url = format!("http://127.0.0.1:{port}");
        cluster.client((at + 1) % 3).update(id, &url).await.expect("an update");
        cluster.kill(at);
        set(&mut cluster.nodes[at].flags, "--listen-peer-urls", &url);
        cluster.restart(at);
        cluster.wait_ready().await;
        cluster.client((at + 1) % 3).put("moved", "v").await.expect("a put");
        eventually("the moved member hears of it", || async {
            let found = cluster.client(at).get("moved").await.map_err(|status| status.to_string())?;
            if found.count == 1 { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .await;
    });
}
