//! The task that owns the ring: it alone submits and takes completions.
#![allow(unsafe_code)]

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use io_uring::IoUring;
use nix::libc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Sleep;

use super::{Operation, Shared};
use crate::limits::{IO_REPORT_AFTER, RING_DEPTH};

/// How long to wait when the kernel has no memory to take a submission: it frees some when anything completes, which wakes
/// the driver earlier if anything is under way.
const SUBMIT_RETRY: Duration = Duration::from_millis(1);

/// How often transfers are looked at for their age.
const REPORT_EVERY: Duration = IO_REPORT_AFTER.checked_div(2).expect("not by zero");

struct Driver {
    ring: AsyncFd<IoUring>,
    shared: Arc<Shared>,
    under_way: usize,
    /// Pushed, and not taken by the kernel yet.
    unsubmitted: bool,
    /// The next look at what takes long, or the next try to submit.
    timer: Pin<Box<Sleep>>,
    timer_is_set: bool,
    timer_is_for_submission: bool,
    wakers: Vec<Waker>,
    finished: Vec<Operation>,
}

/// Drives the ring until it is closed and nothing is under way.
pub(super) async fn run(ring: IoUring, shared: Arc<Shared>) {
    // SAFETY: a ring has one descriptor and closes it when it is dropped; it is never exchanged for another.
    let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }
        .unwrap_or_else(|error| panic!("a ring can't be watched: {error}"));
    let mut driver = Driver {
        ring,
        shared,
        under_way: 0,
        unsubmitted: false,
        timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
        timer_is_set: false,
        timer_is_for_submission: false,
        wakers: Vec::new(),
        finished: Vec::new(),
    };
    poll_fn(|task| driver.poll(task)).await;
}

impl Driver {
    fn poll(&mut self, task: &mut Context<'_>) -> Poll<()> {
        loop {
            let pushed = self.push(task);
            if pushed || self.unsubmitted {
                self.submit();
            }
            let completed = self.complete();
            let ready = match self.ring.poll_read_ready(task) {
                Poll::Ready(guard) => {
                    // Before the completions are looked at again: one that comes after this is announced anew.
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
        state.closed && state.queued.is_empty() && self.under_way == 0
    }

    /// Moves queued operations into the submission queue; says whether there were any.
    fn push(&mut self, task: &Context<'_>) -> bool {
        let mut state = self.shared.lock();
        if !state
            .driver
            .as_ref()
            .is_some_and(|driver| driver.will_wake(task.waker()))
        {
            state.driver = Some(task.waker().clone());
        }
        let mut queue = self.ring.get_mut().submission();
        let mut now = None;
        let mut pushed = false;
        while self.under_way < RING_DEPTH as usize
            && !queue.is_full()
            && let Some(key) = state.queued.pop_front()
        {
            let operation = &mut state.operations[key];
            operation.since = Some(*now.get_or_insert_with(Instant::now));
            // SAFETY: nothing in the list changes an operation's memory, vectors or file, and it stays in the list until
            // `complete` has seen its completion (the driver's drop leaks the list otherwise).
            let entry = unsafe { operation.entry(key) };
            // SAFETY: as above; the entry's pointers stay valid for as long as the kernel works on it.
            unsafe { queue.push(&entry) }.expect("not full");
            self.under_way += 1;
            pushed = true;
        }
        pushed
    }

    /// Tells the kernel of what was pushed.
    fn submit(&mut self) {
        self.unsubmitted = false;
        loop {
            match self.ring.get_ref().submit() {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN | libc::EBUSY | libc::ENOMEM) => {
                        self.unsubmitted = true;
                        break;
                    }
                    _ => panic!("io_uring_enter: {error}"),
                },
            }
        }
        // A submission may stop half-way at an entry that fails at once; the rest is still to be taken.
        self.unsubmitted |= !self.ring.get_mut().submission().is_empty();
    }

    /// Takes the completions; says whether there were any.
    fn complete(&mut self) -> bool {
        let mut completed = 0;
        {
            let queue = self.ring.get_mut().completion();
            let mut state = None;
            for entry in queue {
                let state = state.get_or_insert_with(|| self.shared.lock());
                let key = usize::try_from(entry.user_data()).expect("a key");
                let operation = &mut state.operations[key];
                operation.outcome = Some(entry.result());
                completed += 1;
                if operation.abandoned {
                    self.finished.push(state.operations.remove(key));
                } else {
                    self.wakers.extend(operation.waiter.take());
                }
            }
        }
        self.under_way -= completed;
        self.wakers.drain(..).for_each(Waker::wake);
        self.finished.clear();
        completed > 0
    }

    /// Looks after the clock; says whether there is something to be done. Once set for slow transfers it is left to run out,
    /// however many come and go: setting it for each would cost more than it is worth.
    fn poll_timer(&mut self, task: &mut Context<'_>) -> bool {
        let for_submission = self.unsubmitted;
        if for_submission && !(self.timer_is_set && self.timer_is_for_submission) {
            self.set_timer(SUBMIT_RETRY);
            self.timer_is_for_submission = true;
        } else if self.under_way > 0 && !self.timer_is_set {
            self.set_timer(REPORT_EVERY);
            self.timer_is_for_submission = false;
        }
        if !self.timer_is_set || self.timer.as_mut().poll(task).is_pending() {
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

impl Drop for Driver {
    fn drop(&mut self) {
        if self.under_way > 0 {
            // The runtime ends under running transfers: the kernel may still write to their frames, so they are never freed.
            let operations = std::mem::take(&mut self.shared.lock().operations);
            std::mem::forget(operations);
        }
    }
}
