//! Space accounting of a thin export: `--quota`.
//!
//! An export may be larger than what it may allocate. The promise: a write that is acknowledged has its space, so
//! ENOSPC comes at the write and never at a FLUSH. The promise is about the quota. A host disk that other programs fill
//! too can't be promised.
//!
//! # What is counted
//! Space is counted in units. A unit is the larger of the page and the backend's allocation block. A unit is *charged*
//! while it counts against the quota: because the backend has it allocated, or because one of its pages is not yet
//! written back. One bit for each unit says so, in a sparse set (see [`units`]). What is not charged is free, in shards
//! (an [`LgLock`]). A write takes from the shard of its thread, and looks at all shards only before it reports ENOSPC.
//! A charge takes all that it needs, or changes nothing.
//!
//! **Invariant**: whenever all shards are locked, their sum plus the charged units is the quota, less what is being
//! given back at that moment. For that, a charge sets bits and takes their units in one hold of a shard's lock, and a
//! discharge clears bits before it gives their units back.
//!
//! # Why it can't change underneath
//! The bits decide whether a write needs space. They are set under an add guard and cleared under a block guard only,
//! on the range that they stand for, and the add lock keeps the two apart. So a write that finds its units charged
//! keeps them until it has dirtied its pages. No write can come between a trim's look at the units and its clearing of
//! them (race 11).
//!
//! Blockers share, and a direct write charges as a blocker. So blockers that take space and blockers that give space
//! back take turns (see [`turns`]). Without turns a direct write could overtake a trim of the same units at the
//! backend, and the trim would give back what the direct write has just taken.
//!
//! A request that charged units and then failed may have charged for nothing. Its range is *reconciled*: under block,
//! each unit is charged exactly if a page of it is not clean or the backend has it allocated. The whole device is
//! reconciled at the start, and so is what a resize or a shift has moved. Counting takes turns with the other two as
//! well: otherwise a trim between the look and the charge would give units back, and the charge would take them again
//! for nothing.
//!
//! A count may fail, and then charges stay as they were. They may be too many then, but must not be too few. After a
//! failed request they are too many. A shift moves charges with their data, without asking the backend, and gets the
//! memory for that before the store changes.

use std::ops::Range;
use std::sync::Arc;

use weir_faults::{Errno, FaultContext, fault_point, pause_point};

use crate::add_lock::{AddGuard, AddLock, BlockGuard, ExclusiveGuard};
use crate::backend::ExtentKind;
use crate::frame::PAGE_BYTES;
use crate::lg_lock::LgLock;
use crate::pace::{Pace, STEPS_AT_ONCE};
use crate::page_cache::PageCache;

mod turns;
mod units;

pub(crate) use turns::Turn;
use turns::{TurnGuard, Turns};
use units::{UNITS_PER_STEP, UnitSet};

/// Extents asked for at a time while a range is reconciled.
const EXTENTS_PER_LOOK: usize = 1024;

/// The quota of one export, and what of it is charged.
#[derive(Debug)]
pub(crate) struct Quota {
    unit_bytes: u64,
    quota_units: u64,
    /// Units that aren't charged. Their sum is negative while an export has more than its quota, as it may from the
    /// start.
    free: LgLock<i64>,
    charged: UnitSet,
    turns: Turns,
}

/// An export's quota at one moment, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaStats {
    /// What the export may allocate.
    pub quota: u64,
    /// What it has allocated or promised.
    pub charged: u64,
}

impl Quota {
    pub(crate) fn new(quota: u64, allocation_unit: u32, faults: FaultContext) -> Self {
        let unit_bytes = u64::from(allocation_unit).max(PAGE_BYTES);
        let quota_units = quota / unit_bytes;
        let all = signed(quota_units);
        Self {
            unit_bytes,
            quota_units,
            free: LgLock::new(|shard| if shard == 0 { all } else { 0 }),
            charged: UnitSet::new(faults),
            turns: Turns::default(),
        }
    }

    /// The units that `range` of bytes touches.
    fn touched(&self, range: &Range<u64>) -> Range<u64> {
        range.start / self.unit_bytes..range.end.div_ceil(self.unit_bytes)
    }

    /// The units that lie wholly inside `range` of bytes.
    fn inside(&self, range: &Range<u64>) -> Range<u64> {
        let start = range.start.div_ceil(self.unit_bytes);
        start..(range.end / self.unit_bytes).max(start)
    }

    /// How many units are charged by their bits.
    #[cfg(test)]
    pub(crate) fn charged_units(&self) -> u64 {
        self.charged.count(&(0..u64::MAX))
    }

