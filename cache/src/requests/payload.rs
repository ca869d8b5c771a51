//! Payloads: a write's data on its way from the client, in private frames.
//!
//! Each byte is received at the place that it will have in its page, so that a whole page is installed without a copy.
//! The frames, including those for filling partial edges, count against budgets of their own, so that writers can't
//! starve the readers.
//!
//! # Two budgets, and which one is waited for
//! A request that waits for memory for a payload waits only for the store. It never waits for a client, however little
//! the clients send of what they have announced. So there are two kinds of payloads:
//!
//! - It has *arrived*: all of its data lies in the caller's buffer, and nothing but the store stands between it and its
//!   end. It waits in turn for its budget ([`PageCache::payload`]), which only payloads of this kind hold. A direct
//!   write keeps its share until the store is done with it.
//! - It is taken *ahead* of its data, to receive this without a copy ([`PageCache::try_payload_ahead`]). How long it
//!   lasts is up to the client, so its budget is tried and never waited for. A caller that is refused receives into a
//!   buffer of its own, and asks again when the data has arrived.

use std::io::IoSliceMut;
use std::ops::Range;
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use weir_faults::race_fault;

use crate::frame::{FrameBuf, FrameRefs, PAGE_BYTES, PAGE_SIZE};
use crate::options::SLICE_BYTES;
use crate::page_cache::PageCache;
use crate::pressure::memory::Budget;

/// One slice of a write's data on its way into the cache, in private frames.
#[derive(Debug)]
pub struct Payload {
    offset: u64,
    length: usize,
    received: usize,
    /// One frame per page that the slice touches; the data lies where it will lie in the page.
    pub(crate) frames: FrameBuf,
    /// For filling partial edges that are absent.
    pub(crate) spare: FrameBuf,
    /// The end of the device if the slice reaches it inside its last page: the rest of that page is zero, always.
    zero_tail: bool,
    /// Its share of the payload budget; the edges of a direct write go without.
    budget: Option<OwnedSemaphorePermit>,
}

/// The whole pages of a direct write.
#[derive(Debug)]
pub(crate) struct WholePages {
    /// Where they go.
    pub(crate) start: u64,
    pub(crate) data: FrameRefs,
    /// Their share of the payload budget, until the store is done with them. Otherwise direct writes that the store
    /// doesn't complete could end up with all of the memory.
    pub(crate) _budget: Option<OwnedSemaphorePermit>,
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
    pub fn io_slices_mut(&mut self, most: usize) -> impl Iterator<Item = IoSliceMut<'_>> {
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
        if count == 0 {
            return 0;
        }
        let mut left = &data[..count];
        for mut slice in self.io_slices_mut(usize::MAX) {
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
        for mut slice in self.io_slices_mut(usize::MAX) {
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
    pub(crate) fn valid(&self, i: usize) -> Range<usize> {
        let start = if i == 0 { self.lead() } else { 0 };
        let end = (self.lead() + self.length - i * PAGE_SIZE).min(PAGE_SIZE);
        let last = i + 1 == self.frames.len();
        start..if last && self.zero_tail {
            PAGE_SIZE
        } else {
            end
        }
    }

    /// Takes it apart for a direct write: the partial head and tail as payloads of their own, and between them whole
    /// pages, with the budget. The device's short last page is an edge, too: the device may grow meanwhile.
    pub(crate) fn split_edges(mut self) -> (Option<Self>, Option<WholePages>, Option<Self>) {
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
        let whole = WholePages {
            start,
            data: whole.into_refs(0, length),
            _budget: self.budget,
        };
        (head, Some(whole), tail)
    }

    /// To be called under an add guard. If the device has grown since the slice was prepared, its last page isn't zero
    /// past the slice.
    pub(crate) fn forget_old_end(&mut self, size: u64) {
        self.zero_tail &= self.range().end == size;
    }

    pub(crate) fn edges(&self) -> impl Iterator<Item = usize> + use<> {
        let last = self.frames.len() - 1;
        let partial = [0, last].map(|i| (self.valid(i) != (0..PAGE_SIZE)).then_some(i));
        let second = partial[1].filter(|_| last != 0);
        partial[0].into_iter().chain(second)
    }
}

pub(crate) fn within(offset: u64) -> usize {
    (offset % PAGE_BYTES) as usize
}

impl PageCache {
    /// Private frames for one slice of a write, all of which has arrived. Waits for memory in turn, holding none.
    /// Cancel safe.
    pub async fn payload(self: &Arc<Self>, offset: u64, length: usize) -> Payload {
        let (pages, spare) = self.payload_frames(offset, length);
        let budget = self
            .payload_permit(u32::try_from(pages + spare).expect("at most a slice"))
            .await;
        let frames = self.reserve(pages + spare).await;
        self.new_payload(offset, length, frames, pages, budget)
    }

    /// As [`PageCache::payload`], if there is memory at once.
    pub fn try_payload(self: &Arc<Self>, offset: u64, length: usize) -> Option<Payload> {
        self.try_payload_of(offset, length, Budget::Arrived)
    }

    /// Private frames for one slice of a write that is received straight into them, if there is memory at once. No
    /// variant of this waits: see the module's documentation.
    pub fn try_payload_ahead(self: &Arc<Self>, offset: u64, length: usize) -> Option<Payload> {
        let payload = self.try_payload_of(offset, length, Budget::Ahead);
        if payload.is_none() {
            self.note_refusal();
        }
        payload
    }

    fn try_payload_of(
        self: &Arc<Self>,
        offset: u64,
        length: usize,
        budget: Budget,
    ) -> Option<Payload> {
        if race_fault!(self.background) {
            return None;
        }
        let (pages, spare) = self.payload_frames(offset, length);
        let frames = u32::try_from(pages + spare).expect("at most a slice");
        let budget = self.try_payload_permit(budget, frames)?;
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
}
