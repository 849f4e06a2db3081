//! A store with its log of changes, a hub, and clients of all tempers; every step is drawn from a seed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use base::{Instant, Prng, Revision};
use bytes::Bytes;
use mvcc::{
    Change, Command, Compact, DeleteRange, Engine, EventBudget, Machine, MemEngine, Op, Put, ReadError, Reject, Span,
    Txn,
};
use node::watch::{Config, Create, Hub, NO_WATCH, Next, PageRead, Response, ResponseKind, StreamId};

use crate::record::{Record, Truth};

/// How often the hard parts were reached.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) responses: u64,
    pub(crate) pages: u64,
    pub(crate) compacted: u64,
    pub(crate) progress: u64,
    pub(crate) lost: u64,
    pub(crate) resumed: u64,
    pub(crate) fell_behind: u64,
    pub(crate) future: u64,
}

/// A batch on its way from the state machine to the hub.
struct Batch {
    before: Revision,
    after: Revision,
    changes: Option<Vec<Arc<Change>>>,
}

/// A stream and the client behind it.
#[derive(Default)]
struct Client {
    /// Records by the watch's number.
    watches: BTreeMap<i64, usize>,
    /// Creations whose answer is still to come, in order.
    asked: VecDeque<Create>,
    /// One in this many steps it takes a response.
    pace: u64,
}

pub(crate) struct World {
    prng: Prng,
    engine: MemEngine,
    machine: Machine,
    hub: Hub,
    mail: VecDeque<Batch>,
    reads: Vec<(StreamId, PageRead)>,
    clients: BTreeMap<StreamId, Client>,
    next_stream: u64,
    now: Instant,
    truth: Truth,
    records: Vec<Record>,
}

