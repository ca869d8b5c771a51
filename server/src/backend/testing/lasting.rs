//! A store whose calls outlive their callers, as io_uring's and a thread's do: dropping the future of a write only means that
//! nobody waits for it. Writes and discards can be held up, to be let go in any order.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;
use weir_cache::{
    Backend, BackendExtent, BackendFuture, Capabilities, FrameBuf, FrameRefs, Geometry, ZeroMode,
};
use weir_faults::{Errno, FaultContext};

use super::super::MemoryBackend;

/// Memory that goes on with what it was asked for.
#[derive(Debug)]
pub(crate) struct LastingStore {
    memory: Arc<MemoryBackend>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    holds: bool,
    held: VecDeque<oneshot::Sender<()>>,
    discard_error: Option<Errno>,
    syncs: usize,
}

impl LastingStore {
    pub(crate) fn new(size: u64) -> Self {
        Self {
            memory: Arc::new(MemoryBackend::new(size)),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    /// Writes and discards that come from now on wait to be let go, or no longer.
    pub(crate) fn hold(&self, hold: bool) {
        self.state().holds = hold;
    }

    /// How many are held up.
    pub(crate) fn held(&self) -> usize {
        self.state().held.len()
    }

    /// Lets the newest that is held up go: so an older one lands last.
    pub(crate) fn let_newest_go(&self) {
        let newest = self.state().held.pop_back().expect("one is held up");
        // The task waits: whether anybody waits for the task is another matter.
        newest.send(()).expect("a task");
    }

    /// How often it was synced.
    pub(crate) fn syncs(&self) -> usize {
        self.state().syncs
    }

    /// Does `change` in a task of its own, which waits first if it is held up.
    async fn lasting(
        &self,
        change: impl Future<Output = Result<(), Errno>> + Send + 'static,
    ) -> Result<(), Errno> {
        let held = {
            let mut state = self.state();
            state.holds.then(|| {
                let (go, held) = oneshot::channel();
                state.held.push_back(go);
                held
            })
        };
        let task = tokio::spawn(async move {
            if let Some(held) = held {
                held.await.expect("it is let go");
            }
            change.await
        });
        task.await.expect("it doesn't panic")
    }

    /// What discards fail with.
    pub(crate) fn fail_discards(&self, errno: Option<Errno>) {
        self.state().discard_error = errno;
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
        self.memory.write_zeroes(context, range, mode)
    }

    fn discard<'a>(
        &'a self,
        context: &'a FaultContext,
        range: Range<u64>,
    ) -> BackendFuture<'a, Result<(), Errno>> {
        let (memory, context) = (Arc::clone(&self.memory), context.clone());
        let error = self.state().discard_error;
        Box::pin(self.lasting(async move {
            error.map_or(Ok(()), Err)?;
            memory.discard(&context, range).await
        }))
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
        self.state().syncs += 1;
        self.memory.sync(context)
    }

    fn resize<'a>(
        &'a self,
        context: &'a FaultContext,
        size: u64,
    ) -> BackendFuture<'a, Result<(), Errno>> {
        self.memory.resize(context, size)
    }

    fn close(&self) -> BackendFuture<'_, Result<(), Errno>> {
        self.memory.close()
    }
}
