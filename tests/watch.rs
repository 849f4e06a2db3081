//! Watches: what a stream says and in which order, on any member, whoever else is slow, whatever is killed.

use std::collections::BTreeMap;
use std::time::Duration;

use api::etcdserverpb::watch_client::WatchClient;
use api::etcdserverpb::watch_create_request::FilterType;
use api::etcdserverpb::watch_request::RequestUnion;
use api::etcdserverpb::{
    CompactionRequest, TxnRequest, WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest,
    WatchResponse,
};
use api::mvccpb::Event;
use tokio::sync::mpsc;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming};

use crate::client::{Client, put_op, revision};
use crate::cluster::{Cluster, is_reference};
use crate::{PATIENCE, between, eventually, http, run, seed};

/// Long enough for anything that is on its way to arrive.
const QUIET: Duration = Duration::from_millis(300);

/// A stream of watches.
pub(crate) struct Stream {
    requests: mpsc::Sender<WatchRequest>,
    responses: Streaming<WatchResponse>,
}

impl Stream {
    pub(crate) async fn open(client: &Client) -> Self {
        Self::try_open(client, false).await.expect("a stream")
    }

    async fn try_open(client: &Client, needs_leader: bool) -> Result<Self, Status> {
        let (requests, outgoing) = mpsc::channel(100_000);
        let mut request = Request::new(ReceiverStream::new(outgoing));
        if needs_leader {
            request.metadata_mut().insert("hasleader", "true".parse().expect("metadata"));
        }
        let mut watch = WatchClient::new(client.channel()).max_decoding_message_size(usize::MAX);
        let responses = watch.watch(request).await?.into_inner();
        Ok(Self { requests, responses })
    }

    fn send(&self, request: RequestUnion) {
        self.requests.try_send(WatchRequest { request_union: Some(request) }).expect("room for a request");
    }

    pub(crate) fn create(&self, create: WatchCreateRequest) {
        self.send(RequestUnion::CreateRequest(create));
    }

    fn cancel(&self, watch_id: i64) {
        self.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id }));
    }

    pub(crate) fn ask_progress(&self) {
        self.send(RequestUnion::ProgressRequest(WatchProgressRequest {}));
    }

    async fn try_next(&mut self) -> Result<WatchResponse, Status> {
        let next = tokio::time::timeout(PATIENCE, self.responses.message()).await.expect("a response in time");
        next.map(|response| response.expect("the stream goes on"))
    }

    pub(crate) async fn next(&mut self) -> WatchResponse {
        self.try_next().await.expect("a response")
    }

    /// Creates a watch; the answer must be the next response.
    pub(crate) async fn created(&mut self, create: WatchCreateRequest) -> WatchResponse {
        self.create(create);
        let response = self.next().await;
        assert!(response.created && response.events.is_empty(), "{response:?}");
        response
    }

    /// As many events as wanted, from as many responses as that takes.
    pub(crate) async fn events(&mut self, count: usize) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < count {
            let response = self.next().await;
            assert!(!response.canceled && !response.created, "{response:?}");
            events.extend(response.events);
        }
        assert_eq!(events.len(), count, "too many events: {events:?}");
        events
    }

    async fn says_nothing(&mut self) {
        let next = tokio::time::timeout(QUIET, self.responses.message()).await;
        assert!(next.is_err(), "nothing should come: {next:?}");
    }
}

pub(crate) fn key(key: &str) -> WatchCreateRequest {
    WatchCreateRequest { key: key.to_owned().into(), ..Default::default() }
}

pub(crate) fn prefix(prefix: &str) -> WatchCreateRequest {
    let range = crate::client::prefix_request(prefix);
    WatchCreateRequest { key: range.key, range_end: range.range_end, ..Default::default() }
}

pub(crate) fn from(start_revision: i64, create: WatchCreateRequest) -> WatchCreateRequest {
    WatchCreateRequest { start_revision, ..create }
}

/// An event in short: `a=1@5 was 0`, `-a@6`.
fn short(event: &Event) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let kv = event.kv.as_ref().expect("every event has a key");
    let before = event.prev_kv.as_ref().map_or(String::new(), |kv| format!(" was {}", text(&kv.value)));
    match event.r#type {
        0 => format!("{}={}@{}{before}", text(&kv.key), text(&kv.value), kv.mod_revision),
        _ => format!("-{}@{}{before}", text(&kv.key), kv.mod_revision),
    }
}

