//! One bit per slot of a node, which any thread may set and clear at any time.

use crate::primitives::sync::atomic::{AtomicU64, Ordering};

use super::node::FANOUT;

const WORD_BITS: usize = 64;
const WORDS: usize = FANOUT.div_ceil(WORD_BITS);

/// A bit per slot. All-zero is the empty bitmap.
#[repr(C)]
pub(super) struct Bitmap {
    words: [AtomicU64; WORDS],
}

impl Bitmap {
    #[cfg(loom)]
    pub(super) fn new() -> Self {
        Self {
            words: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    fn split(slot: usize) -> (usize, u64) {
        (slot / WORD_BITS, 1 << (slot % WORD_BITS))
    }

    pub(super) fn is_set(&self, slot: usize) -> bool {
        let (word, bit) = Self::split(slot);
        self.words[word].load(Ordering::Acquire) & bit != 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.words
            .iter()
            .all(|word| word.load(Ordering::Acquire) == 0)
    }

    pub(super) fn set(&self, slot: usize) {
        let (word, bit) = Self::split(slot);
        self.words[word].fetch_or(bit, Ordering::AcqRel);
    }

    pub(super) fn clear(&self, slot: usize) {
        let (word, bit) = Self::split(slot);
        self.words[word].fetch_and(!bit, Ordering::AcqRel);
    }

    /// The first slot set at or after `from`.
    pub(super) fn next(&self, from: usize) -> Option<usize> {
        let mut word = from / WORD_BITS;
        let mut mask = u64::MAX << (from % WORD_BITS);
        while word < WORDS {
            let bits = self.words[word].load(Ordering::Acquire) & mask;
            if bits != 0 {
                return Some(word * WORD_BITS + bits.trailing_zeros() as usize);
            }
            mask = u64::MAX;
            word += 1;
        }
        None
    }

    /// The last slot set at or before `from`.
    pub(super) fn prev(&self, from: usize) -> Option<usize> {
        let mut mask = u64::MAX >> (WORD_BITS - 1 - from % WORD_BITS);
        for word in (0..=from / WORD_BITS).rev() {
            let bits = self.words[word].load(Ordering::Acquire) & mask;
            if bits != 0 {
                return Some(word * WORD_BITS + bits.ilog2() as usize);
            }
            mask = u64::MAX;
        }
        None
    }
}
