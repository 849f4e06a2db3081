//! Requests and answers, between the history's types and those of the wire.
//!
//! Invariant: nothing is left out on the way to the wire, and nothing made up on the way back.

use ::check::history::{
    Bytes, Compare, CompareResult, CompareTarget, DeleteRange, Event, KeyValue, Level, Op, Put, Range, Response,
    SortOrder, SortTarget, Txn, Watch, WatchBatch,
};
use api::etcdserverpb::compare::{CompareResult as WireResult, CompareTarget as WireTarget, TargetUnion};
use api::etcdserverpb::range_request::{SortOrder as WireOrder, SortTarget as WireSort};
use api::etcdserverpb::request_op::Request as WireOp;
use api::etcdserverpb::response_op::Response as WireOpResponse;
use api::etcdserverpb::watch_create_request::FilterType;
use api::etcdserverpb::{
    Compare as WireCompare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest,
    RangeResponse, RequestOp, TxnRequest, TxnResponse, WatchCreateRequest, WatchResponse,
};
use api::mvccpb::event::EventType;

fn bytes(bytes: &Bytes) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(bytes)
}

pub(super) fn range(range: &Range) -> RangeRequest {
    RangeRequest {
        key: bytes(&range.key),
        range_end: bytes(&range.range_end),
        limit: range.limit,
        revision: range.revision,
        sort_order: match range.sort_order {
            SortOrder::None => WireOrder::None,
            SortOrder::Ascend => WireOrder::Ascend,
            SortOrder::Descend => WireOrder::Descend,
        } as i32,
        sort_target: match range.sort_target {
            SortTarget::Key => WireSort::Key,
            SortTarget::Version => WireSort::Version,
            SortTarget::Create => WireSort::Create,
            SortTarget::Mod => WireSort::Mod,
            SortTarget::Value => WireSort::Value,
        } as i32,
        serializable: range.level != Level::Strict,
        keys_only: range.keys_only,
        count_only: range.count_only,
        min_mod_revision: range.min_mod_revision,
        max_mod_revision: range.max_mod_revision,
        min_create_revision: range.min_create_revision,
        max_create_revision: range.max_create_revision,
    }
}

pub(super) fn put(put: &Put) -> PutRequest {
    PutRequest {
        key: bytes(&put.key),
        value: bytes(&put.value),
        lease: put.lease,
        prev_kv: put.prev_kv,
        ignore_value: put.ignore_value,
        ignore_lease: put.ignore_lease,
    }
}

pub(super) fn delete(delete: &DeleteRange) -> DeleteRangeRequest {
    DeleteRangeRequest { key: bytes(&delete.key), range_end: bytes(&delete.range_end), prev_kv: delete.prev_kv }
}

pub(super) fn txn(txn: &Txn) -> TxnRequest {
    TxnRequest {
        compare: txn.compares.iter().map(compare).collect(),
        success: txn.success.iter().map(op).collect(),
        failure: txn.failure.iter().map(op).collect(),
    }
}

fn compare(compare: &Compare) -> WireCompare {
    let (target, operand) = match &compare.target {
        CompareTarget::Version(version) => (WireTarget::Version, TargetUnion::Version(*version)),
        CompareTarget::Create(revision) => (WireTarget::Create, TargetUnion::CreateRevision(*revision)),
        CompareTarget::Mod(revision) => (WireTarget::Mod, TargetUnion::ModRevision(*revision)),
        CompareTarget::Value(value) => (WireTarget::Value, TargetUnion::Value(bytes(value))),
        CompareTarget::Lease(lease) => (WireTarget::Lease, TargetUnion::Lease(*lease)),
    };
    let result = match compare.result {
        CompareResult::Equal => WireResult::Equal,
        CompareResult::Greater => WireResult::Greater,
        CompareResult::Less => WireResult::Less,
        CompareResult::NotEqual => WireResult::NotEqual,
    };
    WireCompare {
        result: result as i32,
        target: target as i32,
        key: bytes(&compare.key),
        range_end: bytes(&compare.range_end),
        target_union: Some(operand),
    }
}

