//! Everything that can be done to a cluster, as plain data.

use std::fmt;

use base::NodeId;

/// From one node to another.
pub type Link = (NodeId, NodeId);

/// How a link treats messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Weather {
    /// Shortest time on the way, in microseconds.
    pub delay_us: u64,
    /// Up to so much longer.
    pub jitter_us: u64,
    /// Lost, in a thousand.
    pub drop: u64,
    /// Delivered twice, in a thousand.
    pub duplicate: u64,
    /// Allowed to overtake, in a thousand.
    pub reorder: u64,
}

/// One thing that goes wrong. Spans are in microseconds; a fault with a span ends by itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The process dies, and with `power` the machine, losing what was not synced.
    Crash {
        /// Who.
        node: NodeId,
        /// The machine, too.
        power: bool,
        /// Until it starts again.
        down_us: u64,
    },
    /// The process dies in the middle of a turn, after so many more effects.
    CrashInTurn {
        /// Who.
        node: NodeId,
        /// Effects still carried out.
        effects: u64,
        /// Until it starts again.
        down_us: u64,
    },
    /// The power fails at an operation of the disk.
    CrashOnDisk {
        /// Who.
        node: NodeId,
        /// Operations still carried out.
        operations: u64,
        /// Until it starts again.
        down_us: u64,
    },
    /// The process dies when the engine has the next batch and nobody knows.
    CrashInApply {
        /// Who.
        node: NodeId,
        /// Until it starts again.
        down_us: u64,
    },
    /// All die at once.
    CrashAll {
        /// The machines, too.
        power: bool,
        /// Until the first starts again; the others follow.
        down_us: u64,
    },
    /// The machine is gone for good.
    Lose {
        /// Who.
        node: NodeId,
    },
    /// The machine loses its disk and comes back with an empty one under its old name.
    Wipe {
        /// Who.
        node: NodeId,
        /// Until it starts again.
        down_us: u64,
    },
    /// The process stands still.
    Pause {
        /// Who.
        node: NodeId,
        /// How long.
        for_us: u64,
    },
    /// The clock runs too fast or too slow.
    ClockRate {
        /// Who.
        node: NodeId,
        /// Parts in a million too fast.
        ppm: i64,
        /// How long.
        for_us: u64,
    },
    /// The wall clock is set.
    ClockJump {
        /// Who.
        node: NodeId,
        /// By so much; less than zero is back.
        by_us: i64,
    },
    /// Links carry nothing.
    Cut {
        /// Which, by direction.
        links: Vec<Link>,
        /// How long.
        for_us: u64,
    },
    /// Links hold everything and let go of it at the end.
    Clog {
        /// Which, by direction.
        links: Vec<Link>,
        /// How long.
        for_us: u64,
    },
    /// Links become unreliable.
    Weather {
        /// Which, by direction.
        links: Vec<Link>,
        /// How.
        weather: Weather,
        /// How long.
        for_us: u64,
    },
    /// Old messages of a link arrive once more.
    Replay {
        /// Which.
        link: Link,
        /// The last so many.
        count: u64,
    },
    /// A sync of the disk fails.
    SyncError {
        /// Who.
        node: NodeId,
        /// Syncs that still succeed.
        nth: u64,
    },
    /// A write to the disk fails half way.
    WriteError {
        /// Who.
        node: NodeId,
        /// Writes that still succeed.
        nth: u64,
    },
    /// The drive acknowledges a write and forgets it.
    LostWrite {
        /// Who.
        node: NodeId,
        /// Writes before it.
        nth: u64,
    },
    /// The drive writes to the wrong place of the same file.
    MisdirectedWrite {
        /// Who.
        node: NodeId,
        /// Writes before it.
        nth: u64,
        /// The block it lands on.
        block: u64,
    },
    /// Stored bits change, in a part of the log that was written some time ago.
    Rot {
        /// Who.
        node: NodeId,
        /// Decides where.
        seed: u64,
    },
    /// The disk is full.
    Full {
        /// Who.
        node: NodeId,
        /// Bytes that are left.
        spare_bytes: u64,
        /// Until space is freed.
        for_us: u64,
    },
    /// The disk stands still.
    Stall {
        /// Who.
        node: NodeId,
        /// How long.
        for_us: u64,
    },
    /// The leader hears nothing while it hands over, and then everything at once, in its order: it does not know yet
    /// that it was followed by another.
    Deafen {
        /// How long.
        for_us: u64,
    },
    /// Not a fault: a new member is added.
    Join {
        /// Who.
        node: NodeId,
    },
    /// Not a fault: a member is removed.
    Leave {
        /// Who.
        node: NodeId,
    },
    /// A member loses its data or its whole machine, and is replaced by a new one.
    Replace {
        /// Who.
        node: NodeId,
        /// The new one.
        by: NodeId,
        /// Until it starts again with an empty disk, if it does.
        down_us: u64,
    },
    /// Not a fault: leadership is handed over on request.
    Transfer {
        /// To whom; to the best follower if none is named.
        to: Option<NodeId>,
    },
}

