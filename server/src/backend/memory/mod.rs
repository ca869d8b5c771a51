#![doc = include_str!("README.md")]
//!
//! # How
//! A page exists once it was written, and a discarded page is given back. Pages lie in ordered maps, sharded by region
//! so that parallel writers rarely meet. A region's pages share a shard, so a run of pages takes one lock. A call isn't
//! atomic as a whole, only per page, and the contract asks for no more.
//!
//! The calling task does the work, mostly a session, and copying is work. Every few pages it is charged to the budget
//! that the runtime gives a task, so a task that asks for much lets others have their turn.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam_utils::CachePadded;
use smallvec::SmallVec;
use tokio::task::coop::consume_budget as yield_if_due;
use weir_cache::{
    Backend, BackendExtent, BackendFuture, Capabilities, Errno, ExtentKind, FrameBuf, FrameRefs,
    Geometry, PAGE_SIZE, ZeroMode,
};

mod source;

pub use source::SCHEME;

use crate::limits::DEVICE_BYTES_MAX;

const PAGE_BYTES: u64 = PAGE_SIZE as u64;
/// Space comes and goes by the page.
const ALLOCATION_UNIT: u32 = 4096;
/// Pages in a region: 1 MiB, a typical large request.
const REGION_PAGES: u64 = 256;
/// More than any machine's number of parallel writers needs.
const SHARDS: usize = 64;

/// Pages that are copied, freed or passed for one unit of a task's budget, which has 128 units: a poll takes some
/// hundreds of microseconds.
const PAGES_PER_UNIT: usize = 4;

type Pages = BTreeMap<u64, Box<[u8; PAGE_SIZE]>>;

/// A device of pages in memory.
pub struct MemoryBackend {
    size: AtomicU64,
    shards: Box<[CachePadded<Mutex<Pages>>]>,
}

impl std::fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryBackend")
            .field("size", &self.size())
            .finish_non_exhaustive()
    }
}

impl MemoryBackend {
    /// A device of `size` bytes, all zero.
    #[must_use]
    pub fn new(size: u64) -> Self {
        assert!(size <= DEVICE_BYTES_MAX, "a device of {size} bytes");
        Self {
            size: AtomicU64::new(size),
            shards: (0..SHARDS).map(|_| CachePadded::default()).collect(),
        }
    }

    fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    fn shard(&self, page: u64) -> MutexGuard<'_, Pages> {
        let region = page / REGION_PAGES;
        let index = usize::try_from(region % SHARDS as u64).expect("less than SHARDS");
        self.shards[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn read_pages(&self, offset: u64, buffer: &mut FrameBuf) {
        assert!(offset.is_multiple_of(PAGE_BYTES), "read at {offset}");
        let first = offset / PAGE_BYTES;
        for index in 0..buffer.len() {
            if index.is_multiple_of(PAGES_PER_UNIT) {
                yield_if_due().await;
            }
            let page = first + index as u64;
            match self.shard(page).get(&page) {
                Some(bytes) => buffer.page_mut(index).copy_from_slice(&bytes[..]),
                None => buffer.page_mut(index).fill(0),
            }
        }
    }

    async fn write_pages(&self, offset: u64, data: &FrameRefs) -> Result<(), Errno> {
        assert!(offset.is_multiple_of(PAGE_BYTES), "write at {offset}");
        if offset
            .checked_add(data.bytes() as u64)
            .is_none_or(|end| end > self.size())
        {
            return Err(Errno::ENOSPC);
        }
        let mut at = offset;
        for (index, piece) in data.io_slices().enumerate() {
            if index.is_multiple_of(PAGES_PER_UNIT) {
                yield_if_due().await;
            }
            let mut piece: &[u8] = &piece;
            while !piece.is_empty() {
                let page = at / PAGE_BYTES;
                let within = usize::try_from(at % PAGE_BYTES).expect("less than a page");
                let (now, rest) = piece.split_at(piece.len().min(PAGE_SIZE - within));
                let mut pages = self.shard(page);
                let bytes = pages
                    .entry(page)
                    .or_insert_with(|| Box::new([0; PAGE_SIZE]));
                bytes[within..within + now.len()].copy_from_slice(now);
                piece = rest;
                at += now.len() as u64;
            }
        }
        Ok(())
    }

    /// Zeroes `range`: whole pages are removed, and edges are overwritten where their page exists.
    async fn clear(&self, range: &Range<u64>) {
        if range.is_empty() {
            return;
        }
        let whole = range.start.div_ceil(PAGE_BYTES)..range.end / PAGE_BYTES;
        if whole.start > whole.end {
            // Inside one page.
            self.zero_within(range.start..range.end);
            return;
        }
        self.zero_within(range.start..whole.start * PAGE_BYTES);
        self.zero_within(whole.end * PAGE_BYTES..range.end);
        for shard in &self.shards {
            loop {
                yield_if_due().await;
                if Self::clear_some(shard, &whole) < PAGES_PER_UNIT {
                    break;
                }
            }
        }
    }

    /// Removes a few of `pages`; says how many.
    fn clear_some(shard: &Mutex<Pages>, pages: &Range<u64>) -> usize {
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = shard.range(pages.clone()).take(PAGES_PER_UNIT);
        let gone: SmallVec<[u64; PAGES_PER_UNIT]> = gone.map(|(page, _)| *page).collect();
        for page in &gone {
            shard.remove(page);
        }
        gone.len()
    }

    /// Zeroes bytes of one page, if it exists.
    fn zero_within(&self, range: Range<u64>) {
        let page = range.start / PAGE_BYTES;
        if let Some(bytes) = self.shard(page).get_mut(&page) {
            let start = usize::try_from(range.start % PAGE_BYTES).expect("less than a page");
            let length = usize::try_from(range.end - range.start).expect("inside one page");
            bytes[start..start + length].fill(0);
        }
    }

    /// The first page from `page` on that exists.
    fn next_present(&self, page: u64) -> Option<u64> {
        let firsts = self.shards.iter().filter_map(|shard| {
            let pages = shard.lock().unwrap_or_else(PoisonError::into_inner);
            pages.range(page..).next().map(|(page, _)| *page)
        });
        firsts.min()
    }

    /// The first page from `page` on, up to `end`, that doesn't exist.
    async fn next_absent(&self, page: u64, end: u64) -> u64 {
        let mut at = page;
        while at < end {
            yield_if_due().await;
            // As far as the region reaches, under one lock.
            let region_end = (at - at % REGION_PAGES + REGION_PAGES).min(end);
            let pages = self.shard(at);
            for (present, _) in pages.range(at..region_end) {
                if *present != at {
                    return at;
                }
                at += 1;
            }
            if at < region_end {
                return at;
            }
        }
        end
    }

    async fn find_extents(&self, range: &Range<u64>, most: usize) -> Vec<BackendExtent> {
        let end = range.end.min(self.size());
        let last_page = end.div_ceil(PAGE_BYTES);
        let mut at = range.start;
        let mut found = Vec::new();
        while at < end && found.len() < most {
            yield_if_due().await;
            let page = at / PAGE_BYTES;
            let (kind, until) = match self.next_present(page) {
                Some(present) if present == page => {
                    (ExtentKind::Data, self.next_absent(page, last_page).await)
                }
                Some(present) => (ExtentKind::Hole, present.min(last_page)),
                None => (ExtentKind::Hole, last_page),
            };
            // The page may have gone between the two looks; it was data at the first.
            let until = (until.max(page + 1) * PAGE_BYTES).min(end);
            found.push(BackendExtent {
                range: at..until,
                kind,
            });
            at = until;
        }
        found
    }

    async fn set_size(&self, size: u64) -> Result<(), Errno> {
        if size > DEVICE_BYTES_MAX {
            return Err(Errno::EFBIG);
        }
        let before = self.size.swap(size, Ordering::AcqRel);
        // A later growth must show zeroes.
        self.clear(&(size..before.next_multiple_of(PAGE_BYTES)))
            .await;
        Ok(())
    }
}

impl Backend for MemoryBackend {
    fn geometry(&self) -> Geometry {
        Geometry {
            size: self.size(),
            allocation_unit: ALLOCATION_UNIT,
            rotational: false,
        }
    }

    fn capabilities(&self) -> Capabilities {
        // There is no `zero_keep`: memory that stays allocated would have to be written.
        Capabilities {
            discard: true,
            zero_keep: false,
            zero_punch: true,
            resize: true,
            extents: true,
            shift: false,
        }
    }

    fn read(
        &self,
        offset: u64,
        mut buffer: FrameBuf,
    ) -> BackendFuture<'_, (FrameBuf, Result<(), Errno>)> {
        Box::pin(async move {
            self.read_pages(offset, &mut buffer).await;
            (buffer, Ok(()))
        })
    }

    fn write(&self, offset: u64, data: FrameRefs) -> BackendFuture<'_, Result<(), Errno>> {
        Box::pin(async move { self.write_pages(offset, &data).await })
    }

    fn write_zeroes(
        &self,
        range: Range<u64>,
        mode: ZeroMode,
    ) -> BackendFuture<'_, Result<(), Errno>> {
        Box::pin(async move {
            match mode {
                ZeroMode::MayPunch => {
                    self.clear(&range).await;
                    Ok(())
                }
                ZeroMode::KeepAllocated => Err(Errno::ENOTSUP),
            }
        })
    }

    fn discard(&self, range: Range<u64>) -> BackendFuture<'_, Result<(), Errno>> {
        Box::pin(async move {
            self.clear(&range).await;
            Ok(())
        })
    }

    fn extents(
        &self,
        range: Range<u64>,
        most: usize,
    ) -> BackendFuture<'_, Result<Vec<BackendExtent>, Errno>> {
        Box::pin(async move { Ok(self.find_extents(&range, most).await) })
    }

    fn sync(&self) -> BackendFuture<'_, Result<(), Errno>> {
        Box::pin(async { Ok(()) })
    }

    fn resize(&self, size: u64) -> BackendFuture<'_, Result<(), Errno>> {
        Box::pin(async move { self.set_size(size).await })
    }
}

#[cfg(test)]
mod tests;
