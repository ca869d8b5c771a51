//! The task that takes the ring's completions, submits what no caller submits, and watches the clock.
#![expect(
    unsafe_code,
    reason = "submits entries whose memory the ring keeps alive"
)]

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Sleep;

use super::{Operation, Shared};
use crate::limits::IO_REPORT_AFTER;

/// How long to wait when the kernel has no memory for a submission. Each completion frees some and wakes the driver
/// earlier, if anything is under way.
const SUBMIT_RETRY: Duration = Duration::from_millis(1);

/// How often the ages of transfers are checked.
const REPORT_EVERY: Duration = IO_REPORT_AFTER.checked_div(2).expect("not by zero");

/// The ring's descriptor.
struct Watched(Arc<Shared>);

impl AsRawFd for Watched {
    fn as_raw_fd(&self) -> RawFd {
        self.0.ring.as_raw_fd()
    }
}

pub(super) struct Driver {
    watched: AsyncFd<Watched>,
    shared: Arc<Shared>,
    /// The kernel had no room for what was pushed.
    unsubmitted: bool,
    /// The next check for slow transfers, or the next try to submit.
    timer: Pin<Box<Sleep>>,
    timer_is_set: bool,
    timer_is_for_submission: bool,
    wakers: Vec<Waker>,
    finished: Vec<Operation>,
}

impl Driver {
    /// A driver for the current runtime.
    ///
    /// # Errors
    /// The ring can't be watched.
    pub(super) fn new(shared: Arc<Shared>) -> io::Result<Self> {
        let watched = Watched(Arc::clone(&shared));
        // SAFETY: a ring has one descriptor, never exchanges it, and closes it when it is dropped, after this.
        let watched = unsafe { AsyncFd::register_with_interest(watched, Interest::READABLE) }?;
        Ok(Self {
            watched,
            shared,
            unsubmitted: false,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            timer_is_set: false,
            timer_is_for_submission: false,
            wakers: Vec::new(),
            finished: Vec::new(),
        })
    }

    /// Drives the ring until it is closed and nothing is under way.
    pub(super) async fn run(mut self) {
        poll_fn(|task| self.poll(task)).await;
    }

    fn poll(&mut self, task: &mut Context<'_>) -> Poll<()> {
        loop {
            self.unsubmitted = self.push(task) && !self.shared.tell_kernel();
            let completed = self.complete();
            let ready = match self.watched.poll_read_ready(task) {
                Poll::Ready(guard) => {
                    // This comes before the next look at the completions, so a later completion is announced anew.
                    guard
                        .unwrap_or_else(|error| panic!("a ring can't be watched: {error}"))
                        .clear_ready();
                    true
                }
                Poll::Pending => false,
            };
            let due = self.poll_timer(task);
            if completed || ready || due {
                continue;
            }
            return match self.is_over() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            };
        }
    }

    fn is_over(&self) -> bool {
        let state = self.shared.lock();
        state.closed && state.queued.is_empty() && state.under_way == 0
    }

    /// Moves queued operations into the ring's queue; says whether that holds anything.
    fn push(&self, task: &Context<'_>) -> bool {
        let mut state = self.shared.lock();
        if !state
            .driver
            .as_ref()
            .is_some_and(|driver| driver.will_wake(task.waker()))
        {
            state.driver = Some(task.waker().clone());
        }
        self.shared.push_to_tell(&mut state)
    }

    /// Takes the completions; says whether there were any.
    fn complete(&mut self) -> bool {
        let mut completed = false;
        // SAFETY: the driver alone takes completions.
        let queue = unsafe { self.shared.ring.completion_shared() };
        let mut state = None;
        for entry in queue {
            let state = state.get_or_insert_with(|| self.shared.lock());
            completed = true;
            state.under_way -= 1;
            let key = usize::try_from(entry.user_data()).expect("a key");
            let operation = &mut state.operations[key];
            operation.outcome = Some(entry.result());
            if operation.abandoned {
                self.finished.push(state.operations.remove(key));
            } else {
                self.wakers.extend(operation.waiter.take());
            }
        }
        drop(state);
        self.wakers.drain(..).for_each(Waker::wake);
        self.finished.clear();
        completed
    }

    /// Watches the clock; says whether there is something to do. Once it is set for slow transfers it is left to run
    /// out, however many come and go: setting it for each would cost too much.
    fn poll_timer(&mut self, task: &mut Context<'_>) -> bool {
        if self.unsubmitted && !(self.timer_is_set && self.timer_is_for_submission) {
            self.set_timer(SUBMIT_RETRY);
            self.timer_is_for_submission = true;
        } else if !self.timer_is_set {
            if self.shared.lock().under_way == 0 {
                return false;
            }
            self.set_timer(REPORT_EVERY);
            self.timer_is_for_submission = false;
        }
        if self.timer.as_mut().poll(task).is_pending() {
            return false;
        }
        self.timer_is_set = false;
        self.report();
        true
    }

    fn set_timer(&mut self, wait: Duration) {
        self.timer
            .as_mut()
            .reset(tokio::time::Instant::now() + wait);
        self.timer_is_set = true;
    }

    /// Names transfers that take too long, each once.
    fn report(&self) {
        let mut late = Vec::new();
        for (_, operation) in &mut self.shared.lock().operations {
            let since = operation.since.filter(|_| operation.outcome.is_none());
            if since.is_some_and(|since| since.elapsed() >= IO_REPORT_AFTER) && !operation.reported
            {
                operation.reported = true;
                late.push((Arc::clone(&operation.file), operation.offset));
            }
        }
        for (file, offset) in late {
            tracing::warn!(
                "{}: a transfer at {offset} takes longer than {} s; is the disk well?",
                file.path.display(),
                IO_REPORT_AFTER.as_secs()
            );
        }
    }
}
