//! What the user may ask of `sinew check`.
//!
//! Invariant: every combination that makes no sense is refused by the grammar, before a request is sent.

use std::path::PathBuf;
use std::time::Duration;

use ::check::Options;
use ::check::history::Numbering;
use clap::{ArgAction, Args, Subcommand, ValueEnum, value_parser};

use crate::flags::{go_bool, go_duration};

const EXAMPLES: &str = "\
A history is what clients asked and were told, one JSON object per line; docs/formats/history.md
says how. Judged: can an order of all operations explain every answer, by revisions and without
trusting them; are transactions free of cycles; are sums kept; do reads never go back; do watches
deliver everything once and in order; do leases live as long as was promised; has a lock one holder
at a time, and is nothing done under a token that is over.

Examples:
  sinew check history.jsonl
  zcat history.jsonl.gz | sinew check - -w json
  sinew check cluster --endpoints 127.0.0.1:2379,127.0.0.1:22379,127.0.0.1:32379

Exit codes:
  0    possible: a correct store could have given these answers
  1    impossible, or undecided
  2    no verdict: wrong usage, not a history, no cluster that answers";

const CLUSTER_EXAMPLES: &str = "\
Clients read, write, delete, compare-and-swap, append to lists, move money, watch, hold leases and
take locks under keys of their own, and every answer is recorded. Break what you like meanwhile:
kill -9 a node and start it again, freeze one with kill -STOP and wake it with kill -CONT, cut the
network. Then the answers are judged. The keys are deleted afterwards; other keys are never
touched. Works with any etcd endpoint, of etcd itself too.

Examples:
  sinew demo                      in one terminal, and in another:
  sinew check cluster --endpoints 127.0.0.1:2379,127.0.0.1:22379,127.0.0.1:32379
  sinew check cluster --duration 5m --clients 16 --record history.jsonl
  sinew check cluster --nemesis-hook ./chaos.sh --nemesis-interval 10s
      runs `./chaos.sh break` and `./chaos.sh heal` in turn, and `heal` at the end

Exit codes: as `sinew check`; 0 possible, 1 impossible or undecided, 2 no verdict.";

const PERF_EXAMPLES: &str = "\
Each write is a new key of 256 bytes with a value of 1 KiB; they are deleted afterwards. The cluster
passes if nothing failed, at least 90 % of the rate was reached, no write took longer than 500 ms
and the standard deviation is below 100 ms. For anything finer there is `sinew bench`.

Examples:
  sinew check perf
  sinew check perf --load m --auto-compact --endpoints 127.0.0.1:2379,127.0.0.1:22379

Exit codes: 0 if the cluster passes, 1 if it fails or cannot be asked, 2 for wrong usage.";

/// Judge recorded answers, or those of a cluster under load: could a correct store have given them?
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub(crate) struct CheckArgs {
    /// File with a history; - for standard input
    #[arg(value_name = "HISTORY")]
    pub(super) history: Option<PathBuf>,
    /// How revisions are numbered, if not as the history says
    #[arg(long, value_enum)]
    numbering: Option<NumberingArg>,
    /// Steps a search may take before it is undecided [default: 5000000]
    #[arg(long, value_parser = value_parser!(u64).range(1..), value_name = "N")]
    search_steps: Option<u64>,
    #[command(subcommand)]
    pub(super) verb: Option<Verb>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum NumberingArg {
    /// They rise, with gaps.
    Rising,
    /// Each write takes the next one, and all writes are in the history.
    Dense,
}

#[derive(Subcommand, Clone, Debug)]
pub(super) enum Verb {
    /// Drive load against a running cluster, let it be broken meanwhile, and judge every answer
    Cluster(ClusterArgs),
    /// Does the cluster carry a load of writes? As etcdctl asks
    Perf(PerfArgs),
}

/// Arguments of `check perf`.
#[derive(Args, Clone, Debug)]
#[command(after_help = PERF_EXAMPLES)]
pub(super) struct PerfArgs {
    /// The load: s(mall), m(edium), l(arge) or x(tra)l(arge)
    #[arg(long, value_enum, default_value = "s", value_name = "LOAD")]
    pub(super) load: Load,
    /// Where to write; nothing may be there
    #[arg(long, default_value = "/etcdctl-check-perf/", value_name = "PREFIX",
        value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(super) prefix: String,
    /// Compact the history when done
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true",
        action = ArgAction::Set, value_parser = go_bool)]
    pub(super) auto_compact: bool,
    /// Defragment the endpoints when done
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true",
        action = ArgAction::Set, value_parser = go_bool)]
    pub(super) auto_defrag: bool,
    /// How long; etcdctl always takes a minute
    #[arg(long, default_value = "60s", value_parser = go_duration, value_name = "DURATION")]
    pub(super) duration: Duration,
}

