//! `lock` and `elect`: hold something as long as this program, or a command of it, runs.

use std::ffi::OsString;
use std::process::Command;

use api::etcdserverpb::{RangeRequest, RangeResponse};
use api::v3electionpb::election_client::ElectionClient;
use api::v3electionpb::{CampaignRequest, LeaderRequest};
use api::v3lockpb::LockRequest;
use api::v3lockpb::lock_client::LockClient;
use bytes::Bytes;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::client::{Client, describe};
use super::session::Session;
use super::{Failure, Settings, Streams, bytes_of};
use crate::print::Answer;

/// Arguments of `lock`.
#[derive(Debug, Args)]
#[command(
    override_usage = "sinew lock [OPTIONS] <NAME> [COMMAND [ARGUMENT]...]",
    after_help = "Without a command, prints the key that stands for the lock and holds it until
stopped. With one, runs it while holding the lock and ends with its exit code.
The command finds ETCD_LOCK_KEY and ETCD_LOCK_REV in its environment, and
SINEW_FENCE: the writes of every `sinew` it calls are done only as long as the
lock is held.

Examples:
  sinew lock nightly ./backup.sh
  sinew lock nightly -- sh -c 'sinew put backup/last \"$(date)\"'"
)]
pub(crate) struct LockArgs {
    /// The lock
    name: OsString,
    /// A command to run; what follows its first word is its own, flags too
    #[arg(trailing_var_arg = true)]
    command: Vec<OsString>,
    /// Seconds after which others get the lock if this program dies
    #[arg(long, default_value_t = 10)]
    ttl: i64,
}

/// Arguments of `elect`.
#[derive(Debug, Args)]
#[command(
    override_usage = "sinew elect [OPTIONS] <NAME> [VALUE]",
    after_help = "Campaigns with VALUE, and leads until stopped. With -l watches who leads instead.

Examples:
  sinew elect scheduler \"$(hostname)\"
  sinew elect -l scheduler"
)]
pub(crate) struct ElectArgs {
    /// The election, and what the leader is to be known by
    #[arg(value_name = "NAME [VALUE]")]
    words: Vec<OsString>,
    /// Watch who leads
    #[arg(long, short = 'l')]
    listen: bool,
}

/// Seconds a dead leader goes on leading (etcdctl's number).
const ELECT_TTL_S: i64 = 60;

/// Runs `lock`.
pub(super) async fn lock(arguments: &LockArgs, settings: &Settings, streams: &mut Streams<'_>) -> Result<(), Failure> {
    let (name, command) = (&arguments.name, arguments.command.as_slice());
    let client = Client::new(settings);
    let session = Session::open(&client, arguments.ttl).await?;
    let request = LockRequest { name: bytes_of(name).into(), lease: session.lease };
    let acquire = async {
        let (channel, request) = client.connected(request).await?;
        let answer = LockClient::new(channel).lock(request).await;
        answer.map(tonic::Response::into_inner).map_err(|status| Failure::Request(describe(&status)))
    };
    let held = match session.run(acquire, stop()).await {
        Ok(held) => held,
        Err(failure) => {
            // Whatever the failure was, the queue must not wait for us.
            session.close().await.unwrap_or_default();
            return Err(failure);
        }
    };
    if command.is_empty() {
        let found = own_key(&client, &held.key).await?;
        streams.show(&Answer::Get(found), settings)?;
        return hold(session).await;
    }
    let token = own_key(&client, &held.key).await?.kvs[0].create_revision;
    let revision = held.header.map_or(0, |header| header.revision);
    let code = execute(command.to_vec(), &held.key, revision, token).await?;
    let was_lost = session.is_lost();
    if was_lost {
        writeln!(streams.err, "the lock was lost while the command ran")?;
    } else {
        session.close().await?;
    }
    match code {
        0 if was_lost => Err(Failure::Silent),
        0 => Ok(()),
        code => Err(Failure::Exit(code)),
    }
}

/// Runs `elect`.
pub(super) async fn elect(
    arguments: &ElectArgs,
    settings: &Settings,
    streams: &mut Streams<'_>,
) -> Result<(), Failure> {
    let client = Client::new(settings);
    let (name, value) = match (&arguments.words[..], arguments.listen) {
        ([name], true) => return observe(&client, bytes_of(name).into(), settings, streams).await,
        (_, true) => return Err(usage("elect -l takes one election name argument")),
        ([name, value], false) => (bytes_of(name), bytes_of(value)),
        (_, false) => return Err(usage("elect takes one election name argument and one proposal argument")),
    };
    let session = Session::open(&client, ELECT_TTL_S).await?;
    let request = CampaignRequest { name: name.into(), lease: session.lease, value: value.into() };
    let campaign = async {
        let (channel, request) = client.connected(request).await?;
        let answer = ElectionClient::new(channel).campaign(request).await;
        answer.map(tonic::Response::into_inner).map_err(|status| Failure::Request(describe(&status)))
    };
    let leader = match session.run(campaign, stop()).await {
        Ok(answer) => answer.leader.unwrap_or_default(),
        Err(failure) => {
            session.close().await.unwrap_or_default();
            return Err(failure);
        }
    };
    let found = own_key(&client, &leader.key).await?;
    streams.show(&Answer::Get(found), settings)?;
    hold(session).await
}

