//! One client's stream of watches: requests in, responses out, at the client's pace.
//!
//! Invariant: it does something only when the connection asks for more, which it does when the client has room. What is
//! made and not yet sent is one response, and its pieces if it was split.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use api::etcdserverpb as pb;
use api::etcdserverpb::watch_request::RequestUnion;
use base::{Fault, Revision, limits};
use mvcc::{EventPage, ReadError, Reject};
use node::watch::{Next, PageRead, ResponseKind, StreamId, WatcherId};
use tokio_stream::Stream;
use tonic::{Status, Streaming};

use super::desk::{Desk, End};
use crate::gateway::Gateway;
use crate::{convert, errors, grpc};

/// Requests and reads dealt with in one go; then others have their turn.
const ROUNDS_MAX: usize = 64;

/// A page, or the floor below which it is gone.
type Page = Result<EventPage, Revision>;
/// A page on its way to a watch.
type PendingPage = Pin<Box<dyn Future<Output = (WatcherId, Result<Page, Status>)> + Send>>;

/// A client's stream.
pub(crate) struct WatchStream {
    gateway: Arc<Gateway>,
    desk: Arc<Desk>,
    stream: StreamId,
    requests: Streaming<pb::WatchRequest>,
    /// The client will ask for nothing more, but still listens.
    is_silent: bool,
    needs_leader: bool,
    read: Option<PendingPage>,
    pieces: VecDeque<pb::WatchResponse>,
    has_ended: bool,
}

impl WatchStream {
    /// Opens a stream. With `needs_leader` it ends when this node knows no leader.
    pub(crate) fn open(
        gateway: Arc<Gateway>,
        requests: Streaming<pb::WatchRequest>,
        needs_leader: bool,
    ) -> Result<Self, Status> {
        if needs_leader && gateway.context.standing.look(|status| status.leader.is_none()) {
            return Err(errors::no_leader());
        }
        let desk = Arc::clone(&gateway.desk);
        let stream = desk.open().ok_or_else(errors::too_many_watch_streams)?;
        Ok(Self {
            gateway,
            desk,
            stream,
            requests,
            is_silent: false,
            needs_leader,
            read: None,
            pieces: VecDeque::new(),
            has_ended: false,
        })
    }

    /// Takes one request, if the client has one and its earlier ones are answered. Returns whether it did.
    fn poll_request(&mut self, task: &mut Context<'_>) -> Result<bool, Status> {
        if self.is_silent || !self.desk.has_room(self.stream) {
            return Ok(false);
        }
        match Pin::new(&mut self.requests).poll_next(task) {
            Poll::Ready(Some(request)) => self.handle(request?).map(|()| true),
            Poll::Ready(None) => {
                self.is_silent = true;
                Ok(true)
            }
            Poll::Pending => Ok(false),
        }
    }

    fn handle(&self, request: pb::WatchRequest) -> Result<(), Status> {
        let engine = &*self.gateway.context.engine;
        let state = || mvcc::state(&*engine.view());
        let handled = match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => {
                self.desk.create(self.stream, &convert::watch_create(&create), engine)
            }
            Some(RequestUnion::CancelRequest(cancel)) => {
                state().map(|state| self.desk.cancel(self.stream, cancel.watch_id, &state))
            }
            Some(RequestUnion::ProgressRequest(_)) => state().map(|state| self.desk.progress(self.stream, &state)),
            // A kind of request from a later version: etcd goes on, too.
            None => Ok(()),
        };
        handled.map_err(|fault| errors::fault(&fault))
    }

    /// Brings a page of history to the hub, if one was asked for and is there. Returns whether it did.
    fn poll_read(&mut self, task: &mut Context<'_>) -> Result<bool, Status> {
        let Some(read) = &mut self.read else { return Ok(false) };
        let Poll::Ready((watcher, page)) = read.as_mut().poll(task) else { return Ok(false) };
        self.read = None;
        self.desk.page(self.stream, watcher, page?);
        Ok(true)
    }

    fn start_read(&mut self, read: PageRead) {
        let context = Arc::clone(&self.gateway.context);
        context.metrics.watch_history_reads.add(1);
        self.read = Some(Box::pin(async move {
            let watcher = read.watcher;
            let Ok(place) = Arc::clone(&context.history_reads).acquire_owned().await else {
                return (watcher, Err(errors::stopped()));
            };
            let page = tokio::task::spawn_blocking(move || {
                let page = read_page(&*context.engine, &read);
                // Held by the read itself: a client that goes away does not make room for another read beside it.
                drop(place);
                page.map_err(|fault| errors::fault(&fault))
            });
            (watcher, page.await.unwrap_or_else(|_| Err(errors::stopped())))
        }));
    }

    /// The next response, if there is one and nothing ends the stream.
    fn poll(&mut self, task: &mut Context<'_>) -> Poll<Result<pb::WatchResponse, Status>> {
        for _ in 0..ROUNDS_MAX {
            if let Some(piece) = self.pieces.pop_front() {
                return Poll::Ready(Ok(piece));
            }
            match self.desk.end(self.needs_leader) {
                Some(End::Stopping) => return Poll::Ready(Err(errors::stopped())),
                Some(End::Leaderless) => return Poll::Ready(Err(errors::no_leader())),
                None => {}
            }
            let asked = self.poll_request(task)?;
            let read = self.poll_read(task)?;
            match self.desk.next(self.stream, task.waker()) {
                Next::Response(response) => {
                    let may_split = matches!(response.kind, ResponseKind::Events { fragment: true, .. });
                    let header = grpc::header(&self.gateway.context, response.revision);
                    let response = convert::watch_response(header, response);
                    if may_split {
                        let bytes_max = self.gateway.context.max_request_bytes + limits::GRPC_OVERHEAD_BYTES;
                        self.pieces = convert::fragments(response, bytes_max);
                    } else {
                        return Poll::Ready(Ok(response));
                    }
                }
                Next::Read(read) => self.start_read(read),
                Next::Yield => break,
                // What was just taken in may have an answer, or the next request may be there already.
                Next::Wait if asked || read => {}
                Next::Wait => return Poll::Pending,
            }
        }
        task.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Stream for WatchStream {
    type Item = Result<pb::WatchResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        self.poll(task).map(|response| {
            self.has_ended = response.is_err();
            Some(response)
        })
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        self.desk.close(self.stream);
    }
}

/// Reads a page, or finds the floor below which it is gone.
fn read_page(engine: &dyn mvcc::Engine, read: &PageRead) -> Result<Page, Fault> {
    let view = engine.view();
    match mvcc::events(&*view, &read.query, read.budget) {
        Ok(page) => Ok(Ok(page)),
        Err(ReadError::Fault(fault)) => Err(fault),
        Err(ReadError::Reject(Reject::Compacted)) => Ok(Err(mvcc::state(&*view)?.compacted)),
        Err(ReadError::Reject(reject)) => panic!("history from {} was refused: {reject}", read.query.from),
    }
}
