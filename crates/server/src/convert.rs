//! Wire types in, our types out, and back. The one place that knows both.

use std::collections::VecDeque;

use api::{etcdserverpb as pb, mvccpb};
use base::{LeaseId, Revision};
use bytes::Bytes;
use mvcc::{
    Command, Compact, Compare, CompareResult, CompareTarget, DeleteRange, DeleteResult, Event, EventKind, KeyValue, Op,
    OpOutcome, OpResult, Put, PutResult, RangeRequest, RangeResult, SortOrder, SortTarget, Txn, TxnResult,
};
use node::watch::{Create, Response, ResponseKind};
use prost::Message as _;

use crate::errors;

/// A nested transaction deeper than this is refused before it is looked at further. prost itself stops at 100 levels
/// of messages, two per transaction.
const DEPTH_MAX: usize = base::limits::TXN_DEPTH_MAX;

/// A transaction that cannot be translated.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BadTxn {
    /// It nests deeper than [`DEPTH_MAX`].
    TooDeep,
    /// A compare names a target or a relation that the protocol does not define. etcd takes an unknown relation for
    /// fulfilled; a client that relies on a newer relation must not have its writes let through.
    UnknownCompare,
}

pub(crate) fn range_request(request: pb::RangeRequest) -> RangeRequest {
    RangeRequest {
        key: request.key,
        range_end: request.range_end,
        limit: request.limit,
        revision: Revision(request.revision),
        sort_order: match request.sort_order {
            0 => SortOrder::None,
            1 => SortOrder::Ascend,
            2 => SortOrder::Descend,
            _ => SortOrder::Unknown,
        },
        sort_target: match request.sort_target {
            0 => SortTarget::Key,
            1 => SortTarget::Version,
            2 => SortTarget::Create,
            3 => SortTarget::Mod,
            4 => SortTarget::Value,
            _ => SortTarget::Unknown,
        },
        serializable: request.serializable,
        keys_only: request.keys_only,
        count_only: request.count_only,
        min_mod_revision: Revision(request.min_mod_revision),
        max_mod_revision: Revision(request.max_mod_revision),
        min_create_revision: Revision(request.min_create_revision),
        max_create_revision: Revision(request.max_create_revision),
    }
}

pub(crate) fn put_request(request: pb::PutRequest) -> Put {
    Put {
        key: request.key,
        value: request.value,
        lease: LeaseId(request.lease),
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    }
}

pub(crate) fn delete_request(request: pb::DeleteRangeRequest) -> DeleteRange {
    DeleteRange { key: request.key, range_end: request.range_end, prev_kv: request.prev_kv }
}

pub(crate) fn compact_request(request: &pb::CompactionRequest) -> Command {
    Command::Compact(Compact { revision: Revision(request.revision) })
}

pub(crate) fn txn_request(request: pb::TxnRequest) -> Result<Txn, BadTxn> {
    txn_at(request, 0)
}

fn txn_at(request: pb::TxnRequest, depth: usize) -> Result<Txn, BadTxn> {
    if depth > DEPTH_MAX {
        return Err(BadTxn::TooDeep);
    }
    let ops = |ops: Vec<pb::RequestOp>| ops.into_iter().map(|op| op_at(op, depth)).collect::<Result<_, _>>();
    Ok(Txn {
        compares: request.compare.into_iter().map(compare).collect::<Result<_, _>>()?,
        success: ops(request.success)?,
        failure: ops(request.failure)?,
    })
}

fn op_at(op: pb::RequestOp, depth: usize) -> Result<Op, BadTxn> {
    use pb::request_op::Request;
    Ok(match op.request {
        Some(Request::RequestRange(range)) => Op::Range(range_request(range)),
        Some(Request::RequestPut(put)) => Op::Put(put_request(put)),
        Some(Request::RequestDeleteRange(delete)) => Op::DeleteRange(delete_request(delete)),
        Some(Request::RequestTxn(txn)) => Op::Txn(txn_at(txn, depth + 1)?),
        None => Op::Empty,
    })
}

