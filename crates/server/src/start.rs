//! From a configuration to running threads, and back.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _};
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc as std_mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use base::{Fault, ReplicaId, limits};
use kernel::{Member, Membership, Protocol};
use node::{Event, GroupStart, Node, NodeConfig, Request};
use storage::disk::SyncMode;
use storage::wal::WalOptions;
use storage::{DataDir, EngineOptions, Identity, KnownPeers, LsmEngine, Wal};
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc, watch};
use tracing::{info, warn};

use crate::admission::Admission;
use crate::auto_compaction;
use crate::clients::{self, Services};
use crate::clock;
use crate::config::{AutoCompaction, ClusterState, Config};
use crate::corruption;
use crate::gateway::{Context, GROUP, Gateway};
use crate::grpc::{LeaseIds, ttl_min_s};
use crate::host::applier::{self, Applier, ApplyHand};
use crate::host::apply_thread::ApplyThread;
use crate::host::failure::Failure;
use crate::host::io_thread::IoThread;
use crate::host::log::{Log, LogWriter};
use crate::host::maintenance::{self, Upkeep};
use crate::host::node_thread::NodeThread;
use crate::host::wal_thread;
use crate::host::word::Word;
use crate::lane::{AnswerBatch, Lane, Outbox};
use crate::members::Directory;
use crate::metrics::Metrics;
use crate::peer::join;
use crate::peer::transport::{Inbox, SelfPortrait, Surroundings, Transport};
use crate::reconfigure;
use crate::space::{self, Space};
use crate::standing::StandingCell;
use crate::watch::{Desk, Feed, Quota};

/// How long a stopping leader waits for its successor.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a server did not start. The text says what to do.
#[derive(Debug, Error)]
pub enum StartError {
    /// The flags contradict each other.
    #[error("{0}")]
    Config(String),
    /// A listen address cannot be bound.
    #[error("cannot listen on {address} for {who}: {cause}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// "clients" or "peers".
        who: &'static str,
        /// The system's words.
        cause: std::io::Error,
    },
    /// A thread or a runtime cannot be made.
    #[error("cannot start the {0} thread: {1}")]
    Thread(&'static str, std::io::Error),
    /// The data directory cannot be used.
    #[error(transparent)]
    Storage(#[from] Fault),
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    client_addresses: Vec<SocketAddr>,
    failure: Arc<Failure>,
    upkeep: Arc<Upkeep>,
    clients_stop: watch::Sender<bool>,
    client_threads: Vec<JoinHandle<()>>,
    host_threads: Vec<JoinHandle<()>>,
    control: Control,
    stopping: Arc<AtomicBool>,
}

/// The server's own way to ask its node for something.
struct Control {
    lane: Arc<Lane>,
    node: mpsc::UnboundedSender<Vec<Event>>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Control")
    }
}

/// What was found on disk, opened.
struct Opened {
    engine: Arc<LsmEngine>,
    wal: Wal,
    start: GroupStart,
    /// Keeps the directory locked while the node runs.
    directory: DataDir,
}

impl Server {
    /// Opens the data directory, binds the addresses and starts the threads. Returns when the node runs; it may not
    /// have a leader yet.
    ///
    /// # Errors
    /// Anything that keeps the node from running, said before any client is accepted.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let calling = identify(&config)?;
        let directory = Arc::clone(&calling.directory);
        let client_listeners = listen(&config.listen_client, "clients")?;
        let peer_listeners = listen(&config.listen_peer, "peers")?;
        let client_addresses = local_addresses(&client_listeners);
        let opened = open(&config, &calling)?;
        let status = initial_status(&opened);
        let consensus = opened.start.config.protocol;

