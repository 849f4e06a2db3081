//! Cycles of the graph, and the anomaly each one is.
//!
//! Invariant: classes are looked for from the worst to the mildest, so that a cycle has the name of the fewest kinds of
//! edges that make it.

use std::collections::{BTreeMap, VecDeque};

use super::graph::{Graph, Kind};
use crate::verdict::Impossible;

/// Edges a class of anomalies may use.
#[derive(Clone, Copy)]
struct Class {
    name: &'static str,
    wr: bool,
    rw: bool,
    time: bool,
}

const CLASSES: [Class; 6] = [
    Class { name: "G0", wr: false, rw: false, time: false },
    Class { name: "G1c", wr: true, rw: false, time: false },
    Class { name: "", wr: true, rw: true, time: false },
    Class { name: "G0", wr: false, rw: false, time: true },
    Class { name: "G1c", wr: true, rw: false, time: true },
    Class { name: "", wr: true, rw: true, time: true },
];

impl Class {
    fn has(self, kind: &Kind) -> bool {
        match kind {
            Kind::Ww(_) => true,
            Kind::Wr(_) => self.wr,
            Kind::Rw(_) => self.rw,
            Kind::Time => self.time,
        }
    }
}

/// Looks for any cycle.
pub(super) fn find(graph: &Graph) -> Result<(), Impossible> {
    for class in CLASSES {
        let component = components(graph, class);
        if let Some(cycle) = cycle(graph, class, &component) {
            return Err(describe(graph, class, &cycle));
        }
    }
    Ok(())
}

/// Nodes of a cycle, each with the edge to the next.
type Cycle<'a> = Vec<(usize, &'a Kind)>;

/// A short cycle within a component; with rw edges, one that has a single one if there is such.
fn cycle<'a>(graph: &'a Graph, class: Class, component: &[usize]) -> Option<Cycle<'a>> {
    let inside = |from: usize, to: usize| component[from] == component[to];
    let edges = |from: usize| graph.edges[from].iter().filter(move |(to, kind)| class.has(kind) && inside(from, *to));
    let starts = || (0..graph.edges.len()).flat_map(|from| edges(from).map(move |edge| (from, edge)));
    if class.rw {
        let single = Class { rw: false, ..class };
        for (from, (to, kind)) in starts().filter(|(_, (_, kind))| matches!(kind, Kind::Rw(_))) {
            if let Some(path) = path(graph, single, *to, from, component) {
                return Some(std::iter::once((from, kind)).chain(path).collect());
            }
        }
    }
    let (from, (to, kind)) = starts().next()?;
    let back = path(graph, class, *to, from, component)?;
    Some(std::iter::once((from, kind)).chain(back).collect())
}

/// The shortest way within a component.
fn path<'a>(graph: &'a Graph, class: Class, from: usize, to: usize, component: &[usize]) -> Option<Cycle<'a>> {
    let mut came: BTreeMap<usize, (usize, &Kind)> = BTreeMap::new();
    let mut queue = VecDeque::from([from]);
    while let Some(node) = queue.pop_front() {
        if node == to {
            let mut way = Vec::new();
            let mut node = to;
            while node != from {
                let (before, kind) = came[&node];
                way.push((before, kind));
                node = before;
            }
            way.reverse();
            return Some(way);
        }
        for (next, kind) in &graph.edges[node] {
            if class.has(kind) && component[*next] == component[node] && *next != from && !came.contains_key(next) {
                came.insert(*next, (node, kind));
                queue.push_back(*next);
            }
        }
    }
    None
}

fn describe(graph: &Graph, class: Class, cycle: &Cycle<'_>) -> Impossible {
    let rw = cycle.iter().filter(|(_, kind)| matches!(kind, Kind::Rw(_))).count();
    let name = match (class.name, rw) {
        ("", 1) => "G-single",
        ("", _) => "G2-item",
        (name, _) => name,
    };
    let realtime = if class.time { "-realtime" } else { "" };
    let mut text = format!("{name}{realtime}, a cycle:");
    // Moments are shown as the one edge of time they stand for.
    let is_moment = |node: usize| node >= graph.ids.len();
    let start = cycle.iter().position(|(node, _)| !is_moment(*node)).expect("a cycle has a transaction: time has none");
    let count = cycle.len();
    let turned = (0..count).map(|at| cycle[(start + at) % count]);
    let mut ids = Vec::new();
    for (node, kind) in turned.filter(|(node, _)| !is_moment(*node)) {
        ids.push(graph.ids[node]);
        let edge = match kind {
            Kind::Ww(key) => format!("was extended in {key} by"),
            Kind::Wr(key) => format!("was seen in {key} by"),
            Kind::Rw(key) => format!("did not see in {key} what was appended by"),
            Kind::Time => "was answered before the request of".to_owned(),
        };
        text.push_str(&format!(" #{} {edge}", graph.ids[node]));
    }
    text.push_str(&format!(" #{}", ids[0]));
    Impossible::new(text, ids)
}

/// The strongly connected component of each node (Tarjan 1972, without recursion).
fn components(graph: &Graph, class: Class) -> Vec<usize> {
    const NONE: usize = usize::MAX;
    let count = graph.edges.len();
    let (mut index, mut low) = (vec![NONE; count], vec![0; count]);
    let (mut component, mut stack) = (vec![NONE; count], Vec::new());
    let (mut next_index, mut next_component) = (0, 0);
    for root in 0..count {
        if index[root] != NONE {
            continue;
        }
        // A node and how many of its edges have been looked at.
        let mut calls = vec![(root, 0)];
        while let Some((node, edge)) = calls.pop() {
            if edge == 0 {
                index[node] = next_index;
                low[node] = next_index;
                next_index += 1;
                stack.push(node);
            } else if let Some((child, _)) = graph.edges[node].get(edge - 1) {
                // Back from a child, or past an edge that was not followed.
                if component[*child] == NONE && index[*child] != NONE && class.has(&graph.edges[node][edge - 1].1) {
                    low[node] = low[node].min(low[*child]);
                }
            }
            if let Some((child, kind)) = graph.edges[node].get(edge) {
                calls.push((node, edge + 1));
                if class.has(kind) && index[*child] == NONE {
                    calls.push((*child, 0));
                }
                continue;
            }
            if low[node] == index[node] {
                while let Some(member) = stack.pop() {
                    component[member] = next_component;
                    if member == node {
                        break;
                    }
                }
                next_component += 1;
            }
        }
    }
    component
}
