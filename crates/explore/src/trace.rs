//! Steps in words, for people: `host 2 receives [1→2 1.n1] Elect {..}; sends ..; leads 1.n1`.

use kernel::{Body, Entry, EntryKind, Lapse, Message, Position};

use crate::host::{Event, Input, Packet, needs_atomic_batches};
use crate::lab::{Lab, Outcome};

/// The step of host `number` that `input` led to: what happened, and one line for each thing that came of it.
pub(crate) fn describe(lab: &Lab, number: u64, host: u32, input: Input, stays: bool, outcome: &Outcome) -> Vec<String> {
    let what = match input {
        Input::Deliver(packet, lapse) => {
            let copy = if stays { " (a copy stays in the network)" } else { "" };
            let insists = if lapse == Lapse::Nothing { " and has just heard its leader" } else { "" };
            format!("receives {}{copy}{insists}", packet_text(lab.packets.get(packet)))
        }
        Input::Campaign => "hears no leader for an election timeout".to_owned(),
        Input::StepDown => "hears no quorum for an election timeout".to_owned(),
        Input::Heartbeat => "is due to send heartbeats".to_owned(),
        Input::HandoverExpires => "gives up the handover".to_owned(),
        Input::Persist => "has its oldest batch on stable storage".to_owned(),
        Input::Crash { kept } => {
            let unsynced = lab.hosts.get(host).disk.unsynced(needs_atomic_batches(lab.config.protocol));
            format!("crashes and starts again; {kept} of {unsynced} unsynced pieces survive")
        }
        Input::Propose { value } => format!("is asked to propose command {value}"),
        Input::Read { id } => format!("is asked for read {id}"),
        Input::Change => "is asked to change the membership".to_owned(),
        Input::Transfer { to } => format!("is asked to hand over to host {to}"),
        Input::Compact => "makes its state durable and compacts its log".to_owned(),
    };
    let mut lines = vec![format!("host {number} {what}")];
    lines.extend(outcome.events.iter().map(|event| format!("    {}", event_text(event))));
    lines.extend(outcome.sent.iter().map(|packet| format!("    sends {}", packet_text(lab.packets.get(*packet)))));
    let after = lab.hosts.get(outcome.host);
    let status = after.replica.status();
    let log: Vec<String> = after.disk.written().log.values().map(entry_text).collect();
    let unsynced = after.disk.unsynced(false);
    let (role, ballot, commit) = (status.role, status.ballot, status.commit);
    lines.push(format!("    is {role:?} of {ballot}, commit {commit}, log [{}], {unsynced} unsynced", log.join(" ")));
    lines
}

fn event_text(event: &Event) -> String {
    match event {
        Event::Led(ballot) => format!("leads {ballot}"),
        Event::HandedOut(out) => {
            let effect = if out.effective { "" } else { " without effect" };
            format!("hands out {}={} {:?}{effect}", out.index, out.origin, out.kind)
        }
        Event::Read(done) => format!("answers {:?}: {:?}", done.id, done.at),
        Event::Restarted => "starts from its disk".to_owned(),
    }
}

fn packet_text(packet: &Packet) -> String {
    match packet {
        Packet::Message(Message { from, to, ballot, body, .. }) => {
            format!("[{}→{} {ballot}] {}", from.0, to.0, body_text(body))
        }
        Packet::Snapshot { from, to, ballot, mark } => {
            format!("[{}→{} {ballot}] snapshot up to {}", from.0, to.0, mark.position.index)
        }
    }
}

fn body_text(body: &Body) -> String {
    let position = |at: &Position| format!("{}={}", at.index, at.stamp);
    let joined = |entries: &[Entry]| entries.iter().map(entry_text).collect::<Vec<_>>().join(" ");
    match body {
        Body::PreVote { last, .. } => format!("PreVote, log to {}", position(last)),
        Body::PreVoteReply { granted, promised } => format!("PreVoteReply {granted}, promised {promised}"),
        Body::Elect { last, commit, forced, .. } => {
            let forced = if *forced { ", forced" } else { "" };
            format!("Elect, log to {}, commit {commit}{forced}", position(last))
        }
        Body::ElectReply { granted, promised, last, suffix, .. } => {
            format!(
                "ElectReply {granted}, promised {promised}, log to {}, with [{}]",
                position(last),
                joined(&suffix.entries)
            )
        }
        Body::Append { prev, entries, commit, confirm_seq, .. } => {
            format!("Append #{confirm_seq} after {}: [{}], commit {commit}", position(prev), joined(entries))
        }
        Body::AppendReply { ok: true, matched, hint, confirm_seq, .. } => {
            let staged = if *hint == Position::default() { String::new() } else { format!(", staged {}", hint.index) };
            format!("AppendReply #{confirm_seq}, holds {matched}{staged}")
        }
        Body::AppendReply { ok: false, hint, promised, confirm_seq, .. } => {
            format!("AppendReply #{confirm_seq} refuses, promised {promised}, try after {}", position(hint))
        }
        Body::FetchLog { from } => format!("FetchLog from {from}"),
        Body::FetchLogReply { from, entries } => format!("FetchLogReply from {from}: [{}]", joined(entries)),
        Body::ReadIndex { .. }
        | Body::ReadIndexReply { .. }
        | Body::TimeoutNow { .. }
        | Body::SnapshotInstalled { .. }
        | Body::Removed { .. } => format!("{body:?}"),
    }
}

/// `index=stamp`, with the origin where it differs and the beginning of the payload.
fn entry_text(entry: &Entry) -> String {
    let origin = if entry.origin == entry.stamp { String::new() } else { format!("(of {})", entry.origin) };
    let kind = match entry.kind {
        EntryKind::EpochStart => "M".to_owned(),
        EntryKind::Command => format!("C{}", entry.payload.first().copied().unwrap_or_default()),
        EntryKind::Config => "G".to_owned(),
    };
    format!("{}={}{origin}:{kind}", entry.index, entry.stamp)
}
