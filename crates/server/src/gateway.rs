//! From a decoded request to its answer: admission, the node's word, the read. Every service goes through here.

use std::sync::Arc;
use std::time::Duration;

use base::limits::{ANSWER_BYTES_MAX, ANSWERS_BYTES_MAX};
use base::{GroupId, LeaseId, Revision};
use bytes::Bytes;
use mvcc::{
    Command, Engine, Limits, Op, OpResult, Outcome, OutcomeResult, RangeRequest, RangeResponse, RangeStream, ReadError,
    StateHash, Txn, View,
};
use node::{LeaseAsk, LeaseTimes, Reconfiguration, Request, Response, Uncertainty};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use crate::admission::Admission;
use crate::corruption::refuse_if_corrupt;
use crate::errors;
use crate::fence::Fences;
use crate::grpc::LeaseIds;
use crate::host::maintenance::Upkeep;
use crate::lane::{Answer, Lane};
use crate::members::Directory;
use crate::metrics::Metrics;
use crate::space::Space;
use crate::standing::StandingCell;
use crate::waits::KeyWaits;
use crate::watch::{Desk, Feed};

/// The one group of this version.
pub(crate) const GROUP: GroupId = GroupId(0);

/// A read that returns no more than this is done on the client thread; a larger one goes to a thread of its own, so
/// that it holds up nobody else.
const INLINE_READ_BYTES: usize = 64 * 1024;
/// Large reads under way at a time, per node.
const LARGE_READS_MAX: usize = 4;
/// An answer larger than this counts against the budget of answers until the client has taken it.
const SMALL_ANSWER_BYTES: usize = 1024 * 1024;
/// How long a large read, or a large answer, waits for its place.
const PLACE_TIMEOUT: Duration = Duration::from_secs(5);

/// What all client threads of a node share.
pub(crate) struct Context {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) standing: Arc<StandingCell>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) limits: Limits,
    pub(crate) max_request_bytes: usize,
    pub(crate) space: Arc<Space>,
    pub(crate) upkeep: Arc<Upkeep>,
    pub(crate) admission: Admission,
    pub(crate) lease_ids: LeaseIds,
    pub(crate) lease_ttl_min_s: i64,
    pub(crate) election_timeout: Duration,
    pub(crate) key_waits: Arc<KeyWaits>,
    pub(crate) large_reads: Arc<Semaphore>,
    /// Pages of history being read for watches.
    pub(crate) history_reads: Arc<Semaphore>,
    pub(crate) feed: Arc<Feed>,
    /// In units of [`SMALL_ANSWER_BYTES`].
    pub(crate) large_answers: Arc<Semaphore>,
}

impl Context {
    pub(crate) fn large_reads() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(LARGE_READS_MAX))
    }

    pub(crate) fn large_answers() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(ANSWERS_BYTES_MAX / SMALL_ANSWER_BYTES))
    }
}

