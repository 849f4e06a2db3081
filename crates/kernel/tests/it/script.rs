//! Golden traces. A script under `testscripts/` is a sequence of blocks: commands, a line `---`, and the trace they
//! must leave. `REWRITE_TRACES=1 cargo test -p kernel` writes the traces anew; commit a changed one only when you can
//! explain it.
//!
//! The directory says which protocol runs the script: one by its name, or `all` of them. Where their traces differ, a
//! block has several: `--- raft zab` begins the one that these two must leave.
//!
//! Every block runs against one cluster with a perfect disk and a network that delivers nothing unasked. Commands are
//! listed in [`Script::command`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base::planted::{Defect, plant};
use base::{Index, ReplicaId};
use bytes::Bytes;
use kernel::{Body, Member, Membership, Message, Protocol, ReadId, Refusal};

use crate::disk::Machine;
use crate::invariants::Invariants;
use crate::trace;
use crate::world::{Event, World, member};

struct Script {
    world: World,
    invariants: Invariants,
    kept: BTreeMap<String, Vec<Message>>,
    snapshots: BTreeMap<String, (base::Ballot, Machine)>,
    quiet: bool,
}

fn host(word: &str) -> u64 {
    word.trim_start_matches('n').parse().unwrap_or_else(|_| panic!("{word} is not a node"))
}

fn number(word: &str) -> u64 {
    word.parse().unwrap_or_else(|_| panic!("{word} is not a number"))
}

/// `voters=1,2,3` or `learners=4`; `4:2` is replica 4 on node 2.
fn members(words: &[&str], name: &str) -> Vec<Member> {
    let list = words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let one = |word: &str| match word.split_once(':') {
        Some((replica, node)) => Member { node: base::NodeId(number(node)), ..member(number(replica)) },
        None => member(number(word)),
    };
    list.into_iter().flat_map(|list| list.split(',')).filter(|word| !word.is_empty()).map(one).collect()
}

impl Script {
    fn new(protocol: Protocol) -> Self {
        Self {
            world: World::new(protocol, 7),
            invariants: Invariants::default(),
            kept: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            quiet: false,
        }
    }

    /// Takes out of the network what `from` sent `to`; everything, if they are not named.
    fn take(&mut self, words: &[&str]) -> Vec<Message> {
        let wanted = |message: &Message| match words {
            [] => true,
            [from] => message.from.0 == host(from),
            [from, to, ..] => message.from.0 == host(from) && message.to.0 == host(to),
        };
        let (taken, left) = std::mem::take(&mut self.world.net).into_iter().partition(wanted);
        self.world.net = left;
        taken
    }

    fn refusal<T>(out: &mut String, result: Result<T, Refusal>) {
        if let Err(refusal) = result {
            writeln!(out, "refused: {refusal:?}").expect("a string grows");
        }
    }

