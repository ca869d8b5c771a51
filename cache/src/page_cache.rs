//! The page cache of one export: the state that everything else in this crate works on.
//!
//! # Shape
//! [`PageCache`] owns the [`PageTable`] (what is known of each page), the frames ([`FramePool`]), the [`AddLock`] that keeps
//! fills and blockers apart, and the bookkeeping of what is on its way to or from the backend. The operations live in
//! modules of their own: [`read`](crate::read), [`write`](crate::write), [`discard`](crate::discard),
//! [`flush`](crate::flush), [`writeback`](crate::writeback), [`readahead`](crate::readahead), [`reclaim`](crate::reclaim).
//!
//! # Order of requests
//! **Nothing of an older request takes effect after a younger one of the same bytes was acknowledged, once the older one's client
//! has gone.** A client that loses its connection can't know what became of its requests. It makes them anew over another connection
//! and relies on what it is told there. Two requests that a client has under way together may end in either order, as on any disk.
//! Three things keep the rule:
//!
//! - What the store was asked to change runs on, so it is waited for. Pages in flight are not submitted again before they have
//!   landed; trims, zeroes and direct writes of the same pages are served in the order of their arrival (see
//!   [`range_lock`](crate::range_lock)), and whoever adds pages waits for their blockers.
//! - What has not begun ends with its future. Whatever a request waits for (its turn, memory, the throttle, a guard, someone else's
//!   fill), it has changed nothing yet, and dropping it is the end of it. Only parts that are with the store go on in tasks.
//! - A session drops the futures of a client that has gone before it lets any of them go on, and takes no more requests from
//!   its buffer. That includes what a fault rule or a frozen device keeps waiting.
//!
//! # Who waits for whom
//! Every wait of the cache, what is held meanwhile, and who ends it:
//!
//! | wait | holding | ended by |
//! | --- | --- | --- |
//! | for memory (`reserve`, `payload`) | frames already gathered; no guard, no page lock | frames freed by readers, reclaim, writeback; the queue is first come first served |
//! | for the budget of payloads that have arrived | nothing | others that have arrived, which wait for memory, the throttle, guards, changes before them and the backend. Nobody waits for the budget of those that are to come |
//! | for the throttle | the payload's frames | writeback; an error after [`STALL_LIMIT`](crate::options::STALL_LIMIT) without progress |
//! | for an add guard | frames | blockers that overlap it and came before it, which wait for writeback and the backend, or for adders before them |
//! | of a change for those of the same pages that came before it | nothing, or a direct write's payload | these, which wait for guards, turns and the backend |
//! | for a block guard | a place in that order | adders that overlap it and came before it, which wait for their own fills, or for blockers before them |
//! | the same | the same | small writes of its region that were under way: some microseconds |
//! | for one's own fill | an add guard | the backend |
//! | for someone else's fill | nothing | the backend, and whoever carries that fill |
//! | of a blocker for its turn at the quota | a block guard | other blockers that have theirs, which wait for the backend only |
//! | of a blocker for writeback in its range | a block guard | the backend: writeback takes no guard |
//! | for a run's permit | runs of one's own, polled meanwhile | the backend, and whoever carries other runs |
//! | of a FLUSH for runs and blockers | nothing | the backend, and whoever carries them; a second failure of others makes it fail |
//! | of the background task | nothing | a tick, a kick, the end of something that it started; never a transfer itself |
//! | for the turn to sync | nothing | the backend |
//! | of a BLOCK_STATUS for its turn to search the store | nothing | others that have theirs, which wait for the backend only |
//! | for a slot's lock bit | nothing or an add or block guard | a few instructions elsewhere; never held across an await |
//!
//! Guards and turns are only ever held over waits for the backend or, guards, for a turn; the backend waits for nobody, every
//! other wait holds no guard, and guards are had in the order in which they were asked for; so there is no cycle. That rests on the rule of [`carried`](crate::carried): whoever carries a
//! transfer polls it whatever else it waits for, or drops it, and then a task goes on with it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weir_faults::{Errno, FaultContext, Faults, RequestKinds};

