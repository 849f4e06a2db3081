//! The points at which consensus protocols differ, each a pure function that matches exhaustively over [`Protocol`].
//!
//! | # | point | function | Raft | Multi-Paxos | Zab | Paxos-Raft |
//! |---|---|---|---|---|---|---|
//! | 1 | ballot | `Replica::choose_ballot` | above all heard of | as Raft | above a quorum's, so as Raft | as Raft |
//! | 2 | who gets a vote | [`Protocol::grant`] | last entry not behind | anyone | anyone | accepted not behind |
//! | 3 | what it carries | [`Protocol::grant`] | nothing | all after candidate's commit | end of log | what is lacking
//! |
//! | 4 | winner's log | [`Protocol::build_log`] | own | per slot highest stamp | best of quorum | own and lacking |
//! | 5 | stamped anew | [`Protocol::build_log`] | nothing | all after its commit | nothing | what it lacked |
//! | 6 | append connects | [`Protocol::accept`] | equal stamps | leader's stamp | as Raft | as Raft, and covers |
//! | 7 | overwrites | [`Protocol::accept`] | from a conflict on | its slots only | as Raft | as Raft |
//! | 8 | counting commits | [`Protocol::may_commit`] | leader's stamps | all | as Raft | all |
//! | 9 | proposals open | [`Protocol::accepts_proposals`] | at once | at once | marker committed | at once |
//! | 10 | who elects | [`Protocol::electorate`] | latest membership | all uncommitted | as Multi-Paxos | as Multi-Paxos
//! |
//! | 11 | a known stamp proves | [`Protocol::history`] | the prefix | what is decided | as Raft | as Multi-Paxos |
//!
//! In 6 a place up to the commit index always connects.
//!
//! Functions see a [`LogView`] and return a plan; the kernel executes plans and is the only writer of state. Points
//! interact (2 with 8, 5 with 7 and 11), which is why they sit in one table and not behind a trait.

use std::collections::BTreeMap;

use base::limits::APPEND_ENTRIES_MAX;
use base::planted::{Defect, planted};
use base::{Ballot, Index, ReplicaId};

use crate::config::Protocol;
use crate::entry::{Entry, Position};
use crate::log::Log;

mod multi_paxos;
mod paxos_raft;
mod raft;
mod zab;

/// A candidate whose log ends so many entries before a voter's asks that voter to lead, before it fetches the rest.
const LAG_ENTRIES_MAX: u64 = 4 * APPEND_ENTRIES_MAX as u64;

/// What a policy may look at.
pub(crate) struct LogView<'a> {
    pub(crate) log: &'a Log,
    pub(crate) accepted: Ballot,
    pub(crate) commit: Index,
}

/// A candidate's claim.
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
    /// A vote, with the voter's entries from this index on, if any are asked for. They must be in memory.
    Give {
        /// First entry to send along.
        suffix_from: Option<Index>,
    },
}

/// A vote as received, with whatever point 3 made it carry. What does not fit a message follows in more of them.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Vote {
    pub(crate) accepted: Ballot,
    pub(crate) last: Position,
    /// Where the entries asked for begin; past the end of the voter's log if none are.
    pub(crate) suffix_from: Index,
    pub(crate) suffix: Vec<Entry>,
}

impl Vote {
    /// The first index whose entry has not arrived.
    pub(crate) fn next(&self) -> Index {
        Index(self.suffix_from.0 + self.suffix.len() as u64)
    }

    /// Whether all entries have arrived. Only then does the vote count: it says nothing about the others.
    pub(crate) fn is_complete(&self) -> bool {
        self.next() > self.last.index
    }

    /// The voter's entry at `index`, if the vote carries it.
    pub(crate) fn at(&self, index: Index) -> Option<&Entry> {
        self.suffix.get(usize::try_from(index.0.checked_sub(self.suffix_from.0)?).ok()?)
    }
}

/// The vote that carries what follows `index`. Without a part of it, it would say nothing about the slots left out: if
/// they are no longer in memory there is no vote.
fn suffix_after(log: &Log, index: Index) -> Grant {
    match index.next() {
        from if from < log.cached_from() => Grant::Refuse,
        from => Grant::Give { suffix_from: (from <= log.last()).then_some(from) },
    }
}

/// Points 4 and 5: how a winner's log comes about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct LogPlan {
    /// Own entries up to here stay; those above go.
    pub(crate) keep_to: Index,
    /// Entries of voters, consecutive: they replace what the log has at their indexes, and follow its end.
    pub(crate) adopt: Vec<Entry>,
    /// From here to the end of the resulting log every slot is stamped with the new ballot.
    pub(crate) restamp_from: Option<Index>,
    /// The new accepted ballot, if it changes.
    pub(crate) accepted: Option<Ballot>,
    /// Do not lead: this voter has the log to lead with. Let it lead, or fetch its log.
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
    /// It connects but does not cover what it would replace: it is kept in memory until more of it has come.
    Stage,
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
    AllUncommitted,
}