        let failure = Arc::new(Failure::new());
        let metrics = Arc::new(Metrics::default());
        let upkeep = Upkeep::new();
        let (node_sender, events) = mpsc::unbounded_channel();
        let (lanes, deliveries): (Vec<_>, Vec<_>) = (0..client_threads(&config))
            .map(|number| {
                let (sender, batches) = mpsc::unbounded_channel::<AnswerBatch>();
                ((Lane::new(number), sender), batches)
            })
            .unzip();
        let senders: Vec<_> = lanes.iter().map(|(_, sender)| sender.clone()).collect();
        let (watches, streams) = (Quota::new(limits::WATCHES_MAX), Quota::new(limits::WATCH_STREAMS_MAX));
        let new_desk =
            || Desk::new(config.watch_progress_interval, random(), Arc::clone(&watches), Arc::clone(&streams));
        let desks: Vec<_> = lanes.iter().map(|_| new_desk()).collect();
        let context = Arc::new(Context {
            engine: Arc::clone(&opened.engine) as Arc<dyn mvcc::Engine>,
            directory: Arc::clone(&directory),
            standing: Arc::new(StandingCell::new(directory.me().id, status)),
            metrics: Arc::clone(&metrics),
            limits: mvcc::Limits { txn_ops_max: config.max_txn_ops },
            max_request_bytes: config.max_request_bytes,
            space: Arc::new(Space::new(Arc::clone(&upkeep), quota_bytes(config.quota_backend_bytes))),
            admission: Admission::default(),
            lease_ids: LeaseIds::new(random()),
            lease_ttl_min_s: ttl_min_s(config.election_timeout),
            election_timeout: config.election_timeout,
            key_waits: Arc::default(),
            large_reads: Context::large_reads(),
            history_reads: Arc::new(Semaphore::new(limits::WATCH_HISTORY_READS_MAX)),
            feed: Feed::new(desks.clone()),
            large_answers: Context::large_answers(),
            upkeep: Arc::clone(&upkeep),
        });
        let host = Host { failure: &failure, metrics: &metrics, upkeep: &upkeep, context: &context };
        let host_threads =
            host.start(&config, &directory, opened, node_sender.clone(), events, &senders, peer_listeners)?;
        let (clients_stop, stop) = watch::channel(false);
        let connections = Arc::new(AtomicUsize::new(0));
        let mut client_threads = Vec::new();
        for (number, (((lane, _), batches), desk)) in lanes.iter().zip(deliveries).zip(desks).enumerate() {
            let (lane, context) = (Arc::clone(lane), Arc::clone(&context));
            let gateway = Gateway { lane, desk, context };
            let listeners = clone_all(&client_listeners)?;
            client_threads.push(start_client_thread(
                number,
                ClientThread {
                    gateway,
                    node: node_sender.clone(),
                    batches,
                    listeners,
                    connections: Arc::clone(&connections),
                    streams_max: config.max_concurrent_streams,
                    election_timeout: config.election_timeout,
                    auto_compaction: config.auto_compaction.filter(|_| number == 0),
                    corrupt_check: config.corrupt_check_interval.filter(|_| number == 0),
                    stop: stop.clone(),
                },
            )?);
        }
        info!(
            name = %config.name, id = %format_args!("{:x}", directory.me().id.0),
            cluster = %format_args!("{:x}", directory.cluster().0),
            %consensus, clients = ?client_addresses, "serving"
        );
        let control = Control { lane: Arc::clone(&lanes[0].0), node: node_sender };
        Ok(Self {
            client_addresses,
            failure,
            upkeep,
            clients_stop,
            client_threads,
            host_threads,
            control,
            stopping: Arc::new(AtomicBool::new(false)),
        })
    }

    /// The addresses clients are served on.
    #[must_use]
    pub fn client_addresses(&self) -> &[SocketAddr] {
        &self.client_addresses
    }

    /// A call that blocks until the node stops, be it by a fault, which it returns, or by [`Server::shutdown`].
    pub fn ended(&self) -> impl FnOnce() -> Result<(), Fault> + Send + use<> {
        let failure = Arc::clone(&self.failure);
        move || failure.wait()
    }

    /// Hands leadership over, lets open requests finish, stops all threads. Blocks until everything is closed.
    pub fn shutdown(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        if self.stopping.swap(true, Ordering::SeqCst) {
            return;
        }
        self.hand_over();
        self.clients_stop.send_replace(true);
        join(self.client_threads.drain(..));
        self.failure.stopped();
        self.upkeep.stop();
        join(self.host_threads.drain(..));
        info!("stopped");
    }

    /// Clients should not have to wait for an election only because we leave.
    fn hand_over(&self) {
        let open = self.control.lane.open();
        let request = Request::TransferLeadership { group: GROUP, to: None };
        if self.control.node.send(vec![Event::Request(open.ticket, request)]).is_ok() {
            open.wait(HANDOVER_TIMEOUT);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn join(threads: impl Iterator<Item = JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            warn!("a thread had panicked");
        }
    }
}