/// Prints every leader, and every value it proclaims, until stopped.
async fn observe(client: &Client, name: Bytes, settings: &Settings, streams: &mut Streams<'_>) -> Result<(), Failure> {
    let (channel, request) = client.connected(LeaderRequest { name }).await?;
    let answers = ElectionClient::new(channel).observe(request).await;
    let mut answers = answers.map_err(|status| Failure::Request(describe(&status)))?.into_inner();
    loop {
        let answer = tokio::select! {
            answer = answers.message() => answer.map_err(|status| Failure::Request(describe(&status)))?,
            () = stop() => return Ok(()),
        };
        let Some(answer) = answer else { return Err(Failure::Request("the server ended the stream".to_owned())) };
        let found = RangeResponse { header: answer.header, kvs: answer.kv.into_iter().collect(), ..Default::default() };
        streams.show(&Answer::Get(found), settings)?;
    }
}

/// Holds what the session holds until somebody wants to stop.
async fn hold(session: Session) -> Result<(), Failure> {
    tokio::select! {
        () = session.ended() => return Err(Failure::Request("session expired".to_owned())),
        () = stop() => {}
    }
    session.close().await
}

/// The key that stands for what is held.
async fn own_key(client: &Client, key: &Bytes) -> Result<RangeResponse, Failure> {
    let found = client.range(RangeRequest { key: key.clone(), ..Default::default() }).await?;
    if found.kvs.is_empty() { Err(Failure::Request("lock lost on init".to_owned())) } else { Ok(found) }
}

/// Runs a command to its end; its exit code.
async fn execute(words: Vec<OsString>, key: &Bytes, revision: i64, token: i64) -> Result<u8, Failure> {
    use std::os::unix::ffi::OsStringExt as _;
    use std::os::unix::process::ExitStatusExt as _;
    let shown = words[0].to_string_lossy().into_owned();
    let mut command = Command::new(&words[0]);
    let text = |bytes: Vec<u8>| OsString::from_vec(bytes);
    command
        .args(&words[1..])
        .env("ETCD_LOCK_KEY", text(key.to_vec()))
        .env("ETCD_LOCK_REV", revision.to_string())
        .env("SINEW_FENCE", text([key, format!("={token}").as_bytes()].concat()));
    // An interrupt reaches the command as well; what it does about it is its own affair.
    let _ignored = signal(SignalKind::interrupt())?;
    let status = tokio::task::spawn_blocking(move || command.status()).await;
    let status = status.map_err(|error| Failure::Request(error.to_string()))?;
    let status = status.map_err(|error| Failure::Request(format!("cannot run {shown}: {error}")))?;
    // As shells say it: 128 and the signal.
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(u8::try_from(code).unwrap_or(1))
}

/// Returns when somebody wants the program to stop.
async fn stop() {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        // Without handlers the system's own way to stop a program stands.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

fn usage(text: &str) -> Failure {
    Failure::Usage(text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        lock: LockArgs,
    }

    #[test]
    fn flags_before_the_command_are_ours_and_those_behind_it_are_its_own() {
        for words in [
            &["lock", "--ttl", "5", "nightly", "sh", "-c", "exit 7"][..],
            &["lock", "nightly", "--ttl=5", "sh", "-c", "exit 7"],
            &["lock", "nightly", "--ttl", "5", "--", "sh", "-c", "exit 7"],
        ] {
            let Line { lock } = Line::try_parse_from(words).unwrap_or_else(|error| panic!("{words:?}: {error}"));
            assert_eq!((lock.name.as_os_str(), lock.ttl), ("nightly".as_ref(), 5), "{words:?}");
            assert_eq!(lock.command, ["sh", "-c", "exit 7"], "{words:?}");
        }
        let Line { lock } = Line::try_parse_from(["lock", "nightly", "env", "--ttl=9"]).expect("a command with a flag");
        assert_eq!((lock.ttl, lock.command.len()), (10, 2));
        assert!(Line::try_parse_from(["lock"]).is_err(), "a lock has a name");
    }
}
