//! Writeback: dirty pages on their way to the backend.
//!
//! A *pass* walks the dirty tags of a range in address order, cuts neighbours into *runs* of at most a slice, and
//! submits several runs at a time. A run owns references to its frames, and the task that made it carries it (see
//! [`transfer`](crate::transfer)). At submission a page turns from `DIRTY` to `IN_FLIGHT`. At completion it turns to
//! `UNSTABLE`, or back to `DIRTY` if the backend failed. A page in flight that is written again is `DIRTY` too. It is
//! not submitted a second time before the first transfer has completed, because the older of the two might land last.
//!
//! # The scan lock
//! One mutex guards the list of [`Operation`](operations::Operation)s under way: runs, and blockers that hold pages. A
//! run is cut and entered into the list in one critical section. So a holder of the lock sees every page that is not
//! durable, either as dirty or in the list. Stale tags of the tree's inner nodes are cleared under the same lock, so
//! clearing them can't hide a page from a scan. The lock is never held across an await; a run of 256 pages is cut in
//! some microseconds.
//!
//! Writeback takes no add guard: a blocker waits for writeback in its range.
//!
//! [`run`] says what becomes of a run, [`halves`] how a retry that fails is written anew, [`failures`] which requests
//! are told of a failure.

mod epochs;
mod failures;
mod halves;
mod operations;
mod run;
mod trouble;

use std::future::{Future as _, poll_fn};
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use crossbeam_epoch as epoch;
use tokio::sync::OwnedSemaphorePermit;
use weir_faults::{Errno, FaultContext};

pub(crate) use self::epochs::Epochs;
pub(crate) use self::failures::{Evidence, Seen, Tries, Watch};
use self::operations::UnderWay;
pub(crate) use self::operations::{OperationKind, Writeback};
pub use self::trouble::WritebackTrouble;
use crate::frame::{FrameRefs, PAGE_BYTES};
use crate::options::RUN_PAGES;
use crate::pace::Pace;
use crate::page_cache::PageCache;
use crate::pages::{DIRTY, DirtySince, HELD, IN_FLIGHT, LockedPage};
use crate::transfer::{Carrier, Transfer};
use std::sync::atomic::Ordering;

/// What one look at the dirty tags found.
pub(crate) struct Scan {
    /// The next run, entered into the list and marked in flight.
    pub(crate) run: Option<Run>,
    /// A covered page was passed over because it is in flight.
    busy: bool,
    /// Where to go on.
    pub(crate) next: u64,
    /// Pages that were looked at.
    pub(crate) steps: usize,
}

/// Pages that were marked in flight, on their way to the backend.
#[derive(Debug)]
pub(crate) struct Run {
    operation: UnderWay,
    data: FrameRefs,
    /// Pages that went along although they are younger than what the pass covers. There is hardly ever one.
    young: Vec<u64>,
    /// Some of them have failed before.
    retry: bool,
}

/// Pages that the backend may not have.
pub(crate) struct Unwritten {
    /// In order.
    pub(crate) pages: Vec<u64>,
    /// Where to go on: all before that was looked at.
    pub(crate) next: u64,
}

/// How a pass went.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pass {
    /// The first error of its own runs.
    pub(crate) error: Option<Errno>,
    /// Covered pages are still dirty because an earlier version of them was in flight.
    pub(crate) busy: bool,
    /// Pages written.
    pub(crate) pages: u64,
}

impl Pass {
    fn note(&mut self, ended: Result<(), Errno>) {
        self.error = self.error.or(ended.err());
    }
}

/// The most dirty pages passed over under one hold of the scan lock.
const SKIPS_PER_SCAN: u32 = 1024;

