//! From flags to [`server::Config`]: every check an operator can fail, before anything is opened.
//!
//! Each error names the flag, what is wrong and what to write instead.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use base::limits;
use server::{AutoCompaction, ClusterState, Config, InitialMember};

use super::flags::ServeFlags;
use super::urls::{self, Url};
use crate::flags::go_duration;

/// Shortest history that may be kept by time.
const AUTO_COMPACTION_MIN: Duration = Duration::from_secs(1);
/// Default port for members.
const PEER_PORT: u16 = 2380;

/// Checks `flags` and converts them.
pub(super) fn from_flags(flags: &ServeFlags) -> Result<Config, String> {
    check_name(&flags.name)?;
    check_limits(flags)?;
    let (heartbeat_interval, election_timeout) = timing(flags)?;

    let client_urls = urls::parse_list("listen-client-urls", &flags.listen_client_urls)?;
    let peer_urls = match &flags.listen_peer_urls {
        Some(text) => urls::parse_list("listen-peer-urls", text)?,
        None => vec![urls::loopback(PEER_PORT)],
    };
    let listen_client = urls::listen_addresses("listen-client-urls", &client_urls)?;
    let listen_peer = urls::listen_addresses("listen-peer-urls", &peer_urls)?;
    for client in &listen_client {
        if let Some(peer) = listen_peer.iter().find(|peer| urls::collide(*client, **peer)) {
            return Err(format!(
                "--listen-client-urls and --listen-peer-urls both want {client} ({peer}); give one of them another port"
            ));
        }
    }

    let advertise_client = advertised_client_urls(flags, client_urls)?;
    let cluster = match &flags.initial_cluster {
        Some(text) => Some(parse_cluster(text)?),
        None => None,
    };
    let advertise_peer = advertised_peer_urls(flags, cluster.as_ref(), peer_urls)?;
    let cluster = match cluster {
        Some(cluster) => {
            check_own_entry(&flags.name, &cluster, &advertise_peer)?;
            cluster
        }
        None => BTreeMap::from([(flags.name.clone(), advertise_peer.clone())]),
    };

    Ok(Config {
        name: flags.name.clone(),
        data_dir: flags.data_dir.clone().unwrap_or_else(|| PathBuf::from(format!("{}.sinew", flags.name))),
        listen_client,
        advertise_client_urls: texts(&advertise_client),
        listen_peer,
        initial_advertise_peer_urls: texts(&advertise_peer),
        initial_cluster: cluster
            .into_iter()
            .map(|(name, urls)| InitialMember { name, peer_urls: texts(&urls) })
            .collect(),
        initial_cluster_token: flags.initial_cluster_token.clone(),
        initial_cluster_state: cluster_state(&flags.initial_cluster_state)?,
        consensus: flags.consensus,
        leader_priority: flags.leader_priority,
        heartbeat_interval,
        election_timeout,
        max_request_bytes: flags.max_request_bytes,
        max_txn_ops: flags.max_txn_ops,
        max_concurrent_streams: flags.max_concurrent_streams,
        quota_backend_bytes: flags.quota_backend_bytes,
        auto_compaction: auto_compaction(&flags.auto_compaction_mode, &flags.auto_compaction_retention)?,
        corrupt_check_interval: corrupt_check_interval(flags),
        watch_progress_interval: watch_progress_interval(flags),
        client_threads: flags.client_threads,
        cache_bytes: flags.cache_bytes,
        unsafe_no_fsync: flags.unsafe_no_fsync,
    })
}

