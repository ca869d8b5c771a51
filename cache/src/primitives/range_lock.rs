//! The order of arrival among changes behind the cache's back.
//!
//! Block guards are shared: two trims may work on one range side by side. Two changes of the *same pages* may not. What is
//! submitted to a store runs on although its client has gone, and that client may be back over another connection, have the same
//! pages written anew and be told that they are. A late end of the older change would then undo the younger one.
//!
//! So a change locks its range before anything else. Ranges that overlap are served in the order in which they came, whichever
//! connection they came over; ranges that don't overlap know nothing of each other. A guard is shared by the request and by
//! the task that carries out its part at the moment: a request that is dropped gives its range up as soon as nothing of it is
//! under way any more.
//!
//! **Invariant**: no two guards that have been waited for overlap. A guard waits only for guards that came before it, so waits have
//! no cycle. A holder of a guard waits for block guards, a turn at the quota and the store, and for nothing else: no client, no memory.
//!
//! All changes of a cache meet here under one mutex, which is why what is done under it must not grow with their number: see
//! [`range_queue`](crate::primitives::range_queue). Each is its like's opponent.

use std::future::poll_fn;
use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::primitives::range_queue::{Place, RangeQueue};
use crate::primitives::sync::{Mutex, MutexGuard, lock};
use crate::two_state_lock::Side;

/// Of the two sides that a queue has, all are on this one.
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
    /// Locks `pages`, after all that came before and overlap them. Its place in the order is that of its first poll. Cancel safe:
    /// dropped, it gives its place up.
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

    /// How many have asked to be woken.
    #[cfg(test)]
    fn waiting(&self) -> usize {
        self.queue().counts().1
    }
}

impl RangeGuard {
    /// Waits for one at a time: who remembers all that came before makes the memory grow with the square of their number.
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
