//! The network between the nodes, one link per direction.
//!
//! Like the production transport, a node dials every other and sends on that connection only. Unlike TCP, a connection
//! here may lose, repeat and reorder the messages of replicas, which the kernel must bear. Forwarded commands and the
//! answers to them are only ever lost or late: that they arrive at most once is what TCP is relied on for.

use std::collections::VecDeque;

use base::{NodeId, Prng};
use bytes::Bytes;

use crate::fault::{Link, Weather};
use crate::random::between;

/// Messages of a link remembered for a replay.
const REMEMBERED: usize = 64;

/// One direction between two nodes.
pub(crate) struct LinkState {
    /// A connection stands: the sender was told so.
    pub(crate) connected: bool,
    /// The process at the other end died, and the sender has not noticed: nothing arrives any more.
    pub(crate) severed: bool,
    /// Number of the connection; what is under way belongs to one.
    pub(crate) epoch: u64,
    /// Cuts in force.
    pub(crate) cuts: u32,
    /// Clogs in force.
    pub(crate) clogs: u32,
    /// Weathers in force, the last one counts.
    weathers: Vec<(u64, Weather)>,
    held: Vec<Bytes>,
    /// When the last message in order arrives.
    ordered: u64,
    old: VecDeque<Bytes>,
}

/// What becomes of a message.
pub(crate) enum Fate {
    /// It does not arrive.
    Lost,
    /// It waits for the end of a clog.
    Held,
    /// It arrives at this time, and perhaps again; whether it overtakes others.
    Arrives(u64, Option<u64>, bool),
}

/// All links.
pub(crate) struct Network {
    size: u64,
    links: Vec<LinkState>,
    fair: Weather,
}

impl Network {
    pub(crate) fn new(size: u64, fair: Weather) -> Self {
        let links = (0..size * size)
            .map(|_| LinkState {
                connected: false,
                severed: false,
                epoch: 0,
                cuts: 0,
                clogs: 0,
                weathers: Vec::new(),
                held: Vec::new(),
                ordered: 0,
                old: VecDeque::new(),
            })
            .collect();
        Self { size, links, fair }
    }

    pub(crate) fn link(&self, (from, to): Link) -> &LinkState {
        &self.links[((from.0 - 1) * self.size + to.0 - 1) as usize]
    }

    pub(crate) fn link_mut(&mut self, (from, to): Link) -> &mut LinkState {
        &mut self.links[((from.0 - 1) * self.size + to.0 - 1) as usize]
    }

    /// All links from and to a node.
    pub(crate) fn links_of(&self, node: NodeId) -> Vec<Link> {
        let others = (1..=self.size).map(NodeId).filter(move |other| *other != node);
        others.flat_map(|other| [(node, other), (other, node)]).collect()
    }

    /// All links.
    pub(crate) fn all(&self) -> Vec<Link> {
        let nodes = || (1..=self.size).map(NodeId);
        nodes().flat_map(|from| nodes().map(move |to| (from, to))).filter(|(from, to)| from != to).collect()
    }

    fn weather(&self, link: Link) -> Weather {
        self.link(link).weathers.last().map_or(self.fair, |(_, weather)| *weather)
    }

    /// The weather changes; `number` names the change for its end.
    pub(crate) fn begin_weather(&mut self, link: Link, number: u64, weather: Weather) {
        self.link_mut(link).weathers.push((number, weather));
    }

    /// That weather is over.
    pub(crate) fn end_weather(&mut self, link: Link, number: u64) {
        self.link_mut(link).weathers.retain(|(other, _)| *other != number);
    }

    /// Whether messages pass, soon and nearly all.
    pub(crate) fn is_fair(&self, link: Link) -> bool {
        let state = self.link(link);
        state.connected && !state.severed && state.cuts == 0 && state.clogs == 0 && state.weathers.is_empty()
    }

    /// Decides on a message that is sent now. `repeatable`: whether it may arrive twice and be replayed.
    pub(crate) fn send(&mut self, prng: &mut Prng, now: u64, link: Link, frame: &Bytes, repeatable: bool) -> Fate {
        let weather = self.weather(link);
        let state = self.link_mut(link);
        if repeatable {
            if state.old.len() == REMEMBERED {
                state.old.pop_front();
            }
            state.old.push_back(frame.clone());
        }
        if state.cuts > 0 || prng.below(1000) < weather.drop {
            return Fate::Lost;
        }
        if state.clogs > 0 {
            state.held.push(frame.clone());
            return Fate::Held;
        }
        let delay = |prng: &mut Prng| weather.delay_us + prng.below(weather.jitter_us + 1);
        let arrival = now + delay(prng);
        let overtakes = repeatable && prng.below(1000) < weather.reorder && arrival < state.ordered;
        let arrival = if overtakes { arrival } else { arrival.max(state.ordered) };
        state.ordered = state.ordered.max(arrival);
        let again = (repeatable && prng.below(1000) < weather.duplicate).then(|| arrival + delay(prng));
        Fate::Arrives(arrival, again, overtakes)
    }

    /// What a clog held, with the times at which it arrives.
    pub(crate) fn release(&mut self, prng: &mut Prng, now: u64, link: Link) -> Vec<(u64, Bytes)> {
        let state = self.link_mut(link);
        let mut at = now.max(state.ordered);
        let released: Vec<_> = std::mem::take(&mut state.held)
            .into_iter()
            .map(|frame| {
                at += between(prng, 1, 200);
                (at, frame)
            })
            .collect();
        state.ordered = at;
        released
    }

    /// The last messages of a link, to be replayed.
    pub(crate) fn old(&self, link: Link, count: u64) -> Vec<Bytes> {
        let old = &self.link(link).old;
        old.iter().skip(old.len().saturating_sub(count as usize)).cloned().collect()
    }

    /// The connection is gone, with everything on it.
    pub(crate) fn disconnect(&mut self, link: Link) -> bool {
        let state = self.link_mut(link);
        state.epoch += 1;
        state.severed = false;
        state.held.clear();
        state.ordered = 0;
        std::mem::replace(&mut state.connected, false)
    }
}
