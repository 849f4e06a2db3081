//! What was asked and answered, what is stored in the end, and whether the two can both be true.
//!
//! Three outcomes: acknowledged, refused (certainly not done), unknown (the connection broke; it may or may not have
//! been done). The checks below hold for every legal store, whatever happened to the unknown ones. That they can fail
//! is shown by the planted histories at the end.

use std::collections::{BTreeMap, BTreeSet};

/// How a request ended, as far as the client can know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Answered; the write has this revision.
    Acked(i64),
    /// Answered: not done, because the condition did not hold.
    Refused,
    /// No answer, or one that says nothing about the effect.
    Unknown,
}

/// A conditional write of one client; its place in the list is its place in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Write {
    /// Who asked. Each client has one request in flight.
    pub(crate) client: usize,
    pub(crate) kind: Kind,
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) outcome: Outcome,
}

/// The condition of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only if the key does not exist; nobody else ever writes this key.
    Create,
    /// Only if the counter is as it was read. The value is the number of the increment: 1, 2, 3 ...
    Increment,
}

/// A linearizable read of a counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) key: String,
    /// The version it returned.
    pub(crate) version: i64,
    /// The greatest version that anybody had been told of before the read began.
    pub(crate) version_at_least: i64,
}

/// A pair as the store returned it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) create_revision: i64,
    pub(crate) mod_revision: i64,
    pub(crate) version: i64,
}

impl From<&api::mvccpb::KeyValue> for Stored {
    fn from(pair: &api::mvccpb::KeyValue) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            key: text(&pair.key),
            value: text(&pair.value),
            create_revision: pair.create_revision,
            mod_revision: pair.mod_revision,
            version: pair.version,
        }
    }
}

/// Everything a run left behind.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    /// All writes, in the order in which each client made them.
    pub(crate) writes: Vec<Write>,
    pub(crate) reads: Vec<Read>,
    /// What each node holds in the end.
    pub(crate) stored: Vec<Vec<Stored>>,
    /// What the store says about the past: the pair at a revision at which it was written.
    pub(crate) past: Vec<(i64, Stored)>,
}

impl History {
    /// Everything that cannot be true, in words; empty if all is well.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let Some(first) = self.stored.first() else { return vec!["nothing was read back".to_owned()] };
        for (at, other) in self.stored.iter().enumerate().skip(1) {
            if other != first {
                problems.push(format!(
                    "node {at} holds {} pairs that differ from node 0's {}",
                    other.len(),
                    first.len()
                ));
            }
        }
        let stored: BTreeMap<&str, &Stored> = first.iter().map(|pair| (pair.key.as_str(), pair)).collect();
        self.check_creations(&stored, &mut problems);
        self.check_counters(&stored, &mut problems);
        self.check_revisions(&mut problems);
        self.check_past(&mut problems);
        for read in &self.reads {
            if read.version < read.version_at_least {
                problems.push(format!("stale read: {read:?}"));
            }
        }
        problems
    }

    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Write> {
        self.writes.iter().filter(move |write| write.kind == kind)
    }

    fn check_creations(&self, stored: &BTreeMap<&str, &Stored>, problems: &mut Vec<String>) {
        for write in self.of_kind(Kind::Create) {
            match (write.outcome, stored.get(write.key.as_str())) {
                (Outcome::Acked(_), None) => problems.push(format!("acknowledged write lost: {write:?}")),
                (Outcome::Unknown, None) => {}
                // Keys are unique: a creation that found its key already there was carried out twice.
                (Outcome::Refused, _) => problems.push(format!("carried out twice: {write:?}")),
                (outcome, Some(pair)) => {
                    if pair.value != write.value || pair.version != 1 || pair.create_revision != pair.mod_revision {
                        problems.push(format!("{write:?} is stored as {pair:?}"));
                    }
                    if let Outcome::Acked(revision) = outcome
                        && revision != pair.mod_revision
                    {
                        problems.push(format!("{write:?} was acknowledged at another revision than {pair:?}"));
                    }
                }
            }
        }
        let asked: BTreeSet<&str> = self.writes.iter().map(|write| write.key.as_str()).collect();
        for key in stored.keys().filter(|key| !asked.contains(**key)) {
            problems.push(format!("nobody wrote {key}"));
        }
    }

    fn check_counters(&self, stored: &BTreeMap<&str, &Stored>, problems: &mut Vec<String>) {
        let mut counters: BTreeMap<&str, Vec<&Write>> = BTreeMap::new();
        for write in self.of_kind(Kind::Increment) {
            counters.entry(&write.key).or_default().push(write);
        }
        for (key, writes) in counters {
            let mut acked: Vec<(i64, i64)> = Vec::new();
            let mut unknown = 0;
            for write in &writes {
                match write.outcome {
                    Outcome::Acked(revision) => acked.push((revision, write.value.parse().unwrap_or(-1))),
                    Outcome::Unknown => unknown += 1,
                    Outcome::Refused => {}
                }
            }
            acked.sort_unstable();
            for pair in acked.windows(2) {
                if pair[1].1 <= pair[0].1 {
                    problems.push(format!("{key}: increments out of order or twice: {pair:?}"));
                }
            }
            let (value, version) =
                stored.get(key).map_or((0, 0), |pair| (pair.value.parse().unwrap_or(-1), pair.version));
            // One increment, one version: a lost or doubled write takes the two apart.
            if value != version {
                problems.push(format!("{key}: value {value} at version {version}"));
            }
            let (least, most) = (acked.len() as i64, (acked.len() + unknown) as i64);
            if version < least || version > most {
                problems.push(format!("{key}: {version} increments stored, {least} acknowledged, {unknown} unknown"));
            }
        }
    }

    fn check_revisions(&self, problems: &mut Vec<String>) {
        let mut last_of: BTreeMap<usize, i64> = BTreeMap::new();
        let mut seen: BTreeMap<i64, &Write> = BTreeMap::new();
        for write in &self.writes {
            let Outcome::Acked(revision) = write.outcome else { continue };
            if let Some(other) = seen.insert(revision, write) {
                problems.push(format!("two writes at one revision: {other:?} and {write:?}"));
            }
            let last = last_of.entry(write.client).or_insert(0);
            if revision <= *last {
                problems.push(format!("the revision went back from {last}: {write:?}"));
            }
            *last = revision;
        }
    }

    fn check_past(&self, problems: &mut Vec<String>) {
        let mut written: BTreeMap<i64, &Write> = BTreeMap::new();
        for write in &self.writes {
            if let Outcome::Acked(revision) = write.outcome {
                written.insert(revision, write);
            }
        }
        for (revision, pair) in &self.past {
            let matches = written.get(revision).is_some_and(|write| write.key == pair.key && write.value == pair.value);
            if !matches || pair.mod_revision != *revision {
                problems.push(format!("history at revision {revision} says {pair:?}"));
            }
        }
    }
}

