//! A machine: its disk, its engine's rows, its clock, and the process on it, if one runs.
//!
//! Invariant: a start does what the server's start does, in the same order: identity, engine, log, the group's replica,
//! the end of the creation, known peers, node. What it finds is compared with the ledger.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use base::{ClusterId, Fault, GroupId, Index, Lsn, NodeId, ReplicaId};
use bytes::Bytes;
use kernel::{LoadRequest, Mark, Member, Membership, Record, Recovered};
use mvcc::{Engine, MemEngine};
use node::{Event, GroupStart, Node, NodeConfig, SnapshotId, Task};
use storage::disk::{read_file, replace_file};
use storage::wal::{TornTail, WalIdentity, WalOptions};
use storage::{Disk, KnownPeers, MemDisk, Wal, WalReader};

use crate::clock::Clock;
use crate::config::Config;
use crate::ledger::{EntryKey, Ledger};
use crate::locks::LockDesk;
use crate::members::Directory;
use crate::plan::Shape;
use crate::watches::Desk;

/// The one group.
pub(crate) const GROUP: GroupId = GroupId(0);
const CLUSTER: ClusterId = ClusterId(0xC1);
const IDENTITY: &str = "IDENTITY";

/// Whether a machine's process runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    Running,
    /// Will start again.
    Down,
    /// Stays down: its data is damaged, or it forgot who it was.
    Refused(String),
    /// Gone for good.
    Lost,
    /// Not in use yet: it may become a member later.
    Spare,
    /// It was told that it is no member any more.
    Removed,
}

/// What was done to a machine's disk, and so may be seen of it.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Wounds {
    /// Calls may fail.
    pub(crate) errors: bool,
    /// Stored bytes may be wrong, and that must be noticed.
    pub(crate) damage: bool,
    /// The drive acknowledged what it did not do; if that met the very end of the log nobody can notice.
    pub(crate) lies: bool,
    /// It was wiped.
    pub(crate) wiped: bool,
    /// Its removal was asked for.
    pub(crate) removed: bool,
}

/// One turn's records of all groups.
pub(crate) type LogJob = (Lsn, Vec<(GroupId, Vec<Record>)>);

/// What the log's thread works on.
#[derive(Default)]
pub(crate) struct LogThread {
    pub(crate) queue: VecDeque<LogJob>,
    /// Batches of the write that is under way.
    pub(crate) taking: usize,
    /// Since when.
    pub(crate) writing_since: u64,
    pub(crate) since_upkeep: u32,
    pub(crate) upkeep_scheduled: bool,
}

/// What the apply thread is asked.
pub(crate) enum ApplyJob {
    Apply { tasks: Vec<Task>, mark: Mark },
    Install { id: SnapshotId, mark: Mark, rows: Vec<(Bytes, Bytes)> },
}

/// What the io thread is asked.
pub(crate) enum IoJob {
    Load(LoadRequest),
    SnapshotOpen(SnapshotId),
    SnapshotRead(SnapshotId),
    SnapshotClose(SnapshotId),
    SnapshotWrite { id: SnapshotId, sequence: u64, chunk: Bytes },
    SnapshotInstall { id: SnapshotId, mark: Mark },
    SnapshotDiscard(SnapshotId),
}

/// A node that runs, with the threads of its host.
pub(crate) struct Process {
    pub(crate) node: Node,
    pub(crate) wal: Wal,
    pub(crate) reader: WalReader,
    pub(crate) state: mvcc::Machine,
    pub(crate) peers: KnownPeers,
    pub(crate) incarnation: u64,
    pub(crate) inbox: Vec<Event>,
    pub(crate) turn_scheduled: bool,
    /// World time of the wake-up that is scheduled.
    pub(crate) wake_at: u64,
    pub(crate) log: LogThread,
    pub(crate) apply: VecDeque<ApplyJob>,
    /// Jobs of the batch that is being applied.
    pub(crate) applying: usize,
    pub(crate) io: VecDeque<IoJob>,
    pub(crate) io_busy: bool,
    pub(crate) outgoing: BTreeMap<SnapshotId, VecDeque<(Bytes, Bytes)>>,
    pub(crate) incoming: BTreeMap<SnapshotId, Vec<(Bytes, Bytes)>>,
    /// Last index handed out for apply.
    pub(crate) handed: Index,
    /// The ballot it was last seen to lead.
    pub(crate) led: base::Ballot,
    pub(crate) watches: Desk,
    pub(crate) locks: LockDesk,
    pub(crate) started_at: u64,
    pub(crate) turns: u64,
    /// Entry of the membership last seen in effect.
    pub(crate) membership: Option<Index>,
    /// It knows that it was removed, and says its last words.
    pub(crate) leaves: bool,
}

/// Why a start came to nothing.
pub(crate) enum StartError {
    Fault(Fault),
    /// It started, and does not know what it had promised.
    Forgot(String),
}

