//! Reproducible data: the same seed gives the same bytes and the same choices on every machine.

/// SplitMix64 (Steele, Lea, Flood 2014): tiny, and good enough to make data that no two blocks share.
#[derive(Clone, Debug)]
pub struct Pattern {
    state: u64,
}

impl Pattern {
    /// A stream of values that depends on `seed` alone.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A value below `bound`, which must not be zero. (The bias of a plain remainder does not matter to a test.)
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound
    }

    /// The next `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len + 8);
        while out.len() < len {
            out.extend_from_slice(&self.next_u64().to_le_bytes());
        }
        out.truncate(len);
        out
    }
}

/// `len` bytes that depend on `seed` alone.
#[must_use]
pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
    Pattern::new(seed).bytes(len)
}

/// Panics with the first offset at which the two differ. (`assert_eq!` on megabytes prints all of them.)
#[track_caller]
pub fn assert_same(got: &[u8], want: &[u8], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}: length");
    if let Some(at) = got.iter().zip(want).position(|(a, b)| a != b) {
        panic!(
            "{what}: byte {at} is {:#04x}, should be {:#04x}",
            got[at], want[at]
        );
    }
}

#[cfg(test)]
mod tests;
