//! Ways to damage an input.

use base::Prng;

/// Numbers that readers trip over.
const EDGES: [u64; 12] = [0, 1, 127, 128, 255, 256, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 62, u64::MAX];
/// Longest input made.
const LENGTH_MAX: usize = 1 << 20;

/// Damages `input` in one to four ways; some take pieces of `other`.
pub fn mutate(input: &mut Vec<u8>, other: &[u8], random: &mut Prng) {
    for _ in 0..=random.below(4) {
        once(input, other, random);
    }
    input.truncate(LENGTH_MAX);
}

fn once(input: &mut Vec<u8>, other: &[u8], random: &mut Prng) {
    let mut below = |bound: usize| random.below(bound.max(1) as u64) as usize;
    let at = below(input.len());
    match below(9) {
        // A bit, a byte.
        0 if !input.is_empty() => input[at] ^= 1 << below(8),
        1 if !input.is_empty() => input[at] = below(256) as u8,
        // Shorter, longer.
        2 => input.truncate(at),
        3 => drop(input.drain(at..(at + below(64)).min(input.len()))),
        4 => drop(input.splice(at..at, (0..below(16)).map(|_| 0xff).collect::<Vec<u8>>())),
        // A number of some width and order, as a length or a count might be written.
        5 => number(input, at, EDGES[below(EDGES.len())], below(7)),
        // A piece twice, a piece of another input.
        6 => {
            let piece = input[at..(at + below(64)).min(input.len())].to_vec();
            drop(input.splice(at..at, piece));
        }
        7 => {
            let from = below(other.len());
            let piece = other[from..(from + below(256)).min(other.len())].to_vec();
            let end = if below(2) == 0 { at } else { (at + piece.len()).min(input.len()) };
            drop(input.splice(at..end, piece));
        }
        _ => {
            // A run of zeros, as a lost write leaves it.
            let end = (at + 1 + below(512)).min(input.len());
            input.get_mut(at..end).into_iter().for_each(|hole| hole.fill(0));
        }
    }
}

/// Overwrites what stands at `at` by `value` in one of several encodings.
fn number(input: &mut Vec<u8>, at: usize, value: u64, form: usize) {
    let bytes = match form {
        0 => vec![value as u8],
        1 => (value as u16).to_le_bytes().to_vec(),
        2 => (value as u32).to_le_bytes().to_vec(),
        3 => (value as u32).to_be_bytes().to_vec(),
        4 => value.to_le_bytes().to_vec(),
        5 => value.to_be_bytes().to_vec(),
        _ => {
            let mut varint = Vec::new();
            base::codec::put_varint(&mut varint, value);
            varint
        }
    };
    let end = (at + bytes.len()).min(input.len());
    drop(input.splice(at..end, bytes));
}
