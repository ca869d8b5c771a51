//! Cached writes: private buffers in, published pages out.
//!
//! A payload is received into private frames at the place that it will have in its pages, holding nothing but memory. Then,
//! under an add guard, each page is installed: a whole page by swapping the payload's own frame in, a part by completing the
//! payload's frame with the old page's other bytes and swapping that in. A published frame is never written, so whoever is
//! sending or writing back the old one is not disturbed, and neither disk nor client sees a torn page.
//!
//! **Atomicity.** The unit is the page. Of two overlapping writes in flight together each page ends with one of them, or with
//! both where they touch disjoint parts of it: the merge is done under the page's lock with the page as it is then. A reader
//! sees each page before or after a write, and may see some pages of a larger write before and others after.
//!
//! **Edges.** A page that is written in part and absent is filled first, under the same add guard as the merge, so no trim or
//! zero can come between (it would have to wait for the guard). The filled page can't be evicted in between, since the fill
//! that the writer holds refers to its frame; if it was replaced by another write and that one was evicted, the slot is empty
//! and the writer fills again.

use std::io::IoSliceMut;
use std::ops::Range;
use std::sync::Arc;

use crossbeam_epoch as epoch;
use tokio::sync::OwnedSemaphorePermit;
use weir_faults::{Errno, FaultContext, fault_point, pause_point, race_fault};

use crate::add_lock::AddGuard;
use crate::fill::{Fill, FillPurpose};
use crate::frame::{FrameBuf, FrameId, FrameRefs, PAGE_BYTES, PAGE_SIZE, PrivateFrame};
use crate::options::{CacheMode, SLICE_BYTES};
use crate::page::{DIRTY, FILLING, IN_FLIGHT, PRESENT, PageState};
use crate::page_cache::{PageCache, PageGuard, bytes_of, page_of, pages_of};

/// One slice of a write's data on its way into the cache, in private frames.
#[derive(Debug)]
pub struct Payload {
    offset: u64,
    length: usize,
    received: usize,
    /// One frame per page that the slice touches; the data lies where it will lie in the page.
    frames: FrameBuf,
    /// For filling partial edges that are absent.
    spare: FrameBuf,
    /// The end of the device if the slice reaches it inside its last page: the rest of that page is zero, always.
    zero_tail: bool,
    /// Its share of the payload budget; the edges of a direct write go without.
    #[allow(dead_code)] // held, not read
    budget: Option<OwnedSemaphorePermit>,
}

impl Payload {
    /// Where it goes, in bytes of the device.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Never: a payload has at least one byte.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// How many bytes are still to be received.
    pub fn remaining(&self) -> usize {
        self.length - self.received
    }

