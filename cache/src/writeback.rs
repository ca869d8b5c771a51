//! Writeback: dirty pages on their way to the backend.
//!
//! A *pass* walks the dirty tags of a range in address order, cuts neighbours into *runs* of at most a slice, and submits
//! several runs at a time, each of which owns references to its frames and is carried by who made it (see
//! [`carried`](crate::carried)). At submission a page turns from `DIRTY` to
//! `IN_FLIGHT`, at completion to `UNSTABLE`, or back to `DIRTY` if the backend failed. A page in flight that is written again
//! is `DIRTY` too, and is not submitted a second time before the first has completed: else the older of the two might land
//! last.
//!
//! # The scan lock
//! One mutex guards the list of [`Operation`]s under way (runs and blockers that hold pages). A run is cut and entered into
//! the list in one critical section, so whoever takes the lock sees every page that is not durable either as dirty or in the
//! list. Clearing stale tags of the tree's inner nodes happens under the same lock, so it can't hide a page from a scan.
//! The lock is never held across an await; a run of 256 pages is cut in some microseconds.
//!
//! Writeback takes no add guard: a blocker waits for writeback in its range.

mod operations;

use std::future::{Future as _, poll_fn};
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use crossbeam_epoch as epoch;
use tokio::sync::OwnedSemaphorePermit;
use weir_faults::{Errno, FaultContext, pause_point};

pub(crate) use self::operations::{Operation, OperationKind, Writeback};
use crate::carried::{Carried, Carrier};
use crate::frame::{FrameRefs, PAGE_BYTES};
use crate::gen_radix::Tag;
use crate::options::RUN_PAGES;
use crate::page::{DIRTY, HELD, IN_FLIGHT, UNSTABLE};
use crate::page_cache::{PageCache, bytes_of};
use std::sync::atomic::Ordering;

/// Which dirty pages a pass is about, by the epoch of their first write since their last submission.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Epochs {
    oldest: u64,
    pub(crate) covered: u64,
}

impl Epochs {
    /// Those dirtied in `covered` or before.
    pub(crate) fn up_to(covered: u64) -> Self {
        Self {
            oldest: OLDEST_EPOCH,
            covered,
        }
    }

    /// But none that became dirty by a failure.
    pub(crate) fn without_failed(self) -> Self {
        Self {
            oldest: OLDEST_EPOCH + 1,
            ..self
        }
    }

    /// These and whatever is younger.
    fn and_later(self) -> Self {
        Self {
            covered: u64::MAX,
            ..self
        }
    }

    fn has(self, epoch: u64) -> bool {
        (self.oldest..=self.covered).contains(&epoch)
    }
}

/// What one look at the dirty tags found.
struct Scan {
    /// The next run, entered into the list and marked in flight.
    run: Option<Run>,
    /// A covered page was passed over because it is in flight.
    busy: bool,
    /// Where to go on.
    next: u64,
}

/// Pages that were marked in flight, on their way to the backend.
#[derive(Debug)]
pub(crate) struct Run {
    operation: Arc<Operation>,
    data: FrameRefs,
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
    /// Writes back the pages of `pages` that were dirtied in flush epoch `covered` or before, each at most once, and waits for
    /// the runs that it submitted. Cancel safe: submitted runs run on.
    pub(crate) async fn write_back(
        self: &Arc<Self>,
        context: &FaultContext,
        pages: Range<u64>,
        covered: u64,
    ) -> Pass {
        let mut pass = Pass::default();
        let mut runs = Carrier::default();
        let mut next = pages.start;
        while next < pages.end {
            let permit = self.permit_among(&mut runs, &mut pass).await;
            let scan = self.next_run(next..pages.end, Epochs::up_to(covered));
            pass.busy |= scan.busy;
            next = scan.next;
            let Some(run) = scan.run else {
                drop(permit);
                self.pass_permit_on();
                continue;
            };
            pass.pages += run.data.len() as u64;
            let run = self.start_run(context, run, permit, |_| {});
            if let Some(ended) = runs.begin(run).await {
                pass.note(ended);
            }
        }
        self.backend.submit();
        while let Some(ended) = poll_fn(|task| runs.poll_next(task)).await {
            pass.note(ended);
        }
        self.tidy_dirty_tags(&pages);
        pass
    }

