//! Flush, FUA and syncs: when data is durable.
//!
//! # Epochs
//! A flush epoch is a number that every FLUSH advances. A page remembers the epoch of its first write since it was last
//! submitted. A FLUSH takes the epoch as it was and covers every page dirtied in that epoch or before: all writes replied to
//! before the FLUSH arrived are among them, whatever connection they came over, which is what CAN_MULTI_CONN promises.
//!
//! # Generations
//! Every completed mutation of the backend (a written run, a trim, a zeroed range, a direct write) takes the next
//! *generation*. A sync covers the generations that were completed before it was submitted; only then do pages written turn
//! from `UNSTABLE` to clean. A sync that would cover nothing new is not submitted. Whoever needs a sync takes its turn; when
//! the turn comes and another's sync has covered the need meanwhile, nothing is left to do: a hundred FLUSHes share a sync.
//!
//! # Failure
//! After a failed sync nothing that completed before it returned is known to be durable: all unstable pages are dirty again
//! and will be written anew. (A kernel forgets them; see the fsync discussions of 2018.) A FLUSH fails exactly when something
//! that it covers is not durable: its own runs failed, or the sync that was to cover it did. When another's run or sync
//! failed meanwhile, it looks again, so that no success is reported over pages that became dirty behind it.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use crossbeam_epoch as epoch;
use tokio::sync::Mutex as FairMutex;
use weir_faults::{Errno, FaultContext, error_injectable, pause_point};

use crate::page::{DIRTY, UNSTABLE};
use crate::page_cache::{PageCache, pages_of};
use crate::writeback::{OLDEST_EPOCH, OperationKind};
use std::sync::atomic::{AtomicU64, Ordering};

/// Flush epochs, mutation generations, and who syncs.
#[derive(Debug)]
pub(crate) struct Generations {
    /// The epoch of writes that come now.
    epoch: AtomicU64,
    /// Mutations completed.
    completed: AtomicU64,
    /// Mutations durable.
    synced: AtomicU64,
    /// One sync at a time.
    turn: FairMutex<()>,
    /// Pages that became unstable, with their generations.
    unstable: Mutex<Vec<(u64, u64)>>,
}

impl Default for Generations {
    fn default() -> Self {
        Self {
            epoch: AtomicU64::new(OLDEST_EPOCH + 1),
            completed: AtomicU64::new(0),
            synced: AtomicU64::new(0),
            turn: FairMutex::new(()),
            unstable: Mutex::default(),
        }
    }
}

impl Generations {
    /// The flush epoch of a write made now.
    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Ends the present epoch and says which it was.
    pub(crate) fn next_epoch(&self) -> u64 {
        self.epoch.fetch_add(1, Ordering::SeqCst)
    }

    /// Counts a mutation of the backend that has completed; its generation.
    pub(crate) fn completed(&self) -> u64 {
        self.completed.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// As [`Generations::completed`], for pages that become unstable: they are entered into the list before it is unlocked, so
    /// no sync takes the list without them and yet counts their generation.
    pub(crate) fn completed_pages(&self) -> (u64, MutexGuard<'_, Vec<(u64, u64)>>) {
        let unstable = self.unstable.lock().expect("not poisoned");
        (self.completed(), unstable)
    }

    /// Takes the pages out whose generation is at most `synced`.
    fn take_unstable(&self, synced: u64) -> Vec<(u64, u64)> {
        let mut unstable = self.unstable.lock().expect("not poisoned");
        unstable
            .extract_if(.., |(_, generation)| *generation <= synced)
            .collect()
    }
}

impl PageCache {
    /// NBD_CMD_FLUSH: everything replied to before this call is durable when it returns. Cancel safe.
    ///
    /// # Errors
    /// What kept something covered from being durable. It is kept and tried again by the next flush.
    #[error_injectable(ctx = context, errors(EIO, ENOSPC, EDQUOT))]
    pub async fn flush(self: &Arc<Self>, context: &FaultContext) -> Result<(), Errno> {
        let pages = 0..self.size().div_ceil(crate::frame::PAGE_BYTES);
        self.make_durable(context, pages, 0..u64::MAX).await
    }

