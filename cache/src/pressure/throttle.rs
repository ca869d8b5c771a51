//! The throttle: writers wait when too much is not durable.
//!
//! Dirty, in-flight, held and unstable pages count together. Below a quarter of the cache a write passes after one
//! load. From a quarter on it pauses, smoothly longer as more is dirty. At half it stops until writeback and sync have
//! made room. Writers pause holding their payload and nothing else, so readers of the same connection are not affected.
//!
//! When writeback makes no progress for [`STALL_LIMIT`], the stopped writers get its last error instead of waiting for
//! ever.
//!
//! # What is progress
//! Progress is what brings pages closer to being clean, and nothing else:
//!
//! - A sync that covers pages is progress. A sync that covers a trim or a zero is not: other requests may go on with
//!   these for ever while no page can be written.
//! - A run that is written is progress, but not after a sync of pages has failed. Then the run is written a second
//!   time, and a store whose syncs always fail would look busy for ever. It is progress again once a sync has covered
//!   pages.

use std::sync::Mutex;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use weir_faults::Errno;

use crate::options::{STALL_LIMIT, THROTTLE_PAUSE_MAX};
use crate::page_cache::PageCache;

/// The writers that were stopped, and the backend's progress.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    room: Notify,
    state: Mutex<Progress>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    last: Option<Instant>,
    /// The last error, if that came after it.
    error: Option<Errno>,
    /// A sync of pages has failed, and none has succeeded since.
    repeats: bool,
}

impl Progress {
    fn advance(&mut self) {
        self.last = Some(Instant::now());
        self.error = None;
    }
}

impl Throttle {
    /// A run of pages has been written, or has failed.
    pub(crate) fn written(&self, result: Result<(), Errno>) {
        let mut state = self.state.lock().expect("not poisoned");
        match result {
            Ok(()) if state.repeats => {}
            Ok(()) => state.advance(),
            Err(errno) => state.error = Some(errno),
        }
        drop(state);
        self.made_room();
    }

    /// A sync that was to cover written pages has ended.
    pub(crate) fn synced(&self, result: Result<(), Errno>) {
        let mut state = self.state.lock().expect("not poisoned");
        state.repeats = result.is_err();
        match result {
            Ok(()) => state.advance(),
            Err(errno) => state.error = Some(errno),
        }
        drop(state);
        self.made_room();
    }

    /// There may be less dirty than before: stopped writers look again.
    pub(crate) fn made_room(&self) {
        self.room.notify_waiters();
    }

    fn now(&self) -> Progress {
        *self.state.lock().expect("not poisoned")
    }
}

impl PageCache {
    /// Pauses or stops the caller while too much is not durable. Cancel safe; the caller holds no guard.
    pub(crate) async fn throttle(&self) -> Result<(), Errno> {
        let unclean = self.unclean_pages();
        if unclean < self.limits.dirty_slow {
            return Ok(());
        }
        self.counters.throttled.add(1);
        self.kick.notify_one();
        if unclean < self.limits.dirty_stop {
            let over = unclean - self.limits.dirty_slow;
            let span = (self.limits.dirty_stop - self.limits.dirty_slow).max(1);
            // Quadratic: hardly felt at first, close to a stop at the end.
            let share = over as f64 / span as f64;
            tokio::time::sleep(THROTTLE_PAUSE_MAX.mul_f64(share * share)).await;
        }
        self.wait_for_room().await
    }

    async fn wait_for_room(&self) -> Result<(), Errno> {
        let mut since = Instant::now();
        loop {
            let room = self.throttle.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if self.unclean_pages() < self.limits.dirty_stop {
                return Ok(());
            }
            let progress = self.throttle.now();
            since = since.max(progress.last.unwrap_or(since));
            self.kick.notify_one();
            if timeout_at(since + STALL_LIMIT, room).await.is_err()
                && self.throttle.now().last.is_none_or(|last| last <= since)
            {
                return Err(self.throttle.now().error.unwrap_or(Errno::EIO));
            }
        }
    }

    /// Wakes the background task when enough is dirty to be worth writing back.
    #[inline]
    pub(crate) fn note_dirty(&self) {
        let dirty = self.table.counts().dirty();
        if dirty >= self.limits.dirty_start {
            self.kick.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
