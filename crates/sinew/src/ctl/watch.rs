//! `watch`: from words to watches, and what is done with what they say.
//!
//! Invariant: each event is printed once, whatever happens to the connection; see [`follow`](super::follow).

use std::ffi::OsString;
use std::process::Command;

use api::etcdserverpb::{WatchCreateRequest, WatchResponse};
use api::mvccpb::event::EventType;
use bytes::Bytes;
use clap::{Args, FromArgMatches as _};
use tokio::sync::mpsc;

use super::follow::{Followed, Follower};
use super::{Failure, Settings, Streams, kv, txn};
use crate::flags::go_style;
use crate::print::{Answer, Format};
use crate::quote::quoted;

/// Lines read ahead of what is done with them.
const LINES_AHEAD: usize = 64;

/// Arguments of `watch`.
#[derive(Debug, Clone, Args)]
#[command(
    override_usage = "sinew watch [OPTIONS] <KEY> [RANGE_END] [-- COMMAND ...]",
    after_help = "The watch survives the loss of its endpoint: it goes on at the next one, without a gap
and without a repetition. COMMAND is run for each event, with ETCD_WATCH_REVISION,
ETCD_WATCH_EVENT_TYPE, ETCD_WATCH_KEY and ETCD_WATCH_VALUE in its environment.

KEY and RANGE_END may come from ETCDCTL_WATCH_KEY and ETCDCTL_WATCH_RANGE_END.
With -i, lines are read from standard input:
  watch [OPTIONS] <KEY> [RANGE_END] [-- COMMAND ...]
  progress

Examples:
  sinew watch color
  sinew watch --prefix users/ --prev-kv
  sinew watch color --rev 42               from revision 42 on
  sinew watch config -- systemctl reload my-service"
)]
pub(crate) struct WatchArgs {
    /// The key, and the end of the range if it is one
    #[arg(value_name = "KEY [RANGE_END]")]
    words: Vec<OsString>,
    /// Read watches from standard input
    #[arg(short, long)]
    interactive: bool,
    /// Every key that starts with KEY
    #[arg(long)]
    prefix: bool,
    /// First revision to show; 0 is from now on
    #[arg(long, default_value_t = 0, hide_default_value = true, allow_hyphen_values = true)]
    rev: i64,
    /// Show the pair before each event
    #[arg(long)]
    prev_kv: bool,
    /// Let the server say now and then how far the watch is
    #[arg(long)]
    progress_notify: bool,
    /// Run this for each event
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// A watch to be, and what to run for each of its events.
#[derive(Debug, Clone, PartialEq)]
struct Plan {
    create: WatchCreateRequest,
    command: Vec<OsString>,
}

/// Key and range end that stand in the environment.
#[derive(Debug, Default)]
struct Preset(Vec<OsString>);

impl Preset {
    fn from_environment() -> Result<Self, Failure> {
        let value = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        match (value("ETCDCTL_WATCH_KEY"), value("ETCDCTL_WATCH_RANGE_END")) {
            (None, Some(end)) => {
                let end = end.to_string_lossy();
                Err(usage(&format!("ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END={end:?}")))
            }
            (key, end) => Ok(Self(key.into_iter().chain(end).collect())),
        }
    }
}

impl WatchArgs {
    fn plan(&self, preset: &Preset) -> Result<Plan, Failure> {
        if !preset.0.is_empty() && !self.words.is_empty() {
            return Err(usage("bad number of arguments (found conflicting environment key)"));
        }
        let words = if self.words.is_empty() { &preset.0 } else { &self.words };
        if words.is_empty() || words.len() > 2 {
            return Err(usage("watch needs one argument as key and an optional argument as range_end"));
        }
        if words.len() > 1 && self.prefix {
            return Err(usage("`range_end` and `--prefix` are mutually exclusive"));
        }
        let (mut key, range_end) = kv::span(words, self.prefix, false)?;
        if key.is_empty() {
            key = Bytes::from_static(b"\0");
        }
        let create = WatchCreateRequest {
            key,
            range_end,
            start_revision: self.rev,
            progress_notify: self.progress_notify,
            prev_kv: self.prev_kv,
            ..Default::default()
        };
        Ok(Plan { create, command: self.command.clone() })
    }