/// What is kept of history, in etcd's words: a bare number counts hours, or revisions; 0 keeps everything.
fn auto_compaction(mode: &str, retention: &str) -> Result<Option<AutoCompaction>, String> {
    const FLAG: &str = "auto-compaction-retention";
    let number = retention.parse::<u32>().ok();
    match (mode, number) {
        ("periodic" | "revision", Some(0)) => Ok(None),
        ("revision", Some(kept)) => Ok(Some(AutoCompaction::Revisions(i64::from(kept)))),
        ("revision", None) => Err(format!("--{FLAG}: '{retention}' is not a number of revisions, for example 10000")),
        ("periodic", Some(hours)) => Ok(Some(AutoCompaction::Periodic(Duration::from_secs(3600 * u64::from(hours))))),
        ("periodic", None) => match go_duration(retention).map_err(|advice| format!("--{FLAG}: {advice}"))? {
            Duration::ZERO => Ok(None),
            shortest if shortest < AUTO_COMPACTION_MIN => {
                Err(format!("--{FLAG}: {retention} leaves watches and snapshots no time; write at least 1s"))
            }
            retention => Ok(Some(AutoCompaction::Periodic(retention))),
        },
        _ => Err(format!("--auto-compaction-mode: '{mode}' is neither periodic nor revision")),
    }
}

fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("--name is empty; give the member a name, for example --name one".to_owned());
    }
    if name.contains(['=', ',', '/']) || name.chars().any(char::is_control) {
        return Err(format!("--name: '{name}' contains '=', ',', '/' or a control character; use letters and digits"));
    }
    Ok(())
}

fn check_limits(flags: &ServeFlags) -> Result<(), String> {
    if flags.max_request_bytes == 0 || flags.max_request_bytes > limits::REQUEST_BYTES_MAX {
        return Err(format!(
            "--max-request-bytes: {} is not from 1 to {}; larger values cannot be replicated in this version",
            flags.max_request_bytes,
            limits::REQUEST_BYTES_MAX
        ));
    }
    if flags.max_txn_ops == 0 {
        return Err("--max-txn-ops: 0 would allow no transaction; write 128 or leave the flag out".to_owned());
    }
    if flags.max_concurrent_streams == 0 {
        return Err("--max-concurrent-streams: 0 would allow no request; leave the flag out".to_owned());
    }
    Ok(())
}

/// Heartbeat and election timeout.
fn timing(flags: &ServeFlags) -> Result<(Duration, Duration), String> {
    let (heartbeat, election) = (flags.heartbeat_interval, flags.election_timeout);
    if heartbeat == 0 {
        return Err("--heartbeat-interval: 0 would flood the network; write 100".to_owned());
    }
    // One lost or late heartbeat must not be enough to unseat a leader.
    let election_min = heartbeat.saturating_mul(5);
    if election < election_min {
        return Err(format!(
            "--election-timeout: {election} ms is less than 5 times --heartbeat-interval ({heartbeat} ms); write at \
             least {election_min}"
        ));
    }
    let election_max = limits::ELECTION_TIMEOUT_MAX;
    let election = Duration::from_millis(election);
    if election > election_max {
        return Err(format!(
            "--election-timeout: {} ms is above the limit; write at most {}",
            election.as_millis(),
            election_max.as_millis()
        ));
    }
    Ok((Duration::from_millis(heartbeat), election))
}

/// 0 is the default; less than the minimum is the minimum, as in etcd.
fn corrupt_check_interval(flags: &ServeFlags) -> Option<Duration> {
    let given = flags.corrupt_check_time.or(flags.experimental_corrupt_check_time);
    given.filter(|interval| !interval.is_zero())
}

fn watch_progress_interval(flags: &ServeFlags) -> Duration {
    let asked = flags.watch_progress_notify_interval.or(flags.experimental_watch_progress_notify_interval);
    match asked {
        None | Some(Duration::ZERO) => limits::WATCH_PROGRESS_INTERVAL,
        Some(interval) => interval.max(limits::WATCH_PROGRESS_INTERVAL_MIN),
    }
}

fn cluster_state(text: &str) -> Result<ClusterState, String> {
    match text {
        "new" => Ok(ClusterState::New),
        "existing" => Ok(ClusterState::Existing),
        other => Err(format!("--initial-cluster-state: '{other}' is unknown; write new or existing")),
    }
}

