//! Fills: reads from the backend on their way into the cache.
//!
//! A [`Fill`] reads one run of neighbouring pages with one vectored call. Its reader carries the future that does so
//! (see [`transfer`](crate::transfer)); for readahead a task does. The slots of its pages are `FILLING`. Each slot
//! names the private frame that will hold its page. This frame is the fill's token: as long as the fill owns the frame,
//! no other slot can name it, so a slot that still names it has not been touched since. A slot that a write took over
//! names another frame, even if its page was then cleaned, evicted and filled again.
//!
//! A finished fill hands its frames to its waiters itself, whatever became of the slots. So even a cache so small that
//! the pages are evicted at once makes progress. Each waiter gets what the device held at some moment after its request
//! came in, because a waiter finds the fill only in a slot that is still `FILLING`.
//!
//! **A page that was taken over** is the exception. It may be written back while the fill still reads it, and the store
//! promises no atomicity then: the fill's frame may be half old and half new. So the write leaves a reference to its
//! own page with the fill, under the slot's lock, and the waiters get this page. They joined before the write was
//! answered, and for a moment the device held exactly this page. No request waits or reads again because of it. The
//! price is that the fill pins one more frame for each page that is taken over, until the store has answered.
//!
//! Nothing else changes the store under a fill. Trims, zeroes, direct writes and changes of size hold a block guard,
//! and a fill holds an add guard. A page whose slot is empty is not in flight.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock};

use crossbeam_epoch as epoch;
use smallvec::SmallVec;
use weir_faults::{Errno, FaultContext, fault_point, pause_point, race_fault};

use crate::add_lock::AddGuard;
use crate::frame::{FrameBuf, FrameId, FrameRefs, PAGE_BYTES, PAGE_SIZE};
use crate::pace::Pace;
use crate::page_cache::{PageCache, bytes_of};
use crate::pages::PageGuard;
use crate::primitives::event::Event;
use crate::transfer::Transfer;
use std::sync::atomic::{AtomicU64, Ordering};

/// One run of pages being read.
#[derive(Debug)]
pub(crate) struct Fill {
    id: u64,
    first_page: u64,
    done: Event,
    outcome: OnceLock<Result<FrameRefs, Errno>>,
    /// The pages that writes have put into slots that were to be filled. Each is added under its slot's lock.
    taken_over: Mutex<BTreeMap<u64, FrameRefs>>,
}

impl Fill {
    /// Waits for the fill, then appends `start..start + length` of `page` to `out`. Cancel safe.
    pub(crate) async fn wait(&self) -> Result<&FrameRefs, Errno> {
        self.done.wait().await;
        self.outcome
            .get()
            .expect("set before the event")
            .as_ref()
            .map_err(|errno| *errno)
    }

    /// The position of `page` in what [`Fill::wait`] returns.
    pub(crate) fn position(&self, page: u64) -> usize {
        usize::try_from(page - self.first_page).expect("a fill is at most a slice")
    }
}

/// All fills under way.
#[derive(Debug, Default)]
pub(crate) struct Fills {
    last_id: AtomicU64,
    running: Mutex<HashMap<u64, Arc<Fill>>>,
}

impl Fills {
    /// Registers a fill before its first slot names it.
    pub(crate) fn start(&self, first_page: u64) -> Arc<Fill> {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let fill = Arc::new(Fill {
            id,
            first_page,
            done: Event::default(),
            outcome: OnceLock::new(),
            taken_over: Mutex::default(),
        });
        self.running
            .lock()
            .expect("not poisoned")
            .insert(id, Arc::clone(&fill));
        fill
    }

    /// The running fill with that number; `None` when it has finished meanwhile.
    pub(crate) fn find(&self, id: u64) -> Option<Arc<Fill>> {
        self.running.lock().expect("not poisoned").get(&id).cloned()
    }

    fn finish(&self, fill: &Fill, outcome: Result<FrameRefs, Errno>) {
        self.running.lock().expect("not poisoned").remove(&fill.id);
        fill.outcome.set(outcome).expect("finished once");
        fill.done.set();
    }
}

/// Why a fill reads its pages, and what readahead marks on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FillPurpose {
    /// A request waits for it.
    Demand,
    /// No request has asked yet. The page with this index continues the stream when it is first used.
    Readahead { marker: u64 },
}

/// A run that has been planned: its slots are `FILLING` and must be finished by [`PageCache::start_fill`].
#[derive(Debug)]
pub(crate) struct PlannedFill {
    pub(crate) fill: Arc<Fill>,
    pub(crate) frames: FrameBuf,
}

/// The runs of one slice; mostly one.
pub(crate) type PlannedFills = SmallVec<[PlannedFill; 1]>;

