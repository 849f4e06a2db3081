//! `check cluster`: load on a running cluster while it is broken, then the verdict on every answer.
//!
//! Invariant: keys of other people are never touched. The run's own begin with a prefix that did not exist before, and
//! are deleted at the end, also after the first Ctrl-C.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ::check::Options;
use ::check::history::Range;
use api::etcdserverpb::DeleteRangeRequest;
use tokio::task::LocalSet;

use super::args::ClusterArgs;
use super::convert;
use super::load::{self, Shared};
use super::nemesis::Nemesis;
use super::progress::Progress;
use super::recorder::Recorder;
use super::report::{Report, Run};
use super::{judge, read};
use crate::ctl::client::Client;
use crate::ctl::kv::end_of_prefix;
use crate::ctl::{Failure, Settings};

/// Exit code after a second Ctrl-C, as shells report an interrupted program.
const EXIT_INTERRUPTED: i32 = 130;
/// Time between two looks at the cluster.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How long to try to delete the keys of the run.
const CLEANUP_PATIENCE: Duration = Duration::from_secs(20);

const HINTS: &str = "\
The load is running. Break what you like, for example:
  kill -9 a node, and start it again              kill -STOP a node, and kill -CONT it later
  kill the leader (`sinew status` says who)       cut the network between two nodes
Ctrl-C ends the load early; the verdict comes all the same.";

/// Drives load, records, judges.
pub(super) fn run(arguments: &ClusterArgs, settings: &Settings, options: &Options) -> Result<Report, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Request(format!("cannot start the clients: {error}")))?;
    let (path, file) = create(arguments.record.as_deref())?;
    let drive = drive(arguments, settings, file);
    let driven = LocalSet::new().block_on(&runtime, drive);
    let is_kept = arguments.record.is_some();
    let judged = driven.and_then(|run| Ok((judge(read(&path)?, options), run)));
    let (judged, mut run) = match judged {
        Ok(both) => both,
        Err(failure) => {
            forget(&path, is_kept);
            return Err(failure);
        }
    };
    let mut report = Report { judged, run: None };
    // Whoever has to understand a bad verdict needs the history.
    run.history = (is_kept || !report.is_possible()).then(|| path.display().to_string());
    forget(&path, run.history.is_some());
    report.run = Some(run);
    Ok(report)
}

/// The file of the history: a new one, where the user wants it or among the temporary ones.
fn create(record: Option<&Path>) -> Result<(PathBuf, File), Failure> {
    let temporary =
        || std::env::temp_dir().join(format!("sinew-check-{}-{}.jsonl", unix_seconds(), std::process::id()));
    let path = record.map_or_else(temporary, Path::to_path_buf);
    let file = File::options().write(true).create_new(true).open(&path);
    let file = file.map_err(|error| {
        Failure::Usage(format!("{}: {error}; name a file that does not exist with --record", path.display()))
    })?;
    Ok((path, file))
}

