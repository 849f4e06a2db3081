//! How a node with an empty disk finds out who it is: it asks the members of the cluster it was added to.
//!
//! Invariant: a node that lost its data gets no answer that lets it vote as its old self. Who has a vote has had the
//! data, since new members learn first; so whoever knows that a member votes, or has met other data of it, refuses.
//! More than half of the others must answer: among them is one that holds the decision which gave the vote.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use base::codec::{put_bytes, put_varint};
use base::{ClusterId, DecodeError, NodeId, Reader};
use bytes::{Bytes, BytesMut};

use crate::config::Config;
use crate::members::{self, Member};
use crate::peer::frame;

/// Opens every request: "SINEWJ" and the version of it.
const MAGIC: &[u8; 7] = b"SINEWJ\x01";
/// How long members that do not answer are asked again.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(250);
/// Bound on one attempt to reach one member.
const ATTEMPT: Duration = Duration::from_secs(3);
const MEMBERS_MAX: u64 = 1024;

/// "I am to be reached there: who am I?"
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JoinRequest {
    /// The random number of the data directory that is about to be made.
    pub(crate) incarnation: u64,
    pub(crate) peer_urls: Vec<String>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum JoinAnswer {
    /// You are this member.
    Welcome {
        cluster: ClusterId,
        node: NodeId,
        /// Number of the consensus protocol of group 0.
        protocol: u8,
        members: Vec<Member>,
    },
    /// You are not, for this reason.
    Refused(String),
}

/// What the members agree on.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) protocol: u8,
    pub(crate) members: Vec<Member>,
}

impl JoinRequest {
    /// Whether the first frame of a connection is one.
    pub(crate) fn is(body: &[u8]) -> bool {
        body.starts_with(MAGIC)
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.incarnation.to_le_bytes());
        put_texts(out, &self.peer_urls);
    }

    pub(crate) fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        for expected in MAGIC {
            if reader.u8("join magic")? != *expected {
                return Err(reader.error("join magic"));
            }
        }
        let request = Self { incarnation: reader.u64("incarnation")?, peer_urls: texts(&mut reader, "peer url")? };
        reader.finish("end of join request")?;
        Ok(request)
    }
}

impl JoinAnswer {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Welcome { cluster, node, protocol, members } => {
                out.push(1);
                put_varint(out, cluster.0);
                put_varint(out, node.0);
                out.push(*protocol);
                put_varint(out, members.len() as u64);
                for member in members {
                    put_varint(out, member.id.0);
                    put_bytes(out, member.name.as_bytes());
                    put_texts(out, &member.peer_urls);
                }
            }
            Self::Refused(reason) => {
                out.push(2);
                put_bytes(out, reason.as_bytes());
            }
        }
    }

    pub(crate) fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let answer = match reader.u8("join answer")? {
            1 => Self::Welcome {
                cluster: ClusterId(reader.varint("cluster id")?),
                node: NodeId(reader.varint("node id")?),
                protocol: reader.u8("consensus protocol")?,
                members: {
                    let count = count(&mut reader, "number of members")?;
                    (0..count).map(|_| read_member(&mut reader)).collect::<Result<_, _>>()?
                },
            },
            2 => Self::Refused(text(&mut reader, "reason")?),
            _ => return Err(reader.error("join answer")),
        };
        reader.finish("end of join answer")?;
        Ok(answer)
    }
}

fn read_member(reader: &mut Reader) -> Result<Member, DecodeError> {
    let id = NodeId(reader.varint("node id")?);
    let name = text(reader, "name")?;
    Ok(Member { id, name, peer_urls: texts(reader, "peer url")?, promotes: false })
}

fn put_texts(out: &mut Vec<u8>, texts: &[String]) {
    put_varint(out, texts.len() as u64);
    for text in texts {
        put_bytes(out, text.as_bytes());
    }
}

fn count(reader: &mut Reader, what: &'static str) -> Result<u64, DecodeError> {
    let count = reader.varint(what)?;
    if count > MEMBERS_MAX { Err(reader.error(what)) } else { Ok(count) }
}

fn texts(reader: &mut Reader, what: &'static str) -> Result<Vec<String>, DecodeError> {
    let count = count(reader, what)?;
    (0..count).map(|_| text(reader, what)).collect()
}

fn text(reader: &mut Reader, what: &'static str) -> Result<String, DecodeError> {
    String::from_utf8(reader.bytes(what)?.to_vec()).map_err(|_| reader.error(what))
}

