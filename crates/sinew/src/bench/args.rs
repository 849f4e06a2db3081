//! What the user may ask of `sinew bench`, and the [`Plan`] it becomes.
//!
//! Invariant: a `Plan` can be run as it is; every combination that makes no sense was refused with a sentence. Used by
//! [`super::run`].

use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum, value_parser};

use super::client::Endpoint;
use super::keys::{KeyPattern, KeySpace};
use super::load::Drive;
use super::template::MARKER_BYTES_MIN;
use super::workload::{Shape, Workload};

/// Most clients: each needs a task and one request in memory.
const CLIENTS_MAX: u64 = 10_000;
/// Most TCP connections per side.
const CONNECTIONS_MAX: u64 = 1_000;
/// Longest key in bytes.
const KEY_BYTES_MAX: u64 = 4_096;
/// Longest value in bytes: two of them and their keys fit a request of the etcd limit.
const VALUE_BYTES_MAX: u64 = 700 * 1024;
/// Most keys; twelve digits.
const KEYS_MAX: u64 = 1_000_000_000_000;
/// Most keys for compare-and-swap, which remembers eight bytes for each.
const KEYS_REMEMBERED_MAX: u64 = 1 << 24;
/// Most keys in one range: an answer must fit in memory.
const RANGE_KEYS_MAX: u64 = 10_000;
/// Highest rate of the open loop per second.
const RATE_MAX: f64 = 1_000_000.0;
/// Longest phase.
const DURATION_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Default length of the measured phase.
const DURATION: Duration = Duration::from_secs(10);
/// Time limit if only a total is given.
const DURATION_WITH_TOTAL: Duration = Duration::from_secs(10 * 60);
/// Most rounds of a comparison.
const ROUNDS_MAX: u64 = 100;

/// Command lines to start from.
const EXAMPLES: &str = "\
Examples:
  sinew bench --endpoints 127.0.0.1:2379
  sinew bench --workload put,get,stale-get,range,txn,cas,mixed --prefill
  sinew bench --workload get --prefill --rate 2000 --clients 200
  sinew bench --workload watch --watchers 500 --rate 100
  sinew bench --endpoints 127.0.0.1:2379 --compare-with 127.0.0.1:12379 --workload put,get --prefill";

/// Put load on any server that speaks the etcd v3 API, and measure it
///
/// By default 64 clients write random keys as fast as they are answered, for ten seconds ("closed loop"). With --rate
/// operations are sent at fixed times instead ("open loop"), and latency counts from the time an operation was due: a
/// server that stalls cannot hide it by slowing the generator down.
///
/// The processor time and memory of servers on this machine are measured too. Keys stay in the store afterwards; they
/// all begin with --prefix. Ends by itself; Ctrl-C ends it early with the figures so far.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BenchArgs {
    /// Servers under load, host:port; connections are spread over them in turn
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:2379", value_name = "HOST:PORT")]
    endpoints: Vec<Endpoint>,

    /// Kinds of load; several run one after the other
    #[arg(long, value_enum, value_delimiter = ',', default_value = "put")]
    workload: Vec<Workload>,

    /// TCP connections; never more than --clients
    #[arg(long, default_value_t = 8, value_parser = value_parser!(u64).range(1..=CONNECTIONS_MAX))]
    connections: u64,

    /// Clients, each with one operation in flight
    #[arg(long, default_value_t = 64, value_parser = value_parser!(u64).range(1..=CLIENTS_MAX))]
    clients: u64,

    /// Bytes in each key, prefix included
    #[arg(long, default_value_t = 32, value_parser = value_parser!(u64).range(MARKER_BYTES_MIN as u64..=KEY_BYTES_MAX))]
    key_size: u64,

    /// Bytes in each value
    #[arg(long, default_value_t = 256, value_parser = value_parser!(u64).range(0..=VALUE_BYTES_MAX))]
    value_size: u64,

    /// Number of different keys
    #[arg(long, default_value_t = 10_000, value_parser = value_parser!(u64).range(1..=KEYS_MAX))]
    keys: u64,

    /// Order in which keys are used
    #[arg(long, value_enum, default_value = "random")]
    key_pattern: KeyPattern,

    /// What every key begins with
    #[arg(long, default_value = "bench/")]
    prefix: String,

    /// Keys read by one range operation
    #[arg(long, default_value_t = 100, value_parser = value_parser!(u64).range(1..=RANGE_KEYS_MAX))]
    range_keys: u64,

    /// Watchers of all keys in the watch workload
    #[arg(long, default_value_t = 50, value_parser = value_parser!(u64).range(1..=CLIENTS_MAX))]
    watchers: u64,

    /// Share of reads in the mixed workload, from 0 to 1
    #[arg(long, default_value_t = 0.9, value_parser = parse_ratio)]
    read_ratio: f64,

    /// Write every key once before the first workload, so that reads find something
    #[arg(long)]
    prefill: bool,

    /// Length of the measured phase of each workload, for example 500ms, 10s, 2m [default: 10s]
    #[arg(long, value_parser = parse_duration)]
    duration: Option<Duration>,

    /// Load without measurement before each measured phase; 0 for none
    #[arg(long, default_value = "2s", value_parser = parse_pause)]
    warmup: Duration,

    /// Stop each workload after this many operations, or at --duration (then 10m by default)
    #[arg(long, value_parser = value_parser!(u64).range(1..))]
    total: Option<u64>,

    /// Send this many operations per second at fixed times (open loop)
    #[arg(long, value_parser = parse_rate)]
    rate: Option<f64>,

    /// Longest time one operation may take
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    timeout: Duration,

    /// Processes to measure, if not those that listen at --endpoints
    #[arg(long, value_delimiter = ',', value_name = "PID")]
    server_pids: Vec<u32>,

    /// A second service to measure in turn with the first; both are shown, and their ratios
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT")]
    compare_with: Vec<Endpoint>,

    /// Rounds of a comparison; the figures are medians over the rounds
    #[arg(long, default_value_t = 3, requires = "compare_with", value_parser = value_parser!(u64).range(1..=ROUNDS_MAX))]
    rounds: u64,

    /// Start of the random numbers
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Form of the report
    #[arg(short = 'w', long = "write-out", value_enum, default_value = "simple")]
    write_out: WriteOut,
}

