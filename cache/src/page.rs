//! Page slots: what the cache knows of one page of the device.
//!
//! A slot is 16 bytes in the [`GenRadix`](crate::GenRadix): a state word (a frame number and independent state bits) and a
//! detail word. Readers on the hit path only load the state word. Everything that changes a slot does so under its `LOCKED`
//! bit, a spin lock that is held for a handful of instructions and at most one 4 KiB copy, never across an await.
//!
//! # State bits
//!
//! | bit | meaning | set by | cleared by |
//! | --- | --- | --- | --- |
//! | `PRESENT` | the frame is published and readable | fill (own token), write; a failed blocker puts it back | reclaim (clean pages), shoot-down |
//! | `FILLING` | a read from the backend is under way; the frame number is the filler's private frame and so its token | read miss and readahead, holding an add guard | the filler, if the token is still its own; a write that takes the slot over, and leaves its page with the fill |
//! | `DIRTY` | newer than what was ever submitted to the backend | write (add guard); failed writeback; failed sync; failed blocker | writeback at submission; shoot-down (becomes `HELD`) |
//! | `IN_FLIGHT` | submitted to the backend, not completed | writeback at submission | writeback at completion |
//! | `UNSTABLE` | written to the backend, not yet covered by a sync | writeback at completion | the sync that covers it; a write (becomes `DIRTY`); shoot-down |
//! | `HELD` | shot down while not clean; kept for the blocker's outcome | shoot-down (block guard and range lock) | its blocker when it is done |
//!
//! `DIRTY` and `UNSTABLE` exclude each other; `HELD` excludes `PRESENT`, `DIRTY`, `UNSTABLE` and `FILLING`; `FILLING` excludes
//! everything but `IN_FLIGHT`, which can't occur with it either, as a page in flight is present or held. A page is *clean*
//! when it is `PRESENT` and nothing else: only such a page may be evicted.
//!
//! # The detail word
//! One field whose meaning the state gives: the flush epoch of the first write since the last submission, and whether the page has failed to
//! be stored (`DIRTY`, and in flight as long as it isn't written again), the mutation generation of the completed write
//! (`UNSTABLE`), the number of the fill (`FILLING`). It is read and written under `LOCKED` only.
//!
//! # Counters
//! [`Counts`] has one counter per bit, and one for pages that are not clean. They are changed in one place, when a locked
//! slot is stored back, by comparing the old with the new word, so they can't drift from the bits.
#![allow(unsafe_code)]

use bytemuck::Zeroable;
use weir_faults::{ArmedPoints, race_fault};

use crate::frame::FrameId;
use std::sync::atomic::{AtomicU64, Ordering};

/// The frame is published and readable.
pub(crate) const PRESENT: u64 = 1 << 32;
/// A read from the backend is under way.
pub(crate) const FILLING: u64 = 1 << 33;
/// Newer than what was submitted.
pub(crate) const DIRTY: u64 = 1 << 34;
/// Submitted and not completed.
pub(crate) const IN_FLIGHT: u64 = 1 << 35;
/// Shot down while not clean.
pub(crate) const HELD: u64 = 1 << 36;
/// Written and not synced.
pub(crate) const UNSTABLE: u64 = 1 << 37;
const LOCKED: u64 = 1 << 63;
const FRAME_MASK: u64 = 0xffff_ffff;

/// Any of these: the page is data that the backend may not durably have.
pub(crate) const UNCLEAN: u64 = DIRTY | IN_FLIGHT | HELD | UNSTABLE;

/// Spins on a locked slot before the thread yields its processor.
const SPINS_BEFORE_YIELD: u32 = 64;

/// What is known of one page. All zero: nothing.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct PageSlot {
    word: AtomicU64,
    detail: AtomicU64,
}

// SAFETY: both fields are integers, for which all bits zero is a valid value; zero means "nothing known".
unsafe impl Zeroable for PageSlot {}

/// A copy of a slot's state word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageState(u64);

impl PageState {
    pub(crate) const EMPTY: Self = Self(0);

    /// A published page in `frame` with further `bits`.
    pub(crate) const fn present(frame: FrameId, bits: u64) -> Self {
        Self(frame as u64 | PRESENT | bits)
    }

    pub(crate) const fn filling(token: FrameId) -> Self {
        Self(token as u64 | FILLING)
    }

    #[allow(clippy::cast_possible_truncation)] // masked to 32 bits
    pub(crate) const fn frame(self) -> FrameId {
        (self.0 & FRAME_MASK) as FrameId
    }