fn client_threads(config: &Config) -> usize {
    match config.client_threads {
        0 => (std::thread::available_parallelism().map_or(1, usize::from) / 2).clamp(1, 64),
        threads => threads.min(256),
    }
}

/// etcd's meaning of `--quota-backend-bytes`: 0 is the default, a negative number no limit.
fn quota_bytes(flag: i64) -> Option<u64> {
    match flag {
        0 => Some(limits::QUOTA_BYTES_DEFAULT),
        _ => u64::try_from(flag).ok(),
    }
}

fn listen(addresses: &[SocketAddr], who: &'static str) -> Result<Vec<TcpListener>, StartError> {
    addresses
        .iter()
        .map(|address| clients::bind(*address).map_err(|cause| StartError::Listen { address: *address, who, cause }))
        .collect()
}

fn local_addresses(listeners: &[TcpListener]) -> Vec<SocketAddr> {
    listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
}

fn clone_all(listeners: &[TcpListener]) -> Result<Vec<TcpListener>, StartError> {
    listeners.iter().map(|listener| listener.try_clone().map_err(|error| StartError::Thread("client", error))).collect()
}

/// Who this node is.
struct Calling {
    directory: Arc<Directory>,
    /// For a data directory that is about to be made.
    incarnation: u64,
    /// The consensus protocol of the cluster it joins.
    protocol: Option<Protocol>,
}

/// Finds out who this node is: from the flags if the cluster is being founded, else from its data, else from the
/// members of the cluster it was added to.
fn identify(config: &Config) -> Result<Calling, StartError> {
    let incarnation = random();
    let founders = Directory::founders(config).map_err(StartError::Config);
    if config.initial_cluster_state == ClusterState::New {
        return Ok(Calling { directory: Arc::new(founders?), incarnation, protocol: None });
    }
    let (directory, protocol) = match DataDir::identity_of(&config.data_dir)? {
        Some(Identity { cluster, node, .. }) => {
            let founder = founders.ok().filter(|flags| flags.cluster() == cluster && flags.me().id == node);
            (founder.unwrap_or_else(|| Directory::joined(config, cluster, node, Vec::new())), None)
        }
        None => {
            let joined = join::ask(config, incarnation).map_err(StartError::Config)?;
            let directory = Directory::joined(config, joined.cluster, joined.node, joined.members);
            info!(id = %format_args!("{:x}", joined.node.0), "joining the cluster");
            (directory, Protocol::from_id(joined.protocol))
        }
    };
    Ok(Calling { directory: Arc::new(directory), incarnation, protocol })
}

/// Takes what the log has written down about members. A member that joined and stopped before it got any of that asks
/// again where the others are.
fn load_members(config: &Config, directory: &Directory, data: &DataDir, engine: &LsmEngine) -> Result<(), StartError> {
    let records = mvcc::members(&*mvcc::Engine::view(engine))?;
    if records.is_empty() && !directory.is_founder() && !data.is_fresh() {
        let joined = join::ask(config, data.identity().incarnation).map_err(StartError::Config)?;
        directory.meet(joined.members);
    }
    directory.load(records);
    Ok(())
}

