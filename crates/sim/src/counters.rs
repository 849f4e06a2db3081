//! What a run has seen: counts of events that ought to happen sometimes, so that a batch of runs that never met them
//! does not pass for a test of them.

/// Defines the counters with the words they are reported by.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = $words:literal),+ $(,)?) => {
        /// Something that should happen sometimes.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Counter {
            $($(#[$doc])* $name),+
        }

        impl Counter {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The words it is reported by.
            #[must_use]
            pub const fn words(self) -> &'static str {
                match self {
                    $(Self::$name => $words),+
                }
            }
        }
    };
}

counters! {
    /// Events processed.
    Events = "events",
    /// Turns of nodes.
    Turns = "turns",
    /// Messages between nodes delivered.
    Delivered = "messages delivered",
    /// Messages lost on the way.
    Dropped = "messages dropped",
    /// Messages delivered twice.
    Duplicated = "messages duplicated",
    /// Messages that overtook others.
    Reordered = "messages reordered",
    /// Messages held by a clogged link.
    Clogged = "messages held",
    /// Old messages delivered again.
    Replayed = "messages replayed",
    /// Connections between nodes established.
    Connected = "connections made",
    /// Connections lost.
    Disconnected = "connections lost",
    /// Elections that ended with a leader.
    Elections = "elections",
    /// Batches made durable.
    Syncs = "log syncs",
    /// Batches of commands applied.
    Applies = "apply batches",
    /// Commands decided.
    Decided = "commands decided",
    /// Engine checkpoints.
    Checkpoints = "checkpoints",
    /// Logs compacted.
    LogCompactions = "log compactions",
    /// Log suffixes cut off.
    Truncations = "log truncations",
    /// Entries read back for a follower that lags.
    Loads = "log reads for followers",
    /// Snapshots opened by a leader.
    SnapshotsSent = "snapshots begun",
    /// Snapshots installed.
    SnapshotsInstalled = "snapshots installed",
    /// Starts of a node with data.
    Recoveries = "recoveries",
    /// Starts that cut a torn tail.
    TornTails = "torn tails cut",
    /// Starts that were refused because of damage.
    Refusals = "damaged starts refused",
    /// Starts kept from happening: the damage cannot be told by anyone, which is more than is promised.
    KeptOut = "undetectable damage kept out",
    /// Nodes that stopped on a fault while running.
    Stopped = "nodes stopped by a fault",
    /// Forgetful nodes that were turned away.
    Forgetful = "forgetful nodes turned away",
    /// Disks crashed hard, copied, and compared with what was promised.
    Audits = "durability audits",
    /// Promises checked when they left.
    PromisesChecked = "promises checked",
    /// State hashes compared between nodes.
    HashesCompared = "state hashes compared",
    /// Operations of clients done before the first fault.
    DoneBefore = "operations done before faults",
    /// Operations of clients done between the first fault and the healing.
    DoneDuring = "operations done during faults",
    /// Operations of clients done after the healing.
    DoneAfter = "operations done after faults",
    /// Operations surely not done.
    NotDone = "operations not done",
    /// Operations of unknown outcome.
    Unknown = "operations of unknown outcome",
    /// Writes acknowledged.
    Writes = "writes acknowledged",
    /// Linearizable reads answered.
    Reads = "linearizable reads",
    /// Serializable reads answered.
    LocalReads = "serializable reads",
    /// Transactions whose comparison failed.
    Conflicts = "transaction conflicts",
    /// Compactions of history acknowledged.
    Compactions = "history compactions",
    /// Pieces of history swept.
    Sweeps = "history sweeps",
    /// Reads below the compaction floor or above the present.
    RevisionRefused = "reads of revisions refused",
    /// Leases renewed.
    LeasesRenewed = "leases renewed",
    /// Renewals of leases that were over.
    LeasesNotFound = "renewals too late",
    /// Commands sent on to the leader, and looked at.
    Forwards = "commands forwarded",
    /// Leases that ended because their time was up.
    LeasesExpired = "leases expired",
    /// Ends of leases proposed by a leader that a quorum had confirmed since their time was up.
    EndsConfirmed = "ends of leases confirmed",
    /// Locks granted.
    LocksGranted = "locks granted",
    /// Looks at the queue of a lock that found somebody before.
    LockWaits = "waits for locks",
    /// Contenders whose lease was over, before they stood in the queue or while they did.
    LocksLost = "locks lost with a lease",
    /// Writes done under a token.
    GuardedWrites = "guarded writes done",
    /// Writes refused because the token was over.
    GuardsHeld = "guarded writes refused",
    /// Events that watches delivered.
    WatchEvents = "events watched",
    /// Progress that watches were told.
    WatchProgress = "progress told to watches",
    /// Watches that needed what was compacted.
    WatchesCompacted = "watches ended by compaction",
    /// Pages of history read for watches.
    WatchPages = "pages of history watched",
    /// Streams of watches that broke, and went on elsewhere.
    WatchStreamsLost = "watch streams lost",
    /// Leaderships handed over on request.
    Transfers = "leaderships handed over",
    /// Memberships with two sets of voters that came into effect.
    JointMemberships = "joint memberships",
    /// New members that got to vote.
    MembersJoined = "members joined",
    /// Members removed.
    MembersRemoved = "members removed",
    /// Removed nodes that learnt of it and ended.
    StoodDown = "removed nodes that stood down",
    /// New members that a node learnt of from others, because one of them called.
    Strangers = "new members asked about",
    /// Operations of clients done by members that came later.
    DoneByJoined = "operations done by new members",
    /// Healthy periods that were watched for progress, in seconds.
    WatchedSeconds = "seconds watched for progress",
}

/// All counters of a run, or of a batch of runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counters([u64; Counter::ALL.len()]);

impl Default for Counters {
    fn default() -> Self {
        Self([0; Counter::ALL.len()])
    }
}

impl Counters {
    /// Counts one.
    pub(crate) fn count(&mut self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts several.
    pub(crate) fn add(&mut self, counter: Counter, number: u64) {
        self.0[counter as usize] += number;
    }

    /// How often.
    #[must_use]
    pub const fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }

    /// Adds those of another run.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine += theirs;
        }
    }
}
