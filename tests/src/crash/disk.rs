//! What the disk was given: every version of every cell since the last sync, in order, and every sync.
//!
//! A decorator right above [`PowerCutBackend`], and a second opinion on it. It relies on one property: a mutation takes
//! effect at the moment when its call returns, because the power-cut backend records it and awaits nothing more.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use weir::backend::power_cut::PowerCutBackend;
use weir_cache::{
    Backend, BackendFuture, Errno, Filter, FrameBuf, FramePool, FrameRefs, PAGE_BYTES, ZeroMode,
};
use weir_faults::{Keep, PowerCutOptions};

use super::content::{CELL, GARBAGE, Version, ZERO, cells, content, versions};

/// The number of a mutation, in the order in which they took effect.
type Number = u64;

/// What a sync submitted now is about: everything recorded since the last one that succeeded.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    cuts: u64,
    powered: bool,
    synced: Number,
    newest: Number,
}

/// The recorder.
#[derive(Debug)]
pub struct RecordedDisk {
    next: Arc<PowerCutBackend>,
    state: Mutex<State>,
    /// For what it writes itself.
    pool: Arc<FramePool>,
}

#[derive(Debug)]
struct State {
    newest: Number,
    /// The last mutation that the last successful sync was about.
    synced: Number,
    /// How often the power was cut.
    cuts: u64,
    /// Per cell: mutations up to this one are covered by a promise that was kept.
    covered: Vec<Number>,
    /// Mutations up to these are covered by a promise that failed or has not returned: it may count, for any of its
    /// cells.
    perhaps: Vec<(Range<usize>, Number)>,
    /// What was left by the last cut.
    base: Vec<Version>,
    /// The versions since then, oldest first.
    cells: Vec<Vec<(Number, Version)>>,
}

impl State {
    fn record(&mut self, versions: impl Iterator<Item = (usize, Version)>) {
        self.newest += 1;
        for (cell, version) in versions {
            self.cells[cell].push((self.newest, version));
        }
    }

    fn cover(&mut self, cells: &Range<usize>, through: Number) {
        for covered in &mut self.covered[cells.clone()] {
            *covered = through.max(*covered);
        }
    }

    /// The mutations up to which a cell may be covered.
    fn covers(&self, cell: usize) -> impl Iterator<Item = Number> {
        let covered = self.covered[cell];
        let perhaps = self
            .perhaps
            .iter()
            .filter(move |(cells, _)| cells.contains(&cell));
        std::iter::once(covered).chain(perhaps.map(move |(_, number)| covered.max(*number)))
    }

    /// A cell's newest version up to `number`.
    fn at(&self, cell: usize, number: Number) -> Version {
        if self.cells[cell].is_empty() {
            return self.base[cell];
        }
        let known = self.cells[cell].partition_point(|(of, _)| *of <= number);
        known
            .checked_sub(1)
            .map_or(self.base[cell], |index| self.cells[cell][index].1)
    }
}

