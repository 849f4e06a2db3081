//! Trackers of what replicas do, for whoever can see inside: one leader per ballot, decided entries that stay, equal
//! states at equal positions.
//!
//! Invariant: a tracker is fed observations in any order and remembers the first of each; it errs at the first that
//! contradicts. Memory grows with what is observed; [`States::forget_below`] and [`Decided::forget_below`] bound it.

use std::collections::BTreeMap;
use std::fmt;

/// Names of things are numbers here: nodes, groups, ballots (already made comparable) and indexes of entries.
pub type Number = u64;

/// Two observations that cannot both be true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contradiction(pub String);

impl fmt::Display for Contradiction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Contradiction {}

/// At most one node leads a group in a ballot.
#[derive(Debug, Clone, Default)]
pub struct Leaders {
    leaders: BTreeMap<(Number, u128), Number>,
}

impl Leaders {
    /// `node` leads `group` in `ballot`.
    ///
    /// # Errors
    /// Another node does.
    pub fn observe(&mut self, group: Number, ballot: u128, node: Number) -> Result<(), Contradiction> {
        let leader = *self.leaders.entry((group, ballot)).or_insert(node);
        if leader == node {
            return Ok(());
        }
        Err(Contradiction(format!("group {group} has two leaders in ballot {ballot}: nodes {leader} and {node}")))
    }

    /// Pairs of group and ballot that had a leader.
    #[must_use]
    pub fn count(&self) -> usize {
        self.leaders.len()
    }
}

/// An entry: the ballot it was proposed in, and a hash of what it says.
pub type Entry = (u128, u64);

/// What has been decided for an index never changes, and whoever leads later has it.
#[derive(Debug, Clone, Default)]
pub struct Decided {
    entries: BTreeMap<(Number, Number), (Entry, Number)>,
    /// Forgotten up to here, by group.
    floors: BTreeMap<Number, Number>,
}

impl Decided {
    /// `node` holds `entry` for decided at `index` of `group`.
    ///
    /// # Errors
    /// Another node, or this one earlier, holds another for decided.
    pub fn observe(&mut self, group: Number, index: Number, entry: Entry, node: Number) -> Result<(), Contradiction> {
        if self.floors.get(&group).is_some_and(|floor| index < *floor) {
            return Ok(());
        }
        let (known, by) = *self.entries.entry((group, index)).or_insert((entry, node));
        if known == entry {
            return Ok(());
        }
        Err(Contradiction(format!(
            "group {group} decided two entries at index {index}: {known:?} on node {by}, {entry:?} on node {node}"
        )))
    }

    /// `node` has begun to lead `group` in `ballot`, and `entry_at` tells what its log holds (`None`: nothing there;
    /// the caller answers `Some` of the decided entry for what it has in a snapshot only).
    ///
    /// # Errors
    /// Something decided in an earlier ballot is missing or different.
    pub fn observe_leader(
        &self,
        group: Number,
        ballot: u128,
        node: Number,
        entry_at: impl Fn(Number) -> Option<Entry>,
    ) -> Result<(), Contradiction> {
        for ((_, index), (entry, by)) in self.entries.range((group, 0)..=(group, Number::MAX)) {
            if entry.0 < ballot && entry_at(*index) != Some(*entry) {
                return Err(Contradiction(format!(
                    "node {node} leads group {group} in ballot {ballot} without entry {entry:?} at index {index}, \
                     which node {by} held for decided"
                )));
            }
        }
        Ok(())
    }

    /// Forgets everything below `index` of `group`.
    pub fn forget_below(&mut self, group: Number, index: Number) {
        self.floors.insert(group, index);
        self.entries.retain(|(of, at), _| *of != group || *at >= index);
    }

    /// The greatest decided index of `group` that was observed.
    #[must_use]
    pub fn last(&self, group: Number) -> Option<Number> {
        self.entries.range((group, 0)..=(group, Number::MAX)).next_back().map(|((_, index), _)| *index)
    }
}

