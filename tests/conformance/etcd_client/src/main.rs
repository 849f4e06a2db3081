//! Drives a running cluster with the Rust client `etcd-client`.
//!
//! usage: etcd-client-conformance ENDPOINTS (host:port, comma separated)
//!
//! What it is answered goes into the file named by ANSWERS, which `cargo xtask conformance` compares with what etcd
//! answers.

use std::fmt::Debug;
use std::fs::File;
use std::io::Write;
use std::time::Duration;

use etcd_client::{
    AlarmAction, AlarmType, Client, CompactionOptions, Compare, CompareOp, DeleteOptions, Error, EventType, GetOptions,
    KeyValue, LockOptions, PutOptions, SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse, WatchOptions,
};

/// Checks made so far; the first that fails ends the run.
struct Checks {
    made: u32,
    answers: Option<File>,
}

impl Checks {
    fn same<T: PartialEq + Debug>(&mut self, name: &str, expected: T, actual: T) {
        assert_eq!(expected, actual, "FAIL {name}");
        self.made += 1;
    }

    /// Writes an answer down and passes it on.
    fn show<T: Debug>(&mut self, name: &str, answer: T) -> T {
        if let Some(answers) = &mut self.answers {
            writeln!(answers, "== {name}\n{answer:#?}").expect("the answers are written");
        }
        answer
    }

    fn refused<T: Debug>(&mut self, name: &str, text: &str, result: Result<T, Error>) {
        match result {
            Err(Error::GRpcStatus(status)) => {
                self.show(name, (status.code(), status.message()));
                self.same(name, text, status.message());
            }
            other => panic!("FAIL {name}: expected {text:?}, got {other:?}"),
        }
    }
}

fn pairs(kvs: &[KeyValue]) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    kvs.iter().map(|kv| (text(kv.key()), text(kv.value()))).collect()
}

fn pair(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let endpoints = std::env::args().nth(1).expect("usage: etcd-client-conformance ENDPOINTS");
    let endpoints: Vec<&str> = endpoints.split(',').collect();
    let mut client = Client::connect(&endpoints, None).await?;
    let answers = std::env::var_os("ANSWERS").map(|path| File::create(path).expect("a file for the answers"));
    let mut checks = Checks { made: 0, answers };
    tokio::time::timeout(Duration::from_secs(120), async {
        keys(&mut client, &mut checks).await?;
        transactions(&mut client, &mut checks).await?;
        watches(&mut client, &mut checks).await?;
        leases(&mut client, &mut checks).await?;
        locks(&mut client, &mut checks).await?;
        elections(&mut client, &mut checks).await?;
        upkeep(&mut client, &mut checks).await
    })
    .await
    .expect("done within two minutes")?;
    println!("etcd-client: {} checks passed", checks.made);
    Ok(())
}

async fn keys(client: &mut Client, checks: &mut Checks) -> Result<(), Error> {
    let first = client.put("rs/a", "1", None).await?.header().map(|header| header.revision()).unwrap_or_default();
    let put = checks.show("put", client.put("rs/a", "2", Some(PutOptions::new().with_prev_key())).await?);
    checks.same("previous value", Some(&b"1"[..]), put.prev_key().map(KeyValue::value));
    client.put("rs/b", "b", None).await?;
    let descending = GetOptions::new().with_prefix().with_sort(SortTarget::Key, SortOrder::Descend);
    let all = checks.show("get descending", client.get("rs/", Some(descending)).await?);
    checks.same("sorted", vec![pair("rs/b", "b"), pair("rs/a", "2")], pairs(all.kvs()));
    let past = checks.show("get at a revision", client.get("rs/a", Some(GetOptions::new().with_revision(first))).await?);
    checks.same("past", vec![pair("rs/a", "1")], pairs(past.kvs()));
    let limited = checks.show("get with a limit", client.get("rs/", Some(GetOptions::new().with_prefix().with_limit(1))).await?);
    checks.same("more", (true, 2), (limited.more(), limited.count()));
    let gone = checks.show("delete", client.delete("rs/", Some(DeleteOptions::new().with_prefix().with_prev_key())).await?);
    checks.same("deleted", (2, 2), (gone.deleted(), gone.prev_kvs().len()));
    checks.refused("empty key", "etcdserver: key is not provided", client.put("", "x", None).await);
    checks.show("compact", client.compact(first, Some(CompactionOptions::new().with_physical())).await?);
    let compacted = client.get("rs/a", Some(GetOptions::new().with_revision(first - 1))).await;
    checks.refused("compacted", "etcdserver: mvcc: required revision has been compacted", compacted);
    Ok(())
}

async fn transactions(client: &mut Client, checks: &mut Checks) -> Result<(), Error> {
    let txn = || {
        Txn::new()
            .when(vec![Compare::version("rs/txn", CompareOp::Equal, 0)])
            .and_then(vec![TxnOp::put("rs/txn", "made", None), TxnOp::get("rs/txn", None)])
            .or_else(vec![TxnOp::delete("rs/txn", None)])
    };
    let made = checks.show("txn", client.txn(txn()).await?);
    checks.same("succeeded", true, made.succeeded());
    match made.op_responses().as_slice() {
        [TxnOpResponse::Put(_), TxnOpResponse::Get(got)] => {
            checks.same("reads its write", vec![pair("rs/txn", "made")], pairs(got.kvs()));
        }
        other => panic!("FAIL txn answers: {other:?}"),
    }
    let found = checks.show("txn again", client.txn(txn()).await?);
    checks.same("did not succeed", false, found.succeeded());
    let twice = Txn::new().and_then(vec![TxnOp::put("rs/x", "1", None), TxnOp::put("rs/x", "2", None)]);
    checks.refused("duplicate key", "etcdserver: duplicate key given in txn request", client.txn(twice).await);
    Ok(())
}

