//! A set of keys as requests write it.
//!
//! Invariant: this is the only place that reads the conventions of `range_end`.

use std::ops::Bound;

use crate::history::Bytes;

/// Where a span begins and ends, as ordered maps want it.
pub type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// A set of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span<'a> {
    /// Exactly this key.
    Key(&'a Bytes),
    /// From the first (included) to the second (excluded); empty when they cross.
    Range(&'a Bytes, &'a Bytes),
    /// This key and all greater ones.
    From(&'a Bytes),
}

impl<'a> Span<'a> {
    /// Reads `key` and `range_end`.
    #[must_use]
    pub fn new(key: &'a Bytes, range_end: &'a Bytes) -> Self {
        match &range_end[..] {
            [] => Self::Key(key),
            [0] => Self::From(key),
            _ => Self::Range(key, range_end),
        }
    }

    /// Whether `key` belongs to the set.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::Key(only) => key == &only[..],
            Self::Range(from, end) => key >= &from[..] && key < &end[..],
            Self::From(from) => key >= &from[..],
        }
    }

    /// Whether a key could belong to both.
    #[must_use]
    pub fn overlaps(self, other: Span<'_>) -> bool {
        match (self, other) {
            (Span::Key(key), span) | (span, Span::Key(key)) => span.contains(key),
            (Span::From(_), Span::From(_)) => true,
            (Span::Range(from, end), Span::From(least)) | (Span::From(least), Span::Range(from, end)) => {
                from < end && *end > *least
            }
            (Span::Range(from, end), Span::Range(other_from, other_end)) => {
                from < end && other_from < other_end && from < other_end && other_from < end
            }
        }
    }

    /// The bounds for an ordered map; `None` for the empty set.
    #[must_use]
    pub fn bounds(&self) -> Option<Bounds<'a>> {
        match self {
            Self::Key(key) => Some((Bound::Included(&key[..]), Bound::Included(&key[..]))),
            Self::Range(from, end) if from >= end => None,
            Self::Range(from, end) => Some((Bound::Included(&from[..]), Bound::Excluded(&end[..]))),
            Self::From(from) => Some((Bound::Included(&from[..]), Bound::Unbounded)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_is_a_common_key() {
        let keys: Vec<Bytes> = ["a", "b", "c", "d"].into_iter().map(Bytes::from).collect();
        let ends: Vec<Bytes> = ["", "\0", "b", "c", "e"].into_iter().map(Bytes::from).collect();
        let spans: Vec<Span<'_>> =
            keys.iter().flat_map(|key| ends.iter().map(move |end| Span::new(key, end))).collect();
        for one in &spans {
            for two in &spans {
                let common = keys.iter().any(|key| one.contains(key) && two.contains(key));
                assert_eq!(one.overlaps(*two), common, "{one:?} {two:?}");
            }
        }
    }
}
