//! Random requests over few keys, so that they meet: keys with zero bytes, prefixes of each other, and the extremes.

use base::{LeaseId, NodeId, Revision};
use bytes::Bytes;
use mvcc::{
    Alarm, AlarmChange, AlarmKind, Command, Compact, Compare, CompareResult, CompareTarget, DeleteRange,
    LeaseCheckpoint, LeaseExpire, LeaseGrant, LeaseInstance, LeaseRevoke, MemberChange, MemberRecord, MemberStep, Op,
    Put, RangeRequest, SortOrder, SortTarget, Txn,
};
use proptest::prelude::*;

/// Revisions a run can reach, and some it cannot.
const REVISIONS: std::ops::Range<i64> = -2..45;

pub(crate) fn key() -> impl Strategy<Value = Bytes> {
    let keys: [&[u8]; 10] = [b"\0", b"\0\0", b"\0\xff", b"a", b"a\0", b"a\0\x01", b"a\0b", b"ab", b"b", b"\xff\xff"];
    prop_oneof![40 => prop::sample::select(keys.to_vec()).prop_map(Bytes::from_static), 1 => Just(Bytes::new()),
                1 => Just(Bytes::from(vec![b'k'; base::limits::KEY_BYTES_MAX + 1]))]
}

pub(crate) fn end() -> impl Strategy<Value = Bytes> {
    prop_oneof![2 => Just(Bytes::new()), 3 => key(), 2 => Just(Bytes::from_static(b"\0")),
                1 => Just(Bytes::from_static(b"c"))]
}

fn value() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["", "x", "y", "longer value"]).prop_map(Bytes::from_static_str)
}

trait FromStaticStr {
    fn from_static_str(text: &'static str) -> Self;
}

impl FromStaticStr for Bytes {
    fn from_static_str(text: &'static str) -> Self {
        Self::from_static(text.as_bytes())
    }
}

fn revision() -> impl Strategy<Value = Revision> {
    prop_oneof![3 => Just(Revision(0)), 4 => REVISIONS.prop_map(Revision)]
}

fn filter() -> impl Strategy<Value = Revision> {
    prop_oneof![8 => Just(Revision(0)), 1 => (1i64..20).prop_map(Revision)]
}

fn lease() -> impl Strategy<Value = LeaseId> {
    prop_oneof![30 => Just(LeaseId(0)), 10 => Just(LeaseId(7)), 2 => lease_id()]
}

fn lease_id() -> impl Strategy<Value = LeaseId> {
    prop_oneof![6 => Just(LeaseId(7)), 2 => Just(LeaseId(-1)), 1 => Just(LeaseId(i64::MAX))]
}

fn lease_instance() -> impl Strategy<Value = LeaseInstance> {
    (lease_id(), 1u64..6).prop_map(|(id, instance)| LeaseInstance { id, instance })
}

fn lease_command() -> impl Strategy<Value = Command> {
    let ttl = prop_oneof![8 => -1i64..100, 1 => Just(9_000_000_000), 1 => Just(9_000_000_001)];
    let id = prop_oneof![15 => lease_id(), 1 => Just(LeaseId(0))];
    prop_oneof![
        10 => (id, ttl).prop_map(|(id, ttl_s)| Command::LeaseGrant(LeaseGrant { id, ttl_s })),
        3 => lease_id().prop_map(|id| Command::LeaseRevoke(LeaseRevoke { id })),
        3 => prop::collection::vec(lease_instance(), 0..4)
            .prop_map(|leases| Command::LeaseExpire(LeaseExpire { leases })),
        2 => prop::collection::vec((lease_instance(), -1i64..120), 0..4)
            .prop_map(|leases| Command::LeaseCheckpoint(LeaseCheckpoint { leases })),
    ]
}

/// Rather cleared than raised: under an alarm little happens.
fn alarm() -> impl Strategy<Value = AlarmChange> {
    (1u64..3, prop::bool::weighted(0.12)).prop_map(|(member, raise)| {
        let alarm = Alarm { member: NodeId(member), kind: AlarmKind::NoSpace };
        AlarmChange { alarm, raise }
    })
}

fn record(id: u64, port: u64) -> MemberRecord {
    MemberRecord { id: NodeId(id), peer_urls: vec![format!("http://a:{port}")], ..MemberRecord::default() }
}

fn member() -> impl Strategy<Value = MemberChange> {
    let step = prop_oneof![
        (1u64..7, 1u64..7).prop_map(|(id, port)| MemberStep::Add(record(id, port))),
        (1u64..7, 1u64..7).prop_map(|(id, port)| MemberStep::Update(NodeId(id), record(id, port).peer_urls)),
        (1u64..7).prop_map(|id| MemberStep::Remove(NodeId(id))),
    ];
    step.prop_map(|step| MemberChange { founders: vec![record(1, 1), record(2, 2)], step })
}

pub(crate) fn put() -> impl Strategy<Value = Put> {
    let flag = || prop::bool::weighted(0.12);
    (key(), value(), lease(), any::<bool>(), flag(), flag()).prop_map(
        |(key, value, lease, prev_kv, ignore_value, ignore_lease)| {
            // A value with `ignore_value` is refused; mostly avoid it.
            let value = if ignore_value && value.len() < 5 { Bytes::new() } else { value };
            Put { key, value, lease, prev_kv, ignore_value, ignore_lease }
        },
    )
}

pub(crate) fn delete() -> impl Strategy<Value = DeleteRange> {
    (key(), end(), any::<bool>()).prop_map(|(key, range_end, prev_kv)| DeleteRange { key, range_end, prev_kv })
}

pub(crate) fn range() -> impl Strategy<Value = RangeRequest> {
    let order = prop_oneof![
        10 => Just(SortOrder::None), 5 => Just(SortOrder::Ascend), 5 => Just(SortOrder::Descend),
        1 => Just(SortOrder::Unknown)
    ];
    let target = prop_oneof![
        20 => Just(SortTarget::Key), 5 => Just(SortTarget::Version), 5 => Just(SortTarget::Create),
        5 => Just(SortTarget::Mod), 5 => Just(SortTarget::Value), 1 => Just(SortTarget::Unknown)
    ];
    let flag = || prop::bool::weighted(0.15);
    (
        (key(), end(), prop_oneof![2 => Just(0i64), 3 => -1i64..6, 1 => Just(i64::MAX)], revision()),
        (order, target, flag(), flag(), flag()),
        (filter(), filter(), filter(), filter()),
    )
        .prop_map(
            |((key, range_end, limit, revision), (sort_order, sort_target, serializable, keys_only, count_only), f)| {
                RangeRequest {
                    key,
                    range_end,
                    limit,
                    revision,
                    sort_order,
                    sort_target,
                    serializable,
                    keys_only,
                    count_only,
                    min_mod_revision: f.0,
                    max_mod_revision: f.1,
                    min_create_revision: f.2,
                    max_create_revision: f.3,
                }
            },
        )
}

fn compare() -> impl Strategy<Value = Compare> {
    let number = || 0i64..12;
    let target = prop_oneof![
        (0i64..4).prop_map(CompareTarget::Version),
        number().prop_map(|n| CompareTarget::CreateRevision(Revision(n))),
        number().prop_map(|n| CompareTarget::ModRevision(Revision(n))),
        value().prop_map(CompareTarget::Value),
        (6i64..8).prop_map(|n| CompareTarget::Lease(LeaseId(n % 7 * 7))),
    ];
    let result = prop::sample::select(vec![
        CompareResult::Equal,
        CompareResult::Greater,
        CompareResult::Less,
        CompareResult::NotEqual,
    ]);
    (key(), prop_oneof![3 => Just(Bytes::new()), 1 => end()], result, target)
        .prop_map(|(key, range_end, result, target)| Compare { key, range_end, result, target })
}

fn leaf_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        20 => range().prop_map(|mut range| {
            // Most revisions of reads would be refused, and with them the whole transaction.
            if range.revision.0 > 10 { range.revision = Revision(0); }
            Op::Range(range)
        }),
        40 => put().prop_map(Op::Put),
        20 => delete().prop_map(Op::DeleteRange),
        1 => Just(Op::Empty),
    ]
}

