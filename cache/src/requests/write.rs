//! Cached writes: private buffers in, published pages out.
//!
//! A payload is received into private frames, at the place that it will have in its pages. Meanwhile its request holds
//! nothing but memory. Then, under an add guard, each page is installed. For a whole page, the payload's own frame is
//! swapped in. For a part, the payload's frame is completed with the old page's other bytes and then swapped in. A
//! published frame is never written. So a request that is sending or writing back the old frame is not disturbed, and
//! neither disk nor client sees a torn page.
//!
//! **Atomicity.** The unit is the page. When two overlapping writes are in flight together, each page ends with the
//! data of one of them, or of both where they touch disjoint parts of it: the merge is done under the page's lock with
//! the page as it is then. A reader sees each page before or after a write, and may see some pages of a larger write
//! before and others after. The same holds for a reader that waits for a page when a write takes it over: the reader
//! gets the page of the write (see [`fill`](crate::requests::fill)).
//!
//! **Edges.** A page that is absent and written in part is filled first, under the same add guard as the merge. So no
//! trim or zero can come between: it would have to wait for the guard. The filled page can't be evicted in between,
//! because the fill that the writer holds refers to its frame. If another write has replaced the page and that version
//! was evicted, the slot is empty and the writer fills again.

use std::ops::Range;
use std::sync::Arc;

use crossbeam_epoch as epoch;
use weir_faults::{Errno, FaultContext, fault_point, pause_point, race_fault};

use crate::add_lock::AddGuard;
use crate::frame::{FrameBuf, PAGE_BYTES, PAGE_SIZE, PrivateFrame};
use crate::options::CacheMode;
use crate::page_cache::{PageCache, bytes_of, page_of, pages_of};
use crate::pages::{FILLING, PRESENT};
use crate::requests::fill::{Fill, FillPurpose, PlannedFills};
use crate::requests::payload::{Payload, within};
use crate::transfer::carry;

/// Why a page could not be installed yet.
enum Obstacle {
    /// A partial page is absent: it must be filled first.
    Absent,
    /// A fill reads it at this moment.
    Filling(Arc<Fill>),
    /// It was filled, replaced and evicted meanwhile; filling it again takes memory that was not reserved.
    NoSpare,
    Failed(Errno),
}

impl PageCache {
    /// Writes a small amount of data straight from the session's buffer, if it has to wait for nothing: the mode is
    /// writeback, little is dirty, no blocker has these pages, and the pages written in part are present. After `false`
    /// the caller takes the slow path with all of it.
    #[inline]
    pub fn try_write(&self, context: &FaultContext, offset: u64, data: &[u8]) -> bool {
        let range = offset..offset + data.len() as u64;
        if self.mode != CacheMode::Writeback || self.unclean_pages() >= self.limits.dirty_slow {
            return false;
        }
        let pages = pages_of(&range);
        #[cfg(test)]
        crate::testing::interleave::at("write:unguarded");
        let Some(guard) = self.add_lock.try_add_briefly(bytes_of(&pages)) else {
            return false;
        };
        if range.end > self.size()
            || !self.has_space(&range)
            || fault_point!(context, "cache:write:inline", [EIO]).is_err()
        {
            return false;
        }
        let mut left = data;
        for page in pages {
            let start = if page == page_of(offset) {
                within(offset)
            } else {
                0
            };
            let (part, rest) = left.split_at(left.len().min(PAGE_SIZE - start));
            left = rest;
            if !self.try_write_page(context, &guard, page, start, part) {
                // Pages before this one have the new data already: the slow path writes the same again.
                return false;
            }
        }
        drop(guard);
        self.note_dirty();
        true
    }

    #[inline]
    fn try_write_page(
        &self,
        context: &FaultContext,
        guard: &AddGuard,
        page: u64,
        start: usize,
        part: &[u8],
    ) -> bool {
        let Some(mut frame) = self.try_frame() else {
            return false;
        };
        let end = start + part.len();
        let tail = page * PAGE_BYTES + end as u64 == self.size();
        let bytes = frame.bytes_mut();
        bytes[start..end].copy_from_slice(part);
        if tail {
            bytes[end..].fill(0);
        }
        let valid = start..if tail { PAGE_SIZE } else { end };
        self.install(context, guard, page, frame, &valid).is_ok()
    }

