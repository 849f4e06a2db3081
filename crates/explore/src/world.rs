//! The states of a cluster and what may follow each: hosts, past, what is spent, and the packets in flight, all by
//! number in one short row of words.
//!
//! Invariant: the successors of a state come in the same order whenever they are asked for, so a path is a row of small
//! numbers.

use std::collections::BTreeSet;
use std::rc::Rc;

use base::ReplicaId;
use kernel::{Body, Lapse, Message};

use crate::config::{Bounds, Config};
use crate::fingerprint::{FixedMap, Interner};
use crate::host::{Event, Host, Input, Packet, needs_atomic_batches};
use crate::lab::{Lab, Outcome};
use crate::past::{Breach, Past, compare};
use crate::sight::{Sight, Sights};

/// How often each bounded thing has happened.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Spent([u8; 12]);

/// Positions in [`Spent`].
#[derive(Clone, Copy)]
enum Purse {
    Campaigns,
    StepDowns,
    Heartbeats,
    Crashes,
    Duplicates,
    Proposals,
    Reads,
    Changes,
    Transfers,
    Compactions,
}

impl Spent {
    const fn get(self, purse: Purse) -> u8 {
        self.0[purse as usize]
    }

    const fn allows(self, bounds: &Bounds, purse: Purse) -> bool {
        let most = match purse {
            Purse::Campaigns => bounds.campaigns,
            Purse::StepDowns => bounds.step_downs,
            Purse::Heartbeats => bounds.heartbeats,
            Purse::Crashes => bounds.crashes,
            Purse::Duplicates => bounds.duplicates,
            Purse::Proposals => bounds.proposals,
            Purse::Reads => bounds.reads,
            Purse::Changes => bounds.changes,
            Purse::Transfers => bounds.transfers,
            Purse::Compactions => bounds.compactions,
        };
        self.get(purse) < most
    }
}

/// A state, unpacked.
#[derive(Debug)]
struct State {
    hosts: Vec<u32>,
    past: u32,
    spent: Spent,
    /// In ascending order.
    net: Vec<u32>,
}

/// A state as it is kept: the hosts, the past, what is spent, the packets.
pub(crate) type Words = Box<[u32]>;

impl Clone for State {
    fn clone(&self) -> Self {
        Self { hosts: self.hosts.clone(), past: self.past, spent: self.spent, net: self.net.clone() }
    }

    /// Without allocating: this happens once per transition.
    fn clone_from(&mut self, source: &Self) {
        self.hosts.clone_from(&source.hosts);
        (self.past, self.spent) = (source.past, source.spent);
        self.net.clone_from(&source.net);
    }
}

impl State {
    fn pack_into(&self, net: &[u32], words: &mut Vec<u32>) {
        words.clear();
        words.extend(&self.hosts);
        words.push(self.past);
        words.extend(self.spent.0.chunks(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]])));
        words.extend(net);
    }

    fn unpack(words: &[u32], hosts: usize) -> Self {
        let mut spent = Spent::default();
        for (bytes, word) in spent.0.chunks_mut(4).zip(&words[hosts + 1..hosts + 4]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Self { hosts: words[..hosts].to_vec(), past: words[hosts], spent, net: words[hosts + 4..].to_vec() }
    }
}

/// One way on from a state.
#[derive(Clone, Debug)]
pub(crate) struct Action {
    /// Position of the host.
    at: usize,
    input: Input,
    /// The packet that arrives stays in the network as well.
    stays: bool,
}

/// One state that follows.
pub(crate) struct Successor<'a> {
    pub(crate) words: &'a [u32],
    pub(crate) sights: Sights,
    pub(crate) breach: Breach,
}

/// The cluster's world; its states are rows of words.
pub(crate) struct World {
    pub(crate) lab: Lab,
    numbers: Vec<u64>,
    pasts: Interner<Past>,
    /// Verdicts on pairs of hosts, and of a host and a past.
    compared: FixedMap<(u32, u32), Breach>,
    checked: FixedMap<(u32, u32), Breach>,
}