impl From<Fault> for StartError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// What a start found worth telling.
pub(crate) struct Started {
    pub(crate) process: Box<Process>,
    pub(crate) torn: Option<TornTail>,
    pub(crate) fresh: bool,
}

/// A machine.
pub(crate) struct Machine {
    pub(crate) id: NodeId,
    pub(crate) clock: Clock,
    pub(crate) disk: MemDisk,
    pub(crate) engine: MemEngine,
    /// Index of the engine's last checkpoint.
    pub(crate) checkpoint: Index,
    pub(crate) process: Option<Box<Process>>,
    /// Counts lives, so that what was meant for an earlier one is not taken for this.
    pub(crate) life: u64,
    pub(crate) standing: Standing,
    pub(crate) paused_until: u64,
    pub(crate) stalled_until: u64,
    pub(crate) ledger: Ledger,
    /// What it held before its disk was wiped, and the checkpoint: it had promised that, and others may still learn so.
    pub(crate) wiped: Option<(Ledger, Index)>,
    pub(crate) wounds: Wounds,
    /// Whether it was there from the beginning, and so knows the first membership.
    founder: bool,
    pub(crate) directory: Directory,
    /// The process dies after so many more effects; then it is down for so long.
    pub(crate) crash_in_turn: Option<(u64, u64)>,
    pub(crate) crash_in_apply: Option<u64>,
    /// How long it is down when the disk loses its power.
    pub(crate) crash_on_disk: Option<u64>,
}

impl Machine {
    pub(crate) fn new(id: NodeId, seed: u64, clock: Clock, founders: u64) -> Self {
        let founder = id.0 <= founders;
        let told: BTreeSet<NodeId> = (1..=founders).map(NodeId).filter(|_| founder).collect();
        Self {
            id,
            clock,
            disk: MemDisk::new(seed),
            engine: MemEngine::new(),
            checkpoint: Index(0),
            process: None,
            life: 0,
            standing: if founder { Standing::Down } else { Standing::Spare },
            paused_until: 0,
            stalled_until: 0,
            ledger: Ledger::default(),
            wiped: None,
            wounds: Wounds::default(),
            founder,
            directory: Directory::new(told),
            crash_in_turn: None,
            crash_in_apply: None,
            crash_on_disk: None,
        }
    }

    /// Whether it holds this entry where a crash cannot reach it, or did until its disk was wiped.
    pub(crate) fn held(&self, index: Index, key: &EntryKey) -> bool {
        self.ledger.holds(index, key, self.checkpoint)
            || self.wiped.as_ref().is_some_and(|(ledger, checkpoint)| ledger.holds(index, key, *checkpoint))
    }

    /// Whether its process can work right now.
    pub(crate) fn is_working(&self, now: u64) -> bool {
        self.process.is_some() && self.paused_until <= now
    }

    /// The mark that the engine has, or that a new one begins with: who came later learns from the log who the members
    /// were, and are.
    fn mark(&self, engine: &MemEngine, config: &Config) -> Result<Mark, Fault> {
        match mvcc::mark(&*engine.view())? {
            Some(bytes) => decode_mark(bytes),
            None if self.founder => Ok(Mark { membership: membership(config.nodes), ..Mark::default() }),
            None => Ok(Mark::default()),
        }
    }

    /// Starts the process from what is on the disk. `random` seeds what the server draws at random.
    pub(crate) fn start(
        &mut self,
        config: &Config,
        shape: &Shape,
        now: u64,
        random: u64,
    ) -> Result<Started, StartError> {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let (incarnation, finished) = match read_identity(&*disk)? {
            Some(found) => found,
            None => {
                write_identity(&*disk, random, false)?;
                (random, false)
            }
        };
        let mark = self.mark(&self.engine, config)?;
        self.directory.load(&*self.engine.view())?;
        let options = WalOptions { segment_bytes: shape.segment_bytes, may_create: !finished };
        let (mut wal, log) = Wal::open(Arc::clone(&disk), identity(self.id, incarnation), options)?;
        let recovered = log.group(&mut wal, GROUP, mark)?;
        let handed = recovered.mark.position.index;
        if !finished {
            write_identity(&*disk, incarnation, true)?;
        }
        self.ledger.recovered(&recovered).map_err(StartError::Forgot)?;
        let peers = KnownPeers::open(disk)?;
        let state = mvcc::Machine::open(&self.engine)?;
        let reader = wal.reader();
        let node = self.node(config, shape, recovered, wal.next_lsn(), now, random)?;
        let process = Process {
            node,
            reader,
            wal,
            state,
            peers,
            incarnation,
            inbox: Vec::new(),
            turn_scheduled: false,
            wake_at: u64::MAX,
            // Recovery may have staged something: the upkeep syncs it.
            log: LogThread { since_upkeep: 1, ..LogThread::default() },
            apply: VecDeque::new(),
            applying: 0,
            io: VecDeque::new(),
            io_busy: false,
            outgoing: BTreeMap::new(),
            incoming: BTreeMap::new(),
            handed,
            led: base::Ballot::ZERO,
            watches: Desk::new(config.seed),
            locks: LockDesk::default(),
            started_at: now,
            turns: 0,
            membership: None,
            leaves: false,
        };
        Ok(Started { process: Box::new(process), torn: log.torn().cloned(), fresh: !finished })
    }

