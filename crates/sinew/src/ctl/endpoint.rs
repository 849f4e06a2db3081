//! `endpoint health`, `status` and `hashkv`: one question to every endpoint.

use api::etcdserverpb::{AlarmType, RangeRequest};
use bytes::Bytes;
use clap::{Args, Subcommand};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::client::Client;
use super::{Failure, Settings, Streams};
use crate::print::{Answer, HashKv, Health, Status};

/// Arguments of `endpoint`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sinew endpoint health --cluster
  sinew endpoint hashkv --cluster --rev 100
  sinew endpoint status -w table --endpoints 127.0.0.1:2379,127.0.0.1:22379")]
pub(crate) struct EndpointArgs {
    /// Ask every endpoint the cluster knows, instead of those in --endpoints
    #[arg(long, global = true)]
    cluster: bool,
    #[command(subcommand)]
    verb: EndpointVerb,
}

#[derive(Debug, Subcommand)]
enum EndpointVerb {
    /// Can a read go through a quorum from here?
    Health,
    /// Version, size, role and progress of each member
    Status,
    /// A fingerprint of each member's state; equal at equal revisions
    Hashkv {
        /// At this revision; 0 is each member's latest
        #[arg(long, default_value_t = 0)]
        rev: i64,
    },
}

/// Runs `endpoint`.
pub(super) async fn run(
    arguments: &EndpointArgs,
    mut settings: Settings,
    streams: &mut Streams<'_>,
) -> Result<(), Failure> {
    if arguments.cluster {
        settings.endpoints = cluster_endpoints(&settings).await?;
    }
    match arguments.verb {
        EndpointVerb::Health => health(&settings, streams).await,
        EndpointVerb::Status => status(&settings, streams).await,
        EndpointVerb::Hashkv { rev } => hash_kv(&settings, rev, streams).await,
    }
}

/// Every endpoint the cluster knows.
pub(super) async fn cluster_endpoints(settings: &Settings) -> Result<Vec<String>, Failure> {
    let members = Client::new(settings).members(true).await.map_err(|failure| match failure {
        Failure::Request(reason) => {
            Failure::Request(format!("failed to fetch endpoints from etcd cluster member list: {reason}"))
        }
        other => other,
    })?;
    Ok(members.members.into_iter().flat_map(|member| member.client_urls).collect())
}

async fn health(settings: &Settings, streams: &mut Streams<'_>) -> Result<(), Failure> {
    let client = Client::new(settings);
    let list = for_each(&settings.endpoints, |endpoint| probe(client.only(&endpoint), endpoint)).await;
    let sick = list.iter().any(|health| health.error.is_some());
    streams.show(&Answer::Health(list), settings)?;
    if sick { Err(Failure::Request("unhealthy cluster".to_owned())) } else { Ok(()) }
}

async fn probe(client: Client, endpoint: String) -> Health {
    let started = Instant::now();
    // Any key will do: the answer needs a quorum whether the key exists or not.
    let read = RangeRequest { key: Bytes::from_static(b"health"), ..RangeRequest::default() };
    let read = client.range(read).await;
    let took = started.elapsed();
    let error = match read {
        Ok(_) => alarms(&client).await,
        // Whoever may not read has been told so through the quorum.
        Err(Failure::Request(reason)) if reason == "etcdserver: permission denied" => alarms(&client).await,
        Err(Failure::Request(reason) | Failure::Usage(reason)) => Some(reason),
        Err(Failure::Silent | Failure::Exit(_)) => Some("unknown error".to_owned()),
    };
    Health { endpoint, took, error }
}

async fn alarms(client: &Client) -> Option<String> {
    let Ok(answer) = client.alarms().await else {
        return Some("Unable to fetch the alarm list".to_owned());
    };
    if answer.alarms.is_empty() {
        return None;
    }
    let mut text = "Active Alarm(s): ".to_owned();
    for alarm in &answer.alarms {
        text.push_str(match alarm.alarm() {
            AlarmType::Nospace => "NOSPACE ",
            AlarmType::Corrupt => "CORRUPT ",
            AlarmType::None => "UNKNOWN ",
        });
    }
    Some(text)
}

async fn status(settings: &Settings, streams: &mut Streams<'_>) -> Result<(), Failure> {
    let client = Client::new(settings);
    let asked = for_each(&settings.endpoints, |endpoint| {
        let client = client.only(&endpoint);
        async move { (endpoint, client.status().await) }
    })
    .await;
    let mut list = Vec::new();
    let mut failed = false;
    for (endpoint, result) in asked {
        match result {
            Ok(response) => list.push(Status { endpoint, response }),
            Err(Failure::Request(reason) | Failure::Usage(reason)) => {
                writeln!(streams.err, "Failed to get the status of endpoint {endpoint} ({reason})")?;
                failed = true;
            }
            Err(Failure::Silent | Failure::Exit(_)) => failed = true,
        }
    }
    streams.show(&Answer::Status(list), settings)?;
    if failed { Err(Failure::Silent) } else { Ok(()) }
}

async fn hash_kv(settings: &Settings, revision: i64, streams: &mut Streams<'_>) -> Result<(), Failure> {
    let client = Client::new(settings);
    let (mut list, mut failure) = (Vec::new(), Ok(()));
    for endpoint in &settings.endpoints {
        match client.only(endpoint).hash_kv(revision).await {
            Ok(response) => list.push(HashKv { endpoint: endpoint.clone(), response }),
            Err(Failure::Request(reason)) => {
                writeln!(streams.err, "Failed to get the hash of endpoint {endpoint} ({reason})")?;
                failure = Err(Failure::Request(reason));
            }
            Err(other) => failure = Err(other),
        }
    }
    streams.show(&Answer::HashKv(list), settings)?;
    failure
}

/// Asks all endpoints at the same time; answers come in the order of the endpoints.
pub(crate) async fn for_each<T, F>(endpoints: &[String], ask: impl Fn(String) -> F) -> Vec<T>
where
    T: 'static,
    F: Future<Output = T> + 'static,
{
    let tasks = tokio::task::LocalSet::new();
    tasks
        .run_until(async {
            let mut running = JoinSet::new();
            for (position, endpoint) in endpoints.iter().enumerate() {
                let question = ask(endpoint.clone());
                running.spawn_local(async move { (position, question.await) });
            }
            let mut answers = running.join_all().await;
            answers.sort_by_key(|(position, _)| *position);
            answers.into_iter().map(|(_, answer)| answer).collect()
        })
        .await
}