/// Replicas that have applied the same prefix are in the same state.
#[derive(Debug, Clone, Default)]
pub struct States {
    hashes: BTreeMap<(Number, Number), (u128, Number)>,
    applied: BTreeMap<(Number, Number), Number>,
}

impl States {
    /// `node` has applied `group` up to `index` and its state has this hash.
    ///
    /// # Errors
    /// Another node had another hash there, or the node's position went back without [`States::restarted`].
    pub fn observe(&mut self, group: Number, index: Number, hash: u128, node: Number) -> Result<(), Contradiction> {
        let last = self.applied.entry((group, node)).or_insert(index);
        if index < *last {
            let text = format!("node {node} went back from index {last} to {index} of group {group}");
            return Err(Contradiction(text));
        }
        *last = index;
        let (known, by) = *self.hashes.entry((group, index)).or_insert((hash, node));
        if known == hash {
            return Ok(());
        }
        Err(Contradiction(format!(
            "replicas of group {group} differ after index {index}: {known:032x} on node {by}, {hash:032x} on node {node}"
        )))
    }

    /// The node was stopped: it may come back at an earlier position.
    pub fn restarted(&mut self, node: Number) {
        self.applied.retain(|(_, of), _| *of != node);
    }

    /// Forgets hashes below `index` of `group`.
    pub fn forget_below(&mut self, group: Number, index: Number) {
        self.hashes.retain(|(of, at), _| *of != group || *at >= index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(result: Result<(), Contradiction>) -> String {
        result.expect_err("must be noticed").to_string()
    }

    #[test]
    fn two_leaders_in_one_ballot_are_noticed() {
        let mut leaders = Leaders::default();
        leaders.observe(1, 5, 0).unwrap();
        leaders.observe(1, 5, 0).unwrap();
        leaders.observe(2, 5, 1).unwrap();
        leaders.observe(1, 6, 1).unwrap();
        assert_eq!(leaders.count(), 3);
        assert!(words(leaders.observe(1, 5, 1)).contains("two leaders in ballot 5"));
    }

    #[test]
    fn a_decided_entry_that_changes_is_noticed() {
        let mut decided = Decided::default();
        decided.observe(1, 7, (2, 77), 0).unwrap();
        decided.observe(1, 7, (2, 77), 1).unwrap();
        assert!(words(decided.observe(1, 7, (2, 78), 2)).contains("two entries at index 7"));
        assert!(words(decided.observe(1, 7, (3, 77), 0)).contains("two entries at index 7"));
        decided.forget_below(1, 8);
        decided.observe(1, 7, (9, 9), 0).unwrap();
        assert_eq!(decided.last(1), None);
    }

    #[test]
    fn a_leader_without_a_decided_entry_is_noticed() {
        let mut decided = Decided::default();
        decided.observe(1, 1, (1, 11), 0).unwrap();
        decided.observe(1, 2, (3, 12), 0).unwrap();
        assert_eq!(decided.last(1), Some(2));
        let log = |index: Number| if index == 1 { Some((1, 11)) } else { None };
        decided.observe_leader(1, 2, 1, log).unwrap();
        assert!(words(decided.observe_leader(1, 4, 1, log)).contains("without entry (3, 12) at index 2"));
        assert!(words(decided.observe_leader(1, 2, 1, |_| Some((1, 99)))).contains("at index 1"));
        decided.observe_leader(2, 9, 1, |_| None).unwrap();
    }

    #[test]
    fn states_that_differ_or_go_back_are_noticed() {
        let mut states = States::default();
        states.observe(1, 10, 0xa, 0).unwrap();
        states.observe(1, 10, 0xa, 1).unwrap();
        states.observe(1, 12, 0xc, 0).unwrap();
        assert!(words(states.observe(1, 12, 0xd, 1)).contains("differ after index 12"));
        assert!(words(states.observe(1, 11, 0xb, 0)).contains("went back from index 12 to 11"));
        states.restarted(0);
        states.observe(1, 11, 0xb, 0).unwrap();
        states.forget_below(1, 20);
        states.observe(1, 13, 0xf, 2).unwrap();
    }
}
