//! Long work on pages, with the others' turns in between.
//!
//! What goes over pages in memory waits for nothing, so the runtime has no chance to let anybody else go on: a trim of 4 GiB of
//! cached pages would keep a processor, and every session on it, for some 50 ms. So every loop whose length a client or an
//! operator decides says how many steps it is about to make, a page being one, and waits for the others' turn when it is time.
//!
//! # Whose time
//! A session carries up to 256 requests in one task. Even if each of them made little of its way at a time, all of them together
//! would make too much. So the steps are taken off the budget that the runtime gives a task each time that it is polled: once that is
//! used up, everything in this task that asks before it goes on has to wait, and so has all that waits for the runtime's sockets,
//! semaphores and locks. One poll comes to [`STEPS_PER_POLL`], whoever makes them.
//!
//! Nothing may be held over a turn that others need to go on: no page lock, no epoch. Guards may be: who waits for them
//! waits for the work, however it is cut. Other threads go on beside such a loop in any case, so a turn in the middle lets nothing
//! be seen that couldn't be seen before.

/// Steps that cost a task one unit of its budget.
const STEPS_PER_UNIT: usize = 64;

/// Steps of one poll of a task: tokio gives it 128 units. Some hundreds of microseconds.
#[cfg(test)]
const STEPS_PER_POLL: usize = 128 * STEPS_PER_UNIT;

/// Steps that are made without asking: some tens of microseconds.
pub(crate) const STEPS_AT_ONCE: usize = 1024;

/// Counts the steps of long work.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    steps: usize,
}

impl Pace {
    /// So many steps are about to be made: lets others have their turn first if it is time. Cancel safe.
    #[inline]
    pub(crate) async fn ask(&mut self, steps: usize) {
        self.steps += steps;
        while self.steps >= STEPS_PER_UNIT {
            self.steps -= STEPS_PER_UNIT;
            tokio::task::coop::consume_budget().await;
        }
    }
}

#[cfg(test)]
mod tests;
