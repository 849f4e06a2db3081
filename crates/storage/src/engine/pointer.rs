//! Which directory holds the current tree: the file `CURRENT`, replaced atomically.
//!
//! ```text
//! CURRENT   "sinew-engine 1 tree <number> crc <8 hex digits>\n"
//! <number, 8 digits>/  the tree
//! ```
//! Number 0 means that the first tree is being made. Whatever other tree there is was left by a crash between building
//! a tree and switching to it, or between switching and removing the old one: it is removed.

use std::path::{Path, PathBuf};

use base::Fault;

use super::config::damaged;
use crate::disk::{Disk, OsDisk, io_fault, read_file, replace_file};

const FILE: &str = "CURRENT";
const FILE_BYTES_MAX: usize = 256;

/// Directory of tree `number`.
pub(super) fn tree_path(root: &Path, number: u64) -> PathBuf {
    root.join(format!("{number:08}"))
}

fn contents(number: u64) -> String {
    let text = format!("sinew-engine 1 tree {number}");
    format!("{text} crc {:08x}\n", crc32c::crc32c(text.as_bytes()))
}

/// The current tree; `None` if no engine was ever made here, or its making was interrupted.
pub(super) fn read(disk: &OsDisk) -> Result<Option<u64>, Fault> {
    let path = disk.describe(FILE);
    if !disk.exists(FILE)? {
        return match disk.list("")?.iter().find(|name| name.parse::<u64>().is_ok()) {
            Some(tree) => Err(damaged(Path::new(&path), &format!("the file is missing, but there is a tree {tree}"))),
            None => Ok(None),
        };
    }
    let found = read_file(disk, FILE, FILE_BYTES_MAX)?;
    let number = std::str::from_utf8(&found)
        .ok()
        .and_then(|text| text.strip_prefix("sinew-engine 1 tree "))
        .and_then(|rest| rest.split(' ').next())
        .and_then(|number| number.parse().ok());
    match number {
        Some(number) if contents(number).as_bytes() == found => Ok(Some(number).filter(|number| *number > 0)),
        _ => Err(damaged(Path::new(&path), "the file does not name a tree of format 1")),
    }
}

/// Makes `number` the current tree, durably.
pub(super) fn write(disk: &OsDisk, number: u64) -> Result<(), Fault> {
    replace_file(disk, "", FILE, contents(number).as_bytes())
}

/// Removes every tree but `current`.
pub(super) fn remove_others(disk: &OsDisk, root: &Path, current: Option<u64>) -> Result<(), Fault> {
    for name in disk.list("")? {
        if name.parse::<u64>().is_ok_and(|number| Some(number) != current) {
            let path = root.join(name);
            std::fs::remove_dir_all(&path).map_err(|error| io_fault("remove", &path, &error))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SyncMode;

    #[test]
    fn every_damaged_pointer_is_refused() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let disk = OsDisk::new(dir.path(), SyncMode::Durable);
        assert_eq!(read(&disk), Ok(None));
        write(&disk, 0).expect("write");
        assert_eq!(read(&disk), Ok(None));
        write(&disk, 12).expect("write");
        assert_eq!(read(&disk), Ok(Some(12)));
        let good = std::fs::read(dir.path().join(FILE)).expect("read");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(dir.path().join(FILE), &bad).expect("write");
            assert!(matches!(read(&disk), Err(Fault::Corrupt { .. })), "bit {bit}");
        }
        std::fs::remove_file(dir.path().join(FILE)).expect("remove");
        std::fs::create_dir(dir.path().join("00000012")).expect("create");
        assert!(matches!(read(&disk), Err(Fault::Corrupt { .. })), "a lost pointer is no empty engine");
    }
}