/// Defines the kinds with their names.
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $words:literal),+ $(,)?) => {
        /// A fault without its particulars.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum FaultKind {
            $($(#[$doc])* $name),+
        }

        impl FaultKind {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Its name in reports.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $words),+
                }
            }
        }
    };
}

kinds! {
    /// [`Fault::Crash`].
    Crash = "crash",
    /// [`Fault::CrashInTurn`].
    CrashInTurn = "crash in a turn",
    /// [`Fault::CrashOnDisk`].
    CrashOnDisk = "power loss at a disk operation",
    /// [`Fault::CrashInApply`].
    CrashInApply = "crash in apply",
    /// [`Fault::CrashAll`].
    CrashAll = "crash of all",
    /// Several [`Fault::Crash`] of one node in a row.
    Storm = "restart storm",
    /// [`Fault::Lose`].
    Lose = "loss of a node",
    /// [`Fault::Wipe`].
    Wipe = "wiped disk",
    /// [`Fault::Pause`].
    Pause = "pause",
    /// [`Fault::ClockRate`].
    ClockRate = "clock rate",
    /// [`Fault::ClockJump`].
    ClockJump = "jump of the wall clock",
    /// [`Fault::Cut`].
    Cut = "cut",
    /// [`Fault::Clog`].
    Clog = "clog",
    /// [`Fault::Weather`].
    Weather = "weather",
    /// [`Fault::Replay`].
    Replay = "replay",
    /// [`Fault::SyncError`].
    SyncError = "sync error",
    /// [`Fault::WriteError`].
    WriteError = "write error",
    /// [`Fault::LostWrite`].
    LostWrite = "lost write",
    /// [`Fault::MisdirectedWrite`].
    MisdirectedWrite = "misdirected write",
    /// [`Fault::Rot`].
    Rot = "bit rot",
    /// [`Fault::Full`].
    Full = "full disk",
    /// [`Fault::Stall`].
    Stall = "stalled disk",
    /// [`Fault::Deafen`].
    Deafen = "deaf leader",
    /// [`Fault::Transfer`].
    Transfer = "handover",
    /// [`Fault::Join`].
    Join = "new member",
    /// [`Fault::Leave`].
    Leave = "removal of a member",
    /// [`Fault::Replace`].
    Replace = "replacement of a member",
}

impl Fault {
    /// Who suffers damage that lasts, if it is such a fault.
    #[must_use]
    pub const fn victim(&self) -> Option<NodeId> {
        match self {
            Self::Lose { node }
            | Self::Wipe { node, .. }
            | Self::Replace { node, .. }
            | Self::LostWrite { node, .. }
            | Self::MisdirectedWrite { node, .. }
            | Self::Rot { node, .. } => Some(*node),
            Self::Crash { .. }
            | Self::CrashInTurn { .. }
            | Self::CrashOnDisk { .. }
            | Self::CrashInApply { .. }
            | Self::CrashAll { .. }
            | Self::Pause { .. }
            | Self::ClockRate { .. }
            | Self::ClockJump { .. }
            | Self::Cut { .. }
            | Self::Clog { .. }
            | Self::Weather { .. }
            | Self::Replay { .. }
            | Self::SyncError { .. }
            | Self::WriteError { .. }
            | Self::Full { .. }
            | Self::Stall { .. }
            | Self::Deafen { .. }
            | Self::Join { .. }
            | Self::Leave { .. }
            | Self::Transfer { .. } => None,
        }
    }

    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> FaultKind {
        match self {
            Self::Crash { .. } => FaultKind::Crash,
            Self::CrashInTurn { .. } => FaultKind::CrashInTurn,
            Self::CrashOnDisk { .. } => FaultKind::CrashOnDisk,
            Self::CrashInApply { .. } => FaultKind::CrashInApply,
            Self::CrashAll { .. } => FaultKind::CrashAll,
            Self::Lose { .. } => FaultKind::Lose,
            Self::Wipe { .. } => FaultKind::Wipe,
            Self::Pause { .. } => FaultKind::Pause,
            Self::ClockRate { .. } => FaultKind::ClockRate,
            Self::ClockJump { .. } => FaultKind::ClockJump,
            Self::Cut { .. } => FaultKind::Cut,
            Self::Clog { .. } => FaultKind::Clog,
            Self::Weather { .. } => FaultKind::Weather,
            Self::Replay { .. } => FaultKind::Replay,
            Self::SyncError { .. } => FaultKind::SyncError,
            Self::WriteError { .. } => FaultKind::WriteError,
            Self::LostWrite { .. } => FaultKind::LostWrite,
            Self::MisdirectedWrite { .. } => FaultKind::MisdirectedWrite,
            Self::Rot { .. } => FaultKind::Rot,
            Self::Full { .. } => FaultKind::Full,
            Self::Stall { .. } => FaultKind::Stall,
            Self::Deafen { .. } => FaultKind::Deafen,
            Self::Transfer { .. } => FaultKind::Transfer,
            Self::Join { .. } => FaultKind::Join,
            Self::Leave { .. } => FaultKind::Leave,
            Self::Replace { .. } => FaultKind::Replace,
        }
    }
}

