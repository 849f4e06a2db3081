//! `sinew demo`: a whole cluster in one process, to try things out.
//!
//! Invariant: without `--data-dir` nothing is left behind after Ctrl-C. With it the same command continues where the
//! last one stopped, and the ports must be the same because the members know each other by them.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use base::limits;
use clap::Args;
use kernel::Protocol;
use server::{ClusterState, Config, InitialMember};

use crate::ctl::Failure;
use crate::logging;
use crate::member::Member;
use crate::signals::{Reason, Signals};

/// Most members of a demo: more only share the same processor.
const NODES_MAX: u16 = 9;
/// First port tried.
const BASE_PORT: u16 = 2379;
/// Highest `--base-port`: two ports for each member must follow.
const BASE_PORT_MAX: i64 = 65_535 - 2 * NODES_MAX as i64;
/// Cached data per member, in bytes: several members share one machine.
const CACHE_BYTES: u64 = 32 * 1024 * 1024;

/// Arguments of `demo`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sinew demo                               three members, gone after Ctrl-C
  sinew demo --nodes 5 --base-port 4000
  sinew demo --consensus zab               another consensus protocol
  sinew demo --data-dir ./demo             keeps the data; the same command continues")]
pub(crate) struct DemoArgs {
    /// How many members
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=i64::from(NODES_MAX)))]
    nodes: u16,
    /// Keep the data here instead of a temporary directory
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Use this port and the ones after it, two for each member [default: 2379, or free ones if taken]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..=BASE_PORT_MAX))]
    base_port: Option<u16>,
    /// raft, multi-paxos, zab or paxos-raft [default: raft, or what the data has]
    #[arg(long, value_name = "PROTOCOL")]
    consensus: Option<Protocol>,
    /// debug, info, warn or error
    #[arg(long, value_name = "LEVEL", default_value = "error")]
    log_level: String,
}

/// The two ports of one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ports {
    client: u16,
    peer: u16,
}

/// Runs the cluster until Ctrl-C.
///
/// # Errors
/// Ports that are taken, a directory that cannot be used, a member that does not start or fails.
pub(crate) fn run(arguments: &DemoArgs) -> Result<(), Failure> {
    logging::install(&arguments.log_level, "console", "stderr")?;
    let ports = pick_ports(arguments).map_err(Failure::Usage)?;
    let signals = Signals::install()?;
    let place = Place::new(arguments.data_dir.as_deref())?;

    let mut members = Vec::new();
    for config in configs(&ports, place.path(), arguments.consensus) {
        // Members that already run stop in order when this returns.
        members.push(Member::start(config).map_err(Failure::Request)?);
    }
    welcome(&ports, &place, arguments)?;
    for (number, member) in members.iter().enumerate() {
        signals.watch(&format!("node{}", number + 1), member.ended())?;
    }
    // A cluster outlives the loss of a member, and so does the demonstration.
    while let Reason::Fault(name, fault) = signals.wait() {
        say(&format!("{name} stopped: {fault}"))?;
    }
    say("\nstopping")?;
    members.into_iter().for_each(Member::stop);
    Ok(())
}

/// Where the data lies.
enum Place {
    Kept(PathBuf),
    Temporary(PathBuf),
}

impl Place {
    fn new(kept: Option<&Path>) -> Result<Self, Failure> {
        let place = match kept {
            Some(path) => Self::Kept(path.to_path_buf()),
            None => Self::Temporary(std::env::temp_dir().join(format!("sinew-demo-{}", std::process::id()))),
        };
        std::fs::create_dir_all(place.path())
            .map_err(|error| Failure::Request(format!("cannot create {}: {error}", place.path().display())))?;
        Ok(place)
    }

    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) | Self::Temporary(path) => path,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Self::Temporary(path) = self
            && let Err(error) = std::fs::remove_dir_all(&*path)
        {
            tracing::warn!("cannot remove {}: {error}", path.display());
        }
    }
}

/// Two ports per member: the wanted ones, or any if nobody insists on them.
fn pick_ports(arguments: &DemoArgs) -> Result<Vec<Ports>, String> {
    let base = arguments.base_port.unwrap_or(BASE_PORT);
    let wanted: Vec<Ports> =
        (0..arguments.nodes).map(|number| Ports { client: base + 2 * number, peer: base + 2 * number + 1 }).collect();
    let taken = wanted.iter().flat_map(|ports| [ports.client, ports.peer]).find(|port| !is_free(*port));
    let Some(taken) = taken else { return Ok(wanted) };
    if arguments.base_port.is_some() {
        return Err(format!("port {taken} is taken; choose another --base-port"));
    }
    if arguments.data_dir.is_some() {
        return Err(format!(
            "port {taken} is taken, and a cluster that keeps its data needs the same ports each time; choose a free \
             --base-port and stay with it"
        ));
    }
    free_ports(arguments.nodes).map_err(|error| format!("no free ports: {error}"))
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Free ports, all held until the last is found so that none comes twice.
fn free_ports(nodes: u16) -> io::Result<Vec<Ports>> {
    let mut held = Vec::new();
    let mut next = || -> io::Result<u16> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        held.push(listener);
        Ok(port)
    };
    (0..nodes).map(|_| Ok(Ports { client: next()?, peer: next()? })).collect()
}