    /// What is still to be received, in order, in at most `most` slices. Follow up with [`Payload::advance`].
    pub fn io_slices_mut(&mut self, most: usize) -> Vec<IoSliceMut<'_>> {
        let lead = self.lead();
        self.frames
            .io_slices_mut(lead + self.received, lead + self.length, most)
    }

    /// Says that the next `count` bytes have been received.
    pub fn advance(&mut self, count: usize) {
        assert!(
            count <= self.remaining(),
            "{count} bytes of {}",
            self.remaining()
        );
        self.received += count;
    }

    /// Receives as much of `data` as is still wanted; says how much.
    pub fn copy_from(&mut self, data: &[u8]) -> usize {
        let count = data.len().min(self.remaining());
        let mut left = &data[..count];
        for slice in &mut self.io_slices_mut(usize::MAX) {
            let part = slice.len().min(left.len());
            slice[..part].copy_from_slice(&left[..part]);
            left = &left[part..];
            if left.is_empty() {
                break;
            }
        }
        self.advance(count);
        count
    }

    /// Fills what is still wanted with zeroes.
    pub(crate) fn fill_zeroes(&mut self) {
        for slice in &mut self.io_slices_mut(usize::MAX) {
            slice.fill(0);
        }
        self.received = self.length;
    }

    /// The bytes of the device that it covers.
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.length as u64
    }

    /// Bytes of the first page before the data.
    fn lead(&self) -> usize {
        within(self.offset)
    }

    /// The valid bytes of page `i` of the payload.
    fn valid(&self, i: usize) -> Range<usize> {
        let start = if i == 0 { self.lead() } else { 0 };
        let end = (self.lead() + self.length - i * PAGE_SIZE).min(PAGE_SIZE);
        let last = i + 1 == self.frames.len();
        start..if last && self.zero_tail {
            PAGE_SIZE
        } else {
            end
        }
    }

    /// Takes it apart for a direct write: the partial head and tail as payloads of their own, and between them whole pages,
    /// with the offset at which they go. The device's short last page is an edge, too: the device may grow meanwhile.
    #[allow(clippy::type_complexity)]
    pub(crate) fn split_edges(mut self) -> (Option<Self>, Option<(u64, FrameRefs)>, Option<Self>) {
        let range = self.range();
        let tail_partial = within(range.end) != 0;
        let head_partial = self.lead() != 0;
        let pages = self.frames.len();
        let whole_start = usize::from(head_partial);
        let whole_end = pages - usize::from(tail_partial);
        if whole_start >= whole_end {
            // No whole page: all of it is edge.
            return (Some(self), None, None);
        }
        let tail = self.frames.split_off(whole_end);
        let whole = self.frames.split_off(whole_start);
        let start = range.start.next_multiple_of(PAGE_BYTES);
        let end = if tail_partial {
            range.end - range.end % PAGE_BYTES
        } else {
            range.end
        };
        let head = self.frames.split_off(0);
        let mut edge = |offset: u64, end: u64, frames: FrameBuf| {
            let length = usize::try_from(end - offset).expect("less than a page");
            let spare = self.spare.split_off(self.spare.len().saturating_sub(1));
            Self {
                offset,
                length,
                received: length,
                frames,
                spare,
                zero_tail: self.zero_tail && end == range.end,
                budget: None,
            }
        };
        let head = head_partial.then(|| edge(range.start, start, head));
        let tail = tail_partial.then(|| edge(end, range.end, tail));
        let length = usize::try_from(end - start).expect("at most a slice");
        (head, Some((start, whole.into_refs(0, length))), tail)
    }

    /// Under an add guard: where the device has grown since the slice was prepared, its last page isn't zero past the slice.
    fn forget_old_end(&mut self, size: u64) {
        self.zero_tail &= self.range().end == size;
    }

    fn edges(&self) -> impl Iterator<Item = usize> + use<> {
        let last = self.frames.len() - 1;
        let partial = [0, last].map(|i| (self.valid(i) != (0..PAGE_SIZE)).then_some(i));
        let second = partial[1].filter(|_| last != 0);
        partial[0].into_iter().chain(second)
    }
}

#[allow(clippy::cast_possible_truncation)] // less than a page
fn within(offset: u64) -> usize {
    (offset % PAGE_BYTES) as usize
}

/// Why a page could not be installed yet.
enum Obstacle {
    /// A partial page is absent: it must be filled first.
    Absent,
    /// Someone reads it at this moment.
    Filling(Arc<Fill>),
    /// It was filled, replaced and evicted meanwhile; filling it again takes memory that was not reserved.
    NoSpare,
    Failed(Errno),
}

impl PageCache {
    /// Private frames for one slice of a write. Waits for memory in turn, holding none. Cancel safe.
    pub async fn payload(self: &Arc<Self>, offset: u64, length: usize) -> Payload {
        let (pages, spare) = self.payload_frames(offset, length);
        let budget = self
            .payload_permit(u32::try_from(pages).expect("at most a slice"))
            .await;
        let frames = self.reserve(pages + spare).await;
        self.new_payload(offset, length, frames, pages, budget)
    }

