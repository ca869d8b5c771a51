//! A store that takes its time, and goes on with what it was asked for, whether or not a caller still waits.
//!
//! io_uring and threads do the same: once a write was handed over, dropping its future only means that no task hears of
//! its end. A store that forgets abandoned calls would hide every order that depends on a caller that may go away.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use weir::backend::memory::MemoryBackend;
use weir_cache::{Backend, BackendFuture, Errno, Filter, FrameRefs, ZeroMode};
use weir_faults::rng::Rng;
use weir_faults::{FaultContext, pause_point};

/// As long as a few other calls.
const CALL_MICROS_MAX: u64 = 2000;
/// The time of a stuck call: a whole batch of others may pass meanwhile.
const STUCK_MICROS_MAX: u64 = 20_000;

/// Memory behind a slow bus.
#[derive(Debug)]
pub struct LastingStore {
    memory: Arc<dyn Backend>,
    seed: u64,
    calls: AtomicU64,
    /// The context of the points `store:write`, `store:discard` and `store:sync`, below everything else.
    context: FaultContext,
}

impl LastingStore {
    /// A device of `size` bytes, all zero. `seed` decides how long each call takes, and `context` what fails.
    #[must_use]
    pub fn new(size: u64, seed: u64, context: FaultContext) -> Self {
        Self::over(Arc::new(MemoryBackend::new(size)), seed, context)
    }

    fn over(memory: Arc<dyn Backend>, seed: u64, context: FaultContext) -> Self {
        Self {
            memory,
            seed,
            calls: AtomicU64::new(0),
            context,
        }
    }

    /// Does `call` in a task of its own, which begins when this is first polled.
    fn lasting<F>(
        &self,
        call: impl FnOnce(Arc<dyn Backend>, FaultContext) -> F + Send + 'static,
    ) -> BackendFuture<'_, Result<(), Errno>>
    where
        F: Future<Output = Result<(), Errno>> + Send + 'static,
    {
        Box::pin(async move {
            let number = self.calls.fetch_add(1, Ordering::Relaxed);
            let mut rng = Rng::of(self.seed, "store", number);
            // Half of the calls end at once: most calls to a device wait for nothing.
            let most = match rng.below(16) {
                0 => Some(STUCK_MICROS_MAX),
                1..8 => Some(CALL_MICROS_MAX),
                _ => None,
            };
            let time = most.map(|most| Duration::from_micros(rng.below(most)));
            let (memory, context) = (Arc::clone(&self.memory), self.context.clone());
            let task = tokio::spawn(async move {
                if let Some(time) = time {
                    tokio::time::sleep(time).await;
                }
                call(memory, context).await
            });
            task.await.expect("a panic aborts the process")
        })
    }
}

impl Filter for LastingStore {
    fn next(&self) -> &dyn Backend {
        &*self.memory
    }

    fn write(&self, offset: u64, data: FrameRefs) -> BackendFuture<'_, Result<(), Errno>> {
        self.lasting(move |memory, context| async move {
            pause_point!(context, "store:write", [EIO, ENOSPC]).await?;
            memory.write(offset, data).await
        })
    }

    fn write_zeroes(
        &self,
        range: Range<u64>,
        mode: ZeroMode,
    ) -> BackendFuture<'_, Result<(), Errno>> {
        self.lasting(move |memory, _| async move { memory.write_zeroes(range, mode).await })
    }

    fn discard(&self, range: Range<u64>) -> BackendFuture<'_, Result<(), Errno>> {
        self.lasting(move |memory, context| async move {
            pause_point!(context, "store:discard", [EIO]).await?;
            memory.discard(range).await
        })
    }

    fn sync(&self) -> BackendFuture<'_, Result<(), Errno>> {
        self.lasting(move |memory, context| async move {
            pause_point!(context, "store:sync", [EIO, ENOSPC]).await?;
            memory.sync().await
        })
    }

    fn cover(&self, range: Range<u64>) -> BackendFuture<'_, Result<(), Errno>> {
        self.next().cover(range)
    }

    fn resize(&self, size: u64) -> BackendFuture<'_, Result<(), Errno>> {
        self.lasting(move |memory, _| async move { memory.resize(size).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_cache::spy::assert_everything_arrives;

    #[tokio::test(start_paused = true)]
    async fn everything_arrives() {
        assert_everything_arrives(|below| LastingStore::over(below, 1, FaultContext::disarmed()))
            .await;
    }
}
