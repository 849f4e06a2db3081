//! Which watchers does a key concern?
//!
//! Invariant: the answer costs the logarithm of what is watched, plus its own length; watchers of other keys cost
//! nothing. Single keys are a map. Ranges are a treap (Seidel and Aragon 1996) by start, in which each node knows the
//! largest end below it; equal ranges share a node.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use base::Prng;
use bytes::Bytes;
use mvcc::Span;

use super::WatcherId;

/// Watchers by what they watch.
#[derive(Debug)]
pub(super) struct SpanIndex {
    keys: BTreeMap<Bytes, BTreeSet<WatcherId>>,
    ranges: Tree,
    priorities: Prng,
}

type Tree = Option<Box<Node>>;

#[derive(Debug)]
struct Node {
    range: Range,
    watchers: BTreeSet<WatcherId>,
    /// Not below the priorities under it. Random, so that the tree is flat whatever the ranges are.
    priority: u64,
    /// The largest end in this part of the tree.
    end_max: End,
    left: Tree,
    right: Tree,
}

/// Keys from the start (included) to the end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Range {
    start: Bytes,
    end: End,
}

/// The order of the variants is the order of the ends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Before(Bytes),
    Open,
}

impl Range {
    fn of(span: &Span) -> Self {
        let end = match span.end() {
            Bound::Included(last) => End::Before([last, &[0][..]].concat().into()),
            Bound::Excluded(end) => End::Before(end.clone()),
            Bound::Unbounded => End::Open,
        };
        Self { start: span.start().clone(), end }
    }
}

impl End {
    fn is_behind(&self, key: &[u8]) -> bool {
        match self {
            Self::Before(end) => key < end.as_ref(),
            Self::Open => true,
        }
    }
}

impl SpanIndex {
    pub(super) fn new() -> Self {
        Self { keys: BTreeMap::new(), ranges: None, priorities: Prng::new(0) }
    }

    pub(super) fn insert(&mut self, span: &Span, watcher: WatcherId) {
        if let Span::Key(key) = span {
            self.keys.entry(key.clone()).or_default().insert(watcher);
        } else {
            insert(&mut self.ranges, Range::of(span), watcher, self.priorities.next_u64());
        }
    }

    pub(super) fn remove(&mut self, span: &Span, watcher: WatcherId) {
        if let Span::Key(key) = span {
            let Some(watchers) = self.keys.get_mut(key) else { return };
            watchers.remove(&watcher);
            if watchers.is_empty() {
                self.keys.remove(key);
            }
        } else {
            remove(&mut self.ranges, &Range::of(span), watcher);
        }
    }

    /// Adds everybody who watches `key` to `found`.
    pub(super) fn matching(&self, key: &[u8], found: &mut Vec<WatcherId>) {
        if let Some(watchers) = self.keys.get(key) {
            found.extend(watchers);
        }
        matching(self.ranges.as_deref(), key, found);
    }
}

fn insert(tree: &mut Tree, range: Range, watcher: WatcherId, priority: u64) {
    let Some(node) = tree else {
        let (end_max, watchers) = (range.end.clone(), BTreeSet::from([watcher]));
        *tree = Some(Box::new(Node { range, watchers, priority, end_max, left: None, right: None }));
        return;
    };
    match range.cmp(&node.range) {
        Ordering::Equal => {
            node.watchers.insert(watcher);
        }
        Ordering::Less => {
            insert(&mut node.left, range, watcher, priority);
            node.measure();
            if node.left.as_ref().is_some_and(|left| left.priority > node.priority) {
                rotate_right(tree);
            }
        }
        Ordering::Greater => {
            insert(&mut node.right, range, watcher, priority);
            node.measure();
            if node.right.as_ref().is_some_and(|right| right.priority > node.priority) {
                rotate_left(tree);
            }
        }
    }
}

fn remove(tree: &mut Tree, range: &Range, watcher: WatcherId) {
    let Some(node) = tree else { return };
    match range.cmp(&node.range) {
        Ordering::Less => remove(&mut node.left, range, watcher),
        Ordering::Greater => remove(&mut node.right, range, watcher),
        Ordering::Equal => {
            node.watchers.remove(&watcher);
            if node.watchers.is_empty() {
                *tree = merge(node.left.take(), node.right.take());
                return;
            }
        }
    }
    node.measure();
}

