//! Fences: "do this only while KEY still is the one that was created at revision TOKEN".
//!
//! A client that believes to hold a lock may have lost it a moment ago. It names the lock's key and the token it got,
//! in the metadata of a put, delete or transaction; both become a compare that is judged with the write itself, so
//! nothing a former holder sends can be done after somebody else has the lock. See `docs/locks.md`.
//!
//! ```text
//! sinew-fence: KEY=TOKEN            keys of printable characters; the last "=" separates
//! sinew-fence-bin: KEY=TOKEN        any keys; gRPC's encoding for bytes
//! ```
//!
//! Either may be given several times: all must hold.

use base::Revision;
use bytes::Bytes;
use mvcc::{Compare, CompareResult, CompareTarget, Op, Txn};
use tonic::Status;
use tonic::metadata::MetadataMap;

const TEXT: &str = "sinew-fence";
const BINARY: &str = "sinew-fence-bin";
/// Fences of one request.
const FENCES_MAX: usize = 16;

/// What must still hold for a request to be done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Fences(Vec<Compare>);

impl Fences {
    /// The fences in a request's metadata; mostly none.
    pub(crate) fn read(metadata: &MetadataMap) -> Result<Self, Status> {
        let mut fences = Vec::new();
        for value in metadata.get_all(TEXT) {
            fences.push(parse(value.as_encoded_bytes())?);
        }
        for value in metadata.get_all_bin(BINARY) {
            fences.push(parse(&value.to_bytes().map_err(|_| malformed())?)?);
        }
        if fences.len() > FENCES_MAX {
            return Err(Status::invalid_argument(format!("sinew: more than {FENCES_MAX} fences in one request")));
        }
        Ok(Self(fences))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The transaction that does `op` if all fences hold, and nothing otherwise.
    pub(crate) fn guard(&self, op: Op) -> Txn {
        Txn { compares: self.0.clone(), success: vec![op], failure: Vec::new() }
    }

    /// The answer when they do not hold.
    pub(crate) fn lost(&self) -> Status {
        let held: Vec<_> = self
            .0
            .iter()
            .map(|fence| match fence.target {
                CompareTarget::CreateRevision(token) => format!("{}={}", fence.key.escape_ascii(), token.0),
                _ => unreachable!("fences compare create revisions"),
            })
            .collect();
        Status::failed_precondition(format!("sinew: fence does not hold, nothing was done: {}", held.join(", ")))
    }
}

fn malformed() -> Status {
    Status::invalid_argument("sinew: malformed fence, write KEY=TOKEN; the token is the create revision of the key")
}

fn parse(text: &[u8]) -> Result<Compare, Status> {
    let at = text.iter().rposition(|byte| *byte == b'=').ok_or_else(malformed)?;
    let token = std::str::from_utf8(&text[at + 1..]).ok().and_then(|token| token.parse::<i64>().ok());
    // Zero would mean that the key must not exist, which no holder of a lock can want to say.
    let token = token.filter(|token| *token > 0).ok_or_else(malformed)?;
    if at == 0 {
        return Err(malformed());
    }
    Ok(Compare {
        key: Bytes::copy_from_slice(&text[..at]),
        range_end: Bytes::new(),
        result: CompareResult::Equal,
        target: CompareTarget::CreateRevision(Revision(token)),
    })
}

#[cfg(test)]
mod tests {
    use tonic::metadata::MetadataValue;

    use super::*;

    fn fence(key: &'static [u8], token: i64) -> Compare {
        parse(&[key, b"=", token.to_string().as_bytes()].concat()).expect("well formed")
    }

    #[test]
    fn fences_are_read_from_both_kinds_of_metadata() {
        let mut metadata = MetadataMap::new();
        assert!(Fences::read(&metadata).expect("none").is_empty());
        metadata.append(TEXT, "lock/a=b=17".parse().expect("text"));
        metadata.append_bin(BINARY, MetadataValue::from_bytes(b"\0\xff=3"));
        let fences = Fences::read(&metadata).expect("two");
        assert_eq!(fences, Fences(vec![fence(b"lock/a=b", 17), fence(b"\0\xff", 3)]));
        let text = fences.lost();
        assert!(text.message().contains("lock/a=b=17") && text.code() == tonic::Code::FailedPrecondition, "{text}");
    }

    #[test]
    fn what_is_not_a_fence_is_refused() {
        for wrong in ["", "key", "key=", "key=x", "key=0", "key=-1", "=5", "key=5 "] {
            assert!(parse(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
    }
}
