//! A group on this node: the replica, the cursor of its state machine, and the requests that wait for either.

use std::collections::{BTreeMap, VecDeque};

use base::{Ballot, GroupId, Index, Instant, NodeId, limits};
use bytes::Bytes;
use kernel::{Committed, Replica};

use crate::effect::{Effect, ReplyTo, Response, Task, Uncertainty};
use crate::event::Ticket;
use crate::leases::Leases;
use crate::pace::Pace;
use crate::proposals::Proposals;
use crate::reads::Reads;
use crate::retention::Retention;
use crate::snapshot::{Incoming, Outgoing};
use crate::wire::{ForwardAnswer, PeerMessage};

/// A write of a local client for which no leader was found yet: surely not done so far.
#[derive(Debug)]
pub(crate) struct Parked {
    pub(crate) ticket: Ticket,
    pub(crate) payload: Bytes,
    pub(crate) deadline: Instant,
}

/// A write that waits for its round. Surely not done so far.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) reply: ReplyTo,
    pub(crate) payload: Bytes,
    pub(crate) deadline: Instant,
}

/// Payload bytes waiting above which a round is worth starting beside the one before it.
const QUEUE_BYTES: usize = 64 * 1024;

/// A client waits for leadership to move away from this node.
#[derive(Debug)]
pub(crate) struct Transfer {
    pub(crate) ticket: Ticket,
    pub(crate) deadline: Instant,
}

#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) id: GroupId,
    pub(crate) replica: Replica,
    pub(crate) proposals: Proposals,
    /// Writes on their way into the log of this leader.
    queue: Vec<Queued>,
    queue_bytes: usize,
    pub(crate) write_pace: Pace,
    pub(crate) read_pace: Pace,
    /// The last index proposed here.
    proposed: Index,
    pub(crate) reads: Reads,
    parked: VecDeque<Parked>,
    parked_bytes: usize,
    pub(crate) transfers: Vec<Transfer>,
    pub(crate) leases: Leases,
    pub(crate) retention: Retention,
    pub(crate) outgoing: BTreeMap<crate::event::SnapshotId, Outgoing>,
    pub(crate) incoming: Option<Incoming>,
    /// Last index whose effects are in the state machine.
    pub(crate) applied: Index,
    /// Last index handed to the host for apply; `applied <= handed`.
    pub(crate) handed: Index,
    /// Hand-outs not yet applied: their last index and payload bytes.
    backlog: VecDeque<(Index, usize)>,
    backlog_bytes: usize,
}

/// With more than this handed out and not applied, word of what is applied must not be late: it makes room.
const HEEDED_BACKLOG_BYTES: usize = 256 * 1024;

impl Group {
    pub(crate) fn new(id: GroupId, replica: Replica, applied: Index, log_retained_bytes: u64) -> Self {
        Self {
            id,
            replica,
            proposals: Proposals::default(),
            queue: Vec::new(),
            queue_bytes: 0,
            write_pace: Pace::of_writes(),
            read_pace: Pace::of_reads(),
            proposed: Index(0),
            reads: Reads::default(),
            parked: VecDeque::new(),
            parked_bytes: 0,
            transfers: Vec::new(),
            leases: Leases::default(),
            retention: Retention::new(log_retained_bytes),
            outgoing: BTreeMap::new(),
            incoming: None,
            applied,
            handed: applied,
            backlog: VecDeque::new(),
            backlog_bytes: 0,
        }
    }

    /// Takes a write in for the next round.
    pub(crate) fn enqueue(&mut self, now: Instant, queued: Queued) {
        self.write_pace.wait(now);
        self.queue_bytes += queued.payload.len();
        self.queue.push(queued);
    }

    /// The writes to propose now: none, or all that wait.
    pub(crate) fn take_due_writes(&mut self, now: Instant) -> Vec<Queued> {
        if self.proposed <= self.replica.commit_index() {
            self.write_pace.finish(now);
        }
        if self.write_deadline().is_none_or(|due| now < due) && self.queue_bytes < QUEUE_BYTES {
            return Vec::new();
        }
        self.write_pace.start(now, self.queue.len());
        self.queue_bytes = 0;
        std::mem::take(&mut self.queue)
    }

    /// When [`Group::take_due_writes`] is due at the latest.
    pub(crate) fn write_deadline(&self) -> Option<Instant> {
        self.write_pace.due()
    }

    /// When the next confirmation for reads is due at the latest.
    pub(crate) fn read_deadline(&self) -> Option<Instant> {
        self.read_pace.due()
    }

    /// A write is in the log of this leader.
    pub(crate) fn proposed(&mut self, index: Index) {
        self.proposed = index;
    }

    /// Payload bytes of writes for which no leader was found yet.
    pub(crate) fn parked_bytes(&self) -> usize {
        self.parked_bytes
    }

    /// Keeps a write until a leader is found.
    pub(crate) fn park(&mut self, parked: Parked) {
        self.parked_bytes += parked.payload.len();
        self.parked.push_back(parked);
    }

    /// All parked writes, to be routed again.
    pub(crate) fn unpark(&mut self) -> VecDeque<Parked> {
        self.parked_bytes = 0;
        std::mem::take(&mut self.parked)
    }

