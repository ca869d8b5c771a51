//! How many pages have each state bit.

use std::sync::atomic::{AtomicU64, Ordering};

use super::state::{DIRTY, HELD, IN_FLIGHT, PRESENT, PageState, UNCLEAN, UNSTABLE};

/// How many slots have each state bit. Each figure is right for a moment, and no two are of the same moment.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    present: AtomicU64,
    dirty: AtomicU64,
    in_flight: AtomicU64,
    held: AtomicU64,
    unstable: AtomicU64,
    /// Slots with any of the bits of [`UNCLEAN`].
    unclean: AtomicU64,
}

impl Counts {
    /// Pages in the cache.
    #[inline]
    pub(crate) fn present(&self) -> u64 {
        self.present.load(Ordering::Relaxed)
    }

    /// Pages newer than what was submitted.
    #[inline]
    pub(crate) fn dirty(&self) -> u64 {
        self.dirty.load(Ordering::Relaxed)
    }

    /// Pages submitted and not completed.
    #[inline]
    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Pages kept for a blocker's outcome.
    #[inline]
    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Pages written and not synced.
    #[inline]
    pub(crate) fn unstable(&self) -> u64 {
        self.unstable.load(Ordering::Relaxed)
    }

    /// Pages that the backend may not durably have.
    #[inline]
    pub(crate) fn unclean(&self) -> u64 {
        self.unclean.load(Ordering::Relaxed)
    }

    /// A slot goes from one state to another.
    #[inline]
    pub(super) fn transition(&self, before: PageState, after: PageState) {
        const INTEREST: u64 = PRESENT | UNCLEAN;
        if (before.bits() ^ after.bits()) & INTEREST == 0 {
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
