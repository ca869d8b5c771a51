//! Page frames: the memory in which cached pages live.
//!
//! # What
//! A [`FramePool`] is one anonymous mapping cut into 4 KiB [frames](FrameId), plus a reference word and an owner word per
//! frame. A frame is at any time one of
//!
//! - *free*: its count is zero, and it waits on the free list;
//! - *private*: in a [`FrameBuf`], whose holder alone may write it;
//! - *published*: a slot of the page cache points to it and holds one reference; it is **immutable** until its count
//!   returns to zero. Readers hold further references in [`FrameRefs`].
//!
//! # How a reader takes a reference without a lock
//! Loading a slot's frame number and then incrementing that frame's count is a classic race: the slot may drop its
//! reference in between and the frame may be in somebody else's hands. The pool's memory is type-stable: count words never
//! go away, so a late increment hits a valid word. The reader therefore takes the reference *speculatively* and then looks
//! at the slot again (as the Linux page cache does with `folio_try_get`, mm/filemap.c):
//!
//! 1. load the slot; 2. increment the frame's count unless it is zero; 3. load the slot again. If it still names the frame,
//!    the slot's own reference was alive while ours was taken, and the contents are stable until we give ours back. If not,
//!    give it back and start over.
//!
//! Nobody dereferences a frame's bytes before step 3 has succeeded, so the private owner of a recycled frame may be writing
//! it meanwhile without a data race. Step 3 can't be fooled by a stale load: a recycled frame's count was set to one by a
//! release store that happens after the slot was emptied, and the increment of step 2 acquires it.
//!
//! Compared with epochs for frames this costs one compare-and-swap per hit and one decrement per sent page, on a word
//! that belongs to the page alone, and buys that a frame is free the moment its last reader is done: a cache of a few
//! hundred frames makes progress without waiting for grace periods. The visited bit of the eviction policy lives in the
//! same word, so marking a page as used costs nothing more.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use bytemuck::allocation::zeroed_slice_box;
use crossbeam_utils::CachePadded;
use memmap2::{MmapMut, MmapOptions};
use tokio::sync::Notify;

use crate::page::{LockedPage, PRESENT};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Bytes in a page and in a frame.
pub const PAGE_SIZE: usize = 4096;
/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;
/// [`PAGE_SIZE`] as a device offset.
pub const PAGE_BYTES: u64 = 4096;

/// The number of a frame inside its pool.
pub type FrameId = u32;

/// Most frames that one pool can hold: frame numbers share a word with the slot's state bits.
pub const MAX_FRAMES: u32 = u32::MAX - 1;

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
    /// While a frame is published: the index of the page that it holds. A hint for reclaim, checked under the page lock.
    owners: Box<[AtomicU64]>,
    /// Head of the free list: a tag against ABA in the high half, link in the low half.
    head: CachePadded<AtomicU64>,
    /// Frames `fresh..` were never used: their memory is untouched.
    fresh: CachePadded<AtomicU32>,
    free: CachePadded<AtomicU32>,
    /// How many requests wait for frames: looked at whenever a frame is freed.
    waiting: AtomicU32,
    freed: Notify,
}

// SAFETY: `base` points into a mapping that lives as long as the pool; access to its bytes is governed by the frame states
// described in the module documentation, all other fields are themselves Send and Sync.
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

