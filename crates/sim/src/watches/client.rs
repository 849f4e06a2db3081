//! Clients that watch: several watches on one stream, resumed elsewhere when the stream ends.
//!
//! Invariant: a client goes on behind the last thing it was told, so its watches together must have everything.

use std::collections::VecDeque;

use base::{NodeId, Prng, Revision};
use check::history::WatchBatch;
use mvcc::Event;
use node::watch::{Create, Response, ResponseKind, StreamId};

use crate::random::{between, percent, pick, spread, stream};
use crate::recorded::event;
use crate::workload::{BANK, KEYS_MAX, key_bytes, prefix_end};

/// Watches of one client at a time.
const WATCHES_MAX: usize = 5;

/// One watch from its creation to its end, and what it delivered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WatchRecord {
    /// Who watched.
    pub client: u64,
    /// Where.
    pub node: NodeId,
    /// The stream.
    pub connection: u64,
    /// When it was asked for, in world time.
    pub invoked: u64,
    /// When it ended for its client.
    pub returned: Option<u64>,
    /// What was asked for.
    pub create: Create,
    /// Why there was no watch.
    pub refused: Option<String>,
    /// What was delivered.
    pub batches: Vec<WatchBatch>,
}

/// A request on a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Ask {
    Open,
    Create(Create),
    Cancel(i64),
    Progress,
    Close,
}

/// What a client does next.
pub(crate) enum Act {
    Nothing,
    Ask(Ask),
    /// Goes on at another node.
    Move,
}

/// A watch, as its client sees it.
struct Watched {
    record: usize,
    /// Its number on the stream, once that is known.
    id: Option<i64>,
    create: Create,
    /// The first revision that has not been delivered; 0 when it is not known.
    next: i64,
}

/// See the module.
struct WatchClient {
    prng: Prng,
    node: NodeId,
    stream: Option<StreamId>,
    watches: Vec<Watched>,
    /// Watches that were asked for, in the order in which they will be answered.
    asked: VecDeque<usize>,
    /// Watches that lost their history, to be begun again at the floor.
    again: Vec<Create>,
    is_slow: bool,
    /// The highest revision it was told of.
    seen: i64,
    /// The highest revision up to which all its watches were told to have everything.
    told: i64,
    sent_until: u64,
}

/// All of them, and what they were told.
pub(crate) struct WatchClients {
    clients: Vec<WatchClient>,
    next_stream: u64,
    nodes: u64,
    pub(crate) records: Vec<WatchRecord>,
}

impl WatchClients {
    pub(crate) fn new(seed: u64, nodes: u64) -> Self {
        let count = between(&mut stream(seed, 22), 1, 3);
        let client = |number| {
            let mut prng = stream(seed, 30 + number);
            WatchClient {
                node: NodeId(between(&mut prng, 1, nodes)),
                is_slow: percent(&mut prng, 20),
                prng,
                stream: None,
                watches: Vec::new(),
                asked: VecDeque::new(),
                again: Vec::new(),
                seen: 0,
                told: 0,
                sent_until: 0,
            }
        };
        Self { clients: (0..count).map(client).collect(), next_stream: 1, nodes, records: Vec::new() }
    }

    pub(crate) fn count(&self) -> usize {
        self.clients.len()
    }

    pub(crate) fn node(&self, client: usize) -> NodeId {
        self.clients[client].node
    }

    pub(crate) fn stream(&self, client: usize) -> Option<StreamId> {
        self.clients[client].stream
    }

    /// Draws for one client.
    pub(crate) fn between(&mut self, client: usize, low: u64, high: u64) -> u64 {
        between(&mut self.clients[client].prng, low, high)
    }

    /// Time until the client takes the next response.
    pub(crate) fn pace_us(&mut self, client: usize) -> u64 {
        let is_slow = self.clients[client].is_slow;
        if is_slow { self.between(client, 50_000, 1_500_000) } else { self.between(client, 20, 300) }
    }

    /// Time until a page of history for the client is read.
    pub(crate) fn read_us(&mut self, client: usize) -> u64 {
        spread(&mut self.clients[client].prng, 20, 10_000)
    }

