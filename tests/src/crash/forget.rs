//! A disk that forgets when a sync fails, as Linux does: the data of that sync counts as written although it isn't.
//!
//! Some of the pages written, zeroed or trimmed since the last successful sync, chosen by the seed, go back to their
//! state at that sync. Later syncs succeed without them. Those that were changed again meanwhile stay: they are dirty
//! in the system's cache. That takes a while: the system forgets a page when it needs the memory, and until then reads
//! see it. A direct read that was submitted before the sync failed may rely on that.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use weir_cache::{Backend, BackendFuture, Errno, Filter};
use weir_faults::rng::Rng;

use super::disk::{Mark, RecordedDisk};
use super::history::History;

/// Longer than the injected delays of a read together.
const REMEMBERED_MIN: Duration = Duration::from_millis(12);
/// Within one phase, most of the time.
const REMEMBERED_MORE_MICROS: u64 = 15_000;

/// The decorator, above everything that lets a sync fail.
#[derive(Debug)]
pub struct ForgetfulDisk {
    next: Arc<dyn Backend>,
    disk: Arc<RecordedDisk>,
    history: Arc<Mutex<History>>,
    seed: u64,
    failures: AtomicU64,
}

impl ForgetfulDisk {
    /// Lets `disk`, to which `next` leads, forget, and tells `history`.
    #[must_use]
    pub fn new(
        next: Arc<dyn Backend>,
        disk: Arc<RecordedDisk>,
        history: Arc<Mutex<History>>,
        seed: u64,
    ) -> Self {
        Self {
            next,
            disk,
            history,
            seed,
            failures: AtomicU64::new(0),
        }
    }

    async fn sync_or_forget(&self) -> Result<(), Errno> {
        let mark = self.disk.mark();
        let begun = self.history.lock().expect("not poisoned").moment();
        let outcome = self.next.sync().await;
        // If a power cut failed the sync, the cut decides what survives.
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

impl Filter for ForgetfulDisk {
    fn next(&self) -> &dyn Backend {
        &*self.next
    }

    fn sync(&self) -> BackendFuture<'_, Result<(), Errno>> {
        Box::pin(self.sync_or_forget())
    }

    /// The range of a promise is synced, and the disk forgets only what isn't.
    fn cover(&self, range: Range<u64>) -> BackendFuture<'_, Result<(), Errno>> {
        self.next().cover(range)
    }
}

#[cfg(test)]
mod tests {
    use super::super::content::CELL;
    use super::*;
    use weir::backend::memory::MemoryBackend;
    use weir::backend::power_cut::PowerCutBackend;
    use weir_cache::spy::{SPY_BYTES, assert_everything_arrives};
    use weir_faults::FaultContext;

    #[tokio::test]
    async fn everything_arrives() {
        assert_everything_arrives(|below| {
            let cells = usize::try_from(SPY_BYTES / CELL).expect("a small device");
            let elsewhere = Arc::new(MemoryBackend::new(SPY_BYTES));
            let power = PowerCutBackend::new(elsewhere, FaultContext::disarmed());
            let disk = RecordedDisk::new(Arc::new(power.expect("address space")), cells);
            let history = Arc::new(Mutex::new(History::new(cells)));
            ForgetfulDisk::new(below, Arc::new(disk), history, 1)
        })
        .await;
    }
}
