//! A lock with two shared states that exclude each other: many may *add*, or many may *block*, never both.
//!
//! The idea is bcachefs' two-state lock, made asynchronous and fair: bcachefs' lock lets either side starve the other,
//! this one is *phase-fair*.
//!
//! # The word
//! One atomic word holds twice the signed number of holders (positive: adders, negative: blockers) plus `WAITERS` in
//! its lowest bit. While there are no waiters, locking is one compare-and-swap and unlocking one subtraction. The
//! queues lie behind a mutex that is touched only when there are waiters.
//!
//! # Invariants
//! 1. The `WAITERS` bit changes only under the mutex. While it is set, only holders that leave change the count outside
//!    of the mutex: [`TwoStateLock::try_lock`] refuses.
//! 2. While the bit is set, `Queues::phase` is the state of the holders (or of the last one to leave), and at least one
//!    *opponent* of that phase is queued. Waiters of the phase's own state may be queued behind it.
//! 3. While the bit is clear, both queues are empty.
//!
//! # Fairness
//! The bit appears when an opponent of the holders queues; from then on newcomers of either state queue too. The holder
//! that brings the count to zero with the bit set begins the next phase under the mutex: the phase flips and *all*
//! waiters of its state are admitted at once. So phases alternate as long as there are waiters. A waiter waits for the
//! rest of the current phase and, if it is of that phase's own state, for one opposing phase. A phase lasts as long as
//! its slowest admitted holder. Fairness forbids nesting: a holder that asks again for the state that it holds may
//! queue behind an opponent that waits for it to leave.
//!
//! # No lost wake-up
//! A waiter sets the bit with a compare-and-swap that sees opposing holders, so the last of these holders to leave sees
//! the bit in the value that its subtraction returns, and takes the mutex to begin the next phase. If several leavers
//! race there, the compare-and-swap from "no holder, waiters" lets one of them in for each phase.
//!
//! # Cancel safety
//! The only await point is [`Acquire`] itself. If it is dropped before it is first polled, it has done nothing. If it
//! is dropped while queued, it leaves its queue; if it was the last opponent of the phase, the waiters behind it join
//! the phase and the bit is cleared. If it is dropped after it was admitted but before it was polled again, it releases
//! the lock, which passes the grant on.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use weir_faults::{ArmedPoints, race_fault};

use crate::primitives::points::Points;
use crate::primitives::sync::atomic::{AtomicI64, Ordering};
use crate::primitives::sync::{Mutex, const_unless_loom, lock};

#[cfg(all(test, loom))]
mod loom_models;
#[cfg(all(test, not(loom)))]
mod tests;

/// Set in the word while a waiter is queued.
const WAITERS: i64 = 1;
/// What one adder adds to the word, and one blocker subtracts: the lowest bit is not part of the count.
const HOLDER: i64 = 2;

/// The two states of a [`TwoStateLock`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Shared among all adders.
    Add,
    /// Shared among all blockers.
    Block,
}

impl Side {
    /// The state that excludes this one.
    #[must_use]
    pub const fn opponent(self) -> Self {
        match self {
            Self::Add => Self::Block,
            Self::Block => Self::Add,
        }
    }

    const fn holder(self) -> i64 {
        match self {
            Self::Add => HOLDER,
            Self::Block => -HOLDER,
        }
    }

    /// Whether one more of this side may hold the lock at once.
    const fn is_admitted(self, word: i64) -> bool {
        if word & WAITERS != 0 {
            return false;
        }
        match self {
            Self::Add => word >= 0,
            Self::Block => word <= 0,
        }
    }
}

/// The lock; see the module's documentation.
///
/// ```
/// use weir_cache::two_state_lock::{Side, TwoStateLock};
///
/// let lock = TwoStateLock::new();
/// let one = lock.try_lock(Side::Add).unwrap();
/// let two = lock.try_lock(Side::Add).unwrap();
/// assert!(lock.try_lock(Side::Block).is_none());
/// drop((one, two));
/// assert!(lock.try_lock(Side::Block).is_some());
/// ```
pub struct TwoStateLock {
    word: AtomicI64,
    queues: Mutex<Queues>,
}

/// Everything here is guarded by the mutex around it.
struct Queues {
    /// The state of the holders; true only while the `WAITERS` bit is set.
    phase: Side,
    next_ticket: u64,
    adders: BTreeMap<u64, Waker>,
    blockers: BTreeMap<u64, Waker>,
}

impl Queues {
    fn of(&mut self, side: Side) -> &mut BTreeMap<u64, Waker> {
        match side {
            Side::Add => &mut self.adders,
            Side::Block => &mut self.blockers,
        }
    }
}

/// Wakers of the waiters that were admitted, woken only when the mutex is free again.
type Admitted = BTreeMap<u64, Waker>;