    pub(crate) const fn has(self, bits: u64) -> bool {
        self.0 & bits != 0
    }

    pub(crate) const fn with(self, bits: u64) -> Self {
        Self(self.0 | bits)
    }

    pub(crate) const fn without(self, bits: u64) -> Self {
        Self(self.0 & !bits)
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.0 & !LOCKED == 0
    }

    /// Present, and the backend has it durably.
    pub(crate) const fn is_clean(self) -> bool {
        self.0 & (PRESENT | UNCLEAN | FILLING) == PRESENT
    }

    /// The same published page in the same frame, whatever else changed.
    pub(crate) const fn same_page(self, other: Self) -> bool {
        (self.0 ^ other.0) & (FRAME_MASK | PRESENT) == 0
    }
}

impl std::fmt::Debug for PageState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const NAMES: [(u64, &str); 6] = [
            (PRESENT, "present"),
            (FILLING, "filling"),
            (DIRTY, "dirty"),
            (IN_FLIGHT, "in_flight"),
            (HELD, "held"),
            (UNSTABLE, "unstable"),
        ];
        write!(f, "PageState(frame {}", self.frame())?;
        for (bit, name) in NAMES {
            if self.has(bit) {
                write!(f, ", {name}")?;
            }
        }
        f.write_str(")")
    }
}

impl PageSlot {
    /// The state now, without the lock.
    #[inline]
    pub(crate) fn load(&self) -> PageState {
        PageState(self.word.load(Ordering::Acquire) & !LOCKED)
    }

    /// Locks the slot. The caller must not await, allocate without bound or lock another slot before it is unlocked.
    #[inline]
    pub(crate) fn lock<'a>(
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
                return LockedPage {
                    slot: self,
                    counts,
                    before: PageState(now),
                    state: PageState(now),
                };
            }
            spins += 1;
            if spins % SPINS_BEFORE_YIELD == 0 {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    }
}

/// A locked slot; stored back and unlocked when dropped.
#[derive(Debug)]
pub(crate) struct LockedPage<'a> {
    slot: &'a PageSlot,
    counts: &'a Counts,
    before: PageState,
    /// The state that the slot will have; change it at will.
    pub(crate) state: PageState,
}

impl LockedPage<'_> {
    pub(crate) fn detail(&self) -> u64 {
        self.slot.detail.load(Ordering::Relaxed)
    }

    pub(crate) fn set_detail(&mut self, detail: u64) {
        self.slot.detail.store(detail, Ordering::Relaxed);
    }
}

impl Drop for LockedPage<'_> {
    #[inline]
    fn drop(&mut self) {
        debug_assert!(
            !(self.state.has(DIRTY) && self.state.has(UNSTABLE)),
            "{:?}",
            self.state
        );
        debug_assert!(
            !(self.state.has(HELD) && self.state.has(PRESENT | DIRTY | UNSTABLE | FILLING)),
            "{:?}",
            self.state
        );
        debug_assert!(
            !self.state.has(UNSTABLE | DIRTY) || self.state.has(PRESENT),
            "{:?}",
            self.state
        );
        self.counts.transition(self.before, self.state);
        // Release: whoever sees the new state sees the frame's bytes. SeqCst: a flush that starts after this write was
        // replied to must see it, whatever the thread.
        self.slot.word.store(self.state.0, Ordering::SeqCst);
    }
}

/// How many slots have each state bit.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) present: AtomicU64,
    pub(crate) dirty: AtomicU64,
    pub(crate) in_flight: AtomicU64,
    pub(crate) held: AtomicU64,
    pub(crate) unstable: AtomicU64,
    /// Slots with any of the bits of [`UNCLEAN`].
    pub(crate) unclean: AtomicU64,
}

impl Counts {
    #[inline]
    fn transition(&self, before: PageState, after: PageState) {
        const INTEREST: u64 = PRESENT | UNCLEAN;
        let changed = (before.0 ^ after.0) & INTEREST;
        if changed == 0 {
            return;
        }
        for (bits, counter) in [
            (PRESENT, &self.present),
            (DIRTY, &self.dirty),
            (IN_FLIGHT, &self.in_flight),
            (HELD, &self.held),
            (UNSTABLE, &self.unstable),
            (UNCLEAN, &self.unclean),
        ] {
            match (before.has(bits), after.has(bits)) {
                (false, true) => counter.fetch_add(1, Ordering::Relaxed),
                (true, false) => counter.fetch_sub(1, Ordering::Relaxed),
                _ => continue,
            };
        }
    }
}

#[cfg(test)]
mod tests;
