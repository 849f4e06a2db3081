//! The command line: which words mean what.
//!
//! Invariant: a flag given on the command line wins over `SINEW_<FLAG>`, which wins over etcd's own variable; all three
//! go through the same parser and the same checks.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::{ArgMatches, Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::bench::BenchArgs;
use crate::check::CheckArgs;
use crate::ctl::{Globals, Verb};
use crate::demo::DemoArgs;
use crate::flags::{go_style, with_environment};
use crate::serve::ServeFlags;
use crate::sim::SimArgs;
use crate::sim::compare::CompareArgs;

const EXAMPLES: &str = "\
Try it:
  sinew demo                               a cluster of three in this terminal
  sinew put greeting hello
  sinew get greeting
  sinew status

Run it:
  sinew serve --name one --data-dir /var/lib/sinew

Any etcd client works unchanged. The verbs put, get, del, txn, watch, compaction, lease,
lock, elect, endpoint, member, alarm, defrag, move-leader, snapshot and version are
etcdctl's; they also work as `sinew ctl VERB`, and when the program is called by the name
etcdctl.

Exit codes:
  0    done
  1    the cluster refused or could not be asked, or the server failed
  2    wrong usage
  130  stopped by a second interrupt";

#[derive(Debug, Parser)]
#[command(
    name = "sinew",
    version,
    about = "An elastic, transactional, strongly consistent key-value store that speaks the etcd v3 API",
    after_help = EXAMPLES,
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Run one member of a cluster
    Serve(ServeFlags),
    /// Run a whole cluster in this terminal, for trying out
    Demo(DemoArgs),
    /// How is the cluster? Available, how many failures from trouble, who leads, who lags
    #[command(after_help = "Exit code 0 if the cluster is available, else 1.

Examples:
  sinew status
  sinew status -w json --endpoints 127.0.0.1:22379")]
    Status,
    /// Measure a cluster
    Bench(BenchArgs),
    /// Run clusters in virtual time, with faults, and check everything they say
    Sim(SimArgs),
    /// What the consensus protocols do about the same faults, side by side
    CompareProtocols(CompareArgs),
    /// Judge recorded answers, or those of a cluster under load: could a correct store have given them?
    Check(CheckArgs),
    /// The client verbs under one roof, as etcdctl has them
    Ctl {
        #[command(subcommand)]
        verb: Verb,
    },
    #[command(flatten)]
    Verb(Verb),
}

