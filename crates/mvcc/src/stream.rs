//! A read in pieces: each chunk is bounded, and all come from one revision.
//!
//! Invariant: the chunks together are the answer of [`range`](crate::range) at the pinned revision. Count, `more` and
//! revision come with the last chunk.

use std::ops::ControlFlow;

use base::Revision;
use bytes::Bytes;

use crate::command::{RangeRequest, SortOrder, SortTarget};
use crate::engine::View;
use crate::outcome::KeyValue;
use crate::range::{ReadError, has_filters};
use crate::rows;
use crate::scan;
use crate::span::Span;
use crate::state::state;

/// A read in progress. Chunks may come from one view or from a new one each; with new ones a compaction in between
/// ends the stream with [`Reject::Compacted`](crate::Reject::Compacted).
#[derive(Debug, Clone)]
pub struct RangeStream {
    request: RangeRequest,
    /// Current revision when the stream was opened: for the header.
    opened_at: Revision,
    /// The revision all chunks are read at.
    pinned: Revision,
    /// What has not been visited; none when the stream has ended.
    rest: Option<Span>,
    sent: u64,
    count: u64,
}

/// A piece of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Pairs in key order.
    pub kvs: Vec<KeyValue>,
    /// Set on the last chunk.
    pub end: Option<ChunkEnd>,
}

/// What is known when everything has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkEnd {
    /// Revision for the header.
    pub revision: Revision,
    /// Whether the limit cut pairs off.
    pub more: bool,
    /// All keys in the range.
    pub count: i64,
}

impl RangeStream {
    /// Whether the request can be streamed: key order ascending, no filters by revision.
    #[must_use]
    pub fn supports(request: &RangeRequest) -> bool {
        request.sort_target == SortTarget::Key
            && matches!(request.sort_order, SortOrder::None | SortOrder::Ascend)
            && !has_filters(request)
    }

    /// Checks the request and pins the revision. The request must be one that [`supports`](Self::supports) accepts.
    pub fn open(view: &dyn View, request: RangeRequest) -> Result<Self, ReadError> {
        assert!(Self::supports(&request), "streaming a request that must be sorted or filtered: {request:?}");
        request.validate()?;
        let state = state(view)?;
        let pinned = state.resolve(request.revision)?.map_or(state.revision, Revision);
        let rest = Some(Span::new(&request.key, &request.range_end));
        Ok(Self { request, opened_at: state.revision, pinned, rest, sent: 0, count: 0 })
    }

    /// The revision all chunks are read at.
    #[must_use]
    pub fn pinned(&self) -> Revision {
        self.pinned
    }

    /// The next chunk: at most `keys_max` pairs of `bytes_max` stored bytes, but at least one pair; none after the end.
    pub fn chunk(&mut self, view: &dyn View, keys_max: usize, bytes_max: usize) -> Result<Option<Chunk>, ReadError> {
        let Some(span) = self.rest.take() else { return Ok(None) };
        let at = state(view)?.resolve(self.pinned)?;
        let limit = match u64::try_from(self.request.limit) {
            Ok(0) | Err(_) => u64::MAX,
            Ok(limit) => limit,
        };
        let mut kvs: Vec<KeyValue> = Vec::new();
        let mut bytes = 0usize;
        let mut stopped_at = None;
        let mut more = false;
        scan::visit(view, &span, at, &mut |key, row| {
            if self.request.count_only || self.sent == limit {
                more |= self.sent == limit;
                self.count += 1;
                return Ok(ControlFlow::Continue(()));
            }
            let size = key.len() + if self.request.keys_only { 0 } else { row.len() };
            if !kvs.is_empty() && (kvs.len() >= keys_max || bytes.saturating_add(size) > bytes_max) {
                stopped_at = Some(key);
                return Ok(ControlFlow::Break(()));
            }
            let mut kv = rows::read_version(key, &row)?;
            if self.request.keys_only {
                kv.value = Bytes::new();
                kv.lease = base::LeaseId(0);
            }
            kvs.push(kv);
            bytes = bytes.saturating_add(size);
            self.sent += 1;
            self.count += 1;
            Ok(ControlFlow::Continue(()))
        })?;
        self.rest = stopped_at.map(|key| span.starting_at(key));
        let end = self.rest.is_none().then(|| ChunkEnd {
            revision: self.opened_at,
            more,
            count: i64::try_from(self.count).unwrap_or(i64::MAX),
        });
        Ok(Some(Chunk { kvs, end }))
    }
}