    /// Reads the words behind `watch` on a line.
    fn from_line(words: Vec<OsString>) -> Result<Self, String> {
        let grammar = go_style(Self::augment_args(clap::Command::new("watch").no_binary_name(true)));
        let matches = grammar.try_get_matches_from(words).map_err(|error| error.to_string())?;
        Self::from_arg_matches(&matches).map_err(|error| error.to_string())
    }
}

/// What a line asks for.
enum Order {
    Watch(Box<Plan>),
    Progress,
}

/// Watches until the server ends the watch; with `-i` until the input ends.
pub(super) async fn run(arguments: &WatchArgs, settings: &Settings, streams: &mut Streams<'_>) -> Result<(), Failure> {
    if settings.style.format == Format::Table {
        return Err(usage("table not supported as output format"));
    }
    let preset = Preset::from_environment()?;
    let mut follower = Follower::new(settings);
    let mut commands: Vec<Vec<OsString>> = Vec::new();
    let mut lines = if arguments.interactive {
        lines()?
    } else {
        let plan = arguments.plan(&preset)?;
        follower.watch(plan.create);
        commands.push(plan.command);
        mpsc::channel(1).1
    };
    loop {
        let followed = if arguments.interactive {
            tokio::select! {
                followed = follower.next(streams.err) => followed?,
                line = lines.recv() => {
                    let line = line.ok_or_else(|| Failure::Request("error reading watch request line: EOF".into()))?;
                    match order(&line, &preset) {
                        Ok(Order::Watch(plan)) => {
                            follower.watch(plan.create);
                            commands.push(plan.command);
                        }
                        Ok(Order::Progress) => follower.ask_progress(),
                        Err(reason) => writeln!(streams.err, "{reason}")?,
                    }
                    continue;
                }
            }
        } else {
            follower.next(streams.err).await?
        };
        let Followed { number, response } = followed;
        let command = number.and_then(|number| commands.get(number)).cloned().unwrap_or_default();
        let has_ended = response.canceled;
        show(response, command, settings, streams).await?;
        if has_ended && !arguments.interactive {
            return Err(Failure::Request("watch is canceled by the server".to_owned()));
        }
    }
}

/// Prints a response and runs the command for each of its events.
async fn show(
    response: WatchResponse,
    command: Vec<OsString>,
    settings: &Settings,
    streams: &mut Streams<'_>,
) -> Result<(), Failure> {
    if response.canceled {
        writeln!(streams.err, "watch was canceled ({})", reason(&response))?;
    }
    let revision = response.header.as_ref().map_or(0, |header| header.revision);
    if response.events.is_empty() && !response.canceled {
        writeln!(streams.out, "progress notify: {revision}")?;
    }
    let answer = Answer::Watch(response);
    streams.show(&answer, settings)?;
    let Answer::Watch(response) = answer else { unreachable!("made above") };
    let Some((program, arguments)) = command.split_first() else { return Ok(()) };
    for event in &response.events {
        let kv = event.kv.clone().unwrap_or_default();
        let kind = if event.r#type() == EventType::Delete { "DELETE" } else { "PUT" };
        let mut process = Command::new(program);
        process.args(arguments);
        process.env("ETCD_WATCH_REVISION", revision.to_string());
        process.env("ETCD_WATCH_EVENT_TYPE", quoted(kind.as_bytes()));
        process.env("ETCD_WATCH_KEY", quoted(&kv.key));
        process.env("ETCD_WATCH_VALUE", quoted(&kv.value));
        // On a thread of its own: it may take long, and the connection must stay alive.
        let ran = tokio::task::spawn_blocking(move || process.status()).await;
        let said = match ran.map_err(|error| error.to_string()) {
            Ok(Ok(status)) if status.success() => continue,
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error,
        };
        return Err(Failure::Request(format!("command {program:?} error ({said})")));
    }
    Ok(())
}

fn reason(response: &WatchResponse) -> &str {
    match (response.compact_revision, response.cancel_reason.as_str()) {
        (1.., _) => "etcdserver: mvcc: required revision has been compacted",
        (_, "") => "no reason given",
        (_, reason) => reason,
    }
}

fn order(line: &str, preset: &Preset) -> Result<Order, String> {
    let mut words = txn::split_words(line).map_err(|_| format!("Invalid command: {line} (a quote is not closed)"))?;
    if words.is_empty() {
        return Err(format!("Invalid command: {line} (watch and progress supported)"));
    }
    match words.remove(0).to_str() {
        Some("watch") if words.is_empty() && preset.0.is_empty() => {
            Err(format!("Invalid command {line} (command type or key is not provided)"))
        }
        Some("watch") => match WatchArgs::from_line(words)?.plan(preset) {
            Ok(plan) => Ok(Order::Watch(Box::new(plan))),
            Err(Failure::Usage(reason) | Failure::Request(reason)) => Err(format!("Invalid command {line} ({reason})")),
            Err(Failure::Silent | Failure::Exit(_)) => Err(format!("Invalid command {line}")),
        },
        Some("progress") => Ok(Order::Progress),
        _ => Err(format!("Invalid command {line} (only support watch)")),
    }
}

/// The lines of standard input, read by a thread of their own: reading them cannot be interrupted.
fn lines() -> Result<mpsc::Receiver<String>, Failure> {
    let (sender, lines) = mpsc::channel(LINES_AHEAD);
    let read = move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("lines".to_owned()).spawn(read)?;
    Ok(lines)
}

fn usage(text: &str) -> Failure {
    Failure::Usage(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(words: &[&str]) -> Result<Plan, Failure> {
        let words = words.iter().map(OsString::from).collect();
        WatchArgs::from_line(words).map_err(Failure::Usage)?.plan(&Preset::default())
    }

    #[test]
    fn words_become_a_watch() {
        let words = ["a", "--prefix", "--rev=7", "--prev-kv", "--progress-notify=false", "--", "echo", "-n"];
        let plan = plan(&words).expect("fine");
        let expected = WatchCreateRequest {
            key: "a".into(),
            range_end: "b".into(),
            start_revision: 7,
            prev_kv: true,
            ..Default::default()
        };
        assert_eq!(plan, Plan { create: expected, command: vec!["echo".into(), "-n".into()] });
    }

    #[test]
    fn an_empty_key_is_the_smallest_one() {
        let everything = plan(&["", "--prefix"]).expect("fine").create;
        assert_eq!((&everything.key[..], &everything.range_end[..]), (&b"\0"[..], &b"\0"[..]));
        let first = plan(&[""]).expect("fine").create;
        assert_eq!((&first.key[..], &first.range_end[..]), (&b"\0"[..], &b""[..]));
    }

    #[test]
    fn contradictions_are_refused() {
        for words in [&[][..], &["a", "b", "c"], &["a", "b", "--prefix"], &["--", "echo"]] {
            assert!(matches!(plan(words), Err(Failure::Usage(_))), "{words:?}");
        }
        let arguments = WatchArgs::from_line(vec!["a".into()]).expect("fine");
        assert!(arguments.plan(&Preset(vec!["k".into()])).is_err());
    }

    #[test]
    fn the_environment_names_the_key() {
        let arguments = WatchArgs::from_line(vec!["--".into(), "echo".into()]).expect("fine");
        let plan = arguments.plan(&Preset(vec!["k".into(), "m".into()])).expect("fine");
        assert_eq!((&plan.create.key[..], &plan.create.range_end[..]), (&b"k"[..], &b"m"[..]));
    }

    #[test]
    fn lines_are_orders() {
        let preset = Preset::default();
        assert!(matches!(order("watch \"a b\" --rev 3", &preset), Ok(Order::Watch(plan)) if plan.create.key == "a b"));
        assert!(matches!(order("progress", &preset), Ok(Order::Progress)));
        for (line, reason) in [
            ("", "watch and progress supported"),
            ("foo", "only support watch"),
            ("watch", "key is not provided"),
            ("watch \"a", "not closed"),
            ("watch a --sideways", "--sideways"),
        ] {
            let said = order(line, &preset).err().unwrap_or_default();
            assert!(said.contains(reason), "{line}: {said}");
        }
    }
}