impl PageCache {
    /// A write of all of `page` takes over its `FILLING` slot, which it has locked: the waiters of fill number `id` get
    /// `frame`.
    #[cold]
    pub(crate) fn take_over(&self, id: u64, page: u64, frame: FrameId) {
        let fill = self
            .fills
            .find(id)
            .expect("a filling slot names a running fill");
        let taken = self.pool.add_ref(frame);
        let mut written = FrameRefs::new(Arc::clone(&self.pool));
        written.push(frame, 0, PAGE_SIZE, taken.zero);
        let mut taken_over = fill.taken_over.lock().expect("not poisoned");
        let before = taken_over.insert(page, written);
        assert!(before.is_none(), "page {page} was taken over twice");
    }

    /// Makes the slot of `page` `FILLING` as the next page of `planned`, or of a new run. The slot is locked and empty.
    pub(crate) fn plan_page(
        &self,
        page: u64,
        slot: &mut PageGuard<'_>,
        frames: &mut FrameBuf,
        planned: &mut PlannedFills,
    ) -> bool {
        let Some(frame) = frames.pop() else {
            return false;
        };
        let adjacent = planned
            .last()
            .is_some_and(|run| run.fill.position(page) == run.frames.len());
        if !adjacent {
            let fill = self.fills.start(page);
            planned.push(PlannedFill {
                fill,
                frames: FrameBuf::new(Arc::clone(&self.pool)),
            });
        }
        let run = planned.last_mut().expect("pushed above");
        slot.begin_fill(frame, run.fill.id);
        run.frames.push(frame);
        true
    }

    /// Reads a planned run. The returned work owns the guard and the frames; the caller carries or detaches it.
    pub(crate) fn start_fill(
        self: &Arc<Self>,
        context: &FaultContext,
        guard: Arc<AddGuard>,
        planned: PlannedFill,
        purpose: FillPurpose,
    ) -> Transfer {
        let (cache, context) = (Arc::clone(self), context.clone());
        Transfer::new(&self.tasks, async move {
            let PlannedFill { fill, frames } = planned;
            let pages = frames.len() as u64;
            guard.assert_covers(bytes_of(&(fill.first_page..fill.first_page + pages)));
            let (frames, result) = cache.read_run(&context, fill.first_page, frames).await;
            Pace::default().ask(frames.len()).await;
            let outcome = cache.install_fill(&context, &fill, frames, result, purpose);
            cache.fills.finish(&fill, outcome);
            drop(guard);
        })
    }

    async fn read_run(
        &self,
        context: &FaultContext,
        first: u64,
        frames: FrameBuf,
    ) -> (FrameBuf, Result<(), Errno>) {
        if let Err(errno) = pause_point!(context, "cache:fill:submit", [EIO, ENOMEM]).await {
            return (frames, Err(errno));
        }
        let (frames, result) = self
            .backend
            .read_into(context, first * PAGE_BYTES, frames)
            .await;
        let late = pause_point!(context, "cache:fill:complete", [EIO]).await;
        (frames, result.and(late))
    }

    /// Publishes what was read in the slots that still carry the fill's tokens.
    fn install_fill(
        &self,
        context: &FaultContext,
        fill: &Fill,
        mut frames: FrameBuf,
        result: Result<(), Errno>,
        purpose: FillPurpose,
    ) -> Result<FrameRefs, Errno> {
        let result =
            result.and_then(|()| fault_point!(context, "cache:fill:install", [EIO, ENOMEM]));
        let mut handed = FrameRefs::new(Arc::clone(&self.pool));
        let zero: SmallVec<[bool; 8]> =
            (0..frames.len()).map(|i| is_zero(frames.page(i))).collect();
        for (i, frame) in frames.take().into_iter().enumerate() {
            let page = fill.first_page + i as u64;
            if zero[i] {
                self.pool.mark_zero(frame);
            }
            if let FillPurpose::Readahead { marker } = purpose {
                self.pool.mark_prefetched(frame, marker == page);
            }
            let pin = epoch::pin();
            if let Some(mut slot) = self.table.lock(page, &pin)
                && slot.state().is_filled_by(frame)
            {
                if result.is_ok() && !race_fault!(context) {
                    slot.fill_landed(frame);
                } else {
                    slot.fill_failed(frame);
                }
                handed.push(frame, 0, PAGE_SIZE, zero[i]);
                continue;
            }
            // The slot is gone or no longer this fill's: a write took it over meanwhile. What was read is older than
            // that write, or torn.
            self.pool.unref(frame);
            let written = fill.taken_over.lock().expect("not poisoned").remove(&page);
            handed.append(written.expect("whoever takes a slot over leaves its page"));
        }
        result.map(|()| handed)
    }
}

/// Whether a page holds zeroes only: cheap for ordinary data, which differs in its first bytes.
fn is_zero(page: &[u8; PAGE_SIZE]) -> bool {
    page[..16] == [0; 16] && page.chunks_exact(64).all(|chunk| *chunk == [0; 64])
}
