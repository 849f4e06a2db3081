//! The formats, byte by byte, and the promise that decoding takes anything.

use std::collections::BTreeMap;

use base::codec::put_varint;
use proptest::prelude::*;

use super::*;

const fn at(index: u64, round: u64, node: u64) -> Position {
    Position { index: Index(index), stamp: Ballot::new(round, NodeId(node)) }
}

fn entry(index: u64, round: u64, kind: EntryKind, payload: &'static [u8]) -> Entry {
    let ballot = Ballot::new(round, NodeId(1));
    Entry { index: Index(index), stamp: ballot, origin: ballot, kind, payload: Bytes::from_static(payload) }
}

fn message(body: Body) -> Message {
    Message {
        group: GroupId(9),
        protocol: Protocol::Raft,
        from: ReplicaId(1),
        to: ReplicaId(300),
        ballot: Ballot::new(7, NodeId(1)),
        body,
    }
}

/// What follows version, tag and protocol: group 9, from 1, to 300, ballot (7, n1).
const HEADER: [u8; 6] = [9, 1, 0xac, 0x02, 7, 1];

fn check(body: Body, tag: u8, bytes: &[u8]) {
    let message = message(body);
    let mut out = Vec::new();
    encode(&message, &mut out);
    let mut expected = vec![1, tag, 1];
    expected.extend(HEADER);
    expected.extend(bytes);
    assert_eq!(out, expected, "{:?}", message.body);
    assert_eq!(decode(out.into()), Ok(message));
}

#[test]
fn messages_have_these_bytes() {
    let ballot = Ballot::new(6, NodeId(2));
    let pre_vote = Body::PreVote { last: at(5, 6, 2), accepted: ballot, commit: Index(3), membership: Index(4) };
    check(pre_vote, 1, &[5, 6, 2, 6, 2, 3, 4]);
    check(Body::PreVoteReply { granted: true, promised: ballot }, 2, &[1, 6, 2]);
    let elect =
        Body::Elect { last: at(5, 6, 2), accepted: Ballot::ZERO, commit: Index(3), forced: true, membership: Index(4) };
    check(elect, 3, &[5, 6, 2, 0, 0, 3, 1, 4]);
    let reply = Body::ElectReply {
        granted: true,
        promised: ballot,
        accepted: Ballot::ZERO,
        commit: Index(3),
        last: at(5, 6, 2),
        suffix: Suffix { from: Index(5), entries: vec![entry(5, 6, EntryKind::Command, b"x")].into() }.into(),
    };
    check(reply, 4, &[1, 6, 2, 0, 0, 3, 5, 6, 2, 5, 1, 5, 2, 6, 1, 6, 1, 1, b'x']);
    let append = Body::Append {
        prev: at(4, 6, 2),
        entries: vec![
            entry(5, 7, EntryKind::EpochStart, b""),
            entry(6, 7, EntryKind::Command, b"ab"),
            entry(7, 8, EntryKind::Config, b"c"),
        ]
        .into(),
        commit: Index(4),
        sync_index: Index(5),
        confirm_seq: 130,
        preferred: 9,
    };
    let entries = [3, 5, 1, 7, 1, 7, 1, 0, 0x82, 2, b'a', b'b', 3, 8, 1, 8, 1, 1, b'c'];
    check(append, 5, &[[4, 6, 2, 4, 5, 0x82, 0x01, 9].as_slice(), &entries].concat());
    let (hint, promised) = (at(3, 2, 1), ballot);
    let reply = Body::AppendReply { ok: false, matched: Index(0), hint, promised, confirm_seq: 2, priority: 7 };
    check(reply, 6, &[0, 0, 3, 2, 1, 6, 2, 2, 7]);
    check(Body::ReadIndex { id: ReadId(5) }, 7, &[5]);
    check(Body::ReadIndexReply { id: ReadId(5), at: Ok(Index(8)) }, 8, &[5, 0, 8]);
    check(Body::ReadIndexReply { id: ReadId(5), at: Err(Refusal::NotLeader(Some(NodeId(2)))) }, 8, &[5, 1, 2]);
    check(Body::ReadIndexReply { id: ReadId(5), at: Err(Refusal::NotLeader(None)) }, 8, &[5, 1, 0]);
    check(Body::ReadIndexReply { id: ReadId(5), at: Err(Refusal::NotReady) }, 8, &[5, 2]);
    check(Body::TimeoutNow { last: at(5, 6, 2) }, 9, &[5, 6, 2]);
    check(Body::SnapshotInstalled { position: at(5, 6, 2) }, 10, &[5, 6, 2]);
    check(Body::Removed { index: Index(4) }, 11, &[4]);
    check(Body::FetchLog { from: Index(4) }, 12, &[4]);
    let part = Body::FetchLogReply { from: Index(5), entries: vec![entry(5, 6, EntryKind::Command, b"x")].into() };
    check(part, 13, &[5, 1, 5, 2, 6, 1, 6, 1, 1, b'x']);
}

