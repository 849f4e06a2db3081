//! Deterministic refusals: the same on every replica, part of the answer, never an error of the node.
//!
//! Invariant: the text is what etcd sends, to the letter; clients match on it.

use base::{DecodeError, Reader};

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Reject {
    /// A request or compare without a key.
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    /// A key, or the end of a range, longer than [`KEY_BYTES_MAX`](base::limits::KEY_BYTES_MAX). Not known to etcd.
    #[error("etcdserver: key is too long: at most {} bytes are possible", base::limits::KEY_BYTES_MAX)]
    KeyTooLong,
    /// `ignore_value` or `ignore_lease` on a key that does not exist, or a transaction operation without content.
    #[error("etcdserver: key not found")]
    KeyNotFound,
    /// `ignore_value` together with a value.
    #[error("etcdserver: value is provided")]
    ValueProvided,
    /// `ignore_lease` together with a lease.
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    /// More operations than a transaction may have.
    #[error("etcdserver: too many operations in txn request")]
    TooManyOperations,
    /// A transaction that could write one key twice.
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    /// A sort order or target the protocol does not know.
    #[error("etcdserver: invalid sort option")]
    InvalidSortOption,
    /// The revision lies below the compaction floor.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    /// The revision has not been reached.
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    /// The lease of a put, or the one to be revoked, does not exist.
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    /// The lease to be granted exists.
    #[error("etcdserver: lease already exists")]
    LeaseExists,
    /// More seconds than a lease may have.
    #[error("etcdserver: too large lease TTL")]
    LeaseTtlTooLarge,
    /// A member is out of space, and the request would take more.
    #[error("etcdserver: mvcc: database space exceeded")]
    NoSpace,
    /// No member has that id.
    #[error("etcdserver: member not found")]
    MemberNotFound,
    /// The id of a new member was given away before.
    #[error("etcdserver: member ID already exist")]
    MemberExists,
    /// Another member wants to be reached at the same place.
    #[error("etcdserver: Peer URLs already exists")]
    PeerUrlsExist,
}

/// The gRPC status a refusal is sent as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// `INVALID_ARGUMENT`.
    InvalidArgument,
    /// `OUT_OF_RANGE`.
    OutOfRange,
    /// `NOT_FOUND`.
    NotFound,
    /// `FAILED_PRECONDITION`.
    FailedPrecondition,
    /// `RESOURCE_EXHAUSTED`.
    ResourceExhausted,
}

impl Reject {
    /// Every refusal, in the order of the codes they are encoded with.
    pub const ALL: [Self; 17] = [
        Self::EmptyKey,
        Self::KeyNotFound,
        Self::ValueProvided,
        Self::LeaseProvided,
        Self::TooManyOperations,
        Self::DuplicateKey,
        Self::InvalidSortOption,
        Self::Compacted,
        Self::FutureRevision,
        Self::LeaseNotFound,
        Self::KeyTooLong,
        Self::LeaseExists,
        Self::LeaseTtlTooLarge,
        Self::NoSpace,
        Self::MemberNotFound,
        Self::MemberExists,
        Self::PeerUrlsExist,
    ];

    /// The status it is sent as.
    #[must_use]
    pub const fn class(self) -> Class {
        match self {
            Self::EmptyKey
            | Self::KeyTooLong
            | Self::KeyNotFound
            | Self::ValueProvided
            | Self::LeaseProvided
            | Self::TooManyOperations
            | Self::DuplicateKey
            | Self::InvalidSortOption => Class::InvalidArgument,
            Self::Compacted | Self::FutureRevision | Self::LeaseTtlTooLarge => Class::OutOfRange,
            Self::LeaseNotFound | Self::MemberNotFound => Class::NotFound,
            Self::LeaseExists | Self::MemberExists | Self::PeerUrlsExist => Class::FailedPrecondition,
            Self::NoSpace => Class::ResourceExhausted,
        }
    }

    /// The code in an encoded outcome; codes are never reused.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::EmptyKey => 1,
            Self::KeyNotFound => 2,
            Self::ValueProvided => 3,
            Self::LeaseProvided => 4,
            Self::TooManyOperations => 5,
            Self::DuplicateKey => 6,
            Self::InvalidSortOption => 7,
            Self::Compacted => 8,
            Self::FutureRevision => 9,
            Self::LeaseNotFound => 10,
            Self::KeyTooLong => 11,
            Self::LeaseExists => 12,
            Self::LeaseTtlTooLarge => 13,
            Self::NoSpace => 14,
            Self::MemberNotFound => 15,
            Self::MemberExists => 16,
            Self::PeerUrlsExist => 17,
        }
    }

    pub(crate) fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        let code = reader.u8("reject code")?;
        Self::ALL.into_iter().find(|reject| reject.code() == code).ok_or_else(|| reader.error("reject code"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_one_to_one() {
        for (at, reject) in Reject::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(reject.code()), at + 1);
            assert_eq!(Reject::read(&mut Reader::new(vec![reject.code()].into())), Ok(reject));
        }
        assert!(Reject::read(&mut Reader::new(vec![0].into())).is_err());
        assert!(Reject::read(&mut Reader::new(vec![18].into())).is_err());
    }
}
