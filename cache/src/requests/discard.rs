//! Trim and write-zeroes: changes behind the cache's back, made coherent by blocking.
//!
//! The whole pages of the range go under a block guard, region by region, or in larger slices behind the gate where the
//! range spans many regions. Reads and cached writes get in between two of these parts. After a failure the parts
//! before it are changed and the parts after it are as they were. Under the guard, a task that owns it does this:
//!
//! 1. enter the list of operations, so that a FLUSH waits for what is about to be held;
//! 2. shoot the pages down: clean ones are dropped, all others become *held*: invisible, not submitted, not forgotten;
//! 3. wait for writeback that was in flight in the range: it would otherwise land on top of the change;
//! 4. let the backend do it;
//! 5. drop what was held, or put it back as dirty if the backend failed;
//! 6. leave the list, give the guard back.
//!
//! # Order
//! Block guards are shared, and what the store was asked for runs on when its request is dropped. So changes of the
//! same pages exclude each other by a [`RangeLock`](crate::primitives::range_lock), in the order of their arrival: a
//! younger change begins when no part of an older one is under way. The lock covers all whole pages of a request and is
//! taken first. Each part that is under way keeps the lock, so the lock outlives a request that is dropped half-way.
//! Parts that have not begun by then never begin.
//!
//! Partial edges never go under block: a trim leaves its edges as they are (it is advisory), and a zero writes its
//! edges as ordinary cached writes.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_epoch as epoch;
use tokio::time::Instant;
use weir_faults::{Errno, FaultContext, pause_point};

use crate::add_lock::{AddLock, BlockGuard, REGION_BYTES};
use crate::backend::{Capabilities, ZeroMode};
use crate::durability::generations::{Promise, Submitted};
use crate::durability::writeback::{Evidence, OperationKind};
use crate::frame::PAGE_BYTES;
use crate::options::{
    CacheMode, WHOLE_REGIONS, WHOLE_SLICE_BYTES, WHOLE_SLICE_GROWTH, WHOLE_SLICE_QUICK,
};
use crate::pace::{Pace, STEPS_AT_ONCE};
use crate::page_cache::{PageCache, bytes_of, page_of, pages_of};
use crate::pages::{FILLING, HELD, PRESENT, UNCLEAN};
use crate::pressure::quota::Turn;
use crate::primitives::range_lock::RangeGuard;
use crate::requests::payload::WholePages;

/// What the backend is to do with the blocked range.
#[derive(Debug)]
pub(crate) enum Change {
    Discard,
    Zero(ZeroMode),
    /// A direct write.
    Write(WholePages),
}

impl Change {
    /// What its client may rely on once it is acknowledged.
    fn promise(&self, mode: CacheMode) -> Promise {
        match (self, mode) {
            (Self::Discard, _) => Promise::Nothing,
            (_, CacheMode::Writethrough) => Promise::Durable,
            _ => Promise::Done,
        }
    }

    /// Whether the range counts against the quota afterwards.
    fn allocates(&self, can: Capabilities) -> bool {
        match self {
            Self::Discard => false,
            Self::Zero(ZeroMode::MayPunch) => !can.zero_punch,
            Self::Zero(ZeroMode::KeepAllocated) | Self::Write(_) => true,
        }
    }
}

/// How large the next slice may be after one of `bytes` that took this long.
fn next_slice(bytes: u64, took: Duration) -> u64 {
    let quick = WHOLE_SLICE_QUICK.as_nanos() / took.as_nanos().max(1);
    match u64::try_from(quick).unwrap_or(u64::MAX) {
        0 => WHOLE_SLICE_BYTES,
        times => bytes.saturating_mul(times.min(WHOLE_SLICE_GROWTH)),
    }
}

