//! Closing a connection whose client may still be sending.
//!
//! Closing a socket that has unread bytes resets the connection, and over TCP a reset throws away replies that are
//! still on their way. So the server ends its own half, which the client sees as the end of the stream behind the last
//! reply. It then throws away what comes until the client closes too.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use super::socket::Socket;
use crate::connection::Connection;

/// How much is thrown away at once.
const WASTE_BYTES: usize = 64 << 10;

/// Ends the stream towards the client, and waits at most `time` for the client to end its own.
pub(super) async fn linger(stream: &Socket, connection: &Connection, time: Duration) {
    if stream.shutdown_write().is_err() {
        // The client has gone already.
        return;
    }
    tokio::select! {
        () = connection.kill_token().cancelled() => {}
        // The connection is closed however this ends.
        _ = tokio::time::timeout(time, drain(stream)) => {}
    }
}

async fn drain(stream: &Socket) -> io::Result<()> {
    let mut waste = vec![0; WASTE_BYTES];
    loop {
        poll_fn(|task| stream.poll_read_ready(task)).await?;
        match stream.try_read(&mut waste) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
