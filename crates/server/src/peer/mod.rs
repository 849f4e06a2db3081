//! Talking to the other nodes: framed, checksummed messages over TCP, one connection per direction.
//!
//! Invariant: the node thread never waits for a peer. What does not fit a peer's bounded queue is dropped; the protocol
//! repeats it. Any malformed byte ends the connection it came on, and nothing else.

pub(crate) mod frame;
pub(crate) mod hello;
pub(crate) mod join;
pub(crate) mod transport;
