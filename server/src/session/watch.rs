//! Time limits of a connection, watched by a coarse tick: no request arms a timer or reads a clock for them.
//!
//! At each tick the watch looks at what moved since the last one. A limit is therefore kept to within one tick, a quarter
//! of the limit at most. A connection that is quiet and has no idle limit has no timer running at all.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::limits::Timeouts;

/// The longest tick: how soon a quiet connection gives its buffers back.
const TICK_MAX: Duration = Duration::from_secs(1);
/// The shortest tick, for limits so short that a quarter of them would be nothing.
const TICK_MIN: Duration = Duration::from_millis(5);
/// A client that takes nothing of its replies for so many ticks, while others wait for memory, is let go: what slow clients pin
/// must not starve the rest for as long as the write limit.
const HOARDING_TICKS: u32 = 2;
/// A limit is looked at this often while it runs.
const TICKS_PER_LIMIT: u32 = 4;

/// What a connection is doing, as far as its limits go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Activity {
    /// Bytes received so far.
    pub(super) received: u64,
    /// Bytes sent so far.
    pub(super) sent: u64,
    /// Whether something waits for the socket.
    pub(super) pending: bool,
    /// Whether the server works on something for this client.
    pub(super) busy: bool,
    /// Whether requests wait for memory.
    pub(super) short: bool,
}

/// What a tick found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tick {
    /// Nothing to be done.
    Nothing,
    /// The connection has become quiet: buffers can go.
    Quiet,
    /// It was quiet for longer than the idle limit.
    Idle,
    /// The client has read nothing for longer than the write limit.
    Stalled,
    /// The client has read nothing since the last tick, and others wait for the pages of its replies.
    Hoarding,
}

/// Watches one connection.
#[derive(Debug)]
pub(super) struct Watch {
    sleep: Pin<Box<Sleep>>,
    armed: bool,
    tick: Duration,
    idle_max: Option<Duration>,
    stalled_max: Duration,
    quiet: Duration,
    stalled: Duration,
    received: u64,
    sent: u64,
}

impl Watch {
    pub(super) fn new(timeouts: &Timeouts) -> Self {
        let shortest = timeouts
            .idle
            .map_or(timeouts.write, |idle| idle.min(timeouts.write));
        let tick = (shortest / TICKS_PER_LIMIT).clamp(TICK_MIN, TICK_MAX);
        Self {
            sleep: Box::pin(tokio::time::sleep(tick)),
            armed: true,
            tick,
            idle_max: timeouts.idle,
            stalled_max: timeouts.write,
            quiet: Duration::ZERO,
            stalled: Duration::ZERO,
            received: 0,
            sent: 0,
        }
    }

    /// Starts ticking again after the connection was quiet. Cheap when it ticks already.
    #[inline]
    pub(super) fn wake(&mut self) {
        if !self.armed {
            self.rearm();
        }
    }

    fn rearm(&mut self) {
        self.armed = true;
        self.sleep.as_mut().reset(Instant::now() + self.tick);
    }

    /// Ready at each tick.
    pub(super) fn poll(&mut self, task: &mut Context<'_>, activity: Activity) -> Poll<Tick> {
        if !self.armed || self.sleep.as_mut().poll(task).is_pending() {
            return Poll::Pending;
        }
        let tick = self.judge(activity);
        // Quiet without an idle limit: nothing can happen before the next wake-up.
        if tick == Tick::Quiet && self.idle_max.is_none() {
            self.armed = false;
        } else {
            self.rearm();
        }
        Poll::Ready(tick)
    }

    fn judge(&mut self, now: Activity) -> Tick {
        let stalled = now.pending && now.sent == self.sent;
        let quiet = !now.pending && !now.busy && now.received == self.received;
        self.sent = now.sent;
        self.received = now.received;
        self.stalled = if stalled {
            self.stalled + self.tick
        } else {
            Duration::ZERO
        };
        self.quiet = if quiet {
            self.quiet + self.tick
        } else {
            Duration::ZERO
        };
        if self.stalled >= self.stalled_max {
            Tick::Stalled
        } else if now.short && self.stalled >= HOARDING_TICKS * self.tick {
            Tick::Hoarding
        } else if self.idle_max.is_some_and(|most| self.quiet >= most) {
            Tick::Idle
        } else if quiet {
            Tick::Quiet
        } else {
            Tick::Nothing
        }
    }
}

#[cfg(test)]
mod tests;
