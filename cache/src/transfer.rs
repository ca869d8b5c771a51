//! Work that is completed even if its request goes away.
//!
//! A transfer owns the guard and the frames of its pages, so it must never be dropped half-way: the kernel would go on
//! writing to memory that has another owner by then, and the pages would stay `FILLING` for ever. A task for each
//! transfer would prevent this, but it would cost each miss an allocation, a turn in the scheduler and often the
//! wake-up of another core. Instead the reader carries the transfer: it polls the transfer together with its own
//! waiting. If the reader is dropped (the client is gone), a task takes over what is not done. A FLUSH carries the runs
//! that it writes back, and the background task carries its own runs. Runs that complete together are settled together,
//! in one poll.
//!
//! The carrier of work must poll it until it is done, or drop it. It must never keep work without polling it, because
//! others may wait for that work.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use smallvec::SmallVec;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// A future that goes on in a task of its own when it is dropped before it has finished.
pub(crate) struct Transfer<T: Send + 'static = ()> {
    work: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    /// A wait for the tracker's tasks includes this work, carried or not.
    token: TaskTrackerToken,
}

impl<T: Send> Transfer<T> {
    /// Work that `tasks` is to count. No part of it is done before the first poll.
    pub(crate) fn new(tasks: &TaskTracker, work: impl Future<Output = T> + Send + 'static) -> Self {
        Self {
            work: Some(Box::pin(work)),
            token: tasks.token(),
        }
    }

    /// Lets a task do it.
    pub(crate) fn detach(self) {
        drop(self);
    }
}

impl<T: Send> Future for Transfer<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<T> {
        let work = self.work.as_mut().expect("not polled when it is done");
        let outcome = std::task::ready!(work.as_mut().poll(task));
        self.work = None;
        Poll::Ready(outcome)
    }
}

impl<T: Send> Drop for Transfer<T> {
    fn drop(&mut self) {
        let Some(work) = self.work.take() else { return };
        // Without a runtime the process is past its end, and nothing can complete any more.
        if let Ok(runtime) = Handle::try_current() {
            let token = self.token.clone();
            runtime.spawn(async move {
                work.await;
                drop(token);
            });
        }
    }
}

/// Works of one slice; mostly one.
pub(crate) type Works = SmallVec<[Transfer; 1]>;

/// Does all of `works`, side by side: each is polled once before any is waited for. Cancel safe: what is not done is
/// detached.
pub(crate) async fn carry(mut works: Works) {
    poll_fn(|task| {
        works.retain(|work| Pin::new(work).poll(task).is_pending());
        if works.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

/// Works that come one after the other and are carried together.
pub(crate) struct Carrier<T: Send + 'static = ()>(FuturesUnordered<Transfer<T>>);

impl<T: Send> Default for Carrier<T> {
    fn default() -> Self {
        Self(FuturesUnordered::new())
    }
}

impl<T: Send> Carrier<T> {
    /// Begins `work` now and carries it. Returns the outcome if the work is done already. Doesn't wait.
    pub(crate) async fn begin(&mut self, mut work: Transfer<T>) -> Option<T> {
        let outcome = poll_fn(|task| match Pin::new(&mut work).poll(task) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending => Poll::Ready(None),
        })
        .await;
        if outcome.is_none() {
            // Polled once more there, which lets it wake up alone.
            self.0.push(work);
        }
        outcome
    }

    /// The outcome of the next work that is done; `None` if nothing is left.
    pub(crate) fn poll_next(&mut self, task: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.poll_next_unpin(task)
    }
}

#[cfg(test)]
mod tests;