use crate::add_lock::AddLock;
use crate::backend::Backend;
use crate::background::Started;
use crate::error_seq::ErrorSeq;
use crate::faulted_backend::FaultedBackend;
use crate::fill::Fills;
use crate::flush::Generations;
use crate::frame::{FramePool, PAGE_BYTES, PAGE_SHIFT};
use crate::options::{CacheMode, CacheOptions, Limits, MIN_CACHE_BYTES, SEARCHES};
use crate::pages::PageTable;
use crate::power::PowerCuts;
use crate::range_lock::RangeLock;
use crate::readahead::Readahead;
use crate::reclaim::Memory;
use crate::space::Space;
use crate::stats::{CacheStats, Counters};
use crate::throttle::Throttle;
use crate::writeback::{Writeback, WritebackTrouble};
use std::sync::atomic::{AtomicU64, Ordering};

/// A coherent write-back cache in front of one [`Backend`].
///
/// Used as an `Arc`. Offsets and lengths are bytes; callers check requests against [`PageCache::size`] first, and the cache
/// checks again where a resize may have come between.
#[derive(Debug)]
pub struct PageCache {
    pub(crate) table: PageTable,
    /// The frames: those that are private as well as those of the table.
    pub(crate) pool: Arc<FramePool>,
    pub(crate) add_lock: Arc<AddLock>,
    /// Changes behind the cache's back, in the order of their arrival.
    pub(crate) changes: RangeLock,
    pub(crate) backend: FaultedBackend,
    pub(crate) limits: Limits,
    pub(crate) mode: CacheMode,
    /// Requests of at least so many bytes bypass the cache.
    pub(crate) direct_threshold: u64,
    pub(crate) memory: Memory,
    pub(crate) throttle: Throttle,
    pub(crate) fills: Fills,
    pub(crate) writeback: Writeback,
    pub(crate) generations: Generations,
    pub(crate) lost: ErrorSeq,
    /// The quota, if there is one.
    pub(crate) space: Option<Space>,
    pub(crate) readahead: Readahead,
    /// Turns to search the store for holes.
    pub(crate) searches: Semaphore,
    pub(crate) counters: Counters,
    pub(crate) size: AtomicU64,
    /// Odd while the store is being resized or shifted, under the exclusive gate; it changes twice for each.
    pub(crate) shape: AtomicU64,
    pub(crate) power_cuts: PowerCuts,
    /// For work that no request asked for.
    pub(crate) background: FaultContext,
    pub(crate) started: Started,
    /// Wakes the background task.
    pub(crate) kick: Arc<Notify>,
    pub(crate) tasks: TaskTracker,
    pub(crate) closing: CancellationToken,
}

/// Why a cache could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Less than the smallest cache.
    #[error("a cache of {0} bytes is too small: it takes at least {MIN_CACHE_BYTES}")]
    TooSmall(u64),
    /// A quota over a store that can't tell what it has allocated.
    #[error("the store can't tell what it has allocated, so a quota can't be kept")]
    QuotaUnsupported,
    /// No address space for the frames.
    #[error("no memory for a cache of {bytes} bytes")]
    Memory {
        /// What was asked for.
        bytes: u64,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Why a cache could not be closed cleanly.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    /// The final flush failed; the pages are lost with the process.
    #[error("the final flush failed: {errno}; {}", NotDurable(*.dirty_bytes))]
    Flush {
        /// What the backend said.
        errno: Errno,
        /// Bytes that the backend may not durably have.
        dirty_bytes: u64,
    },
    /// The final flush took too long.
    #[error("the final flush took longer than {deadline:?}; {}", NotDurable(*.dirty_bytes))]
    Deadline {
        /// How long it was given.
        deadline: Duration,
        /// Bytes that the backend may not durably have.
        dirty_bytes: u64,
    },
    /// All that could be flushed is; but data was lost before, and nobody has been told.
    #[error(
        "a sync failed earlier ({0}) and may have lost acknowledged data; no client has been told"
    )]
    Lost(Errno),
}

