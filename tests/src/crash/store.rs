//! A store that takes its time, and goes on with what it was asked for whoever waits for it.
//!
//! So do io_uring and threads: once a write was handed over, dropping its future only means that nobody hears of its end. A
//! store that forgets what nobody waits for would hide every order that rests on a caller who may go away.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use weir::backend::memory::MemoryBackend;
use weir_cache::{
    Backend, BackendExtent, BackendFuture, Capabilities, FrameBuf, FrameRefs, Geometry, ZeroMode,
};
use weir_faults::rng::Rng;
use weir_faults::{Errno, FaultContext};

/// As long as a few other calls.
const CALL_MICROS_MAX: u64 = 2000;
/// Of one that is stuck: a whole batch of others may pass meanwhile.
const STUCK_MICROS_MAX: u64 = 20_000;

/// Memory behind a slow bus.
#[derive(Debug)]
pub struct LastingStore {
    memory: Arc<MemoryBackend>,
    seed: u64,
    calls: AtomicU64,
}

impl LastingStore {
    /// A device of `size` bytes, all zero; how long each call takes comes of `seed`.
    #[must_use]
    pub fn new(size: u64, seed: u64) -> Self {
        Self {
            memory: Arc::new(MemoryBackend::new(size)),
            seed,
            calls: AtomicU64::new(0),
        }
    }

    /// Does `call` in a task of its own, begun when this is first polled.
    async fn lasting(
        &self,
        call: impl Future<Output = Result<(), Errno>> + Send + 'static,
    ) -> Result<(), Errno> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let mut rng = Rng::of(self.seed, "store", number);
        // Half of them come at once: most of what is done to a device waits for nothing.
        let most = match rng.below(16) {
            0 => Some(STUCK_MICROS_MAX),
            1..8 => Some(CALL_MICROS_MAX),
            _ => None,
        };
        let time = most.map(|most| Duration::from_micros(rng.below(most)));
        let task = tokio::spawn(async move {
            if let Some(time) = time {
                tokio::time::sleep(time).await;
            }
            call.await
        });
        task.await.expect("a panic aborts the process")
    }
}

impl Backend for LastingStore {
    fn geometry(&self) -> Geometry {
        self.memory.geometry()
    }

    fn capabilities(&self) -> Capabilities {
        self.memory.capabilities()
    }

    fn read_vectored_at<'a>(
        &'a self,
        context: &'a FaultContext,
        offset: u64,
        buffer: FrameBuf,
    ) -> BackendFuture<'a, (FrameBuf, Result<(), Errno>)> {
        self.memory.read_vectored_at(context, offset, buffer)
    }

    fn write_vectored_at<'a>(
        &'a self,
        context: &'a FaultContext,
        offset: u64,
        data: FrameRefs,
    ) -> BackendFuture<'a, Result<(), Errno>> {
        let (memory, context) = (Arc::clone(&self.memory), context.clone());
        Box::pin(
            self.lasting(async move { memory.write_vectored_at(&context, offset, data).await }),
        )
    }

    fn write_zeroes<'a>(
        &'a self,
        context: &'a FaultContext,
        range: Range<u64>,
        mode: ZeroMode,
    ) -> BackendFuture<'a, Result<(), Errno>> {
        let (memory, context) = (Arc::clone(&self.memory), context.clone());
        Box::pin(self.lasting(async move { memory.write_zeroes(&context, range, mode).await }))
    }

    fn discard<'a>(
        &'a self,
        context: &'a FaultContext,
        range: Range<u64>,
    ) -> BackendFuture<'a, Result<(), Errno>> {
        let (memory, context) = (Arc::clone(&self.memory), context.clone());
        Box::pin(self.lasting(async move { memory.discard(&context, range).await }))
    }

    fn extents<'a>(
        &'a self,
        context: &'a FaultContext,
        range: Range<u64>,
        most: usize,
    ) -> BackendFuture<'a, Result<Vec<BackendExtent>, Errno>> {
        self.memory.extents(context, range, most)
    }

    fn sync<'a>(&'a self, context: &'a FaultContext) -> BackendFuture<'a, Result<(), Errno>> {
        let (memory, context) = (Arc::clone(&self.memory), context.clone());
        Box::pin(self.lasting(async move { memory.sync(&context).await }))
    }

    fn resize<'a>(
        &'a self,
        context: &'a FaultContext,
        size: u64,
    ) -> BackendFuture<'a, Result<(), Errno>> {
        let (memory, context) = (Arc::clone(&self.memory), context.clone());
        Box::pin(self.lasting(async move { memory.resize(&context, size).await }))
    }

    fn close(&self) -> BackendFuture<'_, Result<(), Errno>> {
        self.memory.close()
    }
}
