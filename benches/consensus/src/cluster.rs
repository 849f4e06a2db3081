//! What is asked of every library, and what they share: the payloads, the network and the state machine.
//!
//! Invariant: all of them do the same work. Each payload is a fresh vector with its number in front; each of the three
//! state machines checks that it is handed every number once and in order.

use std::collections::VecDeque;

/// Replicas of a cluster; the first one leads.
pub const REPLICAS: usize = 3;
/// Bytes of a payload.
pub const PAYLOAD_BYTES: usize = 256;
/// Logs are trimmed each time this many entries came to them.
pub const TRIM_EVERY: u64 = 4096;
/// Entries that stay when a log is trimmed.
pub const TRIM_KEEPS: u64 = 256;

/// Three replicas of one library with an elected leader.
pub trait Cluster {
    /// Proposes at the leader.
    fn propose(&mut self, payload: Vec<u8>);
    /// Runs until the leader has handed out all that was proposed.
    fn drive(&mut self);
    /// Drops what is older than the last [`TRIM_KEEPS`] entries from the logs of all replicas.
    fn trim(&mut self);
    /// Runs until the followers have handed out everything as well. Returns how many payloads each replica handed out.
    fn settle(&mut self) -> [u64; REPLICAS];
}

/// The payload of number `number`.
pub fn payload(number: u64) -> Vec<u8> {
    let mut payload = vec![0; PAYLOAD_BYTES];
    payload[..8].copy_from_slice(&number.to_le_bytes());
    payload
}

/// A state machine: so many payloads were handed out.
#[derive(Default)]
pub struct Ledger {
    pub count: u64,
}

impl Ledger {
    /// Takes the next payload.
    pub fn take(&mut self, payload: &[u8]) {
        let number = payload.first_chunk().map(|head| u64::from_le_bytes(*head));
        assert!(number == Some(self.count), "payload {number:?} was handed out in the place of {}", self.count);
        assert!(payload.len() == PAYLOAD_BYTES, "a payload of {} bytes", payload.len());
        self.count += 1;
    }
}

/// Messages under way, as values. Nothing is lost and nothing overtakes.
pub struct Network<M> {
    inboxes: [VecDeque<M>; REPLICAS],
}

impl<M> Network<M> {
    pub fn new() -> Self {
        Self { inboxes: std::array::from_fn(|_| VecDeque::new()) }
    }

    /// Sends to the replica at `to`, counted from zero.
    pub fn send(&mut self, to: usize, message: M) {
        self.inboxes[to].push_back(message);
    }

    /// Whether messages wait for the replica at `to`.
    pub fn has_for(&self, to: usize) -> bool {
        !self.inboxes[to].is_empty()
    }

    /// The oldest of them.
    pub fn receive(&mut self, to: usize) -> M {
        self.inboxes[to].pop_front().expect("a message waits")
    }

    pub fn is_quiet(&self) -> bool {
        self.inboxes.iter().all(VecDeque::is_empty)
    }
}