    /// As [`PageCache::payload`], if there is memory at once.
    pub fn try_payload(self: &Arc<Self>, offset: u64, length: usize) -> Option<Payload> {
        let (pages, spare) = self.payload_frames(offset, length);
        let budget = self.try_payload_permit(u32::try_from(pages).expect("at most a slice"))?;
        let mut frames = FrameBuf::new(Arc::clone(&self.pool));
        self.try_reserve(pages + spare, &mut frames)
            .then(|| self.new_payload(offset, length, frames, pages, budget))
    }

    fn payload_frames(&self, offset: u64, length: usize) -> (usize, usize) {
        assert!(
            length > 0 && length <= SLICE_BYTES,
            "a payload of {length} bytes"
        );
        let pages = (within(offset) + length).div_ceil(PAGE_SIZE);
        let end = offset + length as u64;
        let partial =
            usize::from(within(offset) != 0) + usize::from(within(end) != 0 && end != self.size());
        (pages, partial.min(pages))
    }

    fn new_payload(
        &self,
        offset: u64,
        length: usize,
        mut frames: FrameBuf,
        pages: usize,
        budget: OwnedSemaphorePermit,
    ) -> Payload {
        let spare = frames.split_off(pages);
        let end = offset + length as u64;
        let zero_tail = within(end) != 0 && end == self.size();
        if zero_tail {
            frames.page_mut(pages - 1)[within(end)..].fill(0);
        }
        Payload {
            offset,
            length,
            received: 0,
            frames,
            spare,
            zero_tail,
            budget: Some(budget),
        }
    }

