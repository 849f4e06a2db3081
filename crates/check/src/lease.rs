//! Property 10: leases end neither early nor in parts, and what ended stays ended.
//!
//! From the last renewal that succeeded a lease lives as long as it was granted for, less what clocks may run too fast
//! ([`Options::clock_error_percent`]), unless somebody revokes it. Who was told that it is gone is never told later
//! that it lives; nothing is attached to it any more, and its keys are not seen again. O(n log n), and for each lease
//! the product of its ends and renewals.
//!
//! Invariant: a renewal is taken to have happened as early, and an end as late, as the answers allow.

use std::collections::BTreeMap;

use crate::history::{History, KeyValue, Lease, Lock, Op, Operation, Outcome, Request, Response, Revision};
use crate::verdict::{Impossible, Options, Verdict};

/// Judges `history`.
#[must_use]
pub fn check(history: &History, options: &Options) -> Verdict {
    let lives = lives(history);
    let seen = seen(history);
    let result = lives.iter().try_for_each(|(id, life)| {
        life.is_granted_once(*id, options)?;
        life.lasts(*id, options)?;
        life.stays_over(*id)?;
        life.takes_its_keys(*id, seen.get(id).map_or(&[][..], |seen| seen))
    });
    match result {
        Ok(()) => Verdict::Possible { judged: lives.values().map(Life::operations).sum() },
        Err(impossible) => impossible.into(),
    }
}

/// Until when a lease lives unless somebody ends it, and the renewal that says so. Of a number that may have been
/// granted more than once nothing is said.
pub(crate) fn lives_until(history: &History, options: &Options) -> BTreeMap<i64, (u64, u64)> {
    let mut until = BTreeMap::new();
    for (id, life) in lives(history) {
        let renewals = life.renewals.iter().map(|renewal| (Life::until(*renewal, options), renewal.0.id));
        if life.grants.len() + life.open_grants.len() == 1 {
            until.extend(renewals.max().map(|last| (id, last)));
        }
    }
    until
}

/// What was asked and told about one lease.
#[derive(Default)]
struct Life<'a> {
    /// Granted or renewed, with the seconds it has from then on.
    renewals: Vec<(&'a Operation, i64)>,
    grants: Vec<&'a Operation>,
    /// Grants that may have happened.
    open_grants: Vec<&'a Operation>,
    /// Ended by the store.
    expiries: Vec<&'a Operation>,
    /// Ended by somebody, or perhaps.
    revocations: Vec<&'a Operation>,
    /// Answers that there is no such lease.
    denials: Vec<&'a Operation>,
    /// Acknowledged writes that attached a key, and locks granted.
    attachments: Vec<&'a Operation>,
}

fn lives(history: &History) -> BTreeMap<i64, Life<'_>> {
    let mut lives: BTreeMap<i64, Life<'_>> = BTreeMap::new();
    for operation in &history.operations {
        if matches!(operation.outcome, Outcome::Failed { .. }) {
            continue;
        }
        let told = match operation.response() {
            Some(Response::Lease { id, ttl }) => Some((*id, *ttl)),
            _ => None,
        };
        match (&operation.request, told) {
            (Request::Lease(Lease::Grant { .. }), Some((id, ttl))) => {
                let life = lives.entry(id).or_default();
                life.grants.push(operation);
                life.renewals.push((operation, ttl));
            }
            (Request::Lease(Lease::Grant { id, .. }), None) => {
                lives.entry(*id).or_default().open_grants.push(operation)
            }
            (Request::Lease(Lease::KeepAlive { id }), Some((_, ttl))) if ttl > 0 => {
                lives.entry(*id).or_default().renewals.push((operation, ttl));
            }
            (Request::Lease(Lease::KeepAlive { id }), Some(_)) => lives.entry(*id).or_default().denials.push(operation),
            (Request::Lease(Lease::TimeToLive { id }), Some((_, ttl))) if ttl < 0 => {
                lives.entry(*id).or_default().denials.push(operation);
            }
            (Request::Lease(Lease::Revoke { id }), _) => lives.entry(*id).or_default().revocations.push(operation),
            (Request::Lease(Lease::Expire { ids }), _) => {
                ids.iter().for_each(|id| lives.entry(*id).or_default().expiries.push(operation));
            }
            (Request::Put(put), _) if put.lease != 0 && operation.response().is_some() => {
                lives.entry(put.lease).or_default().attachments.push(operation);
            }
            // A lock is held by a key on the lease.
            (Request::Lock(Lock::Acquire { lease, .. }), _) if operation.response().is_some() => {
                lives.entry(*lease).or_default().attachments.push(operation);
            }
            (Request::Txn(_), _) => {
                attached(operation).into_iter().for_each(|id| lives.entry(id).or_default().attachments.push(operation));
            }
            _ => {}
        }
    }
    lives
}

/// The leases to which an acknowledged transaction attached keys.
fn attached(operation: &Operation) -> Vec<i64> {
    let (Request::Txn(txn), Some(Response::Txn { succeeded, .. })) = (&operation.request, operation.response()) else {
        return Vec::new();
    };
    let ops = if *succeeded { &txn.success } else { &txn.failure };
    let leases = ops.iter().filter_map(|op| match op {
        Op::Put(put) => Some(put.lease).filter(|lease| *lease != 0),
        Op::Range(_) | Op::DeleteRange(_) | Op::Txn(_) => None,
    });
    leases.collect()
}

