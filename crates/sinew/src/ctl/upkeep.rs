//! `alarm`, `defrag` and `move-leader`: what an operator does to a running cluster.

use api::etcdserverpb::alarm_request::AlarmAction;
use api::etcdserverpb::downgrade_request::DowngradeAction;
use api::etcdserverpb::{AlarmMember, AlarmRequest, AlarmType, DowngradeRequest};
use clap::{Args, Subcommand};
use tokio::time::Instant;

use super::client::Client;
use super::endpoint::cluster_endpoints;
use super::{Failure, Settings, Streams};
use crate::print::{Answer, Format, duration};

/// Arguments of `alarm`.
#[derive(Debug, Args)]
#[command(after_help = "An alarm NOSPACE goes up when a member has used up its --quota-backend-bytes: writes that
need space are refused, deletes and compaction are not. It is cleared as soon as
there is room again.

An alarm CORRUPT goes up when the leader finds that a member holds something else than
the others (sinew serve --corrupt-check-time). Nothing is served until it is cleared:
replace the member first (sinew member remove, then add), then disarm.

Examples:
  sinew alarm list
  sinew alarm disarm")]
pub(crate) struct AlarmArgs {
    #[command(subcommand)]
    verb: AlarmVerb,
}

#[derive(Debug, Subcommand)]
enum AlarmVerb {
    /// All alarms that are up
    List,
    /// Clear all alarms
    Disarm,
}

/// Arguments of `defrag`.
#[derive(Debug, Args)]
#[command(after_help = "Not needed: room is given back all the time. This gives it back now, while reads and
writes go on.")]
pub(crate) struct DefragArgs {
    /// Every endpoint the cluster knows, instead of those in --endpoints
    #[arg(long)]
    cluster: bool,
}

/// Arguments of `downgrade`.
#[derive(Debug, Args)]
#[command(after_help = "Here for scripts: this version can go back to no other one, and says so.")]
pub(crate) struct DowngradeArgs {
    #[command(subcommand)]
    verb: DowngradeVerb,
}

#[derive(Debug, Subcommand)]
enum DowngradeVerb {
    /// Could the cluster go back to a version?
    Validate {
        /// Major and minor number, like 3.6
        version: String,
    },
    /// Begin to go back to a version
    Enable {
        /// Major and minor number, like 3.6
        version: String,
    },
    /// Stay where the cluster is
    Cancel,
}

/// Arguments of `move-leader`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  sinew move-leader 8211f1d0f64f3269 --endpoints 127.0.0.1:2379,127.0.0.1:22379")]
pub(crate) struct MoveLeaderArgs {
    /// The member that is to lead, in hexadecimal
    member: String,
}

/// Runs `alarm`.
pub(super) async fn alarm(
    arguments: &AlarmArgs,
    settings: &Settings,
    streams: &mut Streams<'_>,
) -> Result<(), Failure> {
    let client = Client::new(settings);
    let mut answer = client.alarms().await?;
    if matches!(arguments.verb, AlarmVerb::Disarm) {
        for AlarmMember { member_id, alarm } in std::mem::take(&mut answer.alarms) {
            let request = AlarmRequest { action: AlarmAction::Deactivate as i32, member_id, alarm };
            answer.alarms.extend(client.alarm(request).await?.alarms);
        }
    }
    streams.show(&Answer::Alarms(answer), settings)
}

/// The text of an alarm, as Go prints the message.
pub(crate) fn alarm_text(alarm: &AlarmMember) -> String {
    let mut text = String::new();
    if alarm.member_id != 0 {
        text.push_str(&format!("memberID:{} ", alarm.member_id));
    }
    if alarm.alarm() != AlarmType::None {
        text.push_str(&format!("alarm:{} ", alarm.alarm().as_str_name()));
    }
    text
}

/// Runs `defrag`.
pub(super) async fn defrag(
    arguments: &DefragArgs,
    mut settings: Settings,
    streams: &mut Streams<'_>,
) -> Result<(), Failure> {
    if arguments.cluster {
        settings.endpoints = cluster_endpoints(&settings).await?;
    }
    let client = Client::new(&settings);
    let mut failed = false;
    for endpoint in &settings.endpoints {
        let started = Instant::now();
        match client.only(endpoint).defragment().await {
            Ok(()) => writeln!(streams.out, "Finished defragmenting etcd member[{endpoint}]")?,
            Err(Failure::Request(reason) | Failure::Usage(reason)) => {
                let took = duration(started.elapsed());
                writeln!(streams.err, "Failed to defragment etcd member[{endpoint}] after {took} ({reason})")?;
                failed = true;
            }
            Err(Failure::Silent | Failure::Exit(_)) => failed = true,
        }
    }
    if failed { Err(Failure::Silent) } else { Ok(()) }
}

/// Runs `downgrade`.
pub(super) async fn downgrade(
    arguments: &DowngradeArgs,
    settings: &Settings,
    streams: &mut Streams<'_>,
) -> Result<(), Failure> {
    let (word, action, version) = match &arguments.verb {
        DowngradeVerb::Validate { version } => ("validate", DowngradeAction::Validate, version.clone()),
        DowngradeVerb::Enable { version } => ("enable", DowngradeAction::Enable, version.clone()),
        DowngradeVerb::Cancel => ("cancel", DowngradeAction::Cancel, String::new()),
    };
    let answer = Client::new(settings).downgrade(DowngradeRequest { action: action as i32, version }).await?;
    writeln!(streams.out, "Downgrade {word} success, cluster version {}", answer.version)?;
    Ok(())
}

/// Runs `move-leader`: the leader has to be among the endpoints, only it can hand over.
pub(super) async fn move_leader(
    arguments: &MoveLeaderArgs,
    settings: &Settings,
    streams: &mut Streams<'_>,
) -> Result<(), Failure> {
    let target = member_id(&arguments.member)?;
    if matches!(settings.style.format, Format::Fields | Format::Table) {
        return Err(Failure::Usage("move-leader prints simple, json or protobuf alone".to_owned()));
    }
    let client = Client::new(settings);
    for endpoint in &settings.endpoints {
        let client = client.only(endpoint);
        let status = client.status().await?;
        let member = status.header.as_ref().map_or(0, |header| header.member_id);
        if status.leader == member {
            client.move_leader(target).await?;
            match settings.style.format {
                Format::Json => writeln!(streams.out, "{{}}")?,
                Format::Simple => writeln!(streams.out, "Leadership transferred from {member:x} to {target:x}")?,
                Format::Fields | Format::Table | Format::Protobuf => {}
            }
            return Ok(());
        }
    }
    Err(Failure::Usage(format!("no leader endpoint given at [{}]", settings.endpoints.join(" "))))
}

/// The id of a member as the user writes it.
pub(super) fn member_id(text: &str) -> Result<u64, Failure> {
    let bad = || Failure::Usage(format!("bad member ID arg ({text}), expecting ID in Hex"));
    u64::from_str_radix(text, 16).map_err(|_| bad())
}