fn forget(path: &Path, is_kept: bool) {
    if !is_kept {
        // A temporary file that cannot be removed does no harm.
        let _ = std::fs::remove_file(path);
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

async fn drive(arguments: &ClusterArgs, settings: &Settings, file: File) -> Result<Run, Failure> {
    let prefix = format!("sinew-check/{}-{}/", unix_seconds(), std::process::id());
    let client = Client::new(settings);
    let own = own_keys(&prefix);
    let before = client.range(convert::range(&own)).await?;
    if before.count != 0 {
        return Err(Failure::Request(format!("keys with the prefix {prefix} exist already; try again")));
    }
    let start_revision = before.header.map_or(0, |header| header.revision);
    let header = load::header(&settings.endpoints, &prefix, start_revision);
    let recorder = Recorder::new(file, &header)?;
    let shared = Shared::new(settings, arguments, recorder, &prefix, start_revision);
    let result = load_and_watch(arguments, settings, &shared).await;
    let is_clean = clean_up(&client, &own).await;
    let mut run = result?;
    run.left_behind = (!is_clean).then(|| prefix.clone());
    let shared = Rc::into_inner(shared).expect("all clients have ended");
    run.counts = shared.recorder.finish().map_err(|error| Failure::Request(format!("writing the history: {error}")))?;
    Ok(run)
}

fn own_keys(prefix: &str) -> Range {
    let range_end = end_of_prefix(prefix.as_bytes());
    Range { key: prefix.into(), range_end: range_end.into(), ..Range::default() }
}

async fn load_and_watch(arguments: &ClusterArgs, settings: &Settings, shared: &Rc<Shared>) -> Result<Run, Failure> {
    let progress = Progress::new();
    let clients = load::start(shared, arguments).await.map_err(Failure::Request)?;
    let nemesis = match &arguments.nemesis_hook {
        Some(command) => Some(Nemesis::start(command, arguments.nemesis_interval)?),
        None => {
            progress.say(HINTS);
            None
        }
    };
    let interrupted = Rc::new(Cell::new(false));
    tokio::task::spawn_local(watch_for_interrupt(Rc::clone(&interrupted)));
    let leaders = Rc::new(Leaders::default());
    let looking = tokio::task::spawn_local(look(settings.clone(), Rc::clone(&leaders)));
    let started = Instant::now();
    while started.elapsed() < arguments.duration && !interrupted.get() && !shared.recorder.has_failed() {
        let left = arguments.duration.saturating_sub(started.elapsed());
        tokio::time::sleep(left.min(Duration::from_millis(100))).await;
        let counts = *shared.recorder.counts.borrow();
        progress.show(started.elapsed(), arguments.duration, &counts, &leaders.name.borrow());
        nemesis.iter().flat_map(Nemesis::said).for_each(|line| progress.say(&line));
    }
    let lasted = started.elapsed();
    looking.abort();
    let mut faults = None;
    if let Some(nemesis) = nemesis {
        // The thread may be in the middle of a command; the clients go on meanwhile.
        let finished = tokio::task::spawn_blocking(|| nemesis.finish()).await;
        let (broken, said) = finished.map_err(|error| Failure::Request(format!("the nemesis failed: {error}")))?;
        said.iter().for_each(|line| progress.say(line));
        faults = Some(broken);
    }
    let answered = load::finish(shared, clients).await;
    let leader_changes = leaders.changes.get();
    Ok(Run {
        clients: arguments.clients,
        endpoints: settings.endpoints.len(),
        lasted,
        counts: *shared.recorder.counts.borrow(),
        leader_changes,
        faults,
        came_back: answered,
        left_behind: None,
        history: None,
    })
}

/// The first Ctrl-C ends the load early, a second one the program.
async fn watch_for_interrupt(interrupted: Rc<Cell<bool>>) {
    // Without a handler, Ctrl-C ends the program as it does by default, which is all that can be done about it.
    if tokio::signal::ctrl_c().await.is_ok() {
        interrupted.set(true);
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(EXIT_INTERRUPTED);
        }
    }
}

/// Who leads, as far as anybody can be asked.
#[derive(Default)]
struct Leaders {
    /// The greatest term, and its leader.
    last: Cell<(u64, u64)>,
    changes: Cell<u64>,
    name: RefCell<String>,
}

/// Asks all endpoints again and again who leads.
async fn look(settings: Settings, leaders: Rc<Leaders>) {
    let mut quick = settings.clone();
    quick.dial_timeout = LOOK_INTERVAL;
    quick.command_timeout = LOOK_INTERVAL;
    let client = Client::new(&quick);
    loop {
        for endpoint in &settings.endpoints {
            // Nodes that are down say nothing, which is what this run is about.
            let Ok(status) = client.only(endpoint).status().await else { continue };
            let (term, leader) = leaders.last.get();
            if status.leader != 0 && (status.raft_term, status.leader) > (term, leader) && status.leader != leader {
                leaders.changes.set(leaders.changes.get() + u64::from(leader != 0));
                leaders.last.set((status.raft_term, status.leader));
                *leaders.name.borrow_mut() = format!("{:x}", status.leader);
            }
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Deletes the keys of the run; says whether they are gone.
async fn clean_up(client: &Client, own: &Range) -> bool {
    let deadline = Instant::now() + CLEANUP_PATIENCE;
    loop {
        let request: DeleteRangeRequest = convert::delete(&::check::history::DeleteRange {
            key: own.key.clone(),
            range_end: own.range_end.clone(),
            prev_kv: false,
        });
        // Twice does no harm: nobody else writes these keys.
        if client.delete(request).await.is_ok() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}
