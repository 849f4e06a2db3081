//! Fingerprints of 128 bits, and the table that gives equal things one small number.
//!
//! Invariant: what is equal has one fingerprint. The other direction holds but for chance: with 10^8 distinct states
//! the probability that any two share one is below 10^-22.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::rc::Rc;

/// 128 bits of a value's hash.
pub(crate) type Fingerprint = [u64; 2];

/// Longer byte strings count with their length and their beginning only: they are the payloads of large entries, which
/// the model makes and tells apart by the first byte.
const LONG_BYTES: usize = 4096;

/// Two lanes of multiply-and-fold, each over all input.
pub(crate) struct Fingerprinter {
    lanes: Fingerprint,
}

impl Default for Fingerprinter {
    fn default() -> Self {
        Self { lanes: [0x243F_6A88_85A3_08D3, 0x1319_8A2E_0370_7344] }
    }
}

const fn fold(a: u64, b: u64) -> u64 {
    let product = (a as u128) * (b as u128);
    (product as u64) ^ ((product >> 64) as u64)
}

impl Fingerprinter {
    fn mix(&mut self, word: u64) {
        self.lanes[0] = fold(self.lanes[0] ^ word, 0x9E37_79B9_7F4A_7C15).wrapping_add(word);
        self.lanes[1] = fold(self.lanes[1] ^ word.rotate_left(32), 0xD6E8_FEB8_6659_FD93).rotate_left(17) ^ word;
    }

    /// The fingerprint of everything written.
    pub(crate) fn fingerprint(mut self) -> Fingerprint {
        self.mix(0xA076_1D64_78BD_642F);
        self.mix(0xE703_7ED1_A0B4_28DB);
        self.lanes
    }
}

impl Hasher for Fingerprinter {
    fn write(&mut self, bytes: &[u8]) {
        self.mix(bytes.len() as u64);
        let counted = if bytes.len() > LONG_BYTES { &bytes[..64] } else { bytes };
        for chunk in counted.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.mix(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.mix(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.mix(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.mix(value as u64);
    }

    fn finish(&self) -> u64 {
        self.lanes[0] ^ self.lanes[1]
    }
}

/// The fingerprint of `value`.
pub(crate) fn fingerprint(value: &impl Hash) -> Fingerprint {
    let mut hasher = Fingerprinter::default();
    value.hash(&mut hasher);
    hasher.fingerprint()
}

/// A hash map whose order is the same in every run; nothing iterates over it anyway.
pub(crate) type FixedMap<K, V> = HashMap<K, V, BuildHasherDefault<Fingerprinter>>;

/// Gives equal values the same number, counted from zero in the order of their appearance.
pub(crate) struct Interner<T> {
    numbers: FixedMap<Fingerprint, u32>,
    values: Vec<Rc<T>>,
}

impl<T: Hash> Interner<T> {
    pub(crate) fn new() -> Self {
        Self { numbers: FixedMap::default(), values: Vec::new() }
    }

    pub(crate) fn intern(&mut self, value: T) -> u32 {
        let values = &mut self.values;
        *self.numbers.entry(fingerprint(&value)).or_insert_with(|| {
            values.push(Rc::new(value));
            u32::try_from(values.len() - 1).expect("fewer than 2^32 distinct values fit in memory")
        })
    }

    pub(crate) fn get(&self, number: u32) -> &Rc<T> {
        &self.values[number as usize]
    }

    pub(crate) const fn len(&self) -> usize {
        self.values.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn equal_values_share_a_number_and_others_do_not() {
        let mut interner = Interner::new();
        assert_eq!(interner.intern(vec![1, 2]), 0);
        assert_eq!(interner.intern(vec![2, 1]), 1);
        assert_eq!(interner.intern(vec![1, 2]), 0);
        assert_eq!((interner.len(), &**interner.get(1)), (2, &vec![2, 1]));
    }

    #[test]
    fn each_lane_alone_tells_many_small_values_apart() {
        let mut lanes = [BTreeSet::new(), BTreeSet::new()];
        for a in 0..300u32 {
            for b in 0..300u32 {
                let print = fingerprint(&[a, b, 0]);
                lanes[0].insert(print[0]);
                lanes[1].insert(print[1]);
            }
        }
        assert_eq!(lanes.map(|lane| lane.len()), [90_000, 90_000]);
    }
}
