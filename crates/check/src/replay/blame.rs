//! What is wrong, in words, with the operations that contradict each other.
//!
//! Invariant: a reason names what a correct store would have said. Used by `search`.

use super::search::{Search, may_put};
use super::timeline::{Fact, Item};
use crate::history::{Operation, Outcome, Response, Revision};
use crate::verdict::Impossible;

impl Search<'_> {
    pub(super) fn nobody_wrote(&self, revision: Revision, fact: &Fact<'_>) -> Impossible {
        let seen_by = self.history.operations[fact.by].id;
        let what = fact.describe(revision);
        let writer = self.history.operations.iter().find(|operation| may_put(&operation.request, fact));
        let (why, writer) = match writer {
            None => ("but no operation writes that".to_owned(), None),
            Some(writer) => {
                let why = match &writer.outcome {
                    Outcome::Failed { .. } => "but the write was reported as not done".to_owned(),
                    Outcome::Done { revision, .. } => format!("but the write was acknowledged at revision {revision}"),
                    Outcome::Unknown => "but that revision was known before the write was asked for".to_owned(),
                };
                (why, Some(writer.id))
            }
        };
        Impossible::new(format!("{what}, {why}"), std::iter::once(seen_by).chain(writer))
    }

    pub(super) fn unexplained(&self, item: &Item<'_>) -> Impossible {
        let fact = &self.timeline.facts[&item.revision][0];
        let seen_by = self.history.operations[fact.by].id;
        let writers = self.candidates[&item.revision].iter().map(|unknown| self.unknowns[*unknown].operation.id);
        let what = fact.describe(item.revision);
        let reason = format!("{what}, which none of the writes of unknown outcome explains");
        Impossible::new(reason, std::iter::once(seen_by).chain(writers.take(3)))
    }

    pub(super) fn wrong_fact(&self, revision: Revision, fact: &Fact<'_>) -> Impossible {
        let expected = match self.store.get(fact.key) {
            Some(stored) => format!(
                "it is {} (mod {}, create {}, version {})",
                stored.value, stored.mod_revision, stored.create_revision, stored.version
            ),
            None => "the key does not exist".to_owned(),
        };
        let reason = format!("{}, but after revision {revision} {expected}", fact.describe(revision));
        let writer = self.writer(revision);
        Impossible::new(reason, std::iter::once(self.history.operations[fact.by].id).chain(writer))
    }

    pub(super) fn wrong(
        &self,
        operation: &Operation,
        revision: Revision,
        expected: &Response,
        got: &Response,
    ) -> Impossible {
        let reason = format!("at revision {revision} a correct store answers `{expected}`, but the answer was `{got}`");
        let mut revisions = Vec::new();
        pairs_revisions(expected, &mut revisions);
        pairs_revisions(got, &mut revisions);
        revisions.sort_unstable();
        revisions.dedup();
        let writers = revisions.iter().rev().filter_map(|revision| self.writer(*revision));
        let others: Vec<u64> = writers.filter(|id| *id != operation.id).take(4).collect();
        Impossible::new(reason, std::iter::once(operation.id).chain(others))
    }

    /// The operation that wrote at a revision.
    pub(super) fn writer(&self, revision: Revision) -> Option<u64> {
        let acked = self.timeline.writers.get(&revision).map(|at| self.history.operations[*at].id);
        acked.or_else(|| self.made.get(&revision).map(|unknown| self.unknowns[*unknown].operation.id))
    }
}

fn pairs_revisions(response: &Response, revisions: &mut Vec<Revision>) {
    match response {
        Response::Range { kvs, .. } => revisions.extend(kvs.iter().map(|pair| pair.mod_revision)),
        Response::Put { prev_kv } => revisions.extend(prev_kv.iter().map(|pair| pair.mod_revision)),
        Response::DeleteRange { prev_kvs, .. } => revisions.extend(prev_kvs.iter().map(|pair| pair.mod_revision)),
        Response::Txn { responses, .. } => responses.iter().for_each(|response| pairs_revisions(response, revisions)),
        _ => {}
    }
}