/// Keeps a large answer's place until the client has taken it (or is gone).
#[derive(Clone)]
pub(crate) struct AnswerPermit(#[expect(dead_code, reason = "held, not used")] Arc<OwnedSemaphorePermit>);

/// A range answer, with the permit it must hold if it is large.
pub(crate) struct Ranged {
    pub(crate) response: RangeResponse,
    pub(crate) permit: Option<AnswerPermit>,
}

/// One client thread's way to the node.
#[derive(Clone)]
pub(crate) struct Gateway {
    pub(crate) lane: Arc<Lane>,
    pub(crate) desk: Arc<Desk>,
    pub(crate) context: Arc<Context>,
}

impl Gateway {
    /// The answer to a request; `None` if the node stopped with the request in its hands.
    async fn ask(&self, request: Request) -> Result<Option<Answer>, Status> {
        if self.context.standing.is_learner() {
            return Err(errors::learner());
        }
        let _admitted = self.context.admission.admit(&request).ok_or_else(errors::overloaded)?;
        Ok(self.lane.ask(request).answer().await)
    }

    /// Replicates and applies a command.
    pub(crate) async fn propose(&self, command: &Command) -> Result<(Revision, OutcomeResult), Status> {
        command.validate(&self.context.limits).map_err(errors::rejected)?;
        self.propose_valid(command).await
    }

    async fn propose_valid(&self, command: &Command) -> Result<(Revision, OutcomeResult), Status> {
        // What puts things right goes on: members are replaced, alarms cleared.
        if !matches!(command, Command::Alarm(_) | Command::Member(_)) {
            refuse_if_corrupt(self)?;
        }
        let payload = command.encode();
        if payload.len() > self.context.max_request_bytes {
            return Err(errors::too_large());
        }
        self.context.space.admit(command).map_err(errors::rejected)?;
        let Some(answer) = self.ask(Request::Propose { group: GROUP, payload }).await? else {
            // It may have been proposed before the node stopped.
            return Err(errors::refused(&Response::Unknown(Uncertainty::LeaderFailed)));
        };
        let outcome = match answer {
            Answer::Applied(outcome) => outcome,
            Answer::Node(response) => {
                self.context.metrics.proposals_failed.add(1);
                return Err(errors::refused(&response));
            }
        };
        match outcome.result {
            OutcomeResult::Rejected(reject) => Err(errors::rejected(reject)),
            OutcomeResult::AnswerTooLarge => Err(errors::answer_dropped(outcome.revision)),
            result => Ok((outcome.revision, result)),
        }
    }

    /// Returns when the local state contains everything acknowledged, anywhere, before the call.
    pub(crate) async fn read_point(&self) -> Result<(), Status> {
        match self.ask(Request::Read { group: GROUP }).await?.ok_or_else(errors::stopped)? {
            Answer::Node(Response::ReadReady) => Ok(()),
            Answer::Node(response) => Err(errors::refused(&response)),
            Answer::Applied(_) => Err(Status::internal("a read was answered like a write")),
        }
    }

    /// Waits until a read may be answered here. A serializable one may at once, unless it asks for a `revision` that
    /// this node has not reached: who asks has heard of it from another member, and to refuse what exists is wrong.
    pub(crate) async fn readable(&self, serializable: bool, revision: Revision) -> Result<(), Status> {
        refuse_if_corrupt(self)?;
        if !serializable {
            return self.read_point().await;
        }
        if revision.0 > 0 {
            let here = mvcc::state(&*self.context.engine.view()).map_err(|fault| errors::fault(&fault))?.revision;
            if revision > here {
                // Without a leader to ask, the answer is the one from what is here: that it is in the future.
                drop(self.read_point().await);
            }
        }
        Ok(())
    }

    /// Asks the leader's clock about a lease.
    pub(crate) async fn lease(&self, lease: LeaseId, ask: LeaseAsk) -> Result<Option<LeaseTimes>, Status> {
        let request = Request::Lease { group: GROUP, lease, ask };
        match self.ask(request).await?.ok_or_else(errors::stopped)? {
            Answer::Node(Response::Lease(times)) => Ok(times),
            Answer::Node(response) => Err(errors::refused(&response)),
            Answer::Applied(_) => Err(Status::internal("a question about a lease was answered like a write")),
        }
    }

    /// The keys attached to a lease, if it exists, and the revision at which they are.
    pub(crate) async fn attached(&self, id: LeaseId) -> Result<(Revision, Option<Vec<Bytes>>), Status> {
        self.read_point().await?;
        let read = move |view: &dyn View| {
            let keys = match mvcc::lease(view, id)? {
                Some(_) => Some(mvcc::attached(view, id, ANSWER_BYTES_MAX)?),
                None => None,
            };
            Ok((mvcc::state(view)?.revision, keys))
        };
        let (revision, keys) = self.read_apart(read).await?.map_err(|fault| errors::fault(&fault))?;
        match keys {
            Some(None) => Err(errors::answer_too_large()),
            Some(keys) => Ok((revision, keys)),
            None => Ok((revision, None)),
        }
    }

    /// Runs a put, delete or transaction only if all `fences` hold; the answer is that of the operation alone.
    pub(crate) async fn guarded(&self, op: Op, fences: &Fences) -> Result<(Revision, OpResult), Status> {
        // Checked as if it stood alone: what is put around it must not cost the client anything of its limits.
        let alone = match op {
            Op::Txn(txn) => txn,
            single => Txn { success: vec![single], ..Txn::default() },
        };
        let command = Command::Txn(alone);
        command.validate(&self.context.limits).map_err(errors::rejected)?;
        let Command::Txn(alone) = command else { unreachable!("made above") };
        let guarded = fences.guard(Op::Txn(alone));
        guarded.validate(&Limits { txn_ops_max: usize::MAX }).map_err(errors::rejected)?;
        let (revision, mut result) = if guarded.is_read_only() {
            self.read_valid_txn(guarded).await?
        } else {
            match self.propose_valid(&Command::Txn(guarded)).await? {
                (revision, OutcomeResult::Txn(result)) => (revision, result),
                _ => return Err(Status::internal("a transaction was answered like something else")),
            }
        };
        if !result.succeeded {
            return Err(fences.lost());
        }
        let inner = result.responses.pop().ok_or_else(|| Status::internal("a guarded request was not answered"))?;
        Ok((revision, inner.result))
    }

    /// Changes who belongs to the group; returns when the change has begun.
    pub(crate) async fn reconfigure(&self, change: Reconfiguration) -> Result<(), Response> {
        let request = Request::Reconfigure { group: GROUP, change };
        match self.ask(request).await {
            Ok(Some(Answer::Node(Response::Done))) => Ok(()),
            Ok(Some(Answer::Node(response))) => Err(response),
            Ok(Some(Answer::Applied(_)) | None) | Err(_) => Err(Response::TimedOut),
        }
    }

    /// Hashes the state at a revision; 0 or less is the latest. Reads everything.
    pub(crate) async fn hash(&self, revision: Revision) -> Result<StateHash, Status> {
        self.read_apart(move |view| mvcc::hash(view, revision)).await?.map_err(|error| read_error(&error))
    }

    /// Hands leadership to the given node, or to whoever is best at it.
    pub(crate) async fn move_leader(&self, to: Option<base::NodeId>) -> Result<(), Status> {
        match self.ask(Request::TransferLeadership { group: GROUP, to }).await?.ok_or_else(errors::stopped)? {
            Answer::Node(Response::Done) => Ok(()),
            Answer::Node(response) => Err(errors::refused(&response)),
            Answer::Applied(_) => Err(Status::internal("a transfer was answered like a write")),
        }
    }

    /// Reads a range, linearizable unless it asks for less.
    pub(crate) async fn range(&self, request: RangeRequest) -> Result<Ranged, Status> {
        request.validate().map_err(errors::rejected)?;
        self.readable(request.serializable, request.revision).await?;
        if is_cheap(&request) {
            let view = self.context.engine.view();
            let (response, rest) =
                mvcc::range_within(&*view, &request, INLINE_READ_BYTES).map_err(|e| read_error(&e))?;
            if rest.is_none() {
                return Ok(Ranged { response, permit: None });
            }
        }
        self.large_range(request).await
    }

    /// A read that may take long or return much: on a thread of its own, a few at a time.
    pub(crate) async fn read_apart<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn View) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let place = place_of(&self.context.large_reads, 1).await?;
        let engine = Arc::clone(&self.context.engine);
        let read = move || {
            let found = read(&*engine.view());
            // Held by the read itself: a client that goes away does not make room for another read beside it.
            drop(place);
            found
        };
        tokio::task::spawn_blocking(read).await.map_err(|_| errors::stopped())
    }

    async fn large_range(&self, request: RangeRequest) -> Result<Ranged, Status> {
        let read = move |view: &dyn View| mvcc::range_whole(view, &request, ANSWER_BYTES_MAX);
        let response = self.read_apart(read).await?;
        let response = response.map_err(|error| read_error(&error))?.ok_or_else(errors::answer_too_large)?;
        let bytes: usize = response.result.kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum();
        let permit = self.permit(bytes).await?;
        Ok(Ranged { response, permit })
    }

    /// The permit that an answer of so many bytes must hold.
    pub(crate) async fn permit(&self, bytes: usize) -> Result<Option<AnswerPermit>, Status> {
        match u32::try_from(bytes / SMALL_ANSWER_BYTES).unwrap_or(u32::MAX) {
            0 => Ok(None),
            units => Ok(Some(AnswerPermit(Arc::new(place_of(&self.context.large_answers, units).await?)))),
        }
    }

    async fn large_txn(&self, txn: Txn) -> Result<Outcome, Status> {
        let outcome = self.read_apart(move |view| mvcc::read_txn(view, &txn, ANSWER_BYTES_MAX)).await?;
        outcome.map_err(|fault| errors::fault(&fault))
    }

    /// A transaction: through the log if it may write, else as a read.
    pub(crate) async fn txn(&self, txn: Txn) -> Result<(Revision, mvcc::TxnResult), Status> {
        if !txn.is_read_only() {
            return match self.propose(&Command::Txn(txn)).await? {
                (revision, OutcomeResult::Txn(result)) => Ok((revision, result)),
                _ => Err(Status::internal("a transaction was answered like something else")),
            };
        }
        let command = Command::Txn(txn);
        command.validate(&self.context.limits).map_err(errors::rejected)?;
        let Command::Txn(txn) = command else { unreachable!("made above") };
        self.read_valid_txn(txn).await
    }

    /// A read-only transaction that passed the checks.
    async fn read_valid_txn(&self, txn: Txn) -> Result<(Revision, mvcc::TxnResult), Status> {
        // etcd answers a transaction without operations from possibly stale state; ours reads fresh state.
        self.readable(is_serializable(&txn), latest_asked_for(&txn)).await?;
        let mut outcome = None;
        if reads_are_cheap(&txn) {
            let view = self.context.engine.view();
            let found = mvcc::read_txn(&*view, &txn, INLINE_READ_BYTES).map_err(|fault| errors::fault(&fault))?;
            outcome = (found.result != OutcomeResult::AnswerTooLarge).then_some(found);
        }
        let outcome = match outcome {
            Some(outcome) => outcome,
            None => self.large_txn(txn).await?,
        };
        match outcome.result {
            OutcomeResult::Txn(result) => Ok((outcome.revision, result)),
            OutcomeResult::AnswerTooLarge => Err(errors::answer_too_large()),
            OutcomeResult::Rejected(reject) => Err(errors::rejected(reject)),
            _ => Err(Status::internal("a transaction was answered like something else")),
        }
    }
}

