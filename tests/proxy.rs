//! A network that can be bad: a proxy before the peer address of every node, for all others to dial.
//!
//! It reads frames (docs/formats/peer.md), so that it can lose, hold back, repeat or damage one message at a time, and
//! greetings, so that it knows whose messages they are and can cut a link in one direction.
//! Invariant: with fair weather and nothing cut, bytes pass as they came.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::Prng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until};

use crate::cluster::Cluster;

/// Bytes of a frame before its body.
const HEADER_BYTES: usize = 8;
/// Where a hello holds the varints of cluster and speaker.
const MAGIC_BYTES: usize = 6;

/// What happens to messages, each per thousand.
#[derive(Clone, Copy, Default)]
pub(crate) struct Weather {
    /// Never arrive.
    pub(crate) lost: u64,
    /// Arrive twice.
    pub(crate) repeated: u64,
    /// Are overtaken by those behind them.
    pub(crate) overtaken: u64,
    /// Have one bit turned.
    pub(crate) damaged: u64,
    /// All are late by up to so much.
    pub(crate) delay_ms_max: u64,
}

/// What happened to messages so far.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) passed: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) repeated: AtomicU64,
    pub(crate) overtaken: AtomicU64,
    pub(crate) damaged: AtomicU64,
    /// Lost on a link that was cut.
    pub(crate) cut: AtomicU64,
}

/// The network between the nodes of one cluster. Links go from and to nodes by their place in the cluster.
#[derive(Clone)]
pub(crate) struct Network(Arc<Shared>);

struct Shared {
    weather: Mutex<Weather>,
    cuts: Mutex<BTreeSet<(usize, usize)>>,
    /// A link whose next frame says that it is longer than it is.
    stretched: Mutex<Option<(usize, usize)>>,
    prng: Mutex<Prng>,
    counts: Counts,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Network {
    /// Puts itself between the nodes of a cluster that is not started yet.
    pub(crate) async fn between(cluster: &mut Cluster, prng: &mut Prng) -> Self {
        let shared = Shared {
            weather: Mutex::default(),
            cuts: Mutex::default(),
            stretched: Mutex::default(),
            prng: Mutex::new(Prng::new(prng.next_u64())),
            counts: Counts::default(),
        };
        let network = Self(Arc::new(shared));
        let mut ports = Vec::new();
        for (at, node) in cluster.nodes.iter().enumerate() {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port for a proxy");
            ports.push((node.peer_port, listener.local_addr().expect("a bound port").port()));
            tokio::spawn(accept(network.clone(), listener, at, node.peer_port));
        }
        for node in &mut cluster.nodes {
            let mut flag = String::new();
            for word in &mut node.flags {
                // What the node listens on stays as it is.
                if ["--initial-cluster", "--initial-advertise-peer-urls"].contains(&flag.as_str()) {
                    for (real, proxy) in &ports {
                        *word = word.replace(&format!("127.0.0.1:{real}"), &format!("127.0.0.1:{proxy}"));
                    }
                }
                flag.clone_from(word);
            }
        }
        network
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.0.counts
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        *lock(&self.0.weather) = weather;
    }

    /// Loses everything that goes from one node to another from now on; the connection stands.
    pub(crate) fn cut(&self, from: usize, to: usize) {
        lock(&self.0.cuts).insert((from, to));
    }

    /// The same in both directions.
    pub(crate) fn cut_both_ways(&self, one: usize, other: usize) {
        self.cut(one, other);
        self.cut(other, one);
    }

    /// Damages the length of the next frame from one node to another, so that megabytes seem to follow.
    pub(crate) fn stretch_a_frame(&self, from: usize, to: usize) {
        *lock(&self.0.stretched) = Some((from, to));
    }

    /// Mends all links.
    pub(crate) fn heal(&self) {
        lock(&self.0.cuts).clear();
    }

    fn is_cut(&self, from: usize, to: usize) -> bool {
        lock(&self.0.cuts).contains(&(from, to))
    }
}

async fn accept(network: Network, listener: TcpListener, to: usize, port: u16) {
    while let Ok((stream, _)) = listener.accept().await {
        let network = network.clone();
        tokio::spawn(async move {
            // A connection that breaks is what both ends must be able to live with.
            let _ = serve(&network, stream, to, port).await;
        });
    }
}

/// Passes a connection on to node `to` until either end closes it.
async fn serve(network: &Network, mut dialler: TcpStream, to: usize, port: u16) -> io::Result<()> {
    let mut input = Vec::new();
    let hello = loop {
        match take(&mut input) {
            Some(frame) => break frame,
            None if dialler.read_buf(&mut input).await? == 0 => return Ok(()),
            None => {}
        }
    };
    let from = speaker(&hello[HEADER_BYTES..]).ok_or(io::ErrorKind::InvalidData)?;
    if network.is_cut(from, to) || network.is_cut(to, from) {
        return Ok(());
    }
    let mut target = TcpStream::connect(("127.0.0.1", port)).await?;
    dialler.set_nodelay(true)?;
    target.set_nodelay(true)?;
    target.write_all(&hello).await?;
    let (reader, mut answers) = dialler.into_split();
    let (mut welcome, writer) = target.into_split();
    let there = carry(network, (from, to), input, reader, writer);
    tokio::select! {
        ended = there => ended,
        ended = tokio::io::copy(&mut welcome, &mut answers) => ended.map(|_| ()),
    }
}

/// Takes one whole frame off the front, with its header.
fn take(input: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = u32::from_le_bytes(*input.first_chunk::<4>()?) as usize;
    let whole = HEADER_BYTES + length;
    (input.len() >= whole).then(|| input.drain(..whole).collect())
}

/// The place of the node that says hello, which is the number in its name.
fn speaker(hello: &[u8]) -> Option<usize> {
    let mut rest = hello.get(MAGIC_BYTES..)?;
    for _ in ["cluster", "node", "to"] {
        let length = rest.iter().position(|byte| byte & 0x80 == 0)? + 1;
        rest = &rest[length..];
    }
    let name = rest.get(1 + 8..)?;
    let name = name.get(1..1 + usize::from(*name.first()?))?;
    std::str::from_utf8(name).ok()?.strip_prefix('n')?.parse().ok()
}

/// Whether a message may come twice, or behind others. Forwarded commands and their answers may not: a node relies on
/// its connections for that, as TCP lets it.
fn is_repeatable(frame: &[u8]) -> bool {
    matches!(frame.get(HEADER_BYTES), Some(1 | 4 | 5 | 6))
}

/// Carries frames in one direction, through the weather.
async fn carry(
    network: &Network,
    (from, to): (usize, usize),
    mut input: Vec<u8>,
    mut reader: OwnedReadHalf,
    mut writer: OwnedWriteHalf,
) -> io::Result<()> {
    let mut sky = Sky { waiting: BTreeMap::new(), last: Instant::now(), number: 0 };
    loop {
        while let Some(mut frame) = take(&mut input) {
            if lock(&network.0.stretched).take_if(|link| *link == (from, to)).is_some() {
                frame[2] ^= 0x80;
            }
            if network.is_cut(from, to) {
                count(&network.counts().cut);
            } else {
                sky.take_up(network, frame);
            }
        }
        let due = sky.waiting.first_key_value().map(|((due, _), _)| *due);
        tokio::select! {
            read = reader.read_buf(&mut input) => if read? == 0 { return Ok(()) },
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                let (_, frame) = sky.waiting.pop_first().expect("something is due");
                writer.write_all(&frame).await?;
            }
        }
    }
}