/// Form of the report.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum WriteOut {
    /// A table to read.
    Simple,
    /// One JSON object.
    Json,
}

/// A run that makes sense.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// The first side, "A".
    pub(super) endpoints: Vec<Arc<Endpoint>>,
    /// The second side, "B"; empty if there is no comparison.
    pub(super) compare_with: Vec<Arc<Endpoint>>,
    /// Processes of side A, if given.
    pub(super) server_pids: Vec<u32>,
    /// Kinds of load, in order.
    pub(super) workloads: Vec<Workload>,
    /// Watchers in [`Workload::Watch`].
    pub(super) watchers: usize,
    /// TCP connections per side.
    pub(super) connections: usize,
    /// What requests look like.
    pub(super) shape: Shape,
    /// The measured phase.
    pub(super) drive: Drive,
    /// Length of the phase before it; zero for none.
    pub(super) warmup: Duration,
    /// Whether to write every key first.
    pub(super) prefill: bool,
    /// Rounds of a comparison, 1 without.
    pub(super) rounds: usize,
    /// Form of the report.
    pub(super) write_out: WriteOut,
}

impl Plan {
    /// Checks what the arguments only make sense of together.
    ///
    /// # Errors
    /// A sentence for the user.
    pub(super) fn new(args: BenchArgs) -> Result<Self, String> {
        let keys = KeySpace::new(&args.prefix, fitting(args.key_size), args.keys)?;
        let has = |workload| args.workload.contains(&workload);
        if has(Workload::Range) && args.range_keys > args.keys {
            return Err(format!("--range-keys {} is more than the {} keys there are", args.range_keys, args.keys));
        }
        if has(Workload::Txn) && args.keys < 2 {
            return Err("--workload txn writes two keys: --keys must be at least 2".to_owned());
        }
        if has(Workload::Cas) && args.keys > KEYS_REMEMBERED_MAX {
            return Err(format!("--workload cas remembers every key: --keys may be at most {KEYS_REMEMBERED_MAX}"));
        }
        if has(Workload::Watch) && fitting(args.value_size) < MARKER_BYTES_MIN {
            return Err(format!(
                "--workload watch tells events apart by their values: --value-size must be at least {MARKER_BYTES_MIN}"
            ));
        }
        let duration = args.duration.unwrap_or(if args.total.is_some() { DURATION_WITH_TOTAL } else { DURATION });
        let drive = Drive {
            clients: fitting(args.clients),
            duration,
            total: args.total,
            rate: args.rate,
            timeout: args.timeout,
        };
        let shape = Shape {
            keys,
            pattern: args.key_pattern,
            value_bytes: fitting(args.value_size),
            range_keys: args.range_keys,
            read_ratio: args.read_ratio,
            seed: args.seed,
        };
        Ok(Self {
            endpoints: args.endpoints.into_iter().map(Arc::new).collect(),
            rounds: if args.compare_with.is_empty() { 1 } else { fitting(args.rounds) },
            compare_with: args.compare_with.into_iter().map(Arc::new).collect(),
            server_pids: args.server_pids,
            workloads: args.workload,
            watchers: fitting(args.watchers),
            connections: fitting(args.connections.min(args.clients)),
            shape,
            drive,
            warmup: args.warmup,
            prefill: args.prefill,
            write_out: args.write_out,
        })
    }
}

