//! Where the writes of unknown outcome find a revision of their own.
//!
//! Invariant: a revision belongs to one write. With dense numbering every revision belongs to somebody. Used by
//! `search` once it knows which unknown writes happened.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use crate::history::Revision;

/// A write that happened at some revision above `after`, at most `until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) after: Revision,
    pub(super) until: Revision,
}

/// Whether every job finds a revision that is not `taken`: earliest deadline first.
pub(super) fn all_fit(jobs: &[Job], taken: &dyn Fn(Revision) -> bool) -> bool {
    let mut waiting: Vec<Job> = jobs.to_vec();
    waiting.sort_by_key(|job| std::cmp::Reverse(job.after));
    let mut deadlines: BinaryHeap<std::cmp::Reverse<Revision>> = BinaryHeap::new();
    let mut slot = Revision::MIN;
    loop {
        if deadlines.is_empty() {
            let Some(next) = waiting.last() else { return true };
            slot = slot.max(next.after.saturating_add(1));
        }
        while waiting.last().is_some_and(|job| job.after < slot) {
            deadlines.extend(waiting.pop().map(|job| std::cmp::Reverse(job.until)));
        }
        if !taken(slot) {
            deadlines.pop();
        }
        slot = slot.saturating_add(1);
        if deadlines.peek().is_some_and(|deadline| deadline.0 < slot) {
            return false;
        }
    }
}

/// Fills each of `gaps`: with all of `jobs`, and with further candidates, of which candidate `c` fits gap `g` if
/// `fits(c, g)`. Returns the first gap that stays empty; `Err` when a job finds no gap. Augmenting paths; what has a
/// partner keeps one.
pub(super) fn fill(
    gaps: &[Revision],
    jobs: &[Job],
    candidates: usize,
    fits: &dyn Fn(usize, Revision) -> bool,
) -> Result<Option<Revision>, usize> {
    let mut matching = Matching { gaps, jobs, fits, candidates, filler: BTreeMap::new() };
    for job in 0..jobs.len() {
        if !matching.place(job, &mut BTreeSet::new()) {
            return Err(job);
        }
    }
    for (at, gap) in gaps.iter().enumerate() {
        if !matching.filler.contains_key(&at) && !matching.find_filler(at, &mut BTreeSet::new()) {
            return Ok(Some(*gap));
        }
    }
    Ok(None)
}

/// Fillers are numbered: first the jobs, then the candidates.
struct Matching<'a> {
    gaps: &'a [Revision],
    jobs: &'a [Job],
    candidates: usize,
    fits: &'a dyn Fn(usize, Revision) -> bool,
    /// Gap to filler.
    filler: BTreeMap<usize, usize>,
}

impl Matching<'_> {
    fn can_fill(&self, filler: usize, gap: usize) -> bool {
        match self.jobs.get(filler) {
            Some(job) => job.after < self.gaps[gap] && self.gaps[gap] <= job.until,
            None => (self.fits)(filler - self.jobs.len(), self.gaps[gap]),
        }
    }

    /// Finds a gap for a filler, moving others on.
    fn place(&mut self, filler: usize, tried: &mut BTreeSet<usize>) -> bool {
        for gap in 0..self.gaps.len() {
            if !self.can_fill(filler, gap) || !tried.insert(gap) {
                continue;
            }
            let moved = match self.filler.get(&gap) {
                None => true,
                Some(other) => self.place(*other, tried),
            };
            if moved {
                self.filler.insert(gap, filler);
                return true;
            }
        }
        false
    }

    /// Finds a filler for a gap, taking it from others that find another.
    fn find_filler(&mut self, gap: usize, tried: &mut BTreeSet<usize>) -> bool {
        for filler in 0..self.jobs.len() + self.candidates {
            if tried.contains(&filler) || !self.can_fill(filler, gap) {
                continue;
            }
            tried.insert(filler);
            let held = self.filler.iter().find(|(_, other)| **other == filler).map(|(gap, _)| *gap);
            if held.is_none_or(|held| self.find_filler(held, tried)) {
                self.filler.insert(gap, filler);
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(after: Revision, until: Revision) -> Job {
        Job { after, until }
    }

    #[test]
    fn jobs_that_share_one_free_revision_do_not_fit() {
        let taken = |revision| revision % 2 == 0;
        assert!(all_fit(&[job(2, 4), job(2, 6)], &taken));
        assert!(!all_fit(&[job(2, 4), job(2, 4)], &taken));
        assert!(!all_fit(&[job(3, 4)], &taken));
        assert!(all_fit(&[job(0, 100), job(50, 51), job(2, 4)], &taken));
        assert!(all_fit(&[], &taken));
    }

    #[test]
    fn every_gap_must_be_filled_and_every_job_placed() {
        let never = |_: usize, _: Revision| false;
        assert_eq!(fill(&[3, 5], &[job(2, 5), job(2, 3)], 0, &never), Ok(None));
        assert_eq!(fill(&[3, 5], &[job(2, 3), job(2, 3)], 0, &never), Err(1));
        assert_eq!(fill(&[3, 5], &[job(2, 5)], 0, &never), Ok(Some(5)));
        let fits = |candidate: usize, gap: Revision| candidate == 0 || gap == 3;
        assert_eq!(fill(&[3, 5], &[], 2, &fits), Ok(None));
        assert_eq!(fill(&[3, 5, 7], &[], 2, &fits), Ok(Some(7)));
        assert_eq!(fill(&[], &[job(1, 2)], 2, &fits), Err(0));
    }
}
