//! The rows about the store itself: its clock, its floor, its counters, and the caller's mark.
//!
//! Invariant: state and mark are written in the same atomic batch as the data they describe, so an engine always knows
//! which log prefix it holds.

use base::codec::{put_varint, put_varint_signed};
use base::{DecodeError, Fault, Reader, Revision};
use bytes::Bytes;

use crate::engine::View;
use crate::keys;
use crate::reject::Reject;

const VERSION: u8 = 1;

/// The store's clock, floor and counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// Revision of the last change; 1 in a fresh store.
    pub revision: Revision,
    /// The compaction floor: state and history below it are gone; -1 before the first compaction.
    pub compacted: Revision,
    /// Number of keys that exist.
    pub keys: u64,
}

impl State {
    /// A store that was never written.
    pub const FRESH: Self = Self { revision: Revision(1), compacted: Revision(-1), keys: 0 };

    /// Which state a read asks for: `None` is the latest, otherwise a past revision that is still readable.
    pub(crate) fn resolve(&self, revision: Revision) -> Result<Option<i64>, Reject> {
        if revision > self.revision {
            return Err(Reject::FutureRevision);
        }
        if revision.0 <= 0 || revision == self.revision {
            return Ok(None);
        }
        if revision < self.compacted {
            return Err(Reject::Compacted);
        }
        Ok(Some(revision.0))
    }

    /// The revision the next change will get.
    #[must_use]
    pub fn revision_after(&self) -> Revision {
        Revision(self.revision.0 + 1)
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(24);
        out.push(VERSION);
        put_varint_signed(&mut out, self.revision.0);
        put_varint_signed(&mut out, self.compacted.0);
        put_varint(&mut out, self.keys);
        out.into()
    }

    pub(crate) fn read(row: Bytes) -> Result<Self, Fault> {
        Self::decode(row).map_err(|error| Fault::Corrupt { place: "row mstate".into(), detail: error.to_string() })
    }

    fn decode(row: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(row);
        if reader.u8("state version")? != VERSION {
            return Err(reader.error("state version"));
        }
        let state = Self {
            revision: Revision(reader.varint_signed("revision")?),
            compacted: Revision(reader.varint_signed("compacted")?),
            keys: reader.varint("keys")?,
        };
        if state.revision < Self::FRESH.revision || state.compacted > state.revision {
            return Err(reader.error("state relations"));
        }
        reader.finish("end of state")?;
        Ok(state)
    }
}

/// The state in `view`; [`State::FRESH`] if nothing was ever applied.
pub fn state(view: &dyn View) -> Result<State, Fault> {
    match view.get(keys::STATE)? {
        None => Ok(State::FRESH),
        Some(row) => State::read(row),
    }
}

/// What the caller passed to the last [`finish`](crate::Apply::finish) that reached `view`.
pub fn mark(view: &dyn View) -> Result<Option<Bytes>, Fault> {
    view.get(keys::MARK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_row_has_these_bytes() {
        let state = State { revision: Revision(300), compacted: Revision(-1), keys: 7 };
        assert_eq!(state.encode().as_ref(), b"\x01\xd8\x04\x01\x07");
        assert_eq!(State::decode(state.encode()), Ok(state));
    }

    #[test]
    fn damaged_state_rows_are_refused() {
        for bytes in [&b""[..], b"\x02\x02\x01\0", b"\x01\0\x01\0", b"\x01\x02\x04\0", b"\x01\x02\x01\0\0"] {
            assert!(State::decode(Bytes::copy_from_slice(bytes)).is_err(), "{bytes:?}");
        }
    }
}
