//! Who belongs to a group, changed one node at a time.
//!
//! Invariant: a change is refused when the members that would be left could not decide anything: then it could not even
//! be undone. A new node is a learner first, and votes when it has the others' data (the kernel sees to that).

use std::collections::BTreeSet;

use base::{GroupId, Instant, NodeId, ReplicaId};
use kernel::{Member, Refusal, Status};

use crate::effect::{Effect, Response};
use crate::event::Ticket;
use crate::group::Group;
use crate::node::Node;

/// A change of the members of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reconfiguration {
    /// A new node, which receives the log and does not vote. Its replica has the node's number.
    AddLearner(NodeId),
    /// A learner is to vote.
    Promote(NodeId),
    /// A node is no member any more.
    Remove(NodeId),
}

impl Node {
    /// Starts a change, if this node leads. Done means that it has begun; it has happened when it shows in the status.
    pub(crate) fn reconfigure(&mut self, now: Instant, ticket: Ticket, id: GroupId, change: Reconfiguration) {
        let me = self.config.id;
        let started = match self.touch(id) {
            Some(group) => start(group, now, me, change),
            None => Err(Refusal::NotLeader(None)),
        };
        let response = started.map_or_else(Response::Refused, |()| Response::Done);
        self.effects.push(Effect::Reply(ticket, response));
    }
}

fn start(group: &mut Group, now: Instant, me: NodeId, change: Reconfiguration) -> Result<(), Refusal> {
    if !group.leads() {
        return Err(Refusal::NotLeader(group.remote_leader(me)));
    }
    // Who is alive is judged by the present, not by the last heartbeat.
    group.replica.tick(now);
    let status = group.replica.status();
    let members = &status.membership;
    let find = |node: NodeId| members.nodes.iter().find(|(_, at)| **at == node).map(|(replica, _)| *replica);
    let (mut voters, mut learners) = (members.voters.clone(), members.learners.clone());
    let mut nodes = members.nodes.clone();
    match change {
        Reconfiguration::AddLearner(node) => {
            if find(node).is_some() {
                return Err(Refusal::BadMembership);
            }
            let replica = ReplicaId(node.0);
            nodes.insert(replica, node);
            learners.insert(replica);
        }
        Reconfiguration::Promote(node) => {
            let replica = find(node).filter(|replica| learners.remove(replica)).ok_or(Refusal::BadMembership)?;
            voters.insert(replica);
        }
        Reconfiguration::Remove(node) => {
            let replica = find(node).ok_or(Refusal::BadMembership)?;
            if voters.remove(&replica) && !can_decide(&status, me, &voters) {
                return Err(Refusal::MembershipBusy);
            }
            learners.remove(&replica);
        }
    }
    let placed = |set: BTreeSet<ReplicaId>| -> Vec<Member> {
        set.into_iter().map(|replica| Member { replica, node: nodes[&replica] }).collect()
    };
    let base = members.index;
    group.replica.change_membership(now, base, &placed(voters), &placed(learners)).map(drop)
}

/// Whether a majority of these voters was heard from lately.
fn can_decide(status: &Status, me: NodeId, voters: &BTreeSet<ReplicaId>) -> bool {
    let is_alive = |voter: &&ReplicaId| {
        status.membership.nodes.get(*voter) == Some(&me)
            || status.peers.iter().any(|(replica, _, alive)| replica == *voter && *alive)
    };
    voters.iter().filter(is_alive).count() > voters.len() / 2
}
