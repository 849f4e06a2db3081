//! Crash tests of the log on the disk in memory. They are inside the crate so that they can plant bugs.

mod fuzz;
mod images;
mod model;
mod random;

use std::sync::Arc;

use base::{Ballot, ClusterId, Index, NodeId};
use kernel::{Entry, EntryKind, Position};

use super::{Wal, WalIdentity, WalOptions};
use crate::disk::{Disk, MemDisk};

const IDENTITY: WalIdentity = WalIdentity { cluster: ClusterId(1), node: NodeId(2), incarnation: 0x5eed };
const SMALL: WalOptions = WalOptions { segment_bytes: 32 * 1024, may_create: true };

fn ballot(round: u64) -> Ballot {
    Ballot::new(round, NodeId(1))
}

fn entry(index: u64, round: u64, bytes: usize) -> Entry {
    let payload: Vec<u8> = (0..bytes).map(|at| (at as u64 * 31 + index * 7 + round) as u8).collect();
    Entry {
        index: Index(index),
        stamp: ballot(round),
        origin: ballot(round),
        kind: EntryKind::Command,
        payload: payload.into(),
    }
}

fn position(index: u64, round: u64) -> Position {
    Position { index: Index(index), stamp: ballot(round) }
}

fn open(disk: &MemDisk) -> (Wal, super::RecoveredLog) {
    Wal::open(Arc::new(disk.clone()) as Arc<dyn Disk>, IDENTITY, SMALL).expect("open")
}