/// The checks must be able to fail: each test takes a true history and breaks one thing.
mod planted {
    use super::*;

    fn create(client: usize, key: &str, outcome: Outcome) -> Write {
        Write { client, kind: Kind::Create, key: key.to_owned(), value: format!("value of {key}"), outcome }
    }

    fn increment(client: usize, value: i64, outcome: Outcome) -> Write {
        Write { client, kind: Kind::Increment, key: "counter".to_owned(), value: value.to_string(), outcome }
    }

    fn pair(key: &str, value: &str, create_revision: i64, mod_revision: i64, version: i64) -> Stored {
        let (key, value) = (key.to_owned(), value.to_owned());
        Stored { key, value, create_revision, mod_revision, version }
    }

    /// Two clients, one creation of unknown outcome that happened, one that did not, one refused increment.
    fn truth() -> History {
        let stored =
            vec![pair("a", "value of a", 2, 2, 1), pair("b", "value of b", 4, 4, 1), pair("counter", "2", 3, 5, 2)];
        History {
            writes: vec![
                create(0, "a", Outcome::Acked(2)),
                increment(1, 1, Outcome::Acked(3)),
                create(0, "b", Outcome::Unknown),
                increment(1, 2, Outcome::Acked(5)),
                increment(0, 2, Outcome::Refused),
                create(1, "c", Outcome::Unknown),
            ],
            reads: vec![Read { key: "counter".to_owned(), version: 2, version_at_least: 1 }],
            stored: vec![stored.clone(), stored],
            past: vec![(3, pair("counter", "1", 3, 3, 1))],
        }
    }

    /// Breaks the truth and expects a complaint that contains `words`.
    fn check(words: &str, break_it: impl FnOnce(&mut History)) {
        let mut history = truth();
        break_it(&mut history);
        let problems = history.problems();
        assert!(problems.iter().any(|problem| problem.contains(words)), "no `{words}` in {problems:?}");
    }

    fn on_all(history: &mut History, change: impl Fn(&mut Vec<Stored>)) {
        history.stored.iter_mut().for_each(change);
    }

    #[test]
    fn a_true_history_has_no_problems() {
        assert_eq!(truth().problems(), Vec::<String>::new());
    }

    #[test]
    fn a_lost_write_is_found() {
        check("acknowledged write lost", |history| on_all(history, |stored| drop(stored.remove(0))));
    }

    #[test]
    fn a_write_carried_out_twice_is_found() {
        check("is stored as", |history| on_all(history, |stored| stored[0].version = 2));
        check("carried out twice", |history| history.writes[0].outcome = Outcome::Refused);
        check("value 2 at version 3", |history| on_all(history, |stored| stored[2].version = 3));
    }

    #[test]
    fn a_lost_increment_is_found() {
        check("1 increments stored, 2 acknowledged", |history| {
            on_all(history, |stored| stored[2] = pair("counter", "1", 3, 3, 1));
        });
    }

    #[test]
    fn two_increments_to_one_value_are_found() {
        check("out of order or twice", |history| history.writes[3].value = "1".to_owned());
    }

    #[test]
    fn a_value_nobody_wrote_is_found() {
        check("is stored as", |history| on_all(history, |stored| stored[1].value = "x".to_owned()));
        check("nobody wrote z", |history| on_all(history, |stored| stored.push(pair("z", "", 6, 6, 1))));
    }

    #[test]
    fn a_revision_that_repeats_or_goes_back_is_found() {
        check("two writes at one revision", |history| history.writes[3].outcome = Outcome::Acked(2));
        check("the revision went back", |history| history.writes[1].outcome = Outcome::Acked(9));
        check("another revision", |history| history.writes[0].outcome = Outcome::Acked(1));
    }

    #[test]
    fn a_stale_read_is_found() {
        check("stale read", |history| history.reads[0].version_at_least = 3);
    }

    #[test]
    fn nodes_that_disagree_are_found() {
        check("differ from node 0", |history| history.stored[1][0].value = "x".to_owned());
    }

    #[test]
    fn a_past_that_changed_is_found() {
        check("history at revision 3", |history| history.past[0].1.value = "7".to_owned());
    }
}
