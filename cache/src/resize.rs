//! Operations that need the device to themselves: resize, insert and collapse range, dropping caches. A power cut does too: see
//! [`power`](crate::power).
//!
//! They take the gate exclusively: no fill, no cached write, no blocker is under way, and whoever comes next checks its range
//! against the new size. Writeback takes no guard, so what is in flight is waited for after its pages were shot down, and
//! nothing of them can be submitted again: no write can land past the new end and lengthen a file that was just cut.
//!
//! A page that the new end cuts is put back with zeroes past the end, so that nothing old shows after a shrink and a grow.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_epoch as epoch;
use weir_faults::{Errno, RequestKinds, pause_point};

use crate::add_lock::BlockGuard;
use crate::flush::Promise;
use crate::frame::{FrameBuf, PAGE_BYTES, PAGE_SIZE, PrivateFrame};
use crate::pace::{Pace, STEPS_AT_ONCE};
use crate::page_cache::{PageCache, bytes_of, page_of};
use crate::writeback::{Evidence, OperationKind};

/// Moves what follows: fallocate's insert and collapse range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shift {
    Insert,
    Collapse,
}

/// As long as it lives the store changes its shape, and what is read from it without a lock may be of neither shape.
struct Shaping<'c>(&'c PageCache);

impl<'c> Shaping<'c> {
    fn new(cache: &'c PageCache) -> Self {
        cache.shape.fetch_add(1, Ordering::SeqCst);
        Self(cache)
    }
}

impl Drop for Shaping<'_> {
    fn drop(&mut self) {
        self.0.shape.fetch_add(1, Ordering::SeqCst);
    }
}

impl PageCache {
    /// Changes the size of the device. Growing shows zeroes; shrinking forgets what was past the new end, dirty or not. Cancel
    /// safe: once begun it runs to its end.
    ///
    /// # Errors
    /// What the backend said; then nothing has changed. `ENOTSUP` from a backend that can't.
    pub async fn resize(self: &Arc<Self>, size: u64) -> Result<(), Errno> {
        let cache = Arc::clone(self);
        let context = self.background.within(RequestKinds::RESIZE);
        let task = self.tasks.spawn(async move {
            // For the page that the new end cuts: under the gate, memory can't be waited for.
            let mut spare = cache.reserve(1).await;
            let guard = cache.add_lock.exclusive().await;
            pause_point!(context, "cache:resize:begin", [EIO, ENOSPC]).await?;
            let shaping = Shaping::new(&cache);
            let old = cache.size();
            // The page that either end cuts, and everything after it.
            let pages = page_of(size.min(old))..old.div_ceil(PAGE_BYTES);
            let operation = cache.writeback.begin(OperationKind::Blocker, pages.clone());
            let held = cache.shoot_down(guard.as_block(), &pages).await;
            cache.wait_for(OperationKind::Run, &pages).await;
            let submitted = cache.generations.submitted();
            let result = cache.backend.resize(&context, size).await;
            // Asked for by an operator, no client relies on it.
            let result =
                cache
                    .generations
                    .completed_change(submitted, result, Promise::Nothing, None);
            if result.is_ok() {
                cache.size.store(size, Ordering::SeqCst);
            }
            drop(shaping);
            let kept = held.iter().any(|page| page * PAGE_BYTES < size);
            let mut pace = Pace::default();
            for page in &held {
                pace.ask(1).await;
                cache.release_resized(*page, result.is_ok(), size, &mut spare);
            }
            cache.released(&held);
            // Whoever waits for this must look again at what was put back.
            if result.is_err() || kept {
                let (errno, evidence) = match result {
                    Err(errno) => (errno, Evidence::Alone),
                    Ok(()) => (Errno::EIO, Evidence::Together),
                };
                cache.writeback.failures.note_held(&held, errno, evidence);
            }
            drop(operation);
            if result.is_ok() {
                cache.discharge_past(guard.as_block(), size, old).await;
            }
            drop(guard);
            result
        });
        task.await.expect("a panic aborts the process")
    }

    /// Puts a page back if it is still on the device. The one that the new end cuts has zeroes past it from the moment on at
    /// which it is back: writeback takes no guard, and may have written, synced and let it go in the next.
    fn release_resized(&self, page: u64, resized: bool, size: u64, spare: &mut FrameBuf) {
        let start = page * PAGE_BYTES;
        let room = size.saturating_sub(start).min(PAGE_BYTES);
        if resized && room > 0 && room < PAGE_BYTES {
            let zeroed = spare
                .take_at(0, &self.pool)
                .expect("one page at most is cut");
            let room = usize::try_from(room).expect("less than a page");
            self.release_cut(page, room, zeroed);
        } else {
            self.release_held(page, resized && room == 0);
        }
    }

    /// Puts back the first `room` bytes of a page that this operation holds alone, in `zeroed`, with zeroes behind them.
    fn release_cut(&self, page: u64, room: usize, mut zeroed: PrivateFrame<'_>) {
        let pin = epoch::pin();
        let slot = self
            .table
            .lock(page, &pin)
            .expect("a held page stays in its slot");
        zeroed.complete_from(&slot, &(room..PAGE_SIZE));
        zeroed.bytes_mut()[room..].fill(0);
        slot.put_back_cut(zeroed);
    }

