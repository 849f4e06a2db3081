//! Watches: from applied changes to the answers of many watchers, without IO.
//!
//! Invariant: nothing grows because somebody is slow. A watcher is a cursor; what it has not been sent lies in the
//! shared log of recent changes, or in history on the disk, never in a queue of its own.
//!
//! ```text
//!              applied ──► Recent: the last changes, shared, bounded
//!                 │ match by key (SpanIndex)
//!   Current: revisions in Recent that concern it ──┐
//!      ▲                │ too slow                 ├──► next() ──► one response, when the client has room
//!      │ caught up      ▼                          │
//!   Behind: a cursor, reads Recent from there on ──┘
//!      ▲                │ not in Recent any more
//!      └── page ──── Reading: the host reads a page of history
//! ```
//!
//! The host calls [`Hub::applied`] with what its state machine applied, [`Hub::next`] when a stream's client has room,
//! and [`Hub::page`] with history that `next` asked for. [`Hub::take_woken`] names the streams for which `next` has
//! something new. Several hubs may share the changes of one group, each with streams of its own.

mod catch_up;
mod hub;
mod index;
mod recent;
mod stream;
mod watcher;

use std::time::Duration;

use base::Revision;
use bytes::Bytes;
use mvcc::{Event, EventBudget, EventQuery};

pub use hub::{Counts, Hub};

/// One client's stream of watches, numbered by the host and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// A watcher in its hub; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatcherId(pub(crate) u64);

/// How a hub behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Time between two progress responses to a watcher that asked for them and sees no events.
    pub progress_interval: Duration,
    /// Watchers of one stream.
    pub watchers_per_stream_max: usize,
    /// Bytes of recent changes kept in memory.
    pub recent_bytes_max: usize,
    /// Revisions that may wait for one watcher before it is put behind.
    pub pending_max: usize,
    /// How much one response of several revisions, and one page of history, may hold.
    pub budget: EventBudget,
    /// Spreads progress responses in time.
    pub seed: u64,
}

/// What a client wants to watch, as the protocol writes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Create {
    /// The watch's number on its stream; 0 lets the hub choose.
    pub id: i64,
    /// First key; empty is the smallest key.
    pub key: Bytes,
    /// End of the range, in the protocol's special forms.
    pub range_end: Bytes,
    /// First revision of interest; 0 is from now on.
    pub start: Revision,
    /// Leave out puts.
    pub skip_puts: bool,
    /// Leave out deletes.
    pub skip_deletes: bool,
    /// Events carry the pair before.
    pub prev_kv: bool,
    /// Say now and then how far the watch is.
    pub progress_notify: bool,
    /// A large response may be split.
    pub fragment: bool,
}

/// Why a watch was not created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The start revision is negative.
    NegativeStart,
    /// The stream has a watch of that number.
    DuplicateId,
    /// No key lies in the range.
    EmptyRange,
    /// No key can be that long.
    KeyTooLong,
    /// The stream has as many watches as it may have.
    TooManyOnStream,
    /// The node has as many watches as it may have.
    TooManyOnNode,
}

/// One message to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The watch's number on its stream; -1 for all of them, or none.
    pub id: i64,
    /// Revision for the header.
    pub revision: Revision,
    /// The message proper.
    pub kind: ResponseKind,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResponseKind {
    /// The watch stands; the first message of each watch.
    Created,
    /// The watch does not stand.
    Refused(Refused),
    /// The client ended the watch.
    Cancelled,
    /// History below this floor is gone, and the watch needed it: it has ended.
    Compacted(Revision),
    /// What happened: whole revisions, in order.
    Events {
        /// Never empty.
        events: Vec<Event>,
        /// Whether the message may be split.
        fragment: bool,
    },
    /// Everything up to the header's revision has been sent.
    Progress,
}

/// The number in a message that is about no watch, or about all.
pub const NO_WATCH: i64 = -1;

/// The revision in the last message of a watch that lost its history: etcd leaves it empty.
pub(crate) const NO_REVISION: Revision = Revision(0);

/// What a stream does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Send this.
    Response(Response),
    /// Read this page of history and bring it to [`Hub::page`]; the stream has one such read at a time. Then ask again
    /// at once: other watches may have something.
    Read(PageRead),
    /// There is more, but others should have their turn: ask again soon.
    Yield,
    /// Nothing, until the stream is woken.
    Wait,
}

/// A page of history to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRead {
    /// For whom.
    pub watcher: WatcherId,
    /// What.
    pub query: EventQuery,
    /// How much.
    pub budget: EventBudget,
}
