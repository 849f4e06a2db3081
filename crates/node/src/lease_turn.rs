//! The node's part in leases: brings asks to the leader's clock and the clock's decisions into the log.
//!
//! Invariant: an ask is answered exactly once to its client; repeating it on the way does no harm. What is written here
//! runs at the end of every turn, and costs nothing when nothing is due.

use base::planted::{Defect, planted};
use base::{GroupId, Instant, LeaseId, NodeId};
use kernel::{ReadId, Refusal, Role};
use mvcc::{Lease, LeaseChange};

use crate::effect::{Effect, ReplyTo, Response};
use crate::group::Group;
use crate::lease_clock::LeaseTimes;
use crate::leases::{self, Ask, ForwardedAsk};
use crate::node::Node;
use crate::wire::{LeaseReply, PeerMessage};

impl Node {
    /// When a lease's time is up by this node's clock, which counts as long as it leads; to look at.
    #[must_use]
    pub fn lease_deadline(&self, group: GroupId, lease: LeaseId) -> Option<Instant> {
        self.groups.get(&group)?.leases.deadline(lease)
    }

    pub(crate) fn on_leases_loaded(&mut self, now: Instant, group: GroupId, leases: Vec<Lease>) {
        if let Some(group) = self.groups.get_mut(&group) {
            group.leases.load(now, leases);
        }
    }

    pub(crate) fn on_leases_changed(&mut self, now: Instant, group: GroupId, changes: Vec<LeaseChange>) {
        if let Some(group) = self.groups.get_mut(&group) {
            group.leases.change(now, changes);
        }
    }

    pub(crate) fn on_lease_ask(&mut self, group: GroupId, ask: Ask) {
        let taken = self.groups.get_mut(&group).map(|group| group.leases.arrive(ask));
        match taken {
            Some(true) => {}
            Some(false) => self.effects.push(refused(ask.reply, Refusal::Overloaded)),
            None => self.effects.push(refused(ask.reply, Refusal::NotLeader(None))),
        }
    }

    /// The leader's word, or its refusal: then the next look at those who wait finds somebody else to ask.
    pub(crate) fn on_lease_reply(&mut self, from: NodeId, id: u64, answer: LeaseReply) {
        let Some(ForwardedAsk { group, ask, .. }) = self.lease_forwards.take(id, from) else { return };
        match answer {
            LeaseReply::Times(times) => self.effects.push(answered(ask.reply, Some(times))),
            LeaseReply::NotFound => self.effects.push(answered(ask.reply, None)),
            LeaseReply::Refused(Refusal::NotLeader(_) | Refusal::NotReady) => self.park_ask(group, ask),
            LeaseReply::Refused(refusal) => self.effects.push(refused(ask.reply, refusal)),
        }
    }

    /// The connection to a node that had asks broke: nothing that was asked for can be harmful twice.
    pub(crate) fn on_leader_lost(&mut self, node: NodeId) {
        for ForwardedAsk { group, ask, .. } in self.lease_forwards.lost(node) {
            self.park_ask(group, ask);
        }
    }

    /// Somebody else leads, or nobody: what waits at a node that may have stopped is asked again.
    pub(crate) fn recall_asks(&mut self, group: GroupId) {
        let leader = self.groups[&group].remote_leader(self.config.id);
        for ForwardedAsk { ask, .. } in self.lease_forwards.astray(group, leader) {
            self.park_ask(group, ask);
        }
    }

    fn park_ask(&mut self, group: GroupId, ask: Ask) {
        self.groups.get_mut(&group).expect("asked a known group").leases.park(ask);
    }

    /// Tells everyone whose time is up. A remote client's own node does that for it.
    pub(crate) fn expire_lease_asks(&mut self, now: Instant) {
        let forwarded = self.lease_forwards.expire(now).into_iter().map(|forwarded| forwarded.ask);
        let waiting = self.groups.values_mut().flat_map(|group| group.leases.expire(now));
        for ask in forwarded.chain(waiting).collect::<Vec<_>>() {
            if let ReplyTo::Local(ticket) = ask.reply {
                self.effects.push(Effect::Reply(ticket, Response::TimedOut));
            }
        }
        for group in self.groups.values_mut() {
            group.leases.unpark();
        }
    }