impl PageCache {
    /// Writes back the pages of `pages` that were dirtied in flush epoch `covered` or before, each at most once, and
    /// waits for the runs that it submitted. Cancel safe: submitted runs run on.
    pub(crate) async fn write_back(
        self: &Arc<Self>,
        context: &FaultContext,
        pages: Range<u64>,
        covered: u64,
    ) -> Pass {
        let mut pass = Pass::default();
        let mut runs = Carrier::default();
        let mut next = pages.start;
        let mut pace = Pace::default();
        while next < pages.end {
            let permit = self.permit_among(&mut runs, &mut pass).await;
            let scan = self.next_run(next..pages.end, Epochs::up_to(covered));
            pass.busy |= scan.busy;
            next = scan.next;
            let steps = scan.steps;
            let Some(run) = scan.run else {
                drop(permit);
                self.pass_permit_on();
                pace.ask(steps).await;
                continue;
            };
            pass.pages += run.data.len() as u64;
            let run = self.start_run(context, run, permit, |_| {});
            if let Some(ended) = runs.begin(run).await {
                pass.note(ended);
            }
            pace.ask(steps).await;
        }
        self.backend.submit();
        while let Some(ended) = poll_fn(|task| runs.poll_next(task)).await {
            pass.note(ended);
        }
        pass
    }

    /// A permit for one more run, while `runs` go on.
    async fn permit_among(
        &self,
        runs: &mut Carrier<Result<(), Errno>>,
        pass: &mut Pass,
    ) -> OwnedSemaphorePermit {
        // A permit that comes just before this future is dropped goes back, and the background task may want it.
        let mut pass_on = PassOn(Some(self));
        // During this wait nothing is held but runs that are polled here. The permit goes with the next run.
        let mut permit = pin!(Arc::clone(&self.writeback.runs).acquire_owned());
        let permit = poll_fn(|task| {
            loop {
                if let Poll::Ready(permit) = permit.as_mut().poll(task) {
                    return Poll::Ready(permit.expect("never closed"));
                }
                let Poll::Ready(Some(ended)) = runs.poll_next(task) else {
                    self.backend.submit();
                    return Poll::Pending;
                };
                pass.note(ended);
            }
        })
        .await;
        pass_on.0 = None;
        permit
    }

    /// A run to be carried, which owns its pages. Its outcome is that of the pages that its pass covers. `ended` is
    /// called with the outcome of all its pages when they are settled and its permit is given back.
    pub(crate) fn start_run(
        self: &Arc<Self>,
        context: &FaultContext,
        run: Run,
        permit: OwnedSemaphorePermit,
        ended: impl FnOnce(Result<(), Errno>) + Send + 'static,
    ) -> Transfer<Result<(), Errno>> {
        let (cache, context) = (Arc::clone(self), context.clone());
        Transfer::new(&self.tasks, async move {
            let end = cache.carry_out(&context, run).await;
            drop(permit);
            cache.pass_permit_on();
            ended(end.all);
            end.covered
        })
    }

    /// A permit was given back: wakes the background task if it wanted one.
    fn pass_permit_on(&self) {
        if self.writeback.permit_wanted.swap(false, Ordering::SeqCst) {
            self.kick.notify_one();
        }
    }

    /// Cuts the next run out of `pages` and marks it in flight.
    pub(crate) fn next_run(&self, pages: Range<u64>, epochs: Epochs) -> Scan {
        let mut lock = self.writeback.scan();
        let mut scan = Scan {
            run: None,
            busy: false,
            next: pages.start,
            steps: 0,
        };
        for _ in 0..SKIPS_PER_SCAN {
            scan.steps += 1;
            let pin = epoch::pin();
            let Some(first) = self.table.next_dirty(&(scan.next..pages.end), &pin) else {
                scan.next = pages.end;
                break;
            };
            let mut data = FrameRefs::new(Arc::clone(&self.pool));
            let mut retry = false;
            match self.take_for_writeback(first, epochs, &mut data) {
                Taken::Yes(since) => retry = since.failed(),
                Taken::InFlight => scan.busy = true,
                Taken::No => {}
            }
            scan.next = first + 1;
            if data.is_empty() {
                continue;
            }
            // Neighbours go along whatever their age: one larger transfer costs less than two.
            let mut young = Vec::new();
            while scan.next < pages.end
                && scan.next - first < RUN_PAGES
                && let Taken::Yes(since) =
                    self.take_for_writeback(scan.next, epochs.and_later(), &mut data)
            {
                retry |= since.failed();
                if !epochs.has(since) {
                    young.push(scan.next);
                }
                scan.next += 1;
            }
            scan.steps += data.len();
            scan.run = Some(Run {
                operation: lock.begin(OperationKind::Run, first..scan.next),
                data,
                young,
                retry,
            });
            break;
        }
        // A few at a time, at the scan that has left their tags behind.
        let pin = epoch::pin();
        self.table.tidy_dirty(pages.start..scan.next, &pin);
        drop(lock);
        scan
    }

