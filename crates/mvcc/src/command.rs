//! What travels through the log: the requests that can change the store, in types of our own.
//!
//! Invariant: a command is applied the same way on every replica, so nothing in it depends on the node that proposed
//! it. The bytes are in `command_codec`, the checks before proposing in `validate`.

use base::{LeaseId, NodeId, Revision};
use bytes::Bytes;

use crate::alarm::Alarm;
use crate::member::MemberRecord;

/// A request that may change the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Writes one key.
    Put(Put),
    /// Deletes the keys of a range.
    DeleteRange(DeleteRange),
    /// Compares, then one of two lists of operations, atomically at one revision.
    Txn(Txn),
    /// Raises the compaction floor.
    Compact(Compact),
    /// Makes a lease.
    LeaseGrant(LeaseGrant),
    /// Ends a lease because a client wants it.
    LeaseRevoke(LeaseRevoke),
    /// Ends leases because their time is up.
    LeaseExpire(LeaseExpire),
    /// Writes down how much time leases have left.
    LeaseCheckpoint(LeaseCheckpoint),
    /// Raises or clears an alarm.
    Alarm(AlarmChange),
    /// Changes what is written down about the members.
    Member(MemberChange),
}

/// Changes what is written down about the members. Does not move the revision, nor who votes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberChange {
    /// The members the proposer knows: written down if none are yet.
    pub founders: Vec<MemberRecord>,
    /// What changes.
    pub step: MemberStep,
}

/// One change of one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberStep {
    /// A new one.
    Add(MemberRecord),
    /// Another place to reach one at.
    Update(NodeId, Vec<String>),
    /// One that is no member any more.
    Remove(NodeId),
}

/// Raises or clears an alarm. Does not move the revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlarmChange {
    /// Which.
    pub alarm: Alarm,
    /// Raise it, or clear it.
    pub raise: bool,
}

/// Makes a lease. Does not move the revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeaseGrant {
    /// Not 0: whoever proposes picks one if the client did not.
    pub id: LeaseId,
    /// Seconds it lives without a renewal. Whoever proposes has raised it to the least its cluster can keep.
    pub ttl_s: i64,
}

/// Ends a lease: all keys attached to it are deleted, at one revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeaseRevoke {
    /// The lease.
    pub id: LeaseId,
}

/// One grant of a lease: a later lease with the same id is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct LeaseInstance {
    /// The lease.
    pub id: LeaseId,
    /// Which grant, see [`Lease`](crate::Lease).
    pub instance: u64,
}

/// Ends leases whose time is up, in this order, each at a revision of its own if it has keys. What is no more, or was
/// granted anew, is left alone. So is what comes after [`LEASE_EXPIRE_KEYS_MAX`](base::limits::LEASE_EXPIRE_KEYS_MAX)
/// deleted keys: the proposer sees that it is still there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeaseExpire {
    /// The leases the leader holds for expired.
    pub leases: Vec<LeaseInstance>,
}

/// Writes down how much time leases have left, so that a new leader does not start all over.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeaseCheckpoint {
    /// Leases with the seconds they have left; 0 clears what was written down before.
    pub leases: Vec<(LeaseInstance, i64)>,
}

/// Writes one key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Put {
    /// The key, not empty.
    pub key: Bytes,
    /// The value; may be empty.
    pub value: Bytes,
    /// The lease the key becomes attached to; 0 detaches it.
    pub lease: LeaseId,
    /// Answer with the pair that was replaced.
    pub prev_kv: bool,
    /// Keep the value, change the lease alone; the key must exist.
    pub ignore_value: bool,
    /// Keep the lease, change the value alone; the key must exist.
    pub ignore_lease: bool,
}

/// Deletes the keys of a range.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeleteRange {
    /// First key.
    pub key: Bytes,
    /// See [`Span::new`](crate::Span::new).
    pub range_end: Bytes,
    /// Answer with the deleted pairs.
    pub prev_kv: bool,
}

/// Raises the compaction floor: revisions below it can no longer be read, the state at it still can.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Compact {
    /// The new floor.
    pub revision: Revision,
}

/// Compares, then one of two lists of operations.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Txn {
    /// All must hold for `success` to be chosen.
    pub compares: Vec<Compare>,
    /// Runs when every compare holds.
    pub success: Vec<Op>,
    /// Runs otherwise.
    pub failure: Vec<Op>,
}

impl Command {
    /// Whether it touches nothing but a few keys named in it: what it costs hardly depends on what is stored.
    #[must_use]
    pub fn is_point(&self) -> bool {
        match self {
            Self::Put(_) | Self::LeaseGrant(_) => true,
            Self::DeleteRange(delete) => delete.range_end.is_empty(),
            Self::Txn(txn) => txn.steps() <= POINT_STEPS_MAX && txn.is_point(),
            _ => false,
        }
    }
}

/// Comparisons and operations of a transaction that is still a point.
const POINT_STEPS_MAX: usize = 8;

impl Txn {
    /// Comparisons and operations, nested ones included.
    fn steps(&self) -> usize {
        let ops = self.success.iter().chain(&self.failure);
        let step = |op: &Op| if let Op::Txn(nested) = op { nested.steps() } else { 1 };
        self.compares.len() + ops.map(step).sum::<usize>()
    }

    fn is_point(&self) -> bool {
        let compares = self.compares.iter().all(|compare| compare.range_end.is_empty());
        compares
            && self.success.iter().chain(&self.failure).all(|op| match op {
                // An older revision may be behind many newer ones.
                Op::Range(range) => range.range_end.is_empty() && range.revision.0 <= 0,
                Op::Put(_) | Op::Empty => true,
                Op::DeleteRange(delete) => delete.range_end.is_empty(),
                Op::Txn(nested) => nested.is_point(),
            })
    }

