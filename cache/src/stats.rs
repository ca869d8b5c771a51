//! Counters that are bumped per request and read rarely.

use crossbeam_utils::CachePadded;

use crate::primitives::sync::thread_number;

use std::sync::atomic::{AtomicU64, Ordering};

/// Shards of a counter: more than the cores of a usual machine gain nothing.
const SHARDS: usize = 16;

/// A counter whose increments by different threads don't share a cache line.
#[derive(Debug, Default)]
pub(crate) struct ShardedCounter([CachePadded<AtomicU64>; SHARDS]);

impl ShardedCounter {
    #[inline]
    pub(crate) fn add(&self, count: u64) {
        self.0[thread_number() % SHARDS].fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn sum(&self) -> u64 {
        self.0
            .iter()
            .map(|shard| shard.load(Ordering::Relaxed))
            .sum()
    }
}

/// Events since the cache was opened.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Pages found present by readers.
    pub(crate) hits: ShardedCounter,
    /// Pages that readers had to wait for.
    pub(crate) misses: ShardedCounter,
    pub(crate) evictions: ShardedCounter,
    pub(crate) writeback_pages: ShardedCounter,
    pub(crate) writeback_runs: ShardedCounter,
    pub(crate) writeback_errors: ShardedCounter,
    pub(crate) syncs: ShardedCounter,
    pub(crate) losses: ShardedCounter,
    pub(crate) readahead_pages: ShardedCounter,
    pub(crate) readahead_used: ShardedCounter,
    pub(crate) readahead_wasted: ShardedCounter,
    pub(crate) throttled: ShardedCounter,
    pub(crate) memory_waits: ShardedCounter,
}

/// A cache's figures at one moment. Pages are 4 KiB; the counts of events are since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Frames that the cache may use.
    pub frames: u64,
    /// Frames that are free.
    pub free_frames: u64,
    /// Bytes of page slots, region locks and the bits of a quota.
    pub metadata_bytes: u64,
    /// Pages present.
    pub resident_pages: u64,
    /// Pages newer than what was submitted to the backend.
    pub dirty_pages: u64,
    /// Pages submitted and not completed.
    pub in_flight_pages: u64,
    /// Pages held by a trim, zero or direct write.
    pub held_pages: u64,
    /// Pages written and not synced.
    pub unstable_pages: u64,
    /// Pages that readers found present.
    pub hits: u64,
    /// Pages that readers waited for.
    pub misses: u64,
    /// Clean pages that were given up for others.
    pub evictions: u64,
    /// Pages written back.
    pub writeback_pages: u64,
    /// Backend writes that wrote pages back.
    pub writeback_runs: u64,
    /// Backend writes that failed.
    pub writeback_errors: u64,
    /// Syncs of the backend.
    pub syncs: u64,
    /// Failed syncs that may have lost acknowledged data.
    pub losses: u64,
    /// Pages read ahead.
    pub readahead_pages: u64,
    /// Pages read ahead and then asked for.
    pub readahead_used: u64,
    /// Pages read ahead and evicted before a request asked for them.
    pub readahead_wasted: u64,
    /// Writes that were slowed or stopped because too much was dirty.
    pub throttled: u64,
    /// Requests that waited for memory.
    pub memory_waits: u64,
    /// Requests that waited for an add lock.
    pub lock_waits: u64,
}
