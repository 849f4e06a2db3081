//! `lease`: make leases, keep them, look at them, end them.

use api::etcdserverpb::lease_client::LeaseClient;
use api::etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse};
use clap::{Args, Subcommand};
use tokio::sync::mpsc;
use tokio::time::{Duration, sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::client::{Client, describe};
use super::kv::parse_hex;
use super::{Failure, Settings, Streams};
use crate::print::{Answer, Format};

/// Arguments of `lease`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sinew lease grant 60                     prints the id of a lease that lives 60 seconds
  sinew put --lease=ID service/a 10.0.0.1
  sinew lease keep-alive ID                renews it until stopped
  sinew lease timetolive --keys ID
  sinew lease revoke ID                    ends it and deletes its keys")]
pub(crate) struct LeaseArgs {
    #[command(subcommand)]
    verb: LeaseVerb,
}

#[derive(Debug, Subcommand)]
enum LeaseVerb {
    /// Make a lease that lives so many seconds without a renewal
    Grant {
        /// Seconds
        #[arg(allow_hyphen_values = true)]
        ttl: String,
    },
    /// End a lease: its keys are deleted, at one revision
    Revoke {
        /// The lease, in hexadecimal
        id: String,
    },
    /// How long a lease still lives, and which keys hang on it
    Timetolive {
        /// The lease, in hexadecimal
        id: String,
        /// Also print the keys
        #[arg(long)]
        keys: bool,
    },
    /// All leases, as the asked member knows them
    List,
    /// Renew a lease until stopped
    KeepAlive {
        /// The lease, in hexadecimal
        id: String,
        /// Renew it once
        #[arg(long)]
        once: bool,
    },
}

/// Renewals come three to a lifetime, so that two may fail.
const RENEWALS_PER_TTL: u32 = 3;

fn lease_id(text: &str) -> Result<i64, Failure> {
    parse_hex(text).ok_or_else(|| Failure::Usage(format!("bad lease ID '{text}', expecting ID in Hex")))
}

/// Runs `lease`.
pub(super) async fn run(arguments: &LeaseArgs, settings: &Settings, streams: &mut Streams<'_>) -> Result<(), Failure> {
    let client = Client::new(settings);
    let answer = match &arguments.verb {
        LeaseVerb::Grant { ttl } => {
            let ttl = ttl.parse().map_err(|_| Failure::Usage(format!("bad TTL '{ttl}', expecting seconds")))?;
            Answer::LeaseGrant(client.lease_grant(ttl).await.map_err(|failure| failed("grant", failure))?)
        }
        LeaseVerb::Revoke { id } => {
            let id = lease_id(id)?;
            Answer::LeaseRevoke(id, client.lease_revoke(id).await.map_err(|failure| failed("revoke", failure))?)
        }
        LeaseVerb::Timetolive { id, keys } => {
            Answer::LeaseTimeToLive(client.lease_time_to_live(lease_id(id)?, *keys).await?, *keys)
        }
        LeaseVerb::List => Answer::Leases(client.leases().await?),
        LeaseVerb::KeepAlive { id, once } => return keep_alive(&client, lease_id(id)?, *once, settings, streams).await,
    };
    streams.show(&answer, settings)
}

async fn keep_alive(
    client: &Client,
    id: i64,
    once: bool,
    settings: &Settings,
    streams: &mut Streams<'_>,
) -> Result<(), Failure> {
    let mut renewals = Renewals::open(client, id).await?;
    loop {
        let answer = renewals.next().await?;
        let ttl = answer.ttl;
        if ttl <= 0 && once {
            return Err(Failure::Request("etcdserver: requested lease not found".to_owned()));
        }
        if ttl <= 0 {
            if settings.style.format == Format::Simple {
                writeln!(streams.out, "lease {id:016x} expired or revoked.")?;
            }
            return Ok(());
        }
        streams.show(&Answer::LeaseKeepAlive(answer), settings)?;
        if once {
            return Ok(());
        }
        sleep(pause(ttl)).await;
    }
}

/// How long to wait before the next renewal of a lease.
pub(super) fn pause(ttl_s: i64) -> Duration {
    Duration::from_secs(ttl_s.max(1).unsigned_abs()) / RENEWALS_PER_TTL
}

/// Renewals of one lease over one stream.
pub(super) struct Renewals {
    id: i64,
    requests: mpsc::Sender<LeaseKeepAliveRequest>,
    answers: Streaming<LeaseKeepAliveResponse>,
    /// A request that was not answered yet.
    is_asked: bool,
}

impl Renewals {
    /// Connects, and sends the first renewal: a server may answer nothing before it has heard something.
    pub(super) async fn open(client: &Client, id: i64) -> Result<Self, Failure> {
        let (requests, outgoing) = mpsc::channel(1);
        let (channel, request) = client.connected(ReceiverStream::new(outgoing)).await?;
        let sent = requests.try_send(LeaseKeepAliveRequest { id });
        sent.map_err(|_| ended())?;
        let answers = LeaseClient::new(channel).lease_keep_alive(request).await;
        let answers = answers.map_err(|status| Failure::Request(describe(&status)))?.into_inner();
        Ok(Self { id, requests, answers, is_asked: true })
    }

    /// Renews, and waits for the answer.
    pub(super) async fn next(&mut self) -> Result<LeaseKeepAliveResponse, Failure> {
        if !std::mem::replace(&mut self.is_asked, false) {
            self.requests.send(LeaseKeepAliveRequest { id: self.id }).await.map_err(|_| ended())?;
        }
        let answer = self.answers.message().await.map_err(|status| Failure::Request(describe(&status)))?;
        answer.ok_or_else(ended)
    }
}

/// etcdctl's words around the server's.
fn failed(what: &str, failure: Failure) -> Failure {
    match failure {
        Failure::Request(reason) => Failure::Request(format!("failed to {what} lease ({reason})")),
        other => other,
    }
}

fn ended() -> Failure {
    Failure::Request("the server ended the stream of renewals".to_owned())
}
