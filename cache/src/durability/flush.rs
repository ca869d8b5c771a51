//! Flush, FUA and syncs: when data is durable.
//!
//! FLUSH and FUA are the protocol's: a FLUSH makes durable what was replied to before it came, and a request with FUA
//! is replied to when it is durable itself. A *sync* is what the backend is asked for to that end. *Run*, *change* and
//! *blocker* are explained in [`page_cache`](crate::page_cache), the page states `DIRTY`, `UNSTABLE` and clean in
//! [`pages`](crate::pages). What a FLUSH and a sync *cover* is counted in
//! [`generations`](crate::durability::generations).
//!
//! Syncs take turns. A FLUSH that needs one waits for its turn. If the sync of another FLUSH has covered the need
//! meanwhile, nothing is left to do: a hundred FLUSHes share a sync.
//!
//! # Failure
//! After a failed sync nothing that completed before the sync returned is known to be durable. All unstable pages are
//! dirty again and will be written anew. (A kernel forgets them; see the fsync discussions of 2018.) That is done in
//! turns, and under the turn to sync: a request that has read the store past the cache meanwhile waits for it
//! ([`PageCache::failed_sync_settled`]).
//!
//! A FLUSH fails when something that it covers can't be made durable: its own run or its own sync failed, or the power
//! was cut. A run, a change or a sync of another request may fail meanwhile and make pages dirty again that this FLUSH
//! covers. Then the FLUSH looks again and writes them itself, so that it reports no success over them. It gives up
//! after a few such failures, with the last error. Failures of pages that it doesn't cover don't concern it.
//! [`failures`](crate::durability::writeback) tells all these apart.
//!
//! What is in flight when a sync fails is unknown too, although it completes afterwards: the backend may have taken it
//! before the sync and forgotten it with the rest. A run counts as failed then. A change other than a trim gets `EIO`,
//! and the dirty pages that it had replaced are put back.
//!
//! # Data that is lost
//! Pages can be written again. A direct write, a zeroed range and a shift can't, because no page keeps what they did.
//! If a sync fails that was to cover one of them, what was acknowledged may be gone for good, and the next sync
//! succeeds all the same. Perhaps no request is there to hear of the failure: the sync may have been Weir's own, or for
//! the FUA of another connection. So the failure is recorded in [`ErrorSeq`](crate::error_seq::ErrorSeq). The session
//! of each connection looks there ([`PageCache::lost_data`]), and its next FLUSH or FUA fails once. If no connection
//! has heard of a loss, closing the cache fails, so whatever stops the server is told last.
//!
//! No other path loses acknowledged data behind its writer's back. A blocker that fails puts the pages back that it
//! held, a failed run keeps its pages dirty, a trim promises nothing, and a shrink and a power cut are asked for.
//!
//! # Modes
//! In all modes but writethrough a change is acknowledged when the backend has taken it. So a failed sync may lose it,
//! and is recorded. With FUA the change waits for a sync besides. If that sync fails, the request gets the error, and
//! the loss is recorded for the other connections as well. That is on purpose: others may have read what the request
//! changed, and when two such requests share a sync, nobody knows which of them asked for it.
//!
//! In writethrough mode a change is acknowledged once a sync has covered it and no sync has failed since the change was
//! submitted. So a failed sync is an error of the requests that still wait for it, and only a shift is recorded. A
//! cached write waits for a sync as well. That alone would not be enough when a change replaces its pages before they
//! are written: if the change is lost then, the write is lost with it, and its own sync finds nothing to do. So a write
//! fails if a change that dropped pages of its range was lost since the write began.

use std::ops::Range;
use std::sync::Arc;

use crossbeam_epoch as epoch;
use weir_faults::{Errno, FaultContext, error_injectable, pause_point};

use crate::durability::writeback::{Evidence, OperationKind, Seen, Tries, Watch};
use crate::pace::{Pace, STEPS_AT_ONCE};
use crate::page_cache::{PageCache, pages_of};
use crate::pages::OLDEST_EPOCH;

