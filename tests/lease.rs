//! Leases, locks and elections on real processes: nothing ends early, whoever leads; nobody holds what another holds.
//!
//! "Not early" is judged by this process's clock, from before the last renewal was sent: whatever the machine was busy
//! with, a lease that is gone sooner was ended early.

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use api::etcdserverpb::lease_client::LeaseClient;
use api::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest,
    PutRequest, TxnRequest,
};
use api::v3electionpb::election_client::ElectionClient;
use api::v3electionpb::{CampaignRequest, LeaderRequest, ProclaimRequest, ResignRequest};
use api::v3lockpb::lock_client::LockClient;
use api::v3lockpb::{LockRequest, UnlockRequest};
use tonic::{Code, Request, Status};

use crate::client::{Client, prefix_request, put_op, put_request, revision};
use crate::cluster::{Cluster, binary, is_reference, run_to_end};
use crate::{between, eventually, run, seed};

impl Client {
    pub(crate) fn leases(&self) -> LeaseClient<tonic::transport::Channel> {
        LeaseClient::new(self.channel())
    }

    pub(crate) async fn grant(&self, ttl: i64) -> Result<i64, Status> {
        let granted = self.leases().lease_grant(LeaseGrantRequest { id: 0, ttl }).await?.into_inner();
        assert_eq!(granted.ttl, ttl);
        Ok(granted.id)
    }

    pub(crate) async fn put_leased(&self, key: &str, lease: i64) -> i64 {
        let request = PutRequest { lease, ..put_request(key, "v") };
        revision(self.put_request(request).await.expect("a put with a lease").header.as_ref())
    }

    /// Renews once; the seconds the lease has.
    pub(crate) async fn keep_alive(&self, id: i64) -> Result<i64, Status> {
        let requests = tokio_stream::once(LeaseKeepAliveRequest { id });
        let mut answers = self.leases().lease_keep_alive(requests).await?.into_inner();
        let answer = tokio::time::timeout(Duration::from_secs(12), answers.message()).await;
        let answer = answer.map_err(|_| Status::deadline_exceeded("no answer"))??;
        answer.map(|answer| answer.ttl).ok_or_else(|| Status::unavailable("the stream ended"))
    }

    /// Seconds left, -1 if there is no such lease; and the keys attached.
    async fn time_to_live(&self, id: i64) -> (i64, Vec<String>) {
        let answer = self.leases().lease_time_to_live(LeaseTimeToLiveRequest { id, keys: true }).await;
        let answer = answer.expect("an answer").into_inner();
        (answer.ttl, answer.keys.iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect())
    }

    async fn has(&self, key: &str) -> bool {
        self.get(key).await.expect("a read").count > 0
    }

    async fn lock(&self, name: &str, lease: i64) -> Result<(String, i64), Status> {
        let request = LockRequest { name: name.to_owned().into(), lease };
        let answer = LockClient::new(self.channel()).lock(request).await?;
        let key = String::from_utf8(answer.get_ref().key.to_vec()).expect("the key of a lock is text");
        // The reference tells no token: it has to be read.
        let token = match answer.metadata().get("sinew-fence-token") {
            Some(token) => token.to_str().ok().and_then(|token| token.parse().ok()).expect("a number"),
            None => self.get(&key).await?.kvs.first().ok_or_else(|| Status::aborted("lost"))?.create_revision,
        };
        Ok((key, token))
    }

    async fn unlock(&self, key: &str) -> Result<(), Status> {
        let request = UnlockRequest { key: key.to_owned().into() };
        LockClient::new(self.channel()).unlock(request).await.map(drop)
    }
}

fn fenced<M>(message: M, key: &str, token: i64) -> Request<M> {
    let mut request = Request::new(message);
    let fence = format!("{key}={token}").parse().expect("printable");
    request.metadata_mut().insert("sinew-fence", fence);
    request
}

/// Waits for the end of a lease's key; fails if it comes before `not_before`.
async fn ends(client: &Client, key: &str, not_before: Instant) {
    eventually("the lease ends", || async {
        let found = client.get(key).await.map_err(|status| status.to_string())?;
        if found.count > 0 {
            return Err("the key is there".to_owned());
        }
        Ok(())
    })
    .await;
    let early = not_before.saturating_duration_since(Instant::now());
    assert!(early.is_zero(), "ended {early:?} early");
}

