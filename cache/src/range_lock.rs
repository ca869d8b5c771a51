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

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use slab::Slab;

use crate::event::Event;

/// Exclusive ranges of pages, first come first served.
#[derive(Clone, Debug, Default)]
pub(crate) struct RangeLock(Arc<Mutex<Slab<Arc<Held>>>>);

/// One range that is held or waited for.
#[derive(Debug)]
struct Held {
    pages: Range<u64>,
    over: Event,
}

/// A range, from its arrival on. Given back when dropped.
#[derive(Debug)]
pub(crate) struct RangeGuard {
    lock: RangeLock,
    key: usize,
    held: Arc<Held>,
}

impl RangeLock {
    /// Locks `pages`, after all that came before and overlap them. Its place in the order is that of its first poll. Cancel safe:
    /// dropped, it gives its place up.
    pub(crate) async fn lock(&self, pages: Range<u64>) -> RangeGuard {
        let (guard, before) = self.enter(pages);
        for earlier in before {
            earlier.over.wait().await;
        }
        guard
    }

    fn enter(&self, pages: Range<u64>) -> (RangeGuard, Vec<Arc<Held>>) {
        let mut ranges = self.ranges();
        let before = ranges
            .iter()
            .map(|(_, earlier)| earlier)
            .filter(|earlier| earlier.pages.start < pages.end && pages.start < earlier.pages.end)
            .cloned()
            .collect();
        let held = Arc::new(Held {
            pages,
            over: Event::default(),
        });
        let guard = RangeGuard {
            lock: self.clone(),
            key: ranges.insert(Arc::clone(&held)),
            held,
        };
        (guard, before)
    }

    fn ranges(&self) -> MutexGuard<'_, Slab<Arc<Held>>> {
        self.0.lock().expect("not poisoned")
    }

    /// How many ranges are held or waited for.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.ranges().len()
    }
}

impl Drop for RangeGuard {
    fn drop(&mut self) {
        self.lock.ranges().remove(self.key);
        self.held.over.set();
    }
}

#[cfg(test)]
mod tests;