/// Waits for a place, but not for ever: others may hold theirs as long as their clients like.
pub(crate) async fn place_of(places: &Arc<Semaphore>, units: u32) -> Result<OwnedSemaphorePermit, Status> {
    match tokio::time::timeout(PLACE_TIMEOUT, Arc::clone(places).acquire_many_owned(units)).await {
        Ok(Ok(place)) => Ok(place),
        Ok(Err(_)) => Err(errors::stopped()),
        Err(_) => Err(errors::overloaded()),
    }
}

/// Whether the read ends soon: it stops at [`INLINE_READ_BYTES`] wherever it is. Counting, filtering and sorting visit
/// the whole range, and a limit needs the count of it.
fn is_cheap(request: &RangeRequest) -> bool {
    request.range_end.is_empty() || (request.limit <= 0 && !request.count_only && RangeStream::supports(request))
}

/// Whether a read-only transaction ends soon, see [`is_cheap`]; compares over ranges may read everything.
fn reads_are_cheap(txn: &Txn) -> bool {
    txn.compares.iter().all(|compare| compare.range_end.is_empty())
        && txn.success.iter().chain(&txn.failure).all(|op| match op {
            Op::Range(range) => is_cheap(range),
            Op::Txn(inner) => reads_are_cheap(inner),
            Op::Put(_) | Op::DeleteRange(_) | Op::Empty => true,
        })
}

/// The highest revision that a read-only transaction asks for; 0 if it asks for none.
fn latest_asked_for(txn: &Txn) -> Revision {
    let ops = txn.success.iter().chain(&txn.failure);
    let asked = ops.filter_map(|op| match op {
        Op::Range(range) => Some(range.revision),
        Op::Txn(inner) => Some(latest_asked_for(inner)),
        Op::Put(_) | Op::DeleteRange(_) | Op::Empty => None,
    });
    asked.max().unwrap_or_default()
}

/// Whether every operation of a read-only transaction accepts stale state, and there is one.
fn is_serializable(txn: &Txn) -> bool {
    let mut ops = txn.success.iter().chain(&txn.failure).peekable();
    ops.peek().is_some() && ops.all(|op| matches!(op, Op::Range(range) if range.serializable))
}

pub(crate) fn read_error(error: &ReadError) -> Status {
    match error {
        ReadError::Reject(reject) => errors::rejected(*reject),
        ReadError::Fault(fault) => errors::fault(fault),
    }
}