/// What a clock that is 1 % fast leaves of a time to live.
fn at_least(ttl_s: u64) -> Duration {
    Duration::from_millis(ttl_s * 990)
}

#[test]
fn lease_ends_with_all_its_keys_at_one_revision_and_not_early() {
    run(async {
        let cluster = Cluster::start(3).await;
        let clients = cluster.clients();
        let before = Instant::now();
        let lease = clients[0].grant(3).await.expect("a lease");
        clients[1].put_leased("lease/a", lease).await;
        let last = clients[2].put_leased("lease/b", lease).await;
        let (left, keys) = clients[1].time_to_live(lease).await;
        assert!((0..=3).contains(&left), "{left}");
        assert_eq!(keys, ["lease/a", "lease/b"]);
        ends(&clients[0], "lease/a", before + at_least(3)).await;
        let after = clients[1].range(prefix_request("lease/")).await.expect("a range");
        assert_eq!((after.count, revision(after.header.as_ref())), (0, last + 1));
        assert_eq!(clients[2].time_to_live(lease).await, (-1, vec![]));
        assert_eq!(clients[0].keep_alive(lease).await.expect("an answer"), 0);
        let again = clients[0].leases().lease_revoke(LeaseRevokeRequest { id: lease }).await.expect_err("it is gone");
        assert_eq!((again.code(), again.message()), (Code::NotFound, "etcdserver: requested lease not found"));
    });
}

#[test]
fn lease_requests_are_refused_in_the_references_words() {
    run(async {
        let cluster = Cluster::start(1).await;
        let mut leases = cluster.client(0).leases();
        let refused = async |leases: &mut LeaseClient<_>, id, ttl| {
            let status = leases.lease_grant(LeaseGrantRequest { id, ttl }).await.expect_err("refused");
            (status.code(), status.message().to_owned())
        };
        let granted = leases.lease_grant(LeaseGrantRequest { id: 77, ttl: 1 }).await.expect("a lease").into_inner();
        assert_eq!((granted.id, granted.ttl), (77, 2), "raised to the least a cluster can keep");
        let taken = refused(&mut leases, 77, 60).await;
        assert_eq!(taken, (Code::FailedPrecondition, "etcdserver: lease already exists".to_owned()));
        let long = refused(&mut leases, 78, 9_000_000_001).await;
        assert_eq!(long, (Code::OutOfRange, "etcdserver: too large lease TTL".to_owned()));
        let put = PutRequest { lease: 99, ..put_request("k", "v") };
        let status = cluster.client(0).put_request(put).await.expect_err("no such lease");
        assert_eq!((status.code(), status.message()), (Code::NotFound, "etcdserver: requested lease not found"));
        let other = leases.lease_grant(LeaseGrantRequest { id: 0, ttl: 60 }).await.expect("a lease").into_inner().id;
        assert!(other > 0);
        let listed = leases.lease_leases(LeaseLeasesRequest {}).await.expect("a list").into_inner();
        let mut ids: Vec<_> = listed.leases.iter().map(|lease| lease.id).collect();
        ids.sort_unstable();
        assert!(ids.contains(&other), "{ids:?}");
        leases.lease_revoke(LeaseRevokeRequest { id: other }).await.expect("revoked");
    });
}