/// A pair that an answer shows, and the revision of the state it shows.
type Seen<'a> = (&'a Operation, &'a KeyValue, Revision);

/// Pairs on leases that reads show, by lease.
fn seen(history: &History) -> BTreeMap<i64, Vec<Seen<'_>>> {
    let mut seen: BTreeMap<i64, Vec<Seen<'_>>> = BTreeMap::new();
    for operation in &history.operations {
        let (Request::Range(range), Some(Response::Range { kvs, .. })) = (&operation.request, operation.response())
        else {
            continue;
        };
        let Some(now) = operation.revision() else { continue };
        let at = if range.revision > 0 { range.revision } else { now };
        for pair in kvs.iter().filter(|pair| pair.lease != 0) {
            seen.entry(pair.lease).or_default().push((operation, pair, at));
        }
    }
    seen
}

/// When an answer was there; the end of time if there was none.
fn returned(operation: &Operation) -> u64 {
    operation.returned.unwrap_or(u64::MAX)
}

impl Life<'_> {
    fn operations(&self) -> usize {
        self.renewals.len() + self.expiries.len() + self.revocations.len() + self.denials.len() + self.attachments.len()
    }

    /// The earliest moment at which a renewal may run out.
    fn until((renewal, ttl): (&Operation, i64), options: &Options) -> u64 {
        let sure = 100_u64.saturating_sub(options.clock_error_percent) * 10_000_000;
        renewal.invoked.saturating_add(ttl.max(0).unsigned_abs().saturating_mul(sure))
    }

    /// Whether it may have been granted anew at some time from `from` to `until`.
    fn may_begin(&self, from: u64, until: u64) -> bool {
        let mut grants = self.grants.iter().chain(&self.open_grants);
        grants.any(|grant| returned(grant) >= from && grant.invoked <= until)
    }

    fn may_be_revoked(&self, before: u64) -> bool {
        self.revocations.iter().any(|revocation| revocation.invoked <= before)
    }

    /// No other grant of the same number succeeds while it must live.
    fn is_granted_once(&self, id: i64, options: &Options) -> Result<(), Impossible> {
        for first in &self.renewals {
            for second in self.grants.iter().filter(|second| second.invoked > returned(first.0)) {
                if returned(second) < Self::until(*first, options) && !self.may_be_revoked(returned(second)) {
                    let reason = format!("lease {id} was granted again while it lives");
                    return Err(Impossible::new(reason, [second.id, first.0.id]));
                }
            }
        }
        Ok(())
    }

    /// It does not end before its time.
    fn lasts(&self, id: i64, options: &Options) -> Result<(), Impossible> {
        for end in self.expiries.iter().chain(&self.denials) {
            let is_expiry = matches!(end.request, Request::Lease(Lease::Expire { .. }));
            if !is_expiry && self.may_be_revoked(returned(end)) {
                continue;
            }
            let before = self.renewals.iter().filter(|(renewal, _)| match is_expiry {
                // A renewal that succeeded came before the end, whenever its answer arrived.
                true => renewal.invoked < end.invoked,
                false => returned(renewal) < end.invoked,
            });
            for renewal in before {
                if returned(end) < Self::until(*renewal, options) {
                    let early_ms = (Self::until(*renewal, options) - returned(end)) / 1_000_000;
                    let reason = format!("lease {id} ended {early_ms} ms before its time");
                    return Err(Impossible::new(reason, [end.id, renewal.0.id]));
                }
            }
        }
        Ok(())
    }

    /// Nobody renews it, or attaches to it, once it is over.
    fn stays_over(&self, id: i64) -> Result<(), Impossible> {
        let acknowledged = self.revocations.iter().filter(|operation| operation.response().is_some());
        for end in self.expiries.iter().chain(&self.denials).chain(acknowledged) {
            let over = returned(end);
            let renewed = self.renewals.iter().map(|(renewal, _)| renewal).filter(|renewal| renewal.invoked > over);
            for later in renewed.chain(self.attachments.iter().filter(|attachment| attachment.invoked > over)) {
                // Before the end there is a grant, too, if the answers are to be believed.
                if !self.may_begin(end.invoked, returned(later)) {
                    return Err(Impossible::new(format!("lease {id} lives after its end"), [later.id, end.id]));
                }
            }
        }
        Ok(())
    }

    /// No key stays when it goes.
    fn takes_its_keys(&self, id: i64, seen: &[Seen<'_>]) -> Result<(), Impossible> {
        let acknowledged = self.revocations.iter().filter(|operation| operation.response().is_some());
        for end in self.expiries.iter().chain(acknowledged) {
            let Some(ended) = end.revision() else { continue };
            let survivor = seen.iter().find(|(_, pair, at)| pair.mod_revision <= ended && *at >= ended);
            if let Some((reader, pair, _)) = survivor {
                let reason = format!("{} is there after its lease {id} ended at revision {ended}", pair.key);
                return Err(Impossible::new(reason, [reader.id, end.id]));
            }
        }
        Ok(())
    }
}
