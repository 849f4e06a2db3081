//! Who the members are and where they listen, as the log knows it.
//!
//! Invariant: an id is given to one member, once: a removed one leaves a row behind, so that whoever comes back under
//! it is known for what it is. Who votes is not here: that is the membership of the group, which the kernel keeps. As
//! long as nothing was changed there are no rows, and the members are those every node was started with; the first
//! change writes them down.

use base::codec::{put_bytes, put_varint};
use base::{DecodeError, Fault, NodeId, Reader};
use bytes::Bytes;

use crate::engine::View;
use crate::keys;

const VERSION: u8 = 1;
const REMOVED: u8 = 1;
const PROMOTES: u8 = 2;

/// A member, or what is left of one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemberRecord {
    /// Which.
    pub id: NodeId,
    /// Its name; empty if only it knows that, as long as it has not been met.
    pub name: String,
    /// Where the others reach it.
    pub peer_urls: Vec<String>,
    /// It is to vote as soon as it has the others' data.
    pub promotes: bool,
    /// It is no member any more.
    pub removed: bool,
}

impl MemberRecord {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = vec![VERSION];
        self.write(&mut out);
        out.into()
    }

    fn decode(id: NodeId, row: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(row);
        if reader.u8("member version")? != VERSION {
            return Err(reader.error("member version"));
        }
        let member = Self::read(&mut reader, id)?;
        reader.finish("end of member")?;
        Ok(member)
    }

    /// Everything but the id.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.push(if self.removed { REMOVED } else { 0 } | if self.promotes { PROMOTES } else { 0 });
        put_bytes(out, self.name.as_bytes());
        write_urls(out, &self.peer_urls);
    }

    pub(crate) fn read(reader: &mut Reader, id: NodeId) -> Result<Self, DecodeError> {
        let flags = reader.u8("member flags")?;
        if flags & !(REMOVED | PROMOTES) != 0 {
            return Err(reader.error("member flags"));
        }
        let name = read_text(reader, "member name")?;
        let peer_urls = read_urls(reader)?;
        Ok(Self { id, name, peer_urls, promotes: flags & PROMOTES != 0, removed: flags & REMOVED != 0 })
    }

    /// Whether both are members that want to be reached at the same place.
    pub(crate) fn collides(&self, other: &Self) -> bool {
        let both_are_members = self.id != other.id && !self.removed && !other.removed;
        both_are_members && self.peer_urls.iter().any(|url| other.peer_urls.contains(url))
    }
}

pub(crate) fn write_urls(out: &mut Vec<u8>, urls: &[String]) {
    put_varint(out, urls.len() as u64);
    for url in urls {
        put_bytes(out, url.as_bytes());
    }
}

/// Each takes bytes of the input, so a count beyond it ends with the input.
pub(crate) fn read_urls(reader: &mut Reader) -> Result<Vec<String>, DecodeError> {
    let count = reader.varint("number of urls")?;
    let mut urls = Vec::new();
    for _ in 0..count {
        urls.push(read_text(reader, "url")?);
    }
    Ok(urls)
}

fn read_text(reader: &mut Reader, what: &'static str) -> Result<String, DecodeError> {
    let bytes = reader.bytes(what)?;
    String::from_utf8(bytes.to_vec()).map_err(|_| reader.error(what))
}

/// All members that were written down, removed ones too, by id; none as long as nothing was changed.
pub fn members(view: &dyn View) -> Result<Vec<MemberRecord>, Fault> {
    let (from, to) = keys::member_bounds();
    view.scan(from, to)
        .map(|found| {
            let (row_key, row) = found?;
            let id = keys::read_member(&row_key)?;
            MemberRecord::decode(id, row)
                .map_err(|error| Fault::Corrupt { place: format!("row of member {id}"), detail: error.to_string() })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn member_rows_have_these_bytes() {
        let urls = vec!["http://a:1".to_owned(), "u".to_owned()];
        let member =
            MemberRecord { id: NodeId(7), name: "n".to_owned(), peer_urls: urls, promotes: true, removed: false };
        assert_eq!(member.encode().as_ref(), b"\x01\x02\x01n\x02\x0ahttp://a:1\x01u");
        assert_eq!(MemberRecord::decode(NodeId(7), member.encode()), Ok(member));
        for bytes in [&b""[..], b"\x02\0\0\0", b"\x01\x04\0\0", b"\x01\0\x01\xff\0", b"\x01\0\0\x01", b"\x01\0\0\0\0"] {
            assert!(MemberRecord::decode(NodeId(7), Bytes::copy_from_slice(bytes)).is_err(), "{bytes:?}");
        }
    }
}