fn name_of(number: usize) -> String {
    format!("node{}", number + 1)
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// The members' configurations.
fn configs(ports: &[Ports], directory: &Path, consensus: Option<Protocol>) -> Vec<Config> {
    let cluster: Vec<InitialMember> = ports
        .iter()
        .enumerate()
        .map(|(number, ports)| InitialMember { name: name_of(number), peer_urls: vec![url(ports.peer)] })
        .collect();
    ports
        .iter()
        .enumerate()
        .map(|(number, ports)| Config {
            name: name_of(number),
            data_dir: directory.join(name_of(number)),
            listen_client: vec![(Ipv4Addr::LOCALHOST, ports.client).into()],
            advertise_client_urls: vec![url(ports.client)],
            listen_peer: vec![(Ipv4Addr::LOCALHOST, ports.peer).into()],
            initial_advertise_peer_urls: vec![url(ports.peer)],
            initial_cluster: cluster.clone(),
            initial_cluster_token: "sinew-demo".to_owned(),
            initial_cluster_state: ClusterState::New,
            consensus,
            leader_priority: 0,
            heartbeat_interval: limits::HEARTBEAT_INTERVAL,
            election_timeout: limits::ELECTION_TIMEOUT,
            max_request_bytes: limits::REQUEST_BYTES_MAX,
            max_txn_ops: limits::TXN_OPS_MAX,
            max_concurrent_streams: limits::STREAMS_PER_CONNECTION_MAX,
            quota_backend_bytes: 0,
            auto_compaction: None,
            corrupt_check_interval: None,
            watch_progress_interval: limits::WATCH_PROGRESS_INTERVAL,
            client_threads: 1,
            cache_bytes: CACHE_BYTES,
            unsafe_no_fsync: false,
        })
        .collect()
}

fn welcome(ports: &[Ports], place: &Place, arguments: &DemoArgs) -> Result<(), Failure> {
    let endpoints: Vec<String> = ports.iter().map(|ports| format!("127.0.0.1:{}", ports.client)).collect();
    let endpoints = endpoints.join(",");
    let mut text = format!("A cluster of {} is running.\n\n", ports.len());
    for (number, ports) in ports.iter().enumerate() {
        text.push_str(&format!("  {}  {}\n", name_of(number), url(ports.client)));
    }
    let fate = if arguments.data_dir.is_some() { "kept" } else { "gone after Ctrl-C" };
    text.push_str(&format!(
        "\nData: {} ({fate})\n\nIn another terminal:\n\n  export ETCDCTL_ENDPOINTS={endpoints}\n  \
         sinew put greeting hello\n  sinew get greeting\n  \
         printf 'create(\"color\") = \"0\"\\n\\nput color blue\\n\\nget color\\n\\n' | sinew txn\n  \
         sinew status\n  sinew bench --endpoints {endpoints}\n\nCtrl-C stops it.",
        place.path().display()
    ));
    say(&text)
}

fn say(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        // Whoever closed the pipe does not want to read it; the cluster runs all the same.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(base_port: Option<u16>, data_dir: Option<PathBuf>) -> DemoArgs {
        DemoArgs { nodes: 3, data_dir, base_port, consensus: None, log_level: "warn".to_owned() }
    }

    #[test]
    fn wanted_ports_are_used_or_refused() {
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = held.local_addr().expect("an address").port();
        let error = pick_ports(&arguments(Some(port), None)).expect_err("taken");
        assert!(error.contains(&format!("port {port} is taken")), "{error}");
    }

    #[test]
    fn free_ports_are_all_different() {
        let ports = free_ports(3).expect("ports");
        let mut all: Vec<u16> = ports.iter().flat_map(|ports| [ports.client, ports.peer]).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 6);
    }

    #[test]
    fn members_know_each_other() {
        let ports = [Ports { client: 1, peer: 2 }, Ports { client: 3, peer: 4 }];
        let configs = configs(&ports, Path::new("/d"), None);
        assert_eq!(configs[1].data_dir, Path::new("/d/node2"));
        assert_eq!(configs[0].initial_cluster, configs[1].initial_cluster);
        assert_eq!(configs[1].initial_cluster[1].peer_urls, configs[1].initial_advertise_peer_urls);
    }

    #[test]
    fn temporary_data_is_removed_and_kept_data_is_not() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let kept = directory.path().join("kept");
        drop(Place::new(Some(&kept)).expect("created"));
        assert!(kept.exists());
        let temporary = Place::new(None).expect("created");
        let path = temporary.path().to_path_buf();
        assert!(path.exists());
        drop(temporary);
        assert!(!path.exists());
    }
}