    /// A small write straight from the session's buffer, if nothing has to be waited for: the mode is writeback, little is
    /// dirty, nobody blocks the region, and pages written in part are present. `false`: take the slow path with all of it.
    #[inline]
    pub fn try_write(&self, context: &FaultContext, offset: u64, data: &[u8]) -> bool {
        let range = offset..offset + data.len() as u64;
        if self.mode != CacheMode::Writeback || self.unclean_pages() >= self.limits.dirty_slow {
            return false;
        }
        let pages = pages_of(&range);
        let Some(guard) = self.add_lock.try_add(bytes_of(&pages)) else {
            return false;
        };
        if range.end > self.size() || fault_point!(context, "cache:write:inline", [EIO]).is_err() {
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
        let Some(guard) = self.add_lock.try_add(bytes_of(&pages_of(&payload.range()))) else {
            return Err(payload);
        };
        payload.forget_old_end(self.size());
        if payload.range().end > self.size()
            || self.install_payload(context, &guard, &mut payload).is_err()
        {
            return Err(payload);
        }
        drop(guard);
        self.note_dirty();
        Ok(())
    }

    /// Writes a received slice into the cache; in writethrough mode and beyond.
    ///
    /// Throttles first, when too much is dirty. Cancel safe: dropped before it is done, it has written some of its pages or
    /// none.
    ///
    /// # Errors
    /// What the backend said to filling a partial page; `ENOSPC` when the device has become smaller than the range; the
    /// writeback's error when it makes no progress; `ENOMEM`.
    pub async fn write(
        self: &Arc<Self>,
        context: &FaultContext,
        mut payload: Payload,
    ) -> Result<(), Errno> {
        assert_eq!(payload.remaining(), 0, "written before it was received");
        let range = payload.range();
        self.throttle().await?;
        pause_point!(context, "cache:write:begin", [EIO, ENOSPC, ENOMEM]).await?;
        loop {
            let guard = self.add_lock.add(bytes_of(&pages_of(&range))).await;
            if range.end > self.size() {
                return Err(Errno::ENOSPC);
            }
            payload.forget_old_end(self.size());
            let guard = Arc::new(guard);
            // The filled pages stay referenced, and so in the cache, until they are merged.
            let filled = self.fill_edges(context, &guard, &mut payload).await;
            let obstacle = match &filled {
                Ok(_) => self.install_payload(context, &guard, &mut payload).err(),
                Err(_) => None,
            };
            drop(guard);
            // No guard is held while waiting for someone else's fill or for memory.
            match filled.err().or(obstacle) {
                None => break,
                Some(Obstacle::Failed(errno)) => return Err(errno),
                Some(Obstacle::Absent) => {}
                // If it fails, that was for another's sake: the next round reads the page itself.
                Some(Obstacle::Filling(fill)) => _ = fill.wait().await,
                Some(Obstacle::NoSpare) => {
                    payload.spare = self.reserve(payload.edges().count()).await
                }
            }
        }
        self.note_dirty();
        if self.mode == CacheMode::Writethrough {
            self.persist(context, range).await?;
        }
        Ok(())
    }

    /// Makes the partial pages of the payload present: reads those that are absent, under the caller's guard. On success the
    /// filled pages stay referenced until they are merged.
    async fn fill_edges(
        self: &Arc<Self>,
        context: &FaultContext,
        guard: &Arc<AddGuard>,
        payload: &mut Payload,
    ) -> Result<Vec<Arc<Fill>>, Obstacle> {
        let mut planned = Vec::new();
        let mut obstacle = None;
        for i in payload.edges() {
            let page = page_of(payload.offset) + i as u64;
            let pin = epoch::pin();
            let mut slot = match self.lock_or_create(page, &pin) {
                Ok(slot) => slot,
                Err(errno) => {
                    obstacle = Some(Obstacle::Failed(errno));
                    break;
                }
            };
            if slot.state.has(PRESENT) {
                continue;
            }
            if slot.state.has(FILLING) {
                if !planned.is_empty() {
                    continue; // Our own run for the head; or another's for the tail, found when it is installed.
                }
                let fill = self
                    .fills
                    .find(slot.detail())
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
        for run in planned {
            self.spawn_fill(context, Arc::clone(guard), run, FillPurpose::Demand);
        }
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

    /// Installs every page, partial ones first: they may be absent, whole ones can't fail for that.
    fn install_payload(
        &self,
        context: &FaultContext,
        guard: &AddGuard,
        payload: &mut Payload,
    ) -> Result<(), Obstacle> {
        let first = page_of(payload.offset);
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

    /// Publishes `frame` as `page`, completed with the old page where `valid` is only a part. Gives the frame back when there
    /// is an obstacle.
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
        let mut slot = match self.lock_or_create(page, &pin) {
            Ok(slot) => slot,
            Err(errno) => return Err((Obstacle::Failed(errno), frame)),
        };
        if *valid != (0..PAGE_SIZE) {
            if slot.state.has(FILLING) {
                let fill = self
                    .fills
                    .find(slot.detail())
                    .expect("a filling slot names a running fill");
                return Err((Obstacle::Filling(fill), frame));
            }
            if !slot.state.has(PRESENT) || race_fault!(context) {
                return Err((Obstacle::Absent, frame));
            }
            frame.complete_from(&slot, valid);
        }
        let old = self.publish_dirty(&mut slot, page, frame.into_id());
        drop(slot);
        if let Some(old) = old {
            self.pool.unref(old);
        }
        Ok(())
    }

    /// Puts a private frame into a locked slot as its dirty page; hands back the frame that was published there.
    fn publish_dirty(
        &self,
        slot: &mut PageGuard<'_>,
        page: u64,
        frame: FrameId,
    ) -> Option<FrameId> {
        let old = slot.state;
        self.pool.set_owner(frame, page);
        if !old.has(DIRTY) {
            // Of the *first* write since the last submission: a later one must not make an earlier FLUSH skip the page.
            let epoch = self.generations.epoch();
            slot.set_detail(epoch);
        }
        slot.state = PageState::present(
            frame,
            DIRTY | if old.has(IN_FLIGHT) { IN_FLIGHT } else { 0 },
        );
        old.has(PRESENT).then(|| old.frame())
    }
}
