//! What a node is told at start. Parsed and checked at the edge (flags, environment); trusted from here on.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use kernel::Protocol;

/// Which history a cluster keeps when it compacts by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoCompaction {
    /// That of this time.
    Periodic(Duration),
    /// That of so many revisions.
    Revisions(i64),
}

/// Everything [`crate::Server::start`] needs.
#[derive(Debug, Clone)]
pub struct Config {
    /// Human-readable member name, unique in the cluster.
    pub name: String,
    /// Where the node keeps its log and state. Created if missing, locked while the node runs.
    pub data_dir: PathBuf,
    /// Addresses to bind for clients.
    pub listen_client: Vec<SocketAddr>,
    /// Client URLs told to others.
    pub advertise_client_urls: Vec<String>,
    /// Addresses to bind for peers.
    pub listen_peer: Vec<SocketAddr>,
    /// Peer URLs told to others; one of them must stand in `initial_cluster` under `name`.
    pub initial_advertise_peer_urls: Vec<String>,
    /// The members the cluster starts with.
    pub initial_cluster: Vec<InitialMember>,
    /// Keeps apart clusters with equal members; part of the cluster id.
    pub initial_cluster_token: String,
    /// Whether the cluster is being created or already runs.
    pub initial_cluster_state: ClusterState,
    /// The consensus protocol; `None` is the one that the data directory has, and Raft for a new one.
    pub consensus: Option<Protocol>,
    /// Who should lead if there is a choice: the member with the highest. 0 is no preference.
    pub leader_priority: u8,
    /// Interval between a leader's heartbeats.
    pub heartbeat_interval: Duration,
    /// Minimum time without a leader before a follower campaigns.
    pub election_timeout: Duration,
    /// Largest encoded client request in bytes.
    pub max_request_bytes: usize,
    /// Operations allowed per branch of a transaction.
    pub max_txn_ops: usize,
    /// Concurrent streams per client connection.
    pub max_concurrent_streams: u32,
    /// Storage quota in bytes; 0 means the default, a negative number no limit.
    pub quota_backend_bytes: i64,
    /// Compaction of history without being asked.
    pub auto_compaction: Option<AutoCompaction>,
    /// How often the leader compares what the members hold; `None` is never.
    pub corrupt_check_interval: Option<Duration>,
    /// Time between two progress responses to a watch that asked for them and sees no events.
    pub watch_progress_interval: Duration,
    /// Threads that serve clients; 0 picks one for every two cores, at least one.
    pub client_threads: usize,
    /// Memory for cached blocks of the state engine, in bytes.
    pub cache_bytes: u64,
    /// Skip fdatasync: for tests on throw-away data only (etcd `--unsafe-no-fsync`).
    pub unsafe_no_fsync: bool,
}

/// One `name=url` of `--initial-cluster`; several entries with one name are several URLs of that member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitialMember {
    /// The member's `--name`.
    pub name: String,
    /// Its peer URLs, sorted.
    pub peer_urls: Vec<String>,
}

/// `--initial-cluster-state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterState {
    /// All members start together for the first time.
    New,
    /// The cluster runs already; this node was added to it.
    Existing,
}
