//! The points at which consensus protocols differ, each a pure function that matches exhaustively over [`Protocol`].
//!
//! | # | point | function | Raft |
//! |---|---|---|---|
//! | 1 | ballot of a candidacy | [`Protocol::choose_ballot`] | own promise (or a refused one), round + 1 |
//! | 2 | who gets a vote | [`Protocol::grant`] | candidate's (last stamp, last index) is not behind mine |
//! | 3 | what a vote carries | [`Protocol::grant`] | nothing |
//! | 4 | the log a winner leads with | [`Protocol::build_log`] | its own |
//! | 5 | which entries it stamps anew | [`Protocol::build_log`] | none, ever |
//! | 6 | when an append connects | [`Protocol::accept`] | stamp at `prev` equal, or `prev` committed |
//! | 7 | what an append may overwrite | [`Protocol::accept`] | everything from the first conflict on |
//! | 8 | what counting replicas commits | [`Protocol::may_commit`] | only entries stamped with the leader's ballot |
//! | 9 | when proposals open | [`Protocol::accepts_proposals`] | at once |
//! | 10 | which memberships must elect | [`Protocol::electorate`] | the candidate's latest |
//!
//! Functions see a [`LogView`] and return a plan; the kernel executes plans and is the only writer of state. Points
//! interact (2 with 8, 5 with 7), which is why they sit in one table and not behind a trait. The executor already
//! follows every part of a plan, also those Raft never asks for.

use std::collections::BTreeMap;

use base::{Ballot, Index, NodeId, ReplicaId};

use crate::config::Protocol;
use crate::entry::{Entry, Position};
use crate::log::Log;

mod raft;

/// What a policy may look at.
#[expect(dead_code, reason = "Raft looks at less than the other protocols do")]
pub(crate) struct LogView<'a> {
    pub(crate) log: &'a Log,
    pub(crate) accepted: Ballot,
    pub(crate) commit: Index,
}

/// A candidate's claim.
#[expect(dead_code, reason = "Raft looks at less than the other protocols do")]
pub(crate) struct Claim {
    pub(crate) last: Position,
    pub(crate) accepted: Ballot,
    pub(crate) commit: Index,
}

/// Points 2 and 3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Grant {
    /// No vote. Always safe.
    Refuse,
    /// A vote, with the voter's entries from this index on, if any are asked for.
    Give {
        /// First entry to send along.
        suffix_from: Option<Index>,
    },
}

/// A vote as received, with whatever point 3 made it carry.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Vote {
    pub(crate) accepted: Ballot,
    pub(crate) commit: Index,
    pub(crate) last: Position,
    pub(crate) suffix: Vec<Entry>,
}

/// Points 4 and 5: how a winner's log comes about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct LogPlan {
    /// Own entries up to here stay; those above go.
    pub(crate) keep_to: Index,
    /// Entries of voters, consecutive, after `keep_to`.
    pub(crate) adopt: Vec<Entry>,
    /// From here to the end of the resulting log every slot is stamped with the new ballot.
    pub(crate) restamp_from: Option<Index>,
    /// The new accepted ballot, if it changes.
    pub(crate) accepted: Option<Ballot>,
    /// Do not lead: this voter has the log to lead with, hand over to it.
    pub(crate) fetch_from: Option<(ReplicaId, Position)>,
}

/// Points 6 and 7: what an append does to a follower's log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum AcceptPlan {
    /// It does not connect; the leader should try again after `hint`.
    Reject {
        /// Where to try.
        hint: Position,
    },
    /// It contradicts an entry that is committed here. No correct leader sends this.
    Contradiction,
    /// It connects.
    Write {
        /// Cut the log from here first.
        truncate_from: Option<Index>,
        /// So many leading entries of the append are held already.
        skip: usize,
        /// The others are written under this stamp instead of their own. A slot that exists is overwritten and the
        /// slots after it are kept.
        restamp: Option<Ballot>,
        /// The new accepted ballot, if it changes.
        accepted: Option<Ballot>,
        /// Afterwards every entry up to here equals the leader's.
        matched: Index,
    },
}

/// An append as a policy sees it.
#[expect(dead_code, reason = "Raft looks at less than the other protocols do")]
pub(crate) struct AppendView<'a> {
    pub(crate) ballot: Ballot,
    pub(crate) prev: Position,
    pub(crate) entries: &'a [Entry],
    pub(crate) sync_index: Index,
}

/// How far a leader has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LeaderPhase {
    /// Its marker is not committed yet.
    Syncing,
    /// Its marker is committed.
    Active,
}

/// Point 10.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Electorate {
    /// A quorum of the last membership in the candidate's own log. Sound only if a stale log cannot win.
    Latest,
    /// A quorum of the membership at the candidate's commit index and of every later one in the log it would lead
    /// with: a candidate with a stale log must not win under a membership that has been replaced.
    #[expect(dead_code, reason = "only protocols in which a stale log may win ask for it")]
    AllUncommitted,
}

impl Protocol {
    /// Point 1. `learnt` is the highest promise heard of, also from refusals.
    pub(crate) fn choose_ballot(self, promised: Ballot, learnt: Ballot, node: NodeId) -> Ballot {
        match self {
            Self::Raft => raft::choose_ballot(promised, learnt, node),
        }
    }

    /// Points 2 and 3, for a ballot above the voter's promise.
    pub(crate) fn grant(self, me: &LogView<'_>, claim: &Claim) -> Grant {
        match self {
            Self::Raft => raft::grant(me, claim),
        }
    }

    /// Points 4 and 5. `votes` holds the votes of others.
    pub(crate) fn build_log(self, me: &LogView<'_>, votes: &BTreeMap<ReplicaId, Vote>, ballot: Ballot) -> LogPlan {
        match self {
            Self::Raft => raft::build_log(me, votes, ballot),
        }
    }

    /// Points 6 and 7, for a ballot that is the follower's promise.
    pub(crate) fn accept(self, me: &LogView<'_>, append: &AppendView<'_>) -> AcceptPlan {
        match self {
            Self::Raft => raft::accept(me, append),
        }
    }

    /// Point 8: whether leader `ballot` may commit an entry with this stamp because a quorum holds it.
    pub(crate) fn may_commit(self, stamp: Ballot, ballot: Ballot) -> bool {
        match self {
            Self::Raft => stamp == ballot,
        }
    }

    /// Point 9.
    pub(crate) fn accepts_proposals(self, phase: LeaderPhase) -> bool {
        match (self, phase) {
            (Self::Raft, LeaderPhase::Syncing | LeaderPhase::Active) => true,
        }
    }

    /// Point 10.
    pub(crate) fn electorate(self) -> Electorate {
        match self {
            Self::Raft => Electorate::Latest,
        }
    }

    /// Whether a log whose entry at a committed index carries `ours` agrees with the history in which it carries
    /// `theirs`. Depends on what a stamp means (points 5 and 7).
    pub(crate) fn same_history(self, ours: Option<Ballot>, theirs: Ballot) -> bool {
        match self {
            Self::Raft => ours == Some(theirs),
        }
    }
}
