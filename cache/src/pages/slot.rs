//! A slot, and its lock.
#![expect(
    unsafe_code,
    reason = "a slot is zeroed memory that its lock word guards"
)]

use std::sync::atomic::{AtomicU64, Ordering};

use bytemuck::Zeroable;
use weir_faults::{ArmedPoints, race_fault};

use super::counts::Counts;
use super::locked::LockedPage;
use super::state::{LOCKED, PageState};

/// Spins on a locked slot before the thread yields its processor.
const SPINS_BEFORE_YIELD: u32 = 64;

/// What is known of one page. All zero means that nothing is known.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct PageSlot {
    word: AtomicU64,
    detail: AtomicU64,
}

// SAFETY: both fields are integers, for which all bits zero is a valid value; zero means "nothing known".
unsafe impl Zeroable for PageSlot {}

impl PageSlot {
    /// The state now, without the lock.
    #[inline]
    pub(crate) fn load(&self) -> PageState {
        PageState(self.word.load(Ordering::Acquire)).without(LOCKED)
    }

    /// Locks the slot. The caller must not await, allocate without bound or lock another slot before it is unlocked.
    #[inline]
    pub(super) fn lock<'a>(
        &'a self,
        counts: &'a Counts,
        mut armed: ArmedPoints<'_>,
    ) -> LockedPage<'a> {
        let mut spins = 0;
        loop {
            let now = self.word.load(Ordering::Relaxed);
            let lost = race_fault!(armed);
            if lost {
                armed = ArmedPoints::NONE;
            }
            if now & LOCKED == 0
                && !lost
                && self
                    .word
                    .compare_exchange_weak(now, now | LOCKED, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            {
                return LockedPage::new(self, counts, PageState(now));
            }
            spins += 1;
            if spins % SPINS_BEFORE_YIELD == 0 {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    }

    /// Stores the new state of a slot that the caller has locked, without the lock bit.
    #[inline]
    pub(super) fn unlock(&self, state: PageState) {
        // Release: a thread that sees the new state sees the frame's bytes. SeqCst: a flush that starts after this
        // write was replied to must see it, whatever the thread.
        self.word.store(state.0, Ordering::SeqCst);
    }

    /// The detail word. The caller has locked the slot.
    #[inline]
    pub(super) fn detail(&self) -> u64 {
        self.detail.load(Ordering::Relaxed)
    }

    /// Changes the detail word. The caller has locked the slot.
    #[inline]
    pub(super) fn set_detail(&self, detail: u64) {
        self.detail.store(detail, Ordering::Relaxed);
    }
}
