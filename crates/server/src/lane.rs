//! Where answers meet the requests that wait for them.
//!
//! A lane belongs to one client thread. Handlers on that thread open tickets; what they ask goes to the node together,
//! once all handlers that were ready had their say, and the node and apply threads hand answers over in batches. So a
//! thousand requests cost one wake-up of the node thread, and a thousand answers one of the client thread.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use node::{Event, Request, Response, Ticket};
use tokio::sync::{Notify, mpsc, oneshot};

/// What a handler gets back.
#[derive(Debug)]
pub(crate) enum Answer {
    /// From the node: routing, refusals, read points, outcomes computed on another node.
    Node(Response),
    /// From this node's own apply thread.
    Applied(mvcc::Outcome),
}

/// The answers of one turn for one lane.
pub(crate) type AnswerBatch = Vec<(Ticket, Answer)>;

/// Bits of a ticket that number the request; the rest name the lane.
const SEQUENCE_BITS: u32 = 48;

/// One client thread's open requests.
#[derive(Debug)]
pub(crate) struct Lane {
    number: u64,
    sequence: AtomicU64,
    waiting: Mutex<HashMap<Ticket, oneshot::Sender<Answer>>>,
    /// Requests that the node was not handed yet.
    asked: Mutex<Vec<Event>>,
    any_asked: Notify,
}

impl Lane {
    pub(crate) fn new(number: usize) -> Arc<Self> {
        Arc::new(Self {
            number: number as u64,
            sequence: AtomicU64::new(0),
            waiting: Mutex::default(),
            asked: Mutex::default(),
            any_asked: Notify::new(),
        })
    }

    /// A ticket and the place its answer will come to. Dropping the [`OpenTicket`] forgets the request.
    pub(crate) fn open(self: &Arc<Self>) -> OpenTicket {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) & ((1 << SEQUENCE_BITS) - 1);
        let ticket = Ticket((self.number << SEQUENCE_BITS) | sequence);
        let (sender, answer) = oneshot::channel();
        self.lock().insert(ticket, sender);
        OpenTicket { lane: Arc::clone(self), ticket, answer }
    }

    /// Asks the node, see [`Self::hand_over`].
    pub(crate) fn ask(self: &Arc<Self>, request: Request) -> OpenTicket {
        let open = self.open();
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.push(Event::Request(open.ticket, request));
        if asked.len() == 1 {
            self.any_asked.notify_one();
        }
        open
    }

    /// Hands what is asked to the node, until that is gone: then nobody is answered any more.
    pub(crate) async fn hand_over(self: Arc<Self>, node: mpsc::UnboundedSender<Vec<Event>>) {
        loop {
            self.any_asked.notified().await;
            // Handlers that are ready ask first.
            tokio::task::yield_now().await;
            let asked = std::mem::take(&mut *self.asked.lock().unwrap_or_else(PoisonError::into_inner));
            if node.send(asked).is_err() {
                self.lock().clear();
            }
        }
    }

    /// Delivers batches until the senders are gone.
    pub(crate) async fn deliver(self: Arc<Self>, mut batches: mpsc::UnboundedReceiver<AnswerBatch>) {
        while let Some(batch) = batches.recv().await {
            let mut waiting = self.lock();
            for (ticket, answer) in batch {
                if let Some(sender) = waiting.remove(&ticket) {
                    // The handler may have gone away with its client; then nobody wants the answer.
                    drop(sender.send(answer));
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Ticket, oneshot::Sender<Answer>>> {
        // A panic cannot leave the map half changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that waits for its answer.
#[derive(Debug)]
pub(crate) struct OpenTicket {
    lane: Arc<Lane>,
    pub(crate) ticket: Ticket,
    answer: oneshot::Receiver<Answer>,
}

impl OpenTicket {
    /// The answer; nothing if the node stopped first.
    pub(crate) async fn answer(mut self) -> Option<Answer> {
        (&mut self.answer).await.ok()
    }

    /// Waits outside of any runtime, no longer than `timeout`.
    pub(crate) fn wait(mut self, timeout: Duration) -> Option<Answer> {
        let until = Instant::now() + timeout;
        loop {
            match self.answer.try_recv() {
                Ok(answer) => return Some(answer),
                Err(oneshot::error::TryRecvError::Empty) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(_) => return None,
            }
        }
    }
}

impl Drop for OpenTicket {
    fn drop(&mut self) {
        self.lane.lock().remove(&self.ticket);
    }
}

/// Sorts answers by lane during a turn and hands each lane its batch at the end.
#[derive(Debug)]
pub(crate) struct Outbox {
    lanes: Vec<(mpsc::UnboundedSender<AnswerBatch>, AnswerBatch)>,
}

impl Outbox {
    pub(crate) fn new(lanes: &[mpsc::UnboundedSender<AnswerBatch>]) -> Self {
        Self { lanes: lanes.iter().map(|lane| (lane.clone(), Vec::new())).collect() }
    }

    pub(crate) fn push(&mut self, ticket: Ticket, answer: Answer) {
        let lane = (ticket.0 >> SEQUENCE_BITS) as usize;
        assert!(lane < self.lanes.len(), "ticket of an unknown lane {lane}");
        self.lanes[lane].1.push((ticket, answer));
    }

    pub(crate) fn flush(&mut self) {
        for (lane, batch) in &mut self.lanes {
            if !batch.is_empty() {
                // The lane is gone only while the process stops.
                drop(lane.send(std::mem::take(batch)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_reach_their_tickets_and_dropped_ones_are_forgotten() {
        let lane = Lane::new(1);
        let (sender, batches) = mpsc::unbounded_channel();
        let mut outbox = Outbox::new(&[mpsc::unbounded_channel().0, sender]);
        let kept = lane.open();
        let dropped = lane.open();
        outbox.push(dropped.ticket, Answer::Node(Response::Done));
        outbox.push(kept.ticket, Answer::Node(Response::ReadReady));
        drop(dropped);
        assert_eq!(lane.lock().len(), 1);
        outbox.flush();
        drop(outbox);
        let wait = tokio::spawn(kept.answer());
        Arc::clone(&lane).deliver(batches).await;
        assert!(matches!(wait.await.unwrap(), Some(Answer::Node(Response::ReadReady))));
        assert_eq!(lane.lock().len(), 0);
    }

    #[tokio::test]
    async fn what_is_asked_at_a_time_is_handed_over_at_once() {
        let lane = Lane::new(0);
        let (sender, mut node) = mpsc::unbounded_channel();
        tokio::spawn(Arc::clone(&lane).hand_over(sender));
        let request = || Request::Read { group: crate::gateway::GROUP };
        let handlers: Vec<_> = (0..5)
            .map(|_| {
                let lane = Arc::clone(&lane);
                tokio::spawn(async move { lane.ask(request()).answer().await })
            })
            .collect();
        assert_eq!(node.recv().await.expect("asked").len(), 5);
        drop(node);
        // The node is gone: who asks now, or waited, gets no answer.
        assert!(lane.ask(request()).answer().await.is_none());
        for handler in handlers {
            assert!(handler.await.expect("no panic").is_none());
        }
    }
}
