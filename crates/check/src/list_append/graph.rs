//! Who depends on whom, and who came before whom.
//!
//! Invariant: nodes are transactions, then one moment for each answer of a strict transaction, in order of time. Time
//! needs two edges per transaction that way, not one per pair: answered → its moment → next moment → … → asked later.

use crate::history::{History, Level};

use super::lists::Lists;

/// Why one node comes before another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// Appended right before.
    Ww(String),
    /// What the other saw last.
    Wr(String),
    /// Did not see what the other appended.
    Rw(String),
    /// Was answered before the other was asked.
    Time,
}

/// The graph.
pub(super) struct Graph {
    pub(super) edges: Vec<Vec<(usize, Kind)>>,
    /// Ids of the operations; moments have none.
    pub(super) ids: Vec<u64>,
}

impl Graph {
    pub(super) fn new(history: &History, lists: &Lists<'_>) -> Self {
        let ids = lists.transactions.iter().map(|transaction| history.operations[transaction.at].id).collect();
        let mut graph = Self { edges: vec![Vec::new(); lists.transactions.len()], ids };
        graph.add_dependencies(lists);
        graph.add_time(history, lists);
        graph
    }

    fn add(&mut self, from: usize, to: usize, kind: Kind) {
        if from != to {
            self.edges[from].push((to, kind));
        }
    }

    fn add_dependencies(&mut self, lists: &Lists<'_>) {
        let appender = |key, element| lists.appenders.get(&(key, element)).map(|(number, _)| *number);
        for (key, order) in &lists.orders {
            for pair in order.windows(2) {
                if let (Some(one), Some(two)) = (appender(*key, pair[0]), appender(*key, pair[1])) {
                    self.add(one, two, Kind::Ww(key.to_string()));
                }
            }
        }
        for (number, transaction) in lists.transactions.iter().enumerate() {
            for (key, list) in &transaction.reads {
                if let Some(last) = list.last().and_then(|last| appender(*key, *last)) {
                    self.add(last, number, Kind::Wr(key.to_string()));
                }
                let next = lists.orders[key].get(list.len());
                if let Some(next) = next.and_then(|next| appender(*key, *next)) {
                    self.add(number, next, Kind::Rw(key.to_string()));
                }
            }
        }
    }

    fn add_time(&mut self, history: &History, lists: &Lists<'_>) {
        let operation = |number: usize| &history.operations[lists.transactions[number].at];
        let strict = (0..lists.transactions.len()).filter(|number| operation(*number).request.level() == Level::Strict);
        let strict: Vec<usize> = strict.collect();
        let mut answers: Vec<(u64, usize)> = strict
            .iter()
            .filter(|number| !operation(**number).is_unknown())
            .filter_map(|number| Some((operation(*number).returned?, *number)))
            .collect();
        answers.sort_unstable();
        let base = self.edges.len();
        for (moment, (_, number)) in answers.iter().enumerate() {
            self.edges.push(Vec::new());
            self.edges[*number].push((base + moment, Kind::Time));
            if moment > 0 {
                self.edges[base + moment - 1].push((base + moment, Kind::Time));
            }
        }
        for number in strict {
            let earlier = answers.partition_point(|(returned, _)| *returned < operation(number).invoked);
            if earlier > 0 {
                self.edges[base + earlier - 1].push((number, Kind::Time));
            }
        }
    }
}