fn membership() -> Membership {
    Membership {
        voters: [ReplicaId(1), ReplicaId(4)].into(),
        outgoing: [ReplicaId(1), ReplicaId(2)].into(),
        learners: [ReplicaId(5)].into(),
        nodes: BTreeMap::from([1, 2, 4, 5].map(|number| (ReplicaId(number), NodeId(number + 10)))),
        index: Index(6),
    }
}

const MEMBERSHIP: [u8; 18] = [6, 4, 1, 11, 2, 12, 4, 14, 5, 15, 2, 1, 4, 2, 1, 2, 1, 5];

#[test]
fn marks_entries_and_changes_have_these_bytes() {
    let mark = Mark { position: at(8, 3, 1), max_origin: Ballot::new(3, NodeId(1)), membership: membership().into() };
    let mut out = Vec::new();
    encode_mark(&mark, &mut out);
    assert_eq!(out, [[1, 8, 3, 1, 3, 1].as_slice(), &MEMBERSHIP].concat());
    assert_eq!(decode_mark(out.into()), Ok(mark));

    let entry = entry(5, 6, EntryKind::Command, b"xy");
    let mut out = Vec::new();
    encode_entry(&entry, &mut out);
    assert_eq!(out, [5, 6, 1, 6, 1, 2, 2, b'x', b'y']);
    assert_eq!(decode_entry(&mut Reader::new(out.into())), Ok(entry));

    let mut out = Vec::new();
    put_change(&mut out, Index(3), &membership());
    assert_eq!(out, [[1, 3].as_slice(), &MEMBERSHIP].concat());
    assert_eq!(decode_change(out.into()), Ok((Index(3), membership())));
}

#[test]
fn other_versions_protocols_and_tags_are_refused() {
    let mut out = Vec::new();
    encode(&message(Body::ReadIndex { id: ReadId(5) }), &mut out);
    for (place, value, what) in [(0, 2, "version"), (1, 99, "body tag"), (1, 0, "body tag"), (2, 9, "protocol")] {
        let mut bytes = out.clone();
        bytes[place] = value;
        assert_eq!(decode(bytes.into()).map_err(|error| error.what), Err(what));
    }
    out.push(0);
    assert_eq!(decode(out.into()).map_err(|error| error.what), Err("end of message"));
}

#[test]
fn a_count_that_the_input_cannot_hold_is_refused_before_anything_is_allocated() {
    let mut out = vec![1, APPEND, 1];
    out.extend(HEADER);
    out.extend([4, 6, 2, 4, 5, 1, 0]);
    put_varint(&mut out, u64::MAX);
    assert_eq!(decode(out.into()).map_err(|error| error.what), Err("number of entries"));
}

#[test]
fn payloads_are_slices_of_the_input() {
    let body = Body::Append {
        prev: at(4, 6, 2),
        entries: vec![entry(5, 7, EntryKind::Command, b"a payload that is shared")].into(),
        commit: Index(4),
        sync_index: Index(5),
        confirm_seq: 1,
        preferred: 0,
    };
    let mut out = Vec::new();
    encode(&message(body), &mut out);
    let input = Bytes::from(out);
    let range = input.as_ptr_range();
    let Ok(Message { body: Body::Append { entries, .. }, .. }) = decode(input.clone()) else { panic!("decodes") };
    assert!(range.contains(&entries[0].payload.as_ptr()));
}

