//! Sizes that large teams reach: thousands of watchers of which many do not read, hundreds of thousands of leases of
//! which thousands end at the same moment. Nobody else is hurt.
//!
//! Small versions run with every other scenario. The full ones print figures:
//! `cargo test -p sinew --test black_box scale -- --ignored --nocapture --test-threads 1`

use std::time::{Duration, Instant};

use api::etcdserverpb::{LeaseLeasesRequest, MoveLeaderRequest, RangeRequest};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::client::{Client, prefix_request};
use crate::cluster::{Cluster, is_reference};
use crate::overload::resident_bytes;
use crate::run;
use crate::watch::{Stream, key, prefix, put, revisions};

/// Watches that share a stream, as those of one program do.
const WATCHES_PER_STREAM: usize = 100;
/// Streams that share a connection.
const STREAMS_PER_CONNECTION: usize = 50;
/// What those who do not read should have read: far more than all buffers on the way hold.
const LARGE_PUTS: usize = 400;
const LARGE: usize = 20_000;
/// Puts of which each is seen by one watcher, and measured.
const MEASURED_PUTS: usize = 500;
/// Memory that watchers may cost a node beside what it has.
const MEMORY_MAX: u64 = 512 << 20;
/// Grants under way at the same time.
const GRANTERS: usize = 64;

#[test]
fn watchers_that_do_not_read_hurt_nobody() {
    run(watchers(1_000, 100));
}

#[test]
#[ignore = "takes a minute and prints figures; see the head of this file"]
fn ten_thousand_watchers_of_which_a_thousand_do_not_read() {
    run(watchers(10_000, 1_000));
}

#[test]
fn thousands_of_leases_that_end_at_once_stop_nobody() {
    run(leases(20_000, 2_000));
}

#[test]
#[ignore = "takes a minute and prints figures; see the head of this file"]
fn half_a_million_leases_of_which_ten_thousand_end_at_once() {
    run(leases(500_000, 10_000));
}

/// Durations, for their middle and their worst.
#[derive(Default)]
struct Figures(Vec<Duration>);

impl Figures {
    fn text(&mut self) -> String {
        self.0.sort_unstable();
        let at = |share: usize| self.0[(self.0.len() - 1) * share / 100].as_secs_f64() * 1e3;
        format!("p50 {:.2} ms, p99 {:.2} ms, worst {:.2} ms", at(50), at(99), at(100))
    }
}

#[expect(clippy::print_stderr, reason = "figures are there to be read")]
fn say(figures: &str) {
    eprintln!("{figures}");
}

async fn watchers(all: usize, slow: usize) {
    let cluster = Cluster::start(3).await;
    let writer = cluster.client(1);
    let (arrivals, mut arrived) = mpsc::unbounded_channel();
    let mut readers = JoinSet::new();
    let mut connection = cluster.client(0);
    for (number, first) in (0..all - slow).step_by(WATCHES_PER_STREAM).enumerate() {
        if number.is_multiple_of(STREAMS_PER_CONNECTION) {
            connection = cluster.client(0);
        }
        let mut stream = Stream::open(&connection).await;
        for watch in first..(first + WATCHES_PER_STREAM).min(all - slow) {
            stream.created(key(&format!("own/{watch}"))).await;
        }
        let arrivals = arrivals.clone();
        readers.spawn(async move {
            loop {
                let response = stream.next().await;
                assert!(!response.canceled, "{response:?}");
                for at in revisions(&response.events) {
                    arrivals.send((at, Instant::now())).expect("the test listens");
                }
            }
        });
    }
    let before = measure_watched_puts(&writer, &mut arrived, all - slow, None).await.text();

    let resident = resident_bytes(cluster.nodes[0].client_port).await;
    let mut idle = Vec::new();
    for number in 0..slow {
        if number.is_multiple_of(STREAMS_PER_CONNECTION) {
            connection = cluster.client(0);
        }
        let mut stream = Stream::open(&connection).await;
        stream.created(prefix("large/")).await;
        idle.push(stream);
    }
    let mut large = Vec::new();
    for number in 0..LARGE_PUTS / 2 {
        large.push(put_large(&writer, number).await);
    }
    let during = measure_watched_puts(&writer, &mut arrived, all - slow, Some(&mut large)).await.text();
    let more = resident_bytes(cluster.nodes[0].client_port).await.saturating_sub(resident);
    say(&format!("{all} watchers of one node, put to event: {before}; with {slow} more that do not read: {during}"));
    say(&format!("resident memory of that node rose by {} MiB", more >> 20));
    assert!(more < MEMORY_MAX || is_reference(), "{slow} watchers that do not read cost {} MiB", more >> 20);
    // Whoever reads at last has missed nothing. One stream of each connection: the others hold its window.
    drop(idle.split_off(1));
    assert_eq!(revisions(&idle[0].events(large.len()).await), large);
}

