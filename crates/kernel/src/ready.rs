//! What the host must do for a replica, and in what order.
//!
//! The caller's duties, once per turn, for every replica that received an input:
//! 1. `let ready = replica.ready(lsn)`, where `lsn` is the number under which this turn's batch goes to the node's log.
//! 2. Hand `ready.records` to the log, in order, all groups of the turn as one batch, which becomes durable as a whole
//!    or not at all (Paxos-Raft needs that). The log acknowledges with `Synced<Lsn>`; pass that to `replica.persisted`.
//!    Promises that rest on the records stay inside the replica until then: there is no way to send them earlier.
//! 3. Send `ready.messages` now. Each may be lost, repeated or reordered on the way.
//! 4. Apply `ready.committed` in order; afterwards call `replica.applied` with the last index that is applied.
//! 5. Serve `ready.reads`: a read may be answered from any state that contains index `at`.
//! 6. Answer `ready.loads` with `replica.loaded`, `ready.snapshots_to_send` by streaming the state machine's snapshot
//!    with its mark; if that comes to nothing, `replica.snapshot_failed`.
//! 7. On the receiving side ask `replica.wants_snapshot` before a snapshot starts and again directly before it is
//!    installed; call `replica.snapshot_installing(true)` then, and `replica.snapshot_installed` once it is durable.
//!    Batches handed out before and not yet applied are then void.
//!
//! `has_ready` says whether a turn is worth it; `tick` is due at `next_deadline` and must never wait for the disk.

use base::{Ballot, Index, NodeId, ReplicaId};

use crate::entries::Entries;
use crate::entry::{Entry, Mark, Position};
use crate::membership::Membership;
use crate::message::Message;

/// One change to a replica's durable state. The order of records is the order of durability.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Record {
    /// The promise, and a hint how far the log was known to be committed.
    Hard {
        /// No message of a lower ballot is accepted any more.
        promised: Ballot,
        /// Paxos-Raft: the ballot of the leader of which the whole log is a prefix. Others: zero.
        accepted: Ballot,
        /// Known commit index; may lag.
        commit: Index,
    },
    /// Entries at consecutive indexes. An index the log already has is overwritten and its suffix kept.
    Append(Entries),
    /// Entries at `from` and above are gone.
    Truncate {
        /// First index removed.
        from: Index,
    },
    /// The log now starts after `base`: entries up to it are no longer needed. With `keep_suffix` false (a snapshot
    /// that does not connect to the log) the entries above are gone as well.
    Compact {
        /// The new "before the log".
        base: Position,
        /// Whether entries above `base` stay.
        keep_suffix: bool,
    },
}

/// Durable state of a replica as found at start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Recovered {
    /// From the last [`Record::Hard`].
    pub promised: Ballot,
    /// From the last [`Record::Hard`].
    pub accepted: Ballot,
    /// From the last [`Record::Hard`].
    pub commit: Index,
    /// "Before the log": from the last [`Record::Compact`].
    pub base: Position,
    /// Stamps of entries after `base` that are not in `entries`, as runs: (first index, stamp, origin), ascending. The
    /// last run ends before the first of `entries`.
    pub runs: Vec<(Index, Ballot, Ballot)>,
    /// The entries above the applied index (and at least all the kernel must see again), contiguous to the log's end.
    pub entries: Vec<Entry>,
    /// Last index of the log (equals the last of `entries`, if any).
    pub last: Index,
    /// What the state machine holds; for a fresh replica the initial membership at position zero.
    pub mark: Mark,
}

/// Names a read request; unique for the replica's lifetime, chosen by the caller.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReadId(pub u64);

/// The answer to `Replica::read`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ReadDone {
    /// The request.
    pub id: ReadId,
    /// Serve from any state that has applied this index; an error means nothing was promised and the read may be
    /// asked again.
    pub at: Result<Index, Refusal>,
}

/// Entries decided by the group, each handed out exactly once per incarnation and in index order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Committed {
    /// The entries, at least one.
    pub entries: Entries,
    /// False: the apply fence turns these entries into no-ops, they surely have no effect.
    pub effective: bool,
}

/// The kernel needs entries it no longer holds in memory, for a follower that lags.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct LoadRequest {
    /// Who needs them.
    pub to: ReplicaId,
    /// First index.
    pub from: Index,
    /// One past the last index wanted.
    pub until: Index,
    /// Stop after about this many payload bytes, but load at least one entry.
    pub bytes_max: usize,
}

/// What the host must do; see the module's text for the order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ready {
    /// To be made durable.
    pub records: Vec<Record>,
    /// May leave the node now.
    pub messages: Vec<Message>,
    /// Decided entries, to be applied in order. `replica.mark` is now the log position, fence and membership after the
    /// last of them: the host stores it in the same atomic batch as their effects, which must not be split.
    pub committed: Vec<Committed>,
    /// Finished read requests.
    pub reads: Vec<ReadDone>,
    /// Entries to fetch from the node's log.
    pub loads: Vec<LoadRequest>,
    /// Followers too far behind for the log: stream them a snapshot of the state machine.
    pub snapshots_to_send: Vec<ReplicaId>,
    /// Role, leader or ballot changed since the last hand-out.
    pub status_changed: bool,
}

impl Ready {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }
}

/// A replica's role.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether an election could be won, without raising its promise.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Elected; its epoch marker is not applied yet.
    LeaderElect,
    /// Leads: reads, membership changes and transfer are open.
    Leader,
}

/// A summary for operators, metrics and routing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// The role.
    pub role: Role,
    /// The ballot promised.
    pub ballot: Ballot,
    /// Who leads, if known.
    pub leader: Option<NodeId>,
    /// Last index in the log.
    pub last: Index,
    /// Commit index.
    pub commit: Index,
    /// Applied index.
    pub applied: Index,
    /// First index still in the log.
    pub first: Index,
    /// The membership in effect.
    pub membership: Membership,
    /// On a leader: per replica the matched index and whether it was heard from within an election timeout.
    pub peers: Vec<(ReplicaId, Index, bool)>,
    /// Set once this replica is known to be no member any more: index of the membership that says so. The host may
    /// write its tombstone and destroy the replica; until then it answers nobody and never campaigns.
    pub removed: Option<Index>,
    /// Messages dropped because they contradict the committed log or the protocol. Never more than zero unless a peer
    /// is broken or belongs elsewhere.
    pub suspicious: u64,
}

/// Why a request was not accepted. All of these mean: surely nothing happened.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Refusal {
    /// Not the leader (any more); the leader if known.
    NotLeader(Option<NodeId>),
    /// Leader, but its epoch marker is not applied yet, or leadership is being transferred.
    NotReady,
    /// Too many bytes or requests are in flight.
    Overloaded,
    /// The payload exceeds [`base::limits::ENTRY_BYTES_MAX`].
    TooLarge,
    /// A membership change is under way, or the expected previous membership is not the current one.
    MembershipBusy,
    /// The membership change makes no sense: unknown or duplicate replica, no voter left, transfer to a non-voter.
    BadMembership,
}