/// How often the store is looked at while syncs fail: a FLUSH reports the second failure, too.
const LOOKS: usize = 2;

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
        let powered = self.powered();
        let covered = self.generations.next_epoch();
        let watch = self.writeback.failures.watch(pages.clone(), covered);
        pause_point!(context, "cache:flush:snapshot", [EIO]).await?;
        let mut tries = Tries::default();
        loop {
            let settled = self
                .settle(context, &pages, covered, &watch, &mut tries)
                .await?;
            pause_point!(context, "cache:flush:sync", [EIO]).await?;
            self.sync(context).await?;
            if watch.seen() == settled {
                // Also when there was nothing to sync: an own sync, or another request's, promised nothing for this
                // one.
                self.backend.cover(promised).await?;
                // What there was to be covered a power cut may have lost.
                return self.still_powered(powered);
            }
            tries.again(&watch, settled)?;
        }
    }

    /// Waits until the backend has what was dirtied in `pages` in epoch `covered` or before; says what `watch`, which
    /// is of the same pages and epoch, had seen by then.
    pub(crate) async fn settle(
        self: &Arc<Self>,
        context: &FaultContext,
        pages: &Range<u64>,
        covered: u64,
        watch: &Watch<'_>,
        tries: &mut Tries,
    ) -> Result<Seen, Errno> {
        loop {
            let before = watch.seen();
            let pass = self.write_back(context, pages.clone(), covered).await;
            if let Some(errno) = pass.error {
                return Err(errno);
            }
            // Covered pages that were on their way before we looked: in others' runs, or held by blockers.
            for operation in self.writeback.under_way(pages) {
                operation.done.wait().await;
            }
            if watch.seen() != before {
                tries.again(watch, before)?;
            } else if !pass.busy {
                return Ok(before);
            }
            // A version that was in flight is followed by the covered one, once: what is dirtied later isn't covered.
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
        let wanted = self.generations.last();
        if self.generations.is_synced_to(wanted) {
            return Ok(());
        }
        let (cache, context) = (Arc::clone(self), context.clone());
        let task = self.tasks.spawn(async move {
            // Held while the backend syncs: it is the turn, and others' needs are covered when it passes on.
            let _turn = cache.generations.turn().await;
            if cache.generations.is_synced_to(wanted) {
                return Ok(());
            }
            cache.sync_in_turn(&context).await
        });
        task.await.expect("a panic aborts the process")
    }

    async fn sync_in_turn(&self, context: &FaultContext) -> Result<(), Errno> {
        let covers = self.generations.last();
        let result = match pause_point!(context, "cache:sync:submit", [EIO, ENOSPC]).await {
            Ok(()) => self.backend.flush(context).await,
            Err(errno) => Err(errno),
        };
        self.generations.set_failing(result.is_err());
        let result = result.and(pause_point!(context, "cache:sync:complete", [EIO]).await);
        self.counters.syncs.add(1);
        self.writeback.troubles.synced(result);
        match result {
            Ok(()) => {
                // Settled first: whoever finds that nothing needs a sync finds the pages clean.
                let covered = self.generations.sync_succeeded(covers);
                self.settle_unstable(covered, result).await;
                self.generations.synced_to(covers);
            }
            Err(errno) => {
                tracing::warn!(%errno, "sync failed; what it was to cover is written again");
                // Whatever was submitted before the sync returned is unknown.
                let unsynced = self.generations.sync_failed();
                let failures = &self.writeback.failures;
                let mut unwritten = self.settle_unstable(unsynced.pages, result).await;
                // Stable, as they lie in runs: what is in order already costs a look.
                unwritten.sort();
                failures.note(&unwritten, errno, Evidence::Alone);
                for (_, pages) in &unsynced.replaced {
                    failures.note_replaced(pages);
                }
                if unsynced.lost {
                    self.counters.losses.add(1);
                    self.lost.record(errno);
                    tracing::error!(
                        %errno,
                        "a sync failed that was to cover direct writes, zeroed ranges or a shift; they may be lost, and each client's next flush says so"
                    );
                }
            }
        }
        self.generations.set_failing(false);
        self.pool.wake_waiter();
        result
    }

    /// Waits until requests that watch pages know of a sync that has failed, if one has. What it was to cover becomes
    /// dirty again in turns, and the store may have forgotten it all by then: whatever reads the store past the cache
    /// asks this afterwards.
    pub(crate) async fn failed_sync_settled(&self) {
        if self.generations.is_failing() {
            drop(self.generations.turn().await);
        }
    }

    /// What `look` finds in the cache and in the store beside it, once no sync fails meanwhile: the store may have
    /// forgotten by then that it had allocated pages that are dirty again.
    ///
    /// # Errors
    /// Those of `look`; `EIO` when syncs fail again and again.
    pub(crate) async fn undisturbed<T, F>(&self, look: impl Fn() -> F) -> Result<T, Errno>
    where
        F: Future<Output = Result<T, Errno>>,
    {
        for _ in 0..LOOKS {
            let submitted = self.generations.submitted();
            self.failed_sync_settled().await;
            let found = look().await?;
            self.failed_sync_settled().await;
            if !self.generations.failed_since(submitted) {
                return Ok(found);
            }
        }
        Err(Errno::EIO)
    }

    /// Turns unstable pages clean, or dirty again; returns those that are unwritten then, each with the epoch since
    /// which it is.
    async fn settle_unstable(
        &self,
        pages: Vec<(u64, u64)>,
        sync: Result<(), Errno>,
    ) -> Vec<(u64, u64)> {
        let mut unwritten = Vec::new();
        let mut pace = Pace::default();
        for some in pages.chunks(STEPS_AT_ONCE) {
            pace.ask(some.len()).await;
            self.settle_some_unstable(some, sync.is_ok(), &mut unwritten);
        }
        if !pages.is_empty() {
            self.throttle.synced(sync);
        }
        unwritten
    }

    fn settle_some_unstable(
        &self,
        pages: &[(u64, u64)],
        durable: bool,
        unwritten: &mut Vec<(u64, u64)>,
    ) {
        for &(page, generation) in pages {
            let pin = epoch::pin();
            let Some(mut slot) = self.table.lock(page, &pin) else {
                continue;
            };
            if durable {
                slot.synced(generation);
                continue;
            }
            slot.sync_failed(generation);
            unwritten.push((page, OLDEST_EPOCH));
        }
    }
}