/// Bytes of pages that aren't durable. A flush can also fail for what no page is kept of: direct writes and zeroes.
struct NotDurable(u64);

impl fmt::Display for NotDurable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("what the store has taken since its last sync is not durable"),
            bytes => write!(f, "{bytes} bytes are not durable"),
        }
    }
}

impl PageCache {
    /// Opens a cache over `backend` and starts its background task on the current tokio runtime.
    ///
    /// # Errors
    /// A cache that is too small, or no address space for it.
    pub fn open(
        backend: Arc<dyn Backend>,
        options: &CacheOptions,
        faults: &Faults,
    ) -> Result<Arc<Self>, OpenError> {
        if options.cache_bytes < MIN_CACHE_BYTES {
            return Err(OpenError::TooSmall(options.cache_bytes));
        }
        let (quota, allocation_unit) = (options.quota, backend.geometry().allocation_unit);
        if quota.is_some() && !backend.capabilities().extents {
            return Err(OpenError::QuotaUnsupported);
        }
        let limits = Limits::new(options.cache_bytes);
        let mut background = faults.context(RequestKinds::WRITEBACK);
        if let Some(device) = &options.device {
            background = background.on(device);
        }
        let pool = FramePool::with_faults(limits.frames, background.clone()).map_err(|source| {
            OpenError::Memory {
                bytes: options.cache_bytes,
                source,
            }
        })?;
        let cache = Arc::new(Self {
            table: PageTable::new(Arc::clone(&pool), background.clone()),
            memory: Memory::new(&limits),
            pool,
            add_lock: Arc::new(AddLock::with_faults(PAGE_SHIFT, background.clone())),
            changes: RangeLock::default(),
            size: AtomicU64::new(backend.geometry().size),
            shape: AtomicU64::new(0),
            power_cuts: PowerCuts::default(),
            backend: FaultedBackend::new(backend),
            limits,
            mode: options.mode,
            direct_threshold: match options.mode {
                CacheMode::None => 0,
                _ => options.direct_threshold.unwrap_or(u64::MAX),
            },
            throttle: Throttle::default(),
            fills: Fills::default(),
            writeback: Writeback::default(),
            generations: Generations::default(),
            lost: ErrorSeq::new(),
            space: quota.map(|quota| Space::new(quota, allocation_unit, background.clone())),
            readahead: Readahead::default(),
            searches: Semaphore::new(SEARCHES),
            counters: Counters::default(),
            background,
            started: Started::default(),
            kick: Arc::new(Notify::new()),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        });
        tokio::spawn(crate::background::run(
            Arc::downgrade(&cache),
            Arc::clone(&cache.kick),
            cache.closing.clone(),
        ));
        Ok(cache)
    }

    /// The size of the device in bytes.
    #[inline]
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// The store behind the cache, as the cache asks it.
    pub fn backend(&self) -> &FaultedBackend {
        &self.backend
    }

    /// What was acknowledged and is lost: each connection keeps a cursor from its start on, and its next FLUSH or FUA after a loss
    /// fails once, whatever [`PageCache::flush`] said.
    pub fn lost_data(&self) -> &ErrorSeq {
        &self.lost
    }

    /// Hands over to the backend what was asked for and is kept back to be handed over with more: see [`Backend::submit`].
    pub fn submit_gathered(&self) {
        self.backend.submit();
    }

    /// Where the frames live.
    pub fn pool(&self) -> &Arc<FramePool> {
        &self.pool
    }

    /// How many bytes of a request that starts at `offset` and has `length` left are one slice.
    pub fn slice_at(&self, offset: u64, length: u64) -> usize {
        let slice = u64::from(self.limits.slice_pages) * PAGE_BYTES;
        // Slices end at multiples of the slice, so that an unaligned request is cut at page borders from the second on and
        // no slice crosses a region.
        let room = slice - offset % slice;
        usize::try_from(room.min(length)).expect("at most a slice")
    }

