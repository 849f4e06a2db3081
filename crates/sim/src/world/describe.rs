//! Messages in a few words.

use kernel::{Body, Message};
use node::{ForwardAnswer, PeerMessage};

/// One line about a message.
pub(super) fn describe(message: &PeerMessage) -> String {
    match message {
        PeerMessage::Group(Message { ballot, body, .. }) => format!("{} {ballot}", describe_body(body)),
        PeerMessage::Forward { id, payload, .. } => format!("forward {id:x} ({} bytes)", payload.len()),
        PeerMessage::ForwardReply { id, answer } => match answer {
            ForwardAnswer::Accepted { index, origin } => format!("forward {id:x} is at {index} of {origin}"),
            ForwardAnswer::Refused(refusal) => format!("forward {id:x} refused: {refusal:?}"),
        },
        PeerMessage::SnapshotChunk { id, sequence, mark, last, .. } => {
            let end = if *last { ", the last" } else { "" };
            format!("snapshot {:x} at {} chunk {sequence}{end}", id.0, mark.position.index)
        }
        PeerMessage::SnapshotAck { id, next } => format!("snapshot {:x} wants chunk {next}", id.0),
        PeerMessage::SnapshotRefused { id } => format!("snapshot {:x} refused", id.0),
        PeerMessage::LeaseAsk { id, lease, ask, .. } => format!("ask {id:x} about lease {:x}: {ask:?}", lease.0),
        PeerMessage::LeaseReply { id, answer } => format!("ask {id:x}: {answer:?}"),
    }
}

fn describe_body(body: &Body) -> String {
    match body {
        Body::PreVote { last, .. } => format!("pre-vote? log to {}@{}", last.index, last.stamp),
        Body::PreVoteReply { granted, .. } => format!("pre-vote {}", yes(*granted)),
        Body::Elect { last, forced, .. } => {
            let forced = if *forced { " (handover)" } else { "" };
            format!("vote?{forced} log to {}@{}", last.index, last.stamp)
        }
        Body::ElectReply { granted, .. } => format!("vote {}", yes(*granted)),
        Body::FetchLog { from } => format!("send me your log from {from}"),
        Body::FetchLogReply { from, entries } => format!("{} entries from {from}", entries.len()),
        Body::Append { prev, entries, commit, confirm_seq, .. } => match entries.last() {
            None => format!("heartbeat {confirm_seq} after {} commit {commit}", prev.index),
            Some(last) => {
                format!("append {confirm_seq} {}..={} commit {commit}", prev.index.next(), last.index)
            }
        },
        Body::AppendReply { ok: true, matched, confirm_seq, .. } => format!("appended {confirm_seq} to {matched}"),
        Body::AppendReply { ok: false, hint, confirm_seq, .. } => {
            format!("not appended {confirm_seq}, try after {}", hint.index)
        }
        Body::ReadIndex { id } => format!("read {:x}?", id.0),
        Body::ReadIndexReply { id, at } => match at {
            Ok(at) => format!("read {:x} at {at}", id.0),
            Err(refusal) => format!("read {:x} refused: {refusal:?}", id.0),
        },
        Body::TimeoutNow { last } => format!("take over, log to {}", last.index),
        Body::SnapshotInstalled { position } => format!("snapshot to {} is installed", position.index),
        Body::Removed { index } => format!("you were removed at {index}"),
    }
}

const fn yes(granted: bool) -> &'static str {
    if granted { "granted" } else { "refused" }
}
