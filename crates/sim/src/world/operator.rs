//! The operator: adds members, removes them, and replaces those that are gone, by the requests that users' tools make
//! and in the server's order: a member is written down before it belongs to the group, learns before it votes, and is
//! crossed out after it left.
//!
//! Invariant: whoever is to leave without having failed stays if damage could then meet a majority.

use std::collections::BTreeSet;

use base::NodeId;
use kernel::Membership;
use mvcc::{Command, MemberChange, MemberStep};
use node::{Event, Reconfiguration, Request, Ticket};

use super::clients::{Call, Caller};
use super::{Happening, World};
use crate::counters::Counter;
use crate::fault::FaultKind;
use crate::machine::{GROUP, Machine, Standing};
use crate::members::{Directory, record};
use crate::random::{between, percent};

/// Wishes worked on at a time: two people at it do not wait for each other.
const AT_A_TIME: usize = 2;

/// What is to become of a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wish {
    Add(NodeId),
    Remove(NodeId),
}

/// A wish that is not fulfilled yet.
struct Open {
    wish: Wish,
    /// What it is for.
    kind: FaultKind,
    /// The request under way for it.
    ticket: Option<u64>,
}

/// See the module.
pub(crate) struct Operator {
    open: Vec<Open>,
    /// Who votes once the wishes to remove are fulfilled, and before those to add are.
    members: BTreeSet<NodeId>,
    /// Who may suffer lasting damage.
    victims: BTreeSet<NodeId>,
}

/// What to do next for a wish.
enum Step {
    Ask(Request),
    /// The member can be started.
    Start(NodeId),
    Wait,
    Done,
}

impl Operator {
    pub(crate) fn new(founders: u64, victims: BTreeSet<NodeId>) -> Self {
        Self { open: Vec::new(), members: (1..=founders).map(NodeId).collect(), victims }
    }

    pub(crate) fn wish(&mut self, wish: Wish, kind: FaultKind) {
        if let Wish::Remove(node) = wish {
            self.members.remove(&node);
        }
        self.open.push(Open { wish, kind, ticket: None });
    }

    /// Whether the cluster can do without this member, whoever of the rest is damaged.
    pub(crate) fn can_spare(&self, node: NodeId) -> bool {
        let rest: BTreeSet<NodeId> = self.members.iter().copied().filter(|member| *member != node).collect();
        let damaged = rest.intersection(&self.victims).count();
        self.members.contains(&node) && rest.len() >= 2 && 2 * damaged < rest.len()
    }

    /// Whom to ask in place of `node`: itself, unless it is no member any more. Now and then a new one.
    pub(crate) fn in_place_of(&self, node: NodeId, founders: u64, turn: u64) -> NodeId {
        let late: Vec<NodeId> = self.members.iter().copied().filter(|member| member.0 > founders).collect();
        let is_member = self.members.contains(&node);
        let choices = if is_member { late } else { self.members.iter().copied().collect() };
        match choices.len() as u64 {
            0 => node,
            _ if is_member && !turn.is_multiple_of(4) => node,
            len => choices[(turn / 4 % len) as usize],
        }
    }

    /// The request for a wish came to an end, whatever it was.
    pub(crate) fn answered(&mut self, ticket: u64) {
        if let Some(open) = self.open.iter_mut().find(|open| open.ticket == Some(ticket)) {
            open.ticket = None;
        }
    }
}

