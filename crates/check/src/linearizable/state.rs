//! A state of a group of keys, with a way back and a hash that follows every change.
//!
//! Invariant: the hash is that of the pairs, whatever way led to them. It has 128 bits, so that no two states of one
//! search share it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::history::Bytes;
use crate::span::Span;

/// Value and version.
pub(super) type Pair = (Bytes, i64);

/// Value and version of the keys that exist.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pairs: BTreeMap<Bytes, Pair>,
    hash: u128,
    journal: Vec<(Bytes, Option<Pair>)>,
}

impl State {
    pub(super) fn get(&self, key: &[u8]) -> Option<&Pair> {
        self.pairs.get(key)
    }

    pub(super) fn keys(&self, span: &Span<'_>) -> Vec<Bytes> {
        let bounds = span.bounds().into_iter();
        bounds.flat_map(|bounds| self.pairs.range::<[u8], _>(bounds)).map(|(key, _)| key.clone()).collect()
    }

    pub(super) fn count(&self, span: &Span<'_>) -> usize {
        span.bounds().into_iter().flat_map(|bounds| self.pairs.range::<[u8], _>(bounds)).count()
    }

    pub(super) fn hash(&self) -> u128 {
        self.hash
    }

    pub(super) fn set(&mut self, key: &Bytes, pair: Option<Pair>) {
        let before = self.replace(key, pair);
        self.journal.push((key.clone(), before));
    }

    fn replace(&mut self, key: &Bytes, pair: Option<Pair>) -> Option<Pair> {
        if let Some(pair) = &pair {
            self.hash ^= hash(key, pair);
        }
        let before = match pair {
            Some(pair) => self.pairs.insert(key.clone(), pair),
            None => self.pairs.remove(key),
        };
        if let Some(before) = &before {
            self.hash ^= hash(key, before);
        }
        before
    }

    /// A place to go back to.
    pub(super) fn mark(&self) -> usize {
        self.journal.len()
    }

    /// Undoes everything after `mark`.
    pub(super) fn undo(&mut self, mark: usize) {
        while self.journal.len() > mark {
            let (key, before) = self.journal.pop().expect("the journal is longer than the mark");
            self.replace(&key, before);
        }
    }

    /// The first pairs, in words.
    pub(super) fn describe(&self) -> String {
        const PAIRS_MAX: usize = 4;
        let pairs = self.pairs.iter().take(PAIRS_MAX);
        let pairs: Vec<String> =
            pairs.map(|(key, (value, version))| format!("{key}={value} (version {version})")).collect();
        if pairs.is_empty() { "nothing exists".to_owned() } else { pairs.join(", ") }
    }
}

fn hash(key: &Bytes, pair: &Pair) -> u128 {
    let half = |salt: u64| {
        let mut hasher = DefaultHasher::new();
        (salt, key, pair).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(1) << 64 | half(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn going_back_brings_back_pairs_and_hash() {
        let mut state = State::default();
        let key = Bytes::from("k");
        state.set(&key, Some(("1".into(), 1)));
        let (mark, hash) = (state.mark(), state.hash());
        state.set(&key, Some(("2".into(), 2)));
        state.set(&key, None);
        assert_eq!((state.get(b"k"), state.hash()), (None, 0));
        state.undo(mark);
        assert_eq!((state.get(b"k"), state.hash()), (Some(&("1".into(), 1)), hash));
        assert_ne!(hash, 0);
    }
}
