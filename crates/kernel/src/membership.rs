//! Who belongs to a group, and how that changes along the log.
//!
//! A membership takes effect when its config entry is *appended* and is given up again when the entry is truncated, so
//! the kernel keeps, beside the membership at the last entry handed out, those of all later config entries. A config
//! entry is a compare-and-swap: it names the membership it replaces and is void if that is not the current one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base::{Ballot, Index, NodeId, ReplicaId};
use bytes::Bytes;

use crate::entry::{Entry, EntryKind, Mark};
use crate::wire;

/// A replica and the node it lives on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Member {
    /// The replica.
    pub replica: ReplicaId,
    /// Its node.
    pub node: NodeId,
}

/// The members of a group. `outgoing` is not empty while a change is under way (joint consensus, Raft thesis 4.3):
/// then a quorum is a majority of `voters` *and* a majority of `outgoing`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Membership {
    /// Voters, or the incoming voters of a change.
    pub voters: BTreeSet<ReplicaId>,
    /// The voters being left behind by a change.
    pub outgoing: BTreeSet<ReplicaId>,
    /// Replicas that receive the log and never count. During a change a voter on its way to being a learner is
    /// already listed here and still counts among `outgoing`.
    pub learners: BTreeSet<ReplicaId>,
    /// Where each replica of the sets above lives.
    pub nodes: BTreeMap<ReplicaId, NodeId>,
    /// Index of the config entry that set this membership; a change names it as its base.
    pub index: Index,
}

impl Membership {
    /// The membership of a new group.
    #[must_use]
    pub fn initial(members: &[Member]) -> Self {
        Self {
            voters: members.iter().map(|m| m.replica).collect(),
            nodes: members.iter().map(|m| (m.replica, m.node)).collect(),
            ..Self::default()
        }
    }

    /// Whether a change is under way.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether `replica` counts in quorums, be it on the incoming or on the outgoing side.
    #[must_use]
    pub fn is_voter(&self, replica: ReplicaId) -> bool {
        self.voters.contains(&replica) || self.outgoing.contains(&replica)
    }

    /// Whether `replica` belongs to the group in any part.
    #[must_use]
    pub fn contains(&self, replica: ReplicaId) -> bool {
        self.is_voter(replica) || self.learners.contains(&replica)
    }

    /// Everyone that counts in a quorum, each once.
    pub fn all_voters(&self) -> impl Iterator<Item = ReplicaId> {
        self.voters.union(&self.outgoing).copied()
    }

    /// Everyone, each once.
    pub fn replicas(&self) -> impl Iterator<Item = ReplicaId> {
        self.nodes.keys().copied()
    }

    /// Sets that cannot come from this kernel: no voter, a member without a node, a node without a member, a learner
    /// that is an incoming voter. What is not sound is never put into effect.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        !self.voters.is_empty()
            && self.voters.is_disjoint(&self.learners)
            && self.all_voters().chain(self.learners.iter().copied()).all(|replica| self.nodes.contains_key(&replica))
            && self.nodes.keys().all(|replica| self.contains(*replica))
    }

    /// The membership that replaces this one on the way to `voters` and `learners`: joint if the voters change.
    /// `None` if the target makes no sense: a replica twice, two replicas on a node, a replica that moves, no voter.
    pub(crate) fn towards(&self, voters: &[Member], learners: &[Member]) -> Option<Self> {
        let mut next = Self::initial(voters);
        next.learners = learners.iter().map(|member| member.replica).collect();
        let target: Vec<&Member> = voters.iter().chain(learners).collect();
        let hosts: BTreeSet<NodeId> = target.iter().map(|member| member.node).collect();
        next.nodes = target.iter().map(|member| (member.replica, member.node)).collect();
        let distinct = next.nodes.len() == target.len() && hosts.len() == target.len();
        let settled = |member: &Member| self.nodes.get(&member.replica).is_none_or(|node| *node == member.node);
        if !distinct || voters.is_empty() || !target.into_iter().all(settled) {
            return None;
        }
        if next.voters != self.voters {
            next.outgoing.clone_from(&self.voters);
            let staying: Vec<_> = next.outgoing.iter().map(|replica| (*replica, self.nodes[replica])).collect();
            next.nodes.extend(staying);
        }
        Some(next)
    }

    /// The membership after a joint one.
    pub(crate) fn leave_joint(&self) -> Self {
        let mut next = Self { outgoing: BTreeSet::new(), ..self.clone() };
        let stays = |replica: &ReplicaId| next.voters.contains(replica) || next.learners.contains(replica);
        next.nodes = self.nodes.iter().filter(|(replica, _)| stays(replica)).map(|(r, n)| (*r, *n)).collect();
        next
    }
}

