//! Reads: hits without a lock, misses through fills.
//!
//! A hit takes one reference per page (see [`frame`](crate::frame)) and nothing else. A miss reserves frames while it
//! holds nothing. It then takes an add guard, makes the absent pages `FILLING` and starts one fill per run of
//! neighbours; the fills own the guard and the frames. It drops its own handle of the guard, carries its fills to their
//! end, and then waits for the fills of others. A reader that waits for another's fill has finished its own fills, so
//! two readers of overlapping ranges can't wait for each other.

use std::ops::Range;
use std::sync::Arc;

use crossbeam_epoch as epoch;
use smallvec::SmallVec;
use weir_faults::{Errno, FaultContext, race_fault};

use crate::add_lock::AddGuard;
use crate::frame::{FrameBuf, FrameId, FrameRefs, PAGE_BYTES, TakenRef};
use crate::options::SLICE_BYTES;
use crate::pace::Pace;
use crate::page_cache::{PageCache, bytes_of, page_of, pages_of};
use crate::pages::{FILLING, PRESENT};
use crate::pressure::memory::MemoryLine;
use crate::requests::fill::{Fill, FillPurpose, PlannedFills};
use crate::transfer::carry;

/// How often a read tries again because a fill that it joined has failed.
const JOINED_RETRIES: u32 = 2;

/// Where one page of a read comes from.
enum Origin {
    /// A reference that is held already.
    Present(FrameId, TakenRef),
    /// A fill of this read.
    Fill(Arc<Fill>),
    /// A fill of another request, which was under way already.
    Joined(Arc<Fill>),
    /// Handed out.
    Taken,
}

/// One page of a read: which of its bytes are wanted.
struct Wanted {
    page: u64,
    start: usize,
    length: usize,
}

impl PageCache {
    /// Appends `offset..offset + length` to `out` if all of it is cached; otherwise changes nothing and says `false`.
    ///
    /// Takes no lock, waits for nothing, allocates nothing beyond the queue of `out`.
    #[inline]
    pub fn try_read(self: &Arc<Self>, offset: u64, length: usize, out: &mut FrameRefs) -> bool {
        let pieces = out.len();
        let pin = epoch::pin();
        let mut stream = None;
        for wanted in wanted(offset, length) {
            let Some((frame, taken)) = self.table.take_present(wanted.page, &pin) else {
                out.truncate(pieces);
                // This read has used the marker up: the next reader of the page doesn't see it.
                if let Some(page) = stream {
                    self.continue_readahead(page);
                }
                return false;
            };
            if taken.first_use {
                self.counters.readahead_used.add(1);
                stream = taken.marker.then_some(wanted.page).or(stream);
            }
            out.push(frame, wanted.start, wanted.length, taken.zero);
        }
        drop(pin);
        self.counters.hits.add((out.len() - pieces) as u64);
        if let Some(page) = stream {
            self.continue_readahead(page);
        }
        true
    }

    /// Reads `offset..offset + length`, at most [`SLICE_BYTES`] within one region (see [`PageCache::slice_at`]).
    ///
    /// Cancel safe: fills that were started run on and install what they read.
    ///
    /// # Errors
    /// What the backend said; `EINVAL` when the device has become smaller than the range.
    pub async fn read(
        self: &Arc<Self>,
        context: &FaultContext,
        offset: u64,
        length: usize,
    ) -> Result<FrameRefs, Errno> {
        self.read_in(None, context, offset, length).await
    }

    /// As [`PageCache::read`], for a client whose requests wait for memory in `line`.
    ///
    /// # Errors
    /// As [`PageCache::read`].
    pub async fn read_in(
        self: &Arc<Self>,
        line: Option<&MemoryLine>,
        context: &FaultContext,
        offset: u64,
        length: usize,
    ) -> Result<FrameRefs, Errno> {
        assert!(
            length > 0 && length <= SLICE_BYTES,
            "a read of {length} bytes"
        );
        let range = offset..offset + length as u64;
        let pages = pages_of(&range);
        self.observe_read(context, &range);
        let mut frames = self.missing_pages(&pages);
        if race_fault!(context) {
            // As if every missing page had been present, and was evicted before the guard was taken.
            frames = 0;
        }
        let mut joined_left = JOINED_RETRIES;
        loop {
            let reserved = self.reserve_in(line, frames).await;
            Pace::default().ask(pages.clone().count()).await;
            let guard = Arc::new(self.add_lock.add(bytes_of(&pages)).await);
            if range.end > self.size() {
                return Err(Errno::EINVAL);
            }
            let powered = self.powered();
            let (sources, planned, complete) = self.plan_read(&guard, offset, length, reserved)?;
            self.counters
                .misses
                .add(planned.iter().map(|run| run.frames.len() as u64).sum());
            let fills = planned
                .into_iter()
                .map(|run| self.start_fill(context, Arc::clone(&guard), run, FillPurpose::Demand));
            let fills = fills.collect();
            drop(guard);
            // Pages may have been evicted between the count and the guard. Then all references are given back before
            // more memory is asked for. The next attempt has a frame for every page, so it can't fall short.
            let sources = complete.then_some(sources);
            carry(fills).await;
            if let Some(sources) = sources {
                match self.collect(sources, offset, length).await {
                    Ok(pages) if self.still_powered(powered).is_ok() => return Ok(pages),
                    // A power cut may have lost meanwhile what was read.
                    Ok(_) => {}
                    // The fill that failed was another's, perhaps only readahead: this reader tries for itself.
                    Err(failure) if failure.joined && joined_left > 0 => joined_left -= 1,
                    Err(failure) => return Err(failure.errno),
                }
                continue;
            }
            frames = usize::try_from(pages.end - pages.start).expect("at most a slice");
        }
    }

