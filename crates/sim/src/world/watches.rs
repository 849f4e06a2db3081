//! Watches: what a host does for them between the state machine and the clients, and what happens to their streams.
//!
//! Invariant: as in the server, a hub learns of changes after the engine shows them, pages of history are read beside
//! everything else, and a stream's responses arrive in order or not at all.

use base::{Fault, Revision};
use mvcc::{Engine, EventPage, ReadError, Reject};
use node::watch::{Next, PageRead, Response, ResponseKind, StreamId, WatcherId};

use super::{Happening, START_US, World};
use crate::counters::Counter;
use crate::machine::Process;
use crate::random::{between, percent, spread};
use crate::report::FailureKind;
use crate::watches::{Act, Ask, Desk, Line};

/// A page of history, or the floor below which it is gone.
type Page = Result<EventPage, Revision>;

/// Something about watches that happens. What happens at a node is meant for one life of its machine.
pub(crate) enum WatchStep {
    /// A client looks what to do.
    Act { client: usize },
    /// A client opens a stream.
    Dial { client: usize },
    /// A client learns that its stream is gone.
    Cut { client: usize, stream: StreamId },
    /// A response arrives.
    Deliver { client: usize, stream: StreamId, response: Box<Response> },
    /// A request arrives.
    Request { machine: usize, life: u64, client: usize, stream: StreamId, ask: Ask },
    /// The hub takes in what was applied.
    Mail { machine: usize, life: u64 },
    /// The hub's next deadline may have passed.
    Tick { machine: usize, life: u64, at: u64 },
    /// The client has room for a response.
    Pump { machine: usize, life: u64, stream: StreamId },
    /// A page of history is read.
    Read { machine: usize, life: u64, stream: StreamId, read: Box<PageRead> },
    /// A page was read.
    Page { machine: usize, life: u64, stream: StreamId, watcher: WatcherId, page: Box<Page> },
}

impl WatchStep {
    /// The machine it happens at, and the life it is meant for.
    fn place(&self) -> Option<(usize, u64)> {
        match *self {
            Self::Act { .. } | Self::Dial { .. } | Self::Cut { .. } | Self::Deliver { .. } => None,
            Self::Request { machine, life, .. }
            | Self::Mail { machine, life }
            | Self::Tick { machine, life, .. }
            | Self::Pump { machine, life, .. }
            | Self::Read { machine, life, .. }
            | Self::Page { machine, life, .. } => Some((machine, life)),
        }
    }
}

