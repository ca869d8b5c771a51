//! Bytes outside the cache that are kept for clients because of fault rules and frozen devices.
//!
//! A WRITE that a rule has taken waits with its payload, and what a READ or BLOCK_STATUS has read for a rule waits for its client;
//! neither lies in pages of the cache. All connections of an export share a room for each of the two, of
//! [`HELD_BYTES_MAX`]. The two are apart, since payloads wait for rules and data waits for clients.
//!
//! # Order
//! A request takes all that it needs at once, in the order of asking, and holds none of the room while it waits. So of two that fit one
//! after the other, one always goes on: no two have half of what they need. The largest request fits alone. Whoever waits has
//! its socket unread, and leaves the queue by being dropped: its client has gone, or the server stops.
//!
//! # Who ends a wait
//! What holds a payload: the end of its rule or freeze, or that of its connection. Clients that have room for a payload and
//! send it too slowly, or take their data too slowly, while others wait are let go by their session's watch: all of it has to be
//! through in [`ROOM_TIME_MAX`](crate::limits::ROOM_TIME_MAX).

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
pub(crate) struct HeldBytes(#[allow(dead_code)] OwnedSemaphorePermit); // held, not read

impl Room {
    /// Room for `bytes` of one request, if there is at once and nobody waits.
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

    /// Whether requests wait for it: whoever holds some without need stands in their way.
    pub(crate) fn is_short(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// How much of it is taken.
    fn bytes(&self) -> usize {
        HELD_BYTES_MAX - self.free.available_permits()
    }
}

/// Requests are no longer than [`MAX_PAYLOAD`]; the bound only keeps this total.
fn permits(bytes: usize) -> u32 {
    u32::try_from(bytes.min(HELD_BYTES_MAX)).expect("HELD_BYTES_MAX is below 4 GiB")
}

/// One that waits.
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
