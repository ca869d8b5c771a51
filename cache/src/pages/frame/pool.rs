//! The pool: frames, their reference words, and the free list.
#![expect(
    unsafe_code,
    reason = "frames lie in one mapping, shared by reference counts"
)]

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use bytemuck::Zeroable;
use bytemuck::allocation::try_zeroed_slice_box;
use crossbeam_utils::CachePadded;
use memmap2::{Advice, MmapMut, MmapOptions};
use tokio::sync::Notify;
use weir_faults::{ArmedPoints, FaultContext, fault_point, race_fault};

use super::{FrameId, MAX_FRAMES, PAGE_SIZE};
use crate::primitives::points::Points;

/// Used since the eviction hand last passed.
const VISITED: u32 = 1 << 31;
/// Holds zeroes only.
const ZERO: u32 = 1 << 30;
/// Read ahead and not asked for yet.
const PREFETCHED: u32 = 1 << 29;
/// The first hit on this page should start the next window of readahead.
const MARKER: u32 = 1 << 28;
const COUNT: u32 = MARKER - 1;

/// Terminates the free list. Links are stored plus one, so that zeroed memory is an empty list.
const NO_LINK: u32 = 0;

/// A fixed number of page frames with their reference counts and a free list.
pub struct FramePool {
    base: NonNull<u8>,
    frames: u32,
    /// Keeps the mapping alive; only `base` is used to reach it.
    _map: MmapMut,
    /// Count, visited bit and zero bit of each frame.
    refs: Box<[AtomicU32]>,
    /// While a frame is free: the next free frame plus one.
    links: Box<[AtomicU32]>,
    /// While a frame is published: the index of the page that it holds. A hint for reclaim, checked under the page
    /// lock.
    owners: Box<[AtomicU64]>,
    /// Head of the free list: a tag against ABA in the high half, link in the low half.
    head: CachePadded<AtomicU64>,
    /// Frames `fresh..` were never used: their memory is untouched.
    fresh: CachePadded<AtomicU32>,
    free: CachePadded<AtomicU32>,
    /// How many requests wait for frames: looked at whenever a frame is freed.
    waiting: AtomicU32,
    freed: Notify,
    points: Points,
}

// SAFETY: `base` points into a mapping that lives as long as the pool; access to its bytes is governed by the frame
// states described in the module documentation, all other fields are themselves Send and Sync.
unsafe impl Send for FramePool {}
// SAFETY: as above; shared access hands out bytes only of published frames (immutable) or to a frame's private owner.
unsafe impl Sync for FramePool {}

impl std::fmt::Debug for FramePool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FramePool")
            .field("frames", &self.frames)
            .field("free", &self.free_frames())
            .finish()
    }
}

/// What a successful speculative reference saw in the frame's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TakenRef {
    /// The page is known to hold zeroes only.
    pub(crate) zero: bool,
    /// This was the first use of a page that readahead brought in.
    pub(crate) first_use: bool,
    /// This was the first use of the page that ends a readahead window's lead.
    pub(crate) marker: bool,
}

impl TakenRef {
    const fn of(word: u32) -> Self {
        Self {
            zero: word & ZERO != 0,
            first_use: word & PREFETCHED != 0,
            marker: word & MARKER != 0,
        }
    }
}

/// One entry for each frame.
fn zeroed_slice<T: Zeroable>(frames: u32) -> io::Result<Box<[T]>> {
    try_zeroed_slice_box(frames as usize).map_err(|()| io::ErrorKind::OutOfMemory.into())
}

impl FramePool {
    /// Reserves address space for `frames` frames; memory is used only as frames are first used.
    ///
    /// # Errors
    /// The system's error when it refuses the mapping.
    pub fn new(frames: u32) -> io::Result<Arc<Self>> {
        Self::with_points(frames, Points::NONE)
    }