    /// The pages of `pages` that are newer than what the backend has completed: dirty, in flight or held. Stops after
    /// `most` dirty ones.
    pub(crate) fn look_for_unwritten(&self, pages: Range<u64>, most: usize) -> Unwritten {
        // Under the scan lock each of them is dirty or in the list: a page leaves one only after it has entered the
        // other.
        let lock = self.writeback.scan();
        let pin = epoch::pin();
        let mut found: Vec<u64> = self.table.dirty(pages.clone(), &pin).take(most).collect();
        let past = |seen: usize, last: Option<&u64>| match last {
            Some(last) if seen == most => last + 1,
            _ => pages.end,
        };
        let mut next = past(found.len(), found.last());
        for operation in lock.operations() {
            let part = operation.pages.start.max(pages.start)..operation.pages.end.min(next);
            // A blocker's range has no pages but those that it holds, but these may be more than one look is to take.
            let there: Vec<u64> = self.table.known(part, &pin).take(most).collect();
            next = next.min(past(there.len(), there.last()));
            let on_their_way = there.into_iter().filter(|page| {
                // Dirty, if it has just failed.
                let state = self.table.state(*page, &pin);
                state.is_some_and(|state| state.has(DIRTY | IN_FLIGHT | HELD))
            });
            found.extend(on_their_way);
        }
        drop(lock);
        found.sort_unstable();
        found.dedup();
        found.truncate(found.partition_point(|page| *page < next));
        Unwritten { pages: found, next }
    }

    /// Turns a dirty page of `epochs` into one in flight and refers to its frame.
    fn take_for_writeback(&self, page: u64, epochs: Epochs, data: &mut FrameRefs) -> Taken {
        let pin = epoch::pin();
        let Some(mut slot) = self.table.lock(page, &pin) else {
            return Taken::No;
        };
        if !slot.state().has(DIRTY) {
            return Taken::No;
        }
        let since = slot.dirty_since();
        if !epochs.has(since) {
            return Taken::No;
        }
        if slot.state().has(IN_FLIGHT) {
            return Taken::InFlight;
        }
        self.push_page(&slot, page, data);
        slot.submit();
        Taken::Yes(since)
    }

    /// Appends what `page` holds now to `data`, as far as the device goes.
    pub(crate) fn push_page(&self, slot: &LockedPage<'_>, page: u64, data: &mut FrameRefs) {
        let frame = slot.state().frame();
        let taken = self.pool.add_ref(frame);
        let room = self.size() - page * PAGE_BYTES;
        let length = usize::try_from(room.min(PAGE_BYTES)).expect("at most a page");
        data.push(frame, 0, length, taken.zero);
    }

    /// Clears the tags that scans would look at in vain.
    pub(crate) fn tidy_dirty_tags(&self, pages: &Range<u64>) {
        // Under the scan lock: no scan runs while tags are cleared.
        let scan = self.writeback.scan();
        let pin = epoch::pin();
        self.table.tidy_dirty(pages.clone(), &pin);
        drop(scan);
    }
}

/// Passes on a permit that was not used, if this is dropped with a cache.
struct PassOn<'c>(Option<&'c PageCache>);

impl Drop for PassOn<'_> {
    fn drop(&mut self) {
        if let Some(cache) = self.0 {
            cache.pass_permit_on();
        }
    }
}

enum Taken {
    /// It was dirty since then.
    Yes(DirtySince),
    InFlight,
    No,
}
