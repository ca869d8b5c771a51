//! Retries in halves: one bad sector is to keep no other page from being stored.
//!
//! A run is one transfer, and the store says of it as a whole that it failed. What failed is dirty again, so the next run would have
//! the same pages and the same end. So a run that is a retry, or that has pages along which its FLUSH doesn't cover, is halved
//! when it fails: both halves are written anew, and a half that fails is halved again, until bad pages stand alone.
//!
//! The first failure of a run is reported as it is. A FLUSH tries once and says; only who asks again gets the longer way.
//!
//! # How long
//! One bad page among 256 costs 16 transfers; a store that fails everything would cost 511. After [`HALVING_TIME_MAX`] what is left counts as
//! failed. Which half comes first is drawn anew for each level and each attempt, so every page stands alone sooner or later,
//! also on a store that takes long to fail.

use std::ops::Range;
use std::sync::Arc;

use crossbeam_epoch as epoch;
use tokio::time::Instant;
use weir_faults::{Errno, FaultContext};

use crate::frame::{FrameRefs, PAGE_BYTES};
use crate::options::HALVING_TIME_MAX;
use crate::page::IN_FLIGHT;
use crate::page_cache::PageCache;

/// Pages that could not be written, and why.
pub(super) type Failed = Vec<(Range<u64>, Errno)>;

impl PageCache {
    /// Writes `pages`, which are in flight and have failed together, in smaller and smaller parts; says which have failed for good,
    /// in order.
    pub(super) async fn write_in_halves(
        &self,
        context: &FaultContext,
        pages: Range<u64>,
        errno: Errno,
    ) -> Failed {
        let until = Instant::now() + HALVING_TIME_MAX;
        let upper_first = self.writeback.halvings();
        let mut failed = Failed::new();
        let mut to_halve = vec![(pages, errno)];
        while let Some((part, errno)) = to_halve.pop() {
            let length = part.end - part.start;
            if length == 1 || Instant::now() >= until {
                failed.push((part, errno));
                continue;
            }
            let middle = part.start + length / 2;
            let mut halves = [part.start..middle, middle..part.end];
            if upper_first >> length.ilog2() & 1 == 1 {
                halves.reverse();
            }
            // The last one pushed is halved first.
            for half in halves.into_iter().rev() {
                let data = self.in_flight_data(&half);
                let written =
                    self.backend
                        .write_vectored_at(context, half.start * PAGE_BYTES, data);
                if let Err(errno) = written.await {
                    to_halve.push((half, errno));
                }
            }
        }
        failed.sort_unstable_by_key(|(part, _)| part.start);
        failed
    }

    /// What pages in flight hold now: what was submitted, or newer, which is written again later.
    fn in_flight_data(&self, pages: &Range<u64>) -> FrameRefs {
        let mut data = FrameRefs::new(Arc::clone(&self.pool));
        for page in pages.clone() {
            let pin = epoch::pin();
            let slot = self
                .lock_page(page, &pin)
                .expect("a page in flight stays in its slot");
            assert!(slot.state.has(IN_FLIGHT), "page {page} is {:?}", slot.state);
            self.push_page(&slot, page, &mut data);
        }
        data
    }
}