    /// Runs one command; its trace goes to `out`.
    fn command(&mut self, line: &str, out: &mut String) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let world = &mut self.world;
        match words.as_slice() {
            // Run the rest of the line without a trace.
            ["quietly", rest @ ..] => {
                self.quiet = true;
                self.command(&rest.join(" "), out);
                self.quiet = false;
                return;
            }
            // A new cluster of n voters.
            ["cluster", count] => {
                let all: Vec<Member> = (1..=number(count)).map(member).collect();
                (1..=number(count)).for_each(|one| world.add(one, Membership::initial(&all)));
            }
            // A replica that nobody told anything.
            ["join", one] => world.add(host(one), Membership::default()),
            // Disks, or state machines, answer only on command.
            ["manual", "sync"] => world.auto_sync = false,
            ["manual", "apply"] => world.auto_apply = false,
            ["sync", one] => {
                while world.sync_one(host(one)) {}
                world.settle(host(one));
            }
            ["sync-one", one] => {
                world.sync_one(host(one));
                world.settle(host(one));
            }
            ["apply", one] => {
                world.apply(host(one));
                world.settle(host(one));
            }
            ["flush", one] => world.flush(host(one)),
            // Time: the next deadline of one; some milliseconds; the same with everyone noticing.
            ["timeout", one] => world.timeout(host(one)),
            ["wait", ms] => world.now = world.now + Duration::from_millis(number(ms)),
            ["tick", one] => world.input(host(one), |replica, now| replica.tick(now)),
            // Everyone else goes on until the deadline of one, who then notices it.
            ["run-to", one] => {
                let deadline = world.replica(host(one)).expect("is up").next_deadline();
                let until = base::Instant(deadline.0 - 1);
                world.run(until.since(world.now));
                world.timeout(host(one));
            }
            ["run", ms] => world.run(Duration::from_millis(number(ms))),
            // The network: deliver everything until silence, or what one said to another (nth only).
            ["deliver"] => world.deliver_all(),
            ["deliver", from, to, nth] => {
                let mut messages = self.take(&[from, to]);
                let one = messages.remove(usize::try_from(number(nth)).expect("small"));
                self.world.net.extend(messages);
                self.world.deliver(one);
            }
            ["deliver", rest @ ..] => {
                for message in self.take(rest) {
                    self.world.deliver(message);
                }
            }
            ["drop", rest @ ..] => {
                for message in self.take(rest) {
                    if !self.quiet {
                        writeln!(out, "lost: {}", trace::message(&message)).expect("a string grows");
                    }
                }
            }
            ["repeat", rest @ ..] => {
                let messages = self.take(rest);
                self.world.net.extend(messages.clone());
                self.world.net.extend(messages);
            }
            ["reverse"] => world.net.reverse(),
            // Appends on their way carry so many entries and no more.
            ["shorten", from, to, count] => {
                let (from, to) = (ReplicaId(host(from)), ReplicaId(host(to)));
                for message in world.net.iter_mut().filter(|message| (message.from, message.to) == (from, to)) {
                    if let Body::Append { entries, .. } = &mut message.body {
                        entries.truncate(usize::try_from(number(count)).expect("small"));
                    }
                }
            }
            // Copies for later.
            ["keep", name, rest @ ..] => {
                let messages = self.take(rest);
                self.world.net.extend(messages.clone());
                self.kept.insert((*name).into(), messages);
            }
            ["replay", name] => {
                for message in self.kept[*name].clone() {
                    self.world.deliver(message);
                }
            }
            ["cut", one, other] => {
                world.cuts.extend([(host(one), host(other)), (host(other), host(one))]);
            }
            ["deafen", one] => world.cuts.extend((1..10).map(|other| (other, host(one)))),
            ["mute", one] => world.cuts.extend((1..10).map(|other| (host(one), other))),
            ["isolate", one] => {
                world.cuts.extend((1..10).flat_map(|other| [(host(one), other), (other, host(one))]));
            }
            ["heal"] => world.cuts.clear(),
            ["propose", one, values @ ..] => {
                let now = world.now;
                let replica = world.host(host(one)).replica.as_mut().expect("is up");
                let results: Vec<_> =
                    values.iter().map(|value| replica.propose(now, Bytes::from((*value).to_owned()))).collect();
                results.into_iter().for_each(|result| Self::refusal(out, result));
                world.settle(host(one));
            }
            ["propose-bytes", one, count, size] => {
                let payload = Bytes::from(vec![b'x'; usize::try_from(number(size)).expect("small")]);
                for _ in 0..number(count) {
                    let payload = payload.clone();
                    Self::refusal(out, world.input(host(one), |replica, now| replica.propose(now, payload)));
                }
            }
            ["read", one, id] => {
                let id = ReadId(number(id));
                self.invariants.read_asked(host(one), id);
                let result = self.world.input(host(one), |replica, now| replica.read(now, id));
                if result.is_err() {
                    self.invariants.read_refused(host(one), id);
                }
                Self::refusal(out, result);
            }
            ["transfer", one, to] => {
                let to = ReplicaId(host(to));
                Self::refusal(out, world.input(host(one), |replica, now| replica.transfer_leadership(now, to)));
            }
            ["change", one, rest @ ..] => {
                let current = world.replica(host(one)).expect("is up").membership().index;
                let base = rest.iter().find_map(|word| word.strip_prefix("base=")).map(|base| Index(number(base)));
                let (voters, learners) = (members(rest, "voters"), members(rest, "learners"));
                let result = world.input(host(one), |replica, now| {
                    replica.change_membership(now, base.unwrap_or(current), &voters, &learners)
                });
                Self::refusal(out, result);
            }
            ["crash", one] => {
                world.crash(host(one), 0);
                self.invariants.forget_reads(host(one));
            }
            // A leader priority, from the next start on.
            ["priority", one, priority] => {
                world.host(host(one)).priority = u8::try_from(number(priority)).expect("small");
            }
            ["start", one] => world.start(host(one)),
            ["compact", one, to] => {
                let to = Index(number(to));
                if !world.input(host(one), |replica, _| replica.compact(to)) {
                    writeln!(out, "refused").expect("a string grows");
                }
            }
            ["snapshot", from, to] => {
                if !world.transfer_snapshot(host(from), host(to)) {
                    writeln!(out, "not wanted").expect("a string grows");
                }
            }
            ["snapshot-failed", from, to] => {
                let to = ReplicaId(host(to));
                world.input(host(from), |replica, _| replica.snapshot_failed(to));
            }
            ["keep-snapshot", name, from] => {
                let ballot = world.replica(host(from)).expect("is up").status().ballot;
                self.snapshots.insert((*name).into(), (ballot, world.hosts[&host(from)].machine.clone()));
            }
            ["replay-snapshot", name, to] => {
                let (ballot, machine) = self.snapshots[*name].clone();
                if !world.install(host(to), ballot, machine) {
                    writeln!(out, "not wanted").expect("a string grows");
                }
            }
            ["status"] => self.status(out),
            ["log", one] => {
                let image = &world.hosts[&host(one)].disk.written;
                let entries: Vec<String> = image.log.values().map(trace::entry).collect();
                writeln!(out, "n{} {} | {}", host(one), trace::position(image.base), entries.join(", "))
                    .expect("grows");
            }
            ["state", one] => {
                let commands = world.hosts[&host(one)].machine.commands.iter();
                let words: Vec<_> = commands.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect();
                writeln!(out, "n{} holds {}", host(one), words.join(" ")).expect("a string grows");
            }
            _ => panic!("unknown command: {line}"),
        }
        self.trace(out);
    }

    fn trace(&mut self, out: &mut String) {
        for event in &self.world.events {
            let shown = match event {
                // A disk that answers at once is not worth a line.
                Event::Wrote(..) => !self.world.auto_sync,
                _ => true,
            };
            if shown && !self.quiet {
                writeln!(out, "{}", trace::event(event)).expect("a string grows");
            }
        }
        self.invariants.observe(&mut self.world);
        self.invariants.compare_logs(&self.world);
    }

    fn status(&self, out: &mut String) {
        for (number, host) in &self.world.hosts {
            let Some(replica) = &host.replica else {
                writeln!(out, "n{number} is down").expect("a string grows");
                continue;
            };
            let status = replica.status();
            let leader = status.leader.map_or("nobody".into(), |node| node.to_string());
            let removed = status.removed.map_or(String::new(), |index| format!(" removed@{index}"));
            writeln!(
                out,
                "n{number} {:?} {} of {leader}, last={} commit={} applied={} {}{removed}",
                status.role,
                status.ballot,
                status.last,
                status.commit,
                status.applied,
                trace::membership(&status.membership)
            )
            .expect("a string grows");
        }
    }
}