/// Milliseconds, for people.
struct Ms(u64);

impl fmt::Display for Ms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:01}ms", self.0 / 1000, self.0 % 1000 / 100)
    }
}

/// Links, for people.
struct Links<'a>(&'a [Link]);

impl fmt::Display for Links<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (from, to)) in self.0.iter().enumerate() {
            let blank = if place == 0 { "" } else { " " };
            write!(f, "{blank}{from}>{to}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.kind().name();
        match self {
            Self::Crash { node, power, down_us } => {
                write!(f, "{} {node} down {}", if *power { "power loss" } else { name }, Ms(*down_us))
            }
            Self::CrashInTurn { node, effects, down_us } => {
                write!(f, "{name} {node} after {effects} effects down {}", Ms(*down_us))
            }
            Self::CrashOnDisk { node, operations, down_us } => {
                write!(f, "{name} {node} after {operations} operations down {}", Ms(*down_us))
            }
            Self::CrashInApply { node, down_us } => write!(f, "{name} {node} down {}", Ms(*down_us)),
            Self::CrashAll { power, down_us } => {
                write!(f, "{} down {}", if *power { "power loss of all" } else { name }, Ms(*down_us))
            }
            Self::Lose { node } | Self::Join { node } | Self::Leave { node } => write!(f, "{name} {node}"),
            Self::Replace { node, by, down_us } => write!(f, "{name} {node} by {by} down {}", Ms(*down_us)),
            Self::Wipe { node, down_us } => write!(f, "{name} {node} down {}", Ms(*down_us)),
            Self::Pause { node, for_us } => write!(f, "{name} {node} for {}", Ms(*for_us)),
            Self::ClockRate { node, ppm, for_us } => write!(f, "{name} {node} {ppm}ppm for {}", Ms(*for_us)),
            Self::ClockJump { node, by_us } => write!(f, "{name} {node} by {}s", by_us / 1_000_000),
            Self::Cut { links, for_us } => write!(f, "{name} {} for {}", Links(links), Ms(*for_us)),
            Self::Clog { links, for_us } => write!(f, "{name} {} for {}", Links(links), Ms(*for_us)),
            Self::Weather { links, weather, for_us } => {
                let Weather { delay_us, jitter_us, drop, duplicate, reorder } = weather;
                write!(f, "{name} {} delay {}+{}", Links(links), Ms(*delay_us), Ms(*jitter_us))?;
                write!(f, " drop {drop} duplicate {duplicate} reorder {reorder} per mille for {}", Ms(*for_us))
            }
            Self::Replay { link, count } => write!(f, "{name} {} last {count}", Links(&[*link])),
            Self::SyncError { node, nth } | Self::WriteError { node, nth } | Self::LostWrite { node, nth } => {
                write!(f, "{name} {node} after {nth}")
            }
            Self::MisdirectedWrite { node, nth, block } => write!(f, "{name} {node} after {nth} to block {block}"),
            Self::Rot { node, seed } => write!(f, "{name} {node} seed {seed:x}"),
            Self::Full { node, spare_bytes, for_us } => {
                write!(f, "{name} {node} {spare_bytes} bytes left for {}", Ms(*for_us))
            }
            Self::Stall { node, for_us } => write!(f, "{name} {node} for {}", Ms(*for_us)),
            Self::Deafen { for_us } => write!(f, "{name} for {}", Ms(*for_us)),
            Self::Transfer { to } => match to {
                Some(to) => write!(f, "{name} to {to}"),
                None => write!(f, "{name}"),
            },
        }
    }
}
