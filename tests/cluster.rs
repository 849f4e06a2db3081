//! Real processes: started, killed, paused, restarted.
//!
//! Each cluster has its own folder and ports. A node's output goes to a file and is shown when the test fails. Dropping
//! the cluster kills what still runs.

use std::fs::{self, File, OpenOptions};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::client::Client;
use crate::{PATIENCE, eventually};

/// Lines of each node's output that a failure shows.
const LOG_LINES_SHOWN: usize = 40;

/// Ports are handed out below the range from which the system picks the local end of outgoing connections, so that a
/// stopped node's port is still free when it comes back.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// The program under test.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("SINEW_TEST_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_sinew").into(), PathBuf::from)
}

/// Whether the program under test is the reference implementation, which words its complaints in its own way.
pub(crate) fn is_reference() -> bool {
    binary().file_name().is_some_and(|name| name == "etcd")
}

/// The program, with the verb that starts a node.
pub(crate) fn serve() -> Command {
    let mut command = Command::new(binary());
    if !is_reference() {
        command.arg("serve");
    }
    command.stdin(Stdio::null());
    command
}

/// A port nobody listens on.
pub(crate) fn free_port() -> u16 {
    free_ports(1)
}

/// The first of `count` neighbouring ports nobody listens on; no other call of this run returns one of them.
pub(crate) fn free_ports(count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let width = PORTS.end - PORTS.start - count;
    // Runs side by side start at different places.
    let start = std::process::id().wrapping_mul(97) % u32::from(width);
    for _ in 0..width {
        let offset = (start + u32::from(NEXT.fetch_add(count, Ordering::Relaxed))) % u32::from(width);
        let first = PORTS.start + offset as u16;
        if (first..first + count).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return first;
        }
    }
    panic!("no {count} free ports in {PORTS:?}");
}

/// One member and how to start it.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) data_dir: PathBuf,
    /// Where it listens.
    pub(crate) host: String,
    pub(crate) client_port: u16,
    pub(crate) peer_port: u16,
    pub(crate) log: PathBuf,
    /// Flags this node is started with, without the program and its verb.
    pub(crate) flags: Vec<String>,
    /// A command that runs the program, which must become the program itself; empty for none.
    pub(crate) wrapper: Vec<String>,
    process: Option<Child>,
}

impl Node {
    /// What clients dial.
    pub(crate) fn endpoint(&self) -> String {
        format!("{}:{}", self.host, self.client_port)
    }

    /// The program and its flags, as they are to be run now.
    fn command(&self) -> Command {
        let mut command = serve();
        if let Some((first, rest)) = self.wrapper.split_first() {
            let verb: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
            command = Command::new(first);
            command.args(rest).arg(binary()).args(verb).stdin(Stdio::null());
        }
        command.args(&self.flags);
        command
    }
}

/// Room that a cluster may need: a full one with its snapshots, beside the cluster of the test that runs next to it.
const ROOM_MIN_BYTES: u64 = 2 << 30;

/// On a disk that is nearly full, nodes stop one after the other and tests fail far from the cause: better said at
/// once.
fn assert_room(folder: &Path) {
    let room = rustix::fs::statvfs(folder).expect("the disk of the temporary folder");
    let bytes = room.f_bavail * room.f_frsize;
    assert!(
        bytes >= ROOM_MIN_BYTES,
        "only {} MiB are free at {}: a cluster under test needs {}; free some, or set TMPDIR to a larger disk",
        bytes >> 20,
        folder.display(),
        ROOM_MIN_BYTES >> 20,
    );
}

/// A cluster of real processes on this machine.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    /// Holds data and logs; goes with the cluster.
    _folder: tempfile::TempDir,
}

impl Cluster {
    /// Starts `size` fresh nodes and waits until each serves reads.
    pub(crate) async fn start(size: usize) -> Self {
        Self::start_with(size, &[]).await
    }

    /// The same with more flags.
    pub(crate) async fn start_with(size: usize, flags: &[&str]) -> Self {
        let mut cluster = Self::prepare(size, flags);
        for at in 0..size {
            cluster.restart(at);
        }
        cluster.wait_ready().await;
        cluster
    }

