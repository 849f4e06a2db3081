//! Where the log ends at the front: compaction, and snapshots of the state machine that replace what is gone.
//!
//! Invariant: a snapshot never takes back what was applied, and never drops entries that connect to it.

use base::planted::{Defect, planted};
use base::{Ballot, Index, Instant};

use crate::entry::Mark;
use crate::log::Log;
use crate::message::Body;
use crate::policy::History;
use crate::ready::Record;
use crate::replica::Replica;

impl Replica {
    /// Whether a snapshot at `mark` would be news. The host asks before it starts to receive one, and again directly
    /// before it installs it: by then the log may have overtaken it.
    #[must_use]
    pub fn wants_snapshot(&self, mark: &Mark) -> bool {
        let is_news = mark.position.index > self.commit || planted(Defect::SnapshotRollback);
        self.removed.is_none() && is_news && mark.membership.is_sound()
    }

    /// The host begins, or gives up, to replace the state machine by a snapshot. Until [`Self::snapshot_installed`]
    /// nothing is handed out, since neither may run ahead of the other; votes, acknowledgements and everything else go
    /// on.
    pub fn snapshot_installing(&mut self, installing: bool) {
        self.installing = installing;
    }

    /// The host has durably replaced the state machine by a snapshot at `mark` that came from the leader of ballot
    /// `leader`. Entries after it stay if they connect.
    pub fn snapshot_installed(&mut self, now: Instant, leader: Ballot, mark: Mark) {
        self.advance(now);
        self.installing = false;
        let position = mark.position;
        if position.index > self.timeline.mark().position.index {
            self.restart_log_at(leader, mark);
        }
        let sender = self.timeline.all().find_map(|membership| {
            membership.nodes.iter().find(|(_, node)| **node == leader.node).map(|(replica, _)| *replica)
        });
        let sender = self.leader.filter(|_| self.promised == leader).or(sender);
        if let Some(to) = sender.filter(|to| *to != self.id()) {
            self.send_when_durable(to, leader, Body::SnapshotInstalled { position });
        }
    }

    fn restart_log_at(&mut self, leader: Ballot, mark: Mark) {
        let position = mark.position;
        let keep_suffix = self.config.protocol.history(self.log.stamp(position.index), position.stamp)
            != History::Other
            && !planted(Defect::SnapshotRollback);
        let newest = leader.max(position.stamp).max(mark.max_origin);
        if newest > self.promised {
            self.become_follower(newest, None);
        } else if !keep_suffix {
            // Only a replica that never led can lack what is committed, but its log is about to be replaced.
            self.become_follower(self.promised, self.leader.filter(|leader| *leader != self.id()));
        }
        self.seal();
        let before = self.timeline.at(self.commit).clone();
        self.commit = self.commit.max(position.index);
        self.staged = None;
        self.applying.clear();
        self.applying_bytes = 0;
        if keep_suffix {
            self.log.apply_to(position.index);
            self.log.rebase(position);
        } else {
            self.log = Log::new(position);
            self.durable.restarted(position.index);
        }
        self.record(Record::Compact { base: position, keep_suffix });
        self.timeline = crate::membership::Timeline::new(mark, self.log.iter_from(position.index.next()));
        self.sync_peers();
        self.notice_removal(&before);
    }

    /// The host keeps the state up to `to` durably elsewhere, so the log need not: false if that is not applied yet,
    /// and nothing happens. Entries not yet durable are kept in any case.
    pub fn compact(&mut self, to: Index) -> bool {
        if to > self.log.applied() {
            return false;
        }
        let to = to.min(self.log.persisted());
        if to > self.log.base().index {
            self.log.compact(to);
            self.record(Record::Compact { base: self.log.base(), keep_suffix: true });
        }
        true
    }
}
