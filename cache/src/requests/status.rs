//! What a range holds: allocation as a client may know it, and which parts of it are cached.

use std::ops::Range;
use std::sync::Arc;

use crossbeam_epoch as epoch;
use weir_faults::{Errno, FaultContext, pause_point};

use crate::backend::{BackendExtent, ExtentKind};
use crate::pace::{Pace, STEPS_AT_ONCE};
use crate::page_cache::{PageCache, bytes_of, pages_of};
use crate::pages::{DIRTY, HELD, IN_FLIGHT, PRESENT};

/// A run of bytes and how much the cache has of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResidencyExtent {
    /// Bytes, never zero.
    pub length: u64,
    /// All of it is in the cache.
    pub cached: bool,
    /// It is newer than what the backend has.
    pub dirty: bool,
}

impl PageCache {
    /// `base:allocation` of `range`: adjacent extents from its start, at most `most`, the dirty cache laid over the
    /// backend. Cancel safe.
    ///
    /// # Errors
    /// What the backend said; `EIO` when syncs fail again and again meanwhile.
    pub async fn allocation(
        self: &Arc<Self>,
        context: &FaultContext,
        range: Range<u64>,
        most: usize,
    ) -> Result<Vec<BackendExtent>, Errno> {
        self.undisturbed(|| self.look_at_allocation(context, &range, most))
            .await
    }

    async fn look_at_allocation(
        &self,
        context: &FaultContext,
        range: &Range<u64>,
        most: usize,
    ) -> Result<Vec<BackendExtent>, Errno> {
        // The overlay first: a page that is written back and cleaned between the two looks would otherwise be in
        // neither.
        let overlay = self.unwritten_ranges(range, most).await;
        pause_point!(context, "cache:status:overlay", [EIO]).await?;
        // The overlay may have stopped early; nothing past its end may be reported as a hole.
        let end = overlay.known_to;
        let mut below: Vec<BackendExtent> = Vec::new();
        let mut at = range.start;
        while at < end && below.len() < most {
            // The searches are small, and few run at a time: a search takes a processor, which reads and writes need
            // too.
            let portion = (most - below.len()).min(EXTENTS_PER_LOOK);
            let turn = self.searches.acquire().await.expect("never closed");
            let found = self.backend.status(context, at..end, portion).await?;
            drop(turn);
            let Some(last) = found.last() else { break };
            at = last.range.end;
            below.extend(found);
        }
        let mut merged = lay_over(&below, &overlay.ranges);
        merged.truncate(most);
        Ok(merged)
    }

    /// `x-weir:cache` of `range`: adjacent extents from its start, at most `most`. Cancel safe.
    pub async fn residency(&self, range: Range<u64>, most: usize) -> Vec<ResidencyExtent> {
        let mut extents = Vec::new();
        let mut pace = Pace::default();
        let mut at = range.start;
        loop {
            pace.ask(looked_at(&pages_of(&(at..range.end)))).await;
            match self.residency_of_some(at..range.end, most, &mut extents) {
                Some(next) => at = next,
                None => return extents,
            }
        }
    }

    /// Goes as far as one look allows; returns where to go on.
    fn residency_of_some(
        &self,
        range: Range<u64>,
        most: usize,
        extents: &mut Vec<ResidencyExtent>,
    ) -> Option<u64> {
        let mut at = range.start;
        for _ in 0..STEPS_AT_ONCE {
            if at >= range.end {
                return None;
            }
            let pin = epoch::pin();
            let page = at / crate::frame::PAGE_BYTES;
            let state = self.table.state(page, &pin);
            let cached = state.is_some_and(|state| state.has(PRESENT));
            let dirty = state.is_some_and(|state| state.has(DIRTY | IN_FLIGHT | HELD));
            // Absent stretches are skipped by tag, so that an empty petabyte costs one look.
            let end = match state {
                Some(state) if !state.is_empty() => bytes_of(&(page..page + 1)).end,
                _ => self
                    .table
                    .next_known(&(page + 1..u64::MAX), &pin)
                    .map_or(range.end, |next| bytes_of(&(next..next + 1)).start),
            };
            let end = end.min(range.end);
            let full = extents.len() == most;
            match extents.last_mut() {
                Some(last) if last.cached == cached && last.dirty == dirty => {
                    last.length += end - at
                }
                _ if full => return None,
                _ => extents.push(ResidencyExtent {
                    length: end - at,
                    cached,
                    dirty,
                }),
            }
            at = end;
        }
        Some(at)
    }

    /// The pages of `range` that the backend may not have, as byte ranges cut to `range`. The cost depends on what is
    /// dirty or on its way, not on how much is cached.
    pub(crate) async fn unwritten_ranges(&self, range: &Range<u64>, most: usize) -> Overlay {
        let pages = pages_of(range);
        let mut overlay = Overlay {
            ranges: Vec::new(),
            known_to: range.end,
        };
        let mut next = pages.start;
        // At this moment no page is dirty, in flight, held or unsynced: each change of that kind came before it or
        // comes after it.
        if self.unclean_pages() == 0 {
            return overlay;
        }
        let mut pace = Pace::default();
        while next < pages.end {
            // The backend will report what is written back meanwhile.
            pace.ask(looked_at(&(next..pages.end))).await;
            let look = self.look_for_unwritten(next..pages.end, STEPS_AT_ONCE);
            for page in look.pages {
                let bytes = bytes_of(&(page..page + 1));
                let (start, end) = (bytes.start.max(range.start), bytes.end.min(range.end));
                let full = overlay.ranges.len() == most;
                match overlay.ranges.last_mut() {
                    Some(last) if last.end == start => last.end = end,
                    _ if full => {
                        overlay.known_to = start;
                        return overlay;
                    }
                    _ => overlay.ranges.push(start..end),
                }
            }
            next = look.next;
        }
        overlay
    }
}

/// How many of `pages` one look covers. It looks at dirty pages under one hold of the scan lock.
fn looked_at(pages: &Range<u64>) -> usize {
    usize::try_from(pages.end - pages.start).map_or(STEPS_AT_ONCE, |pages| pages.min(STEPS_AT_ONCE))
}

/// Extents that the backend is asked for at a time: searching a file for holes takes some microseconds each.
const EXTENTS_PER_LOOK: usize = 256;

/// Ranges that hold data whatever the backend says, complete up to `known_to`.
pub(crate) struct Overlay {
    pub(crate) ranges: Vec<Range<u64>>,
    known_to: u64,
}

/// Lays `data` ranges over the backend's extents; neighbours of one kind are merged.
fn lay_over(below: &[BackendExtent], data: &[Range<u64>]) -> Vec<BackendExtent> {
    let mut merged: Vec<BackendExtent> = Vec::new();
    let mut push = |range: Range<u64>, kind: ExtentKind| {
        if range.is_empty() {
            return;
        }
        match merged.last_mut() {
            Some(last) if last.kind == kind => last.range.end = range.end,
            _ => merged.push(BackendExtent { range, kind }),
        }
    };
    for extent in below {
        let mut at = extent.range.start;
        let first = data.partition_point(|over| over.end <= at);
        for over in data[first..]
            .iter()
            .take_while(|over| over.start < extent.range.end)
        {
            push(at..over.start.max(at), extent.kind);
            push(
                over.start.max(at)..over.end.min(extent.range.end),
                ExtentKind::Data,
            );
            at = over.end.min(extent.range.end);
        }
        push(at..extent.range.end, extent.kind);
    }
    merged
}

#[cfg(test)]
mod tests;
