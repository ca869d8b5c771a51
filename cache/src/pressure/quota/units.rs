//! A sparse set of units, one bit each.
//!
//! Bits live in words, and words in leaves that are made when a unit of theirs is first inserted and stay until the set
//! goes. A walk over a range visits only the leaves that exist: a petabyte of which nothing was ever inserted costs one
//! look.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use weir_faults::FaultContext;

use crate::gen_radix::{GenRadixError, ImmortalRadix};
use crate::pace::STEPS_AT_ONCE;

const BITS: u64 = u64::BITS as u64;

/// Units that are charged or discharged in one [step](crate::pace): a word of them.
pub(super) const UNITS_PER_STEP: u64 = BITS;

/// The set; see the module's documentation.
#[derive(Debug)]
pub(super) struct UnitSet {
    words: ImmortalRadix<AtomicU64>,
}

impl UnitSet {
    pub(super) fn new(faults: FaultContext) -> Self {
        Self {
            words: ImmortalRadix::with_faults(faults),
        }
    }

    /// How many of `units` are in the set.
    pub(super) fn count(&self, units: &Range<u64>) -> u64 {
        self.existing(units)
            .map(|(word, mask)| u64::from((word.load(Ordering::SeqCst) & mask).count_ones()))
            .sum()
    }

    /// Puts all of `units` in; says how many were not there before.
    ///
    /// # Errors
    /// No memory; then the set is as it was.
    pub(super) fn insert(&self, units: &Range<u64>) -> Result<u64, GenRadixError> {
        // Gets all memory before it sets the first bit: others rely on a bit that they find set, so it can't be taken
        // back.
        self.words.preallocate(words_of(units))?;
        let new = |(word, mask): (&AtomicU64, u64)| {
            u64::from((mask & !word.fetch_or(mask, Ordering::SeqCst)).count_ones())
        };
        Ok(self.existing(units).map(new).sum())
    }

    /// Takes all of `units` out; says how many were there.
    pub(super) fn remove(&self, units: &Range<u64>) -> u64 {
        self.existing(units)
            .map(|(word, mask)| {
                u64::from((word.fetch_and(!mask, Ordering::SeqCst) & mask).count_ones())
            })
            .sum()
    }

    /// As [`UnitSet::remove`], as far as one turn allows; returns where to go on, if not all is done.
    pub(super) fn remove_some(&self, units: &Range<u64>) -> (u64, Option<u64>) {
        let mut words = self.words.entries(words_of(units));
        words.nth(STEPS_AT_ONCE).map_or_else(
            || (self.remove(units), None),
            |(index, _)| {
                let next = index * BITS;
                (self.remove(&(units.start..next)), Some(next))
            },
        )
    }

    /// Appends those of `units` that are in the set, as ranges in order, as far as one turn allows; returns where to go
    /// on, if not all is done.
    pub(super) fn find_some(&self, units: &Range<u64>, found: &mut Vec<Range<u64>>) -> Option<u64> {
        for (count, (index, word)) in self.words.entries(words_of(units)).enumerate() {
            if count == STEPS_AT_ONCE {
                return Some(index * BITS);
            }
            let mut bits = word.load(Ordering::SeqCst) & mask(index, units);
            while bits != 0 {
                let unit = index * BITS + u64::from(bits.trailing_zeros());
                bits &= bits - 1;
                match found.last_mut() {
                    Some(last) if last.end == unit => last.end += 1,
                    _ => found.push(unit..unit + 1),
                }
            }
        }
        None
    }

    /// Gets the memory for `units`: they can be put in afterwards whatever happens.
    ///
    /// # Errors
    /// No memory.
    pub(super) fn prepare(&self, units: &Range<u64>) -> Result<(), GenRadixError> {
        self.words.preallocate(words_of(units))
    }

    /// Memory of the words.
    pub(super) fn bytes(&self) -> usize {
        self.words.bytes()
    }

    /// The words of `units` that exist, with the bits that are meant.
    fn existing(&self, units: &Range<u64>) -> impl Iterator<Item = (&AtomicU64, u64)> {
        let units = units.clone();
        self.words
            .entries(words_of(&units))
            .map(move |(index, word)| (word, mask(index, &units)))
    }
}

/// The words that hold the bits of `units`.
fn words_of(units: &Range<u64>) -> Range<u64> {
    if units.is_empty() {
        return 0..0;
    }
    units.start / BITS..units.end.div_ceil(BITS)
}

/// The bits of `units` in word `index`, which holds some.
fn mask(index: u64, units: &Range<u64>) -> u64 {
    let first = units.start.saturating_sub(index * BITS);
    let count = (units.end - index * BITS).min(BITS) - first;
    (u64::MAX >> (BITS - count)) << first
}

#[cfg(test)]
mod tests;