const STEPS: u64 = 250;
const CLIENTS_MAX: usize = 5;
const INTERVAL: Duration = Duration::from_millis(40);

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let engine = MemEngine::new();
        let config = Config {
            progress_interval: INTERVAL,
            watchers_per_stream_max: 6,
            recent_bytes_max: 4096,
            pending_max: 3,
            budget: EventBudget { events_max: 4, bytes_max: 64 },
            seed,
        };
        Self {
            prng: Prng::new(seed),
            machine: Machine::open(&engine).unwrap(),
            engine,
            hub: Hub::new(config),
            mail: VecDeque::new(),
            reads: Vec::new(),
            clients: BTreeMap::new(),
            next_stream: 0,
            now: Instant(0),
            truth: Truth { floor: Revision(-1), ..Truth::default() },
            records: Vec::new(),
        }
    }

    /// Runs to the end, where everybody has taken everything.
    pub(crate) fn run(&mut self, seen: &mut Seen) -> (Truth, Vec<Record>) {
        for _ in 0..STEPS {
            self.step(seen);
        }
        self.settle(seen);
        self.truth.floor = self.machine.state().compacted;
        (self.truth.clone(), self.records.clone())
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.prng.below(one_in) == 0
    }

    fn step(&mut self, seen: &mut Seen) {
        self.now = self.now + Duration::from_millis(1 + self.prng.below(4));
        match self.prng.below(20) {
            0..8 => self.apply(),
            8..13 => self.deliver(seen),
            13 => self.join(),
            14..16 => self.create(seen),
            16 => self.request(),
            17 => self.hub.tick(self.now),
            18 => self.read(seen),
            _ => self.leave(seen),
        }
        let streams: Vec<_> = self.clients.iter().map(|(stream, client)| (*stream, client.pace)).collect();
        for (stream, pace) in streams {
            if self.chance(pace) {
                self.take_one(stream, seen);
            }
        }
    }

    /// Applies some commands as one batch.
    fn apply(&mut self) {
        let commands: Vec<_> = (0..1 + self.prng.below(3)).map(|_| self.command()).collect();
        let before = self.machine.state().revision;
        let mut apply = self.machine.begin(self.engine.view()).unwrap();
        apply.keep_changes();
        for command in &commands {
            apply.execute(command, false).unwrap();
        }
        let after = apply.state().revision;
        let (batch, changes) = apply.finish("mark".into());
        self.engine.write(batch).unwrap();
        for change in &changes {
            self.truth.add(change);
        }
        if self.chance(3) {
            let piece = mvcc::sweep(&*self.engine.view(), 3).unwrap();
            if !piece.batch.rows.is_empty() {
                self.engine.write(piece.batch).unwrap();
            }
        }
        let changes = Some(changes.into_iter().map(Arc::new).collect());
        self.mail.push_back(Batch { before, after, changes });
    }

    fn key(&mut self) -> Bytes {
        let keys: [&'static str; 7] = ["a", "b", "b/1", "b/2", "b0", "c", "d"];
        Bytes::from_static(keys[self.prng.below(7) as usize].as_bytes())
    }

    fn put(&mut self) -> Put {
        let value = vec![b'v'; self.prng.below(40) as usize];
        Put { key: self.key(), value: value.into(), ..Put::default() }
    }

    fn command(&mut self) -> Command {
        let state = self.machine.state();
        match self.prng.below(12) {
            0..6 => Command::Put(self.put()),
            6 => Command::DeleteRange(DeleteRange { key: self.key(), ..DeleteRange::default() }),
            7 => Command::DeleteRange(DeleteRange { key: "b".into(), range_end: "c".into(), prev_kv: false }),
            8..11 => {
                let mut puts = BTreeMap::new();
                for _ in 0..1 + self.prng.below(4) {
                    let put = self.put();
                    puts.insert(put.key.clone(), Op::Put(put));
                }
                Command::Txn(Txn { success: puts.into_values().collect(), ..Txn::default() })
            }
            _ => {
                let behind = self.prng.below(12) as i64;
                Command::Compact(Compact { revision: Revision((state.revision.0 - behind).max(1)) })
            }
        }
    }

    /// Brings a batch to the hub; now and then it gets lost, or loses what is in it.
    fn deliver(&mut self, seen: &mut Seen) {
        let Some(batch) = self.mail.pop_front() else { return };
        match self.prng.below(30) {
            0 => seen.lost += 1,
            1 => {
                seen.lost += 1;
                self.hub.applied(batch.before, batch.after, None);
            }
            _ => {
                let slow = self.hub.counts().slow_watchers;
                self.hub.applied(batch.before, batch.after, batch.changes.as_deref());
                seen.fell_behind += u64::from(self.hub.counts().slow_watchers > slow);
            }
        }
        self.hub.take_woken();
    }

    fn join(&mut self) {
        if self.clients.len() < CLIENTS_MAX {
            let pace = [1, 1, 2, 20, 60][self.prng.below(5) as usize];
            self.open(pace);
        }
    }

    fn open(&mut self, pace: u64) -> StreamId {
        let stream = StreamId(self.next_stream);
        self.next_stream += 1;
        self.hub.open(stream, self.now);
        self.clients.insert(stream, Client { pace, ..Client::default() });
        stream
    }

    fn some_client(&mut self) -> Option<StreamId> {
        let at = self.prng.below(self.clients.len().max(1) as u64) as usize;
        self.clients.keys().nth(at).copied()
    }

    fn create(&mut self, seen: &mut Seen) {
        let Some(stream) = self.some_client() else { return };
        let state = self.machine.state();
        let start = match self.prng.below(6) {
            0..2 => 0,
            2..4 => (state.revision.0 - self.prng.below(25) as i64).max(1),
            4 => state.compacted.0.max(1),
            _ => state.revision.0 + self.prng.below(12) as i64,
        };
        seen.future += u64::from(start > state.revision.0 + 1);
        let range_end = [&b""[..], b"\0", b"b0", b"c", b"d"][self.prng.below(5) as usize];
        let create = Create {
            id: [0, 0, 0, 7][self.prng.below(4) as usize],
            key: if self.chance(8) { Bytes::new() } else { self.key() },
            range_end: Bytes::from_static(range_end),
            start: Revision(start),
            skip_puts: self.chance(8),
            skip_deletes: self.chance(8),
            prev_kv: self.chance(2),
            progress_notify: self.chance(2),
            fragment: false,
        };
        self.ask(stream, create);
    }

    fn ask(&mut self, stream: StreamId, create: Create) {
        if self.hub.has_room(stream) {
            self.hub.create(stream, &create, &self.machine.state());
            self.clients.get_mut(&stream).unwrap().asked.push_back(create);
        }
    }

    fn request(&mut self) {
        let Some(stream) = self.some_client() else { return };
        let revision = self.machine.state().revision;
        let ids: Vec<_> = self.clients[&stream].watches.keys().copied().collect();
        match ids.first() {
            Some(id) if self.chance(3) => self.hub.cancel(stream, *id, revision),
            _ => self.hub.progress(stream, revision),
        }
    }

    /// A client goes away, and perhaps comes back for the events behind the last one it got.
    fn leave(&mut self, seen: &mut Seen) {
        if !self.chance(3) {
            return;
        }
        let Some(stream) = self.some_client() else { return };
        let client = self.clients.remove(&stream).unwrap();
        self.hub.close(stream);
        if self.chance(2) {
            return;
        }
        let elsewhere = self.open(1);
        for record in client.watches.into_values() {
            let last = self.records[record].events().last().map(|event| event.kv.mod_revision);
            let Some(last) = last else { continue };
            let create = Create { id: 0, start: Revision(last.0 + 1), ..self.records[record].create.clone() };
            self.ask(elsewhere, create);
            seen.resumed += 1;
        }
    }

    /// Answers one of the reads that wait.
    fn read(&mut self, seen: &mut Seen) {
        if self.reads.is_empty() {
            return;
        }
        let at = self.prng.below(self.reads.len() as u64) as usize;
        let (stream, read) = self.reads.swap_remove(at);
        seen.pages += 1;
        let page = match mvcc::events(&*self.engine.view(), &read.query, read.budget) {
            Ok(page) => Ok(page),
            Err(ReadError::Reject(Reject::Compacted)) => Err(self.machine.state().compacted),
            Err(other) => panic!("{other:?}"),
        };
        self.hub.page(stream, read.watcher, page);
    }

    /// The client has room for one response. Returns whether there was anything to do.
    fn take_one(&mut self, stream: StreamId, seen: &mut Seen) -> bool {
        for _ in 0..100 {
            match self.hub.next(stream) {
                Next::Response(response) => {
                    self.receive(stream, response, seen);
                    return true;
                }
                Next::Read(read) => self.reads.push((stream, read)),
                Next::Yield => return true,
                Next::Wait => return false,
            }
        }
        panic!("the stream asks for reads without end");
    }

    fn receive(&mut self, stream: StreamId, response: Response, seen: &mut Seen) {
        let client = self.clients.get_mut(&stream).unwrap();
        match &response.kind {
            ResponseKind::Created => {
                let create = client.asked.pop_front().unwrap();
                let start = if create.start.0 == 0 { Revision(response.revision.0 + 1) } else { create.start };
                let key = if create.key.is_empty() { Bytes::from_static(b"\0") } else { create.key.clone() };
                let span = Span::new(&key, &create.range_end);
                client.watches.insert(response.id, self.records.len());
                self.records.push(Record { create, span, start, messages: Vec::new(), complete: false });
            }
            ResponseKind::Refused(_) => {
                assert_eq!(response.id, NO_WATCH);
                client.asked.pop_front().unwrap();
                return;
            }
            ResponseKind::Events { .. } => seen.responses += 1,
            ResponseKind::Progress => seen.progress += 1,
            ResponseKind::Compacted(_) => seen.compacted += 1,
            ResponseKind::Cancelled => {}
        }
        let concerned: Vec<_> = match response.id {
            NO_WATCH => client.watches.values().copied().collect(),
            id => vec![client.watches[&id]],
        };
        if matches!(response.kind, ResponseKind::Cancelled | ResponseKind::Compacted(_)) {
            client.watches.remove(&response.id);
        }
        for record in concerned {
            self.records[record].messages.push((response.revision, response.kind.clone()));
        }
    }

    /// Everything on its way arrives, and every client takes what there is.
    fn settle(&mut self, seen: &mut Seen) {
        let end = self.machine.state().revision;
        while !self.mail.is_empty() {
            self.deliver(seen);
        }
        self.hub.applied(end, end, Some(&[]));
        loop {
            let streams: Vec<_> = self.clients.keys().copied().collect();
            let mut busy = false;
            for stream in streams {
                while self.take_one(stream, seen) {
                    busy = true;
                }
            }
            while !self.reads.is_empty() {
                self.read(seen);
                busy = true;
            }
            if !busy {
                break;
            }
        }
        for client in self.clients.values() {
            for record in client.watches.values() {
                self.records[*record].complete = true;
            }
        }
        let counts = self.hub.counts();
        assert_eq!((counts.pending, counts.slow_watchers), (0, 0), "everybody has everything: {counts:?}");
        for stream in std::mem::take(&mut self.clients).into_keys() {
            self.hub.close(stream);
        }
        let counts = self.hub.counts();
        assert_eq!((counts.watchers, counts.streams), (0, 0), "nothing stays behind: {counts:?}");
    }
}