pub(crate) fn shorts(events: &[Event]) -> Vec<String> {
    events.iter().map(short).collect()
}

pub(crate) fn revisions(events: &[Event]) -> Vec<i64> {
    events.iter().map(|event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision)).collect()
}

pub(crate) async fn put(client: &Client, key: &str, value: impl Into<Vec<u8>>) -> i64 {
    revision(client.put(key, value).await.expect("a put").header.as_ref())
}

pub(crate) async fn compact(client: &Client, revision: i64) {
    client.kv().compact(CompactionRequest { revision, physical: true }).await.expect("a compaction");
}

#[test]
fn one_stream_carries_many_watches_and_says_things_in_order() {
    run(async {
        let cluster = Cluster::start(1).await;
        let client = cluster.client(0);
        let first = put(&client, "w/a", "0").await;
        let mut stream = Stream::open(&client).await;

        let answer = stream.created(key("w/a")).await;
        assert_eq!((answer.watch_id, revision(answer.header.as_ref())), (0, first));
        let answer = stream.created(WatchCreateRequest { watch_id: 9, prev_kv: true, ..prefix("w/") }).await;
        assert_eq!(answer.watch_id, 9);
        let second = put(&client, "w/a", "1").await;
        assert_eq!(second, first + 1);
        let mut found = BTreeMap::new();
        for _ in 0..2 {
            let response = stream.next().await;
            assert_eq!(revision(response.header.as_ref()), second);
            found.insert(response.watch_id, shorts(&response.events));
        }
        assert_eq!(found[&0], [format!("w/a=1@{second}")]);
        assert_eq!(found[&9], [format!("w/a=1@{second} was 0")]);

        stream.cancel(0);
        let answer = stream.next().await;
        assert!(answer.canceled && answer.watch_id == 0 && answer.cancel_reason.is_empty(), "{answer:?}");
        assert_eq!(answer.compact_revision, 0);
        stream.cancel(0);
        stream.cancel(77);
        client.delete("w/a").await.expect("a delete");
        let events = stream.events(1).await;
        assert_eq!(shorts(&events), [format!("-w/a@{} was 1", second + 1)]);
        stream.says_nothing().await;

        // All events of a transaction are one response.
        let puts = (0..5).map(|at| put_op(&format!("w/{at}"), "t")).collect();
        client.txn(TxnRequest { success: puts, ..Default::default() }).await.expect("a transaction");
        assert_eq!(stream.next().await.events.len(), 5);
    });
}

#[test]
fn what_makes_no_sense_is_refused_and_the_stream_goes_on() {
    run(async {
        let cluster = Cluster::start(1).await;
        let client = cluster.client(0);
        let mut stream = Stream::open(&client).await;
        stream.created(WatchCreateRequest { watch_id: 5, ..key("r") }).await;
        let range = |from: &str, to: &str| WatchCreateRequest { range_end: to.to_owned().into(), ..key(from) };
        let mut wrong = vec![
            (WatchCreateRequest { watch_id: 5, ..key("r") }, "mvcc: duplicate watch ID provided on the WatchStream"),
            (range("r", "r"), "mvcc: watcher range is empty"),
            (range("s", "r"), "mvcc: watcher range is empty"),
        ];
        if !is_reference() {
            // Older versions of the reference take a negative revision for the present.
            wrong.push((from(-1, key("r")), "etcdserver: mvcc: required revision has been compacted"));
        }
        for (create, reason) in wrong {
            let answer = stream.created(create).await;
            assert_eq!((answer.watch_id, answer.canceled, answer.cancel_reason.as_str()), (-1, true, reason));
        }
        // An empty key with a zero byte as its end is everything.
        assert!(!stream.created(range("", "\0")).await.canceled);
        let at = put(&client, "r", "1").await;
        assert_eq!(revisions(&stream.events(2).await), [at, at]);
    });
}

