//! Time limits of a connection, watched by a coarse tick: no request arms a timer or reads a clock for them.
//!
//! At each tick the watch looks at what moved since the previous tick. A tick is at most a quarter of the shortest
//! limit, and a limit is kept to within one tick. No timer runs for a connection that is quiet, keeps no memory for its
//! client and has no idle limit.
//!
//! # A byte a second
//! A client that goes on a little at a time must not keep what others want for ever. So its pace counts: at least
//! [`PACE_BYTES_MIN`](crate::limits::PACE_BYTES_MIN), averaged over [`PACE_WINDOW`](crate::limits::PACE_WINDOW).
//!
//! - The pace is about two kinds of memory: memory kept for a WRITE whose data is still to come, and memory pinned by
//!   replies that are not sent yet. A client that is slower than the pace with either is disconnected, if meanwhile
//!   another request waited for such memory or was refused it. If none was, the client may be as slow as it likes. It
//!   must be memory of the same kind: a client that keeps pages of the cache isn't in the way of requests that wait for
//!   room of the fault rules, nor the other way round.
//! - What fault rules keep for one request may be half of all room, so it has a time limit. It has to be done in
//!   [`ROOM_TIME_MAX`](crate::limits::ROOM_TIME_MAX), and the pace that this takes applies if it is higher.
//! - The idle limit counts ticks in which no request was answered or worked on and less was received than that pace
//!   requires. Bytes in the middle of a request count like all others.

use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::end::End;
use super::receive::Receive;
use super::transmission::Transmission;
use crate::limits::{PACE_BYTES_MIN, PACE_WINDOW, ROOM_TIME_MAX, Timeouts};

/// The longest tick: how soon a quiet connection gives its buffers back.
const TICK_MAX: Duration = Duration::from_secs(1);
/// The shortest tick, for limits so short that a quarter of them would be nothing.
const TICK_MIN: Duration = Duration::from_millis(5);
/// A client that takes nothing of its replies for so many ticks, while others wait for memory, is let go: others must
/// not lack the memory that it pins for as long as the write limit.
const HOARDING_TICKS: u32 = 2;
/// A limit is checked this often while it runs.
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
    /// Requests answered so far.
    pub(super) requests: u64,
    /// Whether requests wait for memory of the kind that its replies keep.
    pub(super) short: bool,
    /// Bytes that its replies keep outside the cache.
    pub(super) room: usize,
    /// Whether memory is kept for what the client is to send.
    pub(super) ahead: bool,
    /// Whether requests wait for such memory.
    pub(super) short_ahead: bool,
    /// Bytes that are kept for it outside the cache.
    pub(super) room_ahead: usize,
    /// How often other requests were refused such memory in the cache so far.
    pub(super) refusals: u64,
}

/// What a tick found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tick {
    /// There is nothing to do.
    Nothing,
    /// The connection has become quiet: buffers can go.
    Quiet,
    /// The connection was quiet for longer than the idle limit.
    Idle,
    /// The client has read nothing for longer than the write limit.
    Stalled,
    /// The client has read nothing for a few ticks, or hardly anything for longer, and others wait for the pages of its
    /// replies.
    Hoarding,
    /// The client hardly sends the data that memory is kept for, and others want that memory.
    HoardingAhead,
}

/// How fast a client goes on with what memory is kept for.
#[derive(Debug, Default)]
struct Progress {
    /// For how long memory has been kept.
    kept: Duration,
    /// The running window: its age, what the client did in it, and whether others wanted the memory.
    age: Duration,
    bytes: u64,
    wanted: bool,
    /// What the client should have done.
    due: u64,
}

impl Progress {
    /// A tick in which the client did `bytes`; says whether it is too slow for the requests that want the memory.
    /// `room` is how much is kept outside the cache.
    fn judge(
        &mut self,
        keeps: bool,
        bytes: u64,
        wanted: bool,
        room: usize,
        tick: Duration,
    ) -> bool {
        if !keeps {
            *self = Self::default();
            return false;
        }
        self.kept += tick;
        self.age += tick;
        self.bytes += bytes;
        self.due += in_time(pace_min(room), tick);
        self.wanted |= wanted;
        if self.age < PACE_WINDOW {
            return false;
        }
        let hoards = self.wanted && self.bytes < self.due;
        *self = Self {
            kept: self.kept,
            ..Self::default()
        };
        hoards
    }
}

/// The slowest pace that counts as going on, in bytes a second, for a client for which so much is kept outside the
/// cache.
fn pace_min(room: usize) -> u64 {
    PACE_BYTES_MIN.max(room as u64 / ROOM_TIME_MAX.as_secs())
}

/// How many bytes that is in this time, which is no longer than a few ticks.
fn in_time(pace: u64, time: Duration) -> u64 {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    pace.saturating_mul(millis) / 1000
}

