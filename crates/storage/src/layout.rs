//! The data directory: whose it is, and that only one process has it.
//!
//! ```text
//! LOCK       held with flock for the life of the process; its content means nothing
//! IDENTITY   who the directory belongs to, see [`Identity`]; text, replaced atomically, with a checksum
//! wal/       the write-ahead log      engine/    the state machine's rows      snapshot/  free for transfers
//! ```
//! A directory goes with one node of one cluster for ever: the log in it holds that node's promises.
//! Creation is finished only by [`DataDir::finish_creation`], after log and engine exist. Before that nothing was
//! promised, and the next start begins again; after that a missing log is damage.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::{ClusterId, Fault, GroupId, NodeId, ReplicaId};
use kernel::Protocol;
use rustix::fs::FlockOperation;

use crate::disk::{Disk, OsDisk, SyncMode, io_fault, read_file, replace_file};
use crate::wal::WalIdentity;

/// The version of the directory's format that this code writes and reads.
pub const LAYOUT_FORMAT: u32 = 1;

const LOCK: &str = "LOCK";
const IDENTITY: &str = "IDENTITY";
const IDENTITY_BYTES_MAX: usize = 1 << 20;
const DIRECTORIES: [&str; 3] = ["wal", "engine", "snapshot"];

/// Who a data directory belongs to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// The node's name, for people.
    pub name: String,
    /// A random number drawn when the directory is made, see [`WalIdentity`]. Of an expected identity it is used only
    /// then.
    pub incarnation: u64,
    /// The replicas in this directory: group, protocol, replica.
    pub replicas: Vec<(GroupId, Protocol, ReplicaId)>,
}

impl Identity {
    /// The identity of the log in this directory.
    #[must_use]
    pub const fn wal(&self) -> WalIdentity {
        WalIdentity { cluster: self.cluster, node: self.node, incarnation: self.incarnation }
    }

    fn encode(&self, finished: bool) -> String {
        let mut text = format!(
            "sinew-data {LAYOUT_FORMAT}\ncluster {:016x}\nnode {:016x}\nname {}\nincarnation {:016x}\nstate {}\n",
            self.cluster.0,
            self.node.0,
            self.name.escape_default(),
            self.incarnation,
            if finished { "ready" } else { "creating" },
        );
        for (group, protocol, replica) in &self.replicas {
            // Writing to a String does not fail.
            let _ = writeln!(text, "replica {:016x} {} {:016x}", group.0, protocol.id(), replica.0);
        }
        let crc = crc32c::crc32c(text.as_bytes());
        let _ = writeln!(text, "crc {crc:08x}");
        text
    }
}

/// A data directory, locked.
pub struct DataDir {
    path: PathBuf,
    identity: Identity,
    finished: bool,
    disk: Arc<OsDisk>,
    /// Released when the process ends, however it ends.
    _lock: File,
}

impl DataDir {
    /// Opens the directory of the node `expected`, or makes it if it does not exist or is empty.
    ///
    /// # Errors
    /// [`Fault::Refused`] if another process has the directory, or it belongs to another cluster, node, replica or
    /// protocol, has a newer format, or is not a data directory at all. [`Fault::Corrupt`] if the identity is damaged.
    pub fn open_or_create(path: impl Into<PathBuf>, expected: &Identity, mode: SyncMode) -> Result<Self, Fault> {
        let path = path.into();
        create_durably(&path)?;
        let disk = Arc::new(OsDisk::new(&path, mode));
        let fresh = match disk.exists(IDENTITY)? {
            true => false,
            false => {
                refuse_foreign(&path, &disk)?;
                true
            }
        };
        let lock = take_lock(&path)?;
        let (identity, finished) = if fresh {
            replace_file(&*disk, "", IDENTITY, expected.encode(false).as_bytes())?;
            (expected.clone(), false)
        } else {
            let found = decode(&disk)?;
            check(&path, &found.0, expected)?;
            found
        };
        for directory in DIRECTORIES {
            disk.create_dir(directory)?;
        }
        Ok(Self { path, identity, finished, disk, _lock: lock })
    }

