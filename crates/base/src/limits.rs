//! Every bound of the system: named, with its unit. Nothing queues, buffers or retries without one of these.

use std::time::Duration;

/// Largest encoded client request in bytes (etcd `--max-request-bytes`): above it "request is too large".
pub const REQUEST_BYTES_MAX: usize = 1_572_864;
/// What gRPC may receive on top of [`REQUEST_BYTES_MAX`] before it refuses the message itself.
pub const GRPC_OVERHEAD_BYTES: usize = 512 * 1024;
/// Length of a key, or of the end of a range. etcd has no limit of its own here; ours is the engine's, whose row keys
/// have at most 65,535 bytes: a key may double when it is escaped, and revisions follow it.
pub const KEY_BYTES_MAX: usize = 32_000;
/// Operations per branch of a transaction, nested levels included (etcd `--max-txn-ops`).
pub const TXN_OPS_MAX: usize = 128;
/// Nesting depth of transactions.
pub const TXN_DEPTH_MAX: usize = 16;
/// Payload bytes of one log entry: a request and its envelope.
pub const ENTRY_BYTES_MAX: usize = REQUEST_BYTES_MAX + GRPC_OVERHEAD_BYTES;
/// Payload bytes in one append message; a single larger entry travels alone.
pub const APPEND_BYTES_MAX: usize = 1024 * 1024;
/// Entries in one append message.
pub const APPEND_ENTRIES_MAX: usize = 4096;
/// Payload bytes in flight to one peer of one group.
pub const INFLIGHT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Append messages in flight to one peer of one group.
pub const INFLIGHT_MESSAGES_MAX: usize = 256;
/// Payload bytes proposed and not yet committed, per group; above it proposals are refused ("too many requests").
pub const UNCOMMITTED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Payload bytes of log entries a group keeps in memory for its followers; who lags by more is served from the log.
pub const ENTRY_CACHE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Decided and unapplied entries per group; above it proposals are refused ("too many requests").
pub const APPLY_BACKLOG_ENTRIES_MAX: u64 = 20_000;
/// Payload bytes of decided and unapplied entries per group, with the same effect.
pub const APPLY_BACKLOG_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Reads waiting for one confirmation round, per group.
pub const PENDING_READS_MAX: usize = 65_536;
/// Bytes queued towards one peer before messages to it are dropped (the protocol repeats them).
pub const PEER_QUEUE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Largest frame accepted from a peer.
pub const PEER_FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Payload bytes in one chunk of a snapshot.
pub const SNAPSHOT_CHUNK_BYTES: usize = 512 * 1024;
/// Bytes per second a leader spends on one snapshot, so that a follower that catches up does not slow down the others.
pub const SNAPSHOT_BYTES_PER_SECOND: u64 = 64 * 1024 * 1024;
/// Bytes of pairs in one answer; a client that wants more pages, or streams.
pub const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Bytes of pairs in the answers of one batch of commands, and in large answers that wait for their clients, per node.
pub const ANSWERS_BYTES_MAX: usize = 2 * ANSWER_BYTES_MAX;
/// Client requests one node works on at a time; above it "too many requests". A large one counts as several.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 65_536;
/// Of these, reserved for renewals of leases and for operators.
pub const REQUESTS_IN_FLIGHT_RESERVED: usize = 8_192;
/// A write counts as one more request for each so many bytes.
pub const ADMISSION_UNIT_BYTES: usize = 4_096;
/// What a client that was refused because of overload is told to wait.
pub const OVERLOAD_PAUSE: Duration = Duration::from_millis(100);
/// Who reads a snapshot and takes nothing of it for so long has to start again: it keeps one of few places.
pub const SNAPSHOT_STALL_MAX: Duration = Duration::from_secs(20);
/// Longest time to live of a lease, in seconds (etcd's own bound).
pub const LEASE_TTL_S_MAX: i64 = 9_000_000_000;
/// Keys deleted by one entry of expired leases before the rest of its leases is left for the next one. A lease goes
/// with all its keys at one revision, so one with more keys than this takes an entry, and the memory, of its own.
pub const LEASE_EXPIRE_KEYS_MAX: usize = 4096;
/// Leases in one entry that ends them, or writes down their time.
pub const LEASE_BATCH_MAX: usize = 512;
/// Such entries proposed and not yet applied, per group.
pub const LEASE_BATCHES_MAX: usize = 4;
/// A leader writes down the time left of a lease whenever so much has passed without a renewal (as etcd does).
pub const LEASE_CHECKPOINT_INTERVAL: Duration = Duration::from_secs(300);
/// Renewals and questions about leases under way at a leader, per group; above it "too many requests".
pub const LEASE_ASKS_MAX: usize = 262_144;
/// Client connections of one node.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Concurrent streams per client connection.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 4_096;
/// Watches of one stream.
pub const WATCHES_PER_STREAM_MAX: usize = 50_000;
/// Watches of one node.
pub const WATCHES_MAX: usize = 200_000;
/// Streams of watches of one node.
pub const WATCH_STREAMS_MAX: usize = 50_000;
/// Bytes of recent changes that the watches of one client thread keep in memory, and that may wait for the thread.
pub const WATCH_RECENT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Revisions that may wait for one watch; with more it is behind and reads on from where it is.
pub const WATCH_PENDING_MAX: usize = 256;
/// Bytes in one watch response of several revisions, and in one page of history; a single larger revision goes alone.
pub const WATCH_RESPONSE_BYTES: usize = 128 * 1024;
/// Events in one such response, as in etcd; a single larger revision goes alone.
pub const WATCH_EVENTS_MAX: usize = 1000;
/// Pages of history read for watches at a time, per node.
pub const WATCH_HISTORY_READS_MAX: usize = 2;
/// Default time between two progress responses to an idle watch (etcd `--watch-progress-notify-interval`).
pub const WATCH_PROGRESS_INTERVAL: Duration = Duration::from_secs(600);
/// Smallest such time, as in etcd.
pub const WATCH_PROGRESS_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Default of `--quota-backend-bytes`, as in etcd.
pub const QUOTA_BYTES_DEFAULT: u64 = 2 * 1024 * 1024 * 1024;
/// Size of one write-ahead log segment in bytes.
pub const WAL_SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// Log bytes kept behind the applied index for followers that fall behind; beyond it they get a snapshot.
pub const LOG_RETAINED_BYTES: u64 = 64 * 1024 * 1024;
/// Default interval between a leader's heartbeats.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(100);
/// Default minimum time without a leader before a follower campaigns.
pub const ELECTION_TIMEOUT: Duration = Duration::from_millis(1000);
/// Largest election timeout accepted.
pub const ELECTION_TIMEOUT_MAX: Duration = Duration::from_secs(50);

const _: () = assert!(APPEND_BYTES_MAX + ENTRY_BYTES_MAX < PEER_FRAME_BYTES_MAX);
const _: () = assert!(ENTRY_BYTES_MAX < APPEND_BYTES_MAX * 4 && ENTRY_BYTES_MAX < UNCOMMITTED_BYTES_MAX);
const _: () = assert!((ENTRY_BYTES_MAX as u64) < WAL_SEGMENT_BYTES / 2);