#[test]
fn a_watch_starts_in_the_past_the_present_or_the_future() {
    run(async {
        let cluster = Cluster::start(1).await;
        let client = cluster.client(0);
        let mut last = 0;
        for step in 0..2500 {
            last = put(&client, if step % 2 == 0 { "p/even" } else { "p/odd" }, step.to_string()).await;
        }
        let mut stream = Stream::open(&client).await;
        stream.created(from(2, prefix("p/"))).await;
        let expected: Vec<i64> = (last - 2499..=last).collect();
        assert_eq!(revisions(&stream.events(2500).await), expected);
        // The past flows into the present without a seam.
        assert_eq!(put(&client, "p/even", "new").await, last + 1);
        assert_eq!(revisions(&stream.events(1).await), [last + 1]);

        let mut future = Stream::open(&client).await;
        future.created(from(last + 4, prefix("p/"))).await;
        future.ask_progress();
        for _ in 0..4 {
            last = put(&client, "p/odd", "more").await;
        }
        assert_eq!(revisions(&future.events(2).await), [last - 1, last]);
        future.says_nothing().await;
    });
}

#[test]
fn filters_leave_out_what_nobody_wants() {
    run(async {
        let cluster = Cluster::start(1).await;
        let client = cluster.client(0);
        let mut stream = Stream::open(&client).await;
        let filtered = |filter: FilterType| WatchCreateRequest { filters: vec![filter as i32], ..key("f") };
        let puts = stream.created(filtered(FilterType::Nodelete)).await.watch_id;
        let deletes = stream.created(filtered(FilterType::Noput)).await.watch_id;
        put(&client, "f", "1").await;
        client.delete("f").await.expect("a delete");
        let (one, other) = (stream.next().await, stream.next().await);
        assert_eq!((one.watch_id, one.events[0].r#type), (puts, 0));
        assert_eq!((other.watch_id, other.events[0].r#type), (deletes, 1));
        stream.says_nothing().await;
    });
}

#[test]
fn progress_is_told_when_asked_and_now_and_then() {
    run(async {
        let flag = "--experimental-watch-progress-notify-interval=200ms";
        let cluster = Cluster::start_with(1, &[flag]).await;
        let client = cluster.client(0);
        let mut stream = Stream::open(&client).await;
        stream.ask_progress();
        stream.says_nothing().await;
        stream.created(key("q")).await;
        let at = put(&client, "q", "1").await;
        stream.events(1).await;
        let elsewhere = put(&client, "elsewhere", "1").await;
        assert_eq!(elsewhere, at + 1);
        stream.ask_progress();
        let answer = stream.next().await;
        assert_eq!((answer.watch_id, answer.events.len(), answer.canceled), (-1, 0, false));
        assert_eq!(revision(answer.header.as_ref()), elsewhere);

        let id = stream.created(WatchCreateRequest { progress_notify: true, ..key("q2") }).await.watch_id;
        for _ in 0..2 {
            let answer = stream.next().await;
            assert_eq!((answer.watch_id, answer.events.len()), (id, 0));
            assert_eq!(revision(answer.header.as_ref()), elsewhere);
        }
    });
}

#[test]
fn large_responses_are_split_for_those_who_agree() {
    run(async {
        let cluster = Cluster::start(1).await;
        let client = cluster.client(0);
        let both = || {
            let success = vec![put_op("g/1", vec![b'x'; 700_000]), put_op("g/2", vec![b'y'; 700_000])];
            TxnRequest { success, ..Default::default() }
        };
        client.txn(both()).await.expect("a transaction");
        let mut stream = Stream::open(&client).await;
        let create = WatchCreateRequest { prev_kv: true, ..prefix("g/") };
        let whole = stream.created(create.clone()).await.watch_id;
        let split = stream.created(WatchCreateRequest { fragment: true, ..create }).await.watch_id;
        client.txn(both()).await.expect("a transaction");
        let mut shape: BTreeMap<i64, Vec<(usize, bool)>> = BTreeMap::new();
        for _ in 0..3 {
            let response = stream.next().await;
            shape.entry(response.watch_id).or_default().push((response.events.len(), response.fragment));
        }
        assert_eq!(shape[&whole], [(2, false)]);
        assert_eq!(shape[&split], [(1, true), (1, false)]);
    });
}

#[test]
fn a_watch_of_compacted_history_ends_and_says_where_history_begins() {
    run(async {
        let cluster = Cluster::start(1).await;
        let client = cluster.client(0);
        put(&client, "c", "1").await;
        put(&client, "c", "2").await;
        client.delete("c").await.expect("a delete");
        let deleted = put(&client, "other", "1").await - 1;
        compact(&client, deleted).await;
        let mut stream = Stream::open(&client).await;
        let id = stream.created(from(2, key("c"))).await.watch_id;
        let end = stream.next().await;
        assert_eq!((end.watch_id, end.canceled, end.compact_revision), (id, true, deleted));
        assert!(end.cancel_reason.is_empty() && end.events.is_empty(), "{end:?}");
        // The floor itself can still be watched, even if what happened there was a delete.
        stream.created(from(deleted, key("c"))).await;
        assert_eq!(shorts(&stream.events(1).await), [format!("-c@{deleted}")]);
    });
}

#[test]
fn every_member_serves_watches_of_everything() {
    run(async {
        let cluster = Cluster::start(3).await;
        let clients = cluster.clients();
        let start = put(&clients[0], "m/0", "x").await;
        let mut streams = Vec::new();
        for client in &clients {
            let mut stream = Stream::open(client).await;
            stream.created(from(start, prefix("m/"))).await;
            streams.push(stream);
        }
        for step in 1..300usize {
            put(&clients[step % 3], &format!("m/{step}"), "x").await;
        }
        for stream in &mut streams {
            let expected: Vec<i64> = (start..start + 300).collect();
            assert_eq!(revisions(&stream.events(300).await), expected);
            stream.ask_progress();
            let progress = stream.next().await;
            assert_eq!((progress.watch_id, revision(progress.header.as_ref())), (-1, start + 299));
        }
    });
}

#[test]
fn a_watch_goes_on_elsewhere_without_a_gap_when_its_node_is_killed() {
    run(async {
        let mut prng = seed(71);
        let mut cluster = Cluster::start(3).await;
        let start = put(&cluster.client(0), "k/start", "x").await + 1;
        let clients = cluster.clients();
        let writer = tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for step in 0usize.. {
                let key = format!("k/{step}");
                // An unknown outcome may be either; what counts is what the watch says about the revisions.
                let answer = clients[step % 3].with_timeout(Duration::from_secs(3)).put(&key, "x").await;
                if let Ok(answer) = answer {
                    acknowledged.push((key, revision(answer.header.as_ref())));
                }
                if acknowledged.len() == 1500 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            acknowledged
        });
        let mut seen: Vec<(String, i64)> = Vec::new();
        let mut at = 1;
        for _ in 0..4 {
            let next = seen.last().map_or(start, |(_, revision)| revision + 1);
            let mut stream = Stream::open(&cluster.client(at)).await;
            stream.created(from(next, prefix("k/"))).await;
            let until = tokio::time::Instant::now() + between(&mut prng, 300, 900);
            while tokio::time::Instant::now() < until {
                let Ok(next) = tokio::time::timeout_at(until, stream.try_next()).await else { break };
                note(&mut seen, &next.expect("a response").events);
            }
            cluster.kill(at);
            // What had arrived before the end still counts.
            while let Ok(Ok(response)) = tokio::time::timeout(PATIENCE, stream.try_next()).await {
                note(&mut seen, &response.events);
            }
            let killed = at;
            at = (at + 1) % 3;
            cluster.restart(killed);
            cluster.wait_ready().await;
        }
        let acknowledged = writer.await.expect("the writer");
        let last = acknowledged.iter().map(|(_, revision)| *revision).max().expect("some");
        let mut stream = Stream::open(&cluster.client(at)).await;
        let next = seen.last().map_or(start, |(_, revision)| revision + 1);
        stream.created(from(next, prefix("k/"))).await;
        while seen.last().is_none_or(|(_, revision)| *revision < last) {
            note(&mut seen, &stream.next().await.events);
        }
        // Every revision is a write to one of these keys: a gap or a repetition shows in the numbers alone.
        let found: Vec<i64> = seen.iter().map(|(_, revision)| *revision).collect();
        assert_eq!(found, (start..start + found.len() as i64).collect::<Vec<_>>());
        let by_revision: BTreeMap<i64, &String> = seen.iter().map(|(key, revision)| (*revision, key)).collect();
        for (key, revision) in &acknowledged {
            assert_eq!(by_revision.get(revision), Some(&key), "what was acknowledged at {revision}");
        }
    });
}

fn note(seen: &mut Vec<(String, i64)>, events: &[Event]) {
    for event in events {
        let kv = event.kv.as_ref().expect("a key");
        seen.push((String::from_utf8_lossy(&kv.key).into_owned(), kv.mod_revision));
    }
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody_and_misses_nothing() {
    run(async {
        let cluster = Cluster::start(1).await;
        let client = cluster.client(0);
        let mut slow = Vec::new();
        for _ in 0..20 {
            // Connections of their own: a connection has one window for all its streams.
            let mut stream = Stream::open(&cluster.client(0)).await;
            stream.created(prefix("s/")).await;
            slow.push(stream);
        }
        let mut fast = Stream::open(&cluster.client(0)).await;
        fast.created(prefix("s/")).await;
        let first = put(&client, "s/0", "first").await;
        fast.events(1).await;
        // Far more than all the buffers in between can hold: what the slow ones miss must come from history.
        for step in 1..=600 {
            let at = put(&client, &format!("s/{}", step % 7), vec![b'v'; 60_000]).await;
            assert_eq!(revisions(&fast.events(1).await), [at]);
        }
        let expected: Vec<i64> = (first..=first + 600).collect();
        for stream in &mut slow[..3] {
            assert_eq!(revisions(&stream.events(601).await), expected);
        }
        if !is_reference() {
            let port = cluster.nodes[0].client_port;
            let metrics = || async move {
                tokio::task::spawn_blocking(move || http::get(port, "/metrics")).await.expect("a thread")
            };
            let (_, text) = metrics().await.expect("metrics");
            assert!(text.contains("\netcd_debugging_mvcc_watcher_total 21\n"), "{text}");
            // Whoever is gone leaves nothing behind.
            drop(slow);
            drop(fast);
            eventually("watches of vanished clients are gone", || async move {
                let (_, text) = metrics().await.map_err(|cause| cause.to_string())?;
                let gone = ["watcher_total 0\n", "watch_stream_total 0\n", "slow_watcher_total 0\n"];
                if gone.iter().all(|end| text.contains(&format!("etcd_debugging_mvcc_{end}"))) {
                    return Ok(());
                }
                Err(text.lines().filter(|line| line.contains("mvcc_watch")).collect())
            })
            .await;
        }
    });
}

#[test]
fn thousands_of_watches_hear_of_their_own_keys_only() {
    const WATCHES: usize = 10_000;
    run(async {
        let cluster = Cluster::start(1).await;
        let client = cluster.client(0);
        let mut stream = Stream::open(&client).await;
        for number in 0..WATCHES {
            stream.create(key(&format!("n/{number:05}")));
        }
        for number in 0..WATCHES {
            let answer = stream.next().await;
            assert!(answer.created && !answer.canceled && answer.watch_id == number as i64, "{answer:?}");
        }
        for number in [0, 1, 4321, WATCHES - 1] {
            put(&client, &format!("n/{number:05}"), "x").await;
            let response = stream.next().await;
            assert_eq!((response.watch_id, response.events.len()), (number as i64, 1));
        }
        stream.says_nothing().await;
    });
}

#[test]
fn a_stream_that_needs_a_leader_ends_without_one() {
    run(async {
        let mut cluster = Cluster::start(3).await;
        let client = cluster.client(0);
        let mut needy = Stream::try_open(&client, true).await.expect("there is a leader");
        needy.created(key("l")).await;
        let mut modest = Stream::open(&client).await;
        modest.created(key("l")).await;
        cluster.kill(1);
        cluster.kill(2);
        let end = needy.try_next().await.expect_err("no leader");
        assert_eq!((end.code(), end.message()), (Code::Unavailable, "etcdserver: no leader"));
        let refused = async || match Stream::try_open(&client, true).await {
            Ok(mut stream) => stream.try_next().await.expect_err("no leader"),
            Err(status) => status,
        };
        let refused = refused().await;
        assert_eq!((refused.code(), refused.message()), (Code::Unavailable, "etcdserver: no leader"));
        modest.says_nothing().await;
        cluster.restart(1);
        cluster.wait_ready().await;
        let at = put(&cluster.client(1), "l", "1").await;
        assert_eq!(revisions(&modest.events(1).await), [at]);
    });
}

#[test]
fn a_stopping_node_ends_its_streams() {
    run(async {
        let mut cluster = Cluster::start(1).await;
        let mut stream = Stream::open(&cluster.client(0)).await;
        stream.created(key("z")).await;
        cluster.terminate(0);
        let end = stream.try_next().await.expect_err("the node stops");
        if !is_reference() {
            assert_eq!((end.code(), end.message()), (Code::Unavailable, "etcdserver: server stopped"));
        }
        assert!(cluster.wait_exit(0).await.success() || is_reference());
    });
}
