//! Which key the next operation touches: the shape of keys, and the order in which the key space is visited.
//!
//! Invariant: every key of a run has the same length, and keys sort bytewise in the order of their numbers, so a range
//! of numbers is a range of keys. Used by [`super::workload`].

use base::Prng;
use clap::ValueEnum;

/// Digits that every `u64` fits in.
const DIGITS_MAX: usize = 20;
/// Skew of the Zipf distribution; 0.99 is what YCSB uses (Cooper et al. 2010, section 5.2).
const ZIPF_SKEW: f64 = 0.99;
/// Terms of the zeta sum that are added one by one; the rest is an integral, exact to about 1e-10 from here on.
const ZETA_TERMS_EXACT: u64 = 10_000;

/// The order in which keys are visited.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum KeyPattern {
    /// One after the other, starting again at the end.
    Sequential,
    /// All keys equally often, in random order.
    Random,
    /// A few keys very often, most keys rarely (Zipf, skew 0.99); the popular ones lie scattered over the key space.
    Zipf,
}

impl KeyPattern {
    /// The word the user types for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sequential => "sequential",
            Self::Random => "random",
            Self::Zipf => "zipf",
        }
    }
}

/// The set of keys of a run: `prefix` and a zero-padded number below `count`.
#[derive(Clone, Debug)]
pub(super) struct KeySpace {
    prefix: String,
    digits: usize,
    count: u64,
}

impl KeySpace {
    /// Keys of `key_bytes` bytes numbered `0..count`.
    ///
    /// # Errors
    /// A sentence for the user, if prefix and number do not fit.
    pub(super) fn new(prefix: &str, key_bytes: usize, count: u64) -> Result<Self, String> {
        assert!(count > 0, "an empty key space has no next key");
        // The end of a range over the last keys is the number `count` itself.
        let digits_needed = count.to_string().len();
        let bytes_needed = prefix.len() + digits_needed;
        if key_bytes < bytes_needed {
            return Err(format!(
                "--key-size {key_bytes} is too small: the prefix '{prefix}' and {count} key numbers need {bytes_needed} bytes"
            ));
        }
        // A long key is padded with zeros in front of the number.
        Ok(Self { prefix: prefix.to_owned(), digits: key_bytes - prefix.len(), count })
    }

    /// Number of keys.
    /// What every key begins with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Number of different keys.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Length of every key in bytes.
    pub(super) fn key_bytes(&self) -> usize {
        self.prefix.len() + self.digits
    }

    /// The key with this number; `count` itself is allowed, as the end of a range.
    pub(super) fn key(&self, number: u64) -> Vec<u8> {
        let mut key = vec![0; self.key_bytes()];
        self.write_key(number, &mut key);
        key
    }

    /// Writes the key with this number over `out`, which must be exactly as long as a key.
    pub(super) fn write_key(&self, number: u64, out: &mut [u8]) {
        assert!(number <= self.count, "key number {number} beyond {}", self.count);
        assert_eq!(out.len(), self.key_bytes(), "a key slot has the length of a key");
        let (prefix, padded_number) = out.split_at_mut(self.prefix.len());
        prefix.copy_from_slice(self.prefix.as_bytes());
        let mut rest = number;
        for digit in padded_number.iter_mut().rev() {
            *digit = b'0' + u8::try_from(rest % 10).expect("a digit is below ten");
            rest /= 10;
        }
        assert_eq!(
            rest, 0,
            "key number {number} does not fit its {} digits (at most {DIGITS_MAX} matter)",
            self.digits
        );
    }
}

/// Draws key numbers below a bound in the order of a [`KeyPattern`].
#[derive(Clone, Debug)]
pub(super) struct Picker {
    pattern: KeyPattern,
    count: u64,
    next: u64,
    zipf: Zipf,
}

impl Picker {
    /// Numbers below `count`, which must not be zero.
    pub(super) fn new(pattern: KeyPattern, count: u64) -> Self {
        assert!(count > 0, "no number is below zero");
        Self { pattern, count, next: 0, zipf: Zipf::new(count) }
    }

    /// The next number.
    pub(super) fn pick(&mut self, prng: &mut Prng) -> u64 {
        match self.pattern {
            KeyPattern::Sequential => {
                let number = self.next;
                self.next = (self.next + 1) % self.count;
                number
            }
            KeyPattern::Random => prng.below(self.count),
            KeyPattern::Zipf => {
                // Scattered, or the popular keys would all sit next to each other and share a page and a partition.
                let rank = self.zipf.rank(unit_interval(prng));
                Prng::new(rank).next_u64() % self.count
            }
        }
    }
}

/// Ranks with probability proportional to `1 / rank^skew` (Gray et al. 1994, "Quickly generating billion-record
/// synthetic databases", section 3.2): constant time per draw after one sum.
#[derive(Clone, Debug)]
struct Zipf {
    count: f64,
    zeta: f64,
    alpha: f64,
    eta: f64,
}

