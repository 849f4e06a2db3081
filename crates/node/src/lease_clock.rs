//! When leases are over: the leader's clock. Which leases exist comes from the log; how long they have left is known
//! here and nowhere else, so every node keeps the table and only the leader looks at the time.
//!
//! Invariant: every lease is in exactly one of three places: `queue` (its time is not up), `due` (up, and the end not
//! proposed) and `expiring` (proposed). A place in the queue is a *lower bound* of the lease's deadline, looked at
//! again when it is reached: a renewal moves nothing, and neither does a new leadership, which gives every lease the
//! time written down for it, or all of it. So both cost the same however many leases there are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base::limits::LEASE_CHECKPOINT_INTERVAL;
use base::planted::{Defect, planted};
use base::{Instant, LeaseId};
use mvcc::{Lease, LeaseChange, LeaseInstance};

/// Places of the queue looked at in one tick, so that no tick takes long.
const LOOKED_AT_MAX: usize = 4096;
/// How often the queue is looked at: what runs out within this time ends together.
const TICK: Duration = Duration::from_millis(100);

/// A lease with what the clock knows about it.
#[derive(Debug, Clone, Copy)]
struct Timed {
    instance: u64,
    ttl_s: i64,
    /// Written down in the log; 0 if not.
    remaining_s: i64,
    /// Valid in the leadership `reign`, and in no other.
    deadline: Instant,
    /// Its place in `queue`, if it is there.
    queued: Instant,
    /// Its place in `checkpoints`, if it is there.
    checkpoint: Instant,
    reign: u32,
}

/// What a lease has left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaseTimes {
    /// Seconds it was granted for.
    pub ttl_s: i64,
    /// Whole seconds left; 0 if its time is up and its end on the way.
    pub remaining_s: i64,
}

/// What became of a renewal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Renewal {
    /// It has all its time again.
    Renewed(LeaseTimes),
    /// There is no such lease.
    NotFound,
    /// Something about it is in the log and not applied: ask again then.
    Wait,
}

/// The leases of one group.
#[derive(Debug, Default)]
pub(crate) struct LeaseClock {
    leases: BTreeMap<LeaseId, Timed>,
    queue: BTreeSet<(Instant, LeaseId)>,
    /// With the deadline that passed.
    due: BTreeSet<(Instant, LeaseId)>,
    expiring: BTreeSet<LeaseId>,
    /// Leases that live long enough for their time to be written down, with when to think of it.
    checkpoints: BTreeSet<(Instant, LeaseId)>,
    /// Proposed checkpoints that are not applied.
    checkpointing: BTreeSet<LeaseId>,
    /// Renewed leases whose checkpoint must be cleared before anyone is told.
    clears: BTreeSet<LeaseId>,
    /// Numbers this node's leaderships from 1.
    reign: u32,
    /// Since when this node leads, if it does.
    leads_since: Option<Instant>,
    ticked: Instant,
}

impl Timed {
    /// Seconds a new leader gives it.
    fn known_s(&self) -> i64 {
        if self.remaining_s > 0 { self.remaining_s } else { self.ttl_s }
    }
}

/// Takes the first of `places` that lies no later than `until`.
fn pop_until(places: &mut BTreeSet<(Instant, LeaseId)>, until: Instant) -> Option<LeaseId> {
    places.first().filter(|(at, _)| *at <= until)?;
    places.pop_first().map(|(_, id)| id)
}

fn seconds(count: i64) -> Duration {
    Duration::from_secs(count.max(0).unsigned_abs())
}

/// Whole seconds, rounded up: what is written down must not shorten a life.
fn seconds_up(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}

impl LeaseClock {
    /// The table as it stands in the state machine, in place of whatever was known.
    pub(crate) fn load(&mut self, now: Instant, leases: Vec<Lease>) {
        *self = Self { reign: self.reign, ticked: now, ..Self::default() };
        let timed = |lease: Lease| {
            let left = seconds(if lease.remaining_s > 0 { lease.remaining_s } else { lease.ttl_s });
            let Lease { instance, ttl_s, remaining_s, .. } = lease;
            let (queued, checkpoint) = (now + left, now + LEASE_CHECKPOINT_INTERVAL);
            (lease.id, Timed { instance, ttl_s, remaining_s, deadline: queued, queued, checkpoint, reign: 0 })
        };
        self.leases = leases.into_iter().map(timed).collect();
        self.queue = self.leases.iter().map(|(id, lease)| (lease.queued, *id)).collect();
        let long = self.leases.iter().filter(|(_, lease)| is_long(lease.ttl_s));
        self.checkpoints = long.map(|(id, lease)| (lease.checkpoint, *id)).collect();
    }

