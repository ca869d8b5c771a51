//! A store whose calls outlive their callers, as io_uring's and a thread's do: dropping the future of a write only
//! means that no task waits for it. Writes and discards can be held up and released in any order.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;
use weir_cache::{Backend, BackendFuture, Errno, Filter, FrameRefs};

use super::super::MemoryBackend;

/// Memory that continues what it was asked for.
#[derive(Debug)]
pub(crate) struct LastingStore {
    memory: Arc<dyn Backend>,
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
        Self::over(Arc::new(MemoryBackend::new(size)))
    }

    fn over(memory: Arc<dyn Backend>) -> Self {
        Self {
            memory,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    /// Writes and discards that come from now on wait to be released, or no longer do.
    pub(crate) fn hold(&self, hold: bool) {
        self.state().holds = hold;
    }

    /// How many are held up.
    pub(crate) fn held(&self) -> usize {
        self.state().held.len()
    }

    /// Releases the newest that is held up, so that an older one lands last.
    pub(crate) fn let_newest_go(&self) {
        let newest = self.state().held.pop_back().expect("one is held up");
        // The task itself waits, whether or not anything waits for the task.
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

impl Filter for LastingStore {
    fn next(&self) -> &dyn Backend {
        &*self.memory
    }

    fn write(&self, offset: u64, data: FrameRefs) -> BackendFuture<'_, Result<(), Errno>> {
        let memory = Arc::clone(&self.memory);
        Box::pin(self.lasting(async move { memory.write(offset, data).await }))
    }

    fn discard(&self, range: Range<u64>) -> BackendFuture<'_, Result<(), Errno>> {
        let memory = Arc::clone(&self.memory);
        let error = self.state().discard_error;
        Box::pin(self.lasting(async move {
            error.map_or(Ok(()), Err)?;
            memory.discard(range).await
        }))
    }

    fn sync(&self) -> BackendFuture<'_, Result<(), Errno>> {
        self.state().syncs += 1;
        self.next().sync()
    }

    fn cover(&self, range: Range<u64>) -> BackendFuture<'_, Result<(), Errno>> {
        self.next().cover(range)
    }
}

#[tokio::test]
async fn everything_arrives() {
    weir_cache::spy::assert_everything_arrives(LastingStore::over).await;
}
