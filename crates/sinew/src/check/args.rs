//! What the user may ask of `sinew check`.
//!
//! Invariant: every combination that makes no sense is refused by the grammar, before a request is sent.

use std::path::PathBuf;
use std::time::Duration;

use ::check::Options;
use ::check::history::Numbering;
use clap::{Args, Subcommand, ValueEnum, value_parser};

use crate::flags::go_duration;

const EXAMPLES: &str = "\
A history is what clients asked and were told, one JSON object per line; docs/formats/history.md
says how. Judged: can an order of all operations explain every answer, by revisions and without
trusting them; are transactions free of cycles; are sums kept; do reads never go back.

Examples:
  sinew check history.jsonl
  zcat history.jsonl.gz | sinew check - -w json
  sinew check cluster --endpoints 127.0.0.1:2379,127.0.0.1:22379,127.0.0.1:32379

Exit codes:
  0    possible: a correct store could have given these answers
  1    impossible, or undecided
  2    no verdict: wrong usage, not a history, no cluster that answers";

const CLUSTER_EXAMPLES: &str = "\
Clients read, write, delete, compare-and-swap, append to lists and move money under keys of their
own, and every answer is recorded. Break what you like meanwhile: kill -9 a node and start it again,
freeze one with kill -STOP and wake it with kill -CONT, cut the network. Then the answers are
judged. The keys are deleted afterwards; other keys are never touched. Works with any etcd endpoint,
of etcd itself too.

Examples:
  sinew demo                      in one terminal, and in another:
  sinew check cluster --endpoints 127.0.0.1:2379,127.0.0.1:22379,127.0.0.1:32379
  sinew check cluster --duration 5m --clients 16 --record history.jsonl
  sinew check cluster --nemesis-hook ./chaos.sh --nemesis-interval 10s
      runs `./chaos.sh break` and `./chaos.sh heal` in turn, and `heal` at the end

Exit codes: as `sinew check`; 0 possible, 1 impossible or undecided, 2 no verdict.";

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
