//! Breadth-first search over all states: the first breach found is one of the nearest.
//!
//! Of a state that was visited only its fingerprint stays, with the number of the state it was first reached from and
//! which of its successors it is; the states themselves live as long as they wait to be expanded. A counterexample is
//! walked back along those numbers and then replayed from the start, which is possible because successors always come
//! in the same order.

use crate::config::Config;
use crate::fingerprint::{Fingerprint, FixedMap, fingerprint};
use crate::sight::Sight;
use crate::world::{Words, World};

/// How many states are expanded between two reports of progress.
const PROGRESS_EVERY: usize = 65_536;

/// A path to a state that cannot be right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counterexample {
    /// The invariant and what breaks it.
    pub breach: String,
    /// What happened, one step per item; each step is several lines.
    pub steps: Vec<Vec<String>>,
}

/// Why a search ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Every state within the bounds was visited.
    Exhausted,
    /// As many states as allowed.
    States,
    /// As deep as allowed.
    Depth,
    /// The caller had enough.
    Stopped,
    /// Something is wrong.
    Breach,
}

/// What a search found out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// Name of the configuration.
    pub name: &'static str,
    /// Why it ended.
    pub end: End,
    /// Distinct states visited.
    pub states: usize,
    /// Transitions taken, those to known states included.
    pub transitions: u64,
    /// Longest shortest path from the initial state.
    pub depth: usize,
    /// Distinct hosts met.
    pub hosts: usize,
    /// Distinct packets met.
    pub packets: usize,
    /// In how many transitions each sight was seen.
    pub sights: Vec<(Sight, u64)>,
    /// Goals of the configuration that were never seen.
    pub missed: Vec<Sight>,
    /// A way to break an invariant.
    pub counterexample: Option<Counterexample>,
}

impl Report {
    /// Nothing is wrong, everything within the bounds was seen, and it was worth seeing.
    #[must_use]
    pub fn is_proof(&self) -> bool {
        self.end == End::Exhausted && self.missed.is_empty()
    }

    /// In how many transitions `sight` was seen.
    #[must_use]
    pub fn seen(&self, sight: Sight) -> u64 {
        self.sights.iter().find(|(seen, _)| *seen == sight).map_or(0, |(_, count)| *count)
    }
}

/// How far a search is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Distinct states so far.
    pub states: usize,
    /// States known and not yet expanded.
    pub waiting: usize,
    /// Transitions so far.
    pub transitions: u64,
    /// Distance from the initial state.
    pub depth: usize,
    /// Distinct hosts met.
    pub hosts: usize,
    /// Steps of a host worked out; all other transitions were look-ups.
    pub worked_out: usize,
}

/// Searches until everything is seen, a limit is reached, or something is wrong.
#[must_use]
pub fn run(config: &Config) -> Report {
    run_while(config, |_| true)
}

/// The same, as long as `go_on` says so; it is asked every few ten thousand states.
pub fn run_while(config: &Config, mut go_on: impl FnMut(&Progress) -> bool) -> Report {
    let mut search = Search::new(config);
    let end = search.run(&mut go_on);
    search.report(end)
}

struct Search<'a> {
    config: &'a Config,
    world: World,
    known: FixedMap<Fingerprint, ()>,
    /// Of each state: the state it was first reached from, and which of its successors it is.
    origins: Vec<(u32, u32)>,
    first: Words,
    transitions: u64,
    depth: usize,
    sights: [u64; Sight::ALL.len()],
    /// The state before, which successor, and what is wrong with it.
    breach: Option<(u32, u32, String)>,
}

impl<'a> Search<'a> {
    fn new(config: &'a Config) -> Self {
        let mut world = World::new(config);
        let first = world.initial();
        let known = FixedMap::from_iter([(fingerprint(&first), ())]);
        let sights = [0; Sight::ALL.len()];
        Self { config, world, known, origins: vec![(0, 0)], first, transitions: 0, depth: 0, sights, breach: None }
    }