    /// Something about leases was applied.
    pub(crate) fn change(&mut self, now: Instant, change: LeaseChange) {
        match change {
            LeaseChange::Granted(Lease { id, instance, ttl_s, remaining_s }) => {
                let reign = if self.leads_since.is_some() { self.reign } else { 0 };
                let (queued, checkpoint) = (now + seconds(ttl_s), now + LEASE_CHECKPOINT_INTERVAL);
                let timed = Timed { instance, ttl_s, remaining_s, deadline: queued, queued, checkpoint, reign };
                if let Some(before) = self.leases.insert(id, timed) {
                    self.take_out(id, before);
                }
                self.queue.insert((queued, id));
                if is_long(ttl_s) {
                    self.checkpoints.insert((checkpoint, id));
                }
            }
            LeaseChange::Checkpointed { id, remaining_s } => {
                self.checkpointing.remove(&id);
                // The leader goes on as it was: this is its own note coming back.
                self.pin(id);
                let Some(lease) = self.leases.get_mut(&id) else { return };
                lease.remaining_s = remaining_s;
                let left = now + seconds(remaining_s);
                if remaining_s > 0 && left < lease.queued && self.queue.remove(&(lease.queued, id)) {
                    lease.queued = left;
                    self.queue.insert((left, id));
                }
            }
            LeaseChange::Gone(id) => self.forget(id),
        }
    }

    fn forget(&mut self, id: LeaseId) {
        if let Some(lease) = self.leases.remove(&id) {
            self.take_out(id, lease);
        }
    }

    /// Takes a lease that was as `lease` out of all places but the table.
    fn take_out(&mut self, id: LeaseId, lease: Timed) {
        let waited = self.queue.remove(&(lease.queued, id)) || self.expiring.remove(&id);
        if !waited {
            self.due.remove(&(lease.deadline, id));
        }
        self.checkpoints.remove(&(lease.checkpoint, id));
        self.checkpointing.remove(&id);
        self.clears.remove(&id);
    }

    /// This node leads from now on: every lease has the time that was written down for it, or all of it.
    pub(crate) fn promote(&mut self, now: Instant) {
        assert!(self.leads_since.is_none(), "promoted twice");
        self.reign += 1;
        self.leads_since = Some(now);
        self.ticked = now;
    }

    /// This node leads no more: nothing is due any more, and what was proposed is for the next leader to see.
    pub(crate) fn demote(&mut self, now: Instant) {
        self.leads_since = None;
        let due = std::mem::take(&mut self.due).into_iter().map(|(_, id)| id);
        for id in due.chain(std::mem::take(&mut self.expiring)) {
            self.leases.get_mut(&id).expect("due leases exist").queued = now;
            self.queue.insert((now, id));
        }
        self.checkpointing.clear();
        self.clears.clear();
    }

    /// When its time is up, as far as this node knows.
    pub(crate) fn deadline_of(&self, id: LeaseId) -> Option<Instant> {
        self.leases.get(&id).map(|lease| self.deadline(lease))
    }

    fn deadline(&self, lease: &Timed) -> Instant {
        match self.leads_since {
            Some(since) if lease.reign != self.reign && !planted(Defect::LeaseTimeKept) => {
                since + seconds(lease.known_s())
            }
            _ => lease.deadline,
        }
    }

    /// From now on the lease's deadline depends on nothing but renewals, as long as this node leads.
    fn pin(&mut self, id: LeaseId) {
        let Some(deadline) = self.leases.get(&id).map(|lease| self.deadline(lease)) else { return };
        if self.leads_since.is_some() {
            let lease = self.leases.get_mut(&id).expect("found above");
            (lease.deadline, lease.reign) = (deadline, self.reign);
        }
    }

    /// When [`Self::tick`] has something to do, if this node leads.
    pub(crate) fn next_tick(&self) -> Option<Instant> {
        self.leads_since?;
        let first = self.queue.first().into_iter().chain(self.checkpoints.first()).map(|(at, _)| *at).min()?;
        Some(first.max(self.ticked + TICK))
    }

    /// Finds the leases whose time is up, a bounded number at a time.
    pub(crate) fn tick(&mut self, now: Instant) {
        if self.next_tick().is_none_or(|due| now < due) {
            return;
        }
        self.ticked = now;
        for _ in 0..LOOKED_AT_MAX {
            let Some(id) = pop_until(&mut self.queue, now) else { return };
            self.pin(id);
            let deadline = self.leases[&id].deadline;
            if deadline <= now {
                self.due.insert((deadline, id));
            } else {
                self.leases.get_mut(&id).expect("queued leases exist").queued = deadline;
                self.queue.insert((deadline, id));
            }
        }
        // There is more: go on at the next turn.
        self.ticked = now - TICK;
    }

