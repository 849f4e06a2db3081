//! Watches that outlive their connection.
//!
//! Invariant: a watch is asked for again at the revision behind the last one it was told of. Responses hold whole
//! revisions, so nothing is left out and nothing comes twice, whichever endpoint answers.

use std::io::Write;
use std::time::Duration;

use api::etcdserverpb::watch_request::RequestUnion;
use api::etcdserverpb::{WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::client::{Client, Trouble, describe};
use super::{Failure, Settings};

/// Requests that may wait for the connection.
const REQUESTS_AHEAD: usize = 1024;
/// Pause between two rounds over all endpoints.
const ROUND_PAUSE: Duration = Duration::from_millis(200);

/// Watches at one of several endpoints.
pub(super) struct Follower {
    client: Client,
    endpoints: Vec<String>,
    /// The endpoint to be asked next.
    at: usize,
    dial_timeout: Duration,
    /// By number; on the wire the number is one higher. Each stands as it would be asked for again.
    watches: Vec<Option<WatchCreateRequest>>,
    connection: Option<Connection>,
    was_connected: bool,
}

struct Connection {
    requests: mpsc::Sender<WatchRequest>,
    responses: Streaming<WatchResponse>,
    endpoint: String,
}

/// What a watch says.
pub(super) struct Followed {
    /// Which one; none if it concerns all.
    pub(super) number: Option<usize>,
    /// Events, progress or the end.
    pub(super) response: WatchResponse,
}

impl Follower {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            client: Client::new(settings),
            endpoints: settings.endpoints.clone(),
            at: 0,
            dial_timeout: settings.dial_timeout,
            watches: Vec::new(),
            connection: None,
            was_connected: false,
        }
    }

    /// Adds a watch. The first one has number 0.
    pub(super) fn watch(&mut self, create: WatchCreateRequest) {
        let create = WatchCreateRequest { watch_id: self.watches.len() as i64 + 1, ..create };
        self.send(RequestUnion::CreateRequest(create.clone()));
        self.watches.push(Some(create));
    }

    /// Asks how far all watches are; the answer comes like any other.
    pub(super) fn ask_progress(&mut self) {
        self.send(RequestUnion::ProgressRequest(WatchProgressRequest {}));
    }

    fn send(&mut self, request: RequestUnion) {
        let request = WatchRequest { request_union: Some(request) };
        let sent = self.connection.as_ref().map(|connection| connection.requests.try_send(request));
        if matches!(sent, Some(Err(_))) {
            // Asked for again with the next connection.
            self.connection = None;
        }
    }

    /// The next thing that a watch says. May be dropped and called again.
    pub(super) async fn next(&mut self, err: &mut dyn Write) -> Result<Followed, Failure> {
        loop {
            if self.watches.iter().all(Option::is_none) {
                // Nothing to wait for, until somebody adds a watch.
                std::future::pending::<()>().await;
            }
            if self.connection.is_none() {
                self.connect(err).await?;
            }
            let Some(connection) = &mut self.connection else { continue };
            let lost = match connection.responses.message().await {
                Ok(Some(response)) => match self.take(response) {
                    Some(followed) => return Ok(followed),
                    None => continue,
                },
                Ok(None) => Status::unavailable("the stream ended"),
                Err(status) => status,
            };
            let endpoint = connection.endpoint.clone();
            self.connection = None;
            if is_final(&lost) {
                return Err(Failure::Request(describe(&lost)));
            }
            writeln!(err, "lost {endpoint} ({}), going on elsewhere", describe(&lost))?;
        }
    }

    /// Takes note of what a response says about its watch. Creations are nobody's business.
    fn take(&mut self, response: WatchResponse) -> Option<Followed> {
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        let last = response.events.last().and_then(|event| event.kv.as_ref()).map(|kv| kv.mod_revision);
        if response.watch_id < 0 && !response.canceled {
            for watch in self.watches.iter_mut().flatten() {
                watch.start_revision = watch.start_revision.max(revision + 1);
            }
            return Some(Followed { number: None, response });
        }
        // A refused creation bears no number; creations are answered in order, and an accepted one is no longer asked.
        let number =
            usize::try_from(response.watch_id - 1).ok().or_else(|| self.watches.iter().position(Option::is_some));
        let watch = self.watches.get_mut(number?)?;
        if response.canceled {
            *watch = None;
            return Some(Followed { number, response });
        }
        let watch = watch.as_mut()?;
        if response.created {
            if watch.start_revision == 0 {
                watch.start_revision = revision + 1;
            }
            return None;
        }
        watch.start_revision = watch.start_revision.max(last.unwrap_or(revision) + 1);
        Some(Followed { number, response })
    }

    /// Goes round the endpoints until one takes the watches: within the dial timeout at first, for ever later.
    async fn connect(&mut self, err: &mut dyn Write) -> Result<(), Failure> {
        let give_up = Instant::now() + self.dial_timeout;
        loop {
            let mut troubles = Vec::new();
            for _ in 0..self.endpoints.len() {
                let endpoint = self.endpoints[self.at].clone();
                self.at = (self.at + 1) % self.endpoints.len();
                match self.attempt(&endpoint).await {
                    Ok(connection) => {
                        if self.was_connected {
                            writeln!(err, "going on at {endpoint}")?;
                        }
                        self.was_connected = true;
                        self.connection = Some(connection);
                        return Ok(());
                    }
                    Err(Trouble::Refused(status)) if is_final(&status) => {
                        return Err(Failure::Request(describe(&status)));
                    }
                    Err(Trouble::Refused(status)) => troubles.push(format!("{endpoint}: {}", describe(&status))),
                    Err(Trouble::Unreachable(reason)) => troubles.push(format!("{endpoint}: {reason}")),
                }
            }
            if !self.was_connected && Instant::now() + ROUND_PAUSE >= give_up {
                return Err(Failure::Request(format!("cannot connect ({})", troubles.join("; "))));
            }
            sleep(ROUND_PAUSE).await;
        }
    }

    async fn attempt(&self, endpoint: &str) -> Result<Connection, Trouble> {
        let (requests, outgoing) = mpsc::channel(REQUESTS_AHEAD.max(self.watches.len()));
        for create in self.watches.iter().flatten() {
            let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create.clone())) };
            requests.try_send(request).expect("the channel has room for all watches");
        }
        let responses = self.client.watch(endpoint, ReceiverStream::new(outgoing)).await?;
        Ok(Connection { requests, responses, endpoint: endpoint.to_owned() })
    }
}