    /// Installs a received slice without waiting, if that is possible; gives it back otherwise.
    ///
    /// # Errors
    /// The payload itself, when something has to be waited for: pass it to [`PageCache::write`].
    pub fn try_install(&self, context: &FaultContext, mut payload: Payload) -> Result<(), Payload> {
        assert_eq!(payload.remaining(), 0, "installed before it was received");
        if self.mode != CacheMode::Writeback || self.unclean_pages() >= self.limits.dirty_slow {
            return Err(payload);
        }
        #[cfg(test)]
        crate::testing::interleave::at("write:unguarded");
        let pages = pages_of(&payload.range());
        let Some(guard) = self.add_lock.try_add_briefly(bytes_of(&pages)) else {
            return Err(payload);
        };
        payload.forget_old_end(self.size());
        if payload.range().end > self.size()
            || !self.has_space(&payload.range())
            || self.install_payload(context, &guard, &mut payload).is_err()
        {
            return Err(payload);
        }
        drop(guard);
        self.note_dirty();
        Ok(())
    }

    /// Writes a received slice into the cache, and in writethrough mode to the store.
    ///
    /// Throttles first when too much is dirty. Cancel safe: a write that is dropped before it is done has written some
    /// of its pages or none.
    ///
    /// # Errors
    /// What the backend said to filling a partial page; `ENOSPC` when the quota is used up or when the device has
    /// become smaller than the range; the writeback's error when it makes no progress; `ENOMEM`.
    pub async fn write(
        self: &Arc<Self>,
        context: &FaultContext,
        mut payload: Payload,
    ) -> Result<(), Errno> {
        assert_eq!(payload.remaining(), 0, "written before it was received");
        let range = payload.range();
        self.throttle().await?;
        pause_point!(context, "cache:write:begin", [EIO, ENOSPC, ENOMEM]).await?;
        let mut charge = None;
        let watch = (self.mode == CacheMode::Writethrough)
            .then(|| self.writeback.failures.watch(pages_of(&range), u64::MAX));
        if race_fault!(context) {
            // As if another round had used the spare frames up.
            payload.spare = FrameBuf::new(Arc::clone(&self.pool));
        }
        let retry = context.retry();
        let mut context = context;
        let mut powered = None;
        loop {
            let guard = self.add_lock.add(bytes_of(&pages_of(&range))).await;
            if range.end > self.size() {
                return Err(Errno::ENOSPC);
            }
            // After the first round a part may be installed, and a power cut between two rounds would have lost it.
            self.still_powered(*powered.get_or_insert_with(|| self.powered()))?;
            payload.forget_old_end(self.size());
            // In every round: between two of them a trim may have given the space back.
            self.charge_space(&guard, &range, &mut charge)?;
            let guard = Arc::new(guard);
            // The filled pages stay referenced, and so in the cache, until they are merged.
            let filled = self.fill_edges(context, &guard, &mut payload).await;
            let obstacle = match &filled {
                Ok(_) => self.install_payload(context, &guard, &mut payload).err(),
                Err(_) => None,
            };
            drop(guard);
            // No guard is held during a wait for another request's fill or for memory.
            match filled.err().or(obstacle) {
                None => break,
                Some(Obstacle::Failed(errno)) => return Err(errno),
                Some(Obstacle::Absent) => {}
                // If the fill fails, it was another request's: the next round reads the page itself.
                Some(Obstacle::Filling(fill)) => _ = fill.wait().await,
                Some(Obstacle::NoSpare) => {
                    payload.spare = self.reserve(payload.edges().count()).await
                }
            }
            context = &retry;
        }
        if let Some(charge) = charge {
            charge.keep();
        }
        self.note_dirty();
        #[cfg(test)]
        crate::testing::interleave::at("write:installed");
        if let Some(watch) = watch {
            self.persist(context, range).await?;
            // What the cache holds is durable now. A change that has replaced a page of this write may be lost.
            if watch.replaced_lost() {
                return Err(Errno::EIO);
            }
            // The same goes for pages that a power cut has found dirty, before they were persisted.
            powered.map_or(Ok(()), |powered| self.still_powered(powered))?;
        }
        Ok(())
    }

