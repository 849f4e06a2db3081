//! Connections and messages between nodes.

use base::NodeId;
use bytes::Bytes;
use kernel::{Body, Message};
use node::{Event, PeerMessage};

use super::describe::describe;
use super::{Happening, World};
use crate::counters::Counter;
use crate::fault::{Fault, FaultKind, Link};
use crate::machine::{Machine, Standing};
use crate::network::Fate;
use crate::random::{between, percent};
use crate::report::FailureKind;

impl World<'_> {
    /// A node sends.
    pub(super) fn send(&mut self, machine: usize, to: NodeId, message: &PeerMessage) {
        let link = (self.machines[machine].id, to);
        if !self.network.link(link).connected {
            return;
        }
        let mut frame = Vec::with_capacity(64);
        message.encode(&mut frame);
        let frame = Bytes::from(frame);
        let now = self.now();
        self.trace.note(now, 30, || format!("{} > {} {}", link.0, link.1, describe(message)));
        self.trace.mix_bytes(&frame);
        self.timeline.sends(now, frame.len(), sent_again(message));
        let repeatable = match message {
            PeerMessage::Group(_)
            | PeerMessage::SnapshotChunk { .. }
            | PeerMessage::SnapshotAck { .. }
            | PeerMessage::SnapshotRefused { .. }
            | PeerMessage::LeaseAsk { .. }
            | PeerMessage::LeaseReply { .. } => true,
            PeerMessage::Forward { .. } | PeerMessage::ForwardReply { .. } => false,
        };
        let epoch = Some(self.network.link(link).epoch);
        match self.network.send(&mut self.chance.network, now, link, &frame, repeatable) {
            Fate::Lost => {
                let kind = if self.network.link(link).cuts > 0 { FaultKind::Cut } else { FaultKind::Weather };
                self.had_effect(kind);
                self.counters.count(Counter::Dropped);
            }
            Fate::Held => {
                self.had_effect(FaultKind::Clog);
                self.counters.count(Counter::Clogged);
            }
            Fate::Arrives(at, again, overtakes) => {
                if let Some(again) = again {
                    self.had_effect(FaultKind::Weather);
                    self.counters.count(Counter::Duplicated);
                    self.schedule.at(again, Happening::Frame { link, epoch, frame: frame.clone() });
                }
                self.counters.add(Counter::Reordered, u64::from(overtakes));
                self.schedule.at(at, Happening::Frame { link, epoch, frame });
            }
        }
    }

    /// A message arrives, if its connection still stands.
    pub(super) fn arrive_frame(&mut self, link: Link, epoch: Option<u64>, frame: Bytes) {
        let state = self.network.link(link);
        let gone = epoch.is_some_and(|epoch| epoch != state.epoch);
        if gone || state.cuts > 0 || !state.connected || state.severed {
            self.counters.count(Counter::Dropped);
            return;
        }
        let place = self.place(link.1);
        let now = self.now();
        let message = match PeerMessage::decode(frame) {
            Ok(message) => message,
            Err(error) => {
                return self.fail(FailureKind::Wire, format!("{} cannot read what {} sent: {error}", link.1, link.0));
            }
        };
        self.trace.note(now, 31 + 16 * place as u64, || format!("{} < {} {}", link.1, link.0, describe(&message)));
        self.counters.count(Counter::Delivered);
        if let PeerMessage::Group(message) = &message {
            self.oracle.confirmations.arrives(message);
        }
        self.tell(place, Event::Peer(link.0, message));
    }

    /// A node that just started dials everybody, and everybody dials it.
    pub(super) fn dial_all(&mut self, machine: usize) {
        let node = self.machines[machine].id;
        for link in self.network.links_of(node) {
            let other = self.place(if link.0 == node { link.1 } else { link.0 });
            if self.machines[other].standing == Standing::Spare {
                continue;
            }
            if self.network.link(link).severed {
                // The new process answers what is meant for the old one with a reset.
                self.lose_connection(link);
            }
            let delay = between(&mut self.chance.network, 1_000, 60_000);
            self.dial(link, delay);
        }
    }

    fn dial(&mut self, link: Link, delay: u64) {
        let lives = (self.machines[self.place(link.0)].life, self.machines[self.place(link.1)].life);
        self.schedule.after(delay, Happening::Connect { link, lives });
    }

    /// An attempt to connect: both must run, the way must be open, and neither may have forgotten who it was.
    pub(super) fn connect(&mut self, link: Link, lives: (u64, u64)) {
        let (from, to) = (self.place(link.0), self.place(link.1));
        let alive = self.machines[from].process.is_some() && self.machines[to].process.is_some();
        // Who starts later dials again.
        if !alive || lives != (self.machines[from].life, self.machines[to].life) || self.network.link(link).connected {
            return;
        }
        let now = self.now();
        if self.machines[from].directory.removed.contains(&link.1) {
            return;
        }
        let awake = self.machines[from].is_working(now) && self.machines[to].is_working(now);
        // The two shake hands, so it takes both directions.
        let open = self.network.link(link).cuts == 0 && self.network.link((link.1, link.0)).cuts == 0;
        // A node dials those it knows, and does not listen to a stranger: one of the two may have to catch up first.
        let known = self.machines[from].directory.members.contains(&link.1);
        let directory = &self.machines[to].directory;
        let welcome = directory.members.contains(&link.0) || directory.removed.contains(&link.0);
        if awake && open && !welcome {
            self.ask_about(to, link.0);
        }
        if !awake || !open || !known || !welcome {
            let delay = between(&mut self.chance.network, 50_000, 500_000);
            return self.dial(link, delay);
        }
        if self.machines[to].directory.removed.contains(&link.0) {
            let fault = base::Fault::Refused(format!("{} knows that {} was removed", link.1, link.0));
            return self.stop(from, &fault);
        }
        if !self.introduce(to, from) || !self.introduce(from, to) {
            return;
        }
        self.network.link_mut(link).connected = true;
        self.trace.note(now, 32, || format!("{} connects to {}", link.0, link.1));
        self.counters.count(Counter::Connected);
        self.tell(from, Event::PeerConnected(link.1));
    }

    /// A stranger calls, who may have become a member while `host` was away, and even lead by now: `host` asks those it
    /// knows. Whoever takes it for somebody who lost his data does not answer.
    fn ask_about(&mut self, host: usize, stranger: NodeId) {
        let id = self.machines[host].id;
        let Some(incarnation) = self.machines[host].process.as_ref().map(|process| process.incarnation) else { return };
        let now = self.now();
        let knows = |machine: &&Machine| {
            let link = (machine.id, id);
            let noted = machine.process.as_ref().map(|process| process.peers.noted().get(&id).copied());
            let is_open = |link| self.network.link(link).cuts == 0;
            self.machines[host].directory.members.contains(&machine.id)
                && machine.is_working(now)
                && noted.is_some_and(|noted| noted == Some(incarnation))
                && (is_open(link) && is_open((id, machine.id)))
                && machine.directory.members.contains(&stranger)
        };
        let Some(told) = self.machines.iter().find(knows).map(|machine| machine.directory.members.clone()) else {
            return;
        };
        self.counters.count(Counter::Strangers);
        self.machines[host].directory.meet(told);
    }

    /// `host` meets `guest` and notes whose data it speaks from. False if they do not talk: a guest that has forgotten
    /// who it was stops.
    fn introduce(&mut self, host: usize, guest: usize) -> bool {
        let id = self.machines[guest].id;
        let Some(incarnation) = self.machines[guest].process.as_ref().map(|process| process.incarnation) else {
            return false;
        };
        let Some(process) = &mut self.machines[host].process else { return false };
        match process.peers.note(id, incarnation) {
            Ok(noted) if noted == incarnation => self.meets((self.machines[host].id, id), incarnation),
            Ok(_) => {
                self.counters.count(Counter::Forgetful);
                let fault = base::Fault::Refused(format!("{} knows {id} from other data", self.machines[host].id));
                self.stop(guest, &fault);
                false
            }
            Err(fault) => {
                self.stop(host, &fault);
                false
            }
        }
    }

    /// Whoever met a node before must not take it for the same when it has lost its data: it does not know what it
    /// promised. An old note of a drive that lies may be lost.
    fn meets(&mut self, link: Link, incarnation: u64) -> bool {
        let first = *self.met.entry(link).or_insert(incarnation);
        let place = self.place(link.0);
        if first != incarnation && !self.machines[place].wounds.lies {
            let detail = format!("{} takes {}, which has lost its data, for its old self", link.0, link.1);
            self.fail(FailureKind::Recovery, detail);
        }
        first == incarnation || self.machines[place].wounds.lies
    }

    /// What a node knows of the members has changed: it hangs up on those that left.
    pub(super) fn follow_members(&mut self, machine: usize) {
        let node = self.machines[machine].id;
        for link in self.network.links_of(node) {
            let other = if link.0 == node { link.1 } else { link.0 };
            if self.machines[machine].directory.removed.contains(&other) {
                self.lose_connection(link);
            }
        }
    }

    /// The sender notices that its connection is gone.
    pub(super) fn disconnect(&mut self, link: Link, epoch: u64) {
        if self.network.link(link).epoch != epoch || !self.network.link(link).connected {
            return;
        }
        let ended = self.network.link(link).cuts == 0;
        if ended && !self.network.link(link).severed {
            // The way was open again before anybody noticed.
            return;
        }
        self.lose_connection(link);
    }

    fn lose_connection(&mut self, link: Link) {
        if !self.network.disconnect(link) {
            return;
        }
        let (now, from) = (self.now(), self.place(link.0));
        self.trace.note(now, 33, || format!("{} loses {}", link.0, link.1));
        self.counters.count(Counter::Disconnected);
        self.tell(from, Event::PeerLost(link.1));
        let delay = between(&mut self.chance.network, 50_000, 1_000_000);
        self.dial(link, delay);
    }

    /// A process died: its own connections are gone at once, the others' when they notice.
    pub(super) fn hang_up(&mut self, machine: usize, power: bool) {
        let node = self.machines[machine].id;
        for link in self.network.links_of(node) {
            if link.0 == node {
                self.network.disconnect(link);
                continue;
            }
            // What was sent to it is gone, noticed or not: nobody is there to read it.
            let state = self.network.link_mut(link);
            if !state.connected {
                continue;
            }
            state.severed = true;
            let epoch = state.epoch;
            // A dead process resets its connections, a dead machine is silent.
            let delay = match power {
                true => between(&mut self.chance.network, 100_000, 5_000_000),
                false => between(&mut self.chance.network, 100, 20_000),
            };
            self.schedule.after(delay, Happening::Disconnect { link, epoch });
        }
    }

    pub(super) fn begin_on_links(&mut self, number: usize, fault: &Fault) {
        let now = self.now();
        match fault {
            Fault::Cut { links, for_us } => {
                for link in links {
                    self.network.link_mut(*link).cuts += 1;
                    self.timeline.cuts(*link, now, now + for_us);
                    // Noticed after a while, if it lasts.
                    let delay = between(&mut self.chance.network, 200_000, 6_000_000);
                    let epoch = self.network.link(*link).epoch;
                    self.schedule.after(delay, Happening::Disconnect { link: *link, epoch });
                }
                self.schedule.after(*for_us, Happening::FaultEnds(number));
            }
            Fault::Clog { links, for_us } => {
                for link in links {
                    self.network.link_mut(*link).clogs += 1;
                }
                self.schedule.after(*for_us, Happening::FaultEnds(number));
            }
            Fault::Weather { links, weather, for_us } => {
                for link in links {
                    self.network.begin_weather(*link, number as u64, *weather);
                }
                self.had_effect(FaultKind::Weather);
                self.schedule.after(*for_us, Happening::FaultEnds(number));
            }
            Fault::Replay { link, count } => {
                for frame in self.network.old(*link, *count) {
                    let delay = between(&mut self.chance.network, 10, 500_000);
                    self.had_effect(FaultKind::Replay);
                    self.counters.count(Counter::Replayed);
                    self.schedule.after(delay, Happening::Frame { link: *link, epoch: None, frame });
                }
            }
            _ => unreachable!("{fault} is no fault of links"),
        }
    }

    pub(super) fn end_on_links(&mut self, number: usize) {
        if self.healed {
            return;
        }
        let plan = self.plan;
        match &plan.faults[number].fault {
            Fault::Cut { links, .. } => {
                for link in links {
                    self.network.link_mut(*link).cuts -= 1;
                }
            }
            Fault::Clog { links, .. } => self.unclog(links),
            Fault::Deafen { .. } => {
                let links = self.deaf.remove(&number).unwrap_or_default();
                self.unclog(&links);
            }
            Fault::Weather { links, .. } => {
                for link in links {
                    self.network.end_weather(*link, number as u64);
                }
            }
            _ => {}
        }
    }

    fn unclog(&mut self, links: &[Link]) {
        for link in links {
            self.network.link_mut(*link).clogs -= 1;
            if self.network.link(*link).clogs == 0 {
                self.release(*link);
            }
        }
    }

    fn release(&mut self, link: Link) {
        let (now, epoch) = (self.now(), self.network.link(link).epoch);
        for (at, frame) in self.network.release(&mut self.chance.network, now, link) {
            self.schedule.at(at, Happening::Frame { link, epoch: Some(epoch), frame });
        }
    }

    pub(super) fn heal_links(&mut self) {
        for link in self.network.all() {
            let state = self.network.link_mut(link);
            (state.cuts, state.clogs) = (0, 0);
            for number in 0..self.plan.faults.len() as u64 {
                self.network.end_weather(link, number);
            }
            self.release(link);
        }
    }

    /// Whether every two of these nodes reach each other soon and surely.
    pub(super) fn are_connected(&self, nodes: &[NodeId]) -> bool {
        let pairs = nodes.iter().flat_map(|from| nodes.iter().map(move |to| (*from, *to)));
        pairs.filter(|(from, to)| from != to).all(|link| self.network.is_fair(link))
    }

    /// A link for which nobody will dial any more although both ends run: a bug of the simulator.
    pub(super) fn redial_dead_links(&mut self) {
        for link in self.network.all() {
            let (from, to) = (self.place(link.0), self.place(link.1));
            let both = [from, to].iter().all(|place| self.machines[*place].standing == Standing::Running);
            if both && !self.network.link(link).connected && percent(&mut self.chance.network, 10) {
                self.dial(link, 1_000);
            }
        }
    }
}

/// Entries of earlier ballots in the message.
fn sent_again(message: &PeerMessage) -> usize {
    match message {
        PeerMessage::Group(Message { ballot, body: Body::Append { entries, .. }, .. }) => {
            entries.iter().filter(|entry| entry.origin != *ballot).count()
        }
        _ => 0,
    }
}