impl PageCache {
    /// NBD_CMD_TRIM: gives the space of the whole allocation units in `range` back; they read as zeroes afterwards.
    /// Partial edges are left as they are. Cancel safe.
    ///
    /// # Errors
    /// What the backend said; then the cached data is as before. `ENOTSUP` from a backend that can't. `EINVAL` when the
    /// device has become smaller than the range.
    pub async fn trim(
        self: &Arc<Self>,
        context: &FaultContext,
        range: Range<u64>,
    ) -> Result<(), Errno> {
        let unit = u64::from(self.backend.geometry().allocation_unit).max(PAGE_BYTES);
        if !self.backend.capabilities().discard {
            return Err(Errno::ENOTSUP);
        }
        let powered = self.powered();
        loop {
            let whole = self.whole_units(&range, unit);
            let changed = self
                .change(context, &whole, || Change::Discard, Errno::EINVAL)
                .await;
            match changed {
                Err(_) if self.has_outgrown(&whole) => {}
                other => break other?,
            }
        }
        if self.mode == CacheMode::Writethrough && !range.is_empty() {
            self.persist(context, range).await?;
        }
        // A power cut between two parts may have undone the first.
        self.still_powered(powered)
    }

    /// NBD_CMD_WRITE_ZEROES: `range` reads as zeroes afterwards. Cancel safe: dropped before it is done, it has zeroed
    /// some of its pages or none.
    ///
    /// # Errors
    /// `ENOTSUP` with `fast_only` where it would be as slow as writing; what the backend said otherwise; `ENOSPC` when
    /// the device has become smaller than the range.
    pub async fn zero(
        self: &Arc<Self>,
        context: &FaultContext,
        range: Range<u64>,
        mode: ZeroMode,
        fast_only: bool,
    ) -> Result<(), Errno> {
        let powered = self.powered();
        let can = self.backend.capabilities();
        let fast = match mode {
            ZeroMode::MayPunch => can.zero_punch || can.zero_keep,
            ZeroMode::KeepAllocated => can.zero_keep,
        };
        if fast_only && !fast {
            return Err(Errno::ENOTSUP);
        }
        let whole = self.whole_units(&range, PAGE_BYTES);
        if !fast || whole.is_empty() {
            self.write_zero_pages(context, range).await?;
            return self.still_powered(powered);
        }
        self.write_zero_pages(context, range.start..whole.start)
            .await?;
        let submitted = self.generations.submitted();
        let changed = self
            .change(context, &whole, || Change::Zero(mode), Errno::ENOSPC)
            .await;
        match changed {
            Ok(()) => self.after_change(context, &whole, submitted).await?,
            // The device has grown: the range no longer consists of whole pages.
            Err(_) if self.has_outgrown(&whole) => {
                self.write_zero_pages(context, whole.clone()).await?
            }
            // The backend has refused what it said it could do: write instead, unless only a fast way is allowed.
            Err(Errno::ENOTSUP) if !fast_only => {
                self.write_zero_pages(context, whole.clone()).await?
            }
            Err(errno) => return Err(errno),
        }
        self.write_zero_pages(context, whole.end..range.end).await?;
        self.still_powered(powered)
    }

    /// In writethrough mode: makes durable a change of which the cache keeps no page.
    pub(crate) async fn after_change(
        self: &Arc<Self>,
        context: &FaultContext,
        range: &Range<u64>,
        submitted: Submitted,
    ) -> Result<(), Errno> {
        if self.mode != CacheMode::Writethrough {
            return Ok(());
        }
        self.persist(context, range.clone()).await?;
        // Another request's sync may have failed before this one succeeded.
        if self.generations.failed_since(submitted) {
            return Err(Errno::EIO);
        }
        Ok(())
    }

    /// The whole units inside `range`; the device's last, shorter one counts as whole.
    fn whole_units(&self, range: &Range<u64>, unit: u64) -> Range<u64> {
        let start = range.start.next_multiple_of(unit);
        let end = if range.end == self.size() {
            range.end
        } else {
            range.end - range.end % unit
        };
        start..end.max(start)
    }

    /// Whether the device has grown since `range` was cut to whole pages. Then `range` covers only a part of its last
    /// page, and the rest of that page must not be shot down.
    fn has_outgrown(&self, range: &Range<u64>) -> bool {
        !range.end.is_multiple_of(PAGE_BYTES) && range.end < self.size()
    }

    /// Writes zeroes through the cache.
    async fn write_zero_pages(
        self: &Arc<Self>,
        context: &FaultContext,
        range: Range<u64>,
    ) -> Result<(), Errno> {
        let mut at = range.start;
        let mut pace = Pace::default();
        while at < range.end {
            let length = self.slice_at(at, range.end - at);
            pace.ask(pages_of(&(at..at + length as u64)).count()).await;
            let mut payload = self.payload(at, length).await;
            payload.fill_zeroes();
            self.write(context, payload).await?;
            at += length as u64;
        }
        Ok(())
    }