impl Zipf {
    fn new(count: u64) -> Self {
        let zeta = zeta(count);
        let items = count as f64;
        let eta = (1.0 - (2.0 / items).powf(1.0 - ZIPF_SKEW)) / (1.0 - zeta_of_two() / zeta);
        Self { count: items, zeta, alpha: 1.0 / (1.0 - ZIPF_SKEW), eta }
    }

    /// The rank, from 0 (most popular), that belongs to `uniform` in `0.0..1.0`.
    fn rank(&self, uniform: f64) -> u64 {
        let share = uniform * self.zeta;
        if share < 1.0 || self.count < 2.0 {
            return 0;
        }
        if share < zeta_of_two() {
            return 1;
        }
        let rank = self.count * (self.eta * uniform - self.eta + 1.0).powf(self.alpha);
        rank.min(self.count - 1.0) as u64
    }
}

fn zeta_of_two() -> f64 {
    1.0 + 0.5_f64.powf(ZIPF_SKEW)
}

/// The sum of `1 / i^skew` for `i` in `1..=count`.
fn zeta(count: u64) -> f64 {
    let exact = count.min(ZETA_TERMS_EXACT);
    let sum: f64 = (1..=exact).map(|term| (term as f64).powf(-ZIPF_SKEW)).sum();
    if count == exact {
        return sum;
    }
    // Euler-Maclaurin with the first correction term.
    let (from, to) = (exact as f64, count as f64);
    let integral = (to.powf(1.0 - ZIPF_SKEW) - from.powf(1.0 - ZIPF_SKEW)) / (1.0 - ZIPF_SKEW);
    sum + integral + (to.powf(-ZIPF_SKEW) - from.powf(-ZIPF_SKEW)) / 2.0
}

/// A number in `0.0..1.0` with 53 random bits.
fn unit_interval(prng: &mut Prng) -> f64 {
    (prng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::{KeyPattern, KeySpace, Picker, zeta};
    use base::Prng;

    #[test]
    fn keys_have_one_length_and_sort_like_their_numbers() {
        let space = KeySpace::new("k/", 8, 1000).unwrap();
        assert_eq!(space.key(7), b"k/000007");
        assert_eq!(space.key(1000), b"k/001000");
        let keys: Vec<_> = (0..=1000).map(|number| space.key(number)).collect();
        assert!(keys.is_sorted() && keys.iter().all(|key| key.len() == 8));
    }

    #[test]
    fn a_key_too_short_for_its_number_is_refused() {
        let reason = KeySpace::new("prefix/", 10, 1000).unwrap_err();
        assert!(reason.contains("need 11 bytes"), "{reason}");
        assert!(KeySpace::new("prefix/", 11, 1000).is_ok());
    }

    #[test]
    fn sequential_wraps_and_random_stays_below_the_bound() {
        let mut prng = Prng::new(1);
        let mut sequential = Picker::new(KeyPattern::Sequential, 3);
        let drawn: Vec<_> = (0..5).map(|_| sequential.pick(&mut prng)).collect();
        assert_eq!(drawn, [0, 1, 2, 0, 1]);
        let mut random = Picker::new(KeyPattern::Random, 10);
        let mut seen = [false; 10];
        for _ in 0..1000 {
            seen[usize::try_from(random.pick(&mut prng)).unwrap()] = true;
        }
        assert_eq!(seen, [true; 10], "1000 draws of 10 keys miss none");
    }

    #[test]
    fn zipf_prefers_few_keys_in_the_published_proportion() {
        let (draws, count) = (200_000_u32, 1000_u64);
        let mut prng = Prng::new(7);
        let mut picker = Picker::new(KeyPattern::Zipf, count);
        let mut hits = vec![0_u32; usize::try_from(count).unwrap()];
        for _ in 0..draws {
            hits[usize::try_from(picker.pick(&mut prng)).unwrap()] += 1;
        }
        hits.sort_unstable_by(|a, b| b.cmp(a));
        // The most popular key has a share of 1 / zeta; hash collisions of other ranks may add a little to it.
        let share = f64::from(hits[0]) / f64::from(draws);
        let expected = 1.0 / zeta(count);
        assert!(share > expected * 0.95 && share < expected * 1.25, "{share} against {expected}");
        let top_tenth: u32 = hits.iter().take(100).sum();
        assert!(top_tenth > draws / 2 && top_tenth < draws, "{top_tenth} of {draws}");
    }

    #[test]
    fn zipf_over_one_or_two_keys_stays_inside() {
        let mut prng = Prng::new(3);
        for count in [1, 2] {
            let mut picker = Picker::new(KeyPattern::Zipf, count);
            assert!((0..1000).all(|_| picker.pick(&mut prng) < count));
        }
    }

    #[test]
    fn the_integral_continues_the_sum() {
        let by_hand: f64 = (1..=50_000_u32).map(|term| f64::from(term).powf(-0.99)).sum();
        assert!((zeta(50_000) - by_hand).abs() < 1e-6);
    }
}
