//! Linearizable reads: all reads that arrive in one turn share one confirmation of leadership.
//!
//! A read passes through three places: `arrived` (until the end of the turn), `asked` (the kernel confirms), `waiting`
//! (until the confirmed index is applied here). A failed confirmation sends it back to `arrived` under a *new* id:
//! an old id is never asked twice, so that a late or repeated answer cannot confirm a younger read.

use std::collections::BTreeMap;

use base::{Index, Instant};
use kernel::ReadId;

use crate::event::Ticket;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader {
    pub(crate) ticket: Ticket,
    pub(crate) deadline: Instant,
}

#[derive(Debug, Default)]
pub(crate) struct Reads {
    arrived: Vec<Reader>,
    asked: BTreeMap<ReadId, Vec<Reader>>,
    waiting: BTreeMap<Index, Vec<Reader>>,
}

impl Reads {
    pub(crate) fn arrive(&mut self, reader: Reader) {
        self.arrived.push(reader);
    }

    /// Whether reads wait to be asked for.
    pub(crate) fn has_arrived(&self) -> bool {
        !self.arrived.is_empty()
    }

    /// Whether a confirmation is under way.
    pub(crate) fn has_asked(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Whether any read is anywhere in here.
    pub(crate) fn is_empty(&self) -> bool {
        self.arrived.is_empty() && self.asked.is_empty() && self.waiting.is_empty()
    }

    pub(crate) fn take_arrived(&mut self) -> Vec<Reader> {
        std::mem::take(&mut self.arrived)
    }

    pub(crate) fn asked(&mut self, id: ReadId, readers: Vec<Reader>) {
        let before = self.asked.insert(id, readers);
        assert!(before.is_none(), "read id {id:?} used twice");
    }

    /// Leadership is confirmed: those who may read now, given what is applied; the others wait.
    pub(crate) fn confirmed(&mut self, id: ReadId, at: Index, applied: Index) -> Vec<Reader> {
        let readers = self.asked.remove(&id).unwrap_or_default();
        if at <= applied {
            return readers;
        }
        self.waiting.entry(at).or_default().extend(readers);
        Vec::new()
    }

    /// Leadership was not confirmed: the reads will be asked for again.
    pub(crate) fn failed(&mut self, id: ReadId) {
        self.arrived.extend(self.asked.remove(&id).unwrap_or_default());
    }

    /// The state moved to `applied`: those who may read now.
    pub(crate) fn applied(&mut self, applied: Index) -> Vec<Reader> {
        if self.waiting.first_key_value().is_none_or(|(index, _)| *index > applied) {
            return Vec::new();
        }
        let later = self.waiting.split_off(&applied.next());
        std::mem::replace(&mut self.waiting, later).into_values().flatten().collect()
    }

    /// Removes and returns the reads whose time is up, wherever they are.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Reader> {
        let mut expired = Vec::new();
        let mut take = |readers: &mut Vec<Reader>| {
            expired.extend(readers.extract_if(.., |reader| reader.deadline <= now));
        };
        take(&mut self.arrived);
        self.asked.values_mut().for_each(&mut take);
        self.waiting.values_mut().for_each(&mut take);
        self.asked.retain(|_, readers| !readers.is_empty());
        self.waiting.retain(|_, readers| !readers.is_empty());
        expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(ticket: u64) -> Reader {
        Reader { ticket: Ticket(ticket), deadline: Instant(100) }
    }

    fn tickets(readers: Vec<Reader>) -> Vec<u64> {
        readers.into_iter().map(|reader| reader.ticket.0).collect()
    }

    #[test]
    fn a_read_waits_until_the_confirmed_index_is_applied() {
        let mut reads = Reads::default();
        reads.asked(ReadId(1), vec![reader(1)]);
        reads.asked(ReadId(2), vec![reader(2)]);
        assert!(reads.confirmed(ReadId(1), Index(7), Index(6)).is_empty());
        assert_eq!(tickets(reads.confirmed(ReadId(2), Index(6), Index(6))), [2]);
        assert!(reads.applied(Index(6)).is_empty());
        assert_eq!(tickets(reads.applied(Index(7))), [1]);
        assert!(reads.is_empty());
    }

    #[test]
    fn a_failed_confirmation_is_asked_again_and_a_late_one_confirms_nothing() {
        let mut reads = Reads::default();
        reads.asked(ReadId(1), vec![reader(1)]);
        reads.failed(ReadId(1));
        assert!(reads.confirmed(ReadId(1), Index(0), Index(9)).is_empty());
        assert_eq!(tickets(reads.take_arrived()), [1]);
    }

    #[test]
    fn a_read_expires_wherever_it_is() {
        let mut reads = Reads::default();
        reads.arrive(reader(1));
        reads.asked(ReadId(1), vec![reader(2)]);
        reads.asked(ReadId(2), vec![reader(3)]);
        reads.confirmed(ReadId(2), Index(5), Index(0));
        assert!(reads.expire(Instant(99)).is_empty());
        let mut all = tickets(reads.expire(Instant(100)));
        all.sort_unstable();
        assert_eq!(all, [1, 2, 3]);
        assert!(reads.is_empty());
    }
}