    fn is_charged(&self, range: &Range<u64>) -> bool {
        let units = self.touched(range);
        self.charged.count(&units) == units.end - units.start
    }

    /// Charges all units that `range` touches, or none.
    fn charge(&self, range: &Range<u64>) -> Result<(), Errno> {
        if self.is_charged(range) {
            return Ok(());
        }
        #[cfg(test)]
        crate::testing::interleave::at("space:looked");
        let units = self.touched(range);
        if self.charge_from(&mut self.free.local(), &units)? {
            return Ok(());
        }
        let mut global = self.free.global();
        let mut total: i64 = global.drain().sum();
        let granted = self.charge_from(&mut total, &units);
        *global.iter_mut().next().expect("a lock has shards") = total;
        if granted? { Ok(()) } else { Err(Errno::ENOSPC) }
    }

    /// Charges `units` if `free`, of which the caller has the lock, has what is missing; says whether.
    ///
    /// One hold of the lock spans the look, the setting and the taking. Others may have charged what was missing at a
    /// look without the lock. And whenever all shards are locked, no bit is set whose unit isn't taken, and no unit is
    /// taken in vain.
    fn charge_from(&self, free: &mut i64, units: &Range<u64>) -> Result<bool, Errno> {
        let missing = signed(units.end - units.start - self.charged.count(units));
        if missing > (*free).max(0) {
            return Ok(false);
        }
        self.charge_anyway(free, units)?;
        Ok(true)
    }

    /// Charges `units`, whether `free` has them or not.
    fn charge_anyway(&self, free: &mut i64, units: &Range<u64>) -> Result<(), Errno> {
        let new = self.charged.insert(units).map_err(|_| Errno::ENOMEM)?;
        *free -= signed(new);
        Ok(())
    }

    /// Gives units back.
    fn discharge(&self, units: &Range<u64>) {
        let removed = signed(self.charged.remove(units));
        *self.free.local() += removed;
    }

    /// As [`Quota::discharge`], in turns, for any number of units.
    async fn discharge_in_turns(&self, units: Range<u64>) {
        let mut pace = Pace::default();
        let mut next = Some(units.start);
        while let Some(at) = next {
            let (removed, rest) = self.charged.remove_some(&(at..units.end));
            *self.free.local() += signed(removed);
            next = rest;
            pace.ask(STEPS_AT_ONCE).await;
        }
    }

    /// What the charges will be when what lies from unit `from` on is at `to`.
    async fn plan_move(&self, from: u64, to: u64) -> Result<MovedCharges, Errno> {
        let mut moved = Vec::new();
        let mut pace = Pace::default();
        let mut next = Some(from);
        while let Some(at) = next {
            next = self.charged.find_some(&(at..u64::MAX), &mut moved);
            pace.ask(STEPS_AT_ONCE).await;
        }
        for units in &mut moved {
            *units = units.start - from + to..units.end - from + to;
            self.charged.prepare(units).map_err(|_| Errno::ENOMEM)?;
            pace.ask(steps_for(units)).await;
        }
        let first = from.min(to);
        Ok(MovedCharges { first, moved })
    }

    /// Memory of the bits.
    pub(crate) fn bytes(&self) -> usize {
        self.charged.bytes()
    }

    fn stats(&self) -> QuotaStats {
        let free: i64 = self.free.global().iter().sum();
        let charged = u64::try_from(signed(self.quota_units) - free)
            .expect("given back is only what was taken");
        QuotaStats {
            quota: self.quota_units * self.unit_bytes,
            charged: charged * self.unit_bytes,
        }
    }
}

/// What it costs to charge so many units at once, in [steps](crate::pace).
fn steps_for(units: &Range<u64>) -> usize {
    usize::try_from((units.end - units.start) / UNITS_PER_STEP + 1).unwrap_or(usize::MAX)
}

fn signed(units: u64) -> i64 {
    i64::try_from(units).expect("a device has at most 2^64 bytes, and a unit 2^12 or more")
}

/// Charges that go with the data that a shift moves.
#[derive(Debug)]
pub(crate) struct MovedCharges {
    /// From this unit on all charges are replaced.
    first: u64,
    /// What is charged then; there is memory for it.
    moved: Vec<Range<u64>>,
}

/// The space of a write under way. If this is dropped before it is kept, because the write has failed or its future was
/// dropped, its range is reconciled.
#[derive(Debug)]
pub(crate) struct Charge {
    cache: Arc<PageCache>,
    range: Range<u64>,
    kept: bool,
}

