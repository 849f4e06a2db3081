//! Connections to and from the other nodes, all on the node thread.
//!
//! Each node dials every other node and sends on that connection only; it receives on the connections the others
//! dialled. A peer counts as connected while our own connection to it stands.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base::{Fault, NodeId, limits};
use bytes::BytesMut;
use kernel::Protocol;
use node::{Event, PeerMessage};
use storage::KnownPeers;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::host::failure::Failure;
use crate::members::{Directory, Member};
use crate::metrics::Metrics;
use crate::peer::frame;
use crate::peer::hello::{Hello, Welcome};
use crate::peer::join::{JoinAnswer, JoinRequest};
use crate::standing::{StandingCell, votes};

/// A dialled or accepted connection must introduce itself within this time.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a member that is asked about a stranger has to answer; the stranger waits for a [`HELLO_TIMEOUT`].
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// First and longest pause between attempts to reach a peer.
const REDIAL: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// A connection whose other end acknowledges nothing for so long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(5);
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// A frame that has begun must be whole within this time. One whose length was damaged would otherwise be waited for
/// while the peer speaks on, unheard. Enough for the longest frame at a megabyte per second.
const FRAME_TIMEOUT: Duration = Duration::from_secs(16);
/// Connections from peers, introduced or not.
const ACCEPTED_MAX: usize = 256;
/// A buffer larger than this is given back once it is empty.
const KEEP_BUFFER_BYTES: usize = 1024 * 1024;
/// How much is read at once.
const READ_BYTES: usize = 64 * 1024;
/// Room below which a new buffer is taken for the next read.
const READ_BYTES_MIN: usize = 4 * 1024;

/// Events from peers, collected until the node's next turn. Same thread, so no lock.
#[derive(Default)]
pub(crate) struct Inbox {
    events: RefCell<Vec<Event>>,
    arrived: Notify,
}

impl Inbox {
    fn push(&self, event: Event) {
        self.events.borrow_mut().push(event);
        self.arrived.notify_one();
    }

    /// Moves everything that arrived to `into`.
    pub(crate) fn drain(&self, into: &mut Vec<Event>) {
        into.append(&mut self.events.borrow_mut());
    }

    pub(crate) async fn arrived(&self) {
        self.arrived.notified().await;
    }
}

/// Why a node is not listened to.
enum Stranger {
    /// It is nobody we know, or cannot be noted.
    Unknown(String),
    /// It is somebody we know, with other data.
    Forgetful(String),
}

impl Stranger {
    fn reason(self) -> String {
        match self {
            Self::Unknown(reason) | Self::Forgetful(reason) => reason,
        }
    }
}

/// What goes to one peer.
#[derive(Default)]
struct Outgoing {
    /// The member left: nothing more goes there.
    gone: Cell<bool>,
    /// Frames not yet taken by the connection.
    queue: RefCell<Vec<u8>>,
    connected: Cell<bool>,
    /// The connection has something to send.
    ready: Notify,
}

/// What this node says of itself beside its name and place.
#[derive(Clone, Copy)]
pub(crate) struct SelfPortrait {
    /// Number of group 0's consensus protocol.
    pub(crate) protocol: u8,
    /// The random number of the data directory.
    pub(crate) incarnation: u64,
}

/// What the connections know of the node around them.
pub(crate) struct Surroundings {
    pub(crate) directory: Arc<Directory>,
    pub(crate) failure: Arc<Failure>,
    pub(crate) standing: Arc<StandingCell>,
    pub(crate) metrics: Arc<Metrics>,
}

/// Everything the connection tasks share.
struct Shared {
    me: Arc<Member>,
    directory: Arc<Directory>,
    /// What is durably noted of the others; the file itself is touched by a blocking thread only.
    noted: RefCell<BTreeMap<NodeId, u64>>,
    known: Arc<Mutex<KnownPeers>>,
    portrait: SelfPortrait,
    failure: Arc<Failure>,
    standing: Arc<StandingCell>,
    inbox: Rc<Inbox>,
    metrics: Arc<Metrics>,
    accepted: Cell<usize>,
    /// The others are being asked about a stranger.
    asking: Cell<bool>,
}

