//! Draws that the plans and the world are made of.

use base::Prng;

/// A number from `low` to `high`, both included.
pub(crate) fn between(prng: &mut Prng, low: u64, high: u64) -> u64 {
    low + prng.below(high - low + 1)
}

/// True in so many of a hundred cases.
pub(crate) fn percent(prng: &mut Prng, chance: u64) -> bool {
    prng.below(100) < chance
}

/// One of them. There must be one.
pub(crate) fn pick<'a, T>(prng: &mut Prng, choices: &'a [T]) -> &'a T {
    &choices[prng.below(choices.len() as u64) as usize]
}

/// A span of time whose logarithm is uniform: short ones are as likely as long ones.
pub(crate) fn spread(prng: &mut Prng, low: u64, high: u64) -> u64 {
    let (mut low, mut high) = (low.max(1), high.max(1));
    while high / low >= 2 {
        let middle = low.saturating_mul((high / low).isqrt()).max(low + 1);
        if prng.below(2) == 0 {
            high = middle
        } else {
            low = middle
        }
        if high / low < 4 {
            break;
        }
    }
    between(prng, low, high.max(low))
}

/// A stream of its own for each purpose, so that a change of one does not shift the others.
pub(crate) fn stream(seed: u64, purpose: u64) -> Prng {
    let mut prng = Prng::new(seed ^ purpose.wrapping_mul(0xD6E8_FEB8_6659_FD93));
    Prng::new(prng.next_u64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_stay_in_their_bounds() {
        let mut prng = stream(1, 2);
        for _ in 0..10_000 {
            assert!((3..=7).contains(&between(&mut prng, 3, 7)));
            assert!((10..=60_000_000).contains(&spread(&mut prng, 10, 60_000_000)));
        }
    }

    #[test]
    fn a_spread_is_short_as_often_as_long() {
        let mut prng = stream(1, 3);
        let short = (0..1000).filter(|_| spread(&mut prng, 10_000, 60_000_000) < 775_000).count();
        assert!((300..700).contains(&short), "{short} of 1000 below the geometric middle");
    }
}