/// Watches one connection.
#[derive(Debug)]
pub(super) struct Watch {
    sleep: Pin<Box<Sleep>>,
    armed: bool,
    tick: Duration,
    idle_max: Option<Duration>,
    stalled_max: Duration,
    idle: Duration,
    stalled: Duration,
    received: u64,
    sent: u64,
    requests: u64,
    refusals: u64,
    sending: Progress,
    taking: Progress,
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
            idle: Duration::ZERO,
            stalled: Duration::ZERO,
            received: 0,
            sent: 0,
            requests: 0,
            refusals: 0,
            sending: Progress::default(),
            taking: Progress::default(),
        }
    }

    /// Starts ticking again after the connection was quiet. This is cheap when it ticks already.
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

    /// For how long memory has been kept for what the client is to send.
    pub(super) fn kept_ahead(&self) -> Duration {
        self.sending.kept
    }

    /// Ready at each tick, when it asks for the activity to judge.
    pub(super) fn poll(
        &mut self,
        task: &mut Context<'_>,
        activity: impl FnOnce() -> Activity,
    ) -> Poll<Tick> {
        if !self.armed || self.sleep.as_mut().poll(task).is_pending() {
            return Poll::Pending;
        }
        let activity = activity();
        let tick = self.judge(activity);
        // Quiet without an idle limit: nothing can happen before the next wake-up, unless others want what is kept for
        // the connection.
        if tick == Tick::Quiet && self.idle_max.is_none() && !activity.ahead {
            self.armed = false;
        } else {
            self.rearm();
        }
        Poll::Ready(tick)
    }

    fn judge(&mut self, now: Activity) -> Tick {
        let sent = now.sent - mem::replace(&mut self.sent, now.sent);
        let received = now.received - mem::replace(&mut self.received, now.received);
        let answered = now.requests != mem::replace(&mut self.requests, now.requests);
        let refused = now.refusals != mem::replace(&mut self.refusals, now.refusals);
        let stalled = now.pending && sent == 0;
        let quiet = !now.pending && !now.busy && received == 0;
        let idle =
            !now.pending && !now.busy && !answered && received < in_time(PACE_BYTES_MIN, self.tick);
        self.stalled = if stalled {
            self.stalled + self.tick
        } else {
            Duration::ZERO
        };
        self.idle = if idle {
            self.idle + self.tick
        } else {
            Duration::ZERO
        };
        let wanted = now.short_ahead || (refused && now.room_ahead == 0);
        let hoards_ahead =
            self.sending
                .judge(now.ahead, received, wanted, now.room_ahead, self.tick);
        let hoards = self
            .taking
            .judge(now.pending, sent, now.short, now.room, self.tick);
        if self.stalled >= self.stalled_max {
            Tick::Stalled
        } else if hoards || now.short && self.stalled >= HOARDING_TICKS * self.tick {
            Tick::Hoarding
        } else if hoards_ahead {
            Tick::HoardingAhead
        } else if self.idle_max.is_some_and(|most| self.idle >= most) {
            Tick::Idle
        } else if quiet {
            Tick::Quiet
        } else {
            Tick::Nothing
        }
    }
}

impl Transmission<'_> {
    /// Time limits.
    pub(super) fn poll_watch(&mut self, task: &mut Context<'_>) -> Result<bool, End> {
        if self.output.can_send() {
            self.watch.wake();
        }
        while let Poll::Ready(tick) = self.watch.poll(task, || Activity {
            received: self.input.received(),
            sent: self.output.sent(),
            requests: self.connection.counts().requests(),
            pending: self.output.can_send(),
            short: {
                let pins = self.output.pinned() > 0 || !self.sliced_reads.is_empty();
                pins && self.cache.pool().is_short()
                    || self.output.own_bytes() > 0 && self.held.replies().is_short()
            },
            room: self.output.own_bytes(),
            busy: !self.slow.is_empty()
                || !self.sliced_reads.is_empty()
                || self
                    .receiving
                    .as_ref()
                    .is_some_and(|receive| !receive.wants_input()),
            ahead: held_ahead(self.receiving.as_ref()) > 0,
            short_ahead: match room_ahead(self.receiving.as_ref()) {
                0 => self.cache.pool().is_short(),
                _ => self.held.payloads().is_short(),
            },
            room_ahead: room_ahead(self.receiving.as_ref()),
            refusals: self.cache.payloads_refused(),
        }) {
            match tick {
                Tick::Nothing => {}
                Tick::Quiet => {
                    self.input.release();
                    self.output.release();
                }
                Tick::Idle => return Err(End::Idle),
                Tick::Stalled => self.end_unless_owed(End::Stalled)?,
                Tick::Hoarding => self.end_unless_owed(End::Hoarding)?,
                Tick::HoardingAhead => return Err(self.name_hoarder()),
            }
        }
        Ok(false)
    }

    /// Logs which client kept memory that others wanted.
    #[cold]
    fn name_hoarder(&self) -> End {
        let connection = self.connection;
        tracing::warn!(
            connection = connection.id(),
            peer = connection.peer(),
            export = connection.export(),
            "closing a connection: {} bytes were kept for a WRITE for {:?}, of which the client sent less than {} a second while others wanted them",
            held_ahead(self.receiving.as_ref()),
            self.watch.kept_ahead(),
            pace_min(room_ahead(self.receiving.as_ref())),
        );
        End::HoardingAhead
    }
}

/// Bytes of memory that are kept for what the client is to send.
fn held_ahead(receiving: Option<&Receive>) -> usize {
    receiving.map_or(0, Receive::held_ahead)
}

/// How much of that lies outside the cache.
fn room_ahead(receiving: Option<&Receive>) -> usize {
    receiving.map_or(0, Receive::room_ahead)
}

#[cfg(test)]
mod tests;