    /// Everything about leases that this turn made possible.
    pub(crate) fn turn_leases(&mut self, now: Instant) {
        for id in self.groups.keys().copied().collect::<Vec<_>>() {
            let group = self.groups.get_mut(&id).expect("listed above");
            if planted(Defect::StaleExpiry) && group.leading().is_none() && group.leases.leads() {
                self.expire_as_a_leader_of_the_past(now, id);
                continue;
            }
            group.leases.lead(now, group.leading());
            match group.replica.role() {
                Role::Leader => self.lead_leases(now, id),
                // Its marker is on the way: until then it can neither answer nor refuse.
                Role::LeaderElect => {}
                Role::Follower | Role::PreCandidate | Role::Candidate => self.forward_asks(id),
            }
        }
    }

    fn lead_leases(&mut self, now: Instant, id: GroupId) {
        let group = self.groups.get_mut(&id).expect("a known group");
        group.leases.tick(now);
        let (answers, mut batches) = group.leases.finish_round(now, group.applied);
        if planted(Defect::UnconfirmedExpiry) {
            batches.extend(Some(group.leases.overdue_unconfirmed(now)).filter(|late| !late.is_empty()));
        }
        self.effects.extend(answers.into_iter().map(|(reply, times)| answered(reply, times)));
        for batch in batches {
            let index = propose(group, now, leases::expiry(&batch));
            group.leases.ending(now, batch, index);
            self.dirty.insert(id);
        }
        let times = group.leases.take_checkpoints(now);
        if !times.is_empty() {
            let index = propose(group, now, leases::checkpoint(&times));
            group.leases.writing(now, &times, index);
            self.dirty.insert(id);
        }
        if group.leases.wants_round(now) {
            let read = ReadId(self.next_read);
            if group.replica.read(now, read).is_ok() {
                self.next_read += 1;
                group.leases.asked(now, read);
                self.dirty.insert(id);
            }
        }
    }

    /// Hands what waits here to the leader, if there is one to talk to.
    fn forward_asks(&mut self, id: GroupId) {
        let group = self.groups.get_mut(&id).expect("a known group");
        if !group.leases.has_arrived() {
            return;
        }
        let leader = group.remote_leader(self.config.id);
        let reachable = leader.filter(|leader| self.connected.contains(leader));
        for ask in group.leases.take_arrived() {
            match (ask.reply, reachable) {
                (ReplyTo::Remote(..), _) => self.effects.push(refused(ask.reply, Refusal::NotLeader(leader))),
                (ReplyTo::Local(_), Some(node)) => {
                    let Ask { lease, ask: wanted, .. } = ask;
                    let forward = self.lease_forwards.add(ForwardedAsk { group: id, node, ask });
                    let message = PeerMessage::LeaseAsk { id: forward, group: id, lease, ask: wanted };
                    self.effects.push(Effect::Send(node, message));
                }
                (ReplyTo::Local(_), None) => group.leases.park(ask),
            }
        }
    }

    /// The defect: a clock that goes on after leadership, whose decisions find their way to the leader.
    fn expire_as_a_leader_of_the_past(&mut self, now: Instant, id: GroupId) {
        let group = self.groups.get_mut(&id).expect("a known group");
        group.leases.tick(now);
        let Some(leader) = group.remote_leader(self.config.id) else { return };
        let late = group.leases.overdue_unconfirmed(now);
        if !late.is_empty() {
            let message = PeerMessage::Forward { id: u64::MAX, group: id, payload: leases::expiry(&late) };
            self.effects.push(Effect::Send(leader, message));
        }
    }
}

/// The place of a command in the log; nothing if the kernel did not take it.
fn propose(group: &mut Group, now: Instant, payload: bytes::Bytes) -> Option<base::Index> {
    let (index, _) = group.replica.propose(now, payload).ok()?;
    group.proposed(index);
    Some(index)
}

fn answered(reply: ReplyTo, times: Option<LeaseTimes>) -> Effect {
    match reply {
        ReplyTo::Local(ticket) => Effect::Reply(ticket, Response::Lease(times)),
        ReplyTo::Remote(node, id) => {
            let answer = times.map_or(LeaseReply::NotFound, LeaseReply::Times);
            Effect::Send(node, PeerMessage::LeaseReply { id, answer })
        }
    }
}

fn refused(reply: ReplyTo, why: Refusal) -> Effect {
    match reply {
        ReplyTo::Local(ticket) => Effect::Reply(ticket, Response::Refused(why)),
        ReplyTo::Remote(node, id) => {
            Effect::Send(node, PeerMessage::LeaseReply { id, answer: LeaseReply::Refused(why) })
        }
    }
}
