//! A fingerprint of the state at a revision, to compare members with.
//!
//! Invariant: equal states give equal hashes, on every member, before and after compactions and sweeps.

use std::ops::ControlFlow;

use base::Revision;

use crate::engine::View;
use crate::range::ReadError;
use crate::rows;
use crate::scan;
use crate::span::Span;
use crate::state::state;

/// A fingerprint with the positions it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateHash {
    /// CRC-32C over all pairs in key order, everything stored about them included.
    pub hash: u32,
    /// The revision whose state was hashed.
    pub revision: Revision,
    /// The current revision, for the header.
    pub current: Revision,
    /// The compaction floor.
    pub compacted: Revision,
}

/// Hashes the state at `revision`; 0 or less means the latest.
pub fn hash(view: &dyn View, revision: Revision) -> Result<StateHash, ReadError> {
    let state = state(view)?;
    let at = state.resolve(revision)?;
    let mut hash = 0;
    scan::visit(view, &Span::all(), at, &mut |key, row| {
        // Lengths first, so that bytes cannot move from key to value unseen. The row is canonical: one state, one
        // encoding.
        rows::read_header(&row)?;
        hash = crc32c::crc32c_append(hash, &(key.len() as u64).to_le_bytes());
        hash = crc32c::crc32c_append(hash, &key);
        hash = crc32c::crc32c_append(hash, &(row.len() as u64).to_le_bytes());
        hash = crc32c::crc32c_append(hash, &row);
        Ok(ControlFlow::Continue(()))
    })?;
    let revision = at.map_or(state.revision, Revision);
    Ok(StateHash { hash, revision, current: state.revision, compacted: state.compacted })
}