    /// Lays out a cluster without starting it.
    pub(crate) fn prepare(size: usize, flags: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("sinew-test-").tempdir().expect("a temporary folder");
        assert_room(folder.path());
        let ports: Vec<(u16, u16)> = (0..size).map(|_| (free_port(), free_port())).collect();
        let mut members: Vec<String> =
            ports.iter().enumerate().map(|(at, (_, peer))| format!("n{at}=http://127.0.0.1:{peer}")).collect();
        let mut nodes = Vec::new();
        for (at, (client_port, peer_port)) in ports.into_iter().enumerate() {
            let (client, peer) = (format!("http://127.0.0.1:{client_port}"), format!("http://127.0.0.1:{peer_port}"));
            let data_dir = folder.path().join(format!("n{at}"));
            let name = format!("n{at}");
            let pairs = [
                ("--name", name.as_str()),
                ("--data-dir", data_dir.to_str().expect("a path in UTF-8")),
                ("--listen-client-urls", &client),
                ("--advertise-client-urls", &client),
                ("--listen-peer-urls", &peer),
                ("--initial-advertise-peer-urls", &peer),
                ("--initial-cluster", &members.join(",")),
                ("--initial-cluster-state", "new"),
            ];
            let own = pairs.iter().flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()]);
            let flags = own.chain(flags.iter().map(|flag| (*flag).to_owned())).collect();
            let log = folder.path().join(format!("n{at}.log"));
            let (host, wrapper) = ("127.0.0.1".to_owned(), Vec::new());
            nodes.push(Node { name, data_dir, host, client_port, peer_port, log, flags, wrapper, process: None });
            // Every node is told the members in another order: identity must not depend on it.
            members.rotate_left(1);
        }
        Self { nodes, _folder: folder }
    }

    /// Waits until every running node answers a linearizable read.
    pub(crate) async fn wait_ready(&mut self) {
        for at in 0..self.nodes.len() {
            if self.nodes[at].process.is_none() {
                continue;
            }
            let client = self.client(at);
            let deadline = Instant::now() + PATIENCE;
            while let Err(status) = client.get("ready").await {
                if let Some(exit) = self.exited(at) {
                    panic!("node {at} stopped ({exit}) instead of becoming ready");
                }
                assert!(Instant::now() < deadline, "node {at} not ready after {PATIENCE:?}: {status}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// A new connection to a node.
    pub(crate) fn client(&self, at: usize) -> Client {
        Client::new(&self.nodes[at].endpoint())
    }

    /// What clients dial, of all nodes.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(Node::endpoint).collect()
    }

    /// Connections to all nodes.
    pub(crate) fn clients(&self) -> Vec<Client> {
        (0..self.nodes.len()).map(|at| self.client(at)).collect()
    }

    /// Starts a stopped node, with the data it has.
    pub(crate) fn restart(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        assert!(node.process.is_none(), "node {at} is running");
        let log = OpenOptions::new().create(true).append(true).open(&node.log).expect("a log file");
        let errors = log.try_clone().expect("a log file");
        let process = node.command().stdout(log).stderr(errors).spawn();
        node.process = Some(process.expect("the program under test starts"));
    }

    /// kill -9, and waits until the process is gone.
    pub(crate) fn kill(&mut self, at: usize) {
        let mut process = self.nodes[at].process.take().expect("the node is running");
        process.kill().expect("kill -9");
        process.wait().expect("a dead process");
    }

    /// Freezes a node (SIGSTOP): it holds its sockets and says nothing.
    pub(crate) fn pause(&self, at: usize) {
        self.signal(at, Signal::STOP);
    }

    /// Lets a frozen node go on.
    pub(crate) fn resume(&self, at: usize) {
        self.signal(at, Signal::CONT);
    }

    /// Asks a node to stop (SIGTERM).
    pub(crate) fn terminate(&self, at: usize) {
        self.signal(at, Signal::TERM);
    }

    fn signal(&self, at: usize, signal: Signal) {
        let process = self.nodes[at].process.as_ref().expect("the node is running");
        kill_process(Pid::from_child(process), signal).expect("a signal");
    }

    /// The exit status of a node that stopped by itself; `None` while it runs.
    pub(crate) fn exited(&mut self, at: usize) -> Option<ExitStatus> {
        let process = self.nodes[at].process.as_mut()?;
        let status = process.try_wait().expect("a child process");
        if status.is_some() {
            self.nodes[at].process = None;
        }
        status
    }

    /// Waits until a node has stopped by itself.
    pub(crate) async fn wait_exit(&mut self, at: usize) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.exited(at) {
                return status;
            }
            assert!(Instant::now() < deadline, "node {at} still runs after {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Everything a node has printed.
    pub(crate) fn output(&self, at: usize) -> String {
        fs::read(&self.nodes[at].log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The running node that leads, as soon as the running nodes agree on one.
    pub(crate) async fn leader(&self) -> usize {
        eventually("a leader everybody knows", || async {
            let mut leaders = Vec::new();
            for (at, node) in self.nodes.iter().enumerate() {
                if node.process.is_some() {
                    let status = self.client(at).status().await.map_err(|status| status.to_string())?;
                    let member = status.header.map_or(0, |header| header.member_id);
                    leaders.push((at, member, status.leader));
                }
            }
            let named = leaders.first().map_or(0, |(_, _, leader)| *leader);
            let agreed = named != 0 && leaders.iter().all(|(_, _, leader)| *leader == named);
            let found = leaders.iter().find(|(_, member, _)| agreed && *member == named);
            found.map(|(at, _, _)| *at).ok_or_else(|| format!("nodes say {leaders:?}"))
        })
        .await
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(mut process) = node.process.take() {
                // Already gone is what we want.
                let _ = process.kill();
                let _ = process.wait();
            }
        }
        if std::thread::panicking() {
            for node in &self.nodes {
                show_tail(&node.name, &node.log);
            }
        }
    }
}

#[expect(clippy::print_stderr, reason = "a failed test shows what the nodes said")]
fn show_tail(name: &str, log: &Path) {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
    eprintln!("--- last words of {name}\n{}", shown.join("\n"));
}

/// What a program that stops by itself said and how it ended.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) output: String,
}

/// Runs a command that should end by itself; kills it and fails the test if it does not.
pub(crate) fn run_to_end(mut command: Command) -> Ended {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    let output = || -> File { file.reopen().expect("a temporary file") };
    // Both ends append to one file, so that the order of the lines is kept.
    let log = OpenOptions::new().append(true).open(file.path()).expect("a temporary file");
    let mut process =
        command.stdout(log.try_clone().expect("a handle")).stderr(log).spawn().expect("the program starts");
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = process.try_wait().expect("a child process") {
            break status;
        }
        if Instant::now() > deadline {
            process.kill().expect("kill -9");
            process.wait().expect("a dead process");
            let said = std::io::read_to_string(output()).unwrap_or_default();
            panic!("{command:?} should have ended by itself; it said:\n{said}");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let output = std::io::read_to_string(&mut file).expect("output in UTF-8");
    Ended { status, output }
}