impl FramePool {
    /// Reserves address space for `frames` frames; memory is used only as frames are first used.
    ///
    /// # Errors
    /// What the system says when it refuses the mapping.
    pub fn new(frames: u32) -> io::Result<Arc<Self>> {
        assert!(
            frames > 0 && frames <= MAX_FRAMES,
            "a pool of {frames} frames"
        );
        let mut map = MmapOptions::new()
            .len(frames as usize * PAGE_SIZE)
            .no_reserve_swap()
            .map_anon()?;
        let base = NonNull::new(map.as_mut_ptr()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Arc::new(Self {
            base,
            frames,
            _map: map,
            refs: zeroed_slice_box(frames as usize),
            links: zeroed_slice_box(frames as usize),
            owners: zeroed_slice_box(frames as usize),
            head: CachePadded::new(AtomicU64::new(u64::from(NO_LINK))),
            fresh: CachePadded::new(AtomicU32::new(0)),
            free: CachePadded::new(AtomicU32::new(frames)),
            waiting: AtomicU32::new(0),
            freed: Notify::new(),
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
        let mut fresh = self.fresh.load(Ordering::Relaxed);
        while fresh < self.frames {
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
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            let (tag, link) = (head >> 32, low(head));
            if link == NO_LINK {
                return None;
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
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            self.links[frame as usize].store(low(head), Ordering::Relaxed);
            let new = ((head >> 32).wrapping_add(1) << 32) | u64::from(frame + 1);
            // SeqCst: ordered before the caller's look at whether someone waits for frames.
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
    pub(crate) fn try_ref(&self, frame: FrameId) -> Option<TakenRef> {
        let word = &self.refs[frame as usize];
        let mut now = word.load(Ordering::Relaxed);
        loop {
            if now & COUNT == 0 {
                return None;
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
        let before = self.refs[frame as usize].fetch_sub(1, Ordering::Release);
        assert!(before & COUNT > 0, "frame {frame} was freed twice");
        if before & COUNT == 1 {
            std::sync::atomic::fence(Ordering::Acquire);
            self.push(frame);
            self.wake_waiter();
            return true;
        }
        false
    }

    /// Tells whoever waits for memory to look again: a frame was freed, or a page became evictable.
    pub(crate) fn wake_waiter(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.freed.notify_one();
        }
    }

    /// How many requests wait for frames.
    pub(crate) fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Announces a wait: frames freed from now on wake [`FramePool::freed`].
    pub(crate) fn announce_wait(&self) -> MemoryWait<'_> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
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
    /// The caller holds a reference that it took to a *published* frame, or has the private frame to itself, for as long
    /// as the slice lives.
    #[inline]
    pub(crate) unsafe fn bytes(&self, frame: FrameId) -> &[u8; PAGE_SIZE] {
        assert!(frame < self.frames);
        // SAFETY: inside the mapping by the assertion, aligned to a page, initialised (anonymous memory is zeroed), and
        // immutable while referenced by the caller's promise.
        unsafe { &*self.base.as_ptr().add(frame as usize * PAGE_SIZE).cast() }
    }

    /// The bytes of a private frame.
    ///
    /// # Safety
    /// The frame is private to the caller, and no other slice of it lives.
    #[inline]
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn bytes_mut(&self, frame: FrameId) -> &mut [u8; PAGE_SIZE] {
        assert!(frame < self.frames);
        // SAFETY: inside the mapping by the assertion, aligned to a page, initialised, and nobody else's by the caller's
        // promise (speculative readers never touch bytes before they have validated the slot).
        unsafe { &mut *self.base.as_ptr().add(frame as usize * PAGE_SIZE).cast() }
    }
}

#[allow(clippy::cast_possible_truncation)]
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

/// One private frame; freed when dropped.
#[derive(Debug)]
pub(crate) struct PrivateFrame<'p> {
    pool: &'p FramePool,
    frame: FrameId,
}

impl<'p> PrivateFrame<'p> {
    /// Takes one frame of the pool, if there is one.
    #[inline]
    pub(crate) fn alloc(pool: &'p FramePool) -> Option<Self> {
        pool.alloc().map(|frame| Self { pool, frame })
    }

    /// Its bytes, for writing.
    #[inline]
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8; PAGE_SIZE] {
        // SAFETY: private to `self`, and `&mut self` excludes every other slice.
        unsafe { self.pool.bytes_mut(self.frame) }
    }

    /// Copies the bytes of the page published in `slot` that are not in `valid`.
    pub(crate) fn complete_from(&mut self, slot: &LockedPage<'_>, valid: &Range<usize>) {
        assert!(slot.state.has(PRESENT) && slot.state.frame() != self.frame);
        // SAFETY: published in a slot that is locked, so the slot's reference can't be dropped while the slice lives.
        let old = unsafe { self.pool.bytes(slot.state.frame()) };
        let new = self.bytes_mut();
        new[..valid.start].copy_from_slice(&old[..valid.start]);
        new[valid.end..].copy_from_slice(&old[valid.end..]);
    }

    /// Hands out the frame and its one reference.
    #[inline]
    pub(crate) fn into_id(self) -> FrameId {
        let frame = self.frame;
        std::mem::forget(self);
        frame
    }
}

impl Drop for PrivateFrame<'_> {
    fn drop(&mut self) {
        self.pool.unref(self.frame);
    }
}

/// Stands in a [`FrameBuf`] for a frame that was taken out of the middle.
const TAKEN: FrameId = FrameId::MAX;

/// Private frames, in order: the buffer that a payload is received into or that a backend reads into.
///
/// Dropping it frees what it still holds.
#[derive(Debug)]
pub struct FrameBuf {
    pool: Arc<FramePool>,
    frames: Vec<FrameId>,
}

impl FrameBuf {
    /// An empty buffer.
    pub fn new(pool: Arc<FramePool>) -> Self {
        Self {
            pool,
            frames: Vec::new(),
        }
    }

    /// Whether frame `i` was taken out.
    pub(crate) fn is_taken(&self, i: usize) -> bool {
        self.frames[i] == TAKEN
    }

    /// Allocates frames until it holds `frames` of them, or the pool has no more; says whether it is complete.
    pub fn grow_to(&mut self, frames: usize) -> bool {
        self.frames
            .reserve(frames.saturating_sub(self.frames.len()));
        while self.frames.len() < frames {
            let Some(frame) = self.pool.alloc() else {
                return false;
            };
            self.frames.push(frame);
        }
        true
    }

    /// How many frames it holds.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether it holds no frame.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The bytes of frame `i`.
    pub fn page(&self, i: usize) -> &[u8; PAGE_SIZE] {
        // SAFETY: the frames of a FrameBuf are private to it, and `&self` excludes writers.
        unsafe { self.pool.bytes(self.frames[i]) }
    }

    /// The bytes of frame `i`, for writing.
    pub fn page_mut(&mut self, i: usize) -> &mut [u8; PAGE_SIZE] {
        // SAFETY: the frames of a FrameBuf are private to it and distinct, and `&mut self` excludes every other slice.
        unsafe { self.pool.bytes_mut(self.frames[i]) }
    }

    /// The bytes `start..end` of the buffer (counted from the first frame's first byte) as slices to read into.
    pub fn io_slices_mut(&mut self, start: usize, end: usize, most: usize) -> Vec<IoSliceMut<'_>> {
        assert!(start <= end && end <= self.frames.len() * PAGE_SIZE);
        let mut slices = Vec::with_capacity((end - start).div_ceil(PAGE_SIZE).min(most) + 1);
        let mut at = start;
        while at < end && slices.len() < most {
            let (index, within) = (at / PAGE_SIZE, at % PAGE_SIZE);
            let length = (PAGE_SIZE - within).min(end - at);
            // SAFETY: as in `page_mut`; the frames are distinct, each is visited once, so the slices don't overlap, and
            // they borrow `self` mutably as long as they live.
            let page = unsafe { self.pool.bytes_mut(self.frames[index]) };
            slices.push(IoSliceMut::new(&mut page[within..within + length]));
            at += length;
        }
        slices
    }

    /// Removes the frames from `at` on and returns them as a buffer of their own.
    #[must_use]
    pub fn split_off(&mut self, at: usize) -> Self {
        Self {
            pool: Arc::clone(&self.pool),
            frames: self.frames.split_off(at),
        }
    }

    /// Moves all frames of `other` behind one's own.
    pub fn append(&mut self, mut other: Self) {
        assert!(Arc::ptr_eq(&self.pool, &other.pool), "frames of two pools");
        self.frames.append(&mut other.frames);
    }

    /// Gives up the right to write: the first `bytes` bytes as references, frames beyond them are freed.
    #[must_use]
    pub fn freeze(mut self, bytes: usize) -> FrameRefs {
        assert!(bytes <= self.frames.len() * PAGE_SIZE);
        let mut refs = FrameRefs::new(Arc::clone(&self.pool));
        let used = bytes.div_ceil(PAGE_SIZE);
        for (index, frame) in self.frames.drain(..used).enumerate() {
            refs.push(frame, 0, PAGE_SIZE.min(bytes - index * PAGE_SIZE), false);
        }
        refs
    }

    /// Hands the last frame out, still private, with its one reference.
    pub(crate) fn pop(&mut self) -> Option<FrameId> {
        self.frames.pop()
    }

    /// Takes a private frame in.
    pub(crate) fn push(&mut self, frame: FrameId) {
        self.frames.push(frame);
    }

    /// Hands frame `i` out and leaves a gap. `None` if that was done before.
    pub(crate) fn take_at<'p>(
        &mut self,
        i: usize,
        pool: &'p FramePool,
    ) -> Option<PrivateFrame<'p>> {
        assert!(
            std::ptr::eq(pool, &raw const *self.pool),
            "frames of two pools"
        );
        let frame = std::mem::replace(&mut self.frames[i], TAKEN);
        (frame != TAKEN).then(|| PrivateFrame { pool, frame })
    }

    /// Puts a frame back into the gap that [`FrameBuf::take_at`] left.
    pub(crate) fn put_back(&mut self, i: usize, frame: PrivateFrame<'_>) {
        let gap = std::mem::replace(&mut self.frames[i], frame.into_id());
        assert_eq!(gap, TAKEN, "frame {i} was never taken");
    }

    /// Hands all frames out, still private.
    pub(crate) fn take(&mut self) -> Vec<FrameId> {
        std::mem::take(&mut self.frames)
    }

    pub(crate) fn ids(&self) -> &[FrameId] {
        &self.frames
    }

    /// The pool that the frames belong to.
    pub fn pool(&self) -> &Arc<FramePool> {
        &self.pool
    }
}

impl Drop for FrameBuf {
    fn drop(&mut self) {
        for frame in self.frames.drain(..).filter(|frame| *frame != TAKEN) {
            self.pool.unref(frame);
        }
    }
}

/// A piece of one published page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageSlice {
    frame: FrameId,
    start: u16,
    length: u16,
    /// The page is known to hold zeroes only.
    pub zero: bool,
}