impl World<'_> {
    /// Goes on with what is wished for. Whoever leads is asked; what was refused, or got lost, is asked for again.
    pub(super) fn operate(&mut self) {
        for place in (0..AT_A_TIME.min(self.operator.open.len())).rev() {
            let Open { wish, kind, ticket } = self.operator.open[place];
            let Some(leader) = self.leader().filter(|_| ticket.is_none()) else { continue };
            match self.next_step(&self.machines[leader], wish) {
                Step::Wait => {}
                Step::Ask(request) => {
                    let ticket = self.ticket();
                    let life = self.machines[leader].life;
                    let call = Call { caller: Caller::Members, machine: leader, life, read: None };
                    self.clients.calls.insert(ticket, call);
                    self.operator.open[place].ticket = Some(ticket);
                    if let Wish::Remove(node) = wish {
                        let gone = self.place(node);
                        self.machines[gone].wounds.removed = true;
                    }
                    let now = self.now();
                    self.trace.note(now, 42, || format!("{wish:?}: asks n{} #{ticket}: {request:?}", leader + 1));
                    self.tell(leader, Event::Request(Ticket(ticket), request));
                }
                Step::Start(node) => self.install_member(leader, node),
                Step::Done => {
                    self.operator.open.remove(place);
                    self.had_effect(kind);
                    match wish {
                        Wish::Add(node) => {
                            self.operator.members.insert(node);
                            self.counters.count(Counter::MembersJoined);
                        }
                        Wish::Remove(_) => self.counters.count(Counter::MembersRemoved),
                    }
                }
            }
        }
    }

    /// What is to be done next at this leader.
    fn next_step(&self, leader: &Machine, wish: Wish) -> Step {
        let Some(replica) = leader.process.as_ref().and_then(|process| process.node.replica(GROUP)) else {
            return Step::Wait;
        };
        let (membership, directory) = (replica.membership(), &leader.directory);
        let is_settled = !membership.is_joint() && membership.index <= replica.status().commit;
        let is_in = |id: NodeId| membership.nodes.values().any(|node| *node == id);
        let reconfigure = |change| Step::Ask(Request::Reconfigure { group: GROUP, change });
        match wish {
            Wish::Add(id) if !directory.members.contains(&id) => write_down(directory, MemberStep::Add(record(id))),
            Wish::Add(id) if !is_in(id) && membership.learners.is_empty() => {
                reconfigure(Reconfiguration::AddLearner(id))
            }
            Wish::Add(id) if !is_in(id) => Step::Wait,
            Wish::Add(id) if self.machines[self.place(id)].standing == Standing::Spare => match is_settled {
                true => Step::Start(id),
                false => Step::Wait,
            },
            Wish::Add(id) if learns(membership, id) => reconfigure(Reconfiguration::Promote(id)),
            Wish::Add(_) if !is_settled => Step::Wait,
            Wish::Add(_) => Step::Done,
            // The server lets a leader hand over first; a group must do without that, too.
            Wish::Remove(id) if is_in(id) && leader.id == id && (self.now() / 100_000).is_multiple_of(2) => {
                Step::Ask(Request::TransferLeadership { group: GROUP, to: None })
            }
            Wish::Remove(id) if is_in(id) && self.leaves_a_stranger(id) => Step::Wait,
            Wish::Remove(id) if is_in(id) => reconfigure(Reconfiguration::Remove(id)),
            Wish::Remove(_) if !is_settled => Step::Wait,
            Wish::Remove(id) if directory.members.contains(&id) => write_down(directory, MemberStep::Remove(id)),
            Wish::Remove(_) => Step::Done,
        }
    }

    /// Whether, without this one, some member would know nobody any more who knows it: it missed that the others were
    /// added, and they cannot tell it from a machine that lost its data. It has to catch up first, and not only in
    /// memory.
    fn leaves_a_stranger(&self, leaver: NodeId) -> bool {
        let stays = |machine: &&Machine| machine.id != leaver && self.operator.members.contains(&machine.id);
        let serves = |machine: &&Machine| matches!(machine.standing, Standing::Running | Standing::Down);
        let staying: Vec<&Machine> = self.machines.iter().filter(stays).filter(serves).collect();
        let vouches = |one: &Machine, other: &Machine| {
            let noted = other.process.as_ref().is_some_and(|process| process.peers.noted().contains_key(&one.id));
            one.id != other.id && noted && one.directory.lasting.contains(&other.id)
        };
        !staying.iter().all(|one| staying.iter().any(|other| vouches(one, other)))
    }

    /// A machine with an empty disk is started as the member that was added, and told by the others who they are.
    fn install_member(&mut self, leader: usize, node: NodeId) {
        let mut told = self.machines[leader].directory.members.clone();
        told.insert(node);
        let place = self.place(node);
        let delay = between(&mut self.chance.crash, 10_000, 1_000_000);
        let machine = &mut self.machines[place];
        machine.directory = Directory::new(told);
        machine.standing = Standing::Down;
        let life = machine.life;
        self.schedule.after(delay, Happening::Restart { machine: place, life });
    }

    /// A member loses its disk, or its whole machine, and is replaced by a new one.
    pub(super) fn replace(&mut self, node: NodeId, by: NodeId, down_us: u64) {
        if !self.operator.members.contains(&node) {
            return;
        }
        if percent(&mut self.chance.crash, 50) {
            self.wipe(node, down_us);
        } else {
            self.lose(node);
        }
        self.operator.wish(Wish::Remove(node), FaultKind::Replace);
        self.operator.wish(Wish::Add(by), FaultKind::Replace);
    }

    /// A member goes, if the others can do without.
    pub(super) fn leave(&mut self, node: NodeId) {
        if self.operator.can_spare(node) {
            self.operator.wish(Wish::Remove(node), FaultKind::Leave);
        }
    }

    /// Whether a machine knows nobody who is left, because it lost its data, or was cut off when it was removed itself:
    /// it was set up with the founders, who are all gone, and waits for them. It harms nobody, and nobody can tell it.
    pub(super) fn is_astray(&self, machine: &Machine) -> bool {
        let mut known = machine.directory.members.intersection(&self.operator.members);
        let wounds = machine.wounds;
        (wounds.wiped || wounds.removed) && known.all(|member| *member == machine.id)
    }

    /// What is wrong with the members once everything should be as it was wished for, in words.
    pub(super) fn wrong_members(&self) -> Option<String> {
        if let Some(open) = self.operator.open.first() {
            return Some(format!("{:?} is not done", open.wish));
        }
        let meant = &self.operator.members;
        for machine in self.running().filter(|machine| !self.is_astray(machine)) {
            let id = machine.id;
            if !meant.contains(&id) {
                return Some(format!("{id} was removed and runs on"));
            }
            let Some(replica) = machine.process.as_ref().and_then(|process| process.node.replica(GROUP)) else {
                continue;
            };
            let membership = replica.membership();
            let voters: BTreeSet<NodeId> = membership.voters.iter().map(|voter| membership.nodes[voter]).collect();
            let is_right = voters == *meant && !membership.is_joint() && membership.learners.is_empty();
            if !is_right || machine.directory.members != *meant {
                return Some(format!("{id} takes {membership:?} for the members, not {meant:?}"));
            }
        }
        None
    }
}