impl World {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            lab: Lab::new(config),
            numbers: config.hosts(),
            pasts: Interner::new(),
            compared: FixedMap::default(),
            checked: FixedMap::default(),
        }
    }

    /// The first state.
    pub(crate) fn initial(&mut self) -> Words {
        let config = Rc::clone(&self.lab.config);
        let hosts = self.numbers.iter().map(|number| self.lab.hosts.intern(Host::new(&config, *number))).collect();
        let past = self.pasts.intern(Past::default());
        let mut state = State { hosts, past, spent: Spent::default(), net: Vec::new() };
        if let Some(at) = self.numbers.iter().position(|number| *number == config.leader) {
            self.elect(&mut state, at);
        }
        let mut words = Vec::new();
        state.pack_into(&state.net, &mut words);
        words.into()
    }

    /// Lets the host at `at` be elected and heard of by all, without a fault.
    fn elect(&mut self, state: &mut State, at: usize) {
        let mut next = Some((at, Input::Campaign));
        while let Some((at, input)) = next {
            let outcome = self.lab.step(state.hosts[at], input);
            let (sights, breach) = self.take(state, &Action { at, input, stays: false }, &outcome);
            assert!(breach.is_none(), "the prelude goes wrong: {breach:?} {sights:?}");
            let unsynced = |at: &usize| self.lab.hosts.get(state.hosts[*at]).disk.batches() > 0;
            next = (0..state.hosts.len()).find(unsynced).map(|at| (at, Input::Persist));
            if next.is_none() && !state.net.is_empty() {
                let packet = state.net[0];
                next = Some((self.position(packet), Input::Deliver(packet, Lapse::Silence)));
            }
        }
        state.spent = Spent::default();
    }

    /// Where a packet goes to.
    fn position(&self, packet: u32) -> usize {
        self.lab.position(packet)
    }

    /// Calls `visit` with every state that follows `words`.
    pub(crate) fn successors(&mut self, words: &[u32], mut visit: impl FnMut(&Action, Successor<'_>)) {
        let state = State::unpack(words, self.numbers.len());
        let mut row = Vec::new();
        let mut next = state.clone();
        for action in self.actions(&state) {
            let outcome = self.lab.step(state.hosts[action.at], action.input);
            if !self.is_within(&state, &action, &outcome) {
                continue;
            }
            next.clone_from(&state);
            let (mut sights, breach) = self.take(&mut next, &action, &outcome);
            let in_flight = self.lab.config.bounds.in_flight;
            sights.add_if(next.net.len() > in_flight, Sight::Dropped);
            each_fitting(&next.net, in_flight, &mut |net| {
                next.pack_into(net, &mut row);
                if *row != *words || breach.is_some() {
                    visit(&action, Successor { words: &row, sights, breach: breach.clone() });
                }
            });
        }
    }

    /// Everything that may happen, in order.
    fn actions(&mut self, state: &State) -> Vec<Action> {
        let mut actions = Vec::new();
        let config = Rc::clone(&self.lab.config);
        let bounds = &config.bounds;
        let allows = |purse| state.spent.allows(bounds, purse);
        for (nth, packet) in state.net.iter().enumerate() {
            if nth > 0 && state.net[nth - 1] == *packet {
                continue;
            }
            let at = self.position(*packet);
            for lapse in self.lapses(state.hosts[at], *packet) {
                let input = Input::Deliver(*packet, lapse);
                actions.push(Action { at, input, stays: false });
                if allows(Purse::Duplicates) {
                    actions.push(Action { at, input, stays: true });
                }
            }
        }
        for at in 0..state.hosts.len() {
            let host = self.lab.hosts.get(state.hosts[at]);
            self.actions_at(&config, state, at, host, &mut |input| {
                actions.push(Action { at, input, stays: false });
            });
        }
        actions
    }

    fn actions_at(&self, config: &Config, state: &State, at: usize, host: &Host, add: &mut impl FnMut(Input)) {
        let allows = |purse| state.spent.allows(&config.bounds, purse);
        let leads = host.replica.is_leader();
        let number = self.numbers[at];
        let may_campaign = config.candidates.is_empty() || config.candidates.contains(&number);
        if !leads && may_campaign && allows(Purse::Campaigns) {
            add(Input::Campaign);
        }
        if leads && allows(Purse::StepDowns) {
            add(Input::StepDown);
        }
        if leads && allows(Purse::Heartbeats) {
            add(Input::Heartbeat);
        }
        if host.disk.batches() > 0 {
            add(Input::Persist);
        }
        if allows(Purse::Crashes) && config.is_frail(number) {
            (0..=host.disk.unsynced(needs_atomic_batches(config.protocol)))
                .for_each(|kept| add(Input::Crash { kept: u8::try_from(kept).expect("few") }));
        }
        if leads && allows(Purse::Proposals) {
            add(Input::Propose { value: state.spent.get(Purse::Proposals) + 1 });
        }
        if allows(Purse::Reads) {
            add(Input::Read { id: state.spent.get(Purse::Reads) + 1 });
        }
        if leads && allows(Purse::Changes) {
            add(Input::Change);
        }
        if leads && allows(Purse::Transfers) {
            self.numbers.iter().filter(|to| **to != number).for_each(|to| add(Input::Transfer { to: *to }));
        }
        if leads && state.spent.get(Purse::Transfers) > 0 {
            add(Input::HandoverExpires);
        }
        if allows(Purse::Compactions) {
            add(Input::Compact);
        }
    }

    /// The assumptions under which a packet may arrive.
    fn lapses(&mut self, host: u32, packet: u32) -> Vec<Lapse> {
        let asks_for_vote = matches!(
            &**self.lab.packets.get(packet),
            Packet::Message(Message { body: Body::PreVote { .. } | Body::Elect { .. }, .. })
        );
        if !asks_for_vote || !self.lab.config.stickiness {
            return vec![Lapse::Silence];
        }
        let lenient = self.lab.step(host, Input::Deliver(packet, Lapse::Silence));
        let sticky = self.lab.step(host, Input::Deliver(packet, Lapse::Nothing));
        let same = (lenient.host, &lenient.sent) == (sticky.host, &sticky.sent);
        if same { vec![Lapse::Silence] } else { vec![Lapse::Silence, Lapse::Nothing] }
    }

    /// Whether the action does something and speaks of no round beyond the bound.
    fn is_within(&self, state: &State, action: &Action, outcome: &Outcome) -> bool {
        let before = state.hosts[action.at];
        let delivers = matches!(action.input, Input::Deliver(..));
        let idle = outcome.host == before && outcome.sent.is_empty() && outcome.events.is_empty();
        let pointless = idle && (!delivers || action.stays) && outcome.breach.is_none();
        outcome.round <= self.lab.config.bounds.rounds && !pointless
    }

    /// Performs an action with its outcome on `state` and judges the result.
    fn take(&mut self, state: &mut State, action: &Action, outcome: &Outcome) -> (Sights, Breach) {
        let &Action { at, input, stays } = action;
        let mut sights = outcome.sights;
        sights.add_if(matches!(input, Input::Deliver(_, Lapse::Nothing)), Sight::Sticky);
        sights.add_if(stays, Sight::Duplicated);
        spend(&mut state.spent, input, stays);
        if let Input::Deliver(packet, _) = input
            && !stays
        {
            let nth = state.net.binary_search(&packet).expect("a packet in flight arrives");
            state.net.remove(nth);
        }
        let before = std::mem::replace(&mut state.hosts[at], outcome.host);
        if before != outcome.host {
            state.net.retain(|packet| self.position(*packet) != at || !self.lab.is_dead(outcome.host, *packet));
        }
        for packet in &outcome.sent {
            if !self.lab.is_dead(state.hosts[self.position(*packet)], *packet) {
                state.net.push(*packet);
            }
        }
        state.net.sort_unstable();
        let breach = self.judge(state, action, before, outcome, &mut sights);
        (sights, breach)
    }

    /// Brings the past up to date and says what is wrong with the state.
    fn judge(
        &mut self,
        state: &mut State,
        &Action { at, input, .. }: &Action,
        before: u32,
        outcome: &Outcome,
        sights: &mut Sights,
    ) -> Breach {
        if outcome.breach.is_some() {
            return outcome.breach.clone();
        }
        let number = self.numbers[at];
        let mut past_is_new = false;
        if !outcome.events.is_empty() || matches!(input, Input::Read { .. }) {
            let mut past = Past::clone(self.pasts.get(state.past));
            if let Input::Read { id } = input {
                past.ask(number, id);
            }
            for event in &outcome.events {
                let breach = match event {
                    Event::Led(ballot) => {
                        let rival = |host: &u32| self.lab.hosts.get(*host).leads().is_some_and(|other| other < *ballot);
                        sights.add_if(state.hosts.iter().any(rival), Sight::TwoLeaders);
                        past.lead(number, *ballot)
                    }
                    Event::HandedOut(out) => past.hand_out(number, out, &self.holders(state, out)),
                    Event::Read(done) => past.answer(number, done),
                    Event::Restarted => {
                        past.restart(number);
                        None
                    }
                };
                if breach.is_some() {
                    return breach;
                }
            }
            let past = self.pasts.intern(past);
            past_is_new = past != state.past;
            state.past = past;
        }
        let hosts = match (past_is_new, before == outcome.host) {
            (true, _) => 0..state.hosts.len(),
            (false, false) => at..at + 1,
            (false, true) => return None,
        };
        for host in hosts {
            let breach = self.check(state.hosts[host], state.past);
            if breach.is_some() {
                return breach;
            }
        }
        (0..state.hosts.len()).filter(|other| *other != at).find_map(|o| self.compare(state.hosts[at], state.hosts[o]))
    }

    /// Who has a decided entry on stable storage.
    fn holders(&self, state: &State, out: &crate::host::HandedOut) -> BTreeSet<ReplicaId> {
        let hosts = state.hosts.iter().map(|host| self.lab.hosts.get(*host));
        let holding = hosts.filter(|host| host.disk.durable.holds(out.index, out.origin));
        holding.map(|host| ReplicaId(host.number)).collect()
    }

    fn check(&mut self, host: u32, past: u32) -> Breach {
        let (hosts, pasts) = (&self.lab.hosts, &self.pasts);
        self.checked.entry((host, past)).or_insert_with(|| pasts.get(past).check(hosts.get(host))).clone()
    }

    fn compare(&mut self, a: u32, b: u32) -> Breach {
        let (a, b) = (a.min(b), a.max(b));
        let (hosts, protocol) = (&self.lab.hosts, self.lab.config.protocol);
        self.compared.entry((a, b)).or_insert_with(|| compare(protocol, hosts.get(a), hosts.get(b))).clone()
    }

    /// Distinct hosts, packets and pasts so far.
    pub(crate) fn sizes(&self) -> (usize, usize, usize) {
        (self.lab.hosts.len(), self.lab.packets.len(), self.pasts.len())
    }

    /// An action in words, with what the host answers to it.
    pub(crate) fn describe(&mut self, words: &[u32], action: &Action) -> Vec<String> {
        let host = words[action.at];
        let outcome = self.lab.step(host, action.input);
        crate::trace::describe(&self.lab, self.numbers[action.at], host, action.input, action.stays, &outcome)
    }
}