async fn put_large(writer: &Client, number: usize) -> i64 {
    put(writer, &format!("large/{}", number % 7), vec![b'x'; LARGE]).await
}

/// From the sending of a put to its event at the one watcher of its key. Between the puts, large ones go to those who
/// do not read.
async fn measure_watched_puts(
    writer: &Client,
    arrived: &mut mpsc::UnboundedReceiver<(i64, Instant)>,
    keys: usize,
    mut large: Option<&mut Vec<i64>>,
) -> Figures {
    let mut figures = Figures::default();
    for number in 0..MEASURED_PUTS {
        if let Some(large) = &mut large
            && large.len() < LARGE_PUTS
        {
            large.push(put_large(writer, number).await);
        }
        let sent = Instant::now();
        let written = put(writer, &format!("own/{}", number * 7919 % keys), "x").await;
        let (at, when) = arrived.recv().await.expect("the readers read");
        assert_eq!(at, written, "another event than that of this put");
        figures.0.push(when - sent);
    }
    figures
}

async fn leases(all: usize, ending: usize) {
    const TTL_S: i64 = 10;
    let cluster = Cluster::start(3).await;
    let started = Instant::now();
    grant(&cluster, all - ending, 36_000, None).await;
    let took = started.elapsed();
    say(&format!("{} leases granted in {:.1} s", all - ending, took.as_secs_f64()));
    grant(&cluster, ending, TTL_S, Some("ending/")).await;

    // A new leader knows no better than to give all of them their whole time: they end at the same moment.
    let client = cluster.client(0);
    let handed_over = Instant::now();
    hand_over(&cluster).await;
    let mut puts = Figures::default();
    let (mut first_gone, mut last_gone) = (None, None);
    for number in 0_u64.. {
        let sent = Instant::now();
        client.put("busy", number.to_string()).await.expect("nobody is held up until its time is over");
        puts.0.push(sent.elapsed());
        let counted = client.range(RangeRequest { count_only: true, ..prefix_request("ending/") }).await;
        let left = counted.expect("a range").count as usize;
        if left < ending {
            first_gone.get_or_insert_with(|| handed_over.elapsed());
        }
        if left == 0 {
            last_gone = Some(handed_over.elapsed());
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (first, last) = (first_gone.expect("some ended"), last_gone.expect("all ended"));
    say(&format!(
        "{ending} of {all} leases of {TTL_S} s ended {:.2} s to {:.2} s after the leader changed; puts meanwhile: {}",
        first.as_secs_f64(),
        last.as_secs_f64(),
        puts.text()
    ));
    assert!(first >= Duration::from_millis(TTL_S as u64 * 990), "ended after {first:?}");
    let mut lister = client.leases().max_decoding_message_size(usize::MAX);
    let left = lister.lease_leases(LeaseLeasesRequest {}).await;
    assert_eq!(left.expect("a list").into_inner().leases.len(), all - ending);
}

/// Grants `count` leases through all nodes at once, each with a key if there is a prefix for it.
async fn grant(cluster: &Cluster, count: usize, ttl: i64, prefix: Option<&'static str>) {
    let clients = cluster.clients();
    let mut granters = JoinSet::new();
    for granter in 0..GRANTERS {
        let client = clients[granter % clients.len()].clone();
        granters.spawn(async move {
            for number in (granter..count).step_by(GRANTERS) {
                let lease = client.grant(ttl).await.expect("a lease");
                if let Some(prefix) = prefix {
                    client.put_leased(&format!("{prefix}{number}"), lease).await;
                }
            }
        });
    }
    while let Some(granter) = granters.join_next().await {
        granter.expect("a granter");
    }
}

/// Leadership goes from whoever has it to another.
async fn hand_over(cluster: &Cluster) {
    let leader = cluster.leader().await;
    let next = (leader + 1) % cluster.nodes.len();
    let target_id = cluster.client(next).id().await;
    let moved = cluster.client(leader).maintenance().move_leader(MoveLeaderRequest { target_id }).await;
    moved.expect("leadership moves");
    assert_eq!(cluster.leader().await, next);
}
