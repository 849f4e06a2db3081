//! What nodes say to each other, and how it is written down (`docs/formats/peer.md`).
//!
//! Decoding takes any bytes and never panics; a message that does not decode ends the connection it came on.

use base::codec::{put_bytes, put_varint, put_varint_signed};
use base::{Ballot, DecodeError, GroupId, Index, LeaseId, NodeId, Reader};
use bytes::Bytes;
use kernel::{Mark, Message, Refusal};

use crate::event::{LeaseAsk, SnapshotId};
use crate::lease_clock::LeaseTimes;

/// A message between nodes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerMessage {
    /// Between two replicas of a group.
    Group(Message),
    /// A client's command, handed to the leader's node.
    Forward {
        /// Unique for the sender's lifetime (and, being seeded at random, in practice over its restarts).
        id: u64,
        /// The group.
        group: GroupId,
        /// The encoded command.
        payload: Bytes,
    },
    /// Answer to [`PeerMessage::Forward`].
    ForwardReply {
        /// Echo.
        id: u64,
        /// What became of the command.
        answer: ForwardAnswer,
    },
    /// A piece of a snapshot for a follower that is too far behind for the log.
    SnapshotChunk {
        /// The group.
        group: GroupId,
        /// The sending leader's ballot.
        ballot: Ballot,
        /// Which.
        id: SnapshotId,
        /// Number of the chunk, from 0.
        sequence: u64,
        /// What the snapshot contains.
        mark: Mark,
        /// Encoded rows.
        chunk: Bytes,
        /// Nothing comes after this chunk.
        last: bool,
    },
    /// The receiver of a snapshot stored everything below `next`.
    SnapshotAck {
        /// Which.
        id: SnapshotId,
        /// The chunk it wants now.
        next: u64,
    },
    /// The receiver does not want the snapshot (any more).
    SnapshotRefused {
        /// Which.
        id: SnapshotId,
    },
    /// A client's renewal of a lease or question about one, handed to the leader's node.
    LeaseAsk {
        /// Like that of [`PeerMessage::Forward`].
        id: u64,
        /// The group.
        group: GroupId,
        /// The lease.
        lease: LeaseId,
        /// What is wanted.
        ask: LeaseAsk,
    },
    /// Answer to [`PeerMessage::LeaseAsk`].
    LeaseReply {
        /// Echo.
        id: u64,
        /// The answer.
        answer: LeaseReply,
    },
}

/// What the leader's node says about a lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeaseReply {
    /// What it has left.
    Times(LeaseTimes),
    /// There is no such lease.
    NotFound,
    /// It cannot tell; ask again, or somebody else.
    Refused(Refusal),
}

/// What became of a forwarded command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ForwardAnswer {
    /// It has this place in the leader's log. Whoever asked learns its outcome when it applies that index itself: if
    /// the entry there has this origin it is the command, else the command surely has no effect.
    Accepted {
        /// The index.
        index: Index,
        /// The leader's ballot.
        origin: Ballot,
    },
    /// Surely not done.
    Refused(Refusal),
}

const GROUP: u8 = 1;
const FORWARD: u8 = 2;
const FORWARD_REPLY: u8 = 3;
const SNAPSHOT_CHUNK: u8 = 4;
const SNAPSHOT_ACK: u8 = 5;
const SNAPSHOT_REFUSED: u8 = 6;
const LEASE_ASK: u8 = 7;
const LEASE_REPLY: u8 = 8;

