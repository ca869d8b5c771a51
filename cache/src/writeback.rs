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
//!
//! A run that fails as a retry is written anew in [`halves`]; who is told of what has failed is in [`failures`].

mod failures;
mod halves;
mod operations;
mod trouble;

use std::future::{Future as _, poll_fn};
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use crossbeam_epoch as epoch;
use tokio::sync::OwnedSemaphorePermit;
use weir_faults::{Errno, FaultContext, pause_point};

pub(crate) use self::failures::{Evidence, Seen, Tries, Watch};
use self::halves::Failed;
pub(crate) use self::operations::{Operation, OperationKind, Writeback};
pub use self::trouble::WritebackTrouble;
use crate::carried::{Carried, Carrier};
use crate::flush::Submitted;
use crate::frame::{FrameRefs, PAGE_BYTES};
use crate::gen_radix::Tag;
use crate::options::RUN_PAGES;
use crate::page::{DIRTY, HELD, IN_FLIGHT, LockedPage, UNSTABLE};
use crate::page_cache::{PageCache, bytes_of};
use std::sync::atomic::Ordering;

/// Which dirty pages a pass is about, by the epoch of their first write since their last submission.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Epochs {
    pub(crate) covered: u64,
    failed_too: bool,
}

impl Epochs {
    /// Those dirtied in `covered` or before.
    pub(crate) fn up_to(covered: u64) -> Self {
        Self {
            covered,
            failed_too: true,
        }
    }

