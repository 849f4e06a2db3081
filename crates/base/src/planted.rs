//! Defects planted on purpose, one at a time, to show that each of our checks can fail.
//!
//! Invariant: without the build feature `planted` every question is answered "no" at compile time, and an optimized
//! build without debug assertions cannot have the feature. The code of a defect stands beside the right code, behind
//! [`planted`], and in no other way.

#[cfg(all(feature = "planted", not(debug_assertions)))]
compile_error!("the feature `planted` is for builds with debug assertions: it must never be in a released binary");

/// Defines the defects with their ids and descriptions.
macro_rules! defects {
    ($($(#[$doc:meta])* $name:ident = $id:literal),+ $(,)?) => {
        /// What can be broken. The letters: C the shared kernel, P Multi-Paxos, Z Zab, H Paxos-Raft, S storage,
        /// W watches, K leases and locks.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Defect {
            $($(#[$doc])* $name),+
        }

        impl Defect {
            /// Every defect.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The short name used on command lines and in tables.
            #[must_use]
            pub const fn id(self) -> &'static str {
                match self {
                    $(Self::$name => $id),+
                }
            }
        }
    };
}

defects! {
    /// Entries of an earlier ballot are committed by counting replicas.
    CommitOldStamp = "C1",
    /// A vote is answered before it is durable.
    EarlyVote = "C2",
    /// A restart forgets whom it voted for in the promised ballot.
    ForgottenVote = "C3",
    /// An append is acknowledged before it is durable.
    EarlyAppendAck = "C4",
    /// A stale append cuts off a suffix that matches.
    TruncateMatching = "C5",
    /// A rejection moves the leader's idea of what a follower holds.
    MatchOnReject = "C6",
    /// A follower commits what the leader says up to its own last entry, verified or not.
    CommitUnverified = "C7",
    /// Logs are compared by length before their last stamp.
    LengthBeforeStamp = "C8",
    /// Half of the members is taken for a quorum.
    HalfQuorum = "C9",
    /// A membership change begins while another is under way.
    OverlappingChange = "C10",
    /// In a joint membership the new members decide alone.
    NewQuorumOnly = "C11",
    /// A learner counts towards the quorum.
    LearnerVotes = "C12",
    /// A leader that was removed goes on counting itself.
    RemovedCounts = "C13",
    /// A snapshot is installed over newer applied state.
    SnapshotRollback = "C14",
    /// A snapshot carries no membership.
    SnapshotWithoutMembership = "C15",
    /// The applied position is written in another step than the state.
    MarkApart = "C16",
    /// After a restart entries are applied a second time.
    ApplyTwice = "C17",
    /// A new leader serves reads before an entry of its own ballot is committed.
    EarlyRead = "C18",
    /// A confirmation from before a read was asked for satisfies it.
    LateConfirmation = "C19",
    /// The clock that a node is given follows the wall clock, jumps and all.
    WallClock = "C23",
    /// Pre-votes are counted as votes.
    PreVotesCount = "C21",
    /// Ticks wait for the disk, so a leader whose disk stalls never steps down.
    TicksWaitForDisk = "C22",
    /// A new leader takes some other value than the one with the highest stamp of a slot.
    IgnoreHighestStamp = "P1",
    /// A restarted candidate uses a ballot again.
    BallotReused = "P2",
    /// A slot of the suffix that was chosen is filled with nothing.
    NoOpFill = "P3",
    /// Votes are taken for slots about which they say nothing.
    VoteBeyondRange = "P4",
    /// Multi-Paxos cuts off the suffix after an overwritten slot.
    PaxosTruncates = "P5",
    /// Multi-Paxos adopts one whole log instead of merging by slot.
    PaxosWholeLog = "P6",
    /// The candidate asks only the quorum of the membership it knows.
    NoFixpoint = "P7",
    /// The epoch is promised apart from the history it was promised with.
    EpochApart = "Z1",
    /// A follower acknowledges the synchronization before its log is durable.
    EarlySyncAck = "Z2",
    /// Proposals are taken, and old epochs committed by counting, without the synchronization barrier.
    NoSyncBarrier = "Z3",
    /// What was chosen under the accepted ballot is not looked at by the election.
    AcceptedIgnored = "H1",
    /// Paxos-Raft elects by Raft's rule.
    RaftVoteRule = "H2",
    /// Paxos-Raft accepts appends that do not cover what they replace.
    NoCoverage = "H3",
    /// A checksum is not verified on one way of reading.
    ChecksumSkipped = "S1",
    /// Damage in the middle of the log is cut off like a torn tail.
    DamageTruncated = "S2",
    /// A file is created without syncing its directory.
    DirectoryUnsynced = "S3",
    /// A failed fsync is repeated.
    SyncRetried = "S4",
    /// The address of a record is not part of its checksum.
    AddressUnchecked = "S5",
    /// After a full disk half a batch stays and the next one follows it.
    HalfBatch = "S6",
    /// A node that lost its data votes as its old self.
    AmnesiacVotes = "S7",
    /// A watch that starts at the compaction floor does not get the floor's own events.
    WatchFloorLost = "W1",
    /// A watch that read history ahead of what its node has handed out gets the same events again.
    WatchHistoryTwice = "W2",
    /// Progress is told before the events it speaks of.
    WatchEarlyProgress = "W3",
    /// A watch that falls behind goes on with the present.
    WatchStarved = "W4",
    /// A watch of the future gets older events.
    WatchStartIgnored = "W5",
    /// A leader of the past goes on ending leases by its own clock.
    StaleExpiry = "K1",
    /// A new leader goes on with the time that it counted for leases before, without the renewals of the last one.
    LeaseTimeKept = "K3",
    /// A leader ends leases without asking whether it still leads.
    UnconfirmedExpiry = "K4",
    /// A leader asks whether it still leads before the time of a lease is up, and ends the lease on that word.
    OldConfirmation = "K5",
    /// A lock is granted without looking again whether its key is still there.
    LockWithoutRecheck = "K2",
}

#[cfg(feature = "planted")]
mod switch {
    use std::cell::Cell;

    use super::Defect;

    // Of the thread, so that tests side by side do not break each other's systems. Simulations have one thread.
    thread_local! {
        static ACTIVE: Cell<Option<Defect>> = const { Cell::new(None) };
    }

    /// Switches one defect on, or all off, for the code that runs on this thread.
    pub fn plant(defect: Option<Defect>) {
        ACTIVE.set(defect);
    }

    /// Whether this defect is to be had.
    #[must_use]
    #[inline]
    pub fn planted(defect: Defect) -> bool {
        ACTIVE.get() == Some(defect)
    }
}

#[cfg(feature = "planted")]
pub use switch::{plant, planted};

/// Nothing can be switched on in this build.
///
/// # Panics
/// If a defect is asked for: a run that silently goes without it would prove the opposite of what it should.
#[cfg(not(feature = "planted"))]
pub fn plant(defect: Option<Defect>) {
    assert!(defect.is_none(), "{defect:?} cannot be planted: build with the feature `planted` of the crate `base`");
}

/// Whether this defect is to be had: never, in this build.
#[cfg(not(feature = "planted"))]
#[must_use]
#[inline]
pub const fn planted(_: Defect) -> bool {
    false
}

impl Defect {
    /// The defect with this id, in either case of letters.
    #[must_use]
    pub fn from_id(id: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|defect| defect.id().eq_ignore_ascii_case(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_lead_back() {
        for defect in Defect::ALL {
            assert_eq!(Defect::from_id(defect.id()), Some(*defect));
        }
    }
}
