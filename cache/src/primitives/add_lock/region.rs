//! One region's lock: adders and blockers of ranges, in the order of their arrival.
//!
//! # Two ways in
//! - *By range.* Behind a mutex lies a [`RangeQueue`] of all requests that hold a range or wait for one. Blockers are
//!   always in it. So are adders that may keep their guard over an await, fills above all.
//! - *Briefly.* A brief adder gives its guard back without an await: a small write into the cache. It counts itself in
//!   and out in one atomic word, which doesn't say its range. So a blocker waits for all brief adders that were in
//!   before it, whatever their range, which takes some microseconds. A brief adder never waits for a blocker: while a
//!   blocker is in the queue, the word is *closed*, and an adder that comes then enters by range.
//!
//! # The word
//! Twice the number of brief adders, plus `CLOSED` in the lowest bit.
//!
//! 1. `CLOSED` changes under the mutex only, and is set exactly while a blocker is in the queue.
//! 2. While it is set, the number only falls.
//!
//! # Exclusion
//! A blocker has its range when no adder that came before it overlaps it in the queue, and the number of brief adders
//! is zero. Both stay so until it leaves: later adders in the queue wait for it, and brief ones don't get in (2).
//!
//! # Order
//! Every request waits for the opponents that overlap it and came before it, whether these hold or wait, and for
//! nothing else. Opponents that came later don't overtake it. **Bound**: take the requests that were there before it
//! and overlap it, or overlap one that it waits for, and count how often the side changes among them. That many phases
//! pass, each as long as its slowest holder. No later request makes it longer.
//!
//! # No lost wake-up
//! A waiter looks whether it has to wait and leaves its waker in the queue, in one hold of the mutex. A request that
//! leaves the queue takes that waker out under the mutex.
//!
//! A brief adder leaves without the mutex. A blocker sets `CLOSED` before it first looks. So the brief adder that makes
//! the number zero sees `CLOSED` in what its subtraction returns, and *then* looks for wakers under the mutex. If that
//! look comes after the waiter's, it finds the waker. If it comes before, the waiter sees that the number is zero.
//!
//! # Cancel safety
//! A place in the queue is the same whether its owner waits or holds, and is left in the same way.

use std::ops::Range;
use std::sync::atomic::AtomicUsize;
use std::task::Waker;

use weir_faults::{ArmedPoints, race_fault};

use crate::primitives::range_queue::{NO_TICKET, Place, RangeQueue};
use crate::primitives::sync::atomic::{AtomicU64, Ordering};
use crate::primitives::sync::{Mutex, lock};
use crate::two_state_lock::Side;

#[cfg(all(test, loom))]
mod loom_models;

/// Set in the word while a blocker is in the queue.
const CLOSED: u64 = 1;
/// What a brief adder adds to the word.
const BRIEF: u64 = 2;

/// The lock; see the module's documentation.
pub(super) struct RegionLock {
    word: AtomicU64,
    queue: Mutex<RangeQueue>,
}

impl RegionLock {
    pub(super) fn new() -> Self {
        Self {
            word: AtomicU64::new(0),
            queue: Mutex::new(RangeQueue::default()),
        }
    }

    /// Adds briefly, unless a blocker is there. To be followed by [`leave_briefly`](Self::leave_briefly).
    #[inline]
    pub(super) fn try_enter_briefly(&self, mut armed: ArmedPoints<'_>) -> bool {
        let mut word = self.word.load(Ordering::Relaxed);
        while word & CLOSED == 0 {
            if race_fault!(armed) {
                armed = ArmedPoints::NONE;
                word = self.word.load(Ordering::Relaxed);
                continue;
            }
            // Acquire: what the last blocker did has happened before.
            match self.word.compare_exchange_weak(
                word,
                word + BRIEF,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(current) => word = current,
            }
        }
        false
    }

    #[inline]
    pub(super) fn leave_briefly(&self) {
        let before = self.word.fetch_sub(BRIEF, Ordering::AcqRel);
        assert!(before >= BRIEF, "left, and nobody was in ({before})");
        if before == BRIEF | CLOSED {
            let woken = lock(&self.queue).wake_unplaced();
            woken.wake();
        }
    }

    /// Enters if there is no one to wait for.
    pub(super) fn try_enter(
        &self,
        side: Side,
        range: &Range<u64>,
        memory: &AtomicUsize,
    ) -> Option<Place> {
        let mut queue = lock(&self.queue);
        if queue.meets(side.opponent(), range) {
            return None;
        }
        let place = enter(&mut queue, side, range, memory);
        if side == Side::Block && self.close() > 0 {
            drop(queue);
            // Brief adders are still there.
            self.leave(place, range, memory);
            return None;
        }
        Some(place)
    }

    /// Enters behind all who are there; says whether there is no one to wait for. If there is: [`poll`](Self::poll).
    pub(super) fn enter(
        &self,
        side: Side,
        range: &Range<u64>,
        memory: &AtomicUsize,
    ) -> (Place, bool) {
        let mut queue = lock(&self.queue);
        let meets = queue.meets(side.opponent(), range);
        let place = enter(&mut queue, side, range, memory);
        let briefs = match side {
            Side::Add => 0,
            Side::Block => self.close(),
        };
        (place, !meets && briefs == 0)
    }

    /// Whether nobody is left that `place` waits for; if someone is, `waker` is woken when it is worth another look.
    pub(super) fn poll(&self, place: &mut Place, range: &Range<u64>, waker: &Waker) -> bool {
        let mut queue = lock(&self.queue);
        let ahead = queue.latest_before(place.side().opponent(), range, place);
        let ahead = ahead.or_else(|| {
            let waits_for_briefs = place.side() == Side::Block && self.briefs() > 0;
            waits_for_briefs.then_some(NO_TICKET)
        });
        let unneeded = queue.wait(place, ahead, waker);
        drop(queue);
        drop(unneeded);
        ahead.is_none()
    }

    /// Gives a place back, whether it has its range or still waits.
    #[inline]
    pub(super) fn leave(&self, place: Place, range: &Range<u64>, memory: &AtomicUsize) {
        let mut queue = lock(&self.queue);
        let side = place.side();
        let kept = queue.kept_bytes();
        let woken = queue.leave(place, range);
        count_memory(kept, queue.kept_bytes(), memory);
        if side == Side::Block && !queue.has(Side::Block) {
            self.word.fetch_and(!CLOSED, Ordering::AcqRel);
        }
        drop(queue);
        if let Some(woken) = woken {
            woken.wake();
        }
    }

    /// Lets no brief adder in any more, and says how many are. Under the mutex, by a blocker that has entered.
    fn close(&self) -> u64 {
        self.word.fetch_or(CLOSED, Ordering::AcqRel) / BRIEF
    }

    /// How many brief adders are in. Acquire: what those who have left did has happened before.
    fn briefs(&self) -> u64 {
        self.word.load(Ordering::Acquire) / BRIEF
    }

    /// How many have a place, how many of these wait, and whether the word says that there is anyone.
    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize, bool) {
        let (placed, waiting) = lock(&self.queue).counts();
        (placed, waiting, self.word.load(Ordering::Relaxed) != 0)
    }
}

#[inline]
fn enter(queue: &mut RangeQueue, side: Side, range: &Range<u64>, memory: &AtomicUsize) -> Place {
    let kept = queue.kept_bytes();
    let place = queue.enter(side, range);
    count_memory(kept, queue.kept_bytes(), memory);
    place
}

/// Notes in `memory` that a queue has grown or shrunk.
#[inline]
fn count_memory(before: usize, after: usize, memory: &AtomicUsize) {
    if before != after {
        memory.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
    }
}
