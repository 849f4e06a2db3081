//! Which data the other nodes spoke from when they were first met.
//!
//! A node that comes back with an empty disk has forgotten its promises and must not speak as its old self: it could
//! vote twice in one ballot, or help a leader into office that lacks what it once acknowledged (Michael et al. 2017).
//! Every data directory draws a random number when it is made; each node notes those of the others, durably, before it
//! listens to them, and never listens to the same node with another number.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use base::planted::{Defect, planted};
use base::{Fault, NodeId};

use crate::disk::{Disk, read_file, replace_file};

const FILE: &str = "PEERS";
const FORMAT: &str = "sinew-peers 1";
const FILE_BYTES_MAX: usize = 1 << 20;

/// The file `PEERS` of a data directory.
pub struct KnownPeers {
    disk: Arc<dyn Disk>,
    incarnations: BTreeMap<NodeId, u64>,
}

impl KnownPeers {
    /// Reads the file; none means that nobody was met yet.
    ///
    /// # Errors
    /// [`Fault::Corrupt`] if the file is not what was written; [`Fault::Io`].
    pub fn open(disk: Arc<dyn Disk>) -> Result<Self, Fault> {
        let mut incarnations = BTreeMap::new();
        if disk.exists(FILE)? {
            let contents = read_file(&*disk, FILE, FILE_BYTES_MAX)?;
            incarnations = decode(&contents).ok_or_else(|| Fault::Corrupt {
                place: disk.describe(FILE),
                detail: String::from(
                    "the list of known nodes is damaged; remove this node from the cluster and add it again with an \
                     empty data directory",
                ),
            })?;
        }
        Ok(Self { disk, incarnations })
    }

    /// The nodes met so far, and the data they spoke from.
    #[must_use]
    pub const fn noted(&self) -> &BTreeMap<NodeId, u64> {
        &self.incarnations
    }

    /// Notes a node's data, durably, and answers what is noted: the first note counts for ever. A node that speaks from
    /// other data than that has lost its own.
    ///
    /// # Errors
    /// [`Fault::Io`]; the node is not noted then.
    pub fn note(&mut self, node: NodeId, incarnation: u64) -> Result<u64, Fault> {
        if let Some(noted) = self.incarnations.get(&node) {
            return Ok(if planted(Defect::AmnesiacVotes) { incarnation } else { *noted });
        }
        let mut incarnations = self.incarnations.clone();
        incarnations.insert(node, incarnation);
        replace_file(&*self.disk, "", FILE, encode(&incarnations).as_bytes())?;
        self.incarnations = incarnations;
        Ok(incarnation)
    }
}

fn encode(incarnations: &BTreeMap<NodeId, u64>) -> String {
    let mut text = format!("{FORMAT}\n");
    for (node, incarnation) in incarnations {
        // Writing to a String does not fail.
        let _ = writeln!(text, "peer {:016x} {incarnation:016x}", node.0);
    }
    let crc = crc32c::crc32c(text.as_bytes());
    let _ = writeln!(text, "crc {crc:08x}");
    text
}

fn decode(contents: &[u8]) -> Option<BTreeMap<NodeId, u64>> {
    let text = std::str::from_utf8(contents).ok()?;
    let body = text.strip_suffix('\n')?;
    let (body, last) = body.rsplit_once('\n')?;
    let crc = u32::from_str_radix(last.strip_prefix("crc ")?, 16).ok()?;
    if crc32c::crc32c(&contents[..=body.len()]) != crc {
        return None;
    }
    let mut lines = body.lines();
    if lines.next()? != FORMAT {
        return None;
    }
    lines
        .map(|line| {
            let (node, incarnation) = line.strip_prefix("peer ")?.split_once(' ')?;
            Some((NodeId(u64::from_str_radix(node, 16).ok()?), u64::from_str_radix(incarnation, 16).ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemDisk;

    #[test]
    fn the_first_note_counts_also_after_a_crash() {
        let disk = MemDisk::new(1);
        let mut peers = KnownPeers::open(Arc::new(disk.clone())).unwrap();
        assert_eq!(peers.note(NodeId(2), 7), Ok(7));
        assert_eq!(peers.note(NodeId(2), 8), Ok(7));
        for seed in 0..20 {
            let disk = disk.fork();
            disk.crash(seed);
            let mut peers = KnownPeers::open(Arc::new(disk)).unwrap();
            assert_eq!(peers.noted(), &BTreeMap::from([(NodeId(2), 7)]));
            assert_eq!(peers.note(NodeId(2), 8), Ok(7));
        }
    }

    #[test]
    fn golden_text_and_every_damaged_byte_is_refused() {
        let text = encode(&BTreeMap::from([(NodeId(2), 0xab)]));
        assert_eq!(text, "sinew-peers 1\npeer 0000000000000002 00000000000000ab\ncrc 66ebc1e3\n");
        assert!(decode(text.as_bytes()).is_some());
        for at in 0..text.len() {
            let mut bad = text.clone().into_bytes();
            bad[at] ^= 1;
            assert_eq!(decode(&bad), None, "byte {at}");
            assert_eq!(decode(&text.as_bytes()[..at]), None, "cut at {at}");
        }
    }
}