    fn run(&mut self, go_on: &mut impl FnMut(&Progress) -> bool) -> End {
        let limits = self.config.limits;
        let mut level: Vec<(u32, Words)> = vec![(0, self.first.clone())];
        let mut expanded = 0;
        while !level.is_empty() {
            if self.depth >= limits.depth {
                // How it goes on, for whoever expected an end.
                let (from, nth) = self.origins[level[0].0 as usize];
                self.breach = Some((from, nth, format!("still not at rest after {} steps", self.depth)));
                return End::Depth;
            }
            let mut next = Vec::new();
            for (number, words) in level {
                self.expand(number, &words, &mut next);
                expanded += 1;
                if self.breach.is_some() {
                    self.depth += 1;
                    return End::Breach;
                }
                if self.origins.len() >= limits.states {
                    return End::States;
                }
                if expanded % PROGRESS_EVERY == 0 && !go_on(&self.progress(expanded)) {
                    return End::Stopped;
                }
            }
            self.depth += usize::from(!next.is_empty());
            level = next;
        }
        End::Exhausted
    }

    fn expand(&mut self, number: u32, words: &[u32], next: &mut Vec<(u32, Words)>) {
        let mut nth = 0;
        let Self { world, known, origins, transitions, sights, breach, .. } = self;
        world.successors(words, |_, successor| {
            *transitions += 1;
            successor.sights.iter().for_each(|sight| sights[sight as usize] += 1);
            if let Some(what) = successor.breach {
                breach.get_or_insert((number, nth, what));
            } else if known.insert(fingerprint(&successor.words), ()).is_none() {
                let new = u32::try_from(origins.len()).expect("fewer than 2^32 states fit in memory");
                origins.push((number, nth));
                next.push((new, successor.words.into()));
            }
            nth += 1;
        });
    }

    fn progress(&self, expanded: usize) -> Progress {
        Progress {
            states: self.origins.len(),
            waiting: self.origins.len() - expanded,
            transitions: self.transitions,
            depth: self.depth,
            hosts: self.world.sizes().0,
            worked_out: self.world.lab.worked_out(),
        }
    }

    fn report(mut self, end: End) -> Report {
        let counterexample = self.breach.take().map(|(before, nth, breach)| self.counterexample(before, nth, breach));
        let seen = Sight::ALL.iter().map(|sight| (*sight, self.sights[*sight as usize]));
        let missed = self.config.goals.iter().copied().filter(|goal| self.sights[*goal as usize] == 0);
        let (hosts, packets, _) = self.world.sizes();
        Report {
            name: self.config.name,
            end,
            states: self.origins.len(),
            transitions: self.transitions,
            depth: self.depth,
            hosts,
            packets,
            sights: seen.filter(|(_, count)| *count > 0).collect(),
            missed: missed.collect(),
            counterexample,
        }
    }

    /// Replays the path to successor `nth` of state `before`.
    fn counterexample(&mut self, before: u32, nth: u32, breach: String) -> Counterexample {
        let mut path = vec![nth];
        let mut at = before;
        while at != 0 {
            let (from, nth) = self.origins[at as usize];
            path.push(nth);
            at = from;
        }
        let mut words = self.first.clone();
        let mut steps = Vec::new();
        for wanted in path.into_iter().rev() {
            let mut nth = 0;
            let mut found = None;
            self.world.successors(&words, |action, successor| {
                if nth == wanted {
                    found = Some((action.clone(), Words::from(successor.words)));
                }
                nth += 1;
            });
            let (action, next) = found.expect("successors come in the same order as before");
            steps.push(self.world.describe(&words, &action));
            words = next;
        }
        Counterexample { breach, steps }
    }
}

impl std::fmt::Display for Counterexample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (number, step) in self.steps.iter().enumerate() {
            writeln!(f, "{:>3}. {}", number + 1, step.join("\n     "))?;
        }
        writeln!(f, "{}", self.breach)
    }
}
