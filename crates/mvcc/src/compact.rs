//! The sweep: removes what the compaction floor has made unreadable.
//!
//! Invariant: no read at or above the floor, and no watch from the floor on, can tell how far it has come. It is local:
//! every node sweeps in its own time, in pieces of any size. Applying and sweeping never touch the same row in
//! conflicting ways, so a sweep made from an older view may be written after newer batches.
//!
//! ```text
//!              floor
//! events   . . . F . . . .      an event below the floor: it goes, with the version it replaced and its tombstone
//!          x x x │              an event at the floor: only the version it replaced goes; a watch may still start here
//! ```

use std::collections::BTreeMap;

use base::codec::put_varint;
use base::{DecodeError, Fault, Reader};
use bytes::Bytes;

use crate::engine::{Batch, View};
use crate::keys::{self, Rank};
use crate::outcome::EventKind;
use crate::rows;
use crate::state::state;

const VERSION: u8 = 1;

/// A piece of a sweep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sweep {
    /// Rows to delete, with the new position of the sweep; empty when there was nothing to do.
    pub batch: Batch,
    /// Whether everything up to the floor has been swept once the batch is written.
    pub done: bool,
}

/// How far the sweep has come: all events before (`revision`, `sub`) are dealt with, for `floor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cursor {
    floor: i64,
    done: bool,
    revision: i64,
    sub: u32,
}

/// The next piece of the sweep in `view`, looking at no more than `events_max` events (at least one). Sweeps of one
/// engine must not overlap: write the batch before asking for the next piece.
pub fn sweep(view: &dyn View, events_max: usize) -> Result<Sweep, Fault> {
    let floor = state(view)?.compacted.0;
    let mut cursor = match view.get(keys::SWEEP)? {
        Some(row) => Cursor::decode(row)
            .map_err(|error| Fault::Corrupt { place: "row msweep".into(), detail: error.to_string() })?,
        None => Cursor { floor: -1, done: true, revision: 0, sub: 0 },
    };
    if cursor.floor == floor && cursor.done {
        return Ok(Sweep { batch: Batch::default(), done: true });
    }
    if cursor.floor != floor {
        // Events at the old floor were kept then, and can go now.
        cursor = Cursor { floor, done: false, revision: cursor.revision, sub: 0 };
    }
    let mut deleted = BTreeMap::new();
    let (from, to) = keys::event_bounds(cursor.revision, cursor.sub, floor);
    let mut stopped = false;
    for (seen, found) in view.scan(from, to).enumerate() {
        let (row_key, row) = found?;
        let (revision, sub) = keys::read_event(&row_key)?;
        if seen >= events_max.max(1) {
            (cursor.revision, cursor.sub) = (revision.0, sub);
            stopped = true;
            break;
        }
        sweep_event(&mut deleted, floor, revision.0, row_key, &row)?;
    }
    if !stopped {
        cursor = Cursor { floor, done: true, revision: floor, sub: 0 };
    }
    deleted.insert(Bytes::from_static(keys::SWEEP), Some(cursor.encode()));
    Ok(Sweep { batch: Batch { rows: deleted.into_iter().collect() }, done: cursor.done })
}

fn sweep_event(
    deleted: &mut BTreeMap<Bytes, Option<Bytes>>,
    floor: i64,
    revision: i64,
    row_key: Bytes,
    row: &Bytes,
) -> Result<(), Fault> {
    let event = rows::read_event(row)?;
    let below = revision < floor;
    if event.replaced > 0 && event.replaced < revision {
        deleted.insert(keys::history(&event.key, event.replaced, Rank::Version).into(), None);
    } else if event.replaced == revision && below {
        deleted.insert(keys::history(&event.key, revision, Rank::Transient).into(), None);
    }
    if below {
        if event.kind == EventKind::Delete {
            deleted.insert(keys::history(&event.key, revision, Rank::Tombstone).into(), None);
        }
        deleted.insert(row_key, None);
    }
    Ok(())
}

impl Cursor {
    fn encode(&self) -> Bytes {
        let mut out = vec![VERSION, u8::from(self.done)];
        put_varint(&mut out, self.floor.max(0) as u64);
        put_varint(&mut out, self.revision.max(0) as u64);
        put_varint(&mut out, u64::from(self.sub));
        out.into()
    }

    fn decode(row: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(row);
        if reader.u8("sweep version")? != VERSION {
            return Err(reader.error("sweep version"));
        }
        let done = match reader.u8("sweep done")? {
            0 => false,
            1 => true,
            _ => return Err(reader.error("sweep done")),
        };
        let mut number = |what| -> Result<i64, DecodeError> {
            let value = reader.varint(what)?;
            i64::try_from(value).map_err(|_| reader.error(what))
        };
        let floor = number("sweep floor")?;
        let revision = number("sweep revision")?;
        let sub = number("sweep sub")?;
        let sub = u32::try_from(sub).map_err(|_| reader.error("sweep sub"))?;
        reader.finish("end of sweep")?;
        Ok(Self { floor, done, revision, sub })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sweep_row_has_these_bytes() {
        let cursor = Cursor { floor: 300, done: false, revision: 7, sub: 2 };
        assert_eq!(cursor.encode().as_ref(), b"\x01\0\xac\x02\x07\x02");
        assert_eq!(Cursor::decode(cursor.encode()), Ok(cursor));
        assert!(Cursor::decode(Bytes::from_static(b"\x01\x02\0\0\0")).is_err());
    }
}
