//! The order of arrival among changes behind the cache's back.
//!
//! Block guards are shared: two trims may work on one region side by side. Two changes of the *same pages* may not. What is
//! submitted to a store runs on although its client has gone, and that client may be back over another connection, have the same
//! pages written anew and be told that they are. A late end of the older change would then undo the younger one.
//!
//! So a change locks its range before anything else. Ranges that overlap are served in the order in which they came, whichever
//! connection they came over; ranges that don't overlap know nothing of each other. A guard is shared by the request and by
//! the task that carries out its part at the moment: a request that is dropped gives its range up as soon as nothing of it is
//! under way any more.
//!
//! **Invariant**: no two guards that have been waited for overlap. A guard waits for those only that came before it, so waits have
//! no cycle. Who has a guard waits for block guards, a turn at the quota and the store, and for nothing else: no client, no memory.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::event::Event;

/// Exclusive ranges of pages, first come first served.
#[derive(Clone, Debug, Default)]
pub(crate) struct RangeLock(Arc<Mutex<Ranges>>);

/// The ranges that are held or waited for.
#[derive(Debug, Default)]
struct Ranges {
    /// By arrival.
    by_place: BTreeMap<u64, Held>,
    /// The place of who comes next.
    next: u64,
}

/// One of them.
#[derive(Debug)]
struct Held {
    pages: Range<u64>,
    over: Arc<Event>,
}

impl Ranges {
    /// The last that came before `place` and overlaps `pages`.
    fn before(&self, place: u64, pages: &Range<u64>) -> Option<Arc<Event>> {
        self.by_place
            .range(..place)
            .rev()
            .map(|(_, earlier)| earlier)
            .find(|earlier| earlier.pages.start < pages.end && pages.start < earlier.pages.end)
            .map(|earlier| Arc::clone(&earlier.over))
    }
}

/// A range, from its arrival on. Given back when dropped.
#[derive(Debug)]
pub(crate) struct RangeGuard {
    lock: RangeLock,
    place: u64,
}

impl RangeLock {
    /// Locks `pages`, after all that came before and overlap them. Its place in the order is that of its first poll. Cancel safe:
    /// dropped, it gives its place up.
    pub(crate) async fn lock(&self, pages: Range<u64>) -> RangeGuard {
        let guard = self.enter(pages.clone());
        // One at a time: who remembers all that came before makes the memory grow with the square of their number.
        loop {
            let before = self.ranges().before(guard.place, &pages);
            let Some(earlier) = before else {
                return guard;
            };
            earlier.wait().await;
        }
    }

    fn enter(&self, pages: Range<u64>) -> RangeGuard {
        let mut ranges = self.ranges();
        let place = ranges.next;
        ranges.next += 1;
        let over = Arc::default();
        ranges.by_place.insert(place, Held { pages, over });
        RangeGuard {
            lock: self.clone(),
            place,
        }
    }

    fn ranges(&self) -> MutexGuard<'_, Ranges> {
        self.0.lock().expect("not poisoned")
    }

    /// How many ranges are held or waited for.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.ranges().by_place.len()
    }

    /// References to those ranges.
    #[cfg(test)]
    fn references(&self) -> usize {
        let ranges = self.ranges();
        let counts = ranges
            .by_place
            .values()
            .map(|held| Arc::strong_count(&held.over));
        counts.sum()
    }
}

impl Drop for RangeGuard {
    fn drop(&mut self) {
        let over = self.lock.ranges().by_place.remove(&self.place);
        over.expect("entered and not over").over.set();
    }
}

#[cfg(test)]
mod tests;