    /// Whether no path can write: such a transaction needs no log entry (see [`read_txn`](crate::read_txn)).
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.success.iter().chain(&self.failure).all(|op| match op {
            Op::Range(_) => true,
            Op::Txn(nested) => nested.is_read_only(),
            Op::Put(_) | Op::DeleteRange(_) | Op::Empty => false,
        })
    }
}

/// One operation of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// A read; sees the operations before it.
    Range(RangeRequest),
    /// A write.
    Put(Put),
    /// A delete.
    DeleteRange(DeleteRange),
    /// A nested transaction; its compares see the state before the outermost one.
    Txn(Txn),
    /// The wire message named no operation. Refused by validation; it exists so that the refusal comes in etcd's order.
    Empty,
}

/// A condition on one key, or on every key of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    /// First key.
    pub key: Bytes,
    /// See [`Span::new`](crate::Span::new).
    pub range_end: Bytes,
    /// How the stored field relates to the operand in `target`.
    pub result: CompareResult,
    /// The field, with the operand to compare it to.
    pub target: CompareTarget,
}

/// The relation "stored field *relation* operand".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompareResult {
    /// Equal.
    Equal,
    /// Stored is greater.
    Greater,
    /// Stored is less.
    Less,
    /// Different.
    NotEqual,
}

/// A field of a key, with the operand to compare it to. A missing key has all numbers zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CompareTarget {
    /// Number of puts since creation.
    Version(i64),
    /// Revision of creation.
    CreateRevision(Revision),
    /// Revision of the last put.
    ModRevision(Revision),
    /// The value; a missing key never passes, whatever the relation.
    Value(Bytes),
    /// The attached lease.
    Lease(LeaseId),
}

/// A read. Never in the log by itself, but transactions carry it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RangeRequest {
    /// First key.
    pub key: Bytes,
    /// See [`Span::new`](crate::Span::new).
    pub range_end: Bytes,
    /// Most pairs to return; 0 or less means all.
    pub limit: i64,
    /// Read the state at this revision; 0 or less means the latest.
    pub revision: Revision,
    /// Direction of the sort.
    pub sort_order: SortOrder,
    /// Field of the sort.
    pub sort_target: SortTarget,
    /// A possibly stale answer of the contacted node is acceptable. Routing is the caller's matter, not ours.
    pub serializable: bool,
    /// Leave out values.
    pub keys_only: bool,
    /// Only count.
    pub count_only: bool,
    /// Leave out pairs modified before; 0 switches the filter off.
    pub min_mod_revision: Revision,
    /// Leave out pairs modified after; 0 switches the filter off.
    pub max_mod_revision: Revision,
    /// Leave out pairs created before; 0 switches the filter off.
    pub min_create_revision: Revision,
    /// Leave out pairs created after; 0 switches the filter off.
    pub max_create_revision: Revision,
}

/// Direction of a sort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SortOrder {
    /// Key order; ascending if the target is not the key.
    #[default]
    None,
    /// Smallest first.
    Ascend,
    /// Largest first.
    Descend,
    /// A number the protocol does not define; refused by validation.
    Unknown,
}

/// Field of a sort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SortTarget {
    /// The key, bytewise.
    #[default]
    Key,
    /// The version.
    Version,
    /// The revision of creation.
    Create,
    /// The revision of the last put.
    Mod,
    /// The value, bytewise.
    Value,
    /// A number the protocol does not define; refused by validation.
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_names_all_its_keys_is_a_point() {
        let key = || Bytes::from_static(b"k");
        let delete = |range_end: &'static [u8]| DeleteRange { key: key(), range_end: range_end.into(), prev_kv: false };
        let range = |range_end: &'static [u8], revision| {
            Op::Range(RangeRequest {
                key: key(),
                range_end: range_end.into(),
                revision: Revision(revision),
                ..RangeRequest::default()
            })
        };
        let compare = |range_end: &'static [u8]| Compare {
            key: key(),
            range_end: range_end.into(),
            result: CompareResult::Equal,
            target: CompareTarget::Version(0),
        };
        let txn = |compare, op| Command::Txn(Txn { compares: vec![compare], success: vec![], failure: vec![op] });
        let nested = |op| Op::Txn(Txn { success: vec![op], ..Txn::default() });
        for (command, is_point) in [
            (Command::Put(Put { key: key(), ..Put::default() }), true),
            (Command::DeleteRange(delete(b"")), true),
            (Command::DeleteRange(delete(b"l")), false),
            (txn(compare(b""), range(b"", 0)), true),
            (txn(compare(b"l"), range(b"", 0)), false),
            (txn(compare(b""), range(b"l", 0)), false),
            (txn(compare(b""), range(b"", 7)), false),
            (txn(compare(b""), nested(Op::DeleteRange(delete(b"")))), true),
            (txn(compare(b""), nested(Op::DeleteRange(delete(b"l")))), false),
            (Command::Txn(Txn { compares: vec![compare(b""); POINT_STEPS_MAX], ..Txn::default() }), true),
            (Command::Txn(Txn { compares: vec![compare(b""); POINT_STEPS_MAX + 1], ..Txn::default() }), false),
            (Command::LeaseRevoke(LeaseRevoke { id: LeaseId(1) }), false),
        ] {
            assert_eq!(command.is_point(), is_point, "{command:?}");
        }
    }
}
