//! The I/O threads of one file: started on demand, fed by one queue.
//!
//! A submission takes the queue's lock for a push and never waits for I/O. A thread is started when more jobs wait than
//! threads do, up to the limit. The first thread is started at once, so a system that refuses threads is noticed at the
//! start, and later refusals only cost parallelism. Jobs start in the order in which they were submitted.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// A handle to the threads. When it is dropped or closed, the threads finish what was submitted and end.
pub(super) struct IoThreads {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// Signalled once per pushed job, and to all when the queue closes.
    wake: Condvar,
    threads_max: usize,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    threads: usize,
    /// Threads that wait in `wake` or were just started for a job that is in the queue.
    idle: usize,
    closed: bool,
}

impl fmt::Debug for IoThreads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queue = self.shared.lock();
        f.debug_struct("IoThreads")
            .field("threads", &queue.threads)
            .field("waiting", &queue.jobs.len())
            .finish()
    }
}

impl IoThreads {
    /// Starts the first thread.
    ///
    /// # Errors
    /// The system refuses the thread.
    pub(super) fn start(threads_max: usize) -> io::Result<Self> {
        assert!(threads_max > 0);
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            wake: Condvar::new(),
            threads_max,
        });
        shared.add_thread(&mut shared.lock())?;
        Ok(Self { shared })
    }

    /// Queues `call`; its result comes through the channel. The caller needn't wait for it.
    pub(super) fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (send, receive) = oneshot::channel();
        let job = Box::new(move || {
            // The caller may be gone; the I/O is done in any case.
            let _ = send.send(call());
        });
        let mut queue = self.shared.lock();
        assert!(!queue.closed, "I/O submitted after close");
        queue.jobs.push_back(job);
        if queue.jobs.len() > queue.idle
            && queue.threads < self.shared.threads_max
            && let Err(error) = self.shared.add_thread(&mut queue)
        {
            tracing::warn!(
                "can't start another I/O thread beside {}: {error}",
                queue.threads
            );
        }
        drop(queue);
        self.shared.wake.notify_one();
        receive
    }

    /// Lets the threads finish what was submitted and end.
    pub(super) fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_all();
    }
}

impl Drop for IoThreads {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Jobs run outside the lock, so a panic can't leave the queue half-changed.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add_thread(self: &Arc<Self>, queue: &mut Queue) -> io::Result<()> {
        let shared = Arc::clone(self);
        thread::Builder::new()
            .name("weir-io".to_owned())
            .spawn(move || shared.work())?;
        queue.threads += 1;
        queue.idle += 1;
        Ok(())
    }

    fn work(&self) {
        let mut queue = self.lock();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                queue.idle -= 1;
                drop(queue);
                job();
                queue = self.lock();
                queue.idle += 1;
            } else if queue.closed {
                queue.threads -= 1;
                queue.idle -= 1;
                return;
            } else {
                queue = self
                    .wake
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

#[cfg(test)]
mod tests;
