//! The host of the watches: a hub per client thread, fed by the apply thread.
//!
//! ```text
//! apply thread ── Feed::publish ──► mail ──► Desk::run ──► Hub ──► wakes streams
//!                                          (client thread)  ▲
//!                            WatchStream::poll_next ────────┘   when its client has room
//! ```
//! Invariant: the apply thread hands over what it applied and goes on, whoever watches and however slowly: the mail is
//! bounded, and a hub that lost mail knows it and reads history instead.

mod desk;
mod feed;
mod stream;

pub(crate) use desk::Desk;
pub(crate) use feed::{Feed, Quota};
pub(crate) use stream::WatchStream;
