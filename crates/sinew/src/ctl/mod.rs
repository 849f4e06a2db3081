//! The client verbs, as etcdctl has them: same flags, same arguments, same output.
//!
//! A verb parses its arguments into a request of the wire protocol (pure, tested), sends it through [`client::Client`]
//! and prints the answer with [`crate::print`]. Nothing here retries a write whose outcome is unknown.

pub(crate) mod client;
mod endpoint;
mod follow;
pub(crate) mod kv;
mod lease;
mod lock;
mod member;
mod session;
mod settings;
mod snapshot;
mod txn;
pub(crate) mod upkeep;
mod watch;

use std::ffi::OsString;
use std::io::{self, Read, Write};

use clap::Subcommand;

use crate::print::{Answer, Format, render};
pub(crate) use endpoint::for_each;
pub(crate) use settings::{Globals, Settings};

/// Version of the API the verbs speak.
pub(crate) const API_VERSION: &str = "3.7";

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Write a key
    Put(kv::PutArgs),
    /// Read a key or a range of keys
    Get(kv::GetArgs),
    /// Delete a key or a range of keys
    Del(kv::DelArgs),
    /// Compare, then act: several operations as one, read from standard input
    Txn(txn::TxnArgs),
    /// Show what happens to a key or a range of keys
    Watch(watch::WatchArgs),
    /// Forget the history below a revision
    Compaction(kv::CompactionArgs),
    /// Make, keep and end leases
    Lease(lease::LeaseArgs),
    /// Hold a lock, or run a command while holding it
    Lock(lock::LockArgs),
    /// Campaign in an election, or watch one
    Elect(lock::ElectArgs),
    /// Look at single endpoints
    Endpoint(endpoint::EndpointArgs),
    /// Look at the members, and change them
    Member(member::MemberArgs),
    /// Look at alarms, and clear them
    Alarm(upkeep::AlarmArgs),
    /// Give the room of deleted data back now
    Defrag(upkeep::DefragArgs),
    /// Save the state to a file, look at it, start a new cluster from it
    Snapshot(snapshot::SnapshotArgs),
    /// Go back to an older version
    Downgrade(upkeep::DowngradeArgs),
    /// Make another member lead
    MoveLeader(upkeep::MoveLeaderArgs),
    /// Print the version of this program and of the API
    Version,
}

/// Why a verb failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The command makes no sense as it was typed. Exit code 2.
    Usage(String),
    /// The cluster refused, or could not be asked. Exit code 1.
    Request(String),
    /// As [`Failure::Request`], but everything has been said already.
    Silent,
    /// A command that was run ended with this code, and said why itself.
    Exit(u8),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Request(error.to_string())
    }
}

/// Where a verb reads and writes; replaced in tests.
pub(crate) struct Streams<'a> {
    /// Values and transactions.
    pub(crate) input: &'a mut dyn Read,
    /// Answers.
    pub(crate) out: &'a mut dyn Write,
    /// Warnings and trouble.
    pub(crate) err: &'a mut dyn Write,
}

impl Streams<'_> {
    /// Prints an answer.
    fn show(&mut self, answer: &Answer, settings: &Settings) -> Result<(), Failure> {
        let printed = render(answer, settings.style).map_err(Failure::Usage)?;
        self.err.write_all(printed.err.as_bytes())?;
        self.out.write_all(&printed.out)?;
        self.out.flush()?;
        Ok(())
    }
}

/// Runs `verb`.
///
/// # Errors
/// See [`Failure`].
pub(crate) async fn run(verb: Verb, mut settings: Settings, streams: &mut Streams<'_>) -> Result<(), Failure> {
    // Before the request: a write must not be done and then called an error.
    if settings.style.format == Format::Table
        && matches!(
            verb,
            Verb::Put(_)
                | Verb::Get(_)
                | Verb::Del(_)
                | Verb::Txn(_)
                | Verb::Lease(_)
                | Verb::Lock(_)
                | Verb::Elect(_)
                | Verb::Alarm(_)
        )
    {
        return Err(Failure::Usage("table not supported as output format".to_owned()));
    }
    match verb {
        Verb::Put(arguments) => {
            let request = arguments.request(streams.input)?;
            let answer = client::Client::new(&settings).put(request).await?;
            streams.show(&Answer::Put(answer), &settings)
        }
        Verb::Get(arguments) => {
            let request = arguments.request()?;
            arguments.check_format(&mut settings.style)?;
            let answer = client::Client::new(&settings).range(request).await?;
            streams.show(&Answer::Get(answer), &settings)
        }
        Verb::Del(arguments) => {
            let request = arguments.request()?;
            arguments.give_time_to_think(streams.err).await?;
            let answer = client::Client::new(&settings).delete(request).await?;
            streams.show(&Answer::Delete(answer), &settings)
        }
        Verb::Txn(arguments) => {
            let request = arguments.request(streams)?;
            let answer = client::Client::new(&settings).txn(request).await?;
            streams.show(&Answer::Txn(answer), &settings)
        }
        Verb::Watch(arguments) => watch::run(&arguments, &settings, streams).await,
        Verb::Compaction(arguments) => {
            let request = arguments.request()?;
            client::Client::new(&settings).compact(request).await?;
            writeln!(streams.out, "compacted revision {}", request.revision)?;
            Ok(())
        }
        Verb::Lease(arguments) => lease::run(&arguments, &settings, streams).await,
        Verb::Lock(arguments) => lock::lock(&arguments, &settings, streams).await,
        Verb::Elect(arguments) => lock::elect(&arguments, &settings, streams).await,
        Verb::Endpoint(arguments) => endpoint::run(&arguments, settings, streams).await,
        Verb::Member(arguments) => member::run(&arguments, &settings, streams).await,
        Verb::Alarm(arguments) => upkeep::alarm(&arguments, &settings, streams).await,
        Verb::Defrag(arguments) => upkeep::defrag(&arguments, settings, streams).await,
        Verb::Snapshot(arguments) => snapshot::run(&arguments, &settings, streams).await,
        Verb::Downgrade(arguments) => upkeep::downgrade(&arguments, &settings, streams).await,
        Verb::MoveLeader(arguments) => upkeep::move_leader(&arguments, &settings, streams).await,
        Verb::Version => {
            writeln!(streams.out, "sinew version: {}", env!("CARGO_PKG_VERSION"))?;
            writeln!(streams.out, "API version: {API_VERSION}")?;
            Ok(())
        }
    }
}

/// The bytes of an argument exactly as the shell passed them.
fn bytes_of(argument: &OsString) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt as _;
    argument.as_bytes().to_vec()
}