/// Payload of a config entry: "replace the membership set at `base` by `next`".
pub(crate) fn change_payload(base: Index, next: &Membership) -> Bytes {
    let mut out = Vec::new();
    wire::put_change(&mut out, base, next);
    out.into()
}

/// The membership that config entry `entry` puts in the place of `current`, unless the entry is void: fenced, based on
/// another membership, or unreadable. The same answer at every replica.
fn replacement(entry: &Entry, current: &Membership, fence: Ballot) -> Option<Membership> {
    if entry.origin < fence {
        return None;
    }
    let (base, mut next) = wire::decode_change(entry.payload.clone()).ok()?;
    next.index = entry.index;
    (base == current.index && next.is_sound()).then_some(next)
}

/// Payload of a leader's marker at `index`. The first entry of every log is a marker, and it carries the membership the
/// group was founded with: that one has no config entry, and a later replica must be able to learn it.
pub(crate) fn marker_payload(index: Index, current: &Membership) -> Bytes {
    if index == Index(1) { change_payload(Index(0), current) } else { Bytes::new() }
}

/// The membership in the first entry of a log.
fn founders(entry: &Entry) -> Option<Membership> {
    let (_, membership) = wire::decode_change(entry.payload.clone()).ok()?;
    (entry.kind == EntryKind::EpochStart && membership.index == Index(0) && membership.is_sound()).then_some(membership)
}

/// The memberships along the log from the last entry handed out to the end.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Timeline {
    mark: Mark,
    later: VecDeque<Membership>,
    /// Highest origin up to the end of the log.
    fence: Ballot,
}

impl Timeline {
    /// Nothing but `mark`, followed by `tail`.
    pub(crate) fn new<'a>(mark: Mark, tail: impl Iterator<Item = &'a Entry>) -> Self {
        let mut timeline = Self { fence: mark.max_origin, mark, later: VecDeque::new() };
        timeline.rebuild(tail);
        timeline
    }

    /// Position, fence and membership after the last entry handed out.
    pub(crate) const fn mark(&self) -> &Mark {
        &self.mark
    }

    /// The membership in effect at the end of the log: the one to count quorums with.
    pub(crate) fn effective(&self) -> &Membership {
        self.later.back().unwrap_or(&self.mark.membership)
    }

    /// The membership in effect at `index`, which must not lie before the mark.
    pub(crate) fn at(&self, index: Index) -> &Membership {
        self.later.iter().rev().find(|membership| membership.index <= index).unwrap_or(&self.mark.membership)
    }

    /// All memberships from the mark to the end of the log, oldest first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Membership> {
        std::iter::once(self.mark.membership.as_ref()).chain(&self.later)
    }

    /// Follows one entry appended to the log; true if the effective membership changed.
    pub(crate) fn append(&mut self, entry: &Entry) -> bool {
        if entry.index == Index(1) && self.mark.membership.nodes.is_empty() {
            // A replica that joined later and is fed the log from its start is told what the founders were given.
            self.mark.membership = founders(entry).unwrap_or_default().into();
        }
        let next = match entry.kind {
            EntryKind::EpochStart | EntryKind::Command => None,
            EntryKind::Config => replacement(entry, self.effective(), self.fence),
        };
        self.fence = self.fence.max(entry.origin);
        let Some(next) = next else { return false };
        self.later.push_back(next);
        true
    }

    /// Starts over after the log was cut or rewritten; `tail` are the entries after the mark.
    pub(crate) fn rebuild<'a>(&mut self, tail: impl Iterator<Item = &'a Entry>) {
        self.later.clear();
        self.fence = self.mark.max_origin;
        for entry in tail {
            self.append(entry);
        }
    }

    /// Moves the mark over the next entry, which is committed. Returns whether the entry has an effect: an entry whose
    /// origin is below one already passed belongs to a leader that has been superseded (the apply fence).
    #[inline]
    pub(crate) fn hand_out(&mut self, entry: &Entry) -> bool {
        assert!(entry.index == self.mark.position.index.next(), "entry {} skips {:?}", entry.index, self.mark.position);
        let mut effective = entry.origin >= self.mark.max_origin;
        if entry.kind == EntryKind::Config {
            effective = self.later.front().is_some_and(|membership| membership.index == entry.index);
            if let Some(membership) = self.later.pop_front_if(|membership| membership.index == entry.index) {
                self.mark.membership = membership.into();
            }
        }
        self.mark.position = entry.position();
        self.mark.max_origin = self.mark.max_origin.max(entry.origin);
        effective
    }

    /// Config entries are in ascending order after the mark.
    pub(crate) fn check(&self) {
        let mut previous = self.mark.position.index;
        for membership in &self.later {
            assert!(membership.index > previous, "membership of {} not after {previous}", membership.index);
            previous = membership.index;
        }
        assert!(self.mark.membership.index <= self.mark.position.index, "the mark's membership lies ahead of it");
    }
}
