//! The first frame in each direction of a peer connection: who are you, and may you talk to me?
//!
//! The dialling node introduces itself; the accepting node answers with itself, or with the reason it refuses.

use base::codec::{put_bytes, put_varint};
use base::{ClusterId, DecodeError, NodeId, Reader};
use bytes::Bytes;

/// Opens every hello: "SINEW" and the version of the peer protocol.
const MAGIC: &[u8; 6] = b"SINEW\x01";

/// Who speaks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Hello {
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    /// Whom the speaker believes to have reached; 0 when it accepts.
    pub(crate) to: NodeId,
    /// Number of the consensus protocol of group 0.
    pub(crate) protocol: u8,
    /// The random number of the speaker's data directory.
    pub(crate) incarnation: u64,
    pub(crate) name: String,
    pub(crate) client_urls: Vec<String>,
}

/// The answer of the accepting side.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Welcome {
    /// Talk; this is me.
    Accepted(Hello),
    /// Go away, for this reason.
    Refused(String),
    /// You have lost the data you had: stop.
    Forgetful(String),
}

impl Hello {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(MAGIC);
        put_varint(out, self.cluster.0);
        put_varint(out, self.node.0);
        put_varint(out, self.to.0);
        out.push(self.protocol);
        out.extend_from_slice(&self.incarnation.to_le_bytes());
        put_bytes(out, self.name.as_bytes());
        put_varint(out, self.client_urls.len() as u64);
        for url in &self.client_urls {
            put_bytes(out, url.as_bytes());
        }
    }

    pub(crate) fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let hello = Self::read(&mut reader)?;
        reader.finish("end of hello")?;
        Ok(hello)
    }

    fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        if reader.take(MAGIC.len(), "peer protocol magic")? != MAGIC[..] {
            return Err(DecodeError { what: "peer protocol magic", at: 0 });
        }
        Ok(Self {
            cluster: ClusterId(reader.varint("cluster id")?),
            node: NodeId(reader.varint("node id")?),
            to: NodeId(reader.varint("node id")?),
            protocol: reader.u8("consensus protocol")?,
            incarnation: reader.u64("incarnation")?,
            name: text(reader, "name")?,
            client_urls: {
                let count = reader.varint("number of client urls")?;
                if count > 64 {
                    return Err(reader.error("number of client urls"));
                }
                (0..count).map(|_| text(reader, "client url")).collect::<Result<_, _>>()?
            },
        })
    }
}

impl Welcome {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Accepted(hello) => {
                out.push(1);
                hello.encode(out);
            }
            Self::Refused(reason) => {
                out.push(2);
                put_bytes(out, reason.as_bytes());
            }
            Self::Forgetful(reason) => {
                out.push(3);
                put_bytes(out, reason.as_bytes());
            }
        }
    }

    pub(crate) fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let welcome = match reader.u8("welcome")? {
            1 => Self::Accepted(Hello::read(&mut reader)?),
            2 => Self::Refused(text(&mut reader, "reason")?),
            3 => Self::Forgetful(text(&mut reader, "reason")?),
            _ => return Err(DecodeError { what: "welcome", at: 0 }),
        };
        reader.finish("end of welcome")?;
        Ok(welcome)
    }
}

fn text(reader: &mut Reader, what: &'static str) -> Result<String, DecodeError> {
    let bytes = reader.bytes(what)?;
    if bytes.len() > 4096 {
        return Err(reader.error(what));
    }
    String::from_utf8(bytes.to_vec()).map_err(|_| reader.error(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            cluster: ClusterId(1),
            node: NodeId(2),
            to: NodeId(3),
            protocol: 1,
            incarnation: 9,
            name: "a".into(),
            client_urls: vec!["u".into()],
        }
    }

    #[test]
    fn golden_bytes_and_no_prefix_is_accepted() {
        let mut out = Vec::new();
        Welcome::Accepted(hello()).encode(&mut out);
        assert_eq!(out, b"\x01SINEW\x01\x01\x02\x03\x01\x09\0\0\0\0\0\0\0\x01a\x01\x01u");
        assert_eq!(Welcome::decode(out.clone().into()), Ok(Welcome::Accepted(hello())));
        assert_eq!(Hello::decode(Bytes::copy_from_slice(&out[1..])), Ok(hello()));
        for cut in 0..out.len() {
            assert!(Welcome::decode(Bytes::copy_from_slice(&out[..cut])).is_err());
        }
        assert!(Hello::decode(Bytes::from_static(b"GET / HTTP/1.1\r\n")).is_err());
    }

    #[test]
    fn refusals_have_these_bytes() {
        let refusals: [(Welcome, &[u8]); 2] =
            [(Welcome::Refused("no".into()), b"\x02\x02no"), (Welcome::Forgetful("no".into()), b"\x03\x02no")];
        for (welcome, golden) in refusals {
            let mut out = Vec::new();
            welcome.encode(&mut out);
            assert_eq!(out, golden);
            assert_eq!(Welcome::decode(out.into()), Ok(welcome));
        }
    }
}
