//! Sockets that the service manager has opened already (systemd's `LISTEN_FDS`).
//!
//! While the service restarts, clients queue there instead of being refused.

use std::io;

use listenfd::ListenFd;
use nix::sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage, getsockname};
use std::os::fd::AsRawFd;

use super::{BindError, Listener};

/// The inherited sockets, in the order of the socket unit; none outside of a service. Needs a runtime.
///
/// # Errors
/// A descriptor that is no listening stream socket.
pub fn inherited() -> Result<Vec<Listener>, BindError> {
    let mut descriptors = ListenFd::from_env();
    (0..descriptors.len())
        .map(|index| take(&mut descriptors, index).map_err(BindError::Inherited))
        .collect()
}

fn take(descriptors: &mut ListenFd, index: usize) -> io::Result<Listener> {
    // Refuses what isn't a listening Unix stream socket without consuming it.
    if let Ok(Some(listener)) = descriptors.take_unix_listener(index) {
        listener.set_nonblocking(true)?;
        return Ok(Listener::Unix(
            tokio::net::UnixListener::from_std(listener)?,
            None,
        ));
    }
    let listener = descriptors
        .take_tcp_listener(index)?
        .ok_or(io::ErrorKind::NotFound)?;
    let family = getsockname::<SockaddrStorage>(listener.as_raw_fd())?.family();
    if !matches!(family, Some(AddressFamily::Inet | AddressFamily::Inet6)) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "neither TCP nor Unix",
        ));
    }
    listener.set_nonblocking(true)?;
    Ok(Listener::Tcp(tokio::net::TcpListener::from_std(listener)?))
}