/// Frames on their way over one connection.
struct Sky {
    waiting: BTreeMap<(Instant, u64), Vec<u8>>,
    /// When the last of those that keep their order arrives.
    last: Instant,
    number: u64,
}

impl Sky {
    /// Decides what becomes of a frame.
    fn take_up(&mut self, network: &Network, mut frame: Vec<u8>) {
        let weather = *lock(&network.0.weather);
        let counts = network.counts();
        let mut prng = lock(&network.0.prng);
        let mut chance = |of_thousand| prng.below(1000) < of_thousand;
        let (lost, damaged) = (chance(weather.lost), chance(weather.damaged));
        let is_repeatable = is_repeatable(&frame);
        let (repeated, overtaken) = (chance(weather.repeated) && is_repeatable, chance(weather.overtaken));
        if lost {
            return count(&counts.lost);
        }
        count(&counts.passed);
        if damaged {
            count(&counts.damaged);
            let bit = prng.below(8 * frame.len() as u64);
            frame[bit as usize / 8] ^= 1 << (bit % 8);
        }
        let now = Instant::now();
        let mut delay = || now + Duration::from_millis(prng.below(weather.delay_ms_max + 1));
        self.last = self.last.max(delay());
        if repeated {
            count(&counts.repeated);
            let again = self.last + Duration::from_millis(weather.delay_ms_max);
            self.put(again, frame.clone());
        }
        if overtaken && is_repeatable {
            count(&counts.overtaken);
            let late = self.last + Duration::from_millis(1 + weather.delay_ms_max);
            self.put(late, frame);
        } else {
            self.put(self.last, frame);
        }
    }

    fn put(&mut self, due: Instant, frame: Vec<u8>) {
        self.number += 1;
        self.waiting.insert((due, self.number), frame);
    }
}

#[test]
fn who_says_hello_is_understood() {
    // The golden bytes of the format, with a node's name as these tests give it and a cluster id of two bytes.
    let hello = b"SINEW\x01\x81\x01\x02\x03\x01\x09\0\0\0\0\0\0\0\x02n7\x01\x01u";
    assert_eq!(speaker(hello), Some(7));
    assert_eq!(speaker(&hello[..12]), None);
}

#[test]
fn frames_are_taken_whole() {
    let mut input = b"\x02\0\0\0\x59\x72\x5a\x88hi\x01\0\0\0".to_vec();
    assert_eq!(take(&mut input).as_deref(), Some(&b"\x02\0\0\0\x59\x72\x5a\x88hi"[..]));
    assert_eq!(take(&mut input), None);
    assert_eq!(input.len(), 4);
}
