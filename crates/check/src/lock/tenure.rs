//! How long a holder keeps a lock: until it is given back or its lease ends, and not a moment less.
//!
//! That it has gone shows when a write under its token is refused, when one behind it is granted the lock, and in the
//! events of a watch; it had gone when that answer was there, at the latest.
//!
//! Invariant: whatever may have ended it excuses: a release, a delete, an end of its lease that was asked for or
//! recorded, and a request of its lease for this lock that was not answered, because such a one leaves the queue.

use std::collections::BTreeMap;

use super::{Contender, grant, guard, show};
use crate::history::{
    Bytes, DeleteRange, Event, History, Lease, Lock, Op, Operation, Outcome, Request, Response, Revision, Txn,
};
use crate::lease;
use crate::span::Span;
use crate::verdict::{Impossible, Options};

/// Judges how long each grant lasted.
pub(super) fn check(history: &History, options: &Options) -> Result<(), Impossible> {
    let losses = Losses::of(history);
    if losses.next.is_empty() {
        return Ok(());
    }
    let (ends, until) = (Ends::of(history), lease::lives_until(history, options));
    for operation in &history.operations {
        let Request::Lock(Lock::Acquire { lease, .. }) = &operation.request else { continue };
        let (Some((name, contender, _)), Some((until, renewal))) = (grant(operation), until.get(lease)) else {
            continue;
        };
        let Some((gone, by)) = losses.first(name, contender).filter(|(gone, _)| gone < until) else { continue };
        if !ends.may_be(name, contender, *lease, gone) {
            let early_ms = (until - gone) / 1_000_000;
            let (name, key) = (show(name), contender.1);
            let reason = format!(
                "lock {name}: {key} lost it {early_ms} ms before the end of lease {lease}, and nobody gave it back"
            );
            return Err(Impossible::new(reason, [operation.id, by, *renewal]));
        }
    }
    Ok(())
}

/// When an answer was there, and which.
type Shown = (u64, u64);

/// Answers that show that a contender has gone.
#[derive(Default)]
struct Losses<'a> {
    /// By contender: refused writes under its token.
    refused: BTreeMap<Contender<'a>, Shown>,
    /// By key: deletes that watches delivered, with their revisions.
    deleted: BTreeMap<&'a Bytes, Vec<(Revision, Shown)>>,
    /// By lock and token: the first answer that grants the lock to somebody with that token or a greater one.
    next: BTreeMap<&'a [u8], BTreeMap<Revision, Shown>>,
}

impl<'a> Losses<'a> {
    fn of(history: &'a History) -> Self {
        let mut losses = Self::default();
        for operation in &history.operations {
            losses.take_in(operation);
        }
        for grants in losses.next.values_mut() {
            let mut first = (u64::MAX, 0);
            for shown in grants.values_mut().rev() {
                first = first.min(*shown);
                *shown = first;
            }
        }
        losses
    }

    fn take_in(&mut self, operation: &'a Operation) {
        let (Some(response), Some(returned)) = (operation.response(), operation.returned) else { return };
        let shown = (returned, operation.id);
        match (&operation.request, response) {
            (Request::Lock(Lock::Acquire { .. }), _) => {
                let Some((name, (token, _), _)) = grant(operation) else { return };
                let first = self.next.entry(&name[..]).or_default().entry(token).or_insert(shown);
                *first = shown.min(*first);
            }
            (Request::Txn(txn), Response::Txn { succeeded: false, .. }) => {
                // Of several conditions nobody knows which did not hold.
                if let [fence] = &txn.compares[..]
                    && let Some((key, token)) = guard(fence)
                {
                    let first = self.refused.entry((token, key)).or_insert(shown);
                    *first = shown.min(*first);
                }
            }
            (Request::Watch(_), Response::Watch { batches }) => {
                for (at, event) in batches.iter().flat_map(|batch| batch.events.iter().map(|event| (batch.at, event))) {
                    if let Event::Delete { key, mod_revision, .. } = event {
                        self.deleted.entry(key).or_default().push((*mod_revision, (at, operation.id)));
                    }
                }
            }
            _ => {}
        }
    }

    /// The first answer that shows that a contender has gone.
    fn first(&self, name: &[u8], contender: Contender<'_>) -> Option<Shown> {
        let (token, key) = contender;
        let next = self.next.get(name).and_then(|grants| grants.range(token + 1..).next());
        let deleted = self.deleted.get(key).into_iter().flatten().filter(|(revision, _)| *revision > token);
        let refused = self.refused.get(&contender).copied().into_iter();
        refused.chain(next.map(|(_, shown)| *shown)).chain(deleted.map(|(_, shown)| *shown)).min()
    }
}

/// When something was asked for that ends a contender, and the revision at which that was done, if it was answered.
type End = (u64, Option<Revision>);

/// All that may have ended contenders.
#[derive(Default)]
struct Ends<'a> {
    spans: Vec<(Span<'a>, End)>,
    keys: BTreeMap<&'a Bytes, Vec<End>>,
    leases: BTreeMap<i64, Vec<End>>,
    /// Requests for a lock that were not answered.
    given_up: BTreeMap<(&'a [u8], i64), Vec<End>>,
}

impl<'a> Ends<'a> {
    fn of(history: &'a History) -> Self {
        let mut ends = Self::default();
        for operation in &history.operations {
            let end = (operation.invoked, operation.revision());
            match (&operation.request, &operation.outcome) {
                (Request::Lock(Lock::Acquire { name, lease }), Outcome::Failed { .. } | Outcome::Unknown) => {
                    ends.given_up.entry((&name[..], *lease)).or_default().push(end);
                }
                (_, Outcome::Failed { .. }) => {}
                (Request::Lock(Lock::Release { key }), _) => ends.keys.entry(key).or_default().push(end),
                (Request::DeleteRange(delete), _) => ends.delete(delete, end),
                (Request::Txn(txn), _) => ends.txn(txn, end),
                (Request::Lease(Lease::Revoke { id }), _) => ends.leases.entry(*id).or_default().push(end),
                (Request::Lease(Lease::Expire { ids }), _) => {
                    ids.iter().for_each(|id| ends.leases.entry(*id).or_default().push(end));
                }
                _ => {}
            }
        }
        ends
    }

    fn delete(&mut self, delete: &'a DeleteRange, end: End) {
        match Span::new(&delete.key, &delete.range_end) {
            Span::Key(key) => self.keys.entry(key).or_default().push(end),
            span => self.spans.push((span, end)),
        }
    }

    fn txn(&mut self, txn: &'a Txn, end: End) {
        for op in txn.success.iter().chain(&txn.failure) {
            match op {
                Op::DeleteRange(delete) => self.delete(delete, end),
                Op::Txn(nested) => self.txn(nested, end),
                Op::Put(_) | Op::Range(_) => {}
            }
        }
    }

    /// Whether a contender may have been ended by that time.
    fn may_be(&self, name: &[u8], (token, key): Contender<'_>, lease: i64, by: u64) -> bool {
        let spans = self.spans.iter().filter(|(span, _)| span.contains(key)).map(|(_, end)| end);
        let keys = self.keys.get(key).into_iter().flatten();
        let leases = self.leases.get(&lease).into_iter().flatten();
        let given_up = self.given_up.get(&(name, lease)).into_iter().flatten();
        let mut ends = spans.chain(keys).chain(leases).chain(given_up);
        ends.any(|(asked, done)| *asked <= by && done.is_none_or(|done| done > token))
    }
}