    /// The protocol of a group in the directory `path`, if there is such a directory and it has the group.
    ///
    /// # Errors
    /// [`Fault::Refused`] if the directory has a newer format; [`Fault::Corrupt`] if its identity is damaged.
    pub fn protocol_of(path: impl Into<PathBuf>, group: GroupId) -> Result<Option<Protocol>, Fault> {
        let path = path.into();
        if !path.join(IDENTITY).exists() {
            return Ok(None);
        }
        let (identity, _) = decode(&OsDisk::new(&path, SyncMode::Durable))?;
        Ok(identity.replicas.iter().find(|(found, ..)| *found == group).map(|(_, protocol, _)| *protocol))
    }

    /// Who the directory `path` belongs to, if it is a data directory whose creation is finished.
    ///
    /// # Errors
    /// [`Fault::Refused`] if the directory has a newer format; [`Fault::Corrupt`] if its identity is damaged.
    pub fn identity_of(path: &Path) -> Result<Option<Identity>, Fault> {
        if !path.join(IDENTITY).exists() {
            return Ok(None);
        }
        let (identity, finished) = decode(&OsDisk::new(path, SyncMode::Durable))?;
        Ok(finished.then_some(identity))
    }

    /// Whether the directory was made just now, or its creation was interrupted: log and engine may be made, and
    /// [`DataDir::finish_creation`] is due.
    #[must_use]
    pub const fn is_fresh(&self) -> bool {
        !self.finished
    }

    /// Log and engine exist: from now on they must. To be called before the node says anything to anyone.
    ///
    /// # Errors
    /// [`Fault::Io`].
    pub fn finish_creation(&mut self) -> Result<(), Fault> {
        if !self.finished {
            self.store(&self.identity, true)?;
            self.finished = true;
        }
        Ok(())
    }

    /// Notes that a replica was added to this directory, or has left it.
    ///
    /// # Errors
    /// [`Fault::Io`].
    pub fn set_replicas(&mut self, replicas: Vec<(GroupId, Protocol, ReplicaId)>) -> Result<(), Fault> {
        let identity = Identity { replicas, ..self.identity.clone() };
        self.store(&identity, self.finished)?;
        self.identity = identity;
        Ok(())
    }

    fn store(&self, identity: &Identity, finished: bool) -> Result<(), Fault> {
        replace_file(&*self.disk, "", IDENTITY, identity.encode(finished).as_bytes())
    }

    /// Who the directory belongs to, as stored.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The disk below the directory, for the log.
    #[must_use]
    pub fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.disk) as Arc<dyn Disk>
    }

    /// Directory of the engine.
    #[must_use]
    pub fn engine(&self) -> PathBuf {
        self.path.join("engine")
    }

    /// Directory for snapshots on their way in or out.
    #[must_use]
    pub fn snapshot(&self) -> PathBuf {
        self.path.join("snapshot")
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn create_durably(path: &Path) -> Result<(), Fault> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path).map_err(|error| io_fault("create directory", path, &error))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(|error| io_fault("fsync directory", parent, &error))
}

/// Only an empty directory is taken over; what an interrupted creation leaves behind counts as empty.
fn refuse_foreign(path: &Path, disk: &OsDisk) -> Result<(), Fault> {
    let ours = |name: &str| [LOCK, "IDENTITY.tmp", "lost+found"].contains(&name);
    match disk.list("")?.into_iter().find(|name| !ours(name)) {
        None => Ok(()),
        Some(name) => Err(Fault::Refused(format!(
            "{} is not empty (it contains {name}) and is no data directory: {IDENTITY} is missing. Choose an empty \
             directory; if this was a data directory, it is damaged: remove this node from the cluster and add it \
             again with an empty one",
            path.display()
        ))),
    }
}

fn take_lock(path: &Path) -> Result<File, Fault> {
    let lock = path.join(LOCK);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock)
        .map_err(|error| io_fault("open", &lock, &error))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(Fault::Refused(format!("data directory {} is in use by another process", path.display())))
        }
        Err(error) => Err(io_fault("lock", &lock, &error.into())),
    }
}

