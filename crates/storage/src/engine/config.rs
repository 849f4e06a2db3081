//! How a tree is set up, and what its errors mean.
//!
//! Memory must not grow with the data: only the small top of each table's index and filter stays in memory, the rest
//! is read through the block cache. The exception is level 0, which is small and asked on every read.

use std::path::Path;
use std::sync::Arc;

use base::Fault;
use lsm_tree::compaction::Leveled;
use lsm_tree::config::{
    BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry, PartitioningPolicy, PinningPolicy,
};
use lsm_tree::{AnyTree, Cache, CompressionType, Config, DescriptorTable, SequenceNumberCounter, Tree};

use super::EngineOptions;

/// Open table files kept.
const DESCRIPTORS_MAX: usize = 256;
/// Bits per row in bloom filters: about one false positive in a hundred.
const FILTER_BITS_PER_ROW: f32 = 10.0;
/// Size of a table on disk.
pub(super) const TABLE_BYTES: u64 = 32 << 20;
/// Runs in level 0 that start a compaction. A read has to look at all of them.
const LEVEL0_RUNS: u8 = 8;
/// The same when current rows and leases are in memory: only reads of the past look at the runs then. Each compaction
/// rewrites all history there is, so half as many of them are half the work.
const LEVEL0_RUNS_RESIDENT: u8 = 64;
/// Runs in level 0 that show that compaction falls behind, and that it is far behind.
pub(super) const LEVEL0_RUNS_HIGH: usize = 80;
pub(super) const LEVEL0_RUNS_FULL: usize = 112;

/// Opens or makes the tree in `path`.
pub(super) fn open_tree(
    path: &Path,
    options: EngineOptions,
    cache: &Arc<Cache>,
    seqno: &SequenceNumberCounter,
) -> Result<Tree, Fault> {
    let compression = if options.compression {
        CompressionPolicy::new([CompressionType::None, CompressionType::Lz4])
    } else {
        CompressionPolicy::all(CompressionType::None)
    };
    let filter = BloomConstructionPolicy::BitsPerKey(FILTER_BITS_PER_ROW);
    // The tree's own notion of visibility is not used: it moves whenever a version is installed, even in the middle of
    // a batch. The store publishes its own.
    let config = Config::new(path, seqno.clone(), SequenceNumberCounter::default())
        .use_cache(Arc::clone(cache))
        .use_descriptor_table(Some(Arc::new(DescriptorTable::new(DESCRIPTORS_MAX))))
        .data_block_compression_policy(compression)
        .filter_policy(FilterPolicy::all(FilterPolicyEntry::Bloom(filter)))
        .index_block_partitioning_policy(PartitioningPolicy::new([false, true]))
        .filter_block_partitioning_policy(PartitioningPolicy::new([false, true]))
        .index_block_pinning_policy(PinningPolicy::new([true, false]))
        .filter_block_pinning_policy(PinningPolicy::new([true, false]));
    match config.open() {
        Ok(AnyTree::Standard(tree)) => Ok(tree),
        Ok(AnyTree::Blob(_)) => Err(damaged(path, "the tree stores its values apart, which this program never does")),
        Err(error) => Err(fault("open", path, &error)),
    }
}

/// The compaction strategy for a tree whose current rows and leases are in memory, or are not.
pub(super) fn strategy(resident: bool) -> Arc<Leveled> {
    let runs = if resident { LEVEL0_RUNS_RESIDENT } else { LEVEL0_RUNS };
    Arc::new(Leveled::default().with_l0_threshold(runs).with_table_target_size(TABLE_BYTES))
}

/// Verifies the file that lists the tree's tables. The tree itself does not: it would be made anew, silently empty, if
/// `current` were missing, and would believe a damaged list.
///
/// `current` holds the version's number (u64), the checksum of the file `v<number>` (XXH3, 128 bits) and the kind of
/// checksum (u8, zero).
pub(super) fn verify_version(path: &Path) -> Result<(), Fault> {
    let read = |name: &str| {
        let file = path.join(name);
        std::fs::read(&file).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => damaged(&file, "the file is missing"),
            _ => crate::disk::io_fault("read", &file, &error),
        })
    };
    let current = read("current")?;
    let (number, checksum) = match current.as_slice() {
        [fields @ .., 0] if fields.len() == 24 => fields.split_at(8),
        _ => return Err(damaged(&path.join("current"), "the file does not name a version of the tree")),
    };
    let number = number.iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    let name = format!("v{number}");
    if xxhash_rust::xxh3::xxh3_128(&read(&name)?).to_le_bytes() != checksum {
        return Err(damaged(&path.join(name), "the checksum of the list of tables does not match"));
    }
    Ok(())
}

/// Translates an error of the tree.
pub(super) fn fault(operation: &'static str, path: &Path, error: &lsm_tree::Error) -> Fault {
    match error {
        lsm_tree::Error::Io(error)
            if !matches!(
                error.kind(),
                std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::NotFound | std::io::ErrorKind::InvalidData
            ) =>
        {
            crate::disk::io_fault(operation, path, error)
        }
        // The tree reads only files that it has written in full: an early end is damage.
        lsm_tree::Error::Io(error) => damaged(path, &format!("{operation}: a file is missing or cut off ({error})")),
        lsm_tree::Error::Unrecoverable => damaged(path, &format!("{operation}: a file is missing or damaged")),
        other => damaged(path, &format!("{operation}: {other}")),
    }
}

/// The fault for damage in the tree at `path`.
pub(super) fn damaged(path: &Path, detail: &str) -> Fault {
    Fault::Corrupt {
        place: path.display().to_string(),
        detail: format!(
            "{detail}; remove this node from the cluster and add it again with an empty data directory, it will fetch \
             the data from the others"
        ),
    }
}