fn op(op: &Op) -> RequestOp {
    let request = match op {
        Op::Range(inner) => WireOp::RequestRange(range(inner)),
        Op::Put(inner) => WireOp::RequestPut(put(inner)),
        Op::DeleteRange(inner) => WireOp::RequestDeleteRange(delete(inner)),
        Op::Txn(inner) => WireOp::RequestTxn(txn(inner)),
    };
    RequestOp { request: Some(request) }
}

fn pair(pair: api::mvccpb::KeyValue) -> KeyValue {
    KeyValue {
        key: Bytes::from(&pair.key[..]),
        value: Bytes::from(&pair.value[..]),
        create_revision: pair.create_revision,
        mod_revision: pair.mod_revision,
        version: pair.version,
        lease: pair.lease,
    }
}

pub(super) fn range_answer(answer: RangeResponse) -> Response {
    Response::Range { kvs: answer.kvs.into_iter().map(pair).collect(), more: answer.more, count: answer.count }
}

pub(super) fn put_answer(answer: PutResponse) -> Response {
    Response::Put { prev_kv: answer.prev_kv.map(pair) }
}

pub(super) fn delete_answer(answer: DeleteRangeResponse) -> Response {
    Response::DeleteRange { deleted: answer.deleted, prev_kvs: answer.prev_kvs.into_iter().map(pair).collect() }
}

/// `None` if a part of the answer is empty, which no server sends.
pub(super) fn txn_answer(answer: TxnResponse) -> Option<Response> {
    let part = |part: Option<WireOpResponse>| match part? {
        WireOpResponse::ResponseRange(answer) => Some(range_answer(answer)),
        WireOpResponse::ResponsePut(answer) => Some(put_answer(answer)),
        WireOpResponse::ResponseDeleteRange(answer) => Some(delete_answer(answer)),
        WireOpResponse::ResponseTxn(answer) => txn_answer(answer),
    };
    let responses = answer.responses.into_iter().map(|response| part(response.response)).collect::<Option<_>>()?;
    Some(Response::Txn { succeeded: answer.succeeded, responses })
}

/// A watch that is told now and then how far it is; the history does not care.
pub(super) fn watch(watch: &Watch) -> WatchCreateRequest {
    let filters = [(watch.no_put, FilterType::Noput), (watch.no_delete, FilterType::Nodelete)];
    WatchCreateRequest {
        key: bytes(&watch.key),
        range_end: bytes(&watch.range_end),
        start_revision: watch.start_revision,
        prev_kv: watch.prev_kv,
        progress_notify: true,
        filters: filters.into_iter().filter(|(is_on, _)| *is_on).map(|(_, filter)| filter as i32).collect(),
        ..WatchCreateRequest::default()
    }
}

/// What arrived `at` that time; `None` if an event is empty, which no server sends.
pub(super) fn batch(at: u64, response: WatchResponse) -> Option<WatchBatch> {
    let is_end = response.canceled;
    let is_compacted = response.compact_revision != 0;
    Some(WatchBatch {
        at,
        revision: response.header.map_or(0, |header| header.revision),
        created: response.created && !is_end,
        events: response.events.into_iter().map(event).collect::<Option<_>>()?,
        compact_revision: response.compact_revision,
        cancelled: (is_end && !is_compacted).then_some(response.cancel_reason),
    })
}

fn event(event: api::mvccpb::Event) -> Option<Event> {
    let is_put = event.r#type() == EventType::Put;
    let (kv, prev_kv) = (pair(event.kv?), event.prev_kv.map(pair));
    Some(match is_put {
        true => Event::Put { kv, prev_kv },
        false => Event::Delete { key: kv.key, mod_revision: kv.mod_revision, prev_kv },
    })
}
