//! `sinew check perf`: etcdctl's test of whether a cluster carries a load, with its models, words and exit codes.
//!
//! Invariant: it writes under a prefix that was empty, and deletes it afterwards. It passes only if nothing failed,
//! nine tenths of the rate were reached, no write took longer than half a second and they did not scatter.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::etcdserverpb::kv_client::KvClient;
use api::etcdserverpb::{CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest};
use base::Prng;
use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep_until};
use tonic::transport::Channel;

use super::args::{Load, PerfArgs};
use crate::ctl::client::Client;
use crate::ctl::kv::end_of_prefix;
use crate::ctl::{Failure, Settings};

/// Bytes of a key behind the prefix, and of a value: etcdctl's.
const KEY_BYTES: usize = 256;
const VALUE_BYTES: usize = 1024;
/// What etcdctl still lets pass: part of the rate, the slowest write, the standard deviation.
const THROUGHPUT_MIN: f64 = 0.9;
const SLOWEST_MAX_S: f64 = 0.5;
const DEVIATION_MAX_S: f64 = 0.1;

/// What a load is made of.
#[derive(Debug, Clone, Copy)]
struct Model {
    writes_per_second: u32,
    clients: u32,
}

impl Load {
    const fn model(self) -> Model {
        match self {
            Self::Small => Model { writes_per_second: 150, clients: 50 },
            Self::Medium => Model { writes_per_second: 1_000, clients: 200 },
            Self::Large => Model { writes_per_second: 8_000, clients: 500 },
            Self::ExtraLarge => Model { writes_per_second: 15_000, clients: 1_000 },
        }
    }
}

/// Loads the cluster and says whether it carried that.
///
/// # Errors
/// It did not ([`Failure::Silent`], as everything is said), or could not be asked.
pub(super) fn run(arguments: &PerfArgs, settings: &Settings) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Request(format!("cannot start the clients: {error}")))?;
    LocalSet::new().block_on(&runtime, check(arguments, settings))
}

async fn check(arguments: &PerfArgs, settings: &Settings) -> Result<(), Failure> {
    let client = Client::new(settings);
    let range_end = Bytes::from(end_of_prefix(arguments.prefix.as_bytes()));
    let key = Bytes::from(arguments.prefix.clone());
    let before = RangeRequest { key: key.clone(), range_end: range_end.clone(), limit: 1, ..Default::default() };
    if !client.range(before).await?.kvs.is_empty() {
        let prefix = &arguments.prefix;
        return Err(Failure::Usage(format!(
            "prefix {prefix:?} has keys. Delete with 'sinew del --prefix {prefix}' first"
        )));
    }
    let model = arguments.load.model();
    let channels = connect(&client, settings, model.clients).await?;
    let interrupted = tokio::signal::ctrl_c();
    let measured = tokio::select! {
        measured = drive(arguments, model, channels) => Some(measured),
        _ = interrupted => None,
    };
    let mut out = io::stdout().lock();
    let deleted = client.delete(DeleteRangeRequest { key, range_end, prev_kv: false }).await?;
    let Some(measured) = measured else { return Err(Failure::Silent) };
    if arguments.auto_compact {
        let revision = deleted.header.map_or(0, |header| header.revision);
        writeln!(out, "Compacting with revision {revision}")?;
        client.compact(CompactionRequest { revision, physical: true }).await?;
        writeln!(out, "Compacted with revision {revision}")?;
    }
    if arguments.auto_defrag {
        for endpoint in &settings.endpoints {
            writeln!(out, "Defragmenting {endpoint:?}")?;
            client.only(endpoint).defragment().await?;
            writeln!(out, "Defragmented {endpoint:?}")?;
        }
    }
    let (text, passed) = verdict(model, &measured);
    out.write_all(text.as_bytes())?;
    out.flush()?;
    if passed { Ok(()) } else { Err(Failure::Silent) }
}

/// A connection for each client, to the endpoints in turn.
async fn connect(client: &Client, settings: &Settings, clients: u32) -> Result<Vec<Channel>, Failure> {
    let mut channels = Vec::new();
    for endpoint in settings.endpoints.iter().cycle().take(clients as usize) {
        let channel = client.connect(endpoint).await;
        channels.push(channel.map_err(|reason| Failure::Request(format!("{endpoint}: {reason}")))?);
    }
    Ok(channels)
}

/// What came of the writes.
#[derive(Debug, Default)]
struct Measured {
    latencies: Vec<Duration>,
    errors: BTreeMap<String, u64>,
    elapsed: Duration,
}

/// Writes at the model's rate. A client takes the next write that is due; what is late is done at once.
async fn drive(arguments: &PerfArgs, model: Model, channels: Vec<Channel>) -> Measured {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    let due = Rc::new(Due {
        begin: Instant::now(),
        duration: arguments.duration,
        interval: Duration::from_secs(1) / model.writes_per_second,
        taken: std::cell::Cell::new(0),
        random: std::cell::RefCell::new(Prng::new(now)),
        bar: bar(arguments.duration),
    });
    let prefix: Arc<str> = arguments.prefix.as_str().into();
    let mut clients = JoinSet::new();
    for channel in channels {
        clients.spawn_local(write(KvClient::new(channel), Rc::clone(&due), Arc::clone(&prefix)));
    }
    let mut all = Measured::default();
    while let Some(one) = clients.join_next().await {
        let one = one.expect("a client does not panic");
        all.latencies.extend(one.latencies);
        for (reason, count) in one.errors {
            *all.errors.entry(reason).or_default() += count;
        }
    }
    all.elapsed = due.begin.elapsed();
    due.bar.finish_and_clear();
    all
}

