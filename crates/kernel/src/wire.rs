//! Bytes of messages, entries, marks and memberships. `docs/formats/kernel.md` draws them.
//!
//! Decoding takes any input: it never panics, never allocates more than the input can justify, and payloads are
//! slices of it. Every top-level value ends exactly where its input ends.

use std::collections::{BTreeMap, BTreeSet};

use base::codec::{put_bytes, put_varint};
use base::{Ballot, DecodeError, GroupId, Index, NodeId, Reader, ReplicaId};
use bytes::Bytes;

use crate::config::Protocol;
use crate::entries::Entries;
use crate::entry::{Entry, EntryKind, Mark, Position};
use crate::membership::Membership;
use crate::message::{Body, Message, Suffix};
use crate::ready::{ReadId, Refusal};

/// Version of every format in this file; the first byte of a message and of a mark.
const VERSION: u8 = 1;

/// Appends `message`.
pub fn encode(message: &Message, out: &mut Vec<u8>) {
    out.push(VERSION);
    out.push(body_tag(&message.body));
    out.push(message.protocol.id());
    put_varint(out, message.group.0);
    put_varint(out, message.from.0);
    put_varint(out, message.to.0);
    put_ballot(out, message.ballot);
    put_body(out, &message.body);
}

/// Reads a message that fills `input`.
pub fn decode(input: Bytes) -> Result<Message, DecodeError> {
    let mut reader = Reader::new(input);
    version(&mut reader)?;
    let tag = reader.u8("body tag")?;
    let protocol = reader.u8("protocol")?;
    let protocol = Protocol::from_id(protocol).ok_or_else(|| reader.error("protocol"))?;
    let message = Message {
        protocol,
        group: GroupId(reader.varint("group")?),
        from: ReplicaId(reader.varint("from")?),
        to: ReplicaId(reader.varint("to")?),
        ballot: ballot(&mut reader)?,
        body: body(&mut reader, tag)?,
    };
    reader.finish("end of message")?;
    Ok(message)
}

/// Appends `mark`.
pub fn encode_mark(mark: &Mark, out: &mut Vec<u8>) {
    out.push(VERSION);
    put_position(out, mark.position);
    put_ballot(out, mark.max_origin);
    encode_membership(&mark.membership, out);
}

/// Reads a mark that fills `input`.
pub fn decode_mark(input: Bytes) -> Result<Mark, DecodeError> {
    let mut reader = Reader::new(input);
    version(&mut reader)?;
    let mark = Mark {
        position: position(&mut reader)?,
        max_origin: ballot(&mut reader)?,
        membership: decode_membership(&mut reader)?.into(),
    };
    reader.finish("end of mark")?;
    Ok(mark)
}

/// Appends `entry`.
pub fn encode_entry(entry: &Entry, out: &mut Vec<u8>) {
    put_varint(out, entry.index.0);
    put_ballot(out, entry.stamp);
    put_ballot(out, entry.origin);
    out.push(entry.kind as u8);
    put_bytes(out, &entry.payload);
}

/// Reads one entry.
pub fn decode_entry(reader: &mut Reader) -> Result<Entry, DecodeError> {
    Ok(Entry {
        index: index(reader)?,
        stamp: ballot(reader)?,
        origin: ballot(reader)?,
        kind: entry_kind(reader)?,
        payload: reader.bytes("payload")?,
    })
}

/// Appends `membership`.
pub fn encode_membership(membership: &Membership, out: &mut Vec<u8>) {
    put_varint(out, membership.index.0);
    put_varint(out, membership.nodes.len() as u64);
    for (replica, node) in &membership.nodes {
        put_varint(out, replica.0);
        put_varint(out, node.0);
    }
    for set in [&membership.voters, &membership.outgoing, &membership.learners] {
        put_varint(out, set.len() as u64);
        for replica in set {
            put_varint(out, replica.0);
        }
    }
}

