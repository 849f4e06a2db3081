//! Counters and histograms, written out in the Prometheus text format under etcd's names where they mean the same.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::calls::AllCalls;
use crate::grpc::API_VERSION;

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Buckets of etcd's disk histograms: 1 ms doubling to 8.192 s; ours begin lower, since our disks are faster than that.
const BOUNDS: [u64; 18] = [
    62, 125, 250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000, 512_000, 1_024_000,
    2_048_000, 4_096_000, 8_192_000,
];

/// Durations in microseconds, sorted into buckets.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum: AtomicU64,
}

impl Histogram {
    pub(crate) fn observe(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < micros);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(micros, Ordering::Relaxed);
    }

    fn write(&self, out: &mut String, name: &str, help: &str) {
        header(out, name, "histogram", help);
        let mut count = 0;
        for (bound, bucket) in BOUNDS.iter().zip(&self.buckets) {
            count += bucket.load(Ordering::Relaxed);
            line(out, format_args!("{name}_bucket{{le=\"{}\"}} {count}", *bound as f64 / 1e6));
        }
        count += self.buckets[BOUNDS.len()].load(Ordering::Relaxed);
        line(out, format_args!("{name}_bucket{{le=\"+Inf\"}} {count}"));
        line(out, format_args!("{name}_sum {}", self.sum.load(Ordering::Relaxed) as f64 / 1e6));
        line(out, format_args!("{name}_count {count}"));
    }
}

/// Everything this node counts.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) calls: AllCalls,
    pub(crate) proposals_committed: Counter,
    pub(crate) proposals_failed: Counter,
    pub(crate) leader_changes: Counter,
    pub(crate) peer_sent_bytes: Counter,
    pub(crate) peer_received_bytes: Counter,
    pub(crate) peer_dropped: Counter,
    pub(crate) client_connections: Counter,
    pub(crate) client_connections_refused: Counter,
    pub(crate) wal_fsync: Histogram,
    pub(crate) engine_write: Histogram,
    pub(crate) puts: Counter,
    pub(crate) ranges: Counter,
    pub(crate) deletes: Counter,
    pub(crate) txns: Counter,
    pub(crate) leases_granted: Counter,
    pub(crate) leases_revoked: Counter,
    pub(crate) leases_renewed: Counter,
    pub(crate) watch_history_reads: Counter,
}

/// Values that are read, not counted.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    /// Of this member.
    pub(crate) member: u64,
    pub(crate) is_learner: bool,
    pub(crate) keys: u64,
    pub(crate) has_leader: bool,
    pub(crate) is_leader: bool,
    pub(crate) applied_index: u64,
    pub(crate) committed_index: u64,
    pub(crate) requests_in_flight: u64,
    pub(crate) db_size_bytes: u64,
    pub(crate) quota_bytes: u64,
    pub(crate) revision: i64,
    pub(crate) compacted_revision: i64,
    pub(crate) watch: node::watch::Counts,
}