/// The commands of each block, comments and blank lines included. The traces are left out.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks = vec![String::new()];
    let mut in_trace = false;
    for line in text.lines() {
        if in_trace && line.trim().is_empty() {
            in_trace = false;
            blocks.push("\n".into());
        } else if !in_trace && line.starts_with("---") {
            in_trace = true;
        } else if !in_trace {
            blocks.last_mut().expect("never empty").extend([line, "\n"]);
        }
    }
    assert!(in_trace, "commands without a --- after them");
    blocks
}

/// The trace of each block under a protocol.
fn play(blocks: &[String], protocol: Protocol) -> Vec<String> {
    let mut script = Script::new(protocol);
    let play = |block: &String| {
        let mut trace = String::new();
        let commands = block.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
        commands.for_each(|line| script.command(line, &mut trace));
        trace
    };
    blocks.iter().map(play).collect()
}

/// Runs a script under each protocol; returns it with the traces they left.
fn run(text: &str, protocols: &[Protocol]) -> String {
    let blocks = blocks(text);
    let traces: Vec<Vec<String>> = protocols.iter().map(|protocol| play(&blocks, *protocol)).collect();
    let mut result = String::new();
    for (number, block) in blocks.iter().enumerate() {
        result += block;
        let mut different: Vec<(&String, Vec<&str>)> = Vec::new();
        for (protocol, traces) in protocols.iter().zip(&traces) {
            match different.iter_mut().find(|(trace, _)| **trace == traces[number]) {
                Some((_, names)) => names.push(protocol.name()),
                None => different.push((&traces[number], vec![protocol.name()])),
            }
        }
        let agree = different.len() == 1;
        for (trace, names) in different {
            let names = if agree { String::new() } else { format!(" {}", names.join(" ")) };
            result += &format!("---{names}\n{trace}");
        }
    }
    result
}