/// Reads one membership. Whether it makes sense is asked elsewhere; that lists ascend without repetition is asked here,
/// so that equal memberships have equal bytes.
pub fn decode_membership(reader: &mut Reader) -> Result<Membership, DecodeError> {
    let index = index(reader)?;
    let mut nodes = BTreeMap::new();
    for _ in 0..reader.varint("number of nodes")? {
        let replica = ReplicaId(reader.varint("replica")?);
        if nodes.last_key_value().is_some_and(|(last, _)| *last >= replica) {
            return Err(reader.error("replica order"));
        }
        nodes.insert(replica, NodeId(reader.varint("node")?));
    }
    let mut set = || -> Result<BTreeSet<ReplicaId>, DecodeError> {
        let mut set = BTreeSet::new();
        for _ in 0..reader.varint("number of replicas")? {
            let replica = ReplicaId(reader.varint("replica")?);
            if set.last().is_some_and(|last| *last >= replica) {
                return Err(reader.error("replica order"));
            }
            set.insert(replica);
        }
        Ok(set)
    };
    Ok(Membership { voters: set()?, outgoing: set()?, learners: set()?, nodes, index })
}

/// Appends the payload of a config entry.
pub(crate) fn put_change(out: &mut Vec<u8>, base: Index, next: &Membership) {
    out.push(VERSION);
    put_varint(out, base.0);
    encode_membership(next, out);
}

/// Reads the payload of a config entry: the index of the membership it replaces, and the new one.
pub(crate) fn decode_change(input: Bytes) -> Result<(Index, Membership), DecodeError> {
    let mut reader = Reader::new(input);
    version(&mut reader)?;
    let base = index(&mut reader)?;
    let next = decode_membership(&mut reader)?;
    reader.finish("end of change")?;
    Ok((base, next))
}

const PRE_VOTE: u8 = 1;
const PRE_VOTE_REPLY: u8 = 2;
const ELECT: u8 = 3;
const ELECT_REPLY: u8 = 4;
const APPEND: u8 = 5;
const APPEND_REPLY: u8 = 6;
const READ_INDEX: u8 = 7;
const READ_INDEX_REPLY: u8 = 8;
const TIMEOUT_NOW: u8 = 9;
const SNAPSHOT_INSTALLED: u8 = 10;
const REMOVED: u8 = 11;
const FETCH_LOG: u8 = 12;
const FETCH_LOG_REPLY: u8 = 13;

const fn body_tag(body: &Body) -> u8 {
    match body {
        Body::PreVote { .. } => PRE_VOTE,
        Body::PreVoteReply { .. } => PRE_VOTE_REPLY,
        Body::Elect { .. } => ELECT,
        Body::ElectReply { .. } => ELECT_REPLY,
        Body::Append { .. } => APPEND,
        Body::AppendReply { .. } => APPEND_REPLY,
        Body::ReadIndex { .. } => READ_INDEX,
        Body::ReadIndexReply { .. } => READ_INDEX_REPLY,
        Body::TimeoutNow { .. } => TIMEOUT_NOW,
        Body::SnapshotInstalled { .. } => SNAPSHOT_INSTALLED,
        Body::Removed { .. } => REMOVED,
        Body::FetchLog { .. } => FETCH_LOG,
        Body::FetchLogReply { .. } => FETCH_LOG_REPLY,
    }
}

fn put_body(out: &mut Vec<u8>, body: &Body) {
    match body {
        Body::PreVote { last, accepted, commit, membership } => {
            put_position(out, *last);
            put_ballot(out, *accepted);
            put_varint(out, commit.0);
            put_varint(out, membership.0);
        }
        Body::PreVoteReply { granted, promised } => {
            out.push(u8::from(*granted));
            put_ballot(out, *promised);
        }
        Body::Elect { last, accepted, commit, forced, membership } => {
            put_position(out, *last);
            put_ballot(out, *accepted);
            put_varint(out, commit.0);
            out.push(u8::from(*forced));
            put_varint(out, membership.0);
        }
        Body::ElectReply { granted, promised, accepted, commit, last, suffix } => {
            out.push(u8::from(*granted));
            put_ballot(out, *promised);
            put_ballot(out, *accepted);
            put_varint(out, commit.0);
            put_position(out, *last);
            put_varint(out, suffix.from.0);
            put_entries(out, &suffix.entries);
        }
        Body::Append { prev, entries, commit, sync_index, confirm_seq, preferred } => {
            put_position(out, *prev);
            put_varint(out, commit.0);
            put_varint(out, sync_index.0);
            put_varint(out, *confirm_seq);
            out.push(*preferred);
            put_entries(out, entries);
        }
        Body::AppendReply { ok, matched, hint, promised, confirm_seq, priority } => {
            out.push(u8::from(*ok));
            put_varint(out, matched.0);
            put_position(out, *hint);
            put_ballot(out, *promised);
            put_varint(out, *confirm_seq);
            out.push(*priority);
        }
        Body::ReadIndex { id } => put_varint(out, id.0),
        Body::ReadIndexReply { id, at } => {
            put_varint(out, id.0);
            put_read_answer(out, at);
        }
        Body::TimeoutNow { last } => put_position(out, *last),
        Body::SnapshotInstalled { position } => put_position(out, *position),
        Body::Removed { index } => put_varint(out, index.0),
        Body::FetchLog { from } => put_varint(out, from.0),
        Body::FetchLogReply { from, entries } => {
            put_varint(out, from.0);
            put_entries(out, entries);
        }
    }
}