impl PeerMessage {
    /// Appends the encoded message to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Group(message) => {
                out.push(GROUP);
                kernel::wire::encode(message, out);
            }
            Self::Forward { id, group, payload } => {
                out.push(FORWARD);
                put_varint(out, *id);
                put_varint(out, group.0);
                put_bytes(out, payload);
            }
            Self::ForwardReply { id, answer } => {
                out.push(FORWARD_REPLY);
                put_varint(out, *id);
                answer.encode(out);
            }
            Self::SnapshotChunk { group, ballot, id, sequence, mark, chunk, last } => {
                out.push(SNAPSHOT_CHUNK);
                put_varint(out, group.0);
                put_varint(out, ballot.round);
                put_varint(out, ballot.node.0);
                put_varint(out, id.0);
                put_varint(out, *sequence);
                out.push(u8::from(*last));
                let mut encoded = Vec::new();
                kernel::wire::encode_mark(mark, &mut encoded);
                put_bytes(out, &encoded);
                put_bytes(out, chunk);
            }
            Self::SnapshotAck { id, next } => {
                out.push(SNAPSHOT_ACK);
                put_varint(out, id.0);
                put_varint(out, *next);
            }
            Self::SnapshotRefused { id } => {
                out.push(SNAPSHOT_REFUSED);
                put_varint(out, id.0);
            }
            Self::LeaseAsk { id, group, lease, ask } => {
                out.push(LEASE_ASK);
                put_varint(out, *id);
                put_varint(out, group.0);
                put_varint_signed(out, lease.0);
                out.push(match ask {
                    LeaseAsk::KeepAlive => 1,
                    LeaseAsk::TimeToLive => 2,
                });
            }
            Self::LeaseReply { id, answer } => {
                out.push(LEASE_REPLY);
                put_varint(out, *id);
                answer.encode(out);
            }
        }
    }

    /// Reads one message; everything in `input` must belong to it.
    pub fn decode(input: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(input);
        let message = match reader.u8("peer message kind")? {
            GROUP => {
                let rest = reader.remaining();
                return kernel::wire::decode(reader.take(rest, "group message")?).map(Self::Group);
            }
            FORWARD => Self::Forward {
                id: reader.varint("forward id")?,
                group: GroupId(reader.varint("group")?),
                payload: reader.bytes("forwarded command")?,
            },
            FORWARD_REPLY => {
                Self::ForwardReply { id: reader.varint("forward id")?, answer: ForwardAnswer::decode(&mut reader)? }
            }
            SNAPSHOT_CHUNK => Self::SnapshotChunk {
                group: GroupId(reader.varint("group")?),
                ballot: Ballot::new(reader.varint("ballot")?, NodeId(reader.varint("ballot")?)),
                id: SnapshotId(reader.varint("snapshot id")?),
                sequence: reader.varint("chunk number")?,
                last: reader.u8("last chunk flag")? != 0,
                mark: kernel::wire::decode_mark(reader.bytes("snapshot mark")?)?,
                chunk: reader.bytes("snapshot chunk")?,
            },
            SNAPSHOT_ACK => {
                Self::SnapshotAck { id: SnapshotId(reader.varint("snapshot id")?), next: reader.varint("next chunk")? }
            }
            SNAPSHOT_REFUSED => Self::SnapshotRefused { id: SnapshotId(reader.varint("snapshot id")?) },
            LEASE_ASK => Self::LeaseAsk {
                id: reader.varint("lease ask id")?,
                group: GroupId(reader.varint("group")?),
                lease: LeaseId(reader.varint_signed("lease")?),
                ask: match reader.u8("lease ask")? {
                    1 => LeaseAsk::KeepAlive,
                    2 => LeaseAsk::TimeToLive,
                    _ => return Err(reader.error("lease ask")),
                },
            },
            LEASE_REPLY => {
                Self::LeaseReply { id: reader.varint("lease ask id")?, answer: LeaseReply::decode(&mut reader)? }
            }
            _ => return Err(DecodeError { what: "peer message kind", at: 0 }),
        };
        reader.finish("end of peer message")?;
        Ok(message)
    }
}

impl ForwardAnswer {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Accepted { index, origin } => {
                out.push(1);
                put_varint(out, index.0);
                put_varint(out, origin.round);
                put_varint(out, origin.node.0);
            }
            Self::Refused(refusal) => {
                out.push(2);
                out.push(refusal_code(*refusal));
            }
        }
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match reader.u8("forward answer")? {
            1 => Self::Accepted {
                index: Index(reader.varint("index")?),
                origin: Ballot::new(reader.varint("origin")?, NodeId(reader.varint("origin")?)),
            },
            2 => Self::Refused(refusal(reader)?),
            _ => return Err(reader.error("forward answer")),
        })
    }
}