    /// Figures at this moment.
    pub fn stats(&self) -> CacheStats {
        let counts = self.table.counts();
        CacheStats {
            frames: u64::from(self.limits.frames),
            free_frames: u64::from(self.pool.free_frames()),
            metadata_bytes: self.metadata_bytes() as u64,
            resident_pages: counts.present(),
            dirty_pages: counts.dirty(),
            in_flight_pages: counts.in_flight(),
            held_pages: counts.held(),
            unstable_pages: counts.unstable(),
            hits: self.counters.hits.sum(),
            misses: self.counters.misses.sum(),
            evictions: self.counters.evictions.sum(),
            writeback_pages: self.counters.writeback_pages.sum(),
            writeback_runs: self.counters.writeback_runs.sum(),
            writeback_errors: self.counters.writeback_errors.sum(),
            syncs: self.counters.syncs.sum(),
            losses: self.counters.losses.sum(),
            readahead_pages: self.counters.readahead_pages.sum(),
            readahead_used: self.counters.readahead_used.sum(),
            readahead_wasted: self.counters.readahead_wasted.sum(),
            throttled: self.counters.throttled.sum(),
            memory_waits: self.counters.memory_waits.sum(),
            lock_waits: {
                let locks = self.add_lock.stats();
                locks.gate_waits + locks.add_waits + locks.block_waits
            },
        }
    }

    /// Why the store doesn't take what is dirty, if that is so and something still waits for it.
    #[must_use]
    pub fn trouble(&self) -> Option<WritebackTrouble> {
        self.writeback.troubles.worst(self.unclean_pages() > 0)
    }

    /// Whether a sync has covered everything that the backend has taken.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.generations.is_synced()
    }

    /// Pages that the backend may not durably have.
    #[inline]
    pub(crate) fn unclean_pages(&self) -> u64 {
        self.table.counts().unclean()
    }

    /// Writes everything back, syncs, stops the background task and closes the backend.
    ///
    /// # Errors
    /// What is not durable, when the flush fails or takes longer than `deadline`; the backend is left open then. What was lost
    /// before, if nobody else can be told any more.
    pub async fn close(self: &Arc<Self>, deadline: Duration) -> Result<(), CloseError> {
        self.closing.cancel();
        let context = self.background.within(RequestKinds::CLOSE);
        let until = tokio::time::Instant::now() + deadline;
        let flushed = tokio::time::timeout_at(until, self.flush(&context)).await;
        let dirty_bytes = self.unclean_pages() * PAGE_BYTES;
        let outcome = match flushed {
            Ok(Ok(())) => Ok(()),
            Ok(Err(errno)) => Err(CloseError::Flush { errno, dirty_bytes }),
            Err(_) => Err(CloseError::Deadline {
                deadline,
                dirty_bytes,
            }),
        };
        self.tasks.close();
        // After a failure transfers may still be under way, and nothing is called on a backend that is closed.
        outcome?;
        if tokio::time::timeout_at(until, self.tasks.wait())
            .await
            .is_err()
        {
            // A read that hangs: nothing depends on it, and nothing is called on a backend that is closed.
            tracing::warn!("the store still works on something that nobody waits for");
        } else if let Err(errno) = self.backend.close().await {
            tracing::warn!(%errno, "closing the backend failed");
        }
        let mut last = self.lost.sample();
        match self.lost.check_and_advance(&mut last) {
            Some(errno) => Err(CloseError::Lost(errno)),
            None => Ok(()),
        }
    }
}

/// The page that holds byte `offset`.
#[inline]
pub(crate) const fn page_of(offset: u64) -> u64 {
    offset >> PAGE_SHIFT
}

/// All pages that `range` of bytes touches.
#[inline]
pub(crate) const fn pages_of(range: &std::ops::Range<u64>) -> std::ops::Range<u64> {
    page_of(range.start)..range.end.div_ceil(PAGE_BYTES)
}

/// The bytes of `pages`.
#[inline]
pub(crate) const fn bytes_of(pages: &std::ops::Range<u64>) -> std::ops::Range<u64> {
    pages.start << PAGE_SHIFT..pages.end << PAGE_SHIFT
}

#[cfg(test)]
mod tests;