    /// As [`FramePool::new`], with fault points.
    ///
    /// # Errors
    /// What the system, or a fault, says when it refuses the mapping.
    pub fn with_faults(frames: u32, faults: FaultContext) -> io::Result<Arc<Self>> {
        fault_point!(faults, "cache:pool:map", [ENOMEM])?;
        Self::with_points(frames, Points::of(faults))
    }

    fn with_points(frames: u32, points: Points) -> io::Result<Arc<Self>> {
        assert!(
            frames > 0 && frames <= MAX_FRAMES,
            "a pool of {frames} frames"
        );
        let mut map = MmapOptions::new()
            .len(frames as usize * PAGE_SIZE)
            .no_reserve_swap()
            .map_anon()?;
        // Sending from random 4 KiB pages is bound by address translation. Frames are first used in order, so large
        // pages cost no memory that would not be used anyway. A system without large pages will do, too.
        let _ = map.advise(Advice::HugePage);
        let base = NonNull::new(map.as_mut_ptr()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Arc::new(Self {
            base,
            frames,
            _map: map,
            refs: zeroed_slice(frames)?,
            links: zeroed_slice(frames)?,
            owners: zeroed_slice(frames)?,
            head: CachePadded::new(AtomicU64::new(u64::from(NO_LINK))),
            fresh: CachePadded::new(AtomicU32::new(0)),
            free: CachePadded::new(AtomicU32::new(frames)),
            waiting: AtomicU32::new(0),
            freed: Notify::new(),
            points,
        }))
    }

    /// How many frames the pool has.
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// How many frames are free at this moment.
    pub fn free_frames(&self) -> u32 {
        self.free.load(Ordering::Relaxed)
    }

    /// Bytes of bookkeeping per frame, beside the frame itself.
    pub const METADATA_BYTES_PER_FRAME: usize = 4 + 4 + 8;

    /// Takes one frame out of the free list, private, with a count of one and undefined contents.
    pub(crate) fn alloc(&self) -> Option<FrameId> {
        let frame = self.pop().or_else(|| self.take_fresh())?;
        self.free.fetch_sub(1, Ordering::Relaxed);
        // Release: a speculative reader that increments this count must see the slot that the frame left emptied.
        self.refs[frame as usize].store(1, Ordering::Release);
        Some(frame)
    }

    fn take_fresh(&self) -> Option<FrameId> {
        let mut armed = self.points.armed();
        let mut fresh = self.fresh.load(Ordering::Relaxed);
        while fresh < self.frames {
            if race_fault!(armed) {
                armed = ArmedPoints::NONE;
                fresh = self.fresh.load(Ordering::Relaxed);
                continue;
            }
            match self.fresh.compare_exchange_weak(
                fresh,
                fresh + 1,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(fresh),
                Err(now) => fresh = now,
            }
        }
        None
    }

