//! Direct I/O: requests that bypass the cache and stay coherent with it.
//!
//! `--cache none` makes every request direct, `--direct-threshold` makes requests of at least that size direct: one
//! long copy should not evict what other requests use.
//!
//! **A direct write** is a change behind the cache's back, like a trim. The whole pages of the range are under a block
//! guard from before they are shot down until the backend has them. Dirty pages are held in case the backend fails, and
//! writeback in flight is waited for. The partial edges are ordinary cached writes before and after, never while block
//! is held. So two direct writes to the halves of one page both survive.
//!
//! **A direct read** takes no lock: it writes the dirty pages of its range back, then reads the backend into private
//! frames. A write that was replied to before the read came in is on the backend, or it is dirty, in flight or held,
//! and then the read waits for it. The read may see a part of a write that runs at the same time, even within a page:
//! only the store's own atomicity holds then. The read throws away what it read while the store was resized or shifted:
//! that may match neither shape, with zeroes past an end that the cache doesn't know yet. It throws away what it read
//! across a power cut, which may have lost it. And it throws away what it read while a page of it became dirty again by
//! a failure, because the store may have forgotten that page. The pages of a failed sync become dirty again in turns,
//! so a direct read waits for the last of them.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use weir_faults::{Errno, FaultContext};

use crate::durability::writeback::Tries;
use crate::frame::{FrameBuf, FrameRefs, PAGE_BYTES};
use crate::page_cache::{PageCache, bytes_of, pages_of};
use crate::pressure::memory::MemoryLine;
use crate::requests::discard::Change;
use crate::requests::payload::{Payload, within};

impl PageCache {
    /// Whether a request of `length` bytes bypasses the cache.
    #[inline]
    pub fn is_direct(&self, length: u64) -> bool {
        length >= self.direct_threshold
    }

    /// Reads `offset..offset + length`, at most a slice, past the cache. Cancel safe.
    ///
    /// # Errors
    /// What the backend said, to the read or to writing dirty pages of the range back; `EINVAL` when the device has
    /// become smaller than the range.
    pub async fn read_direct(
        self: &Arc<Self>,
        context: &FaultContext,
        offset: u64,
        length: usize,
    ) -> Result<FrameRefs, Errno> {
        self.read_direct_in(None, context, offset, length).await
    }

    /// As [`PageCache::read_direct`], for a client whose requests wait for memory in `line`.
    ///
    /// # Errors
    /// As [`PageCache::read_direct`].
    pub async fn read_direct_in(
        self: &Arc<Self>,
        line: Option<&MemoryLine>,
        context: &FaultContext,
        offset: u64,
        length: usize,
    ) -> Result<FrameRefs, Errno> {
        loop {
            let shape = self.shape.load(Ordering::SeqCst);
            let powered = self.powered();
            let read = self.read_behind(line, context, offset, length).await;
            let same_shape = shape.is_multiple_of(2) && self.shape.load(Ordering::SeqCst) == shape;
            if same_shape && self.still_powered(powered).is_ok() {
                return read;
            }
            drop(read);
            // Past the gate, the change is over.
            let pages = pages_of(&(offset..offset + length as u64));
            drop(self.add_lock.add(bytes_of(&pages)).await);
        }
    }

    /// Reads the store without a lock.
    async fn read_behind(
        self: &Arc<Self>,
        line: Option<&MemoryLine>,
        context: &FaultContext,
        offset: u64,
        length: usize,
    ) -> Result<FrameRefs, Errno> {
        let range = offset..offset + length as u64;
        let pages = pages_of(&range);
        if range.end > self.size() {
            return Err(Errno::EINVAL);
        }
        // Whatever is dirty may have been replied to before.
        let watch = self.writeback.failures.watch(pages.clone(), u64::MAX);
        let mut tries = Tries::default();
        loop {
            let settled = self
                .settle(context, &pages, u64::MAX, &watch, &mut tries)
                .await?;
            let buffer = self.read_store(line, context, &pages).await?;
            self.failed_sync_settled().await;
            // Otherwise the store may have forgotten some of it meanwhile, for example what a failed sync was to cover.
            if watch.seen() == settled {
                return Ok(buffer.into_refs(within(offset), length));
            }
            drop(buffer);
            tries.again(&watch, settled)?;
        }
    }

    /// Reads whole pages into private frames.
    async fn read_store(
        self: &Arc<Self>,
        line: Option<&MemoryLine>,
        context: &FaultContext,
        pages: &Range<u64>,
    ) -> Result<FrameBuf, Errno> {
        let frames = usize::try_from(pages.end - pages.start).expect("at most a slice");
        let buffer = self.reserve_in(line, frames).await;
        let (cache, context, start) = (Arc::clone(self), context.clone(), pages.start * PAGE_BYTES);
        // A task of its own: the transfer must not lose its buffer half-way.
        let task = self
            .tasks
            .spawn(async move { cache.backend.read_into(&context, start, buffer).await });
        let (buffer, result) = task.await.expect("a panic aborts the process");
        result.map(|()| buffer)
    }

    /// Writes a received slice past the cache, its partial edges through it. Cancel safe.
    ///
    /// # Errors
    /// As [`PageCache::write`]; when the backend fails, what the cache held of the range is as before.
    pub async fn write_direct(
        self: &Arc<Self>,
        context: &FaultContext,
        payload: Payload,
    ) -> Result<(), Errno> {
        assert_eq!(payload.remaining(), 0, "written before it was received");
        let powered = self.powered();
        let (head, whole, tail) = payload.split_edges();
        if let Some(head) = head {
            self.write(context, head).await?;
        }
        if let Some(whole) = whole {
            let blocked = whole.start..whole.start + whole.data.bytes() as u64;
            let place = Arc::new(self.changes.lock(pages_of(&blocked)).await);
            let guard = self.add_lock.block(blocked.clone()).await;
            let submitted = self.generations.submitted();
            let change = Change::Write(whole);
            self.spawn_change(
                context,
                &place,
                guard,
                blocked.clone(),
                change,
                Errno::ENOSPC,
            )
            .await?;
            drop(place);
            self.after_change(context, &blocked, submitted).await?;
        }
        if let Some(tail) = tail {
            self.write(context, tail).await?;
        }
        // A power cut between two parts may have lost the first.
        self.still_powered(powered)
    }
}