    /// Makes the partial pages of the payload present: reads those that are absent, under the caller's guard. On
    /// success the filled pages stay referenced until they are merged.
    async fn fill_edges(
        self: &Arc<Self>,
        context: &FaultContext,
        guard: &Arc<AddGuard>,
        payload: &mut Payload,
    ) -> Result<Vec<Arc<Fill>>, Obstacle> {
        let mut planned = PlannedFills::new();
        let mut obstacle = None;
        for i in payload.edges() {
            let page = page_of(payload.offset()) + i as u64;
            let pin = epoch::pin();
            let mut slot = match self.table.lock_or_create(page, &pin) {
                Ok(slot) => slot,
                Err(errno) => {
                    obstacle = Some(Obstacle::Failed(errno));
                    break;
                }
            };
            if slot.state().has(PRESENT) {
                continue;
            }
            if slot.state().has(FILLING) {
                if !planned.is_empty() {
                    continue; // Our own run for the head; or another's for the tail, found when it is installed.
                }
                let fill = self
                    .fills
                    .find(slot.fill_id())
                    .expect("a filling slot names a running fill");
                return Err(Obstacle::Filling(fill));
            }
            if !self.plan_page(page, &mut slot, &mut payload.spare, &mut planned) {
                obstacle = Some(Obstacle::NoSpare);
                break;
            }
        }
        // What is planned must be read whatever stands in the way: its slots are `FILLING`.
        let fills: Vec<_> = planned.iter().map(|run| Arc::clone(&run.fill)).collect();
        let works = planned
            .into_iter()
            .map(|run| self.start_fill(context, Arc::clone(guard), run, FillPurpose::Demand));
        carry(works.collect()).await;
        if let Some(obstacle) = obstacle {
            return Err(obstacle);
        }
        for fill in &fills {
            fill.wait().await.map_err(Obstacle::Failed)?;
        }
        pause_point!(context, "cache:write:merge", [EIO])
            .await
            .map_err(Obstacle::Failed)?;
        Ok(fills)
    }

    /// Installs every page, partial pages first: these may be absent, while a whole page can't fail for that reason.
    fn install_payload(
        &self,
        context: &FaultContext,
        guard: &AddGuard,
        payload: &mut Payload,
    ) -> Result<(), Obstacle> {
        let first = page_of(payload.offset());
        let pages = payload.frames.len();
        for i in payload.edges().chain(0..pages) {
            // Gone if it was installed before.
            let Some(frame) = payload.frames.take_at(i, &self.pool) else {
                continue;
            };
            let installed =
                self.install(context, guard, first + i as u64, frame, &payload.valid(i));
            if let Err((obstacle, frame)) = installed {
                payload.frames.put_back(i, frame);
                return Err(obstacle);
            }
        }
        Ok(())
    }

    /// Publishes `frame` as `page`, completed with the old page where `valid` is only a part. Gives the frame back when
    /// there is an obstacle.
    #[inline]
    fn install<'p>(
        &self,
        context: &FaultContext,
        guard: &AddGuard,
        page: u64,
        mut frame: PrivateFrame<'p>,
        valid: &Range<usize>,
    ) -> Result<(), (Obstacle, PrivateFrame<'p>)> {
        guard.assert_covers(bytes_of(&(page..page + 1)));
        if let Err(errno) = fault_point!(context, "cache:insert", [ENOMEM, EIO]) {
            return Err((Obstacle::Failed(errno), frame));
        }
        let pin = epoch::pin();
        let slot = match self.table.lock_or_create(page, &pin) {
            Ok(slot) => slot,
            Err(errno) => return Err((Obstacle::Failed(errno), frame)),
        };
        if *valid != (0..PAGE_SIZE) {
            if slot.state().has(FILLING) {
                let fill = self
                    .fills
                    .find(slot.fill_id())
                    .expect("a filling slot names a running fill");
                return Err((Obstacle::Filling(fill), frame));
            }
            if !slot.state().has(PRESENT) || race_fault!(context) {
                return Err((Obstacle::Absent, frame));
            }
            frame.complete_from(&slot, valid);
        }
        slot.publish(frame, self.generations.epoch(), |fill, frame| {
            self.take_over(fill, page, frame);
        });
        Ok(())
    }
}