/// The connections of this node.
pub(crate) struct Transport {
    shared: Rc<Shared>,
    peers: BTreeMap<NodeId, Rc<Outgoing>>,
    /// Of the directory, when the peers were last looked up there.
    version: Option<u64>,
    touched: Vec<NodeId>,
}

impl Transport {
    /// Starts dialling all other members and accepting on `listeners`. Must be called inside a `LocalRuntime`.
    pub(crate) fn start(
        surroundings: Surroundings,
        known: KnownPeers,
        portrait: SelfPortrait,
        listeners: Vec<TcpListener>,
        inbox: Rc<Inbox>,
    ) -> Self {
        let Surroundings { directory, failure, standing, metrics } = surroundings;
        let shared = Rc::new(Shared {
            me: directory.me(),
            directory,
            noted: RefCell::new(known.noted().clone()),
            known: Arc::new(Mutex::new(known)),
            portrait,
            failure,
            standing,
            inbox,
            metrics,
            accepted: Cell::new(0),
            asking: Cell::new(false),
        });
        for listener in listeners {
            tokio::task::spawn_local(accept(Rc::clone(&shared), listener));
        }
        let mut transport = Self { shared, peers: BTreeMap::new(), version: None, touched: Vec::new() };
        transport.follow_members();
        transport
    }

    /// Starts dialling whoever is new, and stops with whoever left.
    pub(crate) fn follow_members(&mut self) {
        let version = self.shared.directory.version();
        if self.version.replace(version) == Some(version) {
            return;
        }
        let members: BTreeMap<_, _> =
            self.shared.directory.members().into_iter().map(|member| (member.id, member)).collect();
        for (_, left) in self.peers.extract_if(.., |id, _| !members.contains_key(id)) {
            left.gone.set(true);
            left.ready.notify_one();
        }
        for id in members.into_keys().filter(|id| *id != self.shared.me.id) {
            self.peers.entry(id).or_insert_with(|| {
                let outgoing = Rc::<Outgoing>::default();
                tokio::task::spawn_local(keep_dialling(Rc::clone(&self.shared), id, Rc::clone(&outgoing)));
                outgoing
            });
        }
    }

    /// Queues a message; dropped if the peer is not connected or its queue is full.
    pub(crate) fn send(&mut self, to: NodeId, message: &PeerMessage) {
        let Some(peer) = self.peers.get(&to).filter(|peer| peer.connected.get()) else { return };
        let mut queue = peer.queue.borrow_mut();
        if queue.len() > limits::PEER_QUEUE_BYTES_MAX {
            self.shared.metrics.peer_dropped.add(1);
            return;
        }
        frame::put(&mut queue, |out| message.encode(out));
        if self.touched.last() != Some(&to) {
            self.touched.push(to);
        }
    }

    /// Ends the turn: wakes the connections that got something to send.
    pub(crate) fn flush(&mut self) {
        for peer in self.touched.drain(..).filter_map(|node| self.peers.get(&node)) {
            peer.ready.notify_one();
        }
    }
}