impl Metrics {
    /// The text of `GET /metrics`.
    pub(crate) fn render(&self, gauges: &Gauges) -> String {
        let mut out = String::with_capacity(8192);
        let o = &mut out;
        header(o, "etcd_server_id", "gauge", "This member, in hexadecimal.");
        line(o, format_args!("etcd_server_id{{server_id=\"{:x}\"}} 1", gauges.member));
        header(o, "etcd_server_version", "gauge", "The etcd version whose API is served.");
        line(o, format_args!("etcd_server_version{{server_version=\"{API_VERSION}\"}} 1"));
        gauge(o, "etcd_server_is_learner", "Whether this member only learns.", u64::from(gauges.is_learner));
        gauge(o, "etcd_server_has_leader", "Whether a leader is known.", u64::from(gauges.has_leader));
        gauge(o, "etcd_server_is_leader", "Whether this member leads.", u64::from(gauges.is_leader));
        counter(o, "etcd_server_leader_changes_seen_total", "Leader changes seen.", &self.leader_changes);
        gauge(o, "etcd_server_proposals_committed_total", "Commit index.", gauges.committed_index);
        gauge(o, "etcd_server_proposals_applied_total", "Applied index.", gauges.applied_index);
        gauge(o, "etcd_server_proposals_pending", "Client requests under way.", gauges.requests_in_flight);
        counter(o, "etcd_server_proposals_failed_total", "Writes that failed or timed out.", &self.proposals_failed);
        gauge(o, "etcd_server_quota_backend_bytes", "Storage quota.", gauges.quota_bytes);
        gauge(o, "etcd_mvcc_db_total_size_in_bytes", "Bytes of the state on disk.", gauges.db_size_bytes);
        gauge(o, "etcd_mvcc_db_total_size_in_use_in_bytes", "Bytes of the state in use.", gauges.db_size_bytes);
        gauge(o, "etcd_debugging_mvcc_current_revision", "Current revision.", gauges.revision);
        gauge(o, "etcd_debugging_mvcc_compact_revision", "Compaction floor.", gauges.compacted_revision);
        gauge(o, "etcd_debugging_mvcc_keys_total", "Keys.", gauges.keys);
        counter(o, "etcd_debugging_lease_granted_total", "Leases granted here.", &self.leases_granted);
        counter(o, "etcd_debugging_lease_revoked_total", "Leases ended by clients here.", &self.leases_revoked);
        counter(o, "etcd_debugging_lease_renewed_total", "Renewals of leases here.", &self.leases_renewed);
        counter(o, "etcd_mvcc_put_total", "Put requests.", &self.puts);
        counter(o, "etcd_mvcc_range_total", "Range requests.", &self.ranges);
        counter(o, "etcd_mvcc_delete_total", "DeleteRange requests.", &self.deletes);
        counter(o, "etcd_mvcc_txn_total", "Txn requests.", &self.txns);
        let watch = &gauges.watch;
        gauge(o, "etcd_debugging_mvcc_watch_stream_total", "Watch streams.", watch.streams);
        gauge(o, "etcd_debugging_mvcc_watcher_total", "Watches.", watch.watchers);
        gauge(o, "etcd_debugging_mvcc_slow_watcher_total", "Watches that are not up to date.", watch.slow_watchers);
        gauge(o, "etcd_debugging_mvcc_pending_events_total", "Changes waiting for watches.", watch.pending);
        header(o, "etcd_debugging_mvcc_events_total", "counter", "Events sent to watches.");
        line(o, format_args!("etcd_debugging_mvcc_events_total {}", watch.events));
        counter(o, "sinew_watch_history_reads_total", "Pages of history read for watches.", &self.watch_history_reads);
        self.wal_fsync.write(
            o,
            "etcd_disk_wal_fsync_duration_seconds",
            "Latency of one write and fdatasync of the log.",
        );
        self.engine_write.write(
            o,
            "etcd_disk_backend_commit_duration_seconds",
            "Latency of applying one batch of entries to the engine.",
        );
        self.calls.write(o);
        process(o);
        counter(o, "sinew_peer_sent_bytes_total", "Bytes sent to peers.", &self.peer_sent_bytes);
        counter(o, "sinew_peer_received_bytes_total", "Bytes received from peers.", &self.peer_received_bytes);
        counter(o, "sinew_peer_dropped_messages_total", "Messages dropped: peer queue full.", &self.peer_dropped);
        counter(o, "sinew_commands_applied_total", "Commands applied.", &self.proposals_committed);
        counter(o, "sinew_client_connections_total", "Client connections accepted.", &self.client_connections);
        counter(
            o,
            "sinew_client_connections_refused_total",
            "Client connections refused: too many.",
            &self.client_connections_refused,
        );
        out
    }
}

/// What every Prometheus client tells of its process. What cannot be read is left out.
fn process(out: &mut String) {
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        gauge(out, "process_open_fds", "Open file descriptors.", files.count());
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(bytes) = resident_bytes(&status) {
        gauge(out, "process_resident_memory_bytes", "Resident memory.", bytes);
    }
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    header(out, "process_cpu_seconds_total", "counter", "Processor time used.");
    line(out, format_args!("process_cpu_seconds_total {}.{:02}", time.tv_sec, time.tv_nsec / 10_000_000));
}

/// The resident memory in the text of `/proc/self/status`.
fn resident_bytes(status: &str) -> Option<u64> {
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?;
    Some(kibibytes.parse::<u64>().ok()? * 1024)
}

pub(crate) fn header(out: &mut String, name: &str, kind: &str, help: &str) {
    line(out, format_args!("# HELP {name} {help}"));
    line(out, format_args!("# TYPE {name} {kind}"));
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("a String takes everything");
}

fn counter(out: &mut String, name: &str, help: &str, counter: &Counter) {
    header(out, name, "counter", help);
    line(out, format_args!("{name} {}", counter.get()));
}

fn gauge(out: &mut String, name: &str, help: &str, value: impl std::fmt::Display) {
    header(out, name, "gauge", help);
    line(out, format_args!("{name} {value}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(resident_bytes("Name:\tsinew\nVmRSS:\t    1234 kB\nThreads:\t4\n"), Some(1_263_616));
        assert_eq!(resident_bytes("Name:\tsinew\n"), None);
    }

    #[test]
    fn histogram_buckets_are_cumulative_and_bounds_inclusive() {
        let histogram = Histogram::default();
        for micros in [62, 63, 9_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let mut out = String::new();
        histogram.write(&mut out, "h", "help");
        assert!(out.contains("h_bucket{le=\"0.000062\"} 1\n"), "{out}");
        assert!(out.contains("h_bucket{le=\"0.000125\"} 2\n"));
        assert!(out.contains("h_bucket{le=\"8.192\"} 2\n"));
        assert!(out.contains("h_bucket{le=\"+Inf\"} 3\n"));
        assert!(out.contains("h_count 3\n"));
    }
}