/// One tree of two, all of `left` being before all of `right`.
fn merge(left: Tree, right: Tree) -> Tree {
    match (left, right) {
        (None, tree) | (tree, None) => tree,
        (Some(mut left), Some(mut right)) => {
            if left.priority >= right.priority {
                left.right = merge(left.right.take(), Some(right));
                left.measure();
                Some(left)
            } else {
                right.left = merge(Some(left), right.left.take());
                right.measure();
                Some(right)
            }
        }
    }
}

fn rotate_right(tree: &mut Tree) {
    let Some(mut node) = tree.take() else { return };
    let Some(mut top) = node.left.take() else { unreachable!("a rotation without the node that comes up") };
    node.left = top.right.take();
    node.measure();
    top.right = Some(node);
    top.measure();
    *tree = Some(top);
}

fn rotate_left(tree: &mut Tree) {
    let Some(mut node) = tree.take() else { return };
    let Some(mut top) = node.right.take() else { unreachable!("a rotation without the node that comes up") };
    node.right = top.left.take();
    node.measure();
    top.left = Some(node);
    top.measure();
    *tree = Some(top);
}

impl Node {
    fn measure(&mut self) {
        let below = [&self.left, &self.right].into_iter().flatten().map(|child| &child.end_max);
        let end_max = below.chain([&self.range.end]).max();
        let end_max = end_max.expect("the node's own end is among them").clone();
        self.end_max = end_max;
    }
}

fn matching(node: Option<&Node>, key: &[u8], found: &mut Vec<WatcherId>) {
    let Some(node) = node.filter(|node| node.end_max.is_behind(key)) else { return };
    matching(node.left.as_deref(), key, found);
    if node.range.start.as_ref() <= key {
        if node.range.end.is_behind(key) {
            found.extend(&node.watchers);
        }
        matching(node.right.as_deref(), key, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> Bytes {
        format!("{number:02}").into()
    }

    fn random_span(prng: &mut Prng) -> Span {
        let (from, to) = (prng.below(30), prng.below(30));
        match prng.below(5) {
            0 => Span::Key(key(from)),
            1 => Span::From(key(from)),
            _ => Span::Range(key(from), key(to)),
        }
    }

    fn depth(tree: &Tree) -> usize {
        tree.as_ref().map_or(0, |node| 1 + depth(&node.left).max(depth(&node.right)))
    }

    #[test]
    fn finds_what_asking_everybody_would_find() {
        for seed in 0..50 {
            let mut prng = Prng::new(seed);
            let mut index = SpanIndex::new();
            let mut naive: Vec<(Span, WatcherId)> = Vec::new();
            for step in 0..300 {
                if prng.below(3) > 0 || naive.is_empty() {
                    let span = random_span(&mut prng);
                    index.insert(&span, WatcherId(step));
                    naive.push((span, WatcherId(step)));
                } else {
                    let (span, watcher) = naive.swap_remove(prng.below(naive.len() as u64) as usize);
                    index.remove(&span, watcher);
                }
                let asked = key(prng.below(30));
                let mut found = Vec::new();
                index.matching(&asked, &mut found);
                found.sort();
                let mut wanted: Vec<_> = naive.iter().filter(|(s, _)| s.contains(&asked)).map(|(_, w)| *w).collect();
                wanted.sort();
                assert_eq!(found, wanted, "seed {seed}, step {step}, key {asked:?}");
            }
            for (span, watcher) in naive {
                index.remove(&span, watcher);
            }
            assert!(index.keys.is_empty() && index.ranges.is_none(), "nothing stays behind");
        }
    }

    #[test]
    fn the_tree_stays_flat_when_ranges_come_in_order() {
        let mut index = SpanIndex::new();
        for number in 0..10_000u64 {
            let (start, end) = (format!("{number:05}/"), format!("{number:05}0"));
            index.insert(&Span::Range(start.into(), end.into()), WatcherId(number));
        }
        let depth = depth(&index.ranges);
        assert!(depth < 50, "a random tree of 10,000 nodes has a depth of about 33, this one {depth}");
    }
}
