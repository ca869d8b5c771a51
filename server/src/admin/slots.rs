//! Who is connected to the admin port, and who goes for the next.
//!
//! A port that is needed most when something is wrong must not be shut by clients that hang on to it. So nobody waits to be let
//! in, and what is bounded is bounded by kind:
//!
//! - **Who asks nothing now**, has asked half a question, or takes an answer slowly is *idle*. Of these there are
//!   [`IDLE_MAX`]; the next connection takes the place of the one that has been idle for longest.
//! - **Who waits** for something that may never come (events, a pause, a store) keeps its connection for as long as that takes. Of
//!   each kind there are [`WAITING_MAX`]; the next request of that kind is refused with words, and all others go on. What
//!   ends a wait (a rule removed, a device thawed, a point released) is of no such kind.
//!
//! The first keeps the descriptors of this port within [`DESCRIPTORS_MAX`]; the server sets so many aside.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Body;
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt as _;
use tokio_util::sync::CancellationToken;

use super::ApiError;

/// Idle connections: many scripts, and a small share of a process' descriptors.
pub(super) const IDLE_MAX: usize = 64;

/// Requests of one kind that wait: more than people and scripts have at a time.
pub(super) const WAITING_MAX: usize = 32;

/// Descriptors of all connections together, and one that is accepted before another is closed for it.
pub(crate) const DESCRIPTORS_MAX: usize = IDLE_MAX + WAITING_KINDS * WAITING_MAX + 1;

const WAITING_KINDS: usize = 3;

/// What a request may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    /// Events that are yet to come.
    Events,
    /// Somebody to be paused at a point.
    Pause,
    /// An export's store.
    Store,
}

impl Waiting {
    /// What this request waits for, if anything.
    fn of(request: &Request) -> Option<Self> {
        let query = request.uri().query().unwrap_or_default();
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/v1/events") => Some(Self::Events),
            (&Method::GET, "/v1/points") if query.contains("paused") => Some(Self::Pause),
            (&Method::POST, "/v1/exports") => Some(Self::Store),
            _ => None,
        }
    }

    fn refusal(self) -> ApiError {
        let what = match self {
            Self::Events => "follow events",
            Self::Pause => "wait for a pause",
            Self::Store => "wait for an export's store",
        };
        let message = format!("{WAITING_MAX} requests {what} already; end one of them first");
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }
}

/// The connections that are open.
#[derive(Debug, Default)]
pub(super) struct Slots(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Counts what happens; whoever has a lower number has been so for longer.
    clock: u64,
    open: BTreeMap<u64, Connection>,
    /// By [`Waiting`].
    waiting: [usize; WAITING_KINDS],
}

#[derive(Debug)]
struct Connection {
    /// Since when it is idle, by the clock; none while it waits.
    idle_since: Option<u64>,
    close: CancellationToken,
}

impl Inner {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn idle(&self) -> usize {
        let idle = |connection: &&Connection| connection.idle_since.is_some();
        self.open.values().filter(idle).count()
    }

    /// Closes the connection that has been idle for longest.
    fn close_oldest(&mut self) {
        let idle = self
            .open
            .iter()
            .filter_map(|(id, connection)| Some((connection.idle_since?, *id)));
        if let Some((_, id)) = idle.min()
            && let Some(connection) = self.open.remove(&id)
        {
            connection.close.cancel();
        }
    }
}

impl Slots {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new connection, idle as yet; at the cost of the oldest idle one if there are enough.
    pub(super) fn enter(self: &Arc<Self>) -> Slot {
        let mut inner = self.lock();
        while inner.idle() >= IDLE_MAX {
            inner.close_oldest();
        }
        let id = inner.tick();
        let close = CancellationToken::new();
        let connection = Connection {
            idle_since: Some(id),
            close: close.clone(),
        };
        inner.open.insert(id, connection);
        let slots = Arc::clone(self);
        Slot { slots, id, close }
    }

    /// Gives a descriptor back if there is an idle connection.
    pub(super) fn close_oldest(&self) {
        self.lock().close_oldest();
    }
}

/// A connection's place. Dropping it gives it up.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Arc<Slots>,
    id: u64,
    close: CancellationToken,
}

impl Slot {
    /// Cancelled when another takes its place.
    pub(super) fn close(&self) -> &CancellationToken {
        &self.close
    }

    /// How its requests find it.
    pub(super) fn handle(&self) -> SlotHandle {
        let slots = Arc::clone(&self.slots);
        SlotHandle { slots, id: self.id }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.lock().open.remove(&self.id);
    }
}

/// The place of the connection that a request came by.
#[derive(Clone, Debug)]
pub(super) struct SlotHandle {
    slots: Arc<Slots>,
    id: u64,
}

impl SlotHandle {
    /// It has just asked something: others have been idle for longer.
    fn touch(&self) {
        let mut inner = self.slots.lock();
        let now = inner.tick();
        if let Some(connection) = inner.open.get_mut(&self.id) {
            connection.idle_since = Some(now);
        }
    }

    /// Keeps the connection while a request waits, if there is room for one of its kind.
    fn wait(&self, waiting: Waiting) -> Option<Waits> {
        let mut inner = self.slots.lock();
        if inner.waiting[waiting as usize] >= WAITING_MAX {
            return None;
        }
        // One that was closed meanwhile is about to end, with this request.
        inner.open.get_mut(&self.id)?.idle_since = None;
        inner.waiting[waiting as usize] += 1;
        let handle = self.clone();
        Some(Waits { handle, waiting })
    }
}

/// A request that waits. Dropping it makes its connection an idle one.
struct Waits {
    handle: SlotHandle,
    waiting: Waiting,
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.handle.slots.lock().waiting[self.waiting as usize] -= 1;
        self.handle.touch();
    }
}

/// Lets a request that waits do so within its kind's budget. Its body has arrived.
pub(super) async fn admit(request: Request, next: Next) -> Response {
    let Some(handle) = request.extensions().get::<SlotHandle>().cloned() else {
        // Not by a socket.
        return next.run(request).await;
    };
    handle.touch();
    let Some(waiting) = Waiting::of(&request) else {
        return next.run(request).await;
    };
    let Some(waits) = handle.wait(waiting) else {
        return waiting.refusal().into_response();
    };
    let response = next.run(request).await;
    if waiting != Waiting::Events {
        return response;
    }
    // Its answer is what waits.
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _until_the_end = &waits;
            frame
        }))
    })
}

#[cfg(test)]
mod tests;