    /// Lets the backend change `range` under block, part by part, each as `change` says. `past_end` is the error if the
    /// device has become smaller.
    async fn change(
        self: &Arc<Self>,
        context: &FaultContext,
        range: &Range<u64>,
        change: impl Fn() -> Change,
        past_end: Errno,
    ) -> Result<(), Errno> {
        if range.is_empty() {
            return Ok(());
        }
        let place = Arc::new(self.changes.lock(pages_of(range)).await);
        let mut regions = AddLock::regions(range.clone());
        if regions.nth(WHOLE_REGIONS).is_some() {
            return self
                .change_slices(context, &place, range, change, past_end)
                .await;
        }
        for part in AddLock::regions(range.clone()) {
            let guard = self.add_lock.block(bytes_of(&pages_of(&part))).await;
            self.spawn_change(context, &place, guard, part, change(), past_end)
                .await?;
        }
        Ok(())
    }

    /// As [`PageCache::change`], for many regions: in slices under a block of the whole device. Other requests get in
    /// between two slices.
    async fn change_slices(
        self: &Arc<Self>,
        context: &FaultContext,
        place: &Arc<RangeGuard>,
        range: &Range<u64>,
        change: impl Fn() -> Change,
        past_end: Errno,
    ) -> Result<(), Errno> {
        let mut slice_bytes = WHOLE_SLICE_BYTES;
        let mut at = range.start;
        while at < range.end {
            let border = at.saturating_add(slice_bytes) / REGION_BYTES * REGION_BYTES;
            let slice = at..border.min(range.end);
            at = slice.end;
            let blocked = bytes_of(&pages_of(&slice));
            let guard = self.add_lock.block_whole(blocked).await;
            let begun = Instant::now();
            self.spawn_change(context, place, guard, slice, change(), past_end)
                .await?;
            slice_bytes = next_slice(slice_bytes, begun.elapsed());
        }
        Ok(())
    }

    /// One part of a change, in a task that owns its guard and shares `place`, the lock on the request's range.
    pub(crate) async fn spawn_change(
        self: &Arc<Self>,
        context: &FaultContext,
        place: &Arc<RangeGuard>,
        guard: BlockGuard,
        range: Range<u64>,
        change: Change,
        past_end: Errno,
    ) -> Result<(), Errno> {
        if range.end > self.size() {
            return Err(past_end);
        }
        if self.has_outgrown(&range) {
            return Err(Errno::EAGAIN);
        }
        let (cache, context, place) = (Arc::clone(self), context.clone(), Arc::clone(place));
        let task = self.tasks.spawn(async move {
            let result = cache.change_blocked(&context, &guard, range, change).await;
            drop(guard);
            // Dropped last, so that the next change finds the store and the cache as this one has left them.
            drop(place);
            result
        });
        task.await.expect("a panic aborts the process")
    }

    /// Steps 1 to 6 of the module documentation, without giving the guard back.
    async fn change_blocked(
        &self,
        context: &FaultContext,
        guard: &BlockGuard,
        range: Range<u64>,
        change: Change,
    ) -> Result<(), Errno> {
        let pages = page_of(range.start)..range.end.div_ceil(PAGE_BYTES);
        let allocates = change.allocates(self.backend.capabilities());
        // Block guards are shared: with a quota, a change that gives space back must not overlap one that takes space.
        let turn = if allocates { Turn::Take } else { Turn::Give };
        let turn = self.space_turn(turn).await;
        if allocates {
            self.charge_blocked(&range)?;
        }
        let operation = self.writeback.begin(OperationKind::Blocker, pages.clone());
        let held = self.shoot_down(guard, &pages).await;
        let (submitted, promise) = (self.generations.submitted(), change.promise(self.mode));
        let result = self
            .change_backend(context, &pages, range.clone(), change)
            .await;
        let replaces = (!held.is_empty()).then_some(&pages);
        let evidence = match result {
            Ok(()) => Evidence::Together,
            Err(_) => Evidence::Alone,
        };
        let result = self
            .generations
            .completed_change(submitted, result, promise, replaces);
        self.release_all_held(&held, result.is_ok()).await;
        if let Err(errno) = result {
            self.writeback.failures.note_held(&held, errno, evidence);
        }
        drop(operation);
        match result {
            Ok(()) if !allocates => self.discharge_space(guard, &range),
            Ok(()) => {}
            Err(_) => {
                drop(turn);
                self.reconcile_blocked(guard, range).await
            }
        }
        result
    }