/// Whether a member learns.
fn learns(membership: &Membership, id: NodeId) -> bool {
    membership.learners.iter().any(|replica| membership.nodes.get(replica) == Some(&id))
}

fn write_down(directory: &Directory, step: MemberStep) -> Step {
    let payload = Command::Member(MemberChange { founders: directory.records(), step }).encode();
    Step::Ask(Request::Propose { group: GROUP, payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_leaves_if_the_rest_could_lose_its_majority() {
        let mut operator = Operator::new(3, BTreeSet::from([NodeId(3)]));
        assert!(!operator.can_spare(NodeId(1)), "of two, one may fail");
        assert!(operator.can_spare(NodeId(3)), "the others are sound");
        operator.members.insert(NodeId(4));
        assert!(operator.can_spare(NodeId(1)));
        operator.wish(Wish::Remove(NodeId(1)), FaultKind::Leave);
        assert!(!operator.can_spare(NodeId(2)), "who is to leave counts no more");
    }

    #[test]
    fn whoever_left_is_asked_no_more_and_new_ones_are() {
        let mut operator = Operator::new(3, BTreeSet::new());
        assert!((0..8).all(|turn| operator.in_place_of(NodeId(2), 3, turn) == NodeId(2)));
        operator.members = BTreeSet::from([NodeId(1), NodeId(3), NodeId(4)]);
        assert!((0..40).all(|turn| operator.in_place_of(NodeId(2), 3, turn) != NodeId(2)));
        let asked: BTreeSet<_> = (0..8).map(|turn| operator.in_place_of(NodeId(1), 3, turn)).collect();
        assert_eq!(asked, BTreeSet::from([NodeId(1), NodeId(4)]));
    }
}
