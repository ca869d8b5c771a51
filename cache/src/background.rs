//! The background task of a cache: writeback by amount and by age, and Weir's own syncs.
//!
//! - From [`dirty_start`](crate::options::Limits) dirty pages on, everything dirty is written back.
//! - A page older than [`DIRTY_AGE`] is written back though little is dirty. Ages are told by flush epochs: every tick ends an
//!   epoch, and a page remembers the epoch of its first write.
//! - When enough is written but not synced, or someone waits for memory or room, the backend is synced: only then may pages
//!   be evicted.
//! - After a failure the next attempt waits, longer each time up to a limit. A FLUSH does not wait for that: it tries at once.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use weir_faults::Errno;

use crate::frame::PAGE_BYTES;
use crate::options::{DIRTY_AGE, RETRY_FIRST, RETRY_LAST, TICK};
use crate::page_cache::PageCache;
use std::sync::atomic::Ordering;

/// Runs until the cache is closed or dropped; holds it only while there is something to do.
pub(crate) async fn run(cache: Weak<PageCache>, kick: Arc<Notify>, closing: CancellationToken) {
    let mut ages = Ages::default();
    let mut retry = RETRY_FIRST;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // In this order, not by chance: the same events make the same schedule. The tick comes seldom and keeps out nobody.
        let ticked = tokio::select! {
            biased;
            () = closing.cancelled() => return,
            _ = tick.tick() => true,
            () = kick.notified() => false,
        };
        let Some(strong) = cache.upgrade() else {
            return;
        };
        if ticked {
            ages.tick(&strong);
        }
        let worked = tokio::select! {
            biased;
            () = closing.cancelled() => return,
            worked = strong.tend(&mut ages) => worked,
        };
        drop(strong);
        if worked.is_ok() {
            retry = RETRY_FIRST;
            continue;
        }
        tokio::select! {
            biased;
            () = closing.cancelled() => return,
            () = tokio::time::sleep(retry) => retry = (retry * 2).min(RETRY_LAST),
        }
    }
}

/// Which epochs ended when.
#[derive(Debug, Default)]
struct Ages(VecDeque<(Instant, u64)>);

impl Ages {
    fn tick(&mut self, cache: &PageCache) {
        if cache.counts.dirty.load(Ordering::Relaxed) > 0 {
            self.0
                .push_back((Instant::now(), cache.generations.next_epoch()));
        }
    }

    /// The youngest epoch that ended at least `age` ago.
    fn older_than(&mut self, age: Duration) -> Option<u64> {
        let mut covered = None;
        while let Some((_, epoch)) = self.0.pop_front_if(|(ended, _)| ended.elapsed() >= age) {
            covered = Some(epoch);
        }
        covered
    }
}

impl PageCache {
    /// Does what is due.
    async fn tend(self: &Arc<Self>, ages: &mut Ages) -> Result<(), Errno> {
        let everything = 0..self.size().div_ceil(PAGE_BYTES);
        let pressed = self.pool.waiting() > 0 || self.unclean_pages() >= self.limits.dirty_slow;
        let dirty = self.counts.dirty.load(Ordering::Relaxed);
        let covered = if pressed || dirty >= self.limits.dirty_start {
            Some(u64::MAX)
        } else {
            ages.older_than(DIRTY_AGE)
        };
        if let Some(covered) = covered
            && dirty > 0
        {
            let pass = self.write_back(&self.background, everything, covered).await;
            if let Some(errno) = pass.error {
                return Err(errno);
            }
        }
        let unstable = self.counts.unstable.load(Ordering::Relaxed);
        if unstable > 0
            && (unstable >= self.limits.unstable_sync || self.pool.waiting() > 0 || pressed)
        {
            self.sync(&self.background).await?;
        }
        Ok(())
    }
}