fn spend(spent: &mut Spent, input: Input, stays: bool) {
    let purse = match input {
        Input::Deliver(..) if stays => Purse::Duplicates,
        Input::Deliver(..) | Input::Persist | Input::HandoverExpires => return,
        Input::Campaign => Purse::Campaigns,
        Input::StepDown => Purse::StepDowns,
        Input::Heartbeat => Purse::Heartbeats,
        Input::Crash { .. } => Purse::Crashes,
        Input::Propose { .. } => Purse::Proposals,
        Input::Read { .. } => Purse::Reads,
        Input::Change => Purse::Changes,
        Input::Transfer { .. } => Purse::Transfers,
        Input::Compact => Purse::Compactions,
    };
    spent.0[purse as usize] += 1;
}

/// Every way to lose packets until `most` are left; `net` is in ascending order.
fn each_fitting(net: &[u32], most: usize, visit: &mut impl FnMut(&[u32])) {
    let excess = net.len().saturating_sub(most);
    if excess == 0 {
        return visit(net);
    }
    lose(net, 0, excess, visit);
}

fn lose(net: &[u32], from: usize, excess: usize, visit: &mut dyn FnMut(&[u32])) {
    if excess == 0 {
        return visit(net);
    }
    for nth in from..net.len() {
        // Of equal packets it does not matter which is lost.
        if nth > from && net[nth] == net[nth - 1] {
            continue;
        }
        let mut rest = net.to_vec();
        rest.remove(nth);
        lose(&rest, nth, excess - 1, visit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_lose_packets_comes_once() {
        let mut seen = Vec::new();
        each_fitting(&[1, 1, 2, 3], 2, &mut |net| seen.push(net.to_vec()));
        seen.sort();
        assert_eq!(seen, [[1, 1], [1, 2], [1, 3], [2, 3]]);
        seen.clear();
        each_fitting(&[4, 5], 2, &mut |net| seen.push(net.to_vec()));
        assert_eq!(seen, [[4, 5]]);
    }
}
