//! `sinew serve`: one member of a cluster, started with etcd's flags.
//!
//! ```text
//! words, environment -> flags -> config (checks) -> server::Config -> a running member -> signal or fault -> exit code
//! ```

mod compatibility;
mod config;
mod flags;
mod urls;

pub(crate) use compatibility::{ignored_flags, with_compatibility};
pub(crate) use flags::ServeFlags;

use clap::{Args as _, FromArgMatches as _};

use crate::ctl::Failure;
use crate::logging;
use crate::member::Member;
use crate::signals::{Reason, Signals};

/// The checked configuration that these flags of `sinew serve` describe.
///
/// # Errors
/// Flags that make no sense.
pub(crate) fn config_of(words: &[String]) -> Result<server::Config, Failure> {
    let command = ServeFlags::augment_args(clap::Command::new("serve").no_binary_name(true));
    let matches = command.try_get_matches_from(words).map_err(|error| Failure::Usage(error.to_string()))?;
    let flags = ServeFlags::from_arg_matches(&matches).map_err(|error| Failure::Usage(error.to_string()))?;
    config::from_flags(&flags).map_err(Failure::Usage)
}

/// Runs a member until a signal or a fault ends it. `ignored` are the flags that have no effect.
///
/// # Errors
/// Flags that make no sense; a member that does not start; a fault while it runs.
pub(crate) fn run(flags: ServeFlags, ignored: &[&'static str]) -> Result<(), Failure> {
    logging::install(&flags.log_level, &flags.log_format, &flags.log_outputs)?;
    for flag in ignored {
        tracing::warn!("accepted for compatibility, has no effect in this version: --{flag}");
    }
    let config = config::from_flags(&flags).map_err(Failure::Usage)?;
    // Installed first: a signal during the start must stop it in order, too.
    let signals = Signals::install()?;
    tracing::info!(name = config.name, data_dir = %config.data_dir.display(), "starting");
    let member = Member::start(config).map_err(Failure::Request)?;
    tracing::info!(clients = ?member.client_addresses(), "ready to serve client requests");
    signals.watch(&flags.name, member.ended())?;
    let reason = signals.wait();
    if reason == Reason::Signal {
        tracing::info!("stopping; a second signal exits at once");
    }
    member.stop();
    match reason {
        Reason::Signal => Ok(()),
        Reason::Fault(_, fault) => Err(Failure::Request(fault)),
    }
}