    /// How many of `pages` would need a frame now: a hint.
    pub(crate) fn missing_pages(&self, pages: &Range<u64>) -> usize {
        let pin = epoch::pin();
        let missing = |page: &u64| {
            !self
                .table
                .state(*page, &pin)
                .is_some_and(|state| state.has(PRESENT | FILLING))
        };
        pages.clone().filter(missing).count()
    }

    /// Looks up every page under the guard; absent pages become `FILLING`. The last part of the result is `false` if a
    /// frame or a slot was missing: then the rest was not looked up.
    fn plan_read(
        &self,
        guard: &AddGuard,
        offset: u64,
        length: usize,
        mut frames: FrameBuf,
    ) -> Result<(Sources, PlannedFills, bool), Errno> {
        guard.assert_covers(offset..offset + length as u64);
        let mut sources = Sources {
            pool: Arc::clone(&self.pool),
            list: SmallVec::with_capacity(pages_of(&(offset..offset + length as u64)).count()),
        };
        let mut planned = PlannedFills::new();
        for wanted in wanted(offset, length) {
            let pin = epoch::pin();
            let mut slot = match self.table.lock_or_create(wanted.page, &pin) {
                Err(errno) if planned.is_empty() => return Err(errno),
                // What is planned must still be read: its slots are FILLING.
                Err(_) => return Ok((sources, planned, false)),
                Ok(slot) => slot,
            };
            if slot.state().has(PRESENT) {
                let frame = slot.state().frame();
                sources
                    .list
                    .push(Origin::Present(frame, self.pool.add_ref(frame)));
            } else if slot.state().has(FILLING) {
                // A fill is registered before a slot names it, and removed after the slot has stopped naming it. This
                // slot is locked.
                let fill = self
                    .fills
                    .find(slot.fill_id())
                    .expect("a filling slot names a running fill");
                sources.list.push(Origin::Joined(fill));
            } else {
                assert!(
                    slot.state().is_empty(),
                    "an add guard excludes held pages: {:?}",
                    slot.state()
                );
                if !self.plan_page(wanted.page, &mut slot, &mut frames, &mut planned) {
                    return Ok((sources, planned, false));
                }
                let fill = &planned.last().expect("just planned").fill;
                sources.list.push(Origin::Fill(Arc::clone(fill)));
            }
        }
        Ok((sources, planned, true))
    }

    /// Waits for the fills and puts the pieces together.
    async fn collect(
        &self,
        mut sources: Sources,
        offset: u64,
        length: usize,
    ) -> Result<FrameRefs, Failure> {
        let mut out = FrameRefs::new(Arc::clone(&self.pool));
        for (i, wanted) in wanted(offset, length).enumerate() {
            let source = sources.take(i);
            match source {
                Origin::Present(frame, taken) => {
                    out.push(frame, wanted.start, wanted.length, taken.zero)
                }
                Origin::Fill(ref fill) | Origin::Joined(ref fill) => {
                    let pages = fill.wait().await.map_err(|errno| Failure {
                        errno,
                        joined: matches!(source, Origin::Joined(_)),
                    })?;
                    out.push_from(
                        pages,
                        fill.position(wanted.page),
                        wanted.start,
                        wanted.length,
                    );
                }
                Origin::Taken => unreachable!("each page is taken once"),
            }
        }
        Ok(out)
    }
}

/// Why a read could not be put together.
struct Failure {
    errno: Errno,
    /// The fill that failed was another request's.
    joined: bool,
}

/// The pages of a read in order, with the references that it holds already.
struct Sources {
    pool: Arc<crate::frame::FramePool>,
    list: SmallVec<[Origin; 1]>,
}

impl Sources {
    /// Hands source `i` out; what was handed out is not given back in `drop`.
    fn take(&mut self, i: usize) -> Origin {
        match &mut self.list[i] {
            Origin::Fill(fill) => Origin::Fill(Arc::clone(fill)),
            Origin::Joined(fill) => Origin::Joined(Arc::clone(fill)),
            Origin::Present(frame, taken) => {
                let taken = (*frame, *taken);
                self.list[i] = Origin::Taken;
                Origin::Present(taken.0, taken.1)
            }
            Origin::Taken => unreachable!("each page is taken once"),
        }
    }
}

impl Drop for Sources {
    fn drop(&mut self) {
        for source in &self.list {
            if let Origin::Present(frame, _) = source {
                self.pool.unref(*frame);
            }
        }
    }
}

/// Cuts `offset..offset + length` into pieces of pages.
#[inline]
fn wanted(offset: u64, length: usize) -> impl Iterator<Item = Wanted> {
    let end = offset + length as u64;
    let mut at = offset;
    std::iter::from_fn(move || {
        (at < end).then(|| {
            let page = page_of(at);
            #[expect(clippy::cast_possible_truncation, reason = "both less than a page")]
            let (start, length) = (
                (at % PAGE_BYTES) as usize,
                (end - at).min(PAGE_BYTES - at % PAGE_BYTES) as usize,
            );
            at += length as u64;
            Wanted {
                page,
                start,
                length,
            }
        })
    })
}
