//! What operators look at and do: fingerprints, quota and alarms, compaction without being asked, leadership.

use std::process::Command;

use api::etcdserverpb::lease_client::LeaseClient;
use api::etcdserverpb::maintenance_client::MaintenanceClient;
use api::etcdserverpb::{
    AlarmRequest, AlarmType, CompactionRequest, DefragmentRequest, DeleteRangeRequest, DowngradeRequest, HashKvRequest,
    HashKvResponse, LeaseGrantRequest, RangeRequest, TxnRequest,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::client::{Client, get_request, prefix_request, put_op, revision};
use crate::cluster::{Cluster, binary, is_reference, run_to_end};
use crate::{eventually, http, run};

const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";
const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";

impl Client {
    pub(crate) fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel())
    }

    pub(crate) async fn hash(&self, revision: i64) -> Result<HashKvResponse, Status> {
        self.maintenance().hash_kv(HashKvRequest { revision }).await.map(tonic::Response::into_inner)
    }

    /// The alarms that are up, as pairs of member and kind.
    async fn alarms(&self) -> Vec<(u64, AlarmType)> {
        let answer = self.maintenance().alarm(AlarmRequest::default()).await.expect("an answer").into_inner();
        answer.alarms.iter().map(|alarm| (alarm.member_id, alarm.alarm())).collect()
    }

    async fn compact(&self, revision: i64) {
        self.kv().compact(CompactionRequest { revision, physical: true }).await.expect("a compaction");
    }

    async fn get_at(&self, revision: i64) -> Result<(), Status> {
        self.range(RangeRequest { revision, ..get_request("k") }).await.map(drop)
    }
}

#[test]
fn members_agree_on_the_fingerprint_of_a_revision() {
    run(async {
        let cluster = Cluster::start(3).await;
        let clients = cluster.clients();
        let mut last = 0;
        for number in 0..20 {
            let put = clients[number % 3].put(&format!("hash/{}", number % 7), "v").await.expect("a put");
            last = revision(put.header.as_ref());
        }
        let mut hashes = Vec::new();
        for client in &clients {
            // A member may be behind: it says so, and does not hash something else.
            let hash = || async { client.hash(last).await.map_err(|status| status.to_string()) };
            hashes.push(eventually("the member has it", hash).await);
        }
        let first = &hashes[0];
        for other in &hashes {
            assert_eq!((other.hash, other.compact_revision), (first.hash, first.compact_revision));
        }
        clients[0].put("hash/1", "w").await.expect("a put");
        assert_eq!(clients[0].hash(last).await.expect("the past").hash, first.hash, "the past does not change");
        assert_ne!(clients[0].hash(0).await.expect("the present").hash, first.hash);
        let future = clients[0].hash(last + 1000).await.expect_err("not reached");
        assert_eq!(future.message(), "etcdserver: mvcc: required revision is a future revision");
        clients[0].compact(last).await;
        let gone = clients[0].hash(last - 1).await.expect_err("compacted");
        assert_eq!((gone.code(), gone.message()), (Code::OutOfRange, COMPACTED));
        assert_eq!(clients[0].hash(last).await.expect("the floor").compact_revision, last);
    });
}

#[test]
fn a_used_up_quota_refuses_what_needs_space_until_there_is_some_again() {
    run(async {
        let cluster = Cluster::start_with(3, &["--quota-backend-bytes", "16777216"]).await;
        let client = cluster.client(0);
        let refused = loop {
            if let Err(status) = client.put("full/k", vec![7; 500_000]).await {
                break status;
            }
        };
        assert_eq!((refused.code(), refused.message()), (Code::ResourceExhausted, NO_SPACE));
        eventually("the alarm goes up", || async {
            let alarms = client.alarms().await;
            if alarms.iter().any(|(_, kind)| *kind == AlarmType::Nospace) { Ok(()) } else { Err(format!("{alarms:?}")) }
        })
        .await;
        for (at, node) in cluster.nodes.iter().enumerate() {
            let other = cluster.client(at);
            other.get("full/k").await.expect("a read");
            let txn = TxnRequest { failure: vec![put_op("full/t", "1")], ..Default::default() };
            let grant = LeaseClient::new(other.channel()).lease_grant(LeaseGrantRequest { id: 0, ttl: 60 }).await;
            let refusals =
                [other.put("full/small", "1").await.map(drop), other.txn(txn).await.map(drop), grant.map(drop)];
            for refused in refusals {
                assert_eq!(refused.expect_err("no space").message(), NO_SPACE);
            }
            let errors = other.status().await.expect("a status").errors;
            assert!(errors.iter().any(|error| error.contains("alarm:NOSPACE")), "{errors:?}");
            let port = node.client_port;
            let health = tokio::task::spawn_blocking(move || http::get(port, "/health")).await.expect("a thread");
            let (code, body) = health.expect("an answer");
            assert!(code == 503 && body.contains("ALARM NOSPACE"), "{code} {body}");
        }
        let everything = prefix_request("full/");
        let request = DeleteRangeRequest { key: everything.key, range_end: everything.range_end, ..Default::default() };
        let deleted = client.kv().delete_range(request).await.expect("deletes need no space").into_inner();
        client.compact(revision(deleted.header.as_ref())).await;
        if is_reference() {
            return; // It waits for an operator.
        }
        eventually("there is room again", || async {
            client.put("full/again", "1").await.map_err(|status| status.to_string())
        })
        .await;
        assert_eq!(client.alarms().await, []);
    });
}

