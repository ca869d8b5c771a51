//! What a FLUSH and a sync cover, in numbers: flush epochs and generations of the store.
//!
//! # Epochs
//! A flush epoch is a number that every FLUSH advances. A dirty page remembers the epoch of its first write since it
//! was last submitted to the backend. A FLUSH takes the epoch as it was and *covers* every page dirtied in that epoch
//! or before. All writes replied to before the FLUSH arrived are among them, whatever connection they came over. That
//! is what CAN_MULTI_CONN promises.
//!
//! # Generations
//! Every completed mutation of the backend (a run, a change, a shift of what follows an offset) takes the next
//! *generation*. A sync covers the generations that were completed before it was submitted. When it succeeds, pages
//! that were written in these generations turn from `UNSTABLE` to clean. A sync that would cover nothing new is not
//! submitted.
//!
//! What was done to the backend before it was opened counts as one more mutation. An earlier server that was killed,
//! for example, need not have synced what it wrote. A client that reads that and flushes must be able to rely on it.
//!
//! Two orders keep a page from counting as durable too early. A completed run enters its pages into the list of
//! unstable pages under the same lock under which it takes its generation, so no sync counts the generation without its
//! pages. And pages turn clean before the sync counts as done, so a FLUSH that finds nothing to sync finds clean pages.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use tokio::sync::{Mutex as FairMutex, MutexGuard as Turn};
use weir_faults::Errno;

use crate::pages::OLDEST_EPOCH;

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
    /// Changes that dropped pages and whose clients wait until the changes are durable: their generations and the
    /// pages. Others may be waiting for these pages.
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
        let completed = self.last();
        completed == BEFORE_US || self.is_synced_to(completed)
    }

    /// The last mutation that has completed.
    pub(super) fn last(&self) -> u64 {
        self.completed.load(Ordering::SeqCst)
    }

    /// Whether a sync has covered the mutations up to this one.
    pub(super) fn is_synced_to(&self, generation: u64) -> bool {
        self.synced.load(Ordering::SeqCst) >= generation
    }

    /// A sync has covered the mutations up to this one, and their pages are settled.
    pub(super) fn synced_to(&self, generation: u64) {
        self.synced.store(generation, Ordering::SeqCst);
    }

    /// Says whether a sync has failed whose pages are not all dirty again yet.
    pub(super) fn set_failing(&self, failing: bool) {
        self.failing.store(failing, Ordering::SeqCst);
    }

    /// Whether a sync has failed whose pages are not all dirty again yet. They are when the turn is free.
    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::SeqCst)
    }

    /// The turn to sync. Cancel safe.
    pub(super) async fn turn(&self) -> Turn<'_, ()> {
        self.turn.lock().await
    }

    fn completed(&self) -> u64 {
        self.completed.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// How many entries the list of unstable pages has: a page that is written again and again has many.
    pub(crate) fn listed(&self) -> usize {
        self.ledger().unstable.len()
    }

    /// Counts a run that has completed, well or not. Its pages are entered into the list before it is unlocked, so no
    /// sync takes the list without them and yet counts their generation.
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
    pub(super) fn sync_succeeded(&self, covers: u64) -> Vec<(u64, u64)> {
        let mut ledger = self.ledger();
        let uncovered = |generation: &u64| *generation > covers;
        ledger.unrepeatable = ledger.unrepeatable.filter(uncovered);
        ledger
            .replaced
            .retain(|(generation, _)| uncovered(generation));
        // In the order of their generations, which are counted under this lock: only the few that are not covered are
        // copied.
        let covered = ledger
            .unstable
            .partition_point(|(_, generation)| *generation <= covers);
        let left = ledger.unstable.split_off(covered);
        std::mem::replace(&mut ledger.unstable, left)
    }

    /// A sync has failed: what is no longer known to be stored.
    pub(super) fn sync_failed(&self) -> Unsynced {
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
pub(super) struct Unsynced {
    /// Pages, with the generations of their writes.
    pub(super) pages: Vec<(u64, u64)>,
    /// Data that can't be written again is among it.
    pub(super) lost: bool,
    /// Changes that have dropped pages, with their generations.
    pub(super) replaced: Vec<(u64, Range<u64>)>,
}
