//! Flush, FUA and syncs: when data is durable.
//!
//! # Epochs
//! A flush epoch is a number that every FLUSH advances. A page remembers the epoch of its first write since it was last
//! submitted. A FLUSH takes the epoch as it was and covers every page dirtied in that epoch or before. All writes replied to
//! before the FLUSH arrived are among them, whatever connection they came over. That is what CAN_MULTI_CONN promises.
//!
//! # Generations
//! Every completed mutation of the backend (a written run, a trim, a zeroed range, a direct write) takes the next
//! *generation*. A sync covers the generations that were completed before the sync was submitted. Only then do written pages
//! turn from `UNSTABLE` to clean. A sync that would cover nothing new is not submitted.
//!
//! Syncs take turns. A FLUSH that needs one waits for its turn. If the sync of another FLUSH has covered the need meanwhile,
//! nothing is left to do: a hundred FLUSHes share a sync.
//!
//! What was done to the backend before it was opened counts as a mutation, too. Whatever wrote it, perhaps an earlier server
//! that was killed, need not have synced it; and a client that reads it and flushes is told that it is durable.
//!
//! # Failure
//! After a failed sync nothing that completed before the sync returned is known to be durable. All unstable pages are dirty
//! again and will be written anew. That is done in turns, and under the turn to sync: who has read the store past the cache
//! meanwhile waits for it ([`PageCache::failed_sync_settled`]). (A kernel forgets them; see the fsync discussions of 2018.)
//!
//! A FLUSH fails exactly when something that it covers is not durable: its own runs failed, or the sync that was to cover them
//! did. A run, a blocker or a sync of another request may fail meanwhile and make pages dirty again that this FLUSH covers.
//! Then the FLUSH looks again, so that it reports no success over them. Failures of pages that it doesn't cover don't concern
//! it; [`failures`](crate::writeback) tells the two apart.
//!
//! What is in flight when a sync fails is unknown too, although it completes afterwards: the store may have taken it before
//! the sync and forgotten it with the rest. A run counts as failed then. A zero or a direct write gets `EIO`, and what it held
//! is put back.
//!
//! # Data that is lost
//! Pages can be written again. A direct write, a zeroed range and a shift can't, because nothing of them is kept. If a sync
//! fails that was to cover such a change, what was acknowledged may be gone for good, and the next sync succeeds all the same.
//! No request may be there to hear of the failure: the sync may have been Weir's own, or for the FUA of another connection. So
//! the failure is recorded in [`ErrorSeq`](crate::error_seq::ErrorSeq), and each connection's next FLUSH or FUA reports it once.
//! If no connection has heard of a loss, the final flush fails, so whatever stops the server is told last.
//!
//! No other path loses acknowledged data behind its writer's back. Held pages are always put back, failed writeback keeps its
//! pages, a trim promises nothing, and a shrink and a power cut are asked for.
//!
//! # Modes
//! In writethrough mode a direct write or a zeroed range is acknowledged once a sync has covered it and no sync has failed since
//! the change was submitted. So a failed sync is an error of the requests that still wait for it, and only a shift is recorded.
//! A cached write waits too. A change that is lost may have dropped the page of a write before the page was written, and the
//! write's own sync would find nothing to do. So a write fails if a change that dropped pages of its range was lost since the
//! write began.
//!
//! In writeback mode a change with FUA is a change first. If the sync for its FUA fails, that is the request's own error, and it is
//! recorded for the others besides. That is on purpose: others may have read what the request changed, and of two such
//! requests nobody knows which one asked for the sync.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use crossbeam_epoch as epoch;
use tokio::sync::Mutex as FairMutex;
use weir_faults::{Errno, FaultContext, error_injectable, pause_point};

use crate::pace::{Pace, STEPS_AT_ONCE};
use crate::page_cache::{PageCache, pages_of};
use crate::pages::OLDEST_EPOCH;
use crate::writeback::{Evidence, OperationKind, Seen, Tries, Watch};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The generation of all that others did to the backend before it was opened.
const BEFORE_US: u64 = 1;

