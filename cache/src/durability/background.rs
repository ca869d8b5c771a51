//! The background task of a cache: writeback by amount and by age, and Weir's own syncs.
//!
//! - From [`dirty_start`](crate::options::Limits) dirty pages on, everything dirty is written back.
//! - A page older than [`DIRTY_AGE`] is written back though little is dirty. Ages are told by flush epochs: every tick
//!   ends an epoch, and a page remembers the epoch of its first write.
//! - When enough is written but not synced, or a request waits for memory or room, the backend is synced: only then may
//!   pages be evicted.
//! - What failed is tried again after a pause, longer each time up to a limit. Other pages are written meanwhile, and
//!   syncs go on unless a sync failed: a bad sector holds up no other page. A FLUSH does not wait for the pause: it
//!   tries at once.
//!
//! The task starts transfers, which it carries, and syncs. It never waits for one of them: a transfer that the store
//! doesn't complete holds up its own pages and the requests that wait for these, and nothing else. The task is woken up
//! by the ends that matter to it: of the last run of a pass, of a run whose permit is wanted, of a run that failed, and
//! of a sync.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use weir_faults::Errno;

use crate::durability::writeback::Epochs;
use crate::frame::PAGE_BYTES;
use crate::options::{DIRTY_AGE, RETRY_FIRST, RETRY_LAST, TICK};
use crate::pace::Pace;
use crate::page_cache::PageCache;
use crate::transfer::Carrier;

/// Runs until the cache is closed or dropped; holds it only while there is something to do.
pub(crate) async fn run(cache: Weak<PageCache>, kick: Arc<Notify>, closing: CancellationToken) {
    let mut plan = Plan::default();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let rest = plan.backoff.until;
        let rested = async {
            match rest {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        // In this order, not at random: the same events make the same schedule. Runs go on however often the task is
        // kicked. The tick comes seldom and holds nothing up.
        let ticked = tokio::select! {
            biased;
            never = carry(&mut plan.runs) => match never {},
            () = closing.cancelled() => return,
            _ = tick.tick() => true,
            () = rested => false,
            () = kick.notified() => false,
        };
        let Some(strong) = cache.upgrade() else {
            return;
        };
        if ticked {
            plan.ages.tick(&strong);
        }
        tokio::select! {
            biased;
            () = closing.cancelled() => return,
            () = strong.tend(&mut plan, ticked) => {}
        }
    }
}

/// Polls runs as they go on. A run whose end matters to the task says so by a kick.
async fn carry(runs: &mut Carrier<Result<(), Errno>>) -> Infallible {
    poll_fn(|task| {
        while let Poll::Ready(Some(_)) = runs.poll_next(task) {}
        Poll::Pending
    })
    .await
}

/// What the task is about to do.
#[derive(Default)]
struct Plan {
    /// The runs that it has started and that are not done.
    runs: Carrier<Result<(), Errno>>,
    ages: Ages,
    /// What the next pass is to cover.
    due: Option<u64>,
    /// Pages have failed and are to be tried again.
    retry: bool,
    /// The pass that is being submitted.
    pass: Option<Submission>,
    /// What the last pass covered.
    covered: u64,
    backoff: Backoff,
}

impl Plan {
    /// Begins the pass that is due, unless one is under way that covers as much. After a failure it leaves out what has
    /// failed.
    fn begin_due_pass(&mut self) {
        let rests = self.backoff.rests();
        if self.retry && !rests {
            self.due = self.due.max(Some(self.covered));
        }
        if self.pass.map(|pass| pass.epochs.covered) >= self.due {
            return;
        }
        let Some(covered) = self.due.take() else {
            return;
        };
        let mut epochs = Epochs::up_to(covered);
        if rests {
            epochs = epochs.without_failed();
        } else {
            self.retry = false;
            self.backoff.begin_pass();
        }
        self.covered = covered;
        self.pass = Some(Submission { next: 0, epochs });
    }
}

/// A pass over the dirty pages, as far as it has come.
#[derive(Clone, Copy, Debug)]
struct Submission {
    next: u64,
    epochs: Epochs,
}

/// What the task has started and not seen the end of. The cache owns this, because what was started outlives a look.
#[derive(Debug, Default)]
pub(crate) struct Started {
    runs: AtomicU64,
    syncing: AtomicBool,
    /// The last sync has failed.
    sync_failed: AtomicBool,
    /// Runs and syncs that failed.
    failures: AtomicU64,
}

/// A run that the task has started. It is counted as long as this lives; the end of the last one kicks the task.
struct StartedRun(Arc<PageCache>);

impl StartedRun {
    fn new(cache: &Arc<PageCache>) -> Self {
        cache.started.runs.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(cache))
    }

    /// Notes how it has ended.
    fn note(&self, result: Result<(), Errno>) {
        if result.is_err() {
            self.0.started.failures.fetch_add(1, Ordering::SeqCst);
            self.0.kick.notify_one();
        }
    }
}

impl Drop for StartedRun {
    fn drop(&mut self) {
        if self.0.started.runs.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.kick.notify_one();
        }
    }
}

