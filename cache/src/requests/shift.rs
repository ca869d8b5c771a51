//! fallocate's insert and collapse range: what follows an offset moves, and the device grows or shrinks by that.
//!
//! A shift takes the gate exclusively, as a [`resize`](crate::requests::resize) does. Everything is written back under
//! the guard first: a page that has moved would be dirty at a place where the store has something else.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use weir_faults::{Errno, RequestKinds};

use crate::frame::PAGE_BYTES;
use crate::page_cache::{PageCache, page_of};
use crate::requests::resize::Shaping;

/// Moves what follows: fallocate's insert and collapse range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shift {
    Insert,
    Collapse,
}

impl PageCache {
    /// Inserts `length` zero bytes at `offset`, moving what follows; the device grows by that. Both are multiples of
    /// the allocation unit. Cancel safe: once begun it runs to its end.
    ///
    /// # Errors
    /// `EINVAL` for a place that is not aligned or past the end, `ENOTSUP` from a backend that can't, what the backend
    /// said.
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
            // Written back first, under the guard: no request can dirty a page in between.
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
}
