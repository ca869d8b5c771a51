//! Power cuts: what a failure of the power does to volatile memory, and which requests must not outlive it.
//!
//! A cut takes the gate exclusively and drops every page, dirty ones too. No request may report as durable, or as done,
//! what a cut has lost: a FLUSH that looked before the cut finds nothing left to do after it, and a write of which a
//! part was in the cache is no longer whole. So cuts are counted, once when a cut begins and once when it is over, and
//! a request that waits compares. It takes [`Powered`] before the first thing that its success says something about,
//! and looks again after the last. A request that has not begun when the cut comes, such as a write that waits at the
//! add lock, goes on afterwards and finds what the cut has left.
//!
//! A request of several calls (a WRITE of many slices, or one with FUA) can't be seen as one here. So the caller that
//! cuts the power makes sure that no client is there both before and after.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_epoch as epoch;
use weir_faults::Errno;

use crate::durability::writeback::OperationKind;
use crate::frame::{FrameRefs, PAGE_BYTES};
use crate::pace::Pace;
use crate::page_cache::PageCache;

/// Counts the beginnings and ends of power cuts.
#[derive(Debug, Default)]
pub(crate) struct PowerCuts(AtomicU64);

/// When something was begun, as counted by [`PowerCuts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Powered(u64);

impl PowerCuts {
    fn step(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl PageCache {
    /// To be called before a request looks at anything.
    #[inline]
    pub(crate) fn powered(&self) -> Powered {
        Powered(self.power_cuts.0.load(Ordering::SeqCst))
    }

    /// To be called when the request is done.
    ///
    /// # Errors
    /// `EIO` if the power was cut since: what it did, or found done, may be lost.
    #[inline]
    pub(crate) fn still_powered(&self, since: Powered) -> Result<(), Errno> {
        if self.powered() == since {
            Ok(())
        } else {
            Err(Errno::EIO)
        }
    }

    /// Does what a power failure does to volatile memory: drops every page, dirty ones too, and runs `cut` while the
    /// device is still. Requests that were waiting go on afterwards and find what `cut` left in the backend, or fail
    /// with `EIO` if a part of them was done. Cancel safe: once begun it runs to its end.
    ///
    /// `cut` gets what was newer in memory than what the backend durably has, with its offsets: the newest versions
    /// that a disk's volatile cache might have saved at the last moment.
    ///
    /// The caller has ended whatever kept the backend from completing: fills and writes in flight are waited for.
    /// Clients whose requests take several calls must be gone when `cut` returns.
    pub async fn lose_power<T, F>(
        self: &Arc<Self>,
        cut: impl FnOnce(Vec<(u64, FrameRefs)>) -> F + Send + 'static,
    ) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send,
    {
        let cache = Arc::clone(self);
        let task = self.tasks.spawn(async move {
            let guard = cache.add_lock.exclusive().await;
            cache.power_cuts.step();
            let pages = 0..cache.size().div_ceil(PAGE_BYTES);
            let operation = cache.writeback.begin(OperationKind::Blocker, pages.clone());
            let held = cache.shoot_down(guard.as_block(), &pages).await;
            cache.wait_for(OperationKind::Run, &pages).await;
            let mut newest = Vec::with_capacity(held.len());
            let mut pace = Pace::default();
            for page in &held {
                pace.ask(1).await;
                newest.push(cache.held_data(*page));
            }
            let result = cut(newest).await;
            cache.generations.forget();
            cache.lost.forget();
            cache.power_cuts.step();
            cache.release_all_held(&held, true).await;
            drop(operation);
            cache
                .reconcile_blocked(guard.as_block(), 0..cache.size())
                .await;
            drop(guard);
            result
        });
        task.await.expect("a panic aborts the process")
    }

    /// What a held page holds, cut at the end of the device.
    fn held_data(&self, page: u64) -> (u64, FrameRefs) {
        let mut data = FrameRefs::new(Arc::clone(&self.pool));
        let pin = epoch::pin();
        let slot = self
            .table
            .lock(page, &pin)
            .expect("a held page stays in its slot");
        self.push_page(&slot, page, &mut data);
        (page * PAGE_BYTES, data)
    }
}