fn open(config: &Config, calling: &Calling) -> Result<Opened, StartError> {
    let directory = &calling.directory;
    let me = directory.me();
    let replica = ReplicaId(me.id.0);
    let protocol = match (config.consensus, calling.protocol) {
        (Some(wanted), Some(theirs)) if wanted != theirs => {
            let advice = format!("--consensus {wanted}, but the cluster to join runs {theirs}: leave the flag out");
            return Err(StartError::Config(advice));
        }
        (Some(protocol), _) | (None, Some(protocol)) => protocol,
        (None, None) => DataDir::protocol_of(&config.data_dir, GROUP)?.unwrap_or(Protocol::Raft),
    };
    let expected = Identity {
        cluster: directory.cluster(),
        node: me.id,
        name: me.name.clone(),
        incarnation: calling.incarnation,
        replicas: vec![(GROUP, protocol, replica)],
    };
    let mode = if config.unsafe_no_fsync { SyncMode::UnsafeNoFsync } else { SyncMode::Durable };
    let mut data = DataDir::open_or_create(&config.data_dir, &expected, mode)?;
    let options = EngineOptions { cache_bytes: config.cache_bytes, ..Default::default() };
    let engine = LsmEngine::open(data.engine(), options)?;
    let mark = match engine.persisted_mark()? {
        Some(mark) => mark,
        None if directory.is_founder() => {
            kernel::Mark { membership: initial_membership(directory).into(), ..Default::default() }
        }
        // It learns from the log who the members were, and are.
        None => kernel::Mark::default(),
    };
    load_members(config, directory, &data, &engine)?;
    let options = WalOptions { may_create: data.is_fresh(), ..Default::default() };
    let (mut wal, log) = Wal::open(data.disk(), data.identity().wal(), options)?;
    if let Some(torn) = log.torn() {
        warn!(file = %torn.file, offset = torn.offset, "cut an unfinished write off the end of the log");
    }
    let recovered = log.group(&mut wal, GROUP, mark)?;
    data.finish_creation()?;
    let config = kernel::Config {
        group: GROUP,
        node: me.id,
        replica,
        protocol,
        heartbeat_interval: config.heartbeat_interval,
        election_timeout: config.election_timeout,
        seed: random(),
        leader_priority: config.leader_priority,
    };
    Ok(Opened { engine: Arc::new(engine), wal, start: GroupStart { config, recovered }, directory: data })
}

pub(crate) fn initial_membership(directory: &Directory) -> Membership {
    let members: Vec<Member> =
        directory.members().iter().map(|member| Member { replica: ReplicaId(member.id.0), node: member.id }).collect();
    Membership::initial(&members)
}

/// Seeds jitter and request ids; not for secrets. The standard library's hasher is seeded by the operating system.
pub(crate) fn random() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

/// What clients see before the node's first turn.
fn initial_status(opened: &Opened) -> kernel::Status {
    let recovered = &opened.start.recovered;
    kernel::Status {
        role: kernel::Role::Follower,
        ballot: recovered.promised,
        leader: None,
        last: recovered.last,
        commit: recovered.mark.position.index,
        applied: recovered.mark.position.index,
        first: recovered.base.index.next(),
        membership: Membership::clone(&recovered.mark.membership),
        peers: Vec::new(),
        removed: None,
        suspicious: 0,
    }
}

/// What the host's threads share.
struct Host<'a> {
    failure: &'a Arc<Failure>,
    metrics: &'a Arc<Metrics>,
    upkeep: &'a Arc<Upkeep>,
    context: &'a Arc<Context>,
}

