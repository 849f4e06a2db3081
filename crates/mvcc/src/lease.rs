//! Leases as the log knows them: which exist, how long they were granted for, which keys hang on them.
//!
//! Invariant: a key is attached to a lease exactly when its current row names it, so the keys of a lease are found
//! without looking at others. When a lease goes, all its keys go at one revision. Time is not here: who decides that a
//! lease is over is the leader's clock, and what it decided is checked against the *instance* of the lease. Instances
//! are numbered by a counter of the store, so a decision about a lease can never hit a later one of the same id.

use base::codec::put_varint;
use base::{DecodeError, Fault, LeaseId, Reader};
use bytes::Bytes;

use crate::engine::View;
use crate::keys;

const VERSION: u8 = 1;

/// A lease that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The lease.
    pub id: LeaseId,
    /// Which grant of that id it is.
    pub instance: u64,
    /// Seconds it was granted for, and is good for after each renewal.
    pub ttl_s: i64,
    /// Seconds that were left when the leader last wrote it down; 0 if it never did, or the lease was renewed since.
    pub remaining_s: i64,
}

/// What a command did to the table of leases, for the clock that decides when they are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseChange {
    /// It exists now.
    Granted(Lease),
    /// Its time left was written down, or cleared.
    Checkpointed {
        /// The lease.
        id: LeaseId,
        /// Seconds left; 0 means its whole time.
        remaining_s: i64,
    },
    /// It is no more.
    Gone(LeaseId),
}

impl Lease {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(16);
        out.push(VERSION);
        put_varint(&mut out, self.instance);
        put_varint(&mut out, self.ttl_s as u64);
        put_varint(&mut out, self.remaining_s as u64);
        out.into()
    }

    fn decode(id: LeaseId, row: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(row);
        if reader.u8("lease version")? != VERSION {
            return Err(reader.error("lease version"));
        }
        let instance = reader.varint("lease instance")?;
        let mut seconds = |what| i64::try_from(reader.varint(what)?).map_err(|_| reader.error(what));
        let lease = Self { id, instance, ttl_s: seconds("lease ttl")?, remaining_s: seconds("lease remaining")? };
        reader.finish("end of lease")?;
        Ok(lease)
    }
}

fn decoded(id: LeaseId, row: Bytes) -> Result<Lease, Fault> {
    Lease::decode(id, row)
        .map_err(|error| Fault::Corrupt { place: format!("row of lease {}", id.0), detail: error.to_string() })
}

/// The lease, if it exists.
pub fn lease(view: &dyn View, id: LeaseId) -> Result<Option<Lease>, Fault> {
    view.get(&keys::lease(id))?.map(|row| decoded(id, row)).transpose()
}

/// All leases, by id.
pub fn leases(view: &dyn View) -> Result<Vec<Lease>, Fault> {
    let (from, to) = keys::lease_bounds();
    view.scan(from, to)
        .map(|found| {
            let (row_key, row) = found?;
            decoded(keys::read_lease(&row_key)?, row)
        })
        .collect()
}

/// The keys attached to a lease, in order; nothing if they take more than `bytes_max` together.
pub fn attached(view: &dyn View, id: LeaseId, bytes_max: usize) -> Result<Option<Vec<Bytes>>, Fault> {
    let (from, to) = keys::attachment_bounds(id);
    let (mut found, mut bytes) = (Vec::new(), 0);
    for row in view.scan(from, to) {
        let key = keys::attached_key(&row?.0);
        bytes += key.len();
        if bytes > bytes_max {
            return Ok(None);
        }
        found.push(key);
    }
    Ok(Some(found))
}

/// A fingerprint of all leases and attachments of the latest state. Not part of [`hash`](crate::hash()), which is about
/// a revision: granting a lease moves none.
pub fn lease_hash(view: &dyn View) -> Result<u32, Fault> {
    let mut hash = 0;
    for (from, to) in [keys::lease_bounds(), keys::all_attachments()] {
        for found in view.scan(from, to) {
            let (row_key, row) = found?;
            for part in [row_key, row] {
                hash = crc32c::crc32c_append(hash, &(part.len() as u64).to_le_bytes());
                hash = crc32c::crc32c_append(hash, &part);
            }
        }
    }
    Ok(hash)
}

/// How many leases were ever granted: the instance of the last one.
pub(crate) fn granted(view: &dyn View) -> Result<u64, Fault> {
    let Some(row) = view.get(keys::LEASES_GRANTED)? else { return Ok(0) };
    let read = || {
        let mut reader = Reader::new(row);
        let granted = reader.varint("leases granted")?;
        reader.finish("end of leases granted")?;
        Ok(granted)
    };
    read().map_err(|error: DecodeError| Fault::Corrupt { place: "row mlease".into(), detail: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lease_rows_have_these_bytes() {
        let lease = Lease { id: LeaseId(7), instance: 300, ttl_s: 60, remaining_s: 5 };
        assert_eq!(lease.encode().as_ref(), b"\x01\xac\x02\x3c\x05");
        assert_eq!(Lease::decode(LeaseId(7), lease.encode()), Ok(lease));
        for bytes in [&b""[..], b"\x02\x01\x01\x01", b"\x01\x01\x01", b"\x01\x01\x01\x01\0"] {
            assert!(Lease::decode(LeaseId(7), Bytes::copy_from_slice(bytes)).is_err(), "{bytes:?}");
        }
    }
}
