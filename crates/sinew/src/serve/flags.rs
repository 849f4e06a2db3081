//! The flags of `sinew serve` that do something. Names, meaning and defaults are etcd's.

use std::path::PathBuf;
use std::time::Duration;

use base::limits;
use clap::Args;
use kernel::Protocol;

use crate::flags::go_duration;

/// Flags of `sinew serve`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Every flag can come from the environment: --data-dir from SINEW_DATA_DIR or
ETCD_DATA_DIR. The command line wins over SINEW_, which wins over ETCD_. etcd's
other flags are known, too: one without effect here gives a warning, one whose
loss would change what you asked for an error.

Examples:
  sinew serve
      one member for trying out; data in ./default.sinew

  sinew serve --name one --data-dir /var/lib/sinew \\
    --listen-client-urls http://0.0.0.0:2379 --advertise-client-urls http://10.0.0.1:2379 \\
    --listen-peer-urls http://10.0.0.1:2380 --initial-advertise-peer-urls http://10.0.0.1:2380 \\
    --initial-cluster one=http://10.0.0.1:2380,two=http://10.0.0.2:2380,three=http://10.0.0.3:2380
      the first of three; the others get their own names and addresses

SIGINT or SIGTERM hands leadership over and stops; a second one exits at once.

Exit codes:
  0    stopped by a signal
  1    could not start, or failed while running
  2    wrong usage
  130  second signal")]
pub(crate) struct ServeFlags {
    /// Name of this member, unique in the cluster
    #[arg(long, default_value = "default")]
    pub(crate) name: String,
    /// Where the member keeps its data [default: ./NAME.sinew]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,

    /// Where to listen for clients
    #[arg(long, value_name = "URL,...", default_value = "http://127.0.0.1:2379", help_heading = "Addresses")]
    pub(crate) listen_client_urls: String,
    /// Client URLs told to others [default: those listened at]
    #[arg(long, value_name = "URL,...", help_heading = "Addresses")]
    pub(crate) advertise_client_urls: Option<String>,
    /// Where to listen for other members [default: http://127.0.0.1:2380]
    #[arg(long, value_name = "URL,...", help_heading = "Addresses")]
    pub(crate) listen_peer_urls: Option<String>,
    /// Peer URLs told to others [default: this member's in --initial-cluster, or those listened at]
    #[arg(long, value_name = "URL,...", help_heading = "Addresses")]
    pub(crate) initial_advertise_peer_urls: Option<String>,

    /// The members the cluster starts with [default: this one alone]
    #[arg(long, value_name = "NAME=URL,...", help_heading = "Cluster")]
    pub(crate) initial_cluster: Option<String>,
    /// new, or existing to join a running cluster
    #[arg(long, value_name = "STATE", default_value = "new", help_heading = "Cluster")]
    pub(crate) initial_cluster_state: String,
    /// Keeps clusters with equal members apart
    #[arg(long, value_name = "TEXT", default_value = "etcd-cluster", help_heading = "Cluster")]
    pub(crate) initial_cluster_token: String,
    /// raft, multi-paxos, zab or paxos-raft, for all members alike; fixed when the cluster is created [default: the
    /// one in the data directory, or raft]
    #[arg(long, value_name = "PROTOCOL", help_heading = "Cluster")]
    pub(crate) consensus: Option<Protocol>,
    /// The member with the highest number leads if there is a choice; 0 is no preference
    #[arg(long, value_name = "NUMBER", default_value_t = 0, help_heading = "Cluster")]
    pub(crate) leader_priority: u8,
    /// Milliseconds between a leader's heartbeats
    #[arg(long, value_name = "MS", default_value_t = 100, help_heading = "Cluster")]
    pub(crate) heartbeat_interval: u64,
    /// Milliseconds without a leader before a member wants to lead
    #[arg(long, value_name = "MS", default_value_t = 1000, help_heading = "Cluster")]
    pub(crate) election_timeout: u64,

    /// Largest client request, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = limits::REQUEST_BYTES_MAX, help_heading = "Limits")]
    pub(crate) max_request_bytes: usize,
    /// Operations in one branch of a transaction
    #[arg(long, value_name = "COUNT", default_value_t = limits::TXN_OPS_MAX, help_heading = "Limits")]
    pub(crate) max_txn_ops: usize,
    /// Concurrent requests of one client connection
    #[arg(long, value_name = "COUNT", default_value_t = limits::STREAMS_PER_CONNECTION_MAX, help_heading = "Limits")]
    pub(crate) max_concurrent_streams: u32,
    /// Storage quota in bytes; 0 is the default of 2 GiB, a negative number switches it off
    #[arg(long, value_name = "BYTES", default_value_t = 0, allow_hyphen_values = true, help_heading = "Limits")]
    pub(crate) quota_backend_bytes: i64,
    /// periodic: keep the history of a time; revision: of a number of revisions
    #[arg(long, value_name = "MODE", default_value = "periodic", help_heading = "Limits")]
    pub(crate) auto_compaction_mode: String,
    /// How much history to keep: a time like 30m, a bare number of hours, or of revisions; 0 keeps all of it
    #[arg(long, value_name = "COUNT", default_value = "0", help_heading = "Limits")]
    pub(crate) auto_compaction_retention: String,
    /// Memory for cached data, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = CACHE_BYTES, help_heading = "Limits")]
    pub(crate) cache_bytes: u64,
    /// How often the leader compares what the members hold, and raises the alarm CORRUPT if they differ; 0 is never
    #[arg(long, value_name = "DURATION", value_parser = go_duration, help_heading = "Limits")]
    pub(crate) corrupt_check_time: Option<Duration>,
    /// The same under its name before etcd 3.6
    #[arg(long, value_name = "DURATION", value_parser = go_duration, hide = true)]
    pub(crate) experimental_corrupt_check_time: Option<Duration>,
    /// Time between two notes about progress to a watch that asked for them
    #[arg(long, value_name = "DURATION", value_parser = go_duration, help_heading = "Limits")]
    pub(crate) watch_progress_notify_interval: Option<Duration>,
    /// The same under its name before etcd 3.6
    #[arg(long, value_name = "DURATION", value_parser = go_duration, hide = true)]
    pub(crate) experimental_watch_progress_notify_interval: Option<Duration>,
    /// Threads that serve clients; 0 is one for every two cores
    #[arg(long, value_name = "COUNT", default_value_t = 0, help_heading = "Limits")]
    pub(crate) client_threads: usize,
    /// Do not wait for the disk: a crash may lose acknowledged writes. For tests only
    #[arg(long, help_heading = "Limits")]
    pub(crate) unsafe_no_fsync: bool,

    /// debug, info, warn or error
    #[arg(long, value_name = "LEVEL", default_value = "info", help_heading = "Logging")]
    pub(crate) log_level: String,
    /// console for people, json for machines
    #[arg(long, value_name = "FORMAT", default_value = "console", help_heading = "Logging")]
    pub(crate) log_format: String,
    /// stderr, stdout or files to append to
    #[arg(long, value_name = "WHERE,...", default_value = "stderr", help_heading = "Logging")]
    pub(crate) log_outputs: String,
}

/// Default of `--cache-bytes`.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;