fn advertised_client_urls(flags: &ServeFlags, listened: Vec<Url>) -> Result<Vec<Url>, String> {
    const FLAG: &str = "advertise-client-urls";
    match &flags.advertise_client_urls {
        Some(text) => not_everywhere(FLAG, urls::parse_list(FLAG, text)?),
        None => not_everywhere(FLAG, listened).map_err(|_| {
            "--listen-client-urls listens everywhere, so --advertise-client-urls must say where clients can reach this \
             member, for example http://10.0.0.1:2379"
                .to_owned()
        }),
    }
}

/// What this member calls itself: as told, else as in the cluster list, else where it listens.
fn advertised_peer_urls(
    flags: &ServeFlags,
    cluster: Option<&BTreeMap<String, Vec<Url>>>,
    listened: Vec<Url>,
) -> Result<Vec<Url>, String> {
    const FLAG: &str = "initial-advertise-peer-urls";
    if let Some(text) = &flags.initial_advertise_peer_urls {
        return not_everywhere(FLAG, urls::parse_list(FLAG, text)?);
    }
    if let Some(own) = cluster.and_then(|cluster| cluster.get(&flags.name)) {
        return Ok(own.clone());
    }
    if flags.listen_peer_urls.is_none() {
        return Ok(vec![urls::localhost(PEER_PORT)]);
    }
    not_everywhere(FLAG, listened).map_err(|_| {
        "--listen-peer-urls listens everywhere, so --initial-advertise-peer-urls must say where other members can \
         reach this one, for example http://10.0.0.1:2380"
            .to_owned()
    })
}

fn not_everywhere(flag: &str, urls: Vec<Url>) -> Result<Vec<Url>, String> {
    match urls.iter().find(|url| url.is_wildcard()) {
        Some(url) => Err(format!(
            "--{flag}: nobody can connect to {url}; write an address others can reach, for example http://10.0.0.1:2380"
        )),
        None => Ok(urls),
    }
}

/// Parses `name=url,name=url,...`; a name may come several times with different URLs.
fn parse_cluster(text: &str) -> Result<BTreeMap<String, Vec<Url>>, String> {
    const FLAG: &str = "initial-cluster";
    let mut cluster: BTreeMap<String, Vec<Url>> = BTreeMap::new();
    let mut owners: BTreeMap<Url, String> = BTreeMap::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let Some((name, url)) = item.split_once('=') else {
            return Err(format!("--{FLAG}: '{item}' has no name; write for example one={item}"));
        };
        if name.is_empty() {
            return Err(format!("--{FLAG}: '{item}' has an empty name; write for example one{item}"));
        }
        let url = urls::parse(FLAG, url)?;
        if url.is_wildcard() {
            return Err(format!("--{FLAG}: nobody can connect to {url}; write the address of member {name}"));
        }
        if let Some(owner) = owners.insert(url.clone(), name.to_owned()) {
            return Err(format!("--{FLAG}: {url} belongs to both {owner} and {name}; every member needs its own"));
        }
        cluster.entry(name.to_owned()).or_default().push(url);
    }
    if cluster.is_empty() {
        return Err(format!("--{FLAG} is empty; write for example one=http://10.0.0.1:2380"));
    }
    cluster.values_mut().for_each(|urls| urls.sort());
    Ok(cluster)
}

/// The member must find itself in the list: ids are made from it, and everyone must make the same.
fn check_own_entry(name: &str, cluster: &BTreeMap<String, Vec<Url>>, advertised: &[Url]) -> Result<(), String> {
    let Some(listed) = cluster.get(name) else {
        let names: Vec<&str> = cluster.keys().map(String::as_str).collect();
        return Err(format!(
            "--initial-cluster does not contain this member, '{name}' (it has: {}); add {name}={} or correct --name",
            names.join(", "),
            texts(advertised).join(&format!(",{name}="))
        ));
    };
    if listed == advertised || mean_the_same(listed, advertised) {
        return Ok(());
    }
    Err(format!(
        "--initial-cluster says {name}={}, but --initial-advertise-peer-urls says {}; make them equal",
        texts(listed).join(","),
        texts(advertised).join(",")
    ))
}

