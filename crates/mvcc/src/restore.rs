//! What becomes of the rows of a snapshot when a new cluster starts from it.
//!
//! Invariant: the new cluster's revision is higher than any the old one had when the snapshot was taken, by a margin
//! for what it wrote since, and everything below is compacted. So a client that remembers a revision of the old cluster
//! learns that its memory is of no use, and never takes an old value for the present one.

use base::{Fault, Revision};
use bytes::Bytes;

use crate::keys;
use crate::state::State;

/// The value of a row in the new cluster; nothing if the row stays behind: the old cluster's position in its log, its
/// members and their alarms. `bump` is what the revision grows by.
pub fn restored(row_key: &Bytes, row: Bytes, bump: i64) -> Result<Option<Bytes>, Fault> {
    if row_key == keys::MARK || keys::belongs_to_members(row_key) {
        return Ok(None);
    }
    if row_key != keys::STATE {
        return Ok(Some(row));
    }
    let state = State::read(row)?;
    let revision = Revision(state.revision.0.saturating_add(bump.max(1)));
    Ok(Some(State { revision, compacted: revision, ..state }.encode()))
}

/// The state among a snapshot's rows, if this row is it.
pub fn state_in(row_key: &Bytes, row: &Bytes) -> Result<Option<State>, Fault> {
    if row_key == keys::STATE { State::read(row.clone()).map(Some) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revision_grows_everything_before_is_compacted_and_members_stay_behind() {
        let old = State { revision: Revision(7), compacted: Revision(-1), keys: 3 };
        let new = restored(&Bytes::from_static(keys::STATE), old.encode(), 1000).unwrap().unwrap();
        let expected = State { revision: Revision(1007), compacted: Revision(1007), keys: 3 };
        assert_eq!(State::read(new), Ok(expected));
        let row = Bytes::from_static(b"x");
        for gone in [&b"mmark"[..], b"n\0\0\0\0\0\0\0\x01", b"a\0\0\0\0\0\0\0\x01\x01"] {
            assert_eq!(restored(&Bytes::copy_from_slice(gone), row.clone(), 1), Ok(None), "{gone:?}");
        }
        for kept in [&b"ckey"[..], b"l\0\0\0\0\0\0\0\x01", b"mlease"] {
            assert_eq!(restored(&Bytes::copy_from_slice(kept), row.clone(), 1), Ok(Some(row.clone())), "{kept:?}");
        }
        assert!(restored(&Bytes::from_static(keys::STATE), row, 1).is_err());
    }
}
