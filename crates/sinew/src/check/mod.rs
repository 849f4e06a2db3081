//! `sinew check`: could a correct store have given these answers?
//!
//! A file is judged as it is; `check cluster` first makes one, by driving load against a cluster while somebody breaks
//! it.
//! Invariant: the verdict is `check`'s alone, and anything but "possible" ends with exit code 1. What ends without a
//! verdict ends with 2, so that a script never takes a cluster that could not be asked for one that lies.
//!
//! ```text
//! args ─► cluster: load ─► worker, holder, locker, watcher ─► connection ─► any etcd endpoint
//!            │ nemesis        └─► recorder ─► FILE ─► check::check_all ─► report
//! ```

mod args;
mod cluster;
mod connection;
mod convert;
mod holder;
mod load;
mod locker;
mod nemesis;
mod perf;
mod progress;
mod recorder;
mod report;
mod watcher;
mod worker;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

use ::check::{History, Options, Property, Verdict, check, history};

pub(crate) use args::CheckArgs;
use args::Verb;
use report::Report;

use crate::ctl::{Failure, Settings};
use crate::print::Format;

/// Judges a file, or a cluster.
///
/// # Errors
/// There is no verdict ([`Failure::Usage`], whatever the reason), or it is not "possible" ([`Failure::Silent`]).
pub(crate) fn run(arguments: CheckArgs, settings: &Settings) -> Result<(), Failure> {
    // Not a verdict on answers, and with exit codes of its own.
    if let Some(Verb::Perf(arguments)) = &arguments.verb {
        return perf::run(arguments, settings);
    }
    let report = verdict(arguments, settings).map_err(|failure| match failure {
        Failure::Request(reason) => Failure::Usage(reason),
        Failure::Usage(_) | Failure::Exit(_) | Failure::Silent => failure,
    })?;
    if report.is_possible() { Ok(()) } else { Err(Failure::Silent) }
}

/// Judges and prints.
fn verdict(arguments: CheckArgs, settings: &Settings) -> Result<Report, Failure> {
    let is_json = match settings.style.format {
        Format::Simple => false,
        Format::Json => true,
        Format::Fields | Format::Table | Format::Protobuf => {
            return Err(Failure::Usage("a verdict is printed as simple or json: write -w json".to_owned()));
        }
    };
    let options = arguments.options();
    let report = match (arguments.verb, arguments.history) {
        (Some(Verb::Perf(_)), _) => unreachable!("has run already"),
        (Some(Verb::Cluster(arguments)), _) => cluster::run(&arguments, settings, &options)?,
        (None, Some(path)) => Report { judged: judge(read(&path)?, &options), run: None },
        (None, None) => return Err(Failure::Usage("name a file with a history, or write `check cluster`".to_owned())),
    };
    let text = if is_json { report.json() } else { report.text() };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(report)
}

/// Verdicts, with the history they are about.
struct Judged {
    history: History,
    verdicts: Vec<(Property, Option<Verdict>)>,
}

/// Judges by every property; those without a checker have no verdict.
fn judge(history: History, options: &Options) -> Judged {
    let verdict = |property: Property| (property, property.is_checked().then(|| check(&history, property, options)));
    let verdicts = Property::ALL.into_iter().map(verdict).collect();
    Judged { history, verdicts }
}

/// Reads a history from a file, or from standard input for `-`.
fn read(path: &Path) -> Result<History, Failure> {
    let named = |reason: String| Failure::Usage(format!("{}: {reason}", path.display()));
    let input: Box<dyn BufRead> = if path.as_os_str() == "-" {
        Box::new(BufReader::new(io::stdin()))
    } else {
        Box::new(BufReader::new(File::open(path).map_err(|error| named(error.to_string()))?))
    };
    let history = history::read(input).map_err(|error| named(error.to_string()))?;
    if history.operations.is_empty() {
        return Err(named("holds no operations, so nothing can be judged".to_owned()));
    }
    Ok(history)
}
