//! Which writes of unknown outcome explain an answer.
//!
//! Invariant: whatever is tried is taken back; the fewest writes win. Used by `search`.

use super::search::{Decision, Search, Unknown, is_plain_put, only_key, until};
use super::slots::Job;
use super::timeline::{Event, Fact, Item};

/// Explanations of one answer that are tried before the search gives up on being complete.
const EXPLANATIONS_MAX: usize = 64;
/// Moments that are tried for one unknown write to explain one answer.
const MOMENTS_MAX: usize = 64;
/// Unknown writes beyond the least number that one explanation may need.
const DEPTH_SLACK: usize = 2;

impl Search<'_> {
    /// The ways to explain item `at` with the fewest unknown writes before it.
    pub(super) fn explanations(&mut self, at: usize) -> Vec<Vec<Decision>> {
        let item = self.timeline.items[at];
        let makers: Vec<Option<usize>> = match item.event {
            Event::Seen if !self.made.contains_key(&item.revision) => {
                let is_free = |unknown: &&usize| !self.unknowns[**unknown].is_placed;
                self.candidates[&item.revision].iter().filter(is_free).map(|unknown| Some(*unknown)).collect()
            }
            Event::Seen | Event::Write(_) | Event::Ended(_) | Event::Answer(_) | Event::Past(..) => vec![None],
        };
        let mut found = Vec::new();
        let base = self.decisions.len();
        let least = self.least_depth(&item);
        for depth in least..=least + DEPTH_SLACK {
            for maker in &makers {
                if let Some(unknown) = *maker {
                    self.decide(Decision::Make { item: at, unknown });
                }
                self.explain(at, depth, base, &mut found);
                self.revoke(base);
            }
            if !found.is_empty() {
                break;
            }
        }
        found
    }

    /// Tries all ways to put in `depth` unknown writes before item `at`, which is the next one, and leaves everything
    /// as it was.
    pub(super) fn explain(&mut self, at: usize, depth: usize, base: usize, found: &mut Vec<Vec<Decision>>) {
        if found.len() >= EXPLANATIONS_MAX || self.steps > self.options.search_steps_max {
            self.is_incomplete = true;
            return;
        }
        if depth == 0 {
            if self.carry_out_to(at + 1) {
                found.push(self.decisions[base..].to_vec());
                self.rewind(at);
            }
            return;
        }
        // Writes of several keys leave many moments open: for a quick search only when nothing else explains the item.
        let (one_key, several): (Vec<usize>, Vec<usize>) =
            self.helpers(at).into_iter().partition(|unknown| only_key(&self.unknowns[*unknown].spans).is_some());
        let before = found.len();
        for unknown in one_key {
            self.explain_with(at, unknown, depth, base, found);
        }
        for unknown in several {
            if self.is_thorough || found.len() == before {
                self.explain_with(at, unknown, depth, base, found);
            }
        }
    }

    /// The same with `unknown` as the next one: as late as possible first, then before each earlier item that touches
    /// its keys. A write of one key that an item notices would be noticed, or gone, wherever it stood before that.
    pub(super) fn explain_with(
        &mut self,
        at: usize,
        unknown: usize,
        depth: usize,
        base: usize,
        found: &mut Vec<Vec<Decision>>,
    ) {
        let Unknown { floor, .. } = self.unknowns[unknown];
        let is_one_key = only_key(&self.unknowns[unknown].spans).is_some();
        let mut before = at;
        let mut tried = 0;
        for previous in (0..at).rev().map(Some).chain([None]) {
            let item = previous.map(|previous| self.timeline.items[previous]).filter(|item| item.revision > floor);
            if item.is_some_and(|item| !self.touches(&item, unknown)) {
                continue;
            }
            let after = item.map_or(floor, |item| item.revision);
            let job = Job { after, until: until(&self.timeline.items[before]) };
            let decision = Decision::Insert { before, unknown, job };
            let mut is_noticed = false;
            if job.after < job.until && !self.is_other_order(base, before, unknown) {
                let kept = self.decisions.len();
                self.decide(decision);
                if self.carry_out_to(at) {
                    self.explain(at, depth - 1, base, found);
                } else {
                    is_noticed = true;
                }
                self.revoke(kept);
                let restored = self.carry_out_to(at);
                assert!(restored, "what was carried out before cannot be repeated");
            }
            let Some(previous) = previous.filter(|_| item.is_some()) else { return };
            tried += 1;
            if is_noticed && is_one_key {
                return;
            }
            if tried >= MOMENTS_MAX {
                self.is_incomplete = true;
                return;
            }
            before = previous;
        }
    }

    /// Versions count puts: those that are missing must be among the unknown.
    pub(super) fn least_depth(&self, item: &Item<'_>) -> usize {
        let missing = |fact: &Fact<'_>| {
            let stored = self.store.get(fact.key)?;
            let is_same_life = Some(stored.create_revision) == fact.create_revision;
            usize::try_from(fact.version? - 1 - stored.version).ok().filter(|_| is_same_life)
        };
        match item.event {
            Event::Write(_) | Event::Seen => {
                let facts = self.timeline.facts.get(&item.revision).into_iter().flatten();
                facts.filter_map(missing).max().unwrap_or(0)
            }
            Event::Ended(_) | Event::Answer(_) | Event::Past(..) => 0,
        }
    }

    /// Unknown writes that could have happened before item `at` and touch its keys.
    pub(super) fn helpers(&self, at: usize) -> Vec<usize> {
        let item = &self.timeline.items[at];
        let spans = self.spans(item);
        let can_help = |unknown: &usize| {
            let unknown = &self.unknowns[*unknown];
            let touches = unknown.spans.iter().any(|one| spans.iter().any(|two| one.overlaps(*two)));
            touches && !unknown.is_placed && !unknown.is_reserved && unknown.floor < until(item)
        };
        (0..self.unknowns.len()).filter(can_help).collect()
    }

    /// Two plain puts in a row: one order of them is enough.
    pub(super) fn is_other_order(&self, base: usize, before: usize, unknown: usize) -> bool {
        let is_plain = |unknown: usize| is_plain_put(&self.unknowns[unknown].operation.request);
        match self.decisions[base..].last() {
            Some(Decision::Insert { before: last_before, unknown: last, .. }) => {
                (before, unknown) < (*last_before, *last) && is_plain(*last) && is_plain(unknown)
            }
            Some(Decision::Make { .. }) | None => false,
        }
    }
}
