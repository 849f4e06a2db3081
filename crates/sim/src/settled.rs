//! What became of every command, whoever was told: what the log did with it, and when the first node had done it.
//!
//! Clients often do not know, and a history full of "unknown" allows too much. What the simulator knows settles it: a
//! command that is in the log was done by then, one that is not was not done, and one that is there more often than it
//! was asked for was done twice.
//!
//! Invariant: commands are counted from the first of the log, so the same number is the same command on every node.

use std::collections::BTreeMap;

use base::{Index, LeaseId, Revision};
use bytes::Bytes;
use mvcc::{Command, Outcome, OutcomeResult};

use crate::history::{Asked, Operation, Told};

/// A command that took effect.
struct Effect {
    /// World time at which the first node had applied it.
    at: u64,
    payload: Bytes,
    outcome: Outcome,
}

/// A lease that the store ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LeaseEnd {
    pub(crate) id: LeaseId,
    /// The revision at which its keys went; that of the store if it had none.
    pub(crate) revision: Revision,
    /// When, in nanoseconds.
    pub(crate) moment: u64,
}

/// All that took effect, in order.
pub(crate) struct Settled {
    effects: Vec<Effect>,
    /// Leases that ended because their time was up, with the number of the command that did it.
    ends: Vec<(usize, LeaseEnd)>,
    /// How many commands there are up to an index, for every index at which a node has stood.
    counts: BTreeMap<Index, usize>,
}

impl Default for Settled {
    fn default() -> Self {
        Self { effects: Vec::new(), ends: Vec::new(), counts: BTreeMap::from([(Index(0), 0)]) }
    }
}

impl Settled {
    /// Number of the first command after `index`; none if no node has stood there.
    pub(crate) fn number_after(&self, index: Index) -> Option<usize> {
        self.counts.get(&index).copied()
    }

    /// Whether nobody has applied this command before.
    pub(crate) fn is_news(&self, number: Option<usize>) -> bool {
        number == Some(self.effects.len())
    }

    pub(crate) fn add(&mut self, at: u64, payload: Bytes, outcome: Outcome) {
        self.effects.push(Effect { at, payload, outcome });
    }

    /// The command that was added last ended a lease.
    pub(crate) fn ended(&mut self, id: LeaseId, revision: Revision) {
        let end = LeaseEnd { id, revision, moment: 0 };
        self.ends.push((self.effects.len() - 1, end));
    }

    /// The command with this number ended a lease with its keys at this revision.
    pub(crate) fn ended_at(&mut self, id: LeaseId, revision: Revision) {
        if let Some((_, end)) = self.ends.iter_mut().rev().find(|(_, end)| end.id == id) {
            end.revision = revision;
        }
    }

    /// What the store ended, with the moments of it.
    pub(crate) fn lease_ends(&self) -> Vec<LeaseEnd> {
        let mut moments = Vec::with_capacity(self.effects.len());
        let mut moment = 0;
        for effect in &self.effects {
            moment = (moment + 1).max(effect.at * 1000);
            moments.push(moment);
        }
        self.ends.iter().map(|(number, end)| LeaseEnd { moment: moments[*number], ..*end }).collect()
    }

    /// A node stands at `index`, with so many commands behind it.
    pub(crate) fn reached(&mut self, index: Index, number: usize) {
        self.counts.insert(index, number);
    }

    /// The history as somebody would have it who was told everything, with the moment, in nanoseconds, of each
    /// operation that the client was told nothing about. Errs if something was done that nobody had asked for, or more
    /// often than it was asked for.
    pub(crate) fn resolve(&self, history: &[Operation]) -> Result<Vec<(Operation, Option<u64>)>, String> {
        let mut history: Vec<_> = history.iter().map(|operation| (operation.clone(), None)).collect();
        let mut asked: BTreeMap<Bytes, Vec<usize>> = BTreeMap::new();
        for (place, (operation, _)) in history.iter().enumerate() {
            if let Asked::Write(command) = &operation.asked {
                asked.entry(command.encode()).or_default().push(place);
            }
        }
        let mut moment = 0;
        for Effect { at, payload, outcome } in &self.effects {
            if matches!(Command::decode(payload.clone()), Ok(Command::Member(_))) {
                // The operator's, and no client's.
                continue;
            }
            // What is applied in one batch happened in its order.
            moment = (moment + 1).max(at * 1000);
            if matches!(outcome.result, OutcomeResult::LeaseExpire(_) | OutcomeResult::LeaseCheckpoint(_)) {
                // The leader's own doing.
                continue;
            }
            let places = asked.get_mut(payload).map(|places| take(places, &history, *at, outcome));
            let Some(place) = places.flatten() else {
                return Err(format!("{outcome:?} at {at} is the outcome of a command nobody waits for any more"));
            };
            let (operation, known) = &mut history[place];
            if operation.told == Told::Unknown {
                operation.told = Told::Outcome(outcome.clone());
                // Any moment from the decision to this one would do: no read can tell them apart.
                *known = Some(moment);
                // Nobody was told so on a connection, so no connection promises anything.
                operation.connection = u64::MAX - place as u64;
            }
        }
        // The rest never happened, and the run is over.
        for place in asked.into_values().flatten() {
            let (operation, known) = &mut history[place];
            if operation.told == Told::Unknown {
                operation.told = Told::NotDone;
                *known = Some(operation.called_at * 1000);
            }
        }
        Ok(history)
    }
}

/// Takes the operation that this effect belongs to off the list: the one that was told so, or one of those that were
/// told nothing. Equal commands are worth the same, so any of them will do.
fn take(places: &mut Vec<usize>, history: &[(Operation, Option<u64>)], at: u64, outcome: &Outcome) -> Option<usize> {
    let told = |place: &usize| matches!(&history[*place].0.told, Told::Outcome(told) if told == outcome);
    let open = |place: &usize| history[*place].0.told == Told::Unknown && history[*place].0.called_at <= at;
    let found = places.iter().position(told).or_else(|| places.iter().position(open))?;
    Some(places.remove(found))
}
