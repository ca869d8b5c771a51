//! Long work on pages, with the turns of others in between.
//!
//! A loop over pages in memory waits for nothing, so the runtime has no chance to let other tasks go on. A trim of 4
//! GiB of cached pages would keep a processor, and every session on it, for some 50 ms. So every loop whose length a
//! client or an operator decides says how many steps it is about to make, a page being one, and lets others have their
//! turn when it is time.
//!
//! # The budget
//! A session carries up to 256 requests in one task. Even if each of them made few steps at a time, all of them
//! together would make too many. So steps are taken off the budget that the runtime gives a task each time it is
//! polled. When that is used up, all work of this task that asks has to wait for the next poll, and so has everything
//! that waits for the runtime's sockets, semaphores and locks. One poll comes to [`STEPS_PER_POLL`], whatever makes
//! them.
//!
//! Those in one task take turns, too. A budget that one of them uses up is used up for all, and the one that is polled
//! first the next time has it again. So a single walk over everything could starve its neighbours, and some of these
//! carry transfers that other clients wait for. After [`STEPS_AT_ONCE`] a walk therefore gets in line behind the others
//! of its task.
//!
//! # What may be held
//! A loop gives up its turn without anything that others need to go on: no page lock, no epoch. It may keep guards,
//! since whatever waits for a guard waits for the whole work, however it is cut. Other threads run beside such a loop
//! in any case, so a turn in the middle shows nothing that couldn't be seen before.

use std::future::poll_fn;
use std::task::Poll;

/// Steps that cost a task one unit of its budget.
const STEPS_PER_UNIT: usize = 64;

/// Steps of one poll of a task: tokio gives it 128 units. Some hundreds of microseconds.
const STEPS_PER_POLL: usize = 128 * STEPS_PER_UNIT;

/// Steps that are made without asking: some tens of microseconds.
pub(crate) const STEPS_AT_ONCE: usize = 1024;

/// Counts the steps of long work.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    steps: usize,
    /// Steps since the neighbours in the task had their turn.
    since_neighbours: usize,
    /// Steps since the runtime had its turn.
    since_runtime: usize,
}

impl Pace {
    /// So many steps are about to be made: lets others have their turn first if it is time. Cancel safe.
    #[inline]
    pub(crate) async fn ask(&mut self, steps: usize) {
        self.steps += steps;
        while self.steps >= STEPS_PER_UNIT {
            self.take_turns().await;
            self.steps -= STEPS_PER_UNIT;
            self.since_neighbours += STEPS_PER_UNIT;
            tokio::task::coop::consume_budget().await;
        }
    }

    /// Lets the neighbours go on if it is time, and the runtime, which looks for what has come from outside.
    async fn take_turns(&mut self) {
        if self.since_neighbours < STEPS_AT_ONCE {
            return;
        }
        self.since_runtime += std::mem::take(&mut self.since_neighbours);
        if self.since_runtime < STEPS_PER_POLL {
            return let_neighbours_go_on().await;
        }
        self.since_runtime = 0;
        // A turn of the neighbours, too. Whoever only wakes itself keeps the runtime busy.
        tokio::task::yield_now().await;
    }
}

/// Goes to the end of the task's own queue: by a waker that is woken at once. Those that the runtime wakes when it has
/// had its turn, as after [`yield_now`](tokio::task::yield_now) or without a budget, come in an order in which some are
/// last again and again.
async fn let_neighbours_go_on() {
    let mut gone_on = false;
    poll_fn(|task| {
        if gone_on {
            return Poll::Ready(());
        }
        gone_on = true;
        task.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests;
