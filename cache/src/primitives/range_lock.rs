//! The order of arrival among changes behind the cache's back.
//!
//! Block guards are shared: two trims may work on one range side by side. Two changes of the *same pages* may not. What
//! is submitted to a store runs on after its client has gone. That client may come back over another connection, write
//! the same pages again and get the reply that they are written. If the older change ended later, it would undo the
//! younger one.
//!
//! So a change locks its range before anything else. Ranges that overlap are served in the order in which they came,
//! whichever connection they came over; ranges that don't overlap don't affect each other. The request shares its guard
//! with the task that carries out its current part: a request that is dropped gives up its range as soon as no part of
//! it is under way.
//!
//! **Invariant**: no two guards whose wait is over overlap. A guard waits only for guards that came before it, so waits
//! have no cycle. A holder of a guard waits for block guards, a turn at the quota and the store, and for nothing else:
//! no client, no memory.
//!
//! All changes of a cache meet here under one mutex, so the work under this mutex must not grow with their number: see
//! [`range_queue`](crate::primitives::range_queue). Every change is an opponent of every other.

use std::future::poll_fn;
use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::primitives::range_queue::{Place, RangeQueue};
use crate::primitives::sync::{Mutex, MutexGuard, lock};
use crate::two_state_lock::Side;

/// A queue has two sides: all changes are on this one.
const SIDE: Side = Side::Block;

/// Exclusive ranges of pages, first come first served.
#[derive(Clone, Debug, Default)]
pub(crate) struct RangeLock(Arc<Mutex<RangeQueue>>);

/// A range, from its arrival on. Given back when dropped.
#[derive(Debug)]
pub(crate) struct RangeGuard {
    lock: RangeLock,
    pages: Range<u64>,
    /// Taken only in `drop`.
    place: Option<Place>,
}

impl RangeLock {
    /// Locks `pages`, after all earlier ranges that overlap them. The first poll of the future decides its place in the
    /// order. Cancel safe: a future that is dropped gives up its place.
    pub(crate) async fn lock(&self, pages: Range<u64>) -> RangeGuard {
        let place = self.queue().enter(SIDE, &pages);
        let mut guard = RangeGuard {
            lock: self.clone(),
            pages,
            place: Some(place),
        };
        poll_fn(|context| guard.poll_own(context)).await;
        guard
    }

    fn queue(&self) -> MutexGuard<'_, RangeQueue> {
        lock(&self.0)
    }

    /// How many ranges are held or waited for.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.queue().counts().0
    }

    /// How many waiters have asked to be woken.
    #[cfg(test)]
    fn waiting(&self) -> usize {
        self.queue().counts().1
    }
}

impl RangeGuard {
    /// Waits for one earlier range at a time: if each waiter remembered all earlier ranges, the memory would grow with
    /// the square of their number.
    fn poll_own(&mut self, context: &Context<'_>) -> Poll<()> {
        let place = self.place.as_mut().expect("taken in drop only");
        let mut queue = self.lock.queue();
        let ahead = queue.latest_before(SIDE, &self.pages, place);
        let unneeded = queue.wait(place, ahead, context.waker());
        drop(queue);
        drop(unneeded);
        match ahead {
            Some(_) => Poll::Pending,
            None => Poll::Ready(()),
        }
    }
}

impl Drop for RangeGuard {
    fn drop(&mut self) {
        let place = self.place.take().expect("taken here only");
        let woken = self.lock.queue().leave(place, &self.pages);
        if let Some(woken) = woken {
            woken.wake();
        }
    }
}

#[cfg(test)]
mod tests;
