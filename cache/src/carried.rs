//! Work that is completed whoever goes away.
//!
//! A transfer owns the guard and the frames of its pages, so it must never be dropped half-way: the kernel would go on writing
//! to memory that belongs to someone else by then, and its pages would stay `FILLING` for ever. A task of its own would see to
//! that, at the cost of an allocation, a turn in the scheduler and often another core's wake-up, for each miss. Instead its
//! reader carries it: polls it together with its own waiting, and only if the reader is dropped (the client is gone) does a
//! task take over what is not done.
//!
//! Whoever carries work must poll it until it is done or drop it, never keep it without polling: others may wait for it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A future that goes on in a task of its own when it is dropped before it has finished.
pub(crate) struct Carried {
    work: Option<Work>,
    /// Whoever waits for the tracker's tasks waits for this too, carried or not.
    token: TaskTrackerToken,
}

impl Carried {
    /// Work that `tasks` is to count. Nothing of it is done before the first poll.
    pub(crate) fn new(
        tasks: &TaskTracker,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        Self {
            work: Some(Box::pin(work)),
            token: tasks.token(),
        }
    }

    /// Lets a task do it.
    pub(crate) fn detach(self) {
        drop(self);
    }

    fn poll_done(&mut self, task: &mut Context<'_>) -> bool {
        if let Some(work) = &mut self.work
            && work.as_mut().poll(task).is_ready()
        {
            self.work = None;
        }
        self.work.is_none()
    }
}

impl Drop for Carried {
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

/// Does all of `works`, side by side: each is polled once before any is waited for. Cancel safe: what is not done is detached.
pub(crate) async fn carry(mut works: Vec<Carried>) {
    std::future::poll_fn(|task| {
        works.retain_mut(|work| !work.poll_done(task));
        if works.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

#[cfg(test)]
mod tests;
