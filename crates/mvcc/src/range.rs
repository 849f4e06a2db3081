//! Reads: one key, a range, the latest state or a past one, with all options of the protocol.
//!
//! Invariant: `count` and `more` never depend on how much of the answer was materialised. Pairs beyond the limit are
//! counted, not decoded or copied.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use base::{Fault, LeaseId, Revision};
use bytes::Bytes;

use crate::command::{RangeRequest, SortOrder, SortTarget};
use crate::engine::View;
use crate::outcome::{KeyValue, RangeResult};
use crate::reject::Reject;
use crate::rows;
use crate::scan;
use crate::span::Span;
use crate::state::{State, state};

/// Revisions, version and lease of a pair, roughly as they are sent.
const PAIR_OVERHEAD_BYTES: usize = 16;

/// Why there is no answer to a read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The request was refused; this is the answer for the client.
    #[error(transparent)]
    Reject(#[from] Reject),
    /// The node cannot go on.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// The answer to a read of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeResponse {
    /// Revision for the header: the current one, also when the past was read.
    pub revision: Revision,
    /// The answer proper.
    pub result: RangeResult,
}

/// Answers `request` in full. The caller bounds the answer, by the limit or with [`range_within`].
pub fn range(view: &dyn View, request: &RangeRequest) -> Result<RangeResponse, ReadError> {
    let (response, stopped_at) = range_within(view, request, usize::MAX)?;
    assert!(stopped_at.is_none(), "an unbounded read stopped at {stopped_at:?}");
    Ok(response)
}

/// Answers `request`, with pairs of at most `bytes_max` stored bytes but at least one. When pairs were left out, the
/// second part is the first key that is missing and `more` is set: the caller goes on from there with the same
/// (explicit) revision. Answers that must be sorted come whole; a limit bounds their memory, `bytes_max` does not.
pub fn range_within(
    view: &dyn View,
    request: &RangeRequest,
    bytes_max: usize,
) -> Result<(RangeResponse, Option<Bytes>), ReadError> {
    request.validate()?;
    let state = state(view)?;
    let at = state.resolve(request.revision)?;
    let (result, stopped_at) = evaluate(view, &state, at, request, bytes_max, false)?;
    Ok((RangeResponse { revision: state.revision, result }, stopped_at))
}

/// Answers `request` if its pairs take at most `bytes_max` stored bytes. `None` if they take more, and nothing further
/// is read then, whatever the order.
pub fn range_whole(
    view: &dyn View,
    request: &RangeRequest,
    bytes_max: usize,
) -> Result<Option<RangeResponse>, ReadError> {
    request.validate()?;
    let state = state(view)?;
    let at = state.resolve(request.revision)?;
    let (result, stopped_at) = evaluate(view, &state, at, request, bytes_max, true)?;
    Ok(stopped_at.is_none().then_some(RangeResponse { revision: state.revision, result }))
}

/// Answers a request whose revision has been resolved. `state` describes what `view` shows. With `whole` an answer that
/// exceeds the bytes is given up at once, else the rest of the range is still counted.
pub(crate) fn evaluate(
    view: &dyn View,
    state: &State,
    at: Option<i64>,
    request: &RangeRequest,
    bytes_max: usize,
    whole: bool,
) -> Result<(RangeResult, Option<Bytes>), Fault> {
    let span = Span::new(&request.key, &request.range_end);
    // The number of all keys is known, so a bounded read of everything need not walk to the end to count.
    let known_count = (at.is_none() && span.is_everything()).then_some(state.keys);
    let mut collector = Collector::new(request, bytes_max, whole);
    let mut count = 0u64;
    if !(request.count_only && known_count.is_some()) {
        scan::visit(view, &span, at, &mut |key, row| {
            count += 1;
            if collector.is_full() {
                let enough = known_count.is_some() || (whole && collector.stopped_at.is_some());
                return Ok(if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) });
            }
            collector.offer(key, &row)?;
            Ok(ControlFlow::Continue(()))
        })?;
    }
    let (kvs, more, stopped_at) = collector.finish();
    let count = known_count.unwrap_or(count);
    Ok((RangeResult { kvs, more, count: i64::try_from(count).unwrap_or(i64::MAX) }, stopped_at))
}

/// Gathers the pairs of an answer.
struct Collector<'a> {
    request: &'a RangeRequest,
    limit: usize,
    /// The answer is the first pairs that pass, in key order; otherwise the best ones of all have to be found.
    first_wins: bool,
    sorted_by_key: bool,
    bytes_left: usize,
    /// The answer is of use only if it is whole: bytes count also when it must be sorted.
    whole: bool,
    /// Bytes of the pairs gathered for a sorted answer.
    held: usize,
    kvs: Vec<KeyValue>,
    stopped_at: Option<Bytes>,
}