/// Flush epochs, mutation generations, and the turn to sync.
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
    /// A sync has failed, and what it was to cover isn't all dirty again.
    failing: AtomicBool,
    ledger: Mutex<Ledger>,
}

/// What completed and is not covered by a sync.
#[derive(Debug, Default)]
struct Ledger {
    /// Pages that became unstable, with their generations, in the order of these.
    unstable: Vec<(u64, u64)>,
    /// The last acknowledged change of which no page is kept.
    unrepeatable: Option<u64>,
    /// Changes that dropped pages and whose clients wait until the changes are durable: their generations and the pages. Others
    /// may be waiting for these pages.
    replaced: Vec<(u64, Range<u64>)>,
    /// Syncs that have failed so far.
    failed_syncs: u64,
}

/// When a mutation was submitted, in failed syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Submitted(u64);

/// What the answer to a change tells its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    /// Nothing that the client relies on.
    Nothing,
    /// The change is done; it may still be lost.
    Done,
    /// The change is durable. The answer waits until then.
    Durable,
}

/// A run that has completed. While this lives no sync takes the list of unstable pages.
#[derive(Debug)]
pub(crate) struct CompletedRun<'a> {
    ledger: MutexGuard<'a, Ledger>,
    pub(crate) generation: u64,
    /// No sync has failed since the run was submitted: the store has it as far as is known.
    pub(crate) known: bool,
}

impl CompletedRun<'_> {
    /// The page waits for a sync.
    pub(crate) fn unstable(&mut self, page: u64) {
        self.ledger.unstable.push((page, self.generation));
    }
}