impl LeaseReply {
    fn encode(self, out: &mut Vec<u8>) {
        match self {
            Self::Times(LeaseTimes { ttl_s, remaining_s }) => {
                out.push(1);
                put_varint_signed(out, ttl_s);
                put_varint_signed(out, remaining_s);
            }
            Self::NotFound => out.push(2),
            Self::Refused(why) => {
                out.push(3);
                out.push(refusal_code(why));
            }
        }
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match reader.u8("lease answer")? {
            1 => Self::Times(LeaseTimes {
                ttl_s: reader.varint_signed("lease ttl")?,
                remaining_s: reader.varint_signed("lease remaining")?,
            }),
            2 => Self::NotFound,
            3 => Self::Refused(refusal(reader)?),
            _ => return Err(reader.error("lease answer")),
        })
    }
}

/// The leader's idea of who leads instead does not travel: the asking node has its own.
fn refusal_code(refusal: Refusal) -> u8 {
    match refusal {
        Refusal::NotLeader(_) => 1,
        Refusal::NotReady => 2,
        Refusal::Overloaded => 3,
        Refusal::TooLarge => 4,
        Refusal::MembershipBusy => 5,
        Refusal::BadMembership => 6,
    }
}

fn refusal(reader: &mut Reader) -> Result<Refusal, DecodeError> {
    Ok(match reader.u8("refusal")? {
        1 => Refusal::NotLeader(None),
        2 => Refusal::NotReady,
        3 => Refusal::Overloaded,
        4 => Refusal::TooLarge,
        5 => Refusal::MembershipBusy,
        6 => Refusal::BadMembership,
        _ => return Err(reader.error("refusal")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(message: PeerMessage, golden: &[u8]) {
        let mut out = Vec::new();
        message.encode(&mut out);
        assert_eq!(out, golden, "{message:?}");
        assert_eq!(PeerMessage::decode(out.clone().into()), Ok(message));
        for cut in 0..out.len() {
            assert!(PeerMessage::decode(Bytes::copy_from_slice(&out[..cut])).is_err(), "cut at {cut} was accepted");
        }
        out.push(0);
        assert!(PeerMessage::decode(out.into()).is_err(), "trailing byte was accepted");
    }

    #[test]
    fn golden_bytes() {
        check(
            PeerMessage::Forward { id: 300, group: GroupId(0), payload: Bytes::from_static(b"ab") },
            &[FORWARD, 0xac, 0x02, 0, 2, b'a', b'b'],
        );
        let answers = [
            (
                ForwardAnswer::Accepted { index: Index(300), origin: Ballot::new(2, NodeId(3)) },
                &[FORWARD_REPLY, 7, 1, 0xac, 0x02, 2, 3][..],
            ),
            (ForwardAnswer::Refused(Refusal::Overloaded), &[FORWARD_REPLY, 7, 2, 3]),
        ];
        for (answer, golden) in answers {
            check(PeerMessage::ForwardReply { id: 7, answer }, golden);
        }
        check(PeerMessage::SnapshotAck { id: SnapshotId(1), next: 2 }, &[SNAPSHOT_ACK, 1, 2]);
        check(PeerMessage::SnapshotRefused { id: SnapshotId(1) }, &[SNAPSHOT_REFUSED, 1]);
        for (ask, code) in [(LeaseAsk::KeepAlive, 1), (LeaseAsk::TimeToLive, 2)] {
            let message = PeerMessage::LeaseAsk { id: 300, group: GroupId(0), lease: LeaseId(-2), ask };
            check(message, &[LEASE_ASK, 0xac, 0x02, 0, 3, code]);
        }
        let answers = [
            (LeaseReply::Times(LeaseTimes { ttl_s: 60, remaining_s: 5 }), &[LEASE_REPLY, 7, 1, 120, 10][..]),
            (LeaseReply::NotFound, &[LEASE_REPLY, 7, 2]),
            (LeaseReply::Refused(Refusal::NotLeader(None)), &[LEASE_REPLY, 7, 3, 1]),
        ];
        for (answer, golden) in answers {
            check(PeerMessage::LeaseReply { id: 7, answer }, golden);
        }
    }
}