fn scripts(directory: &Path, found: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(directory).expect("the directory is there");
    for path in entries.map(|entry| entry.expect("readable").path()) {
        if path.is_dir() {
            scripts(&path, found);
        } else if path.extension().is_none() {
            found.push(path);
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testscripts")
}

/// What a defect inside the kernel makes of a script: another trace, or a broken invariant.
#[test]
fn scripts_notice_planted_defects() {
    let planted = [
        ("raft/replicate_old_ballot_is_not_committed_by_counting", Protocol::Raft, Defect::CommitOldStamp),
        ("multi-paxos/replicate_keeps_the_suffix", Protocol::MultiPaxos, Defect::PaxosTruncates),
        ("all/snapshot_stale_is_not_wanted", Protocol::Raft, Defect::SnapshotRollback),
        ("all/membership_that_was_replaced_cannot_elect", Protocol::MultiPaxos, Defect::NoFixpoint),
        ("all/membership_that_was_replaced_cannot_elect", Protocol::Zab, Defect::NoFixpoint),
        ("all/membership_that_was_replaced_cannot_elect", Protocol::PaxosRaft, Defect::NoFixpoint),
    ];
    for (name, protocol, defect) in planted {
        let text = std::fs::read_to_string(root().join(name)).expect("readable");
        let blocks = blocks(&text);
        let sound = play(&blocks, protocol);
        plant(Some(defect));
        let result = std::panic::catch_unwind(|| play(&blocks, protocol));
        plant(None);
        assert!(result.is_err() || result.is_ok_and(|traces| traces != sound), "{} in {name}", defect.id());
    }
}

#[test]
fn scripts_leave_the_traces_they_promise() {
    let root = root();
    let mut found = Vec::new();
    scripts(&root, &mut found);
    found.sort();
    assert!(found.len() >= 35, "only {} scripts", found.len());
    let rewrite = std::env::var_os("REWRITE_TRACES").is_some();
    let mut wrong = Vec::new();
    for path in found {
        let text = std::fs::read_to_string(&path).expect("readable");
        assert!(text.starts_with('#'), "{} does not say what it shows", path.display());
        let name = path.strip_prefix(&root).expect("found below").display().to_string();
        let directory = name.split('/').next().expect("never empty");
        let one = directory.parse::<Protocol>().map(|protocol| vec![protocol]);
        let protocols = one.unwrap_or_else(|_| Protocol::ALL.to_vec());
        assert!(protocols.len() == 1 || directory == "all", "{name} is under no protocol's name");
        let Ok(actual) = std::panic::catch_unwind(|| run(&text, &protocols)) else {
            wrong.push(format!("{name}: broke"));
            continue;
        };
        if actual == text {
            continue;
        }
        if rewrite {
            std::fs::write(&path, actual).expect("writable");
            continue;
        }
        let difference = text.lines().zip(actual.lines()).find(|(expected, actual)| expected != actual);
        wrong.push(format!("{name}: expected, got: {difference:#?}"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
