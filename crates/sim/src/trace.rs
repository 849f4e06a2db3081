//! The trace of a run: a hash over everything that happened, and, when asked for, a line for each event.
//!
//! Invariant: two runs with the same hash have done the same. Everything that happens is mixed in, with its time and
//! its bytes; the lines are not, so tracing changes nothing.

use std::fmt;

/// One event in words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// World time in microseconds.
    pub at: u64,
    /// What happened.
    pub text: String,
}

impl fmt::Display for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:>5}.{:06} {}", self.at / 1_000_000, self.at % 1_000_000, self.text)
    }
}

#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    lines: Option<Vec<Line>>,
}

impl Trace {
    /// `lines`: whether to keep the words.
    pub(crate) fn new(lines: bool) -> Self {
        Self { hash: 0xCBF2_9CE4_8422_2325, lines: lines.then(Vec::new) }
    }

    /// Mixes a number in.
    pub(crate) fn mix(&mut self, value: u64) {
        self.hash = (self.hash ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    }

    /// Mixes bytes in.
    pub(crate) fn mix_bytes(&mut self, bytes: &[u8]) {
        self.mix(hash_bytes(bytes));
    }

    /// Notes an event: its time and kind for the hash, its words for people.
    pub(crate) fn note(&mut self, at: u64, kind: u64, words: impl FnOnce() -> String) {
        self.mix(at);
        self.mix(kind);
        if let Some(lines) = &mut self.lines {
            lines.push(Line { at, text: words() });
        }
    }

    pub(crate) const fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn into_lines(self) -> Vec<Line> {
        self.lines.unwrap_or_default()
    }
}

/// A fast hash of bytes, for comparisons within one run.
pub(crate) fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hash = bytes.len() as u64 ^ 0x51_7C_C1_B7_27_22_0A_95;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        hash ^= hash >> 29;
    }
    hash
}