    /// A permit for one more run, while `runs` go on.
    async fn permit_among(
        &self,
        runs: &mut Carrier<Result<(), Errno>>,
        pass: &mut Pass,
    ) -> OwnedSemaphorePermit {
        // A permit that comes just before this is dropped goes back, and the background task may want it.
        let mut pass_on = PassOn(Some(self));
        // Waited for holding nothing but runs that are polled here; it travels with the next.
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

    /// A run to be carried, which owns its pages; `ended` is called when they are settled and its permit is given back.
    pub(crate) fn start_run(
        self: &Arc<Self>,
        context: &FaultContext,
        run: Run,
        permit: OwnedSemaphorePermit,
        ended: impl FnOnce(Result<(), Errno>) + Send + 'static,
    ) -> Carried<Result<(), Errno>> {
        let (cache, context) = (Arc::clone(self), context.clone());
        Carried::new(&self.tasks, async move {
            let result = cache.submit(&context, run).await;
            drop(permit);
            cache.pass_permit_on();
            ended(result);
            result
        })
    }

    /// A permit was given back: wakes the background task if it wanted one.
    fn pass_permit_on(&self) {
        if self.writeback.permit_wanted.swap(false, Ordering::SeqCst) {
            self.kick.notify_one();
        }
    }

    /// Cuts the next run of pages dirtied in one of `epochs`; says where to go on.
    pub(crate) fn cut_run(&self, pages: Range<u64>, epochs: Epochs) -> (Option<Run>, u64) {
        let scan = self.next_run(pages, epochs);
        (scan.run, scan.next)
    }

    /// Cuts the next run out of `pages` and marks it in flight.
    fn next_run(&self, pages: Range<u64>, epochs: Epochs) -> Scan {
        let mut operations = self.writeback.scan();
        let mut scan = Scan {
            run: None,
            busy: false,
            next: pages.start,
        };
        for _ in 0..SKIPS_PER_SCAN {
            let pin = epoch::pin();
            let dirty = self
                .slots
                .next_tagged(scan.next, Tag::Dirty, &pin)
                .filter(|page| *page < pages.end);
            let Some(first) = dirty else {
                scan.next = pages.end;
                break;
            };
            let mut data = FrameRefs::new(Arc::clone(&self.pool));
            match self.take_for_writeback(first, epochs, &mut data) {
                Taken::Yes => {}
                Taken::InFlight => scan.busy = true,
                Taken::No => {}
            }
            scan.next = first + 1;
            if data.is_empty() {
                continue;
            }
            // Neighbours go along whatever their age: one larger transfer costs less than two.
            while scan.next < pages.end
                && scan.next - first < RUN_PAGES
                && matches!(
                    self.take_for_writeback(scan.next, epochs.and_later(), &mut data),
                    Taken::Yes
                )
            {
                scan.next += 1;
            }
            let operation = Operation::new(OperationKind::Run, first..scan.next);
            operations.push(Arc::clone(&operation));
            scan.run = Some(Run { operation, data });
            break;
        }
        scan
    }

    /// The pages of `pages` that are newer than what the backend has completed: dirty, in flight or held. Stops after `most` dirty
    /// ones.
    pub(crate) fn look_for_unwritten(&self, pages: Range<u64>, most: usize) -> Unwritten {
        // Under the scan lock each of them is dirty or in the list: a page leaves one only after it has entered the other.
        let operations = self.writeback.scan();
        let pin = epoch::pin();
        let mut found: Vec<u64> = self
            .slots
            .tagged(pages.clone(), Tag::Dirty, &pin)
            .take(most)
            .collect();
        let next = match found.last() {
            Some(last) if found.len() == most => last + 1,
            _ => pages.end,
        };
        for operation in operations.iter() {
            let part = operation.pages.start.max(pages.start)..operation.pages.end.min(next);
            // In a blocker's range there is nothing but what it holds.
            let on_their_way = self.slots.tagged(part, Tag::Present, &pin).filter(|page| {
                // Dirty, if it has just failed.
                let slot = self.slots.get(*page, &pin);
                slot.is_some_and(|slot| slot.load().has(DIRTY | IN_FLIGHT | HELD))
            });
            found.extend(on_their_way);
        }
        drop(operations);
        found.sort_unstable();
        found.dedup();
        Unwritten { pages: found, next }
    }

    /// Turns a dirty page of `epochs` into one in flight and refers to its frame.
    fn take_for_writeback(&self, page: u64, epochs: Epochs, data: &mut FrameRefs) -> Taken {
        let pin = epoch::pin();
        let Some(mut slot) = self.lock_page(page, &pin) else {
            return Taken::No;
        };
        if !slot.state.has(DIRTY) || !epochs.has(slot.detail()) {
            return Taken::No;
        }
        if slot.state.has(IN_FLIGHT) {
            return Taken::InFlight;
        }
        let frame = slot.state.frame();
        let taken = self.pool.add_ref(frame);
        let room = self.size() - page * PAGE_BYTES;
        let length = usize::try_from(room.min(PAGE_BYTES)).expect("at most a page");
        data.push(frame, 0, length, taken.zero);
        slot.state = slot.state.without(DIRTY).with(IN_FLIGHT);
        Taken::Yes
    }

    /// Writes a run and settles the states of its pages.
    async fn submit(&self, context: &FaultContext, run: Run) -> Result<(), Errno> {
        let Run { operation, data } = run;
        let pages = data.len() as u64;
        let submitted = self.generations.submitted();
        let result =
            match pause_point!(context, "cache:writeback:submit", [EIO, ENOSPC, ENOMEM]).await {
                Ok(()) => {
                    self.backend
                        .write_vectored_at(context, operation.pages.start * PAGE_BYTES, data)
                        .await
                }
                Err(errno) => Err(errno),
            };
        let result =
            result.and(pause_point!(context, "cache:writeback:complete", [EIO, ENOSPC]).await);
        // After the backend's completion, before the pages show it: a sync submitted from here on covers the write.
        let result = {
            let mut completed = self.generations.completed_run(submitted);
            let result = if completed.known {
                result
            } else {
                result.and(Err(Errno::EIO))
            };
            for page in operation.pages.clone() {
                if self.complete_page(page, result.is_ok(), completed.generation) {
                    completed.unstable(page);
                }
            }
            result
        };
        self.counters.writeback_runs.add(1);
        match result {
            Ok(()) => self.counters.writeback_pages.add(pages),
            Err(errno) => {
                self.counters.writeback_errors.add(1);
                self.writeback.count_failure(errno);
                let range = bytes_of(&operation.pages);
                tracing::warn!(%errno, start = range.start, end = range.end, "writeback failed; the pages are kept");
            }
        }
        self.writeback.end(&operation);
        self.throttle.written(result);
        if self.counts.unstable.load(Ordering::Relaxed) >= self.limits.unstable_sync {
            self.kick.notify_one();
        }
        result
    }

    /// Settles the state of one page of a run; says whether what was written waits for a sync, though the page may be dirty
    /// again.
    fn complete_page(&self, page: u64, written: bool, generation: u64) -> bool {
        let pin = epoch::pin();
        let mut slot = self
            .lock_page(page, &pin)
            .expect("a page in flight stays in its slot");
        assert!(
            slot.state.has(IN_FLIGHT),
            "page {page} completed but not in flight: {:?}",
            slot.state
        );
        slot.state = slot.state.without(IN_FLIGHT);
        if slot.state.has(HELD) {
            // Its blocker waits for this and puts it back as dirty if it fails.
            return false;
        }
        if slot.state.has(DIRTY) {
            if !written {
                slot.set_detail(OLDEST_EPOCH);
            }
        } else if written {
            slot.state = slot.state.with(UNSTABLE);
            slot.set_detail(generation);
        } else {
            slot.state = slot.state.with(DIRTY);
            slot.set_detail(OLDEST_EPOCH);
        }
        written
    }

    /// Clears what scans would look at in vain.
    pub(crate) fn tidy_dirty_tags(&self, pages: &Range<u64>) {
        // Under the scan lock: no scan runs while tags are cleared.
        let scan = self.writeback.scan();
        let pin = epoch::pin();
        self.slots.tidy_tags(pages.clone(), Tag::Dirty, &pin);
        drop(scan);
    }
}

/// Passes a permit on that was not used, if it is dropped with a cache.
struct PassOn<'c>(Option<&'c PageCache>);

impl Drop for PassOn<'_> {
    fn drop(&mut self) {
        if let Some(cache) = self.0 {
            cache.pass_permit_on();
        }
    }
}

/// Older than every FLUSH: whatever comes next covers it.
pub(crate) const OLDEST_EPOCH: u64 = 0;

enum Taken {
    Yes,
    InFlight,
    No,
}