impl<'a> Collector<'a> {
    fn new(request: &'a RangeRequest, bytes_max: usize, whole: bool) -> Self {
        let filtered = has_filters(request);
        let sorted_by_key = request.sort_target == SortTarget::Key && request.sort_order != SortOrder::Descend;
        // etcd takes the first `limit` + 1 keys also when it then sorts them by another field, unless an order is
        // named or a filter set. Odd, but visible.
        let first_wins = sorted_by_key || (request.sort_order == SortOrder::None && !filtered);
        let limit = usize::try_from(request.limit).unwrap_or(if request.limit > 0 { usize::MAX } else { 0 });
        let limit = if limit == 0 { usize::MAX } else { limit };
        Self {
            request,
            limit,
            first_wins,
            sorted_by_key,
            bytes_left: bytes_max,
            whole,
            held: 0,
            kvs: Vec::new(),
            stopped_at: None,
        }
    }

    /// Whether no further pair can change the answer. One more than the limit is kept, for `more`.
    fn is_full(&self) -> bool {
        self.request.count_only || self.stopped_at.is_some() || (self.first_wins && self.kvs.len() > self.limit)
    }

    fn offer(&mut self, key: Bytes, row: &Bytes) -> Result<(), Fault> {
        let header = rows::read_header(row)?;
        let mut kv = rows::key_value(key, &header, row);
        if !passes(self.request, &kv) {
            return Ok(());
        }
        if self.request.keys_only && self.request.sort_target != SortTarget::Value {
            // etcd answers these from its index, which knows no leases.
            kv.value = Bytes::new();
            kv.lease = LeaseId(0);
        }
        let size = stored_bytes(&kv);
        if self.sorted_by_key && self.kvs.len() < self.limit {
            if size > self.bytes_left && !self.kvs.is_empty() {
                self.stopped_at = Some(kv.key);
                return Ok(());
            }
            self.bytes_left = self.bytes_left.saturating_sub(size);
        }
        self.held = self.held.saturating_add(size);
        self.kvs.push(kv);
        // Keep the memory of a limited sort in proportion to the limit, and to the bytes.
        let many = self.kvs.len() >= self.limit.saturating_mul(2).saturating_add(64);
        let much = self.whole && self.held / 2 > self.bytes_left;
        if !self.first_wins && (many || much) {
            self.keep_best();
        }
        if !self.sorted_by_key && much && self.answer_bytes() > self.bytes_left {
            self.give_up();
        }
        Ok(())
    }

    /// Drops what cannot be part of the answer any more.
    fn keep_best(&mut self) {
        sort(self.request, &mut self.kvs);
        self.kvs.truncate(self.limit.saturating_add(1));
        self.held = self.kvs.iter().map(stored_bytes).sum();
    }

    /// Bytes of the pairs that would be sent.
    fn answer_bytes(&self) -> usize {
        self.kvs.iter().take(self.limit).map(stored_bytes).sum()
    }

    fn give_up(&mut self) {
        self.stopped_at = self.kvs.pop().map(|kv| kv.key);
    }

    fn finish(mut self) -> (Vec<KeyValue>, bool, Option<Bytes>) {
        if !self.sorted_by_key {
            sort(self.request, &mut self.kvs);
            if self.whole && self.stopped_at.is_none() && self.answer_bytes() > self.bytes_left {
                self.give_up();
            }
        }
        let more = self.kvs.len() > self.limit || self.stopped_at.is_some();
        self.kvs.truncate(self.limit);
        if self.request.keys_only {
            for kv in &mut self.kvs {
                kv.value = Bytes::new();
            }
        }
        (self.kvs, more, self.stopped_at)
    }
}

/// What a pair counts for: its bytes and what comes with them.
pub(crate) fn stored_bytes(kv: &KeyValue) -> usize {
    kv.key.len() + kv.value.len() + PAIR_OVERHEAD_BYTES
}

/// Whether the request filters by revision.
pub(crate) fn has_filters(request: &RangeRequest) -> bool {
    [request.min_mod_revision, request.max_mod_revision, request.min_create_revision, request.max_create_revision]
        .iter()
        .any(|filter| filter.0 != 0)
}

fn passes(request: &RangeRequest, kv: &KeyValue) -> bool {
    let within = |revision: Revision, min: Revision, max: Revision| {
        (min.0 == 0 || revision >= min) && (max.0 == 0 || revision <= max)
    };
    within(kv.mod_revision, request.min_mod_revision, request.max_mod_revision)
        && within(kv.create_revision, request.min_create_revision, request.max_create_revision)
}

/// Sorts by the target; ties stay in ascending key order whatever the direction (etcd leaves ties undefined).
fn sort(request: &RangeRequest, kvs: &mut [KeyValue]) {
    let by_target = |a: &KeyValue, b: &KeyValue| match request.sort_target {
        SortTarget::Key => a.key.cmp(&b.key),
        SortTarget::Version => a.version.cmp(&b.version),
        SortTarget::Create => a.create_revision.cmp(&b.create_revision),
        SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
        SortTarget::Value => a.value.cmp(&b.value),
        SortTarget::Unknown => Ordering::Equal,
    };
    kvs.sort_by(|a, b| {
        let order = by_target(a, b);
        let order = if request.sort_order == SortOrder::Descend { order.reverse() } else { order };
        order.then_with(|| a.key.cmp(&b.key))
    });
}
