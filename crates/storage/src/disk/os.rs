//! The operating system's disk: plain files, `pwrite`, `fdatasync`, and `fsync` on directories.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::Fault;

use super::{DISK_FULL, Disk, File};

/// Whether writes are forced to stable storage.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SyncMode {
    /// `fdatasync` and directory `fsync`, as asked.
    #[default]
    Durable,
    /// `--unsafe-no-fsync`: a power loss or kernel crash loses acknowledged writes, a process crash does not. For
    /// tests and for data nobody will miss.
    UnsafeNoFsync,
}

/// Files under a directory.
#[derive(Debug)]
pub struct OsDisk {
    root: PathBuf,
    mode: SyncMode,
}

impl OsDisk {
    /// The disk below `root`, which must exist.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>, mode: SyncMode) -> Self {
        Self { root: root.into(), mode }
    }

    fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.root.clone() } else { self.root.join(name) }
    }

    fn file(&self, path: PathBuf, file: fs::File) -> Arc<dyn File> {
        Arc::new(OsFile { file, path, mode: self.mode })
    }
}

/// Translates an operating system error; out of space is marked, since it is the one the operator can mend.
pub(crate) fn io_fault(operation: &'static str, path: &Path, error: &io::Error) -> Fault {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let cause = if full {
        format!("{DISK_FULL} ({error}); free space on the file system that holds {}", path.display())
    } else {
        error.to_string()
    };
    Fault::Io { operation, path: path.display().to_string(), cause }
}

impl Disk for OsDisk {
    fn create(&self, name: &str) -> Result<Arc<dyn File>, Fault> {
        let path = self.path(name);
        match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
            Ok(file) => Ok(self.file(path, file)),
            Err(error) => Err(io_fault("create", &path, &error)),
        }
    }

    fn open(&self, name: &str) -> Result<Arc<dyn File>, Fault> {
        let path = self.path(name);
        match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => Ok(self.file(path, file)),
            Err(error) => Err(io_fault("open", &path, &error)),
        }
    }

    fn create_dir(&self, name: &str) -> Result<(), Fault> {
        let path = self.path(name);
        match fs::create_dir(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => return Ok(()),
            Err(error) => return Err(io_fault("create directory", &path, &error)),
        }
        self.sync_dir(name.rsplit_once('/').map_or("", |(parent, _)| parent))
    }

    fn list(&self, dir: &str) -> Result<Vec<String>, Fault> {
        let path = self.path(dir);
        let fail = |error: &io::Error| io_fault("list", &path, error);
        let mut names = Vec::new();
        for entry in fs::read_dir(&path).map_err(|error| fail(&error))? {
            let name = entry.map_err(|error| fail(&error))?.file_name();
            // A name that is not UTF-8 is none of ours; kept in readable form so that a foreign directory is noticed.
            names.push(name.to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn exists(&self, name: &str) -> Result<bool, Fault> {
        let path = self.path(name);
        path.try_exists().map_err(|error| io_fault("stat", &path, &error))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), Fault> {
        let path = self.path(from);
        fs::rename(&path, self.path(to)).map_err(|error| io_fault("rename", &path, &error))
    }

    fn remove(&self, name: &str) -> Result<(), Fault> {
        let path = self.path(name);
        fs::remove_file(&path).map_err(|error| io_fault("remove", &path, &error))
    }

    fn sync_dir(&self, dir: &str) -> Result<(), Fault> {
        if self.mode == SyncMode::UnsafeNoFsync {
            return Ok(());
        }
        let path = self.path(dir);
        fs::File::open(&path)
            .and_then(|handle| handle.sync_all())
            .map_err(|error| io_fault("fsync directory", &path, &error))
    }

    fn describe(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }
}

struct OsFile {
    file: fs::File,
    path: PathBuf,
    mode: SyncMode,
}

impl File for OsFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), Fault> {
        self.file.read_exact_at(into, offset).map_err(|error| io_fault("read", &self.path, &error))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.file.write_all_at(bytes, offset).map_err(|error| io_fault("write", &self.path, &error))
    }

    fn sync_data(&self) -> Result<(), Fault> {
        if self.mode == SyncMode::UnsafeNoFsync {
            return Ok(());
        }
        self.file.sync_data().map_err(|error| io_fault("fdatasync", &self.path, &error))
    }

    fn size(&self) -> Result<u64, Fault> {
        self.file.metadata().map(|meta| meta.len()).map_err(|error| io_fault("stat", &self.path, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{read_file, replace_file};

    #[test]
    fn files_and_names_behave() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let disk = OsDisk::new(dir.path(), SyncMode::Durable);
        disk.create_dir("wal").expect("create");
        disk.create_dir("wal").expect("an existing directory is fine");
        let file = disk.create("wal/a").expect("create");
        file.zero_fill(0, 1_000_000).expect("zero");
        file.write_at(10, b"hello").expect("write");
        file.sync_data().expect("sync");
        assert_eq!(file.size(), Ok(1_000_000));
        disk.rename("wal/a", "wal/b").expect("rename");
        disk.sync_dir("wal").expect("sync");
        assert_eq!(disk.list("wal"), Ok(vec!["b".to_owned()]));
        let mut word = [0; 5];
        disk.open("wal/b").expect("open").read_at(10, &mut word).expect("read");
        assert_eq!(&word, b"hello");
        replace_file(&disk, "", "small", b"one").expect("replace");
        replace_file(&disk, "", "small", b"two").expect("replace");
        assert_eq!(read_file(&disk, "small", 10), Ok(b"two".to_vec()));
        assert!(matches!(read_file(&disk, "small", 2), Err(Fault::Corrupt { .. })));
    }

    #[test]
    fn errors_name_the_operation_and_the_file() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let disk = OsDisk::new(dir.path(), SyncMode::Durable);
        let Err(fault) = disk.open("absent") else { panic!("opened a file that is not there") };
        let text = fault.to_string();
        assert!(text.starts_with("open failed on") && text.contains("absent"), "{text}");
        disk.create("twice").expect("create");
        assert!(disk.create("twice").is_err(), "create must not take over an existing file");
        assert!(disk.open("twice").expect("open").read_at(0, &mut [0; 1]).is_err(), "read past the end");
    }
}