/// Point 11: how far a log can be trusted at whose applied end, or at a snapshot's, its stamp is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum History {
    /// Its entries up to there are the decided ones.
    Same,
    /// Those up to there may be others and must never be sent to anyone; those after it are acceptances that count.
    SuffixOnly,
    /// It does not reach so far, or it contradicts what is decided: nothing in it counts.
    Other,
}

impl Protocol {
    /// Points 2 and 3, for a ballot above the voter's promise.
    pub(crate) fn grant(self, me: &LogView<'_>, claim: &Claim) -> Grant {
        match self {
            Self::Raft => raft::grant(me, claim),
            Self::MultiPaxos => multi_paxos::grant(me, claim),
            Self::Zab => Grant::Give { suffix_from: None },
            Self::PaxosRaft => paxos_raft::grant(me, claim),
        }
    }

    /// Whether a candidate that gets this vote should let the voter lead. A hint: it asks once, and if that leads to
    /// nothing it fetches what it lacks.
    pub(crate) fn defers_to(self, me: &LogView<'_>, vote: &Vote) -> bool {
        match self {
            // In Raft a voter's log may be longer, but it is not newer. In Zab the best of a quorum is asked.
            Self::Raft | Self::Zab => false,
            Self::MultiPaxos | Self::PaxosRaft => vote.last.index.0 > me.log.last().0 + LAG_ENTRIES_MAX,
        }
    }

    /// Points 4 and 5. `votes` holds the complete votes of others.
    pub(crate) fn build_log(self, me: &LogView<'_>, votes: &BTreeMap<ReplicaId, &Vote>, ballot: Ballot) -> LogPlan {
        match self {
            Self::Raft => raft::build_log(me, votes, ballot),
            Self::MultiPaxos => multi_paxos::build_log(me, votes, ballot),
            Self::Zab => zab::build_log(me, votes),
            Self::PaxosRaft => paxos_raft::build_log(me, votes, ballot),
        }
    }

    /// Points 6 and 7, for a ballot that is the follower's promise.
    pub(crate) fn accept(self, me: &LogView<'_>, append: &AppendView<'_>) -> AcceptPlan {
        match self {
            Self::Raft | Self::Zab => raft::accept(me, append),
            Self::MultiPaxos => multi_paxos::accept(me, append),
            Self::PaxosRaft => paxos_raft::accept(me, append),
        }
    }

    /// Point 8: whether leader `ballot` may commit an entry with this stamp because a quorum holds it.
    pub(crate) fn may_commit(self, stamp: Ballot, ballot: Ballot) -> bool {
        match self {
            Self::Raft => stamp == ballot,
            Self::Zab => zab::may_commit(stamp, ballot),
            // Whoever matched it accepted it in this ballot.
            Self::MultiPaxos | Self::PaxosRaft => true,
        }
    }

    /// Point 9.
    pub(crate) fn accepts_proposals(self, phase: LeaderPhase) -> bool {
        match self {
            Self::Raft | Self::MultiPaxos | Self::PaxosRaft => true,
            Self::Zab => zab::accepts_proposals(phase),
        }
    }

    /// Point 10.
    pub(crate) fn electorate(self) -> Electorate {
        match self {
            Self::Raft => Electorate::Latest,
            Self::MultiPaxos | Self::Zab | Self::PaxosRaft => match planted(Defect::NoFixpoint) {
                true => Electorate::Latest,
                false => Electorate::AllUncommitted,
            },
        }
    }

    /// Whether a replica that lags can win, so that leadership may be handed to one (follows from points 2 to 4). In
    /// Zab it could only fetch first, and would rather ask another to lead.
    pub(crate) fn elects_laggards(self) -> bool {
        match self {
            Self::Raft | Self::Zab => false,
            Self::MultiPaxos | Self::PaxosRaft => true,
        }
    }

    /// Point 11: what a log knows whose entry at an index carries `ours` (nothing: it ends before), while the state
    /// machine or a snapshot holds that index with the stamp `theirs`.
    pub(crate) fn history(self, ours: Option<Ballot>, theirs: Ballot) -> History {
        match (self, ours) {
            (_, Some(stamp)) if stamp == theirs => History::Same,
            (_, None) | (Self::Raft | Self::Zab, Some(_)) => History::Other,
            (Self::MultiPaxos | Self::PaxosRaft, Some(_)) => History::SuffixOnly,
        }
    }

    /// Whether an entry keeps one stamp wherever it is, so that decided logs agree in their stamps, too.
    pub(crate) fn keeps_stamps(self) -> bool {
        match self {
            Self::Raft | Self::Zab => true,
            Self::MultiPaxos | Self::PaxosRaft => false,
        }
    }
}
