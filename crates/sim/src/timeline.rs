//! What a person wants to see of a run at a glance: who led when, who was down, cut off or standing still.

use std::collections::BTreeMap;

use base::{Ballot, NodeId};

use crate::fault::{Fault, Link};

/// A state of a node that lasts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpanKind {
    /// It leads.
    Leads,
    /// Its process does not run.
    Down,
    /// Its process stands still.
    Paused,
    /// Its disk stands still.
    Stalled,
}

/// Something that lasts, in world time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Span {
    /// Of whom.
    pub node: NodeId,
    /// What.
    pub kind: SpanKind,
    /// From.
    pub from: u64,
    /// Until.
    pub until: u64,
    /// More about it.
    pub words: String,
}

/// A link that carries nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cut {
    /// Which.
    pub link: Link,
    /// From.
    pub from: u64,
    /// Until.
    pub until: u64,
}

/// Messages between nodes in some time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Messages sent, arrived or not.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Entries of earlier ballots in the appends among them.
    pub sent_again: u64,
}

/// Length of the pieces in which traffic is counted, in microseconds.
const TRAFFIC_US: u64 = 100_000;

/// Spans, cuts and single events of a run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Timeline {
    /// What lasted.
    pub spans: Vec<Span>,
    /// Links that were cut.
    pub cuts: Vec<Cut>,
    /// Faults, when they began.
    pub faults: Vec<(u64, String)>,
    /// Snapshots installed.
    pub snapshots: Vec<(u64, NodeId)>,
    /// When everything healed.
    pub healed_at: Option<u64>,
    traffic: BTreeMap<u64, Traffic>,
    leading: BTreeMap<NodeId, (u64, Ballot)>,
    down: BTreeMap<NodeId, u64>,
}

impl Timeline {
    /// What was sent from one time to another, in steps of 100 ms.
    #[must_use]
    pub fn traffic(&self, from: u64, until: u64) -> Traffic {
        let pieces = self.traffic.range(from / TRAFFIC_US..until.div_ceil(TRAFFIC_US));
        pieces.fold(Traffic::default(), |sum, (_, piece)| Traffic {
            messages: sum.messages + piece.messages,
            bytes: sum.bytes + piece.bytes,
            sent_again: sum.sent_again + piece.sent_again,
        })
    }

    pub(crate) fn sends(&mut self, at: u64, bytes: usize, sent_again: usize) {
        let piece = self.traffic.entry(at / TRAFFIC_US).or_default();
        piece.messages += 1;
        piece.bytes += bytes as u64;
        piece.sent_again += sent_again as u64;
    }

    pub(crate) fn fault(&mut self, at: u64, fault: &Fault) {
        self.faults.push((at, fault.to_string()));
    }

    pub(crate) fn leads(&mut self, node: NodeId, ballot: Ballot, at: u64) {
        self.leading.insert(node, (at, ballot));
    }

    pub(crate) fn stops_leading(&mut self, node: NodeId, at: u64) {
        if let Some((from, ballot)) = self.leading.remove(&node) {
            let words = format!("leads {ballot}");
            self.spans.push(Span { node, kind: SpanKind::Leads, from, until: at, words });
        }
    }

    pub(crate) fn goes_down(&mut self, node: NodeId, at: u64) {
        self.down.insert(node, at);
    }

    pub(crate) fn comes_up(&mut self, node: NodeId, at: u64) {
        if let Some(from) = self.down.remove(&node) {
            self.spans.push(Span { node, kind: SpanKind::Down, from, until: at, words: "down".into() });
        }
    }

    pub(crate) fn pauses(&mut self, node: NodeId, from: u64, until: u64) {
        self.spans.push(Span { node, kind: SpanKind::Paused, from, until, words: "stands still".into() });
    }

    pub(crate) fn stalls(&mut self, node: NodeId, from: u64, until: u64) {
        self.spans.push(Span { node, kind: SpanKind::Stalled, from, until, words: "its disk stands still".into() });
    }

    pub(crate) fn cuts(&mut self, link: Link, from: u64, until: u64) {
        self.cuts.push(Cut { link, from, until });
    }

    pub(crate) fn installs(&mut self, node: NodeId, at: u64) {
        self.snapshots.push((at, node));
    }

    pub(crate) fn heals(&mut self, at: u64) {
        self.healed_at = Some(at);
        for cut in &mut self.cuts {
            cut.until = cut.until.min(at);
        }
        for span in &mut self.spans {
            span.until = span.until.min(at);
        }
    }

    /// The run is over: nothing lasts longer.
    pub(crate) fn close(&mut self, at: u64) {
        let (leading, down) = (std::mem::take(&mut self.leading), std::mem::take(&mut self.down));
        for (node, (from, ballot)) in leading {
            let words = format!("leads {ballot}");
            self.spans.push(Span { node, kind: SpanKind::Leads, from, until: at, words });
        }
        for (node, from) in down {
            self.spans.push(Span { node, kind: SpanKind::Down, from, until: at, words: "down".into() });
        }
        for cut in &mut self.cuts {
            cut.until = cut.until.min(at);
        }
        for span in &mut self.spans {
            span.until = span.until.min(at);
        }
    }
}
