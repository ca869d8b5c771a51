//! Eviction by CLOCK: a hand goes round over the frames. A page that was used since the last round gets another round;
//! the update of the reference count by a hit also sets the visited bit that says so. The first clean unreferenced page
//! that wasn't used is evicted. New pages start unvisited, so a scan evicts its own pages first, as in SIEVE. Whether a
//! page is clean is decided under its lock, so a write can't dirty it in between.

use std::sync::atomic::{AtomicU32, Ordering};

use crossbeam_epoch as epoch;
use weir_faults::{ArmedPoints, race_fault};

use crate::frame::FrameId;
use crate::pace::{Pace, STEPS_AT_ONCE};
use crate::page_cache::PageCache;

/// Where nothing may take long: the most frames that are looked at for each frame that is wanted. When clean pages are
/// that rare, the request may as well wait its turn.
const INLINE_STEPS_PER_FRAME: usize = 16;
/// How many frames the hand passes before it gives up, in rounds: the first clears visited bits.
const HAND_ROUNDS: usize = 2;

/// The hand of the clock: the frame that is looked at next, modulo the number of frames in use.
#[derive(Debug, Default)]
pub(crate) struct Hand(AtomicU32);

/// Where nothing may take long: how many frames may be looked at to find `frames` of them.
pub(super) fn inline_steps(frames: usize) -> usize {
    frames * INLINE_STEPS_PER_FRAME
}

impl PageCache {
    /// Evicts up to `wanted` clean pages if there are any at all, however long the search is; says how many.
    pub(crate) async fn evict_in_turns(&self, wanted: usize) -> usize {
        let mut steps_left = self.pool.used_frames() as usize * HAND_ROUNDS;
        let mut pace = Pace::default();
        let mut evicted = 0;
        while evicted < wanted && steps_left > 0 {
            let turn = steps_left.min(STEPS_AT_ONCE);
            let mut steps = turn;
            evicted += self.evict_within(wanted - evicted, &mut steps);
            let made = turn - steps;
            if made == 0 {
                // None is clean.
                break;
            }
            steps_left -= made;
            pace.ask(made).await;
        }
        evicted
    }

    /// Evicts up to `wanted` clean pages; says how many.
    #[cfg(test)]
    pub(crate) fn evict(&self, wanted: usize) -> usize {
        self.evict_within(
            wanted,
            &mut (self.pool.used_frames() as usize * HAND_ROUNDS),
        )
    }

    /// Evicts up to `wanted` clean pages, looking at no more than `steps_left` frames, and takes the frames that it has
    /// looked at off `steps_left`; says how many pages it evicted.
    pub(super) fn evict_within(&self, wanted: usize, steps_left: &mut usize) -> usize {
        let used = self.pool.used_frames();
        let counts = self.table.counts();
        // Held pages are not clean, but not present either.
        let unclean = counts.unclean().saturating_sub(counts.held());
        if used == 0 || counts.present() <= unclean {
            return 0;
        }
        let mut evicted = 0;
        let mut armed = self.background.armed();
        for _ in 0..(used as usize * HAND_ROUNDS).min(*steps_left) {
            *steps_left -= 1;
            let frame = self.memory.hand.0.fetch_add(1, Ordering::Relaxed) % used;
            if self.pool.count(frame) == 1
                && !self.pool.take_visited(frame)
                && self.evict_frame(frame, &mut armed)
            {
                evicted += 1;
                if evicted == wanted {
                    break;
                }
            }
        }
        self.counters.evictions.add(evicted as u64);
        evicted
    }

    /// Gives up the page in `frame` if it is clean and not in use. A race that is said to be lost disarms the others.
    fn evict_frame(&self, frame: FrameId, armed: &mut ArmedPoints<'_>) -> bool {
        let page = self.pool.owner(frame);
        #[cfg(test)]
        crate::testing::interleave::at("reclaim:chosen");
        let pin = epoch::pin();
        let Some(slot) = self.table.lock(page, &pin) else {
            return false;
        };
        // Under the lock: a private frame, or one that moved on, is not what this slot names.
        let state = slot.state();
        if !state.is_clean() || state.frame() != frame || self.pool.count(frame) != 1 {
            return false;
        }
        if race_fault!(armed) {
            // A reader comes at this moment.
            *armed = ArmedPoints::NONE;
            return false;
        }
        if slot.evict().is_unused_prefetch() {
            self.counters.readahead_wasted.add(1);
        }
        true
    }
}