impl World<'_> {
    pub(super) fn prepare_watches(&mut self) {
        for client in 0..self.watches.count() {
            let delay = self.watches.between(client, 100_000, 1_500_000);
            self.after(delay, WatchStep::Dial { client });
            self.after(delay, WatchStep::Act { client });
        }
    }

    fn after(&mut self, delay: u64, step: WatchStep) {
        self.schedule.after(delay, Happening::Watch(step));
    }

    pub(super) fn watch(&mut self, step: WatchStep) {
        if let Some((machine, life)) = step.place() {
            let state = &self.machines[machine];
            if state.life != life || state.process.is_none() {
                // The stream went with the process.
                return;
            }
            if state.paused_until > self.schedule.now() {
                return self.waiting[machine].push(Happening::Watch(step));
            }
        }
        match step {
            WatchStep::Act { client } => self.watch_act(client),
            WatchStep::Dial { client } => self.dial_watch(client),
            WatchStep::Cut { client, stream } => self.cut_watch(client, stream),
            WatchStep::Deliver { client, stream, response } => self.deliver_watch(client, stream, &response),
            WatchStep::Request { machine, client, stream, ask, .. } => self.watch_request(machine, client, stream, ask),
            WatchStep::Mail { machine, .. } => self.watch_mail(machine),
            WatchStep::Tick { machine, at, .. } => self.watch_tick(machine, at),
            WatchStep::Pump { machine, stream, .. } => self.pump_watch(machine, stream),
            WatchStep::Read { machine, stream, read, .. } => self.read_watch_page(machine, stream, &read),
            WatchStep::Page { machine, stream, watcher, page, .. } => {
                self.change_hub(machine, |desk| desk.hub.page(stream, watcher, *page));
                self.pump_soon(machine, stream, 0);
            }
        }
    }

    fn watch_act(&mut self, client: usize) {
        let (now, end) = (self.now(), self.end_of_load());
        let is_astray = self.is_astray(&self.machines[self.place(self.watches.node(client))]);
        let act = match self.last_revision() {
            // Nothing will ever be heard there: clients leave a node that has no leader.
            Some(_) if self.healed && is_astray && self.watches.stream(client).is_some() => Act::Move,
            Some(last) if self.healed && now >= end => self.watches.finish(client, last),
            _ => self.watches.act(client, now),
        };
        match act {
            Act::Nothing => {}
            Act::Ask(ask) => self.ask_watch(client, ask),
            Act::Move => {
                self.ask_watch(client, Ask::Close);
                if let Some(stream) = self.watches.stream(client) {
                    self.cut_watch(client, stream);
                }
            }
        }
        let pause = self.watches.between(client, 50_000, 1_000_000);
        self.after(pause, WatchStep::Act { client });
    }

    /// The revision of the last command, once there will be no other.
    pub(super) fn last_revision(&self) -> Option<Revision> {
        let all = self.running().filter_map(|machine| machine.process.as_ref());
        if self.clients.are_idle() { all.map(|process| process.state.state().revision).max() } else { None }
    }

    fn end_of_load(&self) -> u64 {
        START_US + self.config.duration.as_micros() as u64 + super::monitor::TAIL_US
    }

    fn ask_watch(&mut self, client: usize, ask: Ask) {
        let now = self.now();
        let Some(stream) = self.watches.stream(client) else { return };
        let machine = self.place(self.watches.node(client));
        let life = self.machines[machine].life;
        let at = self.watches.arrival(client, now);
        self.trace.note(now, 50, || format!("watching client {client} asks n{}: {ask:?}", machine + 1));
        self.schedule.at(at, Happening::Watch(WatchStep::Request { machine, life, client, stream, ask }));
    }

    fn dial_watch(&mut self, client: usize) {
        let now = self.now();
        let (operator, founders) = (&self.operator, self.config.nodes);
        let asks = self.watches.dial(client, now, |node, turn| operator.in_place_of(node, founders, turn));
        let machine = self.place(self.watches.node(client));
        if self.machines[machine].process.is_none() || self.is_astray(&self.machines[machine]) {
            if let Some(stream) = self.watches.stream(client) {
                self.after(200, WatchStep::Cut { client, stream });
            }
            return;
        }
        asks.into_iter().for_each(|ask| self.ask_watch(client, ask));
    }

    fn cut_watch(&mut self, client: usize, stream: StreamId) {
        if self.watches.stream(client) != Some(stream) {
            return;
        }
        let now = self.now();
        self.trace.note(now, 51, || format!("watching client {client} has lost its stream"));
        self.watches.cut(client, now);
        self.counters.count(Counter::WatchStreamsLost);
        let pause = self.watches.between(client, 1_000, 400_000);
        self.after(pause, WatchStep::Dial { client });
    }

    /// The node died: who watched there learns that the connection broke.
    pub(super) fn break_watches(&mut self, machine: usize) {
        for client in 0..self.watches.count() {
            let Some(stream) = self.watches.stream(client) else { continue };
            if self.place(self.watches.node(client)) == machine {
                let delay = self.watches.between(client, 50, 400);
                self.after(delay, WatchStep::Cut { client, stream });
            }
        }
    }

    fn deliver_watch(&mut self, client: usize, stream: StreamId, response: &Response) {
        if self.watches.stream(client) != Some(stream) {
            return;
        }
        let now = self.now();
        self.trace.note(now, 52, || format!("watching client {client} is told {response:?}"));
        self.trace.mix(response.revision.0 as u64);
        match &response.kind {
            ResponseKind::Events { events, .. } => self.counters.add(Counter::WatchEvents, events.len() as u64),
            ResponseKind::Progress => self.counters.count(Counter::WatchProgress),
            ResponseKind::Compacted(_) => self.counters.count(Counter::WatchesCompacted),
            ResponseKind::Created | ResponseKind::Refused(_) | ResponseKind::Cancelled => {}
        }
        self.watches.told(client, now, response);
    }

    fn watch_request(&mut self, machine: usize, client: usize, stream: StreamId, ask: Ask) {
        let world = self.now();
        let now = self.machines[machine].clock.read(world);
        let state = match mvcc::state(&*self.machines[machine].engine.view()) {
            Ok(state) => state,
            Err(fault) => return self.stop(machine, &fault),
        };
        self.change_hub(machine, |desk| match ask {
            Ask::Open => {
                desk.hub.open(stream, now);
                desk.lines.insert(stream, Line { client, is_pumping: false, arrives_at: 0 });
            }
            Ask::Close => {
                desk.hub.close(stream);
                desk.lines.remove(&stream);
            }
            Ask::Create(create) => {
                desk.want();
                desk.hub.create(stream, &create, &state);
            }
            Ask::Cancel(id) => desk.hub.cancel(stream, id, state.revision),
            Ask::Progress => desk.hub.progress(stream, state.revision),
        });
        self.pump_soon(machine, stream, 0);
    }

    /// The engine of a node shows a new state.
    pub(super) fn publish(
        &mut self,
        machine: usize,
        before: Revision,
        after: Revision,
        changes: Option<Vec<mvcc::Change>>,
    ) {
        self.wake_locks(machine);
        let life = self.machines[machine].life;
        let Some(process) = &mut self.machines[machine].process else { return };
        if process.watches.publish(before, after, changes) {
            // Most of the time at once; sometimes the thread has other things to do.
            let late = percent(&mut self.chance.host, 10);
            let delay = between(&mut self.chance.host, 2, if late { 60_000 } else { 300 });
            self.after(delay, WatchStep::Mail { machine, life });
        }
    }

    fn watch_mail(&mut self, machine: usize) {
        self.change_hub(machine, |desk| {
            for step in std::mem::take(&mut desk.mail) {
                desk.hub.applied(step.before, step.after, step.changes.as_deref());
            }
        });
    }

    fn watch_tick(&mut self, machine: usize, at: u64) {
        let now = self.machines[machine].clock.read(self.now());
        let is_it = |process: &mut Box<Process>| process.watches.tick_at == at;
        if self.machines[machine].process.as_mut().is_some_and(is_it) {
            self.change_hub(machine, |desk| {
                desk.tick_at = u64::MAX;
                desk.hub.tick(now);
            });
        }
    }

    /// Changes the hub, then wakes whom that concerns.
    fn change_hub(&mut self, machine: usize, change: impl FnOnce(&mut Desk)) {
        let now = self.now();
        let state = &mut self.machines[machine];
        let life = state.life;
        let Some(process) = &mut state.process else { return };
        let desk = &mut process.watches;
        change(desk);
        desk.rest();
        let woken = desk.hub.take_woken();
        let due = desk.hub.next_deadline().map(|deadline| state.clock.when(deadline).max(now + 1));
        if let Some(due) = due.filter(|due| *due < desk.tick_at) {
            desk.tick_at = due;
            self.schedule.at(due, Happening::Watch(WatchStep::Tick { machine, life, at: due }));
        }
        for stream in woken {
            self.pump_soon(machine, stream, 0);
        }
    }

    /// Asks for the stream's next response as soon as its client has room.
    fn pump_soon(&mut self, machine: usize, stream: StreamId, pause: u64) {
        let life = self.machines[machine].life;
        let Some(process) = &mut self.machines[machine].process else { return };
        let Some(line) = process.watches.lines.get_mut(&stream).filter(|line| !line.is_pumping) else { return };
        line.is_pumping = true;
        self.after(pause + 5, WatchStep::Pump { machine, life, stream });
    }

    fn pump_watch(&mut self, machine: usize, stream: StreamId) {
        let now = self.now();
        let life = self.machines[machine].life;
        let Some(process) = &mut self.machines[machine].process else { return };
        let desk = &mut process.watches;
        let Some(line) = desk.lines.get_mut(&stream) else { return };
        line.is_pumping = false;
        let client = line.client;
        match desk.hub.next(stream) {
            Next::Response(response) => {
                let at = (now + self.watches.between(client, 50, 400)).max(line.arrives_at + 1);
                line.arrives_at = at;
                let response = Box::new(response);
                self.schedule.at(at, Happening::Watch(WatchStep::Deliver { client, stream, response }));
                let pause = self.watches.pace_us(client);
                self.pump_soon(machine, stream, pause);
            }
            Next::Read(read) => {
                let delay = self.watches.read_us(client);
                self.after(delay, WatchStep::Read { machine, life, stream, read: Box::new(read) });
                self.pump_soon(machine, stream, 0);
            }
            Next::Yield => self.pump_soon(machine, stream, 100),
            Next::Wait => {}
        }
        // What was taken may have changed who waits.
        self.change_hub(machine, |_| {});
    }

    fn read_watch_page(&mut self, machine: usize, stream: StreamId, read: &PageRead) {
        let life = self.machines[machine].life;
        let page = match read_page(&*self.machines[machine].engine.view(), read) {
            Ok(page) => page,
            Err(PageFault::Fault(fault)) => return self.stop(machine, &fault),
            Err(PageFault::Refused(reject)) => {
                let detail = format!("history from {} was refused: {reject}", read.query.from);
                return self.fail(FailureKind::Answers, detail);
            }
        };
        self.counters.count(Counter::WatchPages);
        let (watcher, page) = (read.watcher, Box::new(page));
        let delay = spread(&mut self.chance.host, 20, 10_000);
        self.after(delay, WatchStep::Page { machine, life, stream, watcher, page });
    }
}

/// Why there is no page.
enum PageFault {
    Fault(Fault),
    Refused(Reject),
}

/// Reads a page as the server does.
fn read_page(view: &dyn mvcc::View, read: &PageRead) -> Result<Page, PageFault> {
    match mvcc::events(view, &read.query, read.budget) {
        Ok(page) => Ok(Ok(page)),
        Err(ReadError::Reject(Reject::Compacted)) => {
            mvcc::state(view).map(|state| Err(state.compacted)).map_err(PageFault::Fault)
        }
        Err(ReadError::Reject(reject)) => Err(PageFault::Refused(reject)),
        Err(ReadError::Fault(fault)) => Err(PageFault::Fault(fault)),
    }
}
