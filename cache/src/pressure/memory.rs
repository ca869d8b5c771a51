//! Memory: which requests get frames when there are not enough. [`clock`](crate::pressure::clock) says which pages are
//! given up for it.
//!
//! Memory is a lock like any other. A request reserves its worst case before it takes any guard, all or nothing, first
//! come first served: [`PageCache::reserve`] hands out frames that are physically the caller's. A request that must
//! wait takes a place in a fair queue. Only the head of the queue gathers frames, so partial hoards can't deadlock.
//! While a request waits, newcomers don't overtake it.
//!
//! Payloads have budgets of their own, a quarter of the frames: a thousand clients that each announce a large write and
//! send nothing can't starve the readers. Half of it is for payloads whose data is still to come, so that these can't
//! starve payloads whose data is there; [`payload`](crate::requests::payload) says which of the two is waited for.
//!
//! # Lines
//! A client may have hundreds of requests under way. If each of them took a place in the queue of its own, the client
//! whose requests came first would have the memory for as long as it likes to take for its replies, and a neighbour
//! with one request would wait behind all of them. So the requests of one client stand in a [`MemoryLine`], and only
//! the first of a line stands in the queue. A request there has at most one request of each other client before it.
//!
//! # Metadata
//! What is kept beside the pages counts within the cache's size: the nodes of the radix tree, the locks of the regions,
//! the bits of the quota. For every 4 KiB of these, one frame is withheld.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::{Mutex as FairMutex, OwnedSemaphorePermit, Semaphore};
use weir_faults::race_fault;

use crate::frame::{FrameBuf, FrameId, PAGE_SIZE, PrivateFrame};
use crate::options::Limits;
use crate::page_cache::PageCache;
use crate::pages::PageSlot;
use crate::pressure::clock::{Hand, inline_steps};
use crate::pressure::quota::Quota;

/// Pages evicted at a time when the free list is empty on a hot path: enough to amortise the search, few enough that no
/// request notices.
const EVICTION_BATCH: usize = 32;
/// The most frames that a reservation sets aside for metadata, or gives back: a request adds less metadata than that.
const WITHHELD_PER_RESERVATION: usize = 256;

/// A budget of the payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Budget {
    /// The budget of payloads that have arrived. Its holders wait for the store only.
    Arrived,
    /// The budget of payloads that are received straight into their frames. Its holders wait for clients, so no request
    /// waits for it.
    Ahead,
}

/// Where the requests of one client wait for memory, one behind the other. Only the first of them has a place in the
/// queue.
#[derive(Clone, Debug, Default)]
pub struct MemoryLine(Arc<FairMutex<()>>);

/// The requests that wait for memory, and what is set aside.
#[derive(Debug)]
pub(crate) struct Memory {
    /// The head of the queue of waiters holds it; tokio's mutex is fair.
    turn: FairMutex<()>,
    /// Frames that payloads may still take that have arrived.
    payloads: Arc<Semaphore>,
    /// Frames that payloads may still take whose data is to come.
    ahead: Arc<Semaphore>,
    /// How often payloads were refused memory ahead of their data.
    refusals: AtomicU64,
    pub(super) hand: Hand,
    /// Frames set aside for metadata.
    withheld: Mutex<Vec<FrameId>>,
    withheld_frames: AtomicUsize,
}

impl Memory {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            turn: FairMutex::new(()),
            payloads: Arc::new(Semaphore::new(limits.payload_frames as usize)),
            ahead: Arc::new(Semaphore::new(limits.payload_ahead_frames as usize)),
            refusals: AtomicU64::new(0),
            hand: Hand::default(),
            withheld: Mutex::new(Vec::new()),
            withheld_frames: AtomicUsize::new(0),
        }
    }
}

impl PageCache {
    /// Frames for a request, exactly `frames` of them. Waits in turn. Cancel safe.
    ///
    /// The caller holds no guard and no page lock.
    pub(crate) async fn reserve(&self, frames: usize) -> FrameBuf {
        self.reserve_in(None, frames).await
    }