    /// Inserts `length` zero bytes at `offset`, moving what follows; the device grows by that. Both are multiples of the
    /// allocation unit. Cancel safe: once begun it runs to its end.
    ///
    /// # Errors
    /// `EINVAL` for a place that is not aligned or past the end, `ENOTSUP` from a backend that can't, what the backend said.
    pub async fn insert_range(self: &Arc<Self>, offset: u64, length: u64) -> Result<(), Errno> {
        self.shift(offset, length, Shift::Insert).await
    }

    /// Removes `length` bytes at `offset`, moving what follows; the device shrinks by that.
    ///
    /// # Errors
    /// As [`PageCache::insert_range`].
    pub async fn collapse_range(self: &Arc<Self>, offset: u64, length: u64) -> Result<(), Errno> {
        self.shift(offset, length, Shift::Collapse).await
    }

    async fn shift(self: &Arc<Self>, offset: u64, length: u64, shift: Shift) -> Result<(), Errno> {
        if !self.backend.capabilities().shift {
            return Err(Errno::ENOTSUP);
        }
        let cache = Arc::clone(self);
        let context = self.background.within(RequestKinds::RESIZE);
        let task = self.tasks.spawn(async move {
            let guard = cache.add_lock.exclusive().await;
            let size = cache.shifted_size(offset, length, shift)?;
            // Written back first, under the guard: nobody can dirty anything in between.
            cache.flush(&context).await?;
            let pages = page_of(offset)..cache.size().div_ceil(PAGE_BYTES);
            let held = cache.shoot_down(guard.as_block(), &pages).await;
            assert!(
                held.is_empty(),
                "flushed under the exclusive gate, and yet {} pages were not clean",
                held.len()
            );
            let (from, to) = match shift {
                Shift::Insert => (offset, offset + length),
                Shift::Collapse => (offset + length, offset),
            };
            let charges = cache.plan_moved_space(&guard, from, to).await?;
            let shaping = Shaping::new(&cache);
            match shift {
                Shift::Insert => cache.backend.insert_range(&context, offset, length).await?,
                Shift::Collapse => {
                    cache
                        .backend
                        .collapse_range(&context, offset, length)
                        .await?
                }
            }
            cache.generations.completed_shift();
            let old = cache.size.swap(size, Ordering::SeqCst);
            drop(shaping);
            cache.move_space(&guard, charges).await;
            cache.discharge_past(guard.as_block(), size, old).await;
            cache.reconcile_blocked(guard.as_block(), 0..size).await;
            drop(guard);
            Ok(())
        });
        task.await.expect("a panic aborts the process")
    }

    fn shifted_size(&self, offset: u64, length: u64, shift: Shift) -> Result<u64, Errno> {
        let unit = u64::from(self.backend.geometry().allocation_unit).max(PAGE_BYTES);
        let size = self.size();
        let inside = match shift {
            Shift::Insert => offset < size,
            // As fallocate: a range that reaches the end is a truncation.
            Shift::Collapse => offset.checked_add(length).is_some_and(|end| end < size),
        };
        if length == 0 || !offset.is_multiple_of(unit) || !length.is_multiple_of(unit) || !inside {
            return Err(Errno::EINVAL);
        }
        match shift {
            Shift::Insert => size.checked_add(length).ok_or(Errno::EINVAL),
            Shift::Collapse => Ok(size - length),
        }
    }

    /// Writes everything back and drops every page that is clean then. Cancel safe.
    ///
    /// # Errors
    /// What kept the flush from succeeding; then nothing is dropped.
    pub async fn drop_clean(self: &Arc<Self>) -> Result<(), Errno> {
        self.flush(&self.background.within(RequestKinds::DROP))
            .await?;
        let pages = 0..self.size().div_ceil(PAGE_BYTES);
        if pages.is_empty() {
            return Ok(());
        }
        let guard = self.add_lock.block_whole(bytes_of(&pages)).await;
        self.drop_clean_pages(&guard, &pages).await;
        drop(guard);
        Ok(())
    }

    async fn drop_clean_pages(&self, guard: &BlockGuard, pages: &Range<u64>) {
        guard.assert_covers(pages.start * PAGE_BYTES..pages.end * PAGE_BYTES);
        let mut pace = Pace::default();
        let mut next = pages.start;
        loop {
            pace.ask(STEPS_AT_ONCE).await;
            match self.drop_some_clean_pages(next..pages.end) {
                Some(at) => next = at,
                None => return,
            }
        }
    }

    /// As far as one turn goes; says where to go on, if not all is done.
    fn drop_some_clean_pages(&self, pages: Range<u64>) -> Option<u64> {
        let mut next = pages.start;
        for _ in 0..STEPS_AT_ONCE {
            let pin = epoch::pin();
            let page = self.table.next_known(&(next..pages.end), &pin)?;
            next = page + 1;
            if let Some(slot) = self.table.lock(page, &pin)
                && slot.state().is_clean()
            {
                drop(slot.evict());
            }
        }
        Some(next)
    }
}