    fn pop(&self) -> Option<FrameId> {
        let mut armed = self.points.armed();
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            let (tag, link) = (head >> 32, low(head));
            if link == NO_LINK {
                return None;
            }
            if race_fault!(armed) {
                armed = ArmedPoints::NONE;
                head = self.head.load(Ordering::Acquire);
                continue;
            }
            // A stale link is harmless: the tag makes the exchange fail.
            let next = self.links[link as usize - 1].load(Ordering::Relaxed);
            let new = (tag.wrapping_add(1) << 32) | u64::from(next);
            match self
                .head
                .compare_exchange_weak(head, new, Ordering::SeqCst, Ordering::Acquire)
            {
                Ok(_) => return Some(link - 1),
                Err(now) => head = now,
            }
        }
    }

    fn push(&self, frame: FrameId) {
        let mut armed = self.points.armed();
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            if race_fault!(armed) {
                armed = ArmedPoints::NONE;
                head = self.head.load(Ordering::Relaxed);
            }
            self.links[frame as usize].store(low(head), Ordering::Relaxed);
            let new = ((head >> 32).wrapping_add(1) << 32) | u64::from(frame + 1);
            // SeqCst: ordered before the caller's look at whether a request waits for frames.
            match self
                .head
                .compare_exchange_weak(head, new, Ordering::SeqCst, Ordering::Relaxed)
            {
                Ok(_) => break,
                Err(now) => head = now,
            }
        }
        self.free.fetch_add(1, Ordering::SeqCst);
    }

    /// Step 2 of the module documentation. The caller must look at the slot again before it touches the bytes.
    #[inline]
    pub(crate) fn try_ref(&self, frame: FrameId, mut armed: ArmedPoints<'_>) -> Option<TakenRef> {
        let word = &self.refs[frame as usize];
        let mut now = word.load(Ordering::Relaxed);
        loop {
            if now & COUNT == 0 {
                return None;
            }
            if race_fault!(armed) {
                armed = ArmedPoints::NONE;
                now = word.load(Ordering::Relaxed);
                continue;
            }
            let new = ((now + 1) | VISITED) & !(PREFETCHED | MARKER);
            match word.compare_exchange_weak(now, new, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(TakenRef::of(now)),
                Err(seen) => now = seen,
            }
        }
    }

    /// One more reference to a frame of which the caller already holds one.
    pub(crate) fn add_ref(&self, frame: FrameId) -> TakenRef {
        let before = self.refs[frame as usize].fetch_add(1, Ordering::Relaxed);
        assert!(before & COUNT > 0, "frame {frame} has no reference to copy");
        TakenRef::of(before)
    }

    /// Gives one reference back; `true` when it was the last one and the frame is free now.
    #[inline]
    pub(crate) fn unref(&self, frame: FrameId) -> bool {
        // SeqCst: ordered before the look at whether a request waits for memory.
        let before = self.refs[frame as usize].fetch_sub(1, Ordering::SeqCst);
        assert!(before & COUNT > 0, "frame {frame} was freed twice");
        if before & COUNT == 1 {
            std::sync::atomic::fence(Ordering::Acquire);
            self.push(frame);
            self.wake_waiter();
            return true;
        }
        if before & COUNT == 2 {
            // The reference that is left may be the slot's: the page can be evicted now.
            self.wake_waiter();
        }
        false
    }

    /// Tells the request that waits for memory to look again: a frame was freed, or a page became evictable.
    pub(crate) fn wake_waiter(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.freed.notify_one();
        }
    }

    /// Whether requests wait for frames: a holder of pages that it doesn't need should let go of them.
    pub fn is_short(&self) -> bool {
        self.waiting() > 0
    }

    /// How many requests wait for frames.
    pub(crate) fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Announces a wait: frames freed from now on wake [`FramePool::freed`].
    pub(crate) fn announce_wait(&self) -> MemoryWait<'_> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        // A thread that gives a reference back either sees the wait, or the search that follows sees what it gave back.
        std::sync::atomic::fence(Ordering::SeqCst);
        MemoryWait(self)
    }

    /// Marks a private frame as holding zeroes only.
    pub(crate) fn mark_zero(&self, frame: FrameId) {
        self.refs[frame as usize].fetch_or(ZERO, Ordering::Relaxed);
    }

    /// Marks a private frame as read ahead, and whether its first use continues the stream.
    pub(crate) fn mark_prefetched(&self, frame: FrameId, marker: bool) {
        let bits = if marker {
            PREFETCHED | MARKER
        } else {
            PREFETCHED
        };
        self.refs[frame as usize].fetch_or(bits, Ordering::Relaxed);
    }

    /// Whether the frame was read ahead and never asked for.
    pub(crate) fn is_unused_prefetch(&self, frame: FrameId) -> bool {
        self.refs[frame as usize].load(Ordering::Relaxed) & PREFETCHED != 0
    }

    /// Clears the visited bit; says whether it was set.
    pub(crate) fn take_visited(&self, frame: FrameId) -> bool {
        let word = &self.refs[frame as usize];
        word.load(Ordering::Relaxed) & VISITED != 0
            && word.fetch_and(!VISITED, Ordering::Relaxed) & VISITED != 0
    }

    /// The count at this moment: a hint.
    pub(crate) fn count(&self, frame: FrameId) -> u32 {
        self.refs[frame as usize].load(Ordering::Relaxed) & COUNT
    }

    /// Frames `..used_frames()` may hold pages; the others were never used.
    pub(crate) fn used_frames(&self) -> u32 {
        self.fresh.load(Ordering::Relaxed)
    }

    /// The page that was last published in this frame: a hint.
    pub(crate) fn owner(&self, frame: FrameId) -> u64 {
        self.owners[frame as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn set_owner(&self, frame: FrameId, page: u64) {
        self.owners[frame as usize].store(page, Ordering::Relaxed);
    }

    /// The bytes of a published frame.
    ///
    /// # Safety
    /// The caller holds a reference that it took to a *published* frame, or has the private frame to itself, for as
    /// long as the slice lives.
    #[inline]
    pub(crate) unsafe fn bytes(&self, frame: FrameId) -> &[u8; PAGE_SIZE] {
        assert!(frame < self.frames);
        // SAFETY: inside the mapping by the assertion, aligned to a page, initialised (anonymous memory is zeroed), and
        // immutable while referenced by the caller's promise.
        unsafe { &*self.base.as_ptr().add(frame as usize * PAGE_SIZE).cast() }
    }

    /// `length` bytes from byte `start` of a published frame on, which may reach into the frames behind it.
    ///
    /// # Safety
    /// As for [`FramePool::bytes`], for every frame that the range touches.
    #[inline]
    pub(crate) unsafe fn run(&self, frame: FrameId, start: usize, length: usize) -> &[u8] {
        let offset = frame as usize * PAGE_SIZE + start;
        assert!(offset + length <= self.frames as usize * PAGE_SIZE);
        // SAFETY: inside the mapping by the assertion, initialised, and immutable while referenced by the caller's
        // promise.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(offset), length) }
    }

    /// As [`FramePool::run`], for writing.
    ///
    /// # Safety
    /// Every frame that the range touches is private to the caller, and no other slice of them lives.
    #[inline]
    #[expect(clippy::mut_from_ref, reason = "the caller has the frame to itself")]
    pub(crate) unsafe fn run_mut(&self, frame: FrameId, start: usize, length: usize) -> &mut [u8] {
        let offset = frame as usize * PAGE_SIZE + start;
        assert!(offset + length <= self.frames as usize * PAGE_SIZE);
        // SAFETY: inside the mapping by the assertion, initialised, and the caller's alone by its promise.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(offset), length) }
    }

    /// The bytes of a private frame.
    ///
    /// # Safety
    /// The frame is private to the caller, and no other slice of it lives.
    #[inline]
    #[expect(clippy::mut_from_ref, reason = "the caller has the frame to itself")]
    pub(crate) unsafe fn bytes_mut(&self, frame: FrameId) -> &mut [u8; PAGE_SIZE] {
        assert!(frame < self.frames);
        // SAFETY: inside the mapping by the assertion, aligned to a page, initialised, and the caller's alone by its
        // promise (speculative readers never touch bytes before they have validated the slot).
        unsafe { &mut *self.base.as_ptr().add(frame as usize * PAGE_SIZE).cast() }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
const fn low(word: u64) -> u32 {
    word as u32
}

/// An announced wait for frames; taken back when dropped.
pub(crate) struct MemoryWait<'a>(&'a FramePool);

impl MemoryWait<'_> {
    /// Completes after a frame was freed or a page became evictable. A wake-up that came before the call is not lost.
    pub(crate) async fn freed(&self) {
        self.0.freed.notified().await;
    }
}

impl Drop for MemoryWait<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}
