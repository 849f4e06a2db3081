//! What a leader does about leases: answers renewals and questions, proposes the end of what ran out.
//!
//! Invariant: a renewal, an answer and the end of a lease all rest on a confirmation of leadership that was asked for
//! *afterwards*, in the leadership whose clock is used, and on everything decided before it being applied here. One
//! confirmation serves all that waits when it is asked for, and one is under way at a time. A leader that was stopped
//! or cut off gets none, so it ends nothing and renews nothing.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use base::limits::{LEASE_ASKS_MAX, LEASE_BATCH_MAX, LEASE_BATCHES_MAX};
use base::planted::{Defect, planted};
use base::{Ballot, GroupId, Index, Instant, LeaseId, NodeId};
use bytes::Bytes;
use kernel::ReadId;
use mvcc::{Command, LeaseCheckpoint, LeaseExpire, LeaseInstance};

use crate::effect::ReplyTo;
use crate::event::LeaseAsk;
use crate::lease_clock::{LeaseClock, LeaseTimes, Renewal};

/// A renewal or a question under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub(crate) reply: ReplyTo,
    pub(crate) lease: LeaseId,
    pub(crate) ask: LeaseAsk,
    pub(crate) deadline: Instant,
}

/// A confirmation of leadership under way.
#[derive(Debug)]
struct Round {
    read: ReadId,
    asked: Instant,
    asks: Vec<Ask>,
    /// Confirmed, once this is applied.
    at: Option<Index>,
}

/// An answer for whoever asked.
pub(crate) type Answer = (ReplyTo, Option<LeaseTimes>);

/// One group's leases on this node.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    clock: LeaseClock,
    /// The leadership of this node that the clock runs for.
    ballot: Option<Ballot>,
    arrived: Vec<Ask>,
    /// Asks for which nobody was found that leads; tried again with the others that wait.
    parked: Vec<Ask>,
    round: Option<Round>,
    /// Asks about leases with something in the log; looked at again when more is applied.
    held: Vec<Ask>,
    /// Entries that end leases, proposed here and not applied.
    ending: VecDeque<(Index, Vec<LeaseInstance>)>,
    /// The last entry that writes down times, if it is not applied.
    writing: Option<Index>,
    /// After a proposal that was refused: when to try again.
    retry_at: Instant,
}

/// How long to leave alone what the log did not take.
const RETRY: Duration = Duration::from_millis(50);

impl Leases {
    /// The table as it stands in the state machine.
    pub(crate) fn load(&mut self, now: Instant, leases: Vec<mvcc::Lease>) {
        self.lead(now, None);
        self.clock.load(now, leases);
    }

    /// What apply did to the table, before the word that it is applied.
    pub(crate) fn change(&mut self, now: Instant, changes: Vec<mvcc::LeaseChange>) {
        for change in changes {
            self.clock.change(now, change);
        }
    }

    /// The state machine moved on.
    pub(crate) fn applied(&mut self, index: Index) {
        while let Some((_, leases)) = self.ending.pop_front_if(|(at, _)| *at <= index) {
            self.clock.settle(&leases);
        }
        self.writing = self.writing.filter(|at| *at > index);
        self.arrived.append(&mut self.held);
    }

    /// This node leads in `ballot` with its marker applied, or it does not lead.
    pub(crate) fn lead(&mut self, now: Instant, ballot: Option<Ballot>) {
        if self.ballot == ballot {
            return;
        }
        if self.ballot.take().is_some() {
            self.clock.demote(now);
            self.ending.clear();
            self.writing = None;
            self.arrived.append(&mut self.held);
            self.arrived.extend(self.round.take().into_iter().flat_map(|round| round.asks));
        }
        if ballot.is_some() {
            self.clock.promote(now);
            self.ballot = ballot;
        }
    }

    /// Takes an ask in; false if there are too many.
    pub(crate) fn arrive(&mut self, ask: Ask) -> bool {
        let room = self.arrived.len() + self.held.len() + self.parked.len() < LEASE_ASKS_MAX;
        if room {
            self.arrived.push(ask);
        }
        room
    }

    /// Keeps an ask until the next look at those who wait.
    pub(crate) fn park(&mut self, ask: Ask) {
        self.parked.push(ask);
    }

