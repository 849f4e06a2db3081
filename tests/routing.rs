//! Any node will do: followers forward, local reads need no quorum, and what needs a quorum says so when there is none.

use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::{RangeRequest, RequestOp, TxnRequest};
use tonic::Code;

use crate::client::{create_request, get_request, prefix_request, revision};
use crate::cluster::{Cluster, is_reference};
use crate::{eventually, run};

#[test]
fn followers_serve_writes_and_linearizable_reads() {
    run(async {
        let cluster = Cluster::start(3).await;
        let nodes = cluster.clients();
        let mut last = 0;
        for step in 0..30usize {
            // Write on one node, read on another: the read must see it at once.
            let (writer, reader) = (&nodes[step % 3], &nodes[(step + 1) % 3]);
            let value = step.to_string();
            let written = writer.put("routing/a", value.clone()).await.expect("a put");
            let at = revision(written.header.as_ref());
            assert!(at > last, "the revision went from {last} to {at}");
            last = at;
            let answer = reader.get("routing/a").await.expect("a get");
            assert_eq!(answer.kvs[0].value, value.as_bytes());
            assert_eq!(answer.kvs[0].mod_revision, at);
            assert!(revision(answer.header.as_ref()) >= at);
        }
        let created = nodes[1].txn(create_request("routing/b", "1")).await.expect("a txn");
        assert!(created.succeeded);
        let again = nodes[2].txn(create_request("routing/b", "2")).await.expect("a txn");
        assert!(!again.succeeded);
        assert_eq!(nodes[0].delete("routing/b").await.expect("a delete").deleted, 1);
        assert_eq!(nodes[1].range(prefix_request("routing/")).await.expect("a range").count, 1);
    });
}

#[test]
fn a_revision_that_one_member_told_is_in_the_future_of_none() {
    if is_reference() {
        return; // Its members refuse what they have not heard of yet.
    }
    run(async {
        let cluster = Cluster::start(3).await;
        let nodes = cluster.clients();
        for step in 0..60usize {
            let written = nodes[step % 3].put("told", step.to_string()).await.expect("a put");
            let revision = revision(written.header.as_ref());
            let stale = RangeRequest { serializable: true, revision, ..get_request("told") };
            let reader = &nodes[(step + 1) % 3];
            let answer = reader.range(stale.clone()).await.expect("a serializable get");
            assert_eq!(answer.kvs[0].value, step.to_string().as_bytes());
            let written = nodes[step % 3].put("told", "again").await.expect("a put");
            let revision = written.header.expect("a header").revision;
            let op = RequestOp { request: Some(Request::RequestRange(RangeRequest { revision, ..stale })) };
            let txn = TxnRequest { success: vec![op], ..TxnRequest::default() };
            assert!(reader.txn(txn).await.expect("a serializable txn").succeeded);
        }
        let beyond = RangeRequest { serializable: true, revision: 1 << 40, ..get_request("told") };
        assert_eq!(nodes[0].range(beyond).await.expect_err("the future").code(), Code::OutOfRange);
    });
}

#[test]
fn every_answer_names_the_cluster_and_the_member_that_gave_it() {
    run(async {
        let cluster = Cluster::start(3).await;
        let mut members: Vec<u64> = Vec::new();
        let mut clusters: Vec<u64> = Vec::new();
        for node in cluster.clients() {
            let header = node.get("a").await.expect("a get").header.expect("a header");
            members.push(header.member_id);
            clusters.push(header.cluster_id);
            let listed = node.members().await.expect("a member list");
            let names: Vec<&str> = listed.members.iter().map(|member| member.name.as_str()).collect();
            for name in ["n0", "n1", "n2"] {
                assert!(names.contains(&name), "{names:?}");
            }
        }
        clusters.dedup();
        members.sort_unstable();
        members.dedup();
        assert_eq!((clusters.len(), members.len()), (1, 3), "clusters {clusters:?}, members {members:?}");
    });
}

#[test]
fn without_a_quorum_local_reads_work_and_everything_else_is_refused() {
    run(async {
        let mut cluster = Cluster::start(3).await;
        let node = cluster.client(0);
        let written = node.put("quorum/a", "1").await.expect("a put");
        let at = revision(written.header.as_ref());
        let local = RangeRequest { serializable: true, ..get_request("quorum/a") };
        cluster.kill(1);
        cluster.kill(2);

        let answer = node.range(local).await.expect("a local read needs no quorum");
        assert_eq!(answer.kvs[0].mod_revision, at);
        for outcome in [node.get("quorum/a").await.map(|_| ()), node.put("quorum/b", "1").await.map(|_| ())] {
            let status = outcome.expect_err("an answer without a quorum");
            let honest = matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded);
            assert!(honest || is_reference(), "{status:?}");
            assert!(!status.message().is_empty());
        }

        cluster.restart(1);
        eventually("reads after the quorum is back", || async {
            node.get("quorum/a").await.map(|_| ()).map_err(|status| status.to_string())
        })
        .await;
        eventually("writes after the quorum is back", || async {
            node.put("quorum/c", "1").await.map(|_| ()).map_err(|status| status.to_string())
        })
        .await;
        let answer = node.get("quorum/a").await.expect("a get");
        assert_eq!((&answer.kvs[0].value[..], answer.kvs[0].mod_revision), (&b"1"[..], at));
    });
}
