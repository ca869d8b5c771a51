//! A device that becomes larger or smaller.
//!
//! A change of the device itself needs the device alone: a resize, a [`shift`](crate::requests::shift), a power cut
//! ([`power`](crate::durability::power)).
//!
//! Each takes the gate exclusively: no fill, cached write or blocker is under way, and a later request checks its range
//! against the new size. Writeback takes no guard. So the pages are shot down first, after which none of them can be
//! submitted again, and then what is in flight is waited for. No write can land past the new end and lengthen a file
//! that was just cut.
//!
//! A page that the new end cuts is put back with zeroes past the end, so that no old data shows after a shrink and a
//! grow.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_epoch as epoch;
use weir_faults::{Errno, RequestKinds, pause_point};

use crate::durability::generations::Promise;
use crate::durability::writeback::{Evidence, OperationKind};
use crate::frame::{FrameBuf, PAGE_BYTES, PAGE_SIZE, PrivateFrame};
use crate::pace::Pace;
use crate::page_cache::{PageCache, page_of};

/// While this lives, the store changes its shape. What is read from the store without a lock may then match neither
/// shape.
pub(super) struct Shaping<'c>(&'c PageCache);

impl<'c> Shaping<'c> {
    pub(super) fn new(cache: &'c PageCache) -> Self {
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
    /// Changes the size of the device. Growing shows zeroes; shrinking forgets what was past the new end, dirty or not.
    /// Cancel safe: once begun it runs to its end.
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
            // The page that the smaller end cuts, and everything after it.
            let pages = page_of(size.min(old))..old.div_ceil(PAGE_BYTES);
            let operation = cache.writeback.begin(OperationKind::Blocker, pages.clone());
            let held = cache.shoot_down(guard.as_block(), &pages).await;
            cache.wait_for(OperationKind::Run, &pages).await;
            let submitted = cache.generations.submitted();
            let result = cache.backend.resize(&context, size).await;
            // An operator asked for it: no client relies on it.
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
            // A request that waits for this operation must look again at what was put back.
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

    /// Puts a page back if it is still on the device. A page that the new end cuts must have its zeroes already when it
    /// is put back: writeback takes no guard, and may write, sync and drop the page a moment later.
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

    /// Puts back the first `room` bytes of a page that this operation holds alone, in `zeroed`, with zeroes behind
    /// them.
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
}