    /// When a request of the client that is sent now arrives: requests do not overtake each other.
    pub(crate) fn arrival(&mut self, client: usize, now: u64) -> u64 {
        let at = (now + self.between(client, 50, 400)).max(self.clients[client].sent_until + 1);
        self.clients[client].sent_until = at;
        at
    }

    /// A new stream to some node, and all watches again on it.
    pub(crate) fn dial(&mut self, client: usize, now: u64, to: impl Fn(NodeId, u64) -> NodeId) -> Vec<Ask> {
        let id = StreamId(self.next_stream);
        self.next_stream += 1;
        let nodes = self.nodes;
        let state = &mut self.clients[client];
        state.stream = Some(id);
        state.node = to(NodeId(between(&mut state.prng, 1, nodes)), id.0);
        let again: Vec<Create> = std::mem::take(&mut state.watches).iter().map(Watched::again).collect();
        let mut asks = vec![Ask::Open];
        for create in again {
            self.begin(client, create.clone(), now);
            asks.push(Ask::Create(create));
        }
        asks
    }

    fn begin(&mut self, client: usize, create: Create, now: u64) {
        let state = &mut self.clients[client];
        state.asked.push_back(self.records.len());
        let next = create.start.0;
        state.watches.push(Watched { record: self.records.len(), id: None, create: create.clone(), next });
        let connection = state.stream.map_or(0, |stream| stream.0);
        self.records.push(WatchRecord {
            client: client as u64,
            node: state.node,
            connection,
            invoked: now,
            returned: None,
            create,
            refused: None,
            batches: Vec::new(),
        });
    }

    /// The stream is gone.
    pub(crate) fn cut(&mut self, client: usize, now: u64) {
        let state = &mut self.clients[client];
        state.stream = None;
        state.asked.clear();
        for watch in &state.watches {
            self.records[watch.record].returned = Some(now);
        }
    }

    /// What the client does, some time in the run.
    pub(crate) fn act(&mut self, client: usize, now: u64) -> Act {
        let state = &mut self.clients[client];
        if state.stream.is_none() {
            return Act::Nothing;
        }
        if let Some(create) = state.again.pop() {
            self.begin(client, create.clone(), now);
            return Act::Ask(Ask::Create(create));
        }
        match state.prng.below(100) {
            0..35 if state.watches.len() < WATCHES_MAX => {
                let create = state.draw();
                self.begin(client, create.clone(), now);
                Act::Ask(Ask::Create(create))
            }
            35..50 => state.cancel_one(|_| true),
            50..80 => Act::Ask(Ask::Progress),
            80..88 => {
                state.is_slow = !state.is_slow;
                Act::Nothing
            }
            88..94 => Act::Move,
            _ => Act::Nothing,
        }
    }

    /// What the client does when nothing is written any more, until it has everything up to `last`.
    pub(crate) fn finish(&mut self, client: usize, last: Revision) -> Act {
        let state = &mut self.clients[client];
        state.is_slow = false;
        if state.stream.is_none() || state.has_everything(last) {
            return Act::Nothing;
        }
        match state.cancel_one(|watch| watch.create.start > last) {
            Act::Nothing => Act::Ask(Ask::Progress),
            act => act,
        }
    }

    /// A client that was not told that its watches have everything up to `last`.
    pub(crate) fn behind(&self, last: Revision) -> Option<usize> {
        self.clients.iter().position(|client| !client.has_everything(last))
    }