/// Whether no other endpoint would say anything else.
fn is_final(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument | Code::Unimplemented | Code::PermissionDenied | Code::Unauthenticated | Code::DataLoss
    )
}

#[cfg(test)]
mod tests {
    use api::etcdserverpb::ResponseHeader;
    use api::mvccpb::{Event, KeyValue};

    use super::*;

    fn follower(watches: usize) -> Follower {
        let settings = <super::super::Globals as clap::FromArgMatches>::from_arg_matches(
            &<super::super::Globals as clap::Args>::augment_args(clap::Command::new("x")).get_matches_from(["x"]),
        );
        let mut follower = Follower::new(&settings.expect("flags").settings().expect("settings"));
        for _ in 0..watches {
            follower.watch(WatchCreateRequest::default());
        }
        follower
    }

    fn says(watch_id: i64, revision: i64, events: &[i64]) -> WatchResponse {
        let event = |revision: &i64| Event {
            kv: Some(KeyValue { mod_revision: *revision, ..Default::default() }),
            ..Default::default()
        };
        let header = Some(ResponseHeader { revision, ..Default::default() });
        WatchResponse { header, watch_id, events: events.iter().map(event).collect(), ..Default::default() }
    }

    fn starts(follower: &Follower) -> Vec<i64> {
        follower.watches.iter().flatten().map(|watch| watch.start_revision).collect()
    }

    #[test]
    fn each_watch_is_resumed_behind_what_it_was_told() {
        let mut follower = follower(2);
        assert!(follower.take(WatchResponse { created: true, ..says(1, 10, &[]) }).is_none());
        assert!(follower.take(WatchResponse { created: true, ..says(2, 12, &[]) }).is_none());
        assert_eq!(starts(&follower), [11, 13]);
        // Events of the past: the header is further than they are.
        assert_eq!(follower.take(says(1, 40, &[20, 21])).and_then(|followed| followed.number), Some(0));
        assert_eq!(starts(&follower), [22, 13]);
        assert_eq!(follower.take(says(-1, 30, &[])).map(|followed| followed.number), Some(None));
        assert_eq!(starts(&follower), [31, 31]);
        assert!(follower.take(WatchResponse { created: true, ..says(1, 50, &[]) }).is_none());
        assert_eq!(starts(&follower), [31, 31], "a resumed watch keeps its place");
        assert!(follower.take(WatchResponse { canceled: true, ..says(2, 0, &[]) }).is_some());
        assert_eq!(follower.watches.iter().flatten().count(), 1);
    }
}
