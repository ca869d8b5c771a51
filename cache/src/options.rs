//! What is chosen when a cache is opened, and the limits that follow from it.

use std::time::Duration;

use weir_faults::Device;

use crate::add_lock::REGION_BYTES;
use crate::frame::{FramePool, MAX_FRAMES, PAGE_SIZE};
use crate::pages::PageSlot;

/// When a write is acknowledged, and whether pages are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CacheMode {
    /// A write is acknowledged when it is in memory; FLUSH and FUA make it durable.
    #[default]
    Writeback,
    /// Every write, trim and zero is durable when it is acknowledged, as if it had FUA.
    Writethrough,
    /// No page is kept beyond the partial edges of requests; FLUSH is still needed.
    None,
}

/// How a cache is opened.
#[derive(Clone, Debug)]
pub struct CacheOptions {
    /// The bound on frames and metadata together, in bytes; at least [`MIN_CACHE_BYTES`].
    pub cache_bytes: u64,
    /// When writes are acknowledged.
    pub mode: CacheMode,
    /// Requests of at least so many bytes bypass the cache.
    pub direct_threshold: Option<u64>,
    /// The most that the export may allocate, in bytes.
    pub quota: Option<u64>,
    /// The export as faults know it. An interruption of the export also ends the pauses of the cache's own work.
    pub device: Option<Device>,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self {
            cache_bytes: DEFAULT_CACHE_BYTES,
            mode: CacheMode::default(),
            direct_threshold: None,
            quota: None,
            device: None,
        }
    }
}

/// The smallest cache: enough for a slice of every stage of a request at once.
pub const MIN_CACHE_BYTES: u64 = 1 << 20;
/// What [`CacheOptions::default`] takes.
pub const DEFAULT_CACHE_BYTES: u64 = 256 << 20;

/// The most that one read, write or payload call takes, in bytes. Larger requests go in slices. A slice is large enough
/// that its fixed costs vanish, and small enough that a few slices fit everywhere.
pub const SLICE_BYTES: usize = 1 << 20;

/// The most pages in one backend write: as long as a slice.
pub(crate) const RUN_PAGES: u64 = (SLICE_BYTES / PAGE_SIZE) as u64;
/// Backend writes in flight at a time, per cache: twice what keeps a disk's queue busy, as disks that complete a batch
/// at once stand still until the next comes.
pub const WRITEBACK_RUNS: usize = 64;
/// Searches for holes that the store is asked for at a time, for clients: each keeps a thread and a processor busy.
pub(crate) const SEARCHES: usize = 2;
/// Age at which a dirty page is written back though no request asked for it.
pub(crate) const DIRTY_AGE: Duration = Duration::from_secs(5);
/// How often the background task looks at ages.
pub(crate) const TICK: Duration = Duration::from_secs(1);
/// The longest single pause of a writer between the slow-down and the stop threshold.
pub(crate) const THROTTLE_PAUSE_MAX: Duration = Duration::from_millis(20);
/// How long writers wait for writeback that makes no progress before they get its error.
pub(crate) const STALL_LIMIT: Duration = Duration::from_secs(30);
/// Pauses between background attempts after a failed writeback: the first, doubled up to the last.
pub(crate) const RETRY_FIRST: Duration = Duration::from_millis(100);
pub(crate) const RETRY_LAST: Duration = Duration::from_secs(5);
/// How long a run that keeps failing is written anew in smaller and smaller parts: a disk's own attempts at a bad
/// sector take seconds, and a request that waits for the run waits for all of this.
pub(crate) const HALVING_TIME_MAX: Duration = Duration::from_secs(1);
/// A blocker whose range spans more regions than this takes the whole-device gate instead of region after region.
pub(crate) const WHOLE_REGIONS: usize = 8;
/// The first slice of such a blocker, under one hold of the gate. Punching this much data out of ext4 took 0.1 s on the
/// disk that was measured, and other requests can wait as long; 4 GiB, the most that a request asks for, took 3 s.
pub(crate) const WHOLE_SLICE_BYTES: u64 = WHOLE_REGIONS as u64 * REGION_BYTES;
/// The time that a slice should take. A slice that takes an n-th of it makes the next one n times larger: holes cost
/// next to nothing, so a device of any size is done in a few slices. After a slower slice the sizes begin anew.
pub(crate) const WHOLE_SLICE_QUICK: Duration = Duration::from_millis(5);
/// The most times that a slice may be larger than the one before. The slice that meets the first data behind a hole
/// must not be all of the device.
pub(crate) const WHOLE_SLICE_GROWTH: u64 = 8;

/// Thresholds in frames, computed once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Frames in the pool.
    pub(crate) frames: u32,
    /// Pages in a slice.
    pub(crate) slice_pages: u32,
    /// Writeback starts.
    pub(crate) dirty_start: u64,
    /// Writers are slowed.
    pub(crate) dirty_slow: u64,
    /// Writers are stopped.
    pub(crate) dirty_stop: u64,
    /// Weir syncs by itself.
    pub(crate) unstable_sync: u64,
    /// Frames that arrived payloads may hold together while they are being stored.
    pub(crate) payload_frames: u32,
    /// Frames that payloads may hold together while their data is received straight into them: as many.
    pub(crate) payload_ahead_frames: u32,
    /// The most that readahead keeps in the air, in pages.
    pub(crate) readahead_pages: u64,
}

impl Limits {
    pub(crate) fn new(cache_bytes: u64) -> Self {
        let cost = PAGE_SIZE + FramePool::METADATA_BYTES_PER_FRAME + size_of::<PageSlot>();
        let frames = (cache_bytes.max(MIN_CACHE_BYTES) / cost as u64).min(u64::from(MAX_FRAMES));
        let frames = u32::try_from(frames).expect("at most MAX_FRAMES");
        let share = |parts: u32| u64::from(frames / parts);
        Self {
            frames,
            // A power of two, so that slices never cross a region.
            slice_pages: (1 << (frames / 16).ilog2()).min(u32::try_from(RUN_PAGES).expect("small")),
            dirty_start: share(10),
            dirty_slow: share(4),
            dirty_stop: share(2),
            unstable_sync: share(8),
            payload_frames: frames / 8,
            payload_ahead_frames: frames / 8,
            readahead_pages: share(16).min(512),
        }
    }
}
