//! A small seeded generator: SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
//!
//! Decisions must be the same on every machine and for ever, so the algorithm is written out here and not left to a
//! crate that may change it. It is no good for secrets.

use std::hash::{BuildHasher, RandomState};

/// A stream of pseudo-random figures.
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
}

/// The figures that [`Rng::unit`] tells apart: as many as a double's fraction holds.
const UNIT_STEPS: f64 = (1_u64 << 53) as f64;

impl Rng {
    /// The stream of `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The stream of the decision number `number` of what is named `name`, under `seed`.
    #[must_use]
    pub fn of(seed: u64, name: &str, number: u64) -> Self {
        Decisions::new(seed, name).number(number)
    }

    /// The next figure, of all 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.state)
    }

    /// A figure below `bound`, each as likely as the other.
    ///
    /// # Panics
    /// If `bound` is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "a figure below zero");
        // The figures left over after the last whole run of `bound` would favour the small ones: draw again.
        let unfair = (u64::MAX % bound + 1) % bound;
        loop {
            let figure = self.next_u64();
            if figure <= u64::MAX - unfair {
                return figure % bound;
            }
        }
    }

    /// A figure in 0..1.
    #[must_use = "the stream moved on"]
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / UNIT_STEPS
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let figure = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&figure[..chunk.len()]);
        }
    }
}

/// All the streams of what has one name, under one seed; the name is hashed once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decisions {
    base: u64,
}

impl Decisions {
    pub(crate) fn new(seed: u64, name: &str) -> Self {
        Self {
            base: Rng::new(seed ^ fnv1a(name.as_bytes())).next_u64(),
        }
    }

    /// The stream of the decision of that number.
    pub(crate) const fn number(self, number: u64) -> Rng {
        Rng::new(self.base ^ mix(number))
    }
}

/// A seed for a rule or a query that gives none. It is below 2^32, so that a person can copy it.
#[must_use]
pub fn draw_seed() -> u64 {
    RandomState::new().hash_one(0_u8) >> 32
}

pub(crate) const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The 64-bit FNV-1a hash.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

#[cfg(test)]
mod tests;
