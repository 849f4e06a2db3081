//! The correctness bugs that etcd had, by their numbers there: each is a scenario, so that no change brings one in.
//!
//! What went wrong is told in our words above each test. Those that a cheaper test shows as well, or an older one, and
//! those that cannot happen here, are in the table of docs/testing.md with the reason.

use std::time::Duration;

use api::etcdserverpb::request_op::Request as Op;
use api::etcdserverpb::{
    CompactionRequest, DefragmentRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, RangeRequest, RequestOp,
    TxnRequest, WatchCreateRequest,
};
use tokio::sync::mpsc;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::client::{Client, get_request, put_op, revision};
use crate::cluster::{Cluster, is_reference};
use crate::load::{Load, within};
use crate::members::listed;
use crate::watch::{Stream, compact, from, prefix, put, revisions, shorts};
use crate::{PATIENCE, between, eventually, run, seed};

/// Fails unless all members say the same of the latest revision, and of all history that can still be read.
async fn all_agree(cluster: &Cluster) -> i64 {
    eventually("all members hold the same", || async {
        let last = cluster.client(0).get("agree").await.map_err(|status| status.to_string())?;
        let last = revision(last.header.as_ref());
        let mut said = Vec::new();
        for client in cluster.clients() {
            let hash = client.hash(last).await.map_err(|status| status.to_string())?;
            said.push((hash.hash, hash.compact_revision, revision(hash.header.as_ref())));
        }
        if said.iter().all(|one| *one == said[0]) { Ok(last) } else { Err(format!("{said:?}")) }
    })
    .await
}

async fn defragment(client: &Client) -> Result<(), Status> {
    client.maintenance().defragment(DefragmentRequest {}).await.map(drop)
}

/// #13766, #14685. The place in the log up to which the state had been written was not stored together with the state:
/// in one case by a refactoring, in the other only while the file was being defragmented. A member killed in between
/// carried out some entries twice or never, and its revision was another than everybody's from then on.
#[test]
fn members_killed_while_they_write_or_defragment_hold_what_the_others_hold() {
    within(async {
        let mut prng = seed(131);
        let mut cluster = Cluster::start(3).await;
        let load = Load::start(&cluster, 4, &mut prng);
        for round in 0..4 {
            load.progress(60).await;
            let victim = (cluster.leader().await + round) % 3;
            let client = cluster.client(victim);
            // Its answer may never come.
            let defragmentation = tokio::task::spawn_local(async move { defragment(&client).await });
            tokio::time::sleep(between(&mut prng, 0, 60)).await;
            cluster.kill(victim);
            defragmentation.abort();
            load.progress(20).await;
            cluster.restart(victim);
            cluster.wait_ready().await;
        }
        load.finish_and_check(&mut cluster).await;
        all_agree(&cluster).await;
    });
}

/// #14370. With nobody else to wait for, a lone member acknowledged what it had not yet written to its log.
#[test]
fn a_lone_member_that_is_killed_keeps_what_it_acknowledged() {
    within(async {
        let mut prng = seed(132);
        let mut cluster = Cluster::start(1).await;
        let load = Load::start(&cluster, 6, &mut prng);
        for _ in 0..4 {
            load.progress(60).await;
            tokio::time::sleep(between(&mut prng, 0, 60)).await;
            cluster.kill(0);
            cluster.restart(0);
            cluster.wait_ready().await;
        }
        load.finish_and_check(&mut cluster).await;
    });
}

/// #15220. The answer to a request for progress overtook events on their way, above all those of a watch that starts in
/// the past: a client that went on elsewhere behind that revision missed them.
#[test]
fn progress_does_not_overtake_the_events_it_speaks_of() {
    run(async {
        let cluster = Cluster::start(1).await;
        let client = cluster.client(0);
        let first = put(&client, "p/0", "x").await;
        for number in 1..1500 {
            put(&client, &format!("p/{}", number % 10), "x").await;
        }
        let writer = {
            let client = cluster.client(0);
            tokio::spawn(async move {
                for number in 0..600 {
                    put(&client, &format!("p/{}", number % 10), "y").await;
                }
            })
        };
        let mut told = 0;
        while told < 12 || !writer.is_finished() {
            let mut stream = Stream::open(&client).await;
            stream.create(from(first, prefix("p/")));
            let mut sent = first - 1;
            // What is asked before the watch stands need not be answered.
            assert!(stream.next().await.created);
            stream.ask_progress();
            loop {
                let response = stream.next().await;
                // All writes are to keys of the watch: the revisions alone show what is missing.
                for found in revisions(&response.events) {
                    assert_eq!(found, sent + 1, "a gap, or again");
                    sent = found;
                }
                if response.events.is_empty() {
                    assert_eq!(response.watch_id, -1, "{response:?}");
                    assert_eq!(revision(response.header.as_ref()), sent, "progress apart from its events");
                    break;
                }
                if is_reference() {
                    stream.ask_progress(); // It does not answer while a watch is behind.
                }
            }
            told += 1;
        }
        writer.await.expect("the writer");
    });
}