fn body(reader: &mut Reader, tag: u8) -> Result<Body, DecodeError> {
    Ok(match tag {
        PRE_VOTE => Body::PreVote {
            last: position(reader)?,
            accepted: ballot(reader)?,
            commit: index(reader)?,
            membership: index(reader)?,
        },
        PRE_VOTE_REPLY => Body::PreVoteReply { granted: flag(reader)?, promised: ballot(reader)? },
        ELECT => Body::Elect {
            last: position(reader)?,
            accepted: ballot(reader)?,
            commit: index(reader)?,
            forced: flag(reader)?,
            membership: index(reader)?,
        },
        ELECT_REPLY => Body::ElectReply {
            granted: flag(reader)?,
            promised: ballot(reader)?,
            accepted: ballot(reader)?,
            commit: index(reader)?,
            last: position(reader)?,
            suffix: Suffix { from: index(reader)?, entries: entries(reader)? }.into(),
        },
        APPEND => Body::Append {
            prev: position(reader)?,
            commit: index(reader)?,
            sync_index: index(reader)?,
            confirm_seq: reader.varint("confirm_seq")?,
            preferred: reader.u8("preferred")?,
            entries: entries(reader)?,
        },
        APPEND_REPLY => Body::AppendReply {
            ok: flag(reader)?,
            matched: index(reader)?,
            hint: position(reader)?,
            promised: ballot(reader)?,
            confirm_seq: reader.varint("confirm_seq")?,
            priority: reader.u8("priority")?,
        },
        READ_INDEX => Body::ReadIndex { id: ReadId(reader.varint("read id")?) },
        READ_INDEX_REPLY => Body::ReadIndexReply { id: ReadId(reader.varint("read id")?), at: read_answer(reader)? },
        TIMEOUT_NOW => Body::TimeoutNow { last: position(reader)? },
        SNAPSHOT_INSTALLED => Body::SnapshotInstalled { position: position(reader)? },
        REMOVED => Body::Removed { index: index(reader)? },
        FETCH_LOG => Body::FetchLog { from: index(reader)? },
        FETCH_LOG_REPLY => Body::FetchLogReply { from: index(reader)?, entries: entries(reader)? },
        _ => return Err(reader.error("body tag")),
    })
}

fn put_read_answer(out: &mut Vec<u8>, at: &Result<Index, Refusal>) {
    match at {
        Ok(at) => {
            out.push(0);
            put_varint(out, at.0);
        }
        Err(Refusal::NotLeader(leader)) => {
            out.push(1);
            put_varint(out, leader.map_or(0, |node| node.0));
        }
        Err(Refusal::NotReady) => out.push(2),
        Err(Refusal::Overloaded) => out.push(3),
        Err(Refusal::TooLarge) => out.push(4),
        Err(Refusal::MembershipBusy) => out.push(5),
        Err(Refusal::BadMembership) => out.push(6),
    }
}

