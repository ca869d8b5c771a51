//! Private frames: memory that one holder may write.
#![expect(unsafe_code, reason = "slices of frames that nobody else has")]

use std::io::IoSliceMut;
use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use super::{FrameId, FramePool, FrameRefs, PAGE_SIZE};
use crate::pages::{HELD, LockedPage, PRESENT};

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

    /// Copies the bytes of the page in `slot` that are not in `valid`. The page is present or held.
    pub(crate) fn complete_from(&mut self, slot: &LockedPage<'_>, valid: &Range<usize>) {
        let state = slot.state();
        assert!(state.has(PRESENT | HELD) && state.frame() != self.frame);
        // SAFETY: a page that is present or held was published, and its slot has a reference, which can't be dropped
        // while the slice lives, as the slot is locked.
        let old = unsafe { self.pool.bytes(state.frame()) };
        let new = self.bytes_mut();
        new[..valid.start].copy_from_slice(&old[..valid.start]);
        new[valid.end..].copy_from_slice(&old[valid.end..]);
    }

    /// Hands out the frame and its one reference.
    #[inline]
    pub(crate) fn into_id(self) -> FrameId {
        let frame = self.frame;
        #[expect(
            clippy::disallowed_methods,
            reason = "the frame's one reference is the caller's now"
        )]
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

/// Frames in order. As many as most requests need take no allocation, and no more room than a vector's pointer and
/// length.
pub(crate) type Frames = SmallVec<[FrameId; 4]>;

/// Private frames, in order: the buffer that a payload is received into or that a backend reads into.
///
/// Dropping it frees what it still holds.
#[derive(Debug)]
pub struct FrameBuf {
    pool: Arc<FramePool>,
    frames: Frames,
}

impl FrameBuf {
    /// An empty buffer.
    pub fn new(pool: Arc<FramePool>) -> Self {
        Self {
            pool,
            frames: Frames::new(),
        }
    }

    /// Allocates frames until it holds `frames` of them, or the pool has no more; says whether it is complete.
    pub fn grow_to(&mut self, frames: usize) -> bool {
        let before = self.frames.len();
        self.frames.reserve(frames.saturating_sub(before));
        while self.frames.len() < frames
            && let Some(frame) = self.pool.alloc()
        {
            self.frames.push(frame);
        }
        // Frames that were freed in order come back in the opposite order. When they are sorted, neighbours are one
        // slice.
        if let Some(new) = self.frames.get_mut(before..) {
            new.sort_unstable();
        }
        self.frames.len() >= frames
    }

    /// A buffer of `frames` frames of `pool`; waits until it has them all. Meant for a pool with one taker at a time:
    /// two takers might each wait for what the other has. Cancel safe.
    ///
    /// # Panics
    /// If the pool has fewer.
    pub async fn filled(pool: &Arc<FramePool>, frames: usize) -> Self {
        assert!(
            frames <= pool.frames() as usize,
            "{frames} frames of {}",
            pool.frames()
        );
        let mut buffer = Self::new(Arc::clone(pool));
        if buffer.grow_to(frames) {
            return buffer;
        }
        let wait = pool.announce_wait();
        while !buffer.grow_to(frames) {
            wait.freed().await;
        }
        buffer
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

    /// The bytes `start..end` of the buffer (counted from the first frame's first byte) as at most `most` slices to
    /// read into. Frames that are neighbours in memory are one slice: each costs the kernel something.
    pub fn io_slices_mut(
        &mut self,
        start: usize,
        end: usize,
        most: usize,
    ) -> impl Iterator<Item = IoSliceMut<'_>> {
        assert!(start <= end && end <= self.frames.len() * PAGE_SIZE);
        let buffer: &Self = self;
        buffer
            .runs(start, end)
            .take(most)
            .map(|(frame, within, length)| {
                // SAFETY: the frames of a FrameBuf are private to it and distinct, each is visited once, so the slices
                // don't overlap, and they borrow `self` mutably as long as they live.
                IoSliceMut::new(unsafe { buffer.pool.run_mut(frame, within, length) })
            })
    }

    /// Cuts the bytes `start..end` into runs of neighbouring frames: the first frame, where the run begins within it,
    /// and its length.
    fn runs(&self, start: usize, end: usize) -> impl Iterator<Item = (FrameId, usize, usize)> {
        let mut at = start;
        std::iter::from_fn(move || {
            let (first, within) = (at / PAGE_SIZE, at % PAGE_SIZE);
            if at >= end {
                return None;
            }
            let mut next = first + 1;
            while next * PAGE_SIZE < end && self.frames[next] == self.frames[next - 1] + 1 {
                next += 1;
            }
            let length = end.min(next * PAGE_SIZE) - at;
            at += length;
            Some((self.frames[first], within, length))
        })
    }

    /// Turns all frames into references to `length` bytes from `start` on. The frames are never written after that.
    #[must_use]
    pub(crate) fn into_refs(mut self, start: usize, length: usize) -> FrameRefs {
        let mut refs = FrameRefs::new(Arc::clone(&self.pool));
        let (mut at, end) = (start, start + length);
        for (i, frame) in self.take().into_iter().enumerate() {
            let until = end.min((i + 1) * PAGE_SIZE);
            if at < until {
                refs.push(frame, at - i * PAGE_SIZE, until - at, false);
                at = until;
            } else {
                self.pool.unref(frame);
            }
        }
        refs
    }

    /// Removes the frames from `at` on and returns them as a buffer of their own.
    #[must_use]
    pub fn split_off(&mut self, at: usize) -> Self {
        Self {
            pool: Arc::clone(&self.pool),
            frames: self.frames.drain(at..).collect(),
        }
    }

    /// Moves all frames of `other` behind its own.
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
    pub(crate) fn take(&mut self) -> Frames {
        std::mem::take(&mut self.frames)
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