impl Host<'_> {
    #[expect(clippy::too_many_arguments, reason = "called once; a struct would only repeat the names")]
    fn start(
        &self,
        config: &Config,
        directory: &Arc<Directory>,
        opened: Opened,
        node_sender: mpsc::UnboundedSender<Vec<Event>>,
        events: mpsc::UnboundedReceiver<Vec<Event>>,
        lanes: &[mpsc::UnboundedSender<AnswerBatch>],
        peer_listeners: Vec<TcpListener>,
    ) -> Result<Vec<JoinHandle<()>>, StartError> {
        let Opened { engine, wal, start, directory: data } = opened;
        let portrait = SelfPortrait { protocol: start.config.protocol.id(), incarnation: data.identity().incarnation };
        let known = KnownPeers::open(data.disk())?;
        let engines = BTreeMap::from([(GROUP, Arc::clone(&engine))]);
        let leases = mvcc::leases(&*mvcc::Engine::view(&*engine))?;
        let (log_jobs, log_receiver) = std_mpsc::channel();
        let (apply_jobs, mut apply_receiver) = mpsc::unbounded_channel();
        let (io_jobs, io_receiver) = std_mpsc::channel();
        let first_lsn = wal.next_lsn();
        let reader = wal.reader();
        let mut threads = Vec::new();

        let log = Log::new(wal, Arc::clone(self.metrics));
        let writer = LogWriter::new(Arc::clone(&log), log_jobs);
        let sender = node_sender.clone();
        threads.push(self.spawn("wal", move || wal_thread::run(&log, &log_receiver, &sender))?);

        let word = Arc::new(Word::new(node_sender.clone()));
        let applier = Arc::new(Applier::open(applier::Surroundings {
            engines: engines.clone(),
            metrics: Arc::clone(self.metrics),
            upkeep: Arc::clone(self.upkeep),
            key_waits: Arc::clone(&self.context.key_waits),
            feed: Arc::clone(&self.context.feed),
            space: Arc::clone(&self.context.space),
            directory: Arc::clone(directory),
            word: Arc::clone(&word),
        })?);
        let hand = ApplyHand::new(Arc::clone(&applier), apply_jobs.clone());
        let apply = ApplyThread { applier, outbox: Outbox::new(lanes), stop: self.failure.watch() };
        threads.push(self.spawn("apply", move || apply.run(&mut apply_receiver))?);

        let io = IoThread::new(engines.clone(), reader, node_sender.clone(), apply_jobs);
        threads.push(self.spawn("io", move || {
            // The lock on the data directory is held as long as anything works in it.
            let _data = data;
            io.run(&io_receiver)
        })?);

        let (upkeep, compacted) = (Arc::clone(self.upkeep), engines.clone());
        threads.push(self.spawn("compaction", move || maintenance::compact(&upkeep, &compacted))?);

        let upkeep = Arc::clone(self.upkeep);
        threads.push(self.spawn("maintenance", move || maintenance::run(&upkeep, &engines, &node_sender))?);

        let node_config = NodeConfig {
            id: directory.me().id,
            seed: random(),
            request_timeout: Duration::from_secs(5) + 2 * config.election_timeout,
            apply_backlog_max: limits::APPLY_BACKLOG_ENTRIES_MAX,
            log_retained_bytes: limits::LOG_RETAINED_BYTES,
        };
        let mut node = Node::new(node_config, vec![start], first_lsn, clock::now())?;
        node.handle(clock::now(), Event::LeasesLoaded { group: GROUP, leases });
        let failure = Arc::clone(self.failure);
        let (directory, metrics, stop) = (Arc::clone(directory), Arc::clone(self.metrics), self.failure.watch());
        let standing = Arc::clone(&self.context.standing);
        let outbox = Outbox::new(lanes);
        // Name look-ups and notes about members block; one that hangs must not keep the others waiting.
        let mut runtime = runtime("node", 8);
        threads.push(self.spawn("node", move || {
            let runtime = runtime.build_local(tokio::runtime::LocalOptions::default()).map_err(|error| Fault::Io {
                operation: "start the node's runtime",
                path: String::from("epoll"),
                cause: error.to_string(),
            })?;
            let ended = runtime.block_on(async move {
                let listeners = to_async(peer_listeners)?;
                let inbox = Rc::<Inbox>::default();
                let surroundings =
                    Surroundings { directory, failure, standing: Arc::clone(&standing), metrics: Arc::clone(&metrics) };
                let transport = Transport::start(surroundings, known, portrait, listeners, Rc::clone(&inbox));
                NodeThread {
                    node,
                    events,
                    inbox,
                    transport,
                    log: writer,
                    unwritten: Vec::new(),
                    apply: hand,
                    applied: word,
                    io: io_jobs,
                    outbox,
                    standing,
                    metrics,
                    stop,
                    removed: None,
                }
                .run()
                .await
            });
            // A name that is being looked up must not hold up the word of how it ended.
            runtime.shutdown_background();
            ended
        })?);
        Ok(threads)
    }

    /// Runs `work` on a named thread; a fault, or a panic, stops the node.
    fn spawn(
        &self,
        name: &'static str,
        work: impl FnOnce() -> Result<(), Fault> + Send + 'static,
    ) -> Result<JoinHandle<()>, StartError> {
        let failure = Arc::clone(self.failure);
        std::thread::Builder::new()
            .name(format!("sinew-{name}"))
            .spawn(move || match std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
                Ok(Ok(())) => {}
                Ok(Err(fault)) => failure.fail(name, fault),
                Err(_) => failure.fail(name, Fault::Refused(format!("a bug: the {name} thread panicked, see the log"))),
            })
            .map_err(|error| StartError::Thread(name, error))
    }
}