/// What the words mean.
#[derive(Debug)]
pub(crate) enum Invocation {
    /// Run a member.
    Serve(Box<ServeFlags>, Vec<&'static str>),
    /// Run a cluster.
    Demo(DemoArgs),
    /// Describe the cluster.
    Status(Box<Globals>),
    /// Measure.
    Bench(Box<BenchArgs>),
    /// Simulate.
    Sim(Box<SimArgs>),
    /// Simulate, under every protocol.
    CompareProtocols(Box<CompareArgs>),
    /// Judge.
    Check(Box<CheckArgs>, Box<Globals>),
    /// Ask the cluster something.
    Client(Box<Verb>, Box<Globals>),
}

/// Reads the words, the program's name first. `lookup` reads one environment variable.
///
/// # Errors
/// What clap found wrong; also the answers to `--help` and `--version`.
pub(crate) fn parse(
    words: Vec<OsString>,
    lookup: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Invocation, clap::Error> {
    let (words, used) = expand(words, lookup);
    let matches = command().try_get_matches_from(words).map_err(|error| with_variables(error, &used))?;
    let cli = Cli::from_arg_matches(&matches)?;
    let globals = || Globals::from_arg_matches(innermost(&matches)).map(Box::new);
    Ok(match cli.action {
        Action::Serve(flags) => Invocation::Serve(Box::new(flags), crate::serve::ignored_flags(innermost(&matches))),
        Action::Demo(arguments) => Invocation::Demo(arguments),
        Action::Status => Invocation::Status(globals()?),
        Action::Bench(arguments) => Invocation::Bench(Box::new(arguments)),
        Action::Sim(arguments) => Invocation::Sim(Box::new(arguments)),
        Action::CompareProtocols(arguments) => Invocation::CompareProtocols(Box::new(arguments)),
        Action::Check(arguments) => Invocation::Check(Box::new(arguments), globals()?),
        Action::Ctl { verb } | Action::Verb(verb) => Invocation::Client(Box::new(verb), globals()?),
    })
}

/// The whole grammar.
fn command() -> Command {
    let mut command = Cli::command();
    for name in verbs().into_iter().chain(["ctl", "status", "check"].map(str::to_owned)) {
        command = command.mut_subcommand(name, with_globals);
    }
    command.mut_subcommand("serve", |serve| go_style(crate::serve::with_compatibility(serve)))
}

/// Adds the flags of all client verbs, and keeps what the verb says about itself.
fn with_globals(verb: Command) -> Command {
    let about = verb.get_about().cloned().unwrap_or_default();
    go_style(Globals::augment_args(verb)).about(about).long_about(None)
}

fn verbs() -> Vec<String> {
    let holder = Verb::augment_subcommands(Command::new("verbs"));
    holder.get_subcommands().map(|verb| verb.get_name().to_owned()).collect()
}

/// Brings the words into the one form the grammar knows and adds what the environment says. Returns the variables used.
fn expand(mut words: Vec<OsString>, lookup: &dyn Fn(&str) -> Option<OsString>) -> (Vec<OsString>, Vec<String>) {
    let program = words.first().map(Path::new).and_then(Path::file_name);
    if program == Some(OsStr::new("etcdctl")) {
        words.insert(1, "ctl".into());
    }
    let first = words.get(1).and_then(|word| word.to_str()).unwrap_or_default().to_owned();
    let is_about_sinew = matches!(first.as_str(), "-h" | "--help" | "-V" | "--version");
    // `sinew --endpoints X get k`, as etcdctl allows.
    let first = if first.starts_with('-') && !is_about_sinew {
        words.insert(1, "ctl".into());
        "ctl".to_owned()
    } else {
        first
    };
    if first == "serve" {
        let serve = crate::serve::with_compatibility(ServeFlags::augment_args(Command::new("serve")));
        double_dashes(&mut words, &serve);
        return with_environment(words, 2, &serve, &["SINEW_", "ETCD_"], lookup);
    }
    if ["ctl", "status", "check"].contains(&first.as_str()) || verbs().contains(&first) {
        let globals = Globals::augment_args(Command::new("globals"));
        return with_environment(words, 2, &globals, &["SINEW_", "ETCDCTL_"], lookup);
    }
    (words, Vec::new())
}

/// etcd accepts `-name` for `--name`, and old unit files use it.
fn double_dashes(words: &mut [OsString], command: &Command) {
    for word in words.iter_mut().skip(2) {
        let Some(flag) = word.to_str().and_then(|text| text.strip_prefix('-')) else { continue };
        let name = flag.split('=').next().unwrap_or_default();
        if name.len() > 1 && command.get_arguments().any(|argument| argument.get_long() == Some(name)) {
            *word = format!("--{flag}").into();
        }
    }
}

/// Someone who did not type a flag must be told where it comes from.
fn with_variables(error: clap::Error, used: &[String]) -> clap::Error {
    if used.is_empty() || !error.use_stderr() {
        return error;
    }
    let note = format!("{}\nset by the environment: {}\n", error.render(), used.join(", "));
    let text = note.trim_start_matches("error: ").to_owned();
    clap::Error::raw(error.kind(), text)
}

fn innermost(matches: &ArgMatches) -> &ArgMatches {
    let mut matches = matches;
    while let Some((_, inner)) = matches.subcommand() {
        matches = inner;
    }
    matches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_environment(_: &str) -> Option<OsString> {
        None
    }

    fn read(words: &[&str]) -> Result<Invocation, clap::Error> {
        parse(words.iter().map(OsString::from).collect(), &no_environment)
    }

    fn endpoints(invocation: Invocation) -> Vec<String> {
        match invocation {
            Invocation::Client(_, globals) | Invocation::Status(globals) | Invocation::Check(_, globals) => {
                globals.settings().expect("fine").endpoints
            }
            other => panic!("not a client verb: {other:?}"),
        }
    }

    #[test]
    fn the_grammar_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn help_says_what_each_verb_does() {
        let overview = command().render_help().to_string();
        for about in ["Write a key", "Read a key", "Delete a key", "Compare, then act", "under one roof", "Measure"] {
            assert!(overview.contains(about), "{about}: {overview}");
        }
        let mut command = command();
        command.build();
        let get = command.find_subcommand_mut("get").expect("exists").render_long_help().to_string();
        assert!(
            get.starts_with("Read a key") && get.contains("--endpoints") && get.contains("sinew get color"),
            "{get}"
        );
    }

    #[test]
    fn client_flags_may_stand_anywhere() {
        for words in [
            &["sinew", "get", "k", "--endpoints", "a:1,b:2"][..],
            &["sinew", "get", "--endpoints=a:1", "--endpoints=b:2", "k"],
            &["sinew", "--endpoints=a:1,b:2", "get", "k"],
            &["sinew", "ctl", "--endpoints=a:1,b:2", "get", "k"],
            &["sinew", "ctl", "get", "k", "--endpoints=a:1,b:2"],
            &["/usr/bin/etcdctl", "--endpoints=a:1,b:2", "get", "k"],
            &["etcdctl", "endpoint", "--endpoints=a:1,b:2", "health"],
            &["sinew", "endpoint", "status", "--cluster", "--endpoints=a:1,b:2"],
            &["sinew", "member", "list", "--endpoints=a:1,b:2"],
            &["sinew", "status", "--endpoints=a:1,b:2"],
            &["sinew", "check", "cluster", "--endpoints=a:1,b:2"],
        ] {
            let invocation = read(words).unwrap_or_else(|error| panic!("{words:?}: {error}"));
            assert_eq!(endpoints(invocation), ["a:1", "b:2"], "{words:?}");
        }
    }

    #[test]
    fn client_flags_come_from_the_environment_too() {
        let lookup = |name: &str| match name {
            "ETCDCTL_ENDPOINTS" => Some("etcd:1".into()),
            "SINEW_ENDPOINTS" => Some("sinew:1".into()),
            _ => None,
        };
        let read =
            |words: &[&str]| endpoints(parse(words.iter().map(OsString::from).collect(), &lookup).expect("fine"));
        assert_eq!(read(&["sinew", "get", "k"]), ["sinew:1"]);
        assert_eq!(read(&["etcdctl", "endpoint", "health"]), ["sinew:1"]);
        assert_eq!(read(&["sinew", "get", "k", "--endpoints", "a:1"]), ["a:1"]);
        let only_etcd = |name: &str| if name == "ETCDCTL_ENDPOINTS" { Some("etcd:1".into()) } else { None };
        let words = ["sinew", "get", "k"].iter().map(OsString::from).collect();
        assert_eq!(endpoints(parse(words, &only_etcd).expect("fine")), ["etcd:1"]);
    }

    #[test]
    fn server_flags_do_not_leak_into_client_verbs_and_back() {
        assert!(read(&["sinew", "serve", "--endpoints=a:1"]).is_err());
        assert!(read(&["sinew", "get", "k", "--data-dir=x"]).is_err());
        assert!(read(&["sinew", "nonsense"]).is_err());
        assert!(read(&["sinew"]).is_err());
    }

    #[test]
    fn single_dashes_are_accepted_where_etcd_accepts_them() {
        let Ok(Invocation::Serve(flags, _)) = read(&["sinew", "serve", "-name", "one", "-pre-vote=true"]) else {
            panic!("not accepted");
        };
        assert_eq!(flags.name, "one");
    }

    #[test]
    fn a_wrong_variable_is_named() {
        let lookup = |name: &str| if name == "ETCD_ELECTION_TIMEOUT" { Some("soon".into()) } else { None };
        let words = ["sinew", "serve"].iter().map(OsString::from).collect();
        let error = parse(words, &lookup).expect_err("not a number").to_string();
        assert!(error.contains("ETCD_ELECTION_TIMEOUT"), "{error}");
    }
}
