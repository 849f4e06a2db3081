//! The vocabulary every other crate speaks: identifiers, positions, time, codecs, limits.
//!
//! Nothing here performs IO, reads a clock or draws randomness; the crate sits on floor 0 and depends on no other
//! crate of the project.

pub mod codec;
pub mod fault;
pub mod ids;
pub mod limits;
pub mod planted;
pub mod prng;
pub mod synced;
pub mod time;

pub use codec::{DecodeError, Reader};
pub use fault::Fault;
pub use ids::{Ballot, ClusterId, GroupId, Index, LeaseId, Lsn, NodeId, ReplicaId, Revision};
pub use planted::Defect;
pub use prng::Prng;
pub use synced::Synced;
pub use time::Instant;
