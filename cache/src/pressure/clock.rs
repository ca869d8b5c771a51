//! Eviction by CLOCK: a hand goes round over the frames; a page that was used since the last round (its visited bit, set by the hit's own
//! reference count update) gets another round, the first clean unreferenced page that wasn't goes. New pages start unvisited,
//! so a scan evicts itself first, as in SIEVE. Whether a page is clean is decided under its lock, so a write can't dirty it in
//! between.

use std::sync::atomic::{AtomicU32, Ordering};

use crossbeam_epoch as epoch;
use weir_faults::{ArmedPoints, race_fault};

use crate::frame::FrameId;
use crate::pace::{Pace, STEPS_AT_ONCE};
use crate::page_cache::PageCache;

/// The most frames that are looked at for each that is wanted where nothing may take long: when clean pages are that rare, the
/// request may as well wait its turn.
const INLINE_STEPS_PER_FRAME: usize = 16;
/// How many frames the hand passes before it gives up, in rounds: the first clears visited bits.
const HAND_ROUNDS: usize = 2;

/// The hand of the clock: the frame that is looked at next, modulo those in use.
#[derive(Debug, Default)]
pub(crate) struct Hand(AtomicU32);

/// How many frames may be looked at for so many where nothing may take long.
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

    /// Evicts up to `wanted` clean pages, looking at no more than `steps_left` frames, of which it takes off what it has looked at; says
    /// how many.
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

    /// Gives the page in `frame` up if it is clean and nobody uses it. A race that is said to be lost disarms the others.
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
            // Its next user comes just now.
            *armed = ArmedPoints::NONE;
            return false;
        }
        if slot.evict().is_unused_prefetch() {
            self.counters.readahead_wasted.add(1);
        }
        true
    }
}