/// etcd compares with the zero value when the operand is missing or belongs to another target.
fn compare(compare: pb::Compare) -> Result<Compare, BadTxn> {
    use pb::compare::{CompareTarget as Target, TargetUnion as Union};
    let operand = compare.target_union;
    let number = |wanted: fn(&Union) -> Option<i64>| operand.as_ref().and_then(wanted).unwrap_or(0);
    let target = match Target::try_from(compare.target).map_err(|_| BadTxn::UnknownCompare)? {
        Target::Version => CompareTarget::Version(number(|u| match u {
            Union::Version(version) => Some(*version),
            _ => None,
        })),
        Target::Create => CompareTarget::CreateRevision(Revision(number(|u| match u {
            Union::CreateRevision(revision) => Some(*revision),
            _ => None,
        }))),
        Target::Mod => CompareTarget::ModRevision(Revision(number(|u| match u {
            Union::ModRevision(revision) => Some(*revision),
            _ => None,
        }))),
        Target::Lease => CompareTarget::Lease(LeaseId(number(|u| match u {
            Union::Lease(lease) => Some(*lease),
            _ => None,
        }))),
        Target::Value => CompareTarget::Value(match operand {
            Some(Union::Value(value)) => value,
            _ => Bytes::new(),
        }),
    };
    let result = match compare.result {
        0 => CompareResult::Equal,
        1 => CompareResult::Greater,
        2 => CompareResult::Less,
        3 => CompareResult::NotEqual,
        _ => return Err(BadTxn::UnknownCompare),
    };
    Ok(Compare { key: compare.key, range_end: compare.range_end, result, target })
}

pub(crate) fn key_value(kv: KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key,
        create_revision: kv.create_revision.0,
        mod_revision: kv.mod_revision.0,
        version: kv.version,
        value: kv.value,
        lease: kv.lease.0,
    }
}

fn key_values(kvs: Vec<KeyValue>) -> Vec<mvccpb::KeyValue> {
    kvs.into_iter().map(key_value).collect()
}

/// An answer inside a transaction carries a header with the revision alone (clients read it there).
fn inner_header(revision: Revision) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision: revision.0, ..Default::default() })
}

pub(crate) fn range_response(header: Option<pb::ResponseHeader>, result: RangeResult) -> pb::RangeResponse {
    pb::RangeResponse { header, kvs: key_values(result.kvs), more: result.more, count: result.count }
}

pub(crate) fn put_response(header: Option<pb::ResponseHeader>, result: PutResult) -> pb::PutResponse {
    pb::PutResponse { header, prev_kv: result.prev_kv.map(key_value) }
}

pub(crate) fn delete_response(header: Option<pb::ResponseHeader>, result: DeleteResult) -> pb::DeleteRangeResponse {
    pb::DeleteRangeResponse { header, deleted: result.deleted, prev_kvs: key_values(result.prev_kvs) }
}

pub(crate) fn txn_response(header: Option<pb::ResponseHeader>, result: TxnResult) -> pb::TxnResponse {
    pb::TxnResponse {
        header,
        succeeded: result.succeeded,
        responses: result.responses.into_iter().map(op_response).collect(),
    }
}

fn op_response(op: OpOutcome) -> pb::ResponseOp {
    use pb::response_op::Response;
    let header = inner_header(op.revision);
    pb::ResponseOp {
        response: Some(match op.result {
            OpResult::Range(result) => Response::ResponseRange(range_response(header, result)),
            OpResult::Put(result) => Response::ResponsePut(put_response(header, result)),
            OpResult::DeleteRange(result) => Response::ResponseDeleteRange(delete_response(header, result)),
            // etcd leaves the header of a nested transaction empty, but present.
            OpResult::Txn(result) => Response::ResponseTxn(txn_response(header, result)),
        }),
    }
}

/// What a client wants to watch. The keys are copied: they live as long as the watch, and the buffer in which they
/// arrived may be much larger.
pub(crate) fn watch_create(create: &pb::WatchCreateRequest) -> Create {
    use pb::watch_create_request::FilterType;
    let skips = |filter: FilterType| create.filters.contains(&(filter as i32));
    Create {
        id: create.watch_id,
        key: Bytes::copy_from_slice(&create.key),
        range_end: Bytes::copy_from_slice(&create.range_end),
        start: Revision(create.start_revision),
        skip_puts: skips(FilterType::Noput),
        skip_deletes: skips(FilterType::Nodelete),
        prev_kv: create.prev_kv,
        progress_notify: create.progress_notify,
        fragment: create.fragment,
    }
}

pub(crate) fn watch_response(header: Option<pb::ResponseHeader>, response: Response) -> pb::WatchResponse {
    let mut wire = pb::WatchResponse { header, watch_id: response.id, ..Default::default() };
    match response.kind {
        ResponseKind::Created => wire.created = true,
        ResponseKind::Refused(refused) => {
            (wire.created, wire.canceled) = (true, true);
            wire.cancel_reason = errors::watch_refused(refused);
        }
        ResponseKind::Cancelled => wire.canceled = true,
        // Without a reason: clients know by the revision.
        ResponseKind::Compacted(floor) => (wire.canceled, wire.compact_revision) = (true, floor.0),
        ResponseKind::Events { events, .. } => wire.events = events.into_iter().map(event).collect(),
        ResponseKind::Progress => {}
    }
    wire
}