async fn watches(client: &mut Client, checks: &mut Checks) -> Result<(), Error> {
    let options = WatchOptions::new().with_prefix().with_prev_key();
    let mut stream = client.watch("rs/watch/", Some(options.with_watch_id(7))).await?;
    client.put("rs/watch/a", "1", None).await?;
    client.put("rs/watch/a", "2", None).await?;
    client.delete("rs/watch/a", None).await?;
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let batch = stream.message().await?.expect("the watch goes on");
        for event in batch.events() {
            checks.show("event", event);
            let previous = event.prev_kv().map(|kv| kv.value_str().unwrap_or("?").to_owned());
            let value = event.kv().map(|kv| kv.value_str().unwrap_or("?").to_owned());
            seen.push((event.event_type(), value.unwrap_or_default(), previous.unwrap_or_default()));
        }
    }
    let expected = [(EventType::Put, "1", ""), (EventType::Put, "2", "1"), (EventType::Delete, "", "2")];
    let expected = expected.map(|(kind, value, previous)| (kind, value.to_owned(), previous.to_owned()));
    checks.same("events", expected.to_vec(), seen);
    stream.request_progress().await?;
    let progress = checks.show("progress", stream.message().await?.expect("the watch goes on"));
    checks.same("progress has no events", 0, progress.events().len());
    stream.cancel(7).await?;
    let last = checks.show("canceled", stream.message().await?.expect("a last word"));
    checks.same("canceled", true, last.canceled());
    Ok(())
}

async fn leases(client: &mut Client, checks: &mut Checks) -> Result<(), Error> {
    let lease = checks.show("grant", client.lease_grant(60, None).await?);
    checks.same("granted", 60, lease.ttl());
    client.put("rs/lease", "x", Some(PutOptions::new().with_lease(lease.id()))).await?;
    let (mut keeper, mut kept) = client.lease_keep_alive(lease.id()).await?;
    keeper.keep_alive().await?;
    let kept = checks.show("keep alive", kept.message().await?);
    checks.same("kept alive", Some(60), kept.map(|answer| answer.ttl()));
    let left = client.lease_time_to_live(lease.id(), None).await?;
    checks.same("time to live", 60, left.granted_ttl());
    checks.same("listed", true, client.leases().await?.leases().iter().any(|found| found.id() == lease.id()));
    checks.show("revoke", client.lease_revoke(lease.id()).await?);
    checks.same("gone with its lease", 0, client.get("rs/lease", None).await?.kvs().len());
    let again = client.lease_revoke(lease.id()).await;
    checks.refused("revoked again", "etcdserver: requested lease not found", again);
    Ok(())
}

async fn locks(client: &mut Client, checks: &mut Checks) -> Result<(), Error> {
    let lease = client.lease_grant(60, None).await?.id();
    let other = client.lease_grant(60, None).await?.id();
    let first = client.lock("rs/lock", Some(LockOptions::new().with_lease(lease))).await?.key().to_vec();
    checks.show("lock key", String::from_utf8_lossy(&first));
    checks.same("lock key", format!("rs/lock/{lease:x}"), String::from_utf8_lossy(&first).into_owned());
    let mut waiting = client.clone();
    let wait = tokio::spawn(async move { waiting.lock("rs/lock", Some(LockOptions::new().with_lease(other))).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    checks.same("the second waits", false, wait.is_finished());
    client.unlock(first).await?;
    let second = wait.await.expect("a task that ends")?;
    checks.same("then has it", format!("rs/lock/{other:x}").into_bytes(), second.key().to_vec());
    client.unlock(second.key()).await?;
    Ok(())
}

async fn elections(client: &mut Client, checks: &mut Checks) -> Result<(), Error> {
    let lease = client.lease_grant(60, None).await?.id();
    let won = client.campaign("rs/election", "one", lease).await?;
    let leader = won.leader().expect("a leader").clone();
    checks.same("lease of the leader", lease, leader.lease());
    let found = client.leader("rs/election").await?;
    checks.show("leader", (found.header().map(|header| header.revision()), found.kv().map(KeyValue::create_revision)));
    checks.same("leader", Some(&b"one"[..]), found.kv().map(KeyValue::value));
    let mut observed = client.observe("rs/election").await?;
    let first = observed.message().await?.expect("the observer hears");
    checks.same("observed", Some(&b"one"[..]), first.kv().map(KeyValue::value));
    client.resign(Some(etcd_client::ResignOptions::new().with_leader(leader))).await?;
    checks.refused("no leader", "election: no leader", client.leader("rs/election").await);
    Ok(())
}

async fn upkeep(client: &mut Client, checks: &mut Checks) -> Result<(), Error> {
    checks.same("members", 3, client.member_list().await?.members().len());
    checks.same("has a leader", true, client.status().await?.leader() != 0);
    let alarms = checks.show("alarms", client.alarm(AlarmAction::Get, AlarmType::None, None).await?);
    checks.same("alarms", 0, alarms.alarms().len());
    let revision = |header: Option<&etcd_client::ResponseHeader>| header.map_or(0, |header| header.revision());
    let put = client.put("rs/kept", "x", None).await?;
    // A member hashes what it has, and the one that is asked may not have the pair yet.
    let mut hashed = client.hash_kv(0).await?;
    while revision(hashed.header()) < revision(put.header()) {
        hashed = client.hash_kv(0).await?;
    }
    checks.same("hash", true, hashed.hash() != 0);
    Ok(())
}