/// Asks the members named in the flags, and those they name, until enough have answered; refusals are final.
///
/// # Errors
/// What to do about it.
pub(crate) fn ask(config: &Config, incarnation: u64) -> Result<Joined, String> {
    let request = JoinRequest { incarnation, peer_urls: config.initial_advertise_peer_urls.clone() };
    let mine = |url: &&String| request.peer_urls.contains(url);
    let named = config.initial_cluster.iter().filter(|member| member.name != config.name);
    let mut urls: Vec<String> = named.flat_map(|member| &member.peer_urls).filter(|url| !mine(url)).cloned().collect();
    if urls.is_empty() {
        return Err(String::from(
            "--initial-cluster-state existing, but --initial-cluster names no other member: name those of the cluster \
             to join, as `sinew member add` prints them",
        ));
    }
    let deadline = Instant::now() + PATIENCE;
    let mut answered: BTreeMap<String, Joined> = BTreeMap::new();
    let mut trouble = String::new();
    loop {
        for url in urls.clone() {
            if answered.contains_key(&url) {
                continue;
            }
            match attempt(&url, &request) {
                Ok(JoinAnswer::Refused(reason)) => return Err(format!("cannot join the cluster: {reason}")),
                Ok(JoinAnswer::Welcome { cluster, node, protocol, members }) => {
                    let others = members.iter().filter(|member| member.id != node).flat_map(|member| &member.peer_urls);
                    urls.extend(others.filter(|other| !urls.contains(other)).cloned().collect::<Vec<_>>());
                    answered.insert(url, Joined { cluster, node, protocol, members });
                }
                Err(error) => trouble = format!("{url}: {error}"),
            }
        }
        if let Some(joined) = agreed(&answered) {
            return Ok(joined);
        }
        if Instant::now() > deadline {
            return Err(format!(
                "cannot join the cluster: {} of its members answered, more than half of the others have to; {trouble}",
                answered.len()
            ));
        }
        std::thread::sleep(PAUSE);
    }
}

/// What more than half of the other members say, if they say the same.
fn agreed(answered: &BTreeMap<String, Joined>) -> Option<Joined> {
    let first = answered.values().next()?;
    let Joined { cluster, node, protocol, .. } = *first;
    // The longest list is that of whoever knows most.
    let members = answered.values().map(|joined| &joined.members).max_by_key(|members| members.len())?;
    let others = members.iter().filter(|member| member.id != node);
    let agree = |joined: &Joined| (joined.cluster, joined.node, joined.protocol) == (cluster, node, protocol);
    let heard = |member: &&Member| member.peer_urls.iter().any(|url| answered.get(url).is_some_and(agree));
    let (all, agreeing) = (others.clone().count(), others.filter(heard).count());
    (agreeing > all / 2).then(|| Joined { cluster, node, protocol, members: members.clone() })
}

fn attempt(url: &str, request: &JoinRequest) -> Result<JoinAnswer, String> {
    let place = members::host_and_port(url).ok_or("not a peer url")?;
    let addresses = place.to_socket_addrs().map_err(|error| error.to_string())?;
    let mut failed = String::from("the name has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, ATTEMPT) {
            Ok(stream) => return converse(stream, request),
            Err(error) => failed = error.to_string(),
        }
    }
    Err(failed)
}

fn converse(mut stream: TcpStream, request: &JoinRequest) -> Result<JoinAnswer, String> {
    let text = |error: std::io::Error| error.to_string();
    stream.set_read_timeout(Some(ATTEMPT)).map_err(text)?;
    let mut out = Vec::new();
    frame::put(&mut out, |out| request.encode(out));
    stream.write_all(&out).map_err(text)?;
    let mut input = BytesMut::new();
    loop {
        if let Some(body) = frame::take(&mut input).map_err(|error| error.to_string())? {
            return JoinAnswer::decode(body).map_err(|error| format!("it does not speak the peer protocol: {error}"));
        }
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk).map_err(text)? {
            0 => return Err(String::from("it closed the connection")),
            count => input.extend_from_slice(&chunk[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64) -> Member {
        Member { id: NodeId(id), name: "a".into(), peer_urls: vec![format!("u{id}")], promotes: false }
    }

    #[test]
    fn golden_bytes_and_no_prefix_is_accepted() {
        let request = JoinRequest { incarnation: 9, peer_urls: vec!["u".into()] };
        let mut out = Vec::new();
        request.encode(&mut out);
        assert_eq!(out, b"SINEWJ\x01\x09\0\0\0\0\0\0\0\x01\x01u");
        assert!(JoinRequest::is(&out) && JoinRequest::decode(out.clone().into()) == Ok(request));
        for cut in 0..out.len() {
            assert!(JoinRequest::decode(Bytes::copy_from_slice(&out[..cut])).is_err());
        }
        let welcome =
            JoinAnswer::Welcome { cluster: ClusterId(1), node: NodeId(2), protocol: 1, members: vec![member(3)] };
        let answers: [(JoinAnswer, &[u8]); 2] =
            [(welcome, b"\x01\x01\x02\x01\x01\x03\x01a\x01\x02u3"), (JoinAnswer::Refused("no".into()), b"\x02\x02no")];
        for (answer, golden) in answers {
            let mut out = Vec::new();
            answer.encode(&mut out);
            assert_eq!(out, golden);
            assert_eq!(JoinAnswer::decode(out.into()), Ok(answer));
        }
    }

    #[test]
    fn more_than_half_of_the_others_must_say_the_same() {
        let joined = |node: u64| Joined {
            cluster: ClusterId(1),
            node: NodeId(node),
            protocol: 1,
            members: vec![member(1), member(2), member(3), member(9)],
        };
        let mut answered = BTreeMap::new();
        assert!(agreed(&answered).is_none());
        answered.insert(String::from("u1"), joined(9));
        assert!(agreed(&answered).is_none(), "one of three");
        answered.insert(String::from("u2"), joined(8));
        assert!(agreed(&answered).is_none(), "they contradict each other");
        answered.insert(String::from("u3"), joined(9));
        assert_eq!(agreed(&answered).map(|joined| joined.node), Some(NodeId(9)));
    }
}
