//! Retries in halves: one bad sector is to keep no other page from being stored.
//!
//! A run is one transfer, and the store reports its failure for the run as a whole. What failed is dirty again, so the
//! next run would have the same pages and the same end. So some runs are halved when they fail: a run that is a retry,
//! and a run that has pages along which its FLUSH doesn't cover. Both halves are written anew. A half that fails is
//! halved again, until bad pages stand alone.
//!
//! The first failure of a run is reported as it is. A FLUSH tries once and reports; the next attempt takes the longer
//! way.
//!
//! # How long
//! One bad page among 256 costs 16 transfers. A store that fails everything would cost 511. After [`HALVING_TIME_MAX`]
//! what is left counts as failed, except for one page, which is drawn anew for each attempt and written alone. So every
//! page stands alone sooner or later, also on a store that takes so long to fail that there is no time for a second
//! level. A sound page that has been written cuts the next run in two.

use std::ops::Range;
use std::sync::Arc;

use crossbeam_epoch as epoch;
use tokio::time::Instant;
use weir_faults::{Errno, FaultContext};

use crate::frame::{FrameRefs, PAGE_BYTES};
use crate::options::HALVING_TIME_MAX;
use crate::page_cache::PageCache;
use crate::pages::IN_FLIGHT;

/// Pages that could not be written, and why.
pub(super) type Failed = Vec<(Range<u64>, Errno)>;

impl PageCache {
    /// Writes `pages`, which are in flight and have failed together, in smaller and smaller parts. Returns those that
    /// have failed for good, in order.
    pub(super) async fn write_in_halves(
        &self,
        context: &FaultContext,
        pages: Range<u64>,
        errno: Errno,
    ) -> Failed {
        let until = Instant::now() + HALVING_TIME_MAX;
        let drawn = self.writeback.draw_page(&pages);
        let mut failed = Failed::new();
        let mut to_halve = vec![(pages, errno)];
        while let Some((part, errno)) = to_halve.pop() {
            let length = part.end - part.start;
            if length == 1 {
                failed.push((part, errno));
                continue;
            }
            if Instant::now() >= until {
                if !part.contains(&drawn) {
                    failed.push((part, errno));
                    continue;
                }
                for rest in [part.start..drawn, drawn..drawn + 1, drawn + 1..part.end] {
                    match rest.end - rest.start {
                        0 => {}
                        // A part of one page is tried even if it isn't the drawn page: a failed part of one page counts
                        // as a bad page.
                        1 => failed.extend(self.try_part(context, rest).await),
                        _ => failed.push((rest, errno)),
                    }
                }
                continue;
            }
            let middle = part.start + length / 2;
            for half in [middle..part.end, part.start..middle] {
                to_halve.extend(self.try_part(context, half).await);
            }
        }
        failed.sort_unstable_by_key(|(part, _)| part.start);
        failed
    }

    /// Writes a part; returns it if it has failed.
    async fn try_part(
        &self,
        context: &FaultContext,
        part: Range<u64>,
    ) -> Option<(Range<u64>, Errno)> {
        let data = self.in_flight_data(&part);
        let written = self
            .backend
            .write(context, part.start * PAGE_BYTES, data)
            .await;
        written.err().map(|errno| (part, errno))
    }

    /// What pages in flight hold now: what was submitted, or newer, which is written again later.
    fn in_flight_data(&self, pages: &Range<u64>) -> FrameRefs {
        let mut data = FrameRefs::new(Arc::clone(&self.pool));
        for page in pages.clone() {
            let pin = epoch::pin();
            let slot = self
                .table
                .lock(page, &pin)
                .expect("a page in flight stays in its slot");
            assert!(
                slot.state().has(IN_FLIGHT),
                "page {page} is {:?}",
                slot.state()
            );
            self.push_page(&slot, page, &mut data);
        }
        data
    }
}
