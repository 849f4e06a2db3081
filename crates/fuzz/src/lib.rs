//! Damaged input for everything that reads bytes from the network or the disk: a harness for stable Rust.
//!
//! Invariant: a reader may refuse its input, but must not panic, hang, or allocate out of proportion to it. Runs are a
//! function of the seed; an input that fails is printed so that it can be kept in the corpus.
//!
//! A target is a test in the crate that owns the reader: [`Fuzz::run`] feeds it inputs made from its corpus, which are
//! the files in `fuzz/<target>/` of that crate (inputs that once failed) and what the test itself makes (good ones).

mod mutate;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use base::Prng;

pub use mutate::mutate;

/// Inputs per target, unless `SINEW_FUZZ_RUNS` says otherwise.
const RUNS: u64 = 20_000;
/// The seed, unless `SINEW_FUZZ_SEED` says otherwise.
const SEED: u64 = 1;
/// Bytes a reader may have allocated at a time: this, and [`BYTES_PER_BYTE`] for each byte of input.
const BYTES_ALWAYS: u64 = 1024 * 1024;
const BYTES_PER_BYTE: u64 = 16;

/// A target with its corpus.
#[derive(Debug)]
pub struct Fuzz {
    name: &'static str,
    corpus: Vec<Vec<u8>>,
    runs: u64,
    bytes_always: u64,
}

impl Fuzz {
    /// The target `name` with the files in `crate_dir/fuzz/name/`; pass `env!("CARGO_MANIFEST_DIR")`. A directory that
    /// does not exist is empty.
    #[must_use]
    pub fn new(name: &'static str, crate_dir: &str) -> Self {
        let mut corpus = Vec::new();
        if let Ok(files) = std::fs::read_dir(Path::new(crate_dir).join("fuzz").join(name)) {
            let mut paths: Vec<_> = files.filter_map(|file| file.ok().map(|file| file.path())).collect();
            paths.sort();
            for path in paths {
                corpus.push(std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())));
            }
        }
        Self { name, corpus, runs: RUNS, bytes_always: BYTES_ALWAYS }
    }

    /// Adds a good input.
    #[must_use]
    pub fn seed(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.corpus.push(input.into());
        self
    }

    /// Divides the number of runs: for targets whose single run is slow.
    #[must_use]
    pub const fn slow(mut self, factor: u64) -> Self {
        self.runs /= factor;
        self
    }

    /// Bytes a reader may allocate whatever the input, if it holds something large of its own.
    #[must_use]
    pub const fn allocating(mut self, bytes: u64) -> Self {
        self.bytes_always = bytes;
        self
    }

    /// Feeds the whole corpus as it is, then damaged copies.
    ///
    /// # Panics
    /// When the target panics, or allocates too much; with the input.
    pub fn run(&self, mut target: impl FnMut(&[u8])) {
        assert!(!self.corpus.is_empty(), "{}: no corpus", self.name);
        let runs = number("SINEW_FUZZ_RUNS").map_or(self.runs, |runs| runs * self.runs / RUNS).max(1);
        let mut random = Prng::new(number("SINEW_FUZZ_SEED").unwrap_or(SEED));
        for input in &self.corpus {
            self.feed(input, &mut target);
        }
        for _ in 0..runs {
            let mut input = self.corpus[random.below(self.corpus.len() as u64) as usize].clone();
            let other = &self.corpus[random.below(self.corpus.len() as u64) as usize];
            mutate(&mut input, other, &mut random);
            self.feed(&input, &mut target);
        }
    }

    fn feed(&self, input: &[u8], target: &mut impl FnMut(&[u8])) {
        let mut outcome = Ok(());
        let used = allocation_counter::measure(|| outcome = catch_unwind(AssertUnwindSafe(|| target(input))));
        if let Err(panic) = outcome {
            complain(&format!("{}: this input makes it panic", self.name), input);
            resume_unwind(panic);
        }
        let allowed = self.bytes_always + BYTES_PER_BYTE * input.len() as u64;
        if used.bytes_max > allowed {
            complain(&format!("{}: {} bytes allocated, {allowed} allowed", self.name, used.bytes_max), input);
            panic!("{}: {} bytes allocated for an input of {}", self.name, used.bytes_max, input.len());
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

#[expect(clippy::print_stderr, reason = "a failing test tells what it failed on")]
fn complain(what: &str, input: &[u8]) {
    let hex: String = input.iter().take(4096).map(|byte| format!("{byte:02x}")).collect();
    eprintln!("{what}; keep it as a file in the corpus once it is mended ({} bytes):\n{hex}", input.len());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caught(target: impl FnMut(&[u8])) -> bool {
        let fuzz = Fuzz::new("planted", env!("CARGO_MANIFEST_DIR")).seed(*b"length 0004 body");
        catch_unwind(AssertUnwindSafe(|| fuzz.run(target))).is_err()
    }

    #[test]
    fn a_reader_that_trusts_a_length_is_caught() {
        assert!(caught(|input| {
            if let Some(length) = input.get(7..11).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()) {
                let length: usize = length;
                let body = &input[12..];
                assert!(body.len() <= 4 || length > 0, "read");
                let _ = &body[..length];
            }
        }));
    }

    #[test]
    fn a_reader_that_allocates_what_it_is_told_is_caught() {
        assert!(caught(|input| {
            let claimed =
                input.get(..4).map_or(0, |bytes| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
            drop(Vec::<u8>::with_capacity(claimed as usize));
        }));
    }

    #[test]
    fn a_careful_reader_is_left_alone() {
        assert!(!caught(|input| assert!(input.iter().map(|byte| u64::from(*byte)).sum::<u64>() < u64::MAX)));
    }
}
