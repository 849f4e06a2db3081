//! Property 3: transactions that append to lists and read them have no cycle of dependencies and time.
//!
//! A list shows the order of its versions, so who depends on whom can be read off the answers (Adya's anomalies, the
//! method of Elle): ww from an append to the next one of the list, wr from an append to who saw it last, rw from a
//! reader to the append it missed; and time, from an answer to everything asked after it. A cycle is an anomaly, named
//! by its edges: G0 (ww), G1c (ww, wr), G-single (one rw), G2-item (several), each "-realtime" if it needs time.
//! Before that: elements that a failed transaction wrote (G1a), that are not the last of their transaction (G1b), that
//! are there twice, and versions two transactions extended alike (lost update).
//!
//! Cost: linear in the sizes of all lists read and in the number of edges, per class of edges.

mod cycles;
mod graph;
mod lists;

use crate::history::{Bytes, History, Workload};
use crate::verdict::{Impossible, Verdict};

/// Judges `history`.
#[must_use]
pub fn check(history: &History) -> Verdict {
    let prefixes: Vec<&Bytes> = history
        .header
        .workloads
        .iter()
        .filter_map(|workload| match workload {
            Workload::ListAppend { prefix } => Some(prefix),
            Workload::Bank { .. } | Workload::WriteSkew { .. } | Workload::LongFork { .. } | Workload::Fence { .. } => {
                None
            }
        })
        .collect();
    match judge(history, &prefixes) {
        Ok(judged) => Verdict::Possible { judged },
        Err(impossible) => impossible.into(),
    }
}

fn judge(history: &History, prefixes: &[&Bytes]) -> Result<usize, Impossible> {
    let lists = lists::Lists::new(history, prefixes)?;
    let graph = graph::Graph::new(history, &lists);
    cycles::find(&graph)?;
    Ok(lists.transactions.len())
}