fn event(event: Event) -> mvccpb::Event {
    use mvccpb::event::EventType;
    let kind = match event.kind {
        EventKind::Put => EventType::Put,
        EventKind::Delete => EventType::Delete,
    };
    mvccpb::Event { r#type: kind as i32, kv: Some(key_value(event.kv)), prev_kv: event.prev_kv.map(key_value) }
}

/// Splits a response so that each piece stays below `bytes_max`, if its events allow that. All but the last are marked.
pub(crate) fn fragments(mut response: pb::WatchResponse, bytes_max: usize) -> VecDeque<pb::WatchResponse> {
    let events = std::mem::take(&mut response.events);
    // Of the mark, and of each event's place in the message.
    let (empty, overhead) = (response.encoded_len() + 2, 1 + 10);
    let mut pieces = VecDeque::new();
    let (mut piece, mut bytes) = (Vec::new(), empty);
    for event in events {
        let event_bytes = event.encoded_len() + overhead;
        if !piece.is_empty() && bytes + event_bytes >= bytes_max {
            let events = std::mem::take(&mut piece);
            pieces.push_back(pb::WatchResponse { events, fragment: true, ..response.clone() });
            bytes = empty;
        }
        bytes += event_bytes;
        piece.push(event);
    }
    pieces.push_back(pb::WatchResponse { events: piece, ..response });
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> pb::TxnRequest {
        let mut txn = pb::TxnRequest::default();
        for _ in 0..depth {
            let op = pb::RequestOp { request: Some(pb::request_op::Request::RequestTxn(txn)) };
            txn = pb::TxnRequest { success: vec![op], ..Default::default() };
        }
        txn
    }

    #[test]
    fn a_response_is_split_by_events_and_all_pieces_but_the_last_are_marked() {
        let event = |bytes: usize| mvccpb::Event {
            kv: Some(mvccpb::KeyValue { value: vec![7; bytes].into(), ..Default::default() }),
            ..Default::default()
        };
        let events: Vec<_> = [10, 40, 50, 300, 10].into_iter().map(event).collect();
        let whole = pb::WatchResponse { watch_id: 3, events: events.clone(), ..Default::default() };
        let pieces = fragments(whole.clone(), 140);
        let shape: Vec<_> = pieces.iter().map(|piece| (piece.events.len(), piece.fragment, piece.watch_id)).collect();
        assert_eq!(shape, [(2, true, 3), (1, true, 3), (1, true, 3), (1, false, 3)]);
        assert!(pieces.iter().all(|piece| piece.events.len() == 1 || piece.encoded_len() < 140));
        assert_eq!(pieces.into_iter().flat_map(|piece| piece.events).collect::<Vec<_>>(), events);
        assert_eq!(fragments(whole.clone(), 10_000), [whole]);
    }

    #[test]
    fn nesting_is_bounded() {
        assert!(txn_request(nested(DEPTH_MAX)).is_ok());
        assert_eq!(txn_request(nested(DEPTH_MAX + 1)), Err(BadTxn::TooDeep));
    }

    #[test]
    fn a_compare_without_its_operand_compares_with_zero() {
        let wire = pb::Compare {
            target: pb::compare::CompareTarget::Mod as i32,
            target_union: Some(pb::compare::TargetUnion::Version(7)),
            ..Default::default()
        };
        assert_eq!(compare(wire).map(|compare| compare.target), Ok(CompareTarget::ModRevision(Revision(0))));
    }

    #[test]
    fn a_compare_of_an_unknown_kind_is_refused() {
        for wire in [pb::Compare { target: 5, ..Default::default() }, pb::Compare { result: 4, ..Default::default() }] {
            assert_eq!(compare(wire), Err(BadTxn::UnknownCompare));
        }
    }

    #[test]
    fn an_unknown_sort_is_kept_for_validation_to_refuse() {
        let wire = pb::RangeRequest { sort_order: 9, sort_target: -1, ..Default::default() };
        let request = range_request(wire);
        assert_eq!((request.sort_order, request.sort_target), (SortOrder::Unknown, SortTarget::Unknown));
    }
}
