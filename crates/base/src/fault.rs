//! Errors that stop a node.

use thiserror::Error;

/// The node cannot go on. Returned to the host, which stops; never retried (a failed fsync above all: after it the
/// kernel's page cache no longer tells the truth). Answers to clients are not faults but values.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Fault {
    /// The disk said no: what was attempted, on which file, and the system's words.
    #[error("{operation} failed on {path}: {cause}")]
    Io {
        /// What was attempted: `fdatasync`, `write`, `rename` ...
        operation: &'static str,
        /// The file or directory.
        path: String,
        /// The operating system's message.
        cause: String,
    },
    /// Stored bytes are not what was written there.
    #[error("damaged data in {place}: {detail}")]
    Corrupt {
        /// File and offset, or the row.
        place: String,
        /// What does not hold.
        detail: String,
    },
    /// The node's own configuration or identity does not allow it to run.
    #[error("{0}")]
    Refused(String),
}