/// What one client thread needs.
struct ClientThread {
    gateway: Gateway,
    node: mpsc::UnboundedSender<Vec<Event>>,
    batches: mpsc::UnboundedReceiver<AnswerBatch>,
    listeners: Vec<TcpListener>,
    connections: Arc<AtomicUsize>,
    streams_max: u32,
    election_timeout: Duration,
    auto_compaction: Option<AutoCompaction>,
    corrupt_check: Option<Duration>,
    stop: watch::Receiver<bool>,
}

fn start_client_thread(number: usize, thread: ClientThread) -> Result<JoinHandle<()>, StartError> {
    // The blocking threads serve large reads; more than may run at a time would only wait.
    let runtime = runtime("client", 8).build().map_err(|error| StartError::Thread("client", error))?;
    std::thread::Builder::new()
        .name(format!("sinew-client-{number}"))
        .spawn(move || {
            runtime.block_on(async move {
                let lane = &thread.gateway.lane;
                tokio::spawn(Arc::clone(lane).deliver(thread.batches));
                tokio::spawn(Arc::clone(lane).hand_over(thread.node));
                let (desk, standing) = (&thread.gateway.desk, &thread.gateway.context.standing);
                if number == 0 {
                    tokio::spawn(space::guard(thread.gateway.clone(), thread.stop.clone()));
                    tokio::spawn(reconfigure::promote_learners(thread.gateway.clone(), thread.stop.clone()));
                }
                if let Some(policy) = thread.auto_compaction {
                    tokio::spawn(auto_compaction::run(thread.gateway.clone(), policy, thread.stop.clone()));
                }
                if let Some(interval) = thread.corrupt_check {
                    tokio::spawn(corruption::run(thread.gateway.clone(), interval, thread.stop.clone()));
                }
                let watching = Arc::clone(desk).run(Arc::clone(standing), thread.election_timeout, thread.stop.clone());
                tokio::spawn(watching);
                let services = Arc::new(Services::new(thread.gateway));
                let mut serving = tokio::task::JoinSet::new();
                let listeners = match to_async(thread.listeners) {
                    Ok(listeners) => listeners,
                    Err(fault) => return warn!(%fault, "a client thread cannot serve"),
                };
                for listener in listeners {
                    serving.spawn(clients::serve(
                        Arc::clone(&services),
                        listener,
                        Arc::clone(&thread.connections),
                        thread.streams_max,
                        thread.stop.clone(),
                    ));
                }
                serving.join_all().await;
            });
        })
        .map_err(|error| StartError::Thread("client", error))
}

fn runtime(name: &'static str, blocking_threads: usize) -> tokio::runtime::Builder {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().max_blocking_threads(blocking_threads).thread_name(format!("sinew-{name}-blocking"));
    runtime
}

fn to_async(listeners: Vec<TcpListener>) -> Result<Vec<tokio::net::TcpListener>, Fault> {
    listeners
        .into_iter()
        .map(|listener| {
            tokio::net::TcpListener::from_std(listener).map_err(|error| Fault::Io {
                operation: "listen",
                path: String::from("socket"),
                cause: error.to_string(),
            })
        })
        .collect()
}