fn any_ballot() -> impl Strategy<Value = Ballot> {
    (any::<u64>(), any::<u64>()).prop_map(|(round, node)| Ballot::new(round, NodeId(node)))
}

fn any_position() -> impl Strategy<Value = Position> {
    (any::<u64>(), any_ballot()).prop_map(|(index, stamp)| Position { index: Index(index), stamp })
}

fn any_entries() -> impl Strategy<Value = Entries> {
    let kind = prop_oneof![Just(EntryKind::EpochStart), Just(EntryKind::Command), Just(EntryKind::Config)];
    let one = (any_ballot(), any_ballot(), kind, proptest::collection::vec(any::<u8>(), 0..20));
    (0..u64::MAX / 2, proptest::collection::vec(one, 0..6)).prop_map(|(first, list)| {
        let entry = |(offset, (stamp, origin, kind, payload)): (u64, (Ballot, Ballot, EntryKind, Vec<u8>))| Entry {
            index: Index(first + offset),
            stamp,
            origin,
            kind,
            payload: payload.into(),
        };
        (0..).zip(list).map(entry).collect()
    })
}

fn any_body() -> impl Strategy<Value = Body> {
    prop_oneof![
        (any_position(), any_ballot(), any::<u64>()).prop_map(|(last, accepted, index)| {
            Body::PreVote { last, accepted, commit: Index(index), membership: Index(index) }
        }),
        (any::<u64>(), any_entries()).prop_map(|(from, entries)| Body::FetchLogReply { from: Index(from), entries }),
        (any_position(), any_ballot(), any::<u64>(), any::<bool>()).prop_map(|(last, accepted, commit, forced)| {
            Body::Elect { last, accepted, commit: Index(commit), forced, membership: Index(commit) }
        }),
        (any::<bool>(), any_ballot(), any_position(), any::<u64>(), any_entries()).prop_map(
            |(granted, promised, last, commit, entries)| Body::ElectReply {
                granted,
                promised,
                accepted: promised,
                commit: Index(commit),
                last,
                suffix: Suffix { from: Index(commit), entries }.into(),
            }
        ),
        (any_position(), any_entries(), any::<u64>(), any::<u64>()).prop_map(|(prev, entries, commit, confirm_seq)| {
            let preferred = confirm_seq.to_le_bytes()[0];
            Body::Append { prev, entries, commit: Index(commit), sync_index: Index(commit), confirm_seq, preferred }
        }),
        (any::<bool>(), any::<u64>(), any_position(), any_ballot(), any::<u64>()).prop_map(
            |(ok, matched, hint, promised, confirm_seq)| Body::AppendReply {
                ok,
                matched: Index(matched),
                hint,
                promised,
                confirm_seq,
                priority: confirm_seq.to_le_bytes()[0],
            }
        ),
    ]
}

proptest! {
    #[test]
    fn messages_round_trip(body in any_body(), ballot in any_ballot(), from in any::<u64>(), to in any::<u64>()) {
        let message = Message { from: ReplicaId(from), to: ReplicaId(to), ballot, ..message(body) };
        let mut out = Vec::new();
        encode(&message, &mut out);
        prop_assert_eq!(decode(out.into()), Ok(message));
    }

    #[test]
    fn any_bytes_decode_or_are_refused(tag in 0u8..15, bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        let framed: Vec<u8> = [[1, tag, 1].as_slice(), &bytes].concat();
        let _ = decode(framed.into());
        let _ = decode_mark([[1].as_slice(), &bytes].concat().into());
        let _ = decode_change(bytes.clone().into());
        let _ = decode_entry(&mut Reader::new(bytes.into()));
    }

    #[test]
    fn a_cut_or_flipped_message_never_panics(
        body in any_body(),
        at in any::<prop::sample::Index>(),
        value in any::<u8>(),
    ) {
        let mut out = Vec::new();
        encode(&message(body), &mut out);
        let at = at.index(out.len());
        let _ = decode(Bytes::copy_from_slice(&out[..at]));
        out[at] = value;
        let _ = decode(out.into());
    }
}