    /// The next parked write whose time is up.
    pub(crate) fn expired_parked(&mut self, now: Instant) -> Option<Parked> {
        let parked = self.parked.pop_front_if(|parked| parked.deadline <= now)?;
        self.parked_bytes -= parked.payload.len();
        Some(parked)
    }

    /// Whether anything here has a deadline of its own.
    pub(crate) fn has_waiters(&self) -> bool {
        !(self.parked.is_empty()
            && self.reads.is_empty()
            && self.transfers.is_empty()
            && !self.leases.has_waiters()
            && self.outgoing.is_empty()
            && self.incoming.is_none())
    }

    /// Whether so much is decided and not yet applied that more would only pile up in memory.
    pub(crate) fn is_behind(&self, entries_max: u64) -> bool {
        self.handed.0 - self.applied.0 > entries_max || self.backlog_bytes > limits::APPLY_BACKLOG_BYTES_MAX
    }

    /// Whether something goes on as soon as more is applied: somebody waits for it, or room is short.
    pub(crate) fn heeds_applied(&self) -> bool {
        let changes = || self.replica.role() == kernel::Role::LeaderElect || self.replica.membership().is_joint();
        self.applied < self.handed
            && (self.backlog_bytes > HEEDED_BACKLOG_BYTES
                || !self.reads.is_empty()
                || self.leases.waits_for_apply()
                || !self.transfers.is_empty()
                || changes())
    }

    /// The state machine moved on.
    pub(crate) fn moved_to(&mut self, index: Index) {
        assert!(index <= self.handed, "applied {index} past handed {}", self.handed);
        self.applied = self.applied.max(index);
        while let Some((_, bytes)) = self.backlog.pop_front_if(|(last, _)| *last <= index) {
            self.backlog_bytes -= bytes;
        }
    }

    /// Turns decided entries into one `Apply`, and settles the proposals that waited for their slots.
    pub(crate) fn apply(&mut self, committed: &mut Vec<Committed>, mark: kernel::Mark, effects: &mut Vec<Effect>) {
        let mut tasks = Vec::with_capacity(committed.iter().map(|committed| committed.entries.len()).sum());
        let mut bytes = 0;
        let entries =
            committed.iter().flat_map(|Committed { entries, effective }| entries.iter().map(|e| (e, *effective)));
        for (entry, effective) in entries {
            bytes += entry.payload.len();
            assert_eq!(entry.index, self.handed.next(), "entries are handed out in order");
            self.handed = entry.index;
            self.retention.applied(entry.index, entry.payload.len());
            let settled = self.proposals.settle(entry.index, entry.origin);
            for loser in settled.losers {
                effects.push(Effect::Reply(loser, Response::Superseded));
            }
            match (entry.kind, effective) {
                (kernel::EntryKind::Command, true) => {
                    tasks.push(Task { payload: entry.payload.clone(), reply: settled.winner });
                }
                // A fenced command is a no-op on every replica: surely not done.
                (kernel::EntryKind::Command, false) => {
                    effects.extend(settled.winner.map(|winner| Effect::Reply(winner, Response::Superseded)));
                }
                (kernel::EntryKind::EpochStart | kernel::EntryKind::Config, _) => {
                    // A peer told us a place that is no command's.
                    let unknown = Response::Unknown(Uncertainty::LeaderFailed);
                    effects.extend(settled.winner.map(|winner| Effect::Reply(winner, unknown)));
                }
            }
        }
        committed.clear();
        assert_eq!(mark.position.index, self.handed, "the mark names the last entry");
        self.backlog.push_back((self.handed, bytes));
        self.backlog_bytes += bytes;
        effects.push(Effect::Apply { group: self.id, tasks, mark });
    }

    /// A snapshot became the state. What became of proposals below its end is not known here.
    pub(crate) fn installed(&mut self, index: Index, effects: &mut Vec<Effect>) {
        assert!(index > self.handed, "a snapshot at {index} over a state at {}", self.handed);
        self.applied = index;
        self.handed = index;
        for ticket in self.proposals.drain_through(index) {
            effects.push(Effect::Reply(ticket, Response::Unknown(Uncertainty::LeaderFailed)));
        }
    }

    /// Whether proposals belong here: the replica leads, or is about to.
    pub(crate) fn leads(&self) -> bool {
        matches!(self.replica.role(), kernel::Role::Leader | kernel::Role::LeaderElect)
    }

    /// The ballot this replica leads in, once its marker is applied.
    pub(crate) fn leading(&self) -> Option<Ballot> {
        (self.replica.role() == kernel::Role::Leader).then(|| self.replica.ballot())
    }

    /// The node that leads, if it is another one than `me`.
    pub(crate) fn remote_leader(&self, me: NodeId) -> Option<NodeId> {
        self.replica.leader().filter(|leader| *leader != me)
    }
}

/// The answer "surely not done" with the kernel's reason.
pub(crate) fn refused(reply: ReplyTo, why: kernel::Refusal) -> Effect {
    match reply {
        ReplyTo::Local(ticket) => Effect::Reply(ticket, Response::Refused(why)),
        ReplyTo::Remote(node, id) => {
            Effect::Send(node, PeerMessage::ForwardReply { id, answer: ForwardAnswer::Refused(why) })
        }
    }
}
