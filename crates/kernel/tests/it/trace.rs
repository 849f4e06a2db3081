//! How a trace is written down: one line per event.
//!
//! `n1@2.n1 -> n2 Append 3@1.n1 [4@2.n1 a, 5@2.n1 *] commit=3 #7` is: node 1, speaking in ballot (round 2, node 1),
//! sends node 2 entries 4 (command `a`) and 5 (a marker) that follow entry 3 of ballot (1, n1); 7 is the confirmation
//! number.

use base::Ballot;
use kernel::{Body, Entry, EntryKind, Membership, Message, Position, Record};

use crate::world::Event;

pub(crate) fn event(event: &Event) -> String {
    match event {
        Event::Sent(message) => self::message(message),
        Event::Role(host, role) => format!("n{host} is {role:?}"),
        Event::Committed(host, committed, effective) => {
            let void = if *effective { "" } else { " void" };
            format!("n{host} applies {}{void}", entry(committed))
        }
        Event::Read(host, done) => match done.at {
            Ok(at) => format!("n{host} read {} at {at}", done.id.0),
            Err(refusal) => format!("n{host} read {} refused: {refusal:?}", done.id.0),
        },
        Event::SnapshotWanted(from, to) => format!("n{from} wants to send n{to} a snapshot"),
        Event::Wrote(host, records) => {
            let follows = |before: &Record, after: &Record| match (before, after) {
                (Record::Append(before), Record::Append(after)) => {
                    before[before.len() - 1].index.next() == after[0].index
                }
                _ => false,
            };
            let records: Vec<String> = records.chunk_by(follows).map(joined).collect();
            format!("n{host} writes {}", records.join("; "))
        }
        Event::Loaded(host, load) => format!("n{host} loads {}..{} for n{}", load.from, load.until, load.to.0),
    }
}

pub(crate) fn message(message: &Message) -> String {
    let Message { from, to, ballot, .. } = message;
    format!("n{}@{ballot} -> n{} {}", from.0, to.0, body(&message.body))
}

fn body(body: &Body) -> String {
    match body {
        Body::PreVote { last, membership, .. } => format!("PreVote last={} members@{membership}", position(*last)),
        Body::PreVoteReply { granted, promised } => format!("PreVoteReply {} promised={promised}", yes(*granted)),
        Body::Elect { last, commit, forced, membership, .. } => {
            let forced = if *forced { " forced" } else { "" };
            format!("Elect last={} commit={commit}{forced} members@{membership}", position(*last))
        }
        Body::ElectReply { granted, promised, suffix, last, .. } => {
            let suffix = match suffix.entries.last() {
                None => String::new(),
                Some(end) if end.index == last.index => format!(" with [{}]", entries(&suffix.entries)),
                Some(_) => format!(" with {}..{} up to {}", suffix.from, entries(&suffix.entries), last.index),
            };
            format!("ElectReply {} promised={promised}{suffix}", yes(*granted))
        }
        Body::FetchLog { from } => format!("FetchLog from {from}"),
        Body::FetchLogReply { from, entries } => format!("FetchLogReply from {from} [{}]", self::entries(entries)),
        Body::Append { prev, entries, commit, confirm_seq, preferred, .. } => {
            let (prev, entries, preferred) =
                (position(*prev), self::entries(entries), priority("preferred", *preferred));
            format!("Append {prev} [{entries}] commit={commit} #{confirm_seq}{preferred}")
        }
        Body::AppendReply { ok: true, matched, hint, confirm_seq, priority, .. } => {
            let priority = self::priority("priority", *priority);
            let staged = if hint.index > *matched { format!(" staged {}", hint.index) } else { String::new() };
            format!("AppendReply ok {matched}{staged} #{confirm_seq}{priority}")
        }
        Body::AppendReply { ok: false, hint, promised, confirm_seq, .. } => {
            format!("AppendReply no, try {} promised={promised} #{confirm_seq}", position(*hint))
        }
        // The number is drawn at random.
        Body::ReadIndex { .. } => "ReadIndex".into(),
        Body::ReadIndexReply { at, .. } => format!("ReadIndexReply {at:?}"),
        Body::TimeoutNow { last } => format!("TimeoutNow last={}", position(*last)),
        Body::SnapshotInstalled { position } => format!("SnapshotInstalled {}", self::position(*position)),
        Body::Removed { index } => format!("Removed members@{index}"),
    }
}

fn priority(name: &str, priority: u8) -> String {
    if priority == 0 { String::new() } else { format!(" {name}={priority}") }
}

const fn yes(granted: bool) -> &'static str {
    if granted { "yes" } else { "no" }
}

pub(crate) fn position(position: Position) -> String {
    if position == Position::default() { "0".into() } else { format!("{}@{}", position.index, position.stamp) }
}

/// Long runs of entries show their ends.
fn entries(entries: &[Entry]) -> String {
    let mut words: Vec<String> = entries.iter().map(entry).collect();
    if words.len() > 8 {
        words.splice(2..words.len() - 1, ["..".to_owned()]);
    }
    words.join(", ")
}

pub(crate) fn entry(entry: &Entry) -> String {
    let what = match entry.kind {
        EntryKind::EpochStart => "*".into(),
        EntryKind::Command if entry.payload.len() > 40 => format!("<{} bytes>", entry.payload.len()),
        EntryKind::Command => String::from_utf8_lossy(&entry.payload).into_owned(),
        EntryKind::Config => "members".into(),
    };
    format!("{} {what}", position(entry.position()))
}

/// One record, or several that append one after the other: how entries are spread over records means nothing.
fn joined(records: &[Record]) -> String {
    let appended = |record: &Record| match record {
        Record::Append(entries) => entries.to_vec(),
        Record::Hard { .. } | Record::Truncate { .. } | Record::Compact { .. } => Vec::new(),
    };
    match records {
        [one] => record(one),
        several => record(&Record::Append(several.iter().flat_map(appended).collect())),
    }
}

fn record(record: &Record) -> String {
    match record {
        Record::Hard { promised, accepted, commit } => {
            let accepted = if *accepted == Ballot::ZERO { String::new() } else { format!(" accepted {accepted}") };
            format!("promise {promised}{accepted} commit={commit}")
        }
        Record::Append(entries) => format!("[{}]", self::entries(entries)),
        Record::Truncate { from } => format!("cut from {from}"),
        Record::Compact { base, keep_suffix } => {
            format!("base {}{}", position(*base), if *keep_suffix { "" } else { " without suffix" })
        }
    }
}

pub(crate) fn membership(membership: &Membership) -> String {
    let set = |set: &std::collections::BTreeSet<base::ReplicaId>| {
        set.iter().map(|replica| replica.0.to_string()).collect::<Vec<_>>().join(",")
    };
    let mut text = format!("{{{}}}", set(&membership.voters));
    if !membership.outgoing.is_empty() {
        text += &format!(" leaving {{{}}}", set(&membership.outgoing));
    }
    if !membership.learners.is_empty() {
        text += &format!(" learners {{{}}}", set(&membership.learners));
    }
    text
}