    /// Whether any lease's time is up and its end not proposed.
    pub(crate) fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Takes leases whose time was up at `confirmed`, when leadership was still to be confirmed; at most `max`.
    pub(crate) fn take_due(&mut self, confirmed: Instant, max: usize) -> Vec<LeaseInstance> {
        let mut taken = Vec::new();
        while taken.len() < max
            && let Some(id) = pop_until(&mut self.due, confirmed)
        {
            self.expiring.insert(id);
            taken.push(LeaseInstance { id, instance: self.leases[&id].instance });
        }
        taken
    }

    /// The end of these leases was proposed and the entry is applied: those that are still there are due again.
    pub(crate) fn settle(&mut self, proposed: &[LeaseInstance]) {
        for lease in proposed {
            let left_over = self.leases.get(&lease.id).is_some_and(|found| found.instance == lease.instance);
            if left_over && self.expiring.remove(&lease.id) {
                self.due.insert((self.leases[&lease.id].deadline, lease.id));
            }
        }
    }

    /// Gives a lease all its time again. Leadership has been confirmed since the client asked.
    pub(crate) fn renew(&mut self, now: Instant, id: LeaseId) -> Renewal {
        let Some(lease) = self.leases.get(&id) else { return Renewal::NotFound };
        if self.expiring.contains(&id) {
            return Renewal::Wait;
        }
        if self.due.remove(&(lease.deadline, id)) {
            self.queue.insert((now, id));
            self.leases.get_mut(&id).expect("found above").queued = now;
        }
        let reign = self.reign;
        let lease = self.leases.get_mut(&id).expect("found above");
        lease.deadline = now + seconds(lease.ttl_s);
        lease.reign = reign;
        // What was written down is shorter than what the client is about to be told.
        if lease.remaining_s > 0 || self.checkpointing.contains(&id) {
            self.clears.insert(id);
            return Renewal::Wait;
        }
        Renewal::Renewed(LeaseTimes { ttl_s: lease.ttl_s, remaining_s: lease.ttl_s })
    }

    /// What a lease has left.
    pub(crate) fn look(&self, now: Instant, id: LeaseId) -> Option<LeaseTimes> {
        let lease = self.leases.get(&id)?;
        let left = self.deadline(lease).since(now).as_secs();
        Some(LeaseTimes { ttl_s: lease.ttl_s, remaining_s: i64::try_from(left).unwrap_or(i64::MAX) })
    }

    /// Leases whose time left must be written down now, or cleared; at most `max`.
    pub(crate) fn take_checkpoints(&mut self, now: Instant, max: usize) -> Vec<(LeaseInstance, i64)> {
        let mut taken = Vec::new();
        if self.leads_since.is_none() {
            return taken;
        }
        while taken.len() < max
            && let Some(id) = self.clears.pop_first()
        {
            taken.push((LeaseInstance { id, instance: self.leases[&id].instance }, 0));
            self.checkpointing.insert(id);
        }
        for _ in 0..LOOKED_AT_MAX {
            if taken.len() >= max {
                break;
            }
            let Some(id) = pop_until(&mut self.checkpoints, now) else { break };
            let lease = self.leases[&id];
            let left = self.deadline(&lease).since(now);
            let aged = seconds(lease.known_s()).saturating_sub(left);
            let wait = if aged >= LEASE_CHECKPOINT_INTERVAL && left > Duration::ZERO {
                taken.push((LeaseInstance { id, instance: lease.instance }, seconds_up(left)));
                self.checkpointing.insert(id);
                LEASE_CHECKPOINT_INTERVAL
            } else {
                LEASE_CHECKPOINT_INTERVAL.saturating_sub(aged).max(TICK)
            };
            self.leases.get_mut(&id).expect("found above").checkpoint = now + wait;
            self.checkpoints.insert((now + wait, id));
        }
        taken
    }

    /// These checkpoints were not proposed after all.
    pub(crate) fn not_written(&mut self, leases: &[(LeaseInstance, i64)]) {
        for (lease, _) in leases {
            self.checkpointing.remove(&lease.id);
        }
    }

    /// Whether [`Self::take_checkpoints`] would take anything.
    pub(crate) fn wants_checkpoints(&self, now: Instant) -> bool {
        let due = self.checkpoints.first().is_some_and(|(at, _)| *at <= now);
        self.leads_since.is_some() && (due || !self.clears.is_empty())
    }

    /// Checks the invariant; panics with what is broken.
    pub(crate) fn check(&self) {
        let places = self.queue.len() + self.due.len() + self.expiring.len();
        assert_eq!(places, self.leases.len(), "leases and places of leases");
        assert!(self.leads_since.is_some() || self.due.is_empty(), "a follower has leases due");
    }
}

/// Whether a lease lives so long that its time left is written down at all.
fn is_long(ttl_s: i64) -> bool {
    seconds(ttl_s) > LEASE_CHECKPOINT_INTERVAL
}

#[cfg(test)]
#[path = "lease_clock_tests.rs"]
mod tests;
