//! Messages between the replicas of a group. Any of them may be lost, repeated, delayed or reordered.

use base::{Ballot, GroupId, Index, ReplicaId};

use crate::config::Protocol;
use crate::entries::Entries;
use crate::entry::Position;
use crate::ready::{ReadId, Refusal};

/// Header and body.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Message {
    /// The group; a host carries messages of many groups in one frame.
    pub group: GroupId,
    /// Sender's protocol: a message of another protocol is refused.
    pub protocol: Protocol,
    /// Sender.
    pub from: ReplicaId,
    /// Receiver.
    pub to: ReplicaId,
    /// The ballot the sender speaks in (a pre-vote: the ballot it would use; an answer: the ballot it answers to).
    pub ballot: Ballot,
    /// What is said.
    pub body: Body,
}

/// Every message is moved from hand to hand a dozen times. Up to this size that takes a few instructions and no call.
const _: () = assert!(size_of::<Message>() <= 128, "a message should stay small");

/// The number of an append that only tells a new commit index. Nobody waits for the answer: the entries were
/// acknowledged when they came, and heartbeats ask whether the follower is still there. A refusal is sent all the same.
pub const UNANSWERED: u64 = 0;

/// The entries that come with a vote.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Suffix {
    /// Where they begin; past the end of the voter's log if there are none (in Raft, always).
    pub from: Index,
    /// Up to the end of the voter's log, or as many as fit a message; the rest is asked for.
    pub entries: Entries,
}

/// What is said.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Body {
    /// Would you vote for me? Changes nothing at the receiver.
    PreVote {
        /// End of the candidate's log.
        last: Position,
        /// Candidate's accepted ballot (Paxos-Raft).
        accepted: Ballot,
        /// Candidate's commit index.
        commit: Index,
        /// Index of the candidate's membership, so that a removed replica can be told.
        membership: Index,
    },
    /// Answer to [`Body::PreVote`].
    PreVoteReply {
        /// Whether the vote would be given.
        granted: bool,
        /// The receiver's promise, so that a candidate below it can catch up.
        promised: Ballot,
    },
    /// Vote for me.
    Elect {
        /// End of the candidate's log.
        last: Position,
        /// Candidate's accepted ballot (Paxos-Raft).
        accepted: Ballot,
        /// Candidate's commit index.
        commit: Index,
        /// Leadership was handed over: stickiness does not apply.
        forced: bool,
        /// Index of the candidate's membership, so that a removed replica can be told.
        membership: Index,
    },
    /// Answer to [`Body::Elect`]; counts only in the candidacy it names.
    ElectReply {
        /// Whether the vote is given. A grant leaves only after the promise is durable.
        granted: bool,
        /// The voter's promise.
        promised: Ballot,
        /// The voter's accepted ballot.
        accepted: Ballot,
        /// The voter's commit index.
        commit: Index,
        /// End of the voter's log.
        last: Position,
        /// What the policy asks voters for: boxed, since votes are rare and every message has room for the largest.
        suffix: Box<Suffix>,
    },
    /// A candidate asks a voter for more of its log, which does not change until the candidate leads. To ask for what
    /// lies past the end says that the candidacy still goes on.
    FetchLog {
        /// First entry wanted.
        from: Index,
    },
    /// Answer to [`Body::FetchLog`].
    FetchLogReply {
        /// First index of `entries`.
        from: Index,
        /// As many as fit.
        entries: Entries,
    },
    /// Entries, or none: a heartbeat that also carries the commit index.
    Append {
        /// The entry before `entries`.
        prev: Position,
        /// Consecutive entries after `prev`.
        entries: Entries,
        /// Leader's commit index.
        commit: Index,
        /// Last index of the log the leader was elected with, marker included.
        sync_index: Index,
        /// Rises with every append of this leader that wants an answer; the one thing a read confirmation is matched
        /// on. [`UNANSWERED`] if none is wanted.
        confirm_seq: u64,
        /// Highest leader priority among the voters that the leader hears, itself included.
        preferred: u8,
    },
    /// Answer to [`Body::Append`].
    AppendReply {
        /// Whether `prev` matched.
        ok: bool,
        /// ok: every entry up to here is durable here and equal to the leader's. Else: unused.
        matched: Index,
        /// Not ok: try again after this position. Ok: what is received beyond `matched` but not taken over yet ends
        /// here (Paxos-Raft; else zero).
        hint: Position,
        /// The follower's promise; above the message's ballot it deposes the leader.
        promised: Ballot,
        /// Echo of the append's.
        confirm_seq: u64,
        /// The follower's leader priority.
        priority: u8,
    },
    /// Follower asks its leader for a read index.
    ReadIndex {
        /// The follower's name for the request.
        id: ReadId,
    },
    /// Answer to [`Body::ReadIndex`].
    ReadIndexReply {
        /// Echo.
        id: ReadId,
        /// Where to read.
        at: Result<Index, Refusal>,
    },
    /// Campaign at once: the leader hands over. Ignored if any field does not hold at the receiver.
    TimeoutNow {
        /// The log the receiver must hold.
        last: Position,
    },
    /// A snapshot up to this position is durably installed.
    SnapshotInstalled {
        /// Position of the snapshot.
        position: Position,
    },
    /// Your replica is not part of the group any more.
    Removed {
        /// Index of the membership that says so.
        index: Index,
    },
}
