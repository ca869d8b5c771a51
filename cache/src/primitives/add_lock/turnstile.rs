//! A fair asynchronous mutex for rare passages: first come, first served.
//!
//! Cancel safe: a waiter that is dropped leaves the queue, and one that was let in but never polled again lets the next
//! one in. It is a few lines over a queue, rather than tokio's, so that loom can run it with the gate.

use std::collections::BTreeMap;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::primitives::sync::{Mutex, lock};

/// The mutex.
pub(super) struct Turnstile {
    queue: Mutex<Queue>,
}

/// Everything here is guarded by the mutex around it.
struct Queue {
    /// A holder is inside. Stays set when the next one is let in, so that no newcomer slips between.
    is_taken: bool,
    next_ticket: u64,
    waiting: BTreeMap<u64, Waker>,
}

impl Turnstile {
    pub(super) fn new() -> Self {
        Self {
            queue: Mutex::new(Queue {
                is_taken: false,
                next_ticket: 0,
                waiting: BTreeMap::new(),
            }),
        }
    }

    /// Waits in line.
    pub(super) fn pass(&self) -> Pass<'_> {
        Pass {
            turnstile: self,
            progress: Progress::Unpolled,
        }
    }

    /// How many waiters are in line.
    pub(super) fn waiters(&self) -> usize {
        lock(&self.queue).waiting.len()
    }

    /// Lets the next one in. Each holder that was let in calls it once.
    pub(super) fn leave(&self) {
        let mut queue = lock(&self.queue);
        assert!(queue.is_taken, "left a turnstile that nobody is in");
        let next = queue.waiting.pop_first();
        queue.is_taken = next.is_some();
        drop(queue);
        if let Some((_, waker)) = next {
            waker.wake();
        }
    }
}

/// Inside the turnstile; the next one is let in when this is dropped.
#[must_use = "the next one is let in when this is dropped"]
pub(super) struct Inside<'a> {
    turnstile: &'a Turnstile,
}

impl Inside<'_> {
    /// Stays inside without the guard; the caller owes the turnstile one [`Turnstile::leave`].
    pub(super) fn leak(self) {
        #[expect(
            clippy::disallowed_methods,
            reason = "the guard's caller gives it back"
        )]
        mem::forget(self);
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.turnstile.leave();
    }
}

/// The future of [`Turnstile::pass`].
pub(super) struct Pass<'a> {
    turnstile: &'a Turnstile,
    progress: Progress,
}

enum Progress {
    Unpolled,
    Queued { ticket: u64 },
    Done,
}

impl<'a> Future for Pass<'a> {
    type Output = Inside<'a>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Inside<'a>> {
        let turnstile = self.turnstile;
        let mut queue = lock(&turnstile.queue);
        match self.progress {
            Progress::Unpolled if queue.is_taken => {
                let ticket = queue.next_ticket;
                queue.next_ticket += 1;
                queue.waiting.insert(ticket, context.waker().clone());
                self.progress = Progress::Queued { ticket };
                return Poll::Pending;
            }
            Progress::Unpolled => queue.is_taken = true,
            Progress::Queued { ticket } => {
                if let Some(waker) = queue.waiting.get_mut(&ticket) {
                    waker.clone_from(context.waker());
                    return Poll::Pending;
                }
            }
            Progress::Done => panic!("polled after it was ready"),
        }
        self.progress = Progress::Done;
        Poll::Ready(Inside { turnstile })
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let Progress::Queued { ticket } = self.progress else {
            return;
        };
        let waker = lock(&self.turnstile.queue).waiting.remove(&ticket);
        if waker.is_none() {
            self.turnstile.leave();
        }
    }
}
