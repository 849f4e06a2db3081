//! Which rows of the tree are held in memory: the current rows, and those of leases, each group as long as it is small.
//!
//! Invariant: a group that is held is whole. Groups come and go on their own, so that many leases do not make reads of
//! few keys slow.

use std::ops::{Bound, RangeInclusive};
use std::sync::Arc;

use bytes::Bytes;
use mvcc::{ATTACHMENT_ROWS, CURRENT_ROWS, LEASE_ROWS};

use super::resident::Resident;

/// The first bytes of the keys of each group.
pub(super) const GROUPS: [RangeInclusive<u8>; 2] = [CURRENT_ROWS..=CURRENT_ROWS, ATTACHMENT_ROWS..=LEASE_ROWS];

/// The groups that are held, by the place of their tags in [`GROUPS`].
#[derive(Clone, Debug)]
pub(super) struct Residents(pub(super) [Option<Arc<Resident>>; GROUPS.len()]);

impl Residents {
    /// The group that has this key, if it is held: then what is not there does not exist.
    pub(super) fn with(&self, key: &[u8]) -> Option<&Resident> {
        self.held().find(|resident| resident.covers(key))
    }

    /// The group that has all keys between the bounds, if it is held.
    pub(super) fn with_range(&self, from: &Bound<Bytes>, to: &Bound<Bytes>) -> Option<&Resident> {
        self.held().find(|resident| resident.covers_range(from, to))
    }

    fn held(&self) -> impl Iterator<Item = &Resident> {
        self.0.iter().flatten().map(|resident| &**resident)
    }

    /// Whether every group is held.
    pub(super) fn all(&self) -> bool {
        self.0.iter().all(Option::is_some)
    }

    /// Memory taken; nothing if the current rows are not held.
    pub(super) fn bytes(&self) -> Option<u64> {
        self.0[0].as_ref()?;
        Some(self.held().map(Resident::bytes).sum())
    }
}