/// True if both lists resolve to the same addresses, for example by name and by number.
fn mean_the_same(one: &[Url], other: &[Url]) -> bool {
    let resolved = |urls: &[Url]| {
        let mut all = Vec::new();
        for url in urls {
            all.extend(url.resolve().ok()?.into_iter().filter(std::net::SocketAddr::is_ipv4));
        }
        all.sort();
        (!all.is_empty()).then_some(all)
    };
    match (resolved(one), resolved(other)) {
        (Some(one), Some(other)) => one == other,
        _ => false,
    }
}

fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(Url::to_string).collect()
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches};

    use super::*;

    fn convert(words: &[&str]) -> Result<Config, String> {
        let command = crate::flags::go_style(ServeFlags::augment_args(Command::new("serve"))).no_binary_name(true);
        let matches = command.try_get_matches_from(words).map_err(|error| error.to_string())?;
        from_flags(&ServeFlags::from_arg_matches(&matches).map_err(|error| error.to_string())?)
    }

    fn refused(words: &[&str], expected: &str) {
        let error = convert(words).map(|_| ()).expect_err(&format!("{words:?}"));
        assert!(error.contains(expected), "{words:?}: {error}");
    }

    #[test]
    fn defaults_are_those_of_etcd() {
        let config = convert(&[]).expect("fine");
        assert_eq!(config.name, "default");
        assert_eq!(config.data_dir, PathBuf::from("default.sinew"));
        assert_eq!(config.listen_client, ["127.0.0.1:2379".parse().expect("address")]);
        assert_eq!(config.listen_peer, ["127.0.0.1:2380".parse().expect("address")]);
        assert_eq!(config.advertise_client_urls, ["http://127.0.0.1:2379"]);
        assert_eq!(config.initial_advertise_peer_urls, ["http://localhost:2380"]);
        let own = InitialMember { name: "default".to_owned(), peer_urls: vec!["http://localhost:2380".to_owned()] };
        assert_eq!(config.initial_cluster, [own]);
        assert_eq!(config.initial_cluster_token, "etcd-cluster");
        assert_eq!(config.initial_cluster_state, ClusterState::New);
        assert_eq!(config.heartbeat_interval, Duration::from_millis(100));
        assert_eq!(config.election_timeout, Duration::from_millis(1000));
        assert_eq!((config.max_request_bytes, config.max_txn_ops), (1_572_864, 128));
        assert!(!config.unsafe_no_fsync);
    }

    #[test]
    fn a_member_of_three_is_configured_as_in_etcd() {
        let config = convert(&[
            "--name=two",
            "--data-dir=/data",
            "--listen-client-urls=http://127.0.0.2:2379,http://127.0.0.3:2379",
            "--advertise-client-urls=http://two.example:2379",
            "--listen-peer-urls=http://127.0.0.2:2380",
            "--initial-advertise-peer-urls=http://127.0.0.2:2380",
            "--initial-cluster=two=http://127.0.0.2:2380,one=http://127.0.0.1:2380,three=http://127.0.0.3:2380",
            "--initial-cluster-state=existing",
            "--initial-cluster-token=t",
            "--unsafe-no-fsync=true",
        ])
        .expect("fine");
        assert_eq!(config.listen_client.len(), 2);
        assert_eq!(config.advertise_client_urls, ["http://two.example:2379"]);
        let names: Vec<&str> = config.initial_cluster.iter().map(|member| member.name.as_str()).collect();
        assert_eq!(names, ["one", "three", "two"]);
        assert_eq!(config.initial_cluster_state, ClusterState::Existing);
        assert!(config.unsafe_no_fsync);
    }

    #[test]
    fn own_addresses_are_found_where_they_stand() {
        let cluster = "--initial-cluster=default=http://127.0.0.1:7777,default=http://127.0.0.2:7777";
        let config = convert(&[cluster, "--listen-peer-urls=http://0.0.0.0:7777"]).expect("fine");
        assert_eq!(config.initial_advertise_peer_urls, ["http://127.0.0.1:7777", "http://127.0.0.2:7777"]);
        let config = convert(&["--listen-peer-urls=http://127.0.0.1:9999"]).expect("fine");
        assert_eq!(config.initial_cluster[0].peer_urls, ["http://127.0.0.1:9999"]);
        let by_name = "--initial-cluster=default=http://localhost:2380";
        convert(&[by_name, "--initial-advertise-peer-urls=http://127.0.0.1:2380"]).expect("the same address");
    }

    #[test]
    fn timing_must_leave_room_for_a_lost_heartbeat() {
        convert(&["--heartbeat-interval=200"]).expect("exactly five times");
        refused(&["--heartbeat-interval=201"], "at least 1005");
        refused(&["--heartbeat-interval=0"], "write 100");
        refused(&["--election-timeout=50001"], "at most 50000");
        convert(&["--election-timeout=50000"]).expect("exactly the limit");
    }

    #[test]
    fn addresses_nobody_can_reach_are_refused() {
        refused(&["--listen-client-urls=http://0.0.0.0:2379"], "--advertise-client-urls must say");
        refused(&["--listen-peer-urls=http://0.0.0.0:2380"], "--initial-advertise-peer-urls must say");
        refused(&["--advertise-client-urls=http://0.0.0.0:2379"], "nobody can connect");
        refused(&["--initial-cluster=default=http://0.0.0.0:2380"], "nobody can connect");
        refused(&["--listen-peer-urls=http://127.0.0.1:2379"], "another port");
        refused(&["--listen-client-urls=https://127.0.0.1:2379"], "TLS is not available yet");
    }

    #[test]
    fn cluster_lists_that_contradict_themselves_are_refused() {
        refused(&["--initial-cluster=one=http://127.0.0.1:2380"], "add default=http://localhost:2380");
        refused(
            &["--initial-cluster=default=http://127.0.0.1:1,b=http://127.0.0.1:1"],
            "belongs to both default and b",
        );
        refused(&["--initial-cluster=http://127.0.0.1:2380"], "has no name");
        refused(&["--initial-cluster==http://127.0.0.1:2380"], "empty name");
        refused(&["--initial-cluster="], "is empty");
        let other = "--initial-advertise-peer-urls=http://127.0.0.1:2";
        refused(&["--initial-cluster=default=http://127.0.0.1:1", other], "make them equal");
        refused(&["--initial-cluster-state=old"], "new or existing");
    }

    #[test]
    fn history_is_kept_as_etcd_reads_the_flags() {
        let hours = |hours: u64| Some(AutoCompaction::Periodic(Duration::from_secs(3600 * hours)));
        let table = [
            ("periodic", "0", None),
            ("periodic", "0s", None),
            ("periodic", "2", hours(2)),
            ("periodic", "90m", Some(AutoCompaction::Periodic(Duration::from_secs(5400)))),
            ("revision", "0", None),
            ("revision", "1000", Some(AutoCompaction::Revisions(1000))),
        ];
        for (mode, retention, expected) in table {
            assert_eq!(auto_compaction(mode, retention), Ok(expected), "{mode} {retention}");
        }
    }

    #[test]
    fn senseless_values_are_refused() {
        refused(&["--name="], "is empty");
        refused(&["--name=a=b"], "letters and digits");
        refused(&["--max-request-bytes=0"], "not from 1");
        refused(&["--max-txn-ops=0"], "no transaction");
        refused(&["--auto-compaction-mode=never"], "neither periodic nor revision");
        refused(&["--auto-compaction-retention=soon"], "write a number and a unit");
        refused(&["--auto-compaction-retention=5ms"], "at least 1s");
        refused(&["--auto-compaction-mode=revision", "--auto-compaction-retention=1h"], "not a number of revisions");
        refused(&["--elektion-timeout=1"], "--election-timeout");
    }
}