    /// Those who wait are looked at.
    pub(crate) fn unpark(&mut self) {
        self.arrived.append(&mut self.parked);
    }

    /// Whether this node's clock runs.
    pub(crate) fn leads(&self) -> bool {
        self.ballot.is_some()
    }

    /// What waits for somebody who leads.
    pub(crate) fn take_arrived(&mut self) -> Vec<Ask> {
        std::mem::take(&mut self.arrived)
    }

    pub(crate) fn has_arrived(&self) -> bool {
        !self.arrived.is_empty()
    }

    /// Whether anybody waits for an answer.
    pub(crate) fn has_waiters(&self) -> bool {
        let kept = self.has_arrived() || !self.held.is_empty() || !self.parked.is_empty();
        kept || self.round.as_ref().is_some_and(|round| !round.asks.is_empty())
    }

    /// Whether something here goes on when more is applied.
    pub(crate) fn waits_for_apply(&self) -> bool {
        self.round.is_some() || !self.held.is_empty() || !self.ending.is_empty() || self.writing.is_some()
    }

    /// When the clock wants to be looked at.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let retry = (self.ballot.is_some() && self.clock.has_due()).then_some(self.retry_at);
        self.clock.next_tick().into_iter().chain(retry).min()
    }

    /// Finds what ran out.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.clock.tick(now);
    }

    /// Whether a confirmation of leadership is to be asked for.
    pub(crate) fn wants_round(&self, now: Instant) -> bool {
        let may_end = self.clock.has_due() && self.ending.len() < LEASE_BATCHES_MAX && now >= self.retry_at;
        self.ballot.is_some() && self.round.is_none() && (self.has_arrived() || may_end)
    }

    /// A confirmation was asked for, now.
    pub(crate) fn asked(&mut self, now: Instant, read: ReadId) {
        assert!(self.round.is_none(), "two confirmations under way");
        self.round = Some(Round { read, asked: now, asks: self.take_arrived(), at: None });
    }

    /// The kernel's word about a confirmation; false if it is not ours.
    pub(crate) fn confirmed(&mut self, read: ReadId, at: Option<Index>) -> bool {
        if self.round.as_ref().is_none_or(|round| round.read != read) {
            return false;
        }
        match (at, &mut self.round) {
            (Some(at), Some(round)) => round.at = Some(at),
            _ => self.arrived.extend(self.round.take().into_iter().flat_map(|round| round.asks)),
        }
        true
    }

    /// Ends the round if it is confirmed and applied: the answers, and the commands to propose now.
    pub(crate) fn finish_round(&mut self, now: Instant, applied: Index) -> (Vec<Answer>, Vec<Vec<LeaseInstance>>) {
        let done = self.round.take_if(|round| round.at.is_some_and(|at| at <= applied));
        let Some(round) = done.filter(|_| self.ballot.is_some()) else { return Default::default() };
        let mut answers = Vec::with_capacity(round.asks.len());
        for ask in round.asks {
            match ask.ask {
                LeaseAsk::TimeToLive => answers.push((ask.reply, self.clock.look(now, ask.lease))),
                LeaseAsk::KeepAlive => match self.clock.renew(now, ask.lease) {
                    Renewal::Renewed(times) => answers.push((ask.reply, Some(times))),
                    Renewal::NotFound => answers.push((ask.reply, None)),
                    Renewal::Wait => self.held.push(ask),
                },
            }
        }
        let until = if planted(Defect::OldConfirmation) { now } else { round.asked };
        // After the renewals: what they saved is not due any more.
        let batches = (self.ending.len()..LEASE_BATCHES_MAX)
            .map(|_| self.clock.take_due(until, LEASE_BATCH_MAX))
            .take_while(|batch| !batch.is_empty())
            .collect();
        (answers, batches)
    }

    /// The end of these leases is in the log, or could not be proposed.
    pub(crate) fn ending(&mut self, now: Instant, leases: Vec<LeaseInstance>, index: Option<Index>) {
        match index {
            Some(index) => self.ending.push_back((index, leases)),
            None => {
                self.clock.settle(&leases);
                self.retry_at = now + RETRY;
            }
        }
    }

    /// Times to be written down now.
    pub(crate) fn take_checkpoints(&mut self, now: Instant) -> Vec<(LeaseInstance, i64)> {
        if self.writing.is_some() || now < self.retry_at || !self.clock.wants_checkpoints(now) {
            return Vec::new();
        }
        self.clock.take_checkpoints(now, LEASE_BATCH_MAX)
    }

    /// The times are in the log, or could not be proposed; then they are thought of again in a while, and who waits
    /// for them asks again.
    pub(crate) fn writing(&mut self, now: Instant, leases: &[(LeaseInstance, i64)], index: Option<Index>) {
        self.writing = index;
        if index.is_none() {
            self.clock.not_written(leases);
            self.retry_at = now + RETRY;
            self.arrived.append(&mut self.held);
        }
    }

    /// Removes and returns the asks whose time is up, wherever they are.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Ask> {
        let mut expired = Vec::new();
        let asks = self.round.as_mut().map(|round| &mut round.asks);
        for asks in [&mut self.arrived, &mut self.held, &mut self.parked].into_iter().chain(asks) {
            expired.extend(asks.extract_if(.., |ask| ask.deadline <= now));
        }
        expired
    }

    /// When a lease's time is up by this node's clock.
    pub(crate) fn deadline(&self, lease: LeaseId) -> Option<Instant> {
        self.clock.deadline_of(lease)
    }

    /// What is overdue by this node's clock, whoever leads: for the planted defects of leaders that do not ask.
    pub(crate) fn overdue_unconfirmed(&mut self, now: Instant) -> Vec<LeaseInstance> {
        self.clock.take_due(now, LEASE_BATCH_MAX)
    }

    /// Checks the invariants; panics with what is broken.
    pub(crate) fn check(&self) {
        self.clock.check();
    }
}