fn fitting(bounded: u64) -> usize {
    usize::try_from(bounded).expect("bounded by the argument's range")
}

/// A length of time above zero.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = parse_pause(text)?;
    if duration.is_zero() {
        return Err("must be longer than zero".to_owned());
    }
    Ok(duration)
}

/// A number and a unit; seconds without one.
fn parse_pause(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|letter: char| letter.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let seconds_per_unit = match unit {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("unknown unit '{unit}'; use ms, s, m or h, as in 500ms or 10s")),
    };
    let number: f64 = number.parse().map_err(|_| "not a length of time; use for example 500ms, 10s, 2m".to_owned())?;
    let duration = Duration::try_from_secs_f64(number * seconds_per_unit).ok().filter(|long| *long <= DURATION_MAX);
    duration.ok_or_else(|| "must be between 0 and 24h".to_owned())
}

fn parse_ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| "must be a number from 0 to 1".to_owned())
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.001..=RATE_MAX).contains(rate));
    rate.ok_or_else(|| format!("must be operations per second, from 0.001 to {RATE_MAX}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::{CommandFactory, Parser};

    use super::{BenchArgs, Plan, parse_duration, parse_pause};

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        bench: BenchArgs,
    }

    /// The plan for a command line, or what is wrong with it.
    fn plan(line: &str) -> Result<Plan, String> {
        let words = std::iter::once("bench").chain(line.split_whitespace());
        let command = Command::try_parse_from(words).map_err(|error| error.to_string())?;
        Plan::new(command.bench)
    }

    fn refused(line: &str, because: &str) {
        let reason = plan(line).unwrap_err();
        assert!(reason.contains(because), "{line}: {reason}");
    }

    #[test]
    fn the_command_line_is_consistent() {
        Command::command().debug_assert();
    }

    #[test]
    fn defaults_make_a_plan() {
        let plan = plan("").unwrap();
        assert_eq!((plan.drive.clients, plan.connections, plan.rounds), (64, 8, 1));
        assert_eq!(plan.drive.duration, Duration::from_secs(10));
        assert_eq!(plan.endpoints[0].address(), "127.0.0.1:2379");
    }

    #[test]
    fn a_total_is_still_bounded_in_time() {
        assert_eq!(plan("--total 5").unwrap().drive.duration, Duration::from_secs(600));
        assert_eq!(plan("--total 5 --duration 3s").unwrap().drive.duration, Duration::from_secs(3));
    }

    #[test]
    fn connections_never_exceed_clients() {
        assert_eq!(plan("--clients 1").unwrap().connections, 1);
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        refused("--clients 0", "0 is not in 1..=10000");
        refused("--connections 0", "0 is not in 1..=1000");
        refused("--clients many", "invalid digit");
        refused("--endpoints localhost", "host:port");
        refused("--endpoints https://localhost:2379", "plain text only");
        refused("--endpoints http://user@localhost:2379", "host:port");
        refused("--rate 0", "operations per second");
        refused("--rate NaN", "operations per second");
        refused("--read-ratio 1.5", "from 0 to 1");
        refused("--duration 0", "longer than zero");
        refused("--workload sing", "invalid value 'sing'");
        refused("--key-size 16 --prefix a-very-long-prefix/", "too small");
        refused("--workload range --keys 50", "more than the 50 keys");
        refused("--workload txn --keys 1", "at least 2");
        refused("--workload watch --value-size 8", "at least 16");
        refused("--watchers 0", "0 is not in 1..=10000");
        refused("--workload cas --keys 100000000", "at most 16777216");
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("7"), Ok(Duration::from_secs(7)));
        assert_eq!(parse_pause("0"), Ok(Duration::ZERO));
        for wrong in ["", "s", "-1s", "5 parsecs", "25h", "inf", "NaN"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