    /// FUA: what the cache holds of `range` is durable when it returns. Cancel safe.
    ///
    /// # Errors
    /// As [`PageCache::flush`].
    #[error_injectable(ctx = context, errors(EIO, ENOSPC, EDQUOT))]
    pub async fn persist(
        self: &Arc<Self>,
        context: &FaultContext,
        range: Range<u64>,
    ) -> Result<(), Errno> {
        self.make_durable(context, pages_of(&range), range).await
    }

    async fn make_durable(
        self: &Arc<Self>,
        context: &FaultContext,
        pages: Range<u64>,
        promised: Range<u64>,
    ) -> Result<(), Errno> {
        let covered = self.generations.next_epoch();
        pause_point!(context, "cache:flush:snapshot", [EIO]).await?;
        loop {
            let failures = self.writeback.failures();
            let pass = self.write_back(context, pages.clone(), covered).await;
            if let Some(errno) = pass.error {
                return Err(errno);
            }
            // Covered pages that were on their way before we looked: in others' runs, or held by blockers.
            for operation in self.writeback.under_way(&pages) {
                operation.done.wait().await;
            }
            if pass.busy || self.writeback.failures() != failures {
                continue;
            }
            pause_point!(context, "cache:flush:sync", [EIO]).await?;
            self.sync(context).await?;
            if self.writeback.failures() == failures {
                // Also when there was nothing to sync: an own sync, or another request's, promised nothing for this one.
                return self.backend.cover(context, promised).await;
            }
        }
    }

    /// Waits for everything under way in `pages` that is of this kind.
    pub(crate) async fn wait_for(&self, kind: OperationKind, pages: &Range<u64>) {
        for operation in self.writeback.under_way(pages) {
            if operation.kind == kind {
                operation.done.wait().await;
            }
        }
    }

    /// Makes every mutation of the backend that has completed durable. Cancel safe: a sync that was submitted runs on.
    pub(crate) async fn sync(self: &Arc<Self>, context: &FaultContext) -> Result<(), Errno> {
        let wanted = self.generations.completed.load(Ordering::SeqCst);
        if self.generations.synced.load(Ordering::SeqCst) >= wanted {
            return Ok(());
        }
        let (cache, context) = (Arc::clone(self), context.clone());
        let task = self.tasks.spawn(async move {
            // Held while the backend syncs: it is the turn, and others' needs are covered when it passes on.
            let _turn = cache.generations.turn.lock().await;
            if cache.generations.synced.load(Ordering::SeqCst) >= wanted {
                return Ok(());
            }
            cache.sync_in_turn(&context).await
        });
        task.await.expect("a panic aborts the process")
    }

    async fn sync_in_turn(&self, context: &FaultContext) -> Result<(), Errno> {
        let covers = self.generations.completed.load(Ordering::SeqCst);
        let result = match pause_point!(context, "cache:sync:submit", [EIO, ENOSPC]).await {
            Ok(()) => self.backend.sync(context).await,
            Err(errno) => Err(errno),
        };
        let result = result.and(pause_point!(context, "cache:sync:complete", [EIO]).await);
        self.counters.syncs.add(1);
        match result {
            Ok(()) => {
                // Settled first: whoever finds that nothing needs a sync finds the pages clean.
                self.settle_unstable(covers, true);
                self.generations.synced.store(covers, Ordering::SeqCst);
            }
            Err(errno) => {
                tracing::warn!(%errno, "sync failed; what it was to cover is written again");
                // Whatever completed before the sync returned is unknown.
                self.settle_unstable(self.generations.completed.load(Ordering::SeqCst), false);
                self.writeback.count_failure();
            }
        }
        self.throttle.progress(result);
        self.pool.wake_waiter();
        result
    }

    /// Turns the unstable pages of the generations up to `covered` clean, or dirty again.
    fn settle_unstable(&self, covered: u64, durable: bool) {
        for (page, generation) in self.generations.take_unstable(covered) {
            let pin = epoch::pin();
            let Some(mut slot) = self.lock_page(page, &pin) else {
                continue;
            };
            // Written again or shot down since: no longer what that sync was about.
            if !slot.state.has(UNSTABLE) || slot.detail() != generation {
                continue;
            }
            slot.state = slot.state.without(UNSTABLE);
            if !durable {
                slot.state = slot.state.with(DIRTY);
                slot.set_detail(OLDEST_EPOCH);
            }
        }
    }
}
