//! The connections to the admin port, and which of them makes room for the next.
//!
//! The port is needed most when something is wrong, so clients that hang on to it must not be able to shut it. So no
//! connection waits long to be let in, and each kind has a bound of its own:
//!
//! - **A request that waits** for something that may never come (events, a pause, a store) keeps its connection for as
//!   long as that takes. Of each kind there are at most [`WAITING_MAX`]. The next request of that kind is refused with
//!   words, and all others go on. A request that ends a wait (removes a rule, thaws a device, releases a point) is of
//!   no such kind.
//! - **All other connections** are at most [`PASSING_MAX`] together. A connection keeps its place while its request is
//!   being worked on, which doesn't take long. A connection is *idle* if it asks nothing now, has asked half a
//!   question, or takes an answer slowly. The next connection takes the place of the one that has been idle for
//!   longest.
//!
//! # Crowds
//! A hundred scripts may ask at the same moment, all honest. So a connection is only idle once this process has looked
//! for input and found none, or has found no room for its answer. From then on its place is safe for [`ASKING_TIME`].
//! While there is no free place, the next connection waits in the kernel's queue, first come first served. Connections
//! that only hang on cost it that time and no more, and no byte that they send makes it longer.
//!
//! The bounds keep the descriptors of this port within [`DESCRIPTORS_MAX`], and the server sets so many aside.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ApiError;

/// Connections that wait for nothing: many scripts, and a small share of a process' descriptors.
pub(super) const PASSING_MAX: usize = 64;

/// How long a connection that has become idle keeps its place: time for a client that is about to ask. It is short
/// because a crowd that asks nothing frees only this many places in this time.
const ASKING_TIME: Duration = Duration::from_millis(25);

/// Requests of one kind that wait: more than people and scripts have at a time.
pub(super) const WAITING_MAX: usize = 32;

/// Descriptors of all connections together, and one that is accepted before another is closed for it.
pub(crate) const DESCRIPTORS_MAX: usize = PASSING_MAX + WAITING_KINDS * WAITING_MAX + 1;

const WAITING_KINDS: usize = 3;

/// What a request may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    /// Events that are yet to come.
    Events,
    /// A request to be paused at a point.
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
pub(super) struct Slots {
    inner: Mutex<Inner>,
    /// A place may be free. Only the task that accepts connections waits for that.
    room: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// Counts what happens: the lower of two numbers has been in its state for longer.
    clock: u64,
    open: BTreeMap<u64, Connection>,
    /// By [`Waiting`].
    waiting: [usize; WAITING_KINDS],
}

#[derive(Debug)]
struct Connection {
    doing: Doing,
    close: CancellationToken,
}

#[derive(Clone, Copy, Debug)]
enum Doing {
    /// It has come or was answered just now: what it does is seen when the socket is next looked at.
    Fresh,
    /// It has been doing nothing that is known since `at`. `clock` orders idle connections by age.
    Idle { clock: u64, at: Instant },
    /// Its request is being worked on.
    Asking,
    /// Its request waits.
    Waiting,
}

impl Inner {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn passing(&self) -> usize {
        let waits = |connection: &&Connection| matches!(connection.doing, Doing::Waiting);
        self.open.len() - self.open.values().filter(waits).count()
    }

    /// The connection that has been idle for longest, and since when.
    fn oldest(&self) -> Option<(u64, Instant)> {
        let idle = self.open.iter().filter_map(|(id, connection)| {
            let Doing::Idle { clock, at } = connection.doing else {
                return None;
            };
            Some((clock, *id, at))
        });
        idle.min_by_key(|(clock, ..)| *clock)
            .map(|(_, id, at)| (id, at))
    }

    fn close(&mut self, id: u64) {
        if let Some(connection) = self.open.remove(&id) {
            connection.close.cancel();
        }
    }

    /// Makes room for one more; otherwise says when there may be some, if that is known.
    fn make_room(&mut self, now: Instant) -> Result<(), Option<Instant>> {
        while self.passing() >= PASSING_MAX {
            let (id, since) = self.oldest().ok_or(None)?;
            let until = since + ASKING_TIME;
            if now < until {
                return Err(Some(until));
            }
            self.close(id);
        }
        Ok(())
    }
}

