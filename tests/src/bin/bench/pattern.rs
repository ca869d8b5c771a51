//! The bytes that every export holds, and the numbers that choose where to read and write.
//!
//! Each 8-byte word is an affine function of its index and a seed. Distinct offsets hold distinct words (the multiplier
//! is odd), so data from the wrong place never passes, and both directions compile to vector additions: checking 4 KiB
//! costs about as much as copying it.

/// Bytes in a word of the pattern.
const WORD: usize = 8;
/// Odd, so that no two words of an export agree; otherwise arbitrary.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The contents of an export under one seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pattern {
    seed: u64,
}

impl Pattern {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { seed }
    }

    const fn word(self, index: u64) -> u64 {
        self.seed.wrapping_add(index.wrapping_mul(STEP))
    }

    fn byte(self, offset: u64) -> u8 {
        self.word(offset / WORD as u64).to_le_bytes()[place_in_word(offset)]
    }

    /// Writes what belongs at `offset` into `target`. Any offset and any length will do.
    pub(crate) fn fill(self, offset: u64, target: &mut [u8]) {
        let (head, words) = target.split_at_mut(unaligned_head(offset, target.len()));
        for (at, byte) in (offset..).zip(head.iter_mut()) {
            *byte = self.byte(at);
        }
        let start = offset + head.len() as u64;
        let mut expected = self.word(start / WORD as u64);
        let mut chunks = words.chunks_exact_mut(WORD);
        for chunk in &mut chunks {
            chunk.copy_from_slice(&expected.to_le_bytes());
            expected = expected.wrapping_add(STEP);
        }
        for (byte, value) in chunks
            .into_remainder()
            .iter_mut()
            .zip(expected.to_le_bytes())
        {
            *byte = value;
        }
    }

    /// Whether `found` is what belongs at `offset`.
    pub(crate) fn holds(self, offset: u64, found: &[u8]) -> bool {
        let (head, words) = found.split_at(unaligned_head(offset, found.len()));
        let head_holds = (offset..)
            .zip(head)
            .all(|(at, byte)| *byte == self.byte(at));
        let start = offset + head.len() as u64;
        let mut expected = self.word(start / WORD as u64);
        // One accumulator instead of an early exit: the loop stays free of branches.
        let mut difference = 0;
        let (chunks, tail) = words.as_chunks::<WORD>();
        for chunk in chunks {
            difference |= u64::from_le_bytes(*chunk) ^ expected;
            expected = expected.wrapping_add(STEP);
        }
        head_holds
            && difference == 0
            && tail
                .iter()
                .zip(expected.to_le_bytes())
                .all(|(byte, value)| *byte == value)
    }
}

fn place_in_word(offset: u64) -> usize {
    usize::try_from(offset % WORD as u64).expect("below WORD")
}

/// Bytes before the first whole word.
fn unaligned_head(offset: u64, length: usize) -> usize {
    let past = place_in_word(offset);
    if past == 0 {
        0
    } else {
        (WORD - past).min(length)
    }
}

/// A splitmix64 generator: a reproducible order of offsets.
#[derive(Debug, Clone)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(STEP);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which isn't zero.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "a range without members");
        let wide = u128::from(self.next()) * u128::from(bound);
        u64::try_from(wide >> 64).expect("the high half of a product fits")
    }

    /// The numbers below `count` in random order.
    pub(crate) fn permutation(&mut self, count: u64) -> Vec<u64> {
        let mut order: Vec<u64> = (0..count).collect();
        for last in (1..order.len()).rev() {
            let other = self.below(last as u64 + 1);
            order.swap(last, usize::try_from(other).expect("an index"));
        }
        order
    }
}

#[cfg(test)]
mod tests;
