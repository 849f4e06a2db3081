//! `member list`.

use clap::{Args, Subcommand};

use super::client::Client;
use super::kv::is_serializable;
use super::{Failure, Settings, Streams};
use crate::print::Answer;

/// Arguments of `member`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  sinew member list -w table")]
pub(crate) struct MemberArgs {
    #[command(subcommand)]
    verb: MemberVerb,
}

#[derive(Debug, Subcommand)]
enum MemberVerb {
    /// Id, status, name, peer URLs, client URLs and whether it is a learner, for every member
    List {
        /// l: linearizable; s: serializable, from the asked member's own state, possibly old
        #[arg(long, default_value = "l")]
        consistency: String,
    },
}

/// Runs `member`.
pub(super) async fn run(arguments: &MemberArgs, settings: &Settings, streams: &mut Streams<'_>) -> Result<(), Failure> {
    match &arguments.verb {
        MemberVerb::List { consistency } => {
            let linearizable = !is_serializable(consistency)?;
            let answer = Client::new(settings).members(linearizable).await?;
            streams.show(&Answer::Members(answer), settings)
        }
    }
}