impl PageSlice {
    /// Bytes in this piece, 1 to [`PAGE_SIZE`].
    pub fn len(&self) -> usize {
        usize::from(self.length)
    }

    /// Never: a piece has at least one byte.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

/// References to published pages, in order: what a read returns and what a reply or a backend write is sent from.
///
/// A queue: pieces are appended at the end and consumed from the front. Dropping it gives the references back.
#[derive(Debug)]
pub struct FrameRefs {
    pool: Arc<FramePool>,
    slices: VecDeque<PageSlice>,
    bytes: usize,
}

impl FrameRefs {
    /// No pages yet.
    pub fn new(pool: Arc<FramePool>) -> Self {
        Self {
            pool,
            slices: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Takes over a reference that the caller holds to published `frame`.
    pub(crate) fn push(&mut self, frame: FrameId, start: usize, length: usize, zero: bool) {
        assert!(length > 0 && start + length <= PAGE_SIZE);
        #[allow(clippy::cast_possible_truncation)] // at most PAGE_SIZE by the assertion
        self.slices.push_back(PageSlice {
            frame,
            start: start as u16,
            length: length as u16,
            zero,
        });
        self.bytes += length;
    }

    /// Appends a further reference to the page of piece `i` of `other`.
    pub(crate) fn push_from(&mut self, other: &Self, i: usize, start: usize, length: usize) {
        let frame = other.slices[i].frame;
        let taken = self.pool.add_ref(frame);
        self.push(frame, start, length, taken.zero);
    }

    /// Total bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many pieces there are.
    pub fn len(&self) -> usize {
        self.slices.len()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.slices.is_empty()
    }

    /// The pieces in order.
    pub fn iter(&self) -> impl Iterator<Item = &PageSlice> {
        self.slices.iter()
    }

    /// The bytes of piece `i`.
    #[inline]
    pub fn slice(&self, i: usize) -> &[u8] {
        self.piece(self.slices[i])
    }

    #[inline]
    fn piece(&self, slice: PageSlice) -> &[u8] {
        let (start, end) = (
            usize::from(slice.start),
            usize::from(slice.start + slice.length),
        );
        // SAFETY: every piece in the queue owns a reference to a published frame, which `&self` keeps alive.
        unsafe { &self.pool.bytes(slice.frame)[start..end] }
    }

    /// All pieces as slices to write from.
    pub fn io_slices(&self) -> impl Iterator<Item = IoSlice<'_>> {
        self.slices
            .iter()
            .map(|slice| IoSlice::new(self.piece(*slice)))
    }

    /// Drops pieces beyond the first `pieces`: undoes pushes.
    pub fn truncate(&mut self, pieces: usize) {
        while self.slices.len() > pieces {
            let slice = self.slices.pop_back().expect("longer than `pieces`");
            self.bytes -= slice.len();
            self.pool.unref(slice.frame);
        }
    }

    /// Consumes `count` bytes from the front.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.bytes, "{count} of {} bytes", self.bytes);
        self.bytes -= count;
        let mut left = count;
        while left > 0 {
            let front = self.slices.front_mut().expect("counted in `bytes`");
            if left < usize::from(front.length) {
                #[allow(clippy::cast_possible_truncation)] // less than front.length
                let left = left as u16;
                front.start += left;
                front.length -= left;
                return;
            }
            left -= usize::from(front.length);
            let frame = front.frame;
            self.slices.pop_front();
            self.pool.unref(frame);
        }
    }

    /// Moves all pieces of `other` behind one's own.
    pub fn append(&mut self, mut other: Self) {
        assert!(Arc::ptr_eq(&self.pool, &other.pool), "frames of two pools");
        self.bytes += std::mem::take(&mut other.bytes);
        self.slices.append(&mut other.slices);
    }

    /// Copies everything into `out`, which must be exactly as long.
    pub fn copy_to(&self, out: &mut [u8]) {
        assert_eq!(out.len(), self.bytes);
        let mut at = 0;
        for slice in &self.slices {
            out[at..at + slice.len()].copy_from_slice(self.piece(*slice));
            at += slice.len();
        }
    }

    /// The pool that the frames belong to.
    pub fn pool(&self) -> &Arc<FramePool> {
        &self.pool
    }
}

impl Drop for FrameRefs {
    fn drop(&mut self) {
        for slice in self.slices.drain(..) {
            self.pool.unref(slice.frame);
        }
    }
}