    /// As [`PageCache::reserve`], after the requests before it in `line`, if it is in one.
    pub(crate) async fn reserve_in(&self, line: Option<&MemoryLine>, frames: usize) -> FrameBuf {
        let mut buffer = FrameBuf::new(Arc::clone(&self.pool));
        self.withhold_metadata();
        if self.try_reserve(frames, &mut buffer) {
            return buffer;
        }
        assert!(
            frames <= self.limits.frames as usize,
            "{frames} frames of {}",
            self.limits.frames
        );
        // What it has got in vain would be missing to the requests before it.
        drop(buffer);
        // Held across awaits on purpose: it is the line. Its holder waits for memory only, with no guard.
        let _first = match line {
            Some(line) => Some(line.0.lock().await),
            None => None,
        };
        self.counters.memory_waits.add(1);
        let wait = self.pool.announce_wait();
        // Held across awaits on purpose: it is the queue. Its holder waits for memory only, with no guard.
        let _turn = self.memory.turn.lock().await;
        let mut buffer = FrameBuf::new(Arc::clone(&self.pool));
        loop {
            if buffer.grow_to(frames) {
                return buffer;
            }
            if self.evict_in_turns(frames - buffer.len()).await == 0 {
                // Everything is dirty, unsynced or referenced: writeback and sync make pages evictable.
                self.kick.notify_one();
                wait.freed().await;
            }
        }
    }

    /// As [`PageCache::reserve`], but returns `false` instead of waiting; `buffer` may have grown in vain.
    pub(crate) fn try_reserve(&self, frames: usize, buffer: &mut FrameBuf) -> bool {
        if frames == 0 {
            return true;
        }
        if self.pool.waiting() > 0 || race_fault!(self.background) {
            return false;
        }
        let mut steps_left = inline_steps(frames.max(EVICTION_BATCH));
        while !buffer.grow_to(frames) {
            let wanted = (frames - buffer.len()).max(EVICTION_BATCH);
            if self.evict_within(wanted, &mut steps_left) == 0 {
                return false;
            }
        }
        true
    }

    /// One frame without waiting, for hot paths.
    #[inline]
    pub(crate) fn try_frame(&self) -> Option<PrivateFrame<'_>> {
        if self.pool.waiting() > 0 || race_fault!(self.background) {
            return None;
        }
        PrivateFrame::alloc(&self.pool).or_else(|| {
            self.evict_within(EVICTION_BATCH, &mut inline_steps(EVICTION_BATCH));
            PrivateFrame::alloc(&self.pool)
        })
    }

    /// Room in the budget of payloads that have arrived. Waits in turn. Cancel safe.
    pub(crate) async fn payload_permit(&self, frames: u32) -> OwnedSemaphorePermit {
        let payloads = Arc::clone(&self.memory.payloads);
        payloads
            .acquire_many_owned(frames)
            .await
            .expect("never closed")
    }

    /// Room in a budget of payloads, if there is room at once.
    pub(crate) fn try_payload_permit(
        &self,
        budget: Budget,
        frames: u32,
    ) -> Option<OwnedSemaphorePermit> {
        let budget = match budget {
            Budget::Arrived => &self.memory.payloads,
            Budget::Ahead => &self.memory.ahead,
        };
        Arc::clone(budget).try_acquire_many_owned(frames).ok()
    }

    /// A payload had to do without memory ahead of its data.
    #[cold]
    pub(crate) fn note_refusal(&self) {
        self.memory.refusals.fetch_add(1, Ordering::Relaxed);
    }

    /// How often a payload had to do without memory ahead of its data, so far. While that grows, a holder of such
    /// memory that doesn't use it is in another request's way.
    pub fn payloads_refused(&self) -> u64 {
        self.memory.refusals.load(Ordering::Relaxed)
    }

    /// Bytes that are kept beside the pages, and grow and shrink with what is cached and touched.
    pub(crate) fn metadata_bytes(&self) -> usize {
        let space = self.quota.as_ref().map_or(0, Quota::bytes);
        self.table.bytes() + self.add_lock.bytes() + space
    }

    /// Sets frames aside for metadata, or gives them back as it has shrunk.
    fn withhold_metadata(&self) {
        // A share of the frames' own bookkeeping is in their number already (`Limits::new` counts a slot per frame).
        let own = self.limits.frames as usize * size_of::<PageSlot>();
        let target = self
            .metadata_bytes()
            .saturating_sub(own)
            .div_ceil(PAGE_SIZE)
            .min(self.limits.frames as usize / 2);
        if self.memory.withheld_frames.load(Ordering::Relaxed) == target {
            return;
        }
        let mut withheld = self.memory.withheld.lock().expect("not poisoned");
        // The next reservations do the rest; when memory is short, that is all of it.
        for _ in 0..WITHHELD_PER_RESERVATION {
            if withheld.len() > target {
                self.pool
                    .unref(withheld.pop().expect("longer than the target"));
            } else if withheld.len() < target {
                let Some(frame) = self.pool.alloc().or_else(|| {
                    self.evict_within(1, &mut inline_steps(EVICTION_BATCH));
                    self.pool.alloc()
                }) else {
                    break;
                };
                withheld.push(frame);
            } else {
                break;
            }
        }
        self.memory
            .withheld_frames
            .store(withheld.len(), Ordering::Relaxed);
    }
}
