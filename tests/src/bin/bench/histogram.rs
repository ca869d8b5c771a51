//! Latencies in a fixed amount of memory.
//!
//! Buckets grow with the value: 32 to each power of two, so a percentile is off by at most 3 per cent, and recording is
//! a shift and an increment. A histogram of ten seconds takes as much room as one of ten years.

use std::time::Duration;

/// Bits of a value that pick the bucket within its power of two.
const PRECISION_BITS: u32 = 5;
const PER_POWER: u64 = 1 << PRECISION_BITS;
const BUCKETS: usize = (64 - PRECISION_BITS as usize + 1) << PRECISION_BITS;

/// Counts of durations, in nanoseconds.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    counts: Box<[u64]>,
    total: u64,
    longest: Duration,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS].into_boxed_slice(),
            total: 0,
            longest: Duration::ZERO,
        }
    }
}

impl Histogram {
    pub(crate) fn record(&mut self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket_of(nanoseconds)] += 1;
        self.total += 1;
        self.longest = self.longest.max(duration);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
        self.longest = self.longest.max(other.longest);
    }

    pub(crate) const fn total(&self) -> u64 {
        self.total
    }

    pub(crate) const fn longest(&self) -> Duration {
        self.longest
    }

    /// The duration that `per_mille` of a thousand recorded ones don't exceed, rounded up to its bucket's end; zero
    /// where nothing was recorded.
    pub(crate) fn per_mille(&self, per_mille: u64) -> Duration {
        let wanted = (self.total * per_mille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_nanos(end_of(bucket as u64)).min(self.longest);
            }
        }
        Duration::ZERO
    }
}

fn bucket_of(value: u64) -> usize {
    let bucket = if value < PER_POWER {
        value
    } else {
        let shift = value.ilog2() - PRECISION_BITS;
        (u64::from(shift) << PRECISION_BITS) + (value >> shift)
    };
    usize::try_from(bucket).expect("one of BUCKETS")
}

/// The greatest value that falls into `bucket`.
const fn end_of(bucket: u64) -> u64 {
    if bucket < 2 * PER_POWER {
        return bucket;
    }
    let shift = (bucket >> PRECISION_BITS) - 1;
    let step = bucket - (shift << PRECISION_BITS);
    (step << shift) + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests;
