//! A session: one connection from its handshake to its end.
//!
//! # One task
//! Everything that a connection does happens in one task, which is a loop of three steps:
//!
//! 1. take all requests that the input buffer holds, within limits, and answer what the cache has at hand inline;
//! 2. send all replies with as few vectored writes as possible, straight from the cache's pages;
//! 3. wait until there is input, room to write, a finished request, or a reason to stop.
//!
//! There are no channels and no second task, so nothing is copied, woken or counted between "reader" and "writer". A
//! request that can't be answered inline is a future in a set that the same task polls. Work that must not be dropped
//! half-way is completed by a task of the cache, so a session may end at any await and leave nothing inconsistent
//! behind. A request that hasn't begun by then never begins: a request of a client that is gone must not overtake what
//! others have been told since.
//!
//! # Order and limits
//! Replies come in the order in which requests finish. A FLUSH covers the writes that were *answered* before it was
//! sent, so it may run beside other requests. The session stops reading the socket when too much waits to be sent or
//! too many requests are under way. NBD has no other flow control.
//!
//! # When the server shuts down
//! When the server shuts down, a session takes no further request. It serves and answers the requests that it has
//! received, in whole or in part, as ever; then it closes the connection without a word. No request is answered with
//! ESHUTDOWN: the Linux kernel hands that up as an I/O error, and a file system then aborts its journal. A request
//! without an answer is sent again by a client that reconnects.
//!
//! - [`socket`](self::socket): the socket; [`input`](self::input), [`output`](self::output): its buffers;
//!   [`linger`](self::linger): its end
//! - [`handshake`](self::handshake): up to transmission; [`transmission`](self::transmission): the loop
//! - [`hangup`](self::hangup): noticing that the client is gone, and what that ends
//! - [`dispatch`](self::dispatch): requests to operations; [`reply`](self::reply): outcomes to replies;
//!   [`read`](self::read), [`receive`](self::receive): READ and WRITE; [`slow`](self::slow), [`status`](self::status):
//!   the rest
//! - [`watch`](self::watch): time limits; [`meter`](self::meter): statistics; [`faulted`](self::faulted): injected
//!   faults

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use weir_faults::Faults;
use weir_protocol::Request;

use crate::connection::{ConnectionGuard, ConnectionTable};
use crate::export::ExportTable;
use crate::limits::Timeouts;

mod dispatch;
mod end;
mod faulted;
mod handshake;
mod hangup;
mod input;
mod linger;
mod meter;
mod output;
mod pending;
mod read;
mod receive;
mod reply;
mod slow;
mod socket;
mod status;
mod transmission;
mod watch;

use self::end::End;
pub use self::socket::Socket;
use self::transmission::Transmission;

/// How long a client may take for its part when the server shuts down: to complete a request that it had begun to send,
/// to go on negotiating until it hears ERR_SHUTDOWN, and to close its end after the server has closed its own. Enough
/// for any round trip.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(500);

/// What all sessions of a server share.
#[derive(Debug)]
pub struct SessionContext {
    /// What is served.
    pub exports: Arc<ExportTable>,
    /// The server's injected faults.
    pub faults: Faults,
    /// Time limits.
    pub timeouts: Timeouts,
    /// The open connections.
    pub connections: Arc<ConnectionTable>,
    /// Cancelled when the server shuts down.
    pub shutdown: CancellationToken,
}

/// A request on its way to its reply.
#[derive(Clone, Copy, Debug)]
struct Ticket {
    request: Request,
    /// When the batch that it came in began.
    arrived: Instant,
}

/// Serves one client; returns when the connection is over.
pub async fn serve(stream: Socket, peer: String, context: Arc<SessionContext>) {
    let connection = context.connections.open(peer, &context.shutdown);
    let (id, peer) = (connection.id(), connection.peer());
    tracing::info!(connection = id, peer, "connection opened");
    let end = run(&stream, &connection, &context).await;
    let counts = connection.counts();
    tracing::info!(
        connection = id,
        peer,
        export = connection.export(),
        requests = counts.requests(),
        errors = counts.errors(),
        received = counts.received,
        sent = counts.sent,
        reason = %end,
        "connection closed"
    );
}

/// The whole life of a connection.
async fn run(stream: &Socket, connection: &ConnectionGuard, context: &SessionContext) -> End {
    serve_export(stream, connection, context)
        .await
        .unwrap_or_else(|end| end)
}

/// As [`run`]; an error is an end before the first request.
async fn serve_export(
    stream: &Socket,
    connection: &ConnectionGuard,
    context: &SessionContext,
) -> Result<End, End> {
    stream.set_nodelay()?;
    let (negotiated, rest) = handshake::negotiate(stream, connection, context).await?;
    let name = &negotiated.info.name;
    let export = context
        .exports
        .get(name)
        .ok_or_else(|| End::ExportGone(name.clone()))?;
    connection.set_export(name);
    Ok(
        Transmission::new(stream, connection, context, &export, &negotiated, &rest)
            .run()
            .await,
    )
}

#[cfg(test)]
mod tests;