fn decode(disk: &OsDisk) -> Result<(Identity, bool), Fault> {
    let place = disk.describe(IDENTITY);
    let bytes = read_file(disk, IDENTITY, IDENTITY_BYTES_MAX)?;
    let text = String::from_utf8(bytes).unwrap_or_default();
    let damaged = |detail: &str| Fault::Corrupt {
        place: place.clone(),
        detail: format!(
            "{detail}; restore the file from a copy of this very directory, or remove this node from the cluster and \
             add it again with an empty data directory"
        ),
    };
    let format = text.lines().next().and_then(|line| line.strip_prefix("sinew-data ")).unwrap_or_default();
    match format.parse::<u32>() {
        Ok(LAYOUT_FORMAT) => {}
        Ok(format) if format > LAYOUT_FORMAT => {
            return Err(Fault::Refused(format!(
                "{place} has format {format}, this program reads up to {LAYOUT_FORMAT}; use the newer version that \
                 wrote it"
            )));
        }
        _ => return Err(damaged("the file does not start with the format")),
    }
    let Some((body, crc)) = text.strip_suffix('\n').and_then(|text| text.rsplit_once("crc ")) else {
        return Err(damaged("the checksum is missing"));
    };
    if crc != format!("{:08x}", crc32c::crc32c(body.as_bytes())) {
        return Err(damaged("the checksum does not match"));
    }
    parse(body).ok_or_else(|| damaged("a line is malformed"))
}

fn parse(body: &str) -> Option<(Identity, bool)> {
    let mut lines = body.lines().skip(1);
    let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let cluster = ClusterId(hex(field("cluster")?)?);
    let node = NodeId(hex(field("node")?)?);
    let name = unescape(field("name")?)?;
    let incarnation = hex(field("incarnation")?)?;
    let finished = match field("state")? {
        "ready" => true,
        "creating" => false,
        _ => return None,
    };
    let mut replicas = Vec::new();
    for line in lines {
        let mut words = line.strip_prefix("replica ")?.split(' ');
        let group = GroupId(hex(words.next()?)?);
        let protocol = Protocol::from_id(words.next()?.parse().ok()?)?;
        let replica = ReplicaId(hex(words.next()?)?);
        replicas.push((group, protocol, replica));
    }
    Some((Identity { cluster, node, name, incarnation, replicas }, finished))
}

/// The inverse of `str::escape_default`.
fn unescape(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = text.chars();
    while let Some(next) = rest.next() {
        if next != '\\' {
            out.push(next);
            continue;
        }
        out.push(match rest.next()? {
            't' => '\t',
            'n' => '\n',
            'r' => '\r',
            'u' => {
                let digits: String = rest.by_ref().skip(1).take_while(|&digit| digit != '}').collect();
                char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?
            }
            plain => plain,
        });
    }
    Some(out)
}

fn check(path: &Path, found: &Identity, expected: &Identity) -> Result<(), Fault> {
    let refuse = |what: &str, found: String, expected: String, advice: &str| {
        Err(Fault::Refused(format!(
            "data directory {} belongs to {what} {found}, but this node is started as {what} {expected}; {advice}",
            path.display()
        )))
    };
    if found.cluster != expected.cluster {
        let advice = "point the node at its own directory, or use an empty one to join this cluster; a member that \
                      joined a running cluster is started with --initial-cluster-state existing";
        return refuse("cluster", found.cluster.to_string(), expected.cluster.to_string(), advice);
    }
    if found.node != expected.node {
        let (mine, theirs) =
            (format!("{} ({})", expected.node, expected.name), format!("{} ({})", found.node, found.name));
        return refuse("node", theirs, mine, "every node needs a directory of its own; never copy one to another node");
    }
    for (group, protocol, replica) in &expected.replicas {
        let Some((_, stored_protocol, stored)) = found.replicas.iter().find(|(stored, ..)| stored == group) else {
            continue;
        };
        if stored_protocol != protocol {
            let advice =
                "the protocol is fixed when a cluster is created: leave --consensus out, or name the one it has";
            let (found, expected) = (stored_protocol.to_string(), protocol.to_string());
            return refuse(&format!("group {group} with protocol"), found, expected, advice);
        }
        if stored != replica {
            let advice = "this copy of the group was removed; add the node again with an empty data directory";
            return refuse(&format!("group {group} as replica"), stored.to_string(), replica.to_string(), advice);
        }
    }
    Ok(())
}