impl RecordedDisk {
    /// Records what happens to `next`, which begins with `cells` cells, all zero.
    #[must_use]
    pub fn new(next: Arc<PowerCutBackend>, cells: usize) -> Self {
        Self {
            next,
            pool: FramePool::new(1).expect("address space"),
            state: Mutex::new(State {
                newest: 0,
                synced: 0,
                cuts: 0,
                covered: vec![0; cells],
                perhaps: Vec::new(),
                base: vec![ZERO; cells],
                cells: vec![Vec::new(); cells],
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    /// The page cache hands over what it had at the moment of the cut.
    pub fn record_newest(&self, newest: &[(u64, FrameRefs)]) {
        for (offset, data) in newest {
            self.record_data(*offset, data);
        }
    }

    fn record_data(&self, offset: u64, data: &FrameRefs) {
        let mut bytes = vec![0; data.bytes()];
        data.copy_to(&mut bytes);
        self.state().record(versions(offset, &bytes));
    }

    fn record_zeroes(&self, range: &Range<u64>) {
        self.state().record(cells(range).map(|cell| (cell, ZERO)));
    }

    /// Checks that `left` is what a cut with those options may leave.
    ///
    /// # Errors
    /// If not, says which unit of survival is wrong.
    pub fn check_cut(&self, options: PowerCutOptions, left: &[Version]) -> Result<(), String> {
        let state = self.state();
        match options.keep {
            Keep::None => state.check_image(left, |cell| state.covers(cell).collect()),
            Keep::All => state.check_image(left, |_| vec![state.newest]),
            Keep::Random => {
                let unit = usize::try_from(options.tear / CELL).expect("a small unit");
                (0..left.len()).step_by(unit).try_for_each(|start| {
                    state.check_unit(left, start..(start + unit).min(left.len()))
                })
            }
        }
    }

    /// What the disk holds durably.
    #[must_use]
    pub fn durable(&self) -> Vec<Version> {
        let state = self.state();
        let cells = state.covered.iter().enumerate();
        cells
            .map(|(cell, covered)| state.at(cell, *covered))
            .collect()
    }

    /// This is what is left, durably.
    pub fn restart(&self, left: &[Version]) {
        let mut state = self.state();
        let newest = state.newest;
        state.covered.fill(newest);
        state.base.copy_from_slice(left);
        state.cells.iter_mut().for_each(Vec::clear);
        state.perhaps.clear();
    }

    /// What a sync that is submitted now is about.
    pub fn mark(&self) -> Mark {
        let state = self.state();
        Mark {
            cuts: state.cuts,
            powered: self.next.incarnation().is_ok(),
            synced: state.synced,
            newest: state.newest,
        }
    }

    /// Whether the power was on and was not cut since.
    pub fn is_current(&self, mark: Mark) -> bool {
        mark.powered && self.state().cuts == mark.cuts
    }

    /// The power fails: syncs that are under way have no effect, and nothing is forgotten any more.
    pub fn power_fails(&self) {
        self.state().cuts += 1;
    }

    /// That sync has succeeded.
    pub fn synced(&self, mark: Mark) {
        self.state().synced = mark.newest;
    }

    /// The pages that such a sync is about.
    #[must_use]
    pub fn unsynced_pages(&self, mark: Mark) -> Vec<u64> {
        let state = self.state();
        let pages = 0..(state.cells.len() as u64 * CELL).div_ceil(PAGE_BYTES);
        pages
            .filter(|page| state.newest_of(*page) > mark.synced)
            .collect()
    }

    /// After that sync has failed: `page` goes back to its former state, unless it was changed since.
    pub async fn forget(&self, mark: Mark, page: u64) {
        let Some((offset, bytes)) = self
            .state()
            .forgotten(mark, page, self.next().geometry().size)
        else {
            return;
        };
        let mut buffer = FrameBuf::new(Arc::clone(&self.pool));
        assert!(buffer.grow_to(1), "nobody else uses the pool");
        buffer.page_mut(0)[..bytes.len()].copy_from_slice(&bytes);
        let data = buffer.freeze(bytes.len());
        let written = Filter::write(self, offset, data);
        written.await.expect("the power is on");
    }

    /// Makes a promise about `range`, or makes a call that includes one.
    async fn covering(
        &self,
        range: Range<u64>,
        call: BackendFuture<'_, Result<(), Errno>>,
    ) -> Result<(), Errno> {
        let (cells, through) = {
            let mut state = self.state();
            let all = state.covered.len();
            let cell =
                |offset: u64| usize::try_from(offset / CELL).map_or(all, |cell| cell.min(all));
            let cells = cell(range.start)..cell(range.end);
            let newest = state.newest;
            state.perhaps.push((cells.clone(), newest));
            (cells, newest)
        };
        call.await?;
        let mut state = self.state();
        state.cover(&cells, through);
        let kept = state
            .perhaps
            .iter()
            .position(|promise| *promise == (cells.clone(), through));
        if let Some(kept) = kept {
            state.perhaps.swap_remove(kept);
        }
        Ok(())
    }
}

impl State {
    /// The newest mutation of a page.
    fn newest_of(&self, page: u64) -> Number {
        let cells = self.cells_of(page);
        let newest = self.cells[cells].iter().filter_map(|cell| cell.last());
        newest.map(|(number, _)| *number).max().unwrap_or(0)
    }

    fn cells_of(&self, page: u64) -> Range<usize> {
        let end = (self.cells.len() as u64 * CELL).min((page + 1) * PAGE_BYTES);
        cells(&(page * PAGE_BYTES..end))
    }

    /// What a forgotten page goes back to, if it is forgotten.
    fn forgotten(&self, mark: Mark, page: u64, size: u64) -> Option<(u64, Vec<u8>)> {
        let newest = self.newest_of(page);
        if mark.cuts != self.cuts || newest <= mark.synced || newest > mark.newest {
            return None;
        }
        let mut bytes = Vec::new();
        for cell in self.cells_of(page) {
            let range = cell as u64 * CELL..(cell as u64 + 1) * CELL;
            if range.end > size {
                break;
            }
            let version = self.at(cell, mark.synced);
            assert_ne!(version, GARBAGE, "nobody wrote that");
            bytes.extend(content(&range, version));
        }
        (!bytes.is_empty()).then_some((page * PAGE_BYTES, bytes))
    }

    /// Each cell has the state after one of the mutations that `allowed` names for it.
    fn check_image(
        &self,
        left: &[Version],
        allowed: impl Fn(usize) -> Vec<Number>,
    ) -> Result<(), String> {
        for (cell, version) in left.iter().enumerate() {
            let numbers = allowed(cell);
            if !numbers
                .iter()
                .any(|number| *version == self.at(cell, *number))
            {
                let known = &self.cells[cell];
                return Err(format!(
                    "cell {cell} holds version {version}, as of none of the disk's mutations {numbers:?}; it was given (mutation, version): {known:?}"
                ));
            }
        }
        Ok(())
    }

    /// All cells of a unit have their states of one moment, or of the later moment up to which they are covered.
    fn check_unit(&self, left: &[Version], unit: Range<usize>) -> Result<(), String> {
        let later = self.cells[unit.clone()]
            .iter()
            .flatten()
            .map(|(number, _)| *number);
        let mut cutoffs = std::iter::once(0).chain(later);
        let fits = |cutoff: Number| {
            unit.clone().all(|cell| {
                self.covers(cell)
                    .any(|covered| left[cell] == self.at(cell, covered.max(cutoff)))
            })
        };
        if cutoffs.any(fits) {
            return Ok(());
        }
        Err(format!(
            "cells {unit:?} are {:?}, which they never were at one moment from {:?} on; they were given (mutation, version): {:?}",
            &left[unit.clone()],
            &self.covered[unit.clone()],
            &self.cells[unit.clone()]
        ))
    }
}

impl Filter for RecordedDisk {
    fn next(&self) -> &dyn Backend {
        &*self.next
    }

    fn write(&self, offset: u64, data: FrameRefs) -> BackendFuture<'_, Result<(), Errno>> {
        Box::pin(async move {
            let mut bytes = vec![0; data.bytes()];
            data.copy_to(&mut bytes);
            self.next().write(offset, data).await?;
            self.state().record(versions(offset, &bytes));
            Ok(())
        })
    }

    fn write_zeroes(
        &self,
        range: Range<u64>,
        mode: ZeroMode,
    ) -> BackendFuture<'_, Result<(), Errno>> {
        Box::pin(async move {
            self.next().write_zeroes(range.clone(), mode).await?;
            self.record_zeroes(&range);
            Ok(())
        })
    }

    fn discard(&self, range: Range<u64>) -> BackendFuture<'_, Result<(), Errno>> {
        Box::pin(async move {
            self.next().discard(range.clone()).await?;
            self.record_zeroes(&range);
            Ok(())
        })
    }

    fn cover(&self, range: Range<u64>) -> BackendFuture<'_, Result<(), Errno>> {
        let call = self.next().cover(range.clone());
        Box::pin(self.covering(range, call))
    }

    fn resize(&self, size: u64) -> BackendFuture<'_, Result<(), Errno>> {
        Box::pin(async move {
            self.covering(0..u64::MAX, self.next().resize(size)).await?;
            // Data past the end is gone at once, and shows zeroes when it comes back.
            let past = usize::try_from(size / CELL).expect("a small device");
            let mut state = self.state();
            state.cells[past..].iter_mut().for_each(Vec::clear);
            state.base[past..].fill(ZERO);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_cache::spy::{SPY_BYTES, assert_everything_arrives};
    use weir_faults::FaultContext;

    #[tokio::test]
    async fn everything_arrives() {
        assert_everything_arrives(|below| {
            let power = PowerCutBackend::new(below, FaultContext::disarmed());
            let cells = usize::try_from(SPY_BYTES / CELL).expect("a small device");
            RecordedDisk::new(Arc::new(power.expect("address space")), cells)
        })
        .await;
    }
}
