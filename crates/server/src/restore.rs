//! A data directory made from a snapshot: the first of a new cluster.
//!
//! Invariant: all members that are restored from one file with the same flags start from the same state, at the first
//! position of a log whose beginning is gone: so whoever joins later is sent that state and never the log alone. The
//! directory appears whole or not at all.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::{Ballot, Fault, Index, Lsn, NodeId, ReplicaId, Revision};
use bytes::Bytes;
use kernel::{Mark, Position, Protocol, Record};
use storage::disk::SyncMode;
use storage::wal::WalOptions;
use storage::{DataDir, EngineBuilder, EngineOptions, Identity, LsmEngine, SnapshotFile, Wal};

use crate::config::Config;
use crate::gateway::GROUP;
use crate::members::Directory;
use crate::start::{StartError, initial_membership, random};

/// What a snapshot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// CRC-32C over all rows.
    pub hash: u32,
    /// The revision.
    pub revision: i64,
    /// Keys.
    pub keys: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

fn io(operation: &'static str, path: &Path, error: &std::io::Error) -> Fault {
    Fault::Io { operation, path: path.display().to_string(), cause: error.to_string() }
}

/// Reads a whole snapshot, row by row.
fn read(file: &Path, mut each: impl FnMut(Bytes, Bytes) -> Result<(), Fault>) -> Result<Summary, Fault> {
    let input = File::open(file).map_err(|error| io("open", file, &error))?;
    let bytes = input.metadata().map_err(|error| io("look at", file, &error))?.len();
    let mut snapshot = SnapshotFile::open(BufReader::new(input), &file.display().to_string())?;
    let (mut hash, mut state) = (0, None);
    while let Some(rows) = snapshot.next_rows()? {
        for (key, value) in rows {
            state = mvcc::state_in(&key, &value)?.or(state);
            for part in [&key, &value] {
                hash = crc32c::crc32c_append(hash, &(part.len() as u64).to_le_bytes());
                hash = crc32c::crc32c_append(hash, part);
            }
            each(key, value)?;
        }
    }
    let state = state.ok_or_else(|| Fault::Refused(format!("{} holds no state of a store", file.display())))?;
    Ok(Summary { hash, revision: state.revision.0, keys: state.keys, bytes })
}

/// Verifies a snapshot and says what it holds.
///
/// # Errors
/// [`Fault::Refused`] if it is none; [`Fault::Corrupt`] if it is cut short or altered; [`Fault::Io`].
pub fn summary(file: &Path) -> Result<Summary, Fault> {
    read(file, |_, _| Ok(()))
}

/// Makes the data directory of one member of a new cluster. The revision grows by `bump`.
///
/// # Errors
/// The directory exists, the flags make no sense, or the snapshot cannot be used; nothing is left behind then.
pub fn restore(config: &Config, file: &Path, bump: i64) -> Result<(NodeId, Revision), StartError> {
    let target = &config.data_dir;
    if target.exists() {
        return Err(StartError::Config(format!(
            "{} exists: name a directory that does not, a restore never writes over data",
            target.display()
        )));
    }
    let directory = Directory::founders(config).map_err(StartError::Config)?;
    let mut making = target.clone().into_os_string();
    making.push(".restoring");
    let making = PathBuf::from(making);
    remove(&making)?;
    let revision = match fill(config, &directory, file, bump, &making) {
        Ok(revision) => revision,
        Err(error) => {
            remove(&making)?;
            return Err(error);
        }
    };
    std::fs::rename(&making, target).map_err(|error| io("rename", &making, &error))?;
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(|error| io("fsync directory", parent, &error))?;
    Ok((directory.me().id, revision))
}

/// What an interrupted restore has left.
fn remove(making: &Path) -> Result<(), Fault> {
    if making.exists() { std::fs::remove_dir_all(making).map_err(|error| io("remove", making, &error)) } else { Ok(()) }
}

fn fill(config: &Config, directory: &Directory, file: &Path, bump: i64, making: &Path) -> Result<Revision, StartError> {
    let me = directory.me();
    let identity = Identity {
        cluster: directory.cluster(),
        node: me.id,
        name: me.name.clone(),
        incarnation: random(),
        replicas: vec![(GROUP, config.consensus.unwrap_or(Protocol::Raft), ReplicaId(me.id.0))],
    };
    let mut data = DataDir::open_or_create(making, &identity, SyncMode::Durable)?;
    // Any ballot below that of the first leader; the same on all members.
    let position = Position { index: Index(1), stamp: Ballot::new(1, NodeId(0)) };
    let membership = Arc::new(initial_membership(directory));
    let mark = Mark { position, max_origin: position.stamp, membership };

    let engine = LsmEngine::open(data.engine(), EngineOptions::default())?;
    let mut builder: EngineBuilder = engine.builder()?;
    let found = read(file, |key, value| match mvcc::restored(&key, value, bump)? {
        Some(value) => builder.ingest([(key, value)]),
        None => Ok(()),
    })?;
    engine.install(builder.finish(&mark)?)?;

    let options = WalOptions { may_create: true, ..WalOptions::default() };
    let (mut wal, _) = Wal::open(data.disk(), identity.wal(), options)?;
    let hard = Record::Hard { promised: position.stamp, accepted: Ballot::ZERO, commit: position.index };
    let lsn: Lsn = wal.next_lsn();
    wal.append(lsn, &[(GROUP, vec![Record::Compact { base: position, keep_suffix: false }, hard])])?;
    wal.sync()?;
    data.finish_creation()?;
    Ok(Revision(found.revision + bump.max(1)))
}