#[test]
fn killing_the_leader_ends_no_lease_early() {
    run(async {
        let mut cluster = Cluster::start(3).await;
        let leader = cluster.leader().await;
        let other = cluster.client((leader + 1) % 3);
        let before = Instant::now();
        let (kept, left) = (other.grant(6).await.expect("a lease"), other.grant(6).await.expect("a lease"));
        other.put_leased("kept", kept).await;
        other.put_leased("left", left).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        cluster.kill(leader);
        let mut renewed = before;
        for _ in 0..8 {
            let asked = Instant::now();
            match other.keep_alive(kept).await {
                Ok(1..) => renewed = asked,
                Ok(_) => assert!(renewed.elapsed() > at_least(6), "lost while its client renewed it"),
                Err(_) => {}
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert!(other.has("kept").await || renewed.elapsed() > at_least(6));
        ends(&other, "left", before + at_least(6)).await;
        ends(&other, "kept", renewed + at_least(6)).await;
        cluster.restart(leader);
        cluster.wait_ready().await;
        assert!(!cluster.client(leader).has("kept").await);
    });
}

#[test]
fn a_leader_that_was_stopped_ends_no_lease_when_it_goes_on() {
    run(async {
        let cluster = Cluster::start(3).await;
        let leader = cluster.leader().await;
        let other = cluster.client((leader + 1) % 3);
        let lease = other.grant(4).await.expect("a lease");
        other.put_leased("k", lease).await;
        cluster.pause(leader);
        let mut renewed = Instant::now();
        let paused = Instant::now();
        let mut resumed = false;
        while paused.elapsed() < Duration::from_secs(14) {
            let asked = Instant::now();
            match other.keep_alive(lease).await {
                Ok(1..) => renewed = asked,
                // On a very busy machine its client may really have been too late; nothing can be told then.
                Ok(_) => return assert!(renewed.elapsed() > at_least(4), "ended while its client renewed it"),
                Err(_) => {}
            }
            if !resumed && paused.elapsed() > Duration::from_secs(8) {
                cluster.resume(leader);
                resumed = true;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        assert!(other.has("k").await || renewed.elapsed() > at_least(4));
    });
}

#[test]
fn a_cluster_that_was_down_gives_leases_their_time_again() {
    run(async {
        let mut cluster = Cluster::start(1).await;
        let lease = cluster.client(0).grant(5).await.expect("a lease");
        cluster.client(0).put_leased("k", lease).await;
        cluster.kill(0);
        tokio::time::sleep(Duration::from_secs(6)).await;
        let started = Instant::now();
        cluster.restart(0);
        cluster.wait_ready().await;
        assert_eq!(cluster.client(0).time_to_live(lease).await.1, ["k"]);
        ends(&cluster.client(0), "k", started + at_least(5)).await;
    });
}

#[test]
fn a_fence_lets_only_the_present_holder_write() {
    if is_reference() {
        return; // It knows no fences.
    }
    run(async {
        let cluster = Cluster::start(1).await;
        let client = cluster.client(0);
        let lease = client.grant(60).await.expect("a lease");
        let (key, token) = client.lock("fenced", lease).await.expect("the lock");
        let mut kv = client.kv();
        kv.put(fenced(put_request("doc", "1"), &key, token)).await.expect("the holder may");
        let txn = TxnRequest { success: vec![put_op("doc", "2")], ..Default::default() };
        let answer = kv.txn(fenced(txn.clone(), &key, token)).await.expect("the holder may").into_inner();
        assert!(answer.succeeded && answer.responses.len() == 1, "{answer:?}");
        client.unlock(&key).await.expect("unlocked");
        // Somebody else holds it now, under another token.
        let (other_key, other_token) =
            client.lock("fenced", client.grant(60).await.expect("a lease")).await.expect("it");
        assert!(other_token > token && other_key != key);
        let before = client.get("doc").await.expect("a read");
        let refusals = [
            kv.put(fenced(put_request("doc", "late"), &key, token)).await.map(drop),
            kv.txn(fenced(txn, &key, token)).await.map(drop),
            kv.delete_range(fenced(
                api::etcdserverpb::DeleteRangeRequest { key: "doc".into(), ..Default::default() },
                &key,
                token,
            ))
            .await
            .map(drop),
            kv.put(fenced(put_request("doc", "late"), &other_key, token)).await.map(drop),
        ];
        for refused in refusals {
            let status = refused.expect_err("a former holder may not");
            assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
            assert!(status.message().contains("fence does not hold"), "{status}");
        }
        assert_eq!(client.get("doc").await.expect("a read"), before, "nothing was written");
        let malformed = kv.put(fenced(put_request("doc", "x"), "", 0)).await.expect_err("no fence");
        assert_eq!(malformed.code(), Code::InvalidArgument);
    });
}

/// What one contender did while it believed to hold the lock.
#[derive(Debug, Clone, Copy)]
struct Write {
    token: i64,
    revision: i64,
}

/// Takes the lock, writes twice behind its fence, gives it back; errors are part of the game.
async fn contend(client: &Client, writes: &Mutex<Vec<Write>>) -> Result<(), Status> {
    let lease = client.grant(5).await?;
    let (key, token) = tokio::time::timeout(Duration::from_secs(20), client.lock("shared", lease))
        .await
        .map_err(|_| Status::deadline_exceeded("the lock"))??;
    for _ in 0..2 {
        let done = client.kv().put(fenced(put_request("shared-doc", token.to_string()), &key, token)).await?;
        let revision = revision(done.get_ref().header.as_ref());
        writes.lock().expect("not poisoned").push(Write { token, revision });
    }
    client.unlock(&key).await
}

#[test]
fn contended_lock_has_one_holder_at_a_time_under_kill_9() {
    if is_reference() {
        return; // Without fences a former holder may write.
    }
    run(async {
        let mut cluster = Cluster::start(3).await;
        let mut prng = seed(41);
        let writes = Arc::<Mutex<Vec<Write>>>::default();
        let end = Instant::now() + Duration::from_secs(20);
        let contenders: Vec<_> = (0..6)
            .map(|number| {
                let (clients, writes) = (cluster.clients(), Arc::clone(&writes));
                tokio::spawn(async move {
                    let mut turn = number;
                    let mut failures = 0;
                    while Instant::now() < end {
                        turn += 1;
                        failures += usize::from(contend(&clients[turn % 3], &writes).await.is_err());
                    }
                    failures
                })
            })
            .collect();
        for _ in 0..3 {
            tokio::time::sleep(between(&mut prng, 2_000, 4_000)).await;
            let leader = cluster.leader().await;
            cluster.kill(leader);
            tokio::time::sleep(between(&mut prng, 500, 1_500)).await;
            cluster.restart(leader);
        }
        for contender in contenders {
            contender.await.expect("no contender panics");
        }
        let mut writes = std::mem::take(&mut *writes.lock().expect("not poisoned"));
        writes.sort_by_key(|write| write.revision);
        assert!(writes.len() >= 10, "only {} writes", writes.len());
        for pair in writes.windows(2) {
            assert!(pair[0].token <= pair[1].token, "a former holder wrote after the next: {pair:?}");
            assert!(pair[0].token < pair[0].revision, "{pair:?}");
        }
    });
}

#[test]
fn a_contender_whose_client_goes_away_leaves_the_queue() {
    run(async {
        let cluster = Cluster::start(1).await;
        let client = cluster.client(0);
        let (first, second) = (client.grant(60).await.expect("a lease"), client.grant(60).await.expect("a lease"));
        let (held, _) = client.lock("left", first).await.expect("the lock");
        let waiting = tokio::time::timeout(Duration::from_secs(2), client.lock("left", second)).await;
        assert!(waiting.is_err(), "two hold the lock");
        eventually("the contender leaves", || async {
            let queue = client.range(prefix_request("left/")).await.map_err(|status| status.to_string())?;
            if queue.count == 1 { Ok(()) } else { Err(format!("{} in the queue", queue.count)) }
        })
        .await;
        assert!(client.has(&held).await);
    });
}

#[test]
fn an_election_has_one_leader_and_observers_see_them_in_order() {
    run(async {
        let cluster = Cluster::start(3).await;
        let client = cluster.client(0);
        let election = |at: usize| ElectionClient::new(cluster.client(at).channel());
        let nobody = election(0).leader(LeaderRequest { name: "e".into() }).await.expect_err("nobody leads");
        assert_eq!((nobody.code(), nobody.message()), (Code::Unknown, "election: no leader"));
        let seen = election(2).observe(LeaderRequest { name: "e".into() }).await.expect("a stream").into_inner();
        let (first, second) = (client.grant(60).await.expect("a lease"), client.grant(60).await.expect("a lease"));
        let campaign = |lease, value: &'static str| CampaignRequest { name: "e".into(), lease, value: value.into() };
        let one = election(0).campaign(campaign(first, "one")).await.expect("elected").into_inner();
        let one = one.leader.expect("a key");
        let waiting = tokio::spawn({
            let (mut election, request) = (election(1), campaign(second, "two"));
            async move { election.campaign(request).await.map(tonic::Response::into_inner) }
        });
        election(1)
            .proclaim(ProclaimRequest { leader: Some(one.clone()), value: "one again".into() })
            .await
            .expect("the leader may");
        assert!(!waiting.is_finished(), "two leaders");
        election(0).resign(ResignRequest { leader: Some(one.clone()) }).await.expect("resigned");
        let two = waiting.await.expect("no panic").expect("elected").leader.expect("a key");
        assert!(two.rev > one.rev, "{two:?} after {one:?}");
        let late = election(1).proclaim(ProclaimRequest { leader: Some(one), value: "late".into() }).await;
        assert_eq!(late.expect_err("not any more").message(), "election: not leader");
        let missing = election(1).resign(ResignRequest { leader: None }).await.expect_err("no leader named");
        assert_eq!(missing.message(), "\"leader\" field must be provided");
        // An observer may come too late for a value, not for the last one, and never sees them out of order.
        let mut seen = seen;
        let expected = ["one", "one again", "two"];
        let mut at = 0;
        while at < expected.len() {
            let told = tokio::time::timeout(crate::PATIENCE, seen.message()).await.expect("in time");
            let value = told.expect("the stream goes on").expect("an answer").kv.expect("a leader").value;
            at += expected[at..].iter().position(|expected| *expected == value).expect("in order") + 1;
        }
        let leader = election(2).leader(LeaderRequest { name: "e".into() }).await.expect("a leader").into_inner();
        assert_eq!(leader.kv.expect("a pair").value, "two");
    });
}

#[test]
fn lease_lock_and_elect_work_from_the_command_line() {
    if is_reference() {
        return; // It is not a client.
    }
    run(async {
        let cluster = Cluster::start(1).await;
        let endpoint = format!("--endpoints={}", cluster.nodes[0].endpoint());
        let ctl = |words: &[&str]| {
            let mut command = Command::new(binary());
            command.arg(&endpoint).args(words);
            let ended = run_to_end(command);
            (ended.status.code().expect("an exit code"), ended.output)
        };
        let (code, granted) = ctl(&["lease", "grant", "60"]);
        assert!(code == 0 && granted.ends_with(" granted with TTL(60s)\n"), "{granted}");
        let id = granted.split_whitespace().nth(1).expect("an id").to_owned();
        assert_eq!(ctl(&["put", "--lease", &id, "a", "1"]), (0, "OK\n".to_owned()));
        let (_, shown) = ctl(&["lease", "timetolive", "--keys", &id]);
        assert!(shown.starts_with(&format!("lease {id} granted with TTL(60s), remaining(")), "{shown}");
        assert!(shown.ends_with("s), attached keys([a])\n"), "{shown}");
        assert_eq!(ctl(&["lease", "keep-alive", "--once", &id]), (0, format!("lease {id} keepalived with TTL(60)\n")));
        assert_eq!(ctl(&["lease", "list"]), (0, format!("found 1 leases\n{id}\n")));
        assert_eq!(ctl(&["lease", "revoke", &id]), (0, format!("lease {id} revoked\n")));
        assert_eq!(ctl(&["lease", "timetolive", &id]), (0, format!("lease {id} already expired\n")));
        assert_eq!(
            ctl(&["lease", "revoke", &id]),
            (1, "Error: failed to revoke lease (etcdserver: requested lease not found)\n".to_owned())
        );
        assert_eq!(ctl(&["get", "a"]), (0, String::new()));
        assert_eq!(ctl(&["lease", "revoke", "zz"]).0, 2);

        assert_eq!(ctl(&["lock", "job", "sh", "-c", "exit 7"]), (7, String::new()));
        let program = binary();
        let program = program.to_str().expect("a path in UTF-8");
        // The lock's fence reaches the program that the command calls; without the lock it does not hold.
        let inner = format!("{program} {endpoint} put doc 1 && echo $ETCD_LOCK_KEY $SINEW_FENCE");
        let (code, said) = ctl(&["lock", "job", "--", "sh", "-c", &inner]);
        assert!(code == 0 && said.starts_with("OK\njob/"), "{said}");
        let fence = said.split_whitespace().nth(2).expect("a fence");
        let (code, said) = ctl(&["put", "--fence", fence, "doc", "2"]);
        assert!(code == 1 && said.contains("fence does not hold"), "{said}");
        assert_eq!(ctl(&["get", "doc", "--print-value-only"]), (0, "1\n".to_owned()));
        assert_eq!(ctl(&["elect", "only-a-name"]).0, 2);
    });
}