impl Default for Generations {
    fn default() -> Self {
        Self {
            epoch: AtomicU64::new(OLDEST_EPOCH + 1),
            completed: AtomicU64::new(BEFORE_US),
            synced: AtomicU64::new(0),
            turn: FairMutex::new(()),
            failing: AtomicBool::new(false),
            ledger: Mutex::default(),
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

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("not poisoned")
    }

    /// To be asked before a mutation of the backend is submitted.
    pub(crate) fn submitted(&self) -> Submitted {
        Submitted(self.ledger().failed_syncs)
    }

    /// Whether a sync has covered all that has completed since the backend was opened.
    pub(crate) fn is_synced(&self) -> bool {
        let completed = self.completed.load(Ordering::SeqCst);
        completed == BEFORE_US || self.synced.load(Ordering::SeqCst) >= completed
    }

    fn completed(&self) -> u64 {
        self.completed.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// How many entries the list of unstable pages has: a page that is written again and again has many.
    pub(crate) fn listed(&self) -> usize {
        self.ledger().unstable.len()
    }

    /// Counts a run that has completed, well or not. Its pages are entered into the list before it is unlocked, so no sync takes
    /// the list without them and yet counts their generation.
    pub(crate) fn completed_run(&self, submitted: Submitted) -> CompletedRun<'_> {
        let ledger = self.ledger();
        CompletedRun {
            known: ledger.failed_syncs == submitted.0,
            generation: self.completed(),
            ledger,
        }
    }

    /// Counts a change that has completed, well or not; `replaces` are its pages if it drops any that are not clean.
    ///
    /// # Errors
    /// `result`'s; `EIO` for one that was promised and may be undone by a sync that has failed meanwhile.
    pub(crate) fn completed_change(
        &self,
        submitted: Submitted,
        result: Result<(), Errno>,
        promise: Promise,
        replaces: Option<&Range<u64>>,
    ) -> Result<(), Errno> {
        let mut ledger = self.ledger();
        let generation = self.completed();
        if result.is_ok() && promise != Promise::Nothing {
            if ledger.failed_syncs != submitted.0 {
                return Err(Errno::EIO);
            }
            if promise == Promise::Done {
                ledger.unrepeatable = Some(generation);
            } else if let Some(pages) = replaces {
                ledger.replaced.push((generation, pages.clone()));
            }
        }
        result
    }

    /// Whether a sync that has failed since may undo a change that was submitted then.
    pub(crate) fn failed_since(&self, submitted: Submitted) -> bool {
        self.ledger().failed_syncs != submitted.0
    }

    /// Counts a shift of what follows an offset. Every client relies on it.
    pub(crate) fn completed_shift(&self) {
        let mut ledger = self.ledger();
        ledger.unrepeatable = Some(self.completed());
    }

    /// A sync has succeeded: the pages that it covers, with their generations.
    fn sync_succeeded(&self, covers: u64) -> Vec<(u64, u64)> {
        let mut ledger = self.ledger();
        let uncovered = |generation: &u64| *generation > covers;
        ledger.unrepeatable = ledger.unrepeatable.filter(uncovered);
        ledger
            .replaced
            .retain(|(generation, _)| uncovered(generation));
        // In the order of their generations, which are counted under this lock: only the few that are not covered are copied.
        let covered = ledger
            .unstable
            .partition_point(|(_, generation)| *generation <= covers);
        let left = ledger.unstable.split_off(covered);
        std::mem::replace(&mut ledger.unstable, left)
    }

    /// A sync has failed: what is no longer known to be stored.
    fn sync_failed(&self) -> Unsynced {
        let mut ledger = self.ledger();
        ledger.failed_syncs += 1;
        Unsynced {
            pages: std::mem::take(&mut ledger.unstable),
            lost: ledger.unrepeatable.take().is_some(),
            replaced: std::mem::take(&mut ledger.replaced),
        }
    }

    /// A power cut: what was to be covered is gone, as it was asked for.
    pub(crate) fn forget(&self) {
        let mut ledger = self.ledger();
        self.completed();
        ledger.unrepeatable = None;
        ledger.replaced.clear();
    }
}

/// What a failed sync was to cover.
struct Unsynced {
    /// Pages, with the generations of their writes.
    pages: Vec<(u64, u64)>,
    /// Data that can't be written again is among it.
    lost: bool,
    /// Changes that have dropped pages, with their generations.
    replaced: Vec<(u64, Range<u64>)>,
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
                // Also when there was nothing to sync: an own sync, or another request's, promised nothing for this one.
                self.backend.cover(promised).await?;
                // What there was to be covered a power cut may have lost.
                return self.still_powered(powered);
            }
            tries.again(&watch, settled)?;
        }
    }

    /// Waits until the backend has what was dirtied in `pages` in epoch `covered` or before; says what `watch`, which is of the same
    /// pages and epoch, had seen by then.
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
            Ok(()) => self.backend.flush(context).await,
            Err(errno) => Err(errno),
        };
        let failing = &self.generations.failing;
        failing.store(result.is_err(), Ordering::SeqCst);
        let result = result.and(pause_point!(context, "cache:sync:complete", [EIO]).await);
        self.counters.syncs.add(1);
        self.writeback.troubles.synced(result);
        match result {
            Ok(()) => {
                // Settled first: whoever finds that nothing needs a sync finds the pages clean.
                let covered = self.generations.sync_succeeded(covers);
                self.settle_unstable(covered, result).await;
                self.generations.synced.store(covers, Ordering::SeqCst);
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
        failing.store(false, Ordering::SeqCst);
        self.pool.wake_waiter();
        result
    }

    /// Waits until those who watch pages know of a sync that has failed, if one has. What it was to cover becomes dirty again in
    /// turns, and the store may have forgotten it all by then: who reads the store past the cache asks this afterwards.
    pub(crate) async fn failed_sync_settled(&self) {
        if self.generations.failing.load(Ordering::SeqCst) {
            drop(self.generations.turn.lock().await);
        }
    }

    /// Turns unstable pages clean, or dirty again; returns those that are unwritten then, each with the epoch since which it is.
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
