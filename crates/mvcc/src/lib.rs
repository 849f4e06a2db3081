//! The replicated state machine: etcd's data model, exactly, as a pure function from commands to rows.
//!
//! Invariant: the answer to a command, and everything readable at a revision, depend on nothing but the sequence of
//! commands applied so far. How that sequence was cut into batches, how far the local sweep has come and which member
//! answers must not be visible.
//!
//! ```text
//! Command ── log ──► Machine::begin(view) ─ command()* ─ finish(mark) ──► Batch ──► Engine::write
//!                                                              └──► Changes (watch)
//! RangeRequest ─────────────────────────► range(view)              view = Engine::view()
//! start revision ───────────────────────► events(view)
//! ```
//!
//! Reading order: `command`, `outcome`, `keys` (the row layout), `engine`, `machine`, `range`, then `history`,
//! `compact` and `hash`. The crate sits on floor 1: no clock, file, thread or randomness.
//! Left out so far: prepared writes of transactions over several groups.

pub mod alarm;
mod budget;
pub mod command;
mod command_codec;
pub mod compact;
mod compare;
pub mod engine;
pub mod hash;
pub mod history;
mod keys;
pub mod lease;
pub mod machine;
pub mod member;
pub mod outcome;
mod outcome_codec;
pub mod range;
pub mod reject;
pub mod restore;
mod rows;
mod scan;
pub mod span;
mod staged;
pub mod state;
pub mod stream;
mod txn;
pub mod validate;
mod writer;

pub use alarm::{Alarm, AlarmKind, alarms};
pub use command::{
    AlarmChange, Command, Compact, Compare, CompareResult, CompareTarget, DeleteRange, LeaseCheckpoint, LeaseExpire,
    LeaseGrant, LeaseInstance, LeaseRevoke, MemberChange, MemberStep, Op, Put, RangeRequest, SortOrder, SortTarget,
    Txn,
};
pub use compact::{Sweep, sweep};
pub use engine::{Batch, Engine, MemEngine, Scan, View};
pub use hash::{StateHash, hash};
pub use history::{EventBudget, EventPage, EventQuery, events};
pub use keys::{
    ATTACHMENT as ATTACHMENT_ROWS, CURRENT as CURRENT_ROWS, EVENT as EVENT_ROWS, HISTORY as HISTORY_ROWS,
    LEASE as LEASE_ROWS,
};
pub use lease::{Lease, LeaseChange, attached, lease, lease_hash, leases};
pub use machine::{Apply, Machine};
pub use member::{MemberRecord, members};
pub use outcome::{
    Change, CompactResult, DeleteResult, Event, EventKind, KeyValue, LeaseGrantResult, OpOutcome, OpResult, Outcome,
    OutcomeResult, PutResult, RangeResult, TxnResult,
};
pub use range::{RangeResponse, ReadError, range, range_whole, range_within};
pub use reject::{Class, Reject};
pub use restore::{restored, state_in};
pub use span::Span;
pub use state::{State, mark, state};
pub use stream::{Chunk, ChunkEnd, RangeStream};
pub use txn::read_txn;
pub use validate::Limits;