/// #15271, #20221 (and #19487), #20271. A member that had fallen behind got a snapshot. Its watches were set back to
/// where they had once been, and sent again what they had sent; one that waited for a revision of the future was
/// started at the present, and got events, and progress, from before. And a defragmentation that ran meanwhile closed
/// the file that the snapshot was being read into: the member fell over.
#[test]
fn watches_of_a_member_that_gets_a_snapshot_go_neither_back_nor_ahead() {
    if is_reference() {
        return; // It keeps its log by entries, not bytes.
    }
    /// Written while the member is stopped, in values of [`VALUE`] bytes: well beyond what the log keeps.
    const MISSED: usize = 120;
    const VALUE: usize = 1_400_000;
    run(async {
        let flag = "--experimental-watch-progress-notify-interval=100ms";
        let mut cluster = Cluster::start_with(3, &[flag]).await;
        let leader = cluster.leader().await;
        let behind = (leader + 1) % 3;
        let (client, slow) = (cluster.client(leader), cluster.client(behind));
        let notified = || WatchCreateRequest { progress_notify: true, ..prefix("w/") };
        let mut ongoing = Stream::open(&slow).await;
        ongoing.created(notified()).await;
        let before = put(&client, "w/before", "x").await;
        assert_eq!(revisions(&ongoing.events(1).await), [before]);
        // The snapshot will be at `before + MISSED + 10`: one start is before that, the other one after.
        let (inside, beyond) = (before + MISSED as i64 + 5, before + MISSED as i64 + 15);
        let mut futures = Vec::new();
        for start in [inside, beyond] {
            let mut stream = Stream::open(&slow).await;
            stream.created(from(start, notified())).await;
            futures.push((start, stream));
        }
        cluster.pause(behind);
        for at in 0..MISSED {
            client.put(&format!("missed/{at:03}"), vec![b'x'; VALUE]).await.expect("a put");
        }
        for at in 0..10 {
            put(&client, &format!("w/{at}"), "x").await;
        }
        defragment(&client).await.expect("the log is cut behind what was flushed");
        tokio::time::sleep(Duration::from_secs(2)).await;
        cluster.resume(behind);
        let defragments = tokio::spawn(async move {
            loop {
                defragment(&slow).await.expect("nothing stands in its way");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let watched: Vec<i64> = (before + MISSED as i64 + 1..=before + MISSED as i64 + 10).collect();
        assert_eq!(events_only(&mut ongoing, watched.len(), before).await, watched);
        assert!(cluster.output(behind).contains("installing a snapshot"), "it found the way without a snapshot");
        for at in 10..20 {
            put(&client, &format!("w/{at}"), "x").await;
        }
        let last = before + MISSED as i64 + 20;
        for (start, stream) in &mut futures {
            let expected: Vec<i64> = (*start..=last).collect();
            assert_eq!(events_only(stream, expected.len(), *start).await, expected);
        }
        defragments.abort();
        cluster.wait_ready().await;
        assert_eq!(all_agree(&cluster).await, last);
    });
}

/// The revisions of the next events. What is said in between must not speak of anything before `floor`.
async fn events_only(stream: &mut Stream, count: usize, floor: i64) -> Vec<i64> {
    let mut found = Vec::new();
    while found.len() < count {
        let response = stream.next().await;
        assert!(!response.canceled && !response.created, "{response:?}");
        if response.events.is_empty() {
            let told = revision(response.header.as_ref());
            assert!(told >= floor, "progress {told} of a watch from {floor} on");
        }
        found.extend(revisions(&response.events));
    }
    found
}

/// #17529. Many watches with the pair before shared a stream whose client was slow. History was compacted past them,
/// and they went on with the present: what lay in between was never sent, and nobody was told.
#[test]
fn slow_watches_of_one_stream_lose_history_aloud_or_not_at_all() {
    const WATCHES: usize = 60;
    run(async {
        let cluster = Cluster::start(1).await;
        let client = cluster.client(0);
        let mut stream = Stream::open(&cluster.client(0)).await;
        let mut next = Vec::new();
        for _ in 0..WATCHES {
            stream.created(WatchCreateRequest { prev_kv: true, ..prefix("s/") }).await;
        }
        let start = put(&client, "s/0", "first").await;
        next.resize(WATCHES, Some(start));
        let mut last = start;
        for round in 0..6 {
            for step in 0..40 {
                last = put(&client, &format!("s/{}", step % 5), vec![b'v'; 80_000]).await;
            }
            // More than the server keeps in memory; what is older is in history alone, and that goes.
            if round >= 4 {
                compact(&client, last).await;
            }
        }
        let mut lost = 0;
        while next.iter().flatten().any(|next| *next <= last) {
            let response = stream.next().await;
            let next = &mut next[usize::try_from(response.watch_id).expect("about a watch")];
            let due = next.as_mut().expect("nothing comes after the end");
            for found in revisions(&response.events) {
                assert_eq!(found, *due, "watch {} of one stream has a gap", response.watch_id);
                *due += 1;
            }
            if response.canceled {
                assert!(response.compact_revision > *due, "{response:?} ends a watch that needs {due}");
                *next = None;
                lost += 1;
            }
        }
        assert!(lost > 0, "nobody lost anything: the scenario shows nothing");
    });
}

/// #17780, #18089, #19179. The last thing that had happened was a delete, and history was compacted up to it. The
/// delete itself was swept away with the rest, so a member that was killed then found a lower revision when it started,
/// and gave revisions away twice; and a watch that started at the floor, which may, never saw the delete, sometimes
/// only after a restart.
#[test]
fn a_delete_at_the_floor_outlives_compaction_and_kill_9() {
    run(async {
        let mut prng = seed(133);
        let mut cluster = Cluster::start(1).await;
        for round in 0..4 {
            let client = cluster.client(0);
            for name in ["a", "b", "c"] {
                put(&client, &format!("t/{name}"), "x").await;
            }
            let mut deleted = 0;
            for name in ["a", "b", "c"] {
                let answer = client.delete(&format!("t/{name}")).await.expect("a delete");
                deleted = revision(answer.header.as_ref());
            }
            // Physical: the sweep is over. Else it may be under way when the process dies, in two of four rounds.
            let request = CompactionRequest { revision: deleted, physical: round % 2 == 0 };
            client.kv().compact(request).await.expect("a compaction");
            sees_delete(&client, deleted).await;
            tokio::time::sleep(between(&mut prng, 0, 40)).await;
            cluster.kill(0);
            cluster.restart(0);
            cluster.wait_ready().await;
            let client = cluster.client(0);
            let now = client.get("t/a").await.expect("a read");
            assert_eq!((revision(now.header.as_ref()), now.count), (deleted, 0), "the revision went back");
            sees_delete(&client, deleted).await;
            assert_eq!(put(&client, "t/next", "x").await, deleted + 1);
        }
    });
}

async fn sees_delete(client: &Client, deleted: i64) {
    let mut stream = Stream::open(client).await;
    stream.created(from(deleted, prefix("t/"))).await;
    assert_eq!(shorts(&stream.events(1).await), [format!("-t/c@{deleted}")]);
}

/// #18667. A transaction wrote and also read at a revision that had been compacted. The member that the client talked
/// to refused it; the others left the read out, since nobody there wanted the answer, and carried out the writes.
#[test]
fn a_transaction_that_cannot_read_is_refused_by_all_members_alike() {
    if is_reference() {
        return; // Still open there.
    }
    run(async {
        let cluster = Cluster::start(3).await;
        let first = put(&cluster.client(0), "k", "1").await;
        put(&cluster.client(0), "k", "2").await;
        let last = put(&cluster.client(0), "k", "3").await;
        compact(&cluster.client(0), last).await;
        let read_at =
            |revision| RequestOp { request: Some(Op::RequestRange(RangeRequest { revision, ..get_request("k") })) };
        for at in 0..3 {
            let client = cluster.client(at);
            for (wrong, words) in [(first, "has been compacted"), (last + 100, "is a future revision")] {
                // Before the write and after it, and as deep as it goes.
                for success in [vec![read_at(wrong), put_op("w", "x")], vec![put_op("w", "x"), read_at(wrong)]] {
                    let flat = TxnRequest { success, ..TxnRequest::default() };
                    let inner = RequestOp { request: Some(Op::RequestTxn(flat.clone())) };
                    let deep = TxnRequest { success: vec![put_op("v", "x"), inner], ..TxnRequest::default() };
                    for txn in [flat, deep] {
                        let refused = client.txn(txn).await.expect_err("a refusal");
                        assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
                        assert!(refused.message().ends_with(words), "{refused}");
                    }
                }
            }
        }
        assert_eq!(all_agree(&cluster).await, last, "something was written");
        for client in cluster.clients() {
            let request = RangeRequest { serializable: true, ..get_request("w") };
            assert_eq!(client.range(request).await.expect("a read").count, 0);
        }
    });
}

/// etcd 3.6.5 (#20590). A renewal looked the lease up, then the lease was revoked, then the renewal succeeded: the
/// client was told that a lease lives which was gone, and so were its keys.
#[test]
fn nobody_is_told_that_a_revoked_lease_was_renewed() {
    run(async {
        let cluster = Cluster::start(3).await;
        let client = cluster.client(0);
        let mut renewed = 0;
        for number in 0..15 {
            let lease = client.grant(60).await.expect("a lease");
            client.put_leased(&format!("held/{number}"), lease).await;
            let mut renewals: Vec<_> =
                cluster.clients().into_iter().map(|client| tokio::spawn(renew_until_the_end(client, lease))).collect();
            tokio::time::sleep(Duration::from_millis(number)).await;
            let revoked = client.leases().lease_revoke(LeaseRevokeRequest { id: lease }).await.expect("revoked");
            let revoked = revision(revoked.get_ref().header.as_ref());
            let late = client.keep_alive(lease).await.expect("an answer");
            assert_eq!(late, 0, "asked after it was revoked");
            for renewal in &mut renewals {
                // Its key went with it, so the lease's end has a revision of its own: nothing lives there.
                let (count, newest) = renewal.await.expect("a client");
                assert!(newest < revoked, "renewed at {newest}, revoked at {revoked}");
                renewed += count;
            }
        }
        assert!(renewed > 0, "nobody renewed anything: the scenario shows nothing");
    });
}

/// Renews a lease through one member without a pause until it is told that it is gone. How often it succeeded, and the
/// newest revision at which.
async fn renew_until_the_end(client: Client, id: i64) -> (u64, i64) {
    let (requests, outgoing) = mpsc::channel(1);
    requests.try_send(LeaseKeepAliveRequest { id }).expect("room");
    let answers = client.leases().lease_keep_alive(ReceiverStream::new(outgoing)).await;
    let mut answers = answers.expect("a stream").into_inner();
    let (mut count, mut newest) = (0, 0);
    loop {
        let answer = tokio::time::timeout(PATIENCE, answers.message()).await.expect("an answer in time");
        let answer = answer.expect("an answer").expect("the stream goes on");
        if answer.ttl <= 0 {
            return (count, newest);
        }
        (count, newest) = (count + 1, newest.max(revision(answer.header.as_ref())));
        requests.send(LeaseKeepAliveRequest { id }).await.expect("the stream goes on");
    }
}

/// etcd 3.6.12 (#21694). A learner was told another address, and the list of members forgot with it that it was a
/// learner: it could not be promoted any more, and looked like a vote that nobody had.
#[test]
fn a_learner_that_gets_another_address_stays_a_learner() {
    run(async {
        let cluster = Cluster::start(3).await;
        let (url, other) = ("http://127.0.0.1:9", "http://127.0.0.1:19");
        let added = eventually("a learner", || async {
            cluster.client(0).add(url, true).await.map_err(|status| status.to_string())
        })
        .await;
        let id = added.member.expect("the new member").id;
        eventually("another address", || async {
            cluster.client(1).update(id, other).await.map_err(|status| status.to_string())
        })
        .await;
        for client in cluster.clients() {
            listed(&client, "a learner at its new address", |members| {
                members.iter().any(|one| one.id == id && one.is_learner && one.peer_urls == [other])
                    && members.iter().filter(|one| !one.is_learner).count() == 3
            })
            .await;
        }
        // It is still one that can be promoted, when it has the data.
        let early = cluster.client(2).promote(id).await.expect_err("it has never been seen");
        assert_eq!(early.message(), "etcdserver: can only promote a learner member which is in sync with leader");
        cluster.client(2).put("k", "v").await.expect("three of three vote");
    });
}
