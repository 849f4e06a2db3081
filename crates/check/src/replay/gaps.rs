//! Every write of unknown outcome that happened has a revision, and with dense numbering every revision a write.
//!
//! Invariant: says yes when in doubt, so that a no is a proof as far as the decisions go. Used by `search` at the end.

use std::collections::{BTreeMap, BTreeSet};

use super::search::{Decision, Search, Unknown, only_key};
use super::slots::{Job, all_fit, fill};
use super::timeline::Event;
use crate::history::{Bytes, Request, Revision};
use crate::span::Span;
use crate::verdict::Impossible;

impl<'a> Search<'a> {
    /// Gives every unknown write that was put in a revision, and every revision a write if all must have one.
    pub(super) fn check_slots(&self, is_dense: bool) -> Result<(), Impossible> {
        let taken = |revision: Revision| {
            self.timeline.writers.contains_key(&revision) || self.candidates.contains_key(&revision)
        };
        let inserts = self.decisions.iter().filter_map(|decision| match decision {
            Decision::Insert { unknown, job, .. } => Some((self.unknowns[*unknown].operation.id, *job)),
            Decision::Make { .. } => None,
        });
        let (writers, jobs): (Vec<u64>, Vec<Job>) = inserts.unzip();
        if !all_fit(&jobs, &taken) {
            let reason = "more writes of unknown outcome must have happened than there are revisions for them";
            return Err(Impossible::new(reason, writers));
        }
        if !is_dense {
            return Ok(());
        }
        let gaps = self.gaps();
        let is_spare = |unknown: &&Unknown<'_>| !unknown.is_placed && !unknown.is_reserved;
        let spare: Vec<&Unknown<'_>> = self.unknowns.iter().filter(is_spare).collect();
        let places = self.places(&spare);
        let can_fill =
            |unknown: &Unknown<'_>, gap: Revision| unknown.floor < gap && self.is_unseen(unknown, gap, &places);
        let unseen: Vec<BTreeSet<Revision>> =
            spare.iter().map(|unknown| gaps.iter().copied().filter(|gap| can_fill(unknown, *gap)).collect()).collect();
        let fits = |candidate: usize, gap: Revision| unseen[candidate].contains(&gap);
        match fill(&gaps, &jobs, spare.len(), &fits) {
            Ok(None) => Ok(()),
            Ok(Some(gap)) => {
                let reason = format!(
                    "revision {gap} was made by nobody: no write was acknowledged there, and no write of unknown \
                     outcome can have been there unseen"
                );
                // Whoever was told of it, or of a later one.
                let told = self.history.operations.iter().filter(|operation| operation.revision() >= Some(gap));
                let next = told.min_by_key(|operation| operation.revision()).map(|operation| operation.id);
                Err(Impossible::new(reason, next))
            }
            Err(job) => {
                Err(Impossible::new("a write must have happened, but there is no revision for it", [writers[job]]))
            }
        }
    }

    /// The revisions nobody is known to have made; not all, if they are more than the unknown writes.
    pub(super) fn gaps(&self) -> Vec<Revision> {
        let all = self.history.header.start_revision + 1..=self.timeline.revision_max;
        let is_known = |revision: &Revision| {
            self.timeline.writers.contains_key(revision) || self.candidates.contains_key(revision)
        };
        all.filter(|revision| !is_known(revision)).take(self.unknowns.len() + 1).collect()
    }

    /// Whether the unknown writes could fill all gaps if nobody had noticed any of them.
    pub(super) fn could_fill_gaps(&self) -> bool {
        let open: Vec<&Unknown<'_>> = self.unknowns.iter().filter(|unknown| !unknown.is_reserved).collect();
        let fits = |candidate: usize, gap: Revision| open[candidate].floor < gap;
        fill(&self.gaps(), &[], open.len(), &fits) == Ok(None)
    }

    /// The items that touch the keys of `unknowns`, for those that concern one key.
    pub(super) fn places(&self, unknowns: &[&Unknown<'a>]) -> BTreeMap<&'a Bytes, Vec<usize>> {
        let mut places: BTreeMap<&Bytes, Vec<usize>> =
            unknowns.iter().filter_map(|unknown| Some((only_key(&unknown.spans)?, Vec::new()))).collect();
        for (at, item) in self.timeline.items.iter().enumerate() {
            for span in self.spans(item) {
                if let Span::Key(key) = span {
                    if let Some(places) = places.get_mut(key).filter(|places| places.last() != Some(&at)) {
                        places.push(at);
                    }
                    continue;
                }
                for (_, places) in
                    places.iter_mut().filter(|(key, places)| span.contains(key) && places.last() != Some(&at))
                {
                    places.push(at);
                }
            }
        }
        places
    }

    /// Whether nobody would have noticed a write at `gap`. Says yes when in doubt.
    pub(super) fn is_unseen(
        &self,
        unknown: &Unknown<'_>,
        gap: Revision,
        places: &BTreeMap<&Bytes, Vec<usize>>,
    ) -> bool {
        let Some(key) = only_key(&unknown.spans) else { return true };
        let start = self.timeline.items.partition_point(|item| item.revision < gap);
        let mut is_hidden = false;
        let places = &places[key];
        let places = &places[places.partition_point(|at| *at < start)..];
        for item in places.iter().map(|at| &self.timeline.items[*at]) {
            match item.event {
                Event::Write(_) | Event::Seen => {
                    let facts = self.timeline.facts.get(&item.revision);
                    // What was seen of this write counts the puts before it.
                    if facts.into_iter().flatten().any(|fact| fact.key == key && fact.version.is_some()) {
                        return !matches!(unknown.operation.request, Request::Put(_));
                    }
                    if !self.is_blind(item) {
                        return true;
                    }
                    is_hidden = true;
                }
                // Perhaps the key goes with its lease.
                Event::Ended(_) => return true,
                // Whatever the answer shows came after a put that hides what was before it.
                Event::Answer(operation) => return is_hidden || !self.shows(operation, key),
                Event::Past(_, range, _) => return is_hidden || range.key != *key || !range.range_end.is_empty(),
            }
        }
        true
    }

    /// Whether an answer tells all about a key.
    pub(super) fn shows(&self, operation: usize, key: &Bytes) -> bool {
        match &self.history.operations[operation].request {
            Request::Range(range) => range.key == *key && range.range_end.is_empty() && !range.count_only,
            _ => false,
        }
    }
}
