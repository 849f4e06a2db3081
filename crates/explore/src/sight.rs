//! What a search must have come across to be worth its verdict. Each is counted over all transitions, and a
//! configuration names those that it must reach: a search that never saw two leaders says nothing about two leaders.

macro_rules! sights {
    ($($(#[doc = $doc:literal])* $name:ident),+ $(,)?) => {
        /// Something that happened in a transition.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum Sight {
            $($(#[doc = $doc])* $name),+
        }

        impl Sight {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// A line for people.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($doc),*).trim_ascii()),+
                }
            }
        }
    };
}

sights! {
    /// a leader was elected
    Elected,
    /// a leader was elected while another one, of a lower ballot, still led
    TwoLeaders,
    /// a vote was refused
    VoteRefused,
    /// a vote was refused because a leader had just been heard
    Sticky,
    /// an entry was committed
    Committed,
    /// an entry of an older ballot was committed by a later leader
    OldCommitted,
    /// a committed entry came to nothing: the fence
    Fenced,
    /// an append did not connect
    AppendRejected,
    /// entries nobody had committed were cut off
    Truncated,
    /// a slot was written again in its place
    Overwritten,
    /// a message was delivered and stayed in the network
    Duplicated,
    /// a message was lost because the network was full
    Dropped,
    /// a crash lost a promise that was not yet durable
    LostPromise,
    /// a crash lost entries that were not yet durable
    LostEntries,
    /// a crash tore a batch
    Torn,
    /// a replica came back with all it had written
    Restarted,
    /// a leader gave up by itself
    SteppedDown,
    /// a heartbeat was sent
    Heartbeat,
    /// a joint membership was entered
    JointEntered,
    /// a joint membership was left and the new one committed
    JointLeft,
    /// a replica learnt that it was removed
    Removed,
    /// a read was confirmed
    ReadConfirmed,
    /// a read was refused
    ReadRefused,
    /// a leader told its successor to campaign
    HandedOver,
    /// a leader gave up a handover
    HandoverExpired,
    /// a log was compacted
    Compacted,
    /// a snapshot was installed
    SnapshotInstalled,
    /// a snapshot came too late to be of use
    SnapshotRefused,
}

/// A set of sights.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Sights(u64);

impl Sights {
    pub(crate) const fn add(&mut self, sight: Sight) {
        self.0 |= 1 << sight as u8;
    }

    pub(crate) fn add_if(&mut self, seen: bool, sight: Sight) {
        if seen {
            self.add(sight);
        }
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Sight> {
        Sight::ALL.iter().copied().filter(move |sight| self.0 >> *sight as u8 & 1 == 1)
    }
}

impl std::ops::BitOrAssign for Sights {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}