fn read_answer(reader: &mut Reader) -> Result<Result<Index, Refusal>, DecodeError> {
    Ok(match reader.u8("read answer")? {
        0 => Ok(index(reader)?),
        1 => Err(Refusal::NotLeader(Some(NodeId(reader.varint("leader")?)).filter(|node| node.0 != 0))),
        2 => Err(Refusal::NotReady),
        3 => Err(Refusal::Overloaded),
        4 => Err(Refusal::TooLarge),
        5 => Err(Refusal::MembershipBusy),
        6 => Err(Refusal::BadMembership),
        _ => return Err(reader.error("read answer")),
    })
}

/// Entries of one message have consecutive indexes and mostly equal ballots: the first index is written once, and a
/// ballot pair only where it differs from the entry before.
fn put_entries(out: &mut Vec<u8>, entries: &[Entry]) {
    put_varint(out, entries.len() as u64);
    let Some(first) = entries.first() else { return };
    put_varint(out, first.index.0);
    let mut previous = (Ballot::ZERO, Ballot::ZERO);
    for entry in entries {
        let ballots = (entry.stamp, entry.origin);
        let repeated = ballots == previous;
        out.push(entry.kind as u8 | if repeated { REPEATED } else { 0 });
        if !repeated {
            put_ballot(out, entry.stamp);
            put_ballot(out, entry.origin);
        }
        put_bytes(out, &entry.payload);
        previous = ballots;
    }
}

/// Set in the kind byte of an entry with the ballots of the entry before it.
const REPEATED: u8 = 0x80;

fn entries(reader: &mut Reader) -> Result<Entries, DecodeError> {
    let count = reader.varint("number of entries")?;
    // An entry takes two bytes at least, so a count beyond that is a lie and must not size an allocation.
    let count = usize::try_from(count).ok().filter(|count| *count <= reader.remaining() / 2);
    let count = count.ok_or_else(|| reader.error("number of entries"))?;
    if count == 0 {
        return Ok(Entries::default());
    }
    let first = index(reader)?;
    if first.0.checked_add(count as u64).is_none() {
        return Err(reader.error("index"));
    }
    let mut entries = Vec::new();
    let (mut stamp, mut origin) = (Ballot::ZERO, Ballot::ZERO);
    for offset in 0..count as u64 {
        let tag = reader.u8("entry kind")?;
        let kind = kind_of(tag & !REPEATED).ok_or_else(|| reader.error("entry kind"))?;
        if tag & REPEATED == 0 {
            (stamp, origin) = (ballot(reader)?, ballot(reader)?);
        }
        let payload = reader.bytes("payload")?;
        entries.push(Entry { index: Index(first.0 + offset), stamp, origin, kind, payload });
    }
    Ok(entries.into())
}

const fn kind_of(kind: u8) -> Option<EntryKind> {
    match kind {
        1 => Some(EntryKind::EpochStart),
        2 => Some(EntryKind::Command),
        3 => Some(EntryKind::Config),
        _ => None,
    }
}

fn entry_kind(reader: &mut Reader) -> Result<EntryKind, DecodeError> {
    let kind = reader.u8("entry kind")?;
    kind_of(kind).ok_or_else(|| reader.error("entry kind"))
}

fn version(reader: &mut Reader) -> Result<(), DecodeError> {
    if reader.u8("version")? == VERSION { Ok(()) } else { Err(reader.error("version")) }
}

fn flag(reader: &mut Reader) -> Result<bool, DecodeError> {
    match reader.u8("flag")? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(reader.error("flag")),
    }
}

fn index(reader: &mut Reader) -> Result<Index, DecodeError> {
    reader.varint("index").map(Index)
}

fn put_ballot(out: &mut Vec<u8>, ballot: Ballot) {
    put_varint(out, ballot.round);
    put_varint(out, ballot.node.0);
}

fn ballot(reader: &mut Reader) -> Result<Ballot, DecodeError> {
    Ok(Ballot::new(reader.varint("round")?, NodeId(reader.varint("node")?)))
}

fn put_position(out: &mut Vec<u8>, position: Position) {
    put_varint(out, position.index.0);
    put_ballot(out, position.stamp);
}

fn position(reader: &mut Reader) -> Result<Position, DecodeError> {
    Ok(Position { index: index(reader)?, stamp: ballot(reader)? })
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
