//! The throttle: writers wait when too much is not durable.
//!
//! Dirty, in-flight, held and unstable pages count together. Below a quarter of the cache a write passes after one load; from
//! a quarter on it pauses, smoothly longer as more is dirty; at half it stops until writeback and sync have made room. Writers
//! pause holding their payload and nothing else, so readers of the same connection are not affected.
//!
//! When the backend makes no progress for [`STALL_LIMIT`] the stopped writers get its last error instead of waiting for ever.

use std::sync::Mutex;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use weir_faults::Errno;

use crate::options::{STALL_LIMIT, THROTTLE_PAUSE_MAX};
use crate::page_cache::PageCache;

/// Who was stopped, and how the backend does.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    room: Notify,
    state: Mutex<Progress>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// When the backend last completed a write or a sync.
    last: Option<Instant>,
    /// Its last error, if that came after the last success.
    error: Option<Errno>,
}

impl Throttle {
    /// The backend has completed a writeback or a sync, or failed to.
    pub(crate) fn progress(&self, result: Result<(), Errno>) {
        let mut state = self.state.lock().expect("not poisoned");
        match result {
            Ok(()) => {
                *state = Progress {
                    last: Some(Instant::now()),
                    error: None,
                }
            }
            Err(errno) => state.error = Some(errno),
        }
        drop(state);
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
        let dirty = self.counts.dirty.load(std::sync::atomic::Ordering::Relaxed);
        if dirty >= self.limits.dirty_start {
            self.kick.notify_one();
        }
    }
}
