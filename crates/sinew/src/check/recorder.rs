//! Writes down what happened while it happens, and counts.
//!
//! Invariant: an operation is in the file as soon as its client knows as much as it ever will; memory does not grow
//! with the run. Times are those of one monotonic clock.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, BufWriter};
use std::time::{Duration, Instant};

use ::check::history::{Header, Lease, Lock, Operation, Outcome, Request, Response, Writer};

/// The file and the counters.
pub(super) struct Recorder {
    writer: RefCell<Writer<BufWriter<File>>>,
    start: Instant,
    next_id: Cell<u64>,
    failure: RefCell<Option<io::Error>>,
    pub(super) counts: RefCell<Counts>,
}

/// What happened, in numbers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) done: u64,
    pub(super) failed: u64,
    pub(super) unknown: u64,
    /// Acknowledged requests that may write.
    pub(super) writes: u64,
    /// Watches that stood, until their client went on elsewhere.
    pub(super) watches: u64,
    /// Events that they delivered.
    pub(super) events: u64,
    /// Leases granted.
    pub(super) leases: u64,
    /// Locks granted.
    pub(super) locks: u64,
    last_write: Duration,
    /// Longest time without one.
    pub(super) longest_gap: Duration,
}

/// Who asks whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    pub(super) client: u64,
    pub(super) node: u64,
    pub(super) connection: u64,
}

impl Recorder {
    pub(super) fn new(file: File, header: &Header) -> io::Result<Self> {
        Ok(Self {
            writer: RefCell::new(Writer::new(BufWriter::new(file), header)?),
            start: Instant::now(),
            next_id: Cell::new(0),
            failure: RefCell::new(None),
            counts: RefCell::new(Counts::default()),
        })
    }

    /// Nanoseconds since the start.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Writes down an operation that has just ended. The first trouble with the file is kept for [`Recorder::finish`].
    pub(super) fn add(&self, caller: Caller, invoked: u64, request: Request, outcome: Outcome) {
        let returned = self.now();
        self.count(&request, &outcome, Duration::from_nanos(returned));
        let Caller { client, node, connection } = caller;
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        let operation = Operation { id, client, node, connection, invoked, returned: Some(returned), request, outcome };
        if let Err(error) = self.writer.borrow_mut().write(&operation) {
            self.failure.borrow_mut().get_or_insert(error);
        }
    }

    fn count(&self, request: &Request, outcome: &Outcome, now: Duration) {
        let mut counts = self.counts.borrow_mut();
        match outcome {
            Outcome::Done { .. } => counts.done += 1,
            Outcome::Failed { .. } => counts.failed += 1,
            Outcome::Unknown => counts.unknown += 1,
        }
        match (request, outcome) {
            (Request::Watch(_), Outcome::Done { response: Response::Watch { batches }, .. }) => {
                counts.watches += 1;
                counts.events += batches.iter().map(|batch| batch.events.len() as u64).sum::<u64>();
            }
            (Request::Lease(Lease::Grant { .. }), Outcome::Done { .. }) => counts.leases += 1,
            (Request::Lock(Lock::Acquire { .. }), Outcome::Done { .. }) => counts.locks += 1,
            _ => {}
        }
        if request.may_write() && matches!(outcome, Outcome::Done { .. }) {
            counts.writes += 1;
            counts.longest_gap = counts.longest_gap.max(now.saturating_sub(counts.last_write));
            counts.last_write = now;
        }
    }

    /// Counts the time since the last write as a gap too: the load is over.
    pub(super) fn close_gap(&self) {
        let mut counts = self.counts.borrow_mut();
        counts.longest_gap = counts.longest_gap.max(self.start.elapsed().saturating_sub(counts.last_write));
    }

    /// Whether the file cannot be written.
    pub(super) fn has_failed(&self) -> bool {
        self.failure.borrow().is_some()
    }

    /// Closes the file.
    pub(super) fn finish(self) -> io::Result<Counts> {
        if let Some(error) = self.failure.into_inner() {
            return Err(error);
        }
        self.writer.into_inner().finish()?;
        Ok(self.counts.into_inner())
    }
}
