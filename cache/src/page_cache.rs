//! The page cache of one export: the state that everything else in this crate works on.
//!
//! # Shape
//! [`PageCache`] owns the [`PageTable`] (what is known of each page), the frames ([`FramePool`], the memory of the
//! pages), the [`AddLock`] that keeps fills and blockers apart, and the bookkeeping of what is on its way to or from
//! the backend. The backend is the store behind the cache. The operations live in modules of their own:
//! [`read`](crate::requests::read), [`write`](crate::requests::write), [`discard`](crate::requests::discard),
//! [`direct`](crate::requests::direct), [`resize`](crate::requests::resize), [`flush`](crate::durability::flush),
//! [`writeback`](crate::durability::writeback), [`readahead`](crate::pressure::readahead),
//! [`memory`](crate::pressure::memory).
//!
//! # Words
//! - A *fill* reads pages from the backend into the cache. A *run* writes neighbouring dirty pages back to it.
//! - A *change* alters the backend past the cache, and no page keeps what it did: a trim, zeroes, or a direct write,
//!   which is a large write that bypasses the cache.
//! - An *adder* puts data into the cache: a fill or a write. A *blocker* keeps adders out of its range while it alters
//!   what is below: a change, for one. Each holds a *guard* of the [`AddLock`] meanwhile. A *small* write holds its
//!   guard without an await.
//! - The *payload* of a write is its data. It is received into private frames, which no page has yet.
//! - Whoever *carries* a transfer polls it beside its own waiting. If the carrier is dropped, a task goes on with the
//!   transfer (see [`transfer`](crate::transfer)).
//!
//! # Order of requests
//! **Nothing of an older request takes effect after a younger one of the same bytes was acknowledged, once the older
//! one's client has gone.** A client that loses its connection can't know what became of its requests. It makes them
//! anew over another connection and relies on what it is told there. Two requests that a client has under way together
//! may end in either order, as on any disk. Three rules keep that promise:
//!
//! - What the backend was asked to alter runs on, so younger requests wait for it. A page in flight is not submitted
//!   again before its transfer has completed. Changes of the same pages are served in the order of their arrival (see
//!   [`range_lock`](crate::primitives::range_lock)). An adder waits for the blockers of its pages.
//! - What has not begun ends with its future. A request that waits for anything (its turn, memory, the throttle, a
//!   guard, a fill of another request) has altered nothing yet, and dropping it is the end of it. Only parts that are
//!   with the backend go on in tasks.
//! - When a client has gone, its session first drops the futures of all its requests. Only then may any other of them
//!   go on, and it takes no more requests from its buffer. That includes requests that a fault rule or a frozen device
//!   keeps waiting.
//!
//! # What waits for what
//! Every wait of the cache, what is held meanwhile, and what ends it:
//!
//! | what waits, and for what | holding | ended by |
//! | --- | --- | --- |
//! | a request for memory (`reserve`, `payload`) | frames already gathered; no guard, no page lock | frames freed by readers, reclaim, writeback; the queue is first come first served |
//! | a payload that has arrived for its share of memory | nothing | other payloads that have arrived. They wait for memory, the throttle, guards, changes before them and the backend. A payload that is still to come has a share of its own, and nothing waits for that |
//! | a write for the throttle | the payload's frames | writeback; an error after [`STALL_LIMIT`](crate::options::STALL_LIMIT) without progress |
//! | an adder for its guard | frames | blockers that overlap it and came before it. They wait for writeback, the backend, or adders before them |
//! | a change for its place: for earlier changes of the same pages | nothing, or a direct write's payload | these changes. They wait for guards, turns and the backend |
//! | a blocker for its guard | its place, if it is a change | adders that overlap it and came before it. They wait for their own fills, or for blockers before them |
//! | a blocker for its guard | its place, if it is a change | small writes of its region (see [`add_lock`](crate::add_lock)) that were under way: some microseconds |
//! | an adder for its own fill | its guard | the backend |
//! | an adder for a fill of another request | nothing | the backend, and whatever carries that fill |
//! | a blocker for its turn at the quota | its guard | other blockers that have their turn. They wait for the backend only |
//! | a blocker for writeback in its range | its guard | the backend: writeback takes no guard |
//! | a run for its permit | nothing; whatever carries it goes on with its other runs meanwhile | the backend, and whatever carries other runs |
//! | a FLUSH for runs and blockers | nothing | the backend, and whatever carries them. The FLUSH looks again after a failure, but only so often (see [`flush`](crate::durability::flush)) |
//! | the background task | nothing | a tick, a kick, the end of something that it started; never a transfer itself |
//! | a sync for its turn | nothing | the backend |
//! | a BLOCK_STATUS for its turn to search the backend | nothing | others that have their turn. They wait for the backend only |
//! | anything for the lock bit of a page's slot | nothing, or a guard | a few instructions elsewhere; never held across an await |
//!
//! There is no cycle, because the waits have an order: a payload's share of memory, frames, a place, a guard, a turn, a
//! run's permit, and at last the backend, which waits for nothing of the cache. Whatever waits for one of these holds
//! only what stands before it. Those that wait for one place or one guard have it in the order of asking, and frames go
//! to the head of a queue. This rests on the rule of [`transfer`](crate::transfer): whoever carries a transfer polls it
//! until it is done, or drops it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weir_faults::{Errno, FaultContext, Faults, RequestKinds};

use crate::add_lock::AddLock;
use crate::backend::Backend;
use crate::durability::background::Started;
use crate::durability::generations::Generations;
use crate::durability::power::PowerCuts;
use crate::durability::writeback::{Writeback, WritebackTrouble};
use crate::error_seq::ErrorSeq;
use crate::faulted_backend::FaultedBackend;
use crate::frame::{FramePool, PAGE_BYTES, PAGE_SHIFT};
use crate::options::{CacheMode, CacheOptions, Limits, MIN_CACHE_BYTES, SEARCHES};
use crate::pages::PageTable;
use crate::pressure::memory::Memory;
use crate::pressure::quota::Quota;
use crate::pressure::readahead::Readahead;
use crate::pressure::throttle::Throttle;
use crate::primitives::range_lock::RangeLock;
use crate::requests::fill::Fills;
use crate::stats::{CacheStats, Counters};
use std::sync::atomic::{AtomicU64, Ordering};

/// A coherent write-back cache in front of one [`Backend`].
///
/// Used as an `Arc`. Offsets and lengths are bytes; callers check requests against [`PageCache::size`] first, and the
/// cache checks again where a resize may have come between.
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
    pub(crate) quota: Option<Quota>,
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
            quota: quota.map(|quota| Quota::new(quota, allocation_unit, background.clone())),
            readahead: Readahead::default(),
            searches: Semaphore::new(SEARCHES),
            counters: Counters::default(),
            background,
            started: Started::default(),
            kick: Arc::new(Notify::new()),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        });
        tokio::spawn(crate::durability::background::run(
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

    /// What was acknowledged and is lost: each connection keeps a cursor from its start on, and its next FLUSH or FUA
    /// after a loss fails once, whatever [`PageCache::flush`] said.
    pub fn lost_data(&self) -> &ErrorSeq {
        &self.lost
    }

    /// Hands over to the backend what was asked for and is kept back to be handed over with more: see
    /// [`Backend::submit`].
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
        // Slices end at multiples of the slice, so that an unaligned request is cut at page borders from the second on
        // and no slice crosses a region.
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
    /// What is not durable, when the flush fails or takes longer than `deadline`; the backend is left open then. What
    /// was lost before, if nobody else can be told any more.
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
