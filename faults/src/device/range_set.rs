//! A set of bytes, kept as ranges that neither overlap nor touch.

use std::collections::BTreeMap;
use std::ops::Range;

/// A set of `u64`, as half-open ranges.
#[derive(Debug, Default)]
pub(super) struct RangeSet {
    /// End by start.
    ends: BTreeMap<u64, u64>,
}

impl RangeSet {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub(super) fn ranges(&self) -> Vec<Range<u64>> {
        self.ends.iter().map(|(start, end)| *start..*end).collect()
    }

    pub(super) fn overlaps(&self, range: &Range<u64>) -> bool {
        // The last that begins before the end is the only one that can reach in: all before it end earlier.
        !range.is_empty()
            && self
                .ends
                .range(..range.end)
                .next_back()
                .is_some_and(|(_, end)| *end > range.start)
    }

    pub(super) fn insert(&mut self, mut range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        while let Some((&start, &end)) = self
            .ends
            .range(..=range.end)
            .next_back()
            .filter(|(_, end)| **end >= range.start)
        {
            self.ends.remove(&start);
            range = range.start.min(start)..range.end.max(end);
        }
        self.ends.insert(range.start, range.end);
    }

    /// Removes the range that ends there, if there is one.
    pub(super) fn remove_ending_at(&mut self, end: u64) {
        if let Some((&start, _)) = self
            .ends
            .range(..end)
            .next_back()
            .filter(|(_, known)| **known == end)
        {
            self.ends.remove(&start);
        }
    }

    pub(super) fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        while let Some((&start, &end)) = self
            .ends
            .range(..range.end)
            .next_back()
            .filter(|(_, end)| **end > range.start)
        {
            self.ends.remove(&start);
            if range.end < end {
                self.ends.insert(range.end, end);
            }
            if start < range.start {
                self.ends.insert(start, range.start);
            }
        }
    }
}

#[cfg(test)]
mod tests;
