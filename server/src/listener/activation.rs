//! Sockets that the service manager has opened already (systemd's `LISTEN_FDS`).
//!
//! While the service restarts, clients queue there instead of being refused. A socket that the socket unit calls
//! `admin` (`FileDescriptorName=admin`) is the admin port; all others are for NBD.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use listenfd::ListenFd;
use nix::sys::socket::sockopt::AcceptConn;
use nix::sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage, getsockname, getsockopt};

use super::{BindError, Listener};

/// What the admin port's socket is called.
const ADMIN_NAME: &str = "admin";

/// What the service manager has handed over.
#[derive(Debug, Default)]
pub struct Inherited {
    /// For NBD, in the order of the socket unit.
    pub listeners: Vec<Listener>,
    /// For the admin port.
    pub admin: Option<Listener>,
}

/// The inherited sockets; there are none outside of a service. Needs a runtime.
///
/// # Errors
/// A descriptor isn't a listening stream socket, or there are two for the admin port.
pub fn inherited() -> Result<Inherited, BindError> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut descriptors = ListenFd::from_env();
    let mut inherited = Inherited::default();
    for index in 0..descriptors.len() {
        let name = names.next().unwrap_or_default();
        let listener = take(&mut descriptors, index).map_err(|source| BindError::Inherited {
            index,
            name: name.to_owned(),
            source,
        })?;
        if name != ADMIN_NAME {
            inherited.listeners.push(listener);
        } else if inherited.admin.replace(listener).is_some() {
            return Err(BindError::InheritedTwice);
        }
    }
    Ok(inherited)
}

fn take(descriptors: &mut ListenFd, index: usize) -> io::Result<Listener> {
    // The call refuses what isn't a Unix stream socket, without consuming it.
    if let Ok(Some(listener)) = descriptors.take_unix_listener(index) {
        check_listening(&listener)?;
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
        return Err(invalid("it is neither TCP nor Unix"));
    }
    check_listening(&listener)?;
    listener.set_nonblocking(true)?;
    Ok(Listener::Tcp(tokio::net::TcpListener::from_std(listener)?))
}

/// A connection (`Accept=yes`) is a stream socket too, and would fail at every accept.
fn check_listening(socket: &impl AsFd) -> io::Result<()> {
    if getsockopt(socket, AcceptConn)? {
        Ok(())
    } else {
        Err(invalid("it doesn't listen; a socket unit needs Accept=no"))
    }
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason)
}
