//! `snapshot`: save a running cluster's state to a file, look at it, start a new cluster from it.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use api::etcdserverpb::SnapshotRequest;
use api::etcdserverpb::maintenance_client::MaintenanceClient;
use clap::{Args, Subcommand};

use super::client::{Client, describe};
use super::{Failure, Settings, Streams};
use crate::print::Answer;
use crate::serve;

/// What a restored cluster's revision is ahead of the snapshot's, if nothing else is said: etcd's advice.
const BUMP_REVISION: i64 = 1_000_000_000;

/// Arguments of `snapshot`.
#[derive(Debug, Args)]
#[command(after_help = "The file holds the state of the asked member, with checksums. Every member of the new cluster
is restored from the same file with the same --initial-cluster, then started as usual:
  sinew snapshot save backup.snap
  sinew snapshot status backup.snap -w table
  sinew snapshot restore backup.snap --name one --data-dir /var/lib/sinew \\
    --initial-cluster one=http://10.0.0.1:2380 --initial-advertise-peer-urls http://10.0.0.1:2380
A restored cluster is a new one, at a higher revision: what clients remember of the old
one is compacted there.")]
pub(crate) struct SnapshotArgs {
    #[command(subcommand)]
    verb: SnapshotVerb,
}

#[derive(Debug, Subcommand)]
enum SnapshotVerb {
    /// Save the state of one member
    Save {
        /// The file to make
        file: PathBuf,
    },
    /// Verify a file, and say what it holds
    Status {
        /// The file
        file: PathBuf,
    },
    /// Make the data directory of a member of a new cluster
    Restore(RestoreArgs),
}

#[derive(Debug, Args)]
struct RestoreArgs {
    /// The file
    file: PathBuf,
    /// Name of the member
    #[arg(long, default_value = "default")]
    name: String,
    /// The directory to make [default: ./NAME.sinew]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// The members of the new cluster [default: this one alone]
    #[arg(long, value_name = "NAME=URL,...")]
    initial_cluster: Option<String>,
    /// Keeps clusters with equal members apart
    #[arg(long, value_name = "TEXT")]
    initial_cluster_token: Option<String>,
    /// Where the other members reach this one
    #[arg(long, value_name = "URL,...")]
    initial_advertise_peer_urls: Option<String>,
    /// By how much the revision grows; more than the old cluster can have written since
    #[arg(long, value_name = "COUNT", default_value_t = BUMP_REVISION, value_parser = clap::value_parser!(i64).range(1..))]
    bump_revision: i64,
}

/// Runs `snapshot`.
pub(super) async fn run(
    arguments: &SnapshotArgs,
    settings: &Settings,
    streams: &mut Streams<'_>,
) -> Result<(), Failure> {
    let fault = |fault: base::Fault| Failure::Request(fault.to_string());
    match &arguments.verb {
        SnapshotVerb::Save { file } => {
            save(settings, file).await?;
            writeln!(streams.out, "Snapshot saved at {}", file.display())?;
            Ok(())
        }
        SnapshotVerb::Status { file } => {
            let summary = server::summary(file).map_err(fault)?;
            streams.show(&Answer::SnapshotStatus(summary), settings)
        }
        SnapshotVerb::Restore(arguments) => {
            let config = serve::config_of(&words(arguments))?;
            let restored = server::restore(&config, &arguments.file, arguments.bump_revision);
            let (member, revision) = restored.map_err(|error| Failure::Request(error.to_string()))?;
            let place = config.data_dir.display();
            writeln!(streams.out, "Restored member {:x} at revision {} in {place}", member.0, revision.0)?;
            Ok(())
        }
    }
}

/// The flags of `sinew serve` that say who the member is.
fn words(arguments: &RestoreArgs) -> Vec<String> {
    let mut words = vec![format!("--name={}", arguments.name)];
    let given = [
        ("data-dir", &arguments.data_dir),
        ("initial-cluster", &arguments.initial_cluster),
        ("initial-cluster-token", &arguments.initial_cluster_token),
        ("initial-advertise-peer-urls", &arguments.initial_advertise_peer_urls),
        // Nobody listens; this only keeps the addresses from contradicting each other.
        ("listen-peer-urls", &arguments.initial_advertise_peer_urls),
    ];
    words.extend(given.iter().filter_map(|(flag, value)| Some(format!("--{flag}={}", value.as_ref()?))));
    words
}

async fn save(settings: &Settings, file: &Path) -> Result<(), Failure> {
    if settings.endpoints.len() != 1 {
        let endpoints = settings.endpoints.join(" ");
        return Err(Failure::Usage(format!(
            "snapshot must be requested to one selected node, not multiple [{endpoints}]"
        )));
    }
    if file.exists() {
        return Err(Failure::Usage(format!("{} exists: a snapshot is never written over", file.display())));
    }
    let mut part = file.to_owned().into_os_string();
    part.push(".part");
    let part = PathBuf::from(part);
    let saved = receive(settings, &part).await.and_then(|()| {
        // What was received is what will be restored: it is read again, from the disk.
        server::summary(&part).map_err(|fault| Failure::Request(fault.to_string()))?;
        Ok(std::fs::rename(&part, file)?)
    });
    if saved.is_err() && part.exists() {
        std::fs::remove_file(&part)?;
    }
    saved
}

async fn receive(settings: &Settings, part: &Path) -> Result<(), Failure> {
    let client = Client::new(settings);
    let (channel, request) = client.connected(SnapshotRequest {}).await?;
    let refused = |status: tonic::Status| Failure::Request(describe(&status));
    let mut client = MaintenanceClient::new(channel).max_decoding_message_size(usize::MAX);
    let mut pieces = client.snapshot(request).await.map_err(refused)?.into_inner();
    let mut output = File::create(part)?;
    while let Some(piece) = pieces.message().await.map_err(refused)? {
        output.write_all(&piece.blob)?;
    }
    Ok(output.sync_all()?)
}