    async fn change_backend(
        &self,
        context: &FaultContext,
        pages: &Range<u64>,
        range: Range<u64>,
        change: Change,
    ) -> Result<(), Errno> {
        let shot_down = pause_point!(context, "cache:shoot_down", [EIO, ENOMEM]).await;
        // Waits even after a failure: the caller gives back what is held, and a page in flight can't be given back.
        self.wait_for(OperationKind::Run, pages).await;
        shot_down?;
        pause_point!(context, "cache:discard:submit", [EIO, ENOSPC, ENOTSUP]).await?;
        let result = match change {
            Change::Discard => self.backend.trim(context, range).await,
            Change::Zero(mode) => self.backend.zero(context, range, mode).await,
            Change::Write(pages) => {
                let WholePages { data, _budget, .. } = pages;
                self.backend.write(context, range.start, data).await
            }
        };
        result.and(pause_point!(context, "cache:discard:complete", [EIO]).await)
    }

    /// Removes every page of `pages` from the cache; those that are not clean stay held. Returns the held ones.
    pub(crate) async fn shoot_down(&self, guard: &BlockGuard, pages: &Range<u64>) -> Vec<u64> {
        guard.assert_covers(bytes_of(pages));
        let mut held = Vec::new();
        let mut pace = Pace::default();
        let mut next = pages.start;
        loop {
            pace.ask(STEPS_AT_ONCE).await;
            match self.shoot_some_down(next..pages.end, &mut held) {
                Some(at) => next = at,
                None => return held,
            }
        }
    }

    /// Goes as far as one turn allows. Returns where to go on, if not all is done.
    fn shoot_some_down(&self, pages: Range<u64>, held: &mut Vec<u64>) -> Option<u64> {
        let (mut next, held_before) = (pages.start, held.len());
        let mut done = false;
        for _ in 0..STEPS_AT_ONCE {
            let pin = epoch::pin();
            let Some(page) = self.table.next_known(&(next..pages.end), &pin) else {
                done = true;
                break;
            };
            next = page + 1;
            let Some(mut slot) = self.table.lock(page, &pin) else {
                continue;
            };
            let state = slot.state();
            assert!(
                !state.has(FILLING),
                "a block guard excludes fills: page {page} is {state:?}"
            );
            assert!(
                !state.has(HELD),
                "changes of the same pages take turns: page {page} is {state:?}"
            );
            if state.has(UNCLEAN) {
                slot.hold();
                held.push(page);
            } else if state.has(PRESENT) {
                drop(slot.evict());
            }
        }
        if held.len() > held_before {
            // A few at a time: otherwise the next scan for dirty pages would walk over all the tags that these pages
            // have left behind.
            self.tidy_dirty_tags(&(pages.start..next));
        }
        (!done).then_some(next)
    }

    /// Ends the blocker's hold of all pages: `changed` says whether their data is void.
    pub(crate) async fn release_all_held(&self, held: &[u64], changed: bool) {
        let mut pace = Pace::default();
        for page in held {
            pace.ask(1).await;
            self.release_held(*page, changed);
        }
        self.released(held);
    }

    /// Ends the blocker's hold of a page: `changed` says whether its data is void. To be followed by
    /// [`PageCache::released`].
    pub(crate) fn release_held(&self, page: u64, changed: bool) {
        let pin = epoch::pin();
        let mut slot = self
            .table
            .lock(page, &pin)
            .expect("a held page stays in its slot");
        if changed {
            slot.release();
        } else {
            slot.put_back();
        }
    }

    /// All pages that a blocker held are [released](Self::release_held). To be called once for all of them, because
    /// each call wakes every stopped writer.
    pub(crate) fn released(&self, held: &[u64]) {
        if !held.is_empty() {
            self.throttle.made_room();
        }
    }
}