fn txn_of(op: BoxedStrategy<Op>) -> impl Strategy<Value = Txn> {
    let ops = prop::collection::vec(op, 0..4);
    (prop::collection::vec(compare(), 0..3), ops.clone(), ops).prop_map(|(compares, success, failure)| Txn {
        compares,
        success,
        failure,
    })
}

pub(crate) fn txn() -> impl Strategy<Value = Txn> {
    let inner = txn_of(leaf_op().boxed()).boxed();
    let middle = txn_of(prop_oneof![5 => leaf_op(), 1 => inner.prop_map(Op::Txn)].boxed()).boxed();
    txn_of(prop_oneof![4 => leaf_op(), 1 => middle.prop_map(Op::Txn)].boxed())
}

pub(crate) fn read_txn() -> impl Strategy<Value = Txn> {
    let op = range().prop_map(Op::Range).boxed();
    let nested = txn_of(op.clone()).boxed();
    txn_of(prop_oneof![4 => op, 1 => nested.prop_map(Op::Txn)].boxed())
}

pub(crate) fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        10 => put().prop_map(Command::Put),
        5 => delete().prop_map(Command::DeleteRange),
        10 => txn().prop_map(Command::Txn),
        6 => lease_command(),
        4 => alarm().prop_map(Command::Alarm),
        4 => member().prop_map(Command::Member),
        2 => REVISIONS.prop_map(|revision| Command::Compact(Compact { revision: Revision(revision) })),
    ]
}

/// One thing done to a store.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// Applies a command, in the batch that is open.
    Apply(Command),
    /// Closes the batch.
    Flush,
    Range(RangeRequest),
    ReadTxn(Txn),
    /// Reads a range in pieces of this many pairs.
    Stream(RangeRequest, usize),
    /// Reads events of a range in pages of this many.
    Events {
        from: i64,
        key: Bytes,
        end: Bytes,
        prev_kv: bool,
        page: usize,
    },
    Hash(i64),
    /// Sweeps this many events.
    Sweep(usize),
    /// Makes everything so far durable.
    Checkpoint,
    /// Loses what is not durable, then replays the log in batches of this many entries.
    Crash(usize),
}

pub(crate) fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        30 => command().prop_map(Action::Apply),
        5 => Just(Action::Flush),
        12 => range().prop_map(Action::Range),
        3 => read_txn().prop_map(Action::ReadTxn),
        3 => (range(), 1usize..4).prop_map(|(range, keys)| Action::Stream(range, keys)),
        4 => (REVISIONS, key(), end(), any::<bool>(), 1usize..6)
            .prop_map(|(from, key, end, prev_kv, page)| Action::Events { from, key, end, prev_kv, page }),
        2 => REVISIONS.prop_map(Action::Hash),
        6 => (1usize..8).prop_map(Action::Sweep),
        1 => Just(Action::Checkpoint),
        1 => (1usize..5).prop_map(Action::Crash),
    ]
}