impl Slots {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new connection, at the cost of the oldest idle one if all are taken. Cancel safe.
    pub(super) async fn enter(self: &Arc<Self>) -> Slot {
        loop {
            let room = self.room.notified();
            let until = match self.try_enter() {
                Ok(slot) => return slot,
                Err(until) => until,
            };
            match until {
                // A connection that leaves sooner is noticed, too.
                Some(until) => drop(tokio::time::timeout_at(until, room).await),
                None => room.await,
            }
        }
    }

    fn try_enter(self: &Arc<Self>) -> Result<Slot, Option<Instant>> {
        let mut inner = self.lock();
        inner.make_room(Instant::now())?;
        let id = inner.tick();
        let close = CancellationToken::new();
        let connection = Connection {
            doing: Doing::Fresh,
            close: close.clone(),
        };
        inner.open.insert(id, connection);
        let slots = Arc::clone(self);
        Ok(Slot { slots, id, close })
    }

    /// Closes the oldest idle connection, if there is one, to free a descriptor.
    pub(super) fn close_oldest(&self) {
        let mut inner = self.lock();
        if let Some((id, _)) = inner.oldest() {
            inner.close(id);
        }
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
        self.slots.room.notify_one();
    }
}

/// The place of the connection that a request came by.
#[derive(Clone, Debug)]
pub(super) struct SlotHandle {
    slots: Arc<Slots>,
    id: u64,
}

impl SlotHandle {
    fn set(&self, doing: Doing) {
        if let Some(connection) = self.slots.lock().open.get_mut(&self.id) {
            connection.doing = doing;
        }
    }

    /// Keeps the connection while its request is worked on.
    fn work(&self) -> Works {
        self.set(Doing::Asking);
        Works(self.clone())
    }

    /// Keeps the connection while a request waits, if there is room for one of its kind.
    fn wait(&self, waiting: Waiting) -> Option<Waits> {
        let mut inner = self.slots.lock();
        if inner.waiting[waiting as usize] >= WAITING_MAX {
            return None;
        }
        // A connection that was closed meanwhile is about to end, with this request.
        inner.open.get_mut(&self.id)?.doing = Doing::Waiting;
        inner.waiting[waiting as usize] += 1;
        drop(inner);
        self.slots.room.notify_one();
        let handle = self.clone();
        Some(Waits { handle, waiting })
    }

    /// The connection asks nothing any more.
    fn rest(&self) {
        self.set(Doing::Fresh);
        self.slots.room.notify_one();
    }

    /// The client has sent nothing more, or doesn't take its answer.
    fn is_awaited(&self) {
        let mut inner = self.slots.lock();
        let clock = inner.tick();
        if let Some(connection) = inner.open.get_mut(&self.id)
            && matches!(connection.doing, Doing::Fresh)
        {
            let at = Instant::now();
            connection.doing = Doing::Idle { clock, at };
            drop(inner);
            self.slots.room.notify_one();
        }
    }
}

/// A connection's socket, which tells its place when it waits for the client.
pub(super) struct Watched<S> {
    stream: S,
    slot: SlotHandle,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, slot: SlotHandle) -> Self {
        Self { stream, slot }
    }

    fn note<T>(&self, outcome: Poll<T>) -> Poll<T> {
        if outcome.is_pending() {
            self.slot.is_awaited();
        }
        outcome
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_read(task, buffer);
        self.note(outcome)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(task, bytes);
        self.note(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(task, slices);
        self.note(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(task)
    }
}

/// A request that is worked on, until it is answered.
struct Works(SlotHandle);

impl Drop for Works {
    fn drop(&mut self) {
        self.0.rest();
    }
}

/// A request that waits, until it is answered.
struct Waits {
    handle: SlotHandle,
    waiting: Waiting,
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.handle.slots.lock().waiting[self.waiting as usize] -= 1;
        self.handle.rest();
    }
}

/// Lets a request that waits do so within its kind's budget. Its body has arrived.
pub(super) async fn admit(request: Request, next: Next) -> Response {
    let Some(handle) = request.extensions().get::<SlotHandle>().cloned() else {
        // Not by a socket.
        return next.run(request).await;
    };
    let Some(waiting) = Waiting::of(&request) else {
        let _works = handle.work();
        return next.run(request).await;
    };
    let Some(waits) = handle.wait(waiting) else {
        return waiting.refusal().into_response();
    };
    let response = next.run(request).await;
    if waiting != Waiting::Events {
        return response;
    }
    // The answer itself waits.
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _until_the_end = &waits;
            frame
        }))
    })
}

#[cfg(test)]
mod tests;