impl Charge {
    /// The pages are dirty: the space is theirs.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        // Without a runtime the process is ending.
        if !self.kept && tokio::runtime::Handle::try_current().is_ok() {
            let (cache, range) = (Arc::clone(&self.cache), self.range.clone());
            self.cache
                .tasks
                .spawn(async move { cache.reconcile_later(range).await });
        }
    }
}

impl PageCache {
    /// What the quota is and how much of it is used; `None` without one.
    pub fn quota(&self) -> Option<QuotaStats> {
        self.quota.as_ref().map(Quota::stats)
    }

    /// Whether a write to `range` needs no more space than it has: for the paths that can't fail.
    #[inline]
    pub(crate) fn has_space(&self, range: &Range<u64>) -> bool {
        self.quota
            .as_ref()
            .is_none_or(|space| space.is_charged(range))
    }

    /// Gets the space that a write to `range` needs, before the write changes anything. `charge` has the range
    /// reconciled unless it is [kept](Charge::keep).
    pub(crate) fn charge_space(
        self: &Arc<Self>,
        guard: &AddGuard,
        range: &Range<u64>,
        charge: &mut Option<Charge>,
    ) -> Result<(), Errno> {
        guard.assert_covers(range.clone());
        self.charge_blocked(range)?;
        if self.quota.is_some() && charge.is_none() {
            *charge = Some(Charge {
                cache: Arc::clone(self),
                range: range.clone(),
                kept: false,
            });
        }
        Ok(())
    }

    /// As [`PageCache::charge_space`], for a change under a block guard.
    pub(crate) fn charge_blocked(&self, range: &Range<u64>) -> Result<(), Errno> {
        let Some(space) = &self.quota else {
            return Ok(());
        };
        fault_point!(self.background, "cache:space:charge", [ENOSPC, ENOMEM])?;
        space.charge(range)
    }

