//! The ledger of promises: what a message says when it leaves must be durable at its sender, at that moment, whether or
//! not a crash follows. (Consensus design, invariant "acknowledged means durable".)

use base::{Ballot, Index};
use kernel::{Body, Entry, Message, Protocol};

use crate::disk::{Disk, Image};

/// What `message` promises without being able to keep it after a power failure. `commit` is how far its sender knows
/// the log to be decided.
///
/// A promise that a higher one has overtaken is no longer visible on the disk and need not be.
pub(crate) fn broken_promise(disk: &Disk, commit: Index, message: &Message) -> Option<String> {
    let durable = &disk.durable;
    // A log that does not reach the state machine's mark is replaced by it at the next start.
    let held = durable.last().max(disk.flushed.position.index);
    let (promised, ballot) = (durable.promised, message.ballot);
    let is_overtaken = promised > ballot;
    let is_kept = match &message.body {
        Body::Elect { .. } => promised >= ballot,
        Body::ElectReply { granted: true, accepted, suffix, .. } => {
            is_overtaken || (promised == ballot && durable.accepted == *accepted && shows(durable, &suffix.entries))
        }
        Body::FetchLogReply { entries, .. } => is_overtaken || (promised == ballot && shows(durable, entries)),
        Body::AppendReply { ok: true, matched, .. } => {
            let accepted = *matched <= commit || is_accepted(message.protocol, durable, *matched, ballot);
            is_overtaken || (promised == ballot && held >= *matched && accepted)
        }
        Body::AppendReply { ok: false, promised: told, .. }
        | Body::ElectReply { granted: false, promised: told, .. }
        | Body::PreVoteReply { promised: told, .. } => promised >= *told,
        Body::SnapshotInstalled { position } => durable.base.index >= position.index,
        Body::PreVote { .. }
        | Body::FetchLog { .. }
        | Body::Append { .. }
        | Body::ReadIndex { .. }
        | Body::ReadIndexReply { .. }
        | Body::TimeoutNow { .. }
        | Body::Removed { .. } => true,
    };
    (!is_kept).then(|| {
        let from = message.from.0;
        let last = durable.last();
        format!("I10: host {from} promises what is not durable (that is {promised}, log to {last}): {:?}", message.body)
    })
}

/// Whether the log on the disk holds what a vote tells.
fn shows(durable: &Image, entries: &[Entry]) -> bool {
    entries.iter().all(|entry| entry.index <= durable.base.index || durable.log.get(&entry.index) == Some(entry))
}

/// Where it is written in which ballot something was accepted: whether that is `ballot`.
fn is_accepted(protocol: Protocol, durable: &Image, matched: Index, ballot: Ballot) -> bool {
    match protocol {
        Protocol::Raft | Protocol::Zab => true,
        Protocol::MultiPaxos => durable.log.get(&matched).is_some_and(|entry| entry.stamp == ballot),
        Protocol::PaxosRaft => durable.accepted == ballot,
    }
}
