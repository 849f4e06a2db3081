//! Linearizable reads without a log entry (ReadIndex; Raft thesis 6.4).
//!
//! The leader takes its commit index as the read index and then lets a quorum confirm that it still leads. A
//! confirmation counts only if it answers an append that was sent *after* the index was taken, which the number in the
//! append proves; the name of the request proves nothing, since requests may be repeated. One round serves all reads
//! that wait when it starts, and those that come later wait for the next: one round under way and one queue.
//!
//! A follower asks its leader under a number of its own and gives up after an election timeout.

use std::collections::{BTreeMap, VecDeque};

use base::limits::PENDING_READS_MAX;
use base::planted::{Defect, planted};
use base::{Index, Instant, Prng, ReplicaId};

use crate::leader::Leadership;
use crate::message::Body;
use crate::quorum::has_quorum;
use crate::ready::{ReadDone, ReadId, Refusal};
use crate::replica::{Replica, RoleState};

/// Who waits for a read index.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Reader {
    Local(ReadId),
    Remote(ReplicaId, ReadId),
}

/// A leader's reads.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct ReadRounds {
    round: Option<Round>,
    queued: Vec<Reader>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Round {
    at: Index,
    /// Appends from this number on were sent after `at` was taken.
    confirm_from: u64,
    readers: Vec<Reader>,
}

impl ReadRounds {
    fn len(&self) -> usize {
        self.queued.len() + self.round.as_ref().map_or(0, |round| round.readers.len())
    }

    /// Whether a new round can start.
    fn is_startable(&self) -> bool {
        self.round.is_none() && !self.queued.is_empty()
    }
}

/// A follower's reads: each batch under a number that no incarnation used before, as far as a seed can tell.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Forwards {
    numbers: Prng,
    collecting: Vec<ReadId>,
    asked: BTreeMap<ReadId, (Instant, Vec<ReadId>)>,
    /// Numbers in the order of their deadlines.
    order: VecDeque<(Instant, ReadId)>,
    waiting: usize,
}

impl Forwards {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            numbers: Prng::new(!seed),
            collecting: Vec::new(),
            asked: BTreeMap::new(),
            order: VecDeque::new(),
            waiting: 0,
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.order.front().map(|(deadline, _)| *deadline)
    }

    pub(crate) fn is_collecting(&self) -> bool {
        !self.collecting.is_empty()
    }

    /// For a model without time: every read under way has until `deadline`.
    pub(crate) fn assume_deadline(&mut self, deadline: Instant) {
        self.asked.values_mut().for_each(|(at, _)| *at = deadline);
        self.order.iter_mut().for_each(|(at, _)| *at = deadline);
    }

    fn take(&mut self, number: ReadId) -> Vec<ReadId> {
        let Some((_, readers)) = self.asked.remove(&number) else { return Vec::new() };
        self.order.retain(|(_, asked)| *asked != number);
        self.waiting -= readers.len();
        readers
    }
}

impl Replica {
    /// Asks for an index from which a read is linearizable. The answer comes in `Ready::reads`: always, and within
    /// about an election timeout.
    pub fn read(&mut self, now: Instant, id: ReadId) -> Result<(), Refusal> {
        self.advance(now);
        if self.is_leader() {
            return self.queue_read(Reader::Local(id));
        }
        if self.leader.is_none() || self.removed.is_some() {
            return Err(self.not_leader());
        }
        if self.forwards.waiting + self.forwards.collecting.len() >= PENDING_READS_MAX {
            return Err(Refusal::Overloaded);
        }
        self.forwards.collecting.push(id);
        Ok(())
    }

    fn queue_read(&mut self, reader: Reader) -> Result<(), Refusal> {
        let RoleState::Leader(leadership) = &mut self.role else { return Err(self.not_leader()) };
        // Before its marker is applied a leader does not know what was committed before it.
        if self.log.applied() < leadership.marker && !planted(Defect::EarlyRead) {
            return Err(Refusal::NotReady);
        }
        if leadership.reads.len() >= PENDING_READS_MAX {
            return Err(Refusal::Overloaded);
        }
        leadership.reads.queued.push(reader);
        Ok(())
    }

    /// Whether the next turn starts a round.
    pub(crate) fn has_startable_reads(&self) -> bool {
        matches!(&self.role, RoleState::Leader(leadership) if leadership.reads.is_startable())
    }

