//! Log entries and positions.

use std::sync::Arc;

use base::{Ballot, Index};
use bytes::Bytes;

use crate::membership::Membership;

/// What an entry means to the kernel. The number is part of the log and frame formats.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum EntryKind {
    /// The first own entry of every leader: once it is applied, nothing of an older leader takes effect any more. At
    /// index 1 its payload is the membership the group was founded with; else it is empty.
    EpochStart = 1,
    /// A command for the state machine.
    Command = 2,
    /// A membership change; the payload is an encoded compare-and-swap on the previous membership.
    Config = 3,
}

/// One record of the replicated log.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Entry {
    /// Position in the log.
    pub index: Index,
    /// Raft, Zab: equal to `origin`. Paxos: the ballot of the last acceptance.
    pub stamp: Ballot,
    /// The ballot that first proposed the entry; never changes.
    pub origin: Ballot,
    /// What it means.
    pub kind: EntryKind,
    /// The command, opaque to the kernel; at most [`base::limits::ENTRY_BYTES_MAX`] bytes.
    pub payload: Bytes,
}

impl Entry {
    /// Index and stamp of this entry.
    #[must_use]
    pub const fn position(&self) -> Position {
        Position { index: self.index, stamp: self.stamp }
    }
}

/// An index together with the stamp of the entry there. `Position::default()` is "before the log".
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Position {
    /// The index.
    pub index: Index,
    /// The stamp of the entry at that index.
    pub stamp: Ballot,
}

/// Everything the kernel must know about the log up to an applied index once the entries are gone. Stored by the state
/// machine in the same atomic batch as the effects of the entry at `position`, and carried by snapshots.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Mark {
    /// The last entry whose effects are included.
    pub position: Position,
    /// The highest origin applied so far: an entry of a lower origin is a no-op (the apply fence).
    pub max_origin: Ballot,
    /// The membership in effect at `position`: shared, since a mark goes out with every hand-out.
    pub membership: Arc<Membership>,
}
