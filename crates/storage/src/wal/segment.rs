//! A segment: one file of fixed size. Block 0 says what it is, frames follow from block 1.
//!
//! ```text
//! magic 8 | format u32 | crc u32 | cluster u64 | node u64 | incarnation u64 | number u64 | segment bytes u64
//! ```
//! Life of a file: it is created and filled with zeros under a spare name, gets its header, is renamed to its number,
//! and is a spare again once none of its records is needed. Its old contents are not wiped: the number is part of every
//! checksum, so nothing left over from an earlier life ever verifies.

use std::sync::Arc;

use base::{ClusterId, Fault, NodeId};

use super::record::{Address, damaged};
use crate::disk::{BLOCK_BYTES, Disk, File};

/// The directory of the log.
pub(crate) const DIR: &str = "wal";
/// The version of the log's format that this code writes and reads.
pub const WAL_FORMAT: u32 = 1;
/// Where the first frame stands.
pub(crate) const FIRST_FRAME: u64 = BLOCK_BYTES as u64;

const MAGIC: &[u8; 8] = b"SINEWWAL";
const HEADER_BYTES: usize = 56;

/// Whose log it is: a log of another node never verifies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalIdentity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// A random number drawn when the data directory was made and known to nobody else: a client cannot store a value
    /// that looks like a record.
    pub incarnation: u64,
}

/// An open segment. Readers hold it while they read, so that its file is not reused under them.
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) file: Arc<dyn File>,
    pub(crate) incarnation: u64,
}

impl Segment {
    /// The address of `offset` in this segment.
    pub(crate) const fn address(&self, offset: u64) -> Address {
        Address { incarnation: self.incarnation, segment: self.number, offset }
    }

    /// The segment's file as an operator would look for it.
    pub(crate) fn place(&self, disk: &dyn Disk) -> String {
        disk.describe(&segment_name(self.number))
    }
}

/// Name of segment `number`.
pub(crate) fn segment_name(number: u64) -> String {
    format!("{DIR}/{number:016x}.log")
}

/// Name of a spare file; `number` only makes it unique.
pub(crate) fn spare_name(number: u64) -> String {
    format!("{DIR}/{number:016x}.spare")
}

/// A file of the log's directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Named {
    Segment(u64),
    Spare(u64),
    Foreign,
}

/// What a file name within the directory stands for.
pub(crate) fn parse_name(name: &str) -> Named {
    let number = |hex: &str| if hex.len() == 16 { u64::from_str_radix(hex, 16).ok() } else { None };
    match name.rsplit_once('.') {
        Some((hex, "log")) => number(hex).map_or(Named::Foreign, Named::Segment),
        Some((hex, "spare")) => number(hex).map_or(Named::Foreign, Named::Spare),
        _ => Named::Foreign,
    }
}

/// Makes `file` segment `number`: writes its header and syncs it. The name is the caller's business.
pub(crate) fn write_header(
    file: &dyn File,
    identity: WalIdentity,
    number: u64,
    segment_bytes: u64,
) -> Result<(), Fault> {
    let mut block = vec![0; BLOCK_BYTES];
    block[..8].copy_from_slice(MAGIC);
    block[8..12].copy_from_slice(&WAL_FORMAT.to_le_bytes());
    let fields = [identity.cluster.0, identity.node.0, identity.incarnation, number, segment_bytes];
    for (field, place) in fields.iter().zip(block[16..HEADER_BYTES].chunks_exact_mut(8)) {
        place.copy_from_slice(&field.to_le_bytes());
    }
    let crc = header_checksum(&block);
    block[12..16].copy_from_slice(&crc.to_le_bytes());
    file.write_at(0, &block)?;
    file.sync_data()
}

fn header_checksum(block: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&block[..12]), &block[16..HEADER_BYTES])
}

/// Opens segment `number` and verifies that it is ours. Returns it with its size.
pub(crate) fn open_segment(disk: &dyn Disk, identity: WalIdentity, number: u64) -> Result<(Segment, u64), Fault> {
    let name = segment_name(number);
    let place = disk.describe(&name);
    let file = disk.open(&name)?;
    let size = file.size()?;
    if size < FIRST_FRAME {
        return Err(damaged(&place, 0, &format!("the file has only {size} bytes")));
    }
    let mut block = vec![0; BLOCK_BYTES];
    file.read_at(0, &mut block)?;
    let word = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
    if &block[..8] != MAGIC || word(12) != header_checksum(&block) {
        return Err(damaged(&place, 0, "the segment header is not valid"));
    }
    if word(8) != WAL_FORMAT {
        return Err(Fault::Refused(format!(
            "{place} has log format {}, this program reads format {WAL_FORMAT}; use the version that wrote it",
            word(8)
        )));
    }
    let found = WalIdentity { cluster: ClusterId(long(16)), node: NodeId(long(24)), incarnation: long(32) };
    if found != identity {
        return Err(Fault::Refused(format!(
            "{place} belongs to node {} of cluster {}, not to node {} of cluster {} with this data directory; do not \
             mix files of data directories",
            found.node, found.cluster, identity.node, identity.cluster
        )));
    }
    if long(40) != number {
        return Err(damaged(&place, 0, &format!("the file is segment {}, not {number}", long(40))));
    }
    if long(48) != size || !size.is_multiple_of(BLOCK_BYTES as u64) {
        return Err(damaged(&place, 0, &format!("the file has {size} bytes, it was made with {}", long(48))));
    }
    Ok((Segment { number, file, incarnation: identity.incarnation }, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        assert_eq!(parse_name(segment_name(0xabc).strip_prefix("wal/").expect("dir")), Named::Segment(0xabc));
        assert_eq!(parse_name(spare_name(1).strip_prefix("wal/").expect("dir")), Named::Spare(1));
        for foreign in ["x.log", "1.log", "lost+found", "0000000000000001.tmp"] {
            assert_eq!(parse_name(foreign), Named::Foreign);
        }
    }
}
