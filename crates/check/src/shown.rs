//! What one answer shows of the keys with a prefix, as one moment.
//!
//! Invariant: pairs that an operation wrote itself, and those of other moments (reads of the past inside a
//! transaction), are not among them.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Bytes, KeyValue, Op, Operation, Range, Request, Response, Txn};
use crate::span::Span;

/// Pairs of one moment.
#[derive(Default)]
pub(crate) struct Shown<'a> {
    pub(crate) pairs: BTreeMap<&'a [u8], &'a KeyValue>,
    /// Spans that were read in full: what is not in `pairs` does not exist.
    pub(crate) spans: Vec<Span<'a>>,
    written: BTreeSet<&'a Bytes>,
}

/// What the answer to `operation` shows; `None` without an answer.
pub(crate) fn shown(operation: &Operation) -> Option<Shown<'_>> {
    let response = operation.response()?;
    let mut shown = Shown::default();
    match (&operation.request, response) {
        (Request::Range(range), response) => shown.add_range(range, response),
        (Request::Txn(txn), response) => shown.add_txn(txn, response),
        _ => return None,
    }
    Some(shown)
}

impl<'a> Shown<'a> {
    fn add_range(&mut self, range: &'a Range, response: &'a Response) {
        let Response::Range { kvs, count, .. } = response else { return };
        if range.keys_only || range.count_only || kvs.len() as i64 != *count {
            return;
        }
        let span = Span::new(&range.key, &range.range_end);
        if self.written.iter().any(|key| span.contains(key)) {
            return;
        }
        self.pairs.extend(kvs.iter().map(|pair| (&pair.key[..], pair)));
        self.spans.push(span);
    }

    fn add_txn(&mut self, txn: &'a Txn, response: &'a Response) {
        let Response::Txn { succeeded, responses } = response else { return };
        let ops = if *succeeded { &txn.success } else { &txn.failure };
        for (op, response) in ops.iter().zip(responses) {
            match op {
                Op::Range(range) if range.revision > 0 => {}
                Op::Range(range) => self.add_range(range, response),
                Op::Put(put) => {
                    self.written.insert(&put.key);
                }
                // Nothing can be said about the rest of the transaction.
                Op::DeleteRange(_) => return,
                Op::Txn(nested) => self.add_txn(nested, response),
            }
        }
    }

    /// Whether all keys that begin with `prefix` were read.
    pub(crate) fn covers(&self, prefix: &Bytes) -> bool {
        let mut last = prefix.to_vec();
        last.extend([0xff; 8]);
        self.spans.iter().any(|span| span.contains(prefix) && span.contains(&last))
    }

    /// The pairs whose keys begin with `prefix`.
    pub(crate) fn with_prefix(&self, prefix: &'a Bytes) -> impl Iterator<Item = &'a KeyValue> + use<'_, 'a> {
        let from = self.pairs.range(&prefix[..]..);
        from.map(|(_, pair)| *pair).take_while(|pair| pair.key.starts_with(prefix))
    }
}
