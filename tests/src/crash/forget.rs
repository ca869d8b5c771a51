//! A disk that forgets when a sync fails, as Linux does: what was being synced counts as written and is not.
//!
//! Of the pages written, zeroed or trimmed since the last sync that succeeded, some, by the seed, go back to what they were
//! then, and later syncs succeed without them. Those that were changed again meanwhile stay: they are dirty in the system's
//! cache. It takes a while: the system forgets a page when it needs the memory, and until then reads see it. A direct read
//! that was submitted before the sync failed may rely on that.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use weir_cache::{
    Backend, BackendExtent, BackendFuture, Capabilities, FrameBuf, FrameRefs, Geometry, ZeroMode,
};
use weir_faults::rng::Rng;
use weir_faults::{Errno, FaultContext};

use super::disk::{Mark, RecordedDisk};
use super::history::History;

/// Longer than the injected delays of a read together.
const REMEMBERED_MIN: Duration = Duration::from_millis(12);
/// Within one phase, most of the time.
const REMEMBERED_MORE_MICROS: u64 = 15_000;

/// The decorator, above all that lets a sync fail.
#[derive(Debug)]
pub struct ForgetfulDisk {
    inner: Arc<dyn Backend>,
    disk: Arc<RecordedDisk>,
    history: Arc<Mutex<History>>,
    seed: u64,
    failures: AtomicU64,
}

impl ForgetfulDisk {
    /// Lets `disk`, to which `inner` leads, forget, and `history` know.
    #[must_use]
    pub fn new(
        inner: Arc<dyn Backend>,
        disk: Arc<RecordedDisk>,
        history: Arc<Mutex<History>>,
        seed: u64,
    ) -> Self {
        Self {
            inner,
            disk,
            history,
            seed,
            failures: AtomicU64::new(0),
        }
    }

    async fn sync_or_forget(&self, context: &FaultContext) -> Result<(), Errno> {
        let mark = self.disk.mark();
        let begun = self.history.lock().expect("not poisoned").moment();
        let outcome = self.inner.sync(context).await;
        // A sync that the power cut has failed leaves to the cut what survives.
        if !self.disk.is_current(mark) {
            return outcome;
        }
        if outcome.is_ok() {
            self.disk.synced(mark);
            self.history.lock().expect("not poisoned").synced(begun);
        } else {
            self.forget_later(mark);
        }
        outcome
    }

    fn forget_later(&self, mark: Mark) {
        let number = self.failures.fetch_add(1, Ordering::Relaxed);
        let mut rng = Rng::of(self.seed, "forget", number);
        self.history.lock().expect("not poisoned").shaken();
        let mut pages = self.disk.unsynced_pages(mark);
        pages.retain(|_| rng.below(2) == 0);
        let remembered = REMEMBERED_MIN + Duration::from_micros(rng.below(REMEMBERED_MORE_MICROS));
        let disk = Arc::clone(&self.disk);
        tokio::spawn(async move {
            tokio::time::sleep(remembered).await;
            for page in pages {
                disk.forget(mark, page).await;
            }
        });
    }
}

impl Backend for ForgetfulDisk {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn read_vectored_at<'a>(
        &'a self,
        context: &'a FaultContext,
        offset: u64,
        buffer: FrameBuf,
    ) -> BackendFuture<'a, (FrameBuf, Result<(), Errno>)> {
        self.inner.read_vectored_at(context, offset, buffer)
    }

    fn write_vectored_at<'a>(
        &'a self,
        context: &'a FaultContext,
        offset: u64,
        data: FrameRefs,
    ) -> BackendFuture<'a, Result<(), Errno>> {
        self.inner.write_vectored_at(context, offset, data)
    }

    fn write_zeroes<'a>(
        &'a self,
        context: &'a FaultContext,
        range: Range<u64>,
        mode: ZeroMode,
    ) -> BackendFuture<'a, Result<(), Errno>> {
        self.inner.write_zeroes(context, range, mode)
    }

    fn discard<'a>(
        &'a self,
        context: &'a FaultContext,
        range: Range<u64>,
    ) -> BackendFuture<'a, Result<(), Errno>> {
        self.inner.discard(context, range)
    }

    fn extents<'a>(
        &'a self,
        context: &'a FaultContext,
        range: Range<u64>,
        most: usize,
    ) -> BackendFuture<'a, Result<Vec<BackendExtent>, Errno>> {
        self.inner.extents(context, range, most)
    }

    fn sync<'a>(&'a self, context: &'a FaultContext) -> BackendFuture<'a, Result<(), Errno>> {
        Box::pin(self.sync_or_forget(context))
    }

    fn submit(&self) {
        self.inner.submit();
    }

    fn cover<'a>(
        &'a self,
        context: &'a FaultContext,
        range: Range<u64>,
    ) -> BackendFuture<'a, Result<(), Errno>> {
        self.inner.cover(context, range)
    }

    fn resize<'a>(
        &'a self,
        context: &'a FaultContext,
        size: u64,
    ) -> BackendFuture<'a, Result<(), Errno>> {
        self.inner.resize(context, size)
    }

    fn close(&self) -> BackendFuture<'_, Result<(), Errno>> {
        self.inner.close()
    }
}
