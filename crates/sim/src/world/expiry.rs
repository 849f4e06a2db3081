//! Who may end leases: a leader that finds their time up, asks whether it still leads, and only then proposes the end.
//!
//! Invariant: judged when the proposal is about to be written, so that no lucky loss of the leadership is needed to see
//! that nobody was asked.

use base::{GroupId, NodeId, ReplicaId};
use kernel::{EntryKind, Record};
use mvcc::Command;
use node::PeerMessage;

use super::World;
use crate::counters::Counter;
use crate::machine::GROUP;
use crate::report::FailureKind;

impl World<'_> {
    /// Whose time is up is known to a leader that was confirmed, which proposes the end itself: nobody sends one.
    pub(super) fn only_leaders_end_leases(&mut self, machine: usize, to: NodeId, message: &PeerMessage) {
        let PeerMessage::Forward { payload, .. } = message else { return };
        self.counters.count(Counter::Forwards);
        if let Ok(Command::LeaseExpire(_) | Command::LeaseCheckpoint(_)) = Command::decode(payload.clone()) {
            let node = self.machines[machine].id;
            let detail = format!("{node} asks {to} to end leases, which only a confirmed leader may find over");
            self.fail(FailureKind::Agreement, detail);
        }
    }

    /// A leader that finds the time of leases up asks whether it still leads, and only then proposes to end them.
    pub(super) fn only_confirmed_leaders_end_leases(&mut self, machine: usize, batch: &[(GroupId, Vec<Record>)]) {
        let state = &self.machines[machine];
        let Some(process) = &state.process else { return };
        let status = process.node.status(GROUP).expect("the node has its group");
        let leader = (ReplicaId(state.id.0), status.ballot);
        if !process.node.replica(GROUP).is_some_and(kernel::Replica::is_leader) {
            return;
        }
        let appended = batch.iter().flat_map(|(_, records)| records).filter_map(|record| match record {
            Record::Append(entries) => Some(entries),
            _ => None,
        });
        let own = appended.flat_map(|entries| entries.iter()).filter(|entry| entry.origin == leader.1);
        let (mut ended, mut result) = (0, Ok(()));
        for entry in own.filter(|entry| entry.kind == EntryKind::Command) {
            let Ok(Command::LeaseExpire(end)) = Command::decode(entry.payload.clone()) else { continue };
            for lease in end.leases {
                let until = process.node.lease_deadline(GROUP, lease.id);
                result = result.and_then(|()| self.oracle.ends_lease(leader, lease.id, until));
                ended += 1;
            }
        }
        self.counters.add(Counter::EndsConfirmed, ended);
        self.judge(FailureKind::Agreement, result);
    }
}