impl TwoStateLock {
    const_unless_loom! {
        /// A lock without holders.
        pub fn new() -> Self {
            Self {
                word: AtomicI64::new(0),
                queues: Mutex::new(Queues {
                    phase: Side::Add,
                    next_ticket: 0,
                    adders: BTreeMap::new(),
                    blockers: BTreeMap::new(),
                }),
            }
        }
    }

    /// Takes the lock if no opponent holds it and there are no waiters.
    #[must_use = "the lock is released when the guard is dropped"]
    pub fn try_lock(&self, side: Side) -> Option<TwoStateGuard<'_>> {
        self.try_lock_under(side, ArmedPoints::NONE)
    }

    /// As [`try_lock`](Self::try_lock), with fault points: this lock is small, and its owner has them.
    #[inline]
    pub(crate) fn try_lock_under(
        &self,
        side: Side,
        armed: ArmedPoints<'_>,
    ) -> Option<TwoStateGuard<'_>> {
        self.try_admit(side, armed)
            .then(|| TwoStateGuard { lock: self, side })
    }

    /// Waits for the lock, in turn. The future does nothing until it is polled, and is cancel safe.
    pub fn lock(&self, side: Side) -> Acquire<'_> {
        self.lock_under(side, ArmedPoints::NONE)
    }

    /// As [`lock`](Self::lock), with fault points.
    pub(crate) fn lock_under<'a>(&'a self, side: Side, armed: ArmedPoints<'a>) -> Acquire<'a> {
        Acquire {
            lock: self,
            side,
            armed,
            progress: Progress::Unpolled,
        }
    }

    /// Which side holds the lock, and how many holders there are. A snapshot, for statistics and tests.
    pub fn holders(&self) -> Option<(Side, u64)> {
        let count = self.word.load(Ordering::Relaxed) >> WAITERS.count_ones();
        match count {
            0 => None,
            1.. => Some((Side::Add, count.unsigned_abs())),
            _ => Some((Side::Block, count.unsigned_abs())),
        }
    }

    /// How many waiters there are for `side`. A snapshot that takes the mutex, for statistics and tests.
    pub fn waiters(&self, side: Side) -> usize {
        lock(&self.queues).of(side).len()
    }

    /// Whether there are waiters, of either side. A snapshot that takes one load.
    pub fn is_contended(&self) -> bool {
        self.word.load(Ordering::Relaxed) & WAITERS != 0
    }

    fn try_admit(&self, side: Side, mut armed: ArmedPoints<'_>) -> bool {
        let mut word = self.word.load(Ordering::Relaxed);
        while side.is_admitted(word) {
            if race_fault!(armed) {
                armed = ArmedPoints::NONE;
                word = self.word.load(Ordering::Relaxed);
                continue;
            }
            let admitted = word + side.holder();
            match self.word.compare_exchange_weak(
                word,
                admitted,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(current) => word = current,
            }
        }
        false
    }

    /// Gives back one hold of `side`, of a guard that was dropped or [leaked](TwoStateGuard::leak).
    pub(crate) fn release(&self, side: Side, points: &Points) {
        // Acquire too: the next phase begins after everything that the holders of this one did.
        let before = self.word.fetch_sub(side.holder(), Ordering::AcqRel);
        let held = match side {
            Side::Add => before >= HOLDER,
            Side::Block => before < 0,
        };
        assert!(
            held,
            "released {side:?}, which nobody holds (word {before})"
        );
        if before - side.holder() == WAITERS {
            if race_fault!(points.armed()) {
                // As if another leaver of the same phase were faster.
                wake(self.begin_next_phase());
            }
            wake(self.begin_next_phase());
        }
    }

    /// Admits all waiters of the next phase, unless another leaver has done so already or the last waiter left.
    fn begin_next_phase(&self) -> Admitted {
        let mut queues = lock(&self.queues);
        let next = queues.phase.opponent();
        let behind = if queues.of(next.opponent()).is_empty() {
            0
        } else {
            WAITERS
        };
        let word = holders(next, queues.of(next).len()) + behind;
        // Fails if this leaver's phase was ended by another one meanwhile: then there is nothing to do here.
        if self
            .word
            .compare_exchange(WAITERS, word, Ordering::AcqRel, Ordering::Relaxed)
            .is_err()
        {
            return Admitted::new();
        }
        queues.phase = next;
        let admitted = mem::take(queues.of(next));
        assert!(
            !admitted.is_empty(),
            "someone of the next phase waits (invariant 2)"
        );
        admitted
    }

    /// Takes the lock, or queues and returns a ticket.
    fn admit_or_queue(&self, side: Side, waker: &Waker, mut armed: ArmedPoints<'_>) -> Option<u64> {
        let mut queues = lock(&self.queues);
        let mut word = self.word.load(Ordering::Relaxed);
        while word & WAITERS == 0 {
            if race_fault!(armed) {
                armed = ArmedPoints::NONE;
                word = self.word.load(Ordering::Relaxed);
                continue;
            }
            let admitted = side.is_admitted(word);
            let wanted = if admitted {
                word + side.holder()
            } else {
                word | WAITERS
            };
            match self.word.compare_exchange_weak(
                word,
                wanted,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) if admitted => return None,
                Ok(_) => {
                    queues.phase = side.opponent();
                    break;
                }
                Err(current) => word = current,
            }
        }
        let ticket = queues.next_ticket;
        queues.next_ticket += 1;
        queues.of(side).insert(ticket, waker.clone());
        Some(ticket)
    }

    /// Whether the waiter with this ticket was admitted; if not, `waker` is woken when it is.
    fn poll_admitted(&self, side: Side, ticket: u64, waker: &Waker) -> bool {
        match lock(&self.queues).of(side).get_mut(&ticket) {
            Some(queued) => {
                queued.clone_from(waker);
                false
            }
            None => true,
        }
    }

    /// Withdraws a waiter: from its queue, or, if it was admitted meanwhile, from the lock.
    fn cancel(&self, side: Side, ticket: u64) {
        let mut queues = lock(&self.queues);
        let Some(_waker) = queues.of(side).remove(&ticket) else {
            drop(queues);
            self.release(side, &Points::NONE);
            return;
        };
        let phase = queues.phase;
        if side == phase || !queues.of(side).is_empty() {
            return;
        }
        // No opponent waits any more: the waiters behind it join the phase. The bit is set (invariant 2), so
        // subtracting it clears it, whatever holders leave meanwhile.
        let admitted = mem::take(queues.of(phase));
        self.word
            .fetch_add(holders(phase, admitted.len()) - WAITERS, Ordering::AcqRel);
        drop(queues);
        wake(admitted);
    }
}

