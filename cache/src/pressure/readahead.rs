//! Readahead, and NBD_CMD_CACHE.
//!
//! Misses are watched for streams: a read that starts where an earlier one ended continues it. A stream's window
//! doubles up to a cap. Of each window the page in the middle carries a marker in its frame's word; when a reader first
//! uses that page the next window is started, so a steady stream finds its pages present and pays nothing for it on
//! other hits.
//!
//! Readahead is a guess and must not hurt. It goes in slices, takes its add guard and its memory by *try* only, memory
//! last, and has at most a capped share of the cache. A blocker that overlaps it makes the try for the guard fail, even
//! if the blocker still waits. So readahead delays a blocker by no more than what is already submitted.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use crossbeam_epoch as epoch;
use weir_faults::{FaultContext, RequestKinds, fault_point};

use crate::frame::{FrameBuf, PAGE_BYTES};
use crate::pace::Pace;
use crate::page_cache::{PageCache, bytes_of, pages_of};
use crate::requests::fill::{FillPurpose, PlannedFill, PlannedFills};
use crate::transfer::{Transfer, Works, carry};

/// Streams watched at a time, per cache; the least recently continued is forgotten.
const STREAMS: usize = 32;
/// The first window, in pages: 128 KiB, as in Linux.
const FIRST_WINDOW: u64 = 32;

/// The streams that are being watched.
#[derive(Debug, Default)]
pub(crate) struct Readahead {
    streams: Mutex<Vec<Stream>>,
}

#[derive(Clone, Copy, Debug)]
struct Stream {
    /// The page after the last one read by the client or by readahead.
    next: u64,
    /// The byte after the last one that the client missed.
    next_byte: u64,
    /// The window to read next, in pages; zero until the stream was continued once.
    window: u64,
}

impl Readahead {
    /// Notes a missed read of `range`; the window to read ahead, if it continues a stream.
    fn observe(&self, range: &Range<u64>, most: u64) -> Option<Range<u64>> {
        let pages = pages_of(range);
        let mut streams = self.streams.lock().expect("not poisoned");
        // By byte too: a client that reads half pages starts inside the page that the last read ended in.
        let known = streams
            .iter()
            .position(|stream| stream.next == pages.start || stream.next_byte == range.start);
        let Some(position) = known else {
            if streams.len() == STREAMS {
                streams.remove(0);
            }
            streams.push(Stream {
                next: pages.end,
                next_byte: range.end,
                window: 0,
            });
            return None;
        };
        let mut stream = streams.remove(position);
        stream.window = (stream.window * 2).max(FIRST_WINDOW).min(most);
        stream.next_byte = range.end;
        let ahead = pages.end..pages.end + stream.window;
        stream.next = ahead.end;
        streams.push(stream);
        Some(ahead)
    }

    /// The next window of the stream whose marker on `page` was used.
    fn advance(&self, page: u64, most: u64) -> Option<Range<u64>> {
        let mut streams = self.streams.lock().expect("not poisoned");
        let position = streams.iter().position(|stream| {
            stream.window > 0 && (page..=page + stream.window).contains(&stream.next)
        })?;
        let mut stream = streams.remove(position);
        stream.window = (stream.window * 2).min(most);
        let ahead = stream.next..stream.next + stream.window;
        stream.next = ahead.end;
        streams.push(stream);
        Some(ahead)
    }
}

impl PageCache {
    /// A reader is about to miss `range`.
    pub(crate) fn observe_read(self: &Arc<Self>, context: &FaultContext, range: &Range<u64>) {
        if self.limits.readahead_pages == 0 {
            return;
        }
        if let Some(ahead) = self.readahead.observe(range, self.limits.readahead_pages) {
            let context = context.within(RequestKinds::READAHEAD);
            self.read_ahead(&context, ahead);
        }
    }

    /// A reader has come to the marker on `page`.
    #[cold]
    pub(crate) fn continue_readahead(self: &Arc<Self>, page: u64) {
        if let Some(ahead) = self.readahead.advance(page, self.limits.readahead_pages) {
            let context = self.background.within(RequestKinds::READAHEAD);
            self.read_ahead(&context, ahead);
        }
    }

    /// Starts reading a window, in slices, as far as guard and memory can be had at once.
    fn read_ahead(self: &Arc<Self>, context: &FaultContext, pages: Range<u64>) {
        let end = pages.end.min(self.size().div_ceil(PAGE_BYTES));
        let marker = pages.start + (pages.end - pages.start) / 2;
        let mut at = pages.start;
        while at < end {
            let room = self.slice_at(at * PAGE_BYTES, (end - at) * PAGE_BYTES) as u64 / PAGE_BYTES;
            let purpose = FillPurpose::Readahead { marker };
            let Some(fills) = self.try_fill(context, at..at + room, purpose) else {
                return;
            };
            fills.into_iter().for_each(Transfer::detach);
            at += room;
        }
    }

    /// Starts filling the absent pages of one slice; `None` when guard or memory can't be had at once.
    fn try_fill(
        self: &Arc<Self>,
        context: &FaultContext,
        pages: Range<u64>,
        purpose: FillPurpose,
    ) -> Option<Works> {
        if fault_point!(context, "cache:readahead", [EIO, ENOMEM]).is_err() {
            return None;
        }
        let missing = self.missing_pages(&pages);
        if missing == 0 {
            return Some(Works::new());
        }
        let guard = Arc::new(self.add_lock.try_add(bytes_of(&pages))?);
        if bytes_of(&pages).end > self.size().next_multiple_of(PAGE_BYTES) {
            return None;
        }
        let mut frames = FrameBuf::new(Arc::clone(&self.pool));
        if !self.try_reserve(missing, &mut frames) {
            return None;
        }
        let mut planned = PlannedFills::new();
        for page in pages {
            let pin = epoch::pin();
            let Ok(mut slot) = self.table.lock_or_create(page, &pin) else {
                break;
            };
            if slot.state().is_empty()
                && !self.plan_page(page, &mut slot, &mut frames, &mut planned)
            {
                break;
            }
        }
        let start = |run: PlannedFill| {
            self.counters.readahead_pages.add(run.frames.len() as u64);
            self.start_fill(context, Arc::clone(&guard), run, purpose)
        };
        Some(planned.into_iter().map(start).collect())
    }

    /// NBD_CMD_CACHE: brings `range` into the cache, as far as memory can be had without waiting and never more than
    /// half of it. Returns when what was started has arrived. Advisory: errors show when the data is read. Cancel safe.
    pub async fn prefetch(self: &Arc<Self>, context: &FaultContext, range: Range<u64>) {
        let mut left = u64::from(self.limits.frames / 2) * PAGE_BYTES;
        let mut at = range.start;
        let mut pace = Pace::default();
        while at < range.end && left > 0 {
            let length = self.slice_at(at, (range.end - at).min(left));
            let pages = pages_of(&(at..at + length as u64));
            // What is in the cache already needs no wait.
            pace.ask(pages.clone().count()).await;
            let Some(fills) = self.try_fill(context, pages, FillPurpose::Demand) else {
                return;
            };
            // One slice at a time.
            carry(fills).await;
            at += length as u64;
            left -= length as u64;
        }
    }
}
