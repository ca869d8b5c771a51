//! Bytes outside the cache that are kept for clients because of fault rules and frozen devices.
//!
//! The payload of a WRITE waits here while a rule or a freeze keeps the WRITE. What a READ or BLOCK_STATUS has read for
//! a rule waits here until its client has taken it. Neither lies in pages of the cache. All connections of an export
//! share one room for payloads and one for replies, of [`HELD_BYTES_MAX`] each. The two are apart because payloads wait
//! for rules and replies wait for clients.
//!
//! # Order
//! A request takes all that it needs at once, in the order of asking, and holds none of the room while it waits. So two
//! requests that fit one after the other never have half of what they need each, and one of them always goes on. The
//! largest request fits alone. A connection with a waiting request leaves its socket unread. A request leaves the queue
//! by being dropped: its client has gone, or the server stops.
//!
//! # What ends a wait
//! A payload is kept until its rule or freeze ends, or its connection does. A client that sends too slowly what room is
//! kept for, or takes its replies too slowly, is disconnected by the watch of its session while others wait: all of it
//! has to be through in [`ROOM_TIME_MAX`](crate::limits::ROOM_TIME_MAX).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use weir_protocol::constants::MAX_PAYLOAD;

use crate::limits::{BYTES_IN_FLIGHT_MAX, HELD_BYTES_MAX};

const _: () = assert!(HELD_BYTES_MAX > BYTES_IN_FLIGHT_MAX + MAX_PAYLOAD as usize);

/// What is kept for the clients of an export.
#[derive(Debug, Default)]
pub struct HeldMemory {
    payloads: Arc<Room>,
    replies: Arc<Room>,
}

impl HeldMemory {
    /// Room for payloads of WRITEs.
    pub(crate) fn payloads(&self) -> &Arc<Room> {
        &self.payloads
    }

    /// Room for what READs and BLOCK_STATUS have read.
    pub(crate) fn replies(&self) -> &Arc<Room> {
        &self.replies
    }

    /// How many bytes are kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.payloads.bytes() + self.replies.bytes()
    }
}

/// Waits for room.
pub(crate) type HeldFuture = Pin<Box<dyn Future<Output = HeldBytes> + Send>>;

/// A number of bytes, of which requests take theirs in turn.
#[derive(Debug)]
pub(crate) struct Room {
    free: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            free: Arc::new(Semaphore::new(HELD_BYTES_MAX)),
            waiting: AtomicUsize::new(0),
        }
    }
}

/// A request's part of a [`Room`]; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct HeldBytes(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

impl Room {
    /// Takes room for `bytes` of one request, if it is free at once and no other request waits.
    pub(crate) fn try_take(&self, bytes: usize) -> Option<HeldBytes> {
        let free = Arc::clone(&self.free);
        let taken = free.try_acquire_many_owned(permits(bytes));
        taken.ok().map(HeldBytes)
    }

    /// Room for `bytes` of one request. Waits in turn, holding none. Cancel safe.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> impl Future<Output = HeldBytes> + use<> {
        let room = Arc::clone(self);
        async move {
            if let Some(held) = room.try_take(bytes) {
                return held;
            }
            let _waiting = Waiting::announce(&room);
            let free = Arc::clone(&room.free);
            let taken = free.acquire_many_owned(permits(bytes)).await;
            HeldBytes(taken.expect("never closed"))
        }
    }

    /// Whether requests wait for room: a request that holds some without need stands in their way.
    pub(crate) fn is_short(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// How much of it is taken.
    fn bytes(&self) -> usize {
        HELD_BYTES_MAX - self.free.available_permits()
    }
}

/// Requests are no longer than [`MAX_PAYLOAD`]; the bound only keeps this function total.
fn permits(bytes: usize) -> u32 {
    u32::try_from(bytes.min(HELD_BYTES_MAX)).expect("HELD_BYTES_MAX is below 4 GiB")
}

/// A request that waits.
struct Waiting<'a>(&'a Room);

impl<'a> Waiting<'a> {
    fn announce(room: &'a Room) -> Self {
        room.waiting.fetch_add(1, Ordering::Relaxed);
        Self(room)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