/// Three members that were started from these states: each is a list of values of one key.
async fn members_apart(folder: &std::path::Path, states: [&[&str]; 3]) -> Cluster {
    let path = |state: &[&str]| folder.join(state.join("-")).to_str().expect("a path in UTF-8").to_owned();
    let mut cluster = Cluster::prepare(3, &["--corrupt-check-time=1s"]);
    for (node, state) in cluster.nodes.iter().zip(states) {
        if !folder.join(state.join("-")).exists() {
            let old = Cluster::start(1).await;
            for value in state {
                old.client(0).put("k", *value).await.expect("a put");
            }
            let mut save = Command::new(binary());
            save.args(["snapshot", "save", &path(state), &format!("--endpoints={}", old.nodes[0].endpoint())]);
            assert_eq!(run_to_end(save).status.code(), Some(0));
        }
        let own = ["--name", "--data-dir", "--initial-cluster", "--initial-advertise-peer-urls"];
        let flags = node.flags.chunks(2).filter(|pair| own.contains(&pair[0].as_str())).flatten();
        let mut restore = Command::new(binary());
        restore.args(["snapshot", "restore", &path(state)]).args(flags);
        assert_eq!(run_to_end(restore).status.code(), Some(0));
    }
    for at in 0..3 {
        cluster.restart(at);
    }
    cluster
}

/// Waits for an alarm, and says of whom.
async fn alarmed(cluster: &Cluster) -> (u64, AlarmType) {
    let alarm = eventually("an alarm", || async {
        let answer = cluster.client(0).maintenance().alarm(AlarmRequest::default()).await;
        let alarms = answer.map_err(|status| status.to_string())?.into_inner().alarms;
        alarms.first().cloned().ok_or_else(|| "no alarm yet".to_owned())
    })
    .await;
    (alarm.member_id, alarm.alarm())
}

/// As after etcd's #13766: a member has applied what all have applied, and its revision is lower. It never reaches the
/// one at which members are compared, and is not taken for one that lags.
#[test]
fn a_member_that_left_something_out_raises_an_alarm() {
    if is_reference() {
        return; // It passes over whoever has not reached the revision.
    }
    run(async {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let cluster = members_apart(folder.path(), [&["one", "two"], &["one", "two"], &["two"]]).await;
        // Whoever leads: from one floor on, which a restored state has at its own revision, all can be compared.
        let short = cluster.client(2);
        for value in ["three", "four"] {
            let put = || async {
                match short.put("k", value).await {
                    // The alarm may be up already.
                    Err(status) if status.code() == Code::DataLoss => Ok(None),
                    put => put.map(Some).map_err(|status| status.to_string()),
                }
            };
            let Some(put) = eventually("a write", put).await else { break };
            let request = CompactionRequest { revision: revision(put.header.as_ref()), physical: false };
            // The same.
            let _ = short.kv().compact(request).await;
        }
        let (wrong, kind) = alarmed(&cluster).await;
        assert_eq!((wrong, kind), (cluster.client(2).id().await, AlarmType::Corrupt));
    });
}

#[test]
fn a_member_that_holds_something_else_raises_an_alarm_and_nothing_is_served() {
    if is_reference() {
        return; // Its snapshots have another tool.
    }
    run(async {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // As many writes, but not the same ones: states that are whole and differ.
        let cluster = members_apart(folder.path(), [&["one"], &["one"], &["two"]]).await;
        let (wrong, kind) = alarmed(&cluster).await;
        assert_eq!((wrong, kind), (cluster.client(2).id().await, AlarmType::Corrupt));
        for at in [0, 2] {
            let client = cluster.client(at);
            let refused = eventually("everybody knows", || async {
                client.put("k", "three").await.err().ok_or_else(|| "it was written".to_owned())
            })
            .await;
            assert_eq!((refused.code(), refused.message()), (Code::DataLoss, "etcdserver: corrupt cluster"));
            assert_eq!(client.get("k").await.expect_err("a refusal").code(), Code::DataLoss);
            let (code, body) = http::get(cluster.nodes[at].client_port, "/health").expect("an answer");
            assert!(code == 503 && body.contains("ALARM CORRUPT"), "{code} {body}");
        }
        // Whoever is wrong goes; then the alarm is cleared, and stays down.
        eventually("it is removed", || async {
            match cluster.client(0).remove(wrong).await {
                Err(status) if status.code() != Code::NotFound => Err(status.to_string()),
                _ => Ok(()),
            }
        })
        .await;
        eventually("the alarm is cleared", || async {
            let mut disarm = Command::new(binary());
            disarm.args(["alarm", "disarm", &format!("--endpoints={}", cluster.nodes[0].endpoint())]);
            let output = run_to_end(disarm).output;
            if output == format!("memberID:{wrong} alarm:CORRUPT \n") { Ok(()) } else { Err(output) }
        })
        .await;
        let put = || async { cluster.client(1).put("k", "v").await.map_err(|status| status.to_string()) };
        eventually("a write", put).await;
        // Several comparisons of those who are left.
        tokio::time::sleep(std::time::Duration::from_secs(4)).await;
        eventually("another write", put).await;
        assert_eq!(cluster.client(0).alarms().await, []);
    });
}

