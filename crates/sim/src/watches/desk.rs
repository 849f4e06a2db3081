//! The host of the watches of one node: its hub, and the changes on their way there.
//!
//! Invariant: as in the server, a step of the state machine is kept for the hub only while somebody watches, what waits
//! for it is bounded, and the hub sees the gap when something was lost.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use base::Revision;
use mvcc::{Change, EventBudget};
use node::watch::{Config, Hub, StreamId};

use crate::random::{between, pick, stream};

/// One step of the state machine.
pub(crate) struct Step {
    pub(crate) before: Revision,
    pub(crate) after: Revision,
    /// What happened in between, if it was kept.
    pub(crate) changes: Option<Vec<Arc<Change>>>,
}

/// A client's stream, as the host sees it.
pub(crate) struct Line {
    pub(crate) client: usize,
    /// The next response is being made.
    pub(crate) is_pumping: bool,
    /// When the last response arrives: they do not overtake each other.
    pub(crate) arrives_at: u64,
}

/// See the module.
pub(crate) struct Desk {
    pub(crate) hub: Hub,
    is_wanted: bool,
    pub(crate) mail: VecDeque<Step>,
    mail_max: usize,
    pub(crate) lines: BTreeMap<StreamId, Line>,
    /// World time of the hub's next tick.
    pub(crate) tick_at: u64,
}

impl Desk {
    /// Small enough in everything that the slow ways are taken often.
    pub(crate) fn new(seed: u64) -> Self {
        let mut prng = stream(seed, 21);
        let config = Config {
            progress_interval: Duration::from_millis(between(&mut prng, 300, 5000)),
            watchers_per_stream_max: 100,
            recent_bytes_max: *pick(&mut prng, &[1_000, 20_000, 500_000]),
            pending_max: *pick(&mut prng, &[1, 4, 1000]),
            budget: EventBudget {
                events_max: *pick(&mut prng, &[4, 16, 1000]),
                bytes_max: *pick(&mut prng, &[500, 10_000, 1_000_000]),
            },
            seed,
        };
        let mail_max = *pick(&mut prng, &[2, 8, 1000]);
        let (mail, lines) = (VecDeque::new(), BTreeMap::new());
        Self { hub: Hub::new(config), is_wanted: false, mail, mail_max, lines, tick_at: u64::MAX }
    }

    /// Whether anybody wants to know what the next commands change.
    pub(crate) fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// From now on every step is kept; said before the look at the state from which a watch starts.
    pub(crate) fn want(&mut self) {
        self.is_wanted = true;
    }

    /// Nobody watches any more: nothing is kept.
    pub(crate) fn rest(&mut self) {
        if self.hub.counts().watchers == 0 {
            self.is_wanted = false;
            self.mail.clear();
        }
    }

    /// The engine shows a new state. Whether something is on its way now.
    pub(crate) fn publish(&mut self, before: Revision, after: Revision, changes: Option<Vec<Change>>) -> bool {
        if !self.is_wanted || before == after {
            return false;
        }
        let changes = changes.map(|changes| changes.into_iter().map(Arc::new).collect());
        self.mail.push_back(Step { before, after, changes });
        if self.mail.len() > self.mail_max {
            self.mail.pop_front();
        }
        true
    }
}
