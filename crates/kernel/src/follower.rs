//! A follower's side of replication: connect, write, acknowledge, follow the commit index.
//!
//! Invariant: what is acknowledged up to an index is durable here and equal to the leader's log up to there, and the
//! commit index never moves past what was compared with the current leader.

use base::limits::UNCOMMITTED_BYTES_MAX;
use base::planted::{Defect, planted};
use base::{Ballot, Index, ReplicaId};

use crate::entries::Entries;
use crate::entry::Position;
use crate::message::{Body, UNANSWERED};
use crate::policy::{AcceptPlan, AppendView};
use crate::replica::{Replica, RoleState};

/// Payload bytes a follower keeps for a state machine that lags; beyond it new entries are left to be sent again.
const UNAPPLIED_BYTES_MAX: usize = 2 * UNCOMMITTED_BYTES_MAX;

/// A received [`Body::Append`].
pub(crate) struct Append {
    pub(crate) from: ReplicaId,
    pub(crate) ballot: Ballot,
    pub(crate) prev: Position,
    pub(crate) entries: Entries,
    pub(crate) commit: Index,
    pub(crate) sync_index: Index,
    pub(crate) confirm_seq: u64,
}

/// What the answer to an append needs to know of it.
struct Header {
    from: ReplicaId,
    ballot: Ballot,
    confirm_seq: u64,
    /// It brought no entries.
    is_heartbeat: bool,
    /// It brought entries that the leader was elected with.
    is_sync: bool,
}

/// Consecutive entries after `prev`, from the leader of the promised ballot. At most as many as the log they will
/// replace.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Staged {
    prev: Position,
    entries: Entries,
}

impl Replica {
    /// Handles an append, empty or not.
    pub(crate) fn on_append(&mut self, mut append: Append) {
        self.contacts.remember(append.from, append.ballot.node);
        if append.ballot < self.promised {
            return self.reject_append(&append, Position::default());
        }
        if append.ballot == self.promised && (self.is_leader() || self.leader.is_some_and(|l| l != append.from)) {
            // Two leaders of one ballot cannot be.
            self.suspicious += 1;
            return;
        }
        let following = matches!(self.role, RoleState::Follower) && self.leader == Some(append.from);
        if append.ballot > self.promised || !following {
            self.become_follower(append.ballot, Some(append.from));
        }
        self.heard = Some(self.now);
        self.reset_election_timer();
        let payload: usize = append.entries.iter().map(|entry| entry.payload.len()).sum();
        if self.log.unapplied_bytes() + payload > UNAPPLIED_BYTES_MAX && self.log.unapplied_bytes() > 0 {
            append.entries.truncate(0);
        }
        let header = Header {
            from: append.from,
            ballot: append.ballot,
            confirm_seq: append.confirm_seq,
            is_heartbeat: append.entries.is_empty(),
            is_sync: append.prev.index < append.sync_index,
        };
        if planted(Defect::EpochApart) {
            self.accepted = append.ballot;
            self.record_hard();
        }
        if let Err(hint) = self.join_staged(&mut append) {
            return self.reject_append(&append, hint);
        }
        let view = AppendView {
            ballot: append.ballot,
            prev: append.prev,
            entries: &append.entries,
            sync_index: append.sync_index,
        };
        match self.config.protocol.accept(&self.view(), &view) {
            AcceptPlan::Contradiction => self.suspicious += 1,
            AcceptPlan::Reject { hint } => self.reject_append(&append, hint),
            AcceptPlan::Stage => {
                let received = Index(append.prev.index.0 + append.entries.len() as u64);
                let hint = Position { index: received, stamp: append.ballot };
                self.staged = Some(Staged { prev: append.prev, entries: append.entries });
                // What is decided is the leader's as well; of the rest nothing is accepted in its ballot.
                self.acknowledge(&header, self.commit, hint);
            }
            AcceptPlan::Write { truncate_from, skip, restamp, accepted, matched } => {
                if let Some(accepted) = accepted.filter(|accepted| *accepted != self.accepted) {
                    self.accept_in(accepted);
                }
                let rest = Some(matched.next()).filter(|from| *from > self.commit && *from <= self.log.last());
                if let Some(from) = truncate_from.or(rest.filter(|_| planted(Defect::TruncateMatching))) {
                    self.cut_log(from);
                }
                let mut entries = append.entries;
                entries.skip_front(skip);
                if let Some(stamp) = restamp.filter(|stamp| entries.iter().any(|entry| entry.stamp != *stamp)) {
                    entries.to_mut().iter_mut().for_each(|entry| entry.stamp = stamp);
                }
                self.write_entries(entries);
                let verified = if planted(Defect::CommitUnverified) { self.log.last() } else { matched };
                self.follow_commit(append.commit.min(verified));
                let matched = matched.min(self.log.last());
                self.acknowledge(&header, matched, Position::default());
            }
        }
    }

    /// Puts what is staged before the append, if it connects there; else says where it would.
    fn join_staged(&mut self, append: &mut Append) -> Result<(), Position> {
        let Some(staged) = self.staged.take_if(|staged| append.prev.index >= staged.prev.index) else {
            return Ok(());
        };
        let offset = usize::try_from(append.prev.index.0 - staged.prev.index.0).unwrap_or(usize::MAX);
        let Some(overlap) = staged.entries.len().checked_sub(offset) else {
            let end = Index(staged.prev.index.0 + staged.entries.len() as u64);
            let hint = Position { index: end, stamp: append.ballot };
            self.staged = Some(staged);
            return Err(hint);
        };
        // A leader's log only grows: where both have entries they are the same.
        let news = append.entries.iter().skip(overlap);
        append.entries = staged.entries.iter().chain(news).cloned().collect();
        append.prev = staged.prev;
        Ok(())
    }

    /// Takes over the leader's commit index as far as the logs were compared.
    fn follow_commit(&mut self, verified: Index) {
        let verified = verified.min(self.log.last());
        if verified > self.commit {
            self.commit = verified;
        }
    }

    /// Acknowledges up to `matched` when that is durable, if the leader wants to hear it. A heartbeat is answered at
    /// once, for what is durable already: it may carry a read confirmation, which rests on the promise alone, and the
    /// entries before it have acknowledgements of their own under way.
    fn acknowledge(&mut self, append: &Header, matched: Index, hint: Position) {
        let Header { from: to, ballot, confirm_seq, is_heartbeat, is_sync } = *append;
        if confirm_seq == UNANSWERED {
            return;
        }
        let (promised, priority) = (self.promised, self.config.leader_priority);
        let reply = |matched| Body::AppendReply { ok: true, matched, hint, promised, confirm_seq, priority };
        let promise_is_durable = self.durable.promised() == self.promised;
        if planted(Defect::EarlyAppendAck) || (planted(Defect::EarlySyncAck) && is_sync) {
            self.send(to, ballot, reply(matched));
        } else if promise_is_durable && (is_heartbeat || matched <= self.log.persisted()) {
            self.send(to, ballot, reply(matched.min(self.log.persisted())));
        } else {
            self.send_when_durable(to, ballot, reply(matched));
        }
    }

    fn reject_append(&mut self, append: &Append, hint: Position) {
        let (promised, confirm_seq, priority) = (self.promised, append.confirm_seq, self.config.leader_priority);
        let body = Body::AppendReply { ok: false, matched: Index(0), hint, promised, confirm_seq, priority };
        self.send_promise(append.from, append.ballot, body);
    }
}