    /// A response arrives.
    pub(crate) fn told(&mut self, client: usize, now: u64, response: &Response) {
        let state = &mut self.clients[client];
        state.seen = state.seen.max(response.revision.0);
        let batch = WatchBatch { at: now * 1000, revision: response.revision.0, ..WatchBatch::default() };
        match &response.kind {
            ResponseKind::Created => {
                let Some(record) = state.asked.pop_front() else { return };
                self.records[record].batches.push(WatchBatch { created: true, ..batch });
                if let Some(watch) = state.watches.iter_mut().find(|watch| watch.record == record) {
                    watch.id = Some(response.id);
                    watch.next = if watch.next == 0 { response.revision.0 + 1 } else { watch.next };
                }
            }
            ResponseKind::Refused(refused) => {
                let Some(record) = state.asked.pop_front() else { return };
                self.records[record].refused = Some(format!("{refused:?}"));
                self.end(client, record, now);
            }
            ResponseKind::Cancelled => {
                if let Some(record) = state.find(response.id) {
                    self.end(client, record, now);
                }
            }
            ResponseKind::Compacted(floor) => {
                let Some(record) = state.find(response.id) else { return };
                self.records[record].batches.push(WatchBatch { compact_revision: floor.0, ..batch });
                let everything = Create { key: "".into(), range_end: "\0".into(), ..Create::default() };
                state.again.push(Create { start: *floor, ..everything });
                self.end(client, record, now);
            }
            ResponseKind::Events { events, .. } => {
                let Some(record) = state.find(response.id) else { return };
                let last = events.last().map_or(0, |event| event.kv.mod_revision.0);
                state.reached(record, last);
                let events = events.iter().map(|one: &Event| event(one)).collect();
                self.records[record].batches.push(WatchBatch { events, ..batch });
            }
            ResponseKind::Progress => {
                let all = response.id < 0;
                let whom = |watch: &&Watched| watch.id.is_some() && (all || watch.id == Some(response.id));
                let records: Vec<usize> = state.watches.iter().filter(whom).map(|watch| watch.record).collect();
                for record in records {
                    state.reached(record, response.revision.0);
                    self.records[record].batches.push(batch.clone());
                }
                if all && state.asked.is_empty() {
                    state.told = state.told.max(response.revision.0);
                }
            }
        }
    }

    fn end(&mut self, client: usize, record: usize, now: u64) {
        self.records[record].returned = Some(now);
        self.clients[client].watches.retain(|watch| watch.record != record);
    }
}

impl Watched {
    /// The same from where it stopped. A watch from now on that was never told what now is starts over.
    fn again(&self) -> Create {
        Create { start: Revision(self.next), ..self.create.clone() }
    }
}

impl WatchClient {
    fn find(&self, id: i64) -> Option<usize> {
        self.watches.iter().find(|watch| watch.id == Some(id)).map(|watch| watch.record)
    }

    /// Everything up to a revision was delivered.
    fn reached(&mut self, record: usize, revision: i64) {
        if let Some(watch) = self.watches.iter_mut().find(|watch| watch.record == record) {
            watch.next = watch.next.max(revision + 1);
        }
    }

    fn has_everything(&self, last: Revision) -> bool {
        self.asked.is_empty() && (self.watches.is_empty() || self.told >= last.0)
    }

    fn cancel_one(&mut self, which: impl Fn(&Watched) -> bool) -> Act {
        let ids: Vec<i64> = self.watches.iter().filter(|watch| which(watch)).filter_map(|watch| watch.id).collect();
        if ids.is_empty() { Act::Nothing } else { Act::Ask(Ask::Cancel(*pick(&mut self.prng, &ids))) }
    }

    /// What to watch, and from where on.
    fn draw(&mut self) -> Create {
        let prng = &mut self.prng;
        let key = prng.below(KEYS_MAX);
        let (key, range_end) = match prng.below(5) {
            0 => (key_bytes(0), String::new()),
            1 => (key_bytes(key), String::new()),
            2 => (key_bytes(key), key_bytes(key + 1 + prng.below(KEYS_MAX))),
            3 => (BANK.to_owned(), prefix_end(BANK)),
            _ => (String::new(), "\0".to_owned()),
        };
        let start = match prng.below(5) {
            0..2 => 0,
            2..4 => (self.seen - prng.below(150) as i64).max(1),
            _ => self.seen + 1 + prng.below(20) as i64,
        };
        Create {
            id: 0,
            key: key.into(),
            range_end: range_end.into(),
            start: Revision(start),
            skip_puts: percent(prng, 15),
            skip_deletes: percent(prng, 15),
            prev_kv: percent(prng, 50),
            progress_notify: percent(prng, 40),
            fragment: false,
        }
    }
}
