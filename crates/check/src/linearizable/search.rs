//! The search for an order: depth first, with a memory of configurations that led nowhere.
//!
//! Invariant: a configuration is which operations were carried out and the state after them; the same configuration has
//! the same future, so it is looked at once.

use std::collections::HashSet;

use super::group::{Group, Step};
use super::state::State;
use crate::verdict::{Impossible, Options, Verdict};

/// What makes a configuration: which steps are done, compressed, and the hash of the state.
type Configuration = (Vec<u64>, u128);

/// A place in the search: what led here, what may come next.
struct Frame {
    taken: Option<usize>,
    /// The state's mark before that.
    mark: usize,
    /// Steps, each with what is assumed of its compares.
    next: Vec<(usize, bool)>,
}

struct Search<'a, 'h> {
    group: &'a Group<'h>,
    state: State,
    /// Answered steps first, then unknown ones.
    done: Vec<bool>,
    /// The first answered step that is not done.
    first: usize,
    count: usize,
    seen: HashSet<Configuration>,
}

/// The longest attempt: how many are explained, who waits, and the state.
type Attempt = (usize, Vec<u64>, String);

/// Looks for an order; returns how many answers it explains.
pub(super) fn search(group: &Group<'_>, options: &Options) -> Result<usize, Verdict> {
    let mut search = Search {
        group,
        state: State::default(),
        done: vec![false; group.answered.len() + group.unknown.len()],
        first: 0,
        count: 0,
        seen: HashSet::new(),
    };
    let mut steps = 0u64;
    let mut frames = vec![search.frame(None, 0)];
    let mut furthest: Attempt = (0, search.waiting(), search.state.describe());
    loop {
        if search.first == group.answered.len() {
            return Ok(group.answered.len());
        }
        let Some(frame) = frames.last_mut() else { return Err(refuted(&furthest).into()) };
        let Some((step, assumed)) = frame.next.pop() else {
            if search.count > furthest.0 {
                furthest = (search.count, search.waiting(), search.state.describe());
            }
            search.go_back(frames.pop().as_ref());
            continue;
        };
        steps += 1;
        if steps > options.search_steps_max || search.seen.len() > options.search_memory_max {
            let why = format!("no order of {} operations found in {steps} steps", group.answered.len());
            return Err(Verdict::Undecided { why });
        }
        let mark = search.state.mark();
        if search.take(step, assumed) {
            let frame = search.frame(Some(step), mark);
            frames.push(frame);
        }
    }
}

fn refuted((count, waiting, state): &Attempt) -> Impossible {
    let reason = format!(
        "no order respects time and explains every answer; the longest attempt explains {count} operations, reaches \
         the state [{state}], and then none of these can be next"
    );
    Impossible::new(reason, waiting.iter().copied())
}

impl Search<'_, '_> {
    fn step(&self, at: usize) -> &Step<'_> {
        match self.group.answered.get(at) {
            Some(step) => step,
            None => &self.group.unknown[at - self.group.answered.len()],
        }
    }

    /// Carries a step out; after a no everything is as before.
    fn take(&mut self, step: usize, assumed: bool) -> bool {
        let (mark, hash) = (self.state.mark(), self.state.hash());
        let group = self.group;
        let is_answered = step < group.answered.len();
        let taken = if is_answered { &group.answered[step] } else { &group.unknown[step - group.answered.len()] };
        let is_possible = group.step(&mut self.state, taken, assumed);
        // An unknown write that changes nothing need not have happened.
        if !is_possible || (!is_answered && self.state.hash() == hash) {
            self.state.undo(mark);
            return false;
        }
        self.done[step] = true;
        self.count += usize::from(is_answered);
        while self.first < group.answered.len() && self.done[self.first] {
            self.first += 1;
        }
        if self.is_new() {
            return true;
        }
        self.go_back(Some(&Frame { taken: Some(step), mark, next: Vec::new() }));
        false
    }

    /// Undoes what led to a frame.
    fn go_back(&mut self, frame: Option<&Frame>) {
        let Some(Frame { taken: Some(step), mark, .. }) = frame else { return };
        self.state.undo(*mark);
        self.done[*step] = false;
        if *step < self.group.answered.len() {
            self.count -= 1;
            self.first = self.first.min(*step);
        }
    }

    /// Steps that may be next as far as time goes: those invoked before any other that waits was answered.
    fn candidates(&self) -> Vec<usize> {
        let mut deadline = u64::MAX;
        let mut answered = Vec::new();
        for (at, step) in self.group.answered.iter().enumerate().skip(self.first) {
            if step.invoked > deadline {
                break;
            }
            if !self.done[at] {
                deadline = deadline.min(step.returned.unwrap_or(u64::MAX));
                answered.push(at);
            }
        }
        answered.retain(|at| self.step(*at).invoked <= deadline);
        let base = self.group.answered.len();
        let unknown = self.group.unknown.iter().take_while(|step| step.invoked <= deadline).enumerate();
        let mut candidates: Vec<usize> = unknown.map(|(at, _)| base + at).filter(|at| !self.done[*at]).collect();
        candidates.reverse();
        // The last is tried first: answered ones by deadline, unknown ones when nothing else is left.
        answered.sort_by_key(|at| std::cmp::Reverse((self.step(*at).returned, *at)));
        candidates.append(&mut answered);
        candidates
    }

    fn frame(&self, taken: Option<usize>, mark: usize) -> Frame {
        let mut next = Vec::new();
        for at in self.candidates() {
            if Group::is_open(self.step(at)) {
                next.push((at, false));
            }
            next.push((at, true));
        }
        Frame { taken, mark, next }
    }

    fn waiting(&self) -> Vec<u64> {
        const SHOWN_MAX: usize = 6;
        let mut waiting = self.candidates();
        waiting.reverse();
        waiting.into_iter().take(SHOWN_MAX).map(|at| self.step(at).id).collect()
    }

    /// Remembers the configuration; says whether it was not there.
    fn is_new(&mut self) -> bool {
        if self.first == self.group.answered.len() {
            return true;
        }
        let answered = self.group.answered.len();
        let last = (self.first..answered).take_while(|at| {
            // Nothing is done far behind the first that waits: whoever waits holds up what was invoked after its
            // answer.
            self.group.answered[*at].invoked <= self.group.answered[self.first].returned.unwrap_or(u64::MAX)
        });
        let mut bits = vec![self.first as u64];
        push_bits(&mut bits, last.map(|at| self.done[at]));
        bits.push(u64::MAX);
        push_bits(&mut bits, self.done[answered..].iter().copied());
        self.seen.insert((bits, self.state.hash()))
    }
}

fn push_bits(words: &mut Vec<u64>, bits: impl Iterator<Item = bool>) {
    for (at, bit) in bits.enumerate() {
        if at % 64 == 0 {
            words.push(0);
        }
        let last = words.last_mut().expect("a word was pushed");
        *last |= u64::from(bit) << (at % 64);
    }
}
