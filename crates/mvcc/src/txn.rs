//! Transactions up to their first write: which lists run, and whether all their operations can.
//!
//! Invariant: everything that can be refused is refused here, so a transaction that starts to write finishes. The
//! checks look at the state before the transaction (etcd #18667 shows what happens otherwise).

use base::{Fault, Revision};

use crate::budget::Budget;
use crate::command::{Op, Put, RangeRequest, Txn};
use crate::compare;
use crate::engine::View;
use crate::keys;
use crate::outcome::{OpOutcome, OpResult, Outcome, OutcomeResult, RangeResult, TxnResult};
use crate::range::{ReadError, evaluate, stored_bytes};
use crate::reject::Reject;
use crate::scan;
use crate::span::Span;
use crate::state::{State, state};
use crate::validate::Limits;

/// The lists that run: of the transaction, and of the nested ones in them, in order.
pub(crate) struct Path<'a> {
    pub(crate) succeeded: bool,
    pub(crate) ops: &'a [Op],
    /// One for each nested transaction among `ops`.
    pub(crate) nested: Vec<Path<'a>>,
}

impl<'a> Path<'a> {
    /// Judges all compares.
    pub(crate) fn choose(view: &dyn View, txn: &'a Txn) -> Result<Self, Fault> {
        let succeeded = compare::all_hold(view, &txn.compares)?;
        let ops = if succeeded { &txn.success } else { &txn.failure };
        let mut nested = Vec::new();
        for op in ops {
            if let Op::Txn(inner) = op {
                nested.push(Self::choose(view, inner)?);
            }
        }
        Ok(Self { succeeded, ops, nested })
    }

    /// Whether every operation of the path can run. `view` and `state` are from before the transaction.
    pub(crate) fn check(&self, view: &dyn View, state: &State) -> Result<(), ReadError> {
        self.check_ops(view, state, &mut Vec::new())
    }

    /// `deleted` holds the spans deleted by earlier operations of the whole path.
    fn check_ops(&self, view: &dyn View, state: &State, deleted: &mut Vec<Span>) -> Result<(), ReadError> {
        let mut nested = self.nested.iter();
        for op in self.ops {
            match op {
                Op::Range(range) => check_range(state, range)?,
                Op::Put(put) => {
                    check_put(view, put)?;
                    // Only reachable through the gaps in the duplicate check; etcd panics here.
                    if needs_existing(put) && deleted.iter().any(|span| span.contains(&put.key)) {
                        return Err(Reject::KeyNotFound.into());
                    }
                }
                Op::DeleteRange(delete) => deleted.push(Span::new(&delete.key, &delete.range_end)),
                Op::Txn(_) => {
                    let inner = nested.next().expect("one path for each nested transaction");
                    inner.check_ops(view, state, deleted)?;
                }
                Op::Empty => return Err(Reject::KeyNotFound.into()),
            }
        }
        Ok(())
    }
}

/// Unlike a read of its own, one in a transaction with a negative revision is compacted rather than latest.
fn check_range(state: &State, range: &RangeRequest) -> Result<(), Reject> {
    match range.revision {
        Revision(0) => Ok(()),
        revision if revision > state.revision => Err(Reject::FutureRevision),
        revision if revision < state.compacted => Err(Reject::Compacted),
        _ => Ok(()),
    }
}

fn check_put(view: &dyn View, put: &Put) -> Result<(), ReadError> {
    check_lease(view, put)?;
    if needs_existing(put) && scan::point(view, &put.key, None)?.is_none() {
        return Err(Reject::KeyNotFound.into());
    }
    Ok(())
}

/// Whether the put keeps something of the pair it replaces.
pub(crate) fn needs_existing(put: &Put) -> bool {
    put.ignore_value || put.ignore_lease
}

/// Whether the lease the put names exists.
pub(crate) fn check_lease(view: &dyn View, put: &Put) -> Result<(), ReadError> {
    if put.lease.0 != 0 && view.get(&keys::lease(put.lease))?.is_none() {
        return Err(Reject::LeaseNotFound.into());
    }
    Ok(())
}

/// Answers a transaction for which [`Txn::is_read_only`] holds, without the log. When the pairs would take more than
/// `bytes_max` the result is [`OutcomeResult::AnswerTooLarge`], and the rest is not even read.
pub fn read_txn(view: &dyn View, txn: &Txn, bytes_max: usize) -> Result<Outcome, Fault> {
    assert!(txn.is_read_only(), "a transaction that may write was given to the read path");
    let state = state(view)?;
    let mut budget = Budget::new(bytes_max);
    let mut answer = || -> Result<TxnResult, ReadError> {
        txn.validate(&Limits::SHARED)?;
        let path = Path::choose(view, txn)?;
        path.check(view, &state)?;
        Ok(read_path(view, &state, &path, &mut budget)?)
    };
    let result = match answer() {
        Ok(_) if !budget.is_open() => OutcomeResult::AnswerTooLarge,
        Ok(result) => OutcomeResult::Txn(result),
        Err(ReadError::Reject(reject)) => OutcomeResult::Rejected(reject),
        Err(ReadError::Fault(fault)) => return Err(fault),
    };
    Ok(Outcome { revision: state.revision, result })
}

fn read_path(view: &dyn View, state: &State, path: &Path<'_>, budget: &mut Budget) -> Result<TxnResult, Fault> {
    let mut nested = path.nested.iter();
    let mut responses = Vec::with_capacity(path.ops.len());
    for op in path.ops {
        responses.push(match op {
            Op::Range(range) => read_op(view, state, range, budget)?,
            Op::Txn(_) => {
                let inner = nested.next().expect("one path for each nested transaction");
                OpOutcome { revision: Revision(0), result: OpResult::Txn(read_path(view, state, inner, budget)?) }
            }
            Op::Put(_) | Op::DeleteRange(_) | Op::Empty => unreachable!("the transaction is read-only"),
        });
    }
    Ok(TxnResult { succeeded: path.succeeded, responses })
}

/// Runs a checked read of a transaction; leaves it out once the answer exceeds its budget.
pub(crate) fn read_op(
    view: &dyn View,
    state: &State,
    range: &RangeRequest,
    budget: &mut Budget,
) -> Result<OpOutcome, Fault> {
    let at = state.resolve(range.revision);
    let at = at.unwrap_or_else(|reject| panic!("a checked read at {} was refused: {reject}", range.revision));
    let mut result = RangeResult::default();
    if budget.is_open() {
        let (found, stopped_at) = evaluate(view, state, at, range, budget.left(), true)?;
        if stopped_at.is_some() || !budget.take(found.kvs.iter().map(stored_bytes).sum()) {
            budget.exceed();
        } else {
            result = found;
        }
    }
    Ok(OpOutcome { revision: state.revision, result: OpResult::Range(result) })
}
