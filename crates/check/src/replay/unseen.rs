//! What can be followed when leases end unseen: everything but the keys that were ever on one.
//!
//! Invariant: what is left out has written no key that is kept, so every answer that is kept must come out as it was
//! given all the same.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::history::{Bytes, History, Operation, Request};
use crate::span::Span;

/// The operations that have nothing to do with keys that may go unseen.
///
/// # Errors
/// The id of a write that touches such keys and others, which cannot be told apart.
pub(super) fn followed(history: &History) -> Result<Cow<'_, History>, u64> {
    let leased: BTreeSet<&Bytes> = history.operations.iter().flat_map(|one| one.request.attached()).collect();
    let is_end = |one: &Operation| matches!(&one.request, Request::Lease(lease) if !lease.ended().is_empty());
    if leased.is_empty() && !history.operations.iter().any(is_end) {
        return Ok(Cow::Borrowed(history));
    }
    let mut operations = Vec::new();
    for operation in history.operations.iter().filter(|one| !is_end(one)) {
        let spans = operation.request.spans();
        let is_leased = |span: &Span<'_>| leased.iter().any(|key| span.contains(key));
        if !spans.iter().any(is_leased) {
            operations.push(operation.clone());
        } else if operation.request.may_write()
            && !spans.iter().all(|span| matches!(span, Span::Key(_)) && is_leased(span))
        {
            return Err(operation.id);
        }
    }
    Ok(Cow::Owned(History { header: history.header.clone(), operations }))
}