/// When to try again after a failure.
#[derive(Debug)]
struct Backoff {
    /// Failures that were noticed.
    failures: u64,
    /// As many as there were when the last pass began.
    failures_before_pass: u64,
    /// How long to wait after the next one.
    pause: Duration,
    until: Option<Instant>,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            failures: 0,
            failures_before_pass: 0,
            pause: RETRY_FIRST,
            until: None,
        }
    }
}

impl Backoff {
    /// Takes notice of new failures; says whether there are any. Failures of what is tried meanwhile don't put the next
    /// attempt off.
    fn notice(&mut self, failures: u64) -> bool {
        if failures == self.failures {
            return false;
        }
        self.failures = failures;
        if !self.rests() {
            self.until = Some(Instant::now() + self.pause);
            self.pause = (self.pause * 2).min(RETRY_LAST);
        }
        true
    }

    /// Whether the last failure is too recent.
    fn rests(&mut self) -> bool {
        self.until = self.until.filter(|until| *until > Instant::now());
        self.until.is_some()
    }

    /// A pass begins: if nothing failed in the last one, the store is well again.
    fn begin_pass(&mut self) {
        if self.failures == self.failures_before_pass {
            self.pause = RETRY_FIRST;
        }
        self.failures_before_pass = self.failures;
    }
}

/// Which epochs ended when.
#[derive(Debug, Default)]
struct Ages(VecDeque<(Instant, u64)>);

impl Ages {
    fn tick(&mut self, cache: &PageCache) {
        if cache.table.counts().dirty() > 0 {
            self.0
                .push_back((Instant::now(), cache.generations.next_epoch()));
        }
    }

    /// The youngest epoch that ended at least `age` ago.
    fn older_than(&mut self, age: Duration) -> Option<u64> {
        let mut covered = None;
        while let Some((_, epoch)) = self.0.pop_front_if(|(ended, _)| ended.elapsed() >= age) {
            covered = Some(epoch);
        }
        covered
    }
}

impl PageCache {
    /// Starts what is due. It waits for nothing but its turn on the processor.
    async fn tend(self: &Arc<Self>, plan: &mut Plan, ticked: bool) {
        let started = &self.started;
        if plan.backoff.notice(started.failures.load(Ordering::SeqCst)) {
            // What failed is dirty again, as old as can be. The pass goes on: other pages must not wait for these.
            plan.retry = true;
        }
        let pressed = self.pool.waiting() > 0 || self.unclean_pages() >= self.limits.dirty_slow;
        let dirty = self.table.counts().dirty();
        let wanted = if pressed || dirty >= self.limits.dirty_start {
            Some(u64::MAX)
        } else {
            plan.ages.older_than(DIRTY_AGE)
        };
        if plan.pass.map(|pass| pass.epochs.covered) < wanted {
            plan.due = plan.due.max(wanted);
        }
        plan.begin_due_pass();
        self.submit_pass(plan).await;
        self.backend.submit();
        let unstable = self.table.counts().unstable();
        // One sync for all of a pass is the cheapest. But a request that waits must not wait for a run that takes
        // longer than a tick.
        let settled = plan.pass.is_none() && started.runs.load(Ordering::SeqCst) == 0;
        let due = unstable >= self.limits.unstable_sync
            || self.generations.listed() > self.limits.frames as usize
            || (unstable > 0 && pressed && (settled || ticked));
        if due && !(plan.backoff.rests() && started.sync_failed.load(Ordering::SeqCst)) {
            self.start_sync();
        }
    }

    /// Submits as much of the pass as there are permits for.
    async fn submit_pass(self: &Arc<Self>, plan: &mut Plan) {
        let pages = 0..self.size().div_ceil(PAGE_BYTES);
        let mut pace = Pace::default();
        while let Some(pass) = &mut plan.pass {
            let Some(permit) = self.writeback.try_permit() else {
                return;
            };
            let scan = self.next_run(pass.next..pages.end, pass.epochs);
            pass.next = scan.next;
            if let Some(run) = scan.run {
                let started = StartedRun::new(self);
                let run = self.start_run(&self.background, run, permit, move |result| {
                    started.note(result);
                });
                plan.runs.begin(run).await;
            }
            if scan.next >= pages.end {
                plan.pass = None;
            }
            // Thousands of pages may be passed over because they are too young.
            pace.ask(scan.steps).await;
        }
    }

    /// Starts a sync, unless one is under way.
    fn start_sync(self: &Arc<Self>) {
        if self.started.syncing.swap(true, Ordering::SeqCst) {
            return;
        }
        let cache = Arc::clone(self);
        self.tasks.spawn(async move {
            let result = cache.sync(&cache.background).await;
            cache
                .started
                .sync_failed
                .store(result.is_err(), Ordering::SeqCst);
            if result.is_err() {
                cache.started.failures.fetch_add(1, Ordering::SeqCst);
            }
            cache.started.syncing.store(false, Ordering::SeqCst);
            cache.kick.notify_one();
        });
    }
}