#[test]
fn a_downgrade_is_refused_in_the_references_words() {
    if is_reference() {
        return; // It has versions to go back to.
    }
    run(async {
        let cluster = Cluster::start(1).await;
        let mut client = cluster.client(0).maintenance();
        let (validate, enable, cancel) = (0, 1, 2);
        for (action, version, code, text) in [
            (validate, "3.6", Code::InvalidArgument, "etcdserver: invalid downgrade target version"),
            (enable, "3.6.0", Code::InvalidArgument, "etcdserver: invalid downgrade target version"),
            (validate, "soon", Code::InvalidArgument, "etcdserver: wrong downgrade target version format"),
            (enable, "", Code::InvalidArgument, "etcdserver: wrong downgrade target version format"),
            (cancel, "", Code::FailedPrecondition, "etcdserver: no inflight downgrade job"),
        ] {
            let request = DowngradeRequest { action, version: version.to_owned() };
            let refused = client.downgrade(request).await.expect_err("a refusal");
            assert_eq!((refused.code(), refused.message()), (code, text), "{action} {version}");
        }
        let mut verb = Command::new(binary());
        verb.args(["downgrade", "validate", "3.6", &format!("--endpoints={}", cluster.nodes[0].endpoint())]);
        let ended = run_to_end(verb);
        assert_eq!(ended.status.code(), Some(1));
        assert!(ended.output.contains("invalid downgrade target version"), "{}", ended.output);
    });
}

#[test]
fn history_is_compacted_without_being_asked() {
    run(async {
        let cluster = Cluster::start_with(3, &["--auto-compaction-retention", "1s"]).await;
        let client = cluster.client(1);
        let first = revision(client.put("k", "0").await.expect("a put").header.as_ref());
        client.get_at(first).await.expect("it is young");
        eventually("the first revision is compacted", || async {
            client.put("k", "more").await.map_err(|status| status.to_string())?;
            match client.get_at(first).await {
                Err(status) if status.message() == COMPACTED => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        client.get_at(0).await.expect("the present is never compacted");
    });
}

#[test]
fn upkeep_verbs_say_what_etcdctl_says() {
    if is_reference() {
        return; // It is not a client.
    }
    run(async {
        let cluster = Cluster::start(3).await;
        cluster.client(0).put("k", "v").await.expect("a put");
        let list = cluster.endpoints();
        let endpoints = format!("--endpoints={}", list.join(","));
        let ctl = |words: &[&str]| {
            let mut command = Command::new(binary());
            command.arg(&endpoints).args(words);
            let ended = run_to_end(command);
            (ended.status.code().expect("an exit code"), ended.output)
        };
        let hash = cluster.client(0).hash(2).await.expect("a hash").hash;
        let lines: String = list.iter().map(|endpoint| format!("{endpoint}, {hash}\n")).collect();
        eventually("all members have it", || async {
            let said = ctl(&["endpoint", "hashkv", "--rev", "2"]);
            if said == (0, lines.clone()) { Ok(()) } else { Err(format!("{said:?}")) }
        })
        .await;
        let finished: String =
            list.iter().map(|endpoint| format!("Finished defragmenting etcd member[{endpoint}]\n")).collect();
        assert_eq!(ctl(&["defrag"]), (0, finished));
        assert_eq!(ctl(&["alarm", "list"]), (0, String::new()));
        let member = cluster.client(1).status().await.expect("a status").header.expect("a header").member_id;
        let request = AlarmRequest { action: 1, member_id: member, alarm: AlarmType::Nospace as i32 };
        cluster.client(2).maintenance().alarm(request).await.expect("an alarm");
        // It goes by itself in a moment, since there is room; whoever is faster.
        let (code, said) = ctl(&["alarm", "disarm"]);
        assert!(code == 0 && (said.is_empty() || said == format!("memberID:{member} alarm:NOSPACE \n")), "{said}");
        let leader = cluster.leader().await;
        let (from, to) = (leader, (leader + 1) % 3);
        let mut ids = Vec::new();
        for at in [from, to] {
            let status = cluster.client(at).status().await.expect("a status");
            ids.push(format!("{:x}", status.header.expect("a header").member_id));
        }
        let transferred = format!("Leadership transferred from {} to {}\n", ids[0], ids[1]);
        assert_eq!(ctl(&["move-leader", &ids[1]]), (0, transferred));
        assert_eq!(cluster.leader().await, to);
        assert_eq!(ctl(&["move-leader", "nobody"]).0, 2);
        let (code, said) = ctl(&["move-leader", "1234"]);
        assert!(code == 1 && said.contains("bad leader transferee"), "{said}");
        cluster.client(0).maintenance().defragment(DefragmentRequest {}).await.expect("an answer");
    });
}