    /// But none that became dirty by a failure.
    pub(crate) fn without_failed(self) -> Self {
        Self {
            failed_too: false,
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

    fn has(self, since: DirtySince) -> bool {
        since.epoch() <= self.covered && (self.failed_too || !since.failed())
    }
}

/// The detail word of a dirty page: the flush epoch of its first write since its last submission, and whether it is dirty
/// because it could not be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DirtySince(u64);

impl DirtySince {
    const FAILED: u64 = 1 << 63;

    /// What `detail` says of a dirty page, or of one in flight that was not written again since it was submitted.
    fn of(detail: u64) -> Self {
        Self(detail)
    }

    fn epoch(self) -> u64 {
        self.0 & !Self::FAILED
    }

    fn failed(self) -> bool {
        self.0 & Self::FAILED != 0
    }

    /// The detail word after a failure.
    pub(crate) fn failed_detail(epoch: u64) -> u64 {
        epoch | Self::FAILED
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
    /// Those that went along though they are younger than what the pass covers; hardly ever any.
    young: Vec<u64>,
    /// Some of them have failed before.
    retry: bool,
}

/// How a run went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunEnd {
    /// For the pages that its pass covers.
    covered: Result<(), Errno>,
    /// For all of them.
    all: Result<(), Errno>,
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

    /// A run to be carried, which owns its pages; what comes of it is the end of those that its pass covers. `ended` is called with
    /// that of all when they are settled and its permit is given back.
    pub(crate) fn start_run(
        self: &Arc<Self>,
        context: &FaultContext,
        run: Run,
        permit: OwnedSemaphorePermit,
        ended: impl FnOnce(Result<(), Errno>) + Send + 'static,
    ) -> Carried<Result<(), Errno>> {
        let (cache, context) = (Arc::clone(self), context.clone());
        Carried::new(&self.tasks, async move {
            let end = cache.submit(&context, run).await;
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
            let operation = Operation::new(OperationKind::Run, first..scan.next);
            operations.push(Arc::clone(&operation));
            scan.run = Some(Run {
                operation,
                data,
                young,
                retry,
            });
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
        let since = DirtySince::of(slot.detail());
        if !slot.state.has(DIRTY) || !epochs.has(since) {
            return Taken::No;
        }
        if slot.state.has(IN_FLIGHT) {
            return Taken::InFlight;
        }
        self.push_page(&slot, page, data);
        // The detail word stays: if the page fails and was not written again, it tells when it became dirty.
        slot.state = slot.state.without(DIRTY).with(IN_FLIGHT);
        Taken::Yes(since)
    }

    /// Appends what `page` holds now to `data`, as far as the device goes.
    fn push_page(&self, slot: &LockedPage<'_>, page: u64, data: &mut FrameRefs) {
        let frame = slot.state.frame();
        let taken = self.pool.add_ref(frame);
        let room = self.size() - page * PAGE_BYTES;
        let length = usize::try_from(room.min(PAGE_BYTES)).expect("at most a page");
        data.push(frame, 0, length, taken.zero);
    }

    /// Writes a run and settles the states of its pages.
    async fn submit(&self, context: &FaultContext, run: Run) -> RunEnd {
        let Run {
            operation,
            data,
            young,
            retry,
        } = run;
        let pages = &operation.pages;
        let submitted = self.generations.submitted();
        let may_halve = retry || !young.is_empty();
        let failed = self
            .write_run(context, pages.clone(), data, may_halve)
            .await;
        let RunPages {
            failed,
            unwritten,
            known,
        } = self.complete_run(submitted, pages, failed);
        let end = RunEnd {
            all: failed.first().map_or(Ok(()), |(_, errno)| Err(*errno)),
            covered: failed
                .iter()
                .find(|(part, _)| part.clone().any(|page| !young.contains(&page)))
                .map_or(Ok(()), |(_, errno)| Err(*errno)),
        };
        self.counters.writeback_runs.add(1);
        let failed_pages: u64 = failed.iter().map(|(part, _)| part.end - part.start).sum();
        self.counters
            .writeback_pages
            .add(pages.end - pages.start - failed_pages);
        if failed.is_empty() {
            self.writeback.troubles.written(pages);
        }
        for (part, errno) in &failed {
            self.counters.writeback_errors.add(1);
            self.writeback.troubles.failed(part, *errno);
            // A sync that has failed is counted by itself, and says of no page that it can't be stored.
            let evidence = if part.end - part.start == 1 && known {
                Evidence::Alone
            } else {
                Evidence::Together
            };
            let from = unwritten.partition_point(|(page, _)| *page < part.start);
            let until = unwritten.partition_point(|(page, _)| *page < part.end);
            self.writeback
                .failures
                .note(&unwritten[from..until], *errno, evidence);
            let range = bytes_of(part);
            tracing::warn!(%errno, start = range.start, end = range.end, "writeback failed; the pages are kept");
        }
        self.writeback.end(&operation);
        self.throttle.written(end.all);
        if self.counts.unstable.load(Ordering::Relaxed) >= self.limits.unstable_sync {
            self.kick.notify_one();
        }
        end
    }

    /// Lets the backend have a run; says which of its pages it has not.
    async fn write_run(
        &self,
        context: &FaultContext,
        pages: Range<u64>,
        data: FrameRefs,
        may_halve: bool,
    ) -> Failed {
        let submit = pause_point!(context, "cache:writeback:submit", [EIO, ENOSPC, ENOMEM]).await;
        let written = match submit {
            Ok(()) => {
                self.backend
                    .write_vectored_at(context, pages.start * PAGE_BYTES, data)
                    .await
            }
            Err(errno) => Err(errno),
        };
        let failed = match written {
            Ok(()) => Failed::new(),
            Err(errno) if may_halve && submit.is_ok() => {
                self.write_in_halves(context, pages.clone(), errno).await
            }
            Err(errno) => vec![(pages.clone(), errno)],
        };
        match pause_point!(context, "cache:writeback:complete", [EIO, ENOSPC]).await {
            Ok(()) => failed,
            Err(errno) => vec![(pages, errno)],
        }
    }

    /// Settles the pages of a run that has ended.
    fn complete_run(&self, submitted: Submitted, pages: &Range<u64>, failed: Failed) -> RunPages {
        // After the backend's completion, before the pages show it: a sync submitted from here on covers the write.
        let mut completed = self.generations.completed_run(submitted);
        let known = completed.known;
        let failed = match failed.first() {
            None if !known => vec![(pages.clone(), Errno::EIO)],
            Some((_, errno)) if !known => vec![(pages.clone(), *errno)],
            _ => failed,
        };
        let mut parts = failed.iter().map(|(part, _)| part).peekable();
        let mut unwritten = Vec::new();
        for page in pages.clone() {
            parts.next_if(|part| part.end <= page);
            let written = !parts.peek().is_some_and(|part| part.contains(&page));
            match self.complete_page(page, written, completed.generation) {
                Completed::Unstable => completed.unstable(page),
                Completed::Dirty(epoch) => unwritten.push((page, epoch)),
                Completed::Held => {}
            }
        }
        RunPages {
            failed,
            unwritten,
            known,
        }
    }

    /// Settles the state of one page of a run.
    fn complete_page(&self, page: u64, written: bool, generation: u64) -> Completed {
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
            return Completed::Held;
        }
        if written {
            if !slot.state.has(DIRTY) {
                slot.state = slot.state.with(UNSTABLE);
                slot.set_detail(generation);
            }
            return Completed::Unstable;
        }
        let epoch = if slot.state.has(DIRTY) {
            // Written again since: when it first became dirty is forgotten.
            OLDEST_EPOCH
        } else {
            DirtySince::of(slot.detail()).epoch()
        };
        slot.state = slot.state.with(DIRTY);
        slot.set_detail(DirtySince::failed_detail(epoch));
        Completed::Dirty(epoch)
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
    /// It was dirty since then.
    Yes(DirtySince),
    InFlight,
    No,
}

/// What became of the pages of a run.
struct RunPages {
    /// The parts that have failed.
    failed: Failed,
    /// Of these the pages that are dirty again, in order, each with the epoch since which it is.
    unwritten: Vec<(u64, u64)>,
    /// No sync has failed meanwhile.
    known: bool,
}

/// What became of a page of a run.
enum Completed {
    /// What was written waits for a sync, though the page may be dirty again.
    Unstable,
    /// It is dirty, since this epoch.
    Dirty(u64),
    /// Its blocker decides.
    Held,
}
