//! What has happened so far, as far as something later may contradict it; and the verdict whether it does.
//!
//! The past is part of a state: two states with the same hosts and packets but other decisions behind them are not the
//! same. The letters I1 to I11 are those of the invariants of the random walk in the kernel's tests.

use std::collections::BTreeSet;

use base::{Ballot, Index, ReplicaId};
use kernel::{Entry, EntryKind, Protocol, ReadDone, ReadId};

use crate::fingerprint::Fingerprint;
use crate::host::{HandedOut, Host};

/// An entry as the group decided it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Chosen {
    origin: Ballot,
    kind: EntryKind,
    payload: Fingerprint,
    effective: bool,
    /// The ballot in which it was first handed out.
    by: Ballot,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Past {
    chosen: Vec<Chosen>,
    led: BTreeSet<Ballot>,
    /// Reads under way: who asked, under what name, and how much was decided by then.
    reads: Vec<(u64, ReadId, Index)>,
}

/// Why a state cannot be right.
pub(crate) type Breach = Option<String>;

fn breach_unless(holds: bool, what: impl FnOnce() -> String) -> Breach {
    (!holds).then(what)
}

impl Past {
    fn decided(&self) -> Index {
        Index(self.chosen.len() as u64)
    }

    fn at(&self, index: Index) -> Option<&Chosen> {
        self.chosen.get(usize::try_from(index.0.checked_sub(1)?).ok()?)
    }

    /// A read is asked for.
    pub(crate) fn ask(&mut self, host: u64, id: u8) {
        self.reads.push((host, ReadId(u64::from(id)), self.decided()));
    }

    /// Nobody waits for the reads of a host that restarted.
    pub(crate) fn restart(&mut self, host: u64) {
        self.reads.retain(|(asked, ..)| *asked != host);
    }

    /// I9: a read sees everything that was decided before it was asked for.
    pub(crate) fn answer(&mut self, host: u64, done: &ReadDone) -> Breach {
        let asked = self.reads.iter().position(|(asked, id, _)| (*asked, *id) == (host, done.id));
        let Some(asked) = asked else { return Some(format!("I9: host {host} answers {:?} twice or unasked", done.id)) };
        let (.., floor) = self.reads.remove(asked);
        let Ok(at) = done.at else { return None };
        breach_unless(at >= floor, || {
            format!("I9: stale read: host {host} reads at {at}, but {floor} was decided when the read was asked for")
        })
    }

    /// I1: a ballot is led once.
    pub(crate) fn lead(&mut self, host: u64, ballot: Ballot) -> Breach {
        breach_unless(self.led.insert(ballot), || format!("I1: host {host} leads {ballot}, which was led before"))
    }

    /// I3, I4, I8: everyone is handed the same entries with the same effect, in order. I7: what is handed out by a
    /// leader is durable at a quorum; `holders` says who has the entry. The quorum is counted here, not by the kernel.
    pub(crate) fn hand_out(&mut self, host: u64, out: &HandedOut, holders: &BTreeSet<ReplicaId>) -> Breach {
        let &HandedOut { index, origin, kind, payload, effective, by, ref decided_under } = out;
        if let Some(old) = self.at(index) {
            let same = (old.origin, old.kind, old.payload, old.effective) == (origin, kind, payload, effective);
            return breach_unless(same, || {
                format!("I3: host {host} is handed {origin} {kind:?} at {index}, others {} {:?}", old.origin, old.kind)
            });
        }
        if index != self.decided().next() {
            return Some(format!("I8: host {host} is handed {index}, decided is {}", self.decided()));
        }
        let fence = self.chosen.iter().filter(|chosen| chosen.effective).map(|chosen| chosen.origin).max();
        if effective && fence.is_some_and(|fence| fence > origin) {
            return Some(format!("I8: {origin} takes effect at {index} after {fence:?}"));
        }
        self.chosen.push(Chosen { origin, kind, payload, effective, by });
        let membership = decided_under.as_ref()?;
        let majority = |set: &BTreeSet<ReplicaId>| 2 * set.intersection(holders).count() > set.len();
        let is_held =
            majority(&membership.voters) && (membership.outgoing.is_empty() || majority(&membership.outgoing));
        breach_unless(is_held, || {
            let (voters, outgoing) = (&membership.voters, &membership.outgoing);
            format!("I7: leader {by} decided {index} held durably by {holders:?} of {voters:?} {outgoing:?}")
        })
    }

    /// What one host says against the past. I4: committed entries stay. I5: a leader holds all that was decided below
    /// its ballot. I11: a leader has one undecided membership at most.
    pub(crate) fn check(&self, host: &Host) -> Breach {
        let written = host.disk.written();
        let number = host.number;
        let commit = host.replica.commit_index();
        if commit > self.decided() {
            return Some(format!("I3: host {number} takes {commit} for committed, decided is {}", self.decided()));
        }
        for (index, chosen) in (1..).map(Index).zip(&self.chosen) {
            if index <= commit && !written.holds(index, chosen.origin) {
                return Some(format!("I4: host {number} committed {index} and no longer has {}", chosen.origin));
            }
            if let Some(ballot) = host.leads().filter(|ballot| *ballot > chosen.by)
                && !written.holds(index, chosen.origin)
            {
                let own = written.log.get(&index).map(|entry| entry.origin);
                let decided = format!("{} was decided at {index} in {}", chosen.origin, chosen.by);
                return Some(format!("I5: {decided}, but leader {ballot} has {own:?} there"));
            }
        }
        host.leads()?;
        let undecided = written.log.range(self.decided().max(commit).next()..);
        let configs = undecided.filter(|(_, entry)| entry.kind == EntryKind::Config).count();
        breach_unless(configs <= 1, || format!("I11: leader {number} has {configs} undecided memberships"))
    }
}

/// I6: what two logs must agree on.
pub(crate) fn compare(protocol: Protocol, a: &Host, b: &Host) -> Breach {
    let (left, right) = (a.disk.written(), b.disk.written());
    let same_stamp = |index: Index| match (left.log.get(&index), right.log.get(&index)) {
        (Some(ours), Some(theirs)) => ours.stamp == theirs.stamp,
        (Some(_), None) | (None, _) => false,
    };
    let agrees = |index: &Index| {
        let what = |entry: &Entry| (entry.origin, entry.kind, entry.payload.clone());
        right.log.get(index).is_none_or(|theirs| what(theirs) == what(&left.log[index]))
    };
    let mut indexes = left.log.keys().copied();
    let differing = match protocol {
        // Whoever has the same stamp somewhere has the same log up to there.
        Protocol::Raft | Protocol::Zab => {
            let top = indexes.clone().rev().find(|index| same_stamp(*index))?;
            indexes.find(|index| *index <= top && !agrees(index))
        }
        // A ballot proposes one value for a slot.
        Protocol::MultiPaxos => indexes.find(|index| same_stamp(*index) && !agrees(index)),
        // A log is a prefix of the log of the leader whose ballot it was accepted in.
        Protocol::PaxosRaft if left.accepted == right.accepted => indexes.find(|index| !agrees(index)),
        Protocol::PaxosRaft => None,
    };
    differing.map(|index| {
        let (ours, theirs) = (&left.log[&index], &right.log[&index]);
        let entries = format!("{} of {} and {} of {}", ours.stamp, ours.origin, theirs.stamp, theirs.origin);
        format!("I6: hosts {} and {} must agree at {index}, but have {entries}", a.number, b.number)
    })
}
