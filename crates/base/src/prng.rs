//! A small seeded generator (SplitMix64, Steele et al. 2014) for election jitter and tests. Not for secrets.

/// Deterministic stream of pseudo-random numbers; part of the state it serves, hence `Clone + Eq + Hash`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Prng(u64);

impl Prng {
    /// The stream that belongs to `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which must not be zero. The bias of the modulo is below 2^-32 for the small bounds used.
    #[inline]
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "below(0) has no answer");
        self.next_u64() % bound
    }
}

#[cfg(test)]
mod tests {
    use super::Prng;

    #[test]
    fn matches_the_published_sequence() {
        let mut prng = Prng::new(1_234_567);
        assert_eq!(prng.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(prng.next_u64(), 3_203_168_211_198_807_973);
    }
}
