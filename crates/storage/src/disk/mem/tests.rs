//! What the disk in memory keeps, loses and refuses.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::inode::SECTOR_BYTES;
use super::{MemDisk, WriteFault};
use crate::disk::{BLOCK_BYTES, Disk, File};

fn file(disk: &MemDisk) -> Arc<dyn File> {
    let file = disk.create("f").expect("create");
    file.write_at(0, &[1; 3 * BLOCK_BYTES]).expect("write");
    file.sync_data().expect("sync");
    disk.sync_dir("").expect("sync");
    file
}

#[test]
fn synced_bytes_survive_and_unsynced_ones_may_tear() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..200 {
        let disk = MemDisk::new(0);
        let handle = file(&disk);
        handle.write_at(BLOCK_BYTES as u64, &[2; BLOCK_BYTES]).expect("write");
        disk.crash(seed);
        let contents = disk.contents("f").expect("the name was synced");
        assert!(contents[..BLOCK_BYTES].iter().all(|&byte| byte == 1), "a synced page changed");
        assert!(contents[2 * BLOCK_BYTES..].iter().all(|&byte| byte == 1), "a synced page changed");
        let sectors = contents[BLOCK_BYTES..2 * BLOCK_BYTES].chunks(SECTOR_BYTES);
        outcomes.insert(sectors.map(|sector| sector[0]).collect::<Vec<u8>>());
    }
    assert!(outcomes.contains(&vec![1; 8]) && outcomes.contains(&vec![2; 8]), "all or nothing never happened");
    assert!(outcomes.len() > 10, "pages hardly ever tear: {outcomes:?}");
}

#[test]
fn names_are_lost_without_a_directory_sync() {
    let disk = MemDisk::new(0);
    file(&disk);
    disk.create("unsynced").expect("create");
    disk.rename("f", "g").expect("rename");
    let survivor = disk.fork();
    survivor.sync_dir("").expect("sync");
    disk.crash_hard();
    survivor.crash_hard();
    assert_eq!(disk.list(""), Ok(vec!["f".to_owned()]));
    assert_eq!(survivor.list(""), Ok(vec!["g".to_owned(), "unsynced".to_owned()]));
}

#[test]
fn a_failed_sync_loses_what_it_should_have_saved() {
    let disk = MemDisk::new(0);
    let handle = file(&disk);
    disk.fault_sync(0);
    handle.write_at(0, &[7; 10]).expect("write");
    assert!(handle.sync_data().is_err());
    handle.sync_data().expect("the second sync lies, as on a real system");
    let mut byte = [0];
    handle.read_at(0, &mut byte).expect("read");
    assert_eq!(byte, [7], "still in the cache");
    disk.crash(1);
    assert_eq!(disk.contents("f").expect("file")[0], 1, "and gone after the crash");
}

#[test]
fn lost_misdirected_and_refused_writes() {
    let disk = MemDisk::new(0);
    let handle = file(&disk);
    disk.fault_write(0, WriteFault::Lost);
    disk.fault_write(1, WriteFault::Misdirected { offset: 2 * BLOCK_BYTES as u64 });
    handle.write_at(0, &[5; 10]).expect("write");
    handle.write_at(BLOCK_BYTES as u64, &[6; 10]).expect("write");
    handle.sync_data().expect("sync");
    assert_eq!(disk.contents("f").expect("file")[0], 5);
    disk.crash_hard();
    let contents = disk.contents("f").expect("file");
    assert_eq!((contents[0], contents[BLOCK_BYTES], contents[2 * BLOCK_BYTES]), (1, 1, 6));
    disk.set_capacity(Some(3 * BLOCK_BYTES as u64));
    let handle = disk.open("f").expect("open");
    handle.write_at(0, &[9; BLOCK_BYTES]).expect("an overwrite needs no room");
    let Err(full) = handle.write_at(3 * BLOCK_BYTES as u64, &[9]) else { panic!("wrote beyond the capacity") };
    assert!(crate::disk::is_full(&full));
}
