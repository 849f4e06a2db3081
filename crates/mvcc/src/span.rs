//! A set of user keys as the protocol writes it: one key, a half-open range, or everything from a key on.
//!
//! Invariant: this is the only place that reads etcd's `range_end` conventions.

use std::ops::Bound;

use bytes::Bytes;

/// A set of user keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Span {
    /// Exactly this key.
    Key(Bytes),
    /// Keys from the first (included) to the second (excluded); empty when they cross.
    Range(Bytes, Bytes),
    /// This key and all greater ones.
    From(Bytes),
}

impl Span {
    /// Reads `key` and `range_end`: an empty end means the key alone, a single zero byte means no upper end.
    #[must_use]
    pub fn new(key: &Bytes, range_end: &Bytes) -> Self {
        match range_end.as_ref() {
            [] => Self::Key(key.clone()),
            [0] => Self::From(key.clone()),
            _ => Self::Range(key.clone(), range_end.clone()),
        }
    }

    /// The whole keyspace.
    #[must_use]
    pub fn all() -> Self {
        Self::From(Bytes::new())
    }

    /// Whether `key` belongs to the set.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::Key(only) => key == only,
            Self::Range(from, end) => key >= from && key < end,
            Self::From(from) => key >= from,
        }
    }

    /// Whether no key of the store lies outside; stored keys have at least one byte.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        matches!(self, Self::From(from) if from.as_ref() <= [0].as_slice())
    }

    /// The smallest key the set could hold.
    #[must_use]
    pub fn start(&self) -> &Bytes {
        match self {
            Self::Key(start) | Self::Range(start, _) | Self::From(start) => start,
        }
    }

    /// The bound behind the largest key the set could hold.
    #[must_use]
    pub fn end(&self) -> Bound<&Bytes> {
        match self {
            Self::Key(only) => Bound::Included(only),
            Self::Range(_, end) => Bound::Excluded(end),
            Self::From(_) => Bound::Unbounded,
        }
    }

    /// The keys of this set that are not below `key`.
    #[must_use]
    pub fn starting_at(&self, key: Bytes) -> Self {
        match self {
            Self::Key(only) if *only >= key => self.clone(),
            Self::Key(_) => Self::Range(key.clone(), key),
            Self::Range(_, end) => Self::Range(key, end.clone()),
            Self::From(_) => Self::From(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(key: &'static [u8], end: &'static [u8]) -> Span {
        Span::new(&Bytes::from_static(key), &Bytes::from_static(end))
    }

    #[test]
    fn range_end_selects_key_range_or_everything_behind() {
        assert!(span(b"b", b"").contains(b"b") && !span(b"b", b"").contains(b"b\0"));
        assert!(span(b"b", b"d").contains(b"c\xff") && !span(b"b", b"d").contains(b"d"));
        assert!(span(b"b", b"\0").contains(b"\xff\xff") && !span(b"b", b"\0").contains(b"a"));
        assert!(!span(b"d", b"b").contains(b"c"));
        assert!(span(b"\0", b"\0").is_everything() && !span(b"\0\0", b"\0").is_everything());
    }
}
