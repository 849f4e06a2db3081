//! The conditions of a transaction.
//!
//! Invariant: every compare, of nested transactions too, is judged against the state before the outermost transaction.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use base::Fault;

use crate::command::{Compare, CompareResult, CompareTarget};
use crate::engine::View;
use crate::outcome::KeyValue;
use crate::rows;
use crate::scan;
use crate::span::Span;

/// Whether all compares hold in the latest state.
pub(crate) fn all_hold(view: &dyn View, compares: &[Compare]) -> Result<bool, Fault> {
    for compare in compares {
        if !holds(view, compare)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A range passes if all its keys do; an empty one is judged like a missing key.
fn holds(view: &dyn View, compare: &Compare) -> Result<bool, Fault> {
    let mut found = false;
    let mut passed = true;
    scan::visit(view, &Span::new(&compare.key, &compare.range_end), None, &mut |key, row| {
        found = true;
        passed = pair_passes(compare, &rows::read_version(key, &row)?);
        Ok(if passed { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    if found {
        return Ok(passed);
    }
    match compare.target {
        // There is no value to compare with, and an empty one would be a different claim.
        CompareTarget::Value(_) => Ok(false),
        CompareTarget::Version(_)
        | CompareTarget::CreateRevision(_)
        | CompareTarget::ModRevision(_)
        | CompareTarget::Lease(_) => Ok(pair_passes(compare, &KeyValue::default())),
    }
}

fn pair_passes(compare: &Compare, kv: &KeyValue) -> bool {
    let order = match &compare.target {
        CompareTarget::Version(operand) => kv.version.cmp(operand),
        CompareTarget::CreateRevision(operand) => kv.create_revision.cmp(operand),
        CompareTarget::ModRevision(operand) => kv.mod_revision.cmp(operand),
        CompareTarget::Value(operand) => kv.value.cmp(operand),
        CompareTarget::Lease(operand) => kv.lease.cmp(operand),
    };
    match compare.result {
        CompareResult::Equal => order == Ordering::Equal,
        CompareResult::Greater => order == Ordering::Greater,
        CompareResult::Less => order == Ordering::Less,
        CompareResult::NotEqual => order != Ordering::Equal,
    }
}