    /// At the end of a turn: starts a round for the queued reads, or sends the collected ones to the leader.
    pub(crate) fn start_reads(&mut self) {
        self.send_forwards();
        let commit = self.commit;
        let RoleState::Leader(leadership) = &mut self.role else { return };
        if !leadership.reads.is_startable() {
            return;
        }
        let readers = std::mem::take(&mut leadership.reads.queued);
        if self.is_sole_voter() {
            return self.answer_reads(&readers, Ok(commit));
        }
        let RoleState::Leader(leadership) = &mut self.role else { return };
        let Leadership { reads, peers, confirm_seq, .. } = leadership.as_mut();
        let confirm_from = if planted(Defect::LateConfirmation) { 1 } else { *confirm_seq + 1 };
        reads.round = Some(Round { at: commit, confirm_from, readers });
        for (_, peer) in peers.iter_mut() {
            peer.confirm_due = true;
        }
    }

    /// Ends the round if a quorum confirmed it.
    pub(crate) fn complete_reads(&mut self) {
        let own = self.id();
        let RoleState::Leader(leadership) = &mut self.role else { return };
        let Leadership { reads, peers, .. } = leadership.as_mut();
        let Some(round) = &reads.round else { return };
        let confirmed = |replica: ReplicaId| {
            replica == own || peers.get(replica).is_some_and(|peer| peer.confirmed >= round.confirm_from)
        };
        if has_quorum(self.timeline.effective(), confirmed)
            && let Some(Round { at, readers, .. }) = reads.round.take()
        {
            self.answer_reads(&readers, Ok(at));
        }
    }

    /// Leadership is lost: nobody's read can be confirmed any more.
    pub(crate) fn fail_reads(&mut self, leadership: Leadership) {
        let ReadRounds { round, queued } = leadership.reads;
        let refusal = Err(self.not_leader());
        let readers = round.map_or_else(Vec::new, |round| round.readers);
        self.answer_reads(&readers, refusal);
        self.answer_reads(&queued, refusal);
    }

    fn answer_reads(&mut self, readers: &[Reader], at: Result<Index, Refusal>) {
        for reader in readers {
            match *reader {
                Reader::Local(id) => self.out.reads.push(ReadDone { id, at }),
                Reader::Remote(to, id) => self.send(to, self.promised, Body::ReadIndexReply { id, at }),
            }
        }
    }

    /// A follower asks.
    pub(crate) fn on_read_index(&mut self, from: ReplicaId, id: ReadId) {
        if let Err(refusal) = self.queue_read(Reader::Remote(from, id)) {
            self.send(from, self.promised, Body::ReadIndexReply { id, at: Err(refusal) });
        }
    }

    /// The answer to a read this replica forwarded; anything else that claims to be one is not known here.
    pub(crate) fn on_read_index_reply(&mut self, number: ReadId, at: Result<Index, Refusal>) {
        for id in self.forwards.take(number) {
            self.out.reads.push(ReadDone { id, at });
        }
    }

    fn send_forwards(&mut self) {
        if self.forwards.collecting.is_empty() {
            return;
        }
        let readers = std::mem::take(&mut self.forwards.collecting);
        let Some(leader) = self.leader.filter(|_| !self.is_leader()) else {
            let at = Err(self.not_leader());
            self.out.reads.extend(readers.into_iter().map(|id| ReadDone { id, at }));
            return;
        };
        let number = ReadId(self.forwards.numbers.next_u64());
        let deadline = self.now + self.config.election_timeout;
        self.forwards.waiting += readers.len();
        self.forwards.asked.insert(number, (deadline, readers));
        self.forwards.order.push_back((deadline, number));
        self.send(leader, self.promised, Body::ReadIndex { id: number });
    }

    /// Gives up on forwarded reads whose time is over.
    pub(crate) fn expire_forwards(&mut self) {
        while let Some((_, number)) = self.forwards.order.front().filter(|(deadline, _)| *deadline <= self.now).copied()
        {
            let at = Err(Refusal::NotLeader(None));
            let readers = self.forwards.take(number);
            self.out.reads.extend(readers.into_iter().map(|id| ReadDone { id, at }));
        }
    }

    /// The leader changed: it will not answer.
    pub(crate) fn fail_forwards(&mut self) {
        let at = Err(self.not_leader());
        self.forwards.order.clear();
        self.forwards.waiting = 0;
        let asked = std::mem::take(&mut self.forwards.asked);
        let readers = asked.into_values().flat_map(|(_, readers)| readers);
        let collected = std::mem::take(&mut self.forwards.collecting);
        self.out.reads.extend(readers.chain(collected).map(|id| ReadDone { id, at }));
    }
}