/// How much `check perf` writes.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Load {
    /// 150 writes a second by 50 clients
    #[value(name = "s", alias = "small")]
    Small,
    /// 1000 writes a second by 200 clients
    #[value(name = "m", alias = "medium")]
    Medium,
    /// 8000 writes a second by 500 clients
    #[value(name = "l", alias = "large")]
    Large,
    /// 15000 writes a second by 1000 clients
    #[value(name = "xl", alias = "xLarge")]
    ExtraLarge,
}

/// Arguments of `check cluster`.
#[derive(Args, Clone, Debug)]
#[command(after_help = CLUSTER_EXAMPLES)]
pub(super) struct ClusterArgs {
    /// How long to drive load
    #[arg(long, default_value = "30s", value_parser = go_duration, value_name = "DURATION")]
    pub(super) duration: Duration,
    /// Clients, each with one request in flight
    #[arg(long, default_value_t = 8, value_parser = value_parser!(u64).range(1..=256), value_name = "N")]
    pub(super) clients: u64,
    /// Clients that watch: from now on or from the past, and on at another endpoint when one fails
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u64).range(0..=64), value_name = "N")]
    pub(super) watchers: u64,
    /// Clients that hold leases with keys: renewed, revoked, or left to end
    #[arg(long, default_value_t = 2, value_parser = value_parser!(u64).range(0..=64), value_name = "N")]
    pub(super) lease_holders: u64,
    /// Clients that take locks and write under their tokens, also when they have lost them
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u64).range(0..=64), value_name = "N")]
    pub(super) lock_holders: u64,
    /// Plain keys that all clients share; fewer keys, more conflicts
    #[arg(long, default_value_t = 8, value_parser = value_parser!(u64).range(1..=10_000), value_name = "N")]
    pub(super) keys: u64,
    /// Most operations per second, all clients together; a verdict needs memory for all of them
    #[arg(long, default_value_t = 1000, value_parser = value_parser!(u64).range(1..=100_000), value_name = "N")]
    pub(super) rate: u64,
    /// Command that breaks and heals the cluster, run with `break` and `heal` in turn
    #[arg(long, value_name = "CMD")]
    pub(super) nemesis_hook: Option<String>,
    /// Time between two runs of the hook
    #[arg(long, default_value = "5s", value_parser = go_duration, value_name = "DURATION")]
    pub(super) nemesis_interval: Duration,
    /// Keep the history in this file; it must not exist
    #[arg(long, value_name = "FILE")]
    pub(super) record: Option<PathBuf>,
    /// Start of the random numbers
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(super) seed: u64,
}

impl CheckArgs {
    pub(super) fn options(&self) -> Options {
        let mut options = Options {
            numbering: self.numbering.map(|numbering| match numbering {
                NumberingArg::Rising => Numbering::Rising,
                NumberingArg::Dense => Numbering::Dense,
            }),
            ..Options::default()
        };
        options.search_steps_max = self.search_steps.unwrap_or(options.search_steps_max);
        options
    }
}