    /// Waits for a blocker's turn at the quota. Returns `None` at once without a quota.
    pub(crate) async fn space_turn(&self, turn: Turn) -> Option<TurnGuard<'_>> {
        match &self.quota {
            Some(space) => Some(space.turns.wait(turn).await),
            None => None,
        }
    }

    /// `range` is a hole now: its whole units are free again.
    pub(crate) fn discharge_space(&self, guard: &BlockGuard, range: &Range<u64>) {
        if let Some(space) = &self.quota {
            guard.assert_covers(range.clone());
            space.discharge(&self.units_inside(space, range));
        }
    }

    /// The units that lie wholly inside `range`; the device's last, shorter one counts as whole.
    fn units_inside(&self, space: &Quota, range: &Range<u64>) -> Range<u64> {
        let units = space.inside(range);
        let size = self.size();
        let end = if range.end >= size {
            units.end.max(size.div_ceil(space.unit_bytes))
        } else {
            units.end
        };
        units.start..end
    }

    /// The device ends at `size` now and no longer at `old`: what was past it is free.
    pub(crate) async fn discharge_past(&self, guard: &BlockGuard, size: u64, old: u64) {
        if let Some(space) = &self.quota
            && size < old
        {
            guard.assert_covers(size..old);
            let units = size.div_ceil(space.unit_bytes)..old.div_ceil(space.unit_bytes);
            space.discharge_in_turns(units).await;
        }
    }

    /// Before a shift, which moves what lies from `from` on to `to`, both at the border of a unit: what it will do to
    /// the charges.
    ///
    /// # Errors
    /// `ENOMEM`: the charges couldn't follow.
    pub(crate) async fn plan_moved_space(
        &self,
        _guard: &ExclusiveGuard,
        from: u64,
        to: u64,
    ) -> Result<Option<MovedCharges>, Errno> {
        let Some(space) = &self.quota else {
            return Ok(None);
        };
        let (from, to) = (from / space.unit_bytes, to / space.unit_bytes);
        space.plan_move(from, to).await.map(Some)
    }

    /// The shift is done.
    pub(crate) async fn move_space(&self, _guard: &ExclusiveGuard, planned: Option<MovedCharges>) {
        let (Some(space), Some(planned)) = (&self.quota, planned) else {
            return;
        };
        space.discharge_in_turns(planned.first..u64::MAX).await;
        let mut pace = Pace::default();
        for units in planned.moved {
            space
                .charge_anyway(&mut space.free.local(), &units)
                .expect("its memory was prepared");
            pace.ask(steps_for(&units)).await;
        }
    }

    /// Counts what the backend has allocated: to be called once before an export with a quota is served.
    ///
    /// # Errors
    /// What the backend said.
    pub async fn count_space(&self) -> Result<(), Errno> {
        if self.quota.is_none() {
            return Ok(());
        }
        let guard = self.add_lock.block_whole(0..u64::MAX).await;
        self.reconcile(&guard, 0..self.size()).await
    }

    /// Makes the charges of `range` true again, after a request that charged has failed.
    async fn reconcile_later(&self, range: Range<u64>) {
        let Some(space) = &self.quota else { return };
        let units = space.touched(&range);
        let whole = units.start * space.unit_bytes..units.end * space.unit_bytes;
        // A write is within a region, and so are its units unless they are absurdly large. The gate would hold up every
        // request, for as long as the slowest request that is past it.
        let guard = if AddLock::regions(whole.clone()).count() == 1 {
            self.add_lock.block(whole).await
        } else {
            self.add_lock.block_whole(whole).await
        };
        self.reconcile_blocked(&guard, range).await;
    }

    /// As [`PageCache::reconcile`], where no request is left to report an error to. The guard covers pages; units that
    /// it covers in part are left as they are, but for the device's last, shorter one.
    pub(crate) async fn reconcile_blocked(&self, guard: &BlockGuard, range: Range<u64>) {
        let Some(space) = &self.quota else { return };
        let covered = guard.range();
        let units = self.units_inside(space, &covered);
        let whole = units.start * space.unit_bytes..units.end * space.unit_bytes;
        let range = range.start.max(whole.start)..range.end.min(whole.end);
        if range.is_empty() {
            return;
        }
        if let Err(errno) = self.reconcile(guard, range).await {
            // What is charged for nothing stays so until the range is trimmed or the export opened again.
            tracing::warn!(%errno, "the space of a failed request could not be counted again");
        }
    }

    /// The units of `range` of which a page is not clean, and those that the backend has allocated: two runs, each in
    /// order.
    async fn kept_units(
        &self,
        space: &Quota,
        range: &Range<u64>,
    ) -> Result<Vec<Range<u64>>, Errno> {
        // The cache first: a page that is written back between the two looks is found by the second.
        let unwritten = self.unwritten_ranges(range, usize::MAX).await.ranges;
        let mut kept: Vec<_> = unwritten.iter().map(|bytes| space.touched(bytes)).collect();
        let mut at = range.start;
        while at < range.end {
            let found = self
                .backend
                .status(&self.background, at..range.end, EXTENTS_PER_LOOK)
                .await?;
            let Some(last) = found.last() else { break };
            at = last.range.end.max(at + 1);
            let data = found
                .iter()
                .filter(|extent| extent.kind != ExtentKind::Hole);
            kept.extend(data.map(|extent| space.touched(&extent.range)));
        }
        Ok(kept)
    }

    /// Charges each unit that `range` touches exactly if a page of it is not clean or the backend has it allocated. The
    /// guard keeps writes out of these units; writeback may run: a page that it cleans is allocated then.
    pub(crate) async fn reconcile(
        &self,
        guard: &BlockGuard,
        range: Range<u64>,
    ) -> Result<(), Errno> {
        let Some(space) = &self.quota else {
            return Ok(());
        };
        // A direct write under way is charged, and looks like a hole.
        let _turn = self.space_turn(Turn::Count).await;
        let units = space.touched(&range);
        let start = units.start * space.unit_bytes;
        // Empty when the device has meanwhile been cut before it: then nothing there is kept.
        let end = (units.end * space.unit_bytes).min(self.size());
        let range = start..end.max(start);
        guard.assert_covers(range.clone());
        let mut kept = self.undisturbed(|| self.kept_units(space, &range)).await?;
        pause_point!(self.background, "cache:space:count", [EIO]).await?;
        // Stable, as there are two runs in order.
        kept.sort_by_key(|units| units.start);
        // Takes exactly what is kept and gives back exactly what lies between: no unit is free for a moment that is not
        // free afterwards.
        let mut gap = units.start;
        let mut pace = Pace::default();
        for units in kept {
            // There may be more than the quota allows, from the start: then nothing is free.
            space.charge_anyway(&mut space.free.local(), &units)?;
            space.discharge_in_turns(gap..units.start.max(gap)).await;
            gap = gap.max(units.end);
            pace.ask(steps_for(&units)).await;
        }
        space.discharge_in_turns(gap..units.end.max(gap)).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