/// Until the member leaves. Where it is to be reached may change meanwhile.
async fn keep_dialling(shared: Rc<Shared>, id: NodeId, outgoing: Rc<Outgoing>) {
    let mut pause = REDIAL.0;
    let mut last_error = String::new();
    while let Some(member) = shared.directory.member(id).filter(|_| !outgoing.gone.get()) {
        match dial(&shared, &member).await {
            Ok(stream) => {
                info!(peer = %member.name, id = %member.id, "connected to peer");
                pause = REDIAL.0;
                last_error.clear();
                outgoing.queue.borrow_mut().clear();
                outgoing.connected.set(true);
                shared.inbox.push(Event::PeerConnected(member.id));
                let ended = send_queue(&shared, stream, &outgoing).await;
                outgoing.connected.set(false);
                outgoing.queue.borrow_mut().clear();
                shared.inbox.push(Event::PeerLost(member.id));
                warn!(peer = %member.name, id = %member.id, reason = %ended, "lost connection to peer");
            }
            Err(error) => {
                // Said once per reason, not once per attempt.
                if error != last_error {
                    warn!(peer = %member.name, id = %member.id, urls = ?member.peer_urls, %error, "cannot reach peer");
                    last_error = error;
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(REDIAL.1);
    }
}

async fn dial(shared: &Shared, member: &Member) -> Result<TcpStream, String> {
    let mut error = String::from("no peer url");
    for url in &member.peer_urls {
        match tokio::time::timeout(HELLO_TIMEOUT, dial_url(shared, member, url)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(reason)) => error = reason,
            Err(_) => error = format!("{url}: no answer within {HELLO_TIMEOUT:?}"),
        }
    }
    Err(error)
}

async fn dial_url(shared: &Shared, member: &Member, url: &str) -> Result<TcpStream, String> {
    let address = crate::members::host_and_port(url).ok_or_else(|| format!("{url}: not a peer url"))?;
    let mut stream = TcpStream::connect(&address).await.map_err(|error| format!("{url}: {error}"))?;
    watch_over(&stream).map_err(|error| format!("{url}: {error}"))?;
    let mut out = Vec::new();
    let hello = introduction(shared, member.id);
    frame::put(&mut out, |out| hello.encode(out));
    stream.write_all(&out).await.map_err(|error| format!("{url}: {error}"))?;
    let mut input = BytesMut::new();
    let body = read_frame(&mut stream, &mut input).await.map_err(|error| format!("{url}: {error}"))?;
    match Welcome::decode(body).map_err(|error| format!("{url} does not speak the peer protocol: {error}"))? {
        Welcome::Refused(reason) => Err(format!("{url} refuses us: {reason}")),
        Welcome::Forgetful(reason) => {
            // Going on would be dangerous: somebody who never met our old self might take us for it.
            let fault = Fault::Refused(format!("{url} does not take this node for a member: {reason}"));
            shared.failure.fail("peer", fault);
            Err(reason)
        }
        Welcome::Accepted(hello) if hello.node != member.id || hello.cluster != shared.directory.cluster() => {
            Err(format!("{url} is member {} of cluster {}, expected {}", hello.node, hello.cluster, member.id))
        }
        Welcome::Accepted(hello) => {
            get_to_know(shared, &hello).await.map_err(|stranger| format!("{url}: {}", stranger.reason()))?;
            shared.directory.heard_from(hello.node, hello.name, hello.client_urls);
            Ok(stream)
        }
    }
}

/// Writes the peer's queue until the connection breaks; tells why.
async fn send_queue(shared: &Shared, stream: TcpStream, outgoing: &Outgoing) -> String {
    let (mut reader, mut writer) = stream.into_split();
    let sending = async {
        let mut buffer = Vec::new();
        loop {
            std::mem::swap(&mut *outgoing.queue.borrow_mut(), &mut buffer);
            if outgoing.gone.get() {
                return String::from("it is no member any more");
            }
            if buffer.is_empty() {
                outgoing.ready.notified().await;
                continue;
            }
            if let Err(error) = writer.write_all(&buffer).await {
                return error.to_string();
            }
            shared.metrics.peer_sent_bytes.add(buffer.len() as u64);
            buffer.clear();
            if buffer.capacity() > KEEP_BUFFER_BYTES {
                buffer = Vec::new();
            }
        }
    };
    // The other side never speaks here after its welcome; a read that ends means that it is gone.
    let closing = async {
        let mut byte = [0; 1];
        match reader.read(&mut byte).await {
            Ok(0) => String::from("closed by the peer"),
            Ok(_) => String::from("the peer spoke out of turn"),
            Err(error) => error.to_string(),
        }
    };
    tokio::select! { ended = sending => ended, ended = closing => ended }
}

async fn accept(shared: Rc<Shared>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                if shared.accepted.get() >= ACCEPTED_MAX {
                    warn!(%address, "too many peer connections, one refused");
                    continue;
                }
                shared.accepted.set(shared.accepted.get() + 1);
                let shared = Rc::clone(&shared);
                tokio::task::spawn_local(async move {
                    let ended = receive(&shared, stream, address).await;
                    debug!(%address, reason = %ended, "peer connection ended");
                    shared.accepted.set(shared.accepted.get() - 1);
                });
            }
            Err(error) => {
                // Out of file descriptors, for one: the listener stays, the next attempt may work.
                warn!(%error, "cannot accept peer connections");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Serves one accepted connection until it ends; tells why.
async fn receive(shared: &Shared, mut stream: TcpStream, address: SocketAddr) -> String {
    if let Err(error) = watch_over(&stream) {
        return error.to_string();
    }
    let mut input = BytesMut::new();
    let hello = match tokio::time::timeout(HELLO_TIMEOUT, read_frame(&mut stream, &mut input)).await {
        Err(_) => return format!("no hello within {HELLO_TIMEOUT:?}"),
        Ok(Err(error)) => {
            warn!(%address, %error, "a connection to the peer port does not speak the peer protocol");
            return error;
        }
        Ok(Ok(body)) if JoinRequest::is(&body) => return answer_join(shared, stream, address, body).await,
        Ok(Ok(body)) => match Hello::decode(body) {
            Ok(hello) => hello,
            Err(error) => {
                warn!(%address, %error, "a connection to the peer port does not speak the peer protocol");
                return error.to_string();
            }
        },
    };
    if hello.cluster == shared.directory.cluster() && is_stranger(shared, hello.node) {
        ask_about(shared, hello.node).await;
    }
    let refusal = match refuse(shared, &hello) {
        None if shared.directory.was_removed(hello.node) => Some(Stranger::Forgetful(format!(
            "member {:x} ({}) was removed from the cluster; to take this machine in again: `sinew member add`, then \
             start it with an empty data directory and --initial-cluster-state existing",
            hello.node.0, hello.name
        ))),
        None => get_to_know(shared, &hello).await.err(),
        Some(reason) => Some(Stranger::Unknown(reason)),
    };
    let welcome = match &refusal {
        Some(Stranger::Unknown(reason)) => Welcome::Refused(reason.clone()),
        Some(Stranger::Forgetful(reason)) => Welcome::Forgetful(reason.clone()),
        None => Welcome::Accepted(introduction(shared, hello.node)),
    };
    let refusal = refusal.map(Stranger::reason);
    let mut out = Vec::new();
    frame::put(&mut out, |out| welcome.encode(out));
    if let Err(error) = stream.write_all(&out).await {
        return error.to_string();
    }
    if let Some(reason) = refusal {
        warn!(%address, peer = %hello.name, id = %hello.node, %reason, "peer refused");
        return reason;
    }
    shared.directory.heard_from(hello.node, hello.name.clone(), hello.client_urls);
    let mut version = shared.directory.version();
    let mut whole_by = None;
    loop {
        if version != shared.directory.version() {
            version = shared.directory.version();
            if shared.directory.was_removed(hello.node) {
                return String::from("it is no member any more");
            }
        }
        match frame::take(&mut input) {
            Ok(Some(body)) => match PeerMessage::decode(body) {
                Ok(PeerMessage::Forward { payload, .. }) if mvcc::Command::decode(payload.clone()).is_err() => {
                    // In the log it would stop every node.
                    warn!(%address, peer = %hello.name, "peer forwarded a command that does not decode");
                    return String::from("a command that does not decode");
                }
                Ok(message) => {
                    whole_by = None;
                    shared.inbox.push(Event::Peer(hello.node, message));
                }
                Err(error) => {
                    warn!(%address, peer = %hello.name, %error, "peer sent a message that does not decode");
                    return error.to_string();
                }
            },
            Ok(None) => match read_rest(&mut stream, &mut input, &mut whole_by).await {
                Ok(bytes) => shared.metrics.peer_received_bytes.add(bytes as u64),
                Err(error) => return error,
            },
            Err(error) => {
                warn!(%address, peer = %hello.name, %error, "peer sent a broken frame");
                return error.to_string();
            }
        }
    }
}

fn is_stranger(shared: &Shared, id: NodeId) -> bool {
    !shared.directory.contains(id) && !shared.directory.was_removed(id)
}

/// A stranger calls. It may have become a member while this node was away, and by now it may lead: then nothing else
/// would ever tell. So the members that are known are asked who the members are. They answer nobody who has lost its
/// data, so such a node cannot get to those who never met its old self.
async fn ask_about(shared: &Shared, stranger: NodeId) {
    if shared.asking.replace(true) {
        return;
    }
    for member in shared.directory.members().into_iter().filter(|member| member.id != shared.me.id) {
        let Some(url) = member.peer_urls.first() else { continue };
        match tokio::time::timeout(ASK_TIMEOUT, members_by(shared, url)).await {
            Ok(Ok(members)) if members.iter().any(|member| member.id == stranger) => {
                info!(id = %format_args!("{:x}", stranger.0), by = %member.name, "a new member introduced");
                shared.directory.meet(members);
                break;
            }
            Ok(Ok(_)) => {}
            Ok(Err(reason)) => debug!(peer = %member.name, %reason, "no answer about a stranger"),
            Err(_) => debug!(peer = %member.name, "no answer about a stranger in time"),
        }
    }
    shared.asking.set(false);
}

/// Who the members are, as the one at this place says to a member.
async fn members_by(shared: &Shared, url: &str) -> Result<Vec<Member>, String> {
    let address = crate::members::host_and_port(url).ok_or("not a peer url")?;
    let mut stream = TcpStream::connect(&address).await.map_err(|error| error.to_string())?;
    let (incarnation, peer_urls) = (shared.portrait.incarnation, shared.me.peer_urls.clone());
    let mut out = Vec::new();
    frame::put(&mut out, |out| JoinRequest { incarnation, peer_urls }.encode(out));
    stream.write_all(&out).await.map_err(|error| error.to_string())?;
    let body = read_frame(&mut stream, &mut BytesMut::new()).await?;
    match JoinAnswer::decode(body).map_err(|error| error.to_string())? {
        JoinAnswer::Welcome { cluster, node, members, .. }
            if (cluster, node) == (shared.directory.cluster(), shared.me.id) =>
        {
            Ok(members)
        }
        JoinAnswer::Welcome { node, .. } => Err(format!("it takes this node for member {:x}", node.0)),
        JoinAnswer::Refused(reason) => Err(reason),
    }
}

/// Why this peer may not talk to us, if so.
fn refuse(shared: &Shared, hello: &Hello) -> Option<String> {
    let cluster = shared.directory.cluster();
    if hello.cluster != cluster {
        return Some(format!(
            "cluster ID mismatch: this node belongs to cluster {:x}, the peer to {:x}; check --initial-cluster and \
             --initial-cluster-token on both",
            cluster.0, hello.cluster.0
        ));
    }
    if hello.to != shared.me.id {
        return Some(format!("this is member {:x}, not {:x}; check --initial-cluster", shared.me.id.0, hello.to.0));
    }
    if hello.protocol != shared.portrait.protocol {
        let name = |id| Protocol::from_id(id).map_or_else(|| format!("number {id}"), |protocol| protocol.to_string());
        return Some(format!(
            "consensus protocol mismatch: this node runs {}, the peer {}; start all members with the same --consensus",
            name(shared.portrait.protocol),
            name(hello.protocol)
        ));
    }
    if hello.node == shared.me.id || is_stranger(shared, hello.node) {
        return Some(format!("{:x} is not another member of this cluster", hello.node.0));
    }
    None
}

/// Tells a node that wants to become a member which one it is, if it may.
async fn answer_join(shared: &Shared, mut stream: TcpStream, address: SocketAddr, body: bytes::Bytes) -> String {
    let answer = match JoinRequest::decode(body) {
        Ok(request) => admit(shared, &request),
        Err(error) => return error.to_string(),
    };
    let ended = match &answer {
        JoinAnswer::Welcome { node, .. } => format!("it may join as member {:x}", node.0),
        JoinAnswer::Refused(reason) => {
            warn!(%address, %reason, "a node may not join");
            reason.clone()
        }
    };
    let mut out = Vec::new();
    frame::put(&mut out, |out| answer.encode(out));
    stream.write_all(&out).await.map_or_else(|error| error.to_string(), |()| ended)
}

fn admit(shared: &Shared, request: &JoinRequest) -> JoinAnswer {
    let members = shared.directory.members();
    let same = |member: &&Member| member.peer_urls.iter().any(|url| request.peer_urls.contains(url));
    let urls = request.peer_urls.join(",");
    let Some(member) = members.iter().find(same) else {
        return JoinAnswer::Refused(format!(
            "no member of this cluster is to be reached at {urls}: first add it with \
             `sinew member add NAME --peer-urls={urls}`"
        ));
    };
    // Whoever votes has had the data: a learner gets its vote only after that.
    let is_lost = match shared.noted.borrow().get(&member.id) {
        Some(noted) => *noted != request.incarnation,
        None => shared.standing.look(|status| votes(status, member.id)),
    };
    if member.id == shared.me.id || is_lost {
        return JoinAnswer::Refused(format!(
            "member {id:x} at {urls} has started before, from other data. It must not come back without it: it has \
             forgotten what it promised. Restore its data directory, or replace it: `sinew member remove {id:x}`, then \
             `sinew member add NAME --peer-urls={urls}`",
            id = member.id.0
        ));
    }
    JoinAnswer::Welcome {
        cluster: shared.directory.cluster(),
        node: member.id,
        protocol: shared.portrait.protocol,
        members,
    }
}

/// Makes sure that the node speaks from the data it always had; one that is new is noted on disk first.
async fn get_to_know(shared: &Shared, hello: &Hello) -> Result<(), Stranger> {
    let (node, incarnation) = (hello.node, hello.incarnation);
    let noted = shared.noted.borrow().get(&node).copied();
    let noted = match noted {
        Some(noted) => noted,
        None => {
            // Off this thread, which never waits for the disk; once per member.
            let known = Arc::clone(&shared.known);
            let note = move || known.lock().unwrap_or_else(PoisonError::into_inner).note(node, incarnation);
            let noted =
                tokio::task::spawn_blocking(note).await.map_err(|error| Stranger::Unknown(error.to_string()))?;
            let noted = noted.map_err(|fault| Stranger::Unknown(format!("cannot note the member: {fault}")))?;
            shared.noted.borrow_mut().insert(node, noted);
            noted
        }
    };
    if noted == incarnation {
        return Ok(());
    }
    Err(Stranger::Forgetful(format!(
        "member {:x} ({}) has lost the data it had: it must not come back as its old self, since it has forgotten what it \
         promised; restore its data directory, or replace the member",
        node.0, hello.name
    )))
}

fn introduction(shared: &Shared, to: NodeId) -> Hello {
    Hello {
        cluster: shared.directory.cluster(),
        node: shared.me.id,
        to,
        protocol: shared.portrait.protocol,
        incarnation: shared.portrait.incarnation,
        name: shared.me.name.clone(),
        client_urls: shared.directory.client_urls(shared.me.id),
    }
}

/// A peer that vanished without a word must be noticed: unanswered bytes and unanswered probes end the connection, and
/// with it the retransmission pauses that would outlast a healed network.
fn watch_over(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    socket.set_tcp_user_timeout(Some(SILENCE_MAX))?;
    let probes = socket2::TcpKeepalive::new().with_time(SILENCE_MAX).with_interval(PROBE_INTERVAL).with_retries(3);
    socket.set_tcp_keepalive(&probes)
}

async fn read_frame(stream: &mut TcpStream, input: &mut BytesMut) -> Result<bytes::Bytes, String> {
    loop {
        if let Some(body) = frame::take(input).map_err(|error| error.to_string())? {
            return Ok(body);
        }
        read_more(stream, input).await?;
    }
}

/// Reads on, but not beyond the time by which a frame that has begun must be whole.
async fn read_rest(
    stream: &mut TcpStream,
    input: &mut BytesMut,
    whole_by: &mut Option<Instant>,
) -> Result<usize, String> {
    if input.is_empty() {
        return read_more(stream, input).await;
    }
    let deadline = *whole_by.get_or_insert_with(|| Instant::now() + FRAME_TIMEOUT);
    match tokio::time::timeout_at(deadline, read_more(stream, input)).await {
        // A peer that never pauses would keep the clock from being looked at.
        Ok(read) if Instant::now() < deadline => read,
        Ok(_) | Err(_) => Err(format!("a frame is not whole within {FRAME_TIMEOUT:?}")),
    }
}

async fn read_more(stream: &mut TcpStream, input: &mut BytesMut) -> Result<usize, String> {
    // Payloads stay slices of this buffer: a fresh buffer for every small read would keep many times their size alive.
    if input.capacity() - input.len() < READ_BYTES_MIN {
        input.reserve(READ_BYTES);
    }
    match stream.read_buf(input).await {
        Ok(0) => Err(String::from("closed by the peer")),
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(error.to_string()),
    }
}