/// The writes that are to be done.
struct Due {
    begin: Instant,
    duration: Duration,
    interval: Duration,
    taken: std::cell::Cell<u32>,
    random: std::cell::RefCell<Prng>,
    bar: ProgressBar,
}

impl Due {
    /// Waits for the next one; answers with a key for it, unless the time is over.
    async fn next(&self) -> Option<[u8; KEY_BYTES]> {
        let number = self.taken.get();
        self.taken.set(number + 1);
        let at = self.interval * number;
        if at >= self.duration || self.begin.elapsed() >= self.duration {
            return None;
        }
        self.bar.set_position(at.as_secs());
        sleep_until(self.begin + at).await;
        let mut key = [0; KEY_BYTES];
        key[..8].copy_from_slice(&self.random.borrow_mut().next_u64().to_be_bytes());
        Some(key)
    }
}

fn bar(duration: Duration) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{pos:>4} / {len} s [{bar:40}] {percent:>3}%");
    ProgressBar::new(duration.as_secs()).with_style(style.expect("the template is valid").progress_chars("=> "))
}

async fn write(mut client: KvClient<Channel>, due: Rc<Due>, prefix: Arc<str>) -> Measured {
    let mut measured = Measured::default();
    let value = Bytes::from_static(&[0; VALUE_BYTES]);
    while let Some(key) = due.next().await {
        let request =
            PutRequest { key: [prefix.as_bytes(), &key].concat().into(), value: value.clone(), ..Default::default() };
        let begin = Instant::now();
        match client.put(request).await {
            Ok(_) => measured.latencies.push(begin.elapsed()),
            Err(status) => *measured.errors.entry(status.message().to_owned()).or_default() += 1,
        }
    }
    measured
}

/// What etcdctl would say, and whether the cluster passed.
fn verdict(model: Model, measured: &Measured) -> (String, bool) {
    let mut lines = Vec::new();
    let mut passed = true;
    if !measured.errors.is_empty() {
        passed = false;
        lines.push("FAIL: too many errors".to_owned());
        lines.extend(measured.errors.iter().map(|(reason, count)| format!("FAIL: ERROR({reason}) -> {count}")));
    }
    let mut say = |is_good: bool, good: String, bad: String| {
        passed &= is_good;
        lines.push(if is_good { good } else { bad });
    };
    let seconds: Vec<f64> = measured.latencies.iter().map(Duration::as_secs_f64).collect();
    let count = seconds.len() as f64;
    let rate = count / measured.elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
    let shown = rate as u64 + 1;
    say(
        rate / f64::from(model.writes_per_second) > THROUGHPUT_MIN,
        format!("PASS: Throughput is {shown} writes/s"),
        format!("FAIL: Throughput too low: {shown} writes/s"),
    );
    let slowest = seconds.iter().copied().fold(0.0, f64::max);
    say(
        slowest <= SLOWEST_MAX_S,
        format!("PASS: Slowest request took {slowest:.6}s"),
        format!("Slowest request took too long: {slowest:.6}s"),
    );
    let mean = seconds.iter().sum::<f64>() / count.max(1.0);
    let squares: f64 = seconds.iter().map(|each| (each - mean).powi(2)).sum();
    let deviation = (squares / count.max(1.0)).sqrt();
    say(
        deviation <= DEVIATION_MAX_S,
        format!("PASS: Stddev is {deviation:.6}s"),
        format!("Stddev too high: {deviation:.6}s"),
    );
    lines.push(if passed { "PASS" } else { "FAIL" }.to_owned());
    (lines.join("\n") + "\n", passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(latencies_ms: &[u64], seconds: u64) -> Measured {
        let latencies = latencies_ms.iter().map(|ms| Duration::from_millis(*ms)).collect();
        Measured { latencies, errors: BTreeMap::new(), elapsed: Duration::from_secs(seconds) }
    }

    const MODEL: Model = Model { writes_per_second: 2, clients: 1 };

    #[test]
    fn a_cluster_that_carries_the_load_passes() {
        let (text, passed) = verdict(MODEL, &measured(&[2, 4, 2, 4], 2));
        assert_eq!(
            text,
            "PASS: Throughput is 3 writes/s\nPASS: Slowest request took 0.004000s\nPASS: Stddev is 0.001000s\nPASS\n"
        );
        assert!(passed);
    }

    #[test]
    fn each_weakness_alone_fails_it() {
        let (text, passed) = verdict(MODEL, &measured(&[2, 2, 2], 2));
        assert!(!passed && text.starts_with("FAIL: Throughput too low: 2 writes/s\n") && text.ends_with("\nFAIL\n"));
        let one_slow = [&[501][..], &[2; 29]].concat();
        let (text, passed) = verdict(MODEL, &measured(&one_slow, 2));
        assert!(!passed && text.contains("Slowest request took too long: 0.501000s\nPASS: Stddev is"), "{text}");
        let (text, passed) = verdict(MODEL, &measured(&[2, 2, 490, 490], 2));
        assert!(!passed && text.contains("Stddev too high: 0.244000s\nFAIL\n"), "{text}");
        let mut failing = measured(&[2, 4, 2, 4], 2);
        failing.errors.insert("etcdserver: too many requests".to_owned(), 7);
        let (text, passed) = verdict(MODEL, &failing);
        assert!(
            !passed && text.starts_with("FAIL: too many errors\nFAIL: ERROR(etcdserver: too many requests) -> 7\n")
        );
        assert!(!verdict(MODEL, &measured(&[], 60)).1, "nothing was written at all");
    }
}