/// The command that writes down these times.
pub(crate) fn checkpoint(leases: &[(LeaseInstance, i64)]) -> Bytes {
    Command::LeaseCheckpoint(LeaseCheckpoint { leases: leases.to_vec() }).encode()
}

/// The command that ends these leases.
pub(crate) fn expiry(leases: &[LeaseInstance]) -> Bytes {
    Command::LeaseExpire(LeaseExpire { leases: leases.to_vec() }).encode()
}

/// An ask that was handed to another node, the leader.
#[derive(Debug)]
pub(crate) struct ForwardedAsk {
    pub(crate) group: GroupId,
    pub(crate) node: NodeId,
    pub(crate) ask: Ask,
}

/// All asks handed to other nodes, by forward id. Repeating one does no harm, so when a connection breaks they start
/// over.
#[derive(Debug)]
pub(crate) struct LeaseForwards {
    next_id: u64,
    open: BTreeMap<u64, ForwardedAsk>,
}

impl LeaseForwards {
    /// `seed` is random, so that an answer meant for an earlier life of this node names no ask of this one.
    pub(crate) fn new(seed: u64) -> Self {
        Self { next_id: seed >> 1, open: BTreeMap::new() }
    }

    pub(crate) fn add(&mut self, forwarded: ForwardedAsk) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.open.insert(id, forwarded);
        id
    }

    /// The ask an answer from `node` belongs to; nothing if it is not (or no more) waited for.
    pub(crate) fn take(&mut self, id: u64, node: NodeId) -> Option<ForwardedAsk> {
        if self.open.get(&id)?.node != node {
            return None;
        }
        self.open.remove(&id)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Asks that were with `node` when its connection broke.
    pub(crate) fn lost(&mut self, node: NodeId) -> Vec<ForwardedAsk> {
        self.open.extract_if(.., |_, forwarded| forwarded.node == node).map(|(_, forwarded)| forwarded).collect()
    }

    /// Asks of a group that are with another node than its leader.
    pub(crate) fn astray(&mut self, group: GroupId, leader: Option<NodeId>) -> Vec<ForwardedAsk> {
        let astray = |asked: &ForwardedAsk| asked.group == group && Some(asked.node) != leader;
        self.open.extract_if(.., |_, asked| astray(asked)).map(|(_, asked)| asked).collect()
    }

    /// Asks that waited too long for an answer.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<ForwardedAsk> {
        self.open.extract_if(.., |_, forwarded| forwarded.ask.deadline <= now).map(|(_, gone)| gone).collect()
    }
}
