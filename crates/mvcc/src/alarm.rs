//! Alarms as the log knows them: which members say that something is wrong.
//!
//! Invariant: while any member is out of space nothing that stores more is applied, on any member, whoever proposed it
//! and when; what deletes goes on. Who is out of space is decided by each member's host, which raises and clears the
//! alarm of its own member through the log.

use base::{Fault, NodeId};
use bytes::Bytes;

use crate::command::{Command, Op, Put, Txn};
use crate::engine::View;
use crate::keys;
use crate::reject::Reject;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AlarmKind {
    /// The member's quota is used up.
    NoSpace,
    /// The member holds something else than the others. Hosts refuse to serve; what is in the log is applied.
    Corrupt,
}

/// An alarm that is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Alarm {
    /// Whose.
    pub member: NodeId,
    /// What for.
    pub kind: AlarmKind,
}

impl AlarmKind {
    /// Part of the formats of rows and commands.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::NoSpace => 1,
            Self::Corrupt => 2,
        }
    }

    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::NoSpace),
            2 => Some(Self::Corrupt),
            _ => None,
        }
    }
}

/// The value of an alarm row; its key says everything.
pub(crate) const RAISED: Bytes = Bytes::from_static(&[1]);

/// The alarms that are up, by member.
pub fn alarms(view: &dyn View) -> Result<Vec<Alarm>, Fault> {
    let (from, to) = keys::alarm_bounds();
    view.scan(from, to).map(|row| keys::read_alarm(&row?.0)).collect()
}

/// Whether a command may run under these alarms.
pub(crate) fn admit(alarms: &[Alarm], command: &Command) -> Result<(), Reject> {
    if alarms.iter().any(|alarm| alarm.kind == AlarmKind::NoSpace) && command.space_bytes() > 0 {
        return Err(Reject::NoSpace);
    }
    Ok(())
}

/// What a pair takes besides key and value, and what a lease takes; as etcd counts.
const PAIR_BYTES: u64 = 256;
const LEASE_BYTES: u64 = 64;

impl Command {
    /// About how many bytes it may add to the store, as etcd counts them; 0 for what is admitted even when a member is
    /// out of space. A transaction is judged by what it could do: which of its lists runs is not known before.
    #[must_use]
    pub fn space_bytes(&self) -> u64 {
        match self {
            Self::Put(put) => put_bytes(put),
            Self::LeaseGrant(_) => LEASE_BYTES,
            Self::Txn(txn) => txn_bytes(txn),
            Self::DeleteRange(_)
            | Self::Compact(_)
            | Self::LeaseRevoke(_)
            | Self::LeaseExpire(_)
            | Self::LeaseCheckpoint(_)
            | Self::Alarm(_)
            | Self::Member(_) => 0,
        }
    }
}

fn put_bytes(put: &Put) -> u64 {
    PAIR_BYTES + (put.key.len() + put.value.len()) as u64
}

fn txn_bytes(txn: &Txn) -> u64 {
    let list = |ops: &[Op]| {
        ops.iter()
            .map(|op| match op {
                Op::Put(put) => put_bytes(put),
                Op::Txn(nested) => txn_bytes(nested),
                Op::Range(_) | Op::DeleteRange(_) | Op::Empty => 0,
            })
            .sum::<u64>()
    };
    list(&txn.success).max(list(&txn.failure))
}
