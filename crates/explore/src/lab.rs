//! Where inputs are worked out, each once: hosts and packets have numbers, and the step from (host, input) is kept.
//!
//! A cluster has far fewer distinct hosts than distinct states, so nearly every transition is a look-up. Invariant: a
//! number means the same host or packet for as long as the lab lives.

use std::rc::Rc;

use base::Ballot;
use kernel::Body;

use crate::config::Config;
use crate::fingerprint::{FixedMap, Interner};
use crate::host::{Event, Host, Input, Packet};
use crate::sight::Sights;

/// A step by numbers.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) host: u32,
    pub(crate) sent: Vec<u32>,
    pub(crate) events: Vec<Event>,
    pub(crate) sights: Sights,
    pub(crate) round: u64,
    pub(crate) breach: Option<String>,
}

/// See the module.
pub(crate) struct Lab {
    pub(crate) config: Rc<Config>,
    pub(crate) hosts: Interner<Host>,
    pub(crate) packets: Interner<Packet>,
    everyone: Vec<u64>,
    steps: FixedMap<(u32, Input), Rc<Outcome>>,
    dead: FixedMap<(u32, u32), bool>,
    /// Of each packet: the receiver's place among all hosts.
    receivers: Vec<usize>,
}

impl Lab {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            config: Rc::new(config.clone()),
            everyone: config.hosts(),
            hosts: Interner::new(),
            packets: Interner::new(),
            steps: FixedMap::default(),
            dead: FixedMap::default(),
            receivers: Vec::new(),
        }
    }

    /// What `input` does at `host`.
    pub(crate) fn step(&mut self, host: u32, input: Input) -> Rc<Outcome> {
        if let Some(known) = self.steps.get(&(host, input)) {
            return Rc::clone(known);
        }
        let step = self.hosts.get(host).clone().step(&self.config, &self.packets, input);
        let sent = step.sent.into_iter().filter_map(|packet| self.intern(packet)).collect();
        let outcome = Rc::new(Outcome {
            host: self.hosts.intern(step.host),
            sent,
            events: step.events,
            sights: step.sights,
            round: step.round,
            breach: step.breach,
        });
        self.steps.insert((host, input), Rc::clone(&outcome));
        outcome
    }

    /// The packet's number, unless it goes to a host that is not there.
    fn intern(&mut self, packet: Packet) -> Option<u32> {
        let receiver = self.everyone.iter().position(|number| *number == packet.to())?;
        let number = self.packets.intern(packet);
        if number as usize == self.receivers.len() {
            self.receivers.push(receiver);
        }
        Some(number)
    }

    /// The receiver's place among all hosts.
    pub(crate) fn position(&self, packet: u32) -> usize {
        self.receivers[packet as usize]
    }

    /// Whether `packet` can have no effect at `host`, now or later, so that it may as well be lost: an answer in a
    /// ballot below the promise on the host's disk, which never goes back, that tells of no higher promise either.
    pub(crate) fn is_dead(&mut self, host: u32, packet: u32) -> bool {
        let (hosts, packets) = (&self.hosts, &self.packets);
        *self.dead.entry((host, packet)).or_insert_with(|| {
            let durable = hosts.get(host).disk.durable.promised;
            match &**packets.get(packet) {
                Packet::Message(message) => message.ballot < durable && tells_at_most(&message.body, durable),
                Packet::Snapshot { .. } => false,
            }
        })
    }

    /// Steps worked out.
    pub(crate) fn worked_out(&self) -> usize {
        self.steps.len()
    }
}

/// Whether `body` is an answer that tells of no promise above `durable`.
fn tells_at_most(body: &Body, durable: Ballot) -> bool {
    match body {
        Body::PreVoteReply { promised, .. }
        | Body::ElectReply { promised, .. }
        | Body::AppendReply { promised, .. } => *promised <= durable,
        Body::FetchLogReply { .. } | Body::SnapshotInstalled { .. } => true,
        Body::PreVote { .. }
        | Body::Elect { .. }
        | Body::FetchLog { .. }
        | Body::Append { .. }
        | Body::ReadIndex { .. }
        | Body::ReadIndexReply { .. }
        | Body::TimeoutNow { .. }
        | Body::Removed { .. } => false,
    }
}
