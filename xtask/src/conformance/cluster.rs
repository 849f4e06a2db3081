//! Three real nodes for the outside clients: started, waited for, killed. The black-box suite has a harness of its own,
//! which can do more; this one needs no asynchronous runtime and waits with plain HTTP.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long three nodes may take to elect a leader on a busy machine.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause between two looks.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A running cluster; dropping it kills the nodes.
pub(super) struct Cluster {
    nodes: Vec<Child>,
    clients: Vec<u16>,
    logs: Vec<PathBuf>,
}

impl Cluster {
    /// Starts three fresh nodes of `binary` with their data below `folder` and the consensus protocol `protocol` (none
    /// for the reference implementation, which has one), and waits until each is healthy.
    pub(super) fn start(binary: &Path, folder: &Path, protocol: Option<&str>) -> Result<Self, String> {
        if folder.exists() {
            fs::remove_dir_all(folder).map_err(|cause| format!("clearing {}: {cause}", folder.display()))?;
        }
        fs::create_dir_all(folder).map_err(|cause| format!("creating {}: {cause}", folder.display()))?;
        let ports = free_ports(6)?;
        let (clients, peers) = ports.split_at(3);
        let members: Vec<String> =
            peers.iter().enumerate().map(|(at, port)| format!("node{at}=http://127.0.0.1:{port}")).collect();
        let mut cluster = Self { nodes: Vec::new(), clients: clients.to_vec(), logs: Vec::new() };
        for at in 0..3 {
            let log = folder.join(format!("node{at}.log"));
            let output = File::create(&log).map_err(|cause| format!("creating {}: {cause}", log.display()))?;
            let errors = output.try_clone().map_err(|cause| format!("sharing {}: {cause}", log.display()))?;
            let mut command = Command::new(binary);
            // The reference implementation takes the same flags without the verb.
            if let Some(protocol) = protocol {
                command.args(["serve", "--consensus", protocol]);
            }
            command
                .arg("--name")
                .arg(format!("node{at}"))
                .arg("--data-dir")
                .arg(folder.join(format!("node{at}")))
                .arg("--listen-client-urls")
                .arg(format!("http://127.0.0.1:{}", clients[at]))
                .arg("--advertise-client-urls")
                .arg(format!("http://127.0.0.1:{}", clients[at]))
                .arg("--listen-peer-urls")
                .arg(format!("http://127.0.0.1:{}", peers[at]))
                .arg("--initial-advertise-peer-urls")
                .arg(format!("http://127.0.0.1:{}", peers[at]))
                .arg("--initial-cluster")
                .arg(members.join(","))
                .stdin(Stdio::null())
                .stdout(output)
                .stderr(errors);
            let child = command.spawn().map_err(|cause| format!("starting {}: {cause}", binary.display()))?;
            cluster.nodes.push(child);
            cluster.logs.push(log);
        }
        cluster.wait_ready()?;
        Ok(cluster)
    }

    /// `host:port` of each node, comma separated.
    pub(super) fn endpoints(&self) -> String {
        let each: Vec<String> = self.clients.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        each.join(",")
    }

    /// What the nodes printed, for the report of a failure.
    pub(super) fn logs(&self) -> String {
        let read = |path: &PathBuf| fs::read_to_string(path).unwrap_or_else(|cause| cause.to_string());
        self.logs.iter().map(|path| format!("--- {}\n{}", path.display(), read(path))).collect()
    }

    fn wait_ready(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + READY_TIMEOUT;
        for at in 0..self.nodes.len() {
            while !is_healthy(self.clients[at]) {
                let exited = self.nodes[at].try_wait().map_err(|cause| cause.to_string())?;
                if let Some(status) = exited {
                    return Err(format!("node{at} stopped at once ({status})\n{}", self.logs()));
                }
                if Instant::now() > deadline {
                    return Err(format!("node{at} is not healthy after {READY_TIMEOUT:?}\n{}", self.logs()));
                }
                std::thread::sleep(POLL_INTERVAL);
            }
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            // Already gone is what we want.
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

/// `GET /health` says 200 only when a linearizable read goes through.
fn is_healthy(port: u16) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// Ports nobody listens on now. All are bound at once, so that they differ.
fn free_ports(count: usize) -> Result<Vec<u16>, String> {
    let bind = |_| TcpListener::bind(("127.0.0.1", 0)).map_err(|cause| format!("no free port: {cause}"));
    let listeners = (0..count).map(bind).collect::<Result<Vec<_>, _>>()?;
    let port = |listener: &TcpListener| listener.local_addr().map(|at| at.port()).map_err(|cause| cause.to_string());
    listeners.iter().map(port).collect()
}