    fn node(
        &self,
        config: &Config,
        shape: &Shape,
        recovered: Recovered,
        first_lsn: Lsn,
        now: u64,
        random: u64,
    ) -> Result<Node, Fault> {
        let replica = kernel::Config {
            group: GROUP,
            node: self.id,
            replica: ReplicaId(self.id.0),
            protocol: config.protocol,
            heartbeat_interval: shape.heartbeat,
            election_timeout: shape.election_timeout,
            seed: random.rotate_left(17),
            leader_priority: u8::from(config.preferred == Some(self.id)),
        };
        let node = NodeConfig {
            id: self.id,
            seed: random.rotate_left(31),
            request_timeout: Duration::from_secs(5) + 2 * shape.election_timeout,
            apply_backlog_max: shape.apply_backlog_max,
            log_retained_bytes: shape.retained_bytes(self.id),
        };
        let now = self.clock.read(now);
        let mut node = Node::new(node, vec![GroupStart { config: replica, recovered }], first_lsn, now)?;
        let leases = mvcc::leases(&*self.engine.view())?;
        node.handle(now, Event::LeasesLoaded { group: GROUP, leases });
        Ok(node)
    }

    /// Crashes a copy of the disk and compares what a start would find there with the ledger.
    pub(crate) fn audit(&self, config: &Config, shape: &Shape) -> Result<(), String> {
        let Some(process) = &self.process else { return Ok(()) };
        let disk = self.disk.fork();
        disk.crash_hard();
        let engine = self.engine.clone();
        engine.crash();
        let found = || -> Result<Recovered, Fault> {
            let mark = self.mark(&engine, config)?;
            let options = WalOptions { segment_bytes: shape.segment_bytes, may_create: false };
            let (mut wal, log) = Wal::open(Arc::new(disk), identity(self.id, process.incarnation), options)?;
            log.group(&mut wal, GROUP, mark)
        };
        match found() {
            Ok(found) => self.ledger.audit(&found),
            Err(fault) => Err(format!("the log could not be opened after a crash: {fault}")),
        }
    }

    /// Makes everything in the engine survive a crash.
    pub(crate) fn flush(&mut self) -> Result<Index, Fault> {
        self.engine.checkpoint();
        let mark = mvcc::mark(&*self.engine.view())?;
        self.checkpoint = match mark {
            Some(bytes) => decode_mark(bytes)?.position.index,
            None => Index(0),
        };
        self.directory.flushed(&*self.engine.view())?;
        Ok(self.checkpoint)
    }
}

/// The founding members.
pub(crate) fn membership(nodes: u64) -> Arc<Membership> {
    let members: Vec<Member> = (1..=nodes).map(|n| Member { replica: ReplicaId(n), node: NodeId(n) }).collect();
    Arc::new(Membership::initial(&members))
}

/// The mark as stored by the state machine.
pub(crate) fn decode_mark(bytes: Bytes) -> Result<Mark, Fault> {
    kernel::wire::decode_mark(bytes)
        .map_err(|error| Fault::Corrupt { place: "the log position in the state".into(), detail: error.to_string() })
}

/// The mark as bytes.
pub(crate) fn encode_mark(mark: &Mark) -> Bytes {
    let mut out = Vec::new();
    kernel::wire::encode_mark(mark, &mut out);
    out.into()
}

const fn identity(node: NodeId, incarnation: u64) -> WalIdentity {
    WalIdentity { cluster: CLUSTER, node, incarnation }
}

/// The simulator's stand-in for the server's data directory: its number, and whether its creation was finished.
fn read_identity(disk: &dyn Disk) -> Result<Option<(u64, bool)>, Fault> {
    if !disk.exists(IDENTITY)? {
        return Ok(None);
    }
    let text = String::from_utf8(read_file(disk, IDENTITY, 4096)?).unwrap_or_default();
    let mut words = text.split(' ');
    let number = words.next().and_then(|word| word.parse().ok());
    match (number, words.next()) {
        (Some(number), Some("ready")) => Ok(Some((number, true))),
        (Some(number), Some("creating")) => Ok(Some((number, false))),
        _ => Err(Fault::Corrupt { place: IDENTITY.into(), detail: "this is not what was written".into() }),
    }
}

fn write_identity(disk: &dyn Disk, incarnation: u64, finished: bool) -> Result<(), Fault> {
    let state = if finished { "ready" } else { "creating" };
    replace_file(disk, "", IDENTITY, format!("{incarnation} {state} ").as_bytes())
}
