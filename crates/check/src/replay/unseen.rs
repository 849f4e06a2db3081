//! What can be followed when keys come and go unseen: everything but these keys.
//!
//! Invariant: what is left out has written no key that is kept, so every answer that is kept must come out as it was
//! given all the same. Of a write under a fence the condition is left out and the write kept: whether it held is what
//! the answer says, and what became of the key it names is the business of the property of locks.

use std::borrow::Cow;

use crate::fleeting::Fleeting;
use crate::history::{Compare, History, Operation, Outcome, Request, Response, Txn};
use crate::span::Span;

/// The operations that have nothing to do with keys that may go unseen, but as a condition.
///
/// # Errors
/// The id of a write that touches such keys and others, which cannot be told apart.
pub(super) fn followed(history: &History) -> Result<Cow<'_, History>, u64> {
    let fleeting = Fleeting::of(history);
    let is_end = |one: &Operation| matches!(&one.request, Request::Lease(lease) if !lease.ended().is_empty());
    if fleeting.is_empty() && !history.operations.iter().any(is_end) {
        return Ok(Cow::Borrowed(history));
    }
    let mut operations = Vec::new();
    for operation in history.operations.iter().filter(|one| !is_end(one)) {
        let spans = operation.request.spans();
        if !spans.iter().any(|span| fleeting.meets(span)) {
            operations.push(operation.clone());
        } else if let Some(unfenced) = unfenced(operation, &fleeting) {
            operations.push(unfenced);
        } else if operation.request.may_write()
            && !spans.iter().all(|span| matches!(span, Span::Key(key) if fleeting.contains(key)))
        {
            return Err(operation.id);
        }
    }
    Ok(Cow::Owned(History { header: history.header.clone(), operations }))
}

/// A transaction whose conditions alone name keys that go unseen, without these conditions; none if it cannot be told
/// which way it went.
fn unfenced(operation: &Operation, fleeting: &Fleeting<'_>) -> Option<Operation> {
    let Request::Txn(txn) = &operation.request else { return None };
    let is_fence = |compare: &Compare| fleeting.meets(&Span::new(&compare.key, &compare.range_end));
    let compares = txn.compares.iter().filter(|compare| !is_fence(compare)).cloned().collect();
    let kept = Txn { compares, ..txn.clone() };
    if Request::Txn(kept.clone()).spans().iter().any(|span| fleeting.meets(span)) {
        return None;
    }
    let mut unfenced = operation.clone();
    unfenced.request = Request::Txn(kept);
    match &mut unfenced.outcome {
        // Perhaps because of the fence, so that it says nothing of the other conditions.
        Outcome::Done { response: Response::Txn { succeeded, .. }, .. } if !*succeeded => {
            *succeeded = true;
            unfenced.request = Request::Txn(Txn { success: txn.failure.clone(), ..Txn::default() });
        }
        Outcome::Unknown if !Request::Txn(Txn { success: txn.failure.clone(), ..Txn::default() }).may_write() => {}
        Outcome::Unknown => return None,
        Outcome::Done { .. } | Outcome::Failed { .. } => {}
    }
    Some(unfenced)
}