fn holders(side: Side, count: usize) -> i64 {
    side.holder()
        * i64::try_from(count).expect("waiters are in memory, so there are fewer than 2^63")
}

fn wake(admitted: Admitted) {
    admitted.into_values().for_each(Waker::wake);
}

impl Default for TwoStateLock {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for TwoStateLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TwoStateLock")
            .field("holders", &self.holders())
            .field("contended", &self.is_contended())
            .finish()
    }
}

/// One hold of a [`TwoStateLock`], given back when dropped.
#[derive(Debug)]
#[must_use = "the lock is released when the guard is dropped"]
pub struct TwoStateGuard<'a> {
    lock: &'a TwoStateLock,
    side: Side,
}

impl TwoStateGuard<'_> {
    /// The state held.
    #[must_use]
    pub const fn side(&self) -> Side {
        self.side
    }

    /// Keeps the hold without the guard; the caller owes the lock one [`TwoStateLock::release`].
    pub(crate) fn leak(self) {
        #[expect(
            clippy::disallowed_methods,
            reason = "the guard's caller gives it back"
        )]
        mem::forget(self);
    }
}

impl Drop for TwoStateGuard<'_> {
    fn drop(&mut self) {
        self.lock.release(self.side, &Points::NONE);
    }
}

/// The future of [`TwoStateLock::lock`]. Cancel safe: dropping it at any time leaves no trace.
#[derive(Debug)]
#[must_use = "futures do nothing unless they are polled"]
pub struct Acquire<'a> {
    lock: &'a TwoStateLock,
    side: Side,
    armed: ArmedPoints<'a>,
    progress: Progress,
}

#[derive(Debug)]
enum Progress {
    Unpolled,
    Queued { ticket: u64 },
    Done,
}

impl<'a> Future for Acquire<'a> {
    type Output = TwoStateGuard<'a>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self {
            lock, side, armed, ..
        } = *self;
        match self.progress {
            Progress::Unpolled => {
                if !lock.try_admit(side, armed)
                    && let Some(ticket) = lock.admit_or_queue(side, context.waker(), armed)
                {
                    self.progress = Progress::Queued { ticket };
                    return Poll::Pending;
                }
            }
            Progress::Queued { ticket } => {
                if !lock.poll_admitted(side, ticket, context.waker()) {
                    return Poll::Pending;
                }
            }
            Progress::Done => panic!("polled after it was ready"),
        }
        self.progress = Progress::Done;
        Poll::Ready(TwoStateGuard { lock, side })
    }
}

impl Drop for Acquire<'_> {
    fn drop(&mut self) {
        if let Progress::Queued { ticket } = self.progress {
            self.lock.cancel(self.side, ticket);
        }
    }
}
